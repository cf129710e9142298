package armapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// What a caller may send. ARM takes 4 MiB; the rest is generous for any
// client that exists.
const (
	maxBody   = 4 << 20
	maxURL    = 8 << 10
	maxParams = 100
	maxDepth  = 64
)

var (
	errURL  = fault.Coded(fault.Invalid, "InvalidRequestUri", "The request's URL is not valid.")
	errJSON = fault.Coded(fault.Invalid, "InvalidRequestContent", "the body is not valid")
	errBig  = fault.Coded(fault.TooLarge, "RequestContentTooLarge", "The body is larger than this operation takes.")
)

// canonical splits the path of a request. A path has one spelling: no empty
// or dot segment, no slash at the end, no percent sign but before the few
// characters that names may have and clients do escape. Another spelling is
// refused, so that no filter in front of us and no table behind can take it
// for a different path than we do.
func canonical(r *http.Request) ([]string, error) {
	uri := r.RequestURI
	if len(uri) > maxURL {
		return nil, errURL.Detail("The request's URL is longer than %d bytes.", maxURL)
	}
	path, _, _ := strings.Cut(uri, "?")
	if !strings.HasPrefix(path, "/") {
		return nil, errURL.Detail("The request's target must begin with a slash.")
	}
	segments := strings.Split(path[1:], "/")
	if i := parentless(segments); i >= 0 {
		segments = slices.Delete(segments, i, i+1)
	}
	for i, s := range segments {
		plain, err := unescape(s)
		if err != nil {
			return nil, err
		}
		if plain == "" || plain == "." || plain == ".." || strings.ContainsFunc(plain, func(c rune) bool {
			return c <= ' ' || c > '~' || strings.ContainsRune(`%?#<>&:\;"^{}|`+"`", c)
		}) {
			return nil, errURL.Detail("The request's path ends in a slash, or has a segment that is empty or has a character that no name may have.")
		}
		segments[i] = plain
	}
	return segments, nil
}

// parentless is the index of the empty segment that the SDKs' generic
// operations leave where a resource has no parent, or -1:
// /subscriptions/S/resourcegroups/G/providers/NAMESPACE//TYPE/NAME. It is the
// one empty segment that has a meaning.
func parentless(segments []string) int {
	const at = 6
	if len(segments) > at+2 && segments[at] == "" && strings.EqualFold(segments[0], "subscriptions") &&
		strings.EqualFold(segments[2], "resourceGroups") && strings.EqualFold(segments[4], "providers") {
		return at
	}
	return -1
}

// unescape decodes the characters of names that clients write with a percent
// sign (RFC 3986 lets them). Letters, digits and separators are not among
// them: nobody but an attacker writes those so.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	plain, err := url.PathUnescape(s)
	if err == nil {
		for rest := s; err == nil; {
			_, after, found := strings.Cut(rest, "%")
			if !found {
				return plain, nil
			}
			c, _ := url.PathUnescape("%" + after[:2])
			if !strings.Contains("@*()!',=+$", c) {
				break
			}
			rest = after[2:]
		}
	}
	return "", errURL.Detail("The request's path has %.100q, and in it a character that no name may have, or one that is not written escaped.", s)
}

func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(q) > maxParams {
		return nil, errURL.Detail("The request's query is not valid or has more than %d parameters.", maxParams)
	}
	return q, nil
}

// scope is the longest prefix of a path that is a resource id: what an
// operation without a document of its own happens in.
func scope(segments []string) arm.ID {
	for n := len(segments); n > 0; n-- {
		if id, err := arm.ParseID("/" + strings.Join(segments[:n], "/")); err == nil {
			return id
		}
	}
	return arm.ID{}
}

// body reads the JSON object of a request; nil where it has none.
func body(w http.ResponseWriter, r *http.Request, op *Route) (resource.Object, error) {
	limit := op.MaxBody
	if limit == 0 {
		limit = maxBody
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, errBig.Detail("The body is larger than %d bytes.", limit)
		}
		return nil, errJSON.Detail("The body could not be read to its end.")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, nil
	}
	if kind := r.Header.Get("Content-Type"); kind != "" {
		if base, _, err := mime.ParseMediaType(kind); err != nil || base != "application/json" && base != "text/json" && !strings.HasSuffix(base, "+json") {
			return nil, errMediaType
		}
	}
	if op.Template {
		b = relaxed(b)
	}
	return parseObject(b)
}

// relaxed makes JSON of what az sends for templates: names may be without
// quotes, and there may be comments, as in JavaScript. Texts are left alone.
func relaxed(b []byte) []byte {
	var out []byte
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '"':
			end := i + 1
			for end < len(b) && b[end] != '"' {
				if b[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(b))
			out, i = append(out, b[i:end]...), end
		case bytes.HasPrefix(b[i:], []byte("//")):
			end := bytes.IndexByte(b[i:], '\n')
			if end < 0 {
				return out
			}
			i += end
		case bytes.HasPrefix(b[i:], []byte("/*")):
			end := bytes.Index(b[i+2:], []byte("*/"))
			if end < 0 {
				return append(out, b[i:]...) // which is no JSON
			}
			out, i = append(out, ' '), i+2+end+2
		case letter(c):
			end := i
			for end < len(b) && (letter(b[end]) || b[end] >= '0' && b[end] <= '9') {
				end++
			}
			if rest := bytes.TrimLeft(b[end:], " \t\r\n"); len(rest) > 0 && rest[0] == ':' {
				out = append(append(append(out, '"'), b[i:end]...), '"')
			} else {
				out = append(out, b[i:end]...)
			}
			i = end
		default:
			out, i = append(out, c), i+1
		}
	}
	return out
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$' }

// parseObject reads exactly one JSON object. Two properties of one name are
// refused, where encoding/json would take the last and another reader the
// first: what was checked must be what is obeyed.
func parseObject(b []byte) (resource.Object, error) {
	if !utf8.Valid(b) {
		return nil, errJSON.Detail("The body is not UTF-8.")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := value(d, 0)
	if err != nil {
		return nil, err
	}
	o, ok := v.(resource.Object)
	if !ok {
		return nil, errJSON.Detail("The body must be a JSON object.")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errJSON.Detail("The body goes on after the JSON object.")
	}
	return o, nil
}

func value(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errJSON.Detail("The body is nested deeper than %d levels.", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, notJSON(d)
	}
	switch token {
	case json.Delim('{'):
		o := resource.Object{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, notJSON(d)
			}
			name, _ := key.(string)
			if _, twice := o[name]; twice {
				return nil, errJSON.Detail("The body has the property %.100q twice in one object.", name)
			}
			if o[name], err = value(d, depth+1); err != nil {
				return nil, err
			}
		}
		if _, err := d.Token(); err != nil {
			return nil, notJSON(d)
		}
		return o, nil
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		if _, err := d.Token(); err != nil {
			return nil, notJSON(d)
		}
		return list, nil
	}
	return token, nil
}

func notJSON(d *json.Decoder) error {
	return errJSON.Detail("The body is not valid JSON near byte %d.", d.InputOffset())
}
