// Package sdktest drives cove with the published Azure SDK for Go, as its
// users compile it: clients, credentials, pollers and retries are the SDK's
// own. What differs from Azure is where names lead to and which authority
// signs certificates, and in one of the two clouds the names.
//
// It is a module of its own, because the SDK is large and cove needs none of
// it.
package sdktest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/containers/azcontainerregistry"

	"cove.example/cove/covetest"
)

// place is a cloud as a user of the SDK configures it.
type place struct {
	flags  []string            // of cove serve
	cloud  cloud.Configuration // zero is the SDK's default, the public cloud
	known  bool                // the SDK is left to discover the login host
	suffix string              // of registries
	hosts  []string            // that may be dialled, besides registries'
}

// custom is a cloud with cove's own names.
func custom() place {
	return place{
		flags: []string{"--region", "westeurope", "--also-region", "eastus"},
		cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: "https://login.cove.internal/",
			Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
				cloud.ResourceManager:           {Endpoint: "https://management.cove.internal", Audience: "https://management.cove.internal"},
				azcontainerregistry.ServiceName: {Audience: "https://containerregistry.azure.net"},
			},
		},
		suffix: "cr.cove.internal",
		hosts:  []string{"login.cove.internal", "management.cove.internal"},
	}
}

// public is the public cloud by the names that are compiled into the SDK.
func public() place {
	return place{
		flags: []string{
			"--region", "westeurope", "--also-region", "eastus",
			"--host-management", "management.azure.com", "--host-login", "login.microsoftonline.com",
			"--host-graph", "graph.microsoft.com", "--registry-suffix", "azurecr.io",
		},
		known:  true,
		suffix: "azurecr.io",
		hosts:  []string{"login.microsoftonline.com", "management.azure.com"},
	}
}

// world is a running server and the SDK set up for it.
type world struct {
	place
	server       *covetest.Server
	tenant       string
	subscription string
	client       string // the bootstrap service principal's application id
	http         *http.Client
	options      azcore.ClientOptions
	arm          *arm.ClientOptions
	cred         *azidentity.ClientSecretCredential

	mu     sync.Mutex
	dialed map[string]bool
}

func start(t *testing.T, p place) *world {
	t.Helper()
	w := &world{place: p, server: covetest.Start(t, p.flags...), dialed: map[string]bool{}}
	data, err := os.ReadFile(filepath.Join(w.server.Data, "admin.json"))
	must(t, err)
	var admin struct{ TenantID, SubscriptionID, ClientID, ClientSecret string }
	must(t, json.Unmarshal(data, &admin))
	w.tenant, w.subscription, w.client = admin.TenantID, admin.SubscriptionID, admin.ClientID

	w.http = w.server.Outside(t)
	transport, ok := w.http.Transport.(*http.Transport)
	if !ok {
		t.Fatal("the client from outside has another transport now")
	}
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.mu.Lock()
		w.dialed[addr] = true
		w.mu.Unlock()
		return dial(ctx, network, addr)
	}
	w.options = azcore.ClientOptions{Cloud: p.cloud, Transport: w.http}
	w.arm = &arm.ClientOptions{ClientOptions: w.options}
	w.cred, err = azidentity.NewClientSecretCredential(w.tenant, w.client, admin.ClientSecret, &azidentity.ClientSecretCredentialOptions{
		ClientOptions: w.options, DisableInstanceDiscovery: !p.known,
	})
	must(t, err)
	return w
}

// objectID is that of the bootstrap service principal, as its tokens say it.
func (w *world) objectID(t *testing.T) string {
	t.Helper()
	got, err := w.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://containerregistry.azure.net/.default"}})
	must(t, err)
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(got.Token, ".")[1])
	must(t, err)
	var claims struct{ OID string }
	must(t, json.Unmarshal(payload, &claims))
	return claims.OID
}

// wentElsewhere are the addresses that were dialled and are not of this cloud.
func (w *world) wentElsewhere() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, addr := range slices.Sorted(maps.Keys(w.dialed)) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || port != "443" || !slices.Contains(w.hosts, host) && !strings.HasSuffix(host, "."+w.suffix) {
			out = append(out, addr)
		}
	}
	return out
}

// registries is the data plane's options.
func (w *world) registries() *azcontainerregistry.ClientOptions {
	return &azcontainerregistry.ClientOptions{ClientOptions: w.options}
}

// group is the id of a resource group.
func (w *world) group(name string) string {
	return "/subscriptions/" + w.subscription + "/resourceGroups/" + name
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// done waits for a long-running operation as callers do, with the SDK's own
// pace.
func done[T any](t testing.TB, p *runtime.Poller[T], err error) T {
	t.Helper()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), covetest.Wait)
	defer cancel()
	v, err := p.PollUntilDone(ctx, nil)
	must(t, err)
	return v
}

// all are the items of every page.
func all[P, E any](t testing.TB, pager *runtime.Pager[P], items func(P) []*E) []*E {
	t.Helper()
	var out []*E
	for pager.More() {
		page, err := pager.NextPage(t.Context())
		must(t, err)
		out = append(out, items(page)...)
	}
	return out
}

// refused checks that a call failed with this status and code. The SDK does
// not read the code of a registry's answer, which is a list of errors.
func refused(t testing.TB, err error, status int, code string) {
	t.Helper()
	failure, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		t.Fatalf("got %v, want a refusal with %d %s", err, status, code)
	}
	got := failure.ErrorCode
	if got == "" && strings.Contains(failure.Error(), `"code": "`+code+`"`) {
		got = code
	}
	if failure.StatusCode != status || got != code {
		t.Fatalf("got %d %s, want %d %s\n%v", failure.StatusCode, got, status, code, failure)
	}
}

// same compares what a call said with what it should have.
func same[T comparable](t testing.TB, what string, got *T, want T) {
	t.Helper()
	if got == nil {
		t.Fatalf("%s is missing, want %v", what, want)
	}
	if *got != want {
		t.Fatalf("%s is %v, want %v", what, *got, want)
	}
}
