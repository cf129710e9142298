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
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/access"
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

// wiring is what the parts are made from and needed for no longer than that.
type wiring struct {
	registries registry.Config
	networks   network.Config
	zones      zone.Config
	login      loginapi.Config
	management []string // audiences of the control plane
	trusted    *access.Trusted
	frontEnd   netip.Addr
	attached   *attachments
	storage    *registry.Storage

	obeyed resource.Store // a change through it is in force before it is acknowledged
	public *zone.Public
	keys   *token.Keys
}

// assemble wires nouns, adapters and edges to each other.
func (s *server) assemble(ctx context.Context) error {
	s.loops = newBackground(s.log)
	w, err := s.wiring()
	if err != nil {
		return err
	}
	if err := s.openOverlay(&w.networks); err != nil {
		return err
	}
	if err := s.openWays(w.attached, w.frontEnd); err != nil {
		return err
	}
	if err := s.openOutbound(); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *wiring) error{s.follow, s.openTokens, s.openService, s.openEdges} {
		if err := step(ctx, w); err != nil {
			return err
		}
	}
	if err := s.openDNS(w.frontEnd); err != nil {
		return err
	}
	s.startLoops(w)
	return nil
}

// wiring reads the configuration.
func (s *server) wiring() (*wiring, error) {
	c := s.config
	limits, err := endpointLimits(c.EndpointLimits)
	if err != nil {
		return nil, err
	}
	trusted, err := trustedServices(c.TrustedServices)
	if err != nil {
		return nil, err
	}
	frontEnd, err := netip.ParseAddr(c.ServiceFrontEnd)
	if err != nil {
		return nil, err
	}
	attached, _ := c.attachments() // what is wrong with them was told at the start
	management := managementAudiences(c.HostManagement)
	w := &wiring{
		zones:      zone.Config{Suffix: c.RegistrySuffix},
		management: management, trusted: trusted, frontEnd: frontEnd, attached: attached,
		storage: &registry.Storage{Size: s.content.Size, Now: s.now},
		login: loginapi.Config{
			Hosts:     []string{c.HostLogin},
			Audiences: append([]string{registryAudience, logsAudience, endpointURL(c.HostGraph), endpointURL(c.HostLogs)}, management...),
		},
	}
	w.registries = registry.Config{
		Suffix: c.RegistrySuffix, Aliases: c.aliases(), DefaultPublicAccess: c.publicAccess(), EndpointLimits: limits,
		Sealer: s.box, Now: s.now, Size: s.content.Size, Tagged: s.tagged, Room: w.storage.Room,
	}
	w.networks = network.Config{
		Attached: attached.way, Sealer: s.box, Registry: w.registries, FrontEnd: frontEnd, Regions: c.regions(), Now: s.now,
		Management: endpointURL(c.HostManagement), Fingerprint: s.ca.Fingerprint(), Dial: s.dial(),
		EndpointChanged: []func(context.Context, resource.Tx, resource.Doc) error{w.zones.EndpointChanged},
	}
	return w, nil
}

// follow makes what the data path must know, each kept current by following
// the store.
func (s *server) follow(ctx context.Context, w *wiring) (err error) {
	c := s.config
	s.directory = directory.New(s.identity, s.now)
	s.networks = network.NewMap(s.resources, w.networks, s.log)
	s.registries = registry.NewDirectory(s.resources, w.registries)
	s.roles = policy.NewRoles(s.resources)
	s.roles.Groups, s.roles.Now = s.directory.Groups, s.now
	w.public, err = zone.NewPublic(zone.Names{
		Domain: c.Domain, Suffix: c.RegistrySuffix, Hosts: []string{c.HostManagement, c.HostLogin, c.HostGraph, c.HostLogs, c.HostPortal},
		Regions: c.regions(), Down: c.RouteAround, Advertise: []netip.Addr{s.advertise}, Aliases: s.aliasHosts(),
	}, registryNames{s.registries})
	if err != nil {
		return err
	}
	s.views = zone.NewViews(s.resources, w.public, s.log)
	w.obeyed = s.views.Obeyed(s.networks.Obeyed(s.resources))
	return errors.Join(s.networks.Load(ctx), s.views.Load(ctx))
}

func (s *server) openTokens(ctx context.Context, w *wiring) (err error) {
	w.keys, err = token.OpenKeys(ctx, store.NewKeys(s.db), s.box, s.now)
	if errors.Is(err, seal.ErrOpen) {
		return fault.Newf(fault.Invalid, "%s is not the key that this database was sealed under: put back the one that belongs to it", filepath.Join(s.config.Data, "master.key"))
	}
	if err != nil {
		return err
	}
	s.tokens = token.New(w.keys, w.login.Issuer)
	s.tokens.SetLives(token.Lives{Refresh: s.config.RefreshTokenLifetime, Registry: s.config.AccessTokenLifetime})
	return nil
}

// openService makes the control plane: every type of resource, and the
// documents that a deployment begins with.
func (s *server) openService(ctx context.Context, w *wiring) error {
	insights, err := s.openInsight()
	if err != nil {
		return err
	}
	registries := w.registries
	registries.RegionsChanged = w.networks.RegionsChanged
	types := slices.Concat(
		[]resource.Type{registry.Type(registries), registry.Replications(registries), registry.ScopeMaps(), registry.Tokens(registries)},
		[]resource.Type{policy.Assignments(s.principalType), policy.Definitions()},
		network.Types(w.networks), zone.Types(w.zones), insight.Types(insights),
	)
	s.service, err = resource.New(resource.Config{Store: w.obeyed, Types: s.bearing(types), Locations: s.config.regions(), Now: s.now})
	if err != nil {
		return err
	}
	return s.begin(ctx)
}

