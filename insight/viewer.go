package insight

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// maxViewed bounds the registries that a viewer is given one by one. Whoever
// may read a whole subscription is given that.
const maxViewed = 2000

// ErrWorkspace is the failure of asking a workspace that is not there, or that
// the caller sees nothing of.
var ErrWorkspace = fault.Coded(fault.NotFound, "WorkspaceNotFoundError", "the workspace could not be found")

// Viewer says which events of registries at or below a scope a caller may
// read: all, where they may read the registries of the scope, else those of
// the registries that they may read. A scope that they see nothing of has no
// events for them, whether it exists or not.
func Viewer(ctx context.Context, s *resource.Service, by resource.Caller, scope arm.ID) (audit.Viewer, error) {
	if by.May == nil {
		return audit.Sees(), nil
	}
	if by.May(actionReadRegistry, scope) {
		if strings.EqualFold(scope.Type(), resource.TypeSubscription) {
			// Refusals that were of no registry are told to whoever sees the rest.
			return audit.Sees(scope.Key(), ""), nil
		}
		return audit.Sees(scope.Key()), nil
	}
	if strings.EqualFold(scope.Type(), typeRegistries) {
		return audit.Sees(), nil
	}
	var keys []string
	err := each(ctx, s, scope, typeRegistries, func(d resource.Doc) {
		if by.May(actionReadRegistry, d.ID) {
			keys = append(keys, d.ID.Key())
		}
	})
	if fault.Is(err, fault.NotFound) {
		err = nil
	}
	if len(keys) > maxViewed {
		return audit.Viewer{}, fault.Newf(fault.TooLarge, "you may read more than %d registries here one by one; ask about a resource group, or about one of them", maxViewed)
	}
	return audit.Sees(keys...), err
}

// each calls fn with the documents of a type below a scope.
func each(ctx context.Context, s *resource.Service, scope arm.ID, typ string, fn func(resource.Doc)) error {
	q := resource.ListQuery{Scope: scope, Type: typ, Want: func(d resource.Doc) bool {
		fn(d)
		return false
	}}
	for {
		page, err := s.List(ctx, q)
		if err != nil || page.Next == "" {
			return err
		}
		q.Token = page.Next
	}
}

// WorkspaceViewer says which events a caller may read through a workspace. Its
// id is a subscription's, which is a workspace of all registries in it, or the
// customerId of one that was made; that has the tables that settings send to
// it, for as many days as it says.
func WorkspaceViewer(ctx context.Context, s *resource.Service, by resource.Caller, id string, now time.Time) (audit.Viewer, error) {
	if at, err := arm.ParseID("/subscriptions/" + id); err == nil && at.Subscription() != "" {
		if found, err := s.Exists(ctx, at); err != nil {
			return audit.Viewer{}, err
		} else if found {
			return Viewer(ctx, s, by, at)
		}
	}
	var workspace *resource.Doc
	err := each(ctx, s, arm.ID{}, TypeWorkspaces, func(d resource.Doc) {
		if strings.EqualFold(text(d.Body, "properties.customerId"), id) {
			workspace = &d
		}
	})
	if err != nil || workspace == nil {
		return audit.Viewer{}, missing(err)
	}
	return viaWorkspace(ctx, s, by, *workspace, now)
}

// At is the viewer of a workspace by its resource id.
func At(ctx context.Context, s *resource.Service, by resource.Caller, id arm.ID, now time.Time) (audit.Viewer, error) {
	var workspace *resource.Doc
	err := each(ctx, s, id.GroupID(), TypeWorkspaces, func(d resource.Doc) {
		if d.ID.Equal(id) {
			workspace = &d
		}
	})
	if fault.Is(err, fault.NotFound) {
		err = nil
	}
	if err != nil || workspace == nil {
		return audit.Viewer{}, missing(err)
	}
	return viaWorkspace(ctx, s, by, *workspace, now)
}

func missing(err error) error {
	if err == nil {
		err = ErrWorkspace
	}
	return err
}

func viaWorkspace(ctx context.Context, s *resource.Service, by resource.Caller, workspace resource.Doc, now time.Time) (audit.Viewer, error) {
	if by.May == nil {
		return audit.Viewer{}, ErrWorkspace
	}
	all := by.May(actionQueryWorkspace, workspace.ID)
	v := audit.Viewer{Within: map[string][]string{}}
	sub := resource.SubscriptionID(workspace.ID.Subscription())
	err := each(ctx, s, sub, TypeSettings, func(d resource.Doc) {
		set, wrong := parseSetting(d)
		if len(wrong) > 0 || !strings.EqualFold(set.workspace, workspace.ID.String()) || !all && !by.May(actionReadRegistry, set.registry) {
			return
		}
		for _, t := range set.tables {
			if key := set.registry.Key(); !slices.Contains(v.Within[t], key) {
				v.Within[t] = append(v.Within[t], key)
			}
		}
	})
	if err == nil && !all && len(v.Within) == 0 && !by.May(TypeWorkspaces+"/read", workspace.ID) {
		err = ErrWorkspace // the same as for one that is not there
	}
	if n, ok := resource.Lookup(workspace.Body, "properties.retentionInDays").(json.Number); ok {
		if days, err := n.Int64(); err == nil {
			v.Since = now.Add(-time.Duration(days) * day)
		}
	}
	return v, err
}
