package health

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/agnivade/levenshtein"

	"cove.example/cove/oci"
)

const (
	maxListed  = 1000 // names in one list, which is one request
	maxNearest = 3    // repositories that are looked into
)

// nearest is the image that was most likely meant by one that is not there,
// "" where nothing is near. Everything is asked with the credential of the
// check, and what is named has answered to it: nobody learns here of an image
// that they may not pull.
func (a *asker) nearest(ctx context.Context) string {
	tag := a.c.Target.Reference
	if _, err := oci.ParseTag(tag); err != nil {
		return "" // nothing is near a digest
	}
	if found := a.tagged(ctx, a.c.Target.Repository, tag); found != "" {
		return found
	}
	of := a.c.Target.Repository
	repositories := a.listed(ctx, "/v2/_catalog", "registry:catalog:*")
	repositories = slices.DeleteFunc(repositories, func(name string) bool {
		_, err := oci.ParseRepo(name)
		return err != nil || name == of || levenshtein.ComputeDistance(name, of) > 2+len(of)/4
	})
	slices.SortStableFunc(repositories, func(x, y string) int { return levenshtein.ComputeDistance(x, of) - levenshtein.ComputeDistance(y, of) })
	for _, name := range repositories[:min(len(repositories), maxNearest)] {
		if found := a.tagged(ctx, name, tag); found != "" {
			return found
		}
	}
	return ""
}

// tagged is the image of a repository whose tag is nearest to one, "" where the
// caller may not read it.
func (a *asker) tagged(ctx context.Context, repository, tag string) string {
	tags := a.listed(ctx, "/v2/"+repository+"/tags/list", "repository:"+repository+":pull,metadata_read")
	tags = slices.DeleteFunc(tags, func(name string) bool {
		_, err := oci.ParseTag(name)
		return err != nil
	})
	if len(tags) == 0 {
		return ""
	}
	near := slices.MinFunc(tags, func(x, y string) int {
		return levenshtein.ComputeDistance(x, tag) - levenshtein.ComputeDistance(y, tag)
	})
	t, ok := a.tokenFor(ctx, "repository:"+repository+":pull")
	if !ok {
		return ""
	}
	x, err := a.do(ctx, http.MethodHead, a.base+"/v2/"+repository+"/manifests/"+near, a.headers(t, manifestTypes), nil, 0)
	if err != nil || x.status != http.StatusOK {
		return ""
	}
	return repository + ":" + near
}

// listed reads one page of a list of names, none where it is refused.
func (a *asker) listed(ctx context.Context, path, scope string) []string {
	t, ok := a.tokenFor(ctx, scope)
	if !ok {
		return nil
	}
	x, err := a.do(ctx, http.MethodGet, a.base+path+"?n=1000", a.headers(t, ""), nil, maxAnswer)
	var list struct {
		Repositories []string `json:"repositories"`
		Tags         []string `json:"tags"`
	}
	if err != nil || x.status != http.StatusOK || json.Unmarshal(x.body, &list) != nil {
		return nil
	}
	all := slices.Concat(list.Repositories, list.Tags)
	return all[:min(len(all), maxListed)]
}
