package network

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What security groups deny is said at once, with the rule, and then once a
// minute for each rule however much it is; many rules cost bounded memory, and
// a clock that goes back silences nobody. row:14
func TestDenialsAreSaidInBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out syncBuffer
		shift := time.Duration(0)
		d := &denials{log: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return time.Now().Add(shift) }, said: map[denier]*denied{}}
		f := &Filter{
			sides: Table[netip.Addr, *side]{}.With(netip.MustParseAddr("10.0.0.4"), &side{out: [][]rule{ordered("walls", []rule{{
				name: "no-registry", priority: 100, protocol: 6, from: places{any: true}, to: places{any: true}, toPort: []portRange{{443, 443}},
			}})}}),
			inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, network: "office", denials: d,
		}
		lines := func() []string {
			synctest.Wait()
			return strings.Split(strings.TrimSpace(out.String()), "\n")
		}
		flow := Flow{Protocol: 6, From: netip.MustParseAddr("10.0.0.4"), To: netip.MustParseAddr("10.0.1.4"), FromPort: 40000, ToPort: 443}
		for range 1000 {
			if f.Admit(flow) {
				t.Fatal("the rule does not deny")
			}
		}
		const want = `msg="a security group denies" network=office group=walls rule=no-registry protocol=6 from=10.0.0.4 to=10.0.1.4:443 packets=1`
		if got := lines(); len(got) != 1 || !strings.HasSuffix(got[0], want) {
			t.Errorf("a thousand packets: %q", got)
		}
		// Who only asks is not said.
		if group, name := f.Denies(flow); group != "walls" || name != "no-registry" {
			t.Errorf("%q %q", group, name)
		}
		time.Sleep(time.Minute)
		f.Admit(flow)
		if got := lines(); len(got) != 2 || !strings.HasSuffix(got[1], "packets=1000") {
			t.Errorf("a minute later: %q", got)
		}
		shift = -time.Hour
		f.Admit(flow)
		if got := lines(); len(got) != 3 {
			t.Errorf("after the clock went back: %q", got)
		}
		for i := range 3 * maxDenials {
			d.note("office", &rule{group: "many", name: fmt.Sprint(i)}, flow)
		}
		if got := lines(); len(got) > 3+maxDenials || len(d.said) > maxDenials {
			t.Errorf("%d rules at once: %d lines, %d remembered", 3*maxDenials, len(got)-3, len(d.said))
		}
		time.Sleep(time.Minute)
		d.note("office", &rule{group: "late", name: "comer"}, flow)
		if got := lines(); !strings.Contains(got[len(got)-1], "rule=comer") || len(d.said) != 1 {
			t.Errorf("after a flood of rules: %q, %d remembered", got[len(got)-1], len(d.said))
		}
	})
}
