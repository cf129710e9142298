package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/insight"
	"cove.example/cove/outbound"
	"cove.example/cove/task"
)

func (s *server) keepEvents() time.Duration {
	return time.Duration(s.config.KeepEvents) * 24 * time.Hour
}

// openInsight opens what diagnostic settings, workspaces and sinks need.
func (s *server) openInsight() (insight.Config, error) {
	dir := s.config.SinkFolder
	if dir == "" {
		dir = filepath.Join(s.config.Data, "sinks")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return insight.Config{}, fault.Newf(fault.Invalid, "--sink-folder: %v", err)
	}
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return insight.Config{}, fault.Newf(fault.Invalid, "--sink-folder: %v", err)
	}
	s.closers.add(folder.Close)
	c := insight.Config{Sealer: s.box, Keep: s.keepEvents(), Folder: folder, Web: s.outbound.Transport(outbound.Logs)}
	s.delivery = &insight.Delivery{Config: c, Store: s.resources, Feed: s.events, Now: s.now, Log: s.log}
	return c, nil
}

// Settings that send to sinks are tasks that go on for as long as the settings
// are there. After a crash another node, or this one, goes on in a moment; it
// is no fault of the task's how often that happens.
const (
	deliverLease   = 15 * time.Second
	deliverWorkers = 1000
)

func (s *server) deliver(ctx context.Context) error {
	runner := &task.Runner{
		Queue: s.db, Now: s.now, Log: s.log, Lease: deliverLease, Workers: deliverWorkers, Tries: math.MaxInt32,
		Handlers: map[string]task.Handler{insight.TaskDeliver: s.delivery.Do},
	}
	return runner.Run(ctx)
}

// trimSize deletes the oldest events when all of them take too much: they must
// not fill the disk that the metadata is on.
func (s *server) trimSize(ctx context.Context) error {
	most := int64(s.config.KeepEventsGiB) << 30
	n, left, err := s.events.TrimSize(ctx, most)
	switch {
	case err != nil:
		return err
	case n > 0:
		s.log.Warn("events took more than --keep-events-gib: the oldest days were deleted", "days", n, "bytes left", left)
	case left > most:
		s.log.Error("today's events alone take more than --keep-events-gib", "bytes", left)
	}
	return nil
}
