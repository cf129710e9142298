// Package storetest gives tests real databases: a fresh SQLite file and a
// fresh database on a throwaway PostgreSQL.
package storetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
	t.Helper()
	in := place(t)
	if in == "" {
		return store.SQLiteURL(filepath.Join(t.TempDir(), "cove.db"))
	}
	dir, err := os.MkdirTemp(in, "cove-sqlite-")
	if err != nil {
		t.Fatalf("make a folder for the test's database: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return store.SQLiteURL(filepath.Join(dir, "cove.db"))
}

// memory is where Linux keeps files in memory, and leastMemory what has to be
// free there for databases to be made there.
const (
	memory      = "/dev/shm"
	leastMemory = 2 << 30
)

// place is the folder for a test's databases, "" for the usual one. Most of
// what a test of a database waits for is the disk, and no test sees whether a
// file would have survived the machine: a process that is killed leaves it in
// memory as on a disk. What measures, or is large, has the disk.
func place(t testing.TB) string {
	if _, ok := t.(*testing.B); ok || strings.HasPrefix(t.Name(), "TestSoak") {
		return ""
	}
	var free unix.Statfs_t
	if unix.Statfs(memory, &free) != nil || free.Type != unix.TMPFS_MAGIC || free.Bavail*uint64(free.Bsize) < leastMemory || unix.Access(memory, unix.W_OK) != nil {
		return ""
	}
	return memory
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
