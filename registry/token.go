package registry

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// TypeToken is an identity of one registry, with passwords of its own, that
// may do what its scope map says.
const TypeToken = TypeName + "/tokens"

const (
	pathTokenMap         = "properties.scopeMapId"
	pathTokenStatus      = "properties.status"
	pathTokenCredentials = "properties.credentials"
	// pathTokenPasswords is cove's own: what is kept of each password.
	pathTokenPasswords = "cove.passwords"
)

// The passwords of a token: two, so that one can be renewed while clients
// still use the other.
var tokenPasswords = []string{"password1", "password2"}

// Token is a token as the data path needs it. It is never modified.
type Token struct {
	UID     string // a token made again under the name is another
	Name    string
	Enabled bool
	Map     *ScopeMap

	passwords []tokenPassword
}

type tokenPassword struct {
	id      string
	hash    [sha256.Size]byte
	expires time.Time // zero is never
}

// Check returns the id of the password and when it ends, zero is never. It is
// for the caller to look at the time: a password whose time is over was right.
func (t *Token) Check(password string) (id string, expires time.Time, ok bool) {
	// 200 random bits need no slow hash; every password is compared, each in
	// constant time.
	sum := sha256.Sum256([]byte(password))
	for i := range t.passwords {
		if subtle.ConstantTimeCompare(sum[:], t.passwords[i].hash[:]) == 1 {
			id, expires, ok = t.passwords[i].id, t.passwords[i].expires, true
		}
	}
	return id, expires, ok
}

// Password returns when the password of that id ends, and whether the token
// has it still.
func (t *Token) Password(id string) (expires time.Time, ok bool) {
	for i := range t.passwords {
		if t.passwords[i].id == id {
			return t.passwords[i].expires, true
		}
	}
	return time.Time{}, false
}

// String keeps hashes out of logs.
func (t *Token) String() string { return "token " + t.Name }

// GoString keeps them out of %#v.
func (t *Token) GoString() string { return t.String() }

// TokenLookup finds tokens for the data path.
type TokenLookup interface {
	// Token returns the token of that name, in any case, of a registry, or
	// nil. It reads no disk on a hit.
	Token(ctx context.Context, reg *Settings, name string) (*Token, error)
}

// Tokens is the row for tokens.
func Tokens(c Config) resource.Type {
	return resource.Type{
		Name:      TypeToken,
		ReadOnly:  []string{pathCreated, "cove"},
		Secret:    []string{"cove"},
		CheckName: checkTokenName,
		Check:     checkToken,
		Put:       putToken,
		Delete:    deleteToken,
		Show:      showToken,
	}
}

// checkTokenName also keeps user names apart: whoever signs in with a GUID is
// an application.
func checkTokenName(name string) string {
	switch {
	case len(name) < 5 || len(name) > 50 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return "must be 5 to 50 letters, digits and hyphens"
	case isGUID(name):
		return "must not have the form of a GUID: such user names are applications'"
	}
	return ""
}

func isGUID(s string) bool {
	groups := strings.Split(strings.ToLower(s), "-")
	if len(groups) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if len(groups[i]) != n || strings.Trim(groups[i], "0123456789abcdef") != "" {
			return false
		}
	}
	return true
}

func checkToken(ch *resource.Change) []fault.Field {
	k := &checker{body: ch.New.Body}
	for _, path := range []string{"properties", pathTokenCredentials} {
		k.object(path)
	}
	if len(k.problems) > 0 {
		return k.problems
	}
	k.spell("properties", "scopeMapId", "status", "credentials")
	k.spell(pathTokenCredentials, "passwords", "certificates", "activeDirectoryObject")
	if strings.EqualFold(ch.New.ID.Name(), ch.New.ID.Parent().Name()) {
		k.bad("name", "must not be the registry's, which is the user name of its admin user")
	}
	k.word(pathTokenStatus, "enabled", "enabled", "disabled")
	text, _ := resource.Lookup(k.body, pathTokenMap).(string)
	id, err := arm.ParseID(text)
	if text == "" || err != nil || !strings.EqualFold(id.Type(), TypeScopeMap) || !id.Parent().Equal(ch.New.ID.Parent()) {
		k.bad(pathTokenMap, "must be the id of a scope map of the same registry")
	}
	k.credentials(ch)
	resource.Remove(k.body, pathTokenCredentials) // what is shown is made from what is kept
	return k.problems
}

