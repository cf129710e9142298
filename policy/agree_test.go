package policy_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cove.example/cove/arm"
	"cove.example/cove/condition"
	"cove.example/cove/policy"
	"cove.example/cove/policytest"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// checks has rapid draw that many times until the test ends.
func checks(t testing.TB, n string) {
	before := flag.Lookup("rapid.checks").Value.String()
	flag.Set("rapid.checks", n)
	t.Cleanup(func() { flag.Set("rapid.checks", before) })
}

// The built-in roles are those of the description, and each holds what it
// holds there: every action that either of the two names, patterns filled in.
func TestBuiltinRolesAreThoseOfTheDescription(t *testing.T) {
	if n := len(policytest.Builtin); n != len(policy.Builtin) {
		t.Errorf("%d roles, the reference has %d", len(policy.Builtin), n)
	}
	universe := slices.Concat(policytest.Actions, policytest.DataActions)
	for id, want := range policytest.Builtin {
		r := policy.BuiltinByID(id)
		if r == nil || r.Name != want.Name {
			t.Fatalf("%s is not %s", id, want.Name)
		}
		p := want.Permissions[0]
		universe = slices.Concat(universe, r.Actions, r.NotActions, r.DataActions, p.Actions, p.NotActions, p.DataActions)
	}
	for id, want := range policytest.Builtin {
		r := policy.BuiltinByID(id)
		w := policytest.World{Assignments: []policytest.Assignment{{Principal: ci, Role: want, Scope: policytest.Scopes[0]}}}
		for _, a := range universe {
			a = strings.ReplaceAll(a, "*", "anything")
			q := policytest.Request{Principal: ci, Scope: policytest.Registries[0], Action: a}
			if should, _ := policytest.Decide(w, q); r.Allows(a) != should {
				t.Errorf("%s and %s: %v", r.Name, a, !should)
			}
			q.Data = true
			if should, _ := policytest.Decide(w, q); r.AllowsData(a) != should {
				t.Errorf("%s and the data action %s: %v", r.Name, a, !should)
			}
		}
	}
}

// real is an assignment of the reference's as this package has it.
func real(t interface{ Fatal(...any) }, i int, a policytest.Assignment) *policy.Assignment {
	p := a.Role.Permissions[0]
	out := &policy.Assignment{
		ID: assignmentID(a, i), Scope: arm.MustID(a.Scope), Principal: a.Principal,
		Role: &policy.Role{Name: a.Role.Name, Actions: p.Actions, NotActions: p.NotActions, DataActions: p.DataActions, NotDataActions: p.NotDataActions},
	}
	if a.Condition != "" {
		var err error
		if out.Condition, err = condition.Parse(a.Condition); err != nil {
			t.Fatal(a.Condition, err)
		}
	}
	return out
}

func reals(t *rapid.T, all []policytest.Assignment) []*policy.Assignment {
	var out []*policy.Assignment
	for i, a := range all {
		out = append(out, real(t, i, a))
	}
	return out
}

func question(t interface{ Fatal(...any) }, q policytest.Request) *policy.Question {
	now, err := time.Parse(time.RFC3339Nano, q.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &policy.Question{
		Scope: arm.MustID(q.Scope), Data: q.Data,
		Request: condition.Request{Action: q.Action, Repository: q.Repository, PrivateLink: q.PrivateLink, Endpoint: q.PrivateEndpoint, Subnet: q.Subnet, Now: now},
	}
}

func draw(t *rapid.T) []policytest.Assignment {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policytest.Assignment { return policytest.DrawAssignment(t, ci) }), 0, 5).Draw(t, "assignments")
}

var lacks = map[policy.Miss]string{
	policy.NothingAssigned: policytest.Nothing, policy.NotInRole: policytest.Role, policy.ConditionFalse: policytest.Condition,
}

// Random roles, assignments, conditions and requests are decided as by the
// reference, and a refusal names what was nearest to allowing.
func TestDecideAgreesWithTheReference(t *testing.T) {
	checks(t, "4000")
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		all := draw(t)
		as := reals(t, all)
		for range 5 {
			q := policytest.DrawQuestion(t, ci)
			want, lack := policytest.Decide(policytest.World{Assignments: all}, q)
			got := policy.Decide(as, question(t, q))
			if got.Allowed != want || !want && lacks[got.Miss] != lack {
				t.Fatalf("%+v\nunder %+v\n%v %s, the reference says %v %s", q, all, got.Allowed, lacks[got.Miss], want, lack)
			}
			seen[lack]++
		}
	})
	for _, lack := range []string{"", policytest.Nothing, policytest.Role, policytest.Condition} {
		if seen[lack] < 200 {
			t.Errorf("only %d times %q in %v", seen[lack], lack, seen)
		}
	}
}

