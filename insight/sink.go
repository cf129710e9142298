package insight

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
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
		ReadOnly: []string{"properties.sealedHeaders", "properties.headerNames"},
		Secret:   []string{"properties.sealedHeaders", "properties.headers"},
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

// putSink seals the headers, which may be credentials. They belong to the
// address that they were given with: a sink that is pointed elsewhere forgets
// them, or whoever may change a sink could have them sent to their own host.
func (c Config) putSink(_ context.Context, _ resource.Tx, ch *resource.Change) error {
	body := ch.New.Body
	headers, given := resource.Lookup(body, "properties.headers").(resource.Object)
	resource.Remove(body, "properties.headers")
	if !given {
		if ch.Old != nil && !sameHost(text(ch.Old.Body, "properties.uri"), text(body, "properties.uri")) {
			resource.Remove(body, "properties.sealedHeaders")
			resource.Remove(body, "properties.headerNames")
		}
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
	sealed, err := c.Sealer.Seal(plain, headerSeal(ch.New.UID))
	if err != nil {
		return err
	}
	var names []any
	for name := range headers {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	resource.Assign(body, "properties.sealedHeaders", base64.StdEncoding.EncodeToString(sealed))
	resource.Assign(body, "properties.headerNames", names)
	return nil
}

func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	return err == nil && err2 == nil && outbound.SameOrigin(x, y)
}

func headerSeal(uid string) []byte { return []byte("sink headers " + uid) }

// headers are those that a webhook is sent with.
func (c Config) headers(doc resource.Doc) (http.Header, error) {
	sealed := text(doc.Body, "properties.sealedHeaders")
	if sealed == "" {
		return http.Header{}, nil
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	plain, err := c.Sealer.Open(b, headerSeal(doc.UID))
	if err != nil {
		return nil, err
	}
	var values map[string]string
	if err := json.Unmarshal(plain, &values); err != nil {
		return nil, err
	}
	h := http.Header{}
	for name, v := range values {
		h.Set(name, v)
	}
	return h, nil
}
