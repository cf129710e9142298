package ociapi

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// Limits of what is parsed.
const (
	maxURL        = 8 << 10 // bytes of path and query together
	maxParameters = 100
	maxPage       = 1000 // entries of one list answer
	catalogPage   = 100  // of a catalog when the caller names no number
)

// Kind is what a request asks for.
type Kind uint8

// The kinds. NoCall is what cannot be parsed.
const (
	NoCall Kind = iota
	Ping
	Catalog
	TagList
	Referrers
	ManifestGet
	ManifestHead
	ManifestPut
	ManifestDelete
	BlobGet
	BlobHead
	BlobDelete
	UploadStart
	UploadMount
	UploadWhole // a POST that carries the blob
	UploadStatus
	UploadAppend
	UploadFinish
	UploadCancel

	// Below /acr/v1.
	RepositoryList
	RepositoryGet
	RepositoryLock
	RepositoryDelete
	TagInfoList
	TagInfoGet
	TagLock
	TagDelete
	ManifestInfoList
	ManifestInfoGet
	ManifestLock
	kinds
)

var kindNames = [kinds]string{
	"NoCall", "Ping", "Catalog", "TagList", "Referrers",
	"ManifestGet", "ManifestHead", "ManifestPut", "ManifestDelete",
	"BlobGet", "BlobHead", "BlobDelete",
	"UploadStart", "UploadMount", "UploadWhole", "UploadStatus", "UploadAppend", "UploadFinish", "UploadCancel",
	"RepositoryList", "RepositoryGet", "RepositoryLock", "RepositoryDelete",
	"TagInfoList", "TagInfoGet", "TagLock", "TagDelete", "ManifestInfoList", "ManifestInfoGet", "ManifestLock",
}

func (k Kind) String() string { return kindNames[k] }

// Call is a request as the specification means it. Only what belongs to its
// Kind is set.
type Call struct {
	Kind         Kind
	Repo         oci.Repo
	Reference    oci.Reference // of manifests
	Digest       oci.Digest    // of blobs, finished uploads, mounts; a referrers' subject
	Upload       string        // session id
	From         oci.Repo      // the mount's source
	Algorithm    string        // digest algorithm of a started upload, "" is the default
	Tags         []oci.Tag     // further tags of a manifest put by digest
	ArtifactType string        // filter of referrers
	Page         content.Page
	List         content.Listing // how a list of /acr/v1 is ordered and filtered; its own Page is not set
}

// ParseCall makes a Call of a method and a request target as the request line
// carries it. It compares, it does not clean: the names' grammars leave no
// room for percent signs, dot segments, double slashes, backslashes, absolute
// targets or trailing slashes, so each call has one spelling of its path; but
// the slashes inside a repository's name may be escaped.
//
// Errors are oci sentinels, errNoRoute, errTooLong, a methodError or a
// fault.Invalid for parameters.
func ParseCall(method, target string) (Call, error) {
	if len(target) > maxURL {
		return Call{}, errTooLong
	}
	path, query, _ := strings.Cut(target, "?")
	c, allowed, err := route(path)
	if err != nil {
		return Call{}, err
	}
	kind, ok := allowed.kind(method)
	if !ok {
		return Call{}, methodError{allowed}
	}
	q, err := parseQuery(query)
	if err != nil {
		return Call{}, err
	}
	c.Kind = kind
	if err := c.parameters(q); err != nil {
		return Call{}, err
	}
	return c, nil
}

// methods is which kinds a path has, by method.
type methods []struct {
	method string
	kind   Kind
}

func (m methods) kind(method string) (Kind, bool) {
	for _, row := range m {
		if row.method == method {
			return row.kind, true
		}
	}
	return NoCall, false
}

func (m methods) String() string {
	names := make([]string, len(m))
	for i, row := range m {
		names[i] = row.method
	}
	return strings.Join(names, ", ")
}

