package docs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// line is a line of a page.
type line struct {
	page string
	n    int
	text string
}

// fenced are the lines of a page's fenced blocks, continuations joined.
func fenced(t *testing.T, page string) (out []line) {
	t.Helper()
	in, joining, shown := false, false, false
	n := 0
	for text := range strings.Lines(read(t, page)) {
		n++
		text = strings.TrimRight(text, "\n")
		switch {
		case strings.HasPrefix(text, "```"):
			in, joining = !in, false
			// In what was recorded from a terminal only what was typed is a command.
			shown = in && strings.HasPrefix(text, "```console")
		case in && joining:
			out[len(out)-1].text += " " + strings.TrimSpace(text)
			joining = goesOn(text)
		case in && shown && !strings.Contains(text, "$ "):
		case in:
			out = append(out, line{page, n, text})
			joining = goesOn(text)
		}
	}
	if in {
		t.Errorf("%s has a block that does not end", page)
	}
	return out
}

// goesOn reports whether a command continues on the next line.
func goesOn(text string) bool { return strings.HasSuffix(text, "|") || strings.HasSuffix(text, `\`) }

// Every command line of cove in the pages is one that cove takes.
func TestCommandsAreCoves(t *testing.T) {
	seen := map[string]bool{}
	for _, page := range all(t) {
		for _, l := range fenced(t, page) {
			for _, words := range commands(strings.TrimPrefix(l.text, "$ ")) {
				if key := strings.Join(words, "\x00"); !seen[key] {
					seen[key] = true
					if why := refused(t, words); why != "" {
						t.Errorf("%s:%d: cove %s: %s", l.page, l.n, strings.Join(words, " "), why)
					}
				}
			}
		}
	}
	// In running text a command is named, perhaps without all of its words.
	inline := regexp.MustCompile("`(cove [a-z][^`]*)`")
	for _, page := range all(t) {
		for _, m := range inline.FindAllStringSubmatch(read(t, page), -1) {
			for _, words := range commands(complete(m[1])) {
				if why, _ := unknown(t, words); why != "" {
					t.Errorf("%s names `%s`: %s", page, m[1], why)
				}
			}
		}
	}
	if len(seen) < 60 {
		t.Errorf("only %d commands found: the test looks past them", len(seen))
	}
}

// A command that cove tells people to type is one that it has.
func TestCommandsThatCovePrintsAreCoves(t *testing.T) {
	quoted := regexp.MustCompile("`(cove [a-z][^`]*)`")
	n := 0
	for _, l := range literals(t) {
		// A sentence may only name a command; a fix is to be typed as it is.
		var found []string
		check := func(t *testing.T, words []string) string { why, _ := unknown(t, words); return why }
		for _, m := range quoted.FindAllStringSubmatch(l.text, -1) {
			found = append(found, m[1])
		}
		if l.file == "access/explain.go" && strings.HasPrefix(l.text, "cove ") {
			found, check = append(found, l.text), refused
		}
		for _, text := range found {
			n++
			for _, words := range commands(complete(text)) {
				if why := check(t, words); why != "" {
					t.Errorf("%s tells people to type %q: %s", l.file, text, why)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d commands found in the source", n)
	}
}

// complete puts a word where a sentence has a verb of fmt or leaves something
// to the reader, one that is right wherever a name or an address is.
func complete(text string) string {
	text = strings.Replace(text, "role assign %s %s", "role assign %s AcrPull", 1)
	return regexp.MustCompile(`%[a-z]|…`).ReplaceAllString(text, "10.0.0.4")
}

// commands are the calls of cove in a shell line, as their words after cove.
// Only what the pages use of a shell is understood: quotes, pipes, lists,
// redirections, variables in front, sudo, and $(…).
func commands(text string) (out [][]string) {
	inner := regexp.MustCompile(`\$\(([^()]*)\)`)
	for _, m := range inner.FindAllStringSubmatch(text, -1) {
		out = append(out, commands(m[1])...)
	}
	text = inner.ReplaceAllString(text, "6f1c2a90") // as good an id as any
	text = regexp.MustCompile(`2?>&1|[12]?[<>] *[^ ]+`).ReplaceAllString(text, "")
	var words []string
	var word strings.Builder
	quote, open := rune(0), false
	end := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	call := func() {
		end()
		for len(words) > 0 && (words[0] == "sudo" || regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0])) {
			words = words[1:]
		}
		if len(words) > 1 && words[0] == "cove" {
			out = append(out, words[1:])
		}
		words = nil
	}
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == '#' && !open:
			call()
			return out
		case strings.ContainsRune("|;&", r):
			call()
		case r == ' ':
			end()
		default:
			word.WriteRune(r)
			open = true
		}
	}
	call()
	return out
}

// refused says why cove does not take a command line, "" if it does. The
// words must be enough and not too many, which cove says before it looks for a
// server.
func refused(t *testing.T, words []string) string {
	t.Helper()
	why, whole := unknown(t, words)
	if why != "" || !whole {
		return why
	}
	// No server is known in this environment, so a good command ends with 1.
	text, status := run(t, strings.NewReader("secret\n"), words...)
	if status == 2 || strings.Contains(text, "required flag(s)") {
		return strings.TrimSpace(text)
	}
	return ""
}

// unknown says why there is no such command, or which flag it does not have.
// whole reports whether it can be run to see more.
func unknown(t *testing.T, words []string) (why string, whole bool) {
	t.Helper()
	own := words
	if i := slices.Index(words, "--"); i >= 0 {
		own = words[:i]
	}
	help, status := run(t, nil, append(slices.Clone(own), "--help")...)
	if status != 0 {
		return strings.TrimSpace(help), false
	}
	use := regexp.MustCompile(`(?m)^Usage:\n  cove ?(.*)$`).FindStringSubmatch(help)
	if use == nil {
		return "its help has no usage", false
	}
	path, _, _ := strings.Cut(use[1], " [")
	for i, word := range strings.Fields(path) {
		if word != strings.ToLower(word) || strings.HasPrefix(word, "-") {
			break // an argument
		}
		if i >= len(own) || own[i] != word {
			return "it is not a command; the nearest is cove " + path, false
		}
	}
	group := strings.Contains(help, "\nAvailable Commands:\n")
	if rest := own[min(len(strings.Fields(path)), len(own)):]; group && len(rest) > 0 {
		// A group may be a command too, with flags of its own: cove logs.
		_, flags, _ := strings.Cut(help, "\nFlags:\n")
		flags, _, _ = strings.Cut(flags, "\nGlobal Flags:\n")
		if name, _, _ := strings.Cut(rest[0], "="); !strings.HasPrefix(name, "--") || !strings.Contains(flags, " "+name+" ") {
			return "it is not a command below cove " + path, false
		}
	}
	return "", !group && words[0] != "serve"
}

// run runs cove where it knows no server and has nothing to change.
func run(t *testing.T, in *strings.Reader, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), covetest.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, covetest.Binary(t), args...)
	dir := t.TempDir()
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "COVE_DATA=" + dir, "PATH=" + os.Getenv("PATH"), "HTTPS_PROXY=http://127.0.0.1:9"}
	if in != nil {
		cmd.Stdin = in
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), 0
}
