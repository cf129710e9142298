package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"cove.example/cove/fault"
	"cove.example/cove/outbound"
	"cove.example/cove/token"
)

// config is what `cove serve` can be told. Each flag is also an environment
// variable COVE_… and a key of the file given with --config; a flag goes
// before the environment, the environment before the file.
type config struct {
	File string

	Data     string
	Database string
	Blobs    string

	Domain         string
	RegistrySuffix string
	HostManagement string
	HostLogin      string
	HostGraph      string
	HostLogs       string
	HostPortal     string
	Aliases        []string

	Region     string
	AlsoRegion []string
	// RouteAround are regions that global names of registries do not lead to.
	RouteAround []string

	AlsoSubscription []string

	Listen        []string
	Advertise     string
	Connect       string
	ListenHTTP    string
	ITerminateTLS bool
	TLSCert       string
	TLSKey        string

	DNS         string
	DNSUpstream []string

	WireGuard         string
	WireGuardEndpoint string

	AttachHost    []string
	AttachHostDNS []string
	AttachProxy   []string
	ProxyListen   []string
	ProxyFrom     []string
	ProxyMap      string

	ServiceFrontEnd string
	TrustedServices string
	EndpointLimits  []string

	Admin         string
	RenewAdmin    bool
	OutboundAllow []string
	OutboundCA    string

	RefreshTokenLifetime time.Duration
	AccessTokenLifetime  time.Duration
	RateLimits           string

	KeepEvents    int
	KeepEventsGiB int
	KeepHistory   int
	SinkFolder    string

	DefaultPublicAccess string
	LogLevel            string

	given map[string]bool // settings that did not stay at their default
}

