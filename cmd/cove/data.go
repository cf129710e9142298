package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"cove.example/cove/arm"
	"cove.example/cove/authority"
	"cove.example/cove/content"
	"cove.example/cove/content/disk"
	"cove.example/cove/directory"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
)

func (s *server) openData(context.Context) error {
	dir, err := filepath.Abs(s.config.Data)
	if err != nil {
		return err
	}
	s.config.Data = dir
	var lock *os.File
	if s.data, lock, err = s.config.openData(); err != nil {
		return err
	}
	s.closers.add(lock.Close)
	s.closers.add(s.data.Close)
	if s.box, err = seal.OpenFile(s.data, "master.key"); err != nil {
		return withData(err, dir)
	}
	if s.ca, err = authority.Open(s.data, s.now); err != nil {
		return withData(err, dir)
	}
	if s.config.TLSCert != "" {
		if s.ca.Operator, err = authority.OpenOperator(s.config.TLSCert, s.config.TLSKey, s.now); err != nil {
			return err
		}
	}
	return nil
}

// openListeners takes the public ports before anything is written, so that a
// port that is taken costs nothing.
func (s *server) openListeners(context.Context) (err error) {
	if s.https, err = s.config.listenHTTPS(); err != nil {
		return err
	}
	for _, l := range s.https {
		s.closers.add(l.Close)
		s.run.Listen = append(s.run.Listen, l.Addr().String())
	}
	s.advertise, err = s.config.advertised(s.https)
	s.run.Advertise = s.advertise.String()
	return err
}

func (s *server) openStore(ctx context.Context) (err error) {
	url := s.config.Database
	if url == "" {
		url = store.SQLiteURL(filepath.Join(s.config.Data, "cove.db"))
	}
	if s.db, err = store.Open(ctx, url, store.Options{Now: s.now, Log: s.log}); err != nil {
		return err
	}
	s.closers.add(s.db.Close)
	if s.events, err = s.db.Events(ctx); err != nil {
		return err
	}
	s.closers.add(s.events.Close)
	s.resources, s.identity = store.NewResources(s.db), store.NewIdentity(s.db)
	if s.blobs, err = disk.Open(filepath.Join(s.config.Data, "blobs")); err != nil {
		return withData(err, s.config.Data)
	}
	s.closers.add(s.blobs.Close)
	s.content = content.New(store.NewContent(s.db), s.blobs, content.Options{Now: s.now})
	return nil
}

// found makes what a deployment begins with: one tenant, one subscription and
// the service principal in admin.json that owns it.
func (s *server) found(ctx context.Context) error {
	saved := false
	save := func(_ context.Context, a directory.Admin) error {
		saved = true
		return s.saveAdmin(a)
	}
	_, created, err := directory.Bootstrap(ctx, s.identity, s.now(), save, s.ownAll)
	switch {
	case err != nil || created:
		return err
	case saved:
		// Another node of this database was faster; its file is the one.
		return s.data.Remove(adminFile)
	case s.config.RenewAdmin:
		return directory.Readmit(ctx, s.identity, s.now(), save, s.ownAll)
	}
	return s.refreshAdmin()
}

// begin makes the documents of the tenant and the subscription.
func (s *server) begin(ctx context.Context) error {
	subs, err := s.identity.Subscriptions(ctx)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		if err := s.service.Begin(ctx, resource.First{Tenant: sub.Tenant, TenantName: "cove", Subscription: sub.ID, SubscriptionName: sub.Name}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) tenant(ctx context.Context) (string, error) {
	tenants, err := s.identity.Tenants(ctx)
	if err != nil {
		return "", err
	}
	if len(tenants) == 0 {
		return "", errors.New("the directory has no tenant")
	}
	return tenants[0].ID, nil
}

// subscription is the first start's.
func (s *server) subscription(ctx context.Context) (arm.ID, error) {
	all, err := s.identity.Subscriptions(ctx)
	if err != nil {
		return arm.ID{}, err
	}
	if len(all) == 0 {
		return arm.ID{}, errors.New("the directory has no subscription")
	}
	return resource.SubscriptionID(all[0].ID), nil
}
