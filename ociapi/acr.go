package ociapi

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// The calls below /acr/v1 are the registry's own: what is known of
// repositories, manifests and tags, and their locks.

var (
	repositoryMethods = methods{{http.MethodGet, RepositoryGet}, {http.MethodPatch, RepositoryLock}, {http.MethodDelete, RepositoryDelete}}
	tagsMethods       = methods{{http.MethodGet, TagInfoList}}
	tagMethods        = methods{{http.MethodGet, TagInfoGet}, {http.MethodPatch, TagLock}, {http.MethodDelete, TagDelete}}
	manifestsMethods  = methods{{http.MethodGet, ManifestInfoList}}
	manifestInfos     = methods{{http.MethodGet, ManifestInfoGet}, {http.MethodPatch, ManifestLock}}
	acrCatalogMethods = methods{{http.MethodGet, RepositoryList}}
)

// routeACR reads a path below /acr/v1. Published clients escape the slashes of
// a repository's name and the colon of a digest, others do not: here, and only
// here, each has these two spellings.
func routeACR(rest string) (Call, methods, error) {
	rest = escapes.Replace(rest)
	if rest == "_catalog" {
		return Call{}, acrCatalogMethods, nil
	}
	if strings.HasPrefix(rest, "_deleted/") { // az asks again and again unless it is told at once that this is not here
		return Call{}, nil, oci.ErrUnsupported.Detail("soft delete is not in this version: what is deleted is not kept")
	}
	i := max(strings.LastIndexByte(rest, '/'), 0)
	head, last := rest[:i], strings.TrimPrefix(rest[i:], "/")
	if name, ok := strings.CutSuffix(rest, "/_tags"); ok {
		return named(name, tagsMethods)
	}
	if name, ok := strings.CutSuffix(rest, "/_manifests"); ok {
		return named(name, manifestsMethods)
	}
	if name, ok := strings.CutSuffix(head, "/_tags"); ok {
		c, m, err := named(name, tagMethods)
		if err == nil {
			c.Reference.Tag, err = oci.ParseTag(last)
		}
		return c, m, err
	}
	if name, ok := strings.CutSuffix(head, "/_manifests"); ok {
		c, m, err := named(name, manifestInfos)
		if err == nil {
			c.Reference.Digest, err = oci.ParseDigest(last)
		}
		return c, m, err
	}
	return named(rest, repositoryMethods)
}

var escapes = strings.NewReplacer("%2F", "/", "%2f", "/", "%3A", ":", "%3a", ":")

// orders are the words of the parameter orderby.
var orders = map[string]content.Order{"": content.ByName, "none": content.ByName, "timeasc": content.OldestFirst, "timedesc": content.NewestFirst}

// lastOf checks the last entry that a page of a list follows.
var lastOf = map[Kind]func(string) error{
	RepositoryList:   func(s string) error { _, err := oci.ParseRepo(s); return err },
	TagInfoList:      func(s string) error { _, err := oci.ParseTag(s); return err },
	ManifestInfoList: func(s string) error { _, err := oci.ParseDigest(s); return err },
}

// listing reads the parameters of a list. at belongs to our own links: the
// time of the entry last, which may be gone when the next page is asked for.
func (c *Call) listing(q url.Values, last func(string) error) error {
	if err := c.page(q, catalogPage, last); err != nil {
		return err
	}
	word, err := one(q, "orderby")
	if err != nil {
		return err
	}
	order, ok := orders[strings.ToLower(word)]
	if !ok {
		return fault.Newf(fault.Invalid, "orderby is none, timeasc or timedesc")
	}
	c.List = content.Listing{Order: order}
	if on, err := one(q, "digest"); err != nil {
		return err
	} else if on != "" {
		if c.List.On, err = oci.ParseDigest(on); err != nil {
			return err
		}
	}
	at, err := one(q, "at")
	if err != nil {
		return err
	}
	if order != content.ByName && c.Page.Last != "" {
		micros, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			return fault.Newf(fault.Invalid, "a list in the order of time is continued by its own link")
		}
		c.List.At = time.UnixMicro(micros)
	}
	return nil
}

// inventory is the listing with its page. n=0 is answered as n=1 by the store
// and cut by the caller.
func (x *exchange) inventory() content.Listing {
	l := x.call.List
	l.Page = x.call.Page
	l.N = max(l.N, 1)
	return l
}

