package soak

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"cove.example/cove/content"
	"cove.example/cove/content/disk"
	"cove.example/cove/covetest"
	"cove.example/cove/oci"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// A server that is killed at any moment of a push has, when it is started
// again, everything that it acknowledged, whole, and shows nothing in part; an
// upload goes on from where the server says it stands; and collection removes
// what is left over, and nothing else.
func TestKillDuringPush(t *testing.T) {
	small := killing{runs: 8, lo: 100_000, hi: 2_000_000, warm: 3}
	t.Run("sqlite", func(t *testing.T) { small.run(t, "") })
	t.Run("postgres", func(t *testing.T) { small.run(t, storetest.Postgres(t)) })
}

// killing is a series of pushes that are interrupted by SIGKILL.
type killing struct {
	runs   int
	lo, hi int // bytes of a layer
	warm   int // pushes that are not interrupted, to learn how long one takes
}

// tally is what a series has seen.
type tally struct {
	seed      uint64
	took      time.Duration // of a push that nothing interrupts
	amid      int           // kills after a layer's first byte and before the manifest's 201
	before    int           // kills before that first byte
	completed int           // pushes that were through before their kill
	blobs     int           // acknowledged by pushes whose manifest was not
	resumed   int           // uploads that went on
	offset    int           // of those, ones that did not begin again at nothing
	started   time.Duration // the slowest start
	collected content.Report
}

const (
	killRegistry = "survivor"
	pushRepo     = "team/app"
	baseRepo     = "team/base"
	movingTag    = "latest"
)

// arena is the server and all that it has ever acknowledged.
type arena struct {
	*testing.T
	server   *covetest.Server
	database string // "" is SQLite below the data folder
	password string
	whole    []*image         // acknowledged to the end
	blobs    map[string]int64 // acknowledged in pushRepo
	moving   []string         // what the moving tag may lead to
	tally    tally
}

// run pushes, kills and looks.
func (k killing) run(t *testing.T, database string) tally {
	t.Helper()
	a := &arena{T: t, database: database, blobs: map[string]int64{}, moving: []string{""}}
	a.tally.seed = seed(t)
	args := []string{"--listen-http", "127.0.0.1:0", "--registry-alias", "127.0.0.1=" + killRegistry, "--rate-limits", "off"}
	if database != "" {
		args = append(args, "--database", database)
	}
	a.server = covetest.Start(t, args...)
	a.server.Cove(t, "registry", "create", killRegistry, "--admin-enabled")
	a.password = a.server.Password(t, killRegistry)

	pictures := source(a.tally.seed, 0)
	var took []time.Duration
	for i := range k.warm {
		p := newPush(newImage(pictures, fmt.Sprintf("warm%d", i), k.lo, k.hi), pushRepo, baseRepo)
		c := a.client(i)
		start := time.Now()
		if err := p.run(t.Context(), c); err != nil {
			t.Fatalf("a push that nothing interrupts: %v", err)
		}
		took = append(took, time.Since(start))
		a.keep(p)
		c.close()
	}
	slices.Sort(took)
	a.tally.took = took[len(took)/2]

	moments := source(a.tally.seed, 1)
	order := moments.Perm(k.runs)
	// Where the machine has become quicker or slower meanwhile the moments miss
	// the pushes: then there are more of them.
	enough := func() bool { return a.tally.amid >= k.runs*3/10 }
	for i := 0; i < k.runs || i < 4*k.runs && !enough(); i++ {
		if i >= k.runs && a.tally.completed > a.tally.before {
			a.tally.took = a.tally.took * 3 / 4
		} else if i >= k.runs {
			a.tally.took = a.tally.took * 4 / 3
		}
		// One moment from each of as many equal parts of the duration.
		at := time.Duration((float64(order[i%k.runs]) + moments.Float64()) / float64(k.runs) * float64(a.tally.took))
		a.interrupted(i, newImage(pictures, fmt.Sprintf("run%d", i), k.lo, k.hi), at, moments)
		if t.Failed() {
			t.Fatalf("run %d, killed %v into a push of about %v", i, at, a.tally.took)
		}
	}
	a.everything()
	a.server.Stop(t)
	a.collect()
	a.server.Start(t)
	a.clean()
	c := a.client(0)
	defer c.close() // or the stop waits for connections that nobody uses
	for _, im := range a.whole {
		a.pull(c, im)
	}
	// With fewer the moments would have missed the push.
	if !enough() {
		t.Errorf("only %d of %d kills came between the first byte and the manifest's 201", a.tally.amid, k.runs)
	}
	t.Logf("%d pushes of about %v killed: %d before a layer's first byte, %d after it and before the manifest's 201, %d after that; "+
		"%d blobs of unfinished pushes were acknowledged; %d uploads went on, %d of them from further than nothing; the slowest start took %v; collected: %+v",
		k.runs, a.tally.took.Round(time.Millisecond), a.tally.before, a.tally.amid, a.tally.completed, a.tally.blobs, a.tally.resumed, a.tally.offset, a.tally.started.Round(time.Millisecond), a.tally.collected)
	return a.tally
}

