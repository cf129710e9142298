package armapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"github.com/google/go-cmp/cmp"
)

func TestEveryKindOfFailureHasAStatus(t *testing.T) {
	for k := fault.Internal; k <= fault.Unsupported; k++ {
		if s := statuses[k]; s < 400 || s > 599 {
			t.Errorf("kind %d has status %d", k, s)
		}
	}
}

// A path that is taken has one spelling: writing it again gives it back, and
// nothing that a router could take for a separator is left in a segment.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/subscriptions/s/resourceGroups/g", "/a%28b%29", "/a/../b", "//", "/%2e%2e", "/a%2fb", "/a;b", "/*", "/@", "/é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		segments, err := canonical(&http.Request{RequestURI: target})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		path := "/" + strings.Join(segments, "/")
		again, err := canonical(&http.Request{RequestURI: path})
		if err != nil || cmp.Diff(segments, again) != "" {
			t.Fatalf("%q is %q, and that is %q, %v", target, path, again, err)
		}
		for _, s := range segments {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\%;?#\x00 ") {
				t.Fatalf("%q has the segment %q", target, s)
			}
		}
		scope(segments)
		if id, err := arm.ParseID(path); err == nil && !strings.EqualFold(id.String(), path) {
			t.Fatalf("%q is the id %q", path, id)
		}
	})
}

// What is read is what is stored: an object that parses is written and read
// again as itself.
func FuzzParseObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"a":[1.50,{"b":null}],"c":"\u0000\ud800"}`, `{"a":1,"a":2}`, `{"a":1}x`, `[]`, `{"a":1e999}`, `{`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseObject(b)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		text, err := resource.Encode(o)
		if err != nil {
			t.Fatalf("%q parses, but cannot be stored: %v", b, err)
		}
		again, err := parseObject(text)
		if err != nil || cmp.Diff(o, again) != "" {
			t.Fatalf("%q became %q: %v", b, text, err)
		}
	})
}

// JSON is left as it is, and what az adds to it is taken away.
func FuzzRelaxed(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a//b":"/*x*/","c":"\\\""}`, `{a:1,$b : [true, null]}`, "{\"a\":1 // why\n}", `{/* x */"a":1}`, `/*`, `//`, `"`, `"\`, `{"a":t:1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, wrong := parseObject(b)
		again, err := parseObject(relaxed(b))
		if wrong == nil && (err != nil || cmp.Diff(plain, again) != "") {
			t.Fatalf("%q became %q: %v", b, relaxed(b), err)
		}
	})
}

func TestRelaxed(t *testing.T) {
	for text, want := range map[string]string{
		`{"properties": {"mode": "Incremental", template:{ "a": 1 }}}`: `{"properties":{"mode":"Incremental","template":{"a":1}}}`,
		"{\"a\": \"// no\", // yes\n b1: /* x: */ true}":               `{"a":"// no","b1":true}`,
	} {
		got, err := parseObject(relaxed([]byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := resource.Encode(got); err != nil || string(b) != want {
			t.Errorf("%s is %s, %v", text, b, err)
		}
	}
	for _, text := range []string{`{a}`, `{a b:1}`, `{"a":/*`, `{a:b}`} {
		if got, err := parseObject(relaxed([]byte(text))); err == nil {
			t.Errorf("%s is %v", text, got)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "name eq 'a'", "resourceType eq 'A/b' and name eq 'it''s'", "name eq 'a' and", "name eq", "tagName eq 'x' and tagValue eq ''"} {
		f.Add(s)
	}
	doc := resource.Doc{ID: arm.MustID("/subscriptions/s/resourceGroups/g/providers/A/b/c"), Body: resource.Object{"tags": resource.Object{"x": "y"}}}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := filter(s)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		// A longer filter never lets more through.
		if more, err := filter(s + " and name eq 'other'"); err == nil && strings.TrimSpace(s) != "" && more.holds(doc) {
			t.Fatalf("%q, narrowed to another name, still holds", s)
		}
		want.holds(doc)
	})
}

func TestQueriesAreBounded(t *testing.T) {
	for target, ok := range map[string]bool{
		"/x?" + strings.Repeat("a=b&", 99) + "a=b": true,
		"/x?a=1;b=2": false,
		"/x?a=%zz":   false,
	} {
		if _, err := query(httptest.NewRequest(http.MethodGet, target, nil)); (err == nil) != ok {
			t.Errorf("%.40s: %v", target, err)
		}
	}
	var many strings.Builder
	for i := range 101 {
		many.WriteString("&p" + strings.Repeat("x", i) + "=1")
	}
	if _, err := query(httptest.NewRequest(http.MethodGet, "/x?"+many.String(), nil)); err == nil {
		t.Error("101 parameters were taken")
	}
	if _, err := canonical(&http.Request{RequestURI: "/" + strings.Repeat("x", maxURL)}); err == nil {
		t.Error("a URL of more than 8 KiB was taken")
	}
}
