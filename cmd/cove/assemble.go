package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/armapi"
	"cove.example/cove/audit"
	"cove.example/cove/authority"
	"cove.example/cove/content"
	"cove.example/cove/content/disk"
	"cove.example/cove/device"
	"cove.example/cove/directory"
	"cove.example/cove/dnsapi"
	"cove.example/cove/door"
	"cove.example/cove/drift"
	"cove.example/cove/fault"
	"cove.example/cove/graphapi"
	"cove.example/cove/imdsapi"
	"cove.example/cove/insight"
	"cove.example/cove/link/wireguard"
	"cove.example/cove/logapi"
	"cove.example/cove/loginapi"
	"cove.example/cove/network"
	"cove.example/cove/oci"
	"cove.example/cove/ociapi"
	"cove.example/cove/outbound"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/task"
	"cove.example/cove/token"
	"cove.example/cove/whatif"
	"cove.example/cove/zone"
)

// registryAudience is what Entra calls tokens that are good for registries
// only (source: the documentation of Azure Container Registry).
const registryAudience = "https://containerregistry.azure.net"

// logsAudience is the public cloud's name for the API of log queries, which
// clients have compiled in (source: the reference of the Log Analytics API).
const logsAudience = "https://api.loganalytics.io"

// managementAudiences are what tokens for the control plane are made out to.
// The public cloud's is not where it answers: clients that have that cloud
// compiled in ask for the name of the service that ARM took the place of
// (azcore's cloud.AzurePublic; az's activeDirectoryResourceId).
func managementAudiences(host string) []string {
	out := []string{endpointURL(host)}
	if host == "management.azure.com" {
		out = append(out, "https://management.core.windows.net")
	}
	return out
}

// server is a running cove: what is wired to what. Every choice of an adapter
// is made here.
type server struct {
	config *config
	log    *slog.Logger
	now    func() time.Time

	closers closers
	servers servers
	loops   *background
	run     running

	data      *os.Root
	box       *seal.Box
	ca        *authority.Authority
	https     []net.Listener
	advertise netip.Addr

	db        *store.DB
	events    *store.Events
	resources *store.Resources
	identity  *store.Identity

	networks   *network.Map
	views      *zone.Views
	registries *registry.Directory
	roles      *policy.Roles
	directory  *directory.Directory
	tokens     *token.Tokens
	content    *content.Store
	blobs      *disk.Blobs
	service    *resource.Service
	registry   *ociapi.Server
	router     *door.Router
	dns        *dnsapi.Server
	outbound   *outbound.Dialer
	delivery   *insight.Delivery
	meter      *meter
	overlay    *wireguard.Switch
	ways       *ways
	metadata   *imdsapi.Server

	drift         *drift.Runner
	answers       *prometheus.CounterVec // of DNS
	cutOff        *prometheus.CounterVec // at listeners for balancers
	wireguardNote string
}

func (s *server) close() error {
	var err error
	if s.loops != nil {
		err = s.loops.stop()
	}
	return errors.Join(err, s.closers.close())
}

func (s *server) openData(context.Context) error {
	dir, err := filepath.Abs(s.config.Data)
	if err != nil {
		return err
	}
	s.config.Data = dir
	var lock *os.File
	if s.data, lock, err = s.config.openData(); err != nil {
		return err
	}
	s.closers.add(lock.Close)
	s.closers.add(s.data.Close)
	if s.box, err = seal.OpenFile(s.data, "master.key"); err != nil {
		return withData(err, dir)
	}
	if s.ca, err = authority.Open(s.data, s.now); err != nil {
		return withData(err, dir)
	}
	if s.config.TLSCert != "" {
		if s.ca.Operator, err = authority.OpenOperator(s.config.TLSCert, s.config.TLSKey, s.now); err != nil {
			return err
		}
	}
	return nil
}

// openListeners takes the public ports before anything is written, so that a
// port that is taken costs nothing.
func (s *server) openListeners(context.Context) (err error) {
	if s.https, err = s.config.listenHTTPS(); err != nil {
		return err
	}
	for _, l := range s.https {
		s.closers.add(l.Close)
		s.run.Listen = append(s.run.Listen, l.Addr().String())
	}
	s.advertise, err = s.config.advertised(s.https)
	s.run.Advertise = s.advertise.String()
	return err
}

