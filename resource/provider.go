package resource

import (
	"context"
	"errors"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// The failures of registering a subscription for a namespace.
var (
	ErrNamespaceUnknown = fault.Coded(fault.NotFound, "InvalidResourceNamespace", "the resource namespace is not known")
	ErrNotRegistered    = fault.Coded(fault.Conflict, "MissingSubscriptionRegistration", "the subscription is not registered to use the namespace")
	ErrNamespaceInUse   = fault.Coded(fault.Conflict, "SubscriptionHasResources", "the subscription has resources of the namespace")
)

// The states of a subscription's registration for a namespace, in ARM's words.
const (
	Registered    = "Registered"
	NotRegistered = "NotRegistered"
	Unregistered  = "Unregistered"
)

// registrationFree are namespaces that every subscription may use. Those of
// cove's own are too.
var registrationFree = []string{"microsoft.resources", "microsoft.authorization"}

// RegistrationFree reports whether a namespace needs no registration.
func RegistrationFree(namespace string) bool {
	n := strings.ToLower(namespace)
	return strings.HasPrefix(n, "cove.") || slices.Contains(registrationFree, n)
}

// A registration is a document without a type, so that no caller can reach it
// but through Register.
func registrationID(subscription, namespace string) (arm.ID, error) {
	return arm.ParseID("/subscriptions/" + subscription + "/providers/Cove.Resources/registrations/" + strings.ToLower(namespace))
}

// Registration is the state of a subscription's registration for a namespace.
// It is one indexed read.
func Registration(ctx context.Context, r Reader, subscription, namespace string) (string, error) {
	if RegistrationFree(namespace) {
		return Registered, nil
	}
	at, err := registrationID(subscription, namespace)
	if err != nil {
		return "", err
	}
	doc, err := r.Get(ctx, at)
	if errors.Is(err, ErrUnknown) {
		return NotRegistered, nil
	}
	state, _ := doc.Body["state"].(string)
	return state, err
}

// Namespaces are those of the table, in order.
func (s *Service) Namespaces() []string {
	var all []string
	for _, t := range s.types {
		n, _, _ := strings.Cut(t.Name, "/")
		all = append(all, n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Registrations are the states of all namespaces for a subscription, by their
// lower-case names.
func (s *Service) Registrations(ctx context.Context, subscription arm.ID) (map[string]string, error) {
	states := map[string]string{}
	err := s.store.View(ctx, func(r Reader) error {
		if _, err := s.read(ctx, r, subscription); err != nil {
			return err
		}
		for _, n := range s.Namespaces() {
			state, err := Registration(ctx, r, subscription.Name(), n)
			if err != nil {
				return err
			}
			states[strings.ToLower(n)] = state
		}
		return nil
	})
	return states, err
}

// Register sets whether a subscription may make resources of a namespace. It
// cannot be taken away while there are some.
func (s *Service) Register(ctx context.Context, by Caller, subscription arm.ID, namespace string, on bool) error {
	namespaces := s.Namespaces()
	i := slices.IndexFunc(namespaces, func(n string) bool { return strings.EqualFold(n, namespace) })
	if i < 0 {
		return ErrNamespaceUnknown.Detail("The resource namespace %q is not known.", clip(namespace))
	}
	namespace = namespaces[i]
	if RegistrationFree(namespace) {
		return nil
	}
	ctx = As(ctx, by)
	return s.store.Update(ctx, func(tx Tx) error {
		sub, err := s.open(ctx, tx, subscription)
		if err != nil {
			return err
		}
		if !on {
			if err := s.unused(ctx, tx, sub.ID, namespace); err != nil {
				return err
			}
		}
		return register(ctx, tx, sub.ID.Name(), namespace, on)
	})
}

func register(ctx context.Context, tx Tx, subscription, namespace string, on bool) error {
	at, err := registrationID(subscription, namespace)
	if err != nil {
		return err
	}
	want := Registered
	if !on {
		want = Unregistered
	}
	doc, err := tx.Get(ctx, at)
	switch {
	case errors.Is(err, ErrUnknown):
		doc = Doc{ID: at}
	case err != nil:
		return err
	case doc.Body["state"] == want:
		return nil
	}
	doc.Body = Object{"state": want}
	return tx.Put(ctx, &doc)
}

func (s *Service) unused(ctx context.Context, r Reader, subscription arm.ID, namespace string) error {
	for _, t := range s.types {
		if n, _, _ := strings.Cut(t.Name, "/"); n != namespace {
			continue
		}
		one, err := r.List(ctx, Query{Type: t.Name, Under: subscription, Limit: 1})
		if err != nil {
			return err
		}
		if len(one) > 0 {
			return ErrNamespaceInUse.Detail("The subscription '%s' cannot be unregistered from the namespace '%s': it has resources of that namespace, such as '%s'. Delete them first.", subscription.Name(), namespace, one[0].ID)
		}
	}
	return nil
}

// mayUse refuses a new resource in a subscription that is not registered for
// its namespace. az and Terraform know the code, and register.
func mayUse(ctx context.Context, r Reader, id arm.ID) error {
	namespace, _, _ := strings.Cut(id.Type(), "/")
	if id.Subscription() == "" {
		return nil
	}
	state, err := Registration(ctx, r, id.Subscription(), namespace)
	if err == nil && state != Registered {
		err = ErrNotRegistered.Detail("The subscription is not registered to use namespace '%s'. See https://aka.ms/rps-not-found for how to register subscriptions.", namespace)
	}
	return err
}
