package resource

import (
	"context"
	"errors"
	"strings"

	"cove.example/cove/arm"
)

// fixed returns the fixed document of that id, nil where the type has none of
// that name or the parent does not exist.
func (s *Service) fixed(ctx context.Context, r Reader, t *Type, id arm.ID) (*Doc, error) {
	if t.Fixed == nil {
		return nil, nil
	}
	parent, err := r.Get(ctx, id.Parent())
	if errors.Is(err, ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, d := range t.Fixed(parent) {
		if d.ID.Equal(id) {
			return &d, nil
		}
	}
	return nil, nil
}

// fixedBelow returns the fixed documents of a type below a scope that is their
// parent.
func (s *Service) fixedBelow(ctx context.Context, r Reader, t *Type, scope arm.ID) ([]Doc, error) {
	if t.Fixed == nil || !strings.EqualFold(scope.Type(), t.Name[:strings.LastIndexByte(t.Name, '/')]) {
		return nil, nil
	}
	parent, err := r.Get(ctx, scope)
	if err != nil {
		return nil, err
	}
	return t.Fixed(parent), nil
}

// isFixed refuses a change of a fixed document.
func (s *Service) isFixed(ctx context.Context, r Reader, t *Type, id arm.ID) error {
	d, err := s.fixed(ctx, r, t, id)
	if err == nil && d != nil {
		err = ErrNoVerb.Detail("The resource '%s' is the system's own. It can be used, and neither changed nor deleted.", id.Name())
	}
	return err
}
