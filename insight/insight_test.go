package insight

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/kql"
	"cove.example/cove/outbound"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
)

const (
	group      = "/subscriptions/s1/resourceGroups/g"
	harbor     = group + "/providers/Microsoft.ContainerRegistry/registries/harbor"
	quay       = group + "/providers/Microsoft.ContainerRegistry/registries/quay1"
	settingIDs = harbor + "/providers/Microsoft.Insights/diagnosticSettings/"
	sinkIDs    = group + "/providers/Cove.Diagnostics/sinks/"
	spaces     = group + "/providers/Microsoft.OperationalInsights/workspaces/"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// owner may do everything.
var owner = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}

// only may do these, each "ACTION SCOPE".
func only(rights ...string) resource.Caller {
	return resource.Caller{ObjectID: "somebody", May: func(action string, scope arm.ID) bool {
		return slices.ContainsFunc(rights, func(r string) bool {
			a, at, _ := strings.Cut(r, " ")
			return a == action && scope.Within(arm.MustID(at))
		})
	}}
}

// site is a deployment with two registries, whose clock stands where it is put.
type site struct {
	*resource.Service
	t      *testing.T
	db     *store.DB
	events *store.Events
	folder string
	*Delivery
	mu  sync.Mutex
	now time.Time
}

func (s *site) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *site) set(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func each2(t *testing.T, test func(t *testing.T, s *site)) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(name, func(t *testing.T) { test(t, open(t, url(t))) })
	}
}

