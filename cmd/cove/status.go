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
	return a.asClient(&cobra.Command{
		Use: "status", Short: "What the server has, and what needs attention", Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			result := client.Object{"endpoint": cl.Profile.ResourceManager, "subscription": cl.Profile.SubscriptionID}
			var rows []any
			for _, typ := range []string{typeRegistry, typeVNet, typeEndpoint, typeZone} {
				list, err := cl.List(cmd.Context(), cl.Scope()+"/providers/"+typ)
				if err != nil {
					return err
				}
				attention := ""
				waiting := 0
				for _, v := range list {
					o, _ := v.(client.Object)
					for _, conn := range connections(o) {
						if s, _ := dig(conn, "properties", "privateLinkServiceConnectionState", "status").(string); s != "Approved" {
							waiting++
						}
					}
				}
				if waiting > 0 {
					attention = fmt.Sprintf("%d not approved; `cove private-endpoint list` names them", waiting)
				}
				row := client.Object{"kind": nouns[typ].word, "count": len(list), "attention": attention}
				rows = append(rows, row)
			}
			result["resources"] = rows
			if a.print.format != "table" || a.print.query != "" {
				return a.print.show(result)
			}
			fmt.Fprintf(a.out, "%s  subscription %s\n\n", cl.Profile.ResourceManager, cl.Profile.SubscriptionID)
			return a.print.show(rows, column{"KIND", "kind"}, column{"COUNT", "to_string(count)"}, column{"ATTENTION", "attention"})
		}),
	})
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
