package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// Sealer encrypts small secrets for the database; seal.Box is one. What was
// sealed in one context does not open in another.
type Sealer interface {
	Seal(text, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// The admin user has two passwords, so that one can be renewed while clients
// still use the other.
var passwordNames = []string{"password", "password2"}

// ErrAdminOff is the failure of asking for the passwords of an admin user that
// is switched off.
var ErrAdminOff = fault.Coded(fault.Invalid, "UnAuthorizedForCredentialOperations", "the admin user is disabled")

// newPassword is 200 random bits, so it needs no slow hash, after a prefix and
// before a checksum by which scanners of leaked texts can know one.
func newPassword(prefix string) string {
	var b [25]byte
	rand.Read(b[:])
	text := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	secret := text.EncodeToString(b[:])
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE([]byte(secret)))
	return prefix + secret + text.EncodeToString(sum[:])
}

// seal binds a password to its registry and its name: written over another's
// in the database it does not open, so that nobody who can write there can
// make a registry take a password that they know.
func (c Config) seal(uid, name, password string) (string, error) {
	sealed, err := c.Sealer.Seal([]byte(password), sealedFor(uid, name))
	return base64.StdEncoding.EncodeToString(sealed), err
}

func (c Config) open(uid, name, text string) (string, error) {
	sealed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", err
	}
	password, err := c.Sealer.Open(sealed, sealedFor(uid, name))
	return string(password), err
}

func sealedFor(uid, name string) []byte { return []byte("registry admin " + uid + " " + name) }

func (c Config) newPasswords(doc *resource.Doc, names ...string) error {
	for _, name := range names {
		sealed, err := c.seal(doc.UID, name, newPassword("cvadm"))
		if err != nil {
			return fmt.Errorf("seal a password of %s: %w", doc.ID, err)
		}
		resource.Assign(doc.Body, pathPasswords+"."+name, sealed)
	}
	return nil
}

// passwords opens the two passwords of a document; nil where it has none.
func (c Config) passwords(doc resource.Doc) ([]string, error) {
	if resource.Lookup(doc.Body, pathPasswords) == nil {
		return nil, nil
	}
	var out []string
	for _, name := range passwordNames {
		text, _ := resource.Lookup(doc.Body, pathPasswords+"."+name).(string)
		secret, err := c.open(doc.UID, name, text)
		if err != nil {
			return nil, fmt.Errorf("open a password of %s: %w", doc.ID, err)
		}
		out = append(out, secret)
	}
	return out, nil
}

func (c Config) listCredentials(_ context.Context, _ resource.Tx, doc resource.Doc, _ resource.Caller, _ resource.Object) (resource.Object, error) {
	if on, _ := resource.Lookup(doc.Body, pathAdmin).(bool); !on {
		return nil, ErrAdminOff.Detail("The admin user of %s is disabled. Enable adminUserEnabled to use its credentials.", doc.ID)
	}
	secrets, err := c.passwords(doc)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for i, secret := range secrets {
		list = append(list, resource.Object{"name": passwordNames[i], "value": secret})
	}
	return resource.Object{"username": doc.ID.Name(), "passwords": list}, nil
}

func (c Config) regenerateCredential(ctx context.Context, tx resource.Tx, doc resource.Doc, by resource.Caller, body resource.Object) (resource.Object, error) {
	name, _ := body["name"].(string)
	if !slices.Contains(passwordNames, strings.ToLower(name)) {
		return nil, fault.Problems([]fault.Field{{Path: "name", Message: "must be password or password2"}})
	}
	if on, _ := resource.Lookup(doc.Body, pathAdmin).(bool); !on {
		return c.listCredentials(ctx, tx, doc, by, body)
	}
	if err := c.newPasswords(&doc, strings.ToLower(name)); err != nil {
		return nil, err
	}
	if err := tx.Put(ctx, &doc); err != nil {
		return nil, err
	}
	return c.listCredentials(ctx, tx, doc, by, body)
}

// admin is the admin user as compiled into Settings. Settings holds it by
// pointer, so that printing Settings prints an address.
type admin struct {
	user      string
	passwords []adminPassword
}

// adminPassword is one of the two, and an id of this very password: what was
// bought with it ends when another takes its place.
type adminPassword struct{ id, secret string }

// WithAdmin returns a copy of s whose admin user has these passwords.
func (s Settings) WithAdmin(passwords ...string) *Settings {
	a := &admin{user: s.Name}
	for _, secret := range passwords {
		if secret == "" {
			continue // an empty secret would be everybody's
		}
		// The password is long and random, so this says nothing about it.
		sum := sha256.Sum256([]byte("admin password " + s.UID + " " + secret))
		a.passwords = append(a.passwords, adminPassword{hex.EncodeToString(sum[:8]), secret})
	}
	s.admin = a
	return &s
}

// AdminPassword reports whether these are the credentials of the admin user, and
// that it is enabled, and says which of the passwords it was. They are random
// and long: comparing them takes no hash, and the same time however much of a
// guess is right.
func (s *Settings) AdminPassword(user, password string) (id string, ok bool) {
	if !s.AdminUser || s.admin == nil || !strings.EqualFold(user, s.admin.user) {
		return "", false
	}
	for _, p := range s.admin.passwords {
		if subtle.ConstantTimeCompare([]byte(p.secret), []byte(password)) == 1 {
			id, ok = p.id, true
		}
	}
	return id, ok
}

// HasAdminPassword reports whether the admin user has the password of that id
// still.
func (s *Settings) HasAdminPassword(id string) bool {
	return s.admin != nil && slices.ContainsFunc(s.admin.passwords, func(p adminPassword) bool { return p.id == id })
}
