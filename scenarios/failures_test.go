package scenarios

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

//go:generate go test . -run ^TestRootFailures$ -write

// clients are the commands with which each client tries something. What stands
// in brackets is for a client that has credentials. docker, skopeo, podman,
// crane and helm have them in their configuration, as after signing in.
// PullImage is no command: it is what a kubelet asks containerd for.
var clients = map[string][]string{
	"login": {
		"docker login $HOST -u $USER -p $PASSWORD",
		"skopeo login $HOST -u $USER -p $PASSWORD",
		"podman login $HOST -u $USER -p $PASSWORD",
		"helm registry login $HOST -u $USER -p $PASSWORD",
		"az acr login --name $NAME --username $USER --password $PASSWORD",
		"curl -u $USER:$PASSWORD https://$HOST/oauth2/token?service=$HOST&scope=repository:$REPO:pull",
	},
	"pull": {
		"docker pull $HOST/$REPO$AT",
		"skopeo copy docker://$HOST/$REPO$AT dir:$DIR/copied",
		"podman pull $HOST/$REPO$AT",
		"crane pull $HOST/$REPO$AT $DIR/pulled.tar",
		"helm pull oci://$HOST/$REPO --version $VERSION",
		"ctr images pull --snapshotter native [--user $USER:$PASSWORD ]$HOST/$REPO$AT",
		"PullImage $HOST/$REPO$AT[ $USER $PASSWORD]",
		"az acr repository show --name $NAME --image $REPO$AT[ --username $USER --password $PASSWORD]",
		"curl [-u $USER:$PASSWORD ]https://$HOST/v2/$REPO/manifests/$REFERENCE",
	},
	"push": {
		"docker push $HOST/$REPO:2",
		"skopeo copy oci:$DIR/oci:1 docker://$HOST/$REPO:2",
		"podman push localhost/image:1 docker://$HOST/$REPO:2",
		"crane push $DIR/oci $HOST/$REPO:2",
		"helm push $DIR/app-2.0.0.tgz oci://$HOST/$ABOVE",
		"ctr images push [--user $USER:$PASSWORD ]$HOST/$REPO:2 docker.io/library/image:1",
		"az acr repository untag --name $NAME --image $REPO:1[ --username $USER --password $PASSWORD]",
		"curl -X PUT [-u $USER:$PASSWORD ]-H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @$DIR/manifest.json https://$HOST/v2/$REPO/manifests/2",
	},
	"hurry": {
		"docker push $HOST/$REPO:2",
		"ctr images push --user $USER:$PASSWORD $HOST/$REPO:2 docker.io/library/image:1",
		"curl -X POST -u $USER:$PASSWORD https://$HOST/v2/$REPO/blobs/uploads/",
	},
	"delete": {
		"skopeo delete docker://$HOST/$REPO:1",
		"crane delete $HOST/$REPO@$DIGEST",
		"az acr repository delete --name $NAME --image $REPO:1 --yes --username $USER --password $PASSWORD",
		"curl -X DELETE -u $USER:$PASSWORD https://$HOST/v2/$REPO/manifests/$DIGEST",
	},
	"list": {
		"crane catalog $HOST",
		"az acr repository list --name $NAME[ --username $USER --password $PASSWORD]",
		"curl [-u $USER:$PASSWORD ]https://$HOST/v2/_catalog",
	},
	"layer": {
		"docker pull $HOST/$REPO$AT",
		"skopeo copy docker://$HOST/$REPO$AT dir:$DIR/copied",
		"podman pull $HOST/$REPO$AT",
		"crane pull $HOST/$REPO$AT $DIR/pulled.tar",
		"ctr images pull --snapshotter native --user $USER:$PASSWORD $HOST/$REPO$AT",
		"PullImage $HOST/$REPO$AT $USER $PASSWORD",
		"curl -u $USER:$PASSWORD https://$HOST/v2/$REPO/blobs/$LAYER",
	},
	"follow": {
		"curl --location-trusted -u $USER:$PASSWORD https://$HOST/v2/$REPO/blobs/$LAYER",
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
	at       string // the tag or digest that is pulled; "" is :1
	user     string // names of variables; "" is nobody
	password string
	host     string            // "" is the registry's
	says     map[string]string // what commands must print whatever the file says, by their first words: texts that people search for
	spared   string            // clients that do not run into it
	forged   bool              // a terminator stands in the way; see forge
	inside   string            // what breaks the registry's private endpoint, which is tried from its network; see fails
	before   func(*desk)       // is called before each command; nil is nothing
}

const (
	required   = "unauthorized: authentication required, visit https://aka.ms/acr/authorization for more information."
	badSecret  = "unauthorized: Invalid clientid or client secret."
	notKnown   = "unauthorized: Application not registered with AAD."
	azRequired = "authentication required, visit https://aka.ms/acr/authorization for more information."
	// disallowed is the whole of it (source: the documentation's questions).
	disallowed     = "The operation is disallowed on this registry, repository or image. View troubleshooting steps at https://aka.ms/acr/faq/#why-does-my-pull-or-push-request-fail-with-disallowed-operation"
	disallowedCode = `"code":"REGISTRY_DISALLOWED_OPERATION"`
	// engines are on the host outside alone; TestRootKubeletPulls has one inside.
	engines   = "docker ctr PullImage az"
	azNoToken = "An error occurred: CONNECTIVITY_ACCESS_TOKEN_ERROR\nAccess to registry '$HOST' was denied. Response code: 401. Please try running 'az login' again to refresh permissions."
)

// says is what docker and the Azure CLI's commands for repositories must print.
func says(docker, az string) map[string]string {
	return map[string]string{"docker ": docker, "az acr repository ": az}
}

// throttled comes last, when the server runs with a hundredth of its limits.
var throttled = failure{
	name: "throttled", about: "The identity has used up what it may write in a minute. The other clients wait, try again, and go on.",
	try: "hurry", registry: "small", user: "SMALL", password: "SMALLPASS", before: (*desk).exhaust,
	says: map[string]string{
		"docker ": "toomanyrequests: Identity small exceeded the per-identity DataplaneWrite rate limit of 10 requests in a 60 second window.",
		"curl ":   `{"errors":[{"code":"TOOMANYREQUESTS","message":"Identity small exceeded the per-identity DataplaneWrite rate limit of 10 requests in a 60 second window.`,
	},
}

// understood is what the texts of a failure are, to a reader who has no more
// than them. A failure that does not stand here is one of signing in or of
// rights: clients do not tell the two apart.
var understood = map[string]reason.Code{
	"address": reason.NetworkRefuses, "public-access-off": reason.NetworkRefuses, "private-endpoints-only": reason.NetworkRefuses, "endpoint-rejected": reason.NetworkRefuses,
	"no-registry": reason.NameUnknown, "no-host": reason.NameUnknown, "record-missing": reason.NameUnknown,
	"certificate-ended": reason.CertificateTime, "certificate-of-strangers": reason.AuthorityUnknown, "certificate-of-another-name": reason.CertificateName,
	"privatelink-name": reason.PrivateName, "layer-with-credential": reason.ForeignCredential, "throttled": reason.Throttled,
	"locked-read": reason.LockForbids, "locked-write": reason.LockForbids, "locked-delete": reason.LockForbids,
	"no-tag": reason.ImageUnknown, "no-digest": reason.ImageUnknown, "no-repository": reason.ImageUnknown, "no-layer": reason.LayerGone, "name-invalid": reason.NameInvalid,
}

// What each client printed in each failure is enough for `cove explain` to know
// the cause, where the text carries no id.
func TestWhatClientsPrintIsUnderstood(t *testing.T) {
	for _, f := range append(allFailures, throttled) {
		for _, shown := range strings.Split(read(t, filepath.Join("testdata", "failures", f.name+".txt")), "\n$ ")[1:] {
			command, said, _ := strings.Cut(shown, "\n")
			said = said[:strings.LastIndex(said, "exit status")]
			m, ok := health.Symptom(said)
			want := understood[f.name]
			switch {
			case strings.HasPrefix(said, "Could not connect to the registry login server"), strings.Contains(said, "\nCould not connect to the registry login server"):
				want = reason.NoChallenge // az says no more than this
			case strings.Contains(said, "server misbehaving"):
				want = reason.ResolverFails // REFUSED, since the name is nobody's
			case strings.Contains(said, "failed to fetch anonymous token"):
				want = reason.NoCredential
			case want == "" && m.Code == reason.TokenLacks:
				continue
			case want == "":
				want = reason.SignInRefused
			}
			if !ok || m.Code != want {
				t.Errorf("%s: %s is %q, not %s:\n%s", f.name, command, m.Code, want, said)
			}
		}
	}
}

// refusedByNetwork is the same for an address and for public access that is off.
var refusedByNetwork = map[string]string{
	"docker login":      "login attempt to https://$HOST/v2/ failed with status: 403 Forbidden",
	"docker pull":       "denied: client with IP 'ADDRESS' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.",
	"az acr repository": "Looks like you don't have access to registry '$HOST'. To see configured firewall rules, run 'az acr show --query networkRuleSet --name $NAME'. To see if public network access is enabled, run 'az acr show --query publicNetworkAccess'.Please refer to https://aka.ms/acr/errors#connectivity_forbidden_error for more information.",
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
		name: "deleter-missing", about: "A service principal that may pull deletes.",
		try: "delete", registry: "alpha", user: "READER", password: "RIGHT", says: says("", azRequired),
	},
	{
		name: "no-tag", about: "No image of the repository has the tag.",
		try: "pull", registry: "commons", at: ":9", user: "COMMONS", password: "ADMIN",
		says: map[string]string{"docker ": `manifest tagged by "9" is not found`, "az acr repository ": "the specified tag does not exist", "curl ": `"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"9\" is not found`},
	},
	{
		name: "no-digest", about: "No image of the repository has the digest.",
		try: "pull", registry: "commons", at: "@sha256:" + strings.Repeat("0", 64), user: "COMMONS", password: "ADMIN", spared: "helm",
		says: map[string]string{"curl ": "MANIFEST_UNKNOWN"},
	},
	{
		name: "no-repository", about: "The registry has no such repository.",
		try: "pull", registry: "commons", repo: "team/apii", user: "COMMONS", password: "ADMIN",
		says: map[string]string{"curl ": "MANIFEST_UNKNOWN"},
	},
	{
		name: "no-layer", about: "A layer of the image has been deleted; its manifest has not.",
		try: "layer", registry: "commons", repo: "team/torn", user: "COMMONS", password: "ADMIN",
		says: map[string]string{"curl ": "BLOB_UNKNOWN"},
	},
	{
		name: "name-invalid", about: "The repository's name has capitals.",
		try: "pull", registry: "commons", repo: "Team/App", user: "COMMONS", password: "ADMIN", spared: "az", // which tries again for 15 s
		says: map[string]string{"docker ": "repository name must be lowercase", "curl ": "NAME_INVALID"},
	},
	{
		name: "locked-read", about: "The repository is locked against reading.",
		try: "pull", registry: "commons", repo: "unread/app", user: "COMMONS", password: "ADMIN", spared: "az",
		says: map[string]string{"docker ": "unknown: " + disallowed, "curl ": disallowedCode},
	},
	{
		name: "locked-write", about: "The repository is locked against writing.",
		try: "push", registry: "commons", repo: "fixed/app", user: "COMMONS", password: "ADMIN",
		says: map[string]string{"docker ": "unknown: " + disallowed, "az acr repository ": disallowed, "curl ": disallowedCode},
	},
	{
		name: "locked-delete", about: "The repository is locked against deletion.",
		try: "delete", registry: "commons", repo: "kept/app", user: "COMMONS", password: "ADMIN",
		says: map[string]string{"az acr repository ": disallowed, "curl ": disallowedCode},
	},
	{
		name: "layer-with-credential", about: "The client takes the registry's credential along to the data endpoint.",
		try: "follow", registry: "sealed", user: "SEALED", password: "SEALEDPASS",
		says: map[string]string{"curl ": "<Code>InvalidAuthenticationInfo</Code>"},
	},
	{
		name: "no-registry", about: "No registry has the name.",
		try: "login pull", registry: "nowhere", user: "READER", password: "RIGHT", says: says("no such host",
			"Could not connect to the registry login server '$HOST'. Please verify that the registry exists and the URL 'https://$HOST/v2/' is reachable from your environment."),
	},
	{
		name: "no-host", about: "The host is none of the server's.",
		try: "login pull", registry: "nowhere", host: "elsewhere.example", user: "READER", password: "RIGHT", says: map[string]string{"docker ": "lookup elsewhere.example"}, spared: "az",
	},
	{
		name: "privatelink-name", about: "The login server is written by its private name, which is for DNS alone.",
		try: "login pull", registry: "sealed", host: "sealed.privatelink.cr", user: "READER", password: "RIGHT", says: map[string]string{"docker ": "x509: certificate is valid for sealed.cr.$DOMAIN, not $HOST"}, spared: "az",
	},
	{
		name: "certificate-ended", about: "What terminates TLS before the registry has a certificate that has come to its end.",
		try: "login pull", registry: "alpha", user: "READER", password: "RIGHT", forged: true,
		says: map[string]string{"docker ": "x509: certificate has expired or is not yet valid", "curl ": "certificate has expired"},
	},
	{
		name: "certificate-of-strangers", about: "What terminates TLS before the registry has a certificate of an authority that the client does not know.",
		try: "login pull", registry: "bravo", user: "READER", password: "RIGHT", forged: true,
		says: map[string]string{"docker ": "x509: certificate signed by unknown authority", "curl ": "unable to get local issuer certificate"},
	},
	{
		name: "certificate-of-another-name", about: "What terminates TLS before the registry has a certificate for another name.",
		try: "login pull", registry: "commons", user: "READER", password: "RIGHT", forged: true,
		says: map[string]string{"docker ": "x509: certificate is valid for other.example, not $HOST"},
	},
	{
		name: "public-access-off", about: "Public access is off.",
		try: "login pull", registry: "shuttered", user: "READER", password: "RIGHT", says: refusedByNetwork,
	},
	{
		name: "private-endpoints-only", about: "Public access is off, the registry has a private endpoint, and the client is not in its network.",
		try: "login pull", registry: "innermost", user: "READER", password: "RIGHT", says: refusedByNetwork,
	},
	{
		name: "endpoint-rejected", about: "The client is in the network of the registry's private endpoint, and the connection is rejected.",
		try: "login pull", registry: "innermost", user: "READER", password: "RIGHT", spared: engines, inside: "cove private-endpoint reject innermost --registry innermost",
		says: map[string]string{"curl ": `"code":"DENIED","message":"client with IP`},
	},
	{
		name: "record-missing", about: "The network's private zone has lost the login server's record.",
		try: "login pull", registry: "innermost", user: "READER", password: "RIGHT", spared: engines, inside: "cove dns record remove privatelink.cr.$DOMAIN innermost",
		says: map[string]string{"skopeo ": "no such host", "curl ": "Could not resolve host"},
	},
	{
		name: "address", about: "No network rule admits the client's address.",
		try: "login pull", registry: "closed", user: "READER", password: "RIGHT", says: refusedByNetwork,
	},
}

