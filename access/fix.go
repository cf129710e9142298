package access

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cove.example/cove/condition"
	"cove.example/cove/directory"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// Fix is a command that would let the same request through.
type Fix struct {
	Command string `json:"command"`
	Opens   string `json:"opens"` // what else it lets in
	Needs   string `json:"needs"` // the action that whoever types it must hold, and where
	Lasts   string `json:"lasts"` // until when it holds, or how to take it back
	// After is what the same request would get when it has been typed, with
	// everything else as it is now: "ALLOWED", or "DENIED COVE-PERM-002" where
	// something else stands in the way too. "" is not known beforehand.
	After string `json:"after,omitempty"`

	try func(s *Supposition, now *registry.Settings)
	// new says that the command makes a credential, which the client must be
	// given before the request is made again.
	new bool
}

const needsRegistryWrite = "Microsoft.ContainerRegistry/registries/write on "

// fixes are the commands that would let the same request through, the one
// that opens least first.
func (r *record) fixes() []Fix {
	if r.Registry == "" {
		return nil
	}
	switch r.Reason {
	case reason.PublicAccessOff, reason.NoRule:
		return append(r.endpointFix(), r.doorFix()...)
	case reason.NoSubnetRule, reason.NoServiceEndpoint:
		return append(r.subnetFix(), r.endpointFix()...)
	case reason.KindNotServed:
		return r.endpointFix()
	case reason.EndpointNotOpen:
		if r.State != "Pending" && r.State != "Rejected" {
			return nil // what was disconnected must be made again by its owner
		}
		return []Fix{{
			Command: fmt.Sprintf("cove private-endpoint approve %s --registry %s", last(r.Connection), r.Name),
			Opens:   "the registry, to everybody in the private endpoint's network",
			Needs:   "Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action on " + r.Registry,
			Lasts:   fmt.Sprintf("until cove private-endpoint reject %s --registry %s", last(r.Connection), r.Name),
			try:     func(s *Supposition, _ *registry.Settings) { s.Approved = true },
		}}
	case reason.AdminOff:
		return []Fix{r.switched("admin-enabled", "everything in the registry, to whoever knows the admin user's password", func(s *registry.Settings) { s.AdminUser = true })}
	case reason.AnonymousOff:
		return []Fix{r.switched("anonymous-pull-enabled", "everything in the registry for reading, to everybody whom the network rules admit", func(s *registry.Settings) { s.AnonymousPull = true })}
	case reason.WrongCredential, reason.SecretExpired, reason.IdentityGone:
		return r.credentialFix()
	case reason.AudienceRefused:
		return []Fix{r.switched("authentication-as-arm", "signing in to the registry with access tokens for the Resource Manager", func(s *registry.Settings) { s.RegistryAudienceOnly = false })}
	case reason.RateExceeded:
		if r.SKU == "" || r.SKU == "Premium" {
			return nil // there is no larger one
		}
		return []Fix{{
			Command: "cove registry update " + r.Name + " --sku Premium",
			Opens:   "nothing; twice as many requests in a minute, of some kinds four times as many",
			Needs:   needsRegistryWrite + r.Registry, Lasts: "until cove registry update " + r.Name + " --sku " + r.SKU,
		}}
	case reason.ScopeMapTooSmall:
		return r.mapFix()
	case reason.NoRoleForAction, reason.NoRoleHere, reason.ModeIgnoresRole, reason.ConditionNotMet:
		return r.roleFix()
	}
	return nil
}

// switched turns one of the registry's switches on.
func (r *record) switched(flag, opens string, change func(*registry.Settings)) Fix {
	command := "cove registry update " + r.Name + " --" + flag
	return Fix{
		Command: command, Opens: opens, Needs: needsRegistryWrite + r.Registry, Lasts: "until " + command + "=false",
		try: with(change),
	}
}

