package directory

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// A hash is recognised with the parameters that it was made with, and nothing
// is recognised as nobody's.
func TestPasswordsAreRecognised(t *testing.T) {
	cred, err := NewPassword(t.Context(), "correct horse", time.Now())
	if err != nil || !strings.HasPrefix(string(cred.Data), "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("%s %v", cred.Data, err)
	}
	older, err := hash(t.Context(), "correct horse", []byte("0123456789abcdef"), 8<<10, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		stored   []byte
		password string
		want     bool
	}{
		{"right", cred.Data, "correct horse", true},
		{"wrong", cred.Data, "correct horsf", false},
		{"empty", cred.Data, "", false},
		{"of an older cost", encodeHash(8<<10, 1, []byte("0123456789abcdef"), older), "correct horse", true},
		{"nobody's", nobodys, "", false},
	} {
		if got, err := checkPassword(t.Context(), c.stored, c.password); got != c.want || err != nil {
			t.Errorf("%s: %v %v", c.name, got, err)
		}
	}
	for _, damaged := range []string{"", "$argon2i$v=19$m=8,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=8,t=1,p=1$AAAA$", "$argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA", "$argon2id$v=19$m=8,t=0,p=1$AAAA$" + strings.Repeat("A", 43)} {
		if ok, err := checkPassword(t.Context(), []byte(damaged), "x"); ok || err == nil {
			t.Errorf("%q is a password", damaged)
		}
	}
	for _, text := range []string{"", "short", "xxxxxxxxxxxx", strings.Repeat("ab", 129), "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"} {
		if err := CheckPassword(text); !errors.Is(err, ErrPassword) {
			t.Errorf("%q may be chosen: %v", text, err)
		}
	}
}

// However many guess at once, only so many hashes are made at once; who gets
// no turn is told to come back, which is no verdict on the password.
func TestHashingIsBounded(t *testing.T) {
	for range cap(hashing) {
		hashing <- struct{}{}
	}
	defer func() {
		for range cap(hashing) {
			<-hashing
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := checkPassword(ctx, nobodys, "x"); ok || !errors.Is(err, ErrBusy) {
		t.Errorf("%v %v", ok, err)
	}
}
