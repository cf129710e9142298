package registry

import (
	"context"
	"errors"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// shelf is the tokens that a Directory remembers, with their scope maps
// compiled in. Its fields are the Directory's: used with its lock held.
type shelf struct {
	known   map[tokenName]*Token
	unknown map[tokenName]struct{}
	// epoch counts changes: what was read before one is not remembered after
	// it.
	epoch uint64
}

// tokenName is a registry's name and a token's, both in lower case.
type tokenName struct{ registry, token string }

func (s *shelf) forgetAll() {
	s.known, s.unknown = map[tokenName]*Token{}, map[tokenName]struct{}{}
	s.epoch++
}

// forget drops a token that has changed, or every token of a registry when
// something else there has: a scope map, or the registry.
func (s *shelf) forget(registry string, id arm.ID) {
	s.epoch++
	switch {
	case strings.EqualFold(id.Type(), TypeToken):
		name := tokenName{registry, strings.ToLower(id.Name())}
		delete(s.known, name)
		delete(s.unknown, name)
	case strings.EqualFold(id.Type(), TypeScopeMap), strings.EqualFold(id.Type(), TypeName):
		for name := range s.known {
			if name.registry == registry {
				delete(s.known, name)
			}
		}
		for name := range s.unknown {
			if name.registry == registry {
				delete(s.unknown, name)
			}
		}
	}
}

// Token implements TokenLookup.
func (d *Directory) Token(ctx context.Context, reg *Settings, name string) (*Token, error) {
	if reg == nil || checkTokenName(name) != "" {
		return nil, nil
	}
	key := tokenName{strings.ToLower(reg.Name), strings.ToLower(name)}
	d.mu.Lock()
	t, epoch := d.tokens.known[key], d.tokens.epoch
	_, none := d.tokens.unknown[key]
	d.mu.Unlock()
	if t != nil || none {
		return t, nil
	}
	err := d.store.View(ctx, func(r resource.Reader) error {
		t = nil
		doc, err := r.Get(ctx, reg.ID.Child("tokens", name))
		if err != nil {
			return err
		}
		t, err = d.c.compileToken(ctx, r, doc)
		return err
	})
	if errors.Is(err, resource.ErrUnknown) {
		t, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live && d.tokens.epoch == epoch {
		if t != nil {
			evict(d.tokens.known, maxKnown)
			d.tokens.known[key] = t
		} else {
			evict(d.tokens.unknown, maxUnknown)
			d.tokens.unknown[key] = struct{}{}
		}
	}
	return t, nil
}

var _ TokenLookup = (*Directory)(nil)
