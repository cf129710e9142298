package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/dns/dnsmessage"

	"cove.example/cove/client"
	"cove.example/cove/fault"
	"cove.example/cove/link/wireguard"
	"cove.example/cove/network"
)

// joinFlags are how a member uses its membership.
type joinFlags struct {
	name, kind, out  string
	up               bool
	iface            string
	userspace        bool
	replace, remove  bool
	proxy            string
	direct, metadata bool
	resolver         string
}

const (
	handshakeWait = 20 * time.Second
	joinTimeout   = 30 * time.Second
)

func (a *app) joinCommand() *cobra.Command {
	var f joinFlags
	c := a.asClient(&cobra.Command{
		Use: "join VNET/SUBNET | CODE [-- COMMAND…]", Short: "Make this machine a member of a virtual network",
		Long: `Make this machine a member of a virtual network. The key pair is made here and
the private key never leaves this machine.

Without --up or --userspace a standard WireGuard configuration is written, for
wg-quick or any other client. --up makes the interface here, until interrupted
(it needs root and /dev/net/tun). --userspace needs neither: the tunnel runs in
this process, which offers an HTTP CONNECT and SOCKS5 proxy, or runs COMMAND
with that proxy set and returns its status.

A CODE comes from cove join-code on a machine that may grant it.`,
		Example: `  cove join office/default --name laptop
  cove join cove1.eyJ1… --up
  cove join office/default --name ci --userspace -- crane pull myregistry.cr.cove.internal/hello:1 hello.tar`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			command := args[1:]
			if len(command) > 0 && cmd.ArgsLenAtDash() != 1 {
				return usagef("write -- between what to join and the command to run; see `cove join --help`")
			}
			if len(command) > 0 && !f.userspace {
				return usagef("a command runs inside the network with --userspace only")
			}
			if f.up && f.userspace {
				return usagef("--up and --userspace exclude each other")
			}
			return a.join(cmd, f, args[0], command)
		},
	})
	c.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the virtual network's resource group")
	fs := c.Flags()
	fs.StringVar(&f.name, "name", "", "the member's name (with VNET/SUBNET; a code has one already)")
	fs.StringVar(&f.kind, "kind", "vm", "what the member is: vm, aks, aci, appservice or agentpool")
	fs.StringVar(&f.out, "out", "", "where to write the configuration (default NAME.conf; - is standard output)")
	fs.BoolVar(&f.up, "up", false, "make the network interface here until interrupted")
	fs.StringVar(&f.iface, "interface", "cove0", "name of that interface")
	fs.BoolVar(&f.userspace, "userspace", false, "run the tunnel in this process; needs no root")
	fs.StringVar(&f.proxy, "proxy", proxyDefault, "where --userspace offers its proxy")
	fs.BoolVar(&f.replace, "replace", false, "take the place of a member of the same name that is gone, with a new key")
	fs.BoolVar(&f.remove, "remove", false, "end the membership of --name: its tunnel is cut and its address given up")
	fs.BoolVar(&f.direct, "direct", false, "let the proxy reach destinations outside the network too")
	fs.BoolVar(&f.metadata, "metadata", false, "route 169.254.169.254 into the tunnel")
	fs.StringVar(&f.resolver, "resolver", "", "another address for the network's resolver, where 168.63.129.16 is taken")
	return c
}

