package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func events(t *testing.T, db *store.DB) *store.Events {
	t.Helper()
	e, err := db.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func refusal(id string, at time.Time) audit.Event {
	return audit.Event{ID: id, Time: at, Table: "LoginEvents", Registry: "/registries/harbor", Operation: "Login", Status: 403, Reason: "NoRule"}
}

// folderOf is the folder of a SQLite database.
func folderOf(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(u.Path)
}

func ids(list []audit.Event) string {
	var s []string
	for _, v := range list {
		s = append(s, v.ID[:1])
	}
	return strings.Join(s, "")
}

func TestEventComesBackWhole(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		want := audit.Event{
			ID: "0b0f3c7e-1111-4222-8333-944445555666", Time: noon, Table: "RepositoryEvents", Registry: "/r", Host: "harbor.cr.cove.internal",
			Operation: "Push", Identity: "ci-bot", CallerIP: "203.0.113.9", UserAgent: "docker/20.10", Repository: "team/app", Tag: "1.4",
			Digest: "sha256:00", MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 1 << 40, Status: 201, Duration: 4 * time.Millisecond,
			Region: "local", Reason: "", Detail: []byte(`[{"step":"matches 203.0.113.0/24"}]`),
		}
		e.Record(want)
		for _, prefix := range []string{want.ID, "0b0f3c7e", "0B0F3C7E-11"} {
			got, err := e.Find(t.Context(), prefix)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
	})
}

func TestFindByPrefix(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		e.Record(refusal("aaaaaaaa-0000-4000-8000-000000000001", noon))
		e.Record(refusal("aaaaaaaa-0000-4000-8000-000000000002", noon.AddDate(0, 0, -3)))
		twice := refusal("bbbbbbbb-0000-4000-8000-000000000001", noon)
		e.Record(twice)
		twice.Reason, twice.Time = "Later", noon.Add(time.Second)
		e.Record(twice)
		for prefix, want := range map[string]string{
			"aaaaaaaa":                             "more than one id begins with aaaaaaaa",
			"aaaaaaaa-0000-4000-8000-000000000001": "found NoRule",
			"aaaaaaaa-0000-4000-8000-000000000002": "found NoRule",
			"bbbbbbbb":                             "found Later",
			"cccccccc":                             "no decision has this id",
			"aaaaaaa":                              "an id is 8 to 36 characters of a correlation id: 0-9, a-f and hyphens",
			"aaaaaaaa%":                            "an id is 8 to 36 characters of a correlation id: 0-9, a-f and hyphens",
			"":                                     "an id is 8 to 36 characters of a correlation id: 0-9, a-f and hyphens",
		} {
			v, err := e.Find(t.Context(), prefix)
			_, got := fault.Of(err)
			if err == nil {
				got = "found " + v.Reason
			}
			if got != want {
				t.Errorf("Find(%q): %s, want %s", prefix, got, want)
			}
		}
		if _, err := e.Find(t.Context(), "cccccccc"); !errors.Is(err, audit.ErrUnknown) {
			t.Errorf("unknown: %v", err)
		}
	})
}

func TestRecentEvents(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		for i, day := range []int{0, -1, -1, -2, 0} {
			v := refusal(fmt.Sprintf("%d0000000", i), noon.AddDate(0, 0, day).Add(time.Duration(i)*time.Second))
			if i%2 == 1 {
				v.Table, v.Registry = "RepositoryEvents", "/registries/other"
			}
			e.Record(v)
		}
		for _, row := range []struct {
			table, registry string
			since           time.Time
			limit           int
			want            string
		}{
			{"", "", time.Time{}, 10, "40213"},
			{"", "", time.Time{}, 3, "402"},
			{"", "", time.Time{}, 0, ""},
			{"", "", noon.AddDate(0, 0, -1), 10, "4021"},
			{"", "", noon.AddDate(0, 0, -1).Add(2 * time.Second), 10, "402"},
			{"LoginEvents", "", time.Time{}, 10, "402"},
			{"", "/registries/other", time.Time{}, 10, "13"},
			{"LoginEvents", "/registries/other", time.Time{}, 10, ""},
		} {
			list, err := e.Recent(t.Context(), row.table, row.registry, row.since, row.limit)
			if got := ids(list); got != row.want || err != nil {
				t.Errorf("%+v: got %q, %v", row, got, err)
			}
		}
	})
}

func TestTrimmedDaysAreGone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		for i := range 4 {
			e.Record(refusal(fmt.Sprintf("%d0000000", i), noon.AddDate(0, 0, -i)))
		}
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := e.Trim(t.Context(), noon.AddDate(0, 0, -1)); n != 2 || err != nil {
			t.Errorf("trimmed %d days, %v", n, err)
		}
		list, err := e.Recent(t.Context(), "", "", time.Time{}, 10)
		if got := ids(list); got != "01" || err != nil {
			t.Errorf("left: %q, %v", got, err)
		}
		e.Record(refusal("50000000", noon.AddDate(0, 0, -3))) // late for a day that is gone
		list, err = e.Recent(t.Context(), "", "", time.Time{}, 10)
		if got := ids(list); got != "015" || err != nil {
			t.Errorf("with one that came late: %q, %v", got, err)
		}
	})
}

