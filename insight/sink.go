package insight

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/outbound"
	"cove.example/cove/resource"
)

// The kinds of a sink.
const (
	kindFile    = "file"
	kindWebhook = "webhook"
)

// The limits of a sink's properties.
const (
	leastFile, mostFile = 1 << 20, 1 << 30 // bytes of one file
	mostFiles           = 100
	maxHeaders          = 16
	maxHeaderValue      = 4096
)

// sinkName is also a file's name: nothing in it means anything to a path.
var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// sinks are where events are sent. A sink's name is taken once in the
// deployment, because a file is named after it.
func sinks(c Config) resource.Type {
	return resource.Type{
		Name: TypeSinks, Unique: true,
		CheckName: func(name string) string {
			if !sinkName.MatchString(name) {
				return "the name of a sink is 1 to 63 lower-case letters, digits and hyphens"
			}
			return ""
		},
		ReadOnly: []string{"properties.sealedUri", "properties.origin", "properties.sealedHeaders", "properties.headerNames"},
		Secret:   []string{"properties.sealedUri", "properties.uri", "properties.sealedHeaders", "properties.headers"},
		Check:    checkSink,
		Put:      c.putSink,
		Delete: func(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
			users, err := tx.List(ctx, resource.Query{Type: TypeSettings})
			if err != nil {
				return err
			}
			for _, d := range users {
				if strings.EqualFold(text(d.Body, "properties.marketplacePartnerId"), doc.ID.String()) {
					return fault.Newf(fault.Conflict, "the diagnostic setting %s sends to this sink; delete the setting first", d.ID)
				}
			}
			return nil
		},
	}
}

func checkSink(c *resource.Change) []fault.Field {
	var out []fault.Field
	bad := func(path, message string, args ...any) {
		out = append(out, fault.Field{Path: "properties." + path, Message: fmt.Sprintf(message, args...)})
	}
	body := c.New.Body
	switch kind := text(body, "properties.kind"); kind {
	case kindFile:
		if v, ok := resource.Lookup(body, "properties.maxBytes").(json.Number); ok && !within(v, leastFile, mostFile) {
			bad("maxBytes", "must be a number from %d to %d", leastFile, mostFile)
		}
		if v, ok := resource.Lookup(body, "properties.files").(json.Number); ok && !within(v, 1, mostFiles) {
			bad("files", "must be a number from 1 to %d", mostFiles)
		}
		if resource.Lookup(body, "properties.uri") != nil || resource.Lookup(body, "properties.headers") != nil {
			bad("uri", "is for webhooks")
		}
	case kindWebhook:
		if resource.Lookup(body, "properties.uri") == nil && text(body, "properties.sealedUri") != "" {
			checkHeaders(body, bad) // the address is the one that it has
			break
		}
		u, err := url.Parse(text(body, "properties.uri"))
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(u.String()) > 2048 {
			bad("uri", "must be an https address without a user, such as https://logs.example.com/cove")
		}
		checkHeaders(body, bad)
	default:
		bad("kind", "must be %s or %s", kindFile, kindWebhook)
	}
	return out
}

// ours are headers that a sink cannot set.
var ours = []string{"Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade"}

func checkHeaders(body resource.Object, bad func(path, message string, args ...any)) {
	v := resource.Lookup(body, "properties.headers")
	if v == nil {
		return
	}
	headers, ok := v.(resource.Object)
	if !ok || len(headers) > maxHeaders {
		bad("headers", "must be an object of at most %d names and values", maxHeaders)
		return
	}
	for name, value := range headers {
		s, isText := value.(string)
		switch {
		case !isText || len(s) > maxHeaderValue || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
			bad("headers", "the value of %.60q is not a text of at most %d printable characters", name, maxHeaderValue)
		case !headerName.MatchString(name) || slices.Contains(ours, textproto.CanonicalMIMEHeaderKey(name)):
			bad("headers", "%.60q is not a header that can be set", name)
		}
	}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// putSink seals the address, of which the path or the query is a credential
// with many services, and the headers, which may be one. Headers belong to the
// host that they were given with: a sink that is pointed elsewhere forgets
// them, or whoever may change a sink could have them sent to their own host.
func (c Config) putSink(_ context.Context, _ resource.Tx, ch *resource.Change) error {
	body := ch.New.Body
	headers, given := resource.Lookup(body, "properties.headers").(resource.Object)
	address := text(body, "properties.uri")
	for _, name := range []string{"uri", "headers"} {
		resource.Remove(body, "properties."+name)
	}
	if text(body, "properties.kind") == kindFile {
		for _, name := range []string{"sealedUri", "origin", "sealedHeaders", "headerNames"} {
			resource.Remove(body, "properties."+name)
		}
		return nil
	}
	if address != "" {
		u, err := url.Parse(address)
		if err != nil {
			return err // never: checkSink has parsed it
		}
		origin := (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
		if ch.Old != nil && !sameHost(text(ch.Old.Body, "properties.origin"), origin) {
			resource.Remove(body, "properties.sealedHeaders")
			resource.Remove(body, "properties.headerNames")
		}
		if err := c.seal(body, "properties.sealedUri", []byte(address), addressSeal(ch.New.UID)); err != nil {
			return err
		}
		resource.Assign(body, "properties.origin", origin)
	}
	if !given {
		return nil
	}
	if len(headers) == 0 {
		resource.Remove(body, "properties.sealedHeaders")
		resource.Remove(body, "properties.headerNames")
		return nil
	}
	plain, err := json.Marshal(headers)
	if err != nil {
		return err
	}
	var names []any
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		names = append(names, name)
	}
	resource.Assign(body, "properties.headerNames", names)
	return c.seal(body, "properties.sealedHeaders", plain, headerSeal(ch.New.UID))
}

// seal keeps a secret at a path of a document.
func (c Config) seal(body resource.Object, path string, plain, as []byte) error {
	sealed, err := c.Sealer.Seal(plain, as)
	if err != nil {
		return err
	}
	resource.Assign(body, path, base64.StdEncoding.EncodeToString(sealed))
	return nil
}

// open is a secret that seal has kept, nil where there is none.
func (c Config) open(doc resource.Doc, path string, as []byte) ([]byte, error) {
	sealed := text(doc.Body, path)
	if sealed == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	return c.Sealer.Open(b, as)
}

func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	return err == nil && err2 == nil && outbound.SameOrigin(x, y)
}

// What is sealed says what it is and whose: one text does not pass for another.
func addressSeal(uid string) []byte { return []byte("sink address " + uid) }
func headerSeal(uid string) []byte  { return []byte("sink headers " + uid) }

// address is where a webhook is.
func (c Config) address(doc resource.Doc) (string, error) {
	plain, err := c.open(doc, "properties.sealedUri", addressSeal(doc.UID))
	return string(plain), err
}

// headers are those that a webhook is sent with.
func (c Config) headers(doc resource.Doc) (http.Header, error) {
	h := http.Header{}
	plain, err := c.open(doc, "properties.sealedHeaders", headerSeal(doc.UID))
	if err != nil || plain == nil {
		return h, err
	}
	var values map[string]string
	if err := json.Unmarshal(plain, &values); err != nil {
		return nil, err
	}
	for name, v := range values {
		h.Set(name, v)
	}
	return h, nil
}
