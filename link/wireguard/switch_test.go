package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"cove.example/cove/network"
)

// Two networks have the same address space, the same private endpoint address
// and a member at the same address. Each connection belongs to its own.
func TestOverlappingNetworksAreToldApart(t *testing.T) {
	l := openLab(t)
	a, b := l.network("contoso", laptop), l.network("fabrikam", laptop)
	inA, inB := a.join(laptop), b.join(laptop)
	for range 3 {
		for tun, want := range map[*Tunnel]string{inA: "contoso 10.0.0.7:443 10.0.0.4", inB: "fabrikam 10.0.0.7:443 10.0.0.4"} {
			if got := l.get(tun, "https://10.0.0.7/whoami"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestNameIsResolvedInsideTheNetwork(t *testing.T) {
	l := openLab(t)
	tun := l.network("contoso", laptop).join(laptop)
	if got, want := l.get(tun, "https://registry.cove.test/whoami"), "contoso 10.0.0.7:443 10.0.0.4"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	addrs, err := tun.LookupNetIP(ctx, "large.cove.test")
	if err != nil || len(addrs) != 100 {
		t.Errorf("an answer that needs TCP: %d addresses, %v", len(addrs), err)
	}
	var no *net.DNSError
	if _, err := tun.LookupNetIP(ctx, "nobody.cove.test"); !errors.As(err, &no) || !no.IsNotFound {
		t.Errorf("a name that does not exist: %v", err)
	}
	if _, err := tun.DialContext(ctx, "tcp", "outside.cove.test:443"); !errors.Is(err, ErrOutside) {
		t.Errorf("a name outside the network: %v", err)
	}
}

// The resolver's address serves names and nothing else.
func TestResolverServesNoHTTPS(t *testing.T) {
	l := openLab(t)
	c := l.client(l.network("contoso", laptop).join(laptop))
	c.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true // it has no certificate for that name
	if _, err := get(c, "https://10.0.0.7/whoami"); err != nil {
		t.Fatal(err)
	}
	if s, err := get(c, "https://168.63.129.16/whoami"); err == nil {
		t.Errorf("168.63.129.16 answers HTTPS: %s", s)
	}
}

// A segment that is cut wrongly, or goes around the cutter, breaks or hangs a
// large transfer over TLS.
func TestLargeTransfersArriveWhole(t *testing.T) {
	const size = transferSize
	l := openLab(t)
	tun := l.network("contoso", laptop).join(laptop)
	c := l.client(tun)
	want := blobSum(size)

	res, err := c.Get(fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := sum(t, res.Body); got != want {
		t.Errorf("download: sha256 %s, want %s", got, want)
	}
	res, err = c.Post("https://10.0.0.7/sink", "application/octet-stream", blob(size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if got, want := string(b), fmt.Sprintf("%d %s <nil>", size, want); got != want || err != nil {
		t.Errorf("upload: %q, %v, want %q", got, err, want)
	}
}

// A transfer from one private endpoint runs while another is added, called and
// removed.
func TestAddressesChangeUnderTraffic(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	tun := v.join(laptop)

	res, err := l.client(tun).Get(fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	first := make([]byte, 1<<20)
	if _, err := io.ReadFull(res.Body, first); err != nil {
		t.Fatal(err)
	}
	refused := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		c, err := tun.DialContext(ctx, "tcp", "10.0.0.8:443")
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}
	if !refused() {
		t.Fatal("10.0.0.8 answers before it exists")
	}
	v.Addresses = v.Addresses.With(second, true)
	v.admit(netip.MustParseAddr("10.0.0.6"))
	v.apply()
	if got, want := l.get(tun, "https://10.0.0.8/whoami"), "contoso 10.0.0.8:443 10.0.0.4"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	// A connection to the address that goes away does not outlive it, and its
	// caller is told at once.
	ended := make(chan error, 1)
	l.mu.Lock()
	l.hung["removed"] = ended
	l.mu.Unlock()
	open, err := l.client(tun).Get("https://10.0.0.8/hang/removed")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Body.Close()
	v.Addresses = v.Addresses.Without(second)
	v.apply()
	wait(t, "the server's side of the connection to the removed address to end", ended)
	read := make(chan error, 1)
	go func() { _, err := io.ReadAll(open.Body); read <- err }()
	if err := wait(t, "the caller's side to end", read); err == nil {
		t.Error("the caller saw a clean end, not a reset")
	}
	if !refused() {
		t.Error("10.0.0.8 answers after it was removed")
	}

	rest, err := io.ReadAll(res.Body)
	if got := sha(append(first, rest...)); err != nil || got != blobSum(size) {
		t.Errorf("the transfer was disturbed: %d bytes, %v", len(rest), err)
	}
	if n := len(v.status().Peers); n != 3 {
		t.Errorf("%d peers, want 3", n)
	}
}

func wait[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not in %s: %s", patience, what)
		panic("unreachable")
	}
}

// Applying what is already there disturbs nothing and shakes no hands.
func TestApplyTwiceChangesNothing(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	tun := v.join(laptop)
	before := tun.Status().Handshake
	for range 5 {
		v.apply()
	}
	if got := l.get(tun, "https://10.0.0.7/whoami"); got != "contoso 10.0.0.7:443 10.0.0.4" {
		t.Error(got)
	}
	if after := tun.Status().Handshake; after != before {
		t.Errorf("a new handshake at %s", after)
	}
}

// A removed member's tunnel is dead at once, and its open connection ends on
// the server. The next holder of its address gets a working one.
func TestRemovedMemberIsCut(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	tun := v.join(laptop)
	ended := make(chan error, 1)
	l.hung["cut"] = ended
	open, err := l.client(tun).Get("https://10.0.0.7/hang/cut")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Body.Close()
	v.admit(laptop) // another machine gets the address
	v.apply()
	wait(t, "the removed member's connection to end", ended)
	silent(t, tun, "10.0.0.7:443")
	_ = tun.Close()
	if got := l.get(v.join(laptop), "https://10.0.0.7/whoami"); got != "contoso 10.0.0.7:443 10.0.0.4" {
		t.Error(got)
	}
}

// A member that writes another's address on its packets reaches nothing: row 101
// rests on a source address being a fact.
func TestSpoofedSourceIsDropped(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	alone := l.network("fabrikam", laptop)
	for name, c := range map[string]MemberConfig{"another member": v.config(laptop), "nobody": alone.config(laptop)} {
		if c.Address = builder; name == "nobody" {
			c.Address = netip.MustParseAddr("10.0.0.9")
		}
		silent(t, dial(t, c), "10.0.0.7:443") // the handshake succeeds, the packets do not
	}
}

// A connection that nobody had accepted yet when its address went away is not
// given out.
func TestWaitingConnectionToARemovedAddress(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop)
	ln, err := l.sw.networks["contoso"].stack.listenTCP(netip.MustParseAddrPort("0.0.0.0:444"))
	if err != nil {
		t.Fatal(err)
	}
	v.Addresses = v.Addresses.With(second, true)
	v.apply()
	tun := v.join(laptop)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i, at := range []string{"10.0.0.8:444", "10.0.0.7:444"} {
		c, err := tun.DialContext(ctx, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			v.Addresses = v.Addresses.Without(second)
			v.apply()
		}
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.LocalAddr().String(); got != "10.0.0.7:444" {
		t.Errorf("accepted a connection to %s", got)
	}
}

func TestMembersReachEachOtherInsideOneNetworkOnly(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	a, b := l.network("contoso", laptop, builder), l.network("fabrikam", laptop)
	far := a.join(builder)
	ln, err := far.stack.listenTCP(netip.MustParseAddrPort("0.0.0.0:8080"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("From", r.RemoteAddr)
		_, _ = io.Copy(w, blob(2<<20))
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })

	res, err := l.client(a.join(laptop)).Get("http://10.0.0.5:8080/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := sum(t, res.Body); got != blobSum(2<<20) {
		t.Errorf("sha256 %s", got)
	}
	if from := res.Header.Get("From"); !strings.HasPrefix(from, "10.0.0.4:") {
		t.Errorf("the other member saw %s", from)
	}
	other := b.join(laptop)
	silent(t, other, "10.0.0.5:8080")
	eventually(t, "the attempt from the other network is counted", func() bool { return b.status().Dropped["no such member"] > 0 })
}

// Two members whose clients chose a larger MTU than the network's are told, and
// their connection does not hang.
func TestMembersWithALargerMTU(t *testing.T) {
	const size = 2 << 20
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	join := func(a netip.Addr) *Tunnel {
		c := v.config(a)
		c.MTU = DefaultMTU + 300
		return dial(t, c)
	}
	far := join(builder)
	ln, err := far.stack.listenTCP(netip.MustParseAddrPort("0.0.0.0:8080"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, blob(size)) })}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	res, err := l.client(join(laptop)).Get("http://10.0.0.5:8080/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := sum(t, res.Body); got != blobSum(size) {
		t.Errorf("sha256 %s", got)
	}
	if n := v.status().Dropped["too big"]; n == 0 {
		t.Error("no packet was too big, so this test shows nothing")
	}
}

// Nothing leads out of a network, whatever the member routes into its tunnel.
func TestNothingIsForwardedOutside(t *testing.T) {
	t.Parallel()
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	l := openLab(t)
	v := l.network("contoso", laptop)
	c := v.config(laptop)
	c.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	tun := dial(t, c)
	silent(t, tun, "192.0.2.1:443")
	silent(t, tun, fmt.Sprintf("172.16.0.1:%d", outside.Addr().(*net.TCPAddr).Port))
	eventually(t, "both attempts are counted as outside", func() bool { return v.status().Dropped["outside the network"] >= 2 })
}

// After a restart the server calls its members where they were: a member whose
// client still believes in its old session would notice only 15 s later.
func TestRestartIsNotFelt(t *testing.T) {
	l := newLab(t, "127.0.0.1:0")
	l.config.State = stateFolder(t)
	l.open()
	v := l.network("contoso", laptop)
	tun := v.join(laptop)
	l.get(tun, "https://10.0.0.7/whoami")
	unfelt(t, func() (took time.Duration) {
		if err := l.sw.Close(); err != nil {
			t.Fatal(err)
		}
		l.config.Listen = l.sw.Addr().String()
		sw, err := Open(l.config)
		if err != nil {
			t.Fatal(err)
		}
		l.sw = sw
		start := time.Now()
		v.apply()
		if got := l.get(tun, "https://10.0.0.7/whoami"); got != "contoso 10.0.0.7:443 10.0.0.4" {
			t.Error(got)
		}
		return time.Since(start)
	})
}

// unfelt asserts that traffic flows soon after a restart. On a busy machine one
// may take long; whoever is not called feels each of them.
func unfelt(t *testing.T, restart func() time.Duration) {
	t.Helper()
	var took time.Duration
	for range 3 {
		took = restart()
		t.Logf("traffic flows %s after the restart", took)
		if took <= 5*time.Second {
			return
		}
	}
	t.Errorf("the restart was felt for %s", took)
}

// A crash loses nothing that is older than a second, and a member that has
// moved since the last save is saved at its new place.
func TestEndpointsAreSavedWhileRunning(t *testing.T) {
	t.Parallel()
	l := newLab(t, "127.0.0.1:0")
	l.config.State = stateFolder(t)
	l.open()
	v := l.network("contoso", laptop)
	saved := func() netip.AddrPort {
		m, err := recall(l.config.State)
		if err != nil {
			t.Fatal(err)
		}
		return m.endpoint("contoso", v.members[laptop].Public())
	}
	tun := v.join(laptop)
	l.get(tun, "https://10.0.0.7/whoami")
	eventually(t, "the member's address is on disk", func() bool { return saved().IsValid() })
	first := saved()
	_ = tun.Close()
	again := v.join(laptop) // another socket, another port
	l.get(again, "https://10.0.0.7/whoami")
	eventually(t, "the member's new address is on disk", func() bool { return saved().IsValid() && saved() != first })
	if at := v.status().Peers[0].Endpoint; at != saved() {
		t.Errorf("saved %s, the member is at %s", saved(), at)
	}
	if err := l.sw.Remove("contoso"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a removed network is forgotten on disk", func() bool { return !saved().IsValid() })
}

// What is on disk is a hint: rubbish in it costs nothing but the hint.
func TestUnreadableMemoryIsNoReasonNotToStart(t *testing.T) {
	for _, text := range []string{"", "{", `{"contoso":{"not a key":"127.0.0.1:1"}}`, `{"contoso":{"` + NewPrivateKey().Public().String() + `":"nowhere"}}`, "[]"} {
		l := newLab(t, "127.0.0.1:0")
		l.config.State = stateFolder(t)
		if err := l.config.State.WriteFile(memoryFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l.open()
		tun := l.network("contoso", laptop).join(laptop)
		l.get(tun, "https://10.0.0.7/whoami")
	}
}

func TestPortTakenIsOneSentence(t *testing.T) {
	l := openLab(t)
	_, err := Open(Config{Listen: l.sw.Addr().String()})
	if !errors.Is(err, ErrPortTaken) {
		t.Fatalf("got %v", err)
	}
	if _, err := Open(Config{Listen: "51820"}); err == nil || !strings.Contains(err.Error(), "0.0.0.0:51820") {
		t.Errorf("got %v", err)
	}
}

func TestInvalidNetworkChangesNothing(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop)
	tun := v.join(laptop)
	other := l.network("fabrikam", laptop)

	bad := v.Wanted
	bad.Addresses = answered(netip.MustParseAddr("fd00::1"), laptop)
	stray := netip.MustParseAddr("fd00::2")
	bad.Peers = bad.Peers.With(builder, [32]byte{}).With(stray, v.members[laptop].Public()).With(network.Metadata, PrivateKey(other.PrivateKey).Public())
	bad.PrivateKey = other.PrivateKey
	err := l.sw.Apply(bad)
	var lines []string
	if err != nil {
		lines = strings.Split(err.Error(), "\n")
	}
	want := []string{
		"virtual network contoso: it has the key of fabrikam, and their members could not be told apart",
		"virtual network contoso: address 10.0.0.4 is given twice",
		"virtual network contoso: fd00::1 cannot be an address in it",
		"virtual network contoso: member 10.0.0.5 has no key",
		"virtual network contoso: member 169.254.169.254 has the key of another",
		"virtual network contoso: address 169.254.169.254 is given twice",
		"virtual network contoso: member fd00::2 has the key of another",
		"virtual network contoso: fd00::2 cannot be a member's address",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if got := l.get(tun, "https://10.0.0.7/whoami"); got != "contoso 10.0.0.7:443 10.0.0.4" {
		t.Error(got)
	}
}

// A network's new key shuts out those who know the old one.
func TestNewNetworkKey(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop)
	old := v.join(laptop)
	l.get(old, "https://10.0.0.7/whoami")
	v.PrivateKey = network.PrivateKey(NewPrivateKey())
	v.apply()
	silent(t, old, "10.0.0.7:443")
	_ = old.Close()
	l.get(v.join(laptop), "https://10.0.0.7/whoami")
}

func TestRemovedNetworkIsGone(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop)
	tun := v.join(laptop)
	ended := make(chan error, 1)
	l.hung["gone"] = ended
	open, err := l.client(tun).Get("https://10.0.0.7/hang/gone")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Body.Close()
	if err := l.sw.Remove("contoso"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the connection to end with its network", ended)
	silent(t, tun, "10.0.0.7:443")
	if err := l.sw.Remove("contoso"); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	_ = tun.Close()
	v.apply() // and back
	l.get(v.join(laptop), "https://10.0.0.7/whoami")
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("session", func(t *testing.T) {
		l := newLab(t, "127.0.0.1:0")
		l.config.State = stateFolder(t)
		l.open()
		a, b := l.network("contoso", laptop, builder), l.network("fabrikam", laptop)
		for _, tun := range []*Tunnel{a.join(laptop), b.join(laptop)} {
			l.get(tun, "https://registry.cove.test/whoami")
		}
		if err := l.sw.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.sw.Apply(a.Wanted); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Apply after Close: %v", err)
		}
		if c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(l.sw.Addr())); err != nil {
			t.Errorf("the port is not free: %v", err)
		} else {
			_ = c.Close()
		}
	})
	defer func() {
		if t.Failed() {
			buf := make([]byte, 1<<20)
			t.Logf("%s", buf[:runtime.Stack(buf, true)])
		}
	}()
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}

func TestStatusTellsWhoIsHere(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	l.get(v.join(laptop), "https://10.0.0.7/whoami")
	got := map[netip.Addr]PeerStatus{}
	for _, p := range v.status().Peers {
		got[p.Address] = p
	}
	here, absent := got[laptop], got[builder]
	if here.Handshake.IsZero() || here.Received == 0 || here.Sent == 0 || !here.Endpoint.IsValid() || here.PublicKey != v.members[laptop].Public() {
		t.Errorf("the member that is here: %+v", here)
	}
	if !absent.Handshake.IsZero() || absent.Received != 0 || absent.Endpoint.IsValid() {
		t.Errorf("the member that never came: %+v", absent)
	}
}