func (s *server) openStore(ctx context.Context) (err error) {
	url := s.config.Database
	if url == "" {
		url = store.SQLiteURL(filepath.Join(s.config.Data, "cove.db"))
	}
	if s.db, err = store.Open(ctx, url, store.Options{Now: s.now, Log: s.log}); err != nil {
		return err
	}
	s.closers.add(s.db.Close)
	if s.events, err = s.db.Events(ctx); err != nil {
		return err
	}
	s.closers.add(s.events.Close)
	s.resources, s.identity = store.NewResources(s.db), store.NewIdentity(s.db)
	if s.blobs, err = disk.Open(filepath.Join(s.config.Data, "blobs")); err != nil {
		return withData(err, s.config.Data)
	}
	s.closers.add(s.blobs.Close)
	s.content = content.New(store.NewContent(s.db), s.blobs, content.Options{Now: s.now})
	return nil
}

// found makes what a deployment begins with: one tenant, one subscription and
// the service principal in admin.json that owns it.
func (s *server) found(ctx context.Context) error {
	saved := false
	save := func(_ context.Context, a directory.Admin) error {
		saved = true
		return s.saveAdmin(a)
	}
	_, created, err := directory.Bootstrap(ctx, s.identity, s.now(), save, s.ownAll)
	switch {
	case err != nil || created:
		return err
	case saved:
		// Another node of this database was faster; its file is the one.
		return s.data.Remove(adminFile)
	case s.config.RenewAdmin:
		return directory.Readmit(ctx, s.identity, s.now(), save, s.ownAll)
	}
	return s.refreshAdmin()
}

