package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// A scope map is refused its end exactly as long as tokens point at it, however
// they came to and ceased to; and so after the migration of a database in which
// nobody had noted who uses what.
func TestAScopeMapIsInUseWhileTokensPointAtIt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		w.put(registries+"harbour", `{"location":"westeurope","sku":{"name":"Premium"}}`)
		mapAt := func(reg, name string) string { return reg + "/scopeMaps/" + name }
		maps, tokens, regs := []string{"map-one", "Map_Two", "_repositories_pull"}, []string{"robot-a", "Robot-B", "robot-c"}, []string{harbor, registries + "harbour"}
		body := `{"properties":{"actions":["repositories/a/content/read"]}}`
		points := map[string]string{} // token → map
		there := map[string]bool{}
		rng := rand.New(rand.NewPCG(1, 2))
		migrated := 0
		for step := range 120 {
			reg := regs[rng.IntN(2)]
			m, token := mapAt(reg, maps[rng.IntN(3)]), reg+"/tokens/"+tokens[rng.IntN(3)]
			system := strings.Contains(m, "/_")
			switch rng.IntN(6) {
			case 0:
				if !system {
					w.put(m, body)
					there[m] = true
				}
			case 1, 2:
				_, err := w.try(token, `{"properties":{"scopeMapId":"`+strings.ToUpper(m)+`"}}`)
				if ok := there[m] || system; ok != (err == nil) {
					t.Fatalf("step %d: a token points at %s: %v", step, m, err)
				} else if ok {
					points[token] = m
				}
			case 3:
				w.remove(token)
				delete(points, token)
			case 4:
				if step > 60 && migrated < 3 {
					migrated++
					forget(t, db)
				}
			default:
				if system {
					continue
				}
				_, err := w.Delete(t.Context(), owner, arm.MustID(m), resource.Condition{})
				var users []string
				for token, at := range points {
					if at == m {
						users = append(users, strings.ToLower(arm.MustID(token).Name()))
					}
				}
				slices.Sort(users)
				switch got := refused(err); {
				case len(users) == 0 && err == nil:
					delete(there, m)
				case len(users) > 0 && strings.Contains(strings.ToLower(got), "is used by the token "+users[0]+"."):
				default:
					t.Fatalf("step %d: %s is used by %v: %s", step, m, users, got)
				}
			}
		}
		if migrated == 0 {
			t.Error("nothing was migrated")
		}
		for _, reg := range regs {
			w.remove(reg)
		}
		if n := uses(t, db); n != 0 {
			t.Errorf("%d uses are left when all tokens are gone", n)
		}
	})
}

// forget makes the database one of the version before, and migrates it.
func forget(t *testing.T, db *store.DB) {
	t.Helper()
	text, err := os.ReadFile("../store/migrations/0011_uses.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, fill, _ := strings.Cut(string(text), "-- +goose Up\n")
	before := uses(t, db)
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(t.Context(), `DELETE FROM resources WHERE type = 'cove.uses/scopemaps/tokens'`); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), fill)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if after := uses(t, db); after != before {
		t.Errorf("%d uses before the migration, %d after it", before, after)
	}
}

func uses(t *testing.T, db *store.DB) (n int) {
	t.Helper()
	err := store.NewResources(db).View(t.Context(), func(r resource.Reader) error {
		list, err := r.List(t.Context(), resource.Query{Type: "Cove.Uses/scopeMaps/tokens"})
		n = len(list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Deleting a scope map costs the same whether a registry has no tokens or as
// many as it may.
func BenchmarkDeleteScopeMap(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		for _, n := range []int{0, 50_000} {
			b.Run(fmt.Sprintf("%s/tokens=%d", name, n), func(b *testing.B) {
				docs := store.NewResources(storetest.Open(b, url(b)))
				reg := arm.MustID(harbor)
				ctx := context.Background()
				update := func(fn func(tx resource.Tx) error) {
					if err := docs.Update(ctx, fn); err != nil {
						b.Fatal(err)
					}
				}
				for at := 0; at < n; at += 5000 {
					update(func(tx resource.Tx) error {
						for i := at; i < at+5000; i++ {
							doc := resource.Doc{ID: reg.Child("tokens", fmt.Sprint("token-", i)), Body: resource.Object{"properties": resource.Object{"scopeMapId": harbor + "/scopeMaps/_repositories_pull", "status": "enabled"}}}
							if err := tx.Put(ctx, &doc); err != nil {
								return err
							}
						}
						return nil
					})
				}
				remove := registry.ScopeMaps().Delete
				doc := resource.Doc{ID: reg.Child("scopeMaps", "map-one"), Body: resource.Object{}}
				update(func(tx resource.Tx) error { return tx.Put(ctx, &doc) })
				for b.Loop() {
					update(func(tx resource.Tx) error { return remove(ctx, tx, doc, owner) })
				}
			})
		}
	}
}
