package ociapi

import (
	"encoding/xml"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// askData asks the guard about a request to a data host. ours is false where
// the host is none: the request is then any other.
//
// The link in the URL is the credential there. An Authorization header is for
// another host and is refused, never looked at: clients that carry theirs
// along a redirect must learn that they do (source: the storage services that
// registries' links lead to).
func (s *Server) askData(x *exchange, ask access.Ask) (v access.Verdict, ours bool) {
	// A cheap look first. A registry suffix may have a label of that name
	// too, so it is the registry that has the last word.
	if labels := strings.SplitN(x.ev.Host, ".", 4); len(labels) < 4 || labels[2] != "data" {
		return v, false
	}
	ask.Want, ask.Digest = nil, ""
	if x.call.Kind == BlobGet || x.call.Kind == BlobHead {
		ask.Want, ask.Digest = pull(x.call), x.call.Digest.String()
	}
	_, query, _ := strings.Cut(x.r.RequestURI, "?")
	ask.Link = "?" + query
	v = s.Guard.Check(x.r.Context(), ask)
	if v.Registry != nil && !slices.Contains(v.Registry.DataHosts, x.ev.Host) {
		return access.Verdict{}, false
	}
	return v, true
}

// data answers at a data host, which has downloads and nothing else.
func (s *Server) data(x *exchange, v access.Verdict) error {
	x.ev.verdict, x.data = v, true
	switch {
	case !v.Allow && !aboutTheLink(v):
		return v.Err()
	case x.call.Kind != BlobGet && x.call.Kind != BlobHead:
		x.ev.undecided = true
		return errNoRoute
	case !v.Allow:
		x.ev.Table, x.ev.Operation = loginEvents, opLogin
		return v.Err()
	}
	x.key.Registry, x.key.Repo = v.Registry.UID, x.call.Repo
	defer s.attend(x, v.Ask)()
	return rows[x.call.Kind].serve(s, x)
}

// aboutTheLink tells the noes that are a storage service's from those that
// every host says alike: the network's, and that one is to try later.
func aboutTheLink(v access.Verdict) bool {
	return v.Refusal == access.Unauthenticated || v.Refusal == access.Permission
}

// redirect sends the caller to the data host for a blob that is there. The
// address holds a link for this blob and this caller, and no credential.
func (s *Server) redirect(x *exchange) error {
	if _, err := s.Content.StatBlob(x.r.Context(), x.key, x.call.Digest); err != nil {
		return err
	}
	v, digest := x.ev.verdict, x.call.Digest.String()
	link, err := s.Guard.Link(v, x.call.Repo.String(), digest)
	if err != nil {
		return err
	}
	scheme, host := "https://", s.nearest(v.Registry, x.ev.Host)
	if port := s.ownPort(x); port != "" {
		scheme, host = "http://", net.JoinHostPort(host, port)
	}
	h := x.w.Header()
	h["Docker-Content-Digest"] = []string{digest}
	h["Location"] = []string{scheme + host + "/v2/" + x.call.Repo.String() + "/blobs/" + digest + "?" + link}
	h["Content-Length"] = []string{"0"}
	x.w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// away reports whether a blob is to be fetched from a data host.
func (x *exchange) away() bool {
	r := x.ev.verdict.Registry
	return r.DataEndpoint && !x.data && len(r.DataHosts) > 0
}

// nearest is the data host of the region that the caller came to: the one in
// the name of a regional endpoint, else the one that the global name leads to
// now. Where that has none it is the registry's home, which is first.
func (s *Server) nearest(r *registry.Settings, host string) string {
	region := ""
	if s.Route != nil {
		region = s.Route(r.Routed)
	}
	_, rest, _ := strings.Cut(host, ".")
	if named, _, ok := strings.Cut(rest, ".geo."); ok && slices.Contains(r.RegionalHosts, host) {
		region = named
	}
	for _, h := range r.DataHosts {
		if labels := strings.SplitN(h, ".", 3); len(labels) == 3 && labels[1] == region {
			return h
		}
	}
	return r.DataHosts[0]
}

// ownPort is the port of the plain listener where the caller has named it in
// its Host, and so reached us without the operator's TLS in between; else "".
func (s *Server) ownPort(x *exchange) string {
	_, port, err := net.SplitHostPort(x.r.Host)
	if !s.PlainHTTP || err != nil || port != strconv.Itoa(int(x.ev.origin.Local.Port())) {
		return ""
	}
	return port
}

// storageError is a refusal in the words of the storage services that clients
// know links from. Their Authorization code and its sentence are what people
// search for when a client has carried its credential along.
type storageError struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
	status  int
}

// storage makes a storageError of the guard's no at a data host; false is for
// what every host answers alike.
func storage(err error, id string, now time.Time) (storageError, bool) {
	refused, ok := errors.AsType[*access.Refused](err)
	if !ok || !aboutTheLink(refused.Verdict) {
		return storageError{}, false
	}
	e := storageError{
		Code: "AuthenticationFailed", status: http.StatusForbidden,
		Message: "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
	}
	if refused.Verdict.Reason == string(reason.ForeignCredential) {
		e.Code, e.status = "InvalidAuthenticationInfo", http.StatusBadRequest
		e.Message = "Authentication information is not given in the correct format. Check the value of Authorization header."
	}
	e.Message += "\nRequestId:" + id + "\nTime:" + now.UTC().Format("2006-01-02T15:04:05.0000000Z")
	return e, true
}

func (e storageError) encode() []byte {
	b, err := xml.Marshal(e)
	if err != nil {
		panic("ociapi: an error that is not XML: " + err.Error())
	}
	return append([]byte(xml.Header), b...)
}