func open(t *testing.T, url string) *site {
	t.Helper()
	s := &site{t: t, now: noon, folder: t.TempDir()}
	var err error
	if s.db, err = store.Open(t.Context(), url, store.Options{Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	if s.events, err = s.db.Events(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.events.Close() })
	box, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenRoot(s.folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	c := Config{Sealer: box, Keep: 90 * day, Folder: dir}
	resources := store.NewResources(s.db)
	s.Delivery = &Delivery{Config: c, Store: resources, Feed: s.events, Now: s.clock, Log: slog.New(slog.DiscardHandler)}
	types := append(Types(c), registry.Type(registry.Config{Suffix: "cr.cove.internal", Sealer: box}), resource.Type{Name: registry.TypeConnection})
	if s.Service, err = resource.New(resource.Config{Store: resources, Types: types, Locations: []string{"local"}, Now: s.clock}); err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(t.Context(), resource.First{Tenant: "t", Subscription: "s1"}); err != nil {
		t.Fatal(err)
	}
	s.put(group, `{"location":"local"}`)
	s.put(harbor, `{"location":"local","sku":{"name":"Premium"}}`)
	s.put(quay, `{"location":"local","sku":{"name":"Premium"}}`)
	return s
}

func (s *site) try(by resource.Caller, id, body string) (resource.Result, error) {
	o, err := resource.Decode([]byte(body))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Put(s.t.Context(), by, arm.MustID(id), o, resource.Condition{})
}

func (s *site) put(id, body string) resource.Result {
	s.t.Helper()
	r, err := s.try(owner, id, body)
	if err != nil {
		s.t.Fatalf("%s: %v", id, err)
	}
	return r
}

// login records a login on a registry, by n in its id.
func (s *site) login(n int, at time.Time, key, table string) {
	s.events.Record(audit.Event{
		ID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", n), Time: at, Table: table, Registry: strings.ToLower(key), Operation: "Login", Status: 403,
	})
}

const bothLogs = `"logs":[{"category":"ContainerRegistryLoginEvents","enabled":true},{"category":"ContainerRegistryRepositoryEvents","enabled":true}]`

func toSink(name, logs string) string {
	return `{"properties":{"marketplacePartnerId":"` + sinkIDs + name + `",` + logs + `}}`
}

// passes delivers for a setting until nothing is left, from the cursor that it
// is given, and returns where it is.
func (s *site) pass(name string, from json.RawMessage) (json.RawMessage, error) {
	s.t.Helper()
	r, err := s.Get(s.t.Context(), arm.MustID(settingIDs+name))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.events.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	var uid string
	err = s.Store.View(s.t.Context(), func(rd resource.Reader) error {
		d, err := rd.Get(s.t.Context(), r.ID)
		uid = d.UID
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	kept := from
	run := &delivery{d: s.Delivery, body: deliverBody{ID: r.ID.Key(), UID: uid}, keep: func(_ context.Context, state json.RawMessage) error {
		kept = state
		return nil
	}}
	if len(from) > 0 {
		if err := json.Unmarshal(from, &run.cursor); err != nil {
			s.t.Fatal(err)
		}
	}
	for {
		full, err := run.pass(s.t.Context())
		if err != nil || !full {
			return kept, err
		}
	}
}

// lines are the records of a file sink, each as the number in its id.
func (s *site) lines(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.folder, name))
	if errors.Is(err, os.ErrNotExist) {
		return "no file"
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		if m, ok := r["Message"].(string); ok {
			out = append(out, m)
			continue
		}
		out = append(out, strings.TrimLeft(r["DecisionId"].(string)[:8], "0"))
	}
	return strings.Join(out, " ")
}

// A setting sends the categories that it enables, of its registry, from its
// making on.
//
// row:97
func TestSettingSendsItsCategories(t *testing.T) {
	each2(t, func(t *testing.T, s *site) {
		s.login(1, noon.Add(-time.Second), harbor, audit.LoginEvents) // before it was made
		s.put(sinkIDs+"all", `{"location":"local","properties":{"kind":"file"}}`)
		s.put(sinkIDs+"pulls", `{"location":"local","properties":{"kind":"file"}}`)
		if r := s.put(settingIDs+"one", toSink("all", bothLogs)); r.Created {
			t.Error("the setting is answered as made, which az does not take")
		}
		s.put(settingIDs+"two", toSink("pulls", `"logs":[{"category":"ContainerRegistryRepositoryEvents","enabled":true},{"category":"ContainerRegistryLoginEvents","enabled":false}]`))
		s.set(noon.Add(time.Hour))
		s.login(2, noon.Add(time.Second), harbor, audit.LoginEvents)
		s.login(3, noon.Add(2*time.Second), harbor, audit.RepositoryEvents)
		s.login(4, noon.Add(3*time.Second), quay, audit.LoginEvents)
		one, err := s.pass("one", nil)
		if err != nil {
			t.Fatal(err)
		}
		two, err := s.pass("two", nil)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := s.lines("all.jsonl"), s.lines("pulls.jsonl"); a != "2 3" || b != "3" {
			t.Errorf("sent %q and %q", a, b)
		}
		s.login(5, noon.Add(13*time.Hour), harbor, audit.RepositoryEvents) // the next day
		s.login(6, noon.Add(11*time.Hour), harbor, audit.RepositoryEvents) // late
		for name, from := range map[string]json.RawMessage{"one": one, "two": two} {
			if _, err := s.pass(name, from); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := s.lines("all.jsonl"), s.lines("pulls.jsonl"); a != "2 3 6 5" || b != "3 6 5" {
			t.Errorf("then %q and %q", a, b)
		}
		if s.Sent() != 7 || s.Failed() != 0 || s.Lost() != 0 {
			t.Errorf("%d sent, %d failed, %d lost", s.Sent(), s.Failed(), s.Lost())
		}
	})
}

// What a setting or a sink cannot do is refused.
func TestWhatCannotBeObeyedIsRefused(t *testing.T) {
	s := open(t, storetest.SQLite(t))
	s.put(sinkIDs+"files", `{"location":"local","properties":{"kind":"file"}}`)
	s.put(spaces+"logs", `{"location":"local"}`)
	workspace := `"workspaceId":"` + spaces + `logs"`
	for _, c := range []struct{ id, body, want string }{
		{settingIDs + "x", `{"properties":{` + workspace + `,` + bothLogs + `,"metrics":[{"category":"AllMetrics","enabled":true}]}}`, "ok"},
		{settingIDs + "x", `{"properties":{` + workspace + `,"logs":[{"categoryGroup":"allLogs","enabled":true}]}}`, "ok"},
		{settingIDs + "x", `{"properties":{` + bothLogs + `}}`, "properties: name a destination: workspaceId or marketplacePartnerId"},
		{settingIDs + "x", `{"properties":{"storageAccountId":"/x/y",` + workspace + `}}`, "properties.storageAccountId: is not a destination here; send to a workspace (workspaceId), or to a sink of type Cove.Diagnostics/sinks (marketplacePartnerId)"},
		{settingIDs + "x", `{"properties":{"workspaceId":"` + spaces + `other"}}`, "The destination '" + spaces + "other' does not exist, or you may not send to it: that takes Microsoft.OperationalInsights/workspaces/sharedKeys/action."},
		{settingIDs + "x", `{"properties":{"workspaceId":"` + sinkIDs + `files"}}`, "properties.workspaceId: must be the resource id of a Microsoft.OperationalInsights/workspaces"},
		{settingIDs + "x", toSink("files", `"logs":[{"category":"Nope","enabled":true}]`), "properties.logs[0].category: must be ContainerRegistryRepositoryEvents or ContainerRegistryLoginEvents, or categoryGroup allLogs"},
		{settingIDs + "x", toSink("files", `"logs":[]`), "properties.logs: enable at least one category, or nothing is sent"},
		{settingIDs + "x", toSink("files", bothLogs+`,"metrics":[{"category":"AllMetrics","enabled":true}]`), "properties.metrics[0].enabled: metrics are not sent to sinks"},
		{settingIDs + "x", toSink("files", `"logs":[{"category":"ContainerRegistryLoginEvents","enabled":true,"retentionPolicy":{"enabled":true,"days":7}}]`), "properties.logs[0].retentionPolicy: is for storage accounts; a workspace has retentionInDays, a sink its own limits"},
		{group + "/providers/Microsoft.Insights/diagnosticSettings/x", `{"properties":{` + workspace + `}}`, "id: only registries have logs here"},
		{sinkIDs + "Upper", `{"properties":{"kind":"file"}}`, "name: the name of a sink is 1 to 63 lower-case letters, digits and hyphens"},
		{sinkIDs + "a.b", `{"properties":{"kind":"file"}}`, "name: the name of a sink is 1 to 63 lower-case letters, digits and hyphens"},
		{sinkIDs + "x", `{"properties":{"kind":"pigeon"}}`, "properties.kind: must be file or webhook"},
		{sinkIDs + "x", `{"properties":{"kind":"file","maxBytes":10}}`, "properties.maxBytes: must be a number from 1048576 to 1073741824"},
		{sinkIDs + "x", `{"properties":{"kind":"file","files":0}}`, "properties.files: must be a number from 1 to 100"},
		{sinkIDs + "x", `{"properties":{"kind":"webhook","uri":"http://logs.example.com"}}`, "properties.uri: must be an https address without a user, such as https://logs.example.com/cove"},
		{sinkIDs + "x", `{"properties":{"kind":"webhook","uri":"https://u:p@logs.example.com"}}`, "properties.uri: must be an https address without a user, such as https://logs.example.com/cove"},
		{sinkIDs + "x", `{"properties":{"kind":"webhook","uri":"https://h","headers":{"Host":"x"}}}`, `properties.headers: "Host" is not a header that can be set`},
		{sinkIDs + "x", `{"properties":{"kind":"webhook","uri":"https://h","headers":{"A":"x\r\nB: y"}}}`, `properties.headers: the value of "A" is not a text of at most 4096 printable characters`},
		{spaces + "x", `{"location":"local","properties":{"retentionInDays":91}}`, "properties.retentionInDays: must be a number from 1 to 90: this server keeps events for 90 days"},
		{spaces + "x", `{"location":"local","properties":{"publicNetworkAccessForQuery":"Disabled"}}`, "properties.publicNetworkAccessForQuery: can only be Enabled: who may ask is said by roles"},
	} {
		got := "ok"
		if _, err := s.try(owner, c.id, c.body); err != nil {
			_, got = fault.Of(err)
		}
		if got != c.want {
			t.Errorf("%s\n%s\n got %s\nwant %s", c.id, c.body, got, c.want)
		}
	}
	// Whoever may write a setting may not for that reason send to everybody.
	s.put(sinkIDs+"theirs", `{"properties":{"kind":"file"}}`)
	if _, err := s.try(only(TypeSettings+"/write "+harbor), settingIDs+"y", toSink("theirs", bothLogs)); !errors.Is(err, errDestination) {
		t.Errorf("a sink of others: %v", err)
	}
	if _, err := s.try(only(actionSendSink+" "+sinkIDs+"theirs"), settingIDs+"y", toSink("theirs", bothLogs)); err != nil {
		t.Error(err)
	}
	if _, err := s.Delete(t.Context(), owner, arm.MustID(sinkIDs+"theirs"), resource.Condition{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a sink in use is deleted: %v", err)
	}
}

// hook is a webhook on a real socket, reached as the server reaches it.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []string
	header http.Header
	hang   chan struct{}
}

func (s *site) hook() *hook {
	h := &hook{status: http.StatusOK}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		status, hang := h.status, h.hang
		h.mu.Unlock()
		if hang != nil {
			<-hang
			return
		}
		var body struct{ Records []map[string]any }
		if err := json.Unmarshal(b, &body); err != nil {
			status = http.StatusBadRequest
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.header = r.Header.Clone()
		if status/100 == 2 {
			for _, rec := range body.Records {
				if m, ok := rec["Message"].(string); ok {
					h.got = append(h.got, m)
					continue
				}
				h.got = append(h.got, strings.TrimLeft(rec["DecisionId"].(string)[:8], "0"))
			}
		}
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(status)
	}))
	s.t.Cleanup(h.Close)
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate())
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	dialer := outbound.New(outbound.Config{Roots: roots, Allow: outbound.Allow{outbound.Logs: {loopback}}, Own: func(netip.AddrPort) bool { return false }})
	s.Web = dialer.Transport(outbound.Logs)
	return h
}

