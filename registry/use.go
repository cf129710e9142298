package registry

import (
	"context"
	"errors"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// typeUse is a document without a row in the table of types, so that no caller
// can reach it: it says that a token uses a scope map, and lies below the map's
// UID. To ask whether anybody uses a map is to read one row, among fifty
// thousand tokens too. It is written and deleted in the transaction of the
// token.
const typeUse = "Cove.Uses/scopeMaps/tokens"

// usesOf is what the uses of a scope map lie under.
func usesOf(scopeMap resource.Doc) (arm.ID, error) {
	return arm.ParseID("/providers/Cove.Uses/scopeMaps/" + scopeMap.UID)
}

// user returns the name of a token that uses a scope map, "" where none does.
func user(ctx context.Context, r resource.Reader, scopeMap resource.Doc) (string, error) {
	under, err := usesOf(scopeMap)
	if err != nil {
		return "", err
	}
	list, err := r.List(ctx, resource.Query{Type: typeUse, Under: under, Limit: 1})
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].ID.Name(), nil
}

// use notes that a token uses the map that its document names, or, with
// begin false, that it does no longer. A system map is not noted: nobody
// deletes one.
func use(ctx context.Context, tx resource.Tx, token resource.Doc, begin bool) error {
	text, _ := resource.Lookup(token.Body, pathTokenMap).(string)
	id, err := arm.ParseID(text)
	if err != nil {
		return err
	}
	if systemMap(id.Name()) != nil {
		return nil
	}
	scopeMap, err := tx.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) && !begin {
		return nil
	}
	if err != nil {
		return err
	}
	under, err := usesOf(scopeMap)
	if err != nil {
		return err
	}
	at := under.Child("tokens", token.ID.Name())
	if !begin {
		return tx.Delete(ctx, at)
	}
	return tx.Put(ctx, &resource.Doc{ID: at, Body: resource.Object{}})
}
