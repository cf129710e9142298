package kql

import (
	"fmt"
	"strings"

	"cove.example/cove/fault"
)

// The failures of a query. Each sentence says where and what to do.
var (
	// ErrSyntax is a text that is no query.
	ErrSyntax = fault.Coded(fault.Invalid, "SyntaxError", "the query is not well formed")
	// ErrSemantic is a query that asks for what is not there, or mixes types.
	ErrSemantic = fault.Coded(fault.Invalid, "SemanticError", "the query does not make sense")
	// ErrRows, ErrMemory and ErrTime are the bounds of an execution.
	ErrRows   = fault.Coded(fault.TooLarge, "ResultTooLarge", "the answer has too many rows")
	ErrMemory = fault.Coded(fault.TooLarge, "QueryOutOfMemory", "the query needs too much memory")
	ErrTime   = fault.Coded(fault.TooLarge, "QueryTimedOut", "the query takes too long")
)

// place is where in the text something stands, in characters from 1.
type place struct{ line, column int }

func (p place) String() string { return fmt.Sprintf("line %d, column %d", p.line, p.column) }

// placeOf counts in characters, as an editor does, and not in bytes.
func placeOf(text string, at int) place {
	before := text[:min(at, len(text))]
	line := strings.Count(before, "\n") + 1
	return place{line, len([]rune(before[strings.LastIndexByte(before, '\n')+1:])) + 1}
}

// mistake is an error at a place of the text. Parsing and binding panic with
// it, since either may be deep; compile gives it back.
type mistake struct {
	kind    *fault.Error
	at      int
	message string
}

func wrong(kind *fault.Error, at int, format string, args ...any) {
	panic(mistake{kind, at, fmt.Sprintf(format, args...)})
}

// caught makes an error of the mistake that fn panics with.
func caught(text string, fn func()) (err error) {
	defer func() {
		switch m := recover().(type) {
		case nil:
		case mistake:
			err = m.kind.Detail("%s: %s", placeOf(text, m.at), m.message)
		default:
			panic(m)
		}
	}()
	fn()
	return nil
}

// clip keeps a stranger's text short in a message.
func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// nearest is the name that was probably meant, as " Did you mean X?", or "".
func nearest(name string, names []string) string {
	best, least := "", 3
	if len(name) < 5 {
		least = 2 // of a short word, two letters are most
	}
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return fmt.Sprintf("; did you mean %s?", n)
		}
		if len(name) > 40 {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is how many letters differ (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
