package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/reason"
)

// Trusted is the table of services that may pass a registry's network rules
// where its owner lets them (networkRuleBypassOptions). It is data, because
// what is on it has changed with the years and an operator knows better.
//
// A service is told by who it proves to be: an identity that the operator has
// listed as the service's, or any managed identity of a member whose kind is
// the service's. The kind alone opens nothing: whoever makes a member says what
// kind it is. It is never modified.
type Trusted struct {
	services []Service
	listed   map[string]int // application or object id to its service
	asOf     time.Time      // the table holds as of this day; zero is the time of the decision
}

// Service is one row of the table.
type Service struct {
	Name       string
	Title      string
	Kinds      []string // of members that run it
	Identities []string // application or object ids that are its own
	May        []string // pull, push, delete
	// Managed says that it comes as a managed identity, if not as one of
	// Identities.
	Managed bool
	Since   time.Time // zero is always
	Until   time.Time // zero is for ever

	// switched is the day from which the registry's own switch for tasks
	// decides, and no longer the one for all services; zero is never.
	switched time.Time
}

func day(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// builtin is Azure's table (source: the documentation of Azure Container
// Registry of 2020, of 2021 and of today). Nothing was trusted before 2021; Container
// Instances came later, on a day that is not documented. App Service and DevOps
// Services were never on it. Import is the registry's own work and asks for
// itself.
func builtinServices() []Service {
	return []Service{
		{Name: "aci", Title: "Azure Container Instances", Kinds: []string{"aci"}, May: []string{"pull"}, Managed: true, Since: day(2022, 1, 1)},
		{Name: "defender", Title: "Microsoft Defender for Cloud", May: []string{"pull"}, Since: day(2021, 1, 1)},
		{Name: "machinelearning", Title: "Azure Machine Learning", May: []string{"pull", "push"}, Managed: true, Since: day(2021, 1, 1)},
		{Name: "tasks", Title: "ACR Tasks", May: []string{"pull", "push"}, Managed: true, Since: day(2021, 1, 1), switched: day(2025, 6, 1)},
	}
}

// NewTrusted is the built-in table.
func NewTrusted() *Trusted {
	t, err := newTrusted(builtinServices(), time.Time{})
	if err != nil {
		panic(err) // the built-in table lists no identity
	}
	return t
}

func newTrusted(services []Service, asOf time.Time) (*Trusted, error) {
	t := &Trusted{services: services, listed: map[string]int{}, asOf: asOf}
	for i, s := range services {
		for _, id := range s.Identities {
			if other, twice := t.listed[id]; twice {
				return nil, fmt.Errorf("the identity %s is %s and %s", id, services[other].Name, s.Name)
			}
			t.listed[id] = i
		}
	}
	return t, nil
}

// maxTrusted bounds the operator's file.
const maxTrusted = 1 << 20

// trustedFile is the operator's file. What it says of a service that is built
// in replaces that alone.
type trustedFile struct {
	AsOf     string `yaml:"asOf"`
	Services []struct {
		Name            string    `yaml:"name"`
		Title           *string   `yaml:"title"`
		Kinds           *[]string `yaml:"kinds"`
		Identities      *[]string `yaml:"identities"`
		May             *[]string `yaml:"may"`
		ManagedIdentity *bool     `yaml:"managedIdentity"`
		Since           *string   `yaml:"since"`
		Until           *string   `yaml:"until"`
	} `yaml:"services"`
}

// memberKinds are the kinds that a member of a network can be of.
var memberKinds = []string{"vm", "aks", "aci", "appservice", "agentpool"}

// ParseTrusted reads an operator's table over the built-in one. It returns
// every problem.
func ParseTrusted(r io.Reader) (*Trusted, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxTrusted+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxTrusted {
		return nil, fault.Newf(fault.Invalid, "the table of trusted services is larger than 1 MiB")
	}
	var file trustedFile
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Newf(fault.Invalid, "the table of trusted services cannot be read: %v", err)
	}
	var problems []fault.Field
	bad := func(path, format string, args ...any) {
		problems = append(problems, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	date := func(path, s string) time.Time {
		if s == "" {
			return time.Time{}
		}
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			bad(path, "%.40q is not a day such as 2021-01-31", s)
		}
		return at
	}
	words := func(path string, list, allowed []string) []string {
		for _, w := range list {
			if !slices.Contains(allowed, w) {
				bad(path, "%.40q is none of %s", w, strings.Join(allowed, ", "))
			}
		}
		return list
	}
	asOf := date("asOf", file.AsOf)
	services := builtinServices()
	seen := map[string]bool{}
	for i, f := range file.Services {
		at := fmt.Sprintf("services[%d].", i)
		if f.Name == "" || seen[f.Name] {
			bad(at+"name", "each service has a name of its own")
			continue
		}
		seen[f.Name] = true
		n := slices.IndexFunc(services, func(s Service) bool { return s.Name == f.Name })
		if n < 0 {
			n = len(services)
			services = append(services, Service{Name: f.Name, Title: f.Name})
		}
		s := &services[n]
		if f.Title != nil {
			s.Title = *f.Title
		}
		if f.Kinds != nil {
			s.Kinds = words(at+"kinds", *f.Kinds, memberKinds)
		}
		if f.May != nil {
			s.May = words(at+"may", *f.May, []string{"pull", "push", "delete"})
		}
		if f.Identities != nil {
			s.Identities = nil
			for _, id := range *f.Identities {
				if !directory.IsID(id) {
					bad(at+"identities", "%.60q is not the id of an application or an object", id)
				}
				s.Identities = append(s.Identities, strings.ToLower(id))
			}
		}
		if f.ManagedIdentity != nil {
			s.Managed = *f.ManagedIdentity
		}
		if f.Since != nil {
			s.Since = date(at+"since", *f.Since)
		}
		if f.Until != nil {
			s.Until = date(at+"until", *f.Until)
		}
		if len(s.May) == 0 {
			bad(at+"may", "say what the service may do: pull, push, delete")
		}
	}
	if err := fault.Problems(problems); err != nil {
		return nil, err
	}
	t, err := newTrusted(services, asOf)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "the table of trusted services: %v", err)
	}
	return t, nil
}

