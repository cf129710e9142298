package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/reason"
	"cove.example/cove/whatif"
)

// canFlags are the circumstances of a question.
type canFlags struct {
	registry, from, address, kind string
	at, change                    string
	since                         time.Duration
	list, quiet, who              bool
}

// The actions that a person asks about, and the scope of each.
var canActions = map[string]string{"pull": "pull", "push": "push", "delete": "delete", "read": "metadata_read", "write": "metadata_write"}

func (a *app) canCommand() *cobra.Command {
	var f canFlags
	c := a.asClient(&cobra.Command{
		Use: "can WHO ACTION REPOSITORY --registry NAME --from WHERE", Short: "Ask what a request would get, without making it",
		Long: `Ask what a request would get, without making it. The answer is made by the code
that decides about requests. REPOSITORY may be an image as clients write it, with
its login server, which then says the registry too.

WHO is a principal (its client id, name or object id), admin, anonymous, or
token:NAME for one of the registry's own tokens. ACTION is pull, push, delete,
read or write (labels and locks), or list for the list of repositories, which
has no REPOSITORY. To delete one manifest, add @DIGEST: what is attached to
another, as a signature is, may be deleted by who may push. WHERE is an
address, or VNET/SUBNET for a machine in it.

--at asks about another time. --if-change FILE holds registries or role
assignments, as JSON or YAML with their ids, that are tried and taken back:
with a question, what it would get then; without one, which requests of the
last --since would be decided otherwise.

--who ACTION REPOSITORY lists everybody who may, by which role, token or switch,
and from where; with --at, everybody who could at a time that has been, as far
back as the server's --keep-history. A registry that is gone is named by its
resource id.

It ends with 0 for yes, 1 for no, and 3 where it cannot be said.`,
		Example: `  cove can ci pull team/app --registry myregistry --from office/default
  cove can ci pull myregistry.cr.cove.internal/team/app:1.4 --from office/default
  cove can anonymous pull base --registry myregistry --from 203.0.113.9
  cove can ci --list --registry myregistry --from office/default
  cove can --if-change closed.json --since 24h
  cove can --who pull team/app --registry myregistry --at 2026-11-20T12:00:00Z`,
		Args: cobra.MaximumNArgs(3),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return []string{"admin", "anonymous", "token:"}, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return append(slices.Sorted(maps.Keys(canActions)), "list"), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: a.directoryDo(func(cmd *cobra.Command, cl, graph *client.Client, args []string) error {
			if f.who {
				return a.who(cmd.Context(), cl, f, args)
			}
			change, err := readChange(f.change)
			if err != nil {
				return err
			}
			switch {
			case f.since <= 0:
				return usagef("--since %s: how far to look back, such as 24h", f.since)
			case len(args) == 0 && change != nil:
				return a.flips(cmd.Context(), cl, f, change)
			case len(args) == 0, len(args) == 1 && !f.list, len(args) == 2 && args[1] != "list" && !f.list:
				return usagef("say WHO, ACTION and REPOSITORY, as in `cove can ci pull team/app`; see `cove can --help`")
			}
			if err := f.image(cmd.Context(), cl, args[1:]); err != nil {
				return err
			}
			if f.registry == "" || f.from == "" {
				return usagef("say which registry with --registry and from where with --from")
			}
			q, err := a.question(cmd.Context(), cl, graph, f, args[0])
			if err != nil {
				return err
			}
			if change != nil {
				q["change"] = change
			}
			if f.list {
				repository := ""
				if len(args) > 1 {
					repository = args[1]
				}
				return a.canList(cmd.Context(), cl, q, repository)
			}
			scope, err := canScope(args[1:])
			if err != nil {
				return err
			}
			digest, err := canDigest(args[1:])
			if err != nil {
				return err
			}
			q["scopes"], q["digest"] = []any{scope}, digest
			return a.can(cmd.Context(), cl, q, f.quiet)
		}),
	})
	c.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	fs := c.Flags()
	fs.StringVar(&f.registry, "registry", "", "the registry")
	fs.StringVar(&f.from, "from", "", "an address, or VNET/SUBNET")
	fs.StringVar(&f.address, "address", "", "the address that a caller in a network has outside, where the name leads there; of one without a tunnel, the address that it calls from")
	fs.StringVar(&f.kind, "kind", "vm", "what the machine in the subnet is: vm, aks, aci, appservice or agentpool")
	fs.StringVar(&f.at, "at", "", "another time, such as 2026-12-24T18:00:00Z")
	fs.StringVar(&f.change, "if-change", "", "file with registries or role assignments that are not applied yet")
	fs.DurationVar(&f.since, "since", 24*time.Hour, "how far back --if-change looks at requests")
	fs.BoolVar(&f.who, "who", false, "list everybody who may, or with --at could")
	fs.BoolVar(&f.list, "list", false, "list what WHO may do")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing; the exit status is the answer")
	return c
}

