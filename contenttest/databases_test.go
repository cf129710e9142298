package contenttest_test

import (
	"path/filepath"
	"testing"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/content/disk"
	"cove.example/cove/contenttest"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// Published failure 11.
func TestOnDisk(t *testing.T) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			contenttest.Run(t, func(t *testing.T) contenttest.Fixture { return onDisk(t, url(t)) })
		})
	}
}

// onDisk is a database and a folder that can be closed and opened again
// within a test.
func onDisk(t testing.TB, url string) contenttest.Fixture {
	f := contenttest.Fixture{Dir: filepath.Join(t.TempDir(), "blobs")}
	stop := func() {}
	t.Cleanup(func() { stop() })
	f.Open = func(t testing.TB, now func() time.Time) (content.Metadata, content.Blobs) {
		t.Helper()
		stop()
		db, err := store.Open(t.Context(), url, store.Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		blobs, err := disk.Open(f.Dir)
		if err != nil {
			t.Fatal(err)
		}
		stop = func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			if err := blobs.Close(); err != nil {
				t.Error(err)
			}
		}
		return store.NewContent(db), blobs
	}
	return f
}
