// Package fault sorts every failure into a few kinds and keeps the sentence a
// caller may read apart from the cause that only the log may hold.
//
// An error that never met this package is Internal: the caller is told
// "internal error" and nothing else.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what the caller can do next. The edges turn it into a status.
type Kind uint8

// The kinds. The zero value is the one that tells the caller nothing.
const (
	Internal        Kind = iota // our bug or our disk
	Invalid                     // can never succeed as written
	Unauthenticated             // we do not know who asks
	Denied                      // we know, and the answer is no
	NotFound                    // not there, or not to be seen by this caller
	Conflict                    // fine in itself, wrong for the present state
	Stale                       // the caller's ETag has moved on
	TooLarge                    // over a documented limit
	Disallowed                  // locked, or switched off for this resource
	Throttled                   // later
	Unavailable                 // later, or somewhere else
	Unsupported                 // this version does not do it
)

// Error is a failure with a public sentence.
type Error struct {
	Kind   Kind
	Code   string  // the protocol's own word for it ("SkuNotSupported"), if it has one
	Public string  // shown to the caller as it stands
	Fields []Field // every problem of a body, not only the first
	Err    error   // the cause; logged, never shown
}

// Field is one problem of one property.
type Field struct {
	Path    string // "properties.networkRuleSet.ipRules[3].value"
	Message string
}

// New returns a sentinel. Packages declare theirs once, as ErrSomething.
func New(k Kind, public string) *Error { return &Error{Kind: k, Public: public} }

// Coded returns a sentinel that also carries the protocol's code.
func Coded(k Kind, code, public string) *Error { return &Error{Kind: k, Code: code, Public: public} }

// Newf returns a one-off failure with a public sentence.
func Newf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Public: fmt.Sprintf(format, args...)}
}

// Detail returns an error for which errors.Is(err, e) holds, with a more
// particular public sentence.
func (e *Error) Detail(format string, args ...any) error {
	return &Error{Kind: e.Kind, Code: e.Code, Public: fmt.Sprintf(format, args...), Err: e}
}

// Because returns an error that is e and carries cause for the log.
func (e *Error) Because(cause error) error {
	return &Error{Kind: e.Kind, Code: e.Code, Public: e.Public, Fields: e.Fields, Err: errors.Join(e, cause)}
}

// Problems returns nil for no problem, else one Invalid error that lists all.
func Problems(fields []Field) error {
	switch len(fields) {
	case 0:
		return nil
	case 1:
		return &Error{Kind: Invalid, Public: fields[0].Path + ": " + fields[0].Message, Fields: fields}
	}
	return &Error{Kind: Invalid, Public: fmt.Sprintf("%s: %s (and %d more)", fields[0].Path, fields[0].Message, len(fields)-1), Fields: fields}
}

// At returns err, which says what is wrong with one property, with the path of
// that property. An error that has a path, or none of this package, stays.
func At(path string, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || len(e.Fields) > 0 {
		return err
	}
	return &Error{Kind: e.Kind, Code: e.Code, Public: e.Public, Fields: []Field{{path, e.Public}}, Err: err}
}

// All is one error for several: the one that there is, or a list of what is
// wrong with a body. One that says anything else stands for all.
func All(errs ...error) error {
	var fields []Field
	var first error
	for _, err := range errs {
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != Invalid || len(e.Fields) == 0 {
			return err
		}
		if first == nil {
			first = err
		}
		fields = append(fields, e.Fields...)
	}
	if e, ok := errors.AsType[*Error](first); ok && len(e.Fields) == len(fields) {
		return first
	}
	return Problems(fields)
}

func (e *Error) Error() string {
	if e.Err == nil || e.Err.Error() == e.Public {
		return e.Public
	}
	return e.Public + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Of returns the kind and the public sentence of err.
func Of(err error) (Kind, string) {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind, e.Public
	}
	return Internal, "internal error"
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool {
	got, _ := Of(err)
	return err != nil && got == k
}
