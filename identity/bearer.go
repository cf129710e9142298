package identity

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// What callers see and send is "identity"; these they neither see nor set.
const (
	// pathOwn is where a document keeps what is ours to say.
	pathOwn = "identities"
	// pathSystem are the ids of its system-assigned identity.
	pathSystem = pathOwn + ".system"
	// pathAssigned are the principals of its user-assigned identities, by the
	// keys of their ids: an identity that was deleted and made again under its
	// name is another, and nobody has assigned that.
	pathAssigned = pathOwn + ".assigned"
)

// maxAssigned is how many user-assigned identities one resource carries.
const maxAssigned = 32

// Bearing is the type t whose resources may carry identities, by the property
// identity that ARM has for all types:
//
//	{"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {ID: {}}}
//
// becomes says that a change makes another machine or program of the resource,
// nil that none does. Its system-assigned identity is then another too, and
// whoever makes the change must be one who may assign the others: the right to
// replace a machine's key is not the right to what the machine may.
func (c Config) Bearing(t resource.Type, becomes func(*resource.Change) bool) resource.Type {
	inner := t
	t.ReadOnly = append(slices.Clone(inner.ReadOnly), pathOwn)
	t.Secret = append(slices.Clone(inner.Secret), pathOwn)
	t.Check = func(ch *resource.Change) []fault.Field {
		problems := settle(ch.New.Body)
		if inner.Check != nil {
			problems = append(problems, inner.Check(ch)...)
		}
		return problems
	}
	t.Put = func(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
		if inner.Put != nil {
			if err := inner.Put(ctx, tx, ch); err != nil {
				return err
			}
		}
		return c.carry(ctx, tx, ch, ch.Old != nil && becomes != nil && becomes(ch))
	}
	t.Delete = func(ctx context.Context, tx resource.Tx, doc resource.Doc, by resource.Caller) error {
		if inner.Delete != nil {
			if err := inner.Delete(ctx, tx, doc, by); err != nil {
				return err
			}
		}
		return c.drop(ctx, tx, doc.Body)
	}
	t.Show = func(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
		if inner.Show != nil {
			if err := inner.Show(ctx, r, doc, body); err != nil {
				return err
			}
		}
		return show(ctx, r, doc, body)
	}
	return t
}

// settle checks the property and gives it its one spelling. None is the same
// as absent.
func settle(body resource.Object) (problems []fault.Field) {
	bad := func(path, message string) { problems = append(problems, fault.Field{Path: path, Message: message}) }
	o, ok := body["identity"].(resource.Object)
	if !ok {
		return nil // absent; that it is an object was checked before
	}
	if twice := resource.Spell(o, "type", "userAssignedIdentities", "principalId", "tenantId"); twice != "" {
		bad("identity."+twice, "is given twice, in spellings that differ in case only")
		return problems
	}
	text, _ := o["type"].(string)
	system, user, known := parseType(text)
	if !known {
		bad("identity.type", "must be SystemAssigned, UserAssigned, both with a comma between them, or None")
		return problems
	}
	ids, wrong := keys(o["userAssignedIdentities"])
	problems = append(problems, wrong...)
	if user && len(ids) == 0 && len(wrong) == 0 {
		bad("identity.userAssignedIdentities", "must name at least one identity where the type says UserAssigned")
	}
	if len(problems) > 0 {
		return problems
	}
	next := resource.Object{"type": typeName(system, user)}
	if user {
		named := resource.Object{}
		for _, id := range ids {
			named[id.String()] = resource.Object{}
		}
		next["userAssignedIdentities"] = named
	}
	if !system && !user {
		delete(body, "identity")
		return nil
	}
	body["identity"] = next
	return nil
}

func parseType(text string) (system, user, ok bool) {
	for word := range strings.SplitSeq(text, ",") {
		switch word = strings.TrimSpace(word); {
		case strings.EqualFold(word, "SystemAssigned"):
			system = true
		case strings.EqualFold(word, "UserAssigned"):
			user = true
		case strings.EqualFold(word, "None") && !strings.Contains(text, ","):
		default:
			return false, false, false
		}
	}
	return system, user, true
}

func typeName(system, user bool) string {
	var words []string
	if system {
		words = append(words, "SystemAssigned")
	}
	if user {
		words = append(words, "UserAssigned")
	}
	return strings.Join(words, ", ")
}

