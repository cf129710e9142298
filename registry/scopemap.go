package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/resource"
)

// TypeScopeMap is a list of what may be done in which repositories. Tokens
// point at one.
const TypeScopeMap = TypeName + "/scopeMaps"

// How much a scope map may hold (source: the documentation of Azure Container
// Registry).
const (
	maxMapActions      = 500
	maxMapRepositories = 500
)

// Right is an action on content as a set of one; sets are or-ed.
type Right uint8

// The rights that a scope map can give.
const (
	ContentRead Right = 1 << iota
	ContentWrite
	ContentDelete
	MetadataRead
	MetadataWrite
)

var rights = map[string]Right{
	"content/read": ContentRead, "content/write": ContentWrite, "content/delete": ContentDelete,
	"metadata/read": MetadataRead, "metadata/write": MetadataWrite,
}

// ScopeRight is what an action of a registry token's scope needs, 0 for one
// that no scope map gives: the catalog is not a repository's.
func ScopeRight(action string) Right {
	return map[string]Right{
		"pull": ContentRead, "push": ContentWrite, "delete": ContentDelete,
		"metadata_read": MetadataRead, "metadata_write": MetadataWrite,
	}[action]
}

// ScopeMap is a scope map as the data path needs it. It is never modified, and
// the zero value gives nothing.
type ScopeMap struct {
	Name  string
	all   Right            // of the entry for *
	exact map[string]Right // by repository
	below map[string]Right // by what comes before the star: "team/"
	any   Right
}

// ParseScopeMap reads the actions of a scope map and returns what is wrong
// with each of them. Rules add up; a name that ends in /* stands for whatever
// lies below it, existing or not, and * for the whole registry.
func ParseScopeMap(name string, actions []string) (*ScopeMap, []string) {
	m := &ScopeMap{Name: name, exact: map[string]Right{}, below: map[string]Right{}}
	wrong := make([]string, len(actions))
	bad := false
	for i, a := range actions {
		wrong[i] = m.add(a)
		bad = bad || wrong[i] != ""
	}
	if !bad {
		wrong = nil
	}
	return m, wrong
}

func (m *ScopeMap) add(action string) string {
	if strings.HasPrefix(strings.ToLower(action), "gateway/") {
		return "connected registries are not in this version"
	}
	rest, ok := strings.CutPrefix(action, "repositories/")
	repo, right, found := cutRight(rest)
	if !ok || !found {
		return "must be repositories/NAME/ and one of content/read, content/write, content/delete, metadata/read, metadata/write"
	}
	switch prefix, wild := strings.CutSuffix(repo, "*"); {
	case repo == "*":
		m.all |= right
	case strings.Contains(prefix, "*"), wild && !strings.HasSuffix(prefix, "/"):
		return "a * stands for a whole registry by itself, or for what lies below a name as in team/*, once"
	default:
		if _, err := oci.ParseRepo(strings.TrimSuffix(prefix, "/")); err != nil || !wild && strings.HasSuffix(repo, "/") {
			return fmt.Sprintf("%.60q is not the name of a repository", repo)
		}
		if wild {
			m.below[prefix] |= right
		} else {
			m.exact[repo] |= right
		}
	}
	m.any |= right
	return ""
}

// cutRight splits team/app/content/read.
func cutRight(s string) (repo string, r Right, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", 0, false
	}
	j := strings.LastIndexByte(s[:i], '/')
	if j < 1 {
		return "", 0, false
	}
	r = rights[s[j+1:]]
	return s[:j], r, r != 0
}

// Allows reports whether the map gives a right on a repository.
func (m *ScopeMap) Allows(repo string, r Right) bool {
	if m == nil || r == 0 {
		return false
	}
	got := m.all | m.exact[repo]
	for i := 0; len(m.below) > 0 && i < len(repo); i++ {
		if repo[i] == '/' {
			got |= m.below[repo[:i+1]]
		}
	}
	return got&r == r
}

// AllowsSome reports whether the map gives a right on any repository.
func (m *ScopeMap) AllowsSome(r Right) bool { return m != nil && r != 0 && m.any&r == r }

// systemMaps are the scope maps that every registry has.
var systemMaps = []struct {
	name, description string
	actions           []string
}{
	{"_repositories_admin", "Can perform all read, write and delete operations on the registry", []string{"content/delete", "content/read", "content/write", "metadata/read", "metadata/write"}},
	{"_repositories_pull", "Can pull any repository of the registry", []string{"content/read"}},
	{"_repositories_pull_metadata_read", "Can perform all read operations on the registry", []string{"content/read", "metadata/read"}},
	{"_repositories_push", "Can push to any repository of the registry", []string{"content/read", "content/write"}},
	{"_repositories_push_metadata_write", "Can perform all read and write operations on the registry", []string{"content/read", "content/write", "metadata/read", "metadata/write"}},
}

// systemMap is the actions of a system scope map, nil where there is none of
// that name.
func systemMap(name string) (actions []string) {
	for _, m := range systemMaps {
		if strings.EqualFold(m.name, name) {
			for _, a := range m.actions {
				actions = append(actions, "repositories/*/"+a)
			}
		}
	}
	return actions
}

const (
	pathMapActions = "properties.actions"
	pathMapType    = "properties.type"
)

