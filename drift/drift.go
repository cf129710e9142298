// Package drift looks at what a deployment holds and finds what fails now
// without anybody having noticed, or will fail, and when: names against
// private endpoints, links of endpoints that are gone, connections that wait,
// rules and roles without effect, credentials and certificates that end.
//
// It asks the same views and settings that requests are answered from.
package drift

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/zone"
)

// Finding is one thing that is wrong or will be.
type Finding struct {
	Code     reason.Code `json:"code"`
	Resource arm.ID      `json:"-"`       // whoever may read it may know
	ID       string      `json:"id"`      // of the resource
	Says     string      `json:"says"`    // what was found, with its values
	Title    string      `json:"title"`   // the code's
	Breaks   time.Time   `json:"breaks"`  // when it fails; the time of the look where it does already
	Now      bool        `json:"now"`     // it fails already
	Cure     string      `json:"cure"`    // a command, or what to do
	Command  bool        `json:"command"` // Cure is a command
}

// Credential is something that somebody signs in with and that ends.
type Credential struct {
	Holder arm.ID // the resource it belongs to, or the subscription
	Name   string // "the secret ci-2026 of the application deploy"
	Ends   time.Time
	Cure   string
}

// Certificate is one that the server serves.
type Certificate struct {
	Names []string
	Ends  time.Time
}

// Watch knows where to look.
type Watch struct {
	Store        resource.Store
	Networks     *network.Map
	Zones        *zone.Views
	Registries   *registry.Directory
	Roles        *policy.Roles
	Suffix       string // of registries
	Subscription arm.ID // who may read it learns of certificates
	Credentials  func(ctx context.Context) ([]Credential, error)
	Certificates func() []Certificate
	// Room is how many bytes the data folder's disk has free, and in all; nil is
	// not known.
	Room func() (free, all uint64, err error)
	// Attached finds what is wrong with the ways in which networks exist.
	Attached func() []Finding
	// Elsewhere reports whether the machines of a network (arm.ID.Key) ask
	// others for names, so that what our zones say does not matter there.
	Elsewhere func(network string) bool
	Now       func() time.Time
}

// How long before its end something is told of: long enough for somebody who
// looks once a week, and not so long that it is part of the furniture.
const (
	credentialNotice  = 14 * 24 * time.Hour
	certificateNotice = 30 * 24 * time.Hour
)

// held is what one look has read.
type held struct {
	endpoints  []resource.Doc
	registries []resource.Doc
	links      []resource.Doc
	zones      []resource.Doc
	roles      []resource.Doc // assignments
	subnets    []resource.Doc
	networks   []resource.Doc
}

