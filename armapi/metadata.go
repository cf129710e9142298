package armapi

import (
	"context"
	"net/http"

	"cove.example/cove/resource"
)

// Names are the deployment's public names, without scheme; suffixes have no
// leading dot.
type Names struct {
	Management, Login, Graph, Logs, Portal     string
	RegistrySuffix, StorageSuffix, VaultSuffix string
}

// Metadata answers where the deployment's other names are. Nobody signs in for
// it: programs read it to find out where to.
//
// az (cloud register) reads the form of 2015-01-01. Its login endpoint ends in
// /adfs, because with any other MSAL would first ask Microsoft whether it knows
// this authority. Terraform and the SDKs read 2022-09-01 and go by tenant.
func Metadata(n Names) Route {
	at := func(host string) string { return "https://" + host + "/" }
	audiences := []string{at(n.Management), "https://" + n.Management}
	old := resource.Object{
		"galleryEndpoint": at(n.Management),
		"graphEndpoint":   at(n.Graph),
		"portalEndpoint":  at(n.Portal),
		"authentication":  resource.Object{"loginEndpoint": at(n.Login) + "adfs", "audiences": audiences},
	}
	now := resource.Object{
		"name":            "cove",
		"resourceManager": at(n.Management),
		"portal":          "https://" + n.Portal,
		"graph":           at(n.Graph), "graphAudience": at(n.Graph), "microsoftGraphResourceId": at(n.Graph),
		"gallery":                at(n.Management),
		"logAnalyticsResourceId": "https://" + n.Logs,
		"authentication": resource.Object{
			"loginEndpoint": "https://" + n.Login, "audiences": audiences, "tenant": "common", "identityProvider": "AAD",
		},
		"suffixes": resource.Object{
			"acrLoginServer": n.RegistrySuffix, "storage": n.StorageSuffix, "keyVaultDns": n.VaultSuffix,
		},
	}
	return Route{
		Method: http.MethodGet, Pattern: "/metadata/endpoints", Open: true,
		Do: func(_ context.Context, c *Call) (Reply, error) {
			if c.Query.Get("api-version") < "2018" {
				return Reply{Status: http.StatusOK, Body: old}, nil
			}
			return Reply{Status: http.StatusOK, Body: now}, nil
		},
	}
}
