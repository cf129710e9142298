//go:build soak

package soak

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"cove.example/cove/audit"
	rm "cove.example/cove/client"
	"cove.example/cove/covetest"
	"cove.example/cove/reason"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// maxExplain is how long an explanation may take, whatever is kept besides.
const maxExplain = 50 * time.Millisecond

// With ten million events kept, a month's, one decision among them is explained
// in under 50 ms, but for the first questions about a day that nobody has asked
// about for long, whose file must be read from the disk: with what the same request would get now and after each fix,
// and how many like it there were. COVE_EVENTS asks for another number.
func TestSoakExplain(t *testing.T) {
	n := 10_000_000
	if text := os.Getenv("COVE_EVENTS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var said string
	for _, on := range []string{"SQLite", "PostgreSQL"} {
		t.Run(on, func(t *testing.T) {
			var args []string
			url := ""
			if on == "PostgreSQL" {
				url = storetest.Postgres(t)
				args = []string{"--database", url}
			}
			s := covetest.Start(t, args...)
			if url == "" {
				url = store.SQLiteURL(filepath.Join(s.Data, "cove.db"))
			}
			s.Cove(t, "registry", "create", "harbor", "--default-action", "Deny")
			id := refused(t, s)
			s.Stop(t)
			start := time.Now()
			ids := month(t, url, id, n)
			took := time.Since(start)
			s.Start(t)
			ids = append(ids, refused(t, s))
			each := explained(t, s, ids)
			median, most := each[len(each)/2], each[len(each)*95/100]
			if most > maxExplain {
				t.Errorf("of %d explanations one in twenty took longer than %s; the limit is %s", len(each), most, maxExplain)
			}
			t.Logf("%d events written in %s; explained in %s at the median, %s at the 95th of a hundred, %s at most", n, took, median, most, each[len(each)-1])
			said += on + ": half of them in under " + median.Round(100*time.Microsecond).String() + ", nineteen of twenty in under " + most.Round(100*time.Microsecond).String() + ".\n"
		})
	}
	record(t, "Explaining", "\n`explain` through the Resource Manager's API, %d events kept, %s allowed.\n%s", n, maxExplain, said)
}

// refused makes a request that is refused and returns its correlation id.
func refused(t *testing.T, s *covetest.Server) string {
	t.Helper()
	h := s.Outside(t)
	defer h.CloseIdleConnections()
	resp, err := h.Get("https://" + host("harbor") + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := resp.Header.Get("X-Ms-Correlation-Request-Id")
	if resp.StatusCode != http.StatusForbidden || id == "" {
		t.Fatalf("%s, and its id is %q", resp.Status, id)
	}
	return id
}

// month fills the log with n events like that with the id, of which most are
// pulls that went well, and returns the ids of some that were refused.
func month(t *testing.T, url, id string, n int) (ids []string) {
	t.Helper()
	db := storetest.Open(t, url)
	e, err := db.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	like, err := e.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	rnd := source(seed(t), 1)
	from, step := time.Now().Add(-30*24*time.Hour), 30*24*time.Hour/time.Duration(n)
	for i := range n {
		v := like
		v.Time = from.Add(time.Duration(i) * step)
		v.ID = audit.NewID(v.Time)
		v.CallerIP = netip.AddrFrom4([4]byte{203, 0, 113, byte(rnd.IntN(256))}).String()
		if rnd.IntN(50) > 0 {
			v.Table, v.Operation, v.Status, v.Reason = audit.RepositoryEvents, "Pull", http.StatusOK, ""
			v.Identity, v.Repository, v.Tag = "ci-"+strconv.Itoa(rnd.IntN(500)), "team/app-"+strconv.Itoa(rnd.IntN(100)), "1.4"
		} else if i%(n/200+1) < 50 && len(ids) < 200 {
			ids = append(ids, v.ID)
		}
		e.Record(v)
		if i%8192 == 8191 {
			if err := e.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.Flush(t.Context()); err != nil || e.Dropped() > 0 {
		t.Fatalf("%v, %d dropped", err, e.Dropped())
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// explained asks about each id, whole and in part, and returns how long the
// answers took, the shortest first.
func explained(t *testing.T, s *covetest.Server, ids []string) (each []time.Duration) {
	t.Helper()
	p, err := rm.FromData(s.Data)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rm.New(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), c.Scope()); err != nil { // has a token from here on
		t.Fatal(err)
	}
	rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		start := time.Now()
		out, err := c.Get(t.Context(), c.Scope()+"/providers/Cove.Diagnostics/decisions/"+id)
		each = append(each, time.Since(start))
		if err != nil || out["reason"] != string(reason.NoRule) {
			t.Fatalf("%s: %v %v", id, out, err)
		}
	}
	slices.Sort(each)
	return each
}