// keys are the ids that userAssignedIdentities names. What they map to is ours
// to say and is dropped; null takes an id out.
func keys(v any) (ids []arm.ID, problems []fault.Field) {
	const path = "identity.userAssignedIdentities"
	bad := func(message string) { problems = append(problems, fault.Field{Path: path, Message: message}) }
	o, ok := v.(resource.Object)
	if v != nil && !ok {
		bad("must be an object whose names are ids of identities")
	}
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if o[name] == nil {
			continue
		}
		id, err := arm.ParseID(name)
		switch {
		case err != nil || !strings.EqualFold(id.Type(), TypeName):
			bad("'" + clip(name) + "' is not the id of a user-assigned identity")
		case slices.ContainsFunc(ids, id.Equal):
			bad("'" + clip(name) + "' is there twice")
		default:
			ids = append(ids, id)
		}
	}
	if len(ids) > maxAssigned {
		bad("a resource carries at most 32 identities")
	}
	return ids, problems
}

// assigned are the user-assigned identities of a document that was settled.
func assigned(body resource.Object) []arm.ID {
	ids, _ := keys(resource.Lookup(body, "identity.userAssignedIdentities"))
	return ids
}

// carry brings about what the property says.
func (c Config) carry(ctx context.Context, tx resource.Tx, ch *resource.Change, another bool) error {
	body := ch.New.Body
	system, _, _ := parseType(textAt(body, "identity.type"))
	if !system || another {
		if err := c.drop(ctx, tx, body); err != nil {
			return err
		}
	}
	if system && resource.Lookup(body, pathSystem) == nil {
		m, err := c.add(ctx, tx, ch.New.ID)
		if err != nil {
			return err
		}
		resource.Assign(body, pathSystem, resource.Object{"principalId": m.principal, "clientId": m.client, "tenantId": m.tenant})
	}
	was := resource.Object{}
	if ch.Old != nil && !another {
		was, _ = resource.Lookup(ch.Old.Body, pathAssigned).(resource.Object)
	}
	now := resource.Object{}
	for _, id := range assigned(body) {
		if principal := was[id.Key()]; principal != nil {
			now[id.Key()] = principal
			continue
		}
		// Asked before it is looked for: who may not assign it does not learn
		// whether it is there.
		if ch.Caller.May == nil || !ch.Caller.May(ActionAssign, id) {
			return ErrNotPermitted.Detail("The client has permission to write this resource, but not to perform action '%s' on the linked scope '%s', or the linked scope is invalid.", ActionAssign, id)
		}
		user, err := tx.Get(ctx, id)
		if errors.Is(err, resource.ErrUnknown) {
			return ErrReference.Detail("The user-assigned identity '%s' was not found.", id)
		}
		if err != nil {
			return err
		}
		// In one tenant: the property names a principal of ours and no other's.
		sub, err := tx.Get(ctx, resource.SubscriptionID(ch.New.ID.Subscription()))
		if err != nil {
			return err
		}
		if sub.Body["tenantId"] != textAt(user.Body, "properties.tenantId") {
			return ErrReference.Detail("The user-assigned identity '%s' is of another tenant.", id)
		}
		now[id.Key()] = textAt(user.Body, "properties.principalId")
	}
	if resource.Remove(body, pathAssigned); len(now) > 0 {
		resource.Assign(body, pathAssigned, now)
	}
	if own, _ := body[pathOwn].(resource.Object); len(own) == 0 {
		delete(body, pathOwn)
	}
	return nil
}

// drop takes the system-assigned identity of a document away.
func (c Config) drop(ctx context.Context, tx resource.Tx, body resource.Object) error {
	id := textAt(body, pathSystem+".principalId")
	resource.Remove(body, pathSystem)
	if id == "" {
		return nil
	}
	return c.Principals.RemoveIn(ctx, tx, id)
}

// show adds what callers cannot set.
func show(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	o, ok := body["identity"].(resource.Object)
	if !ok {
		return nil
	}
	list, err := Of(ctx, r, doc)
	if err != nil {
		return err
	}
	named, _ := o["userAssignedIdentities"].(resource.Object)
	for _, one := range list {
		if one.System {
			o["principalId"], o["tenantId"] = one.PrincipalID, one.Tenant
			continue
		}
		for name := range named {
			if id, err := arm.ParseID(name); err == nil && id.Equal(one.ID) {
				named[name] = resource.Object{"principalId": one.PrincipalID, "clientId": one.ClientID}
			}
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
