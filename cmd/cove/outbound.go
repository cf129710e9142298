package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/outbound"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/task"
	"cove.example/cove/transfer"
	"cove.example/cove/upstream"
)

// openOutbound makes the dialer for whatever the server asks of others.
func (s *server) openOutbound() error {
	c := s.config
	allow, wrong := outbound.ParseAllow(c.OutboundAllow)
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	roots, err := outboundRoots(c.OutboundCA)
	if err != nil {
		return err
	}
	var resolvers []netip.AddrPort
	for _, u := range c.DNSUpstream {
		ap, err := netip.ParseAddrPort(u)
		if err != nil {
			return err
		}
		resolvers = append(resolvers, ap)
	}
	s.outbound = outbound.New(outbound.Config{Allow: allow, Own: s.ownAddress, Roots: roots, Resolvers: resolvers, Log: s.log})
	return nil
}

const maxCA = 1 << 20

// outboundRoots are the system's authorities and those of a file; nil is the
// system's alone.
func outboundRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "--outbound-ca: %v", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCA))
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "--outbound-ca: %v", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fault.Newf(fault.Invalid, "--outbound-ca %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// ownAddress reports whether this server listens there. What others are asked
// for begins when all ports are open (operate).
func (s *server) ownAddress(to netip.AddrPort) bool {
	list := append([]string{s.run.Connect, s.run.HTTP, s.run.Admin}, s.run.DNS...)
	for _, l := range s.https {
		list = append(list, l.Addr().String())
	}
	for _, text := range list {
		ap, err := netip.ParseAddrPort(text)
		if err != nil || ap.Port() != to.Port() {
			continue
		}
		if at := ap.Addr().Unmap(); at == to.Addr() || at.IsUnspecified() && isLocal(to.Addr()) {
			return true
		}
	}
	return to.Addr() == s.advertise && to.Port() == 443
}

// isLocal reports whether an address is one of this machine's.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, one := range list {
		if p, err := netip.ParsePrefix(one.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// tagged is registry.Config.Tagged.
func (s *server) tagged(ctx context.Context, uid string, repo oci.Repo, tag oci.Tag) (bool, error) {
	_, err := s.content.Manifest(ctx, content.Key{Registry: uid, Repo: repo}, oci.Reference{Tag: tag})
	if errors.Is(err, oci.ErrManifestUnknown) || errors.Is(err, oci.ErrNameUnknown) {
		return false, nil
	}
	return err == nil, err
}

const importLease = 15 * time.Second

// operate runs what goes on after an answer, beside the short tasks: an import
// may take an hour.
func (s *server) operate(context.Context) error {
	operations := resource.Operations{Store: s.resources, Now: s.now, Log: s.log}
	through := upstream.Options{Transport: s.outbound.Transport(outbound.Import)}
	importer := &transfer.Importer{
		Content: s.content, Store: s.resources, Sealer: s.box,
		Upstream: func(host string, repo oci.Repo, username, password string) (transfer.Remote, error) {
			return upstream.Open(host, repo, upstream.Credentials{Username: username, Password: password}, through)
		},
		Allowed: func(ctx context.Context, o resource.Operation, im registry.Import) error {
			by, err := s.auth().Again(ctx, im.By.ObjectID, im.By.Credential)
			if err != nil {
				return err
			}
			return s.registries.ImportAllowed(ctx, o.On, im, by)
		},
	}
	// Somebody waits for an import: after a crash it goes on within seconds.
	imports := &task.Runner{Queue: s.db, Now: s.now, Log: s.log, Lease: importLease, Handlers: map[string]task.Handler{
		registry.ImportTask: operations.Handler(importer.Do),
	}}
	s.loops.run("imports", imports.Run)
	expiry := &task.Runner{Queue: s.db, Now: s.now, Log: s.log, Workers: 1, Handlers: map[string]task.Handler{
		resource.TaskExpireOperation: operations.Expire,
	}}
	s.loops.run("operations", expiry.Run)
	s.loops.run("sinks", s.deliver)
	return nil
}