// image takes the login server off an image that is written as clients write
// it, and the registry's name from there. Repositories may have dots too: only
// this deployment's login servers are taken for one.
func (f *canFlags) image(ctx context.Context, cl *client.Client, args []string) error {
	for i, arg := range args {
		host, rest, ok := strings.Cut(strings.TrimPrefix(arg, "docker://"), "/")
		name, suffix, dotted := strings.Cut(strings.ToLower(host), ".")
		if !ok || !dotted {
			continue
		}
		known, err := registrySuffix(ctx, cl)
		if err != nil {
			return err
		}
		if suffix != known {
			continue
		}
		if f.registry != "" && !strings.EqualFold(lastName(f.registry), name) {
			return usagef("the image is in the registry %s, and --registry says %s", name, f.registry)
		}
		if f.registry == "" {
			f.registry = name
		}
		args[i] = rest
	}
	return nil
}

// registrySuffix is what follows a registry's name in its login server.
func registrySuffix(ctx context.Context, cl *client.Client) (string, error) {
	if cl.Profile.RegistrySuffix == "" {
		// The variables of the environment do not say it.
		cloud, err := cl.Metadata(ctx)
		if err != nil {
			return "", err
		}
		cl.Profile.RegistrySuffix = strings.TrimPrefix(cloud.RegistrySuffix, ".")
	}
	return strings.ToLower(cl.Profile.RegistrySuffix), nil
}

// canScope is what an action needs.
func canScope(args []string) (client.Object, error) {
	if args[0] == "list" {
		if len(args) > 1 {
			return nil, usagef("list is about all repositories: name none")
		}
		return client.Object{"type": "registry", "name": "catalog", "action": "*"}, nil
	}
	action, ok := canActions[args[0]]
	if !ok {
		return nil, usagef("there is no action %q: pull, push, delete, read, write or list", args[0])
	}
	repository, _, _ := strings.Cut(args[1], "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i] // roles know repositories, not tags
	}
	return client.Object{"type": "repository", "name": repository, "action": action}, nil
}

// canDigest is the manifest that is to be deleted, "" for another question: who
// may push may delete what is attached to another manifest.
func canDigest(args []string) (string, error) {
	if args[0] != "delete" {
		return "", nil
	}
	_, digest, found := strings.Cut(args[1], "@")
	if _, err := oci.ParseDigest(digest); found && err != nil {
		return "", usagef("%v", err)
	}
	return digest, nil
}

// question is the body of what is asked, without the scopes.
func (a *app) question(ctx context.Context, cl, graph *client.Client, f canFlags, who string) (client.Object, error) {
	id, err := a.find(ctx, cl, typeRegistry, f.registry)
	if err != nil {
		return nil, err
	}
	q := client.Object{"registry": id}
	if f.at != "" {
		if _, err := time.Parse(time.RFC3339, f.at); err != nil {
			return nil, usagef("--at %q: a time such as 2026-12-24T18:00:00Z", f.at)
		}
		q["at"] = f.at
	}
	from := client.Object{}
	if _, err := netip.ParseAddr(f.from); err == nil {
		from["address"] = f.from
	} else {
		vnet, subnet, ok := strings.Cut(f.from, "/")
		if !ok || subnet == "" {
			return nil, usagef("--from %q: an address, or VNET/SUBNET", f.from)
		}
		vnetID, err := a.find(ctx, cl, typeVNet, vnet)
		if err != nil {
			return nil, err
		}
		id := vnetID + "/subnets/" + url.PathEscape(subnet)
		if _, err := cl.Get(ctx, id); client.NotFound(err) {
			return nil, fault.Newf(fault.NotFound, "there is no subnet %s in %s; `cove vnet show %s` shows what there is", subnet, vnet, vnet)
		}
		from["subnet"], from["kind"] = id, f.kind
		if f.address != "" {
			from["address"] = f.address
		}
	}
	q["from"] = from
	switch name, isToken := strings.CutPrefix(who, "token:"); {
	case isToken:
		q["who"] = client.Object{"kind": access.KindToken, "name": name}
	case who == "admin":
		q["who"] = client.Object{"kind": access.KindAdmin}
	case who == "anonymous":
		q["who"] = client.Object{"kind": access.KindAnonymous}
	default:
		p, err := findPrincipal(ctx, graph, who)
		if err != nil {
			return nil, err
		}
		q["who"] = client.Object{"kind": access.KindServicePrincipal, "objectId": p["id"]}
	}
	return q, nil
}

