package policy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/condition"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// TypeAssignments is the resource type of role assignments. An assignment is
// a document whose id lies below the scope it applies to; the scope is taken
// from there and never from the body, so that who may write the id and what
// the assignment opens cannot differ.
const TypeAssignments = "Microsoft.Authorization/roleAssignments"

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// TypeDefinitions is the resource type of role definitions.
const TypeDefinitions = "Microsoft.Authorization/roleDefinitions"

// The failures that are particular to role assignments, in Azure's words:
// programs look for them.
var (
	ErrAssigned      = fault.Coded(fault.Conflict, "RoleAssignmentExists", "The role assignment already exists.")
	ErrNotAssigned   = fault.Coded(fault.NotFound, "RoleAssignmentNotFound", "the role assignment was not found")
	ErrNoPrincipal   = fault.Coded(fault.Invalid, "PrincipalNotFound", "the principal does not exist in the directory")
	ErrPrincipalType = fault.Coded(fault.Invalid, "UnmatchedPrincipalType", "the principal is of another type")
	ErrLastAdmin     = fault.Coded(fault.Stale, "CannotDeleteLastRbacAdminAssignment", "Cannot delete the last RBAC admin assignment")
)

// TypeOf says what a principal is: User, Group or ServicePrincipal. Its error
// for one that the directory does not have is fault.NotFound.
type TypeOf func(ctx context.Context, objectID string) (string, error)

// Assignments is the resource type for the control plane.
func Assignments(typeOf TypeOf) resource.Type {
	return resource.Type{
		Name:      TypeAssignments,
		Missing:   ErrNotAssigned,
		Extension: true,
		Prepare: func(ctx context.Context, id arm.ID, body resource.Object) error {
			return prepareAssignment(ctx, typeOf, id, body)
		},
		Put: putAssignment,
		Delete: func(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
			if err := keepsAdmin(ctx, tx, doc); err != nil {
				return err
			}
			return unclaim(ctx, tx, &doc)
		},
		CheckName: func(name string) string {
			if !guid.MatchString(name) {
				return "the name of a role assignment is a GUID"
			}
			return ""
		},
		ReadOnly: []string{
			"properties.scope", "properties.createdOn", "properties.createdBy",
			"properties.updatedOn", "properties.updatedBy",
		},
		Check: checkAssignment,
		Show: func(_ context.Context, _ resource.Reader, doc resource.Doc, body resource.Object) error {
			if p, ok := body["properties"].(resource.Object); ok {
				p["scope"] = doc.ID.Parent().String()
			}
			return nil
		},
	}
}

// putAssignment looks at the role where it is a custom one, which can change or
// go at any time before this transaction, and notes who did what when.
func putAssignment(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	p, _ := c.New.Body["properties"].(resource.Object)
	name := last(property(c.New, "roleDefinitionId"))
	if BuiltinByID(name) == nil {
		role, err := readRole(ctx, tx, name)
		if err != nil && !errors.Is(err, resource.ErrUnknown) {
			return err
		}
		if role == nil || !role.assignableAt(c.New.ID.Parent()) {
			return fault.Problems([]fault.Field{noSuchRole(p["roleDefinitionId"])})
		}
		if err := fault.Problems(conditionFits(c.New, role)); err != nil {
			return err
		}
	}
	stamp := []string{"updated"}
	switch {
	case c.Old == nil:
		stamp = []string{"created", "updated"}
	case property(c.Old, "condition") == property(c.New, "condition") && property(c.Old, "description") == property(c.New, "description"):
		return nil
	}
	for _, name := range stamp {
		p[name+"On"], p[name+"By"] = c.Now.UTC().Format(time.RFC3339Nano), c.Caller.ObjectID
	}
	if c.Old != nil {
		return nil
	}
	return claim(ctx, tx, c.New)
}

func noSuchRole(id any) fault.Field {
	text, _ := id.(string)
	return fault.Field{Path: "properties.roleDefinitionId", Message: fmt.Sprintf("no role definition that can be assigned here has the id %q", clip(text))}
}

// actionAssign is what it takes to give out roles.
const actionAssign = TypeAssignments + "/write"