// assemble wires nouns, adapters and edges to each other.
func (s *server) assemble(ctx context.Context) error {
	c := s.config
	s.loops = newBackground(s.log)
	registries := registry.Config{
		Suffix: c.RegistrySuffix, Aliases: c.aliases(), DefaultPublicAccess: c.publicAccess(), Sealer: s.box, Now: s.now, Size: s.content.Size,
		Tagged: s.tagged,
	}
	var err error
	if registries.EndpointLimits, err = endpointLimits(c.EndpointLimits); err != nil {
		return err
	}
	trusted, err := trustedServices(c.TrustedServices)
	if err != nil {
		return err
	}
	storage := &registry.Storage{Size: s.content.Size, Now: s.now}
	registries.Room = storage.Room
	zones := zone.Config{Suffix: c.RegistrySuffix}
	frontEnd, err := netip.ParseAddr(c.ServiceFrontEnd)
	if err != nil {
		return err
	}
	attached, _ := c.attachments() // what is wrong with them was told at the start
	networks := network.Config{
		Attached: attached.way, Sealer: s.box, Registry: registries, FrontEnd: frontEnd, Regions: c.regions(), Now: s.now,
		Management: endpointURL(c.HostManagement), Fingerprint: s.ca.Fingerprint(), Dial: s.dial(),
		EndpointChanged: []func(context.Context, resource.Tx, resource.Doc) error{zones.EndpointChanged},
	}
	if err := s.openOverlay(&networks); err != nil {
		return err
	}
	if err := s.openWays(attached, frontEnd); err != nil {
		return err
	}

	// What the data path must know, each kept current by following the
	// store; a change through obeyed is in force before it is acknowledged.
	s.networks = network.NewMap(s.resources, networks, s.log)
	s.registries = registry.NewDirectory(s.resources, registries)
	s.roles = policy.NewRoles(s.resources)
	public, err := zone.NewPublic(zone.Names{
		Domain: c.Domain, Suffix: c.RegistrySuffix, Hosts: []string{c.HostManagement, c.HostLogin, c.HostGraph, c.HostLogs, c.HostPortal},
		Regions: c.regions(), Down: c.RouteAround, Advertise: []netip.Addr{s.advertise}, Aliases: s.aliasHosts(),
	}, registryNames{s.registries})
	if err != nil {
		return err
	}
	s.views = zone.NewViews(s.resources, public, s.log)
	obeyed := s.views.Obeyed(s.networks.Obeyed(s.resources))
	if err := errors.Join(s.networks.Load(ctx), s.views.Load(ctx)); err != nil {
		return err
	}

	if err := s.openOutbound(); err != nil {
		return err
	}
	s.directory = directory.New(s.identity, s.now)
	s.roles.Groups, s.roles.Now = s.directory.Groups, s.now
	keys, err := token.OpenKeys(ctx, store.NewKeys(s.db), s.box, s.now)
	if errors.Is(err, seal.ErrOpen) {
		return fault.Newf(fault.Invalid, "%s is not the key that this database was sealed under: put back the one that belongs to it", filepath.Join(c.Data, "master.key"))
	}
	if err != nil {
		return err
	}
	management := managementAudiences(c.HostManagement)
	login := loginapi.Config{Hosts: []string{c.HostLogin}, Audiences: append([]string{registryAudience, logsAudience, endpointURL(c.HostGraph), endpointURL(c.HostLogs)}, management...)}
	s.tokens = token.New(keys, login.Issuer)
	s.tokens.SetLives(token.Lives{Refresh: c.RefreshTokenLifetime, Registry: c.AccessTokenLifetime})

	registries.RegionsChanged = networks.RegionsChanged
	types := []resource.Type{registry.Type(registries), registry.Replications(registries), registry.ScopeMaps(), registry.Tokens(registries), policy.Assignments(s.principalType), policy.Definitions()}
	types = append(append(types, network.Types(networks)...), zone.Types(zones)...)
	insights, err := s.openInsight()
	if err != nil {
		return err
	}
	types = append(types, insight.Types(insights)...)
	types = s.bearing(types)
	if s.service, err = resource.New(resource.Config{Store: obeyed, Types: types, Locations: c.regions(), Now: s.now}); err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}

	guard := &access.Guard{
		Registries: s.registries, Networks: s.networks, Links: s.ways.links, Tokens: s.tokens, Directory: s.directory, Roles: s.roles,
		Now: s.now, Audiences: append([]string{registryAudience}, management...), Failures: s.log,
		Trusted: trusted, RegistryAudience: registryAudience, Scoped: s.registries, Guesses: access.NewThrottle(),
	}
	joiner := network.Joiner{Store: obeyed, Config: networks}
	tenant, err := s.tenant(ctx)
	if err != nil {
		return err
	}
	subscription, err := s.subscription(ctx)
	if err != nil {
		return err
	}
	s.drift = &drift.Runner{Look: s.watch(subscription).Look, Every: lookEvery, Log: s.log, Tell: s.noticed}
	asker := &whatif.Asker{
		Guard: guard, Networks: s.networks, Zones: s.views, Registries: s.registries, Resources: s.service,
		Store: s.resources, People: s.identity, Past: s.past, Events: s.events, FrontEnd: frontEnd, Now: s.now,
		NamesElsewhere: attached.namesElsewhere, LinkTo: s.ways.links.to, Referrer: s.isReferrer,
	}
	desk := audit.NewDesk(s.events, s.now)
	manage, err := armapi.New(armapi.Config{
		Service: s.service, Host: c.HostManagement, Authority: endpointURL(c.HostLogin) + "/" + tenant, Now: s.now, Log: s.log,
		Auth:   &access.ARM{Tokens: s.tokens, Directory: s.directory, Roles: s.roles, Audiences: management},
		Groups: s.directory.Groups, History: s.resources, Refusals: s.events,
		Extra: append([]armapi.Route{armapi.Decisions(s.events, guard, s.now), armapi.Events(s.events), armapi.Findings(s.drift.Look), armapi.Can(asker), armapi.Who(asker), armapi.Flips(asker), armapi.Join(joiner), armapi.Metadata(c.names()), armapi.ServiceTags(networks.ServiceTags(s.advertise), c.regions())}, armapi.Logs(desk, s.service, s.now)...),
	})
	if err != nil {
		return err
	}
	s.meter = newMeter(s.events)
	guard.Observe = s.meter.decided
	s.registry = &ociapi.Server{Guard: guard, Tokens: guard, Content: s.content, Log: s.meter, Now: s.now, Failures: s.log, Rates: s.rates(), Room: storage.Room, Route: public.Route}
	s.router = &door.Router{
		Hosts: map[string]http.Handler{
			c.HostManagement: manage,
			c.HostGraph: graphapi.New(graphapi.Config{
				Directory: s.directory, Host: c.HostGraph, Now: s.now, Log: s.log,
				Auth: &access.ARM{Tokens: s.tokens, Directory: s.directory, Roles: s.roles, Audiences: []string{endpointURL(c.HostGraph)}},
			}),
			c.HostLogs: logapi.New(logapi.Config{
				Desk: desk, Service: s.service, Now: s.now, Log: s.log,
				Auth: &access.ARM{Tokens: s.tokens, Directory: s.directory, Roles: s.roles, Audiences: append([]string{logsAudience, endpointURL(c.HostLogs)}, management...)},
			}),
			c.HostLogin: &loginapi.Server{
				Config: login, Tokens: s.tokens, Directory: s.directory, Issuers: s.issuers(), People: true, Now: s.now, Log: s.log,
				Devices: &device.Desk{Store: store.NewDevices(s.db), Now: s.now}, Guesses: access.NewThrottle(),
			},
		},
		Registry:   s.registry,
		IsRegistry: s.isRegistry,
	}
	s.ca.Serves = s.router.Serves
	if s.overlay != nil {
		s.metadata = s.newMetadata(login.Audiences)
	}
	if err := s.openDNS(frontEnd); err != nil {
		return err
	}
	s.startLoops(joiner, keys)
	return nil
}

