//go:build soak

package soak

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"cove.example/cove/covetest"
	"cove.example/cove/storetest"
)

const (
	crowdRegistry = "crowd"
	pullers       = 200
	pushers       = 30
	insiders      = 4 // pull through an endpoint that nothing changes
	crowdTime     = 30 * time.Second
	maxConns      = 10 // that a server has to PostgreSQL, says its documentation
)

// Two hundred clients that have nothing pull and thirty push at once, while
// rules come and go and a private endpoint is rejected and approved again.
// Nobody whom the changes do not concern notices anything; who is rejected is
// out when the command returns, and in again after the approval; and the
// database sees no more connections than before.
func TestSoakTwoHundredClients(t *testing.T) {
	var lines string
	t.Run("sqlite", func(t *testing.T) { lines += gather(t, "SQLite") })
	t.Run("postgres", func(t *testing.T) { lines += gather(t, "PostgreSQL", "--database", storetest.Postgres(t)) })
	record(t, "Two hundred clients", `
%d clients that begin with nothing pull images of six blobs (handshake, sign-in,
manifest, blobs), %d push others, %d pull inside a virtual network, for %v on one
machine with the server, while network rules come and go and another private
endpoint is rejected and approved. Nobody else noticed; connections are those to
the database.

| database, COVE_SEED | pulls | pushes | pulls inside | pull, median and 99th | push, median and 99th | changes | connections before, most | peak MiB resident |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
%s`, pullers, pushers, insiders, crowdTime, lines)
}

// times are how long each of many took, and what went wrong.
type times struct {
	mu     sync.Mutex
	all    []time.Duration
	failed []error
}

// note is called when one has ended.
func (m *times) note(start time.Time, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, time.Since(start))
	if err != nil {
		m.failed = append(m.failed, err)
	}
}

func (m *times) check(t *testing.T, what string) {
	t.Helper()
	for _, err := range m.failed[:min(5, len(m.failed))] {
		t.Errorf("%s: %v", what, err)
	}
	if len(m.failed) > 0 || len(m.all) == 0 {
		t.Errorf("%s: %d of %d failed", what, len(m.failed), len(m.all))
	}
}

// String is the median and the 99th percentile.
func (m *times) String() string {
	slices.Sort(m.all)
	if len(m.all) == 0 {
		return "none"
	}
	at := func(q int) time.Duration { return m.all[len(m.all)*q/100].Round(time.Millisecond) }
	return fmt.Sprintf("%v, %v", at(50), at(99))
}

func gather(t *testing.T, name string, args ...string) string {
	n := seed(t)
	s := covetest.Start(t, append([]string{"--rate-limits", "off"}, args...)...)
	furnish(t, s, crowdRegistry)
	password := s.Password(t, crowdRegistry)
	var images []*image
	first := outside(t, s, crowdRegistry, password)
	r := source(n, 0)
	for i := range 20 {
		p := newPush(newImage(r, fmt.Sprintf("image%d", i), 20_000, 300_000), pushRepo, baseRepo)
		if err := p.run(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		p.forget()
		images = append(images, p.image)
	}
	first.close()
	member := func(network string) *client {
		return first.by(enter(t, s, network, network+"-host"), addresses(t, s, network))
	}
	east, west := member("east"), member("west")
	connections := counter(t, s, args)
	before := connections()
	most, limit := before, before // SQLite's are all opened at the start
	if len(args) > 0 {
		limit = maxConns
	}

	ctx, cancel := context.WithTimeout(t.Context(), crowdTime)
	defer cancel()
	var clients sync.WaitGroup
	var pulls, pushes, inside times
	pulling := func(id int, m *times, open func() *client) {
		clients.Go(func() {
			r := source(n, id)
			for ctx.Err() == nil {
				start := time.Now()
				m.note(start, cold(t.Context(), open(), images[r.IntN(len(images))]))
			}
		})
	}
	for i := range pullers {
		pulling(1000+i, &pulls, first.fresh)
	}
	for i := range insiders {
		pulling(2000+i, &inside, west.fresh)
	}
	for i := range pushers {
		clients.Go(func() {
			r := source(n, 3000+i)
			for k := 0; ctx.Err() == nil; k++ {
				p := newPush(newImage(r, fmt.Sprintf("push%d-%d", i, k), 20_000, 200_000), "team/new"+fmt.Sprint(i%7), baseRepo)
				c := first.fresh()
				start := time.Now()
				err := p.run(t.Context(), c)
				if err == nil {
					pushes.note(start, c.pull(t.Context(), p.repo, p.image))
				} else {
					pushes.note(start, err)
				}
				c.close()
			}
		})
	}
	clients.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			most = max(most, connections())
			<-tick.C
		}
	})
	changes := churn(ctx, t, s, r, func() error { return cold(t.Context(), east.fresh(), images[0]) })
	clients.Wait()

	pulls.check(t, "pull")
	pushes.check(t, "push")
	inside.check(t, "pull inside")
	if most > limit {
		t.Errorf("the server had up to %d connections to its database, %d before; the limit is %d", most, before, limit)
	}
	if out := s.Log(); strings.Contains(out, "level=ERROR") {
		t.Errorf("the log has errors:\n%s", out)
	}
	t.Logf("%d pulls (%v), %d pushes (%v), %d pulls inside (%v), %d changes, connections %d to %d, peak %.0f MiB", len(pulls.all), &pulls, len(pushes.all), &pushes,
		len(inside.all), &inside, changes, before, most, mib(memory(t, s.PID(), "VmHWM")))
	return fmt.Sprintf("| %s, %d | %d | %d | %d | %v | %v | %d | %d, %d | %.0f |\n", name, n, len(pulls.all), len(pushes.all), len(inside.all), &pulls, &pushes,
		changes, before, most, mib(memory(t, s.PID(), "VmHWM")))
}