// administers reports whether an assignment lets somebody give out roles in all
// of a subscription, for good: not under a condition, and not by a custom role,
// which may say something else tomorrow.
func administers(doc resource.Doc) bool {
	a, err := FromDoc(doc)
	return err == nil && strings.EqualFold(a.Scope.Type(), resource.TypeSubscription) && a.Condition == nil && a.Role != nil && a.Role.Allows(actionAssign)
}

// keepsAdmin refuses to take the last such assignment of a subscription away,
// as Azure does: nobody could make another, and since whoever writes the
// directory must be one of them everywhere, that would be over as well.
func keepsAdmin(ctx context.Context, r resource.Reader, doc resource.Doc) error {
	if !administers(doc) {
		return nil
	}
	err := eachDoc(ctx, r, resource.Query{Type: TypeAssignments, Under: doc.ID.Parent()}, func(other resource.Doc) error {
		if !other.ID.Equal(doc.ID) && administers(other) {
			return errAnother
		}
		return nil
	})
	switch {
	case errors.Is(err, errAnother):
		return nil
	case err != nil:
		return err
	}
	return ErrLastAdmin
}

// errAnother ends a search that has found one.
var errAnother = errors.New("policy: there is another")

// prepareAssignment asks the directory who the principal is and gives the body
// the spellings that it is compared by.
func prepareAssignment(ctx context.Context, typeOf TypeOf, id arm.ID, body resource.Object) error {
	p, _ := body["properties"].(resource.Object)
	principal, _ := p["principalId"].(string)
	role, _ := p["roleDefinitionId"].(string)
	if sub := id.Subscription(); sub != "" && guid.MatchString(last(role)) {
		p["roleDefinitionId"] = DefinitionID(sub, last(role))
	}
	if !guid.MatchString(principal) {
		return nil // which Check says
	}
	principal = strings.ToLower(principal)
	kind, err := typeOf(ctx, principal)
	if fault.Is(err, fault.NotFound) {
		return fault.At("properties.principalId", ErrNoPrincipal.Detail("Principal %s does not exist in the directory. Check that you have the correct principal ID: a service principal's object id, which is not its client id and not its application's.", principal))
	}
	if err != nil {
		return err
	}
	if given, _ := p["principalType"].(string); given != "" && !strings.EqualFold(given, kind) {
		return fault.At("properties.principalType", ErrPrincipalType.Detail("The PrincipalId '%s' has type '%s', which is different from specified PrincipalType '%s'.", principal, kind, clip(given)))
	}
	p["principalId"], p["principalType"] = principal, kind
	return nil
}

// DefinitionID is the id of a role definition as a subscription shows it.
func DefinitionID(subscription, role string) string {
	return "/subscriptions/" + subscription + "/providers/" + TypeDefinitions + "/" + strings.ToLower(role)
}

// A claim is a document that no caller can reach, named by what an assignment
// says: of two assignments that say the same the second finds it.
func claimOf(doc *resource.Doc) (arm.ID, error) {
	name := nameFor(property(doc, "principalId"), last(property(doc, "roleDefinitionId")), doc.ID.Parent())
	return arm.ParseID("/providers/Cove.Names/" + strings.ReplaceAll(TypeAssignments, "/", ".") + "/" + name)
}

func claim(ctx context.Context, tx resource.Tx, doc *resource.Doc) error {
	at, err := claimOf(doc)
	if err != nil {
		return err
	}
	held, err := tx.Get(ctx, at)
	switch {
	case err == nil:
		holder, _ := held.Body["holder"].(string)
		return ErrAssigned.Detail("The role assignment already exists. The ID of the existing role assignment is %s.", last(holder))
	case !errors.Is(err, resource.ErrUnknown):
		return err
	}
	return tx.Put(ctx, &resource.Doc{ID: at, Body: resource.Object{"holder": doc.ID.String()}})
}

func unclaim(ctx context.Context, tx resource.Tx, doc *resource.Doc) error {
	at, err := claimOf(doc)
	if err != nil {
		return err
	}
	return tx.Delete(ctx, at)
}

