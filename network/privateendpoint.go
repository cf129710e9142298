package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

func endpointType(cfg Config) resource.Type {
	return resource.Type{
		Name:      TypeEndpoint,
		CheckName: checkName,
		ReadOnly: []string{
			"cove", "properties.networkInterfaces", "properties.customDnsConfigs",
			"properties.provisioningState", "properties.resourceGuid",
		},
		Secret:  []string{"cove"},
		Located: true,
		Check:   checkEndpoint,
		Put:     cfg.putEndpoint,
		Delete:  deleteEndpoint,
		Show:    showEndpoint,
	}
}

// GroupID is the one group of members that a registry has.
const GroupID = registry.GroupID

// maxMessage bounds what the two sides of a connection write to each other.
const maxMessage = 140

// The lists of a private endpoint that may hold its one connection. Manual
// ones wait for approval whoever makes them.
const (
	automatic = "privateLinkServiceConnections"
	manual    = "manualPrivateLinkServiceConnections"
)

// asked is the connection as a private endpoint's body asks for it.
type asked struct {
	list    string // automatic or manual
	name    string
	target  arm.ID
	groups  []string
	message string
	body    resource.Object // the element
}

// readAsked finds the one connection of a body.
func readAsked(p *problems, body resource.Object) asked {
	var found []asked
	for _, list := range []string{automatic, manual} {
		for i, o := range objectsAt(body, "properties", list) {
			at := fmt.Sprintf("properties.%s[%d].", list, i)
			a := asked{list: list, name: textAt(o, "name"), message: textAt(o, "properties", "requestMessage"), body: o}
			if why := checkName(a.name); why != "" {
				p.add(at+"name", "%s", why)
			}
			a.target = p.reference(at+"properties.privateLinkServiceId", textAt(o, "properties", "privateLinkServiceId"), registry.TypeName)
			for _, g := range listAt(o, "properties", "groupIds") {
				s, _ := g.(string)
				a.groups = append(a.groups, s)
			}
			if len(a.groups) != 1 || !strings.EqualFold(a.groups[0], GroupID) {
				p.add(at+"properties.groupIds", "a registry has the one group id %q, and it must be given", GroupID)
			}
			if len(a.message) > maxMessage {
				p.add(at+"properties.requestMessage", "at most %d characters are allowed", maxMessage)
			}
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		p.add("properties."+automatic, "exactly one connection is required, here or in %s", manual)
		return asked{}
	}
	return found[0]
}

// strip takes away what only we say of a connection, and a client that sends
// back what it was shown says too.
func (a asked) strip() {
	for _, key := range []string{"id", "type", "etag"} {
		delete(a.body, key)
	}
	resource.Remove(a.body, "properties.provisioningState")
}

// staticAddress is one element of a private endpoint's ipConfigurations.
type staticAddress struct {
	name, member string
	address      netip.Addr
	at           string
}

func readStatic(p *problems, body resource.Object) []staticAddress {
	var out []staticAddress
	for i, o := range objectsAt(body, "properties", "ipConfigurations") {
		at := fmt.Sprintf("properties.ipConfigurations[%d].", i)
		s := staticAddress{at: at, name: textAt(o, "name"), member: strings.ToLower(textAt(o, "properties", "memberName"))}
		if why := checkName(s.name); why != "" {
			p.add(at+"name", "%s", why)
		}
		if g := textAt(o, "properties", "groupId"); !strings.EqualFold(g, GroupID) {
			p.add(at+"properties.groupId", "it must be %q", GroupID)
		}
		a, err := netip.ParseAddr(configAddress(o))
		if err != nil || !a.Is4() {
			p.add(at+"properties.privateIPAddress", "an IPv4 address is required")
		}
		s.address = a
		if slices.ContainsFunc(out, func(t staticAddress) bool { return t.member == s.member || strings.EqualFold(t.name, s.name) }) {
			p.add(at+"properties.memberName", "each member and each name stands once")
		}
		out = append(out, s)
	}
	return out
}

func (s staticAddress) same(o staticAddress) bool {
	return s.name == o.name && s.member == o.member && s.address == o.address
}

// byMember orders addresses, whose order in a body means nothing.
func byMember(list []staticAddress) []staticAddress {
	slices.SortFunc(list, func(a, b staticAddress) int { return strings.Compare(a.member, b.member) })
	return list
}

func checkEndpoint(c *resource.Change) []fault.Field {
	var p problems
	p.reference("properties.subnet.id", textAt(c.New.Body, "properties", "subnet", "id"), TypeSubnet)
	readAsked(&p, c.New.Body)
	readStatic(&p, c.New.Body)
	unobeyed{"applicationSecurityGroups": "application security groups are"}.refuse(&p, "properties.", objectAt(c.New.Body, "properties"))
	if n := textAt(c.New.Body, "properties", "customNetworkInterfaceName"); n != "" {
		if why := checkName(n); why != "" {
			p.add("properties.customNetworkInterfaceName", "%s", why)
		}
	}
	return p
}

func (cfg Config) putEndpoint(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	var none problems
	ask := readAsked(&none, c.New.Body)
	ask.strip()
	if c.Old != nil {
		if err := keepEndpoint(c.Old, c.New, ask); err != nil {
			return err
		}
		return cfg.endpointChanged(ctx, tx, *c.New)
	}
	subnetID := idAt(c.New.Body, "properties", "subnet", "id")
	if err := may(c.Caller, ActionJoin, subnetID); err != nil {
		return err
	}
	sub, err := loadSubnet(ctx, tx, subnetID)
	if err != nil {
		return fault.At("properties.subnet.id", err)
	}
	if err := mayCross(ctx, tx, c.New.ID, ask.target); err != nil {
		return err
	}
	service := "properties." + ask.list + "[0].properties.privateLinkServiceId"
	reg, err := cfg.target(ctx, tx, ask.target)
	if err != nil {
		return fault.At(service, err)
	}
	private, changed, err := cfg.private(reg)
	if err != nil {
		return fault.At(service, err)
	}
	configs, err := plan(readStatic(&none, c.New.Body), members(private), sub.id)
	if err != nil {
		return fault.At("properties.ipConfigurations", err)
	}
	nic, err := makeNIC(ctx, tx, c.New, configs)
	if err != nil {
		return err
	}
	st := state{Status: Pending, Description: ask.message, ActionsRequired: "None"}
	if ask.list == automatic && c.Caller.May != nil && c.Caller.May(ActionApprove, reg.ID) {
		st = state{Approved, "Auto-Approved", "None"}
	} else {
		changed = cfg.Registry.AskPrivate(&reg)
		private = reg
	}
	if changed {
		if err := tx.Put(ctx, &private); err != nil {
			return err
		}
	}
	conn, err := connect(ctx, tx, c.New.ID, reg.ID, st)
	if err != nil {
		return err
	}
	set(c.New.Body, []any{ref(nic)}, "properties", "networkInterfaces")
	set(c.New.Body, conn.String(), "cove", "connection")
	set(c.New.Body, ref(sub.id), "properties", "subnet")
	st.write(ask.body)
	return cfg.endpointChanged(ctx, tx, *c.New)
}

// mayCross refuses an endpoint to another subscription's registry from one that
// is not registered for registries.
func mayCross(ctx context.Context, r resource.Reader, pe, reg arm.ID) error {
	const namespace = "Microsoft.ContainerRegistry"
	if strings.EqualFold(pe.Subscription(), reg.Subscription()) {
		return nil
	}
	state, err := resource.Registration(ctx, r, pe.Subscription(), namespace)
	if err == nil && state != resource.Registered {
		err = resource.ErrNotRegistered.Detail("The subscription '%s' is not registered to use namespace '%s', which a private endpoint to a registry of another subscription needs. See https://aka.ms/rps-not-found for how to register subscriptions.", pe.Subscription(), namespace)
	}
	return err
}

// private is a registry as it is with a private endpoint, and whether that is
// another than it is now.
func (cfg Config) private(reg resource.Doc) (resource.Doc, bool, error) {
	reg.Body = resource.Clone(reg.Body)
	changed, err := cfg.Registry.MakePrivate(&reg)
	return reg, changed, err
}

// target reads the registry that an endpoint is to lead to.
func (cfg Config) target(ctx context.Context, r resource.Reader, id arm.ID) (resource.Doc, error) {
	reg, err := r.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) {
		return reg, ErrReference.Detail("The private link service '%s' was not found.", id)
	}
	if err != nil {
		return reg, err
	}
	most := cfg.Registry.MaxPrivateEndpoints(reg)
	if most == 0 {
		return reg, nil // its SKU has none, which MakePrivate says better
	}
	n, err := r.List(ctx, resource.Query{Type: TypeConnection, Under: reg.ID, Limit: most})
	if err != nil {
		return reg, err
	}
	if len(n) >= most {
		return reg, ErrQuota.Detail("The requested feature private endpoint connection exceeds allowed quota %d for the SKU Premium.", most)
	}
	return reg, nil
}

