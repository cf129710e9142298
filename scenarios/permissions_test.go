package scenarios

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// What real clients get when an identity may not.
const (
	noDocker = `denied|unauthorized: authentication required`
	noClient = `unauthorized: authentication required|UNAUTHORIZED|401 Unauthorized`
)

// Permissions of every kind, typed into the real Azure CLI and seen by real
// clients: what is allowed works, what is not is refused, and each chapter has
// both. One engine and one server are for all. row:65 row:67 row:71 row:72
// row:75 row:76 row:77 row:78 row:79 row:80
func TestRootPermissions(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	started := time.Now()
	d.let("HOST", "harbor.cr."+d.domain)
	d.let("NOBODY", nobody)
	d.does("az group create --name permissions --location local --output none")
	d.does("az acr create --resource-group permissions --name harbor --sku Premium --output none")
	d.sets("REG", "az acr show --name harbor --query id --output tsv")
	d.let("NAME", "@Request[Microsoft.ContainerRegistry/registries/repositories:name]")
	d.sets("TOKEN", "az acr login --name harbor --expose-token --query accessToken --output tsv")
	d.does("crane auth login $HOST -u $NOBODY -p $TOKEN")
	for _, image := range []string{"team/api:1", "team/api2:1", "ops/x:1"} {
		d.does("crane push $DIR/oci $HOST/" + image)
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *desk)
	}{
		{"modes", modes},
		{"conditions", conditions},
		{"catalog", catalog},
		{"network", byNetwork},
		{"tokens", tokens},
		{"locks", locks},
		{"roles", customRoles},
		{"certificate", certificate},
		{"secrets", secrets},
	} {
		d.chapter(c.name, func() { c.run(d.t, d) })
	}
	t.Logf("%s", time.Since(started).Round(time.Millisecond))
}

// pulls asserts who gets an image with docker, skopeo and crane. The
// credentials are variables' names.
func (d *desk) pulls(image, user, password string) {
	d.t.Helper()
	d.does("docker login $HOST -u $" + user + " -p $" + password)
	d.does("docker pull --quiet $HOST/" + image)
	d.does("skopeo inspect --creds $" + user + ":$" + password + " docker://$HOST/" + image)
	d.does("crane digest $HOST/" + image)
}

// kept asserts who does not, although the user name and password are right. It
// returns what crane says.
func (d *desk) kept(image, user, password string) string {
	d.t.Helper()
	as := d.sign(d.cli.vars["HOST"], d.cli.vars[user], d.cli.vars[password])
	d.refused(noDocker, "docker pull --quiet $HOST/"+image, as...)
	d.refused(noClient, "skopeo inspect docker://$HOST/"+image, as...)
	return d.refused(noClient, "crane digest $HOST/"+image, as...)
}

func (d *desk) mode(mode string) {
	d.t.Helper()
	d.does("az resource update --ids $REG --set properties.roleAssignmentMode=" + mode + " --output none")
	if got := d.does("az resource show --ids $REG --query properties.roleAssignmentMode --output tsv"); got != mode {
		d.t.Fatalf("the mode is %s", got)
	}
}

const (
	legacyMode = "LegacyRegistryPermissions"
	abacMode   = "AbacRepositoryPermissions"
)

// The permission mode is a property that is shown and
// changed by the Resource Manager. In each mode the roles of the other count
// for nothing, and a switch ends every credential of before.
func modes(t *testing.T, d *desk) {
	if got := d.does("az resource show --ids $REG --query properties.roleAssignmentMode --output tsv"); got != legacyMode {
		t.Errorf("a new registry has the mode %s", got)
	}
	d.refused("roleAssignmentMode", "az resource update --ids $REG --set properties.roleAssignmentMode=Both")
	d.principal("PULLER", "--role AcrPull --scopes $REG")
	d.principal("READER", "--role 'Container Registry Repository Reader' --scopes $REG")
	d.pulls("team/api:1", "PULLER_ID", "PULLER_SECRET")
	d.refused(noDocker, "docker push --quiet $HOST/team/api:1")
	d.refused("unauthorized: authentication required", "docker login $HOST -u $READER_ID -p $READER_SECRET")
	d.kept("team/api:1", "READER_ID", "READER_SECRET")

	// A session of before the switch: docker's stored credential is a refresh token.
	d.sets("BEFORE", "az acr login --name harbor --expose-token --query accessToken --output tsv")
	d.does("docker login $HOST -u $NOBODY -p $BEFORE")
	d.does("docker pull --quiet $HOST/team/api:1")
	d.mode(abacMode)
	d.refused(noDocker, "docker pull --quiet $HOST/team/api:1")
	d.refused("unauthorized: authentication required", "docker login $HOST -u $NOBODY -p $BEFORE")
	d.pulls("team/api:1", "READER_ID", "READER_SECRET")
	d.refused("unauthorized: authentication required", "docker login $HOST -u $PULLER_ID -p $PULLER_SECRET")
	d.kept("team/api:1", "PULLER_ID", "PULLER_SECRET")
}

