package directory

import (
	"context"
	"time"
)

// Admin is what a first start hands to the operator.
type Admin struct {
	Tenant       string
	Subscription string
	ObjectID     string
	ClientID     string
	Secret       Secret
}

// adminLife is how long the first secret is good: it has no owner who could
// be reminded, and a registry that nobody can manage any more is worse.
const adminLife = 10 * 365 * 24 * time.Hour

// adminBackdate forgives a clock that is set right after the first start: a
// secret that is good from tomorrow would lock the operator out today.
const adminBackdate = 24 * time.Hour

// Bootstrap gives a directory without a tenant one, with one subscription and
// one service principal, and reports whether it did.
//
// Before the directory is written it calls save, which keeps the secret that
// is never shown again, and own, which makes the principal the subscription's
// owner. A crash between leaves a file and a role for nobody; the next start
// begins anew and save overwrites the file. When another node was faster,
// created is false although save has run: the caller takes its file away.
func Bootstrap(ctx context.Context, st Store, now time.Time, save, own func(context.Context, Admin) error) (a Admin, created bool, err error) {
	if ts, err := st.Tenants(ctx); err != nil || len(ts) > 0 {
		return Admin{}, false, err
	}
	a, client := newAdmin(NewID(), NewID(), now)
	for _, step := range []func(context.Context, Admin) error{save, own} {
		if err := step(ctx, a); err != nil {
			return Admin{}, false, err
		}
	}
	created, err = st.Found(ctx, Tenant{ID: a.Tenant, Name: "cove"}, Subscription{ID: a.Subscription, Tenant: a.Tenant, Name: "cove"}, client)
	if err != nil || !created {
		return Admin{}, false, err
	}
	return a, true, nil
}

// Readmit makes one more service principal like the first, for an operator
// who has lost the secret of that: it is kept nowhere. The first one stays as
// it is. Who may do this has the data folder, and with it everything.
func Readmit(ctx context.Context, st Store, now time.Time, save, own func(context.Context, Admin) error) error {
	subs, err := st.Subscriptions(ctx)
	if err != nil {
		return err
	}
	if len(subs) == 0 {
		return ErrUnknown
	}
	a, client := newAdmin(subs[0].Tenant, subs[0].ID, now)
	for _, step := range []func(context.Context, Admin) error{save, own} {
		if err := step(ctx, a); err != nil {
			return err
		}
	}
	return st.Create(ctx, client)
}

func newAdmin(tenant, subscription string, now time.Time) (Admin, Client) {
	secret, cred := NewSecret("admin.json", now.Add(-adminBackdate), adminBackdate+adminLife)
	a := Admin{Tenant: tenant, Subscription: subscription, ObjectID: NewID(), ClientID: NewID(), Secret: secret}
	return a, Client{
		Principal:   Principal{ObjectID: a.ObjectID, Tenant: tenant, Kind: ServicePrincipal, AppID: a.ClientID, Name: "cove-admin"},
		Credentials: []Credential{cred},
	}
}
