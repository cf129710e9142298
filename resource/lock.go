package resource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// TypeLock is the resource type of management locks: a document below the
// subscription, group or resource that it locks.
const TypeLock = "Microsoft.Authorization/locks"

// The levels of a lock. Each counts at its scope and for everything below.
const (
	LockDelete   = "CanNotDelete" // nothing is deleted
	LockReadOnly = "ReadOnly"     // nothing is written or deleted, and no action is done
)

// ErrLocked is the refusal of what a lock stands in the way of.
var ErrLocked = fault.Coded(fault.Conflict, "ScopeLocked", "a lock stands in the way")

// maxLocks is how many locks one scope may have, as in ARM.
const maxLocks = 20

// lockType is management locks. A lock protects against the control plane's
// own verbs; what those bring about elsewhere, and the content of registries,
// it does not concern.
var lockType = Type{
	Name:      TypeLock,
	Extension: true,
	CheckName: func(name string) string {
		if len(name) > 90 || !plain(name) {
			return "must be 1 to 90 letters, digits, hyphens, underscores, dots and parentheses, and not end in a dot"
		}
		return ""
	},
	Check: checkLock,
	Put: func(ctx context.Context, tx Tx, c *Change) error {
		if c.Old != nil {
			return nil
		}
		there, err := locksAt(ctx, tx, c.New.ID.Parent())
		if err == nil && len(there) >= maxLocks {
			err = ErrLockCount.Detail("The scope '%s' has %d locks, as many as it may have.", c.New.ID.Parent(), len(there))
		}
		return err
	},
}

// ErrLockCount is the refusal of one more lock at a scope that is full of them.
var ErrLockCount = fault.Coded(fault.Conflict, "LockCountExceeded", "the scope has as many locks as it may have")

func checkLock(c *Change) (bad []fault.Field) {
	on := c.New.ID.Parent()
	if on.Subscription() == "" || strings.EqualFold(on.Type(), TypeLock) {
		bad = append(bad, fault.Field{Path: "id", Message: "a lock is for a subscription, a resource group or a resource"})
	}
	props, _ := c.New.Body["properties"].(Object)
	if twice := Spell(props, "level", "notes", "owners"); twice != "" {
		bad = append(bad, fault.Field{Path: "properties." + twice, Message: "is given twice, in spellings that differ in case only"})
	}
	level, _ := props["level"].(string)
	switch i := slices.IndexFunc([]string{LockDelete, LockReadOnly}, func(l string) bool { return strings.EqualFold(l, level) }); i {
	case 0:
		props["level"] = LockDelete
	case 1:
		props["level"] = LockReadOnly
	default:
		bad = append(bad, fault.Field{Path: "properties.level", Message: "must be " + LockDelete + " or " + LockReadOnly})
	}
	if notes, ok := props["notes"].(string); props["notes"] != nil && !ok || len(notes) > 512 {
		bad = append(bad, fault.Field{Path: "properties.notes", Message: "must be a text of at most 512 characters"})
	}
	if owners, ok := props["owners"].([]any); props["owners"] != nil && (!ok || len(owners) > 0) {
		bad = append(bad, fault.Field{Path: "properties.owners", Message: "owners of a lock are not in this version: who holds a role for it may change it"})
	}
	return bad
}

// locksAt are the locks of one scope, without those above and below.
func locksAt(ctx context.Context, r Reader, scope arm.ID) ([]Doc, error) {
	at := scope.Key() + "/providers/" + strings.ToLower(TypeLock) + "/"
	docs, err := r.List(ctx, Query{Type: TypeLock, Under: scope, After: at, Limit: maxLocks})
	if i := slices.IndexFunc(docs, func(d Doc) bool { return !strings.HasPrefix(d.ID.Key(), at) }); i >= 0 {
		docs = docs[:i]
	}
	return docs, err
}

// Unlocked fails with ErrLocked where a lock forbids to delete id, or to write
// it in any other way. Deleting takes along what lies below, so that the locks
// there count too.
//
// It is one indexed read where the subscription has no lock at all.
func Unlocked(ctx context.Context, r Reader, id arm.ID, deletes bool) error {
	if id.Subscription() == "" || strings.EqualFold(id.Type(), TypeLock) {
		return nil // a lock is taken away by who may, whatever it is on
	}
	some, err := r.List(ctx, Query{Type: TypeLock, Under: SubscriptionID(id.Subscription()), Limit: 1})
	if err != nil || len(some) == 0 {
		return err
	}
	var in []Doc
	for scope := id; !scope.IsZero(); scope = scope.Parent() {
		there, err := locksAt(ctx, r, scope)
		if err != nil {
			return err
		}
		in = append(in, there...)
	}
	if deletes {
		below, err := r.List(ctx, Query{Type: TypeLock, Under: id, Limit: maxLocks})
		if err != nil {
			return err
		}
		in = append(in, below...)
	}
	verb := "write"
	if deletes {
		verb = "delete"
	}
	var scopes, locks []string
	for _, lock := range in {
		level, _ := Lookup(lock.Body, "properties.level").(string)
		if !deletes && level != LockReadOnly {
			continue
		}
		if scope := "'" + lock.ID.Parent().String() + "'"; !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
		if name := fmt.Sprintf("%s (%s)", lock.ID.Name(), level); !slices.Contains(locks, name) {
			locks = append(locks, name)
		}
	}
	if scopes == nil {
		return nil
	}
	return ErrLocked.Detail("The scope '%s' cannot perform %s operation because following scope(s) are locked: %s. Please remove the lock and try again. Locks: %s.",
		id, verb, clip(strings.Join(scopes, ",")), clip(strings.Join(locks, ", ")))
}