// openEdges makes what answers at each name, around the one guard that decides.
func (s *server) openEdges(ctx context.Context, w *wiring) error {
	c := s.config
	guard := &access.Guard{
		Registries: s.registries, Networks: s.networks, Links: s.ways.links, Tokens: s.tokens, Directory: s.directory, Roles: s.roles,
		Now: s.now, Audiences: append([]string{registryAudience}, w.management...), Failures: s.log,
		Trusted: w.trusted, RegistryAudience: registryAudience, Scoped: s.registries, Guesses: access.NewThrottle(),
	}
	s.meter = newMeter(s.events)
	guard.Observe = s.meter.decided
	s.registry = &ociapi.Server{Guard: guard, Tokens: guard, Content: s.content, Log: s.meter, Now: s.now, Failures: s.log, Rates: s.rates(), Room: w.storage.Room, Route: w.public.Route}
	desk := audit.NewDesk(s.events, s.now)
	manage, err := s.manage(ctx, w, guard, desk)
	if err != nil {
		return err
	}
	s.router = &door.Router{
		Hosts: map[string]http.Handler{
			c.HostManagement: manage,
			c.HostGraph: graphapi.New(graphapi.Config{
				Directory: s.directory, Host: c.HostGraph, Now: s.now, Log: s.log, Auth: s.auth(endpointURL(c.HostGraph)),
			}),
			c.HostLogs: logapi.New(logapi.Config{
				Desk: desk, Service: s.service, Now: s.now, Log: s.log,
				Auth: s.auth(append([]string{logsAudience, endpointURL(c.HostLogs)}, w.management...)...),
			}),
			c.HostLogin: &loginapi.Server{
				Config: w.login, Tokens: s.tokens, Directory: s.directory, Issuers: s.issuers(), People: true, Now: s.now, Log: s.log,
				Devices: &device.Desk{Store: store.NewDevices(s.db), Now: s.now}, Guesses: access.NewThrottle(),
			},
		},
		Registry:   s.registry,
		IsRegistry: s.isRegistry,
	}
	s.ca.Serves = s.router.Serves
	if s.overlay != nil {
		s.metadata = s.newMetadata(w.login.Audiences)
	}
	return nil
}

// auth admits tokens that are made out to one of the audiences.
func (s *server) auth(audiences ...string) *access.ARM {
	return &access.ARM{Tokens: s.tokens, Directory: s.directory, Roles: s.roles, Audiences: audiences}
}

// manage is the control plane's edge, with what cove adds to Azure's.
func (s *server) manage(ctx context.Context, w *wiring, guard *access.Guard, desk *audit.Desk) (http.Handler, error) {
	c := s.config
	tenant, err := s.tenant(ctx)
	if err != nil {
		return nil, err
	}
	subscription, err := s.subscription(ctx)
	if err != nil {
		return nil, err
	}
	s.drift = &drift.Runner{Look: s.watch(subscription).Look, Every: lookEvery, Log: s.log, Tell: s.noticed}
	asker := &whatif.Asker{
		Guard: guard, Networks: s.networks, Zones: s.views, Registries: s.registries, Resources: s.service,
		Store: s.resources, People: s.identity, Past: s.past, Events: s.events, FrontEnd: w.frontEnd, Now: s.now,
		NamesElsewhere: w.attached.namesElsewhere, LinkTo: s.ways.links.to, Referrer: s.isReferrer,
	}
	return armapi.New(armapi.Config{
		Service: s.service, Host: c.HostManagement, Authority: endpointURL(c.HostLogin) + "/" + tenant, Now: s.now, Log: s.log,
		Auth:   s.auth(w.management...),
		Groups: s.directory.Groups, History: s.resources, Refusals: s.events,
		Extra: append([]armapi.Route{
			armapi.Decisions(s.events, guard, s.now), armapi.Events(s.events), armapi.Findings(s.drift.Look),
			armapi.Can(asker), armapi.Who(asker), armapi.Flips(asker), armapi.Join(w.joiner()),
			armapi.Metadata(c.names()), armapi.ServiceTags(w.networks.ServiceTags(s.advertise), c.regions()),
		}, armapi.Logs(desk, s.service, s.now)...),
	})
}

func (w *wiring) joiner() network.Joiner { return network.Joiner{Store: w.obeyed, Config: w.networks} }

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
		Routes: func(ctx context.Context, in string, from netip.Addr) ([]netip.Prefix, error) {
			return s.networks.Tell(ctx, s.resources, in, from)
		},
		RoutesName: network.RoutesName,
	})
	return nil
}

// startLoops starts what goes on beside the requests.
func (s *server) startLoops(w *wiring) {
	s.loops.run("networks", s.networks.Run)
	s.loops.run("zones", s.views.Run)
	s.loops.run("registries", s.registries.Run)
	s.loops.run("roles", s.roles.Run)
	s.loops.run("directory", s.directory.Run)
	s.loops.run("keys", w.keys.Run)
	s.loops.run("key rotation", w.keys.Tend)
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
		network.TaskExpireCode: func(ctx context.Context, h *task.Held) error { return w.joiner().Expire(ctx, h.Task) },
	}}
	s.loops.run("tasks", runner.Run)
	s.loops.run("housekeeping", s.keepHouse)
	s.loops.run("drift", s.drift.Run)
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