// Roles for repositories with conditions: what the
// condition lets through works in every client, what it does not is refused,
// the assignment shows its condition, and `cove explain` and `cove can` say
// which it was.
func conditions(t *testing.T, d *desk) {
	d.mode(abacMode)
	d.principal("TEAM", "")
	const reader, writer, contributor = "'Container Registry Repository Reader'", "'Container Registry Repository Writer'", "'Container Registry Repository Contributor'"
	assign := func(role, condition string) string {
		return "az role assignment create --assignee-object-id $TEAM_OBJECT --assignee-principal-type ServicePrincipal --role " + role +
			` --scope $REG --condition-version 2.0 --condition "` + condition + `"`
	}
	unless := func(actions ...string) string {
		var out []string
		for _, a := range actions {
			out = append(out, "!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/"+a+"'})")
		}
		return "(" + strings.Join(out, " AND ") + ")"
	}
	remove := func(role string) {
		d.does("az role assignment delete --assignee $TEAM_ID --role " + role + " --scope $REG")
	}

	// A condition that cannot be read makes no assignment, and says where.
	d.refused(`properties.condition: column \d+: `, assign(reader, "$NAME StringEquals 'team/api' OR $NAME StringEquals 'a' AND $NAME StringEquals 'b'"))
	d.refused(`properties.condition: column \d+: `, assign(reader, "($NAME StringEquals 'team/api'"))
	d.refused(`properties.condition: column \d+: `, assign(reader, unless("contents/read")+" OR ($NAME StringEquals 'team/api')"))
	if got := d.does("az role assignment list --assignee $TEAM_ID --scope $REG --output tsv"); got != "" {
		t.Errorf("a refused assignment exists: %s", got)
	}

	// One repository.
	d.says(`"condition": .*StringEqualsIgnoreCase 'team/api'`, assign(reader, unless("content/read", "metadata/read")+" OR ($NAME StringEqualsIgnoreCase 'team/api')"))
	d.says(`^2.0\t.*'team/api'`, `az role assignment list --assignee $TEAM_ID --scope $REG --query "[].[conditionVersion, condition]" --output tsv`)
	d.pulls("team/api:1", "TEAM_ID", "TEAM_SECRET")
	d.kept("ops/x:1", "TEAM_ID", "TEAM_SECRET")
	d.explained(t, d.kept("team/api2:1", "TEAM_ID", "TEAM_SECRET"), "COVE-PERM-012")
	d.says("^YES$", "cove can $TEAM_ID pull team/api --registry harbor --from 203.0.113.9")
	d.refused(`^NO$(.|\n)*COVE-PERM-012`, "cove can $TEAM_ID pull team/api2 --registry harbor --from 203.0.113.9")
	d.refused(noDocker, "docker push --quiet $HOST/team/api:1")
	// A token for every repository opens what the condition allows, no more.
	d.sets("ANY", `curl -sS -u $TEAM_ID:$TEAM_SECRET "https://$HOST/oauth2/token?service=$HOST&scope=repository:*:pull" -w ""`)
	any := field(t, d.cli.vars["ANY"], "access_token")
	d.let("ANY", any)
	d.does(`curl -o /dev/null -H "Authorization: Bearer $ANY" https://$HOST/v2/team/api/manifests/1`)
	d.refused("^401 Bearer .*repository:team/api2:pull.*invalid_token", `curl -o /dev/null -H "Authorization: Bearer $ANY" https://$HOST/v2/team/api2/manifests/1`)
	remove(reader)
	d.kept("team/api:1", "TEAM_ID", "TEAM_SECRET")

	// A prefix, for writing: with the slash it does not open a neighbour's name.
	d.does(assign(writer, unless("content/read", "metadata/read", "content/write", "metadata/write")+" OR ($NAME StringStartsWithIgnoreCase 'ops/')"))
	d.does("docker login $HOST -u $TEAM_ID -p $TEAM_SECRET")
	push := func(image string) string {
		d.does("docker tag image:1 $HOST/" + image)
		return "docker push --quiet $HOST/" + image
	}
	d.does(push("ops/new:1"))
	d.does("skopeo copy --dest-creds $TEAM_ID:$TEAM_SECRET oci:$DIR/oci:1 docker://$HOST/ops/skopeo:1")
	d.does("crane push $DIR/oci $HOST/ops/crane:1")
	d.refused(noDocker, push("opsx/new:1"))
	d.refused(noDocker, push("team/api:2"))
	d.refused(noClient, "skopeo copy --dest-creds $TEAM_ID:$TEAM_SECRET oci:$DIR/oci:1 docker://$HOST/opsx:1")
	d.refused(noClient, "crane push $DIR/oci $HOST/opsx:1")

	// A writer does not delete; a contributor does, where the condition says.
	d.as("TEAM", func() {
		d.refused("authentication required", "az acr repository delete --name harbor --image ops/new:1 --yes")
	})
	remove(writer)
	d.does(assign(contributor, unless("content/read", "metadata/read", "content/write", "metadata/write", "content/delete", "metadata/delete")+" OR ($NAME StringStartsWith 'ops/')"))
	d.as("TEAM", func() {
		d.does("az acr repository delete --name harbor --image ops/new:1 --yes")
		d.refused("authentication required", "az acr repository delete --name harbor --image team/api:1 --yes")
	})
	d.does("docker login $HOST -u $TEAM_ID -p $TEAM_SECRET")
	d.refused("not found|manifest unknown", "docker pull --quiet $HOST/ops/new:1")
	remove(contributor)

	// What a condition does not name it does not restrict: reading stays open everywhere.
	d.does(assign(writer, unless("content/write", "metadata/write")+" OR ($NAME StringStartsWith 'ops/')"))
	d.pulls("team/api:1", "TEAM_ID", "TEAM_SECRET")
	d.does(push("ops/new:1"))
	d.refused(noDocker, push("team/api:2"))
	remove(writer)

	// Two prefixes.
	d.does(assign(reader, unless("content/read", "metadata/read")+" OR (($NAME StringStartsWith 'ops/') OR ($NAME StringEquals 'team/api'))"))
	d.pulls("ops/x:1", "TEAM_ID", "TEAM_SECRET")
	d.pulls("team/api:1", "TEAM_ID", "TEAM_SECRET")
	d.kept("team/api2:1", "TEAM_ID", "TEAM_SECRET")
	remove(reader)
}

