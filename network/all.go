package network

import (
	"maps"
	"net/netip"
	"slices"
)

// Endpoints are the addresses of private endpoints that a network (arm.ID.Key)
// reaches, in order.
func (m *Map) Endpoints(network string) []*Endpoint {
	s := (*m.table.Load())[network]
	if s == nil {
		return nil
	}
	var out []*Endpoint
	for _, a := range slices.SortedFunc(maps.Keys(s.endpoints), netip.Addr.Compare) {
		out = append(out, s.endpoints[a])
	}
	return out
}
