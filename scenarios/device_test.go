package scenarios

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// newPerson makes a user with a role at the subscription, by REST.
func newPerson(t *testing.T, s *covetest.Server, upn, password, role string) {
	t.Helper()
	admin := administrator(t, s)
	status, user := send(t, s, http.MethodPost, "https://graph.cove.internal/v1.0/users", issued(t, s, admin, "https://graph.cove.internal"),
		`{"accountEnabled":true,"displayName":"Alice","mailNickname":"alice","userPrincipalName":"`+upn+`","passwordProfile":{"password":"`+password+`"}}`)
	if status != http.StatusCreated {
		t.Fatalf("%d %v", status, user)
	}
	s.Cove(t, "role", "assign", user["id"].(string), role)
}

// answerCode is a person at a browser who types a code, a name and a password.
func answerCode(t *testing.T, s *covetest.Server, page, code, upn, password string) string {
	t.Helper()
	client := s.Outside(t)
	var err error
	if client.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	read := func(resp *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	form := regexp.MustCompile(`name="form" value="([^"]+)"`)
	text := read(client.Get(page))
	for _, fields := range []url.Values{{"code": {code}}, {"code": {code}, "answer": {"approve"}, "username": {upn}, "password": {password}}} {
		m := form.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no form in\n%s", text)
		}
		fields.Set("form", m[1])
		text = read(client.PostForm(page, fields))
	}
	return text
}

// `az login --use-device-code`: az shows a page and a code, a person goes there,
// and az goes on in that person's name, for as long as it is refreshed.
func TestRootAzWithADeviceCode(t *testing.T) {
	t.Parallel()
	s := covetest.Start(t)
	dir := t.TempDir()
	s.Cove(t, "registry", "create", "harbor", "--sku", "Premium")
	newPerson(t, s, "alice@cove.internal", "correct horse", "Reader")
	s.Cove(t, "az", "--out", filepath.Join(dir, "az"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ec", `
		. "$0/az/env.sh"
		export PYTHONPATH="$1/az"
		say() { echo "$1: $2"; }
		az login --use-device-code --output none
		say signed-in "$(az ad signed-in-user show --query userPrincipalName -o tsv) $(az acr show -n harbor --query name -o tsv)"
		az group create -n g -l local --output none || say group "no"`, dir, here(t))
	cmd.Env = s.Env("HOME=" + dir)
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asks := regexp.MustCompile(`open the page (\S+) and enter the code (\S+) to`)
	var errs strings.Builder
	signed := false
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		errs.WriteString(lines.Text() + "\n")
		if m := asks.FindStringSubmatch(lines.Text()); m != nil {
			signed = true
			if text := answerCode(t, s, m[1], m[2], "alice@cove.internal", "correct horse"); !strings.Contains(text, "You have signed in to Azure CLI") {
				t.Errorf("the page says\n%s", text)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !signed {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	for _, want := range []string{"signed-in: alice@cove.internal harbor\n", "group: no\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s%s", want, out.String(), errs.String())
		}
	}
}
