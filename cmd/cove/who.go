package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/client"
	"cove.example/cove/whatif"
)

// past is what decided about access at a time.
func (s *server) past(at time.Time) whatif.Moment {
	p := s.db.AsOf(at)
	return whatif.Moment{Documents: p, People: p}
}

// trimHistory ends the history of access where --keep-history says.
func (s *server) trimHistory(ctx context.Context) error {
	before := s.now().Add(-time.Duration(s.config.KeepHistory) * 24 * time.Hour)
	for {
		n, err := s.db.TrimHistory(ctx, before, trimBatch)
		if err != nil || n < trimBatch {
			return err
		}
	}
}

// who asks who may do something with a repository, and from where.
func (a *app) who(ctx context.Context, cl *client.Client, f canFlags, args []string) error {
	if len(args) != 2 || f.registry == "" {
		return usagef("say which ACTION on which REPOSITORY, and the registry, as in `cove can --who pull team/app --registry myregistry`")
	}
	if f.from != "" || f.address != "" || f.list || f.change != "" || f.quiet {
		return usagef("--who is answered for every way, and goes with --registry and --at alone")
	}
	scope, err := canScope(args)
	if err != nil {
		return err
	}
	if scope["type"] != "repository" || strings.Contains(args[1], "@") {
		return usagef("--who is about an action on a repository")
	}
	id := f.registry
	if !strings.HasPrefix(id, "/subscriptions/") { // the id of one that is gone has to be given
		if id, err = a.find(ctx, cl, typeRegistry, f.registry); err != nil {
			return err
		}
	}
	q := client.Object{"registry": id, "repository": scope["name"], "action": scope["action"]}
	if f.at != "" {
		if _, err := time.Parse(time.RFC3339, f.at); err != nil {
			return usagef("--at %q: a time such as 2026-12-24T18:00:00Z", f.at)
		}
		q["at"] = f.at
	}
	raw, err := cl.Post(ctx, cl.Scope()+"/providers/Cove.Diagnostics/who", q)
	if err != nil {
		return err
	}
	if a.print.format != "table" || a.print.query != "" {
		return a.print.show(raw)
	}
	var r whatif.Roll
	if err := remake(raw, &r); err != nil {
		return err
	}
	ways, grants := []any{}, []any{}
	for _, w := range r.Ways {
		name := w.Name
		if in, err := arm.ParseID(w.In); err == nil {
			name += " in " + in.Parent().Name() + "/" + in.Name()
		}
		ways = append(ways, client.Object{"from": name, "rule": w.Rule})
	}
	for _, g := range r.Grants {
		name := g.Known
		if name == "" {
			name = g.Identity.Name
		}
		grants = append(grants, client.Object{"who": name, "kind": g.Identity.Kind, "id": g.Identity.ObjectID, "by": g.By, "from": strings.Join(g.From, ", ")})
	}
	if err := a.print.show(ways, column{"FROM", "from"}, column{"RULE", "rule"}); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	if err := a.print.show(grants, column{"WHO", "who"}, column{"KIND", "kind"}, column{"OBJECT ID", "id"}, column{"BY", "by"}, column{"FROM", "from"}); err != nil {
		return err
	}
	for _, n := range r.Notes {
		a.note("%s", n)
	}
	return nil
}
