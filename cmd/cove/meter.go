package main

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/audit"
	"cove.example/cove/reason"
)

// meter counts what the registries' edge records, on its way into the log.
type meter struct {
	audit.Log
	refusals *prometheus.CounterVec
	events   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	decision prometheus.Histogram
}

func newMeter(log audit.Log) *meter {
	return &meter{
		Log:      log,
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cove_access_refusals_total", Help: "Refused requests by reason code."}, []string{"reason"}),
		events:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cove_audit_events_total", Help: "Events by operation and by the first digit of their status."}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "cove_audit_request_seconds", Help: "How long requests took that left an event.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"operation"}),
		decision: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cove_access_decision_seconds", Help: "How long decisions about requests took, with reading what they need and verifying credentials.",
			Buckets: []float64{.00001, .000025, .0001, .00025, .001, .0025, .01, .025, .1, .5, 1},
		}),
	}
}

// decided is told how long each decision took.
func (m *meter) decided(took time.Duration) { m.decision.Observe(took.Seconds()) }

func (m *meter) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.refusals, m.events, m.seconds, m.decision}
}

// Record implements audit.Log. Labels are from closed sets, whatever an event
// says.
func (m *meter) Record(e audit.Event) {
	operation := "other"
	if slices.Contains(audit.Operations, e.Operation) {
		operation = e.Operation
	}
	status := "other"
	if digit := e.Status / 100; digit >= 1 && digit <= 5 {
		status = string(rune('0'+digit)) + "xx"
	}
	m.events.WithLabelValues(operation, status).Inc()
	m.seconds.WithLabelValues(operation).Observe(e.Duration.Seconds())
	if e.Reason != "" {
		code := "other"
		if _, ok := reason.Of(e.Reason); ok {
			code = e.Reason
		}
		m.refusals.WithLabelValues(code).Inc()
	}
	m.Log.Record(e)
}
