package door

import (
	"errors"
	"io"
	"math"
	"net/http"
	"time"
)

const (
	// stall is how long a body may stand still, in either direction. TCP
	// carries a caller over shorter gaps, and one who was away for longer
	// resumes an upload or asks for the rest of a blob.
	stall = time.Minute
	// portion is what has to be taken within one stall: 8 KiB a second, less
	// than the slowest link that anybody pulls an image over.
	portion = 512 << 10
	// rearm spares a system call for every read and write.
	rearm = stall / 8
)

// patient bounds how long a request's body or its answer may stand still. A
// caller who announces a body and never sends it, or asks for a layer and
// never reads it, would otherwise keep a goroutine, an open file and an
// upload's claim for ever, and needs no credential to do so. What is asked for
// is progress: the largest layer may take its day.
type patient struct{ next http.Handler }

func (p patient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	if r.ContentLength != 0 {
		b := &patientBody{ReadCloser: r.Body, deadline: deadline{set: conn.SetReadDeadline}}
		b.deadline.move() // net/http reads what the handler leaves unread
		r.Body = b
	}
	out := &patientWriter{ResponseWriter: w, deadline: deadline{set: conn.SetWriteDeadline}}
	p.next.ServeHTTP(out, r)
	// For what is still buffered. Before it net/http may wait one stall for a
	// body that nobody read.
	_ = out.deadline.set(time.Now().Add(2 * stall))
}

// deadline is the time by which one direction of a connection, or of a stream
// of HTTP/2, has to move.
type deadline struct {
	set func(time.Time) error // fails where there is no connection, as in a test
	at  time.Time
}

func (d *deadline) move() {
	if now := time.Now(); now.Add(stall - rearm).After(d.at) {
		d.at = now.Add(stall)
		_ = d.set(d.at)
	}
}

type patientBody struct {
	io.ReadCloser
	deadline deadline
	read     int
}

// Read leaves the deadline in force but at the end: net/http goes on reading
// a body that was not read to there.
//
// The first portion has to come within one stall. That is all of a form, which
// anybody may send, a byte every now and then; who sends more has shown a
// credential.
func (b *patientBody) Read(p []byte) (int, error) {
	if b.read >= portion {
		b.deadline.move()
	}
	n, err := b.ReadCloser.Read(p)
	b.read += n
	if errors.Is(err, io.EOF) {
		// What the handler does now may take longer, and net/http cancels its
		// context when it can no longer read from the connection.
		b.deadline.at = time.Time{}
		_ = b.deadline.set(time.Time{})
	}
	return n, err
}

// patientWriter passes ReadFrom on, or no blob would be sent with sendfile.
type patientWriter struct {
	http.ResponseWriter
	deadline deadline
}

func (w *patientWriter) Write(p []byte) (written int, err error) {
	for {
		w.deadline.move()
		n, err := w.ResponseWriter.Write(p[:min(len(p), portion)])
		written += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

func (w *patientWriter) ReadFrom(r io.Reader) (written int64, err error) {
	left := int64(math.MaxInt64)
	// sendfile looks through one LimitedReader, not through two.
	if l, ok := r.(*io.LimitedReader); ok {
		r, left = l.R, l.N
		defer func() { l.N -= written }()
	}
	for left > 0 {
		w.deadline.move()
		want := min(left, portion)
		n, err := io.Copy(w.ResponseWriter, &io.LimitedReader{R: r, N: want})
		written, left = written+n, left-n
		if err != nil || n < want {
			return written, err
		}
	}
	return written, nil
}

// Unwrap lets http.ResponseController reach the connection.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
