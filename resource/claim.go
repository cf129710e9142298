package resource

import (
	"context"
	"errors"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// ErrTaken is the failure of a PUT whose name another resource of the
// deployment has (Type.Unique).
var ErrTaken = fault.Coded(fault.Conflict, "AlreadyInUse", "the name is already in use")

// A claim is a document without a type, so that no caller can reach it: its
// key is the name, and the store lets a key exist once. It is written and
// deleted in the transaction of its holder.
func claimID(typ, name string) (arm.ID, error) {
	return arm.ParseID("/providers/Cove.Names/" + strings.ReplaceAll(typ, "/", ".") + "/" + name)
}

// Holder returns the resource of type typ that has a name which is unique in
// the deployment, or an error that is ErrUnknown. It is one indexed read.
func Holder(ctx context.Context, r Reader, typ, name string) (arm.ID, error) {
	at, err := claimID(typ, name)
	if err != nil {
		return arm.ID{}, ErrUnknown.Because(err)
	}
	doc, err := r.Get(ctx, at)
	if err != nil {
		return arm.ID{}, err
	}
	id, _ := doc.Body["holder"].(string)
	return arm.ParseID(id)
}

func claim(ctx context.Context, tx Tx, t *Type, id arm.ID) error {
	holder, err := Holder(ctx, tx, t.Name, id.Name())
	switch {
	case errors.Is(err, ErrUnknown):
		at, err := claimID(t.Name, id.Name())
		if err != nil {
			return err
		}
		return tx.Put(ctx, &Doc{ID: at, Body: Object{"holder": id.String()}})
	case err != nil:
		return err
	case holder.Equal(id):
		return nil
	}
	return ErrTaken.Detail("The name %s is already in use.", id.Name())
}

func unclaim(ctx context.Context, tx Tx, t *Type, id arm.ID) error {
	at, err := claimID(t.Name, id.Name())
	if err != nil {
		return err
	}
	return tx.Delete(ctx, at)
}

// NameAvailable says whether a new resource of a type whose names are unique
// may have a name: reason is "" for yes, or ARM's word for no with a sentence.
func (s *Service) NameAvailable(ctx context.Context, typ, name string) (reason, why string, err error) {
	t := s.types[strings.ToLower(typ)]
	if t == nil {
		return "", "", ErrTypeUnknown.Detail("The resource type %q could not be found: it is not in this version.", clip(typ))
	}
	if wrong := t.name(name); wrong != "" {
		return "Invalid", "The name " + wrong + ".", nil
	}
	err = s.store.View(ctx, func(r Reader) error {
		_, err := Holder(ctx, r, t.Name, name)
		return err
	})
	if errors.Is(err, ErrUnknown) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	return "AlreadyExists", "The name " + name + " is already in use.", nil
}
