package token_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cove.example/cove/token"
)

// A session comes back as it was made, in its time, and no other text does.
func TestSessions(t *testing.T) {
	w := open(t)
	raw, err := w.MintSession(token.Session{Client: "az", ObjectID: "o", Tenant: tenant, Credential: "c", Issued: 1})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.VerifySession(raw)
	if want := (token.Session{Client: "az", ObjectID: "o", Tenant: tenant, Credential: "c", Issued: w.Now().Unix()}); err != nil || got != want {
		t.Fatalf("%+v %v", got, err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		at := rapid.IntRange(0, len(raw)-1).Draw(rt, "at")
		c := rapid.SampledFrom(strings.Split("ABab01-_=+/ \n.", "")).Draw(rt, "letter")
		for _, bad := range []string{raw[:at] + c + raw[at+1:], raw[:at] + raw[at+1:], raw[:at] + c + raw[at:]} {
			if _, err := w.VerifySession(bad); bad != raw && !errors.Is(err, token.ErrMalformed) {
				rt.Errorf("%q: %v", bad, err)
			}
		}
	})
	for _, k := range kinds {
		if _, err := w.VerifySession(mint(t, w, k)); !errors.Is(err, token.ErrMalformed) {
			t.Errorf("%s: %v", k.name, err)
		}
		if k.verify(w, raw) == nil {
			t.Errorf("a session is taken for an %s", k.name)
		}
	}
	w.pass(token.SessionLife)
	if _, err := w.VerifySession(raw); !errors.Is(err, token.ErrExpired) {
		t.Errorf("at its end: %v", err)
	}
	w.pass(-token.SessionLife - 2*60e9)
	if _, err := w.VerifySession(raw); !errors.Is(err, token.ErrNotYet) {
		t.Errorf("before it began: %v", err)
	}
}
