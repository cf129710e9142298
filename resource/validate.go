package resource

import (
	"context"
	"errors"

	"cove.example/cove/arm"
)

// Wanted is a resource that somebody thinks of making or changing.
type Wanted struct {
	ID   arm.ID
	Body Object
}

// errValid takes back a transaction in which everything went well.
var errValid = errors.New("everything that was tried is valid")

// Validate does what PUTs of the resources, one after the other, would do, and
// takes all of it back: nothing is stored, nothing is heard of, and no name or
// address stays taken. It fails with what the first PUT that fails would fail
// with. It does not ask whether the caller may.
func (s *Service) Validate(ctx context.Context, by Caller, list []Wanted) ([]Result, error) {
	writes := make([]write, len(list))
	for i, want := range list {
		var err error
		if writes[i], err = s.putting(ctx, by, want.ID, want.Body, Condition{}); err != nil {
			return nil, err
		}
	}
	var out []Result
	err := s.store.Update(As(ctx, by), func(tx Tx) error {
		out = nil
		for _, w := range writes {
			r, err := s.within(As(ctx, by), tx, w)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return errValid
	})
	if !errors.Is(err, errValid) {
		return nil, err
	}
	return out, nil
}
