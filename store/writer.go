package store

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"cove.example/cove/fault"
	sqlite3 "modernc.org/sqlite/lib"
)

// A group is ended after this many writes or this much time, so that the
// first in it does not wait for ever on those that keep arriving.
const (
	groupWrites = 256
	groupTime   = 50 * time.Millisecond
)

// write is one Update on its way through the writer. fn runs on the caller's
// goroutine while the writer waits: a panic or Goexit in it then unwinds where
// it belongs and never ends the writer.
type write struct {
	relaxed bool
	state   atomic.Int32
	turn    chan *Tx   // the caller may run fn
	ran     chan error // what fn returned
	done    chan error // what became of the group
}

// The states of a write.
const (
	waiting int32 = iota
	begun
	withdrawn // its caller has gone
)

// errUnwound stands for the error of an fn that did not return.
var errUnwound = errors.New("store: the function of an Update panicked")

func (e *sqliteEngine) update(ctx context.Context, m mode, fn func(*Tx) error) error {
	w := &write{
		relaxed: m.relaxed,
		turn:    make(chan *Tx),
		ran:     make(chan error, 1),
		done:    make(chan error, 1),
	}
	select {
	case e.queue <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closing:
		return ErrClosed
	}
	var tx *Tx
	select {
	case tx = <-w.turn:
	case err := <-w.done: // the group failed before its turn
		return err
	case <-ctx.Done():
		if w.state.CompareAndSwap(waiting, withdrawn) {
			return ctx.Err()
		}
		select {
		case tx = <-w.turn:
		case err := <-w.done:
			return err
		}
	}
	returned := false
	defer func() {
		if !returned {
			w.ran <- errUnwound
			<-w.done
		}
	}()
	err := fn(tx)
	returned = true
	w.ran <- err
	// Also the error of fn waits for the group: it may speak of what a
	// neighbour has written and not yet committed.
	if failed := <-w.done; failed != nil {
		return failed
	}
	if err != nil && full(err) {
		return ErrFull.Because(err)
	}
	return err
}

// writes is the writer goroutine.
func (e *sqliteEngine) writes() {
	var next []*write // taken from the queue, not yet begun
	for {
		if len(next) == 0 {
			select {
			case w := <-e.queue:
				next = append(next, w)
			case <-e.closing:
				return
			}
		}
		next = e.group(next)
	}
}

// group runs a transaction for the writes in todo and for those that arrive
// meanwhile, tells each what became of it, and returns the writes that have to
// be in another.
func (e *sqliteEngine) group(todo []*write) []*write {
	todo = e.gather(todo)
	durable := false
	for _, w := range todo {
		durable = durable || !w.relaxed
	}
	if err := e.begin(durable); err != nil {
		for _, w := range todo {
			w.done <- err
		}
		return nil
	}
	var ran []*write
	wrote := false
	finish := func(err error) {
		for _, w := range ran {
			w.done <- err
		}
	}
	for end := time.Now().Add(groupTime); len(todo) > 0; {
		w := todo[0]
		if !w.relaxed && !durable {
			break // this transaction will not wait for the disk
		}
		todo = todo[1:]
		if !w.state.CompareAndSwap(waiting, begun) {
			continue
		}
		ran = append(ran, w)
		ok, err := e.one(w)
		if err != nil {
			finish(err)
			return todo
		}
		wrote = wrote || ok
		if len(ran) >= groupWrites || time.Now().After(end) {
			break
		}
		if len(todo) == 0 {
			todo = e.gather(todo)
		}
	}
	if !wrote {
		_ = e.writer.run("ROLLBACK")
		finish(nil)
		return todo
	}
	finish(e.commit())
	return todo
}

// gather adds the writes that wait, without waiting for any. It lets the
// callers just told run first: in a loop they are back at once.
func (e *sqliteEngine) gather(todo []*write) []*write {
	runtime.Gosched()
	for len(todo) < groupWrites {
		select {
		case w := <-e.queue:
			todo = append(todo, w)
			continue
		default:
		}
		break
	}
	return todo
}

