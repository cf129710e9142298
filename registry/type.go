package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// The resource types of registries.
const (
	TypeName       = "Microsoft.ContainerRegistry/registries"
	TypeConnection = TypeName + "/privateEndpointConnections"
)

// The SKUs.
const (
	Basic    = "Basic"
	Standard = "Standard"
	Premium  = "Premium"
)

// The permission modes of a registry, which say what decides about its
// content. A credential is bound to the mode it was issued in.
const (
	LegacyMode = "LegacyRegistryPermissions" // Actions of roles, everywhere in the registry
	AbacMode   = "AbacRepositoryPermissions" // DataActions of roles, with conditions
)

// mode is a registry's permission mode. A document that was written before
// there was a second one says nothing, or says Legacy.
func mode(doc resource.Doc) string {
	if v, _ := resource.Lookup(doc.Body, pathMode).(string); v == AbacMode {
		return AbacMode
	}
	return LegacyMode
}

// DropTask is the kind of the task that deletes the content of a registry that
// has been deleted. Its body is a Drop.
const DropTask = "content.drop"

// Drop says whose content is to go.
type Drop struct {
	UID string `json:"uid"`
}

// Config is what registries of a deployment have in common.
type Config struct {
	// Suffix is what login servers end in, without a leading dot:
	// cr.cove.internal.
	Suffix string
	// Aliases are further hosts of registries, by the registry's lower-case
	// name.
	Aliases map[string][]string
	// DefaultPublicAccess is publicNetworkAccess of a new registry that does
	// not say: "" is Enabled, as Azure has it.
	DefaultPublicAccess string
	// EndpointLimits are how many private endpoints single registries may
	// have, by lower-case name, where it is not what their age says.
	EndpointLimits map[string]int
	// Sealer keeps admin passwords unreadable in the database.
	Sealer Sealer
	// Now is the clock by which passwords of tokens are made; nil is time.Now.
	Now func() time.Time
	// Size is how many bytes the content of a registry takes, by UID.
	Size func(ctx context.Context, uid string) (int64, error)
	// Tagged reports whether a repository of a registry, by UID, has a tag.
	Tagged func(ctx context.Context, uid string, repo oci.Repo, tag oci.Tag) (bool, error)
	// Room fails with oci.ErrDisallowed where a registry, by UID and SKU, may
	// hold no more; nil is no limit.
	Room func(ctx context.Context, uid, sku string) error
	// RegionsChanged runs in the transaction that adds a region to a registry
	// or takes one away, when the registry has been written.
	RegionsChanged func(ctx context.Context, tx resource.Tx, reg resource.Doc, by resource.Caller) error
}

// Paths of properties, below the body of a registry's document.
const (
	pathLoginServer  = "properties.loginServer"
	pathCreated      = "properties.creationDate"
	pathDataHosts    = "properties.dataEndpointHostNames"
	pathConnections  = "properties.privateEndpointConnections"
	pathPublic       = "properties.publicNetworkAccess"
	pathAdmin        = "properties.adminUserEnabled"
	pathAnonymous    = "properties.anonymousPullEnabled"
	pathDataEndpoint = "properties.dataEndpointEnabled"
	pathMode         = "properties.roleAssignmentMode"
	pathARMTokens    = "properties.policies.azureADAuthenticationAsArmPolicy.status"
	pathDefault      = "properties.networkRuleSet.defaultAction"
	pathIPRules      = "properties.networkRuleSet.ipRules"
	// The rest is cove's own: how often the mode was switched, sealed passwords,
	// and whether the registry has ever had a private endpoint.
	pathModes       = "cove.modes"
	pathPasswords   = "cove.passwords"
	pathEverPrivate = "cove.everPrivate"
	pathAsked       = "cove.asked" // for a private endpoint, by anybody
)

// reserved are the names under which a deployment itself answers.
var reserved = []string{"privatelink", "management", "login", "graph", "logs", "portal"}

// CheckName says what is wrong with the name of a registry.
func CheckName(name string) string {
	if len(name) < 5 || len(name) > 50 || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		return "must be 5 to 50 letters and digits"
	}
	if slices.Contains(reserved, strings.ToLower(name)) {
		return "is reserved"
	}
	return ""
}

// Type is the row for registries in the table of resource types.
func Type(c Config) resource.Type {
	return resource.Type{
		Name:      TypeName,
		ReadOnly:  []string{pathLoginServer, pathCreated, pathDataHosts, pathRegionalHosts, pathRetentionUpdated, pathConnections, "properties.status", "sku.tier", "cove"},
		Secret:    []string{"cove"},
		Unique:    true,
		CheckName: CheckName,
		Located:   true,
		Check:     c.check,
		Put:       c.put,
		Delete:    c.delete,
		Show:      c.show,
		Actions:   map[string]resource.Action{"listCredentials": c.listCredentials, "regenerateCredential": c.regenerateCredential, "generateCredentials": c.generateCredentials},
		Long:      map[string]resource.Long{"importImage": c.importImage},
		Computed:  map[string]resource.Computed{"listUsages": c.usages, "privateLinkResources": c.linkResources},
	}
}

