package host

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"cove.example/cove/link"
	"cove.example/cove/network"
)

const (
	office  = "/office"
	patient = 30 * time.Second
)

// freePort is a port that nothing listens at on loopback.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// served is a switch whose network's connections are echoed, and seen. Every
// address of 127.0.0.0/8 is this machine's, as a route to itself makes any.
type served struct {
	*Switch
	port uint16
	seen chan link.Origin
}

func serve(t *testing.T, n Network) *served {
	t.Helper()
	s := &served{port: freePort(t), seen: make(chan link.Origin, 16)}
	s.Switch = New(Config{
		Networks: map[string]Network{office: n}, FrontEnd: network.DefaultFrontEnd, Port: s.port,
		HTTPS: func(key string, l net.Listener) {
			if key != office {
				t.Errorf("a listener for %s", key)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					s.seen <- c.(*link.Conn).Origin
					go io.Copy(c, c)
				}
			}()
		},
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func wanted(closed []string, open ...string) network.Wanted {
	w := network.Wanted{Key: office}
	w.Addresses = w.Addresses.With(network.Resolver, true).With(network.DefaultFrontEnd, true)
	for _, a := range open {
		w.Addresses = w.Addresses.With(netip.MustParseAddr(a), true)
	}
	for _, a := range closed {
		w.Addresses = w.Addresses.With(netip.MustParseAddr(a), false)
	}
	return w
}

func (s *served) apply(t *testing.T, w network.Wanted) {
	t.Helper()
	if err := s.Apply(w); err != nil {
		t.Fatal(err)
	}
}

func (s *served) dial(at string) (net.Conn, error) {
	return net.DialTimeout("tcp4", s.at(netip.MustParseAddr(at), s.port), patient)
}

// reach dials an address and proves that it answers.
func (s *served) reach(t *testing.T, at string) net.Conn {
	t.Helper()
	c, err := s.dial(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	echo(t, c)
	return c
}

func echo(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
}

// ended asserts that a connection is reset, and soon.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patient)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %d bytes, %v", n, err)
	}
}

var ours = Network{Prefixes: []netip.Prefix{netip.MustParsePrefix("127.77.0.0/16")}}

// The local address says which endpoint was called, and the remote one is the
// caller's own.
func TestAddressesTellEndpointsApart(t *testing.T) {
	s := serve(t, ours)
	s.apply(t, wanted(nil, "127.77.0.7", "127.77.200.9"))
	for _, at := range []string{"127.77.0.7", "127.77.200.9"} {
		c := s.reach(t, at)
		o := <-s.seen
		if o.Kind != link.Host || o.Network != office || o.Local.String() != s.at(netip.MustParseAddr(at), s.port) || o.Remote.String() != c.LocalAddr().String() {
			t.Errorf("%s: %+v", at, o)
		}
	}
}

// An address that is no endpoint's is not listened at, and one that becomes or
// ceases to be one is, or is not, at once; connections to others stand.
func TestAddressesComeAndGo(t *testing.T) {
	s := serve(t, ours)
	s.apply(t, wanted(nil, "127.77.0.7"))
	stays := s.reach(t, "127.77.0.7")
	if _, err := s.dial("127.77.0.8"); err == nil {
		t.Fatal("an address without an endpoint is listened at")
	}
	s.apply(t, wanted(nil, "127.77.0.7", "127.77.0.8"))
	goes := s.reach(t, "127.77.0.8")
	s.apply(t, wanted(nil, "127.77.0.7"))
	ended(t, goes)
	if _, err := s.dial("127.77.0.8"); err == nil {
		t.Error("the address of an endpoint that is gone is listened at")
	}
	echo(t, stays)
	if err := s.Remove(office); err != nil {
		t.Fatal(err)
	}
	ended(t, stays)
	if _, err := s.dial("127.77.0.7"); err == nil {
		t.Error("a network that is gone is listened at")
	}
	if n := len(s.open); n != 0 {
		t.Errorf("%d networks are left", n)
	}
}

// An endpoint that is rejected loses its connections, and goes on answering new
// ones, which are refused in words.
func TestRejectionEndsConnections(t *testing.T) {
	s := serve(t, ours)
	s.apply(t, wanted(nil, "127.77.0.7", "127.77.0.8"))
	rejected, other := s.reach(t, "127.77.0.7"), s.reach(t, "127.77.0.8")
	s.apply(t, wanted([]string{"127.77.0.7"}, "127.77.0.8"))
	ended(t, rejected)
	echo(t, other)
	again := s.reach(t, "127.77.0.7")
	// What is closed already stays so without a connection being cut again.
	s.apply(t, wanted([]string{"127.77.0.7"}, "127.77.0.8", "127.77.0.9"))
	echo(t, again)
}

// Whoever may change a network must not be able to make the server listen at
// addresses that the operator has not given to it.
func TestOutsideTheOperatorsRange(t *testing.T) {
	s := serve(t, ours)
	s.apply(t, wanted(nil, "127.77.0.7", "127.78.0.1"))
	if _, err := s.dial("127.78.0.1"); err == nil {
		t.Error("an address outside the range is listened at")
	}
	got := s.Troubles()
	if len(got) != 1 || got[0].Address != netip.MustParseAddr("127.78.0.1") || got[0].Network != office || got[0].Err != nil {
		t.Errorf("troubles: %+v", got)
	}
	if err := s.Apply(network.Wanted{Key: "/stranger", Addresses: network.Table[netip.Addr, bool]{}.With(netip.MustParseAddr("127.77.0.9"), true)}); err == nil {
		t.Error("a network that is not attached was taken")
	}
}

// An address that something else has taken is told of, stands in nobody's way,
// and is served as soon as it can be.
func TestTakenAddress(t *testing.T) {
	s := serve(t, ours)
	thief, err := net.Listen("tcp4", s.at(netip.MustParseAddr("127.77.0.7"), s.port))
	if err != nil {
		t.Fatal(err)
	}
	both := wanted(nil, "127.77.0.7", "127.77.0.8")
	if err := s.Apply(both); err == nil || !strings.Contains(err.Error(), "127.77.0.7") {
		t.Fatalf("taken: %v", err)
	}
	s.reach(t, "127.77.0.8")
	if got := s.Troubles(); len(got) != 1 || got[0].Err == nil {
		t.Errorf("troubles: %+v", got)
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	s.apply(t, both)
	s.reach(t, "127.77.0.7")
	if got := s.Troubles(); len(got) != 0 {
		t.Errorf("troubles: %+v", got)
	}
}
