package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/drift"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

const (
	lookEvery = time.Minute
	maxEnding = 1000 // credentials in one look
	// credentialAhead is how far ahead of their end credentials are read.
	credentialAhead = 14 * 24 * time.Hour
)

// watch is what looks the deployment over.
func (s *server) watch(subscription arm.ID) *drift.Watch {
	w := &drift.Watch{
		Store: s.resources, Networks: s.networks, Zones: s.views, Registries: s.registries, Roles: s.roles,
		Suffix: s.config.RegistrySuffix, Subscription: subscription, Now: s.now,
		Credentials: func(ctx context.Context) ([]drift.Credential, error) { return s.ending(ctx, subscription) },
	}
	w.Room = func() (free, all uint64, err error) {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(s.config.Data, &fs); err != nil {
			return 0, 0, err
		}
		return fs.Bavail * uint64(fs.Bsize), fs.Blocks * uint64(fs.Bsize), nil
	}
	w.Attached = func() []drift.Finding { return s.attached(subscription) }
	w.Elsewhere = s.ways.attachments.namesElsewhere
	if o := s.ca.Operator; o != nil {
		w.Certificates = func() []drift.Certificate {
			leaf := o.Leaf()
			return []drift.Certificate{{Names: leaf.DNSNames, Ends: leaf.NotAfter}}
		}
	}
	return w
}

// noticed keeps what has been found, or found mended, for the activity log.
func (s *server) noticed(f drift.Finding, mended bool) {
	now := s.now()
	e := audit.Event{ID: audit.NewID(now), Time: now, Table: audit.AdministrativeEvents, Registry: f.Resource.Key(), Operation: audit.Found, Reason: string(f.Code)}
	if mended {
		e.Operation = audit.Mended
	}
	e.Decision = map[string]any{"code": f.Code, "title": f.Title, "says": f.Says, "breaks": f.Breaks, "cure": f.Cure}
	s.events.Record(e)
}

// ending lists the credentials that end soon: of the directory, and of the
// registries' tokens.
func (s *server) ending(ctx context.Context, subscription arm.ID) (out []drift.Credential, err error) {
	before := s.now().Add(credentialAhead)
	of, err := s.identity.Ending(ctx, before, maxEnding)
	if err != nil {
		return nil, err
	}
	for _, e := range of {
		c := drift.Credential{Holder: subscription, Ends: e.Ends}
		c.Name = fmt.Sprintf("the %s %s of %s (%s)", e.Kind, e.Name, e.Holder, e.AppID)
		if e.Name == "" {
			c.Name = fmt.Sprintf("the %s %s of %s (%s)", e.Kind, e.KeyID, e.Holder, e.AppID)
		}
		if e.Kind == directory.KindSecret {
			c.Cure = "cove principal secret add " + e.AppID
		}
		out = append(out, c)
	}
	err = s.resources.View(ctx, func(r resource.Reader) error {
		tokens, err := r.List(ctx, resource.Query{Type: registry.TypeToken})
		if err != nil {
			return err
		}
		for _, doc := range tokens {
			for _, p := range registry.Endings(doc) {
				if p.Ends.Before(before) {
					out = append(out, drift.Credential{
						Holder: doc.ID, Ends: p.Ends, Name: fmt.Sprintf("%s of the token %s of %s", p.Name, doc.ID.Name(), doc.ID.Parent().Name()),
						Cure: fmt.Sprintf("cove token password %s --registry %s --password-name %s", doc.ID.Name(), doc.ID.Parent().Name(), p.Name),
					})
				}
			}
		}
		return nil
	})
	return out, err
}

// driftMetric counts findings by code.
type driftMetric struct {
	count func() map[reason.Code]int
	desc  *prometheus.Desc
}

func newDriftMetric(count func() map[reason.Code]int) driftMetric {
	return driftMetric{count, prometheus.NewDesc("cove_findings", "What is wrong or will be, by reason code, at the last look.", []string{"code"}, nil)}
}

// Describe implements prometheus.Collector.
func (m driftMetric) Describe(ch chan<- *prometheus.Desc) { ch <- m.desc }

// Collect implements prometheus.Collector.
func (m driftMetric) Collect(ch chan<- prometheus.Metric) {
	for code, n := range m.count() {
		ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, float64(n), string(code))
	}
}