func (c *config) flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.File, "config", "", "a YAML file with these settings as keys")
	fs.StringVar(&c.Data, "data", defaultData(), "folder for everything that the embedded default keeps")
	fs.StringVar(&c.Database, "database", "", "postgres://… instead of SQLite under --data")
	fs.StringVar(&c.Blobs, "blobs", "", "where blobs are kept instead of the disk under --data")

	fs.StringVar(&c.Domain, "domain", "cove.internal", "suffix of every name that cove has")
	fs.StringVar(&c.RegistrySuffix, "registry-suffix", "", "suffix of login servers (default cr.<domain>)")
	fs.StringVar(&c.HostManagement, "host-management", "", "name of the Resource Manager (default management.<domain>)")
	fs.StringVar(&c.HostLogin, "host-login", "", "name of the token issuer (default login.<domain>)")
	fs.StringVar(&c.HostGraph, "host-graph", "", "name of the directory (default graph.<domain>)")
	fs.StringVar(&c.HostLogs, "host-logs", "", "name of the log queries (default logs.<domain>)")
	fs.StringVar(&c.HostPortal, "host-portal", "", "name of the web UI (default portal.<domain>)")
	fs.StringSliceVar(&c.Aliases, "registry-alias", nil, "HOST=REGISTRY: a further name of a registry")

	fs.StringVar(&c.Region, "region", "local", "this deployment's region")
	fs.StringSliceVar(&c.AlsoRegion, "also-region", nil, "further regions that it serves itself")
	fs.StringSliceVar(&c.RouteAround, "route-around", nil, "regions of these that registries' global names do not lead to, as long as a registry has another")
	fs.StringSliceVar(&c.AlsoSubscription, "also-subscription", nil, "names of further subscriptions, made where they are missing")

	fs.StringSliceVar(&c.Listen, "listen", nil, "HTTPS address (default 0.0.0.0:443 where that may be bound, else 127.0.0.1:8443)")
	fs.StringVar(&c.Advertise, "advertise", "", "address that the public DNS view answers (default: the listener's, or the default route's)")
	fs.StringVar(&c.Connect, "connect", "", "HTTP CONNECT proxy on loopback to cove's own names (default 127.0.0.1:8480 where 443 may not be bound, else off)")
	fs.StringVar(&c.ListenHTTP, "listen-http", "", "the data plane in plain HTTP, behind your own TLS")
	fs.BoolVar(&c.ITerminateTLS, "i-terminate-tls", false, "allow --listen-http off loopback")
	fs.StringVar(&c.TLSCert, "tls-cert", "", "PEM file of your own certificate and chain, used for the names it covers")
	fs.StringVar(&c.TLSKey, "tls-key", "", "PEM file of its key")

	fs.StringVar(&c.DNS, "dns", "127.0.0.1:5300", "public DNS view, UDP and TCP; also on ADVERTISE:53 where that may be bound; empty is off")
	fs.StringSliceVar(&c.DNSUpstream, "dns-upstream", nil, "resolvers for other names asked inside virtual networks (default: this host's)")

	fs.StringVar(&c.WireGuard, "wireguard", "0.0.0.0:51820", "UDP address of the overlay networks; empty is off")
	fs.StringVar(&c.WireGuardEndpoint, "wireguard-endpoint", "", "HOST:PORT that members are told (default: the advertised address and that port)")
	fs.StringSliceVar(&c.AttachHost, "attach-host", nil, "VNET=RANGE: a virtual network, by its resource id, whose private endpoints are this machine's own addresses in that range")
	fs.StringSliceVar(&c.AttachHostDNS, "attach-host-dns", nil, "VNET=ADDRESS: where the resolver of such a network answers")
	fs.StringSliceVar(&c.AttachProxy, "attach-proxy", nil, "VNET: a virtual network, by its resource id, that is a cloud's, reached through its balancers")
	fs.StringSliceVar(&c.ProxyListen, "proxy-listen", nil, "HTTPS address for balancers that send the PROXY protocol, version 2")
	fs.StringSliceVar(&c.ProxyFrom, "proxy-from", nil, "addresses or ranges of those balancers; nobody else is listened to there")
	fs.StringVar(&c.ProxyMap, "proxy-map", "", "YAML file that leads private links of clouds to private endpoints; a change is obeyed within a second")
	fs.StringVar(&c.ServiceFrontEnd, "service-front-end", "100.100.100.100", "address of the registry's public side inside virtual networks")

	fs.StringVar(&c.TrustedServices, "trusted-services", "", "YAML file of the services that may pass network rules, over the built-in table")
	fs.StringSliceVar(&c.EndpointLimits, "private-endpoint-limit", nil, "REGISTRY=NUMBER: how many private endpoints a registry may have, where it is not 200, or 10 for one made before October 2021")

	fs.StringVar(&c.Admin, "admin", "127.0.0.1:9464", "plain HTTP: /healthz, /readyz, /metrics; empty is off")
	fs.BoolVar(&c.RenewAdmin, "renew-admin", false, "write a new admin.json, for one more service principal that owns the subscription, when the old one is lost")
	fs.StringSliceVar(&c.OutboundAllow, "outbound-allow", nil, "FEATURE=CIDR: a private range that a feature may reach")
	fs.StringVar(&c.OutboundCA, "outbound-ca", "", "PEM file of further authorities that may sign for the hosts that features reach")
	fs.DurationVar(&c.RefreshTokenLifetime, "refresh-token-lifetime", token.RefreshLife, "how long a login to a registry lasts, 5m to 24h")
	fs.DurationVar(&c.AccessTokenLifetime, "access-token-lifetime", token.RegistryLife, "how long a registry's access tokens last, 5m to 24h")
	fs.StringVar(&c.RateLimits, "rate-limits", "on", "rate limits of registries: on, off, or a number that they are multiplied by")
	fs.IntVar(&c.KeepEvents, "keep-events", 90, "for how many days login and repository events are kept")
	fs.IntVar(&c.KeepEventsGiB, "keep-events-gib", 20, "how much they may take, in GiB: the oldest days are deleted sooner")
	fs.IntVar(&c.KeepHistory, "keep-history", 400, "for how many days it is kept who could do what, from where")
	fs.StringVar(&c.SinkFolder, "sink-folder", "", "folder for the files of sinks (default: sinks in the data folder)")
	fs.StringVar(&c.DefaultPublicAccess, "default-public-access", "enabled", "public access of new registries: enabled or disabled")
	fs.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
}

// defaultData is /var/lib/cove for root, else the XDG data folder.
func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/cove"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "cove")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "cove-data"
	}
	return filepath.Join(home, ".local", "share", "cove")
}

// settle fills in from the environment and the file what no flag has given,
// derives the rest and returns every problem.
func (c *config) settle(fs *pflag.FlagSet, env func(string) (string, bool)) error {
	if !fs.Changed("config") {
		if v, ok := env("COVE_CONFIG"); ok {
			c.File = v
		}
	}
	file := map[string]setting{}
	if c.File != "" {
		var err error
		if file, err = readConfig(c.File, fs); err != nil {
			return err
		}
	}
	var problems []error
	c.given = map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "config" || f.Name == "help" {
			c.given[f.Name] = f.Changed
			return
		}
		name := envName(f.Name)
		if v, ok := env(name); ok {
			if err := fs.Set(f.Name, v); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
			c.given[f.Name] = true
			return
		}
		if s, ok := file[f.Name]; ok {
			for _, v := range s.values {
				if err := fs.Set(f.Name, v); err != nil {
					problems = append(problems, fmt.Errorf("%s:%d: %s: %w", c.File, s.line, f.Name, err))
				}
			}
			c.given[f.Name] = true
		}
	})
	if err := errors.Join(problems...); err != nil {
		return err
	}
	c.derive()
	return c.check()
}

