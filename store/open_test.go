package store_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"github.com/jackc/pgx/v5"
)

// Each failure to open is one sentence that the operator can act on.
func TestOpenFailsInOneSentence(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) string {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return store.SQLiteURL(at(name))
	}
	foreign := at("foreign.db")
	other, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec("CREATE TABLE cookies (name TEXT)"); err != nil {
		t.Fatal(err)
	}
	inUse := storetest.SQLite(t)
	storetest.Open(t, inUse)
	// Not a port that was free a moment ago: the next server may have it.
	const unreachable = "127.0.0.1:1"
	pg := postgresURL(t)
	wrongPassword, noDatabase := *pg, *pg
	wrongPassword.User = url.UserPassword("postgres", "hunter2")
	noDatabase.Path = "/nowhere"

	for url, want := range map[string]string{
		"mysql://root:hunter2@db/cove":         `the database URL begins with neither "sqlite://" nor "postgres://"`,
		"":                                     `the database URL begins with neither "sqlite://" nor "postgres://"`,
		"sqlite://cove.db":                     `a SQLite database URL is "sqlite://" and an absolute path`,
		"sqlite:cove.db":                       `a SQLite database URL is "sqlite://" and an absolute path`,
		store.SQLiteURL(at("missing/cove.db")): "the folder " + at("missing") + " does not exist",
		write("text", strings.Repeat("hello ", 99)):        at("text") + " is not a database",
		store.SQLiteURL(at("text/cove.db")):                at("text") + " is not a folder",
		store.SQLiteURL(foreign):                           foreign + " is the database of another program",
		inUse:                                              "the database " + strings.TrimPrefix(inUse, "sqlite://") + " is in use by another cove server",
		"postgres://cove:hunter2@" + unreachable + "/cove": "the PostgreSQL server at " + unreachable + " cannot be reached",
		"postgres://cove:hunter2@db:port/cove":             "the PostgreSQL URL is malformed",
		wrongPassword.String():                             "the PostgreSQL server at " + pg.Host + ` does not accept user "postgres" with this password`,
		noDatabase.String():                                "the PostgreSQL server at " + pg.Host + ` has no database "nowhere"`,
	} {
		want = strings.ReplaceAll(want, "%23", "#")
		_, err := store.Open(t.Context(), url, store.Options{})
		_, sentence := fault.Of(err)
		if err == nil || sentence != want {
			t.Errorf("Open(%q):\n got %q\nwant %q", url, sentence, want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "password=")) {
			t.Errorf("Open(%q) shows the password: %v", url, err)
		}
	}
	if text, err := os.ReadFile(at("text")); err != nil || !strings.HasPrefix(string(text), "hello") {
		t.Errorf("the file that is not a database was changed: %q, %v", text, err)
	}
}

func postgresURL(t *testing.T) *url.URL {
	t.Helper()
	u, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// The folder is a name like any other.
func TestOpenWithStrangePath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?mode=ro#%41&ä")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db := storetest.Open(t, store.SQLiteURL(filepath.Join(dir, "cove.db")))
	if err := record(t.Context(), db, "a"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "cove.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	for name, url := range map[string]string{"sqlite": storetest.SQLite(t), "postgres": storetest.Postgres(t)} {
		db, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		do(t, db, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, $1)`, true)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = store.Open(t.Context(), url, store.Options{})
		if _, sentence := fault.Of(err); !fault.Is(err, fault.Invalid) || !strings.HasPrefix(sentence, "the database was written by a newer version of cove") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nodes that start together migrate once, one after the other.
func TestNodesStartTogether(t *testing.T) {
	url := storetest.Postgres(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			db, err := store.Open(t.Context(), url, store.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(record(t.Context(), db, "a"), db.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// The lock of a node that died while migrating holds the next one up until it
// runs out, and no longer; one that is alive holds it up.
func TestMigrationLock(t *testing.T) {
	url := storetest.Postgres(t)
	storetest.Open(t, url)
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	hold := func(d time.Duration) {
		t.Helper()
		_, err := c.Exec(t.Context(), `UPDATE migration_lock SET holder = 'somebody',
			until = CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT) + $1`, d.Microseconds())
		if err != nil {
			t.Fatal(err)
		}
	}

	hold(time.Hour)
	lastAsked := func() (at time.Time) {
		t.Helper()
		if err := c.QueryRow(t.Context(), `SELECT COALESCE(max(query_start), 'epoch') FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'INSERT INTO migration_lock%'`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	asked := lastAsked()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan error, 1)
	go func() {
		_, err := store.Open(ctx, url, store.Options{})
		opened <- err
	}()
	// PostgreSQL notes the steps of a statement, three at most. The fourth is of
	// another try: who tries again knows that somebody holds the lock.
	for steps := 0; steps < 4; {
		if at := lastAsked(); at.After(asked) {
			asked = at
			steps++
		}
	}
	cancel()
	err = <-opened
	if _, sentence := fault.Of(err); !fault.Is(err, fault.Unavailable) || !strings.HasPrefix(sentence, "another cove server is migrating the database") {
		t.Errorf("while somebody holds the lock: %v", err)
	}

	const left = 400 * time.Millisecond
	begun := time.Now()
	hold(left)
	storetest.Open(t, url)
	if took := time.Since(begun); took < left {
		t.Errorf("opened after %v although the lock was held for %v", took, left)
	}
}

// A SQLite file is one process's own, so the lock of one that was killed while
// it migrated holds nobody up.
func TestTheDeadHoldNoLockOnAFile(t *testing.T) {
	at := storetest.SQLite(t)
	db, err := store.Open(t.Context(), at, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	pool, err := sql.Open("sqlite", strings.TrimPrefix(at, "sqlite://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = pool.ExecContext(t.Context(), `UPDATE migration_lock SET holder = 'killed', until = CAST((unixepoch() + 3600) * 1000000 AS INTEGER)`)
	if err := errors.Join(err, pool.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err = store.Open(ctx, at, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
