package wireguard

import "testing"

func TestHarness(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop)
	h := v.hostile(laptop).join()
	if !h.answered() {
		t.Error("no")
	}
}