// The list of repositories is a role of its own, which takes no
// condition and lists all of them.
func catalog(t *testing.T, d *desk) {
	d.mode(abacMode)
	d.principal("LISTER", "--role 'Container Registry Repository Reader' --scopes $REG")
	d.does("docker login $HOST -u $LISTER_ID -p $LISTER_SECRET")
	d.refused(noClient, "crane catalog $HOST")
	d.refused(`"Type":"registry","Name":"catalog","Action":"\*"(.|\n)*^401 `, "curl https://$HOST/v2/_catalog")
	d.as("LISTER", func() {
		d.refused("authentication required", "az acr repository list --name $HOST")
	})
	const lister = "'Container Registry Repository Catalog Lister'"
	assign := "az role assignment create --assignee-object-id $LISTER_OBJECT --assignee-principal-type ServicePrincipal --role " + lister + " --scope $REG --output none"
	d.refused("ABAC unsupported", assign+` --condition-version 2.0 --condition "$NAME StringStartsWith 'team/'"`)
	d.does(assign)
	d.says(`(?s)ops/x.*team/api.*team/api2`, "crane catalog $HOST")
	d.as("LISTER", func() {
		d.says(`(?s)ops/x.*team/api.*team/api2`, "az acr repository list --name $HOST --output tsv")
	})
}