// credentials obeys a list of passwords: those that it does not name go. A
// password is made by generateCredentials and by nothing else.
func (k *checker) credentials(ch *resource.Change) {
	set, _ := resource.Lookup(k.body, pathTokenCredentials).(resource.Object)
	for _, name := range []string{"certificates", "activeDirectoryObject"} {
		if list, isList := set[name].([]any); set[name] != nil && (!isList || len(list) > 0) {
			k.bad(pathTokenCredentials+"."+name, "signing in with these is not in this version; use passwords")
		}
	}
	if set["passwords"] == nil {
		return
	}
	list, ok := set["passwords"].([]any)
	if !ok {
		k.bad(pathTokenCredentials+".passwords", "must be a list")
		return
	}
	kept := resource.Object{}
	there, _ := resource.Lookup(k.body, pathTokenPasswords).(resource.Object)
	for i, v := range list {
		path := fmt.Sprintf("%s.passwords[%d]", pathTokenCredentials, i)
		one, _ := v.(resource.Object)
		resource.Spell(one, "name", "expiry", "creationTime", "value")
		name, _ := one["name"].(string)
		name = strings.ToLower(name)
		old, _ := there[name].(resource.Object)
		switch {
		case !slices.Contains(tokenPasswords, name):
			k.bad(path+".name", "must be password1 or password2")
			continue
		case kept[name] != nil:
			k.bad(path+".name", "is given twice")
			continue
		case old == nil:
			k.bad(path, "the token has no %s; generateCredentials makes one", name)
			continue
		}
		old = resource.Clone(old)
		if one["expiry"] != nil && !sameTime(one["expiry"], old["expires"]) {
			at, why := expiry(one["expiry"], ch.Now)
			if why != "" {
				k.bad(path+".expiry", "%s", why)
			}
			old["expires"] = at
		}
		kept[name] = old
	}
	if len(k.problems) == 0 {
		resource.Assign(k.body, pathTokenPasswords, kept)
	}
}

func sameTime(a, b any) bool {
	x, _ := a.(string)
	y, _ := b.(string)
	at, err := time.Parse(time.RFC3339Nano, x)
	bt, err2 := time.Parse(time.RFC3339Nano, y)
	return err == nil && err2 == nil && at.Equal(bt)
}

// expiry reads when a password ends.
func expiry(v any, now time.Time) (text, why string) {
	s, _ := v.(string)
	at, err := time.Parse(time.RFC3339Nano, s)
	switch {
	case err != nil:
		return "", "must be a time such as 2027-01-31T00:00:00Z"
	case !at.After(now):
		return "", "is in the past"
	}
	return at.UTC().Format(time.RFC3339Nano), ""
}

func putToken(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	text, _ := resource.Lookup(ch.New.Body, pathTokenMap).(string)
	id, err := arm.ParseID(text)
	if err != nil {
		return err
	}
	id, actions, err := mapActions(ctx, tx, ch.New.ID.Parent(), id.Name())
	if err != nil {
		return err
	}
	if actions == nil {
		return fault.Problems([]fault.Field{{Path: pathTokenMap, Message: "the registry has no scope map " + id.Name()}})
	}
	resource.Assign(ch.New.Body, pathTokenMap, id.String())
	if ch.Old != nil {
		if old, _ := resource.Lookup(ch.Old.Body, pathTokenMap).(string); strings.EqualFold(old, id.String()) {
			return nil
		}
		if err := use(ctx, tx, *ch.Old, false); err != nil {
			return err
		}
	}
	if err := use(ctx, tx, *ch.New, true); err != nil || ch.Old != nil {
		return err
	}
	resource.Assign(ch.New.Body, pathCreated, ch.Now.UTC().Format(time.RFC3339Nano))
	return roomFor(ctx, tx, ch.New.ID.Parent(), TypeToken, "tokens")
}

func deleteToken(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	return use(ctx, tx, doc, false)
}

// mapActions returns the id of a registry's scope map as it is spelled, and
// its actions, nil where there is none of that name.
func mapActions(ctx context.Context, r resource.Reader, reg arm.ID, name string) (arm.ID, []string, error) {
	for _, m := range systemMaps {
		if strings.EqualFold(m.name, name) {
			return reg.Child("scopeMaps", m.name), systemMap(m.name), nil
		}
	}
	id := reg.Child("scopeMaps", name)
	doc, err := r.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) {
		return id, nil, nil
	}
	if err != nil {
		return id, nil, err
	}
	list, _ := resource.Lookup(doc.Body, pathMapActions).([]any)
	return doc.ID, texts(list), nil
}

// showToken makes what is shown of the passwords: never a hash.
func showToken(_ context.Context, _ resource.Reader, doc resource.Doc, body resource.Object) error {
	list := []any{}
	for _, name := range tokenPasswords {
		if p, _ := resource.Lookup(doc.Body, pathTokenPasswords+"."+name).(resource.Object); p != nil {
			list = append(list, shownPassword(name, p))
		}
	}
	resource.Assign(body, pathTokenCredentials, resource.Object{"certificates": []any{}, "passwords": list})
	return nil
}

