package condition

import (
	"math"
	"strconv"
	"time"
)

// Miss is a part of a condition that stood in the way of a request.
type Miss struct {
	Part string `json:"part"`          // the comparison as it is written
	True bool   `json:"true"`          // it was true and stands behind a not; else it was not true
	Has  string `json:"has,omitempty"` // what the request has there; "" is nothing
	By   string `json:"by,omitempty"`  // of moments, how far it is off: "2h5m0s"
}

// maxMisses bounds an answer: whoever reads it looks at the first.
const maxMisses = 5

// Misses says why the condition is not true of a request: the comparisons that
// would have to come out otherwise, in the order in which they are written. A
// condition that is true has none. It is for those who ask why, and not for the
// path of a request.
func (c *Condition) Misses(r *Request) []Miss {
	var out []Miss
	misses(c.root, r, true, &out)
	return out[:min(len(out), maxMisses)]
}

// misses collects why e is not what it should be.
func misses(e expr, r *Request, should bool, out *[]Miss) {
	t := eval(e, r)
	if should && t.least == yes || !should && t.most == no {
		return
	}
	switch e := e.(type) {
	case allOf:
		for _, of := range e {
			misses(of, r, should, out)
		}
	case anyOf:
		for _, of := range e {
			misses(of, r, should, out)
		}
	case not:
		misses(e.of, r, !should, out)
	case *comparison:
		m := Miss{Part: e.text, True: !should}
		m.Has, m.By = e.distance(r)
		*out = append(*out, m)
	}
}

// distance is what a request has for a comparison, and how far off it is.
func (e *comparison) distance(r *Request) (has, by string) {
	of, other := e.left, e.right
	if of.from == fromText {
		of, other = other, of
	}
	v, is := of.from.of(r)
	switch is {
	case absent:
		return "", ""
	case every:
		return "every one", ""
	}
	switch e.of {
	case flags:
		return strconv.FormatBool(v.n != 0), ""
	case integers:
		return strconv.FormatInt(v.n, 10), ""
	case moments:
		least := int64(-1)
		for _, w := range other.values {
			if d := max(v.n-w.n, w.n-v.n); least < 0 || d < least {
				least = d
			}
		}
		// What is centuries off is further than a Duration can be.
		if least >= 0 && least <= math.MaxInt64/100 && e.rel != equals {
			by = (time.Duration(least) * 100).Round(time.Second).String()
		}
		return time.Unix(v.n/1e7, v.n%1e7*100).UTC().Format(time.RFC3339), by
	}
	return v.text, ""
}