// A condition may ask how the caller comes: through the private endpoint the
// assignment counts, from outside it does not.
func byNetwork(t *testing.T, d *desk) {
	d.mode(abacMode)
	d.network(t, "office")
	d.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default", "--zone", "privatelink.cr."+d.domain)
	d.join(t, "office", "laptop")
	d.principal("INSIDER", "")
	d.does(`az role assignment create --assignee-object-id $INSIDER_OBJECT --assignee-principal-type ServicePrincipal --role 'Container Registry Repository Reader'` +
		` --scope $REG --condition-version 2.0 --condition "@Environment[isPrivateLink] BoolEquals true" --output none`)
	d.refused(noClient, "skopeo inspect --creds $INSIDER_ID:$INSIDER_SECRET docker://$HOST/team/api:1")
	out := d.on(t, d.inside, "skopeo", "inspect", "--creds", d.cli.vars["INSIDER_ID"]+":"+d.cli.vars["INSIDER_SECRET"], "docker://"+d.cli.vars["HOST"]+"/team/api:1")
	if !strings.Contains(out, `"Digest"`) {
		t.Errorf("inside: %s", out)
	}
	// Its token works where the condition holds, and is refused where it does not.
	token := field(t, d.on(t, d.inside, "curl", "-sS", "--cacert", d.cli.vars["CA"], "-u", d.cli.vars["INSIDER_ID"]+":"+d.cli.vars["INSIDER_SECRET"],
		"https://"+d.cli.vars["HOST"]+"/oauth2/token?service="+d.cli.vars["HOST"]+"&scope=repository:team/api:pull"), "access_token")
	d.let("CARRIED", token)
	d.refused("^401 ", `curl -o /dev/null -H "Authorization: Bearer $CARRIED" https://$HOST/v2/team/api/manifests/1`)
}

// Tokens of the registry and their scope maps: what the map says is
// what a client may do, from the next request on; a password that is renewed,
// removed or at its end, and a token that is disabled or gone, sign in no more.
func tokens(t *testing.T, d *desk) {
	d.mode(legacyMode)
	d.says("(?s)_repositories_admin.*_repositories_pull.*_repositories_push", "az acr scope-map list --registry harbor --query [].name --output tsv")
	d.refused(`actions\[0\]: a \* stands for`, "az acr scope-map create --registry harbor --name bad-star --repository team* content/read")
	d.does("az acr scope-map create --registry harbor --name team-map --repository team/api content/read metadata/read --output none")
	two := strings.Fields(d.does(`az acr token create --registry harbor --name robot --scope-map team-map --query "credentials.passwords[].value" --output tsv`))
	if len(two) != 2 {
		t.Fatalf("a token has %d passwords", len(two))
	}
	d.let("ROBOT", "robot")
	d.let("FIRST", two[0])
	d.let("SECOND", two[1])
	d.says("^enabled\n.*/scopeMaps/team-map$", `az acr token show --registry harbor --name robot --query "[status, scopeMapId]" --output tsv`)
	d.pulls("team/api:1", "ROBOT", "FIRST")
	d.kept("team/api2:1", "ROBOT", "FIRST")
	push := "docker push --quiet $HOST/team/api:1"
	d.refused(noDocker, push)
	d.refused(noClient, "crane catalog $HOST")

	// The map changes, and clients that are signed in obey.
	d.does("az acr scope-map update --registry harbor --name team-map --add-repository team/api content/write --output none")
	d.does(push)
	d.does("az acr scope-map update --registry harbor --name team-map --remove-repository team/api content/write --add-repository ops/* content/read --output none")
	d.refused(noDocker, push)
	d.does("docker pull --quiet $HOST/ops/x:1")
	d.does("az acr token update --registry harbor --name robot --scope-map _repositories_push --output none")
	d.does(push)

	// Passwords.
	d.sets("THIRD", "az acr token credential generate --registry harbor --name robot --password1 --query passwords[0].value --output tsv")
	d.refused("unauthorized: authentication required", "docker login $HOST -u $ROBOT -p $FIRST")
	d.refused(noDocker, push)
	d.does("docker login $HOST -u $ROBOT -p $THIRD")
	d.does("docker login $HOST -u $ROBOT -p $SECOND")
	d.does(push)
	d.does("az acr token credential delete --registry harbor --name robot --password2 --output none")
	d.refused(noDocker, push)
	d.refused("unauthorized: authentication required", "docker login $HOST -u $ROBOT -p $SECOND")
	d.brief("SHORT", `az acr token credential generate --registry harbor --name robot --password2 --expiration $SOON --query "passwords[?name=='password2'].value" --output tsv`,
		"docker login $HOST -u $ROBOT -p $SHORT")
	d.until("unauthorized: authentication required", "docker login $HOST -u $ROBOT -p $SHORT")
	d.refused(noDocker, push)

	// The token.
	d.does("docker login $HOST -u $ROBOT -p $THIRD")
	d.does("az acr token update --registry harbor --name robot --status disabled --output none")
	d.refused(noDocker, push)
	d.refused("unauthorized: authentication required", "docker login $HOST -u $ROBOT -p $THIRD")
	d.does("az acr token update --registry harbor --name robot --status enabled --output none")
	d.does(push)
	d.does("az acr token delete --registry harbor --name robot --yes")
	d.refused("unauthorized: Application not registered with AAD", push)
	d.refused("unauthorized: Application not registered with AAD", "docker login $HOST -u $ROBOT -p $THIRD")
	d.does("az acr scope-map delete --registry harbor --name team-map --yes")
	d.says("^0$", `az acr token list --registry harbor --query "length(@)" --output tsv`)
}