// credentialFix gives whom the caller claimed to be a credential that works. A
// claim is no proof: what is made goes to whoever types the command.
func (r *record) credentialFix() []Fix {
	switch {
	case r.Claimed == "":
		return nil
	case r.Claimed == r.Name:
		if r.Reason != reason.WrongCredential {
			return nil
		}
		return []Fix{{
			Command: "cove registry credential show " + r.Name,
			Opens:   "nothing; it shows the password to log in with",
			Needs:   "Microsoft.ContainerRegistry/registries/listCredentials/action on " + r.Registry,
			Lasts:   "until the password is made anew",
			try:     func(s *Supposition, _ *registry.Settings) { s.Who = Identity{Kind: KindAdmin} }, new: true,
		}}
	case directory.IsID(r.Claimed):
		if r.Reason == reason.IdentityGone {
			return nil // that it was disabled was somebody's decision
		}
		return []Fix{{
			Command: "cove principal secret add " + r.Claimed,
			Opens:   "what the application may, to whoever is given the secret; its other secrets stay as they are",
			Needs:   "Microsoft.Authorization/roleAssignments/write on the subscription",
			Lasts:   "365 days; --days says otherwise",
			try: func(s *Supposition, _ *registry.Settings) {
				s.Who = Identity{Kind: KindServicePrincipal, Name: r.Claimed}
			}, new: true,
		}}
	}
	of := "cove token password "
	fix := Fix{
		Opens: "what the token's scope map allows, to whoever is given the password; its old passwords end", Lasts: "for ever; --days says otherwise",
		Needs: "Microsoft.ContainerRegistry/registries/generateCredentials/action on " + r.Registry, new: true,
	}
	if r.Reason == reason.IdentityGone {
		of = "cove token update --status enabled "
		fix.Opens, fix.new = "what the token's scope map allows, to whoever has its passwords", false
		fix.Needs = "Microsoft.ContainerRegistry/registries/tokens/write on " + r.Registry
		fix.Lasts = fmt.Sprintf("until cove token update --status disabled %s --registry %s", r.Claimed, r.Name)
	} else {
		fix.try = func(s *Supposition, _ *registry.Settings) { s.Who = Identity{Kind: KindToken, Name: r.Claimed} }
	}
	fix.Command = of + r.Claimed + " --registry " + r.Name
	return []Fix{fix}
}

// mapFix adds what is lacking to a scope map. The registry's own maps cannot be
// changed, and none lets a token list the catalog.
func (r *record) mapFix() []Fix {
	if r.Lacks == nil || r.Lacks.Type != "repository" || r.ScopeMap == "" || strings.HasPrefix(r.ScopeMap, "_") {
		return nil
	}
	action := map[string]string{
		"pull": "content/read", "push": "content/read,content/write", "delete": "content/delete", "metadata_read": "metadata/read", "metadata_write": "metadata/write",
	}[r.Lacks.Action]
	if action == "" {
		return nil
	}
	return []Fix{{
		Command: fmt.Sprintf("cove scope-map add %s --registry %s --allow %s=%s", r.ScopeMap, r.Name, r.Lacks.Name, action),
		Opens:   r.Lacks.words() + ", to every token with the scope map " + r.ScopeMap,
		Needs:   "Microsoft.ContainerRegistry/registries/scopeMaps/write on " + r.Registry,
		Lasts:   "until the scope map is set anew: cove scope-map set",
	}}
}

