package armapi

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/whatif"
)

const (
	maxWhatIf  = 1 << 20 // of a body: changes are documents
	maxScopes  = 100
	maxChanges = 100
)

// Can answers `cove can`: what a request that nobody has made would get. Whoever
// may read the registry may ask, since they may read every decision about it.
func Can(a *whatif.Asker) Route {
	return Route{
		Method: http.MethodPost, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/can", Each: true, MaxBody: maxWhatIf,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			var bad fields
			q := whatif.Question{ID: c.Request, Caller: c.Caller}
			q.Registry = bad.id(c.Body, "registry", true)
			q.Who = bad.who(c.Body)
			q.Want = bad.scopes(c.Body)
			q.Digest, _ = c.Body["digest"].(string)
			q.From.Subnet = bad.id(c.Body, "from.subnet", false)
			q.From.Kind, _ = resource.Lookup(c.Body, "from.kind").(string)
			if s, _ := resource.Lookup(c.Body, "from.address").(string); s != "" {
				var err error
				if q.From.Address, err = netip.ParseAddr(s); err != nil {
					bad.add("from.address", "must be an IP address")
				}
			}
			if !q.From.Address.IsValid() && q.From.Subnet.IsZero() {
				bad.add("from", "must have an address or a subnet")
			}
			if s, _ := c.Body["at"].(string); s != "" {
				var err error
				if q.At, err = time.Parse(time.RFC3339, s); err != nil {
					bad.add("at", "must be a time such as 2026-11-21T09:00:00Z")
				}
			}
			q.Change = bad.change(c.Body)
			if err := fault.Problems(bad); err != nil {
				return Reply{}, err
			}
			subscription := resource.SubscriptionID(c.ID.Subscription())
			if !q.Registry.Within(subscription) || !c.Caller.May("Microsoft.ContainerRegistry/registries/read", q.Registry) {
				return Reply{}, resource.ErrUnknown
			}
			if !q.From.Subnet.IsZero() && !c.Caller.May("Microsoft.Network/virtualNetworks/subnets/read", q.From.Subnet) {
				return Reply{}, resource.ErrUnknown
			}
			out, err := a.May(ctx, q)
			if err != nil {
				return Reply{}, err
			}
			return Reply{Status: http.StatusOK, Body: out}, nil
		},
	}
}

// Flips answers `cove can --if-change`: which of the requests of the recent
// past a change would decide otherwise.
func Flips(a *whatif.Asker) Route {
	return Route{
		Method: http.MethodPost, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/flips", Each: true, MaxBody: maxWhatIf,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			var bad fields
			since := time.Time{}
			if s, _ := c.Body["since"].(string); s != "" {
				var err error
				if since, err = time.Parse(time.RFC3339, s); err != nil {
					bad.add("since", "must be a time such as 2026-11-21T09:00:00Z")
				}
			}
			change := bad.change(c.Body)
			if len(change) == 0 && len(bad) == 0 {
				bad.add("change", "must hold at least one resource")
			}
			if err := fault.Problems(bad); err != nil {
				return Reply{}, err
			}
			out, looked, err := a.Flips(ctx, c.Caller, change, since)
			if err != nil {
				return Reply{}, err
			}
			if out == nil {
				out = []whatif.Flip{}
			}
			return Reply{Status: http.StatusOK, Body: resource.Object{"value": out, "looked": looked}}, nil
		},
	}
}

// fields are the problems of a body.
type fields []fault.Field

func (f *fields) add(path, message string) {
	*f = append(*f, fault.Field{Path: path, Message: message})
}

func (f *fields) id(body resource.Object, path string, needed bool) arm.ID {
	text, _ := resource.Lookup(body, path).(string)
	if text == "" && !needed {
		return arm.ID{}
	}
	id, err := arm.ParseID(text)
	if err != nil {
		f.add(path, "must be a resource id")
	}
	return id
}

// who reads an identity: {"kind": "servicePrincipal", "objectId": "…"}.
func (f *fields) who(body resource.Object) (who access.Identity) {
	who.Kind, _ = resource.Lookup(body, "who.kind").(string)
	who.ObjectID, _ = resource.Lookup(body, "who.objectId").(string)
	who.Name, _ = resource.Lookup(body, "who.name").(string)
	switch who.Kind {
	case access.KindAdmin, access.KindAnonymous:
	case access.KindToken:
		if who.Name == "" {
			f.add("who.name", "must be the token's name")
		}
	case access.KindServicePrincipal, access.KindUser:
		if who.ObjectID == "" {
			f.add("who.objectId", "must be the principal's object id")
		}
	default:
		f.add("who.kind", "must be servicePrincipal, user, token, admin or anonymous")
	}
	return who
}

func (f *fields) scopes(body resource.Object) (out []access.Scope) {
	list, _ := body["scopes"].([]any)
	if len(list) > maxScopes {
		f.add("scopes", fmt.Sprintf("must be at most %d", maxScopes))
		return nil
	}
	for i, v := range list {
		o, _ := v.(resource.Object)
		var s access.Scope
		s.Type, _ = o["type"].(string)
		s.Name, _ = o["name"].(string)
		if s.Action, _ = o["action"].(string); s.Type == "" || s.Name == "" || s.Action == "" {
			f.add(fmt.Sprintf("scopes[%d]", i), "must have type, name and action")
		}
		out = append(out, s)
	}
	return out
}

// change reads the resources of a change: whole documents with their ids.
func (f *fields) change(body resource.Object) (out []resource.Wanted) {
	list, _ := body["change"].([]any)
	if len(list) > maxChanges {
		f.add("change", fmt.Sprintf("must be at most %d resources", maxChanges))
		return nil
	}
	for i, v := range list {
		o, _ := v.(resource.Object)
		text, _ := o["id"].(string)
		id, err := arm.ParseID(text)
		if err != nil {
			f.add(fmt.Sprintf("change[%d].id", i), "must be a resource id")
			continue
		}
		out = append(out, resource.Wanted{ID: id, Body: o})
	}
	return out
}
