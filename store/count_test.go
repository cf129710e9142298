package store_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// What is counted is what is there, whatever was written twice, taken away
// twice, rolled back, or was there before anybody counted.
func TestCountsAreWhatIsThere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		docs := store.NewResources(db)
		types := []string{"tokens", "scopeMaps", "webhooks"}
		one, other := arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/Harbor"), arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/harbor2")
		agree := func(when string) {
			t.Helper()
			err := docs.View(ctx, func(r resource.Reader) error {
				for _, reg := range []arm.ID{one, other} {
					for _, typ := range types {
						list, err := r.List(ctx, resource.Query{Type: reg.Type() + "/" + typ, Under: reg})
						if err != nil {
							return err
						}
						n, err := r.Count(ctx, reg.Type()+"/"+typ, reg)
						if err != nil {
							return err
						}
						if n != int64(len(list)) {
							t.Errorf("%s: %d %s of %s are counted, %d are there", when, n, typ, reg.Name(), len(list))
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		change := func(fn func(tx resource.Tx) error) error { return docs.Update(ctx, fn) }
		agree("nothing")
		for i := range 60 {
			reg, typ := one, types[i%3]
			if i%2 == 1 {
				reg = other
			}
			id := reg.Child(typ, fmt.Sprint("Thing-", i%7))
			err := change(func(tx resource.Tx) error {
				if i%5 == 4 {
					return tx.Delete(ctx, id)
				}
				doc := resource.Doc{ID: id, Body: resource.Object{}}
				if err := tx.Put(ctx, &doc); err != nil {
					return err
				}
				return tx.Put(ctx, &doc)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		agree("after changes")
		rolledBack := fmt.Errorf("no")
		if err := change(func(tx resource.Tx) error {
			if err := tx.Put(ctx, &resource.Doc{ID: one.Child("tokens", "none"), Body: resource.Object{}}); err != nil {
				return err
			}
			return rolledBack
		}); err == nil {
			t.Fatal("not rolled back")
		}
		agree("after a change that was rolled back")

		// A database of the version before.
		text, err := os.ReadFile("migrations/0010_counts.sql")
		if err != nil {
			t.Fatal(err)
		}
		_, fill, ok := strings.Cut(string(text), ");\n")
		if !ok {
			t.Fatal("the migration fills nothing")
		}
		if err := db.Update(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(ctx, `DELETE FROM resource_counts`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, fill)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		agree("after the migration")
	})
}

// One more token costs the same whether a registry has none or nearly as many
// as it may.
func BenchmarkCount(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		for _, n := range []int{0, 49_999} {
			b.Run(fmt.Sprintf("%s/of=%d", name, n), func(b *testing.B) {
				docs := store.NewResources(storetest.Open(b, url(b)))
				reg := arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/harbor")
				fillTokens(b, docs, reg, n)
				for b.Loop() {
					err := docs.View(b.Context(), func(r resource.Reader) error {
						got, err := r.Count(b.Context(), reg.Type()+"/tokens", reg)
						if got != int64(n) {
							b.Errorf("%d of %d", got, n)
						}
						return err
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func fillTokens(b *testing.B, docs *store.Resources, reg arm.ID, n int) {
	b.Helper()
	for at := 0; at < n; at += 5000 {
		err := docs.Update(context.Background(), func(tx resource.Tx) error {
			for i := at; i < min(n, at+5000); i++ {
				if err := tx.Put(context.Background(), &resource.Doc{ID: reg.Child("tokens", fmt.Sprintf("token-%d", i)), Body: resource.Object{}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
