package soak

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cove.example/cove/covetest"
)

const diskSize = 64 << 20

// smallDisk is a file system of diskSize bytes with a file that takes what is
// left of it.
type smallDisk struct {
	*testing.T
	folder string
}

func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a file system and needs root; `make test-unprivileged` leaves it out")
	}
	d := &smallDisk{t, filepath.Join(t.TempDir(), "disk")}
	if err := os.Mkdir(d.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", d.folder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.folder, 0); err != nil {
			t.Errorf("unmount %s: %v", d.folder, err)
		}
	})
	return d
}

func (d *smallDisk) ballast() string { return filepath.Join(d.folder, "ballast") }

// fill leaves at most free bytes.
func (d *smallDisk) fill(free int64) {
	d.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(d.folder, &st); err != nil {
		d.Fatal(err)
	}
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	n := max(int64(st.Bavail)*st.Bsize-free, 0)
	if free == 0 {
		n = diskSize // until no more goes in
	}
	if _, err := f.Write(make([]byte, n)); err != nil && !errors.Is(err, unix.ENOSPC) {
		d.Fatal(err)
	}
}

func (d *smallDisk) free() {
	d.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.Fatal(err)
	}
}

// A full disk refuses pushes with one sentence and 503, loses nothing, goes on
// serving what it has, and takes pushes again when there is space.
func TestRootDiskFull(t *testing.T) {
	d := newSmallDisk(t)
	r := source(seed(t), 0)
	s := covetest.StartIn(t, filepath.Join(d.folder, "data"), "--listen-http", "127.0.0.1:0", "--registry-alias", "127.0.0.1=crammed", "--rate-limits", "off")
	s.Cove(t, "registry", "create", "crammed", "--admin-enabled")
	c := plain(s, "crammed", s.Password(t, "crammed"))
	a := &arena{T: t, server: s, blobs: map[string]int64{}}
	first := newPush(newImage(r, "first", 100_000, 1_000_000), pushRepo, baseRepo)
	if err := first.run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	a.keep(first)

	t.Run("too little for a layer", func(t *testing.T) {
		d.fill(3 << 20)
		for sh := range shapes {
			b := newBlob(r, sh, 6_000_000)
			p := newPush(&image{blobs: []*blob{b}}, pushRepo, baseRepo)
			refusedFull(t, p.blob(t.Context(), c, b), sh.String())
			if there, err := c.whole(t.Context(), pushRepo, b.digest, b.size); there || err != nil {
				t.Errorf("the %s blob that was refused is there: %v %v", sh, there, err)
			}
			for _, left := range p.sessions {
				// What it holds may be the space that others need.
				if _, err := c.tell(t.Context(), http.StatusNoContent, http.MethodDelete, left.location, nil); err != nil {
					t.Errorf("the %s upload cannot be given up: %v", sh, err)
				}
			}
		}
		if err := c.pull(t.Context(), pushRepo, first.image); err != nil {
			t.Error(err)
		}
	})

	t.Run("nothing", func(t *testing.T) {
		d.fill(0)
		refused := 0
		for sh := range shapes {
			b := newBlob(r, sh, 200_000)
			if err := newPush(&image{blobs: []*blob{b}}, pushRepo, baseRepo).blob(t.Context(), c, b); err != nil {
				refusedFull(t, err, sh.String())
				refused++
			}
		}
		if refused != int(shapes) {
			t.Errorf("%d of %d pushes were refused: the disk was not full", refused, shapes)
		}
		again := bytes.Replace(first.manifest, []byte(`"layers"`), []byte(` "layers"`), 1)
		if err := c.manifestPut(t.Context(), pushRepo, "second", again); err != nil {
			refusedFull(t, err, "manifest")
		} else if err := c.pull(t.Context(), pushRepo, &image{tag: "second", digest: digestOf(again), manifest: again}); err != nil {
			t.Errorf("the manifest had found room: %v", err)
		}
		if out, said, status := s.Try(t, "status"); status != 0 || !strings.Contains(out, "COVE-DRIFT-011") {
			t.Errorf("exit status %d, and the full disk is not told of:\n%s%s", status, out, said)
		}
		_, said, status := s.Try(t, "registry", "create", "another")
		if status != 0 && !oneSentence(said) {
			t.Errorf("exit status %d of the command:\n%s", status, said)
		}
		if err := c.pull(t.Context(), pushRepo, first.image); err != nil {
			t.Error(err)
		}
	})

	t.Run("space again", func(t *testing.T) {
		d.free()
		second := newPush(newImage(r, "second", 100_000, 1_000_000), pushRepo, baseRepo)
		if err := second.run(t.Context(), c); err != nil {
			t.Fatalf("after space was made: %v\n%s", err, s.Log())
		}
		a.keep(second)
		for _, im := range a.whole {
			a.pull(c, im)
		}
	})

	t.Run("killed while full", func(t *testing.T) {
		d.fill(0)
		s.Kill(t)
		ctx, cancel := context.WithTimeout(t.Context(), covetest.Wait)
		defer cancel()
		if out, err := exec.CommandContext(ctx, covetest.Binary(t), "serve", "--data", s.Data, "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1",
			"--dns", "", "--wireguard", "", "--admin", "").CombinedOutput(); err == nil || !oneSentence(string(out)) || !strings.Contains(string(out), "the disk is full") {
			t.Errorf("started on a full disk: %v\n%s", err, out)
		}
		d.free()
		s.Start(t)
		c = plain(s, c.user, c.password)
		for _, im := range a.whole {
			a.pull(c, im)
		}
		third := newPush(newImage(r, "third", 100_000, 1_000_000), pushRepo, baseRepo)
		if err := third.run(t.Context(), c); err != nil {
			t.Error(err)
		}
		a.keep(third)
	})

	c.close()
	s.Stop(t)
	a.collect()
}

// refusedFull asserts the one answer of a full disk.
func refusedFull(t *testing.T, err error, what string) {
	t.Helper()
	r, ok := errors.AsType[*refusal](err)
	if !ok || r.status != http.StatusServiceUnavailable || !strings.Contains(r.said, "the disk is full") || strings.Count(r.said, "\n") > 0 {
		t.Errorf("%s on a full disk: %v", what, err)
	}
}

func oneSentence(said string) bool {
	said = strings.TrimSpace(said)
	return strings.HasPrefix(said, "cove: ") && !strings.Contains(said, "\n")
}
