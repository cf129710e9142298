package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// The failures that are particular to role definitions, with Azure's codes.
var (
	ErrRoleName     = fault.Coded(fault.Conflict, "RoleDefinitionWithSameNameExists", "a role definition of this name exists")
	ErrRoleAssigned = fault.Coded(fault.Conflict, "RoleDefinitionHasAssignments", "There are existing role assignments referencing role.")
	ErrBuiltin      = fault.Coded(fault.Denied, "CannotModifyBuiltInRole", "A built-in role cannot be changed or deleted.")
	errRoleRight    = fault.Coded(fault.Denied, "AuthorizationFailed", "the caller lacks a permission")
)

// Bounds on a custom role.
const (
	maxRoleName    = 512
	maxActions     = 1000 // of all four lists together
	maxActionText  = 256
	maxAssignables = 200
)

// actionText is what an action or a pattern of actions looks like: one word says
// of no provider what may be done there, and would never give anything.
var actionText = regexp.MustCompile(`^(\*|[A-Za-z0-9.*_-]+(/[A-Za-z0-9.*_-]+)+)$`)

// RoleID is the id of a custom role's document. It lies in no subscription: the
// role is one, by its GUID, in each of those where it can be assigned, which its
// assignable scopes say. Callers name it by DefinitionID, of any of them.
func RoleID(name string) (arm.ID, error) {
	return arm.ParseID("/providers/" + TypeDefinitions + "/" + strings.ToLower(name))
}

// Definitions is the resource type of custom roles. Who writes one must hold the
// right to at each of its assignable scopes, those it had included: somebody who
// may do so in one subscription must not give rights in another.
func Definitions() resource.Type {
	return resource.Type{
		Name:      TypeDefinitions,
		Extension: true,
		CheckName: func(name string) string {
			if !guid.MatchString(name) {
				return "the name of a role definition is a GUID"
			}
			return ""
		},
		ReadOnly: []string{
			"properties.createdOn", "properties.createdBy", "properties.updatedOn", "properties.updatedBy", "cove",
		},
		Secret: []string{"cove"},
		Check:  checkDefinition,
		Put:    putDefinition,
		Delete: deleteDefinition,
	}
}

// definition is a custom role as its document has it.
type definition struct {
	properties resource.Object
	problems   []fault.Field
}

func (d *definition) bad(path, format string, args ...any) {
	d.problems = append(d.problems, fault.Field{Path: "properties." + path, Message: fmt.Sprintf(format, args...)})
}

func checkDefinition(c *resource.Change) []fault.Field {
	p, _ := c.New.Body["properties"].(resource.Object)
	d := &definition{properties: p}
	if BuiltinByID(c.New.ID.Name()) != nil {
		return []fault.Field{{Path: "name", Message: "is that of a built-in role"}}
	}
	if twice := resource.Spell(p, "roleName", "description", "type", "permissions", "assignableScopes"); twice != "" {
		d.bad(twice, "is given twice, in spellings that differ in case only")
		return d.problems
	}
	if kind, _ := p["type"].(string); p["type"] != nil && !strings.EqualFold(kind, "CustomRole") {
		d.bad("type", "must be CustomRole")
	}
	if p != nil {
		p["type"] = "CustomRole"
	}
	switch name, _ := p["roleName"].(string); {
	case strings.TrimSpace(name) == "":
		d.bad("roleName", "is required")
	case len(name) > maxRoleName:
		d.bad("roleName", "is longer than %d bytes", maxRoleName)
	}
	if v, ok := p["description"]; ok && v != nil {
		if text, isText := v.(string); !isText || len(text) > 2048 {
			d.bad("description", "must be a text of at most 2048 bytes")
		}
	}
	d.permissions()
	d.scopes()
	return d.problems
}

var actionLists = []string{"actions", "notActions", "dataActions", "notDataActions"}