// put fills in what the registry computes.
func (c Config) put(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	doc := ch.New
	host := c.host(doc.ID.Name())
	if ch.Old != nil && EverPrivate(*ch.Old) {
		if err := whilePrivate(ctx, tx, doc); err != nil {
			return err
		}
	}
	if err := c.putSubnetRules(ctx, tx, ch); err != nil {
		return err
	}
	resource.Assign(doc.Body, pathLoginServer, host)
	if ch.Old != nil && mode(*ch.Old) != mode(*doc) {
		before, _ := resource.Lookup(doc.Body, pathModes).(string)
		n, _ := strconv.Atoi(before) // "" is none
		resource.Assign(doc.Body, pathModes, strconv.Itoa(n+1))
	}
	if ch.Old == nil {
		resource.Assign(doc.Body, pathCreated, ch.Now.UTC().Format(time.RFC3339Nano))
	}
	if sku, _ := resource.Lookup(doc.Body, "sku.name").(string); sku != Premium && len(regions(doc)) > 1 {
		return fault.Problems([]fault.Field{{Path: "sku.name", Message: "the registry has replications, which need Premium"}})
	}
	if err := fewEnough(ctx, tx, ch); err != nil {
		return err
	}
	c.nameHosts(doc)
	if err := errors.Join(c.regionalChanged(ctx, tx, ch), c.putRetention(ctx, tx, ch)); err != nil {
		return err
	}
	if on, _ := resource.Lookup(doc.Body, pathAdmin).(bool); on && resource.Lookup(doc.Body, pathPasswords) == nil {
		return c.newPasswords(doc, passwordNames...)
	}
	return nil
}

// whilePrivate refuses to take from under private endpoints what they need.
func whilePrivate(ctx context.Context, r resource.Reader, doc *resource.Doc) error {
	all, err := r.List(ctx, resource.Query{Type: TypeConnection, Under: doc.ID})
	if err != nil || len(all) == 0 {
		return err
	}
	var problems []fault.Field
	if resource.Lookup(doc.Body, "sku.name") != Premium {
		problems = append(problems, fault.Field{Path: "sku.name", Message: "the registry has private endpoint connections, which need Premium"})
	}
	if resource.Lookup(doc.Body, pathDataEndpoint) != true && approved(all) > 0 {
		problems = append(problems, fault.Field{Path: pathDataEndpoint, Message: "must be true while the registry has private endpoint connections"})
	}
	return fault.Problems(problems)
}

// approved is how many private endpoint connections the registry's owner, or
// somebody who may, has approved. Anybody can ask for one, so one that is not
// approved counts for nothing.
func approved(connections []resource.Doc) (n int) {
	for _, d := range connections {
		if resource.Lookup(d.Body, "properties.privateLinkServiceConnectionState.status") == "Approved" {
			n++
		}
	}
	return n
}

func (c Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c Config) host(name string) string { return strings.ToLower(name) + "." + c.Suffix }

// delete leaves the content to a task: it may be terabytes, and the name is
// free at once since content belongs to the UID.
func (c Config) delete(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	body, err := json.Marshal(Drop{UID: doc.UID})
	if err != nil {
		return fmt.Errorf("encode the task that drops content: %w", err)
	}
	return tx.Enqueue(ctx, task.New{Kind: DropTask, Key: doc.UID, Body: body})
}

// show adds the names that the registry has now, since the deployment may have
// been given another suffix, and the private endpoint connections, which are
// documents of their own. A registry for which nobody ever asked for one costs
// no second read.
func (c Config) show(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	list, open := []any{}, 0
	if asked, _ := resource.Lookup(doc.Body, pathAsked).(bool); asked || EverPrivate(doc) {
		docs, err := r.List(ctx, resource.Query{Type: TypeConnection, Under: doc.ID})
		if err != nil {
			return err
		}
		open = approved(docs)
		for _, d := range docs {
			one := resource.Clone(d.Body)
			one["id"], one["name"], one["type"] = d.ID.String(), d.ID.Name(), TypeConnection
			resource.Assign(one, "properties.provisioningState", "Succeeded")
			list = append(list, one)
		}
	}
	resource.Assign(body, pathConnections, list)
	bothWays(body, open, doc.Changed.UTC().Format("2006-01-02T15:04:05Z"))
	resource.Assign(body, pathLoginServer, c.host(doc.ID.Name()))
	resource.Assign(body, pathDataHosts, c.shownDataHosts(&doc))
	resource.Assign(body, pathRegionalHosts, c.shownRegionalHosts(&doc))
	return nil
}

// EverPrivate reports whether a registry has or had a private endpoint that was
// approved.
func EverPrivate(doc resource.Doc) bool {
	yes, _ := resource.Lookup(doc.Body, pathEverPrivate).(bool)
	return yes
}

// AskPrivate is called for a registry's document when somebody asks for a
// private endpoint to it that waits for approval, and reports whether it changed
// the document, which the caller then puts. Nothing else changes by that: who
// asks may be a stranger.
func (c Config) AskPrivate(doc *resource.Doc) bool {
	asked, _ := resource.Lookup(doc.Body, pathAsked).(bool)
	resource.Assign(doc.Body, pathAsked, true)
	return !asked
}

// MakePrivate is called for a registry's document when a private endpoint to it
// is approved, and reports whether it changed the document, which the caller then
// puts. From then on public DNS keeps the privatelink label, and blobs are
// answered by data hosts, which have addresses in the network too. It fails
// where the SKU has no private endpoints.
func (c Config) MakePrivate(doc *resource.Doc) (bool, error) {
	if sku, _ := resource.Lookup(doc.Body, "sku.name").(string); sku != Premium {
		return false, ErrSKU.Detail("The registry %s is of SKU %s; private endpoints need Premium.", doc.ID.Name(), sku)
	}
	on, _ := resource.Lookup(doc.Body, pathDataEndpoint).(bool)
	if on && EverPrivate(*doc) {
		return false, nil
	}
	resource.Assign(doc.Body, pathEverPrivate, true)
	resource.Assign(doc.Body, pathDataEndpoint, true)
	c.nameHosts(doc)
	return true, nil
}

// ErrSKU is the failure of asking a registry for what its SKU does not have.
var ErrSKU = fault.Coded(fault.Invalid, "SkuNotSupported", "the registry's SKU does not have this")
