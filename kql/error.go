package kql

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"

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
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// others are words of the language that are not taken here, and what answers
// the same question.
var others = map[string]string{
	"join": joined, "lookup": joined,
	"search": searched, "find": searched,
	"render":     "the answer is a table: leave it out",
	"mv-expand":  plainColumns,
	"parse":      `to look into a text, write where COLUMN matches regex "…"`,
	"sample":     "write take",
	"top-nested": "write summarize count() by COLUMN | top 10 by count_",

	"parse_json": plainColumns, "todynamic": plainColumns, "dynamic": plainColumns, "extractjson": plainColumns, "extract_json": plainColumns, "bag_keys": plainColumns,
	"split": cutting, "extract": cutting, "indexof": cutting,
	"trim": "write trim_space", "trim_start": "write trim_space", "trim_end": "write trim_space",
	"format_datetime": timing, "datetime_part": timing, "datetime_diff": timing, "dayofweek": timing, "startofhour": timing, "startofweek": timing, "startofmonth": timing,
	"ipv4_is_in_range": addressing, "ipv4_is_match": addressing, "ipv4_is_private": addressing, "ipv4_compare": addressing, "has_ipv4": addressing,

	"make_list": "write make_set", "makelist": "write make_set", "makeset": "write make_set", "any": "write take_any",
	"dcountif": "write dcount(COLUMN) behind a where", "sumif": "write sum(COLUMN) behind a where", "avgif": "write avg(COLUMN) behind a where",
}

const (
	joined       = "write union T1, T2 | summarize … by CorrelationId: rows of one request have it in common"
	searched     = `name a table, and write | where COLUMN has "text"`
	plainColumns = "columns are plain texts, numbers and times: TABLE | getschema lists them"
	cutting      = `write substring(TEXT, START, LENGTH), or where COLUMN matches regex "…"`
	timing       = "write bin(TIME, 1h), startofday(TIME) or hourofday(TIME), and TIME - TIME for what lies between"
	addressing   = `write CallerIpAddress startswith "10.", or matches regex "…"`
)

// instead says what to write in place of a word that is not known: the nearest
// one, or what answers the same question, or else all that there are.
func instead(word string, names []string) string {
	if hint, ok := others[word]; ok {
		return "; " + hint
	}
	if hint := nearest(word, names); hint != "" {
		return hint
	}
	return "; there are " + strings.Join(names, ", ")
}
