package condition

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

type kind uint8

const (
	end       kind = iota
	mark           // ( ) { } , ! && ||
	word           // AND, StringEquals, ForAnyOfAnyValues:StringEquals, true
	number         // -12
	quoted         // 'team/'
	attribute      // @Request[…]
)

// lexeme is one piece of a condition: text[at:to]. inner is a quoted text
// without its quotes, and what an attribute has between its brackets.
type lexeme struct {
	kind   kind
	at, to int
	inner  string
}

type lexer struct {
	text string
	pos  int
}

// fail is an Error at a byte of the text.
func (l *lexer) fail(at int, format string, args ...any) *Error {
	line, column := place(l.text, at)
	return &Error{Line: line, Column: column, Why: fmt.Sprintf(format, args...)}
}

func place(text string, at int) (line, column int) {
	before := text[:min(at, len(text))]
	from := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[from:]) + 1
}

func (l *lexer) next() (lexeme, *Error) {
	for l.pos < len(l.text) && blank(l.text[l.pos]) {
		l.pos++
	}
	x := lexeme{at: l.pos, to: l.pos}
	if l.pos == len(l.text) {
		return x, nil
	}
	var err *Error
	switch c := l.text[l.pos]; {
	case strings.IndexByte("(){},!", c) >= 0:
		x.kind, x.to = mark, l.pos+1
	case c == '&' || c == '|':
		if !strings.HasPrefix(l.text[l.pos+1:], l.text[l.pos:l.pos+1]) {
			return x, l.fail(l.pos, "expected %c%c, found a single %c", c, c, c)
		}
		x.kind, x.to = mark, l.pos+2
	case c == '\'':
		x, err = l.quote()
	case c == '@':
		x, err = l.bracketed()
	case letter(c):
		x.kind, x.to = word, l.pos+1
		for x.to < len(l.text) && (letter(l.text[x.to]) || digit(l.text[x.to]) || l.text[x.to] == ':') {
			x.to++
		}
	case digit(c) || c == '-':
		x.kind, x.to = number, l.pos+1
		for x.to < len(l.text) && (digit(l.text[x.to]) || letter(l.text[x.to]) || l.text[x.to] == '.') {
			x.to++
		}
	default:
		r, _ := utf8.DecodeRuneInString(l.text[l.pos:])
		return x, l.fail(l.pos, "the character %q has no meaning here", r)
	}
	l.pos = x.to
	return x, err
}

func (l *lexer) quote() (lexeme, *Error) {
	n := strings.IndexByte(l.text[l.pos+1:], '\'')
	if n < 0 {
		return lexeme{}, l.fail(l.pos, "the quote that begins here is not closed")
	}
	return lexeme{quoted, l.pos, l.pos + n + 2, l.text[l.pos+1 : l.pos+1+n]}, nil
}

func (l *lexer) bracketed() (lexeme, *Error) {
	at := l.pos + 1
	for at < len(l.text) && letter(l.text[at]) {
		at++
	}
	if at == len(l.text) || l.text[at] != '[' {
		return lexeme{}, l.fail(at, "expected [ and the name of an attribute after %s", clip(l.text[l.pos:at]))
	}
	n := strings.IndexAny(l.text[at+1:], "]['(){}")
	if n < 0 || l.text[at+1+n] != ']' {
		return lexeme{}, l.fail(at, "the bracket [ that begins here is not closed")
	}
	return lexeme{attribute, l.pos, at + n + 2, l.text[at+1 : at+1+n]}, nil
}

func blank(c byte) bool  { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
