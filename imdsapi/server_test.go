package imdsapi_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/door"
	"cove.example/cove/identity"
	"cove.example/cove/imdsapi"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

const (
	sub        = "22222222-2222-2222-2222-222222222222"
	group      = "/subscriptions/" + sub + "/resourceGroups/g"
	office     = "office"
	management = "https://management.cove.internal"
)

// site is the service as a network's members reach it, on loopback: the
// listener says that connections came from inside.
type site struct {
	*testing.T
	url     string
	service *resource.Service
	dir     *directory.Directory
	tokens  *token.Tokens
	member  *network.Member // of 127.0.0.1
	holder  [32]byte        // of its tunnel
	key     [32]byte
	now     time.Time
}

// Endpoint and Member are network.Lookup.
func (s *site) Endpoint(string, netip.Addr) *network.Endpoint { return nil }

func (s *site) Member(in string, at netip.Addr) *network.Member {
	if in == office && at == netip.MustParseAddr("127.0.0.1") {
		return s.member
	}
	return nil
}

func open(t *testing.T, db *store.DB, kind link.Kind) *site {
	s := &site{T: t, now: time.Now().Truncate(time.Second)}
	now := func() time.Time { return s.now }
	docs, ident := store.NewResources(db), store.NewIdentity(db)
	key := make([]byte, 32)
	rand.Read(key)
	rand.Read(s.key[:])
	s.holder = s.key
	box, err := seal.New(key)
	s.must(err)
	keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, now)
	s.must(err)
	s.tokens = token.New(keys, func(tenant string) string { return "https://login.cove.internal/" + tenant + "/v2.0" })
	s.dir = directory.New(ident, now)

	c := identity.Config{Principals: ident}
	types := append(identity.Types(c), resource.Type{Name: "Cove.Test/interfaces"}, c.Bearing(resource.Type{Name: "Cove.Test/members", Extension: true}, nil))
	s.service, err = resource.New(resource.Config{Store: docs, Types: types, Locations: []string{"local"}, Now: now})
	s.must(err)
	s.must(s.service.Begin(t.Context(), resource.First{Tenant: directory.NewID(), Subscription: sub}))
	s.put(group, resource.Object{"location": "local"})
	nic := group + "/providers/Cove.Test/interfaces/laptop"
	member := nic + "/providers/Cove.Test/members/laptop"
	s.put(nic, resource.Object{"location": "local", "tags": resource.Object{"b": "2", "a": "1"}})
	s.member = &network.Member{ID: arm.MustID(member), NIC: arm.MustID(nic), Address: netip.MustParseAddr("10.0.0.4")}
	s.carry(nil)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	srv := door.Server(imdsapi.New(imdsapi.Config{
		Store: docs, Networks: s, Directory: s.dir, Tokens: s.tokens, Audiences: []string{management}, Now: now,
		Holder: func(in string, _ netip.Addr) ([32]byte, bool) {
			return s.holder, in == office && s.holder != [32]byte{}
		},
	}))
	go srv.Serve(link.Listener{Listener: l, Kind: kind, Network: office})
	t.Cleanup(func() { srv.Close() })
	s.url = "http://" + l.Addr().String()
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) put(id string, body resource.Object) resource.Object {
	s.Helper()
	r, err := s.service.Put(s.Context(), resource.Caller{May: func(string, arm.ID) bool { return true }}, arm.MustID(id), body, resource.Condition{})
	s.must(err)
	return r.Body
}

// carry makes the member carry an identity property, nil for none.
func (s *site) carry(property resource.Object) resource.Object {
	s.Helper()
	body := resource.Object{"properties": resource.Object{"publicKey": base64.StdEncoding.EncodeToString(s.key[:])}}
	if property != nil {
		body["identity"] = property
	}
	return s.put(s.member.ID.String(), body)
}

func (s *site) user(name string) (id, client, principal string) {
	s.Helper()
	id = group + "/providers/" + identity.TypeName + "/" + name
	o := s.put(id, resource.Object{"location": "local"})
	client, _ = resource.Lookup(o, "properties.clientId").(string)
	principal, _ = resource.Lookup(o, "properties.principalId").(string)
	return id, client, principal
}

type answer struct {
	status int
	text   string
	body   map[string]any
}

