package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/jmespath/go-jmespath"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// printer writes results to standard output in the form asked for.
type printer struct {
	out    io.Writer
	format string
	query  string
}

func (p *printer) flags(fs *pflag.FlagSet) {
	fs.StringVarP(&p.format, "output", "o", "table", "json, table or tsv")
	fs.StringVar(&p.query, "query", "", "JMESPath query on the result, as in az")
}

// column is one column of a table: a title and the JMESPath to its value.
type column struct{ title, path string }

// show prints v, an Object or a list of them. Tables have the columns given;
// the other forms have all there is.
func (p *printer) show(v any, columns ...column) error {
	switch p.format {
	case "json", "table", "tsv":
	default:
		return usagef("-o %s: json, table or tsv", p.format)
	}
	if p.query != "" {
		q, err := jmespath.Compile(p.query)
		if err != nil {
			return usagef("--query: %v", err)
		}
		if v, err = q.Search(plain(v)); err != nil {
			return usagef("--query: %v", err)
		}
		columns = nil
	}
	switch {
	case p.format == "json":
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err
		}
		_, err := io.WriteString(p.out, escaped(b.String()))
		return err
	case p.format == "tsv":
		return p.tsv(v)
	case columns == nil:
		return p.tsv(v)
	}
	return p.table(v, columns)
}

// shown prints a value of ours as the JSON that programs read it in.
func (p *printer) shown(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out any
	if err := dec.Decode(&out); err != nil {
		return err
	}
	return p.show(out)
}

// terminalWidth is how many characters fit beside each other, 0 for what is no
// terminal.
func terminalWidth(out io.Writer) int {
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			return w
		}
	}
	return 0
}

// table prints rows in columns. On a terminal they fit beside each other: what
// is long is cut, ids at last, and of very many columns the first are shown. In
// a pipe nothing is lost.
func (p *printer) table(v any, columns []column) error {
	rows, ok := v.([]any)
	if !ok {
		rows = []any{v}
	}
	if len(rows) == 0 {
		return nil
	}
	room := terminalWidth(p.out)
	lines := [][]string{make([]string, len(columns))}
	for i, c := range columns {
		lines[0][i] = c.title
	}
	for _, row := range rows {
		cells := make([]string, len(columns))
		for i, c := range columns {
			found, err := jmespath.Search(c.path, plain(row))
			if err != nil {
				return err
			}
			cells[i] = cell(text(found))
			if short := shortened[c.title]; short != nil && room > 0 {
				cells[i] = short(cells[i])
			}
		}
		lines = append(lines, cells)
	}
	widths := fit(lines, room)
	var b strings.Builder
	for _, cells := range lines {
		var line strings.Builder
		for i, w := range widths {
			c := cut(cells[i], w)
			line.WriteString(c)
			line.WriteString(strings.Repeat(" ", gap+w-utf8.RuneCountInString(c)))
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	if left := len(columns) - len(widths); left > 0 {
		fmt.Fprintf(&b, "and %d more columns: name those that you want, or see all with -o json\n", left)
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

const (
	gap       = 2 // between columns
	leastCell = 8 // of a cell that is cut
)

// shortened are what people read of some columns: the whole is in -o json, and
// `cove explain` takes the beginning of an id.
var shortened = map[string]func(string) string{
	"TIME":            clockTime,
	"ID":              func(s string) string { return s[:min(len(s), len("016e58cd-ac44"))] },
	"IDENTITY":        beginning,
	"REGISTRY":        func(s string) string { name, _, _ := strings.Cut(s, "."); return name },
	"SCOPE":           lastName,
	"VIRTUAL NETWORK": lastName,
}

// beginning is that of a GUID, and any other text whole.
func beginning(s string) string {
	if len(s) == guidLength && wholeID.MatchString(s) {
		return s[:len("016e58cd")]
	}
	return s
}

// clockTime is the time of day, in UTC; of another day, that and the minute.
func clockTime(s string) string {
	at, err := time.Parse(time.RFC3339Nano, s)
	switch {
	case err != nil:
		return s
	case time.Since(at) < 12*time.Hour:
		return at.UTC().Format("15:04:05Z")
	}
	return at.UTC().Format("01-02 15:04Z")
}

// fit returns how wide each column may be for all of them to have room beside
// each other; of more columns than can have any, the first. No room is a pipe,
// where each is as wide as its widest cell.
func fit(lines [][]string, room int) []int {
	widths, whole := make([]int, len(lines[0])), make([]bool, len(lines[0]))
	for _, cells := range lines {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
			whole[i] = whole[i] || wholeID.MatchString(c) && len(c) == guidLength
		}
	}
	if room == 0 {
		return widths
	}
	takes := func() (n int) {
		for _, w := range widths {
			n += w + gap
		}
		return n - gap
	}
	if len(widths) > manyColumns {
		for i, w := range widths {
			widths[i] = min(w, 3*leastCell)
		}
		for takes() > room {
			widths = widths[:len(widths)-1]
		}
		return widths
	}
	natural := slices.Clone(widths)
	for takes() > room {
		widest := -1
		for i, w := range widths {
			if w > leastCell && !whole[i] && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	if takes() > room {
		// Ids alone need more: the terminal breaks the lines, and what it breaks
		// is to be worth reading.
		for i := range widths {
			widths[i] = min(natural[i], max(widths[i], 3*leastCell))
		}
	}
	return widths
}

const (
	guidLength  = 36
	manyColumns = 8 // tables of ours have no more: only those of queries do
)

func (p *printer) tsv(v any) error {
	rows, ok := v.([]any)
	if !ok {
		rows = []any{v}
	}
	for _, row := range rows {
		var cells []string
		switch r := row.(type) {
		case []any:
			for _, c := range r {
				cells = append(cells, cell(text(c)))
			}
		case map[string]any:
			keys := make([]string, 0, len(r))
			for k := range r {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				cells = append(cells, cell(text(r[k])))
			}
		default:
			cells = []string{cell(text(r))}
		}
		if _, err := fmt.Fprintln(p.out, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// text is a cell's value.
func text(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case string:
		return t
	case []any:
		var parts []string
		for _, e := range t {
			parts = append(parts, text(e))
		}
		return strings.Join(parts, ", ")
	case map[string]any:
		b, err := json.Marshal(t)
		if err != nil {
			return ""
		}
		return string(b)
	}
	return fmt.Sprint(v)
}

// plain turns json.Number, which JMESPath does not know, into numbers.
func plain(v any) any {
	switch t := v.(type) {
	case json.Number:
		if f, err := t.Float64(); err == nil {
			return f
		}
		return t.String()
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, e := range t {
			out[k] = plain(e)
		}
		return out
	case []any:
		out := make([]any, len(t))
		for i, e := range t {
			out[i] = plain(e)
		}
		return out
	}
	return v
}

// clean makes a stranger's text harmless on a terminal: a user agent or
// repository name must not move the cursor or change a line already read.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if commands(r) {
			return '�'
		}
		return r
	}, s)
}

// cell is clean on one line: a text with a newline in it must not pass for a
// row of its own.
func cell(s string) string { return strings.ReplaceAll(clean(s), "\n", "�") }

// escaped is JSON that is harmless on a terminal too: what encoding/json leaves
// as it is, a terminal may obey.
func escaped(s string) string {
	if strings.IndexFunc(s, commands) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !commands(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// commands says that a terminal may take r for more than a character.
func commands(r rune) bool {
	return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

func cut(s string, width int) string {
	if r := []rune(s); width > 0 && len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}