// member is one address that an endpoint must have, and the name that leads
// to it.
type member struct{ name, fqdn string }

// hostLists are the properties of a registry that list its hosts in regions,
// and what the members of a private endpoint for them are named. A host's
// second label is its region.
var hostLists = []struct{ prefix, property string }{
	{"registry_data_", "dataEndpointHostNames"},
	{"registry_", "regionalEndpointHostNames"},
}

// members are what a private endpoint of a registry has addresses for: its
// login server, the data endpoint of each region that holds it and, where the
// registry has them, the regions' own login servers.
func members(reg resource.Doc) []member {
	out := []member{{GroupID, textAt(reg.Body, "properties", "loginServer")}}
	for _, l := range hostLists {
		for _, v := range listAt(reg.Body, "properties", l.property) {
			host, _ := v.(string)
			_, rest, _ := strings.Cut(host, ".")
			region, _, _ := strings.Cut(rest, ".")
			out = append(out, member{l.prefix + region, host})
		}
	}
	return out
}

// planned is an ip configuration of an endpoint's interface to be.
type planned struct {
	ipConfig
	member member
}

// plan pairs the members with the addresses that were asked for. Either none
// is asked for, or one for each.
func plan(static []staticAddress, want []member, subnet arm.ID) ([]planned, error) {
	var out []planned
	for _, m := range want {
		// ARM's own name for such a configuration has a random part.
		p := planned{member: m, ipConfig: ipConfig{name: "privateEndpointIpConfig." + guid(), subnet: subnet, body: resource.Object{}}}
		for _, s := range static {
			if s.member == m.name {
				p.name, p.static, p.address, p.at = s.name, true, s.address, s.at
			}
		}
		p.body["name"] = p.name
		out = append(out, p)
	}
	if len(static) == 0 {
		return out, nil
	}
	var missing, names []string
	for _, p := range out {
		names = append(names, p.member.name)
		if !p.static {
			missing = append(missing, p.member.name)
		}
	}
	if len(missing) > 0 || len(static) != len(out) {
		return nil, &fault.Error{
			Kind: fault.Invalid, Code: "PrivateEndpointIpConfigurationsInvalid",
			Public: fmt.Sprintf("The static ipConfigurations must name each of the members %s once; missing: %s.", strings.Join(names, ", "), strings.Join(missing, ", ")),
		}
	}
	return out, nil
}

