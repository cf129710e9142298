package registry

import (
	"context"
	"sync"
	"time"

	"cove.example/cove/oci"
)

const tebibyte = 1 << 40

// storageLimits are the most that a registry may hold, in bytes, by SKU
// (source: the documentation of Azure Container Registry). What a SKU comes
// with is less, and costs nothing here.
var storageLimits = map[string]int64{Basic: 40 * tebibyte, Standard: 40 * tebibyte, Premium: 100 * tebibyte}

// Storage says whether registries have room. To measure one is to read all of
// its rows, so a measurement is used again: what comes in between is more than
// the limit by what can be pushed in that time.
type Storage struct {
	// Size is how many bytes a registry's content takes, by UID.
	Size func(ctx context.Context, uid string) (int64, error)
	// Limits are the most bytes by SKU; nil is what Azure has.
	Limits map[string]int64
	Now    func() time.Time // nil is time.Now

	mu    sync.Mutex
	known map[string]*measured
}

type measured struct {
	size int64
	due  time.Time // when it is measured anew
}

// How long a measurement is used: of a registry that is nearly full, and of
// any other. maxMeasured bounds how many are remembered.
const (
	measureSoon  = 10 * time.Second
	measureLater = 10 * time.Minute
	maxMeasured  = 16384
)

// Room fails with oci.ErrDisallowed where a registry has reached the limit of
// its SKU. While one caller measures, others go by what was known before; of
// what cannot be measured nothing is refused, since the limit is there to be
// fair and not to be safe.
func (s *Storage) Room(ctx context.Context, uid, sku string) error {
	limits := s.Limits
	if limits == nil {
		limits = storageLimits
	}
	limit, ok := limits[sku]
	if !ok {
		return nil
	}
	now := time.Now()
	if s.Now != nil {
		now = s.Now()
	}
	s.mu.Lock()
	m := s.known[uid]
	if m == nil {
		if s.known == nil {
			s.known = map[string]*measured{}
		}
		evict(s.known, maxMeasured)
		m = &measured{}
		s.known[uid] = m
	}
	mine := !now.Before(m.due)
	if mine {
		m.due = now.Add(measureSoon) // others do not measure meanwhile
	}
	size := m.size
	s.mu.Unlock()
	if mine {
		got, err := s.Size(ctx, uid)
		if err != nil {
			return nil
		}
		size = got
		s.mu.Lock()
		m.size = got
		if got < limit-limit/10 {
			m.due = now.Add(measureLater)
		}
		s.mu.Unlock()
	}
	if size >= limit {
		return oci.ErrDisallowed
	}
	return nil
}
