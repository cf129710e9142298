package policy_test

import (
	"context"
	"slices"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// Where somebody holds a role is known at once, before and while the roles are
// kept in memory, with what groups give.
func TestScopes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		docs := store.NewResources(db)
		r := policy.NewRoles(docs)
		const crew = "66666666-6666-4666-8666-666666666666"
		r.Groups = func(_ context.Context, who string) ([]string, error) {
			if who == ci {
				return []string{crew}, nil
			}
			return nil, nil
		}
		at := func(who string) (out []string) {
			t.Helper()
			list, err := r.Scopes(t.Context(), who)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range list {
				out = append(out, id.String())
			}
			slices.Sort(out)
			return out
		}
		check := func(when string) {
			t.Helper()
			for _, step := range []struct {
				who, role string
				scope     arm.ID
				want      []string
			}{
				{ci, policy.RoleAcrPull, harbor, []string{harbor.String()}},
				{crew, policy.RoleAcrPush, everyone, []string{everyone.String(), harbor.String()}},
			} {
				if err := policy.Grant(t.Context(), docs, step.who, step.role, step.scope); err != nil {
					t.Fatal(err)
				}
				if got := at(ci); !slices.Equal(got, step.want) {
					t.Errorf("%s: %v, want %v", when, got, step.want)
				}
			}
			if got := at(laptop); got != nil {
				t.Errorf("%s: of nobody's %v", when, got)
			}
			err := docs.Update(t.Context(), func(tx resource.Tx) error {
				list, err := tx.List(t.Context(), resource.Query{Type: policy.TypeAssignments})
				for _, d := range list {
					if err == nil {
						err = tx.Delete(t.Context(), d.ID)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := at(ci); got != nil {
				t.Errorf("%s: after the roles are taken away %v", when, got)
			}
			err = docs.Update(t.Context(), func(tx resource.Tx) error {
				list, err := tx.List(t.Context(), resource.Query{})
				for _, d := range list {
					if err == nil {
						err = tx.Delete(t.Context(), d.ID)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		check("from the store")
		follow(t, r)
		check("from memory")
	})
}
