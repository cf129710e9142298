package whatif

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

// Moment is what decided about access at some time: documents and directory.
type Moment struct {
	Documents interface {
		View(ctx context.Context, fn func(resource.Reader) error) error
	}
	// People is asked for ByObject, GroupsOf, Members and Subscriptions.
	People directory.Store
}

// RollQuestion asks who could do something with a repository.
type RollQuestion struct {
	ID       string // a correlation id of its own
	Registry arm.ID
	Want     access.Scope
	At       time.Time // zero is now
	Caller   resource.Caller
}

// Roll is who could, and from where. Nobody else could, but for what Notes say.
type Roll struct {
	Registry string    `json:"registry"`
	Asked    string    `json:"asked"` // "repository:team/app:pull"
	At       time.Time `json:"at"`
	Ways     []Way     `json:"ways"` // on which the network let somebody through
	Grants   []Grant   `json:"grants"`
	Notes    []string  `json:"notes"` // what the answer does not know, or takes as it is now
}

// Way is where callers come from.
type Way struct {
	Name string `json:"name"`          // "any public address", "203.0.113.0/28", "private endpoint pe1"
	Rule string `json:"rule"`          // what lets them through
	Ref  string `json:"ref,omitempty"` // the private endpoint or subnet
	In   string `json:"in,omitempty"`  // the subnet of a private endpoint
}

// Grant is one identity and what allows it, on the ways on which it does.
type Grant struct {
	Identity access.Identity `json:"identity"`
	Known    string          `json:"known,omitempty"` // what the directory called it
	By       string          `json:"by"`              // "AcrPull at /subscriptions/…", "admin user", "scope map m"
	Ref      string          `json:"ref,omitempty"`   // of the role assignment
	Why      string          `json:"why"`
	From     []string        `json:"from"` // names of ways
}

// Bounds of a roll. One that would be larger is refused, not cut.
const (
	maxRollIdentities = 10000
	maxRollDecisions  = 200000
	rollPage          = 1000
)

// still is documents that nobody changes or follows.
type still struct{ Moment }

var errStill = errors.New("whatif: a moment cannot be changed or followed")

func (s still) View(ctx context.Context, fn func(resource.Reader) error) error {
	return s.Documents.View(ctx, fn)
}
func (still) Update(context.Context, func(resource.Tx) error) error { return errStill }
func (still) Follow(context.Context, func([]arm.ID)) error          { return errStill }
func (still) OnCommit(func([]arm.ID))                               {}

// people reads each thing of a directory once.
type people struct {
	directory.Store
	clients map[string]directory.Client
	groups  map[string][]string
	subs    []directory.Subscription
}

func (p *people) ByObject(ctx context.Context, id string) (c directory.Client, err error) {
	if c, ok := p.clients[id]; ok {
		return c, nil
	}
	if c, err = p.Store.ByObject(ctx, id); err == nil {
		p.clients[id] = c
	}
	return c, err
}

func (p *people) GroupsOf(ctx context.Context, id string) (list []string, err error) {
	if list, ok := p.groups[id]; ok {
		return list, nil
	}
	if list, err = p.Store.GroupsOf(ctx, id); err == nil {
		p.groups[id] = list
	}
	return list, err
}

func (p *people) Subscriptions(ctx context.Context) (_ []directory.Subscription, err error) {
	if p.subs == nil {
		p.subs, err = p.Store.Subscriptions(ctx)
	}
	return p.subs, err
}

// only is the one registry that a roll is about.
type only struct{ *registry.Settings }

func (o only) ByHost(context.Context, string) (*registry.Settings, error) { return o.Settings, nil }

// roll is a Roll in the making.
type roll struct {
	*Asker
	q      RollQuestion
	moment Moment
	people *people
	to     *registry.Settings
	guard  *access.Guard
	roles  *policy.Roles
	ways   []wayIn
	out    Roll
}

// wayIn is a way and the supposition of a caller on it.
type wayIn struct {
	Way
	access.Supposition
}

// Roll asks for everybody who holds anything, on every way there was, what a
// request would have got: of the guard's own code, over the documents and the
// directory of the time. It fails with resource.ErrUnknown where the registry
// did not exist.
func (a *Asker) Roll(ctx context.Context, q RollQuestion) (Roll, error) {
	r := &roll{Asker: a, q: q, moment: Moment{a.Store, a.People}}
	at := a.Now()
	if !q.At.IsZero() {
		if q.At.After(at) {
			return Roll{}, fault.Newf(fault.Invalid, "%s has not been yet: who will be able to is not known", q.At.UTC().Format(time.RFC3339))
		}
		at = q.At
		r.moment = a.Past(at)
	}
	r.out = Roll{Asked: q.Want.String(), At: at.UTC(), Ways: []Way{}, Grants: []Grant{}, Notes: []string{
		"names, security groups, locks of repositories, passwords that had ended and rate limits are not looked at",
	}}
	if err := r.begin(ctx, at); err != nil {
		return Roll{}, err
	}
	if err := r.findWays(ctx); err != nil {
		return Roll{}, err
	}
	who, err := r.candidates(ctx)
	if err != nil {
		return Roll{}, err
	}
	if len(who)*len(r.ways) > maxRollDecisions {
		return Roll{}, fault.Newf(fault.Invalid, "%d identities on %d ways are more than can be listed", len(who), len(r.ways))
	}
	for _, w := range who {
		if err := r.ask(ctx, w); err != nil {
			return Roll{}, err
		}
	}
	return r.out, nil
}

