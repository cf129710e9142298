package token_test

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

func aLink() token.Link {
	return token.Link{
		Registry: "uid-" + harbor, Repository: "team/app", Digest: "sha256:" + strings.Repeat("a", 64),
		Holder: token.Holder{Kind: "servicePrincipal", Name: "app", ObjectID: "oid", Tenant: "t", Credential: "k", Mode: "m"},
	}
}

// A link is good for 20 to 30 minutes, for what it was made for and for
// nothing else, whichever byte of it is changed.
func TestLinkIsForOneBlob(t *testing.T) {
	w, l := open(t), aLink()
	text, err := w.SignLink(l)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.VerifyLink(text, token.Link{Registry: l.Registry, Repository: l.Repository, Digest: l.Digest})
	if err != nil || got.Holder != l.Holder {
		t.Fatalf("%+v, %v", got, err)
	}
	if life := got.Expires.Sub(w.Now()); life < 20*time.Minute || life > 30*time.Minute {
		t.Errorf("good for %v", life)
	}
	for what, other := range map[string]token.Link{
		"registry":              {Registry: "uid-" + quay, Repository: l.Repository, Digest: l.Digest},
		"repository":            {Registry: l.Registry, Repository: "team/ap", Digest: l.Digest},
		"blob":                  {Registry: l.Registry, Repository: l.Repository, Digest: "sha256:" + strings.Repeat("b", 64)},
		"sum of the same bytes": {Registry: l.Registry, Repository: l.Repository + l.Digest[:1], Digest: l.Digest[1:]},
		"registry, of no name":  {},
	} {
		if _, err := w.VerifyLink(text, other); !errors.Is(err, token.ErrSignature) {
			t.Errorf("for another %s: %v", what, err)
		}
	}
	for i := range len(text) {
		for _, c := range []byte{'A', 'B', '.', '=', ' ', '\n', 0, '&'} {
			if text[i] == c {
				continue
			}
			if _, err := w.VerifyLink(text[:i]+string(c)+text[i+1:], l); err == nil {
				t.Fatalf("with byte %d changed to %q", i, c)
			}
		}
		if _, err := w.VerifyLink(text[:i], l); err == nil {
			t.Fatalf("cut to %d bytes", i)
		}
		if _, err := w.VerifyLink(text+text[i:], l); err == nil {
			t.Fatalf("with %d bytes more", len(text)-i)
		}
	}
	w.pass(token.LinkLife - time.Second)
	if _, err := w.VerifyLink(text, l); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	w.pass(time.Second)
	if _, err := w.VerifyLink(text, l); !errors.Is(err, token.ErrExpired) {
		t.Errorf("after its time: %v", err)
	}
}

// A link is good for its minutes by the server's clock, however that jumps:
// one of a clock that was far ahead does not last until that day.
func TestLinksAndClockJumps(t *testing.T) {
	const year = 365 * 24 * time.Hour
	w := open(t)
	for jump, good := range map[time.Duration]bool{
		-50 * year: false, -2 * time.Minute: false, -time.Minute: true, 0: true,
		token.LinkLife - time.Second: true, token.LinkLife: false, 200 * year: false,
	} {
		l := aLink()
		text, err := w.SignLink(l)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(jump)
		if _, err := w.VerifyLink(text, l); (err == nil) != good || err != nil && !errors.Is(err, token.ErrExpired) {
			t.Errorf("after %v: %v, want good %v", jump, err, good)
		}
		w.pass(-jump)
	}
}

// A link buys nothing where a token is wanted, and no token is a link.
func TestLinkIsNoToken(t *testing.T) {
	w := open(t)
	link, err := w.SignLink(aLink())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		tok, err := k.mint(w)
		if err != nil {
			t.Fatal(err)
		}
		for _, as := range []string{link, strings.TrimPrefix(link, "link="), strings.TrimPrefix(link, "link=") + "."} {
			if err := k.verify(w, as); err == nil {
				t.Errorf("a link is taken for the %s", k.name)
			}
		}
		for _, as := range []string{tok, "link=" + tok, "link=" + tok[strings.IndexByte(tok, '.')+1:]} {
			if _, err := w.VerifyLink(as, aLink()); err == nil {
				t.Errorf("the %s is taken for a link", k.name)
			}
		}
	}
}

// Links outlive the rotation of the keys, here and on another node of the
// database, and end with the key that signed them.
func TestLinksFollowTheKeys(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		key := make([]byte, 32)
		rand.Read(key)
		box, err := seal.New(key)
		if err != nil {
			t.Fatal(err)
		}
		node := func() *token.Tokens {
			keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, nil)
			if err != nil {
				t.Fatal(err)
			}
			return token.New(keys, issuer)
		}
		here, l := node(), aLink()
		text, err := here.SignLink(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := here.Keys().Rotate(t.Context(), token.Registry); err != nil {
			t.Fatal(err)
		}
		there := node()
		for name, n := range map[string]*token.Tokens{"here": here, "there": there} {
			if _, err := n.VerifyLink(text, l); err != nil {
				t.Errorf("%s after a rotation: %v", name, err)
			}
		}
		stored, err := store.NewKeys(db).Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range stored {
			if k.Use == token.Registry {
				if err := here.Keys().Revoke(t.Context(), k.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, n := range map[string]*token.Tokens{"here": here, "there": node()} {
			if _, err := n.VerifyLink(text, l); !errors.Is(err, token.ErrSignature) {
				t.Errorf("%s after its key was revoked: %v", name, err)
			}
		}
		if text, err = here.SignLink(l); err != nil {
			t.Fatal(err)
		}
		if _, err := node().VerifyLink(text, l); err != nil {
			t.Errorf("with the new key: %v", err)
		}
	})
}

func FuzzVerifyLink(f *testing.F) {
	w, l := open(f), aLink()
	text, err := w.SignLink(l)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{text, "", "link=", "link=.", text[:40], text + "&x=1", "link=e30.AAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := w.VerifyLink(s, l); err == nil && s != text {
			t.Errorf("verifies: %q", s)
		}
	})
}

func BenchmarkLink(b *testing.B) {
	w, l := open(b), aLink()
	text, err := w.SignLink(l)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.SignLink(l); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.VerifyLink(text, l); err != nil {
				b.Fatal(err)
			}
		}
	})
}