// Look finds everything there is to find, in an order that stays the same.
func (w *Watch) Look(ctx context.Context) ([]Finding, error) {
	var h held
	err := w.Store.View(ctx, func(r resource.Reader) (err error) {
		h = held{}
		for typ, into := range map[string]*[]resource.Doc{
			network.TypeEndpoint: &h.endpoints, registry.TypeName: &h.registries, zone.TypeLink: &h.links, zone.TypeZone: &h.zones,
			policy.TypeAssignments: &h.roles, network.TypeSubnet: &h.subnets, network.TypeVirtualNetwork: &h.networks,
		} {
			if *into, err = r.List(ctx, resource.Query{Type: typ}); err != nil {
				return fmt.Errorf("list %s: %w", typ, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := w.names(ctx, h)
	found = append(found, w.links(ctx, h)...)
	found = append(found, w.waiting(h)...)
	found = append(found, w.behind()...)
	for _, doc := range h.registries {
		s, err := w.Registries.ByName(ctx, doc.ID.Name())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", doc.ID, err)
		}
		if s == nil {
			continue
		}
		found = append(found, w.rules(s)...)
		found = append(found, w.inside(s, h)...)
		found = append(found, deaf(s, h)...)
		found = append(found, w.mixed(s, h)...)
		idle, err := w.roles(ctx, s, h)
		if err != nil {
			return nil, err
		}
		found = append(found, idle...)
	}
	if w.Credentials != nil {
		all, err := w.Credentials(ctx)
		if err != nil {
			return nil, fmt.Errorf("list credentials: %w", err)
		}
		found = append(found, w.ending(all)...)
	}
	if w.Attached != nil {
		found = append(found, w.Attached()...)
	}
	if w.Room != nil {
		free, all, err := w.Room()
		if err != nil {
			return nil, fmt.Errorf("ask for the disk's space: %w", err)
		}
		if little(free, all) {
			found = append(found, Finding{
				Code: reason.DiskFills, Resource: w.Subscription,
				Says: fmt.Sprintf("the disk of the data folder has %d MiB left of %d", free>>20, all>>20),
			})
		}
	}
	if w.Certificates != nil {
		found = append(found, w.certificates(w.Certificates())...)
	}
	for i := range found {
		m, _ := reason.Of(string(found[i].Code))
		found[i].ID, found[i].Title = found[i].Resource.String(), m.Title
		found[i].Command = strings.HasPrefix(found[i].Cure, "cove ")
		if found[i].Cure == "" {
			found[i].Cure = m.Next
		}
		if found[i].Breaks.IsZero() {
			found[i].Breaks, found[i].Now = w.Now().UTC(), true
		}
	}
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(a.Breaks.Compare(b.Breaks), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Says, b.Says))
	})
	return found, nil
}

// little says that what is free will not last: a twentieth of a small disk, or
// what a few pushes of large images take of any.
func little(free, all uint64) bool { return free < min(all/20, 1<<30) }

// networkOf is the network that a private endpoint lies in.
func networkOf(endpoint resource.Doc) arm.ID {
	text, _ := resource.Lookup(endpoint.Body, "properties.subnet.id").(string)
	id, err := arm.ParseID(text)
	if err != nil {
		return arm.ID{}
	}
	return id.Parent()
}

// names asks, in the network of each approved endpoint, for each of its names,
// and compares the answer with the address that the endpoint holds.
func (w *Watch) names(ctx context.Context, h held) (found []Finding) {
	for _, doc := range h.endpoints {
		in := networkOf(doc)
		if w.Elsewhere != nil && w.Elsewhere(in.Key()) {
			continue
		}
		view := w.Zones.Of(in.Key())
		for _, e := range w.Networks.Endpoints(in.Key()) {
			if !e.ID.Equal(doc.ID) || e.State != "Approved" {
				continue
			}
			for _, name := range e.FQDNs {
				if f, ok := judge(name, e, view.Answer(ctx, name, zone.TypeA), in.Name()); ok {
					if f.Code == reason.NamePublic || f.Code == reason.DataNamePublic {
						f.Cure = w.lead(h, in) + f.Cure
					}
					found = append(found, f)
				}
			}
		}
	}
	return w.clashes(found, h)
}

// behind tells of members that joined too early to know the way to all private
// endpoints of today.
func (w *Watch) behind() (found []Finding) {
	const named = 5
	for _, network := range w.Networks.Networks() {
		list := w.Networks.Behind(network)
		if len(list) == 0 {
			continue
		}
		var names, lacks []string
		for _, b := range list {
			names = append(names, b.ID.Name())
			for _, p := range b.Lacks {
				if !slices.Contains(lacks, p.String()) {
					lacks = append(lacks, p.String())
				}
			}
		}
		more := ""
		if len(names) > named {
			more = fmt.Sprintf(" and %d more", len(names)-named)
			names = names[:named]
		}
		in := list[0].Subnet.Parent()
		found = append(found, Finding{
			Code: reason.MembersBehind, Resource: in,
			Says: fmt.Sprintf("members of %s have no route to the private endpoints in %s: %s%s", in.Name(), strings.Join(lacks, ", "), strings.Join(names, ", "), more),
		})
	}
	return found
}

// lead is what must be done before the zone's records can lead a network to its
// private endpoints: there is a zone, and it is linked.
func (w *Watch) lead(h held, in arm.ID) string {
	apex := "privatelink." + w.Suffix
	named := func(id arm.ID) bool { return strings.EqualFold(id.Name(), apex) }
	link := "cove dns link add " + apex + " --vnet " + in.Name() + " && "
	switch {
	case !slices.ContainsFunc(h.zones, func(d resource.Doc) bool { return named(d.ID) }):
		return "cove dns zone create " + apex + " && " + link
	case !slices.ContainsFunc(h.links, func(d resource.Doc) bool {
		to, _ := resource.Lookup(d.Body, "properties.virtualNetwork.id").(string)
		return named(d.ID.Parent()) && strings.EqualFold(to, in.String())
	}):
		return link
	}
	return ""
}

// judge compares what a name leads to with the address that an endpoint holds
// for it.
func judge(name string, e *network.Endpoint, a zone.Answer, in string) (Finding, bool) {
	f := Finding{Resource: e.ID, Cure: "cove dns record sync --private-endpoint " + e.ID.Name()}
	data := e.Member != "registry"
	var got []string
	right := false
	for _, r := range a.Records {
		if r.Type == zone.TypeA {
			got = append(got, r.Addr.String())
			right = right || r.Addr == e.Address
		}
	}
	if right && len(got) == 1 {
		return Finding{}, false
	}
	holds := fmt.Sprintf("%s holds %s for it", e.ID.Name(), e.Address)
	private := strings.Contains(a.Why(), "linked zone")
	switch {
	case a.Rcode == zone.NXDomain && private, len(got) == 0 && private:
		f.Code, f.Says = reason.PrivateNoRecord, fmt.Sprintf("in %s, %s does not exist: %s; %s", in, name, a.Why(), holds)
	case len(got) == 0:
		return Finding{}, false // the public side's own matter
	case private:
		f.Code, f.Says = reason.NameElsewhere, fmt.Sprintf("in %s, %s leads to %s; %s", in, name, strings.Join(got, ", "), holds)
	default:
		f.Code, f.Says = reason.NamePublic, fmt.Sprintf("in %s, %s leads to the public address; %s", in, name, holds)
		if data {
			f.Code = reason.DataNamePublic
		}
	}
	return f, true
}

// clashes renames what was found where the address that a name leads to is
// another endpoint's of the same registry: a sync would only move the trouble.
func (w *Watch) clashes(found []Finding, h held) []Finding {
	holders := map[netip.Addr]arm.ID{}
	for _, doc := range h.endpoints {
		for _, e := range w.Networks.Endpoints(networkOf(doc).Key()) {
			if e.ID.Equal(doc.ID) {
				holders[e.Address] = e.ID
			}
		}
	}
	for i, f := range found {
		if f.Code != reason.NameElsewhere {
			continue
		}
		for addr, id := range holders {
			if !id.Equal(f.Resource) && strings.Contains(f.Says, "leads to "+addr.String()+";") {
				found[i].Code, found[i].Cure = reason.EndpointClash, ""
				found[i].Says += ", and that is " + id.Name() + "'s"
			}
		}
	}
	return found
}

// links finds networks in which a linked zone hides a registry that has no
// private endpoint there.
func (w *Watch) links(ctx context.Context, h held) (found []Finding) {
	apex := "privatelink." + w.Suffix
	for _, link := range h.links {
		if !strings.EqualFold(link.ID.Parent().Name(), apex) {
			continue
		}
		text, _ := resource.Lookup(link.Body, "properties.virtualNetwork.id").(string)
		in, err := arm.ParseID(text)
		if err != nil {
			continue
		}
		served := map[string]bool{}
		for _, e := range w.Networks.Endpoints(in.Key()) {
			served[e.Registry.Key()] = true
		}
		view := w.Zones.Of(in.Key())
		for _, doc := range h.registries {
			s, err := w.Registries.ByName(ctx, doc.ID.Name())
			if err != nil || s == nil || !s.EverPrivate || served[s.ID.Key()] {
				continue
			}
			if a := view.Answer(ctx, s.Host, zone.TypeA); a.Rcode == zone.NXDomain {
				found = append(found, Finding{
					Code: reason.StaleLink, Resource: link.ID,
					Says: fmt.Sprintf("in %s, %s does not exist: %s, and no private endpoint of %s lies there", in.Name(), s.Host, a.Why(), s.Name),
					Cure: unhide(h, s, in, apex, link.ID.Name(), len(served) > 0),
				})
			}
		}
	}
	return found
}

// unhide is what ends it that a link hides a registry from a network. Where
// other registries have private endpoints there the link is theirs: without it
// their names lead to the public door.
func unhide(h held, s *registry.Settings, in arm.ID, apex, link string, shared bool) string {
	if !shared {
		return fmt.Sprintf("cove dns link remove %s %s", apex, link)
	}
	name, subnet := s.Name+"-"+in.Name(), ""
	for _, doc := range h.endpoints {
		if strings.EqualFold(doc.ID.Name(), name) {
			return ""
		}
		if text, _ := resource.Lookup(doc.Body, "properties.subnet.id").(string); subnet == "" && networkOf(doc).Equal(in) {
			subnet = text[strings.LastIndexByte(text, '/')+1:]
		}
	}
	return fmt.Sprintf("cove private-endpoint create %s --registry %s --subnet %s/%s --zone %s", name, s.Name, in.Name(), subnet, apex)
}

// waiting finds endpoints that carry nothing because of their connection.
func (w *Watch) waiting(h held) (found []Finding) {
	for _, doc := range h.endpoints {
		var state string
		var target arm.ID
		for _, e := range w.Networks.Endpoints(networkOf(doc).Key()) {
			if e.ID.Equal(doc.ID) {
				state, target = e.State, e.Registry
			}
		}
		f := Finding{Resource: doc.ID}
		switch state {
		case "Pending":
			f.Code = reason.WaitsForOwner
			f.Says = fmt.Sprintf("%s has asked %s and has no answer yet", doc.ID.Name(), target.Name())
			f.Cure = fmt.Sprintf("cove private-endpoint approve %s --registry %s", doc.ID.Name(), target.Name())
		case "Rejected":
			f.Code, f.Says = reason.EndpointRejected, fmt.Sprintf("%s was rejected by the owner of %s", doc.ID.Name(), target.Name())
			f.Cure = fmt.Sprintf("cove private-endpoint approve %s --registry %s", doc.ID.Name(), target.Name())
		case "Disconnected":
			f.Code, f.Says = reason.EndpointDead, fmt.Sprintf("%s is cut off from %s for good", doc.ID.Name(), target.Name())
			f.Cure = "cove private-endpoint delete " + doc.ID.Name()
		default:
			continue
		}
		found = append(found, f)
	}
	return found
}

// rules finds address rules without effect.
func (w *Watch) rules(s *registry.Settings) (found []Finding) {
	if !s.PublicAccess && len(s.IPRules) > 0 {
		return []Finding{{
			Code: reason.RulesIdle, Resource: s.ID,
			Says: fmt.Sprintf("%s has %d address rules and its public access is disabled", s.Name, len(s.IPRules)),
			Cure: unruled(s.Name, s.IPRules),
		}}
	}
	for i, p := range s.IPRules {
		says := ""
		for j, q := range s.IPRules {
			if i != j && q.Bits() <= p.Bits() && q.Contains(p.Addr()) && (q != p || j < i) {
				says = "lies within " + q.String()
			}
		}
		if says != "" {
			found = append(found, Finding{
				Code: reason.RuleIdle, Resource: s.ID, Says: fmt.Sprintf("the rule %s of %s %s", p, s.Name, says),
				Cure: fmt.Sprintf("cove network-rule remove %s %s", s.Name, p),
			})
		}
	}
	return found
}

// inside finds address rules for members of virtual networks, who come to the
// public door with other addresses than they have inside. Private addresses of
// no virtual network are those of machines beside the server, which arrive.
func (w *Watch) inside(s *registry.Settings, h held) (found []Finding) {
	if !s.PublicAccess {
		return nil
	}
	for _, doc := range h.networks {
		if w.Elsewhere != nil && w.Elsewhere(doc.ID.Key()) {
			continue // its machines have these addresses everywhere
		}
		spaces, _ := resource.Lookup(doc.Body, "properties.addressSpace.addressPrefixes").([]any)
		for _, v := range spaces {
			text, _ := v.(string)
			space, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			for _, p := range s.IPRules {
				if space.Bits() <= p.Bits() && space.Contains(p.Addr()) {
					found = append(found, Finding{
						Code: reason.RuleIdle, Resource: s.ID,
						Says: fmt.Sprintf("the rule %s of %s names addresses inside %s, whose members never come to the public door with them", p, s.Name, doc.ID.Name()),
					})
				}
			}
		}
	}
	return found
}

// maxCommands bounds a cure: of more, one by one is no help.
const maxCommands = 5

// unruled takes rules away, each of which prints as its command names it.
func unruled[R any](registry string, rules []R) string {
	if len(rules) > maxCommands {
		return ""
	}
	var out []string
	for _, r := range rules {
		out = append(out, fmt.Sprintf("cove network-rule remove %s %v", registry, r))
	}
	return strings.Join(out, " && ")
}

// mixed finds a registry that has both subnet rules and private endpoints: the
// rules were there first, and go when somebody removes them (row 11).
func (w *Watch) mixed(s *registry.Settings, h held) []Finding {
	if len(s.Subnets) == 0 {
		return nil
	}
	for _, doc := range h.endpoints {
		for _, e := range w.Networks.Endpoints(networkOf(doc).Key()) {
			if e.ID.Equal(doc.ID) && e.Registry.Equal(s.ID) {
				return []Finding{{
					Code: reason.RulesAndEndpoint, Resource: s.ID,
					Says: fmt.Sprintf("%s has %d subnet rules and the private endpoint %s", s.Name, len(s.Subnets), e.ID.Name()),
					Cure: unruled(s.Name, subnets(s)),
				}}
			}
		}
	}
	return nil
}

// deaf finds subnet rules that can match nothing: machines come as their subnet
// only where that has the service endpoint.
func deaf(s *registry.Settings, h held) (found []Finding) {
	for _, doc := range h.subnets {
		if s.Subnets[doc.ID.Key()] == 0 {
			continue
		}
		list, _ := resource.Lookup(doc.Body, "properties.serviceEndpoints").([]any)
		if slices.ContainsFunc(list, func(v any) bool {
			o, _ := v.(resource.Object)
			service, _ := o["service"].(string)
			return strings.EqualFold(service, registryService)
		}) {
			continue
		}
		name := doc.ID.Parent().Name() + "/" + doc.ID.Name()
		found = append(found, Finding{
			Code: reason.RuleIdle, Resource: s.ID, Says: fmt.Sprintf("the rule of %s for the subnet %s: that has no service endpoint", s.Name, name),
			Cure: "cove subnet update " + name + " --service-endpoint",
		})
	}
	return found
}

// registryService is what a subnet's service endpoint for registries is called.
const registryService = "Microsoft.ContainerRegistry"

// subnets are those that a registry's rules name, as commands name them.
func subnets(s *registry.Settings) (out []string) {
	for key := range s.Subnets {
		if id, err := arm.ParseID(key); err == nil {
			out = append(out, "--subnet "+id.Parent().Name()+"/"+id.Name())
		}
	}
	slices.Sort(out)
	return out
}

// successors are the repository roles that do in the one permissions mode what
// a registry's roles do in the other (source: the documentation of Azure
// Container Registry).
var successors = map[string]string{
	policy.RoleAcrPull:   "Container Registry Repository Reader",
	policy.RoleAcrPush:   "Container Registry Repository Writer",
	policy.RoleAcrDelete: "Container Registry Repository Contributor",
}

// roles finds identities that hold a role on a registry which its permissions
// mode does not honour, and none that it does.
func (w *Watch) roles(ctx context.Context, s *registry.Settings, h held) (found []Finding, err error) {
	if s.Mode != registry.AbacMode {
		return nil, nil
	}
	told := map[string]bool{}
	for _, doc := range h.roles {
		at := doc.ID.Parent()
		if !s.ID.Within(at) {
			continue
		}
		principal, _ := resource.Lookup(doc.Body, "properties.principalId").(string)
		role, _ := resource.Lookup(doc.Body, "properties.roleDefinitionId").(string)
		successor := successors[strings.ToLower(role[strings.LastIndexByte(role, '/')+1:])]
		if successor == "" || told[principal] {
			continue
		}
		holds, err := w.Roles.At(ctx, principal, s.ID)
		if err != nil {
			return nil, fmt.Errorf("read the roles of %s: %w", principal, err)
		}
		if slices.ContainsFunc(holds, func(a *policy.Assignment) bool { return len(a.Role.DataActions) > 0 }) {
			continue
		}
		told[principal] = true
		found = append(found, Finding{
			Code: reason.RoleIdle, Resource: doc.ID,
			Says: fmt.Sprintf("%s may pull nothing from %s, which is in ABAC mode: the role it holds there counts in the other mode", principal, s.Name),
			Cure: fmt.Sprintf("cove role assign %s '%s' --registry %s", principal, successor, s.Name),
		})
	}
	return found, nil
}

func (w *Watch) ending(all []Credential) (found []Finding) {
	for _, c := range all {
		left := c.Ends.Sub(w.Now())
		if c.Ends.IsZero() || left > credentialNotice {
			continue
		}
		f := Finding{Code: reason.CredentialEnds, Resource: c.Holder, Cure: c.Cure, Breaks: c.Ends.UTC(), Now: left <= 0}
		f.Says = fmt.Sprintf("%s ends on %s", c.Name, c.Ends.UTC().Format(time.DateTime))
		if f.Now {
			f.Says = fmt.Sprintf("%s ended on %s", c.Name, c.Ends.UTC().Format(time.DateTime))
		}
		found = append(found, f)
	}
	return found
}

func (w *Watch) certificates(all []Certificate) (found []Finding) {
	for _, c := range all {
		if left := c.Ends.Sub(w.Now()); left <= certificateNotice {
			found = append(found, Finding{
				Code: reason.CertificateEnds, Resource: w.Subscription, Breaks: c.Ends.UTC(), Now: left <= 0,
				Says: fmt.Sprintf("the certificate for %s ends on %s", strings.Join(c.Names, ", "), c.Ends.UTC().Format(time.DateTime)),
			})
		}
	}
	return found
}
