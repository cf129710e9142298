package resource

import (
	"context"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// TypeTags is what ARM calls the tags of a resource where they are asked for
// by themselves, below the resource: …/providers/Microsoft.Resources/tags/default.
const TypeTags = "Microsoft.Resources/tags"

// ErrNoTags is the refusal of tags on what has none.
var ErrNoTags = fault.Coded(fault.Invalid, "TagsNotSupported", "the resource has no tags")

// Tags are the tags of a subscription, a group or a resource. The caller owns
// what it gets.
func (s *Service) Tags(ctx context.Context, id arm.ID) (tags Object, err error) {
	t, err := s.typeOf(id)
	if err != nil {
		return nil, err
	}
	err = s.store.View(ctx, func(r Reader) error {
		doc, err := s.read(ctx, r, id)
		if err == nil && !tagged(t, doc) {
			err = ErrNoTags.Detail("A resource of type %s has no tags.", t.Name)
		}
		tags = tagsOf(doc.Body)
		return err
	})
	return tags, err
}

// tagged reports whether a resource has tags: ARM's tracked resources, which
// are those with a location, groups, and subscriptions.
func tagged(t *Type, doc Doc) bool {
	return t.Name == TypeSubscription || doc.Body["location"] != nil
}

func tagsOf(body Object) Object {
	if tags, ok := body["tags"].(Object); ok {
		return Clone(tags)
	}
	return Object{}
}

// The ways in which Tag changes tags, in ARM's words.
const (
	TagsMerge   = "Merge"   // names that are given get the given value
	TagsReplace = "Replace" // the given ones are all
	TagsDelete  = "Delete"  // names that are given with their value are taken away
)

// Tag changes nothing of a resource but its tags, and returns what they are
// then. how is one of the words above.
func (s *Service) Tag(ctx context.Context, by Caller, id arm.ID, how string, given Object) (Object, error) {
	t, err := s.typeOf(id)
	if err != nil {
		return nil, err
	}
	out, err := s.write(ctx, write{by, t, id, Condition{}, nil, func(old *Doc) (Object, []fault.Field, error) {
		if old == nil {
			return nil, nil, ErrUnknown
		}
		if !tagged(t, *old) {
			return nil, nil, ErrNoTags.Detail("A resource of type %s has no tags.", t.Name)
		}
		next := Clone(old.Body)
		tags := retag(tagsOf(next), how, given)
		delete(next, "tags")
		if len(tags) > 0 {
			next["tags"] = tags
		}
		return next, nil, nil
	}})
	if err != nil {
		return nil, err
	}
	return tagsOf(out.Body), nil
}

// retag changes tags, whose names are compared without regard to case and keep
// the one that they were first given in.
func retag(tags Object, how string, given Object) Object {
	if how == TagsReplace {
		return Clone(given)
	}
	for name, value := range given {
		known := spelling(tags, name)
		switch {
		case how == TagsMerge:
			tags[known] = clone(value)
		case how == TagsDelete && tags[known] == value:
			delete(tags, known)
		}
	}
	return tags
}