// isReferrer reports whether a manifest belongs to another one.
func (s *server) isReferrer(ctx context.Context, uid, repository, digest string) (bool, error) {
	repo, err := oci.ParseRepo(repository)
	if err != nil {
		return false, err
	}
	d, err := oci.ParseDigest(digest)
	if err != nil {
		return false, err
	}
	m, err := s.content.Manifest(ctx, content.Key{Registry: uid, Repo: repo}, oci.Reference{Digest: d})
	if kind, _ := fault.Of(err); err != nil && kind != fault.Internal {
		return false, nil // not there, or not to be read: deleting it by this right is refused too
	}
	return err == nil && !m.Subject.IsZero(), err
}

// rates are the rate limits of registries, nil where the operator wants none.
func (s *server) rates() *access.Rates {
	if f, err := rateFactor(s.config.RateLimits); err == nil && f > 0 {
		return access.NewRates(f)
	}
	return nil
}

// openDNS makes the DNS edge. Other names are asked of the operator's
// resolvers, or of those that this machine uses.
func (s *server) openDNS(frontEnd netip.Addr) error {
	var upstreams []netip.AddrPort
	for _, u := range s.config.DNSUpstream {
		ap, err := netip.ParseAddrPort(u)
		if err != nil {
			return err
		}
		upstreams = append(upstreams, ap)
	}
	if upstreams == nil {
		var err error
		if upstreams, err = dnsapi.SystemResolvers("/etc/resolv.conf"); err != nil {
			s.log.Info("this machine's resolvers are not known; inside virtual networks only cove's own names resolve", "err", err)
		}
	}
	own := []netip.AddrPort{netip.AddrPortFrom(s.advertise, 53)}
	if ap, err := netip.ParseAddrPort(s.config.DNS); err == nil {
		own = append(own, ap)
	}
	for _, n := range s.ways.attachments.host {
		if n.Resolver.IsValid() {
			own = append(own, netip.AddrPortFrom(n.Resolver, 53))
		}
	}
	s.answers = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cove_dns_answers_total", Help: "Answers by view and code."}, []string{"view", "rcode"})
	s.dns = dnsapi.New(dnsapi.Config{
		Views: s.views.Of, FrontEnd: s.serviceFrontEnd(frontEnd), Forward: dnsapi.NewForwarder(upstreams, own), Now: s.now,
		Observe: func(view, rcode string) { s.answers.WithLabelValues(view, rcode).Inc() },
	})
	return nil
}

// startLoops starts what goes on beside the requests.
func (s *server) startLoops(joiner network.Joiner, keys *token.Keys) {
	s.loops.run("networks", s.networks.Run)
	s.loops.run("zones", s.views.Run)
	s.loops.run("registries", s.registries.Run)
	s.loops.run("roles", s.roles.Run)
	s.loops.run("directory", s.directory.Run)
	s.loops.run("keys", keys.Run)
	s.loops.run("key rotation", keys.Tend)
	s.loops.run("overlay", func(ctx context.Context) error { return s.networks.Reconcile(ctx, s.ways) })
	runner := &task.Runner{Queue: s.db, Now: s.now, Log: s.log, Handlers: map[string]task.Handler{
		registry.DropTask: func(ctx context.Context, h *task.Held) error {
			var d registry.Drop
			if err := json.Unmarshal(h.Body, &d); err != nil {
				return err
			}
			return s.content.DropRegistry(ctx, d.UID)
		},
		registry.RetentionTask: s.retain,
		network.TaskExpireCode: func(ctx context.Context, h *task.Held) error { return joiner.Expire(ctx, h.Task) },
	}}
	s.loops.run("tasks", runner.Run)
	s.loops.run("housekeeping", s.keepHouse)
	s.loops.run("drift", s.drift.Run)
}

