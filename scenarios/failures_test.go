//go:build soak

package scenarios

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

//go:generate go test . -run ^TestRootPermissions$/^failures$ -write

// clients are the commands with which each client tries something. What stands
// in brackets is for a client that has credentials. docker, skopeo, podman and
// crane have them in their configuration, as after signing in.
var clients = map[string][]string{
	"login": {
		"docker login $HOST -u $USER -p $PASSWORD",
		"skopeo login $HOST -u $USER -p $PASSWORD",
		"podman login $HOST -u $USER -p $PASSWORD",
		"az acr login --name $NAME --username $USER --password $PASSWORD",
		"curl -u $USER:$PASSWORD https://$HOST/oauth2/token?service=$HOST&scope=repository:$REPO:pull",
	},
	"pull": {
		"docker pull $HOST/$REPO:1",
		"skopeo inspect docker://$HOST/$REPO:1",
		"podman pull $HOST/$REPO:1",
		"crane manifest $HOST/$REPO:1",
		"ctr images pull --snapshotter native [--user $USER:$PASSWORD ]$HOST/$REPO:1",
		"az acr repository show-tags --name $NAME --repository $REPO[ --username $USER --password $PASSWORD]",
		"curl [-u $USER:$PASSWORD ]https://$HOST/v2/$REPO/manifests/1",
	},
	"push": {
		"docker push $HOST/$REPO:2",
		"skopeo copy oci:$DIR/oci:1 docker://$HOST/$REPO:2",
		"podman push localhost/image:1 docker://$HOST/$REPO:2",
		"crane push $DIR/oci $HOST/$REPO:2",
		"ctr images push [--user $USER:$PASSWORD ]$HOST/$REPO:2 docker.io/library/image:1",
		"az acr repository untag --name $NAME --image $REPO:1[ --username $USER --password $PASSWORD]",
		"curl -X POST [-u $USER:$PASSWORD ]https://$HOST/v2/$REPO/blobs/uploads/",
	},
	"list": {
		"crane catalog $HOST",
		"az acr repository list --name $NAME[ --username $USER --password $PASSWORD]",
		"curl [-u $USER:$PASSWORD ]https://$HOST/v2/_catalog",
	},
}

// failure is a way to be refused. It is made for real, each client runs into
// it, and what it prints stands in testdata/failures.
type failure struct {
	name     string // of the file
	about    string // what is wrong, in a sentence
	try      string // what is tried, of clients
	registry string
	repo     string // "" is team/app
	user     string // names of variables; "" is nobody
	password string
	host     string            // "" is the registry's
	says     map[string]string // what commands must print whatever the file says, by their first words: texts that people search for
	spared   string            // the client that does not run into it
}

const (
	required   = "unauthorized: authentication required, visit https://aka.ms/acr/authorization for more information."
	badSecret  = "unauthorized: Invalid clientid or client secret."
	notKnown   = "unauthorized: Application not registered with AAD."
	azRequired = "authentication required, visit https://aka.ms/acr/authorization for more information."
	azNoToken  = "An error occurred: CONNECTIVITY_ACCESS_TOKEN_ERROR\nAccess to registry '$HOST' was denied. Response code: 401. Please try running 'az login' again to refresh permissions."
)

// says is what docker and the Azure CLI's commands for repositories must print.
func says(docker, az string) map[string]string {
	return map[string]string{"docker ": docker, "az acr repository ": az}
}

