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

	"github.com/spf13/cobra"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/fault"
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
in it.`,
		Example: "  cove explain 6f1c2a90\n  cove explain \"$(skopeo inspect docker://myregistry.cr.cove.internal/hello:1 2>&1)\"",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.Join(args, " ")
			if found := wholeID.FindAllString(id, -1); found != nil {
				id = found[len(found)-1]
			} else if !prefixID.MatchString(id) {
				return usagef("no correlation id is in that text; it is the GUID that the refusal carries, or at least its first eight characters")
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

var marks = map[access.Outcome]string{access.Passed: "✔", access.Failed: "✖", access.NotReached: "·", access.Unknown: "?"}

// tell writes an explanation for a person.
func tell(w io.Writer, e access.Explanation) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s · %s\n\n", e.Verdict, clean(e.Asked), e.Time.UTC().Format(time.DateTime+"Z"))
	for i, s := range e.Steps {
		mark := marks[s.Outcome]
		if mark == "" {
			mark = "?"
		}
		fmt.Fprintf(&b, " %d %s %-13s %s", i+1, mark, s.Name, clean(s.Why))
		if s.Outcome == access.NotReached && s.Why == "" {
			b.WriteString("not reached")
		}
		if s.Reason != "" {
			b.WriteString("   ◀ decided here")
		}
		b.WriteString("\n")
		if s.Rule != "" && s.Outcome == access.Failed {
			fmt.Fprintf(&b, "   %-15s %s\n", "", clean(s.Rule))
		}
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, "\ncause  %s: %s\n", e.Reason, clean(e.Cause))
	}
	for i, f := range e.Fixes {
		label := "fix"
		if len(e.Fixes) > 1 {
			label = "fix " + string(rune('A'+i))
		}
		fmt.Fprintf(&b, "%-6s %s\n", label, clean(f.Command))
		if f.Opens != "" {
			fmt.Fprintf(&b, "       opens: %s\n", clean(f.Opens))
		}
		if f.Needs != "" {
			fmt.Fprintf(&b, "       needs: %s\n", clean(f.Needs))
		}
	}
	if len(e.Fixes) == 0 && e.Next != "" {
		fmt.Fprintf(&b, "next   %s\n", clean(e.Next))
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, "more   cove help %s\n", e.Reason)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// helpCommand is cobra's, and knows the reason codes too.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND | CODE]", Short: "Help about a command, or what a reason code means",
		Example: "  cove help registry create\n  cove help COVE-NET-001",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && strings.HasPrefix(strings.ToUpper(args[0]), "COVE-") {
				m, ok := access.Explained(strings.ToUpper(args[0]))
				if !ok {
					return usagef("there is no reason code %s", args[0])
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n\n%s\n\nWhat to do: %s\n", strings.ToUpper(args[0]), m.Cause, m.Next)
				return nil
			}
			target, rest, err := cmd.Root().Find(args)
			if err != nil || target == nil || len(rest) > 0 {
				return usagef("there is no command %q; `cove help` lists them", strings.Join(args, " "))
			}
			target.InitDefaultHelpFlag()
			return target.Help()
		},
	}
}
