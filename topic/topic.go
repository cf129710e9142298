// Package topic is what `cove help TOPIC` prints: short pages on questions that
// are no command and no refusal. They are in the program, so that they can be
// read where a network does not work.
package topic

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.txt
var pages embed.FS

// Topic is a page.
type Topic struct {
	Name  string // as it is typed
	Title string // the page's first line
	Text  string // the rest: plain text, lines of at most 80 characters, commands indented by four
}

// All returns every page, by name.
func All() []Topic {
	names, err := fs.Glob(pages, "*.txt")
	if err != nil {
		panic(err) // the pattern is wrong
	}
	var out []Topic
	for _, file := range names {
		b, err := pages.ReadFile(file)
		if err != nil {
			panic(err) // it is in the program
		}
		title, text, _ := strings.Cut(string(b), "\n")
		out = append(out, Topic{strings.TrimSuffix(file, ".txt"), title, strings.TrimSpace(text) + "\n"})
	}
	return out
}

// Of returns the page of a name in any case, and whether there is one.
func Of(name string) (Topic, bool) {
	for _, t := range All() {
		if strings.EqualFold(t.Name, name) {
			return t, true
		}
	}
	return Topic{}, false
}