var allFailures = []failure{
	{
		name: "secret-wrong", about: "A service principal signs in with a secret that is not its own.",
		try: "login pull", registry: "alpha", user: "READER", password: "WRONG", says: says(badSecret, azNoToken),
	},
	{
		name: "secret-expired", about: "A service principal's secret has come to its end.",
		try: "login pull", registry: "alpha", user: "READER", password: "EXPIRED", says: says(badSecret, azNoToken),
	},
	{
		name: "entra-token", about: "The password is an access token for the Resource Manager.",
		try: "login pull", registry: "alpha", user: "READER", password: "ENTRA", says: says(badSecret, azNoToken),
	},
	{
		name: "user-unknown", about: "Nobody has the user name.",
		try: "login pull", registry: "alpha", user: "UNKNOWN", password: "WRONG", says: says(notKnown, azNoToken),
	},
	{
		name: "user-not-a-guid", about: "The user name is a client id without its hyphens.",
		try: "login pull", registry: "alpha", user: "BROKEN", password: "RIGHT", says: says("unauthorized: aad access token with sp failed client id must be guid", azNoToken),
	},
	{
		name: "no-role", about: "A service principal with the right secret has no role on the registry.",
		try: "login pull", registry: "alpha", user: "IDLE", password: "IDLEPASS", says: says(required, azNoToken),
	},
	{
		name: "admin-off", about: "The admin user is switched off.",
		try: "login pull", registry: "alpha", user: "ALPHA", password: "WRONG", says: says(required, azNoToken),
	},
	{
		name: "admin-wrong", about: "The admin user's password is wrong.",
		try: "login pull", registry: "commons", user: "COMMONS", password: "WRONG", says: says(required, azNoToken),
	},
	{
		name: "token-disabled", about: "A token of the registry is disabled.",
		try: "login pull", registry: "alpha", user: "DISABLED", password: "DISABLEDPASS", says: says(required, azNoToken),
	},
	{
		name: "token-expired", about: "The password of a token of the registry has come to its end.",
		try: "login pull", registry: "alpha", user: "ENDED", password: "ENDEDPASS", says: says(required, azNoToken),
	},
	{
		name: "another-registrys-token", about: "The password is what `az acr login --expose-token` printed for another registry.",
		try: "login pull", registry: "alpha", user: "NOBODY", password: "ELSEWHERE", says: says(required, azNoToken),
	},
	{
		name: "another-user-with-token", about: "The password is what `az acr login --expose-token` printed, with the registry's name as user name.",
		try: "login pull", registry: "alpha", user: "ALPHA", password: "HERE", says: says(required, azNoToken),
	},
	{
		name: "mode-switched", about: "The token was issued before the registry's permission mode was switched.",
		try: "login pull", registry: "switched", user: "NOBODY", password: "BEFORE", says: says(required, azNoToken),
	},
	{
		name: "capitals", about: "The login server is written with capitals.",
		try: "login pull", registry: "alpha", host: "ALPHA", user: "READER", password: "RIGHT", spared: "az",
		says: map[string]string{"docker login": "failed with status: 401 Unauthorized", "docker pull": "unauthorized: authentication required"},
	},
	{
		name: "no-credentials", about: "The client has not signed in.",
		try: "pull", registry: "alpha", says: says(required, azNoToken), spared: "az",
	},
	{
		name: "reader-pushes", about: "A service principal that may pull pushes.",
		try: "push", registry: "alpha", user: "READER", password: "RIGHT", says: says("unauthorized: authentication required", azRequired),
	},
	{
		name: "another-repository", about: "The condition of the role is for another repository.",
		try: "pull", registry: "bravo", repo: "team/other", user: "TEAM", password: "TEAMPASS", says: says("unauthorized: authentication required", azRequired),
	},
	{
		name: "no-lister", about: "A repository reader lists the repositories.",
		try: "list", registry: "bravo", user: "TEAM", password: "TEAMPASS", says: says("", azRequired),
	},
	{
		name: "anonymous-push", about: "Anonymous pull is on, and a client that has not signed in pushes.",
		try: "push", registry: "commons", says: says("unauthorized: authentication required", ""), spared: "az",
	},
	{
		name: "stale-credentials", about: "Anonymous pull is on, and the client has a credential that is not good any more.",
		try: "pull", registry: "commons", user: "READER", password: "WRONG", says: says(badSecret, azNoToken),
	},
	{
		name: "no-registry", about: "No registry has the name.",
		try: "login pull", registry: "nowhere", user: "READER", password: "RIGHT", says: says("no such host",
			"Could not connect to the registry login server '$HOST'. Please verify that the registry exists and the URL 'https://$HOST/v2/' is reachable from your environment."),
	},
	{
		name: "address", about: "No network rule admits the client's address.",
		try: "login pull", registry: "closed", user: "READER", password: "RIGHT", says: map[string]string{
			"docker login":      "login attempt to https://$HOST/v2/ failed with status: 403 Forbidden",
			"docker pull":       "denied: client with IP 'ADDRESS' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.",
			"az acr repository": "Looks like you don't have access to registry '$HOST'. To see configured firewall rules, run 'az acr show --query networkRuleSet --name $NAME'. To see if public network access is enabled, run 'az acr show --query publicNetworkAccess'.Please refer to https://aka.ms/acr/errors#connectivity_forbidden_error for more information.",
		},
	},
}