// Locks: each of the four attributes, on a tag, a manifest and a repository,
// stops what it is for and nothing else, for every client.
func locks(t *testing.T, d *desk) {
	d.mode(legacyMode)
	const disallowed = "The operation is disallowed on this registry, repository or image. View troubleshooting steps at https://aka.ms/acr/faq/#why-does-my-pull-or-push-request-fail-with-disallowed-operation"
	d.sets("TOKEN", "az acr login --name harbor --expose-token --query accessToken --output tsv")
	d.does("docker login $HOST -u $NOBODY -p $TOKEN")
	d.does("docker tag image:1 $HOST/team/api:other")
	d.does("docker tag image:1 $HOST/team/api:1")
	push, other, pull := "docker push --quiet $HOST/team/api:1", "docker push --quiet $HOST/team/api:other", "docker pull --quiet $HOST/team/api:1"
	d.does(push)
	d.sets("DIGEST", "crane digest $HOST/team/api:1")
	lock := func(what, attribute string, on bool) {
		t.Helper()
		if got := d.does(fmt.Sprintf("az acr repository update --name harbor %s --%s-enabled %v --query changeableAttributes.%[2]sEnabled --output tsv", what, attribute, on)); got != fmt.Sprint(on) {
			t.Errorf("%s of %s is %s", attribute, what, got)
		}
	}
	const tag, manifest, repository = "--image team/api:1", "--image team/api@$DIGEST", "--repository team/api"

	// Who pushes does not lock.
	d.principal("PUSHER", "--role AcrPush --scopes $REG")
	d.as("PUSHER", func() {
		d.refused("authentication required", "az acr repository update --name harbor --image team/api:1 --write-enabled false")
	})

	lock(tag, "write", false)
	d.refused("unknown: "+disallowed, "docker push --quiet $HOST/team/api:1")
	d.refused(disallowed, "skopeo copy --dest-creds $NOBODY:$TOKEN oci:$DIR/oci:1 docker://$HOST/team/api:1")
	d.refused(disallowed, "az acr repository untag --name harbor --image team/api:1")
	d.refused("disallowed|locked", "az acr import --name harbor --source $HOST/ops/x:1 --image team/api:1 --force")
	d.does(pull)
	d.does(other)
	lock(tag, "write", true)
	d.does(push)

	lock(tag, "delete", false)
	d.refused(disallowed, "az acr repository untag --name harbor --image team/api:1")
	d.does(push)
	lock(tag, "delete", true)

	lock(tag, "read", false)
	d.refused("disallowed", pull)
	d.does("docker pull --quiet $HOST/team/api:other")
	lock(tag, "read", true)
	d.does(pull)

	lock(tag, "list", false)
	d.says("^other$", "az acr repository show-tags --name harbor --repository team/api --output tsv")
	if got := d.does("crane ls $HOST/team/api"); got != "other" {
		t.Errorf("the tags are %q", got)
	}
	d.does(pull)
	lock(tag, "list", true)

	lock(manifest, "delete", false)
	d.refused(disallowed, "az acr repository delete --name harbor --image team/api:1 --yes")
	d.refused(disallowed, "az acr repository delete --name harbor --image team/api@$DIGEST --yes")
	d.refused(disallowed, "az acr repository delete --name harbor --repository team/api --yes")
	lock(manifest, "delete", true)
	lock(manifest, "read", false)
	// With skopeo: docker does not ask for a manifest that it has by its digest.
	d.refused("disallowed", "skopeo inspect --raw --creds $NOBODY:$TOKEN docker://$HOST/team/api@$DIGEST")
	d.refused("disallowed", pull)
	lock(manifest, "read", true)

	lock(repository, "write", false)
	d.refused("unknown: "+disallowed, push)
	d.refused(disallowed, "az acr repository delete --name harbor --repository team/api --yes")
	lock(repository, "write", true)
	lock(repository, "delete", false)
	d.refused(disallowed, "az acr repository delete --name harbor --repository team/api --yes")
	d.refused(disallowed, "az acr repository delete --name harbor --image team/api:other --yes")
	d.does(push)
	lock(repository, "delete", true)
	lock(repository, "read", false)
	d.refused("disallowed", pull)
	lock(repository, "read", true)
	lock(repository, "list", false)
	if got := d.does("az acr repository list --name harbor --output tsv"); strings.Contains(got+"\n", "team/api\n") || !strings.Contains(got, "team/api2") {
		t.Errorf("the repositories are %q", got)
	}
	lock(repository, "list", true)
	d.does("az acr repository untag --name harbor --image team/api:other")
	d.says("^1$", "az acr repository show-tags --name harbor --repository team/api --output tsv")
}

