package graphapi

import (
	"context"
	"net/http"
	"strings"

	"cove.example/cove/directory"
)

// operation is one row of the routes. Rows are made by reads and changes only,
// so none can be without saying who may use it.
type operation struct {
	method string
	path   []string // * is any segment, handed on in call.params
	writes bool
	do     func(*Server, context.Context, *call) (reply, error)
}

type handler = func(*Server, context.Context, *call) (reply, error)

func reads(method, path string, do handler) operation {
	return operation{method, strings.Split(path, "/"), false, do}
}

func changes(method, path string, do handler) operation {
	return operation{method, strings.Split(path, "/"), true, do}
}

var routes = func() []operation {
	all := []operation{
		reads(http.MethodGet, "me", (*Server).me),
		reads(http.MethodPost, "directoryObjects/getByIds", (*Server).getByIDs),
		reads(http.MethodGet, "directoryObjects/*", (*Server).anyObject),
		reads(http.MethodPost, "directoryObjects/*/checkMemberGroups", (*Server).checkMemberGroups),
		reads(http.MethodPost, "directoryObjects/*/getMemberGroups", (*Server).memberGroups),
		reads(http.MethodGet, "groups/*/members", (*Server).members),
		changes(http.MethodPost, "groups/*/members/$ref", (*Server).addMember),
		changes(http.MethodDelete, "groups/*/members/*/$ref", (*Server).removeMember),
	}
	for i := range kinds {
		k := &kinds[i]
		all = append(all,
			reads(http.MethodGet, k.set, k.list),
			changes(http.MethodPost, k.set, k.create),
			reads(http.MethodGet, k.set+"/*", k.get),
			changes(http.MethodPatch, k.set+"/*", k.patch),
			changes(http.MethodDelete, k.set+"/*", k.delete),
		)
		if k.name == directory.Application {
			all = append(all,
				reads(http.MethodGet, k.set+"/*/federatedIdentityCredentials", k.federations),
				changes(http.MethodPost, k.set+"/*/federatedIdentityCredentials", k.federate),
				reads(http.MethodGet, k.set+"/*/federatedIdentityCredentials/*", k.federation),
				changes(http.MethodPatch, k.set+"/*/federatedIdentityCredentials/*", k.refederate),
				changes(http.MethodDelete, k.set+"/*/federatedIdentityCredentials/*", k.unfederate),
			)
		}
		if k.secrets {
			all = append(all,
				changes(http.MethodPost, k.set+"/*/addPassword", k.addPassword),
				changes(http.MethodPost, k.set+"/*/removePassword", k.removePassword),
			)
		} else {
			all = append(all, reads(http.MethodPost, k.set+"/*/getMemberGroups", k.memberGroups))
		}
	}
	return all
}()

// find returns the operation that a method and a path below /v1.0 name, or
// nil. servicePrincipals(appId='…') is servicePrincipals/* with another way to
// name the object.
func find(c *call, segments []string) *operation {
	if !strings.EqualFold(segments[0], "v1.0") {
		return nil
	}
	segments = segments[1:]
	if len(segments) > 0 {
		if set, key, found := strings.Cut(segments[0], "("); found {
			inner, closed := strings.CutSuffix(key, ")")
			if !closed {
				return nil
			}
			segments = append([]string{set, "(" + inner + ")"}, segments[1:]...)
		}
	}
	for i := range routes {
		r := &routes[i]
		if r.method != c.r.Method || len(r.path) != len(segments) {
			continue
		}
		c.params = nil
		for j, want := range r.path {
			if want == "*" {
				c.params = append(c.params, segments[j])
			} else if !strings.EqualFold(want, segments[j]) {
				c.params = nil
				break
			}
			if j == len(segments)-1 {
				return r
			}
		}
	}
	return nil
}
