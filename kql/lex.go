package kql

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is what a token is.
type kind uint8

const (
	end kind = iota
	word
	symbol   // | ( ) [ ] , ; . .. = == != =~ !~ < <= > >= + - * / % and !word
	text     // a string literal
	integer  // 12
	decimal  // 1.5
	duration // 5m
)

// token is one word of the text.
type token struct {
	kind kind
	at   int    // where it begins, in bytes
	end  int    // where it ends
	text string // as it stands; of a string literal, its value
	num  int64  // of an integer, or ticks
	real float64
}

// lexer reads tokens from a text.
type lexer struct {
	text string
	pos  int
}

// symbols, the longer first.
var symbols = []string{"..", "==", "=~", "!=", "!~", "<=", ">=", "|", "(", ")", "[", "]", ",", ";", "=", "<", ">", "+", "-", "*", "/", "%", ".", "{", "}", ":"}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

// next reads the next token. It panics with a mistake.
func (l *lexer) next() token {
	l.space()
	at := l.pos
	if at == len(l.text) {
		return token{kind: end, at: at, end: at}
	}
	rest := l.text[at:]
	c := rest[0]
	switch {
	case c == '"' || c == '\'':
		return l.literal(at, false)
	case (c == '@' || c|0x20 == 'h') && len(rest) > 1 && (rest[1] == '"' || rest[1] == '\''):
		l.pos++
		return l.literal(at, c == '@')
	case letter(c):
		return l.word(at)
	case digit(c):
		return l.number(at)
	case c == '!' && len(rest) > 1 && letter(rest[1]):
		l.pos++
		t := l.word(at)
		t.kind = symbol
		return t
	}
	for _, s := range symbols {
		if strings.HasPrefix(rest, s) {
			l.pos += len(s)
			return token{kind: symbol, at: at, end: l.pos, text: s}
		}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	wrong(ErrSyntax, at, "the character %q has no meaning here", r)
	panic("unreachable")
}

// space skips blanks and comments.
func (l *lexer) space() {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.pos++
		case strings.HasPrefix(l.text[l.pos:], "//"):
			if n := strings.IndexByte(l.text[l.pos:], '\n'); n >= 0 {
				l.pos += n
			} else {
				l.pos = len(l.text)
			}
		default:
			return
		}
	}
}

// word reads a name, or an operator such as in~ that ends in a tilde.
func (l *lexer) word(at int) token {
	for l.pos < len(l.text) && (letter(l.text[l.pos]) || digit(l.text[l.pos])) {
		l.pos++
	}
	if l.pos < len(l.text) && l.text[l.pos] == '~' && strings.TrimPrefix(l.text[at:l.pos], "!") == "in" {
		l.pos++
	}
	return token{kind: word, at: at, end: l.pos, text: l.text[at:l.pos]}
}

// The lengths of a timespan literal's units, in ticks.
var units = map[string]int64{
	"d": tickDay, "day": tickDay, "days": tickDay,
	"h": 3600 * tickSecond, "hr": 3600 * tickSecond, "hrs": 3600 * tickSecond, "hour": 3600 * tickSecond, "hours": 3600 * tickSecond,
	"m": 60 * tickSecond, "min": 60 * tickSecond, "minute": 60 * tickSecond, "minutes": 60 * tickSecond,
	"s": tickSecond, "sec": tickSecond, "second": tickSecond, "seconds": tickSecond,
	"ms": tickSecond / 1000, "milli": tickSecond / 1000, "millisecond": tickSecond / 1000, "milliseconds": tickSecond / 1000,
	"micro": tickSecond / 1e6, "microsecond": tickSecond / 1e6, "microseconds": tickSecond / 1e6,
	"tick": 1, "ticks": 1,
}

// number reads 12, 1.5, 1e3 or, with a unit behind it, a timespan.
func (l *lexer) number(at int) token {
	digits := func() {
		for l.pos < len(l.text) && digit(l.text[l.pos]) {
			l.pos++
		}
	}
	digits()
	whole := true
	if l.has('.') && l.pos+1 < len(l.text) && digit(l.text[l.pos+1]) { // not 1..5
		whole = false
		l.pos++
		digits()
	}
	if rest := l.text[l.pos:]; len(rest) > 1 && rest[0]|0x20 == 'e' && (digit(rest[1]) || len(rest) > 2 && (rest[1] == '-' || rest[1] == '+') && digit(rest[2])) {
		whole = false
		l.pos += 2
		digits()
	}
	t := token{kind: decimal, at: at, end: l.pos, text: l.text[at:l.pos]}
	unit := l.pos
	for l.pos < len(l.text) && (letter(l.text[l.pos]) || digit(l.text[l.pos])) {
		l.pos++
	}
	name := l.text[unit:l.pos]
	t.end = l.pos
	f, err := strconv.ParseFloat(t.text, 64)
	n, errInt := strconv.ParseInt(t.text, 10, 64)
	switch {
	case name != "":
		size, ok := units[name]
		if !ok {
			wrong(ErrSyntax, unit, "%q is no unit of time; there are d, h, m, s, ms, microsecond and tick", clip(name))
		}
		if f *= float64(size); err != nil || math.Abs(f) >= math.MaxInt64 {
			wrong(ErrSyntax, at, "the timespan is too long")
		}
		t.kind, t.num = duration, int64(f)
	case whole && errInt == nil:
		t.kind, t.num = integer, n
	case whole || err != nil:
		wrong(ErrSyntax, at, "the number is too large")
	}
	t.real = f
	return t
}

func (l *lexer) has(c byte) bool { return l.pos < len(l.text) && l.text[l.pos] == c }

var escapes = map[byte]string{'n': "\n", 't': "\t", 'r': "\r", '\\': `\`, '"': `"`, '\'': "'", '0': "\x00", 'a': "\a", 'b': "\b", 'f': "\f", 'v': "\v"}

// literal reads a string; in a verbatim one the only escape is a doubled quote.
func (l *lexer) literal(at int, verbatim bool) token {
	quote := l.text[l.pos]
	l.pos++
	var b strings.Builder
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		switch {
		case c == quote && verbatim && l.pos+1 < len(l.text) && l.text[l.pos+1] == quote:
			b.WriteByte(c)
			l.pos += 2
		case c == quote:
			l.pos++
			return token{kind: text, at: at, end: l.pos, text: b.String()}
		case c == '\n':
			wrong(ErrSyntax, at, "the string has no end on its line")
		case c == '\\' && !verbatim:
			b.WriteString(l.escape())
		default:
			b.WriteByte(c)
			l.pos++
		}
	}
	wrong(ErrSyntax, at, "the string has no end")
	panic("unreachable")
}

func (l *lexer) escape() string {
	at := l.pos
	rest := l.text[at+1:]
	if rest == "" {
		wrong(ErrSyntax, at, "the string has no end")
	}
	for letter, n := range map[byte]int{'u': 4, 'x': 2} {
		if rest[0] != letter {
			continue
		}
		if len(rest) > n {
			if code, err := strconv.ParseUint(rest[1:1+n], 16, 32); err == nil && utf8.ValidRune(rune(code)) {
				l.pos += 2 + n
				return string(rune(code))
			}
		}
		wrong(ErrSyntax, at, `\%c wants %d digits of a character's number`, letter, n)
	}
	s, ok := escapes[rest[0]]
	if !ok {
		r, _ := utf8.DecodeRuneInString(rest)
		wrong(ErrSyntax, at, `\%c is no escape; write \\ for a backslash, or @"…" for a text without escapes`, r)
	}
	l.pos += 2
	return s
}
