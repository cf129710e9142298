package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/token"
)

// Who may read a registry and its role assignments may ask who could use it; to
// others it is not there.
func TestWhoMayAskWhoCould(t *testing.T) {
	s := assembled(t)
	_, web, at, tenant := managed(t, s)
	anybody := resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}
	group := at.String() + "/resourceGroups/prod"
	harbor := group + "/providers/Microsoft.ContainerRegistry/registries/harbor"
	put := func(id arm.ID, body string) {
		t.Helper()
		o, err := resource.Decode([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.service.Put(t.Context(), anybody, id, o, resource.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	put(arm.MustID(group), `{"location":"local"}`)
	put(arm.MustID(harbor), `{"location":"local","sku":{"name":"Premium"}}`)

	everyone := s.callers(t, at.Subscription(), tenant)
	// One who may read the registry and no more: Reader reads everything.
	p := directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: tenant, Kind: directory.ServicePrincipal}
	if err := s.identity.Create(t.Context(), directory.Client{Principal: p}); err != nil {
		t.Fatal(err)
	}
	name := directory.NewID()
	id, err := policy.RoleID(name)
	if err != nil {
		t.Fatal(err)
	}
	put(id, fmt.Sprintf(`{"properties":{"roleName":"sees registries","permissions":[{"actions":["Microsoft.ContainerRegistry/registries/read"]}],"assignableScopes":[%q]}}`, at))
	put(arm.MustID(at.String()+"/providers/Microsoft.Authorization/roleAssignments/"+directory.NewID()),
		fmt.Sprintf(`{"properties":{"principalId":%q,"roleDefinitionId":"%s/providers/Microsoft.Authorization/roleDefinitions/%s"}}`, p.ObjectID, at, name))
	raw, _, err := s.tokens.MintPrincipal(token.PrincipalClaims{Audience: endpointURL(s.config.HostManagement), ObjectID: p.ObjectID, Tenant: tenant, AppID: p.AppID})
	if err != nil {
		t.Fatal(err)
	}
	everyone = append(everyone, caller{"who sees registries", raw, true})
	if status, text := everyone[len(everyone)-1].asks(t, web, http.MethodGet, harbor+"?api-version=2025-04-01", ""); status != 200 {
		t.Fatalf("%d %s", status, text)
	}

	want := map[string]int{"": 404, "AcrPull": 404, "who sees registries": 404, "Reader": 200, "Contributor": 200, "Owner": 200}
	for _, who := range everyone {
		expect := http.StatusUnauthorized
		if who.known {
			expect = want[who.name]
		}
		for _, when := range []string{"", s.now().UTC().Format(time.RFC3339Nano)} {
			body := fmt.Sprintf(`{"registry":%q,"repository":"team/app","action":"push","at":%q}`, harbor, when)
			status, text := who.asks(t, web, http.MethodPost, at.String()+"/providers/Cove.Diagnostics/who?api-version=2025-04-01", body)
			if status != expect || (status == 200) != strings.Contains(text, `"Owner at `) {
				t.Errorf("%s, at %q: %d %s", who.name, when, status, text)
			}
		}
	}
}