// client takes turns between HTTP/2 over TLS and plain HTTP/1.1. A killed
// server comes back at another port, so none outlives it.
func (a *arena) client(n int) *client {
	if n%2 == 0 {
		return outside(a, a.server, killRegistry, a.password)
	}
	return plain(a.server, killRegistry, a.password)
}

// keep notes what p was told.
func (a *arena) keep(p *push) {
	for _, b := range p.blobs {
		if p.acked[b.digest] {
			a.blobs[b.digest] = b.size
		}
	}
	if p.done.Load() {
		p.forget()
		a.whole = append(a.whole, p.image)
	}
}

// interrupted is one push, the kill at a moment of it, and the look after.
func (a *arena) interrupted(n int, im *image, at time.Duration, r *rand.Rand) {
	p := newPush(im, pushRepo, baseRepo)
	c := a.client(n)
	moment := time.NewTimer(at)
	ended := make(chan error, 1)
	go func() {
		err := p.run(context.Background(), c)
		if err == nil {
			err = c.manifestPut(context.Background(), pushRepo, movingTag, p.manifest)
		}
		ended <- err
	}()
	<-moment.C
	sent := p.sent.Load()
	a.server.Kill(a)
	err := <-ended
	c.close()
	switch r, refused := errors.AsType[*refusal](err); {
	case refused:
		a.Errorf("before the kill: %v", r)
	case p.done.Load():
		a.tally.completed++
	case sent:
		a.tally.amid++
	default:
		a.tally.before++
	}
	// The moving tag leads to this image for certain if that was said, and
	// perhaps if it was asked for.
	if err == nil {
		a.moving = []string{p.digest}
	} else if p.done.Load() {
		a.moving = append(a.moving, p.digest)
	}

	start := time.Now()
	a.server.Start(a)
	a.tally.started = max(a.tally.started, time.Since(start))
	a.clean()
	c = a.client(n + 1)
	defer c.close()
	a.nothingPartial(c, p)
	a.resume(c, p)
	a.keep(p)
	if !p.done.Load() {
		for range p.acked {
			a.tally.blobs++
		}
		if r.IntN(2) == 0 { // the client tries again
			if err := p.run(a.Context(), c); err != nil {
				a.Errorf("the push again: %v", err)
				return
			}
			a.keep(p)
			a.pull(c, im)
		}
	}
	a.tag(c, movingTag, a.moving)
	for range min(3, len(a.whole)) {
		a.pull(c, a.whole[r.IntN(len(a.whole))])
	}
	im.forget()
}

// clean is a start with nothing to complain about.
func (a *arena) clean() {
	for line := range strings.Lines(a.server.Log()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") || strings.Contains(line, "panic") {
			a.Errorf("after the start the server says: %s", line)
		}
	}
}

// nothingPartial looks at everything that p has sent: acknowledged, it is
// there; otherwise it may be, but then it is whole.
func (a *arena) nothingPartial(c *client, p *push) {
	for _, b := range p.blobs {
		there, err := c.whole(a.Context(), pushRepo, b.digest, b.size)
		if err != nil {
			a.Errorf("%s blob, acknowledged: %v: %v", b.shape, p.acked[b.digest], err)
		}
		if p.acked[b.digest] && !there {
			a.Errorf("the %s blob %s (%d bytes) was acknowledged and is gone", b.shape, b.digest, b.size)
		}
		if b.shape != mounted {
			continue
		}
		there, err = c.whole(a.Context(), baseRepo, b.digest, b.size)
		if err != nil || p.mountable && !there {
			a.Errorf("the layer to be mounted, acknowledged: %v, there: %v: %v", p.mountable, there, err)
		}
	}
	may := []string{p.digest}
	if !p.done.Load() {
		may = append(may, "")
	}
	d := a.tag(c, p.tag, may)
	byDigest, _, err := c.manifest(a.Context(), pushRepo, p.digest)
	if err != nil || byDigest != d {
		a.Errorf("the tag leads to %q, the digest to %q: %v", d, byDigest, err)
	}
	if d != "" {
		a.pull(c, p.image)
	}
}

// tag asserts that a tag leads to one of may, "" for nowhere, and returns it.
func (a *arena) tag(c *client, tag string, may []string) string {
	d, _, err := c.manifest(a.Context(), pushRepo, tag)
	if err != nil {
		a.Error(err)
	}
	if !slices.Contains(may, d) {
		a.Errorf("the tag %s leads to %q, which is none of %q", tag, d, may)
	}
	return d
}

func (a *arena) pull(c *client, im *image) {
	if err := c.pull(a.Context(), pushRepo, im); err != nil {
		a.Error(err)
	}
}