func (s *site) get(path string, change func(*http.Request)) (a answer) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, s.url+path, nil)
	s.must(err)
	req.Host = "169.254.169.254"
	req.Header.Set("Metadata", "true")
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	s.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	s.must(err)
	if resp.Header.Get("Cache-Control") != "no-store" {
		s.Errorf("%s may be cached", path)
	}
	a.status, a.text = resp.StatusCode, string(b)
	_ = json.Unmarshal(b, &a.body) // what is no JSON is looked at as text
	return a
}

const ask = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + management + "/"

// is fails unless the answer is a token of that principal.
func (s *site) is(what string, a answer, principal string) {
	s.Helper()
	c, err := s.tokens.VerifyPrincipal(fmt.Sprint(a.body["access_token"]), management)
	if a.status != 200 || err != nil || c.ObjectID != principal {
		s.Errorf("%s: %d %s, %v", what, a.status, a.text, err)
		return
	}
	if a.body["expires_on"] != fmt.Sprint(c.Expires) || a.body["resource"] != management+"/" || a.body["token_type"] != "Bearer" || a.body["client_id"] != c.AppID || c.Managed == "" || c.Tenant == "" {
		s.Errorf("%s: %s", what, a.text)
	}
}

func (s *site) refuses(what string, a answer, status int, says string) {
	s.Helper()
	if a.status != status || !strings.Contains(a.text, says) || strings.Contains(a.text, "access_token") {
		s.Errorf("%s: %d %s, want %d %s", what, a.status, a.text, status, says)
	}
}

func TestTokens(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db, link.Overlay)
		s.refuses("no identity", s.get(ask, nil), 400, "Identity not found")
		oneID, oneClient, onePrincipal := s.user("one-identity")
		twoID, twoClient, twoPrincipal := s.user("two-identity")
		_, otherClient, _ := s.user("other")
		users := func(ids ...string) resource.Object {
			o := resource.Object{}
			for _, id := range ids {
				o[id] = resource.Object{}
			}
			return o
		}
		s.carry(resource.Object{"type": "UserAssigned", "userAssignedIdentities": users(oneID)})
		s.is("the only one", s.get(ask, nil), onePrincipal)
		s.carry(resource.Object{"type": "UserAssigned", "userAssignedIdentities": users(oneID, twoID)})
		s.refuses("one of two", s.get(ask, nil), 400, "Multiple user assigned identities")
		s.is("by client id", s.get(ask+"&client_id="+strings.ToUpper(twoClient), nil), twoPrincipal)
		s.is("by object id", s.get(ask+"&object_id="+onePrincipal, nil), onePrincipal)
		s.is("by resource id", s.get(ask+"&msi_res_id="+strings.ToLower(twoID), nil), twoPrincipal)
		s.is("by resource id, newer", s.get(ask+"&mi_res_id="+twoID, nil), twoPrincipal)
		s.refuses("one that it does not carry", s.get(ask+"&client_id="+otherClient, nil), 400, "Identity not found")
		s.refuses("an object id as client id", s.get(ask+"&client_id="+onePrincipal, nil), 400, "Identity not found")
		s.refuses("two names", s.get(ask+"&client_id="+oneClient+"&object_id="+twoPrincipal, nil), 400, "At most one")
		s.refuses("a name twice", s.get(ask+"&client_id="+oneClient+"&client_id="+twoClient, nil), 400, "more than once")
		both := s.carry(resource.Object{"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": users(oneID, twoID)})
		own, _ := resource.Lookup(both, "identity.principalId").(string)
		s.is("its own before others", s.get(ask, nil), own)
		s.refuses("its own by the member's id", s.get(ask+"&msi_res_id="+s.member.ID.String(), nil), 400, "Identity not found")
		_, err := s.dir.Change(t.Context(), own, func(o *directory.Object) error { o.Disabled = true; return nil })
		s.must(err)
		s.refuses("a disabled one", s.get(ask, nil), 400, "Identity not found")
	})
}

