package scenarios

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// checked runs a check from inside the network and returns what was found, by
// layer, and the exit status.
func checked(t *testing.T, s *covetest.Server, args ...string) (map[string]health.Result, int) {
	t.Helper()
	out, errs, status := s.Try(t, append([]string{"check-health", "-o", "json"}, args...)...)
	var report health.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("exit status %d, %v\n%s%s", status, err, out, errs)
	}
	found := map[string]health.Result{}
	for _, r := range report.Results {
		if r.Layer == health.LayerData {
			r.Layer += " " + r.Subject
		}
		found[r.Layer] = r
	}
	return found, status
}

// pushed puts a small image into myregistry from inside.
func pushed(t *testing.T, s *covetest.Server, image string) {
	t.Helper()
	dir := t.TempDir()
	layer := filepath.Join(dir, "layer.tar")
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", dir, "-cf", layer, "hello").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	crane := covetest.Crane(t)
	s.Cove(t, "join", "office/default", "--name", "pusher", "--userspace", "--", "sh", "-ec",
		crane+` auth login myregistry.cr.cove.internal -u myregistry -p "$1" && `+crane+` append -f `+layer+` -t myregistry.cr.cove.internal/`+image, "sh", s.Password(t, "myregistry"))
}

// A check is made by breaking the thing that it checks: each break is found at
// its layer, the layers before it stay good, and the command that the check
// prints puts it right again. row:51 row:88 row:107
func TestAHealthCheckFindsWhatIsBroken(t *testing.T) {
	s := joined(t)
	pushed(t, s, "hello:1")
	inside := []string{"myregistry", "--userspace", "office/default", "--image", "hello:1"}
	const (
		zone = "privatelink.cr.cove.internal"
		data = health.LayerData + " myregistry.local.data.cr.cove.internal"
	)
	good, status := checked(t, s, inside...)
	if status != 0 {
		t.Errorf("all is well, and the exit status is %d: %+v", status, good)
	}
	for _, layer := range []string{health.LayerName, health.LayerTLS, health.LayerManifest, health.LayerBlob, data} {
		if good[layer].Outcome != health.Passed {
			t.Errorf("%s: %+v", layer, good[layer])
		}
	}
	// From outside the same registry refuses, and says so with an id.
	outside, status := checked(t, s, "myregistry", "--resolver", s.Run.DNS[0], "--image", "hello:1")
	if r := outside[health.LayerName]; status != 1 || r.Outcome != health.Passed || !strings.Contains(r.Said, "(private)") && !strings.Contains(r.Said, "127.0.0.1") {
		t.Errorf("outside: exit status %d, %+v", status, r)
	}

	for _, broken := range []struct {
		name      string
		break_    []string
		layer     string
		code      reason.Code
		untouched string // a layer that the break does not reach
		mend      []string
	}{
		{
			"the record of the data endpoint is gone",
			[]string{"dns", "record", "remove", zone, "myregistry.local.data"},
			data, reason.PrivateNoRecord, health.LayerManifest,
			[]string{"dns", "record", "sync", "--private-endpoint", "pe"},
		},
		{
			"the record is another's address",
			[]string{"dns", "record", "add", zone, "myregistry", "10.0.0.77"},
			health.LayerName, reason.NameElsewhere, data,
			[]string{"dns", "record", "sync", "--private-endpoint", "pe"},
		},
		{
			"the link is gone",
			[]string{"dns", "link", "remove", zone, "office"},
			health.LayerName, reason.NamePublic, "",
			[]string{"dns", "link", "add", zone, "--vnet", "office"},
		},
		{
			"the connection is rejected",
			[]string{"private-endpoint", "reject", "pe", "--registry", "myregistry"},
			health.LayerChallenge, "COVE-NET-005", health.LayerTLS,
			[]string{"private-endpoint", "approve", "pe", "--registry", "myregistry"},
		},
	} {
		t.Run(broken.name, func(t *testing.T) {
			s.Cove(t, broken.break_...)
			found, status := checked(t, s, inside...)
			if status != 1 || found[broken.layer].Code != broken.code {
				t.Errorf("exit status %d, %s: %+v", status, broken.layer, found[broken.layer])
			}
			if l := broken.untouched; l != "" && found[l].Outcome != health.Passed {
				t.Errorf("%s: %+v", l, found[l])
			}
			if fix := found[broken.layer].Fix; broken.code != "COVE-NET-005" && fix != "cove "+strings.Join(broken.mend, " ") {
				t.Errorf("the check says to run %q", fix)
			}
			s.Cove(t, broken.mend...)
			if found, status := checked(t, s, inside...); status != 0 {
				t.Errorf("mended: exit status %d, %+v", status, found)
			}
		})
	}
	if out, errs, status := s.Try(t, "check-health", "myregistry", "--userspace", "office/default", "--image", "nothing:1"); status != 1 || !strings.Contains(out, "COVE-NAME-002") {
		t.Errorf("an image that is not there: exit status %d\n%s%s", status, out, errs)
	}
	// The members of the checks have gone with them.
	if got := s.Cove(t, "vnet", "show", "office", "-o", "json"); strings.Contains(got, "check-") {
		t.Errorf("a member of a check is left behind: %s", got)
	}
}