func (d *definition) permissions() {
	list, _ := d.properties["permissions"].([]any)
	if len(list) != 1 {
		d.bad("permissions", "must be a list of one object, with actions, notActions, dataActions and notDataActions")
		return
	}
	one, ok := list[0].(resource.Object)
	if !ok {
		d.bad("permissions[0]", "must be an object")
		return
	}
	if twice := resource.Spell(one, actionLists...); twice != "" {
		d.bad("permissions[0]."+twice, "is given twice, in spellings that differ in case only")
		return
	}
	total := 0
	for _, name := range actionLists {
		actions, ok := one[name].([]any)
		if !ok && one[name] != nil {
			d.bad("permissions[0]."+name, "must be a list of actions")
			continue
		}
		if actions == nil {
			one[name] = []any{}
		}
		total += len(actions)
		for i, a := range actions {
			if text, _ := a.(string); len(text) > maxActionText || !actionText.MatchString(text) {
				d.bad(fmt.Sprintf("permissions[0].%s[%d]", name, i), "%q is not an action such as Microsoft.ContainerRegistry/registries/read, in which * stands for anything", clip(fmt.Sprint(a)))
			}
		}
	}
	if total > maxActions {
		d.bad("permissions", "have %d actions together; there can be %d", total, maxActions)
	}
	// What a role cannot be without in Azure: something that it gives.
	if given, _ := one["actions"].([]any); len(given) == 0 {
		if data, _ := one["dataActions"].([]any); len(data) == 0 {
			d.bad("permissions[0].actions", "must name an action, or dataActions must")
		}
	}
}

func (d *definition) scopes() {
	list, _ := d.properties["assignableScopes"].([]any)
	if len(list) == 0 || len(list) > maxAssignables {
		d.bad("assignableScopes", "must be a list of 1 to %d subscriptions and resource groups", maxAssignables)
	}
	for i, v := range list {
		text, _ := v.(string)
		id, err := arm.ParseID(strings.TrimRight(text, "/"))
		if err != nil || id.Subscription() == "" || !strings.EqualFold(id.Type(), resource.TypeSubscription) && !strings.EqualFold(id.Type(), resource.TypeGroup) {
			d.bad(fmt.Sprintf("assignableScopes[%d]", i), "%q is not a subscription or a resource group", clip(text))
			continue
		}
		list[i] = id.String()
	}
}

// RoleFromDoc reads a custom role from its document.
func RoleFromDoc(doc resource.Doc) (*Role, error) {
	p, _ := doc.Body["properties"].(resource.Object)
	permissions, _ := p["permissions"].([]any)
	if len(permissions) != 1 {
		return nil, fmt.Errorf("%w: %s", errMalformed, doc.ID)
	}
	one, _ := permissions[0].(resource.Object)
	r := &Role{ID: strings.ToLower(doc.ID.Name()), Name: property(&doc, "roleName"), Description: property(&doc, "description"), Assignable: []arm.ID{}}
	for name, to := range map[string]*[]string{
		"actions": &r.Actions, "notActions": &r.NotActions, "dataActions": &r.DataActions, "notDataActions": &r.NotDataActions,
	} {
		list, ok := one[name].([]any)
		if !ok {
			// Least of all may what is taken away be lost.
			return nil, fmt.Errorf("%w: %s: %s", errMalformed, doc.ID, name)
		}
		for _, a := range list {
			text, ok := a.(string)
			if !ok {
				return nil, fmt.Errorf("%w: %s: %s", errMalformed, doc.ID, name)
			}
			*to = append(*to, text)
		}
	}
	scopes, _ := p["assignableScopes"].([]any)
	for _, s := range scopes {
		text, _ := s.(string)
		id, err := arm.ParseID(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errMalformed, doc.ID, err)
		}
		r.Assignable = append(r.Assignable, id)
	}
	return r, nil
}

// readRole reads a custom role, or fails with resource.ErrUnknown.
func readRole(ctx context.Context, r resource.Reader, name string) (*Role, error) {
	id, err := RoleID(name)
	if err != nil {
		return nil, resource.ErrUnknown.Because(err)
	}
	doc, err := r.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return RoleFromDoc(doc)
}

func putDefinition(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	role, err := RoleFromDoc(*c.New)
	if err != nil {
		return err
	}
	if err := mayDefine(c.Caller, "write", role); err != nil {
		return err
	}
	for i, scope := range role.Assignable {
		if _, err := tx.Get(ctx, scope); errors.Is(err, resource.ErrUnknown) {
			return fault.Problems([]fault.Field{{Path: fmt.Sprintf("properties.assignableScopes[%d]", i), Message: fmt.Sprintf("there is no %s", clip(scope.String()))}})
		} else if err != nil {
			return err
		}
	}
	p, _ := c.New.Body["properties"].(resource.Object)
	now := c.Now.UTC().Format(time.RFC3339Nano)
	if c.Old == nil {
		p["createdOn"], p["createdBy"] = now, c.Caller.ObjectID
		p["updatedOn"], p["updatedBy"] = now, c.Caller.ObjectID
		resource.Assign(c.New.Body, "cove.tenant", c.Caller.Tenant)
		return claimRole(ctx, tx, c.New)
	}
	old, err := RoleFromDoc(*c.Old)
	if err != nil {
		return err
	}
	if err := mayDefine(c.Caller, "write", old); err != nil {
		return err
	}
	before, err := resource.Encode(c.Old.Body)
	if err != nil {
		return err
	}
	after, err := resource.Encode(c.New.Body)
	if err != nil || bytes.Equal(before, after) {
		return err
	}
	// What is assigned stays assignable: an assignment outside the scopes
	// would be there and count for nothing.
	if err := unassigned(ctx, tx, old, func(at arm.ID) bool { return !role.assignableAt(at) }); err != nil {
		return err
	}
	p["updatedOn"], p["updatedBy"] = now, c.Caller.ObjectID
	if err := unclaimRole(ctx, tx, c.Old); err != nil {
		return err
	}
	return claimRole(ctx, tx, c.New)
}