// ScopeMaps is the row for scope maps.
func ScopeMaps() resource.Type {
	return resource.Type{
		Name:      TypeScopeMap,
		ReadOnly:  []string{pathMapType, pathCreated},
		CheckName: checkMapName,
		Check:     checkScopeMap,
		Put:       putScopeMap,
		Delete:    deleteScopeMap,
		Fixed:     fixedMaps,
	}
}

func fixedMaps(reg resource.Doc) []resource.Doc {
	var out []resource.Doc
	for _, m := range systemMaps {
		list := []any{}
		for _, a := range systemMap(m.name) {
			list = append(list, a)
		}
		out = append(out, resource.Doc{
			ID: reg.ID.Child("scopeMaps", m.name), UID: reg.UID + "/" + m.name, ETag: m.name, Created: reg.Created, Changed: reg.Created,
			Body: resource.Object{"properties": resource.Object{
				"type": "SystemDefined", "description": m.description, "actions": list, "creationDate": reg.Created.UTC().Format(time.RFC3339Nano),
			}},
		})
	}
	return out
}

func checkMapName(name string) string {
	switch {
	case len(name) < 5 || len(name) > 50 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "":
		return "must be 5 to 50 letters, digits, hyphens and underscores"
	case name[0] == '_':
		return "must not begin with an underscore; such names are the system's"
	}
	return ""
}

func checkScopeMap(ch *resource.Change) []fault.Field {
	k := &checker{body: ch.New.Body}
	k.object("properties")
	if len(k.problems) > 0 {
		return k.problems
	}
	k.spell("properties", "actions", "description")
	if v := resource.Lookup(k.body, "properties.description"); v != nil {
		if text, ok := v.(string); !ok || len(text) > 256 {
			k.bad("properties.description", "must be a string of at most 256 characters")
		}
	}
	list, ok := resource.Lookup(k.body, pathMapActions).([]any)
	switch {
	case !ok || len(list) == 0:
		k.bad(pathMapActions, "must be a list of at least one action")
		return k.problems
	case len(list) > maxMapActions:
		k.bad(pathMapActions, "has %d actions; a scope map may have %d", len(list), maxMapActions)
		return k.problems
	}
	m, wrong := ParseScopeMap("", texts(list))
	for i, why := range wrong {
		if why != "" {
			k.bad(fmt.Sprintf("%s[%d]", pathMapActions, i), "%s", why)
		}
	}
	if n := len(m.exact) + len(m.below); n > maxMapRepositories {
		k.bad(pathMapActions, "names %d repositories; a scope map may name %d", n, maxMapRepositories)
	}
	return k.problems
}

// texts are the strings of a list; what is no string becomes one that nothing
// takes.
func texts(list []any) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i], _ = v.(string)
	}
	return out
}

func putScopeMap(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	resource.Assign(ch.New.Body, pathMapType, "UserDefined")
	if ch.Old != nil {
		return nil
	}
	resource.Assign(ch.New.Body, pathCreated, ch.Now.UTC().Format(time.RFC3339Nano))
	return roomFor(ctx, tx, ch.New.ID.Parent(), TypeScopeMap, "scope maps")
}

// ErrQuota is the failure of one more of what a registry has as many of as its
// SKU allows.
var ErrQuota = fault.Coded(fault.Conflict, "QuotaExceeded", "the registry's SKU allows no more of these")

// roomFor refuses one more token or scope map than the SKU has.
func roomFor(ctx context.Context, r resource.Reader, id arm.ID, typ, what string) error {
	reg, err := r.Get(ctx, id)
	if err != nil {
		return err
	}
	sku, _ := resource.Lookup(reg.Body, "sku.name").(string)
	most := limits[sku].tokens
	there, err := r.Count(ctx, typ, id)
	if err == nil && there >= most {
		err = ErrQuota.Detail("The registry %s has %d %s, as many as the SKU %s allows.", id.Name(), there, what, sku)
	}
	return err
}

// ErrMapInUse is the failure of deleting a scope map that tokens point at.
var ErrMapInUse = fault.Coded(fault.Conflict, "ScopeMapInUse", "tokens use the scope map")

func deleteScopeMap(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	token, err := user(ctx, tx, doc)
	if err == nil && token != "" {
		err = ErrMapInUse.Detail("The scope map %s is used by the token %s. Point the token at another, or delete it.", doc.ID.Name(), token)
	}
	return err
}

// fewEnough refuses a smaller SKU to a registry that has more tokens or scope
// maps than that one allows.
func fewEnough(ctx context.Context, r resource.Reader, ch *resource.Change) error {
	sku, _ := resource.Lookup(ch.New.Body, "sku.name").(string)
	if ch.Old == nil || resource.Lookup(ch.Old.Body, "sku.name") == sku {
		return nil
	}
	for typ, what := range map[string]string{TypeToken: "tokens", TypeScopeMap: "scope maps"} {
		most := limits[sku].tokens
		there, err := r.Count(ctx, typ, ch.New.ID)
		if err != nil {
			return err
		}
		if there > most {
			return ErrQuota.Detail("The registry %s has more than %d %s, which is all that the SKU %s allows.", ch.New.ID.Name(), most, what, sku)
		}
	}
	return nil
}
