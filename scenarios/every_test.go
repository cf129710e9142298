package scenarios

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// cli is an Azure CLI that is signed in to a server.
type cli struct {
	t    *testing.T
	vars map[string]string
	in   *json.Encoder
	out  *json.Decoder
	errs *bytes.Buffer
	env  []string
}

type answer struct {
	Status int
	Out    string
	Err    string
}

// openCLI starts az/many.py as a client of s.
func openCLI(t *testing.T, s *covetest.Server) *cli {
	t.Helper()
	dir := t.TempDir()
	s.Cove(t, "az", "--out", filepath.Join(dir, "az"))
	lib, err := filepath.Abs("az")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	env := s.Env("HOME="+dir, "DOCKER_CONFIG="+filepath.Join(dir, "docker"), "PYTHONPATH="+lib)
	// The shell's own az registers the cloud and signs in.
	shell := exec.CommandContext(ctx, "sh", "-ec", `. "$0/az/env.sh" >&2
		az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none
		exec env -0`, dir)
	shell.Env = env
	var set, errs bytes.Buffer
	shell.Stdout, shell.Stderr = &set, &errs
	if err := shell.Run(); err != nil {
		t.Fatalf("az login: %v\n%s", err, errs.String())
	}
	c := &cli{t: t, vars: map[string]string{}, errs: &bytes.Buffer{}, env: strings.Split(strings.TrimSuffix(set.String(), "\x00"), "\x00")}
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", filepath.Join(lib, "many.py"))
	cmd.Env, cmd.Dir = c.env, dir
	cmd.Stderr = c.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("az ended with %v\n%s", err, c.errs.String())
		}
	})
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	return c
}

func (c *cli) az(words []string) answer {
	c.t.Helper()
	var a answer
	err := c.in.Encode(words)
	if err == nil {
		err = c.out.Decode(&a)
	}
	if err != nil {
		c.t.Fatalf("az %s: %v\n%s", strings.Join(words, " "), err, c.errs.String())
	}
	return a
}

// crane is what a command did, seen from the data plane.
func (c *cli) crane(words []string) answer {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), covetest.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, covetest.Crane(c.t), words...)
	cmd.Env = c.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		c.t.Fatalf("crane %s: %v", strings.Join(words, " "), err)
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// row is a line of every-command.txt and what is expected of it.
type row struct {
	n     int
	text  string
	fails bool
	set   string // the variable that takes the output
	words []string
	wants []string
}

var assignment = regexp.MustCompile(`^([A-Z_]+) = (.*)$`)

// table reads every-command.txt; its first lines say how it is written.
func table(t *testing.T, text string) (rows []row) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#"):
		case line[0] == ' ':
			if len(rows) == 0 {
				t.Fatalf("line %d expects something of no command", i+1)
			}
			last := &rows[len(rows)-1]
			last.wants = append(last.wants, trimmed)
		default:
			r := row{n: i + 1, text: line}
			if m := assignment.FindStringSubmatch(line); m != nil {
				r.set, line = m[1], m[2]
			}
			line, r.fails = strings.CutPrefix(line, "! ")
			r.words = words(t, i+1, line)
			if len(r.words) < 2 || r.words[0] != "az" && r.words[0] != "crane" {
				t.Fatalf("line %d is no command: %s", i+1, line)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// words are those of a shell, with quotes of both kinds and nothing else.
func words(t *testing.T, n int, line string) (out []string) {
	t.Helper()
	var word strings.Builder
	quote, open := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open {
				out = append(out, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if quote != 0 {
		t.Fatalf("line %d: a quote is not closed", n)
	}
	if open {
		out = append(out, word.String())
	}
	return out
}

var variable = regexp.MustCompile(`\$[A-Z_]+`)

func (c *cli) fill(text string, escape func(string) string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := c.vars[name[1:]]
		if !ok {
			c.t.Fatalf("%s is not set", name)
		}
		return escape(value)
	})
}

// play runs a row and says whether it went as it should.
func (c *cli) play(r row) bool {
	c.t.Helper()
	var filled []string
	for _, w := range r.words {
		filled = append(filled, c.fill(w, strings.Clone))
	}
	run := c.az
	if filled[0] == "crane" {
		run = c.crane
	}
	a := run(filled[1:])
	said := a.Out + a.Err
	bad := func(format string, args ...any) bool {
		c.t.Errorf("every-command.txt:%d: %s\n"+format+"\n%s", append(append([]any{r.n, r.text}, args...), said)...)
		return false
	}
	if (a.Status != 0) != r.fails {
		return bad("exit status %d", a.Status)
	}
	if r.set != "" {
		c.vars[r.set] = strings.TrimSpace(a.Out)
	}
	for _, want := range r.wants {
		want, never := strings.CutPrefix(want, "! ")
		pattern, err := regexp.Compile(`(?m)` + c.fill(want, regexp.QuoteMeta))
		if err != nil {
			c.t.Fatalf("every-command.txt:%d: %v", r.n, err)
		}
		if pattern.MatchString(said) == never {
			return bad("does not say as it should: %s", want)
		}
	}
	return true
}

// TestRootEveryCommand runs the table of the other commands. Each stands there
// with its effect: what the next reading of the control plane shows, or what a
// client of the registry may do from then on. row:3 row:6 row:58 row:61 row:94 row:95
func TestRootEveryCommand(t *testing.T) {
	text, err := os.ReadFile("every-command.txt")
	if err != nil {
		t.Fatal(err)
	}
	far, _ := abroad(t)
	source := openQuay(t, far, "overseas")
	pinned := source.push("team/app:1.4", fleet(t, 2))
	source.push("team/app:1.5", fleet(t, 1))
	s := covetest.Start(t, "--region", "westeurope", "--also-region", "eastus", "--registry-alias", "mcr.microsoft.com=mcrmirror",
		"--outbound-ca", filepath.Join(far.Data, "ca.pem"), "--dns-upstream", far.Run.DNS[0], "--outbound-allow", "import=127.77.0.0/16")
	c := openCLI(t, s)
	c.vars["FAR"], c.vars["FAR_PASSWORD"], c.vars["FAR_DIGEST"] = source.host, far.Password(t, "overseas"), pinned
	c.vars["DIR"] = t.TempDir()
	layer(t, filepath.Join(c.vars["DIR"], "layer.tar"), "hello\n")
	started := time.Now()
	rows := table(t, string(text))
	for _, r := range rows {
		if !c.play(r) && r.set != "" {
			t.FailNow() // what follows needs it
		}
	}
	t.Logf("%d commands in %s", len(rows), time.Since(started).Round(time.Millisecond))
}

// layer writes a layer with one small file.
func layer(t *testing.T, name, text string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The table's reader: a command, what is expected of it, quotes and names.
func TestTheTableIsRead(t *testing.T) {
	rows := table(t, "# what it is\naz acr show --query \"[a, 'b']\"\n  ^x$\n  ! y\n\nID = az acr list\n! az acr delete\n")
	if len(rows) != 3 || rows[0].n != 2 || !slices.Equal(rows[0].wants, []string{"^x$", "! y"}) || rows[1].set != "ID" || !rows[2].fails {
		t.Errorf("read as %+v", rows)
	}
	if want := []string{"az", "acr", "show", "--query", "[a, 'b']"}; !slices.Equal(rows[0].words, want) {
		t.Errorf("the words are %q, want %q", rows[0].words, want)
	}
}
