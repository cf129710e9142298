package access

import (
	"cove.example/cove/policy"
	"cove.example/cove/token"
)

// settle decides what the network has let through.
func settle(f *Facts, v *Verdict) {
	if f.Failed {
		refuse(v, Unavailable, CannotDecide, stageSignIn, factMissing)
		return
	}
	p := &f.Proof
	v.rec.Method, v.rec.Claimed = p.Method, p.Claimed
	if p.Failure == "" {
		v.Identity, v.rec.Identity = p.Identity, p.Identity
	}
	switch {
	case p.Failure != "":
		refuse(v, Unauthenticated, p.Failure, stageSignIn, signInFailed)
		return
	case p.Method == "" || p.Method == ByNothing || p.Identity.Kind == "":
		refuse(v, Unauthenticated, NoCredential, stageSignIn, signInNothing)
		return
	}
	v.rec.Ends[stageSignIn], v.rec.Claimed = signedIn, ""
	if len(f.Ask.Want) == 0 {
		if why := f.belongs(v); why != "" {
			refuse(v, Permission, why, stagePermission, permissionNone)
			return
		}
	}
	for i := range f.Ask.Want {
		if why := f.permits(&f.Ask.Want[i], v); why != "" {
			v.rec.Lacks = &f.Ask.Want[i]
			refuse(v, Permission, why, stagePermission, permissionFails)
			return
		}
	}
	v.rec.Ends[stagePermission] = permitted
	v.Allow, v.rec.Allow = true, true
}

// contentActions are what scopes need in the RBAC permissions mode, whichever
// role carries them. Labels and locks are a registry's settings there: AcrPush
// cannot write them (source: the documentation of Azure Container Registry).
var contentActions = map[string]string{
	"pull":           policy.ActionPull,
	"metadata_read":  policy.ActionPull,
	"push":           policy.ActionPush,
	"metadata_write": policy.ActionRegistryWrite,
	"delete":         policy.ActionDelete,
}

// action is what a scope needs, "" for one that nobody can have.
func (s *Scope) action() string {
	switch {
	case s.Type == "repository":
		return contentActions[s.Action]
	case s.Type == "registry" && s.Name == "catalog" && s.Action == "*":
		return policy.ActionPull
	}
	return ""
}

// permits says why the caller may not have one scope, "" when it may. v, if
// it is not nil, is told which role decided.
//
// The token's limit comes last: clients ask for what they need and are issued
// what they may have, so a token that lacks an action mostly says that a role
// is lacking, and another token would lack it too.
func (f *Facts) permits(want *Scope, v *Verdict) Reason {
	action := want.action()
	if action == "" {
		return NoRoleForAction
	}
	if why := f.holds(action, v); why != "" {
		return why
	}
	if f.Proof.Limit != nil && !token.Covers(f.Proof.Limit, want.Type, want.Name, want.Action) {
		return TokenScopeTooSmall
	}
	return ""
}

// holds says why the identity may not do an action on this registry, whatever
// its token says; "" when it may.
func (f *Facts) holds(action string, v *Verdict) Reason {
	switch f.Proof.Identity.Kind {
	case KindAdmin:
		return ""
	case KindAnonymous:
		if action != policy.ActionPull {
			return AnonymousReadsOnly
		}
		return ""
	case KindServicePrincipal:
		if len(f.Roles) == 0 {
			return NoRoleHere
		}
		d := policy.Decide(f.Roles, action, f.Registry.ID)
		f.note(v, action, d.Assignment)
		if !d.Allowed {
			return NoRoleForAction
		}
		return ""
	}
	return NoRoleHere
}

// belongs says why a caller that asks for nothing in particular is refused:
// it holds nothing at all on this registry.
func (f *Facts) belongs(v *Verdict) Reason {
	switch f.Proof.Identity.Kind {
	case KindAdmin, KindAnonymous:
		return ""
	}
	for _, action := range []string{policy.ActionPull, policy.ActionRegistryRead, policy.ActionPush, policy.ActionDelete} {
		if d := policy.Decide(f.Roles, action, f.Registry.ID); d.Allowed {
			f.note(v, action, d.Assignment)
			return ""
		}
	}
	return NoRoleHere
}

func (f *Facts) note(v *Verdict, action string, a *policy.Assignment) {
	if v == nil {
		return
	}
	v.rec.Action = action
	if a != nil {
		v.rec.Assignment, v.rec.Role, v.rec.RoleScope = a.ID.String(), a.Role.Name, a.Scope.String()
	}
}
