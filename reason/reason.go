// Package reason is the catalogue of what can go wrong, by code: what each
// code means and what to do about it. Whatever cove prints about a code is made
// from it, so a code has its words once; programs compare codes only.
package reason

import (
	"slices"
	"strings"
	"sync"
)

// Code names one cause, such as COVE-DNS-001. A code never changes its
// meaning; a meaning that changes gets another code.
type Code string

// Meaning is what a code says to people: `cove help CODE`, explain and the
// checks print it.
type Meaning struct {
	Code  Code   `json:"code"`
	Title string `json:"title"` // a few words
	Cause string `json:"cause"` // one or two sentences
	Next  string `json:"next"`  // what to do about it
}

// All are the meanings of every code there is: why a registry refuses, what is
// wrong on the way to it, and what the server finds by itself.
func All() []Meaning { return slices.Concat(Refusals, Way, Drift) }

var byCode = sync.OnceValue(func() map[string]Meaning {
	m := map[string]Meaning{}
	for _, x := range All() {
		m[string(x.Code)] = x
	}
	return m
})

// Of returns the meaning of a code in any case, and whether there is such a
// code.
func Of(code string) (Meaning, bool) {
	m, ok := byCode()[strings.ToUpper(code)]
	return m, ok
}
