package main

import (
	"bytes"
	"errors"
	"io/fs"

	"cove.example/cove/client"
	"cove.example/cove/directory"
)

// adminFile is what the first start writes for the operator.
const adminFile = "admin.json"

// saveAdmin writes admin.json for a new service principal.
func (s *server) saveAdmin(a directory.Admin) error {
	text, err := s.adminText(client.Profile{
		TenantID: a.Tenant, SubscriptionID: a.Subscription, ClientID: a.ClientID, ClientSecret: client.Secret(a.Secret.Reveal()),
	})
	if err != nil {
		return err
	}
	return writeWhole(s.data, adminFile, text, 0o600)
}

// adminText is admin.json for p, with the names that this server has now.
func (s *server) adminText(p client.Profile) ([]byte, error) {
	c := s.config
	p.ResourceManager, p.ActiveDirectory = endpointURL(c.HostManagement), endpointURL(c.HostLogin)
	p.Graph, p.Logs, p.RegistrySuffix = endpointURL(c.HostGraph), endpointURL(c.HostLogs), c.RegistrySuffix
	return client.WriteAdmin(p)
}

// refreshAdmin keeps the names in admin.json those that the server has: it may
// have been given others since. A file that is gone is not made again, since
// the operator may have taken the secret elsewhere on purpose.
func (s *server) refreshAdmin() error {
	old, err := s.data.ReadFile(adminFile)
	if errors.Is(err, fs.ErrNotExist) {
		s.log.Info("the data folder holds no admin.json; if its secret is lost, start once with --renew-admin", "data", s.config.Data)
		return nil
	}
	if err != nil {
		return err
	}
	p, err := client.ReadAdmin(old)
	if err != nil {
		s.log.Warn("admin.json is damaged; start once with --renew-admin to have another", "data", s.config.Data, "err", err)
		return nil
	}
	text, err := s.adminText(p)
	if err != nil || bytes.Equal(old, text) {
		return err
	}
	return writeWhole(s.data, adminFile, text, 0o600)
}