// envName is the environment variable of a flag: --also-region is
// COVE_ALSO_REGION.
func envName(flag string) string {
	return "COVE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

type setting struct {
	line   int
	values []string
}

const maxConfig = 1 << 20

func readConfig(name string, fs *pflag.FlagSet) (map[string]setting, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "the configuration file cannot be read: %v", err)
	}
	if info.Size() > maxConfig {
		return nil, fault.Newf(fault.Invalid, "%s is larger than a configuration file may be (1 MiB)", name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "the configuration file cannot be read: %v", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fault.Newf(fault.Invalid, "%s: %v", name, err)
	}
	out := map[string]setting{}
	if len(doc.Content) == 0 {
		return out, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fault.Newf(fault.Invalid, "%s:%d: expected settings as `key: value`", name, root.Line)
	}
	var problems []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		bad := func(format string, args ...any) {
			problems = append(problems, fmt.Errorf("%s:%d: "+format, append([]any{name, k.Line}, args...)...))
		}
		if fs.Lookup(k.Value) == nil || k.Value == "config" || k.Value == "help" {
			bad("unknown setting %q%s", k.Value, near(k.Value, fs))
			continue
		}
		if _, twice := out[k.Value]; twice {
			bad("%s is given twice", k.Value)
			continue
		}
		s := setting{line: k.Line}
		switch v.Kind {
		case yaml.ScalarNode:
			s.values = []string{v.Value}
		case yaml.SequenceNode:
			for _, item := range v.Content {
				if item.Kind != yaml.ScalarNode {
					bad("%s: a list of plain values is expected", k.Value)
					continue
				}
				s.values = append(s.values, item.Value)
			}
		default:
			bad("%s: a value or a list of values is expected", k.Value)
			continue
		}
		out[k.Value] = s
	}
	return out, errors.Join(problems...)
}