// makeNIC makes the interface that holds an endpoint's addresses. Callers can
// look at it and nothing else.
func makeNIC(ctx context.Context, tx resource.Tx, pe *resource.Doc, configs []planned) (arm.ID, error) {
	name := textAt(pe.Body, "properties", "customNetworkInterfaceName")
	if name == "" {
		name = pe.ID.Name() + ".nic." + guid()
	}
	id, err := arm.ParseID(pe.ID.GroupID().String() + "/providers/" + TypeInterface + "/" + name)
	if err != nil {
		return arm.ID{}, err
	}
	switch _, err := tx.Get(ctx, id); {
	case err == nil:
		return arm.ID{}, fault.At("properties.customNetworkInterfaceName", ErrNameTaken.Detail("A network interface named '%s' exists.", name))
	case !errors.Is(err, resource.ErrUnknown):
		return arm.ID{}, err
	}
	list := make([]ipConfig, len(configs))
	for i, c := range configs {
		list[i] = c.ipConfig
	}
	if err := readdress(ctx, tx, id, nil, list); err != nil {
		return arm.ID{}, err
	}
	bodies := make([]any, len(configs))
	for i, c := range configs {
		describe(c.body, c.member, i == 0)
		bodies[i] = c.body
	}
	return id, tx.Put(ctx, &resource.Doc{ID: id, Body: resource.Object{
		"location": textAt(pe.Body, "location"),
		"properties": resource.Object{
			"ipConfigurations": bodies,
			"privateEndpoint":  ref(pe.ID),
		},
	}})
}

// connect makes the registry's side of the connection.
func connect(ctx context.Context, tx resource.Tx, pe, reg arm.ID, st state) (arm.ID, error) {
	id := reg.Child("privateEndpointConnections", pe.Name()+"."+guid())
	body := resource.Object{"properties": resource.Object{
		"privateEndpoint": ref(pe),
		"groupIds":        []any{GroupID},
	}}
	st.write(body)
	return id, tx.Put(ctx, &resource.Doc{ID: id, Body: body})
}

