package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/fault"
	"cove.example/cove/health"
	"cove.example/cove/reason"
	"cove.example/cove/topic"
)

var (
	wholeID  = regexp.MustCompile(`(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	prefixID = regexp.MustCompile(`(?i)^[0-9a-f][0-9a-f-]{7,35}$`)
)

func (a *app) explainCommand() *cobra.Command {
	return a.asClient(&cobra.Command{
		Use: "explain ID", Short: "Say why a request was refused, and what would change it",
		Long: `Say how a request was decided: every step, the rule that decided and the
command that would change it. ID is the correlation id that the refusal carried,
the first eight or more characters of it, or the whole error text with the id
in it. A client's error text without an id is told apart by its words: such a
request did not reach the registry.`,
		Example: "  cove explain 6f1c2a90\n  cove explain \"$(skopeo inspect docker://myregistry.cr.cove.internal/hello:1 2>&1)\"",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.Join(args, " ")
			if found := wholeID.FindAllString(id, -1); found != nil {
				id = found[len(found)-1]
			} else if !prefixID.MatchString(id) {
				return a.explainText(id)
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			out, err := cl.Get(cmd.Context(), cl.Scope()+"/providers/Cove.Diagnostics/decisions/"+url.PathEscape(strings.ToLower(id)))
			if client.NotFound(err) {
				return fault.Newf(fault.NotFound, "no decision has the id %s. Decisions are kept for a while, and one from the last moments before a crash may be lost", id)
			}
			if err != nil {
				return err
			}
			if a.print.format != "table" || a.print.query != "" {
				return a.print.show(out)
			}
			b, err := json.Marshal(out)
			if err != nil {
				return err
			}
			var e access.Explanation
			if err := json.NewDecoder(bytes.NewReader(b)).Decode(&e); err != nil {
				return fault.Newf(fault.Unavailable, "the server's answer is not an explanation")
			}
			return tell(a.out, e)
		},
	})
}

// explainText names the cause behind an error text that carries no id: as a
// rule such a request never reached the registry, and nobody else can know.
func (a *app) explainText(text string) error {
	m, ok := health.Symptom(text)
	if !ok {
		return usagef("no correlation id is in that text, and it is no client's error that cove knows. The id is the GUID that a refusal carries, or at least its first eight characters")
	}
	if a.print.format != "table" || a.print.query != "" {
		return a.print.shown(m)
	}
	_, err := fmt.Fprintf(a.out, "%s: %s\n\ncause  %s\nnext   %s\n       cove check-health tells what it is, from where the failure is\nmore   cove help %s\n", m.Code, m.Title, m.Cause, m.Next, m.Code)
	return err
}

var marks = map[access.Outcome]string{access.Passed: "✔", access.Failed: "✖", access.NotReached: "·", access.Unknown: "?"}

// tell writes an explanation for a person.
func tell(w io.Writer, e access.Explanation) error {
	alike := ""
	switch {
	case e.Alike >= 1000: // as far as is counted
		alike = " · 1000 and more like this in the last hour"
	case e.Alike > 1:
		alike = fmt.Sprintf(" · %d more like this in the last hour", e.Alike-1)
	}
	by := ""
	if e.Known != "" {
		by = " by " + clean(e.Known)
	}
	if e.Caller != "" {
		by += " from " + clean(e.Caller)
	}
	if _, err := fmt.Fprintf(w, "%s %s%s · %s%s\n\n", e.Verdict, clean(e.Asked), by, e.Time.UTC().Format(time.DateTime+"Z"), alike); err != nil {
		return err
	}
	return tellSteps(w, e)
}

// A registry's id, which is long and says little more than its name.
var registryID = regexp.MustCompile(`/subscriptions/[^/\s]+/resourceGroups/[^/\s]+/providers/Microsoft\.ContainerRegistry/registries/([A-Za-z0-9]+)`)

// sheet is text in two columns: labels, and what belongs to them.
type sheet struct {
	strings.Builder
	width int // of the terminal; 0 is none, and lines are as long as they are
}

// row writes a label and its text, which a terminal gets in lines of its own
// width below each other. What is there to be copied goes in by line.
func (s *sheet) row(label string, indent int, text string) {
	text = registryID.ReplaceAllString(clean(text), "the registry $1")
	room := s.width - indent - 1
	for first := true; first || text != ""; first = false {
		part := text
		if s.width > 0 && room > 20 && len(part) > room {
			if i := strings.LastIndexByte(part[:room], ' '); i > 0 {
				part = part[:i]
			}
		}
		text = strings.TrimPrefix(text[len(part):], " ")
		if !first {
			label = ""
		}
		s.line(label, indent, part)
	}
}

func (s *sheet) line(label string, indent int, text string) {
	s.WriteString(label)
	s.WriteString(strings.Repeat(" ", max(1, indent-utf8.RuneCountInString(label))))
	s.WriteString(text)
	s.WriteByte('\n')
}

// The columns in which text begins: of steps, and of what follows them.
const stepIndent, causeIndent = 19, 7

// tellSteps writes the way to a verdict, its cause and its cures.
func tellSteps(w io.Writer, e access.Explanation) error {
	b := sheet{width: terminalWidth(w)}
	for i, s := range e.Steps {
		mark := marks[s.Outcome]
		if mark == "" {
			mark = "?"
		}
		why := s.Why
		if s.Outcome == access.NotReached && why == "" {
			why = "not reached"
		}
		if s.Reason != "" {
			why += "   ◀ decided here"
		}
		b.row(fmt.Sprintf(" %d %s %s", i+1, mark, s.Name), stepIndent, why)
		if s.Rule != "" && s.Outcome == access.Failed {
			b.row("", stepIndent, s.Rule)
		}
	}
	if e.Reason != "" {
		b.WriteByte('\n')
		b.row("cause", causeIndent, string(e.Reason)+": "+e.Cause)
	}
	for i, f := range e.Fixes {
		label := "fix"
		if len(e.Fixes) > 1 {
			label = "fix " + string(rune('A'+i))
		}
		b.line(label, causeIndent, clean(f.Command))
		for _, x := range [][2]string{{"opens: ", f.Opens}, {"needs: ", f.Needs}, {"lasts: ", f.Lasts}, {"after: ", f.After}} {
			if x[1] != "" {
				b.row("", causeIndent, x[0]+x[1])
			}
		}
	}
	if len(e.Fixes) == 0 && e.Next != "" {
		b.row("next", causeIndent, e.Next)
	}
	if e.Today == "ALLOWED" || strings.HasPrefix(e.Today, "ADMITTED") {
		b.row("today", causeIndent, "the same request would be "+e.Today)
	}
	if e.Reason != "" {
		b.line("more", causeIndent, "cove help "+string(e.Reason))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// helpCommand is cobra's, and knows the reason codes and the topics too.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | CODE | TOPIC]", Short: "Help about a command, a reason code or a topic; `cove help topics` lists these",
		Example: "  cove help registry create\n  cove help COVE-NET-001\n  cove help topics\n  cove help kubernetes-dns",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && strings.HasPrefix(strings.ToUpper(args[0]), "COVE-") {
				m, ok := reason.Of(args[0])
				if !ok {
					return usagef("there is no reason code %s", args[0])
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n\n%s\n\nWhat to do: %s\n", m.Code, m.Title, m.Cause, m.Next)
				return nil
			}
			if len(args) == 1 {
				if strings.EqualFold(args[0], "topics") {
					return topics(cmd.OutOrStdout())
				}
				if t, ok := topic.Of(args[0]); ok {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n\n%s", t.Title, t.Text)
					return err
				}
			}
			target, rest, err := cmd.Root().Find(args)
			if err != nil || target == nil || len(rest) > 0 {
				return usagef("there is no command %q; `cove help` lists them, and `cove help topics` other pages", strings.Join(args, " "))
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	}
}

// topics lists the pages that are about no command and no code.
func topics(w io.Writer) error {
	for _, t := range topic.All() {
		if _, err := fmt.Fprintf(w, "%-20s %s\n", t.Name, t.Title); err != nil {
			return err
		}
	}
	return nil
}