// near suggests the setting that a misspelt one was probably meant to be.
func near(word string, fs *pflag.FlagSet) string {
	best, at := "", 3
	fs.VisitAll(func(f *pflag.Flag) {
		if d := levenshtein.ComputeDistance(word, f.Name); d < at {
			best, at = f.Name, d
		}
	})
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

func (c *config) derive() {
	c.Domain = strings.ToLower(strings.Trim(c.Domain, "."))
	if c.RegistrySuffix == "" {
		c.RegistrySuffix = "cr." + c.Domain
	}
	c.RegistrySuffix = strings.ToLower(strings.Trim(c.RegistrySuffix, "."))
	for _, h := range []struct {
		name *string
		word string
	}{{&c.HostManagement, "management"}, {&c.HostLogin, "login"}, {&c.HostGraph, "graph"}, {&c.HostLogs, "logs"}, {&c.HostPortal, "portal"}} {
		if *h.name == "" {
			*h.name = h.word + "." + c.Domain
		}
		*h.name = strings.ToLower(*h.name)
	}
}

func (c *config) check() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for flag, name := range map[string]string{
		"domain": c.Domain, "registry-suffix": c.RegistrySuffix, "host-management": c.HostManagement,
		"host-login": c.HostLogin, "host-graph": c.HostGraph, "host-logs": c.HostLogs, "host-portal": c.HostPortal,
	} {
		if !hostName(name) {
			bad("--%s: %q is not a host name", flag, name)
		}
	}
	for _, a := range append(slices.Clone(c.Listen), nonEmpty(c.DNS, c.WireGuard, c.Admin, c.Connect, c.ListenHTTP)...) {
		if _, err := netip.ParseAddrPort(a); err != nil {
			bad("%q is not an address and port such as 127.0.0.1:8443", a)
		}
	}
	for i, a := range c.DNSUpstream {
		if ip, err := netip.ParseAddr(a); err == nil {
			c.DNSUpstream[i] = netip.AddrPortFrom(ip, 53).String()
		} else if _, err := netip.ParseAddrPort(a); err != nil {
			bad("--dns-upstream %q is not an address", a)
		}
	}
	for _, a := range nonEmpty(c.Connect) {
		if ap, err := netip.ParseAddrPort(a); err == nil && !ap.Addr().IsLoopback() {
			bad("--connect %s: the CONNECT proxy listens on loopback only", a)
		}
	}
	for _, a := range nonEmpty(c.ListenHTTP) {
		if ap, err := netip.ParseAddrPort(a); err == nil && !ap.Addr().IsLoopback() && !c.ITerminateTLS {
			bad("--listen-http %s: passwords would cross the network in the clear. If TLS ends in front of cove, add --i-terminate-tls", a)
		}
	}
	for _, a := range c.Aliases {
		if host, reg, ok := strings.Cut(a, "="); !ok || reg == "" || !hostName(strings.ToLower(host)) {
			bad("--registry-alias %q: expected HOST=REGISTRY", a)
		}
	}
	if _, wrong := outbound.ParseAllow(c.OutboundAllow); len(wrong) > 0 {
		for _, err := range wrong {
			bad("--outbound-allow %w", err)
		}
	}
	if c.Advertise != "" {
		if a, err := netip.ParseAddr(c.Advertise); err != nil || !unicast(a) {
			bad("--advertise %q is not a unicast address", c.Advertise)
		}
	}
	if a, err := netip.ParseAddr(c.ServiceFrontEnd); err != nil || !a.Is4() {
		bad("--service-front-end %q is not an IPv4 address", c.ServiceFrontEnd)
	}
	_, wrong := c.attachments()
	problems = append(problems, wrong...)
	if _, err := endpointLimits(c.EndpointLimits); err != nil {
		bad("%w", err)
	}
	if c.KeepEvents < 1 || c.KeepEvents > 3650 {
		bad("--keep-events %d: 1 to 3650 days", c.KeepEvents)
	}
	if c.KeepHistory < 1 || c.KeepHistory > 3650 {
		bad("--keep-history %d: 1 to 3650 days", c.KeepHistory)
	}
	if c.KeepEventsGiB < 1 || c.KeepEventsGiB > 1<<20 {
		bad("--keep-events-gib %d: at least 1", c.KeepEventsGiB)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("--tls-cert and --tls-key go together")
	}
	for _, r := range append([]string{c.Region}, c.AlsoRegion...) {
		if r == "" || strings.Trim(r, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			bad("region %q: lower-case letters and digits only", r)
		}
	}
	for _, r := range c.RouteAround {
		if r != c.Region && !slices.Contains(c.AlsoRegion, r) {
			bad("--route-around %q is none of the regions of --region and --also-region", r)
		}
	}
	for _, name := range c.AlsoSubscription {
		if name == "" || len(name) > 64 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789 ._-") != "" || strings.TrimSpace(name) != name {
			bad("--also-subscription %q: 1 to 64 letters, digits, spaces, dots, underscores and hyphens", name)
		}
	}
	if c.Database != "" && !strings.HasPrefix(c.Database, "postgres://") && !strings.HasPrefix(c.Database, "postgresql://") {
		bad("--database: expected postgres://…")
	}
	if c.Blobs != "" {
		scheme, _, _ := strings.Cut(c.Blobs, "://")
		switch scheme {
		case "s3", "azblob":
			bad("--blobs %s://: not in this version; leave it out to keep blobs on the disk under --data", scheme)
		default:
			bad("--blobs: expected s3://… or azblob://…")
		}
	}
	for flag, life := range map[string]time.Duration{"refresh-token-lifetime": c.RefreshTokenLifetime, "access-token-lifetime": c.AccessTokenLifetime} {
		if life < token.MinLife || life > token.MaxLife || life%time.Second != 0 {
			bad("--%s %v: 5m to 24h, in whole seconds", flag, life)
		}
	}
	if _, err := rateFactor(c.RateLimits); err != nil {
		bad("--rate-limits: %w", err)
	}
	switch c.DefaultPublicAccess {
	case "enabled", "disabled":
	default:
		bad("--default-public-access: enabled or disabled, not %q", c.DefaultPublicAccess)
	}
	return errors.Join(problems...)
}

// rateFactor is what the documented rate limits are multiplied by; 0 is none.
func rateFactor(s string) (float64, error) {
	switch s {
	case "on":
		return 1, nil
	case "off":
		return 0, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0.01 && f <= 1000) {
		return 0, fmt.Errorf("on, off or a number from 0.01 to 1000, not %q", s)
	}
	return f, nil
}

func unicast(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() }

func nonEmpty(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}
