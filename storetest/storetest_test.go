package storetest_test

import (
	"testing"

	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

func TestEachDatabaseIsFresh(t *testing.T) {
	for range 2 {
		storetest.Each(t, func(t *testing.T, db *store.DB) {
			err := db.Update(t.Context(), func(tx *store.Tx) error {
				return tx.Record(t.Context(), store.Change{Kind: "test", Key: "a", Op: "put"})
			})
			if err != nil {
				t.Fatal(err)
			}
			list, err := db.Changes(t.Context(), 0, 10)
			if err != nil || len(list) != 1 {
				t.Fatalf("the outbox of a fresh database has %v, %v", list, err)
			}
		})
	}
}