// nextInfo says where a list goes on.
func (x *exchange) nextInfo(path, last string, at time.Time) {
	q := url.Values{"last": {last}, "n": {strconv.Itoa(x.call.Page.N)}}
	if x.call.List.Order != content.ByName {
		word := "timeasc"
		if x.call.List.Order == content.NewestFirst {
			word = "timedesc"
		}
		q.Set("orderby", word)
		q.Set("at", strconv.FormatInt(at.UnixMicro(), 10))
	}
	if !x.call.List.On.IsZero() {
		q.Set("digest", x.call.List.On.String())
	}
	x.w.Header().Set("Link", "<"+path+"?"+q.Encode()+`>; rel="next"`)
}

// stamp is a time as the registry's own API writes it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

// attributes are locks in the words of the API, which says what may be done.
type attributes struct {
	Delete *bool `json:"deleteEnabled,omitempty"`
	Write  *bool `json:"writeEnabled,omitempty"`
	List   *bool `json:"listEnabled,omitempty"`
	Read   *bool `json:"readEnabled,omitempty"`
}

func attributesOf(l content.Locks) attributes {
	may := func(lock content.Locks) *bool { yes := !l.Has(lock); return &yes }
	return attributes{may(content.NoDelete), may(content.NoWrite), may(content.NoList), may(content.NoRead)}
}

// locks are those that the attributes set and clear.
func (a attributes) locks() (set, clear content.Locks) {
	for lock, may := range map[content.Locks]*bool{content.NoDelete: a.Delete, content.NoWrite: a.Write, content.NoList: a.List, content.NoRead: a.Read} {
		switch {
		case may == nil:
		case *may:
			clear |= lock
		default:
			set |= lock
		}
	}
	return set, clear
}

// maxAttributes bounds the body of a lock.
const maxAttributes = 4 << 10

func readAttributes(x *exchange) (attributes, error) {
	var a attributes
	b, err := io.ReadAll(http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, maxAttributes))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		return a, fault.Newf(fault.Invalid, "the body must be an object of deleteEnabled, writeEnabled, listEnabled and readEnabled, each true or false")
	}
	return a, nil
}

func (s *Server) repositoryList(x *exchange) error {
	list, more, err := s.names(x, func(p content.Page) ([]string, bool, error) {
		return s.Content.Repositories(x.r.Context(), x.key.Registry, p)
	})
	if err != nil {
		return err
	}
	if more {
		x.nextInfo("/acr/v1/_catalog", list[len(list)-1], time.Time{})
	}
	return x.json(typeJSON, struct {
		Repositories []string `json:"repositories"`
	}{list})
}

func (s *Server) repositoryGet(x *exchange) error {
	r, err := s.Content.Repository(x.r.Context(), x.key)
	if err != nil {
		return err
	}
	return x.json(typeJSON, struct {
		Registry   string     `json:"registry"`
		Name       string     `json:"imageName"`
		Created    string     `json:"createdTime"`
		Changed    string     `json:"lastUpdateTime"`
		Manifests  int64      `json:"manifestCount"`
		Tags       int64      `json:"tagCount"`
		Attributes attributes `json:"changeableAttributes"`
	}{x.ev.Host, x.call.Repo.String(), stamp(r.Created), stamp(r.Changed), r.Manifests, r.Tags, attributesOf(r.Locks)})
}

func (s *Server) repositoryLock(x *exchange) error {
	a, err := readAttributes(x)
	if err != nil {
		return err
	}
	set, clear := a.locks()
	if err := s.Content.LockRepository(x.r.Context(), x.key, set, clear); err != nil {
		return err
	}
	return s.repositoryGet(x)
}

func (s *Server) repositoryDelete(x *exchange) error {
	x.note(opDelete)
	manifests, tags, err := s.Content.DeleteRepository(x.r.Context(), x.key)
	if err != nil {
		return err
	}
	return x.jsonAs(http.StatusAccepted, typeJSON, struct {
		Manifests []string `json:"manifestsDeleted"`
		Tags      []string `json:"tagsDeleted"`
	}{some(manifests), some(tags)})
}

// some is a list that is never null.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

type wireTag struct {
	Name       string     `json:"name"`
	Digest     string     `json:"digest"`
	Created    string     `json:"createdTime"`
	Changed    string     `json:"lastUpdateTime"`
	Signed     bool       `json:"signed"`
	Attributes attributes `json:"changeableAttributes"`
}

func tagShown(t content.TagInfo) wireTag {
	return wireTag{t.Name, t.Digest.String(), stamp(t.Created), stamp(t.Changed), false, attributesOf(t.Locks)}
}

