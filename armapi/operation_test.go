package armapi_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
)

const importBody = `{"source":{"registryUri":"registry.example.com","sourceImage":"team/app:1"},"mode":"NoForce","targetTags":["team/app:1"]}`

// work does the one import that is due with fn, as the server's runner would.
func (s *site) work(fn func(context.Context, *resource.Progress) (resource.Object, error)) {
	s.t.Helper()
	list, err := s.db.Claim(s.t.Context(), []string{registry.ImportTask}, 10, time.Now(), time.Minute)
	if err != nil || len(list) != 1 {
		s.t.Fatalf("due: %v, %v", list, err)
	}
	ops := resource.Operations{Store: store.NewResources(s.db)}
	if err := ops.Handler(fn)(s.t.Context(), &task.Held{Task: list[0]}); err != nil {
		s.t.Fatal(err)
	}
}

// path is a link of an answer without its host, which must be the configured
// one: the caller's token goes where the link points.
func (s *site) path(link string) string {
	s.t.Helper()
	path, ok := strings.CutPrefix(link, "https://management.cove.internal")
	if !ok || !strings.Contains(path, "api-version=") {
		s.t.Fatalf("the link %q", link)
	}
	return path
}

// An operation is told in both of ARM's ways, from 202 to its end, to those
// who may read what it is about and to nobody else.
func TestOperationIsPolledInBothWays(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.do("owner", http.MethodPut, group+version, `{"location":"eastus"}`)
		s.do("owner", http.MethodPut, harbor+version, premium)
		begun := s.do("owner", http.MethodPost, harbor+"/importimage"+version, importBody)
		if begun.StatusCode != http.StatusAccepted || begun.text != "" || begun.Header.Get("Retry-After") != "1" {
			t.Fatalf("%s %v %s", begun.Status, begun.Header, begun.text)
		}
		status, result := s.path(begun.Header.Get("Azure-AsyncOperation")), s.path(begun.Header.Get("Location"))
		if !strings.HasPrefix(status, sub+"/providers/Microsoft.ContainerRegistry/locations/eastus/operationStatuses/") {
			t.Errorf("at %s", status)
		}
		for _, who := range []string{"owner", "reader"} {
			a := s.do(who, http.MethodGet, status, "")
			if a.StatusCode != http.StatusOK || a.body["status"] != "Running" || a.Header.Get("Retry-After") != "1" || a.body["resourceId"] != harbor {
				t.Errorf("%s while it runs: %s %s", who, a.Status, a.text)
			}
			if a := s.do(who, http.MethodGet, result, ""); a.StatusCode != http.StatusAccepted || a.Header.Get("Retry-After") != "1" || s.path(a.Header.Get("Location")) == "" {
				t.Errorf("%s by Location: %s %s", who, a.Status, a.text)
			}
		}
		missing := s.do("owner", http.MethodGet, strings.Replace(status, "operationStatuses/", "operationStatuses/x", 1), "")
		for _, who := range []string{"stranger", "clerk"} {
			for _, at := range []string{status, result} {
				if a := s.do(who, http.MethodGet, at, ""); a.StatusCode != http.StatusNotFound || a.text != missing.text {
					t.Errorf("%s: %s %s, of one that does not exist %s", who, a.Status, a.text, missing.text)
				}
			}
		}
		if a := s.do("", http.MethodGet, status, ""); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("nobody: %s", a.Status)
		}
		for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPost} {
			if a := s.do("owner", method, status, `{}`); a.StatusCode < 400 {
				t.Errorf("%s: %s", method, a.Status)
			}
		}
		s.work(func(context.Context, *resource.Progress) (resource.Object, error) {
			return resource.Object{"digest": "sha256:1"}, nil
		})
		if a := s.do("reader", http.MethodGet, status, ""); a.body["status"] != "Succeeded" || fmt.Sprint(a.body["percentComplete"]) != "100" || a.Header.Get("Retry-After") != "" {
			t.Errorf("done: %s", a.text)
		}
		if a := s.do("reader", http.MethodGet, result, ""); a.StatusCode != http.StatusOK || a.body["digest"] != "sha256:1" {
			t.Errorf("its result: %s %s", a.Status, a.text)
		}
		if a := s.do("owner", http.MethodPost, harbor+"/importImage"+version, ""); a.StatusCode != http.StatusBadRequest {
			t.Errorf("without a body: %s", a.Status)
		}
	})
}

func TestOperationThatFailsSaysWhyInBothWays(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.do("owner", http.MethodPut, group+version, `{"location":"eastus"}`)
		s.do("owner", http.MethodPut, harbor+version, premium)
		begun := s.do("owner", http.MethodPost, harbor+"/importImage"+version, importBody)
		s.work(func(context.Context, *resource.Progress) (resource.Object, error) {
			return nil, fault.Coded(fault.Invalid, "SourceNotFound", "the source registry does not have the image")
		})
		a := s.do("owner", http.MethodGet, s.path(begun.Header.Get("Azure-AsyncOperation")), "")
		if failure, _ := a.body["error"].(resource.Object); a.StatusCode != http.StatusOK || a.body["status"] != "Failed" || failure["code"] != "SourceNotFound" {
			t.Errorf("%s %s", a.Status, a.text)
		}
		a = s.do("owner", http.MethodGet, s.path(begun.Header.Get("Location")), "")
		if failure, _ := a.body["error"].(resource.Object); a.StatusCode != http.StatusConflict || failure["message"] != "the source registry does not have the image" {
			t.Errorf("%s %s", a.Status, a.text)
		}
		if a := s.do("reader", http.MethodPost, harbor+"/importImage"+version, importBody); a.StatusCode != http.StatusForbidden || !strings.Contains(a.text, "Microsoft.ContainerRegistry/registries/importImage/action") {
			t.Errorf("who may only read: %s %s", a.Status, a.text)
		}
	})
}
