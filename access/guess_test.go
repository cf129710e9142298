package access_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/registry"
)

// spellings are names that Unicode folds to docks: with ſ for s, and with the
// kelvin's K for k.
var spellings = []string{"dock\u017f", "doc\u212as", "DOC\u212AS", "doc\u212a\u017f"}

// The admin user has one name, in capitals or not. A name that only Unicode
// takes for it signs nobody in, right password or not, and opens no further
// row of guesses at that password: it is an unknown name as any other.
//
// Published failure 21: a lockout that another spelling evaded.
func TestTheAdminsNameHasNoOtherSpelling(t *testing.T) {
	w := open(t)
	w.Guesses = access.NewThrottle()
	const at, password = "docks.cr.cove.internal", "first-docks"
	w.shelf.byHost[at] = registry.Settings{
		ID: w.registryID("docks"), UID: "uid-docks", Name: "docks", Host: at, PublicAccess: true, DefaultAllow: true, AdminUser: true,
	}.WithAdmin(password)
	try := func(from, user, password string) string {
		a := ask(basic(user, password))
		a.Host, a.Origin.Remote = at, netip.MustParseAddrPort(from+":40000")
		return outcome(w.Check(t.Context(), a))
	}
	for _, user := range []string{"docks", "DOCKS", "dOcKs"} {
		if got := try("198.51.100.1", user, password); got != "allowed" {
			t.Errorf("%q: %s", user, got)
		}
	}
	for _, user := range spellings {
		if !strings.EqualFold(user, "docks") {
			t.Fatalf("%q is not what Unicode takes for the name", user)
		}
		if got := try("198.51.100.1", user, password); got != "COVE-AUTH-010" {
			t.Errorf("%q with the admin's password: %s", user, got)
		}
	}
	heard := map[string]int{}
	for i := range 400 {
		user := append(spellings, "docks", "DOCKS")[i%(len(spellings)+2)]
		heard[try("203.0.113.9", user, fmt.Sprint("guess", i))]++
	}
	// Twenty guesses at the admin's password, and all names together have the
	// hundred of an address.
	if heard["COVE-AUTH-002"] > 20 || heard["COVE-AUTH-002"]+heard["COVE-AUTH-010"] > 100 || heard["COVE-AUTH-032"] < 300 {
		t.Errorf("heard were %v", heard)
	}
	if got := try("198.51.100.1", "docks", password); got != "allowed" {
		t.Errorf("its owner, from elsewhere: %s", got)
	}
}
