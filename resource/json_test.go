package resource

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is read and written is what encoding/json reads and writes.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"a":1,"b":[true,false,null,"x"],"c":{"d":-1.5e9}}`, `{"é":"\u2028<&>\"\\"}`, `{"a":"\ud800"}`, `{"a":01}`, `{"a":-}`, `{"a":1,"a":2}`,
		`{"a":1}x`, ` { "a" : [ ] , "b" : { } } `, `{"a":"` + "\x01" + `"}`, `{"a":"` + "\xff" + `"}`, `{"a"`, `{"a":tru}`, `[1]`, `{"a":[1,]}`, `{,}`, `{"a":1.}`, `{"a":0}`, `{"\n":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Count(b, []byte("[")) > maxNesting/2 || bytes.Count(b, []byte("{")) > maxNesting/2 {
			return
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var want Object
		wrong := d.Decode(&want) != nil || !json.Valid(b)
		got, err := Decode(b)
		if (err != nil) != wrong {
			t.Fatalf("%q: %v", b, err)
		}
		if wrong {
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q: %s", b, diff)
		}
		text, err := Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		e := json.NewEncoder(&plain)
		e.SetEscapeHTML(false)
		if err := e.Encode(want); err != nil {
			t.Fatal(err)
		}
		if string(text)+"\n" != plain.String() {
			t.Fatalf("%q is written %s, by encoding/json %s", b, text, &plain)
		}
	})
}

func TestJSONOfValuesThatCodeMakes(t *testing.T) {
	v := Object{
		"int": 7, "negative": int64(-7), "uint": uint32(7), "float": 0.5, "strings": []string{"a", "é"}, "objects": []Object{{"a": nil}},
		"none": []any(nil), "nothing": Object(nil), "zero": json.Number("0"), "struct": struct{ A string }{"<"}, "raw": json.RawMessage(`{"a":1}`),
	}
	got, err := Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != want.String() {
		t.Errorf("got  %s\nwant %s", got, &want)
	}
	if _, err := Append(nil, Object{"a": json.Number("x")}); err == nil {
		t.Error("a number that is none is written")
	}
	if _, err := Append(nil, Object{"a": func() {}}); err == nil {
		t.Error("a function is written")
	}
}