// row:62 row:64 row:65 row:67 row:68 row:69 row:71 row:72 row:77 row:79 row:83
// What each client prints in each failure stands in testdata/failures, word by
// word; what people search for is asserted besides.
func failures(t *testing.T, d *desk) {
	prepare(d)
	fallback(t, d)
	for _, f := range allFailures {
		t.Run(f.name, func(t *testing.T) {
			d.t, d.cli.t = t, t
			d.fails(f)
		})
	}
	d.t, d.cli.t = t, t
	files, err := os.ReadDir(filepath.Join("testdata", "failures"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.ContainsFunc(allFailures, func(f failure) bool { return f.name+".txt" == file.Name() }) {
			t.Errorf("testdata/failures/%s is no failure's", file.Name())
		}
	}
}

// prepare makes the registries and the identities.
func prepare(d *desk) {
	d.let("NOBODY", nobody)
	d.let("WRONG", "not-the-secret")
	d.let("UNKNOWN", "somebody")
	d.let("ALPHA", "alpha")
	d.let("COMMONS", "commons")
	for _, line := range []string{
		"cove registry create alpha", "cove registry create bravo", "cove registry create switched", "cove registry create closed --default-action Deny",
		"cove registry create commons --anonymous-pull-enabled --admin-enabled",
		"podman load --quiet --input $DIR/raw.tar", "ctr images import $DIR/raw.tar",
		// The engine has pushed no layer of this one before: it asks in another
		// order for those that it has.
		"docker import $DIR/raw.tar unseen:1",
	} {
		d.does(line)
	}
	registry := func(variable, name string) {
		d.sets(variable, "cove registry show "+name+" --query id --output tsv")
	}
	registry("A", "alpha")
	registry("B", "bravo")
	registry("S", "switched")
	registry("C", "closed")
	d.let("HOST", "")
	refresh := func(variable, name string) {
		d.sets(variable, "az acr login --name "+name+" --expose-token --query accessToken --output tsv")
	}
	for name, repos := range map[string][]string{"alpha": {"team/app"}, "bravo": {"team/app", "team/other"}, "switched": {"team/app"}, "commons": {"team/app"}} {
		refresh("HERE", name)
		as := d.sign(name+".cr."+d.domain, nobody, d.cli.vars["HERE"])
		for _, repo := range repos {
			if a := d.run("crane push $DIR/oci "+name+".cr."+d.domain+"/"+repo+":1", as...); a.Status != 0 {
				d.t.Fatalf("%s%s", a.Out, a.Err)
			}
		}
	}
	refresh("HERE", "alpha")
	refresh("ELSEWHERE", "bravo")
	refresh("BEFORE", "switched")
	d.does("cove registry update switched --role-assignment-mode rbac-abac")
	d.does("cove registry update bravo --role-assignment-mode rbac-abac")
	d.sets("ENTRA", "az account get-access-token --query accessToken --output tsv")

	alias := func(name, as, password string) {
		d.let(as, d.cli.vars[name+"_ID"])
		d.let(password, d.cli.vars[name+"_SECRET"])
	}
	d.principal("FAILING", "--role AcrPull --scopes $A $C")
	alias("FAILING", "READER", "RIGHT")
	d.let("BROKEN", strings.ReplaceAll(d.cli.vars["READER"], "-", ""))
	d.principal("IDLING", "")
	alias("IDLING", "IDLE", "IDLEPASS")
	d.principal("TEAMMATE", "")
	alias("TEAMMATE", "TEAM", "TEAMPASS")
	d.does(`az role assignment create --assignee-object-id $TEAMMATE_OBJECT --assignee-principal-type ServicePrincipal --role 'Container Registry Repository Reader' --scope $B` +
		` --condition-version 2.0 --condition "@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringEquals 'team/app'" --output none`)
	for name, variable := range map[string]string{"disabled-token": "DISABLED", "ended-token": "ENDED"} {
		d.let(variable, name)
		d.sets(variable+"PASS", "az acr token create --registry alpha --name "+name+" --scope-map _repositories_pull --query credentials.passwords[0].value --output tsv")
	}
	d.does("az acr token update --registry alpha --name disabled-token --status disabled --output none")
	d.let("SOON", time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))
	d.sets("ENDEDPASS", `az acr token credential generate --registry alpha --name ended-token --password1 --expiration $SOON --query "passwords[?name=='password1'].value" --output tsv`)
	d.sets("EXPIRED", "az ad sp credential reset --id $READER --append --end-date $SOON --query password --output tsv")
	for user, password := range map[string]string{"READER": "EXPIRED", "ENDED": "ENDEDPASS"} {
		d.until("unauthorized", "docker login alpha.cr."+d.domain+" -u $"+user+" -p $"+password)
	}
}