// Services is a copy of the table.
func (t *Trusted) Services() []Service { return slices.Clone(t.services) }

// How it ended that a caller is a trusted service. Findings are stored, so
// their words keep their meaning.
const (
	trustedPasses  finding = "trusted"
	tasksPass      finding = "tasks"
	trustBypassOff finding = "bypass-off"
	trustTasksOff  finding = "tasks-off"
	trustSubnets   finding = "subnet-rules"
	trustNotNow    finding = "not-now"
	trustAction    finding = "action"
	trustUnproved  finding = "unproved"
	trustIdentity  finding = "identity"
	trustNoRole    finding = "role"
)

// liftable reports whether the network's no could be lifted for a caller who
// proves to be a trusted service, so that it is worth looking at a credential.
// It is not where nothing could come of it: a stranger must neither have its
// guesses at passwords answered nor make the server work for them.
func liftable(f *Facts, v *Verdict) bool {
	switch Reason(v.Reason) {
	case reason.PublicAccessOff, reason.NoRule, reason.NoSubnetRule, reason.KindNotServed, reason.NoServiceEndpoint:
	default:
		return false
	}
	if f.Trusted == nil || f.Failed {
		return false
	}
	if s := f.Trusted.ofMember(f); s != nil {
		v.rec.Trusted, v.rec.Trust = s.Title, s.open(f)
		if v.rec.Trust == "" {
			v.rec.Trust = trustUnproved
			return true
		}
	}
	for _, i := range f.Trusted.listed {
		if f.Trusted.services[i].open(f) == "" {
			return true
		}
	}
	return false
}

// worthProving reports whether a credential that came with a request could prove
// somebody whom a liftable refusal is lifted for: a password for whoever is not
// on the operator's list is not verified.
func (g *Guard) worthProving(ctx context.Context, f *Facts) bool {
	if s := f.Trusted.ofMember(f); s != nil && s.open(f) == "" {
		return true
	}
	c, ok := parseAuthorization(f.Ask.Authority)
	if !ok || c.method != ByPassword || c.user == zeroUser {
		return true
	}
	user := strings.ToLower(c.user)
	_, listed := f.Trusted.listed[user]
	return listed || directory.IsID(user) && g.aliases(ctx, f)[user]
}

// aliasesAge is how old the answer of aliases may be: strangers who guess must
// not make the directory work for each guess.
const aliasesAge = 10 * time.Second

