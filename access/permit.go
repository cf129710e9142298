package access

import (
	"cove.example/cove/condition"
	"cove.example/cove/link"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/token"
)

// settle decides what the network has let through.
func settle(f *Facts, v *Verdict) {
	if f.Failed {
		refuse(v, Unavailable, reason.CannotDecide, stageSignIn, factMissing)
		return
	}
	p := &f.Proof
	v.rec.Mode = modeOf(f.Registry)
	v.rec.Method, v.rec.Claimed, v.rec.Token = p.Method, p.Claimed, p.TokenID
	if p.Failure == "" {
		v.Identity, v.rec.Identity = p.Identity, p.Identity
	}
	switch {
	case p.Failure != "":
		refuse(v, Unauthenticated, p.Failure, stageSignIn, signInFailed)
		return
	case p.Method == "" || p.Method == ByNothing || p.Identity.Kind == "":
		refuse(v, Unauthenticated, reason.NoCredential, stageSignIn, signInNothing)
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

// need is what a scope needs of somebody's roles: an action in the one
// permission mode, a data action in the other. In each the other counts for
// nothing (source: the documentation of Azure Container Registry).
type need struct{ action, data string }

// repositoryNeeds are what scopes of a repository need. Labels and locks are a
// registry's settings where Actions decide: AcrPush cannot write them.
var repositoryNeeds = map[string]need{
	"pull":           {policy.ActionPull, policy.DataContentRead},
	"metadata_read":  {policy.ActionPull, policy.DataMetadataRead},
	"push":           {policy.ActionPush, policy.DataContentWrite},
	"metadata_write": {policy.ActionRegistryWrite, policy.DataMetadataWrite},
	"delete":         {policy.ActionDelete, policy.DataContentDelete},
}

// need is what a scope needs; false for one that nobody can have.
func (s *Scope) need() (need, bool) {
	switch {
	case s.Type == "repository":
		n, ok := repositoryNeeds[s.Action]
		return n, ok
	case s.Type == "registry" && s.Name == "catalog" && s.Action == "*":
		return need{policy.ActionPull, policy.DataCatalogRead}, true
	}
	return need{}, false
}

// permits says why the caller may not have one scope, "" when it may. v is told
// which role decided.
//
// Without v the question is whether a token may be issued for the scope. There,
// and only there, the repository * means some repository: under a condition
// nobody can list those that it allows, so the token says *, and each of its
// uses is decided again, by the roles and conditions of that moment. A token
// for * therefore opens what tokens for the single repositories would.
//
// The token's limit comes last: clients ask for what they need and are issued
// what they may have, so a token that lacks an action mostly says that a role
// is lacking, and another token would lack it too.
func (f *Facts) permits(want *Scope, v *Verdict) Reason {
	if f.Proof.Identity.Kind == KindToken {
		return f.mapped(want, v)
	}
	n, ok := want.need()
	if !ok {
		return reason.NoRoleForAction
	}
	why := f.holds(n, want, v)
	if why != "" && f.Referrer && want.Action == "delete" && f.mayDeleteReferrers(want, v) {
		why = ""
	}
	if why != "" {
		return why
	}
	if f.Proof.Limit != nil && !token.Covers(f.Proof.Limit, want.Type, want.Name, want.Action) {
		return reason.TokenScopeTooSmall
	}
	return ""
}

// holds says why the identity may not have a scope on this registry, whatever
// its token says; "" when it may.
func (f *Facts) holds(n need, want *Scope, v *Verdict) Reason {
	switch f.Proof.Identity.Kind {
	case KindAdmin:
		return ""
	case KindAnonymous:
		if n.action != policy.ActionPull {
			return reason.AnonymousReadsOnly
		}
		return ""
	case KindServicePrincipal, KindUser:
		return f.assigned(n, want, v)
	}
	return reason.NoRoleHere
}

// mayDeleteReferrers reports whether the identity may delete what belongs to
// another manifest, though no image: in the mode where Actions decide, who may
// push may take back the signatures and lists that it has attached (source: the
// documentation of Azure Container Registry, of AcrPush). A tag it may not take
// away: az asks for delete in order to untag. It may move one, by pushing.
func (f *Facts) mayDeleteReferrers(want *Scope, v *Verdict) bool {
	return want.Type == "repository" && !f.abac() && f.Proof.Identity.holdsRoles() && f.assigned(repositoryNeeds["push"], want, v) == ""
}

// needsReferrer reports whether the decision depends on Referrer: somebody who
// has signed in wants to delete, may not, and may where it is one. Nobody else
// makes us look at content.
func (f *Facts) needsReferrer() bool {
	if f.Failed || f.Proof.Failure != "" || len(f.Ask.Want) != 1 || f.Ask.Want[0].Action != "delete" {
		return false
	}
	want := &f.Ask.Want[0]
	var v Verdict // not nil: it is one repository that is asked about
	return f.mayDeleteReferrers(want, &v) && f.assigned(repositoryNeeds["delete"], want, &v) != ""
}

// assigned says why the roles of the identity do not give it a scope.
func (f *Facts) assigned(n need, want *Scope, v *Verdict) Reason {
	if len(f.Roles) == 0 {
		return reason.NoRoleHere
	}
	abac := f.abac()
	q := f.question(n, abac, want)
	q.Possible = v == nil
	d := policy.Decide(f.Roles, &q)
	f.note(v, &q, &d)
	switch {
	case d.Allowed:
		return ""
	case d.Miss == policy.ConditionFalse:
		return reason.ConditionNotMet
	}
	q = f.question(n, !abac, want)
	if other := policy.Decide(f.Roles, &q); other.Allowed {
		f.note(v, &q, &other)
		return reason.ModeIgnoresRole
	}
	return reason.NoRoleForAction
}

// abac reports whether data actions and conditions decide here, and not actions.
func (f *Facts) abac() bool { return f.Registry.Mode == registry.AbacMode }

// question is what is asked of the roles. What conditions may look at comes
// from the connection and the clock, nothing of it from the caller's words.
func (f *Facts) question(n need, data bool, want *Scope) policy.Question {
	q := policy.Question{Scope: f.Registry.ID, Data: data}
	q.Action, q.Now, q.Subnet = n.action, f.Now, f.Subnet
	if data {
		q.Action = n.data
	}
	if want.Type == "repository" {
		q.Repository = want.Name
	}
	if f.Endpoint != nil && f.Ask.Origin.Kind != link.Public {
		q.PrivateLink, q.Endpoint = true, f.Endpoint.ID.String() // an approved one that leads here, or admit had ended it
	}
	return q
}

// anything is what holding any of shows that an identity belongs here. Whoever
// may see the registry may log in, in both modes, and then has no content.
var anything = []Scope{
	{"repository", condition.Any, "pull"},
	{"repository", condition.Any, "metadata_read"},
	{"repository", condition.Any, "push"},
	{"repository", condition.Any, "metadata_write"},
	{"repository", condition.Any, "delete"},
	{"registry", "catalog", "*"},
}

// belongs says why a caller that asks for nothing in particular is refused:
// it holds nothing on this registry that counts.
func (f *Facts) belongs(v *Verdict) Reason {
	switch f.Proof.Identity.Kind {
	case KindAdmin, KindAnonymous, KindToken:
		return ""
	}
	see := policy.Question{Scope: f.Registry.ID}
	see.Action, see.Now = policy.ActionRegistryRead, f.Now
	if d := policy.Decide(f.Roles, &see); d.Allowed {
		f.note(v, &see, &d)
		return ""
	}
	out := reason.NoRoleHere
	for _, data := range []bool{f.abac(), !f.abac()} {
		for i := range anything {
			n, _ := anything[i].need()
			q := f.question(n, data, &anything[i])
			q.Possible = true
			if d := policy.Decide(f.Roles, &q); d.Allowed {
				f.note(v, &q, &d)
				if data == f.abac() {
					return ""
				}
				return reason.ModeIgnoresRole
			} else if d.Miss == policy.ConditionFalse && data == f.abac() {
				f.note(v, &q, &d)
				out = reason.ConditionNotMet
			}
		}
		if out != reason.NoRoleHere {
			return out
		}
	}
	return out
}

// note keeps which assignment decided, or was the nearest to.
func (f *Facts) note(v *Verdict, q *policy.Question, d *policy.Decision) {
	if v == nil {
		return
	}
	v.rec.Action = q.Action
	if a := d.Assignment; a != nil {
		v.rec.Assignment, v.rec.Role, v.rec.RoleScope = a.ID.String(), a.Role.Name, a.Scope.String()
		v.rec.Condition, v.rec.Misses = "", nil
		if a.Condition != nil {
			v.rec.Condition = a.Condition.String()
			if d.Miss == policy.ConditionFalse {
				v.rec.Misses = a.Condition.Misses(&q.Request)
			}
		}
	}
}