// fails runs a failure's commands and compares what they print.
func (d *desk) fails(f failure) {
	t := d.t
	host := f.registry
	if f.host != "" {
		host = f.host
	}
	repo := f.repo
	if repo == "" {
		repo = "team/app"
	}
	host += ".cr." + d.domain
	d.let("HOST", host)
	d.let("NAME", f.registry)
	d.let("REPO", repo)
	d.let("USER", d.cli.vars[f.user])
	d.let("PASSWORD", d.cli.vars[f.password])
	as := d.sign(host, d.cli.vars["USER"], d.cli.vars["PASSWORD"])
	if f.try == "push" {
		d.does("docker tag unseen:1 $HOST/$REPO:2")
	}
	fresh := strings.NewReplacer(d.domain, "DOMAIN", d.outside.address, "ADDRESS", d.outside.gateway, "SERVER", f.cut(d, f.user), "CLIENT")
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", f.about)
	for _, try := range strings.Fields(f.try) {
		for _, line := range clients[try] {
			program, _, _ := strings.Cut(line, " ")
			if program == f.spared {
				continue
			}
			if f.user == "" {
				line = bracketed.ReplaceAllString(line, "")
			}
			line = strings.NewReplacer("[", "", "]", "").Replace(line)
			env := as
			if try == "login" { // which must not put its credentials beside those that are tried later
				env = d.sign(host, "", "")
			}
			a := d.run(line, env...)
			out := fresh.Replace(progress.ReplaceAllString(normal(a.Out+"\n"+a.Err, d.dir), ""))
			if a.Status == 0 {
				t.Errorf("it succeeds: %s\n%s", line, out)
			}
			for words, text := range f.says {
				if want := d.cli.fill(text, strings.Clone); strings.HasPrefix(line, words) && !strings.Contains(out, fresh.Replace(want)) {
					t.Errorf("%s does not say %s\n%s", line, want, out)
				}
			}
			fmt.Fprintf(&b, "\n$ %s\n%sexit status %d\n", line, out, a.Status)
		}
	}
	golden(t, filepath.Join("testdata", "failures", f.name+".txt"), b.String())
}

// cut is a user name that is made anew each time; no text has the other.
func (f failure) cut(d *desk, user string) string {
	if v := d.cli.vars[user]; len(v) == 32 {
		return v
	}
	return "\x00"
}

// progress is what clients say of how far they have come.
var progress = regexp.MustCompile(`(?m)^(Getting image source|Copying|Writing manifest|elapsed:|(manifest|config|layer|index)-\S+:? ).*\n`)

var bracketed = regexp.MustCompile(`\[[^\]]*\]`)

// golden compares a text with a file's, or with -write writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *write {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if at, in, out := firstDifference(string(want), got); at > 0 {
		t.Errorf("%s:%d has\n%s\nand the client says\n%s\n`go generate ./scenarios` writes the file anew", name, at, in, out)
	}
}

// fallback is the Azure CLI's way from one credential to the next, where the
// network's refusal comes half way: the requests of one command leave by two
// addresses, of which a rule admits one.
func fallback(t *testing.T, d *desk) {
	const host = "closed.cr."
	d.does("cove network-rule add closed " + d.outside.gateway)
	var arrived int
	proxy := d.egress(func(name string) string {
		if !strings.HasPrefix(name, host) {
			return d.outside.gateway
		}
		if arrived++; arrived <= 2 {
			return d.outside.gateway
		}
		return d.inside.gateway
	})
	out, err := d.try(t, d.outside, "sh", "-c", `. "$0/az/env.sh" >/dev/null 2>&1; export HTTPS_PROXY="http://$1" PYTHONPATH="$2/az"; exec az acr login --name closed --expose-token </dev/null`, d.dir, proxy, here(t))
	if err == nil {
		t.Errorf("it succeeds: %s", out)
	}
	for _, want := range []string{
		"Unable to get AAD authorization tokens with message: ",
		" An error occurred: CONNECTIVITY_REFRESH_TOKEN_ERROR\nAccess to registry '" + host + d.domain + "' was denied. Response code: 403. Please try running 'az login' again to refresh permissions.\n",
		"Unable to get admin user credentials with message: Admin user is disabled.\n",
		"Unable to authenticate using AAD or admin login credentials. Please specify both username and password in non-interactive mode.\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("az does not say\n%s\nbut\n%s", want, out)
		}
	}
	d.does("cove network-rule remove closed " + d.outside.gateway)
}

// egress is a proxy whose connections leave by the address that from chooses
// for a host's name.
func (d *desk) egress(from func(name string) string) (address string) {
	d.t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(d.outside.gateway, "0"))
	if err != nil {
		d.t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := net.SplitHostPort(r.Host)
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from(name))}}
		up, err := dialer.DialContext(r.Context(), "tcp", net.JoinHostPort(d.outside.gateway, "443"))
		if err != nil || r.Method != http.MethodConnect {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		defer up.Close()
		w.WriteHeader(http.StatusOK)
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		ended := make(chan struct{}, 2)
		for _, way := range [][2]net.Conn{{up, down}, {down, up}} {
			go func() {
				_, _ = io.Copy(way[0], way[1])
				ended <- struct{}{}
			}()
		}
		<-ended
	}), ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(ln)
	d.t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return ln.Addr().String()
}