func (e *sqliteEngine) begin(durable bool) error {
	if cause := e.stopped.Load(); cause != nil {
		return ErrStopped.Because(*cause)
	}
	// Without the fsync a commit is in the log, which a killed process does
	// not take with it; the next fsync covers it.
	if durable != e.synced {
		level := "NORMAL"
		if durable {
			level = "FULL"
		}
		if err := e.writer.run("PRAGMA synchronous=" + level); err != nil {
			return e.writeError(err)
		}
		e.synced = durable
	}
	if err := e.writer.run("BEGIN IMMEDIATE"); err != nil {
		return e.writeError(err)
	}
	return nil
}

// one runs w in a savepoint and reports whether it is to be kept. An error
// means that the whole transaction is lost: SQLite itself rolls back when the
// disk is full or fails.
func (e *sqliteEngine) one(w *write) (keep bool, lost error) {
	if err := e.writer.run("SAVEPOINT w"); err != nil {
		return false, e.abandon(err)
	}
	w.turn <- e.db.tx(e.writer)
	failed := <-w.ran
	e.writer.settle()
	if failed == nil {
		if err := e.writer.run("RELEASE w"); err != nil {
			return false, e.abandon(err)
		}
		return true, nil
	}
	if err := e.writer.run("ROLLBACK TO w"); err != nil {
		return false, e.abandon(errors.Join(failed, err))
	}
	if err := e.writer.run("RELEASE w"); err != nil {
		return false, e.abandon(errors.Join(failed, err))
	}
	return false, nil
}

// abandon rolls back what is left of a transaction.
func (e *sqliteEngine) abandon(cause error) error {
	_ = e.writer.run("ROLLBACK") // an error: SQLite has done so already
	if sqliteCode(cause)&0xff == sqlite3.SQLITE_IOERR && !full(cause) {
		e.stop(cause)
	}
	return e.writeError(cause)
}

func (e *sqliteEngine) commit() error {
	err := e.writer.run("COMMIT")
	if err == nil {
		select {
		case e.dirty <- struct{}{}:
		default:
		}
		return nil
	}
	_ = e.writer.run("ROLLBACK")
	if !full(err) {
		e.stop(err)
	}
	return e.writeError(err)
}

// stop makes every later write fail.
func (e *sqliteEngine) stop(cause error) {
	if e.stopped.CompareAndSwap(nil, &cause) {
		e.db.log.Error("the store has stopped writing", "error", cause)
	}
}

// writeError is the failure of a group as its members read it.
func (e *sqliteEngine) writeError(err error) error {
	switch {
	case full(err):
		return ErrFull.Because(err)
	case e.stopped.Load() != nil:
		return ErrStopped.Because(err)
	case sqliteCode(err)&0xff == sqlite3.SQLITE_BUSY:
		return ErrBusy.Because(err)
	}
	return fault.New(fault.Unavailable, "the store could not write").Because(err)
}

// The log is copied into the database this long after a commit, or after this
// many, and readers are made to let go of it when it has more than so many
// pages (64 MiB).
const (
	checkpointDelay  = 2 * time.Second
	checkpointGroups = 200
	checkpointPages  = 16384
)

// checkpoints copies the log into the database from time to time, beside the
// writer. A failed fsync here would let later commits stand on pages that the
// disk may have lost, so it stops the store as a failed commit does.
func (e *sqliteEngine) checkpoints() {
	for {
		select {
		case <-e.dirty:
		case <-e.closing:
			return
		}
		delay := time.NewTimer(checkpointDelay)
	groups:
		for range checkpointGroups {
			select {
			case <-e.dirty:
			case <-delay.C:
				break groups
			case <-e.closing:
				delay.Stop()
				return
			}
		}
		delay.Stop()
		pages, err := e.checkpointNow("PASSIVE")
		if err == nil && pages > checkpointPages {
			_, err = e.checkpointNow("RESTART")
		}
		switch code := sqliteCode(err) & 0xff; {
		case err == nil, full(err), code == sqlite3.SQLITE_BUSY, code == sqlite3.SQLITE_LOCKED:
		case code == sqlite3.SQLITE_IOERR:
			e.stop(err)
		default:
			e.db.log.Warn("the log could not be copied into the database", "error", err)
		}
	}
}

// checkpointNow returns how many pages the log has.
func (e *sqliteEngine) checkpointNow(how string) (pages int64, err error) {
	var busy, copied int64
	err = e.checkpoint.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+how+")").Scan(&busy, &pages, &copied)
	return pages, err
}
