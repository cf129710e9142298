package access_test

import (
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/directory"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
)

// Who guesses at a trusted service's secret from outside a closed registry
// reads what a stranger reads, however often: a 429 would say that there is
// something to guess at. With the right secret, by every way of signing in, the
// service passes, and its token is good from outside too. row:24
func TestGuessesAtAClosedRegistryReadLikeStrangers(t *testing.T) {
	w := open(t)
	w.Guesses = access.NewThrottle()
	scanner, secret := w.application(t, w.admin.Tenant)
	w.grant(t, scanner, policy.RoleAcrPull, w.registryID("harbor"))
	var err error
	w.Trusted, err = access.ParseTrusted(strings.NewReader("services: [{name: defender, identities: [" + scanner.AppID + "]}]"))
	must(t, err)
	w.change("harbor", func(s *registry.Settings) { s.PublicAccess, s.Bypass = false, true })

	bare := w.Check(t.Context(), ask(""))
	for i := range 200 {
		v := w.Check(t.Context(), ask(basic(scanner.AppID, "wrong")))
		_, form, err := w.Token(t.Context(), ask(""), access.Grant{User: scanner.AppID, Pass: "wrong", HasUser: true})
		must(t, err)
		for _, v := range []access.Verdict{v, form} {
			if v.Allow || v.Refusal != access.Network || v.Public != bare.Public || v.Wait != 0 || v.Challenge != "" {
				t.Fatalf("after %d guesses: %s %q, a stranger reads %q", i, v.Reason, v.Public, bare.Public)
			}
		}
	}

	w.Guesses = access.NewThrottle()
	if got := outcome(w.Check(t.Context(), ask(basic(scanner.AppID, secret), repo("team/app", "pull")))); got != "allowed" {
		t.Errorf("with its secret: %s", got)
	}
	raw, got := w.token(t, access.Grant{User: scanner.AppID, Pass: access.Secret(secret), HasUser: true, Scopes: []string{"repository:team/app:pull"}}, "")
	if got != "allowed" {
		t.Fatalf("at the token endpoint: %s", got)
	}
	if got := outcome(w.Check(t.Context(), ask("Bearer "+raw, repo("team/app", "pull")))); got != "allowed" {
		t.Errorf("with its token: %s", got)
	}
	if _, v, err := w.Exchange(t.Context(), ask(""), host, "", access.Secret(w.entra(t, scanner, management))); err != nil || !v.Allow {
		t.Errorf("by exchange: %v %v", v, err)
	}
	// Its principal's end is its end.
	must(t, w.ident.SetDisabled(t.Context(), scanner.ObjectID, true))
	if got := outcome(w.Check(t.Context(), ask("Bearer "+raw, repo("team/app", "pull")))); got != "COVE-NET-001" {
		t.Errorf("disabled: %s", got)
	}
}

// Who is on the operator's list by its object id passes with its client id and
// secret, too, and nobody else does: the list may have either. row:24
func TestAServiceListedByItsObjectId(t *testing.T) {
	w := open(t)
	scanner, secret := w.application(t, w.admin.Tenant)
	other, otherSecret := w.application(t, w.admin.Tenant)
	var err error
	w.Trusted, err = access.ParseTrusted(strings.NewReader("services: [{name: defender, identities: [" + scanner.ObjectID + "]}]"))
	must(t, err)
	w.change("harbor", func(s *registry.Settings) { s.PublicAccess, s.Bypass = false, true })
	for who, want := range map[*directory.Client]string{&scanner: "allowed", &other: "COVE-NET-001"} {
		w.grant(t, *who, policy.RoleAcrPull, w.registryID("harbor"))
		pass := secret
		if who == &other {
			pass = otherSecret
		}
		if got := outcome(w.Check(t.Context(), ask(basic(who.AppID, pass), repo("team/app", "pull")))); got != want {
			t.Errorf("%s: %s, want %s", who.AppID, got, want)
		}
	}
	if v := w.Check(t.Context(), ask(basic(scanner.AppID, "wrong"), repo("team/app", "pull"))); v.Refusal != access.Network {
		t.Errorf("with a wrong secret: %s", v.Reason)
	}
}

// Nobody is verified where nothing could come of it: the directory is not even
// asked about them.
func TestStrangersCredentialsAreNotLookedAt(t *testing.T) {
	w := open(t)
	other, secret := w.application(t, w.admin.Tenant)
	w.grant(t, other, policy.RoleOwner, w.registryID("harbor"))
	var err error
	w.Trusted, err = access.ParseTrusted(strings.NewReader("services: [{name: defender, identities: [" + directory.NewID() + "]}]"))
	must(t, err)
	w.change("harbor", func(s *registry.Settings) { s.PublicAccess, s.Bypass = false, true })
	must(t, w.db.Close())
	if v := w.Check(t.Context(), ask(basic(other.AppID, secret))); v.Refusal != access.Network || w.log.Len() > 0 {
		t.Errorf("%s, and the log says %q", v.Reason, w.log.String())
	}
	a := ask(basic(other.AppID, secret))
	a.Origin.Remote = netip.MustParseAddrPort("198.51.100.7:4000")
	if v := w.CheckNetwork(t.Context(), a); v.Refusal != access.Network {
		t.Error(v.Reason)
	}
}
