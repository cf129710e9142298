// Command cove is a private container registry and the tool to run it with:
// `cove serve` is the server, every other verb is a client of its API.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

// Exit statuses, the same for every verb.
const (
	exitDone    = 0 // done, or yes
	exitFailed  = 1 // failed, no, or a check found something
	exitUsage   = 2 // wrong usage
	exitUnknown = 3 // could not be determined
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// app is what the verbs share.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)

	data  string // --data
	group string // -g
	print printer
	kept  *client.Client
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw, env: os.LookupEnv}
	a.print.out = out
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	fmt.Fprintln(errw, "cove: "+clean(sentence(err)))
	var usage usageError
	// cobra's complaint about a flag that must be given has no type.
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "required flag(s)") {
		return exitUsage
	}
	return exitFailed
}

// exitStatus is an error that has already been told.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a command line that cannot be obeyed.
type usageError struct{ err error }

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// sentence is err as a person reads it: what was written for people, and what
// was put around it.
func sentence(err error) string {
	switch e := err.(type) {
	case *client.Error:
		text := e.Error()
		if e.Correlation != "" && e.Status >= 500 {
			text += " (correlation id " + e.Correlation + ")"
		}
		return text
	case *fault.Error:
		if e.Kind != fault.Internal {
			return e.Public
		}
	case interface{ Unwrap() []error }:
		var all []string
		for _, one := range e.Unwrap() {
			all = append(all, sentence(one))
		}
		return strings.Join(all, "\n")
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return strings.Replace(err.Error(), inner.Error(), sentence(inner), 1)
		}
	}
	return err.Error()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "cove",
		Short:         "A private container registry behind private endpoints",
		Long:          "cove is a container registry that you run yourself: private endpoints, network\nrules, Entra-style identities, and refusals that explain themselves.\n\n`cove serve` starts the server. Every other command is a client of it.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q; `cove help` lists them", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s; see `%s --help`", strings.TrimPrefix(err.Error(), "pflag: "), cmd.CommandPath())
	})
	root.AddCommand(
		a.serveCommand(),
		a.registryCommand(), a.tokenCommand(), a.scopeMapCommand(), a.ruleCommand(),
		a.vnetCommand(), a.subnetCommand(), a.endpointCommand(), a.dnsCommand(),
		a.joinCommand(), a.joinCodeCommand(), a.principalCommand(), a.roleCommand(),
		a.explainCommand(), a.canCommand(), a.checkCommand(), a.probeCommand(), a.logsCommand(), a.azCommand(), a.trustCommand(), a.loginCommand(), a.logoutCommand(), a.statusCommand(),
		versionCommand(),
	)
	root.SetHelpCommand(helpCommand())
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", terminalWidth(a.out))))
	for _, c := range root.Commands() {
		tidyArgs(c)
	}
	if err := a.completes(root); err != nil {
		panic(err) // a flag with two completions
	}
	return root
}

// tidyArgs makes every complaint about arguments a usage error.
func tidyArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usagef("%v; see `%s --help`", err, cmd.CommandPath())
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no command %q below `%s`; see `%s --help`", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	for _, sub := range c.Commands() {
		tidyArgs(sub)
	}
}

// asClient gives a command the flags that every client verb has.
func (a *app) asClient(c *cobra.Command) *cobra.Command {
	c.PersistentFlags().StringVar(&a.data, "data", "", "the server's data folder, on its own machine")
	a.print.flags(c.PersistentFlags())
	return c
}

// client connects as the profile says.
func (a *app) client() (*client.Client, error) {
	if a.kept != nil {
		return a.kept, nil
	}
	data := a.data
	if data == "" {
		data, _ = a.env("COVE_DATA")
	}
	p, err := client.Find(data, defaultData(), func(k string) string { v, _ := a.env(k); return v })
	if err != nil {
		return nil, err
	}
	a.kept, err = client.New(p)
	return a.kept, err
}

// do makes of fn, which needs a server, what a command runs.
func (a *app) do(fn func(cmd *cobra.Command, cl *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := a.client()
		if err != nil {
			return err
		}
		return fn(cmd, cl, args)
	}
}

func (a *app) note(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }
