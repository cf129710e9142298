package network

import "slices"

// Endpoints are the addresses of private endpoints that a network (arm.ID.Key)
// reaches, in order.
func (m *Map) Endpoints(network string) []*Endpoint {
	s := (*m.table.Load())[network]
	if s == nil {
		return nil
	}
	return slices.SortedFunc(s.endpoints(), func(a, b *Endpoint) int { return a.Address.Compare(b.Address) })
}
