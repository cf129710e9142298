package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
)

// completeWait is how long somebody who has pressed the tab key waits.
const completeWait = 2 * time.Second

// completes gives the flags that name a resource what there is to name.
func (a *app) completes(c *cobra.Command) error {
	for flag, typ := range map[string]string{"registry": typeRegistry, "vnet": typeVNet, "private-endpoint": typeEndpoint} {
		if c.Flags().Lookup(flag) == nil {
			continue
		}
		if err := c.RegisterFlagCompletionFunc(flag, a.names(typ)); err != nil {
			return err
		}
	}
	for _, sub := range c.Commands() {
		if err := a.completes(sub); err != nil {
			return err
		}
	}
	return nil
}

// names completes to the names of the resources of a type, to nothing where no
// server can be asked: the shell has no place for errors.
func (a *app) names(typ string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
		defer cancel()
		cl, err := a.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := cl.List(ctx, cl.Scope()+"/providers/"+typ)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, v := range list {
			o, _ := v.(client.Object)
			names = append(names, text(o["name"]))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