var (
	pingMethods      = methods{{http.MethodGet, Ping}, {http.MethodHead, Ping}}
	catalogMethods   = methods{{http.MethodGet, Catalog}, {http.MethodHead, Catalog}}
	tagListMethods   = methods{{http.MethodGet, TagList}, {http.MethodHead, TagList}}
	referrersMethods = methods{{http.MethodGet, Referrers}, {http.MethodHead, Referrers}}
	manifestMethods  = methods{
		{http.MethodGet, ManifestGet},
		{http.MethodHead, ManifestHead},
		{http.MethodPut, ManifestPut},
		{http.MethodDelete, ManifestDelete},
	}
	blobMethods    = methods{{http.MethodGet, BlobGet}, {http.MethodHead, BlobHead}, {http.MethodDelete, BlobDelete}}
	uploadsMethods = methods{{http.MethodPost, UploadStart}}
	uploadMethods  = methods{
		{http.MethodGet, UploadStatus},
		{http.MethodHead, UploadStatus},
		{http.MethodPatch, UploadAppend},
		{http.MethodPut, UploadFinish},
		{http.MethodDelete, UploadCancel},
	}
)

// route reads a path from its end, because a repository may itself be called
// a/blobs/uploads or manifests/tags.
func route(path string) (Call, methods, error) {
	if below, ok := strings.CutPrefix(path, "/acr/v1/"); ok {
		return routeACR(below)
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2", ok && rest == "":
		return Call{}, pingMethods, nil
	case !ok:
		return Call{}, nil, errNoRoute
	case rest == "_catalog":
		return Call{}, catalogMethods, nil
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return named(name, tagListMethods)
	}
	if name, ok := strings.CutSuffix(rest, "/blobs/uploads/"); ok {
		return named(name, uploadsMethods)
	}
	i := max(strings.LastIndexByte(rest, '/'), 0)
	head, last := rest[:i], strings.TrimPrefix(rest[i:], "/")
	if name, ok := strings.CutSuffix(head, "/blobs/uploads"); ok {
		c, m, err := named(name, uploadMethods)
		if err == nil && !sessionID(last) {
			err = oci.ErrBlobUploadUnknown
		}
		c.Upload = last
		return c, m, err
	}
	if name, ok := strings.CutSuffix(head, "/manifests"); ok {
		c, m, err := named(name, manifestMethods)
		if err == nil {
			c.Reference, err = oci.ParseReference(last)
		}
		return c, m, err
	}
	if name, ok := strings.CutSuffix(head, "/blobs"); ok {
		c, m, err := named(name, blobMethods)
		if err == nil {
			c.Digest, err = oci.ParseDigest(last)
		}
		return c, m, err
	}
	if name, ok := strings.CutSuffix(head, "/referrers"); ok {
		c, m, err := named(name, referrersMethods)
		if err == nil {
			c.Digest, err = oci.ParseDigest(last)
		}
		return c, m, err
	}
	return Call{}, nil, errNoRoute
}

// named is a path about a repository. Azure's SDKs escape the slashes of a
// name. They are read when the path has been taken apart by its own slashes,
// from its end: written plainly, such a path is the same call.
func named(name string, m methods) (Call, methods, error) {
	repo, err := oci.ParseRepo(slashes.Replace(name))
	return Call{Repo: repo}, m, err
}

var slashes = strings.NewReplacer("%2F", "/", "%2f", "/")

// sessionID reports whether s can be an upload's id: what content makes, and
// nothing that means anything to a file system or a database.
func sessionID(s string) bool {
	return s != "" && len(s) <= 128 &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// parseQuery is url.ParseQuery with a bound on the number of parameters.
func parseQuery(raw string) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	if strings.Count(raw, "&") >= maxParameters {
		return nil, fault.Newf(fault.Invalid, "more than %d parameters", maxParameters)
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "the query is not well-formed")
	}
	return q, nil
}

// one returns the only value of a parameter, "" when it is absent. Two values
// are an error: whichever is chosen, something in front of us may have
// judged by the other.
func one(q url.Values, name string) (string, error) {
	switch v := q[name]; len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	}
	return "", fault.Newf(fault.Invalid, "the parameter %s is given more than once", name)
}

