package armapi

import (
	"testing"

	"cove.example/cove/arm"
)

// A suffix chooses among record sets by whole labels, in any case, and among
// nothing else.
func TestRecordSetsBelowALabel(t *testing.T) {
	const zone = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateDnsZones/corp.test"
	for id, want := range map[string]bool{
		zone + "/SRV/_ldap._TCP": true, zone + "/A/a._tcp": true, zone + "/A/_tcp": false, zone + "/A/a_tcp": false, zone + "/A/www": false,
		zone: true, "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/n": true,
	} {
		if got := recordSetBelow("_tcp", arm.MustID(id)); got != want {
			t.Errorf("%s: %t", id, got)
		}
	}
}
