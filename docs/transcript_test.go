package docs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// transcript is a block of a page that shows commands and what they print.
type transcript struct {
	page  string
	line  int
	steps []step
}

type step struct {
	command string
	want    []string
}

// transcripts are the blocks marked ```console whose first line is "# tested".
func transcripts(t *testing.T, page string) (out []transcript) {
	t.Helper()
	var now *transcript
	lines := strings.Split(read(t, page), "\n")
	for i := 0; i < len(lines); i++ {
		text := lines[i]
		switch {
		case now == nil:
			if text == "```console" && i+1 < len(lines) && lines[i+1] == "# tested" {
				now = &transcript{page: page, line: i + 1}
				i++
			}
		case text == "```":
			out = append(out, *now)
			now = nil
		case strings.HasPrefix(text, "$ "):
			s := step{command: text[2:]}
			for goesOn(lines[i]) {
				i++
				s.command += "\n" + lines[i]
			}
			now.steps = append(now.steps, s)
		default:
			if len(now.steps) == 0 {
				t.Fatalf("%s:%d: output before the first command", page, i+1)
			}
			last := &now.steps[len(now.steps)-1]
			last.want = append(last.want, text)
		}
	}
	return out
}

// A transcript marked as tested is what a fresh server answers. … stands for
// some text, or in a line of its own for some lines; ids, times and passwords
// are examples.
func TestTranscripts(t *testing.T) {
	n := 0
	for _, page := range listed(t) {
		for _, tr := range transcripts(t, page) {
			n++
			t.Run(strings.TrimSuffix(filepath.Base(tr.page), ".md"), func(t *testing.T) { play(t, tr) })
		}
	}
	if n < 8 {
		t.Errorf("only %d transcripts found", n)
	}
}

func play(t *testing.T, tr transcript) {
	home := t.TempDir()
	data := filepath.Join(home, ".local", "share", "cove")
	if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(home, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"cove": covetest.Binary(t), "crane": covetest.Crane(t)} {
		abs, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(abs, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := covetest.StartIn(t, data)
	// The pages have the default ports; the server has free ones.
	ports := []string{"127.0.0.1:8480", s.Run.Connect, "127.0.0.1:9464", s.Run.Admin, "127.0.0.1:5300", s.Run.DNS[0]}
	real := strings.NewReplacer(ports...)

	const mark = "\x01step"
	var script strings.Builder
	script.WriteString("exec 2>&1\n")
	for _, st := range tr.steps {
		fmt.Fprintf(&script, "printf '%%s\\n' '%s'\n%s\n", mark, real.Replace(st.command))
	}
	ctx, cancel := context.WithTimeout(t.Context(), covetest.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = t.TempDir()
	for _, kv := range s.Env("HOME="+home, "PATH="+bin+":"+os.Getenv("PATH")) {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "SSL_CERT_FILE", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE":
			continue // the page says what to set
		}
		cmd.Env = append(cmd.Env, kv)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); ctx.Err() != nil {
		t.Fatalf("%s:%d did not end: %v\n%s", tr.page, tr.line, err, out.String())
	}
	parts := strings.Split(out.String(), mark+"\n")[1:]
	if len(parts) != len(tr.steps) {
		t.Fatalf("%s:%d: %d of %d commands were run\n%s", tr.page, tr.line, len(parts), len(tr.steps), out.String())
	}
	for i, st := range tr.steps {
		got := strings.Split(strings.TrimSuffix(parts[i], "\n"), "\n")
		if parts[i] == "" {
			got = nil
		}
		if !matches(st.want, got) {
			t.Errorf("%s:%d: $ %s\nprints\n%s\nand the page has\n%s", tr.page, tr.line, st.command, strings.Join(got, "\n"), strings.Join(st.want, "\n"))
		}
	}
}

// matches compares lines, with … as a wildcard.
func matches(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] == "…":
		for i := 0; i <= len(got); i++ {
			if matches(want[1:], got[i:]) {
				return true
			}
		}
		return false
	case len(got) == 0:
		return false
	}
	return same(want[0], got[0]) && matches(want[1:], got[1:])
}

// examples are texts that differ from run to run.
var examples = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(` {2,}`), " "},
}

func same(want, got string) bool {
	for _, e := range examples {
		want, got = e.pattern.ReplaceAllString(want, e.word), e.pattern.ReplaceAllString(got, e.word)
	}
	var parts []string
	for part := range strings.SplitSeq(strings.TrimRight(want, " "), "…") {
		parts = append(parts, regexp.QuoteMeta(part))
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(strings.TrimRight(got, " "))
}

// A comparison that takes anything would make every transcript pass.
func TestTranscriptsAreCompared(t *testing.T) {
	got := []string{"NAME   STATE", "pe     Approved"}
	for _, c := range []struct {
		want []string
		same bool
	}{
		{[]string{"NAME STATE", "pe Approved"}, true},
		{[]string{"…"}, true},
		{[]string{"NAME STATE", "p… Appr…"}, true},
		{[]string{"NAME STATE", "…"}, true},
		{[]string{"NAME STATE"}, false},
		{[]string{"NAME STATE", "pe Rejected"}, false},
		{[]string{"NAME STATE", "pe Approved", "x"}, false},
		{nil, false},
	} {
		if matches(c.want, got) != c.same {
			t.Errorf("%q matches: want %v", c.want, c.same)
		}
	}
}
