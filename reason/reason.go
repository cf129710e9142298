// Package reason is the catalogue of what can go wrong, by code: what each
// code means and what to do about it. What cove's commands print is made from
// it; programs compare codes only.
package reason

import "strings"

// Code names one cause, such as COVE-DNS-001. A code never changes its
// meaning; a meaning that changes gets another code.
type Code string

// Meaning is what a code says to people: `cove help CODE` and the checks print
// it.
type Meaning struct {
	Code  Code   `json:"code"`
	Title string `json:"title"` // a few words
	Cause string `json:"cause"` // one or two sentences
	Next  string `json:"next"`  // what to do about it
}

// Of returns the meaning of a code in any case, and whether there is such a
// code.
func Of(code string) (Meaning, bool) {
	for _, list := range [][]Meaning{Way, Drift} {
		for _, m := range list {
			if strings.EqualFold(string(m.Code), code) {
				return m, true
			}
		}
	}
	return Meaning{}, false
}