func shownPassword(name string, p resource.Object) resource.Object {
	one := resource.Object{"name": name, "creationTime": p["created"]}
	if p["expires"] != nil {
		one["expiry"] = p["expires"]
	}
	return one
}

// generateCredentials makes passwords of a token and shows them, this once:
// what is kept of one is enough to recognise it and not to use it.
func (c Config) generateCredentials(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller, body resource.Object) (resource.Object, error) {
	var problems []fault.Field
	bad := func(path, format string, args ...any) {
		problems = append(problems, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if twice := resource.Spell(body, "tokenId", "name", "expiry"); twice != "" {
		bad(twice, "is given twice, in spellings that differ in case only")
	}
	text, _ := body["tokenId"].(string)
	id, err := arm.ParseID(text)
	if err != nil || !strings.EqualFold(id.Type(), TypeToken) || !id.Parent().Equal(doc.ID) {
		bad("tokenId", "must be the id of a token of this registry")
	}
	names := tokenPasswords
	if body["name"] != nil {
		name, _ := body["name"].(string)
		if names = []string{strings.ToLower(name)}; !slices.Contains(tokenPasswords, names[0]) {
			bad("name", "must be password1 or password2")
		}
	}
	now, ends := c.now(), ""
	if body["expiry"] != nil {
		var why string
		if ends, why = expiry(body["expiry"], now); why != "" {
			bad("expiry", "%s", why)
		}
	}
	if len(problems) > 0 {
		return nil, fault.Problems(problems)
	}
	token, err := tx.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) {
		return nil, fault.Problems([]fault.Field{{Path: "tokenId", Message: "the registry has no token " + id.Name()}})
	}
	if err == nil {
		err = resource.Unlocked(ctx, tx, token.ID, false)
	}
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, name := range names {
		secret := newPassword("cvtok")
		p := resource.Object{"id": rand.Text(), "created": now.UTC().Format(time.RFC3339Nano)}
		if ends != "" {
			p["expires"] = ends
		}
		sum := sha256.Sum256([]byte(secret))
		sealed, err := c.Sealer.Seal(sum[:], sealedForToken(token.UID, name, p["id"].(string)))
		if err != nil {
			return nil, fmt.Errorf("seal a password of %s: %w", token.ID, err)
		}
		p["hash"] = base64.StdEncoding.EncodeToString(sealed)
		resource.Assign(token.Body, pathTokenPasswords+"."+name, p)
		shown := shownPassword(name, p)
		shown["value"] = secret
		list = append(list, shown)
	}
	if err := tx.Put(ctx, &token); err != nil {
		return nil, err
	}
	return resource.Object{"username": token.ID.Name(), "passwords": list}, nil
}

// sealedForToken binds a hash to its token: whoever can write into the database
// cannot make a token take a password that they know.
func sealedForToken(uid, name, id string) []byte {
	return []byte("registry token " + uid + " " + name + " " + id)
}

// compileToken makes the data path's view of a token. It fails rather than
// leave out what it cannot read.
func (c Config) compileToken(ctx context.Context, r resource.Reader, doc resource.Doc) (*Token, error) {
	t := &Token{UID: doc.UID, Name: doc.ID.Name(), Map: &ScopeMap{}}
	t.Enabled = resource.Lookup(doc.Body, pathTokenStatus) == "enabled"
	text, _ := resource.Lookup(doc.Body, pathTokenMap).(string)
	id, err := arm.ParseID(text)
	if err != nil {
		return nil, err
	}
	_, actions, err := mapActions(ctx, r, doc.ID.Parent(), id.Name())
	if err != nil {
		return nil, err
	}
	// An action that cannot be read gives nothing.
	t.Map, _ = ParseScopeMap(id.Name(), actions)
	for _, name := range tokenPasswords {
		p, _ := resource.Lookup(doc.Body, pathTokenPasswords+"."+name).(resource.Object)
		if p == nil {
			continue
		}
		one := tokenPassword{}
		one.id, _ = p["id"].(string)
		hash, _ := p["hash"].(string)
		sealed, err := base64.StdEncoding.DecodeString(hash)
		if err != nil {
			return nil, err
		}
		sum, err := c.Sealer.Open(sealed, sealedForToken(doc.UID, name, one.id))
		if err != nil || copy(one.hash[:], sum) != len(one.hash) || one.id == "" {
			return nil, fmt.Errorf("open %s of %s: %w", name, doc.ID, errors.Join(err, errHash))
		}
		if ends, _ := p["expires"].(string); ends != "" {
			if one.expires, err = time.Parse(time.RFC3339Nano, ends); err != nil {
				return nil, err
			}
		}
		t.passwords = append(t.passwords, one)
	}
	return t, nil
}

var errHash = errors.New("it is not the hash of a password")
