package resource

import (
	"context"
	"errors"
	"strings"

	"cove.example/cove/arm"
)

// The types that every deployment has.
const (
	TypeTenant       = "Microsoft.Resources/tenants"
	TypeSubscription = "Microsoft.Resources/subscriptions"
	TypeGroup        = "Microsoft.Resources/resourceGroups"
)

// builtin are the documents that others lie in. Tenants and subscriptions are
// made by Begin; callers make groups.
var builtin = []Type{
	{Name: TypeTenant, NoPut: true, NoDelete: true},
	{Name: TypeSubscription, NoPut: true, NoDelete: true},
	{Name: TypeGroup, Located: true, CheckName: func(name string) string {
		// ARM: 1 to 90 letters, digits, - _ . ( ), not ending in a dot.
		if len(name) > 90 || !plain(name) {
			return "must be 1 to 90 letters, digits, hyphens, underscores, dots and parentheses, and not end in a dot"
		}
		return ""
	}},
	lockType,
}

// plain reports whether a name has only the characters that most of ARM takes.
func plain(name string) bool {
	return name != "" && !strings.HasSuffix(name, ".") && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.()", r)
	})
}

// TenantID and SubscriptionID are where those documents lie.
func TenantID(tenant string) arm.ID { return arm.MustID("/providers/" + TypeTenant + "/" + tenant) }

// SubscriptionID is the id of a subscription.
func SubscriptionID(sub string) arm.ID { return arm.MustID("/subscriptions/" + sub) }

// First is what a deployment begins with.
type First struct {
	Tenant, TenantName             string
	Subscription, SubscriptionName string
}

// Begin makes the tenant and the subscription where they are missing, and
// leaves them alone where they are not. A subscription that it makes may use
// every namespace.
func (s *Service) Begin(ctx context.Context, f First) error {
	want := []Doc{
		{ID: TenantID(f.Tenant), Body: Object{"tenantId": f.Tenant, "displayName": f.TenantName}},
		{ID: SubscriptionID(f.Subscription), Body: Object{"subscriptionId": f.Subscription, "tenantId": f.Tenant, "displayName": f.SubscriptionName, "state": "Enabled"}},
	}
	return s.store.Update(ctx, func(tx Tx) error {
		for _, doc := range want {
			_, err := tx.Get(ctx, doc.ID)
			if errors.Is(err, ErrUnknown) {
				err = s.begin(ctx, tx, doc)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) begin(ctx context.Context, tx Tx, doc Doc) error {
	if err := tx.Put(ctx, &doc); err != nil || doc.ID.Subscription() == "" {
		return err
	}
	for _, n := range s.Namespaces() {
		if RegistrationFree(n) {
			continue
		}
		if err := register(ctx, tx, doc.ID.Name(), n, true); err != nil {
			return err
		}
	}
	return nil
}
