package resource

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"cove.example/cove/arm"
)

// Delete takes away a resource and everything below it in one transaction:
// the deepest first, each through its own type. It reports false where there
// was nothing to delete.
func (s *Service) Delete(ctx context.Context, by Caller, id arm.ID, c Condition) (bool, error) {
	t, err := s.typeOf(id)
	if err != nil {
		return false, err
	}
	if t.NoDelete {
		return false, ErrNoVerb.Detail("A resource of type %s cannot be deleted by itself.", t.Name)
	}
	ctx = As(ctx, by)
	existed := false
	err = s.store.Update(ctx, func(tx Tx) error {
		existed = false
		doc, err := s.read(ctx, tx, id)
		if errors.Is(err, ErrUnknown) {
			if c.IfMatch != "" {
				return c.check(nil)
			}
			return s.isFixed(ctx, tx, t, id)
		}
		if err != nil {
			return err
		}
		existed = true
		if err := c.check(&doc); err != nil {
			return err
		}
		if err := Unlocked(ctx, tx, doc.ID, true); err != nil {
			return err
		}
		below, err := tx.List(ctx, Query{Under: id})
		if err != nil {
			return err
		}
		for _, d := range below {
			if pin := s.types[strings.ToLower(d.ID.Type())]; pin != nil && pin.Pins && t.Name != TypeGroup {
				return ErrNested.Detail("Cannot delete resource while nested resources exist. Some existing nested resource IDs include: '%s'. Please delete all nested resources before deleting this resource.", clip(d.ID.String()))
			}
		}
		return s.cascade(ctx, tx, append(below, doc), by)
	})
	return existed, err
}

// cascade deletes all docs, or fails. Those that refuse because another uses
// them wait until the others are gone: a network in a group that is deleted
// whole has private endpoints in its subnets, and they go with it.
func (s *Service) cascade(ctx context.Context, tx Tx, docs []Doc, by Caller) error {
	depth := func(d Doc) int { return strings.Count(d.ID.String(), "/") }
	slices.SortStableFunc(docs, func(a, b Doc) int { return cmp.Compare(depth(b), depth(a)) })
	for len(docs) > 0 {
		var waiting []Doc
		var refusal error
		above := map[string]bool{} // what has something waiting below it
		for _, doc := range docs {
			if !above[doc.ID.Key()] {
				err := s.remove(ctx, tx, doc, by)
				if err == nil {
					continue
				}
				if !waits(err) {
					return err
				}
				refusal = cmp.Or(refusal, err)
			}
			waiting = append(waiting, doc)
			for p := doc.ID.Parent(); !p.IsZero(); p = p.Parent() {
				above[p.Key()] = true
			}
		}
		if len(waiting) == len(docs) {
			return refusal
		}
		docs = waiting
	}
	return nil
}

// remove deletes one document whose children have gone. Another's deletion may
// have taken it away already.
func (s *Service) remove(ctx context.Context, tx Tx, doc Doc, by Caller) error {
	doc, err := tx.Get(ctx, doc.ID)
	if errors.Is(err, ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	t := s.types[strings.ToLower(doc.ID.Type())]
	if t == nil {
		// Written by a newer cove, or by one that had another table: nobody
		// here knows what hangs on it.
		return ErrTypeUnknown.Detail("%s is of a type that this version does not know, so it cannot be deleted.", doc.ID)
	}
	if t.Delete != nil {
		if err := t.Delete(ctx, tx, doc, by); err != nil {
			return err
		}
	}
	if t.Unique {
		if err := unclaim(ctx, tx, t, doc.ID); err != nil {
			return err
		}
	}
	return tx.Delete(ctx, doc.ID)
}

// Exists reports whether a document is there.
func (s *Service) Exists(ctx context.Context, id arm.ID) (bool, error) {
	var found bool
	err := s.store.View(ctx, func(r Reader) error {
		_, err := r.Get(ctx, id)
		found = err == nil
		if errors.Is(err, ErrUnknown) {
			return nil
		}
		return err
	})
	return found, err
}