// Published failures 14 and 42: whoever holds a credential of any kind gets
// nothing for it here, neither another's identity nor one that the member does
// not carry; the member's own is what it gets, whatever it shows.
//
// Published failure 43.
func TestNoCredentialIsTakenHere(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)), link.Overlay)
	_, _, other := s.user("other-identity")
	secret, cred := directory.NewSecret("ci", s.now, time.Hour)
	app := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal}, Credentials: []directory.Credential{cred}}
	s.must(s.dir.Add(t.Context(), app))
	principal, _, err := s.tokens.MintPrincipal(token.PrincipalClaims{Audience: management, ObjectID: other, Tenant: app.Tenant, AppID: app.AppID, Managed: "/m"})
	s.must(err)
	refresh, _, err := s.tokens.MintRefresh(token.RegistryClaims{Audience: "harbor.cr.cove.internal", RegistryUID: "u", ObjectID: other})
	s.must(err)
	access, _, err := s.tokens.MintRegistry(token.RegistryClaims{Audience: "harbor.cr.cove.internal", RegistryUID: "u", ObjectID: other}, time.Time{})
	s.must(err)
	session, err := s.tokens.MintSession(token.Session{ObjectID: other, Tenant: app.Tenant})
	s.must(err)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(app.AppID+":"+secret.Reveal()))
	shows := map[string]func(*http.Request){}
	for name, value := range map[string]string{
		"a token of the issuer": "Bearer " + principal, "a refresh token": "Bearer " + refresh, "an access token": "Bearer " + access,
		"a person's refresh token": "Bearer " + session, "a secret": basic, "nothing that is one": "Bearer undefined",
	} {
		shows[name] = func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	// By the header of another cloud's service, and as those who stand before a
	// service say who asks.
	for _, name := range []string{"Secret", "X-Identity-Header", "X-Ms-Client-Principal-Id", "X-Real-Ip", "Forwarded"} {
		shows[name] = func(r *http.Request) { r.Header.Set(name, other) }
	}
	for name, show := range shows {
		s.refuses("no identity, with "+name, s.get(ask, show), 400, "Identity not found")
		s.refuses("another's, with "+name, s.get(ask+"&object_id="+other, show), 400, "Identity not found")
		s.now = s.now.Add(time.Second) // a member may ask so often
	}
	own, _ := resource.Lookup(s.carry(resource.Object{"type": "SystemAssigned"}), "identity.principalId").(string)
	for name, show := range shows {
		s.is("its own, with "+name, s.get(ask, show), own)
		s.now = s.now.Add(time.Second)
	}
	member := s.member
	s.member = nil
	for name, show := range shows {
		s.refuses("a stranger with "+name, s.get(ask, show), 403, "access_denied")
	}
	s.member = member
}

// Published failure 42: a path has one spelling, so that what stands in front
// of the service and looks for that one sees every request for a token.
func TestOnePathForTokens(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)), link.Overlay)
	s.carry(resource.Object{"type": "SystemAssigned"})
	path, query, _ := strings.Cut(ask, "?")
	for _, spelling := range []string{
		"/metadata/identity\\oauth2/token", "/metadata/identity%5coauth2/token", "/metadata/identity%5Coauth2/token", "/metadata/identity%2foauth2/token",
		"//metadata/identity/oauth2/token", "/metadata//identity/oauth2/token", "/metadata/identity/oauth2/token//", "/metadata/./identity/oauth2/token",
		"/metadata/x/../identity/oauth2/token", "/x/../metadata/identity/oauth2/token", "/metadata/%69dentity/oauth2/token", "/metadata/identity/oauth2/token%20",
		"/metadata/identity/oauth2/token%00", "/metadata/identity/oauth2/token;x", "/metadata/identity/oauth2/token/.", "/metadata/instance/../identity/oauth2/token",
		"/metadata/identity/oauth2/%74oken", "/metadata/identity/oauth2/token%2f", "/metadata/identity/oauth2/token%3f", "http://169.254.169.254" + path,
	} {
		a := s.get(ask, func(r *http.Request) { r.URL.Opaque, r.URL.RawQuery = spelling, query })
		if a.status != 404 && a.status != 400 || strings.Contains(a.text, "access_token") {
			t.Errorf("%s: %d %s", spelling, a.status, a.text)
		}
		s.now = s.now.Add(time.Second)
	}
}

