package token_test

import (
	"context"
	"testing"

	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

// slow is a store between whose readings something happens.
type slow struct {
	token.Store
	before, after func() // run once, around the next reading
}

func (s *slow) Keys(ctx context.Context) ([]token.Stored, error) {
	take := func(fn *func()) func() {
		out := *fn
		*fn = nil
		return out
	}
	before, after := take(&s.before), take(&s.after)
	if before != nil {
		before()
	}
	list, err := s.Store.Keys(ctx)
	if after != nil {
		after()
	}
	return list, err
}

// A key that was revoked stays so, in whichever order two readings of the store
// begin and end: a reading never takes the place of a newer one, and none that
// has seen the end of a key is dropped for one that has not.
func TestAnOlderReadingReplacesNoNewerOne(t *testing.T) {
	for name, interleave := range map[string]func(s *slow, revoke, reload func()){
		"read before the revocation, in place after it": func(s *slow, revoke, reload func()) {
			s.after = func() { revoke(); reload() }
			reload()
		},
		"begun before another, which has not seen the revocation": func(s *slow, revoke, reload func()) {
			s.before = func() { reload(); revoke() }
			reload()
		},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Each(t, func(t *testing.T, db *store.DB) {
				w, s := open(t), &slow{Store: store.NewKeys(db)}
				keys, err := token.OpenKeys(t.Context(), s, w.box, w.Now)
				must(t, err)
				w.keys = keys
				w.Tokens = token.New(w.keys, issuer)
				raw := mint(t, w, kinds[4])
				must(t, kinds[4].verify(w, raw))
				// Something else has changed, or the older reading were no news.
				must(t, s.Store.Revoke(t.Context(), kid(t, mint(t, w, kinds[0])), w.Now().Add(token.KeyLife)))
				interleave(s,
					func() { must(t, s.Store.Revoke(t.Context(), kid(t, raw), w.Now())) },
					func() { must(t, w.keys.Reload(t.Context())) })
				if kinds[4].verify(w, raw) == nil {
					t.Error("a token of a revoked key is taken")
				}
			})
		})
	}
}
