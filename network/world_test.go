package network

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// world is a control plane on a real database, with a map that follows it.
type world struct {
	testing.TB
	store resource.Store // obeyed by m
	raw   resource.Store // not
	svc   *resource.Service
	m     *Map
	cfg   Config
	clock *clock
	log   *syncBuffer
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.t = c.t.Add(d) }

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

const (
	sub      = "/subscriptions/11111111-1111-1111-1111-111111111111"
	group    = sub + "/resourceGroups/harbor"
	vnetID   = group + "/providers/Microsoft.Network/virtualNetworks/dock"
	subnetID = vnetID + "/subnets/pier"
	regID    = group + "/providers/Microsoft.ContainerRegistry/registries/Myregistry"
)

func each(t *testing.T, test func(w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newWorld(t, db)) })
}

func newWorld(t testing.TB, db *store.DB) *world {
	t.Helper()
	box, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, raw: store.NewResources(db), clock: &clock{t: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}, log: &syncBuffer{}}
	w.cfg = Config{
		Sealer: box, Registry: registry.Config{Suffix: "cr.cove.internal"}, Now: w.clock.now,
		Endpoint: "203.0.113.1:51820", Management: "https://management.cove.internal", Fingerprint: "ab12", Dial: "203.0.113.1:443",
	}
	w.m = NewMap(w.raw, w.cfg, slog.New(slog.NewTextHandler(w.log, nil)))
	w.store = w.m.Obeyed(w.raw)
	w.svc, err = resource.New(resource.Config{
		Store: w.store, Types: append(Types(w.cfg), registry.Type(w.cfg.Registry)),
		Locations: []string{"local"}, Now: w.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.check(w.svc.Begin(t.Context(), resource.First{Tenant: "t", Subscription: arm.MustID(sub).Name()}))
	w.put(group, `{"location":"local"}`)
	w.check(w.m.Load(t.Context()))
	return w
}

// owner may do everything; stranger nothing but join subnets.
var (
	owner    = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}
	stranger = resource.Caller{ObjectID: "stranger", May: func(action string, _ arm.ID) bool { return action == ActionJoin }}
	nobody   = resource.Caller{ObjectID: "nobody"}
)

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func object(text string) resource.Object {
	o, err := resource.Decode([]byte(text))
	if err != nil {
		panic(err)
	}
	return o
}

func (w *world) try(by resource.Caller, id, body string) (resource.Object, error) {
	out, err := w.svc.Put(w.Context(), by, arm.MustID(id), object(body), resource.Condition{})
	return out.Body, err
}

func (w *world) put(id, body string) resource.Object {
	w.Helper()
	out, err := w.try(owner, id, body)
	if err != nil {
		w.Fatalf("PUT %s: %v", id, err)
	}
	return out
}

func (w *world) get(id string) resource.Object {
	w.Helper()
	out, err := w.svc.Get(w.Context(), arm.MustID(id))
	if err != nil {
		w.Fatalf("GET %s: %v", id, err)
	}
	return out.Body
}

func (w *world) tryDelete(id string) error {
	_, err := w.svc.Delete(w.Context(), owner, arm.MustID(id), resource.Condition{})
	return err
}

func (w *world) delete(id string) {
	w.Helper()
	if err := w.tryDelete(id); err != nil {
		w.Fatalf("DELETE %s: %v", id, err)
	}
}

// refused fails unless err is of the code that callers are told.
func (w *world) refused(err error, code string) {
	w.Helper()
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Code != code {
		w.Fatalf("got %v, want a refusal with code %s", err, code)
	}
}

// invalid fails unless err names the path.
func (w *world) invalid(err error, path string) {
	w.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if ok {
		for _, f := range e.Fields {
			if f.Path == path {
				return
			}
		}
	}
	w.Fatalf("got %v, want a problem of %s", err, path)
}

// docs counts the documents, also those that callers cannot see.
func (w *world) docs() (n int) {
	w.Helper()
	w.check(w.raw.View(w.Context(), func(r resource.Reader) error {
		all, err := r.List(w.Context(), resource.Query{})
		n = 0
		for _, d := range all {
			if d.ID.Type() != "Cove.Resources/registrations" {
				n++ // the subscription's registrations are not of this package
			}
		}
		return err
	}))
	return n
}

func (w *world) vnet(prefix, subnet string) {
	w.Helper()
	w.put(vnetID, fmt.Sprintf(`{"location":"local","properties":{"addressSpace":{"addressPrefixes":[%q]},
		"subnets":[{"name":"pier","properties":{"addressPrefix":%q}}]}}`, prefix, subnet))
}

func (w *world) registry() {
	w.Helper()
	w.put(regID, `{"location":"local","sku":{"name":"Premium"},"properties":{}}`)
}

func nicID(name string) string {
	return group + "/providers/Microsoft.Network/networkInterfaces/" + name
}

func peID(name string) string { return group + "/providers/Microsoft.Network/privateEndpoints/" + name }

func nicBody(subnet, address string) string {
	if address == "" {
		return fmt.Sprintf(`{"location":"local","properties":{"ipConfigurations":[{"name":"ip1","properties":{"subnet":{"id":%q}}}]}}`, subnet)
	}
	return fmt.Sprintf(`{"location":"local","properties":{"ipConfigurations":[{"name":"ip1","properties":{"subnet":{"id":%q},
		"privateIPAllocationMethod":"Static","privateIPAddress":%q}}]}}`, subnet, address)
}

func (w *world) nic(name, address string) string {
	w.Helper()
	return addressOf(w.put(nicID(name), nicBody(subnetID, address)))
}

func addressOf(nic resource.Object) string {
	return textAt(objectsAt(nic, "properties", "ipConfigurations")[0], "properties", "privateIPAddress")
}

func peBody(list, subnet, reg string) string {
	return fmt.Sprintf(`{"location":"local","properties":{"subnet":{"id":%q},%q:[{"name":"c","properties":{
		"privateLinkServiceId":%q,"groupIds":["registry"]}}]}}`, subnet, list, reg)
}

func (w *world) pe(name string) resource.Object {
	w.Helper()
	return w.put(peID(name), peBody(automatic, subnetID, regID))
}

// connection is the id of the registry's one connection of the endpoint.
func (w *world) connection(pe string) string {
	w.Helper()
	for _, o := range objectsAt(w.get(regID), "properties", "privateEndpointConnections") {
		if strings.EqualFold(textAt(o, "properties", "privateEndpoint", "id"), pe) {
			return textAt(o, "id")
		}
	}
	return ""
}

func stateOf(pe resource.Object) string {
	for _, list := range []string{automatic, manual} {
		for _, o := range objectsAt(pe, "properties", list) {
			return readState(o).Status
		}
	}
	return ""
}

func setState(status string) string {
	return fmt.Sprintf(`{"properties":{"privateLinkServiceConnectionState":{"status":%q,"description":"by hand"}}}`, status)
}

func newKey() string {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
}

func memberID(nic, name string) string { return nicID(nic) + "/providers/Cove.Network/members/" + name }

func memberBody(key, kind string) string {
	return fmt.Sprintf(`{"properties":{"publicKey":%q,"kind":%q}}`, key, kind)
}

func (w *world) act(by resource.Caller, id, action, body string) (resource.Object, error) {
	return w.svc.Act(w.Context(), by, arm.MustID(id), action, object(body))
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// update runs fn in a transaction of the store itself.
func (w *world) update(fn func(ctx context.Context, tx resource.Tx) error) {
	w.Helper()
	w.check(w.store.Update(w.Context(), func(tx resource.Tx) error { return fn(w.Context(), tx) }))
}
