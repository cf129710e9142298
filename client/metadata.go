package client

import (
	"context"
	"net/http"
	"strings"

	"cove.example/cove/fault"
)

// Cloud is where a deployment's names are, as its metadata document says.
// Addresses have a scheme and no trailing slash, suffixes no leading dot.
type Cloud struct {
	ResourceManager, ActiveDirectory, Graph, Logs string
	RegistrySuffix, StorageSuffix, VaultSuffix    string
}

// Metadata asks the Resource Manager for the deployment's names.
func (c *Client) Metadata(ctx context.Context) (Cloud, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Profile.ResourceManager+"/metadata/endpoints?api-version=2022-09-01", nil)
	if err != nil {
		return Cloud{}, err
	}
	out, err := c.answer(req)
	if err != nil {
		return Cloud{}, err
	}
	text := func(o Object, name string) string {
		s, _ := o[name].(string)
		return strings.TrimRight(s, "/")
	}
	auth, _ := out["authentication"].(Object)
	suffixes, _ := out["suffixes"].(Object)
	cloud := Cloud{
		ResourceManager: text(out, "resourceManager"), ActiveDirectory: text(auth, "loginEndpoint"),
		Graph: text(out, "microsoftGraphResourceId"), Logs: text(out, "logAnalyticsResourceId"),
		RegistrySuffix: text(suffixes, "acrLoginServer"), StorageSuffix: text(suffixes, "storage"), VaultSuffix: text(suffixes, "keyVaultDns"),
	}
	if cloud.ResourceManager == "" || cloud.ActiveDirectory == "" || cloud.RegistrySuffix == "" {
		return Cloud{}, fault.Newf(fault.Unavailable, "%s has no metadata that this version understands", req.URL.Host)
	}
	return cloud, nil
}