func (a *app) join(cmd *cobra.Command, f joinFlags, target string, command []string) error {
	ctx := cmd.Context()
	if f.resolver != "" {
		if other, err := netip.ParseAddr(f.resolver); err != nil || !other.Is4() {
			return usagef("--resolver %q is not an IPv4 address", f.resolver)
		}
	}
	if f.up && f.resolver == "" && resolverTaken(ctx, network.Resolver) {
		return fault.Newf(fault.Conflict, "something on this machine's own network answers DNS at %s already, as inside a cloud. Say which address this member's resolver is to have with --resolver IP", network.Resolver)
	}
	if f.remove {
		return a.leave(ctx, f, target)
	}
	// What would fail afterwards is looked at first: a code is good once.
	if code, err := network.ParseCode(target); err == nil {
		f.name = lastName(code.NIC)
	} else if f.name == "" {
		host, err := os.Hostname()
		if err != nil || host == "" {
			return usagef("say what the member is called with --name")
		}
		f.name, _, _ = strings.Cut(host, ".")
	}
	if err := f.ready(); err != nil {
		return err
	}
	var proxy net.Listener
	if f.userspace {
		l, err := f.listen(len(command) > 0)
		if err != nil {
			return err
		}
		defer l.Close()
		proxy = l
	}
	key := wireguard.NewPrivateKey()
	var got network.Configuration
	var err error
	if strings.HasPrefix(target, "cove1.") {
		got, f.name, err = redeem(ctx, target, key.Public().String(), f.resolver)
	} else {
		got, err = a.enroll(ctx, f, target, key.Public().String())
	}
	if err != nil {
		return err
	}
	conf, err := f.memberConfig(got, key)
	if err != nil {
		return err
	}
	switch {
	case f.up:
		return a.joinUp(ctx, f, conf)
	case f.userspace:
		return a.joinUserspace(ctx, f, conf, proxy, command)
	}
	return a.writeMember(f, conf)
}

// ready finds what would keep a membership from being used here.
func (f joinFlags) ready() error {
	switch {
	case f.up:
		if _, err := net.InterfaceByName(f.iface); err == nil {
			return fault.Newf(fault.Conflict, "there is an interface %s already: name another with --interface", f.iface)
		}
		tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return fault.Newf(fault.Denied, "an interface cannot be made here (/dev/net/tun: %v): run it as root, or use --userspace", errors.Unwrap(err))
		}
		return tun.Close()
	case !f.userspace && f.out != "-":
		if _, err := os.Lstat(f.file()); err == nil {
			return fault.Newf(fault.Conflict, "%s exists: name another file with --out", f.file())
		}
	}
	return nil
}

// file is where the configuration goes.
func (f joinFlags) file() string {
	if f.out != "" {
		return f.out
	}
	return f.name + ".conf"
}

