// Package storetest gives tests real databases: a fresh SQLite file and a
// fresh database on a throwaway PostgreSQL.
package storetest

import (
	"path/filepath"
	"testing"

	"cove.example/cove/store"
)

// Each runs test twice, on SQLite and on PostgreSQL, each database fresh and
// closed at the end.
func Each(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, Open(t, SQLite(t))) })
	t.Run("postgres", func(t *testing.T) { test(t, Open(t, Postgres(t))) })
}

// SQLite returns the URL of a database that does not exist yet.
func SQLite(t testing.TB) string {
	return store.SQLiteURL(filepath.Join(t.TempDir(), "cove.db"))
}

// Open opens url and closes it when the test ends.
func Open(t testing.TB, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatalf("open a database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the test's database: %v", err)
		}
	})
	return db
}
