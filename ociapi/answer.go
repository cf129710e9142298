package ociapi

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// answer is a ResponseWriter that remembers the status, and that holds back
// the error pages which net/http writes while it serves content, so that fail
// stays the only one to write an error.
//
// It passes ReadFrom on. Hiding that method would turn every blob download
// from sendfile into a copy through this process.
type answer struct {
	http.ResponseWriter
	status  int
	serving bool // net/http is answering; its error statuses are held
	held    int
}

func (a *answer) WriteHeader(status int) {
	if a.serving && status >= 400 {
		a.held = status
		return
	}
	if status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.serving && a.held != 0 {
		return len(p), nil
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	to, ok := a.ResponseWriter.(io.ReaderFrom)
	if !ok || a.status == 0 {
		return io.Copy(struct{ io.Writer }{a}, r)
	}
	return to.ReadFrom(r)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// serve answers with content, its ranges and its preconditions. Headers that
// describe it are set; its ETag is what conditions are compared with.
func (x *exchange) serve(body io.ReadSeeker) error {
	x.w.serving = true
	http.ServeContent(x.w, x.r, "", time.Time{}, body)
	x.w.serving = false
	switch x.w.held {
	case 0:
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		return errRange
	case http.StatusPreconditionFailed:
		return errPrecondition
	}
	return fmt.Errorf("net/http answered %d while it served content", x.w.held)
}