// leave ends a membership that the caller may end.
func (a *app) leave(ctx context.Context, f joinFlags, target string) error {
	vnet, _, ok := strings.Cut(target, "/")
	if !ok || f.name == "" {
		return usagef("--remove: name the member, as in `cove join VNET/SUBNET --name laptop --remove`")
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	vnetID, err := a.find(ctx, cl, typeVNet, vnet)
	if err != nil {
		return err
	}
	group, _, _ := strings.Cut(vnetID, "/providers/")
	id := group + "/providers/" + typeNIC + "/" + url.PathEscape(f.name)
	if _, err := cl.Get(ctx, id+"/providers/Cove.Network/members/"+url.PathEscape(f.name)); client.NotFound(err) {
		return fault.Newf(fault.NotFound, "%s is no member of %s", f.name, vnet)
	} else if err != nil {
		return err
	}
	return cl.Delete(ctx, id)
}

// enroll makes the interface and its member with the caller's own rights.
func (a *app) enroll(ctx context.Context, f joinFlags, target, publicKey string) (network.Configuration, error) {
	vnet, subnet, ok := strings.Cut(target, "/")
	if !ok || subnet == "" {
		return network.Configuration{}, usagef("%q: name what to join as VNET/SUBNET, or give a code of `cove join-code`", target)
	}
	cl, err := a.client()
	if err != nil {
		return network.Configuration{}, err
	}
	vnetID, err := a.find(ctx, cl, typeVNet, vnet)
	if err != nil {
		return network.Configuration{}, err
	}
	vnetDoc, err := cl.Get(ctx, vnetID)
	if err != nil {
		return network.Configuration{}, err
	}
	group, _, _ := strings.Cut(vnetID, "/providers/")
	nicID := group + "/providers/" + typeNIC + "/" + url.PathEscape(f.name)
	memberID := nicID + "/providers/Cove.Network/members/" + url.PathEscape(f.name)
	if _, err := cl.Get(ctx, memberID); err == nil && !f.replace {
		return network.Configuration{}, fault.Newf(fault.Conflict, "%s is a member already. Choose another --name, or take its place with --replace if it is gone", f.name)
	} else if err != nil && !client.NotFound(err) {
		return network.Configuration{}, err
	}
	if _, err := cl.Get(ctx, nicID); client.NotFound(err) {
		_, err = cl.Put(ctx, nicID, client.Object{
			"location": vnetDoc["location"],
			"properties": client.Object{"ipConfigurations": []any{client.Object{
				"name": "ipconfig1", "properties": client.Object{"subnet": client.Object{"id": vnetID + "/subnets/" + url.PathEscape(subnet)}},
			}}},
		})
		if err != nil {
			return network.Configuration{}, err
		}
	} else if err != nil {
		return network.Configuration{}, err
	}
	properties := client.Object{"publicKey": publicKey, "kind": f.kind}
	if f.resolver != "" {
		properties["resolver"] = f.resolver
	}
	if _, err := cl.Put(ctx, memberID, client.Object{"properties": properties}); err != nil {
		return network.Configuration{}, err
	}
	out, err := cl.Get(ctx, memberID)
	if err != nil {
		return network.Configuration{}, err
	}
	return decodeConfiguration(dig(out, "properties", "configuration"))
}

func decodeConfiguration(v any) (network.Configuration, error) {
	var c network.Configuration
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.Address == "" {
		return c, fault.Newf(fault.Unavailable, "the server's answer holds no configuration")
	}
	return c, nil
}

// redeem shows a code to the server that it names. The code is the only secret
// of this exchange, so it goes to whoever holds the authority that the code
// pins, and to nobody else.
func redeem(ctx context.Context, text, publicKey, resolver string) (network.Configuration, string, error) {
	code, err := network.ParseCode(text)
	if err != nil {
		return network.Configuration{}, "", err
	}
	name := lastName(code.NIC)
	manage, err := url.Parse(code.Management)
	if err != nil || manage.Scheme != "https" {
		return network.Configuration{}, "", network.ErrCodeText
	}
	body, err := json.Marshal(client.Object{"code": code.Secret.Reveal(), "publicKey": publicKey, "resolver": resolver})
	if err != nil {
		return network.Configuration{}, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, code.Management+"/cove/join?api-version=2025-04-01", bytes.NewReader(body))
	if err != nil {
		return network.Configuration{}, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	hc := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: pinned(manage.Hostname(), code.Fingerprint),
			DialContext: func(ctx context.Context, netw, addr string) (net.Conn, error) {
				if code.Dial != "" {
					addr = code.Dial
				}
				return (&net.Dialer{}).DialContext(ctx, netw, addr)
			},
		},
	}
	resp, err := hc.Do(req)
	if err != nil {
		return network.Configuration{}, "", fault.Newf(fault.Unavailable, "the server of this code cannot be reached at %s: %v", code.Dial, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return network.Configuration{}, "", err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if json.Unmarshal(data, &e) != nil || e.Error.Message == "" {
			e.Error.Message = "the server answered " + resp.Status
		}
		return network.Configuration{}, "", fault.Newf(fault.Denied, "%s", e.Error.Message)
	}
	var c network.Configuration
	if err := json.Unmarshal(data, &c); err != nil || c.Address == "" {
		return c, "", fault.Newf(fault.Unavailable, "the server's answer holds no configuration")
	}
	return c, name, nil
}

// pinned trusts a chain that ends in the authority with this fingerprint, or,
// where the operator serves a certificate of another authority, one that the
// system trusts.
func pinned(host, want string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// The check below takes its place.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			opts := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
			for _, c := range cs.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
				sum := sha256.Sum256(c.Raw)
				if strings.EqualFold(hex.EncodeToString(sum[:]), want) && c.IsCA {
					opts.Roots = x509.NewCertPool()
					opts.Roots.AddCert(c)
				}
			}
			_, err := cs.PeerCertificates[0].Verify(opts)
			return err
		},
	}
}

