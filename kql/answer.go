package kql

import (
	"strings"
	"time"

	"cove.example/cove/fault"
)

// Tables is an answer as the Log Analytics API has it: columns with types, and
// rows of cells. A list is a cell with JSON in it.
func (a *Answer) Tables() map[string]any {
	columns := []map[string]any{}
	for _, c := range a.Columns {
		columns = append(columns, map[string]any{"name": c.Name, "type": c.Type.String()})
	}
	rows := make([][]any, len(a.Rows))
	for i, r := range a.Rows {
		rows[i] = make([]any, len(r))
		for j, v := range r {
			if v.typ == Dynamic {
				rows[i][j] = v.String()
			} else {
				rows[i][j] = v.Go()
			}
		}
	}
	return map[string]any{"tables": []any{map[string]any{"name": "PrimaryResult", "columns": columns, "rows": rows}}}
}

// ErrInterval is a timespan that is none.
var ErrInterval = fault.Coded(fault.Invalid, "BadArgumentError", "the timespan is not valid")

// ParseInterval reads the timespan of a request (ISO 8601): a duration back
// from now, START/END, START/DURATION or DURATION/END. "" is open.
func ParseInterval(s string, now time.Time) (from, to time.Time, err error) {
	none := time.Time{}
	if s == "" {
		return none, none, nil
	}
	bad := ErrInterval.Detail("the timespan %q is not valid; write PT1H, P1D, or two of start, end and duration: 2026-11-21T09:00:00Z/PT1H", clip(s))
	first, second, two := strings.Cut(s, "/")
	if !two {
		d, ok := isoDuration(first)
		if !ok {
			return none, none, bad
		}
		return now.Add(-d), now, nil
	}
	a, firstIsTime := isoTime(first)
	b, secondIsTime := isoTime(second)
	switch {
	case firstIsTime && secondIsTime:
		from, to = a, b
	case firstIsTime:
		d, ok := isoDuration(second)
		if !ok {
			return none, none, bad
		}
		from, to = a, a.Add(d)
	case secondIsTime:
		d, ok := isoDuration(first)
		if !ok {
			return none, none, bad
		}
		from, to = b.Add(-d), b
	default:
		return none, none, bad
	}
	if to.Before(from) {
		return none, none, bad
	}
	return from, to, nil
}

func isoTime(s string) (time.Time, bool) {
	v, ok := parseTime(s)
	return v.Moment(), ok
}

// isoDuration reads P1DT2H30M. Months and years have no fixed length.
func isoDuration(s string) (d time.Duration, ok bool) {
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || len(rest) > 40 {
		return 0, false
	}
	date, clock, timed := strings.Cut(rest, "T")
	if timed && clock == "" || date == "" && !timed {
		return 0, false
	}
	var seconds int64
	read := func(s string, units string, sizes ...int64) bool {
		for s != "" {
			n := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
			if n < 1 || n > 6 {
				return false
			}
			at := strings.IndexByte(units, s[n])
			if at < 0 {
				return false
			}
			v, _ := number(s[:n], 6)
			seconds += v * sizes[at]
			units, sizes = units[at+1:], sizes[at+1:]
			s = s[n+1:]
		}
		return true
	}
	const day, most = 24 * 3600, 100 * 366 * 24 * 3600
	if !read(date, "WD", 7*day, day) || !read(clock, "HMS", 3600, 60, 1) || seconds > most {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}
