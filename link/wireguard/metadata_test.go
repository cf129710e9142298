package wireguard

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"cove.example/cove/link"
	"cove.example/cove/network"
)

// 169.254.169.254 answers on port 80, to whoever routes it into the tunnel,
// with the network and the member's own address. Nothing else is served there,
// and who holds the address is known by the key.
func TestTheMetadataServiceIsInEveryNetwork(t *testing.T) {
	l := newLab(t, "127.0.0.1:0")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := link.From(r.Context())
		fmt.Fprintf(w, "%s %s %s", o.Network, o.Local, o.Remote.Addr())
	}), ConnContext: l.https.ConnContext}
	l.config.Metadata = func(name string, ln net.Listener) {
		l.servers.Go(func() { _ = srv.Serve(link.Listener{Listener: ln, Kind: link.Overlay, Network: name}) })
	}
	t.Cleanup(func() { _ = srv.Close() })
	l.open()
	for _, name := range []string{"contoso", "fabrikam"} {
		v := l.network(name, laptop, builder)
		c := v.config(laptop)
		c.AllowedIPs = append(c.AllowedIPs, netip.PrefixFrom(network.Metadata, 32))
		client := l.client(dial(t, c))
		if got, err := get(client, "http://169.254.169.254/"); err != nil || got != name+" 169.254.169.254:80 10.0.0.4" {
			t.Errorf("%q %v", got, err)
		}
		client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true // it has no certificate for that name
		for _, at := range []string{"https://169.254.169.254/whoami", "http://10.0.0.7/", "http://168.63.129.16/"} {
			if got, err := get(client, at); err == nil {
				t.Errorf("%s answers: %s", at, got)
			}
		}
		for a, key := range v.members {
			if got, ok := l.sw.Holder(name, a); !ok || got != key.Public() {
				t.Errorf("%s is held by %s, %v", a, got, ok)
			}
		}
		for _, nobody := range []netip.Addr{registry, network.Metadata, netip.MustParseAddr("10.0.0.99")} {
			if got, ok := l.sw.Holder(name, nobody); ok {
				t.Errorf("%s is held by %s", nobody, got)
			}
		}
	}
	if _, ok := l.sw.Holder("nowhere", laptop); ok {
		t.Error("a network that is not there has members")
	}
}