func (f joinFlags) memberConfig(got network.Configuration, key wireguard.PrivateKey) (wireguard.MemberConfig, error) {
	fail := func(what string, err error) (wireguard.MemberConfig, error) {
		return wireguard.MemberConfig{}, fault.Newf(fault.Unavailable, "the server's configuration has a %s that cannot be used: %v", what, err)
	}
	server, err := wireguard.ParsePublicKey(got.ServerPublicKey)
	if err != nil {
		return fail("key", err)
	}
	address, err := netip.ParseAddr(got.Address)
	if err != nil {
		return fail("address", err)
	}
	resolver, err := netip.ParseAddr(got.Resolver)
	if err != nil {
		return fail("resolver", err)
	}
	c := wireguard.MemberConfig{PrivateKey: key, Address: address, ServerKey: server, Endpoint: got.Endpoint, Resolver: resolver, MTU: got.MTU, Keepalive: 25 * time.Second}
	for _, s := range got.AllowedIPs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fail("route", err)
		}
		c.AllowedIPs = append(c.AllowedIPs, p)
	}
	if f.metadata {
		c.AllowedIPs = append(c.AllowedIPs, netip.PrefixFrom(network.Metadata, 32))
	}
	return c, nil
}

func (a *app) writeMember(f joinFlags, conf wireguard.MemberConfig) error {
	text, err := conf.File()
	if err != nil {
		return err
	}
	if f.out == "-" {
		_, err := io.WriteString(a.out, text)
		return err
	}
	name := f.file()
	// O_EXCL: the file holds a key; another member's is not overwritten.
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fault.Newf(fault.Conflict, "%s exists: name another file with --out", name)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, text)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	a.note("joined as %s; the configuration is in %s", conf.Address, name)
	a.note("next: wg-quick up ./%s   (DNS is answered at %s)", name, conf.Resolver)
	return nil
}

func (a *app) joinUp(ctx context.Context, f joinFlags, conf wireguard.MemberConfig) error {
	i, err := wireguard.Up(ctx, conf, f.iface)
	if err != nil {
		return err
	}
	defer i.Close()
	if err := shake(ctx, i); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "joined as %s on interface %s; DNS is answered at %s\n", conf.Address, i.Name(), conf.Resolver)
	a.followRoutes(ctx, i.Refresh)
	return nil
}

// refreshEvery is how long a network that was joined with another may wait for
// its members to find out.
const refreshEvery = 10 * time.Second

// followRoutes keeps a tunnel's routes those of its network until ctx ends: the
// network may be joined with others, and grow. What is in the way is said once.
func (a *app) followRoutes(ctx context.Context, refresh func(context.Context) error) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A server that does not answer is no news: the tunnel calls it itself.
		err := refresh(ctx)
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Invalid) {
			continue
		}
		if text := err.Error(); text != said {
			said = text
			a.note("the network's address spaces have changed, and not all are routed: %s", text)
		}
	}
}

type shaker interface {
	WaitHandshake(ctx context.Context) error
}

func shake(ctx context.Context, s shaker) error {
	wait, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	err := s.WaitHandshake(wait)
	if err != nil && ctx.Err() == nil && wait.Err() != nil {
		return fault.Newf(fault.Unavailable, "the server does not answer on its WireGuard port within %s: is UDP let through on the way?", handshakeWait)
	}
	return err
}

// proxyDefault is where the proxy is unless --proxy says otherwise.
const proxyDefault = "127.0.0.1:8118"

// listen takes the port of the proxy, before a code is used up: whoever reaches
// it is a member of the network without a password, so it is a loopback
// address's.
func (f joinFlags) listen(command bool) (net.Listener, error) {
	at := f.proxy
	if command && at == proxyDefault {
		at = "127.0.0.1:0" // several commands may run side by side
	}
	host, _, err := net.SplitHostPort(at)
	if err != nil {
		return nil, usagef("--proxy %q: an address and port is expected", at)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, usagef("--proxy %q: the proxy has no password, so it listens at a loopback address only, such as %s", at, proxyDefault)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, taken("--proxy", at, err)
	}
	return l, nil
}

