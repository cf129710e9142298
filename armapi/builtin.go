package armapi

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

const own = "Microsoft.Resources/subscriptions/"

// builtin are the operations of ARM itself.
func (s *Server) builtin() []Route {
	const sub = "/subscriptions/{subscription}"
	const zones = sub + "/resourceGroups/{group}/providers/Microsoft.Network/privateDnsZones"
	return []Route{
		{Method: http.MethodGet, Pattern: "/subscriptions", Each: true, Do: s.subscriptions},
		{Method: http.MethodGet, Pattern: sub, Each: true, Do: seen(resource.TypeSubscription+"/read", s.get)},
		{Method: http.MethodGet, Pattern: sub + "/providers/Microsoft.Insights/eventtypes/management/values", Each: true, Do: s.activity},
		{Method: http.MethodGet, Pattern: "/tenants", Each: true, Do: s.tenants},
		{Method: http.MethodGet, Pattern: sub + "/locations", Each: true, Do: seen(own+"locations/read", s.locations)},
		{Method: http.MethodGet, Pattern: sub + "/resources", Each: true, Do: s.resources},
		{Method: http.MethodGet, Pattern: sub + "/resourceGroups/{group}/resources", Each: true, Do: s.resources},
		{Method: http.MethodPost, Pattern: sub + "/resourceGroups/{group}/providers/Microsoft.Resources/deployments/{deployment}/validate", Action: "Microsoft.Resources/deployments/validate/action", Template: true, Do: s.validate},
		{Method: http.MethodGet, Pattern: sub + "/providers", Each: true, Do: seen(own+"providers/read", s.providers)},
		{Method: http.MethodGet, Pattern: sub + "/providers/{namespace}", Each: true, Do: seen(own+"providers/read", s.provider)},
		{Method: http.MethodPost, Pattern: sub + "/providers/{namespace}/register", Action: own + "providers/register/action", Do: s.register(true)},
		{Method: http.MethodPost, Pattern: sub + "/providers/{namespace}/unregister", Action: own + "providers/unregister/action", Do: s.register(false)},
		{Method: http.MethodGet, Pattern: sub + "/providers/{namespace}/locations/{location}/operationStatuses/{operation}", Each: true, Do: s.operationStatus},
		{Method: http.MethodGet, Pattern: sub + "/providers/{namespace}/locations/{location}/operationResults/{operation}", Each: true, Do: s.operationResult},
		{Method: http.MethodGet, Pattern: zones + "/{zone}/ALL", Each: true, Do: s.recordSets},
		{Method: http.MethodGet, Pattern: zones + "/{zone}/recordsets", Each: true, Do: s.recordSets},
		{Method: http.MethodPost, Pattern: sub + "/providers/Microsoft.ContainerRegistry/checkNameAvailability", Action: "Microsoft.ContainerRegistry/checkNameAvailability/read", Do: s.nameAvailable},
	}
}

// seen is a handler behind Call.sees.
func seen(action string, do func(context.Context, *Call) (Reply, error)) func(context.Context, *Call) (Reply, error) {
	return func(ctx context.Context, c *Call) (Reply, error) {
		if err := c.sees(action, c.ID); err != nil {
			return Reply{}, err
		}
		return do(ctx, c)
	}
}

// subscriptions are those in which the caller holds a role on anything, the
// oldest of a page first: az works in the first until it is told otherwise, and
// a subscription that is added must not become the one that scripts work in.
func (s *Server) subscriptions(ctx context.Context, c *Call) (Reply, error) {
	made := map[any]time.Time{}
	page, err := s.Service.List(ctx, resource.ListQuery{
		Type: resource.TypeSubscription, Token: c.Query.Get("$skiptoken"),
		Want: func(d resource.Doc) bool {
			made[d.ID.String()] = d.Created
			return c.sees(resource.TypeSubscription+"/read", d.ID) == nil
		},
	})
	if err != nil {
		return Reply{}, err
	}
	slices.SortStableFunc(page.Items, func(a, b resource.Object) int { return made[a["id"]].Compare(made[b["id"]]) })
	return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
}

// resources are those of every type that lie in a group, without what is
// particular to their types: whoever wants the properties asks for the type.
func (s *Server) resources(ctx context.Context, c *Call) (Reply, error) {
	expand, err := expansions(c.Query.Get("$expand"))
	if err != nil {
		return Reply{}, err
	}
	reply, err := s.list(ctx, c, resource.ListQuery{Item: func(d resource.Doc) resource.Object {
		item := resource.Object{"id": d.ID.String(), "name": d.ID.Name(), "type": s.Service.Canonical(d.ID.Type())}
		for _, name := range []string{"location", "tags", "kind", "managedBy", "plan", "sku", "identity", "zones", "extendedLocation"} {
			if v, ok := d.Body[name]; ok {
				item[name] = v
			}
		}
		for _, name := range expand {
			switch name {
			case "createdTime":
				item[name] = d.Created.UTC().Format(time.RFC3339Nano)
			case "changedTime":
				item[name] = d.Changed.UTC().Format(time.RFC3339Nano)
			case "provisioningState":
				item[name] = "Succeeded"
				if state, ok := resource.Lookup(d.Body, "properties.provisioningState").(string); ok {
					item[name] = state
				}
			}
		}
		return item
	}})
	// A role for data alone shows no resource, and yet its holder asks here
	// first: told that there is nothing to see, az goes on to the login server.
	if errors.Is(err, errDenied) && c.sees(own+"resources/read", c.ID) == nil {
		return Reply{Status: http.StatusOK, Body: s.page(c, resource.Page{Items: []resource.Object{}})}, nil
	}
	return reply, err
}