func (h *hook) answer(status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status = status
}

func (h *hook) received() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.got, " ")
}

// While a webhook is down nothing is lost: what it has not said that it has is
// sent again, in the same order.
func TestNothingIsLostWhileASinkIsDown(t *testing.T) {
	each2(t, func(t *testing.T, s *site) {
		h := s.hook()
		s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"`+h.URL+`/in","headers":{"Authorization":"Bearer canary-7f3a"}}}`)
		s.put(settingIDs+"one", toSink("hook", bothLogs))
		s.login(1, noon.Add(time.Second), harbor, audit.LoginEvents)
		at, err := s.pass("one", nil)
		if err != nil || h.received() != "1" {
			t.Fatalf("sent %q, %v", h.received(), err)
		}
		if got := h.header.Get("Authorization"); got != "Bearer canary-7f3a" {
			t.Errorf("the header is %q", got)
		}
		for _, status := range []int{500, 404, 302} {
			h.answer(status)
			s.login(status, noon.Add(time.Duration(status)*time.Second), harbor, audit.LoginEvents)
			if at, err = s.pass("one", at); err == nil {
				t.Errorf("%d is taken for a success", status)
			}
		}
		h.answer(204)
		if at, err = s.pass("one", at); err != nil || h.received() != "1 500 404 302" {
			t.Errorf("after the repair: %q, %v", h.received(), err)
		}
		// The process died after the webhook had them and before that was saved.
		s.login(7, noon.Add(time.Hour), harbor, audit.LoginEvents)
		if _, err := s.pass("one", at); err != nil {
			t.Fatal(err)
		}
		if _, err := s.pass("one", at); err != nil || h.received() != "1 500 404 302 7 7" {
			t.Errorf("after a crash: %q, %v", h.received(), err)
		}
	})
}

// A webhook that hangs is given up, and so is one that lies where no webhook
// may.
func TestASinkThatHangs(t *testing.T) {
	s := open(t, storetest.SQLite(t))
	h := s.hook()
	h.hang = make(chan struct{})
	s.t.Cleanup(func() { close(h.hang) })
	s.Patience = 50 * time.Millisecond
	s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"`+h.URL+`"}}`)
	s.put(settingIDs+"one", toSink("hook", bothLogs))
	s.login(1, noon.Add(time.Second), harbor, audit.LoginEvents)
	if _, err := s.pass("one", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a webhook that hangs: %v", err)
	}
	dialer := outbound.New(outbound.Config{Own: func(netip.AddrPort) bool { return false }})
	s.Web = dialer.Transport(outbound.Logs)
	if _, err := s.pass("one", nil); !errors.Is(err, outbound.ErrUnreachable) {
		t.Errorf("a webhook on loopback that nobody has allowed: %v", err)
	}
}