// A probe tries one layer and no more.
func TestAProbeTriesOneLayer(t *testing.T) {
	s := joined(t)
	out, errs, status := s.Try(t, "probe", "dns", "myregistry", "--userspace", "office/default", "-o", "json")
	var r health.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 {
		t.Fatalf("exit status %d: %v\n%s%s", status, err, out, errs)
	}
	for _, x := range r.Results {
		if x.Layer != health.LayerName && x.Layer != health.LayerData {
			t.Errorf("%+v", x)
		}
	}
	if _, errs, status := s.Try(t, "probe", "manifest", "myregistry"); status != 2 || !strings.Contains(errs, "--image") {
		t.Errorf("no image: exit status %d %s", status, errs)
	}
	if _, errs, status := s.Try(t, "probe", "smoke", "myregistry"); status != 2 || !strings.Contains(errs, "there is no probe") {
		t.Errorf("exit status %d %s", status, errs)
	}
}

// A client's error that never reached the registry is told apart by its words.
func TestAPastedErrorWithoutAnID(t *testing.T) {
	s := covetest.Start(t)
	out := s.Cove(t, "explain", `Error response from daemon: Get "https://myregistry.cr.cove.internal/v2/": dial tcp: lookup myregistry.cr.cove.internal on 127.0.0.53:53: no such host`)
	for _, want := range []string{"COVE-DNS-001", "next ", "cove check-health"} {
		if !strings.Contains(out, want) {
			t.Errorf("the explanation lacks %q:\n%s", want, out)
		}
	}
}

// A text's GUIDs are not all ids of decisions: where they lead to nothing, its
// words are what there is. Of a registry's refusal whose id the client has not
// printed the last ones of that registry are listed, each with the command that
// explains it, and none of another registry's.
func TestAPastedErrorWhoseIDIsNoDecisions(t *testing.T) {
	s := covetest.Start(t)
	for text, code := range map[string]reason.Code{
		"ERROR: AADSTS7000215: Invalid client id or client secret provided. Trace ID: 25f86f7c-1c88-4792-a2c4-661ef5f72abf Correlation ID: 25f86f7c-1c88-4792-a2c4-661ef5f72abf":                                                               reason.WrongCredential,
		"ERROR: The resource with name 'harbor' and type 'Microsoft.ContainerRegistry/registries' could not be found in subscription 'cove (37167e1a-eeaf-44e1-9329-8135c5632695)'.":                                                           reason.ManagerHasNone,
		"(AuthorizationFailed) The client '37167e1a-eeaf-44e1-9329-8135c5632695' does not have authorization to perform action 'Microsoft.ContainerRegistry/registries/read' over scope '/subscriptions/37167e1a-eeaf-44e1-9329-8135c5632695'": reason.ManagerRefuses,
	} {
		if out := s.Cove(t, "explain", text); !strings.Contains(out, string(code)+": ") {
			t.Errorf("%s is explained as\n%s", text, out)
		}
	}
	// An id alone is looked up and not guessed about.
	if _, errs, status := s.Try(t, "explain", "25f86f7c-1c88-4792-a2c4-661ef5f72abf"); status != 1 || !strings.Contains(errs, "no decision has the id 25f86f7c") {
		t.Errorf("exit status %d: %s", status, errs)
	}

	for _, name := range []string{"harbor", "granary"} {
		s.Cove(t, "registry", "create", name, "--public-network-enabled", "false")
		resp, err := s.Outside(t).Get("https://" + name + ".cr.cove.internal/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	text := "Error response from daemon: login attempt to https://harbor.cr.cove.internal/v2/ failed with status: 403 Forbidden"
	var got struct {
		Code   reason.Code
		Recent []struct {
			ID     string
			Reason reason.Code
		}
	}
	deadline := time.Now().Add(covetest.Wait)
	for len(got.Recent) == 0 && time.Now().Before(deadline) { // events are kept a moment later
		if err := json.Unmarshal([]byte(s.Cove(t, "explain", text, "-o", "json")), &got); err != nil {
			t.Fatal(err)
		}
	}
	if got.Code != reason.NetworkRefuses || len(got.Recent) != 1 || got.Recent[0].Reason != reason.PublicAccessOff {
		t.Fatalf("%+v", got)
	}
	if out := s.Cove(t, "explain", text); !strings.Contains(out, "cove explain "+got.Recent[0].ID+"\n") {
		t.Errorf("no command to go on with:\n%s", out)
	}
	if out := s.Cove(t, "explain", got.Recent[0].ID[:13]+"…"); !strings.Contains(out, "DENIED login at harbor.") { // as a table cuts it
		t.Error(out)
	}
}
