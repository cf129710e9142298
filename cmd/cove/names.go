package main

import (
	"context"
	"net/netip"
	"strings"

	"cove.example/cove/armapi"
	"cove.example/cove/registry"
	"cove.example/cove/zone"
)

// registryAudience is what Entra calls tokens that are good for registries
// only (source: the documentation of Azure Container Registry).
const registryAudience = "https://containerregistry.azure.net"

// logsAudience is the public cloud's name for the API of log queries, which
// clients have compiled in (source: the reference of the Log Analytics API).
const logsAudience = "https://api.loganalytics.io"

// managementAudiences are what tokens for the control plane are made out to.
// The public cloud's is not where it answers: clients that have that cloud
// compiled in ask for the name of the service that ARM took the place of
// (azcore's cloud.AzurePublic; az's activeDirectoryResourceId).
func managementAudiences(host string) []string {
	out := []string{endpointURL(host)}
	if host == "management.azure.com" {
		out = append(out, "https://management.core.windows.net")
	}
	return out
}

// names are the deployment's public names, as its metadata document tells them.
func (c *config) names() armapi.Names {
	return armapi.Names{
		Management: c.HostManagement, Login: c.HostLogin, Graph: c.HostGraph, Logs: c.HostLogs, Portal: c.HostPortal,
		RegistrySuffix: c.RegistrySuffix, StorageSuffix: "store." + c.Domain, VaultSuffix: "vault." + c.Domain,
	}
}

func (c *config) regions() []string { return append([]string{c.Region}, c.AlsoRegion...) }

func (c *config) publicAccess() string {
	if c.DefaultPublicAccess == "disabled" {
		return "Disabled"
	}
	return "Enabled"
}

// aliases are the further hosts of registries, by registry.
func (c *config) aliases() map[string][]string {
	out := map[string][]string{}
	for _, a := range c.Aliases {
		host, reg, _ := strings.Cut(a, "=")
		reg = strings.ToLower(reg)
		out[reg] = append(out[reg], strings.ToLower(host))
	}
	return out
}

// aliasHosts are the aliases that are names, for DNS.
func (s *server) aliasHosts() map[string]string {
	out := map[string]string{}
	for reg, hosts := range s.config.aliases() {
		for _, host := range hosts {
			if _, err := netip.ParseAddr(host); err != nil {
				out[host] = reg + "." + s.config.RegistrySuffix
			}
		}
	}
	return out
}

// registryNames is what DNS needs to know of registries.
type registryNames struct{ *registry.Directory }

func (r registryNames) ByHost(ctx context.Context, host string) (*zone.Registry, error) {
	found, err := r.Directory.ByHost(ctx, host)
	if found == nil || err != nil {
		return nil, err
	}
	return &zone.Registry{Private: found.EverPrivate, Regions: found.Routed}, nil
}

// dial is where a machine that has nothing yet reaches the public listener.
func (s *server) dial() string {
	ap, err := netip.ParseAddrPort(s.https[0].Addr().String())
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(s.advertise, ap.Port()).String()
}
