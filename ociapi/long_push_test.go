package ociapi

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// A push takes longer than its token lives. The refusal says that the token's
// time is over, and nothing that was sent is lost: with a new token, which
// clients get by themselves, the same upload goes on and is finished. A token
// for another repository does not carry it on. row:103
func TestATokenEndsDuringALongPush(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := newRealm(t, db)
		r.fatal(policy.Grant(t.Context(), store.NewResources(db), r.client.ObjectID, policy.RoleAcrPush, arm.MustID(r.id)))
		buy := func(repo string) string {
			raw, got := r.login(r.client.AppID, r.secret, "repository:"+repo+":pull,push")
			r.want("a token for "+repo, got.StatusCode, http.StatusOK)
			return "Bearer " + raw
		}
		first := buy("team/app")
		begun := r.do(http.MethodPost, "/v2/team/app/blobs/uploads/", nil, "Authorization", first)
		r.want("the upload begins", begun.StatusCode, http.StatusAccepted)
		at := begun.Header.Get("Location")
		send := func(authority, part string) reply {
			u, err := url.Parse(at)
			r.fatal(err)
			got := r.do(http.MethodPatch, u.RequestURI(), strings.NewReader(part), "Authorization", authority, "Content-Type", "application/octet-stream")
			if got.StatusCode == http.StatusAccepted {
				at = got.Header.Get("Location")
			}
			return got
		}
		r.want("the first part", send(first, "one ").StatusCode, http.StatusAccepted)
		r.pass(76*time.Minute + time.Second) // 75 minutes, and what is tolerated
		r.log.take()
		r.want("the second part, with the old token", send(first, "two").StatusCode, http.StatusUnauthorized)
		events := r.log.take()
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		e, err := access.Explain(events[0])
		r.fatal(err)
		if e.Reason != reason.TokenExpired || len(e.Evidence) != 1 || !strings.Contains(e.Evidence[0], "the token has expired") || !strings.Contains(e.Next, "75 minutes") {
			t.Errorf("%s, %q, %s", e.Reason, e.Evidence, e.Next)
		}
		for _, s := range e.Steps {
			if (s.Reason != "") != (s.Name == "sign-in") {
				t.Errorf("the step %s has the reason %q", s.Name, s.Reason)
			}
		}
		r.want("with a token for another repository", send(buy("other"), "two").StatusCode, http.StatusUnauthorized)
		fresh := buy("team/app")
		r.want("the second part, with a new token", send(fresh, "two").StatusCode, http.StatusAccepted)
		u, err := url.Parse(at)
		r.fatal(err)
		q := u.Query()
		q.Set("digest", fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("one two"))))
		u.RawQuery = q.Encode()
		r.want("the end", r.do(http.MethodPut, u.RequestURI(), nil, "Authorization", fresh).StatusCode, http.StatusCreated)
	})
}