// aliases are the client ids of those whom the operator has listed by object
// id: the list may have either, and passwords come with client ids. They say
// only whose password is worth verifying, so an old answer opens nothing.
func (g *Guard) aliases(ctx context.Context, f *Facts) map[string]bool {
	g.listed.Lock()
	known, fresh := g.listed.clients, g.listed.clients != nil && f.Now.Before(g.listed.until)
	if !fresh {
		g.listed.until = f.Now.Add(aliasesAge)
	}
	g.listed.Unlock()
	if fresh {
		return known
	}
	clients := map[string]bool{}
	for id := range f.Trusted.listed {
		if who, err := g.Directory.Principal(ctx, id); err == nil {
			clients[strings.ToLower(who.AppID)] = true
		}
	}
	g.listed.Lock()
	defer g.listed.Unlock()
	g.listed.clients = clients
	return clients
}

// lift lets a caller who has proved to be a trusted service, and who holds a
// role here, pass after all. What everybody else is told stays word for word
// what it was: without a proof a service learns no more than a stranger.
func lift(f *Facts, v *Verdict) bool {
	if v.Refusal != Network || !liftable(f, v) {
		return false
	}
	s := f.Trusted.ofIdentity(f)
	if s == nil {
		s = f.Trusted.ofMember(f)
	}
	if s == nil {
		return false
	}
	v.rec.Trusted, v.rec.Trust = s.Title, s.passes(f)
	if v.rec.Trust != trustedPasses && v.rec.Trust != tasksPass {
		return false
	}
	v.Refusal, v.Reason, v.Public = None, "", ""
	v.rec.Reason = ""
	v.rec.Ends[stageRules] = v.rec.Trust
	if v.rec.Ends[stagePublic] == publicOff {
		v.rec.Ends[stagePublic] = v.rec.Trust
	}
	return true
}

func (t *Trusted) ofIdentity(f *Facts) *Service {
	id := f.Proof.Identity
	for _, key := range []string{id.ObjectID, id.Name} {
		if i, ok := t.listed[strings.ToLower(key)]; ok && f.Proof.Failure == "" && id.Kind == KindServicePrincipal {
			return &t.services[i]
		}
	}
	return nil
}

func (t *Trusted) ofMember(f *Facts) *Service {
	if f.Member == nil {
		return nil
	}
	for i := range t.services {
		if slices.Contains(t.services[i].Kinds, f.Member.Kind) {
			return &t.services[i]
		}
	}
	return nil
}

// open says why nobody who is this service passes the registry's rules now; ""
// where somebody may.
func (s *Service) open(f *Facts) finding {
	now, own := s.switches(f)
	r := f.Registry
	switch {
	case now.Before(s.Since) || !s.Until.IsZero() && !now.Before(s.Until):
		return trustNotNow
	case own && !r.TaskBypass:
		return trustTasksOff
	case !own && !r.Bypass:
		return trustBypassOff
	case len(r.Subnets) > 0:
		return trustSubnets
	}
	return ""
}

// switches is the day by which the table is read, and whether the registry has
// a switch for this very service then.
func (s *Service) switches(f *Facts) (now time.Time, own bool) {
	now = f.Trusted.asOf
	if now.IsZero() {
		now = f.Now
	}
	return now, !s.switched.IsZero() && !now.Before(s.switched)
}

// passes says whether the caller, as this service, passes, and if not why.
func (s *Service) passes(f *Facts) finding {
	id := f.Proof.Identity
	switch why := s.open(f); {
	case why != "":
		return why
	case f.Proof.Failure != "" || id.Kind != KindServicePrincipal || id.ObjectID == "":
		return trustUnproved
	case s.Managed && !id.Managed && f.Trusted.ofIdentity(f) != s:
		return trustIdentity
	case !s.does(f.Ask.Want):
		return trustAction
	case f.belongs(nil) != "":
		return trustNoRole
	}
	if _, own := s.switches(f); own {
		return tasksPass
	}
	return trustedPasses
}

// does reports whether the service may bypass the rules for all that is wanted.
func (s *Service) does(want []Scope) bool {
	for _, w := range want {
		kind := "pull"
		switch w.Action {
		case "push", "metadata_write":
			kind = "push"
		case "delete":
			kind = "delete"
		}
		if !slices.Contains(s.May, kind) {
			return false
		}
	}
	return true
}