// Published failure 42: what tells a program of the machine from somebody who
// makes it ask, and a member from whoever has its address.
func TestWhoIsNotAnswered(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)), link.Overlay)
	s.carry(resource.Object{"type": "SystemAssigned"})
	if a := s.get(ask, nil); a.status != 200 {
		t.Fatal(a.text)
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		what   string
		path   string
		change func(*http.Request)
		status int
		says   string
	}{
		{"without the header", ask, func(r *http.Request) { r.Header.Del("Metadata") }, 400, "Required metadata header not specified"},
		{"with another value", ask, header("Metadata", "1"), 400, "Required metadata header"},
		{"with the header twice", ask, func(r *http.Request) { r.Header.Add("Metadata", "true") }, 400, "Required metadata header"},
		{"through a proxy", ask, header("X-Forwarded-For", "203.0.113.9"), 400, "X-Forwarded-For"},
		{"through a proxy that hides itself", ask, header("X-Forwarded-For", ""), 400, "X-Forwarded-For"},
		{"by a name that leads here", ask, func(r *http.Request) { r.Host = "evil.example" }, 400, "Host"},
		{"by another port", ask, func(r *http.Request) { r.Host = "169.254.169.254:8080" }, 400, "Host"},
		{"a POST", ask, func(r *http.Request) { r.Method = http.MethodPost }, 405, "GET"},
		{"without a version", strings.Replace(ask, "api-version", "version", 1), nil, 400, "api-version"},
		{"without a resource", strings.Replace(ask, "resource", "source", 1), nil, 400, "'resource'"},
		{"for somebody else", strings.Replace(ask, management, "https://vault.example", 1), nil, 400, "invalid_resource"},
		{"for a name that begins like ours", strings.Replace(ask, management, management+".evil.example", 1), nil, 400, "invalid_resource"},
		{"another path", "/metadata/identity/oauth2/token/x?api-version=2018-02-01", nil, 404, "not_found"},
		{"a path that is nearly one", "/metadata/instances?api-version=2018-02-01", nil, 404, "not_found"},
		{"a query that is none", ask + "&x=%zz", nil, 400, "query"},
	} {
		s.refuses(c.what, s.get(c.path, c.change), c.status, c.says)
	}
	// The tunnels have another member at the address than the map, for a
	// moment: it is nobody's.
	s.holder[0]++
	s.refuses("the address with another's key", s.get(ask, nil), 403, "access_denied")
	s.holder = [32]byte{}
	s.refuses("the address with no key", s.get(ask, nil), 403, "access_denied")
	s.holder = s.key
	member := s.member
	s.member = nil
	s.refuses("an address of nobody", s.get(ask, nil), 403, "access_denied")
	s.member = &network.Member{ID: arm.MustID(group + "/providers/Cove.Test/members/gone"), NIC: member.NIC}
	s.refuses("a member that is gone", s.get(ask, nil), 403, "access_denied")
	s.member = member

	outside := open(t, storetest.Open(t, storetest.SQLite(t)), link.Public)
	outside.carry(resource.Object{"type": "SystemAssigned"})
	outside.refuses("by the public door", outside.get(ask, nil), 403, "access_denied")
}

// A member that asks without end is told to wait, and is answered again.
func TestAskingIsBounded(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)), link.Overlay)
	const instance = "/metadata/instance/compute/name?api-version=2021-02-01"
	throttled := 0
	for range 50 {
		if s.get(instance, nil).status == 429 {
			throttled++
		}
	}
	if throttled != 10 {
		t.Errorf("of 50 requests at once %d were told to wait", throttled)
	}
	s.now = s.now.Add(time.Second)
	if a := s.get(instance, nil); a.status != 200 {
		t.Errorf("a second later: %d", a.status)
	}
}

func TestInstance(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)), link.Overlay)
	a := s.get("/metadata/instance?api-version=2021-02-01", nil)
	compute, _ := a.body["compute"].(map[string]any)
	for name, want := range map[string]string{"name": "laptop", "location": "local", "subscriptionId": sub, "resourceGroupName": "g", "resourceId": s.member.ID.String(), "tags": "a:1;b:2"} {
		if compute[name] != want {
			t.Errorf("%s is %v, want %s", name, compute[name], want)
		}
	}
	for path, want := range map[string]string{
		"/compute/location": "local", "/Compute/Location/": "local", "/network/interface/0/ipv4/ipAddress/0/privateIpAddress": "10.0.0.4",
		"/compute/tagsList/1/name": "b",
	} {
		if a := s.get("/metadata/instance"+path+"?api-version=2021-02-01&format=text", nil); a.status != 200 || a.text != want {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
	}
	for _, path := range []string{"/nothing", "/compute/name/x", "/network/interface/1", "/network/interface/-1"} {
		s.refuses(path, s.get("/metadata/instance"+path+"?api-version=2021-02-01&format=text", nil), 404, "not_found")
	}
	s.refuses("an object as text", s.get("/metadata/instance/compute?api-version=2021-02-01&format=text", nil), 400, "json")
}
