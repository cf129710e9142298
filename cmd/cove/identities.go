package main

import (
	"net"
	"net/netip"

	"cove.example/cove/door"
	"cove.example/cove/federation"
	"cove.example/cove/identity"
	"cove.example/cove/imdsapi"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/outbound"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

// bearing adds managed identities to the table of types, and lets registries
// and members carry them. A member stands for a virtual machine.
func (s *server) bearing(types []resource.Type) []resource.Type {
	c := identity.Config{Principals: s.identity}
	for i := range types {
		switch types[i].Name {
		case registry.TypeName:
			types[i] = c.Bearing(types[i], nil)
		case network.TypeMember:
			types[i] = c.Bearing(types[i], network.Replaced)
		}
	}
	return append(types, identity.Types(c)...)
}

// issuers are others' whose tokens are taken where somebody has said so; they
// are asked for their keys as everything outside is.
func (s *server) issuers() *federation.Issuers {
	return federation.New(s.outbound.Transport(outbound.OIDC), s.now, s.log)
}

// newMetadata makes what answers at 169.254.169.254 in every network.
func (s *server) newMetadata(audiences []string) *imdsapi.Server {
	return imdsapi.New(imdsapi.Config{
		Store: s.resources, Networks: s.networks, Directory: s.directory, Tokens: s.tokens, Audiences: audiences, Now: s.now, Log: s.log,
		Holder: func(network string, at netip.Addr) ([32]byte, bool) {
			key, ok := s.overlay.Holder(network, at)
			return key, ok
		},
	})
}

// serveNetworkMetadata serves the metadata of one network's members; its
// listener ends with the network.
func (s *server) serveNetworkMetadata(key string, l net.Listener) {
	srv := door.Server(s.metadata)
	srv.ErrorLog = quiet(s.log)
	go func() {
		err := s.servers.run(srv, func() error { return srv.Serve(link.Listener{Listener: l, Kind: link.Overlay, Network: key}) })
		s.log.Debug("the metadata service of a virtual network ended", "network", key, "err", err)
	}()
}