func checkAssignment(c *resource.Change) []fault.Field {
	var out []fault.Field
	bad := func(path, message string) { out = append(out, fault.Field{Path: path, Message: message}) }
	if c.New.ID.Parent().Subscription() == "" {
		bad("id", "a role is assigned at a subscription, a resource group or a resource")
	}
	role := property(c.New, "roleDefinitionId")
	if !guid.MatchString(last(role)) {
		out = append(out, noSuchRole(role))
	}
	principal := property(c.New, "principalId")
	if !guid.MatchString(principal) {
		bad("properties.principalId", "must be the object id of a principal, a GUID")
	}
	out = append(out, checkCondition(c.New)...)
	if builtin := BuiltinByID(last(role)); builtin != nil {
		out = append(out, conditionFits(c.New, builtin)...)
	}
	if c.Old != nil {
		if property(c.Old, "principalType") != property(c.New, "principalType") {
			bad("properties.principalType", "follows from the principal")
		}
		if !strings.EqualFold(last(property(c.Old, "roleDefinitionId")), last(role)) || !strings.EqualFold(property(c.Old, "principalId"), principal) {
			bad("properties", "the role and the principal of an assignment cannot be changed; delete it and make another")
		}
	}
	return out
}

// errMalformed is the failure of FromDoc.
var errMalformed = errors.New("policy: malformed role assignment")

// FromDoc reads an assignment from its document. Its Role is nil where it is a
// custom one, which is another document.
func FromDoc(doc resource.Doc) (*Assignment, error) {
	role := strings.ToLower(last(property(&doc, "roleDefinitionId")))
	a := &Assignment{
		ID:        doc.ID,
		Principal: strings.ToLower(property(&doc, "principalId")),
		Scope:     doc.ID.Parent(),
		RoleID:    role,
		Role:      BuiltinByID(role),
	}
	// A zero scope would be above everything: it is never a value that was
	// merely missing.
	if !guid.MatchString(role) || a.Scope.Subscription() == "" || !guid.MatchString(a.Principal) {
		return nil, fmt.Errorf("%w: %s", errMalformed, doc.ID)
	}
	p, _ := doc.Body["properties"].(resource.Object)
	if v, has := p["condition"]; has {
		// What is not a condition that can be read must not become none.
		text, _ := v.(string)
		var err error
		if a.Condition, err = condition.Parse(text); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errMalformed, doc.ID, err)
		}
	}
	return a, nil
}

// Grant assigns a role to a service principal at a scope. Granting what is
// granted already changes nothing.
func Grant(ctx context.Context, docs resource.Store, principal, role string, scope arm.ID) error {
	if BuiltinByID(role) == nil || !guid.MatchString(principal) || scope.Subscription() == "" {
		return fmt.Errorf("policy: grant %s to %s at %s: not a role, a principal and a scope", role, principal, scope)
	}
	id, err := arm.ParseID(scope.String() + "/providers/" + TypeAssignments + "/" + nameFor(principal, role, scope))
	if err != nil {
		return err
	}
	return docs.Update(ctx, func(tx resource.Tx) error {
		if _, err := tx.Get(ctx, id); !errors.Is(err, resource.ErrUnknown) {
			return err
		}
		doc := &resource.Doc{ID: id, Body: resource.Object{"properties": resource.Object{
			"roleDefinitionId": DefinitionID(scope.Subscription(), role),
			"principalId":      strings.ToLower(principal),
			"principalType":    "ServicePrincipal",
		}}}
		if err := claim(ctx, tx, doc); err != nil && !errors.Is(err, ErrAssigned) {
			return err
		}
		return tx.Put(ctx, doc)
	})
}

// nameFor derives the GUID of an assignment from what it says, so that two
// nodes that grant the same thing write the same document.
func nameFor(principal, role string, scope arm.ID) string {
	return hashed(strings.ToLower(principal+"\n"+role) + "\n" + scope.Key())
}

// hashed is a text's hash as a GUID.
func hashed(text string) string {
	h := sha256.Sum256([]byte(text))
	h[6] = h[6]&0x0f | 0x80 // RFC 9562, version 8: a value of our own making
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

func property(d *resource.Doc, name string) string {
	p, _ := d.Body["properties"].(resource.Object)
	s, _ := p[name].(string)
	return s
}

func last(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