// keepEndpoint carries over what an endpoint is made of: only its tags and
// its request message may change.
func keepEndpoint(old, now *resource.Doc, ask asked) error {
	var none problems
	was := readAsked(&none, old.Body)
	var wrong []error
	fixed := func(path, what string, same bool) {
		if !same {
			wrong = append(wrong, fault.At(path, ErrFixed.Detail("The %s of private endpoint '%s' cannot be changed.", what, old.ID.Name())))
		}
	}
	fixed("properties.subnet.id", "subnet", idAt(old.Body, "properties", "subnet", "id").Equal(idAt(now.Body, "properties", "subnet", "id")))
	fixed("properties."+ask.list, "connection", was.target.Equal(ask.target) && was.list == ask.list && strings.EqualFold(was.name, ask.name))
	fixed("properties.ipConfigurations", "addresses", slices.EqualFunc(byMember(readStatic(&none, old.Body)), byMember(readStatic(&none, now.Body)), staticAddress.same))
	if err := fault.All(wrong...); err != nil {
		return err
	}
	set(now.Body, objectAt(old.Body, "properties", "subnet"), "properties", "subnet")
	readState(was.body).write(ask.body)
	return nil
}

func deleteEndpoint(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	for _, o := range objectsAt(doc.Body, "properties", "networkInterfaces") {
		nic, err := tx.Get(ctx, idAt(o, "id"))
		if errors.Is(err, resource.ErrUnknown) {
			continue
		}
		if err != nil {
			return err
		}
		if err := readdress(ctx, tx, nic.ID, storedConfigs(nic.Body), nil); err != nil {
			return err
		}
		if err := tx.Delete(ctx, nic.ID); err != nil {
			return err
		}
	}
	if conn := idAt(doc.Body, "cove", "connection"); !conn.IsZero() {
		return tx.Delete(ctx, conn)
	}
	return nil
}

func showEndpoint(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	set(body, "Succeeded", "properties", "provisioningState")
	set(body, resourceGUID(doc), "properties", "resourceGuid")
	for _, list := range []string{automatic, manual} {
		for _, o := range objectsAt(body, "properties", list) {
			o["id"] = doc.ID.String() + "/" + list + "/" + textAt(o, "name")
			o["type"] = TypeEndpoint + "/" + list
			o["etag"] = doc.ETag
			set(o, "Succeeded", "properties", "provisioningState")
		}
		if at(body, "properties", list) == nil {
			set(body, []any{}, "properties", list)
		}
	}
	records, err := endpointRecords(ctx, r, doc)
	if err != nil {
		return err
	}
	dns := make([]any, len(records))
	for i, rec := range records {
		dns[i] = resource.Object{"fqdn": rec.FQDN, "ipAddresses": []any{rec.Address.String()}}
	}
	set(body, dns, "properties", "customDnsConfigs")
	return nil
}

// Record is a name that leads to an address of a private endpoint.
type Record struct {
	FQDN    string // public: myregistry.cr.cove.internal
	Address netip.Addr
}

// EndpointRecords are the names of a private endpoint, whatever the state of
// its connection: the login server first. An endpoint that is not there is
// resource.ErrUnknown.
func EndpointRecords(ctx context.Context, r resource.Reader, pe arm.ID) ([]Record, error) {
	doc, err := r.Get(ctx, pe)
	if err != nil {
		return nil, err
	}
	return endpointRecords(ctx, r, doc)
}

func endpointRecords(ctx context.Context, r resource.Reader, pe resource.Doc) ([]Record, error) {
	var out []Record
	for _, o := range objectsAt(pe.Body, "properties", "networkInterfaces") {
		nic, err := r.Get(ctx, idAt(o, "id"))
		if err != nil {
			return nil, err
		}
		for _, c := range storedConfigs(nic.Body) {
			for _, name := range fqdns(c.body) {
				out = append(out, Record{name, c.address})
			}
		}
	}
	return out, nil
}

// fqdns are the names of an ip configuration of an endpoint's interface.
func fqdns(config resource.Object) []string {
	var out []string
	for _, v := range listAt(config, "properties", "privateLinkConnectionProperties", "fqdns") {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// guid is a random name in the shape of those that Azure appends.
func guid() string {
	id := uuid.New()
	return hex.EncodeToString(id[:])
}