// What each client prints in each failure stands in testdata/failures, word by
// word; what people search for is asserted besides. row:62 row:64 row:65 row:67
// row:68 row:69 row:71 row:72 row:77 row:79 row:83
func TestRootFailures(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	prepare(d)
	fallback(t, d)
	for _, f := range allFailures {
		t.Run(f.name, func(t *testing.T) {
			d.report(t)
			d.fails(f)
		})
	}
	d.report(t)
	d.Stop(t)
	d.StartWith(t, "--rate-limits", "0.01")
	t.Run(throttled.name, func(t *testing.T) {
		d.report(t)
		d.fails(throttled)
	})
	d.report(t)
	files, err := os.ReadDir(filepath.Join("testdata", "failures"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.ContainsFunc(append(allFailures, throttled), func(f failure) bool { return f.name+".txt" == file.Name() }) {
			t.Errorf("testdata/failures/%s is no failure's", file.Name())
		}
	}
}

// prepare makes the registries and the identities.
func prepare(d *desk) {
	d.let("NOBODY", nobody)
	d.let("DOMAIN", d.domain)
	d.let("WRONG", "not-the-secret")
	d.let("UNKNOWN", "somebody")
	d.let("ALPHA", "alpha")
	d.let("COMMONS", "commons")
	for _, line := range []string{
		"cove registry create alpha", "cove registry create bravo", "cove registry create switched", "cove registry create closed --default-action Deny",
		"cove registry create commons --anonymous-pull-enabled --admin-enabled", "cove registry create shuttered --public-network-enabled false",
		"cove registry create small --sku Basic --admin-enabled", "cove registry create innermost --public-network-enabled false", "cove registry create sealed --data-endpoint-enabled --admin-enabled",
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
	registry("SHUT", "shuttered")
	registry("SEALEDID", "sealed")
	d.let("HOST", "")
	d.forge()
	d.network(d.t, "office")
	for _, name := range []string{"sealed", "innermost"} {
		d.Cove(d.t, "private-endpoint", "create", name, "--registry", name, "--subnet", "office/default", "--zone", "privatelink.cr."+d.domain)
	}
	d.join(d.t, "office", "laptop")
	d.node = newNode(d.t, d.lab, d.outside, "nobodys.example") // the others' authority is in SSL_CERT_FILE
	d.let("ADMIN", d.Password(d.t, "commons"))
	d.let("SMALL", "small")
	d.let("SMALLPASS", d.Password(d.t, "small"))
	d.let("SEALED", "sealed")
	d.let("SEALEDPASS", d.Password(d.t, "sealed"))
	refresh := func(variable, name string) {
		d.sets(variable, "az acr login --name "+name+" --expose-token --query accessToken --output tsv")
	}
	for name, repos := range map[string][]string{"alpha": {"team/app"}, "bravo": {"team/app", "team/other"}, "switched": {"team/app"}, "commons": {"team/app", "unread/app", "fixed/app", "kept/app"}, "sealed": {"team/app"}} {
		refresh("HERE", name)
		as := d.sign(name+".cr."+d.domain, nobody, d.cli.vars["HERE"])
		for _, repo := range repos {
			for _, tag := range []string{"1", "1.0.0"} { // helm asks for the longer
				if a := d.run("crane push $DIR/oci "+name+".cr."+d.domain+"/"+repo+":"+tag, as...); a.Status != 0 {
					d.t.Fatalf("%s%s", a.Out, a.Err)
				}
			}
		}
	}
	d.torn()
	for _, lock := range []string{"--repository unread/app --read-enabled false", "--repository fixed/app --write-enabled false", "--repository kept/app --delete-enabled false"} {
		d.does("az acr repository update --name commons --output none " + lock)
	}
	d.chart()
	as := d.sign("commons.cr."+d.domain, "commons", d.cli.vars["ADMIN"])
	manifest := d.run("crane manifest commons.cr."+d.domain+"/team/app:1", as...).Out
	overwrite(d.t, filepath.Join(d.dir, "manifest.json"), manifest)
	d.let("WHOLE", d.firstLayer(manifest))
	d.let("DIGEST", strings.TrimSpace(d.run("crane digest commons.cr."+d.domain+"/team/app:1", as...).Out))
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
	d.principal("FAILING", "--role AcrPull --scopes $A $C $SHUT $SEALEDID")
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
	d.brief("ENDEDPASS", `az acr token credential generate --registry alpha --name ended-token --password1 --expiration $SOON --query "passwords[?name=='password1'].value" --output tsv`)
	d.brief("EXPIRED", "az ad sp credential reset --id $READER --append --end-date $SOON --query password --output tsv")
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
	repo := cmp.Or(f.repo, "team/app")
	at := cmp.Or(f.at, ":1")
	switch {
	case strings.HasSuffix(host, ".cr"):
		host += "." + d.domain
	case !strings.Contains(host, "."):
		host += ".cr." + d.domain
	}
	if f.inside != "" {
		d.does(f.inside)
		d.at = d.inside
		defer func() { d.at = d.outside }()
	}
	if f.forged {
		d.divert()
		defer d.on(d.t, d.outside, "nft", "delete", "table", "ip", "way")
	}
	d.let("HOST", host)
	d.let("NAME", f.registry)
	d.let("REPO", repo)
	d.let("ABOVE", path.Dir(repo))
	d.let("LAYER", d.cli.vars["WHOLE"])
	if repo == "team/torn" {
		d.let("LAYER", d.cli.vars["TORN"])
	}
	d.let("AT", at)
	d.let("REFERENCE", at[1:])
	d.let("VERSION", at[1:]+".0.0") // helm takes no other tags
	d.let("USER", d.cli.vars[f.user])
	d.let("PASSWORD", d.cli.vars[f.password])
	as := d.sign(host, d.cli.vars["USER"], d.cli.vars["PASSWORD"])
	if f.try == "push" || f.try == "hurry" {
		d.does("docker tag unseen:1 $HOST/$REPO:2")
	}
	fresh := strings.NewReplacer(d.domain, "DOMAIN", d.outside.address, "ADDRESS", d.outside.gateway, "SERVER", f.cut(d, f.user), "CLIENT")
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", f.about)
	for _, try := range strings.Fields(f.try) {
		for _, line := range clients[try] {
			program, _, _ := strings.Cut(line, " ")
			if slices.Contains(strings.Fields(f.spared), program) {
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
			if f.before != nil {
				f.before(d)
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
var progress = regexp.MustCompile(`(?m)^(Getting image source|Copying|Writing manifest|elapsed:|(manifest|config|layer|index)-\S+:? |\S+: +resolv(ing|ed) |\x1b|time="TIME" level=error msg="active check failed" error="context canceled").*\n`)

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
		splice(up, down)
	}), ReadHeaderTimeout: 10 * time.Second}
	go s.Serve(ln)
	d.t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return ln.Addr().String()
}

// splice carries bytes both ways until one way ends.
func splice(a, b net.Conn) {
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// chart makes a chart of helm's.
func (d *desk) chart() {
	d.t.Helper()
	dir := filepath.Join(d.dir, "app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	overwrite(d.t, filepath.Join(dir, "Chart.yaml"), "apiVersion: v2\nname: app\nversion: 2.0.0\n")
	d.does("helm package $DIR/app --destination $DIR")
}

// exhaust uses up what small's admin user may write in a minute; the next is
// let in after six seconds.
func (d *desk) exhaust() {
	d.t.Helper()
	web := d.Outside(d.t)
	for range 100 {
		req, err := http.NewRequest(http.MethodPost, "https://"+d.cli.vars["HOST"]+"/v2/team/app/blobs/uploads/", nil)
		if err != nil {
			d.t.Fatal(err)
		}
		req.SetBasicAuth("small", d.cli.vars["SMALLPASS"])
		resp, err := web.Do(req)
		if err != nil {
			d.t.Fatal(err)
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusAccepted:
		case http.StatusTooManyRequests:
			return
		default:
			d.t.Fatal(resp.Status)
		}
	}
	d.t.Fatal("a hundred requests are under the limit")
}

// torn pushes an image to commons whose layer it deletes.
func (d *desk) torn() {
	d.t.Helper()
	host := "commons.cr." + d.domain
	as := d.sign(host, "commons", d.cli.vars["ADMIN"])
	tar := filepath.Join(d.dir, "torn.tar")
	layer(d.t, tar, "lost\n")
	if a := d.run("crane append -f "+tar+" -t "+host+"/team/torn:1", as...); a.Status != 0 {
		d.t.Fatalf("%s%s", a.Out, a.Err)
	}
	d.let("TORN", d.firstLayer(d.run("crane manifest "+host+"/team/torn:1", as...).Out))
	d.does("curl -X DELETE -u $COMMONS:$ADMIN https://" + host + "/v2/team/torn/blobs/$TORN")
}

// firstLayer is the digest of a manifest's first layer.
func (d *desk) firstLayer(manifest string) string {
	d.t.Helper()
	var m struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(manifest), &m); err != nil || len(m.Layers) == 0 {
		d.t.Fatalf("%v in the manifest %q", err, manifest)
	}
	return m.Layers[0].Digest
}

// forge makes the certificates that a terminator of TLS before a registry might
// have, and the authority that the clients know; it signs two of them. divert
// puts the terminator in the way of the host outside.
func (d *desk) forge() {
	d.t.Helper()
	known, knownKey := d.certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "Example Terminator"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	strange, strangeKey := d.certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "Example Stranger"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	for _, bundle := range []string{d.cli.vars["CA"], filepath.Join(d.dir, "az", "ca-bundle.pem")} {
		text := read(d.t, bundle) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: known.Raw}))
		overwrite(d.t, bundle, text)
	}
	leaf := func(name string, ended bool, by *x509.Certificate, key *ecdsa.PrivateKey) *tls.Certificate {
		want := &x509.Certificate{DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if ended {
			want.NotBefore, want.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
		}
		c, private := d.certificate(want, by, key)
		return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: private, Leaf: c}
	}
	domain := ".cr." + d.domain
	d.forged = d.terminator(map[string]*tls.Certificate{
		"alpha" + domain:   leaf("alpha"+domain, true, known, knownKey),
		"bravo" + domain:   leaf("bravo"+domain, false, strange, strangeKey),
		"commons" + domain: leaf("other.example", false, known, knownKey),
	})
}

// certificate makes one; without an issuer it is its own.
func (d *desk) certificate(want, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	d.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	want.SerialNumber = big.NewInt(time.Now().UnixNano())
	if want.NotAfter.IsZero() {
		want.NotBefore, want.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if by == nil {
		by, byKey = want, key
	}
	der, err := x509.CreateCertificate(rand.Reader, want, by, key.Public(), byKey)
	if err != nil {
		d.t.Fatal(err)
	}
	got, err := x509.ParseCertificate(der)
	if err != nil {
		d.t.Fatal(err)
	}
	return got, key
}

// terminator listens for connections that are diverted on their way to the
// server. It speaks TLS for the names that it has a certificate for, and lets
// all others pass.
func (d *desk) terminator(certificates map[string]*tls.Certificate) (address string) {
	d.t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(d.outside.gateway, "0"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { ln.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		if c.SetDeadline(time.Now().Add(covetest.Wait)) != nil {
			return
		}
		h := &hello{Conn: c}
		name := h.name()
		again := &replayed{Conn: c, first: io.MultiReader(&h.said, c)}
		if own := certificates[name]; own != nil {
			// The client ends this, or the test has failed.
			_ = tls.Server(again, &tls.Config{Certificates: []tls.Certificate{*own}, MinVersion: tls.VersionTLS12}).Handshake()
			return
		}
		up, err := net.Dial("tcp", net.JoinHostPort(d.outside.gateway, "443"))
		if err != nil {
			return
		}
		defer up.Close()
		splice(up, again)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return ln.Addr().String()
}

// divert leads what the host outside sends to the server's port 443 to the
// terminator.
func (d *desk) divert() {
	d.t.Helper()
	d.on(d.t, d.outside, "nft", "add table ip way; add chain ip way out { type nat hook output priority -100; }; add rule ip way out tcp dport 443 dnat to "+d.forged)
}

// hello is a connection of which only the first message of TLS is read, and
// nothing is written.
type hello struct {
	net.Conn
	said bytes.Buffer
}

func (h *hello) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.said.Write(p[:n])
	return n, err
}

func (h *hello) Write(p []byte) (int, error) { return len(p), nil }

// name is the server's that the client asks for.
func (h *hello) name() (name string) {
	_ = tls.Server(h, &tls.Config{GetConfigForClient: func(c *tls.ClientHelloInfo) (*tls.Config, error) {
		name = c.ServerName
		return nil, io.EOF
	}}).Handshake()
	return name
}

// replayed is a connection of which some has been read already.
type replayed struct {
	net.Conn
	first io.Reader
}

func (r *replayed) Read(p []byte) (int, error) { return r.first.Read(p) }
