//go:build soak

package soak

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cove.example/cove/covetest"
)

const (
	bigBlob   = 10 << 30
	freeDisk  = 15 << 30
	maxMoving = 150 << 20 // bytes resident while the blob moves
	bigRepo   = "big/one"
	// userHZ is the unit of /proc/PID/stat on Linux, whatever the kernel's own
	// clock does.
	userHZ = 100
)

// A blob far larger than the memory that the server may use goes up as a
// stream and comes down, over plain HTTP and over TLS.
func TestSoakBigBlob(t *testing.T) {
	n := seed(t)
	lines := fmt.Sprintf("%d bytes of the stream COVE_SEED=%d, which no file holds: up as one PATCH of no\nstated length, down as one GET, hashed on both sides.\n\n", int64(bigBlob), n)
	lines += "| | MB/s | CPU seconds of the server | peak MiB resident |\n|---|--:|--:|--:|\n"
	for _, over := range []string{"plain HTTP", "TLS"} {
		// Each has a folder of its own, gone before the next needs the space.
		t.Run(over, func(t *testing.T) { lines += bigRun(t, over, n) })
	}
	record(t, "A blob of 10 GiB", "%s\nThe limit of memory is %d MiB.", lines, maxMoving>>20)
}

func bigRun(t *testing.T, over string, n uint64) (lines string) {
	data := t.TempDir()
	roomFor(t, data)
	s := covetest.StartIn(t, data, "--listen-http", "127.0.0.1:0", "--registry-alias", "127.0.0.1=large", "--rate-limits", "off")
	s.Cove(t, "registry", "create", "large", "--admin-enabled")
	password := s.Password(t, "large")
	c := plain(s, "large", password)
	if over == "TLS" {
		c = outside(t, s, "large", password)
	}
	var digest string
	lines += measured(t, s.PID(), over+" up", func() error {
		at, err := c.blobStart(t.Context(), bigRepo)
		if err != nil {
			return err
		}
		body := newStream(n)
		h, err := c.tell(t.Context(), http.StatusAccepted, http.MethodPatch, at, body, "Content-Type", "application/octet-stream")
		if err != nil {
			return err
		}
		if at, err = location(h); err != nil {
			return err
		}
		digest = body.digest()
		_, err = c.tell(t.Context(), http.StatusCreated, http.MethodPut, withDigest(at, digest), nil)
		return err
	})
	lines += measured(t, s.PID(), over+" down", func() error { return bigDown(t.Context(), c, digest) })
	return lines
}

func bigDown(ctx context.Context, c *client, digest string) error {
	resp, err := c.call(ctx, http.StatusOK, http.MethodGet, "/v2/"+bigRepo+"/blobs/"+digest, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, resp.Body, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); n != bigBlob || got != digest {
		return fmt.Errorf("%d bytes came down, %s; %s went up", n, got, digest)
	}
	return nil
}

// roomFor fails in one sentence where the disk has not enough room.
func roomFor(t *testing.T, dir string) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < freeDisk {
		t.Fatalf("%s has %.1f GiB free and this test needs %d: free some, or set TMPDIR to a folder on another disk", dir, float64(free)/(1<<30), freeDisk>>30)
	}
}

// measured does work and returns its line of the table.
func measured(t *testing.T, pid int, what string, work func() error) string {
	t.Helper()
	// 5 sets the peak back to what is resident now.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	used, start := processor(t, pid), time.Now()
	if err := work(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	took := time.Since(start)
	used = processor(t, pid) - used
	peak := memory(t, pid, "VmHWM")
	t.Logf("%s: %.0f MB/s, %.1f CPU seconds, peak %.1f MiB", what, bigBlob/1e6/took.Seconds(), used.Seconds(), mib(peak))
	if peak > maxMoving {
		t.Errorf("%s: the server had up to %.1f MiB resident; the limit is %d", what, mib(peak), maxMoving>>20)
	}
	return fmt.Sprintf("| %s | %.0f | %.1f | %.0f |\n", what, bigBlob/1e6/took.Seconds(), used.Seconds(), mib(peak))
}

// processor is the time that a process has computed.
func processor(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name in brackets may hold spaces; utime and stime are the 12th and
	// 13th field behind it.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ
}

// stream is bigBlob bytes that the seed determines, hashed as they are read.
type stream struct {
	from *rand.ChaCha8
	left int64
	sum  hash.Hash
}

func newStream(seed uint64) *stream {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &stream{rand.NewChaCha8(key), bigBlob, sha256.New()}
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), s.left)]
	n, err := s.from.Read(b)
	s.left -= int64(n)
	s.sum.Write(b[:n])
	return n, err
}

func (s *stream) digest() string { return "sha256:" + hex.EncodeToString(s.sum.Sum(nil)) }