func (a *app) joinUserspace(ctx context.Context, f joinFlags, conf wireguard.MemberConfig, l net.Listener, command []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t, err := wireguard.Dial(ctx, conf)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := shake(ctx, t); err != nil {
		return err
	}
	go a.followRoutes(ctx, t.Refresh)
	served := make(chan error, 1)
	go func() { served <- (&wireguard.Proxy{Tunnel: t, Direct: f.direct}).Serve(ctx, l) }()
	if len(command) == 0 {
		fmt.Fprintf(a.out, "joined as %s; HTTP and SOCKS5 proxy at %s\n", conf.Address, l.Addr())
		return <-served
	}
	proxy := "http://" + l.Addr().String()
	run := exec.CommandContext(ctx, command[0], command[1:]...)
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	run.WaitDelay = 5 * time.Second
	run.Env = append(os.Environ(), "HTTPS_PROXY="+proxy, "https_proxy="+proxy, "HTTP_PROXY="+proxy, "http_proxy="+proxy, "ALL_PROXY=socks5h://"+l.Addr().String(), "NO_PROXY=", "no_proxy=")
	run.Stdin, run.Stdout, run.Stderr = a.in, a.out, a.err
	err = run.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return exitStatus(exit.ExitCode())
	}
	return err
}

// resolverTaken reports whether a DNS server answers at addr before we are in
// any network: then this machine is inside a cloud that uses the address.
func resolverTaken(ctx context.Context, addr netip.Addr) bool {
	const patience = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", netip.AddrPortFrom(addr, 53).String())
	if err != nil {
		return false
	}
	defer conn.Close()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 0xc0fe, RecursionDesired: true})
	if b.StartQuestions() != nil || b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeNS, Class: dnsmessage.ClassINET}) != nil {
		return false
	}
	query, err := b.Finish()
	if err != nil || conn.SetDeadline(time.Now().Add(patience)) != nil {
		return false
	}
	if _, err := conn.Write(query); err != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 512))
	return err == nil && n > 0
}

func (a *app) joinCodeCommand() *cobra.Command {
	var name, kind string
	var life time.Duration
	c := a.asClient(&cobra.Command{
		Use: "join-code VNET/SUBNET --name NAME", Short: "Print a code with which one machine can join",
		Long:    "Print a single-use code. It carries where the server is and how to know it; the\nmachine that shows it first becomes the member. It is the last line of the output.",
		Example: "  cove join-code office/default --name laptop --for 1h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			vnet, subnet, ok := strings.Cut(args[0], "/")
			if !ok || subnet == "" {
				return usagef("%q: name the subnet as VNET/SUBNET", args[0])
			}
			if life < time.Second {
				return usagef("--for %s: at least a second", life)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			vnetID, err := a.find(cmd.Context(), cl, typeVNet, vnet)
			if err != nil {
				return err
			}
			out, err := cl.Post(cmd.Context(), vnetID+"/subnets/"+url.PathEscape(subnet)+"/joinCode", client.Object{
				"name": name, "kind": kind, "expiresIn": int(life / time.Second),
			})
			if err != nil {
				return err
			}
			if a.print.format != "table" || a.print.query != "" {
				return a.print.show(out)
			}
			a.note("%s may join as %s once, within %s: cove join CODE", args[0], name, life)
			_, err = fmt.Fprintln(a.out, out["code"])
			return err
		},
	})
	c.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the virtual network's resource group")
	c.Flags().StringVar(&name, "name", "", "the member's name")
	c.Flags().StringVar(&kind, "kind", "vm", "what the member is: vm, aks, aci, appservice or agentpool")
	c.Flags().DurationVar(&life, "for", time.Hour, "how long the code is good")
	if err := c.MarkFlagRequired("name"); err != nil {
		panic(err)
	}
	return c
}
