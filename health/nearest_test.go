package health

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"cove.example/cove/reason"
)

// Of an image that is not there the nearest is named that this caller may pull,
// and none that it may not, however near.
func TestTheNearestImage(t *testing.T) {
	for _, c := range []struct {
		asked, want string
		catalog     bool // the caller may list repositories
	}{
		{"team/app:1.44", "team/app:1.4", false},
		{"team/ap:1.3", "team/app:1.3", true},
		{"team/ap:latest", "team/app:1.3", true}, // as near as 1.4, and before it
		{"team/ap:1.3", "", false},
		{"team/secrets:1", "", true}, // nearer to team/secret, which may be listed and not pulled
		{"somewhere/else:1", "", true},
	} {
		l := newLab(t)
		l.c.Target.Repository, l.c.Target.Reference, _ = strings.Cut(c.asked, ":")
		l.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "" || r.URL.Path == "/token" {
				return false
			}
			switch r.URL.Path {
			case "/v2/_catalog":
				if !c.catalog {
					problem(w, 401, "UNAUTHORIZED", "authentication required", nil)
					return true
				}
				json.NewEncoder(w).Encode(map[string]any{"repositories": []string{"team/app", "team/secret", "team/app/../x", "zoo"}})
			case "/v2/team/app/tags/list":
				json.NewEncoder(w).Encode(map[string]any{"tags": []string{"1.3", "1.4", "no tag"}})
			case "/v2/team/app/manifests/1.3", "/v2/team/app/manifests/1.4":
				return false
			case "/v2/team/secret/tags/list":
				json.NewEncoder(w).Encode(map[string]any{"tags": []string{"1"}})
			case "/v2/team/secret/manifests/1":
				problem(w, 401, "UNAUTHORIZED", "authentication required", nil)
			default:
				problem(w, 404, "MANIFEST_UNKNOWN", "manifest unknown", nil)
			}
			return true
		}
		r := l.run()[LayerManifest]
		want := ""
		if c.want != "" {
			want = "ask for " + l.c.Target.Host + "/" + c.want
		}
		if r.Code != reason.ImageUnknown || r.Fix != want {
			t.Errorf("%s: %+v, want %q", c.asked, r, want)
		}
	}
}
