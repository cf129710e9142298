package wireguard

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"cove.example/cove/network"
)

// hanging begins a request that its handler holds, and returns how it ended.
func (l *lab) hanging(tun *Tunnel, name string) chan error {
	l.t.Helper()
	ended := make(chan error, 1)
	l.mu.Lock()
	l.hung[name] = make(chan error, 1)
	l.mu.Unlock()
	res, err := l.client(tun).Get("https://10.0.0.7/hang/" + name)
	if err != nil {
		l.t.Fatal(err)
	}
	go func() {
		_, err := res.Body.Read(make([]byte, 1))
		_ = res.Body.Close()
		ended <- err
	}()
	return ended
}

func ends(t testing.TB, what string, c chan error) {
	t.Helper()
	select {
	case err := <-c:
		if err == nil {
			t.Errorf("%s: it was answered", what)
		}
	case <-time.After(patience): // the client's own is a minute
		t.Errorf("%s: the connection stands after %v", what, patience)
	}
}

// A private endpoint that is rejected ends the connections to it, and answers
// new ones, to say so. Those to another endpoint go on.
func TestClosedAddressEndsItsConnections(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop)
	v.Addresses = v.Addresses.With(second, true)
	v.apply()
	tun := v.join(laptop)
	mine := l.hanging(tun, "mine")
	other, err := tun.DialContext(t.Context(), "tcp", "10.0.0.8:443")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	v.Addresses = v.Addresses.With(registry, false)
	v.apply()
	ends(t, "rejected", mine)
	if got := l.get(tun, "https://10.0.0.7/whoami"); got != "contoso 10.0.0.7:443 10.0.0.4" {
		t.Errorf("a rejected endpoint answers %q", got)
	}
	if err := other.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the connection to another endpoint: %v", err)
	}
	again := l.hanging(tun, "again")
	v.apply() // the same once more ends nothing
	v.Addresses = v.Addresses.With(registry, true)
	v.apply()
	select {
	case err := <-again:
		t.Errorf("approving ended a connection: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// walls is a filter by hand: what it denies, and whom it watches.
type walls struct {
	deny func(network.Flow) bool
}

func (w *walls) Admit(f network.Flow) bool { return !w.deny(f) }
func (w *walls) Watches(a netip.Addr) bool { return space.Contains(a) }
func between(from, to netip.Addr) network.Flow {
	return network.Flow{Protocol: protocolUDP, From: from, To: to, FromPort: 4000, ToPort: 53}
}

func reversed(w network.Flow) network.Flow {
	return network.Flow{Protocol: w.Protocol, From: w.To, To: w.From, FromPort: w.ToPort, ToPort: w.FromPort}
}

// What answers a flow that was let through passes, and nothing else from there.
func TestAnswersPassAndNothingElse(t *testing.T) {
	var f flows
	oneWay := &walls{func(w network.Flow) bool { return w.From == builder }}
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	asked := between(laptop, builder)
	if f.admit(oneWay, reversed(asked), true, now) {
		t.Error("an answer to nothing passes")
	}
	if !f.admit(oneWay, asked, true, now) || !f.admit(oneWay, reversed(asked), true, now) {
		t.Error("a question or its answer does not pass")
	}
	other := reversed(asked)
	other.FromPort++
	if f.admit(oneWay, other, true, now) {
		t.Error("from another port it passes too")
	}
	if !f.admit(oneWay, reversed(asked), true, now.Add(flowLife-time.Second)) || f.admit(oneWay, reversed(asked), true, now.Add(3*flowLife)) {
		t.Error("an answer passes as long as the flow lives, and no longer")
	}
	// Other rules end what they would not have let through.
	now = now.Add(4 * flowLife)
	f.admit(oneWay, asked, true, now)
	if f.admit(&walls{func(network.Flow) bool { return true }}, reversed(asked), true, now) {
		t.Error("an answer to a flow that is denied now passes")
	}
}

// Who gets the address of a member that was removed is reached by nobody
// because of what that one had begun, nor is one that it had answered.
func TestFlowsEndWithTheirMember(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	oneWay := &walls{func(w network.Flow) bool { return w.From == builder }}
	o, now := l.sw.networks["contoso"], time.Now()
	asked := between(laptop, builder)
	for _, left := range []netip.Addr{laptop, builder} {
		if !o.flows.admit(oneWay, asked, true, now) || !o.flows.admit(oneWay, reversed(asked), true, now) {
			t.Fatal("a question or its answer does not pass")
		}
		v.admit(left) // another machine gets the address
		v.apply()
		if o.flows.admit(oneWay, reversed(asked), true, now) {
			t.Errorf("after %s was removed, its heir's tunnel takes part in its flows", left)
		}
	}
}

// One member's scan fills its own share: its further flows to other members do
// not pass, everybody else's do.
func TestAScanFillsItsOwnShare(t *testing.T) {
	var f flows
	open := &walls{func(network.Flow) bool { return false }}
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	w := between(laptop, builder)
	for i := range maxFlows {
		w.ToPort = uint16(i)
		if !f.admit(open, w, true, now) {
			t.Fatalf("flow %d does not pass", i)
		}
	}
	w.ToPort = maxFlows
	if f.admit(open, w, true, now) {
		t.Error("there is no end to one member's flows")
	}
	if !f.admit(open, w, false, now) || !f.admit(open, between(builder, laptop), true, now) {
		t.Error("a scan keeps others out, or its own machine from a registry")
	}
	if !f.admit(open, w, true, now.Add(flowLife)) || len(f.seen[laptop]) != 1 {
		t.Errorf("%d flows are remembered that nothing passes on", len(f.seen[laptop]))
	}
}

// A packet is judged by what it says it is; a fragment does not say.
func TestPacketsAreRead(t *testing.T) {
	var asked []network.Flow
	r := &rules{policy: policy{flows: &flows{}, filter: &walls{func(w network.Flow) bool { asked = append(asked, w); return false }}}}
	packet := func(protocol byte, fragment uint16, body ...byte) []byte {
		p := make([]byte, 20, 60)
		p[0], p[9] = 0x45, protocol
		binary.BigEndian.PutUint16(p[6:], fragment)
		copy(p[12:], laptop.AsSlice())
		copy(p[16:], registry.AsSlice())
		return append(p, body...)
	}
	if !r.Admit(packet(protocolTCP, 0x4000, 1, 2, 3, 4), toStack) || asked[0] != (network.Flow{Protocol: 6, From: laptop, To: registry, FromPort: 258, ToPort: 772}) {
		t.Errorf("asked about %+v", asked)
	}
	if !r.Admit(packet(1, 0), toMember) || asked[1] != (network.Flow{Protocol: 1, From: laptop, To: registry}) {
		t.Errorf("asked about %+v", asked)
	}
	for name, p := range map[string][]byte{"a first fragment": packet(protocolTCP, 0x2000, 1, 2, 3, 4), "a later one": packet(protocolTCP, 7, 1, 2, 3, 4), "half a header": packet(protocolUDP, 0, 1, 2, 3)} {
		if r.Admit(p, toStack) {
			t.Errorf("%s passes", name)
		}
	}
	if !r.Admit(packet(protocolTCP, 7), dropOutside) {
		t.Error("what is dropped anyway is dropped for another reason")
	}
	r.filter = nil
	if !r.Admit(packet(protocolTCP, 7), toStack) {
		t.Error("without groups fragments do not pass")
	}
}

// Other rules reset the connections that they forbid, and leave the others.
func TestForbiddenConnectionsEnd(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	mine, theirs := l.hanging(v.join(laptop), "mine"), l.hanging(v.join(builder), "theirs")
	n := l.sw.networks["contoso"].stack
	change := func(deny func(network.Flow) bool) {
		t.Helper()
		r := *n.rules.Load()
		r.filter = &walls{deny}
		if err := n.setRules(&r); err != nil {
			t.Fatal(err)
		}
	}
	change(func(w network.Flow) bool { return w.ToPort == 80 })
	select {
	case err := <-mine:
		t.Fatalf("rules about another port ended a connection: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	change(func(w network.Flow) bool { return w.From == laptop && w.To == registry && w.ToPort == 443 })
	ends(t, "forbidden", mine)
	select {
	case err := <-theirs:
		t.Errorf("another member's connection ended too: %v", err)
	default:
	}
}