// Roles of one's own: actions with wildcards and exceptions, data actions in
// the other mode, obeyed from the next request on; one that is assigned cannot
// be deleted.
func customRoles(t *testing.T, d *desk) {
	d.mode(legacyMode)
	d.sets("SUB", "az account show --query id --output tsv")
	role := func(command, actions, not, data string) string {
		list := func(name, items string) string {
			var out []string
			for _, item := range strings.Fields(items) {
				out = append(out, `"Microsoft.ContainerRegistry/registries/`+item+`"`)
			}
			return `"` + name + `":[` + strings.Join(out, ",") + "]"
		}
		return "az role definition " + command + ` --role-definition '{"Name":"Image handler","IsCustom":true,"Description":"for a test",` +
			list("Actions", actions) + "," + list("NotActions", not) + "," + list("DataActions", data) + `,"NotDataActions":[],"AssignableScopes":["/subscriptions/$SUB"]}' --output none`
	}
	d.refused("(?i)action", role("create", "pull/re?d", "", ""))
	d.does(role("create", "pull/read", "", ""))
	d.says("^CustomRole$", `az role definition list --name 'Image handler' --query "[].roleType" --output tsv`)
	d.principal("HANDLER", "--role 'Image handler' --scopes $REG")
	d.pulls("team/api:1", "HANDLER_ID", "HANDLER_SECRET")
	push := "docker push --quiet $HOST/team/api:1"
	d.does("docker tag image:1 $HOST/team/api:1")
	d.refused(noDocker, push)
	d.does(role("update", "pull/read push/write", "", ""))
	d.does(push)
	d.does(role("update", "*", "push/*", ""))
	d.refused(noDocker, push)
	d.does("docker pull --quiet $HOST/team/api:1")
	d.refused("RoleDefinitionHasAssignments|existing role assignments", "az role definition delete --name 'Image handler'")

	d.does(role("update", "*", "", "repositories/content/read"))
	d.mode(abacMode)
	d.does("docker login $HOST -u $HANDLER_ID -p $HANDLER_SECRET")
	d.does("docker pull --quiet $HOST/team/api:1")
	d.refused(noDocker, push)
	d.as("HANDLER", func() {
		d.refused("authentication required", "az acr repository show-tags --name harbor --repository team/api")
	})
	d.mode(legacyMode)
	d.does("az role assignment delete --assignee $HANDLER_ID --role 'Image handler' --scope $REG")
	d.does("az role definition delete --name 'Image handler'")
	d.says("^0$", `az role definition list --name 'Image handler' --query "length(@)" --output tsv`)
}