// less are the ways to give somebody less than before.
var less = map[string]func(t *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment{
	"one assignment fewer": func(_ *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment {
		return slices.Delete(all, i, i+1)
	},
	"a narrower scope": func(t *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment {
		var below []string
		for _, s := range policytest.Scopes {
			if policytest.Covers(all[i].Scope, s) {
				below = append(below, s)
			}
		}
		all[i].Scope = rapid.SampledFrom(below).Draw(t, "narrower")
		return all
	},
	"one NotAction more": func(t *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment {
		p := all[i].Role.Permissions[0]
		p.NotActions = append(slices.Clone(p.NotActions), policytest.DrawPattern(t, policytest.Actions))
		all[i].Role.Permissions = []policytest.Permission{p}
		return all
	},
	"one NotDataAction more": func(t *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment {
		p := all[i].Role.Permissions[0]
		p.NotDataActions = append(slices.Clone(p.NotDataActions), policytest.DrawPattern(t, policytest.DataActions))
		all[i].Role.Permissions = []policytest.Permission{p}
		return all
	},
	"one action fewer": func(_ *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment {
		p := all[i].Role.Permissions[0]
		p.Actions, p.DataActions = p.Actions[min(1, len(p.Actions)):], p.DataActions[min(1, len(p.DataActions)):]
		all[i].Role.Permissions = []policytest.Permission{p}
		return all
	},
	"a condition more": func(t *rapid.T, all []policytest.Assignment, i int) []policytest.Assignment {
		more := "(" + policytest.DrawCondition(t, 1) + ")"
		if all[i].Condition != "" {
			more += " AND (" + all[i].Condition + ")"
		}
		all[i].Condition = more
		return all
	},
}

// Whatever takes something away never grants more, of any action at any place.
func TestLessNeverGrantsMore(t *testing.T) {
	checks(t, "300")
	for name, take := range less {
		t.Run(name, func(t *testing.T) {
			lost := 0
			rapid.Check(t, func(t *rapid.T) {
				all := append(draw(t), policytest.DrawAssignment(t, ci))
				before := reals(t, all)
				after := reals(t, take(t, slices.Clone(all), rapid.IntRange(0, len(all)-1).Draw(t, "of")))
				q := policytest.DrawRequest(t)
				for _, scope := range policytest.Scopes {
					for _, action := range slices.Concat(policytest.Actions, policytest.DataActions) {
						q.Scope, q.Action, q.Data = scope, action, slices.Contains(policytest.DataActions, action)
						was, is := policy.Decide(before, question(t, q)).Allowed, policy.Decide(after, question(t, q)).Allowed
						if is && !was {
							t.Fatalf("%s at %s is allowed with less", action, scope)
						}
						if was && !is {
							lost++
						}
					}
				}
			})
			if lost < 5 {
				t.Errorf("it took something away %d times: that says nothing", lost)
			}
		})
	}
}

// The roles that are kept in memory and brought up to date change by change
// are those of the reference, which looks at all there is each time: people,
// their groups and the groups of those, built-in and custom roles.
func TestKeptRolesAgreeWithTheReference(t *testing.T) {
	const devs, staff, stranger = "66666666-6666-4666-8666-000000000001", "66666666-6666-4666-8666-000000000002", "77777777-7777-4777-8777-777777777777"
	everybody := []string{ci, laptop, devs, staff, stranger}
	storetest.Each(t, func(outer *testing.T, db *store.DB) {
		checks(outer, "8")
		w := policytest.World{}
		docs := store.NewResources(db)
		r := policy.NewRoles(docs)
		r.Groups = func(_ context.Context, who string) (groups []string, _ error) {
			for _, g := range []string{devs, staff} {
				if who != g && w.Concerns(g, who) {
					groups = append(groups, g)
				}
			}
			return groups, nil
		}
		follow(outer, r)
		allowed, refused := 0, 0
		check := func(t *rapid.T) {
			update := func(fn func(tx resource.Tx) error) {
				if err := docs.Update(outer.Context(), fn); err != nil {
					t.Fatal(err)
				}
			}
			// What an earlier draw has left, goes; groups start anew.
			update(func(tx resource.Tx) error {
				for i := range w.Assignments {
					if err := tx.Delete(outer.Context(), assignmentID(w.Assignments[i], i)); err != nil {
						return err
					}
				}
				return nil
			})
			w = policytest.World{Members: map[string][]string{}}
			for range rapid.IntRange(1, 8).Draw(t, "steps") {
				members := rapid.SliceOfN(rapid.SampledFrom([]string{ci, laptop, devs}), 0, 2).Draw(t, "members")
				w.Members[rapid.SampledFrom([]string{devs, staff}).Draw(t, "group")] = members
				var work []func(tx resource.Tx) error
				// Now and then only a group changes.
				for range rapid.IntRange(0, 4).Draw(t, "changes") {
					a, at := policytest.DrawAssignment(t, everybody...), rapid.IntRange(0, len(w.Assignments)).Draw(t, "place")
					if at == len(w.Assignments) {
						w.Assignments = append(w.Assignments, a)
					}
					old := assignmentID(w.Assignments[at], at)
					w.Assignments[at] = a
					work = append(work, func(tx resource.Tx) error {
						if err := tx.Delete(outer.Context(), old); err != nil {
							return err
						}
						return put(outer.Context(), tx, a, at)
					})
				}
				update(func(tx resource.Tx) error {
					for _, do := range work {
						if err := do(tx); err != nil {
							return err
						}
					}
					return nil
				})
				for range 10 {
					q := policytest.DrawQuestion(t, ci, laptop, devs)
					want, lack := policytest.Decide(w, q)
					as, err := r.At(outer.Context(), q.Principal, arm.MustID(q.Scope))
					if err != nil {
						t.Fatal(err)
					}
					if got := policy.Decide(as, question(t, q)); got.Allowed != want || !want && lacks[got.Miss] != lack {
						t.Fatalf("%+v\nin %+v\n%v %s, the reference says %v %s", q, w, got.Allowed, lacks[got.Miss], want, lack)
					}
					if want {
						allowed++
					} else {
						refused++
					}
				}
			}
		}
		rapid.Check(outer, check)
		for more := 0; more < 10 && !outer.Failed() && min(allowed, refused) == 0; more++ { // most often neither is missing
			rapid.Check(outer, check)
		}
		if min(allowed, refused) == 0 {
			outer.Errorf("allowed %d times, refused %d times: that says nothing", allowed, refused)
		}
	})
}

func assignmentID(a policytest.Assignment, i int) arm.ID {
	return arm.MustID(fmt.Sprintf("%s/providers/%s/00000000-0000-4000-8000-%012d", a.Scope, policy.TypeAssignments, i))
}

// put stores an assignment, and its role if that is nobody's but its own.
func put(ctx context.Context, tx resource.Tx, a policytest.Assignment, i int) error {
	role := policy.BuiltinByName(a.Role.Name)
	id := fmt.Sprintf("99999999-0000-4000-8000-%012d", i)
	if role != nil {
		id = role.ID
	} else {
		at, err := policy.RoleID(id)
		if err != nil {
			return err
		}
		list := func(of []string) []any {
			out := []any{}
			for _, s := range of {
				out = append(out, s)
			}
			return out
		}
		p := a.Role.Permissions[0]
		err = tx.Put(ctx, &resource.Doc{ID: at, Body: resource.Object{"properties": resource.Object{
			"roleName": a.Role.Name, "assignableScopes": []any{policytest.Scopes[0], policytest.Scopes[3]},
			"permissions": []any{resource.Object{
				"actions": list(p.Actions), "notActions": list(p.NotActions), "dataActions": list(p.DataActions), "notDataActions": list(p.NotDataActions),
			}},
		}}})
		if err != nil {
			return err
		}
	}
	body := resource.Object{"principalId": a.Principal, "roleDefinitionId": policy.DefinitionID(everyone.Subscription(), id)}
	if a.Condition != "" {
		body["condition"], body["conditionVersion"] = a.Condition, condition.Version
	}
	return tx.Put(ctx, &resource.Doc{ID: assignmentID(a, i), Body: resource.Object{"properties": body}})
}
