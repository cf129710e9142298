package main

import (
	"context"
	"errors"
	"slices"

	"cove.example/cove/client"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
)

// subscribe makes the subscriptions of --also-subscription that there are not
// yet. The principal in admin.json owns them, as it owns the first. A
// subscription whose name is no longer given stays: what is in it is not a
// flag's to take away.
func (s *server) subscribe(ctx context.Context) error {
	subs, err := s.identity.Subscriptions(ctx)
	if err != nil {
		return err
	}
	for _, name := range s.config.AlsoSubscription {
		if slices.ContainsFunc(subs, func(sub directory.Subscription) bool { return sub.Name == name }) {
			continue
		}
		owner, err := s.adminPrincipal(ctx)
		if err != nil {
			return err
		}
		// A crash after the role leaves one for a subscription that never is.
		sub := directory.Subscription{ID: directory.NewID(), Tenant: owner.Tenant, Name: name}
		if err := policy.Grant(ctx, s.resources, owner.ObjectID, policy.RoleOwner, resource.SubscriptionID(sub.ID)); err != nil {
			return err
		}
		added, err := s.identity.AddSubscription(ctx, sub)
		if err != nil {
			return err
		}
		if added {
			s.log.Info("a subscription is made", "name", name, "id", sub.ID, "owner", owner.ObjectID)
		}
	}
	return nil
}

// adminPrincipal is the service principal that admin.json is for.
func (s *server) adminPrincipal(ctx context.Context) (directory.Principal, error) {
	text, err := s.data.ReadFile(adminFile)
	if err == nil {
		var p client.Profile
		if p, err = client.ReadAdmin(text); err == nil {
			var c directory.Client
			if c, err = s.identity.ByApp(ctx, p.ClientID); err == nil {
				return c.Principal, nil
			}
		}
	}
	return directory.Principal{}, fault.New(fault.Invalid, "--also-subscription: the data folder's admin.json says who owns a new subscription, and it is missing or does not fit this database; start once with --renew-admin to have another").Because(err)
}

// ownAll makes the principal of a new admin.json the owner of each subscription
// that there is, and of the one that it begins with.
func (s *server) ownAll(ctx context.Context, a directory.Admin) error {
	subs, err := s.identity.Subscriptions(ctx)
	if err != nil {
		return err
	}
	all := []error{policy.Grant(ctx, s.resources, a.ObjectID, policy.RoleOwner, resource.SubscriptionID(a.Subscription))}
	for _, sub := range subs {
		all = append(all, policy.Grant(ctx, s.resources, a.ObjectID, policy.RoleOwner, resource.SubscriptionID(sub.ID)))
	}
	return errors.Join(all...)
}
