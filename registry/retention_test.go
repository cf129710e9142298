package registry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
)

// The policy has a task from the moment it is switched on; each pass looks at
// what is stored then and leaves one next; switched off it ends, and switched
// on again it counts from then.
func TestRetentionPolicy(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		harbor := registries + "harbor"
		set := func(policy string) (resource.Object, error) {
			r, err := w.try(harbor, `{"location":"westeurope","sku":{"name":"Premium"},"properties":{"policies":{"retentionPolicy":`+policy+`}}}`)
			return r.Body, err
		}
		must := func(o resource.Object, err error) resource.Object {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		for _, bad := range []string{`{"status":"enabled","days":366}`, `{"status":"enabled","days":-1}`, `{"status":"enabled","days":1.5}`, `{"status":"enabled","days":"x"}`, `{"status":"on"}`} {
			if _, err := set(bad); err == nil || !strings.Contains(err.Error(), "retentionPolicy") {
				t.Errorf("%s: %v", bad, err)
			}
		}
		if _, err := w.try(registries+"small", `{"location":"westeurope","sku":{"name":"Standard"},"properties":{"policies":{"retentionPolicy":{"status":"enabled"}}}}`); err == nil {
			t.Error("a Standard registry has a retention policy")
		}
		now := time.Now().Add(time.Second)
		pass := func() (windows []string) {
			t.Helper()
			list, err := db.Claim(t.Context(), []string{registry.RetentionTask}, 10, now, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			for _, each := range list {
				for range 2 { // as after a crash before its end was recorded
					err := registry.Retain(t.Context(), w.store, &task.Held{Task: each}, now, func(_ context.Context, doc resource.Doc, since, before time.Time) error {
						windows = append(windows, fmt.Sprintf("%s %v", doc.ID.Name(), now.Sub(before)))
						if since.After(now) || now.Sub(since) > time.Hour {
							t.Errorf("since %v", since)
						}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if err := db.Done(t.Context(), each, now); err != nil {
					t.Fatal(err)
				}
			}
			return windows
		}
		must(set(`{"status":"disabled","days":3}`))
		if got := pass(); got != nil {
			t.Errorf("switched off: %v", got)
		}
		shown := must(set(`{"status":"enabled","days":3}`))
		if when, _ := resource.Lookup(shown, "properties.policies.retentionPolicy.lastUpdatedTime").(string); when == "" {
			t.Error("it does not say when it was changed")
		}
		if got := fmt.Sprint(pass()); got != "[harbor 72h0m0s harbor 72h0m0s]" {
			t.Errorf("the first pass: %s", got)
		}
		if got := pass(); got != nil {
			t.Errorf("at once again: %v", got)
		}
		must(set(`{"status":"enabled","days":0}`))
		now = now.Add(registry.RetentionEvery)
		if got := fmt.Sprint(pass()); got != "[harbor 0s harbor 0s]" {
			t.Errorf("the second pass: %s", got)
		}
		must(set(`{"status":"disabled"}`))
		must(set(`{"status":"enabled"}`)) // the pass of before must not go on beside the new one
		now = now.Add(registry.RetentionEvery)
		if got := fmt.Sprint(pass()); got != "[harbor 168h0m0s harbor 168h0m0s]" {
			t.Errorf("after it was switched off and on: %s", got)
		}
		must(set(`{"status":"disabled"}`))
		now = now.Add(registry.RetentionEvery)
		if got := pass(); got != nil {
			t.Errorf("switched off: %v", got)
		}
	})
}
