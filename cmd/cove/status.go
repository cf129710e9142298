package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

const maxSecret = 4096

// secret reads a client secret: from a file, from a terminal without echo, or
// from standard input.
func (a *app) secret(file string) (string, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", fault.Newf(fault.Invalid, "--secret-file cannot be read: %v", err)
		}
		defer f.Close()
		return firstLine(f)
	}
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.err, "Client secret: ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return strings.TrimSpace(string(b)), err
	}
	return firstLine(a.in)
}

func firstLine(r io.Reader) (string, error) {
	s := bufio.NewScanner(io.LimitReader(r, maxSecret))
	if !s.Scan() || strings.TrimSpace(s.Text()) == "" {
		return "", usagef("the client secret is empty")
	}
	return strings.TrimSpace(s.Text()), nil
}

func (a *app) statusCommand() *cobra.Command {
	var form, tunnel string
	c := a.asClient(&cobra.Command{
		Use: "status [REGISTRY]", Short: "What the server has, what is wrong with it and what will be", Args: cobra.MaximumNArgs(1),
		Long:    "What the server has; and what it finds wrong by itself: names that do not lead to\ntheir private endpoints, connections that wait, rules and roles without effect,\ncredentials and certificates that end soon. What breaks first comes first.\n\nWith --firewall, what a firewall or proxy must let through for clients of a\nregistry, or of all: the names and, as this machine resolves them, the addresses.",
		Example: "  cove status --firewall nftables myregistry\n  export NO_PROXY=$(cove status --firewall no-proxy myregistry)",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			if form != "" {
				return a.firewall(cmd, cl, form, tunnel, args)
			}
			if len(args) > 0 || tunnel != "" {
				return usagef("a registry and --tunnel go with --firewall")
			}
			result := client.Object{"endpoint": cl.Profile.ResourceManager, "subscription": cl.Profile.SubscriptionID}
			var rows []any
			for _, typ := range []string{typeRegistry, typeVNet, typeEndpoint, typeZone} {
				list, err := cl.List(cmd.Context(), cl.Scope()+"/providers/"+typ)
				if err != nil {
					return err
				}
				rows = append(rows, client.Object{"kind": nouns[typ].word, "count": len(list)})
			}
			found, err := cl.List(cmd.Context(), cl.Scope()+"/providers/Cove.Diagnostics/findings")
			if err != nil {
				return err
			}
			result["findings"] = found
			result["resources"] = rows
			if a.print.format != "table" || a.print.query != "" {
				return a.print.show(result)
			}
			fmt.Fprintf(a.out, "%s  subscription %s\n\n", cl.Profile.ResourceManager, cl.Profile.SubscriptionID)
			if err := a.print.show(rows, column{"KIND", "kind"}, column{"COUNT", "to_string(count)"}); err != nil {
				return err
			}
			return findings(a.out, found)
		}),
	})
	c.Flags().StringVar(&form, "firewall", "", "write rules that let clients through instead: "+firewallForms)
	c.Flags().StringVar(&tunnel, "tunnel", "", "HOST:PORT of the server's WireGuard, where this machine is a member; for nftables")
	return c
}

// findings writes what the server has found, for a person.
func findings(w io.Writer, found []any) error {
	if len(found) == 0 {
		_, err := io.WriteString(w, "\nNothing needs attention.\n")
		return err
	}
	var b strings.Builder
	for _, v := range found {
		f, _ := v.(client.Object)
		when := "now"
		if now, _ := f["now"].(bool); !now {
			day, _, _ := strings.Cut(text(f["breaks"]), "T")
			when = "on " + day
		}
		fmt.Fprintf(&b, "\n ✖ %s  %s (%s)\n   %s\n", clean(text(f["code"])), clean(text(f["title"])), when, clean(text(f["says"])))
		label := "next"
		if command, _ := f["command"].(bool); command {
			label = "fix "
		}
		fmt.Fprintf(&b, "   %s  %s\n", label, clean(text(f["cure"])))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// version is what this binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	if len(revision) > 12 {
		revision = revision[:12]
	}
	if revision == "" {
		return info.Main.Version
	}
	return revision + dirty
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "cove "+version())
			return err
		},
	}
}
