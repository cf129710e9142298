//go:build linux

package wireguard

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	wgtun "golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/netstack"

	"cove.example/cove/linktest"
)

// outsideSize is what one operation of BenchmarkOutside moves.
const outsideSize = 256 << 20

// Downloads and uploads over TLS by curl on a machine of its own, joined with
// wireguard-go over a cable. Only this process, the server, is counted:
// MB/cpu-s is what a second of one of its processors carries, TLS included.
// Beside cove's stack, upstream's (golang.zx2c4.com/wireguard/tun/netstack) does
// the same in the same run; "x upstream" is how many times better cove's is.
//
// The client is wireguard-go of the version that go.mod names, then the one
// that is installed: Debian 12's, of 2022, gives and takes one packet with each
// system call, and what that costs the kernel is the same for every server.
// It needs root.
func BenchmarkOutside(b *testing.B) {
	linktest.RequireRoot(b)
	for _, client := range []string{"current", "installed"} {
		b.Run(client, func(b *testing.B) {
			if client == "current" {
				buildClient(b)
			}
			outside(b)
		})
	}
}

// buildClient puts wireguard-go's program before the installed one.
func buildClient(b *testing.B) {
	dir := b.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir+"/wireguard-go", "golang.zx2c4.com/wireguard").CombinedOutput(); err != nil {
		b.Fatalf("go build: %v: %s", err, out)
	}
	b.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func outside(b *testing.B) {
	for _, direction := range []string{"download", "upload"} {
		var theirs float64
		for _, made := range []struct {
			name string
			join func(b *testing.B) (*linktest.Namespace, string)
		}{{"upstream", joinUpstream}, {"cove", joinCove}} {
			b.Run(direction+"/"+made.name, func(b *testing.B) {
				n, ca := made.join(b)
				curl(b, n, ca, direction, 8<<20) // connections are warm, buffers are there
				b.SetBytes(outsideSize)
				b.ResetTimer()
				before := cpu(b)
				for range b.N {
					curl(b, n, ca, direction, outsideSize)
				}
				used := cpu(b) - before
				b.StopTimer()
				rate := float64(b.N) * outsideSize / 1e6 / used
				b.ReportMetric(rate, "MB/cpu-s")
				b.ReportMetric(used/float64(b.N)*float64(1<<30)/outsideSize, "cpu-s/GiB")
				if made.name == "upstream" {
					theirs = rate
				} else if theirs > 0 {
					b.ReportMetric(rate/theirs, "x-upstream")
				}
			})
		}
	}
}

func curl(b *testing.B, n *linktest.Namespace, ca, direction string, size int) {
	b.Helper()
	script := fmt.Sprintf("curl --silent --show-error --fail --http1.1 --cacert %s --output /dev/null 'https://10.0.0.7/zeros?n=%d'", ca, size)
	if direction == "upload" {
		script = fmt.Sprintf("head -c %d /dev/zero | curl --silent --show-error --fail --http1.1 --cacert %s --header Expect: --upload-file - https://10.0.0.7/discard", size, ca)
	}
	n.Run("sh", "-c", script)
}

func joinCove(b *testing.B) (*linktest.Namespace, string) {
	s := newSite(b)
	n, _ := s.join(s.network("contoso", laptop), laptop)
	return n, s.ca
}

// joinUpstream is the same laptop and the same HTTPS server, with upstream's
// device, bind and stack between them as they come.
func joinUpstream(b *testing.B) (*linktest.Namespace, string) {
	s := closedSite(b)
	key, member := NewPrivateKey(), NewPrivateKey()
	n := linktest.New(b)
	here, _ := s.server.Wire(n, netip.MustParsePrefix("198.18.1.0/30"))

	tun, stack, err := netstack.CreateNetTUN([]netip.Addr{registry}, nil, DefaultMTU)
	if err != nil {
		b.Fatal(err)
	}
	var dev *device.Device
	s.server.Do(func() {
		dev = device.NewDevice(quiet{tun, make(chan wgtun.Event)}, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
		if err = dev.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=51820\npublic_key=%s\nallowed_ip=%s/32\n", key.hex(), member.Public().hex(), laptop)); err == nil {
			err = dev.Up()
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(dev.Close)
	ln, err := stack.ListenTCPAddrPort(netip.AddrPortFrom(registry, 443))
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: s.https.Handler, TLSConfig: s.https.TLSConfig, ErrorLog: log.New(io.Discard, "", 0)}
	s.servers.Go(func() { _ = srv.ServeTLS(ln, "", "") })
	b.Cleanup(func() { _ = srv.Close() })

	c := MemberConfig{
		PrivateKey: member, Address: laptop, ServerKey: key.Public(), Endpoint: netip.AddrPortFrom(here, 51820).String(),
		AllowedIPs: []netip.Prefix{space},
	}
	conf, err := c.File()
	if err != nil {
		b.Fatal(err)
	}
	n.WireGuard(conf, laptop, DefaultMTU, space)
	return n, s.ca
}

// quiet keeps the news that a TUN device is up from its WireGuard device, which
// would open its sockets at once, on a thread outside the namespace.
type quiet struct {
	wgtun.Device
	events chan wgtun.Event
}

func (q quiet) Events() <-chan wgtun.Event { return q.events }