// doorFix opens the public door to this address. Both settings are in it when
// both stand in the way; a command that leaves the request refused is no fix.
func (r *record) doorFix() []Fix {
	from := r.From.Unmap()
	rule := r.Rule == 0 && !r.DefaultAllow
	// Rules are for IPv4 addresses: a caller inside a virtual network or with
	// another address can be let in by none. Private addresses that are no
	// network's are those of machines beside the server, and are admitted like
	// any.
	if r.At.IsValid() || rule && !from.Is4() {
		return nil
	}
	var commands, undo []string
	opens := "the public door, to every address that the network rules admit"
	if r.Reason == reason.PublicAccessOff {
		commands = append(commands, "cove registry update "+r.Name+" --public-network-enabled true")
		undo = append(undo, "cove registry update "+r.Name+" --public-network-enabled false")
		if r.DefaultAllow {
			opens = "the public door, to every address: the default action is Allow"
		}
	}
	if rule {
		commands = append(commands, "cove network-rule add "+r.Name+" "+from.String())
		undo = append(undo, "cove network-rule remove "+r.Name+" "+from.String())
		if r.Reason == reason.NoRule {
			opens = "the public door, to " + from.String() + " and whoever shares that address"
		}
	}
	return []Fix{{
		Command: strings.Join(commands, " && "), Opens: opens, Needs: needsRegistryWrite + r.Registry, Lasts: "until " + strings.Join(undo, " && "),
		try: with(func(s *registry.Settings) {
			s.PublicAccess = true
			if rule {
				s.IPRules = append(slices.Clip(s.IPRules), netip.PrefixFrom(from, from.BitLen()))
			}
		}),
	}}
}

// with tries a request under settings that change changes.
func with(change func(*registry.Settings)) func(*Supposition, *registry.Settings) {
	return func(s *Supposition, now *registry.Settings) {
		next := *now
		change(&next)
		s.Registry = &next
	}
}

// endpointFix gives a caller inside a network a private endpoint there.
func (r *record) endpointFix() []Fix {
	_, zone, ok := strings.Cut(r.Host, ".")
	if r.Subnet == "" || !ok {
		return nil
	}
	vnet := strings.Split(r.Subnet, "/")
	if len(vnet) < 3 {
		return nil
	}
	in := vnet[len(vnet)-3]
	name := r.Name + "-" + in
	return []Fix{{
		Command: fmt.Sprintf("cove private-endpoint create %s --registry %s --subnet %s/%s --zone privatelink.%s", name, r.Name, in, last(r.Subnet), zone),
		Opens:   "the registry, to everybody in the network " + in,
		Needs:   "Microsoft.Network/privateEndpoints/write, and Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action on " + r.Registry,
		Lasts:   "until cove private-endpoint delete " + name,
		try: func(s *Supposition, now *registry.Settings) {
			s.Endpoint = &network.Endpoint{Registry: now.ID, State: "Approved", Member: "registry"}
		},
	}}
}

// subnetFix names the caller's subnet in the registry's rules. It is not for a
// kind of machine that such a rule would not help.
func (r *record) subnetFix() []Fix {
	parts := strings.Split(r.Subnet, "/")
	if len(parts) < 3 || !slices.Contains([]string{"vm", "aks", "agentpool"}, r.Kind) {
		return nil
	}
	name := parts[len(parts)-3] + "/" + last(r.Subnet)
	command := "cove network-rule add " + r.Name + " --subnet " + name
	if !r.Service {
		command = "cove subnet update " + name + " --service-endpoint && " + command
	}
	return []Fix{{
		Command: command,
		Opens:   "the public door, to the machines in the subnet " + name,
		Needs:   "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action on the subnet, and " + needsRegistryWrite + r.Registry,
		Lasts:   "until cove network-rule remove " + r.Name + " --subnet " + name,
		try: func(s *Supposition, now *registry.Settings) {
			s.Service = true
			with(func(next *registry.Settings) {
				next.Subnets = map[string]int{strings.ToLower(r.Subnet): 1}
			})(s, now)
		},
	}}
}