// begin makes the guard of the moment.
func (r *roll) begin(ctx context.Context, at time.Time) error {
	var doc resource.Doc
	err := r.moment.Documents.View(ctx, func(rd resource.Reader) (err error) {
		doc, err = rd.Get(ctx, r.q.Registry)
		return err
	})
	if err != nil {
		return err
	}
	if r.to, err = r.Registries.Compile(doc); err != nil {
		return err
	}
	r.out.Registry = r.to.ID.String()
	if r.to.Bypass || r.to.TaskBypass {
		r.note("the registry's bypass of network rules is on: which services the operator trusts has no history, and they are not listed")
	}
	now := func() time.Time { return at }
	r.people = &people{Store: r.moment.People, clients: map[string]directory.Client{}, groups: map[string][]string{}}
	dir := directory.New(r.people, now)
	r.roles = policy.NewRoles(still{r.moment})
	r.roles.Groups, r.roles.Now = dir.Groups, now
	if err := r.roles.Load(ctx); err != nil {
		return err
	}
	r.guard = &access.Guard{
		Registries: only{r.to}, Directory: dir, Roles: r.roles, Now: now, Scoped: r.Registries.Over(still{r.moment}), Failures: r.Guard.Failures,
	}
	return nil
}

func (r *roll) note(text string) { r.out.Notes = append(r.out.Notes, text) }

// open adds a way if the network lets its caller through.
func (r *roll) open(w Way, s access.Supposition) {
	s.Ask.ID, s.Ask.Host, s.Ask.Want, s.Ask.Operation = r.q.ID, r.to.Host, []access.Scope{r.q.Want}, "WhatIf"
	s.Who.Kind = access.KindAdmin // whoever it is, the network decides before that is looked at
	if r.guard.Suppose(context.Background(), s).Refusal == access.Network {
		return
	}
	r.ways = append(r.ways, wayIn{w, s})
	r.out.Ways = append(r.out.Ways, w)
}

func from(a netip.Addr) access.Supposition {
	return access.Supposition{Ask: access.Ask{Origin: link.Origin{Remote: netip.AddrPortFrom(a, 0)}}}
}

// elsewhere is an address that no rule is likely to name (RFC 5737).
var elsewhere = netip.MustParseAddr("192.0.2.1")

