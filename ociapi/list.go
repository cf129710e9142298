package ociapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"cove.example/cove/content"
)

const (
	typeJSON  = "application/json; charset=utf-8"
	typeIndex = "application/vnd.oci.image.index.v1+json"
)

func (s *Server) ping(x *exchange) error {
	return x.json(typeJSON, struct{}{})
}

func (s *Server) catalog(x *exchange) error {
	list, more, err := s.names(x, func(p content.Page) ([]string, bool, error) {
		return s.Content.Repositories(x.r.Context(), x.key.Registry, p)
	})
	if err != nil {
		return err
	}
	if more {
		x.next("/v2/_catalog", list[len(list)-1], "")
	}
	return x.json(typeJSON, struct {
		Repositories []string `json:"repositories"`
	}{list})
}

func (s *Server) tagList(x *exchange) error {
	list, more, err := s.names(x, func(p content.Page) ([]string, bool, error) {
		return s.Content.Tags(x.r.Context(), x.key, p)
	})
	if err != nil {
		return err
	}
	name := x.call.Repo.String()
	if more {
		x.next("/v2/"+name+"/tags/list", list[len(list)-1], "")
	}
	return x.json(typeJSON, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{name, list})
}

// names fetches a page. n=0 gives an empty list without a Link, and still
// says when there is nothing to list from.
func (s *Server) names(x *exchange, fetch func(content.Page) ([]string, bool, error)) ([]string, bool, error) {
	p := x.call.Page
	p.N = max(p.N, 1)
	list, more, err := fetch(p)
	if err != nil {
		return nil, false, err
	}
	if x.call.Page.N == 0 || len(list) == 0 {
		return []string{}, false, nil
	}
	return list, more, nil
}

// next says where the list goes on. Relative, so that it holds behind any
// name that the registry is reached by.
func (x *exchange) next(path, last, artifactType string) {
	q := "?last=" + url.QueryEscape(last) + "&n=" + strconv.Itoa(x.call.Page.N)
	if artifactType != "" {
		q += "&artifactType=" + url.QueryEscape(artifactType)
	}
	x.w.Header().Set("Link", "<"+path+q+`>; rel="next"`)
}

type wireDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// referrers lists what points at a manifest. Its entries carry annotations of
// up to a manifest's size, so content ends a page early when they are large.
func (s *Server) referrers(x *exchange) error {
	p := x.call.Page
	p.N = max(p.N, 1)
	list, more, err := s.Content.Referrers(x.r.Context(), x.key, x.call.Digest, x.call.ArtifactType, p)
	if err != nil {
		return err
	}
	if x.call.Page.N == 0 {
		list, more = nil, false
	}
	manifests := make([]wireDescriptor, len(list))
	for i, d := range list {
		manifests[i] = wireDescriptor{d.MediaType, d.Digest.String(), d.Size, d.ArtifactType, d.Annotations}
	}
	if x.call.ArtifactType != "" {
		x.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if more && len(list) > 0 {
		path := "/v2/" + x.call.Repo.String() + "/referrers/" + x.call.Digest.String()
		x.next(path, list[len(list)-1].Digest.String(), x.call.ArtifactType)
	}
	return x.json(typeIndex, struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     []wireDescriptor `json:"manifests"`
	}{2, typeIndex, manifests})
}

// json answers 200 with a document.
func (x *exchange) json(contentType string, v any) error {
	return x.jsonAs(http.StatusOK, contentType, v)
}

func (x *exchange) jsonAs(status int, contentType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	x.w.Header().Set("Content-Type", contentType)
	x.w.WriteHeader(status)
	x.w.Write(append(b, '\n')) // a failure is the caller's going away
	return nil
}
