package access

import (
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/token"
)

// mapped says why a token of the registry may not have one scope, "" when its
// scope map gives it. Roles and permission modes do not concern it: the scope
// map is all it has.
func (f *Facts) mapped(want *Scope, v *Verdict) Reason {
	m := f.Proof.Map
	if v != nil && m != nil {
		v.rec.ScopeMap = m.Name
	}
	right := registry.ScopeRight(want.Action)
	if want.Type != "repository" || right == 0 || !m.Allows(want.Name, right) {
		return reason.ScopeMapTooSmall
	}
	if f.Proof.Limit != nil && !token.Covers(f.Proof.Limit, want.Type, want.Name, want.Action) {
		return reason.TokenScopeTooSmall
	}
	return ""
}

// mayAsk is what a registry token may be issued for: what the holder may, and
// deleting, to who may delete no more than referrers. To a token with a scope
// map * means whatever the map gives the action on: what is issued is looked
// at again with each request, repository by repository, so it opens nothing
// that the map does not.
func (f *Facts) mayAsk(typ, name, action string) bool {
	if f.Proof.Identity.Kind == KindToken && typ == "repository" && name == "*" {
		return f.Proof.Map.AllowsSome(registry.ScopeRight(action)) &&
			(f.Proof.Limit == nil || token.Covers(f.Proof.Limit, typ, name, action))
	}
	if f.may(typ, name, action) {
		return true
	}
	// What is to be deleted is known when it is deleted, not yet here.
	return action == "delete" && (f.Proof.Limit == nil || token.Covers(f.Proof.Limit, typ, name, action)) &&
		f.mayDeleteReferrers(&Scope{typ, name, action}, nil)
}
