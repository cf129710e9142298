package registry

import (
	"context"
	"strings"

	"cove.example/cove/resource"
)

// Regional endpoints are login servers of single regions, beside the global
// one: <name>.<region>.geo.<suffix>. Tokens are good on all of them.
const (
	pathRegional      = "properties.regionalEndpoints"
	pathRegionalHosts = "properties.regionalEndpointHostNames"
)

// regional checks the switch.
func (k *checker) regional(sku string) {
	if k.word(pathRegional, "Disabled", "Enabled", "Disabled") == "Enabled" && sku != Premium && sku != "" {
		k.bad(pathRegional, "regional endpoints are not supported for the SKU %s; they need Premium", sku)
	}
}

// regionalHosts are the regions' login servers, none where the switch is off.
func (c Config) regionalHosts(doc *resource.Doc) []string {
	if on, _ := resource.Lookup(doc.Body, pathRegional).(string); on != "Enabled" {
		return nil
	}
	var hosts []string
	for _, region := range regions(doc) {
		hosts = append(hosts, strings.ToLower(doc.ID.Name())+"."+region+".geo."+c.Suffix)
	}
	return hosts
}

func (c Config) shownRegionalHosts(doc *resource.Doc) []any {
	shown := []any{}
	for _, host := range c.regionalHosts(doc) {
		shown = append(shown, host)
	}
	return shown
}

// regionalChanged tells who has addresses for the regions' login servers that
// there are more of them now, or fewer.
func (c Config) regionalChanged(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	if ch.Old == nil || c.RegionsChanged == nil || len(c.regionalHosts(ch.Old)) == len(c.regionalHosts(ch.New)) {
		return nil
	}
	return c.RegionsChanged(ctx, tx, *ch.New, ch.Caller)
}