// begin makes the documents of the tenant and the subscription.
func (s *server) begin(ctx context.Context) error {
	subs, err := s.identity.Subscriptions(ctx)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		if err := s.service.Begin(ctx, resource.First{Tenant: sub.Tenant, TenantName: "cove", Subscription: sub.ID, SubscriptionName: sub.Name}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) tenant(ctx context.Context) (string, error) {
	tenants, err := s.identity.Tenants(ctx)
	if err != nil {
		return "", err
	}
	if len(tenants) == 0 {
		return "", errors.New("the directory has no tenant")
	}
	return tenants[0].ID, nil
}

// subscription is the first start's.
func (s *server) subscription(ctx context.Context) (arm.ID, error) {
	all, err := s.identity.Subscriptions(ctx)
	if err != nil {
		return arm.ID{}, err
	}
	if len(all) == 0 {
		return arm.ID{}, errors.New("the directory has no subscription")
	}
	return resource.SubscriptionID(all[0].ID), nil
}

// principalType is policy.TypeOf.
func (s *server) principalType(ctx context.Context, objectID string) (string, error) {
	p, err := s.directory.Principal(ctx, objectID)
	return map[string]string{directory.ServicePrincipal: "ServicePrincipal", directory.User: "User", directory.Group: "Group"}[p.Kind], err
}

// isRegistry reports whether host is a registry's.
func (s *server) isRegistry(ctx context.Context, host string) (bool, error) {
	r, err := s.registries.ByHost(ctx, host)
	if err != nil {
		s.log.Error("a registry could not be looked up", "host", host, "err", err)
	}
	return r != nil, err
}

// dial is where a machine that has nothing yet reaches the public listener.
func (s *server) dial() string {
	ap, err := netip.ParseAddrPort(s.https[0].Addr().String())
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(s.advertise, ap.Port()).String()
}

// names are the deployment's public names, as its metadata document tells them.
func (c *config) names() armapi.Names {
	return armapi.Names{
		Management: c.HostManagement, Login: c.HostLogin, Graph: c.HostGraph, Logs: c.HostLogs, Portal: c.HostPortal,
		RegistrySuffix: c.RegistrySuffix, StorageSuffix: "store." + c.Domain, VaultSuffix: "vault." + c.Domain,
	}
}

func (c *config) regions() []string { return append([]string{c.Region}, c.AlsoRegion...) }

func (c *config) publicAccess() string {
	if c.DefaultPublicAccess == "disabled" {
		return "Disabled"
	}
	return "Enabled"
}

// aliases are the further hosts of registries, by registry.
func (c *config) aliases() map[string][]string {
	out := map[string][]string{}
	for _, a := range c.Aliases {
		host, reg, _ := strings.Cut(a, "=")
		reg = strings.ToLower(reg)
		out[reg] = append(out[reg], strings.ToLower(host))
	}
	return out
}

// aliasHosts are the aliases that are names, for DNS.
func (s *server) aliasHosts() map[string]string {
	out := map[string]string{}
	for reg, hosts := range s.config.aliases() {
		for _, host := range hosts {
			if _, err := netip.ParseAddr(host); err != nil {
				out[host] = reg + "." + s.config.RegistrySuffix
			}
		}
	}
	return out
}

// registryNames is what DNS needs to know of registries.
type registryNames struct{ *registry.Directory }

func (r registryNames) ByHost(ctx context.Context, host string) (*zone.Registry, error) {
	found, err := r.Directory.ByHost(ctx, host)
	if found == nil || err != nil {
		return nil, err
	}
	return &zone.Registry{Private: found.EverPrivate, Regions: found.Routed}, nil
}

// openOverlay opens the WireGuard port and tells networks what members are
// told of it.
func (s *server) openOverlay(networks *network.Config) error {
	c := s.config
	if c.WireGuard == "" {
		return nil
	}
	open := func(addr string) (err error) {
		s.overlay, err = wireguard.Open(wireguard.Config{
			Listen: addr, HTTPS: s.serveNetwork, DNS: s.serveNetworkDNS, Metadata: s.serveNetworkMetadata, State: s.data, Logger: s.log, Now: s.now,
		})
		return err
	}
	err := open(c.WireGuard)
	if errors.Is(err, wireguard.ErrPortTaken) && !c.given["wireguard"] {
		ap, parseErr := netip.ParseAddrPort(c.WireGuard)
		if parseErr != nil {
			return parseErr
		}
		for port := ap.Port() + 1; port < ap.Port()+100 && errors.Is(err, wireguard.ErrPortTaken); port++ {
			err = open(netip.AddrPortFrom(ap.Addr(), port).String())
		}
		s.wireguardNote = " (51820 is taken)"
	}
	if err != nil {
		return err
	}
	s.closers.add(s.overlay.Close)
	s.run.WireGuard = s.overlay.Addr().String()
	networks.Endpoint = c.WireGuardEndpoint
	if networks.Endpoint == "" {
		networks.Endpoint = netip.AddrPortFrom(s.advertise, s.overlay.Addr().Port()).String()
	}
	return nil
}