// asked puts a question and reads the answer.
func asked(ctx context.Context, cl *client.Client, q client.Object) (e access.Explanation, raw client.Object, err error) {
	if raw, err = cl.Post(ctx, cl.Scope()+"/providers/Cove.Diagnostics/can", q); err != nil {
		return e, nil, err
	}
	return e, raw, remake(raw, &e)
}

// remake reads a decoded answer as a value of ours.
func remake(from, to any) error {
	b, err := json.Marshal(from)
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(b)).Decode(to)
	}
	if err != nil {
		return fault.Newf(fault.Unavailable, "the server's answer is not what was asked for")
	}
	return nil
}

func verdictStatus(verdict string) error {
	switch verdict {
	case "ALLOWED":
		return nil
	case "DENIED":
		return exitStatus(exitFailed)
	}
	return exitStatus(exitUnknown)
}

func (a *app) can(ctx context.Context, cl *client.Client, q client.Object, quiet bool) error {
	e, raw, err := asked(ctx, cl, q)
	if err != nil {
		return err
	}
	switch {
	case quiet:
	case a.print.format != "table" || a.print.query != "":
		err = a.print.show(raw)
	default:
		answer := map[string]string{"ALLOWED": "YES", "DENIED": "NO"}[e.Verdict]
		if answer == "" {
			answer = "UNKNOWN"
		}
		fmt.Fprintf(a.out, "%s\n\n", answer)
		err = tellSteps(a.out, e)
	}
	if err != nil {
		return err
	}
	return verdictStatus(e.Verdict)
}

// canList asks about every action.
func (a *app) canList(ctx context.Context, cl *client.Client, q client.Object, repository string) error {
	if repository == "" {
		repository = "*"
	}
	var rows []any
	for _, action := range []string{"pull", "push", "delete", "read", "write", "list"} {
		args := []string{action, repository}
		if action == "list" {
			args = args[:1]
		}
		scope, err := canScope(args)
		if err != nil {
			return err
		}
		digest, err := canDigest(args)
		if err != nil {
			return err
		}
		q["scopes"], q["digest"] = []any{scope}, digest
		e, _, err := asked(ctx, cl, q)
		if err != nil {
			return err
		}
		row := client.Object{"action": action, "verdict": e.Verdict, "reason": string(e.Reason), "cause": e.Cause}
		if repository == "*" && e.Reason == reason.ConditionNotMet {
			// Asked about every repository at once, a condition on their names
			// is not true; of some it is.
			row["verdict"], row["cause"] = "DEPENDS", "on the condition of the role; name a repository"
		}
		if last := len(e.Steps) - 1; last >= 0 && e.Steps[last].Name == whatif.OnlyReferrers {
			row["verdict"], row["cause"] = "DEPENDS", e.Steps[last].Why
		}
		rows = append(rows, row)
	}
	return a.print.show(rows, column{"ACTION", "action"}, column{"VERDICT", "verdict"}, column{"REASON", "reason"}, column{"CAUSE", "cause"})
}

// maxChange bounds the file of a change.
const maxChange = 1 << 20

// readChange reads resources from JSON or YAML: one, or a list.
func readChange(name string) ([]any, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "--if-change cannot be read: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxChange))
	if err != nil {
		return nil, err
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, usagef("--if-change %s is neither JSON nor YAML: %v", name, err)
	}
	list, ok := v.([]any)
	if o, one := v.(map[string]any); one {
		list, ok = []any{o}, true
	}
	if !ok {
		return nil, usagef("--if-change %s holds no resource", name)
	}
	for _, v := range list {
		if o, ok := v.(map[string]any); ok {
			// What `cove … show` and `az … show` add for people is no part of it.
			delete(o, "resourceGroup")
			delete(o, "role")
		}
	}
	return list, nil
}

// flips shows which requests a change would decide otherwise.
func (a *app) flips(ctx context.Context, cl *client.Client, f canFlags, change []any) error {
	out, err := cl.Post(ctx, cl.Scope()+"/providers/Cove.Diagnostics/flips", client.Object{
		"change": change, "since": time.Now().Add(-f.since).UTC().Format(time.RFC3339),
	})
	if err != nil {
		return err
	}
	list, _ := out["value"].([]any)
	if a.print.format != "table" || a.print.query != "" {
		return a.print.show(list)
	}
	a.note("%s requests of the last %s looked at; %d would be decided otherwise", text(out["looked"]), f.since, len(list))
	return a.print.show(list, column{"TIME", "time"}, column{"REQUEST", "why.asked"}, column{"FROM", "why.caller"}, column{"NOW", "now"}, column{"AFTER", "after"}, column{"REASON", "why.reason"})
}