// resume goes on with the uploads that the kill has interrupted, each from
// where the server says it stands.
func (a *arena) resume(c *client, p *push) {
	for _, s := range p.sessions {
		h, err := c.tell(a.Context(), http.StatusNoContent, http.MethodGet, s.location, nil)
		if status(err) == http.StatusNotFound && s.finishing {
			continue // the kill came between the bytes' move and the answer
		}
		if err != nil {
			a.Errorf("the %s upload that had %d bytes acknowledged: %v", s.blob.shape, s.acked, err)
			continue
		}
		at, err := standing(h)
		if err != nil {
			a.Error(err)
			continue
		}
		if at < s.acked || at > s.blob.size {
			a.Errorf("the %s upload stands at %d; %d were acknowledged, %d sent", s.blob.shape, at, s.acked, s.blob.size)
			continue
		}
		err = p.finish(a.Context(), c, s, s.blob.data[at:])
		if status(err) == http.StatusNotFound && s.finishing {
			continue
		}
		if err != nil {
			a.Errorf("the %s upload, gone on with at %d of %d: %v", s.blob.shape, at, s.blob.size, err)
			continue
		}
		p.acked[s.blob.digest] = true
		a.tally.resumed++
		if at > 0 {
			a.tally.offset++
		}
		there, err := c.whole(a.Context(), pushRepo, s.blob.digest, s.blob.size)
		if err != nil || !there {
			a.Errorf("the %s upload, gone on with at %d of %d: there: %v: %v", s.blob.shape, at, s.blob.size, there, err)
		}
	}
	clear(p.sessions)
}

// everything asks for all that was ever acknowledged.
func (a *arena) everything() {
	c := a.client(0)
	defer c.close()
	for d, size := range a.blobs {
		there, err := c.whole(a.Context(), pushRepo, d, size)
		if err != nil || !there {
			a.Errorf("the blob %s (%d bytes) was acknowledged; there: %v: %v", d, size, there, err)
		}
	}
	for _, im := range a.whole {
		a.pull(c, im)
	}
}

// collect collects twice on the data of the stopped server: first what crashes
// have left, when every acknowledged blob must stay, then also what no
// manifest names. After each the files are those that rows name.
func (a *arena) collect() {
	ctx := a.Context()
	url := a.database
	if url == "" {
		url = store.SQLiteURL(filepath.Join(a.server.Data, "cove.db"))
	}
	db, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		a.Fatal(err)
	}
	defer db.Close()
	folder := filepath.Join(a.server.Data, "blobs")
	bytes, err := disk.Open(folder)
	if err != nil {
		a.Fatal(err)
	}
	defer bytes.Close()
	rows := store.NewContent(db)
	s := content.New(rows, bytes, content.Options{})

	const soon = time.Nanosecond
	if a.tally.collected, err = s.Collect(ctx, content.CollectOptions{UploadAge: soon, OrphanAge: soon}); err != nil {
		a.Fatal(err)
	}
	named := a.agree(rows, folder)
	for d := range a.blobs {
		if _, ok := named[d]; !ok {
			a.Errorf("collection has removed %s, which was acknowledged", d)
		}
	}
	r, err := s.Collect(ctx, content.CollectOptions{Grace: soon, UploadAge: soon, OrphanAge: soon})
	if err != nil {
		a.Fatal(err)
	}
	a.tally.collected.Blobs += r.Blobs
	a.tally.collected.Memberships += r.Memberships
	named = a.agree(rows, folder)
	needed := map[string]bool{}
	for _, im := range a.whole {
		for _, b := range im.blobs {
			needed[b.digest] = true
			if _, ok := named[b.digest]; !ok {
				a.Errorf("collection has removed %s, which %s needs", b.digest, im.tag)
			}
		}
	}
	if len(named) < len(needed) || len(needed) == 0 {
		a.Errorf("%d blobs are left of %d", len(named), len(needed))
	}
	if a.database == "" {
		a.sound(filepath.Join(a.server.Data, "cove.db"))
	}
}

// agree asserts that the files below folder are those that rows name, of the
// size that they say, and returns them by digest.
func (a *arena) agree(rows *store.Content, folder string) map[string]int64 {
	named := map[string]content.BlobRow{}
	for after := (oci.Digest{}); ; {
		page, err := rows.Blobs(a.Context(), after, 500)
		if err != nil {
			a.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, row := range page {
			named[row.Location] = row
		}
		after = page[len(page)-1].Digest
	}
	out := map[string]int64{}
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		row, ok := named[filepath.ToSlash(name)]
		if !ok {
			a.Errorf("collection has left %s (%d bytes), which no row names", name, info.Size())
			return nil
		}
		if row.Size != info.Size() || row.Bad {
			a.Errorf("%s has %d bytes; its row says %d, bad: %v", name, info.Size(), row.Size, row.Bad)
		}
		out[row.Digest.String()] = info.Size()
		return nil
	})
	if err != nil {
		a.Fatal(err)
	}
	if len(out) != len(named) {
		a.Errorf("%d rows name %d files", len(named), len(out))
	}
	return out
}

// sound has SQLite look at its own file.
func (a *arena) sound(file string) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		a.Fatal(err)
	}
	defer db.Close()
	var said string
	if err := db.QueryRowContext(a.Context(), "PRAGMA integrity_check").Scan(&said); err != nil || said != "ok" {
		a.Errorf("SQLite finds in its file: %s %v", said, err)
	}
}

func (s shape) String() string {
	return [...]string{"single-request", "monolithic", "streamed", "chunked", "mounted"}[s]
}