// What was recorded is kept when the store is closed in good order, and what
// cannot be kept is counted.
func TestClosingLosesNoEvent(t *testing.T) {
	for name, url := range map[string]string{"sqlite": storetest.SQLite(t), "postgres": storetest.Postgres(t)} {
		const recorders, each = 8, 100
		open := func() (*store.DB, *store.Events) {
			db, err := store.Open(t.Context(), url, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return db, events(t, db)
		}
		db, e := open()
		var wg sync.WaitGroup
		for r := range recorders {
			wg.Go(func() {
				for i := range each {
					e.Record(refusal(fmt.Sprintf("%08x", r*each+i), noon.Add(time.Duration(i)*time.Hour)))
				}
			})
		}
		wg.Wait()
		if err := errors.Join(e.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
		e.Record(refusal("ffffffff", noon))
		if err := e.Flush(t.Context()); !errors.Is(err, store.ErrClosed) || e.Dropped() != 1 {
			t.Errorf("%s, after Close: %v, %d dropped", name, err, e.Dropped())
		}
		db, e = open()
		list, err := e.Recent(t.Context(), "", "", time.Time{}, 10_000)
		if len(list) != recorders*each || err != nil {
			t.Errorf("%s: %d events are there, %v", name, len(list), err)
		}
		if err := errors.Join(e.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// The clock of this bubble moves only when everything waits: the event is on
// disk 200 ms after it was recorded, and not one fsync for each.
func TestEventsAreKeptWithin200Milliseconds(t *testing.T) {
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e := events(t, db)
		day := filepath.Join(folderOf(t, url), "events", time.Now().UTC().Format(time.DateOnly)+".db")
		e.Record(audit.Event{ID: "aaaaaaaa"})
		time.Sleep(100 * time.Millisecond)
		if _, err := os.Stat(day); err == nil {
			t.Error("written at once: no batch")
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if _, err := os.Stat(day); err != nil {
			t.Error(err)
		}
		if err := errors.Join(e.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
}

// Strangers choose some of an event's texts.
func TestEventOfAStranger(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		v := refusal("aaaaaaaa", noon)
		v.UserAgent = "nasty\x00\xff'); DROP TABLE events; --" + strings.Repeat("é", 10_000)
		v.Detail = []byte(`{"not JSON`)
		e.Record(v)
		got, err := e.Find(t.Context(), "aaaaaaaa")
		if err != nil || !strings.HasPrefix(got.UserAgent, "nasty\uFFFD'); DROP") || len(got.UserAgent) > 1100 || got.Detail != nil {
			t.Errorf("kept %d characters %.40q, detail %q, %v", len(got.UserAgent), got.UserAgent, got.Detail, err)
		}
	})
}

// While the disk refuses, events wait, and when too many wait they are
// dropped and counted; Record does not block.
func TestEventsWaitWhileTheyCannotBeKept(t *testing.T) {
	url := storetest.SQLite(t)
	db := storetest.Open(t, url)
	e := events(t, db)
	folder := filepath.Join(folderOf(t, url), "events")
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	const many = 20_000
	for range many {
		e.Record(refusal("aaaaaaaa", noon))
	}
	if err := e.Flush(t.Context()); err == nil {
		t.Error("kept without a folder")
	}
	for range 3 { // each failed attempt makes no room
		e.Record(refusal("aaaaaaaa", noon))
		if err := e.Flush(t.Context()); err == nil {
			t.Error("kept without a folder")
		}
	}
	if want := int64(many + 3 - 16384); e.Dropped() != want {
		t.Errorf("%d dropped, want %d", e.Dropped(), want)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := e.Recent(t.Context(), "", "", time.Time{}, 2*many)
	// Whether what was dropped is on record yet is a matter of the moment.
	list = slices.DeleteFunc(list, func(e audit.Event) bool { return e.Operation == "Dropped" })
	if len(list) != 16384 || err != nil {
		t.Errorf("%d kept, %v", len(list), err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// An id says its day, and is found there among many; what says the wrong one
// is found all the same.
func TestFindGoesToTheDayThatAnIDSays(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		now := time.Now()
		var made []string
		for i := range 5 {
			at := now.AddDate(0, 0, -i)
			made = append(made, audit.NewID(at))
			e.Record(refusal(made[i], at))
		}
		stray := audit.NewID(now.AddDate(0, 0, -1)) // of another day than it says
		e.Record(refusal(stray, now.AddDate(0, 0, -3)))
		for _, id := range append(made, stray) {
			for _, prefix := range []string{id, id[:20]} {
				if v, err := e.Find(t.Context(), prefix); v.ID != id || err != nil {
					t.Errorf("%s: %s, %v", prefix, v.ID, err)
				}
			}
		}
	})
}
