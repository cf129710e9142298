package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"

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

func (p *printer) table(v any, columns []column) error {
	rows, ok := v.([]any)
	if !ok {
		rows = []any{v}
	}
	if len(rows) == 0 {
		return nil
	}
	// Cells are cut only on a terminal, so that nothing is lost in a pipe.
	width := 0
	if w := terminalWidth(p.out); w > 0 {
		width = max(12, (w-2*len(columns))/len(columns)*2)
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	var titles []string
	for _, c := range columns {
		titles = append(titles, c.title)
	}
	fmt.Fprintln(w, strings.Join(titles, "\t"))
	for _, row := range rows {
		var cells []string
		for _, c := range columns {
			found, err := jmespath.Search(c.path, plain(row))
			if err != nil {
				return err
			}
			cells = append(cells, cut(cell(text(found)), width))
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	return w.Flush()
}

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