// parameters reads those of c's kind. Others are ignored, as clients and
// proxies add their own.
func (c *Call) parameters(q url.Values) error {
	switch c.Kind {
	case RepositoryList, TagInfoList, ManifestInfoList:
		return c.listing(q, lastOf[c.Kind])
	case Catalog:
		return c.page(q, catalogPage, func(last string) error { _, err := oci.ParseRepo(last); return err })
	case TagList:
		return c.page(q, maxPage, func(last string) error { _, err := oci.ParseTag(last); return err })
	case Referrers:
		if err := c.filter(q); err != nil {
			return err
		}
		return c.page(q, maxPage, func(last string) error { _, err := oci.ParseDigest(last); return err })
	case ManifestPut:
		return c.tags(q)
	case UploadStart:
		return c.start(q)
	case UploadFinish:
		d, err := one(q, "digest")
		if err == nil {
			c.Digest, err = oci.ParseDigest(d)
		}
		return err
	}
	return nil
}

// page reads n and last. n is a plain number; what is over the maximum is the
// maximum (CVE-2023-2253: a size from the query that was allocated).
func (c *Call) page(q url.Values, ordinary int, last func(string) error) (err error) {
	c.Page.N = ordinary
	if q.Has("n") {
		n, err := one(q, "n")
		if err != nil {
			return err
		}
		if n == "" || strings.Trim(n, "0123456789") != "" {
			return fault.Newf(fault.Invalid, "n is not a number")
		}
		c.Page.N = maxPage
		if i, err := strconv.Atoi(n); err == nil { // an error is a number beyond all maxima
			c.Page.N = min(i, maxPage)
		}
	}
	c.Page.Last, err = one(q, "last")
	if err == nil && c.Page.Last != "" {
		err = last(c.Page.Last)
	}
	return err
}

// filter reads artifactType. No media type holds a space, so one was a plus
// sign that the client did not escape.
func (c *Call) filter(q url.Values) error {
	s, err := one(q, "artifactType")
	s = strings.ReplaceAll(s, " ", "+")
	if len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fault.Newf(fault.Invalid, "artifactType is not a media type")
	}
	c.ArtifactType = s
	return err
}

// tags reads the tags that a manifest put by digest is to get as well; with a
// tag in the path the specification knows no such parameter.
func (c *Call) tags(q url.Values) error {
	if c.Reference.Digest.IsZero() {
		c.Tags = []oci.Tag{c.Reference.Tag}
		return nil
	}
	for _, s := range q["tag"] {
		t, err := oci.ParseTag(s)
		if err != nil {
			return err
		}
		c.Tags = append(c.Tags, t)
	}
	return nil
}

// start tells the POSTs apart: mount, whole blob, open session. A mount that
// names no source opens a session, as the specification allows.
func (c *Call) start(q url.Values) error {
	mount, err1 := one(q, "mount")
	from, err2 := one(q, "from")
	digest, err3 := one(q, "digest")
	alg, err4 := one(q, "digest-algorithm")
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return err
		}
	}
	var err error
	switch {
	case q.Has("mount") && q.Has("digest"):
		return fault.Newf(fault.Invalid, "mount and digest exclude each other")
	case q.Has("mount"):
		if c.Digest, err = oci.ParseDigest(mount); err != nil {
			return err
		}
		c.Algorithm = c.Digest.Algorithm()
		if q.Has("from") {
			c.Kind = UploadMount
			c.From, err = oci.ParseRepo(from)
		}
		return err
	case q.Has("digest"):
		c.Kind = UploadWhole
		c.Digest, err = oci.ParseDigest(digest)
		c.Algorithm = c.Digest.Algorithm()
		return err
	case q.Has("digest-algorithm"):
		if _, ok := oci.NewHash(alg); !ok {
			return oci.ErrDigestInvalid.Detail("digest-algorithm is neither sha256 nor sha512")
		}
		c.Algorithm = alg
	}
	return nil
}
