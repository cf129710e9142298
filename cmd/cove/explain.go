package main

import (
	"bytes"
	"context"
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
	markedID = regexp.MustCompile(`(?i)correlation-?(?:request-)?id\W+(` + wholeID.String()[len("(?i)"):] + `)`)
	prefixID = regexp.MustCompile(`(?i)^[0-9a-f][0-9a-f-]{7,35}$`)
)

func (a *app) explainCommand() *cobra.Command {
	return a.asClient(&cobra.Command{
		Use: "explain ID", Short: "Say why a request was refused, and what would change it",
		Long: `Say how a request was decided: every step, the rule that decided and the
command that would change it. ID is the correlation id that the refusal carried,
the first eight or more characters of it, or the whole error text with the id
in it. A client's error text without an id, or with one that is no decision's,
is told apart by its words. Where the words say no more than that a registry
refused, the last refusals of that registry are listed, with their ids.`,
		Example: "  cove explain 6f1c2a90\n  cove explain \"$(skopeo inspect docker://myregistry.cr.cove.internal/hello:1 2>&1)\"",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := strings.Join(args, " ")
			id, alone := decisionID(text)
			if id == "" {
				return a.explainText(cmd.Context(), text)
			}
			cl, err := a.client()
			if err != nil {
				return a.otherwise(cmd.Context(), text, alone, err)
			}
			out, err := cl.Get(cmd.Context(), cl.Scope()+"/providers/Cove.Diagnostics/decisions/"+url.PathEscape(strings.ToLower(id)))
			if client.NotFound(err) {
				err = fault.Newf(fault.NotFound, "no decision has the id %s. Decisions are kept for a while, and one from the last moments before a crash may be lost", id)
			}
			if err != nil {
				return a.otherwise(cmd.Context(), text, alone, err)
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

// decisionID is the id that a text asks about, "" where it has none, and
// whether the text is nothing else. Texts hold other GUIDs too, of tenants,
// applications and subscriptions: one that is called a correlation id comes
// first, and after that the last.
func decisionID(text string) (id string, alone bool) {
	bare := strings.TrimRight(strings.TrimSpace(text), "….") // as a table cuts it
	if prefixID.MatchString(bare) {
		return bare, true
	}
	if marked := markedID.FindAllStringSubmatch(text, -1); marked != nil {
		return marked[len(marked)-1][1], false
	}
	if found := wholeID.FindAllString(text, -1); found != nil {
		return found[len(found)-1], false
	}
	return "", false
}

// otherwise explains a text by its words where its id led to nothing, for the
// reason err: it may be of the issuer or of the Resource Manager, or the server
// is out of reach, and that may be the matter.
func (a *app) otherwise(ctx context.Context, text string, alone bool, err error) error {
	if _, known := health.Symptom(text); alone || !known {
		return err
	}
	if markedID.MatchString(text) {
		a.note("%s", sentence(err))
	}
	return a.explainText(ctx, text)
}

// plainEnough are codes about which a check from the client finds nothing more.
var plainEnough = regexp.MustCompile(`^COVE-(ARM|SRV)-|^COVE-CLIENT-00[56]$`)

// wordy is what a text without an id is explained by.
type wordy struct {
	reason.Meaning
	Recent []recent `json:"recent,omitempty"`
}

// recent is a refusal that the text may be about.
type recent struct {
	ID     string      `json:"id"`
	Time   string      `json:"time"`
	Caller string      `json:"caller"`
	Reason reason.Code `json:"reason"`
}

// explainText names the cause behind an error text that carries no id: as a
// rule such a request never reached the registry, and nobody else can know.
func (a *app) explainText(ctx context.Context, text string) error {
	m, ok := health.Symptom(text)
	if !ok {
		return usagef("no correlation id is in that text, and it is no client's error that cove knows. The id is the GUID that a refusal carries, or at least its first eight characters")
	}
	out := wordy{Meaning: m}
	switch m.Code {
	case reason.NetworkRefuses, reason.SignInRefused, reason.TokenLacks, reason.NoChallenge:
		out.Recent = a.recent(ctx, text) // clients hide the id of these
	}
	if a.print.format != "table" || a.print.query != "" {
		return a.print.shown(out)
	}
	b := sheet{width: terminalWidth(a.out)}
	fmt.Fprintf(&b, "%s: %s\n\n", m.Code, m.Title)
	b.row("cause", causeIndent, m.Cause)
	b.row("next", causeIndent, m.Next)
	if !plainEnough.MatchString(string(m.Code)) {
		b.row("", causeIndent, "cove check-health tells what it is, from where the failure is")
	}
	for i, r := range out.Recent {
		label := ""
		if i == 0 {
			label = "recent"
		}
		title := ""
		if known, ok := reason.Of(string(r.Reason)); ok {
			title = ": " + known.Title
		}
		b.row(label, causeIndent, r.Time+" refused to "+r.Caller+title)
		b.line("", causeIndent, "cove explain "+clean(r.ID))
	}
	b.line("more", causeIndent, "cove help "+string(m.Code))
	_, err := io.WriteString(a.out, b.String())
	return err
}

const (
	recentSince = time.Hour
	recentWait  = 3 * time.Second
	maxRecent   = 3
)

// recent are the last refusals of the registry that a text names, none where
// it names none, or the server cannot be asked: they are a help, and no answer.
func (a *app) recent(ctx context.Context, said string) (out []recent) {
	cl, err := a.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, recentWait)
	defer cancel()
	since := url.Values{"since": {time.Now().Add(-recentSince).UTC().Format(time.RFC3339)}}
	list, err := cl.List(ctx, cl.Scope()+"/providers/Cove.Diagnostics/events?"+since.Encode())
	if err != nil {
		return nil
	}
	said = strings.ToLower(said)
	for _, v := range list { // newest first
		e, _ := v.(client.Object)
		host, code := text(e["LoginServer"]), reason.Code(text(e["ReasonCode"]))
		if code == "" || code == reason.NoCredential || host == "" || !strings.Contains(said, strings.ToLower(host)) {
			continue
		}
		at, _, _ := strings.Cut(text(e["TimeGenerated"]), ".")
		out = append(out, recent{text(e["CorrelationId"]), strings.TrimSuffix(at, "Z") + "Z", text(e["CallerIpAddress"]), code})
		if len(out) == maxRecent {
			break
		}
	}
	return out
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
	head := sheet{width: terminalWidth(w)}
	head.row("", 0, fmt.Sprintf("%s %s%s · %s%s", e.Verdict, clean(e.Asked), by, e.Time.UTC().Format(time.DateTime+"Z"), alike))
	if _, err := fmt.Fprintln(w, head.String()); err != nil {
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
	gap := indent - utf8.RuneCountInString(label)
	if label != "" {
		gap = max(1, gap)
	}
	s.WriteString(label)
	s.WriteString(strings.Repeat(" ", gap))
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
			mark := "   ◀ decided here"
			if b.width > 0 {
				mark = " " + strings.ReplaceAll(strings.TrimSpace(mark), " ", "\u00a0") // on one line
			}
			why += mark
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
		Example: "  cove help registry create\n  cove help COVE-NET-001\n  cove help codes\n  cove help topics\n  cove help kubernetes-dns",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, c := range target.Commands() {
				if c.IsAvailableCommand() {
					words = append(words, c.Name()+"\t"+c.Short)
				}
			}
			if len(args) > 0 {
				return words, cobra.ShellCompDirectiveNoFileComp
			}
			for _, m := range reason.All() {
				words = append(words, string(m.Code)+"\t"+m.Title)
			}
			for _, t := range topic.All() {
				words = append(words, t.Name+"\t"+t.Title)
			}
			return append(words, "codes\tall reason codes", "topics\tpages about no one command"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && strings.HasPrefix(strings.ToUpper(args[0]), "COVE-") {
				m, ok := reason.Of(args[0])
				if !ok {
					return usagef("there is no reason code %s; `cove help codes` lists them", args[0])
				}
				b := sheet{width: terminalWidth(cmd.OutOrStdout())}
				b.row("", 0, string(m.Code)+": "+m.Title)
				b.WriteByte('\n')
				b.row("", 0, m.Cause)
				b.WriteByte('\n')
				b.row("", 0, "What to do: "+m.Next)
				_, err := io.WriteString(cmd.OutOrStdout(), b.String())
				return err
			}
			if len(args) == 1 && strings.EqualFold(args[0], "codes") {
				for _, m := range reason.All() {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-15s %s\n", m.Code, m.Title); err != nil {
						return err
					}
				}
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