// churn changes rules and the east endpoint until ctx ends, and returns how
// many changes it made. pull is one through that endpoint.
func churn(ctx context.Context, t *testing.T, s *covetest.Server, r *rand.Rand, pull func() error) int {
	t.Helper()
	n := 0
	change := func(args ...string) {
		s.Cove(t, args...)
		n++
	}
	for ctx.Err() == nil {
		rule := fmt.Sprintf("203.0.113.%d", r.IntN(256))
		change("network-rule", "add", crowdRegistry, rule)
		change("private-endpoint", "reject", "east", "--registry", crowdRegistry)
		if err := pull(); err == nil {
			t.Error("a rejected endpoint has let a pull through")
		}
		change("network-rule", "remove", crowdRegistry, rule)
		change("private-endpoint", "approve", "east", "--registry", crowdRegistry)
		if err := pull(); err != nil {
			t.Errorf("an approved endpoint: %v", err)
		}
	}
	return n
}

// cold is a pull by a client that has nothing, not even a connection.
func cold(ctx context.Context, c *client, im *image) error {
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, covetest.Wait)
	defer cancel()
	if err := c.login(ctx, "repository:"+pushRepo+":pull"); err != nil {
		return err
	}
	return c.pull(ctx, pushRepo, im)
}

// login follows the challenge to a token.
func (c *client) login(ctx context.Context, scope string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	challenge := resp.Header.Get("Www-Authenticate")
	_, rest, _ := strings.Cut(challenge, `realm="`)
	realm, _, _ := strings.Cut(rest, `"`)
	path, ok := strings.CutPrefix(realm, c.base)
	if resp.StatusCode != http.StatusUnauthorized || !ok {
		return &refusal{status: resp.StatusCode, said: "the challenge is " + challenge, call: "GET /v2/"}
	}
	q := url.Values{"service": {strings.TrimPrefix(c.base, "https://")}, "scope": {scope}}
	resp, err = c.call(ctx, http.StatusOK, http.MethodGet, path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var said struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil || said.Token == "" {
		return fmt.Errorf("no token was given: %w", err)
	}
	c.bearer = said.Token
	return nil
}

// fresh is a client like c that has no connection yet.
func (c *client) fresh() *client {
	d := *c
	d.http = &http.Client{Transport: c.http.Transport.(*http.Transport).Clone()}
	return &d
}

// counter counts the server's connections to its database: backends of
// PostgreSQL, open descriptors of the SQLite file.
func counter(t *testing.T, s *covetest.Server, args []string) func() int {
	t.Helper()
	if len(args) == 0 {
		file, err := filepath.EvalSymlinks(filepath.Join(s.Data, "cove.db"))
		if err != nil {
			t.Fatal(err)
		}
		return func() int { return descriptors(t, s.PID(), file) }
	}
	db, err := sql.Open("pgx", args[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return func() (n int) {
		const q = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'cove'"
		if err := db.QueryRow(q).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
}

func descriptors(t *testing.T, pid int, file string) int {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Error(err)
	}
	n := 0
	for _, fd := range list {
		if to, err := os.Readlink(fd); err == nil && to == file {
			n++
		}
	}
	return n
}