func deleteDefinition(ctx context.Context, tx resource.Tx, doc resource.Doc, by resource.Caller) error {
	role, err := RoleFromDoc(doc)
	if err != nil {
		return err
	}
	if err := mayDefine(by, "delete", role); err != nil {
		return err
	}
	if err := unassigned(ctx, tx, role, func(arm.ID) bool { return true }); err != nil {
		return err
	}
	return unclaimRole(ctx, tx, &doc)
}

// mayDefine asks for the right to write or delete a role at each of its scopes.
func mayDefine(by resource.Caller, verb string, role *Role) error {
	for _, scope := range role.Assignable {
		if by.May == nil || !by.May(TypeDefinitions+"/"+verb, scope) {
			return errRoleRight.Detail("The client '%s' with object id '%s' does not have authorization to perform action '%s/%s' over scope '%s', which is an assignable scope of the role.",
				by.Name, by.ObjectID, TypeDefinitions, verb, scope)
		}
	}
	return nil
}

// unassigned refuses while the role is assigned in a way that counts. It reads
// the assignments of the subscriptions where the role can be assigned: roles
// change seldom, and a list kept for this would have to be kept right.
func unassigned(ctx context.Context, r resource.Reader, role *Role, counts func(at arm.ID) bool) error {
	seen := map[string]bool{}
	for _, scope := range role.Assignable {
		sub := resource.SubscriptionID(scope.Subscription())
		if seen[sub.Key()] {
			continue
		}
		seen[sub.Key()] = true
		err := eachDoc(ctx, r, resource.Query{Type: TypeAssignments, Under: sub}, func(doc resource.Doc) error {
			if strings.EqualFold(last(property(&doc, "roleDefinitionId")), role.ID) && counts(doc.ID.Parent()) {
				return ErrRoleAssigned.Detail("There are existing role assignments referencing role (code: RoleDefinitionHasAssignments). One is %s.", doc.ID)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A role's name is the role's alone in its tenant, built-in names included. What
// says so is a document that no caller can reach.
func roleClaim(doc *resource.Doc) (arm.ID, error) {
	tenant, _ := resource.Lookup(doc.Body, "cove.tenant").(string)
	name := hashed(strings.ToLower(tenant + "\n" + strings.TrimSpace(property(doc, "roleName"))))
	return arm.ParseID("/providers/Cove.Names/" + strings.ReplaceAll(TypeDefinitions, "/", ".") + "/" + name)
}

func claimRole(ctx context.Context, tx resource.Tx, doc *resource.Doc) error {
	at, err := roleClaim(doc)
	if err != nil {
		return err
	}
	name := property(doc, "roleName")
	taken := BuiltinByName(strings.TrimSpace(name)) != nil
	if _, err := tx.Get(ctx, at); err == nil {
		taken = true
	} else if !errors.Is(err, resource.ErrUnknown) {
		return err
	}
	if taken {
		return ErrRoleName.Detail("A role definition of the name '%s' already exists in this directory. Use a different name.", clip(name))
	}
	return tx.Put(ctx, &resource.Doc{ID: at, Body: resource.Object{"holder": doc.ID.String()}})
}

func unclaimRole(ctx context.Context, tx resource.Tx, doc *resource.Doc) error {
	at, err := roleClaim(doc)
	if err != nil {
		return err
	}
	return tx.Delete(ctx, at)
}

// eachDoc goes over all documents of a query, a page at a time.
func eachDoc(ctx context.Context, r resource.Reader, q resource.Query, fn func(resource.Doc) error) error {
	q.Limit = 1000
	for {
		docs, err := r.List(ctx, q)
		if err != nil {
			return err
		}
		for _, doc := range docs {
			if err := fn(doc); err != nil {
				return err
			}
			q.After = doc.ID.Key()
		}
		if len(docs) < q.Limit {
			return nil
		}
	}
}
