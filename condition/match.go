package condition

import (
	"strings"
	"unicode/utf8"
)

// What is compared here without regard to case is ASCII: the names of actions,
// repositories and resources are. So "K" is "k", and the sign for Kelvin is not.

// MatchAction reports whether an action fits a pattern, in which * is any run
// of characters, the empty one and slashes included. Case does not matter. It
// takes time proportional to the product of the lengths at worst and allocates
// nothing: a pattern is a stranger's text.
func MatchAction(pattern, action string) bool {
	if len(pattern) != len(action) && strings.IndexByte(pattern, '*') < 0 {
		return false
	}
	return glob(pattern, action, true, false)
}

// matches is the operator Like: * is any run of characters, ? is one, and a
// backslash before either makes it itself.
func matches(pattern, s string, fold bool) bool { return glob(pattern, s, fold, true) }

// glob goes back to the last * only, which suffices: whatever an earlier one
// could take besides, the last one can take too.
func glob(pattern, s string, fold, likes bool) bool {
	p, i, star, from := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, from = p, i
			continue
		}
		width, taken, fits := 0, 1, false
		if p < len(pattern) {
			switch c := pattern[p]; {
			case likes && c == '?':
				width, taken, fits = 1, character(s[i:]), true
			case likes && c == '\\' && p+1 < len(pattern) && (pattern[p+1] == '*' || pattern[p+1] == '?'):
				width, fits = 2, s[i] == pattern[p+1]
			default:
				width, fits = 1, same(c, s[i], fold)
			}
		}
		switch {
		case fits:
			p += width
			i += taken
		case star >= 0:
			from += character(s[from:])
			p, i = star, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// character is how many bytes the first character of s has: ? is one of those,
// and * never ends within one.
func character(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(s)
	return n
}

func begins(s, prefix string, fold bool) bool {
	return len(s) >= len(prefix) && equal(s[:len(prefix)], prefix, fold)
}

func equal(a, b string, fold bool) bool {
	if len(a) != len(b) || !fold {
		return a == b
	}
	for i := range len(a) {
		if !same(a[i], b[i], true) {
			return false
		}
	}
	return true
}

func same(a, b byte, fold bool) bool {
	if a == b {
		return true
	}
	return fold && a|0x20 == b|0x20 && letter(a)
}