func (s *Server) tagInfoList(x *exchange) error {
	list, more, err := s.Content.TagInfos(x.r.Context(), x.key, x.inventory())
	if err != nil {
		return err
	}
	if x.call.Page.N == 0 {
		list, more = nil, false
	}
	tags := make([]wireTag, len(list))
	for i, t := range list {
		tags[i] = tagShown(t)
	}
	if more {
		end := list[len(list)-1]
		x.nextInfo("/acr/v1/"+x.call.Repo.String()+"/_tags", end.Name, end.Changed)
	}
	return x.json(typeJSON, struct {
		Registry string    `json:"registry"`
		Name     string    `json:"imageName"`
		Tags     []wireTag `json:"tags"`
	}{x.ev.Host, x.call.Repo.String(), tags})
}

func (s *Server) tagInfoGet(x *exchange) error {
	t, err := s.Content.TagInfo(x.r.Context(), x.key, x.call.Reference.Tag)
	if err != nil {
		return err
	}
	return x.json(typeJSON, struct {
		Registry string  `json:"registry"`
		Name     string  `json:"imageName"`
		Tag      wireTag `json:"tag"`
	}{x.ev.Host, x.call.Repo.String(), tagShown(t)})
}

func (s *Server) tagLock(x *exchange) error {
	a, err := readAttributes(x)
	if err != nil {
		return err
	}
	set, clear := a.locks()
	if err := s.Content.LockTag(x.r.Context(), x.key, x.call.Reference.Tag, set, clear); err != nil {
		return err
	}
	return s.tagInfoGet(x)
}

type wirePlatform struct {
	Digest       string `json:"digest"`
	Architecture string `json:"architecture,omitempty"`
	OS           string `json:"os,omitempty"`
}

type wireManifestInfo struct {
	Digest          string         `json:"digest"`
	ImageSize       int64          `json:"imageSize"`
	Created         string         `json:"createdTime"`
	Changed         string         `json:"lastUpdateTime"`
	Architecture    string         `json:"architecture,omitempty"`
	OS              string         `json:"os,omitempty"`
	MediaType       string         `json:"mediaType"`
	ConfigMediaType string         `json:"configMediaType,omitempty"`
	ArtifactType    string         `json:"artifactType,omitempty"`
	Tags            []string       `json:"tags,omitempty"`
	References      []wirePlatform `json:"references,omitempty"`
	Attributes      attributes     `json:"changeableAttributes"`
}

func manifestShown(m content.ManifestInfo) wireManifestInfo {
	if m.ArtifactType == m.ConfigMediaType {
		m.ArtifactType = "" // an image says what it is by its config
	}
	out := wireManifestInfo{
		Digest: m.Digest.String(), ImageSize: m.ImageSize, Created: stamp(m.Pushed), Changed: stamp(m.Pushed),
		Architecture: m.Architecture, OS: m.OS, MediaType: m.MediaType, ConfigMediaType: m.ConfigMediaType, ArtifactType: m.ArtifactType,
		Tags: m.Tags, Attributes: attributesOf(m.Locks),
	}
	for _, r := range m.References {
		out.References = append(out.References, wirePlatform{r.Digest.String(), r.Architecture, r.OS})
	}
	return out
}

func (s *Server) manifestInfoList(x *exchange) error {
	list, more, err := s.Content.ManifestInfos(x.r.Context(), x.key, x.inventory())
	if err != nil {
		return err
	}
	if x.call.Page.N == 0 {
		list, more = nil, false
	}
	manifests := make([]wireManifestInfo, len(list))
	for i, m := range list {
		manifests[i] = manifestShown(m)
	}
	if more {
		end := list[len(list)-1]
		x.nextInfo("/acr/v1/"+x.call.Repo.String()+"/_manifests", end.Digest.String(), end.Pushed)
	}
	return x.json(typeJSON, struct {
		Registry  string             `json:"registry"`
		Name      string             `json:"imageName"`
		Manifests []wireManifestInfo `json:"manifests"`
	}{x.ev.Host, x.call.Repo.String(), manifests})
}

func (s *Server) manifestInfoGet(x *exchange) error {
	m, err := s.Content.ManifestInfo(x.r.Context(), x.key, x.call.Reference.Digest)
	if err != nil {
		return err
	}
	return x.json(typeJSON, struct {
		Registry string           `json:"registry"`
		Name     string           `json:"imageName"`
		Manifest wireManifestInfo `json:"manifest"`
	}{x.ev.Host, x.call.Repo.String(), manifestShown(m)})
}

func (s *Server) manifestLock(x *exchange) error {
	a, err := readAttributes(x)
	if err != nil {
		return err
	}
	set, clear := a.locks()
	if err := s.Content.LockManifest(x.r.Context(), x.key, x.call.Reference.Digest, set, clear); err != nil {
		return err
	}
	return s.manifestInfoGet(x)
}