// A service principal with a certificate signs in without a secret, and
// takes a token to docker with the user name that goes with it, and no other.
// Another's certificate is refused, and one that is removed ends its sessions.
func certificate(t *testing.T, d *desk) {
	d.mode(legacyMode)
	make := func(name string) {
		out := strings.Fields(d.does("az ad sp create-for-rbac --name " + strings.ToLower(name) + ` --create-cert --role AcrPull --scopes $REG --query "[appId, fileWithCertAndPrivateKey]" --output tsv`))
		if len(out) != 2 {
			t.Fatalf("create-for-rbac prints %q", out)
		}
		d.let(name+"_ID", out[0])
		d.let(name+"_PEM", out[1])
	}
	make("CERTIFIED")
	make("STRANGER")
	defer d.administer()
	const login = "az login --service-principal --tenant $TENANT --allow-no-subscriptions --output none -u "
	d.refused("AADSTS", login+"$CERTIFIED_ID -p $STRANGER_PEM")
	d.does(login + "$CERTIFIED_ID -p $CERTIFIED_PEM")
	d.sets("TOKEN", "az acr login --name harbor --expose-token --query accessToken --output tsv")
	d.administer()
	d.refused("unauthorized: Invalid clientid or client secret", "docker login $HOST -u $CERTIFIED_ID -p $TOKEN")
	d.refused("unauthorized: authentication required", "docker login $HOST -u harbor -p $TOKEN")
	d.refused("unauthorized: Application not registered with AAD", "docker login $HOST -u somebody -p $TOKEN")
	d.pulls("team/api:1", "NOBODY", "TOKEN")
	d.refused(noDocker, "docker push --quiet $HOST/team/api:1")
	d.sets("KEY", "az ad app credential list --id $CERTIFIED_ID --cert --query [0].keyId --output tsv")
	d.does("az ad app credential delete --id $CERTIFIED_ID --key-id $KEY --cert")
	d.until(noDocker, "docker pull --quiet $HOST/team/api:1")
	d.refused("AADSTS", login+"$CERTIFIED_ID -p $CERTIFIED_PEM")
}

// A service principal's secret that is reset takes the place of its others:
// within ten seconds they sign in no more, and what docker has stored of one
// pulls no more. One that is appended leaves them. The application's secrets
// are not the service principal's, and are reset with the application.
func secrets(t *testing.T, d *desk) {
	d.mode(legacyMode)
	d.principal("SECRETIVE", "--role AcrPull --scopes $REG")
	d.pulls("team/api:1", "SECRETIVE_ID", "SECRETIVE_SECRET")
	ended := func(secret string) {
		t.Helper()
		d.until("unauthorized: Invalid clientid or client secret", "docker login $HOST -u $SECRETIVE_ID -p $"+secret)
	}
	signsIn := func(secret string) {
		t.Helper()
		d.does("docker login $HOST -u $SECRETIVE_ID -p $" + secret)
	}
	d.sets("SECOND", "az ad sp credential reset --id $SECRETIVE_ID --append --query password --output tsv")
	signsIn("SECRETIVE_SECRET")
	signsIn("SECOND")
	d.sets("THIRD", "az ad sp credential reset --id $SECRETIVE_ID --query password --output tsv")
	d.until("unauthorized: Invalid clientid or client secret", "docker pull --quiet $HOST/team/api:1")
	ended("SECOND")
	signsIn("SECRETIVE_SECRET")
	d.sets("FOURTH", "az ad app credential reset --id $SECRETIVE_ID --query password --output tsv")
	ended("SECRETIVE_SECRET")
	d.pulls("team/api:1", "SECRETIVE_ID", "THIRD")
	d.pulls("team/api:1", "SECRETIVE_ID", "FOURTH")
}

// field is a text property of a JSON object.
func field(t *testing.T, text, name string) string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%v in %d bytes", err, len(text))
	}
	value, _ := object[name].(string)
	if value == "" {
		t.Fatalf("%s is not among %d properties", name, len(object))
	}
	return value
}