func (r *roll) findWays(ctx context.Context) error {
	if r.to.DefaultAllow {
		r.open(Way{Name: "any public address", Rule: "defaultAction Allow, for subnets too"}, from(elsewhere))
	} else {
		for i, p := range r.to.IPRules {
			r.open(Way{Name: p.String(), Rule: fmt.Sprintf("ipRules[%d]", i)}, from(p.Masked().Addr()))
		}
	}
	type leading struct{ connection, endpoint resource.Doc }
	var private []leading
	err := r.moment.Documents.View(ctx, func(rd resource.Reader) error {
		private = nil
		list, err := rd.List(ctx, resource.Query{Type: network.TypeConnection, Under: r.to.ID})
		if err != nil {
			return err
		}
		for _, c := range list {
			text, _ := resource.Lookup(c.Body, "properties.privateEndpoint.id").(string)
			id, err := arm.ParseID(text)
			if err != nil {
				continue
			}
			doc, err := rd.Get(ctx, id)
			if errors.Is(err, resource.ErrUnknown) {
				continue // a connection outlives its endpoint
			}
			if err != nil {
				return err
			}
			private = append(private, leading{c, doc})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range private {
		e, in := network.EndpointOf(p.endpoint)
		s := access.Supposition{Endpoint: e}
		s.Ask.Origin = link.Origin{Kind: link.Overlay, Network: in.Parent().Key()}
		r.open(Way{Name: "private endpoint " + e.ID.Name(), Rule: "privateEndpointConnections/" + p.connection.ID.Name(), Ref: e.ID.String(), In: in.String()}, s)
	}
	return r.findSubnets(ctx)
}

// findSubnets looks at the subnets that rules name and, where a condition looks
// at the caller's subnet, at all others that the caller may read.
func (r *roll) findSubnets(ctx context.Context) error {
	all := slices.ContainsFunc(r.roles.Holders(r.to.ID), func(a *policy.Assignment) bool {
		return a.Condition != nil && strings.Contains(strings.ToLower(a.Condition.String()), "subnets")
	})
	if len(r.to.Subnets) == 0 && !all {
		return nil
	}
	list, err := r.list(ctx, resource.Query{Type: network.TypeSubnet})
	if err != nil {
		return err
	}
	hidden := 0
	for _, doc := range list {
		rule := r.to.Subnets[doc.ID.Key()]
		switch {
		case rule == 0 && !all:
			continue
		case rule == 0 && !r.q.Caller.May("Microsoft.Network/virtualNetworks/subnets/read", doc.ID):
			hidden++
			continue
		}
		m := network.MachineIn(doc, "vm")
		s := access.Supposition{Member: m}
		s.Ask.Origin = link.Origin{Kind: link.Overlay, Network: doc.ID.Parent().Key(), Remote: netip.AddrPortFrom(m.Address, 0), Local: netip.AddrPortFrom(r.FrontEnd, 443)}
		w := Way{Name: "subnet " + doc.ID.Parent().Name() + "/" + doc.ID.Name(), Rule: "defaultAction Allow", Ref: doc.ID.String()}
		if rule > 0 && !r.to.DefaultAllow {
			w.Rule = fmt.Sprintf("virtualNetworkRules[%d], for virtual machines and AKS", rule-1)
		}
		r.open(w, s)
	}
	if hidden > 0 {
		r.note(fmt.Sprintf("a condition looks at the caller's subnet, and %d that you may not read are left out", hidden))
	}
	return nil
}

func (r *roll) list(ctx context.Context, q resource.Query) (list []resource.Doc, err error) {
	err = r.moment.Documents.View(ctx, func(rd resource.Reader) error {
		list, err = rd.List(ctx, q)
		return err
	})
	return list, err
}

// candidates are all who could hold anything on the registry.
func (r *roll) candidates(ctx context.Context) ([]access.Identity, error) {
	out := []access.Identity{{Kind: access.KindAnonymous}, {Kind: access.KindAdmin}}
	tokens, err := r.list(ctx, resource.Query{Type: registry.TypeToken, Under: r.to.ID, Limit: maxRollIdentities + 1})
	if err != nil {
		return nil, err
	}
	for _, doc := range tokens {
		out = append(out, access.Identity{Kind: access.KindToken, Name: doc.ID.Name()})
	}
	seen := map[string]bool{}
	var next, found []string
	add := func(id string) {
		if id = strings.ToLower(id); !seen[id] {
			seen[id] = true
			next = append(next, id)
		}
	}
	for _, a := range r.roles.Holders(r.to.ID) {
		add(a.Principal)
	}
	for ; len(next) > 0; next = next[1:] {
		if len(seen)+len(out) > maxRollIdentities {
			return nil, fault.Newf(fault.Invalid, "more than %d identities hold something on the registry; that is more than can be listed", maxRollIdentities)
		}
		c, err := r.people.ByObject(ctx, next[0])
		switch {
		case errors.Is(err, directory.ErrUnknown):
			continue // gone, with its roles left behind
		case err != nil:
			return nil, err
		case c.Kind != directory.Group:
			found = append(found, c.ObjectID)
			continue
		}
		for after := ""; ; {
			page, err := r.people.Members(ctx, c.ObjectID, after, rollPage)
			if err != nil {
				return nil, err
			}
			for _, m := range page {
				add(m.ObjectID)
			}
			if len(page) < rollPage {
				break
			}
			after = page[len(page)-1].ObjectID
		}
	}
	slices.Sort(found)
	for _, id := range found {
		out = append(out, access.Identity{Kind: access.KindServicePrincipal, ObjectID: id})
	}
	return out, nil
}

// ask asks for one identity, on every way.
func (r *roll) ask(ctx context.Context, who access.Identity) error {
	first := len(r.out.Grants)
	for _, w := range r.ways {
		s := w.Supposition
		s.Who = who
		v := r.guard.Suppose(ctx, s)
		if v.Refusal == access.Unavailable {
			return fault.Newf(fault.Unavailable, "who could is not known: something that decides could not be read")
		}
		if !v.Allow {
			continue
		}
		g := Grant{Identity: v.Identity}
		steps := access.ExplainVerdict(v).Steps
		last := steps[len(steps)-1]
		g.By, g.Ref, g.Why = last.Rule, last.Ref, last.Why
		switch who.Kind {
		case access.KindToken:
			g.By = "scope map " + g.By
		case access.KindAdmin:
			g.By = "admin user"
		case access.KindAnonymous:
			g.By = "anonymous pull"
		default:
			c, err := r.people.ByObject(ctx, who.ObjectID)
			if err != nil {
				return err
			}
			g.Known = c.Name
		}
		i := slices.IndexFunc(r.out.Grants[first:], func(o Grant) bool { return o.By == g.By && o.Ref == g.Ref })
		if i < 0 {
			i = len(r.out.Grants) - first
			r.out.Grants = append(r.out.Grants, g)
		}
		r.out.Grants[first+i].From = append(r.out.Grants[first+i].From, w.Name)
	}
	return nil
}