// What is deleted for its age before a sink took it is counted, and the sink is
// told.
func TestASinkIsToldWhatItMissed(t *testing.T) {
	each2(t, func(t *testing.T, s *site) {
		h := s.hook()
		s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"`+h.URL+`"}}`)
		s.put(settingIDs+"one", toSink("hook", bothLogs))
		h.answer(503)
		for i := range 3 {
			s.login(i+1, noon.Add(time.Second), harbor, audit.LoginEvents)
		}
		at, err := s.pass("one", nil)
		if err == nil {
			t.Fatal("sent to a webhook that is down")
		}
		s.set(noon.AddDate(0, 0, 91))
		s.login(9, noon.AddDate(0, 0, 91), harbor, audit.LoginEvents)
		if _, err := s.events.Trim(t.Context(), noon.AddDate(0, 0, 1)); err != nil {
			t.Fatal(err)
		}
		if at, err = s.pass("one", at); err == nil { // still down: what was lost is not forgotten
			t.Fatal("sent to a webhook that is down")
		}
		h.answer(200)
		if at, err = s.pass("one", at); err != nil {
			t.Fatal(err)
		}
		want := "up to 3 events of 2026-11-21 were deleted for their age before this sink took them 9"
		if got := h.received(); got != want || s.Lost() != 3 {
			t.Errorf("got %q, %d lost", got, s.Lost())
		}
		if _, err = s.pass("one", at); err != nil || h.received() != want {
			t.Errorf("told again: %q, %v", h.received(), err)
		}
	})
}

// A sink that is pointed at another host does not take its credentials there,
// and nobody is shown them.
func TestHeadersBelongToTheirHost(t *testing.T) {
	s := open(t, storetest.SQLite(t))
	doc := func(r resource.Result) http.Header {
		t.Helper()
		var h http.Header
		err := s.Store.View(t.Context(), func(rd resource.Reader) error {
			d, err := rd.Get(t.Context(), r.ID)
			if err == nil {
				h, err = s.headers(d)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	r := s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"https://logs.example.com/a-canary?sig=canary","headers":{"X-Key":"canary-91c2"}}}`)
	if shown := fmt.Sprint(r.Body); strings.Contains(shown, "canary") || strings.Contains(shown, "sealed") || !strings.Contains(shown, "X-Key") || !strings.Contains(shown, "https://logs.example.com") {
		t.Errorf("shown: %s", shown)
	}
	if h := doc(r); h.Get("X-Key") != "canary-91c2" {
		t.Errorf("kept: %v", h)
	}
	if h := doc(s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"https://logs.example.com/b"}}`)); h.Get("X-Key") != "canary-91c2" {
		t.Errorf("after a change of the path: %v", h)
	}
	if h := doc(s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"https://evil.example.com/b"}}`)); len(h) != 0 {
		t.Errorf("taken to another host: %v", h)
	}
	if h := doc(s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"https://logs.example.com/b"}}`)); len(h) != 0 {
		t.Errorf("and back: %v", h)
	}
}

// The path or the query of a webhook's address is a credential with many
// services. It is kept sealed, shown to nobody, and goes nowhere but to the
// webhook; what does not name it leaves it as it was.
func TestAnAddressIsASecret(t *testing.T) {
	s := open(t, storetest.SQLite(t))
	address := func(r resource.Result) (address, kept string) {
		t.Helper()
		err := s.Store.View(t.Context(), func(rd resource.Reader) error {
			d, err := rd.Get(t.Context(), r.ID)
			if err == nil {
				kept = fmt.Sprint(d.Body)
				address, err = s.address(d)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return address, kept
	}
	const first = "https://logs.example.com/services/canary-T0?sig=canary-51"
	made := s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"`+first+`","headers":{"X-Key":"k"}}}`)
	for what, r := range map[string]resource.Result{
		"when it is made":                                  made,
		"when it is put as it is read":                     s.put(sinkIDs+"hook", asJSON(t, made.Body)),
		"when another property is put":                     s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","a":"b"}}`),
		"when another address is claimed and another seal": s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","origin":"https://evil.example.com","sealedUri":"AAAA"}}`),
	} {
		got, kept := address(r)
		if got != first || strings.Contains(kept, "canary") || strings.Contains(asJSON(t, r.Body), "canary") || !strings.Contains(asJSON(t, r.Body), `"origin":"https://logs.example.com"`) {
			t.Errorf("%s: %q; kept %s; shown %v", what, got, kept, r.Body)
		}
	}
	s.put(sinkIDs+"hook", `{"properties":{"kind":"file"}}`)
	_, err := s.try(owner, sinkIDs+"hook", `{"properties":{"kind":"webhook"}}`)
	if _, said := fault.Of(err); !strings.Contains(said, "properties.uri: must be an https address") {
		t.Errorf("a file that becomes a webhook again: %s", said)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file is rotated when it is full, and the oldest is deleted, which is said.
func TestFilesRotate(t *testing.T) {
	s := open(t, storetest.SQLite(t))
	var log bytes.Buffer
	s.Delivery.Log = slog.New(slog.NewTextHandler(&log, nil))
	s.put(sinkIDs+"small", `{"properties":{"kind":"file","maxBytes":1048576,"files":3}}`)
	s.put(settingIDs+"one", toSink("small", bothLogs))
	var at json.RawMessage
	var err error
	for i := range 5 {
		for range 6 {
			// A record of 200 kB: six are more than a file holds.
			var big audit.Event
			big.ID, big.Time, big.Table, big.Registry = fmt.Sprintf("%08d-0000-4000-8000-000000000000", i+1), noon.Add(time.Second), audit.LoginEvents, strings.ToLower(harbor)
			big.UserAgent = strings.Repeat("u", 1000)
			for range 200 {
				s.events.Record(big)
			}
		}
		if at, err = s.pass("one", at); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(s.folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "small.1.jsonl small.2.jsonl small.jsonl" {
		t.Errorf("files: %s", got)
	}
	if said := log.String(); !strings.Contains(said, "deleted to make room") || !strings.Contains(said, "sink=small files=1") {
		t.Errorf("of the files that are gone it is said: %s", said)
	}
	if !strings.HasSuffix(s.lines("small.jsonl"), " 5") {
		t.Error("the newest file has not the newest event")
	}
	info, err := os.Stat(filepath.Join(s.folder, "small.1.jsonl"))
	if err != nil || info.Size() > 1<<20 {
		t.Errorf("a full file: %v, %v", info, err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %s", info.Mode())
	}
}

// A line that a crash has left without an end is cut off, and a file that was
// moved away is not written to.
func TestFilesHaveWholeLines(t *testing.T) {
	s := open(t, storetest.SQLite(t))
	file := filepath.Join(s.folder, "plain.jsonl")
	if err := os.WriteFile(file, []byte(`{"DecisionId":"00000009-0"}`+"\n"+`{"DecisionId":"0000`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.put(sinkIDs+"plain", `{"properties":{"kind":"file"}}`)
	s.put(settingIDs+"one", toSink("plain", bothLogs))
	s.login(1, noon.Add(time.Second), harbor, audit.LoginEvents)
	at, err := s.pass("one", nil)
	if got := s.lines("plain.jsonl"); err != nil || got != "9 1" {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.Rename(file, file+".taken"); err != nil {
		t.Fatal(err)
	}
	s.login(2, noon.Add(time.Second), harbor, audit.LoginEvents)
	if _, err := s.pass("one", at); err != nil || s.lines("plain.jsonl") != "2" || s.lines("plain.jsonl.taken") != "9 1" {
		t.Errorf("after it was moved: %q and %q, %v", s.lines("plain.jsonl"), s.lines("plain.jsonl.taken"), err)
	}
	// A link out of the folder is not followed.
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Remove(file), os.Symlink(outside, file)); err != nil {
		t.Fatal(err)
	}
	s.login(3, noon.Add(time.Second), harbor, audit.LoginEvents)
	if _, err := s.pass("one", at); err == nil {
		t.Error("written through a link that leads out of the folder")
	}
	if b, err := os.ReadFile(outside); len(b) > 0 || err != nil {
		t.Errorf("outside: %q, %v", b, err)
	}
}

// The task delivers for as long as the setting is there, and ends with it.
func TestDeliveryIsATask(t *testing.T) {
	each2(t, func(t *testing.T, s *site) {
		h := s.hook()
		s.put(sinkIDs+"hook", `{"properties":{"kind":"webhook","uri":"`+h.URL+`"}}`)
		s.put(settingIDs+"one", toSink("hook", bothLogs))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		runner := &task.Runner{Queue: s.db, Now: s.clock, Handlers: map[string]task.Handler{TaskDeliver: s.Do}}
		go func() { ended <- runner.Run(ctx) }()
		wait := func(what string, ok func() bool) {
			t.Helper()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for limit := time.After(20 * time.Second); !ok(); {
				select {
				case <-tick.C:
				case <-limit:
					t.Fatal("waited in vain for ", what)
				}
			}
		}
		s.login(1, noon.Add(time.Second), harbor, audit.LoginEvents)
		wait("the first", func() bool { return h.received() == "1" })
		s.login(2, noon.Add(time.Second), harbor, audit.LoginEvents)
		wait("the second", func() bool { return h.received() == "1 2" })
		if _, err := s.Delete(t.Context(), owner, arm.MustID(settingIDs+"one"), resource.Condition{}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		held := &task.Held{Task: task.Task{Kind: TaskDeliver, Body: json.RawMessage(`{"id":"` + strings.ToLower(settingIDs) + `one","uid":"x"}`)}}
		if err := s.Do(t.Context(), held); err != nil {
			t.Errorf("without its setting: %v", err)
		}
	})
}

// Who may ask about which events: through a subscription, a group, a registry
// and a workspace.
func TestViewers(t *testing.T) {
	each2(t, func(t *testing.T, s *site) {
		for i, at := range []string{harbor, harbor, quay, ""} {
			s.login(i+1, noon.Add(-time.Duration(i)*time.Hour), at, audit.LoginEvents)
			s.login(i+11, noon.Add(-time.Duration(i)*time.Hour), at, audit.RepositoryEvents)
		}
		s.login(20, noon.AddDate(0, 0, -40), harbor, audit.LoginEvents)
		r := s.put(spaces+"logs", `{"location":"local","properties":{"retentionInDays":30}}`)
		customer := text(r.Body, "properties.customerId")
		if again := s.put(spaces+"logs", `{"location":"local"}`); text(again.Body, "properties.customerId") != customer {
			t.Error("the customerId changes")
		}
		s.put(settingIDs+"w", `{"properties":{"workspaceId":"`+strings.ToUpper(spaces[:14])+spaces[14:]+`logs","logs":[{"category":"ContainerRegistryLoginEvents","enabled":true}]}}`)
		read := actionReadRegistry + " "
		for _, c := range []struct {
			who  string
			by   resource.Caller
			at   string
			want string // logins, repository events; or the error
		}{
			{"owner", owner, "/subscriptions/s1", "5 4"},
			{"owner", owner, group, "4 3"},
			{"owner", owner, harbor, "3 2"},
			{"owner", owner, quay, "1 1"},
			{"owner", owner, harbor + "x", "0 0"},
			{"reader of one", only(read + quay), "/subscriptions/s1", "1 1"},
			{"reader of one", only(read + quay), group, "1 1"},
			{"reader of one", only(read + quay), harbor, "0 0"},
			{"reader of one", only(read + quay), "/subscriptions/s2", "0 0"},
			{"nobody", only(), "/subscriptions/s1", "0 0"},
			{"nobody", resource.Caller{}, harbor, "0 0"},
			{"owner", owner, "s1", "5 4"},
			{"owner", owner, customer, "2 0"},
			{"owner", owner, strings.ToUpper(customer), "2 0"},
			{"asker", only(actionQueryWorkspace + " " + spaces + "logs"), customer, "2 0"},
			{"reader of one", only(read + quay), customer, "the workspace could not be found"},
			{"reader of the other", only(read + harbor), customer, "2 0"},
			{"nobody", only(), customer, "the workspace could not be found"},
			{"owner", owner, "no such workspace", "the workspace could not be found"},
		} {
			var v audit.Viewer
			var err error
			if id, bad := arm.ParseID(c.at); bad == nil {
				v, err = Viewer(t.Context(), s.Service, c.by, id)
			} else {
				v, err = WorkspaceViewer(t.Context(), s.Service, c.by, c.at, noon)
			}
			got := ""
			if err == nil {
				got, err = s.count(v)
			}
			if err != nil {
				_, got = fault.Of(err)
			}
			if got != c.want {
				t.Errorf("%s at %s: %s, want %s", c.who, c.at, got, c.want)
			}
		}
		v, err := At(t.Context(), s.Service, owner, arm.MustID(spaces+"logs"), noon)
		if got, err2 := s.count(v); err != nil || err2 != nil || got != "2 0" {
			t.Errorf("by its id: %s, %v, %v", got, err, err2)
		}
		if _, err := At(t.Context(), s.Service, owner, arm.MustID(spaces+"other"), noon); !errors.Is(err, ErrWorkspace) {
			t.Errorf("one that is not there: %v", err)
		}
	})
}

func (s *site) count(v audit.Viewer) (string, error) {
	var out []string
	for _, table := range []string{"ContainerRegistryLoginEvents", "ContainerRegistryRepositoryEvents"} {
		a, err := audit.Ask(s.t.Context(), s.events, table+" | count", v, kql.Options{Now: noon})
		if err != nil {
			return "", err
		}
		out = append(out, a.Rows[0][0].String())
	}
	return strings.Join(out, " "), nil
}

// More than a batch is sent whole, each event once.
func TestManyEventsAreSentOnce(t *testing.T) {
	each2(t, func(t *testing.T, s *site) {
		s.put(sinkIDs+"many", `{"properties":{"kind":"file"}}`)
		s.put(settingIDs+"one", toSink("many", bothLogs))
		var want []string
		for i := range 2*batch + 7 {
			s.login(i+1, noon.Add(time.Second), harbor, audit.LoginEvents)
			s.login(i+1, noon.Add(time.Second), quay, audit.LoginEvents)
			want = append(want, fmt.Sprint(i+1))
		}
		if _, err := s.pass("one", nil); err != nil {
			t.Fatal(err)
		}
		if got := s.lines("many.jsonl"); got != strings.Join(want, " ") {
			t.Errorf("%d events were sent, want %d", len(strings.Fields(got)), len(want))
		}
	})
}