// expansions reads the $expand of a list of resources: names from a fixed
// list, with commas between.
func expansions(text string) (names []string, err error) {
	if text == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		known := []string{"createdTime", "changedTime", "provisioningState"}
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, strings.TrimSpace(name)) })
		if i < 0 {
			return nil, errURL.Detail("$expand may name createdTime, changedTime and provisioningState, but not %.60q.", name)
		}
		if !slices.Contains(names, known[i]) {
			names = append(names, known[i])
		}
	}
	return names, nil
}

// tenants are those of the caller: there is one.
func (s *Server) tenants(ctx context.Context, c *Call) (Reply, error) {
	out := resource.Page{Items: []resource.Object{}}
	if c.Caller.Tenant != "" {
		r, err := s.Service.Get(ctx, resource.TenantID(c.Caller.Tenant))
		if err != nil {
			return Reply{}, err
		}
		out.Items = append(out.Items, r.Body)
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, out)}, nil
}

func (s *Server) locations(ctx context.Context, c *Call) (Reply, error) {
	if _, err := s.Service.Get(ctx, c.ID); err != nil {
		return Reply{}, err
	}
	items := []resource.Object{}
	for _, name := range s.Service.Locations() {
		items = append(items, resource.Object{
			"id": c.ID.String() + "/locations/" + name, "name": name, "displayName": name, "regionalDisplayName": name,
			"metadata": resource.Object{"regionType": "Physical", "regionCategory": "Recommended"},
		})
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, resource.Page{Items: items})}, nil
}

// recordSets are a zone's record sets of all types.
func (s *Server) recordSets(ctx context.Context, c *Call) (Reply, error) {
	return s.list(ctx, c, resource.ListQuery{Below: true, Want: func(d resource.Doc) bool {
		typ := d.ID.Type()
		return slices.ContainsFunc([]string{"A", "AAAA", "CNAME", "MX", "PTR", "SOA", "SRV", "TXT"}, func(record string) bool {
			return strings.HasSuffix(strings.ToLower(typ), "/"+strings.ToLower(record))
		})
	}})
}

// known are the providers, made from the table of types.
func (s *Server) known(ctx context.Context, c *Call) (map[string]resource.Object, error) {
	states, err := s.Service.Registrations(ctx, resource.SubscriptionID(c.ID.Subscription()))
	if err != nil {
		return nil, err
	}
	out := map[string]resource.Object{}
	for _, name := range s.Service.Types() {
		namespace, typ, _ := strings.Cut(name, "/")
		key := strings.ToLower(namespace)
		p := out[key]
		if p == nil {
			policy := "RegistrationRequired"
			if resource.RegistrationFree(namespace) {
				policy = "RegistrationFree"
			}
			p = resource.Object{
				"id": "/subscriptions/" + c.ID.Subscription() + "/providers/" + namespace, "namespace": namespace,
				"registrationState": states[key], "registrationPolicy": policy, "resourceTypes": []any{},
			}
			out[key] = p
		}
		types, _ := p["resourceTypes"].([]any)
		p["resourceTypes"] = append(types, resource.Object{
			"resourceType": typ, "locations": s.Service.Locations(),
			// Any plausible version is taken; the generic commands of az
			// want one to choose from.
			"apiVersions": []string{"2025-04-01", "2024-06-01", "2023-07-01", "2022-04-01"},
		})
	}
	return out, nil
}

func (s *Server) providers(ctx context.Context, c *Call) (Reply, error) {
	known, err := s.known(ctx, c)
	if err != nil {
		return Reply{}, err
	}
	items := []resource.Object{}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		items = append(items, known[name])
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, resource.Page{Items: items})}, nil
}

func (s *Server) provider(ctx context.Context, c *Call) (Reply, error) {
	known, err := s.known(ctx, c)
	if err != nil {
		return Reply{}, err
	}
	p := known[strings.ToLower(c.Params["namespace"])]
	if p == nil {
		return Reply{}, resource.ErrNamespaceUnknown.Detail("The resource namespace %.80q is not known.", c.Params["namespace"])
	}
	return Reply{Status: http.StatusOK, Body: p}, nil
}

// register turns a subscription's use of a namespace on or off, and answers
// with the provider as it then is.
func (s *Server) register(on bool) func(context.Context, *Call) (Reply, error) {
	return func(ctx context.Context, c *Call) (Reply, error) {
		subscription := resource.SubscriptionID(c.ID.Subscription())
		if err := s.Service.Register(ctx, c.Caller, subscription, c.Params["namespace"], on); err != nil {
			return Reply{}, err
		}
		return s.provider(ctx, c)
	}
}

func (s *Server) nameAvailable(ctx context.Context, c *Call) (Reply, error) {
	name, _ := c.Body["name"].(string)
	if typ, _ := c.Body["type"].(string); !strings.EqualFold(typ, registry.TypeName) {
		return Reply{}, fault.Problems([]fault.Field{{Path: "type", Message: "must be " + registry.TypeName}})
	}
	reason, why, err := s.Service.NameAvailable(ctx, registry.TypeName, name)
	if err != nil {
		return Reply{}, err
	}
	out := resource.Object{"nameAvailable": reason == ""}
	if reason != "" {
		out["reason"], out["message"] = reason, why
	}
	return Reply{Status: http.StatusOK, Body: out}, nil
}