func (r *record) roleFix() []Fix {
	if !r.Identity.holdsRoles() {
		return nil
	}
	role, opens := r.roleThatAllows()
	known := policy.BuiltinByName(role)
	if known == nil {
		return nil
	}
	fix := Fix{
		Command: fmt.Sprintf("cove role assign %s %s --registry %s", r.Identity.ObjectID, quote(role), r.Name),
		Opens:   opens + ", to " + r.Identity.Name,
		Needs:   "Microsoft.Authorization/roleAssignments/write on " + r.Registry,
		Lasts:   "until the assignment is taken away: cove role list shows its name, cove role remove NAME ends it",
	}
	if r.Reason == reason.ConditionNotMet {
		fix.Lasts = "until the assignment is taken away or its condition set back: where the identity has the role there already, the command widens that assignment; cove role list shows it"
	}
	var when *condition.Condition
	// Where roles are for repositories, the one that was asked for is enough.
	if r.Mode == registry.AbacMode && r.Lacks != nil && r.Lacks.Type == "repository" {
		var err error
		if when, err = condition.Parse(policy.OnlyRepository(r.Lacks.Name)); err != nil {
			return nil
		}
		fix.Command += " --repository " + r.Lacks.Name
		fix.Opens = strings.Replace(fix.Opens, "all of the registry", r.Lacks.Name, 1)
	}
	fix.try = func(s *Supposition, now *registry.Settings) {
		s.Roles = append(slices.Clip(s.Roles), &policy.Assignment{Principal: s.Who.ObjectID, Scope: now.ID, RoleID: known.ID, Role: known, Condition: when})
	}
	return []Fix{fix}
}

// roleThatAllows is the least role that gives what is lacking, and what else it
// opens.
func (r *record) roleThatAllows() (role, opens string) {
	lacks := "pull"
	if r.Lacks != nil {
		lacks = r.Lacks.Action
	}
	if r.Mode == registry.AbacMode {
		switch lacks {
		case "*":
			return "Container Registry Repository Catalog Lister", "the names of all repositories"
		case "push", "metadata_write":
			return "Container Registry Repository Writer", "all of the registry for reading and writing"
		case "delete":
			return "Container Registry Repository Contributor", "all of the registry for reading, writing and deleting"
		}
		return "Container Registry Repository Reader", "all of the registry for reading"
	}
	switch lacks {
	case "push":
		return "AcrPush", "all of the registry for reading and writing"
	case "delete":
		return "AcrDelete", "deleting, anywhere in the registry"
	case "metadata_write":
		return "Contributor", "the registry and its settings"
	}
	return "AcrPull", "all of the registry for reading"
}

// quote is a word for a shell: role names have spaces.
func quote(s string) string {
	if strings.ContainsRune(s, ' ') {
		return "'" + s + "'"
	}
	return s
}

// outlooks says what the same request would get now and after each fix: all of
// it is decided by the guard, as requests are.
func (g *Guard) outlooks(ctx context.Context, s Supposition, now *registry.Settings, out *Explanation) {
	// Of a credential that proved nothing then, nothing is known now.
	if out.Steps[stageSignIn].Outcome != Failed {
		out.Today = outlook(g.Suppose(ctx, s), s.Who)
	}
	var kept []Fix
	for _, f := range out.Fixes {
		if f.try != nil {
			next := s
			f.try(&next, now)
			if next.Who.Kind == KindServicePrincipal && next.Who.ObjectID == "" && !g.known(ctx, now, &next.Who) {
				continue // nobody has that id: the command would make no secret
			}
			f.After = outlook(g.Suppose(ctx, next), next.Who)
			if f.new && f.After == "ALLOWED" {
				f.After += ", with the new credential"
			}
		}
		kept = append(kept, f)
	}
	out.Fixes = kept
}

// known completes an identity of which the application's id is known, and
// reports whether there is one.
func (g *Guard) known(ctx context.Context, of *registry.Settings, who *Identity) bool {
	sub, err := g.Directory.Subscription(ctx, of.ID.Subscription())
	if err != nil {
		return false
	}
	list, err := g.Directory.Objects(ctx, directory.Query{Tenant: sub.Tenant, Kind: directory.ServicePrincipal, AppID: who.Name, Limit: 1})
	if err != nil || len(list) == 0 {
		return false
	}
	*who = identity(list[0].Principal)
	return true
}
