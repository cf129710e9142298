package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func folder(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func TestTheSameFileOpensWhatItSealed(t *testing.T) {
	root, dir := folder(t)
	first, err := OpenFile(root, "master.key")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.Seal([]byte("a private key"), []byte("issuer"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenFile(root, "master.key")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := again.Open(sealed, []byte("issuer")); err != nil || string(text) != "a private key" {
		t.Fatalf("Open = %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "master.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file is %v, %v", info.Mode(), err)
	}
}

func TestAChangedOrForeignTextDoesNotOpen(t *testing.T) {
	root, _ := folder(t)
	box, err := OpenFile(root, "master.key")
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := box.Seal([]byte("secret"), []byte("mine"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := box.Open(bad, []byte("mine")); !errors.Is(err, ErrOpen) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if _, err := box.Open(sealed[:i], []byte("mine")); !errors.Is(err, ErrOpen) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	other, err := New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(sealed, []byte("mine")); !errors.Is(err, ErrOpen) {
		t.Errorf("another key: %v", err)
	}
	if _, err := box.Open(sealed, []byte("yours")); !errors.Is(err, ErrOpen) {
		t.Errorf("another context: %v", err)
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	for _, key := range [][]byte{nil, make([]byte, 32), make([]byte, 16), bytes.Repeat([]byte{1}, 33)} {
		if _, err := New(key); err == nil {
			t.Errorf("a key of %d bytes, first %v, was accepted", len(key), key)
		}
	}
	root, dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "master.key"), bytes.Repeat([]byte{1}, 32), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(root, "master.key"); err == nil {
		t.Error("a key file that everybody may read was accepted")
	}
}

func TestABoxDoesNotPrintItsKey(t *testing.T) {
	box, err := New(bytes.Repeat([]byte{0xab}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(box), fmt.Sprintf("%#v", box), fmt.Sprintf("%+v", box)} {
		if s != "seal.Box(redacted)" {
			t.Errorf("prints as %s", s)
		}
	}
}

// A key file that is not a whole key is named and left alone: with another in
// its place everything sealed so far would be lost.
func TestADamagedKeyIsNotReplaced(t *testing.T) {
	for _, size := range []int{0, 16, 33} {
		root, dir := folder(t)
		file := filepath.Join(dir, "master.key")
		if err := os.WriteFile(file, bytes.Repeat([]byte{1}, size), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenFile(root, "master.key")
		if want := fmt.Sprintf("master.key is damaged: it has %d bytes, not 32; put back the file from a backup", size); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if info, err := os.Stat(file); err != nil || info.Size() != int64(size) {
			t.Errorf("the file is now %v, %v", info, err)
		}
	}
}

// Of several that begin at once exactly one makes the key, and nothing but
// the whole key is left behind.
func TestOneOfManyMakesTheKey(t *testing.T) {
	root, dir := folder(t)
	const many = 8
	errs := make(chan error, many)
	for range many {
		go func() {
			_, err := create(root, "master.key")
			errs <- err
		}()
	}
	made := 0
	for range many {
		if err := <-errs; err == nil {
			made++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d made a key", made)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "master.key" {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := OpenFile(root, "master.key"); err != nil {
		t.Error(err)
	}
}
