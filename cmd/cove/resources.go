package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

// The resource types that verbs act on, in the Resource Manager's words.
const (
	typeRegistry = "Microsoft.ContainerRegistry/registries"
	typeVNet     = "Microsoft.Network/virtualNetworks"
	typeGroup    = "Microsoft.Network/networkSecurityGroups"
	typeNIC      = "Microsoft.Network/networkInterfaces"
	typeEndpoint = "Microsoft.Network/privateEndpoints"
	typeZone     = "Microsoft.Network/privateDnsZones"
)

// defaultGroup is where resources go when no -g says otherwise.
const defaultGroup = "cove"

// id is the id of a top-level resource in the group given, or in cove.
func (a *app) id(c *client.Client, typ, name string) string {
	group := a.group
	if group == "" {
		group = defaultGroup
	}
	return fmt.Sprintf("%s/resourceGroups/%s/providers/%s/%s", c.Scope(), url.PathEscape(group), typ, url.PathEscape(name))
}

// find returns the id of an existing resource by name: in the group given, or
// wherever in the subscription there is one of that name.
func (a *app) find(ctx context.Context, c *client.Client, typ, name string) (string, error) {
	if strings.HasPrefix(name, "/subscriptions/") {
		return name, nil
	}
	if a.group != "" {
		return a.id(c, typ, name), nil
	}
	filter := fmt.Sprintf("resourceType eq '%s' and name eq '%s'", typ, strings.ReplaceAll(name, "'", "''"))
	found, err := c.List(ctx, c.Scope()+"/resources?$filter="+url.QueryEscape(filter))
	if err != nil {
		return "", err
	}
	noun := nouns[typ]
	switch len(found) {
	case 0:
		if noun.verb == "" {
			return "", fault.Newf(fault.NotFound, "there is no %s %s", noun.word, name)
		}
		return "", fault.Newf(fault.NotFound, "there is no %s %s; `cove %s list` shows what there is", noun.word, name, noun.verb)
	case 1:
		r, _ := found[0].(client.Object)
		id, _ := r["id"].(string)
		return id, nil
	}
	return "", fault.Newf(fault.Conflict, "there are %d of the name %s: say which resource group with -g", len(found), name)
}

var nouns = map[string]struct{ word, verb string }{
	typeRegistry:  {"registry", "registry"},
	typeVNet:      {"virtual network", "vnet"},
	typeGroup:     {"network security group", "subnet"},
	typeNIC:       {"network interface", "join"},
	typeEndpoint:  {"private endpoint", "private-endpoint"},
	typeZone:      {"private DNS zone", "dns zone"},
	typeSink:      {"sink", "logs sink"},
	typeWorkspace: {"workspace", ""},
}

// ensureGroup makes the resource group of a first create.
func (a *app) ensureGroup(ctx context.Context, c *client.Client, location string) error {
	if a.group != "" {
		return nil
	}
	id := c.Scope() + "/resourceGroups/" + defaultGroup
	_, err := c.Get(ctx, id)
	if !client.NotFound(err) {
		return err
	}
	_, err = c.Put(ctx, id, client.Object{"location": location})
	return err
}

// location is the one given, or the deployment's first.
func (a *app) location(ctx context.Context, c *client.Client, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	list, err := c.List(ctx, c.Scope()+"/locations")
	if err != nil {
		return "", err
	}
	for _, l := range list {
		if o, ok := l.(client.Object); ok {
			if name, ok := o["name"].(string); ok {
				return name, nil
			}
		}
	}
	return "", fault.Newf(fault.Unavailable, "the server names no location: say one with -l")
}

// list returns the resources of a type, in the group given or everywhere.
func (a *app) list(ctx context.Context, c *client.Client, typ string) ([]any, error) {
	scope := c.Scope()
	if a.group != "" {
		scope += "/resourceGroups/" + url.PathEscape(a.group)
	}
	return c.List(ctx, scope+"/providers/"+typ)
}

// dig follows keys through nested objects.
func dig(o client.Object, path ...string) any {
	var v any = o
	for _, key := range path {
		m, ok := v.(client.Object)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// lastName is the last segment of a resource id.
func lastName(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// groupColumn shows which group a resource lies in, found in its id.
func withGroups(list []any) []any {
	for _, v := range list {
		if o, ok := v.(client.Object); ok {
			id, _ := o["id"].(string)
			parts := strings.Split(id, "/")
			for i := 0; i+1 < len(parts); i++ {
				if strings.EqualFold(parts[i], "resourceGroups") {
					o["resourceGroup"] = parts[i+1]
				}
			}
		}
	}
	return list
}
