package policy

import (
	"context"
	"strings"

	"cove.example/cove/arm"
)

// Scopes are where the principal or one of its groups holds any role, in no
// order and perhaps more than once. It costs what the principal's assignments
// are, whatever others have.
func (r *Roles) Scopes(ctx context.Context, principal string) ([]arm.ID, error) {
	holders := []string{strings.ToLower(principal)}
	if r.Groups != nil {
		groups, err := r.Groups(ctx, principal)
		if err != nil {
			return nil, err
		}
		holders = append(holders, groups...)
	}
	r.mu.RLock()
	live, behind := r.live, len(r.pending) > 0
	r.mu.RUnlock()
	if live && behind {
		if err := r.catchUp(ctx); err != nil {
			return nil, err
		}
	}
	r.mu.RLock()
	if r.live {
		defer r.mu.RUnlock()
		return scopes(r.by, holders), nil
	}
	r.mu.RUnlock()
	all, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	return scopes(all.by, holders), nil
}

func scopes(by map[string]map[string]*Assignment, holders []string) (out []arm.ID) {
	for _, holder := range holders {
		for _, a := range by[holder] {
			out = append(out, a.Scope)
		}
	}
	return out
}
