package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"cove.example/cove/fault"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"golang.org/x/sys/unix"
)

// writeUntilKilled writes to the database at args[0] from several goroutines,
// durably and not, and prints each key once its Update has returned.
func writeUntilKilled(args []string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, args[0], store.Options{})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			write := db.Update
			if w%4 == 0 {
				write = db.UpdateRelaxed
			}
			for i := 0; ; i++ {
				key := fmt.Sprintf("%s-%d-%d", args[1], w, i)
				err := write(ctx, func(tx *store.Tx) error {
					if i%7 == 0 {
						return errors.New("changed my mind")
					}
					if _, err := tx.Exec(ctx, `INSERT INTO numbers VALUES ($1, 0)`, key); err != nil {
						return err
					}
					return tx.Record(ctx, store.Change{Kind: "test", Key: key, Op: "put"})
				})
				if err == nil {
					mu.Lock()
					fmt.Println(key)
					mu.Unlock()
				}
			}
		}()
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until killed
	return err
}

// A killed process loses nothing that it was told is written, half-written
// transactions are gone, and the file is whole.
func TestKilledAtAnyMoment(t *testing.T) {
	url := storetest.SQLite(t)
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	numbers(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	acknowledged := map[string]bool{}
	for round := range 10 {
		cmd := child("write", url, fmt.Sprint(round))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// A line is one write to a pipe, which is whole or not at all. Ten are
		// awaited, so that there is something to lose on a busy machine too.
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 10 {
				after := time.Duration(random.Int64N(int64(60 * time.Millisecond)))
				time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			}
			acknowledged[lines.Text()] = true
		}
		_ = cmd.Wait()
		_ = in.Close()
	}

	db = storetest.Open(t, url)
	rows, changes := map[string]bool{}, map[string]bool{}
	err = db.View(t.Context(), func(tx *store.Tx) error {
		for q, into := range map[string]map[string]bool{`SELECT name FROM numbers`: rows, `SELECT key FROM changes WHERE kind = 'test'`: changes} {
			list, err := tx.Query(t.Context(), q)
			if err != nil {
				return err
			}
			for list.Next() {
				var key string
				if err := list.Scan(&key); err != nil {
					return err
				}
				into[key] = true
			}
			if err := list.Err(); err != nil {
				return err
			}
		}
		return whole(t.Context(), tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	for key := range acknowledged {
		if !rows[key] || !changes[key] {
			t.Errorf("%s was acknowledged; row %v, change %v", key, rows[key], changes[key])
		}
	}
	for key := range rows {
		if !changes[key] {
			t.Errorf("half of %s is there", key)
		}
	}
	if len(acknowledged) < 50 || len(rows) != len(changes) {
		t.Errorf("%d keys acknowledged, %d rows, %d changes", len(acknowledged), len(rows), len(changes))
	}
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(rows))
}

func whole(ctx context.Context, tx *store.Tx) error {
	var verdict string
	if err := tx.QueryRow(ctx, `PRAGMA integrity_check`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("integrity check: %s", verdict)
	}
	return nil
}

// private runs a child in a mount namespace of its own, where it may mount.
func private(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := child(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFullDiskAndReadOnlyFolder(t *testing.T) { private(t, "full", t.TempDir()) }

// fillTheDisk runs in a mount namespace of its own.
func fillTheDisk(args []string) error {
	ctx, dir := context.Background(), args[0]
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		return err
	}
	url := store.SQLiteURL(filepath.Join(dir, "cove.db"))
	db, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		return err
	}
	insert := func(n int) error {
		return db.Update(ctx, func(tx *store.Tx) error {
			return tx.Record(ctx, store.Change{Kind: "test", Key: fmt.Sprint(n), Op: "put", Detail: make([]byte, 20_000)})
		})
	}
	written := 0
	for ; err == nil; written++ {
		if written > 1000 {
			return errors.New("the disk did not fill")
		}
		err = insert(written)
	}
	written-- // the last was refused
	if kind, sentence := fault.Of(err); !errors.Is(err, store.ErrFull) || kind != fault.Unavailable || !strings.HasPrefix(sentence, "the disk is full") {
		return fmt.Errorf("on a full disk: %w", err)
	}
	check := func(want int) error {
		list, err := db.Changes(ctx, 0, 10_000)
		if err != nil || len(list) != want {
			return fmt.Errorf("%d changes are there, %d were acknowledged: %w", len(list), want, err)
		}
		return db.View(ctx, func(tx *store.Tx) error { return whole(ctx, tx) })
	}
	if err := check(written); err != nil {
		return err
	}
	if err := insert(written); !errors.Is(err, store.ErrFull) {
		return fmt.Errorf("still full, but: %w", err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := insert(written); err != nil {
		return fmt.Errorf("with space again: %w", err)
	}
	if err := check(written + 1); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}

	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	_, err = store.Open(ctx, url, store.Options{})
	if _, sentence := fault.Of(err); sentence != "the folder "+dir+" or the database in it cannot be written to" {
		return fmt.Errorf("on a read-only folder: %w", err)
	}
	return nil
}

func TestFailedFsyncStopsTheStore(t *testing.T) { private(t, "failing", storetest.SQLite(t)) }

// failTheDisk makes every fsync of its own process fail, by a filter between
// it and the kernel, and looks what the store makes of it.
func failTheDisk(args []string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, args[0], store.Options{})
	if err != nil {
		return err
	}
	if err := record(ctx, db, "before"); err != nil {
		return err
	}
	if err := refuse(unix.SYS_FSYNC, unix.SYS_FDATASYNC); err != nil {
		return fmt.Errorf("the filter: %w", err)
	}
	relaxed := func(key string) error {
		return db.UpdateRelaxed(ctx, func(tx *store.Tx) error {
			return tx.Record(ctx, store.Change{Kind: "test", Key: key, Op: "put"})
		})
	}
	// A relaxed write asks the disk for nothing and does not notice.
	if err := relaxed("relaxed"); err != nil {
		return fmt.Errorf("a relaxed write waited for the disk: %w", err)
	}
	// A durable one does, and is not acknowledged.
	if err := record(ctx, db, "durable"); !errors.Is(err, store.ErrStopped) || !fault.Is(err, fault.Unavailable) {
		return fmt.Errorf("a durable write whose fsync failed: %w", err)
	}
	// From then on nothing is written, though a relaxed write would still
	// seem to succeed.
	for range 3 {
		if err := relaxed("after"); !errors.Is(err, store.ErrStopped) {
			return fmt.Errorf("a relaxed write after the failure: %w", err)
		}
		if err := record(ctx, db, "after"); !errors.Is(err, store.ErrStopped) {
			return fmt.Errorf("a durable write after the failure: %w", err)
		}
	}
	list, err := db.Changes(ctx, 0, 10)
	if err != nil || len(list) < 2 || list[0].Key != "before" || list[1].Key != "relaxed" {
		return fmt.Errorf("reading after the failure: %v, %w", list, err)
	}
	return nil
}

// refuse makes two system calls fail with EIO in all threads of this process,
// from now to its end.
func refuse(a, b uint32) error {
	const nr = 0 // offset of the call's number in struct seccomp_data
	eio := uint32(unix.SECCOMP_RET_ERRNO | unix.EIO)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: a, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: b, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: eio},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}
