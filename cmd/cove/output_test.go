package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func shown(t *testing.T, p printer, v any, columns ...column) string {
	t.Helper()
	var b bytes.Buffer
	p.out = &b
	if err := p.show(v, columns...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOutputForms(t *testing.T) {
	list := []any{
		map[string]any{"name": "one", "properties": map[string]any{"on": true, "n": json.Number("7")}},
		map[string]any{"name": "two", "properties": map[string]any{"list": []any{"a", "b"}}},
	}
	columns := []column{{"NAME", "name"}, {"ON", "properties.on"}, {"LIST", "properties.list"}}
	for _, c := range []struct {
		p    printer
		want string
	}{
		{printer{format: "table"}, "NAME  ON    LIST\none   true\ntwo         a, b\n"},
		{printer{format: "tsv", query: "[].name"}, "one\ntwo\n"},
		{printer{format: "tsv", query: "[].[name, properties.n]"}, "one\t7\ntwo\t\n"},
		{printer{format: "json", query: "[0].properties.n"}, "7\n"},
		{printer{format: "table", query: "[1].properties.list[0]"}, "a\n"},
	} {
		if got := shown(t, c.p, list, columns...); got != c.want {
			t.Errorf("%+v:\n%q, want\n%q", c.p, got, c.want)
		}
	}
	if got := shown(t, printer{format: "table"}, []any{}, columns...); got != "" {
		t.Errorf("an empty list prints %q", got)
	}
}

// On a terminal columns fit beside each other: long cells are cut before ids
// are, and of very many columns the first are shown. A pipe has everything.
func TestColumnsFit(t *testing.T) {
	const id = "885e61ff-9b5a-4d58-9651-fa0cdccde204"
	long := strings.Repeat("x", 60)
	many := make([]string, 24)
	for i := range many {
		many[i] = "a column"
	}
	for what, x := range map[string]struct {
		lines [][]string
		room  int
		want  []int
	}{
		"a pipe":                 {[][]string{{"NAME", "WHY"}, {"one", long + long}}, 0, []int{4, 120}},
		"there is room":          {[][]string{{"NAME", "WHY"}, {"one", long}}, 80, []int{4, 60}},
		"the longest is cut":     {[][]string{{"NAME", "WHY", "WHERE"}, {"one", long, long}}, 80, []int{4, 36, 36}},
		"an id is not":           {[][]string{{"NAME", "ID", "WHY"}, {"one", id, long}}, 80, []int{4, 36, 36}},
		"two ids need more":      {[][]string{{"ROLE", "WHO", "NAME"}, {long, id, id}}, 80, []int{24, 36, 36}},
		"a query's many columns": {[][]string{many}, 80, []int{8, 8, 8, 8, 8, 8, 8, 8}},
	} {
		if got := fit(x.lines, x.room); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, not %v", what, got, x.want)
		}
	}
}

// A stranger's text moves no cursor and changes no line that was read.
func TestControlCharactersAreHarmless(t *testing.T) {
	evil := "repo\x1b[2J\r\x07\u202eexe\u200b"
	got := shown(t, printer{format: "table"}, []any{map[string]any{"name": evil}}, column{"NAME", "name"})
	if strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) }) {
		t.Errorf("%q", got)
	}
}

// cove runs the command line in this process, with nothing of the caller's
// environment that could lead it to a server.
func cove(t *testing.T, args ...string) (out, errs string, status int) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "COVE_") {
			t.Setenv(name, "")
		}
	}
	var o, e bytes.Buffer
	status = run(context.Background(), args, strings.NewReader(""), &o, &e)
	return o.String(), e.String(), status
}

func TestWrongUsageIsExitStatusTwo(t *testing.T) {
	nowhere := t.TempDir()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"regsitry"}, `there is no command "regsitry"`},
		{[]string{"registry", "make"}, `there is no command "make" below`},
		{[]string{"registry", "create"}, "accepts 1 arg(s)"},
		{[]string{"registry", "create", "a", "--colour", "red"}, "unknown flag: --colour"},
		{[]string{"vnet", "create"}, "accepts 1 arg(s)"},
		{[]string{"subnet", "create", "office", "--address-prefix", "10.0.0.0/24"}, "VNET/SUBNET"},
		{[]string{"network-rule", "add", "r", "everybody"}, "neither an address nor a range"},
		{[]string{"dns", "record", "add", "z", "n", "not-an-ip"}, "is not an IPv4 address"},
		{[]string{"explain", "short"}, "no correlation id"},
		{[]string{"join", "office/default", "crane", "pull"}, "write -- between"},
		{[]string{"join", "office/default", "--up", "--userspace"}, "exclude each other"},
		{[]string{"join-code", "office", "--name", "x"}, "VNET/SUBNET"},
		{[]string{"trust", "host.test"}, "say which client"},
		{[]string{"trust", "--docker", "../../etc"}, "is not a host name"},
		{[]string{"help", "COVE-XXX-999"}, "there is no reason code"},
		{[]string{"login", "http://plain.test", "--tenant", "t", "--subscription", "s", "--client-id", "c"}, "https://"},
	} {
		_, errs, status := cove(t, c.args...)
		if status != exitUsage || !strings.Contains(errs, c.says) || !strings.HasPrefix(errs, "cove: ") {
			t.Errorf("cove %s: exit status %d, %q; want 2 and %q", strings.Join(c.args, " "), status, errs, c.says)
		}
	}
	// No server known is no wrong usage, and names what to do.
	if _, errs, status := cove(t, "registry", "list", "--data", nowhere); status != exitFailed || !strings.Contains(errs, "has `cove serve --data "+nowhere+"` been started?") {
		t.Errorf("exit status %d, %q", status, errs)
	}
}

func TestEveryReasonCodeHasHelp(t *testing.T) {
	out, _, status := cove(t, "help", "cove-net-001")
	if status != exitDone || !strings.Contains(out, "COVE-NET-001") || !strings.Contains(out, "What to do: ") {
		t.Errorf("exit status %d\n%s", status, out)
	}
}

// Every command has a sentence, and every one that takes arguments an example
// or none to give.
func TestEveryCommandHasHelp(t *testing.T) {
	a := &app{}
	commands := a.root().Commands()
	for len(commands) > 0 {
		c := commands[0]
		commands = append(commands[1:], c.Commands()...)
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
	}
}

func TestTrustWritesWhatTheClientReads(t *testing.T) {
	if _, err := checkedCA([]byte("no certificate")); err == nil {
		t.Error("a file without a certificate was taken for an authority")
	}
	for kind, tr := range trusters {
		for name := range tr.files("reg.cr.test", nil) {
			if !filepath.IsAbs(name) {
				t.Errorf("%s: %s", kind, name)
			}
		}
	}
	hosts := string(trusters["containerd"].files("reg.cr.test", nil)["/etc/containerd/certs.d/reg.cr.test/hosts.toml"])
	if !strings.Contains(hosts, "[host.\"https://reg.cr.test\"]\n  ca = \"/etc/containerd/certs.d/reg.cr.test/ca.crt\"") {
		t.Errorf("hosts.toml:\n%s", hosts)
	}
}
