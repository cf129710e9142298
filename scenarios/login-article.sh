#!/bin/bash
# The login troubleshooting article, typed into the real Azure CLI and docker:
# what goes wrong, how it reads, and what mends it. row:62 row:63 row:64 row:65
# row:67 row:68 row:69 row:70 row:71 row:73 row:74
#
# One host with docker's engine and the Azure CLI. Each failure is made, its
# text looked for, its remedy taken, and the login or pull tried again.
#
# COVE and CRANE name the programs; DATA is the folder for everything; the
# exit status is 0 only if every step held.
set -euo pipefail

cove=${COVE:?the cove binary}
crane=${CRANE:?the crane binary}
data=${DATA:?a folder for the data}
here=$(cd "$(dirname "$0")" && pwd)

REGISTRY_NAME=teamregistry
RESOURCE_GROUP=teamgroup
host=$REGISTRY_NAME.azurecr.io
number=210

. "$here/house.sh"
names+=(PASSWORD APP_ID APP_SECRET OLD_SECRET BUILDER_ID BUILDER_SECRET BUILDER_OBJECT_ID)

# principal NAME [FLAG…] : sets APP_ID and APP_SECRET.
principal() {
	az ad sp create-for-rbac --name "$@" --query "[appId, password]" --output tsv >"$data/principal"
	{ read -r APP_ID; read -r APP_SECRET; } <"$data/principal"
}
login() { on outside docker login $host --username "$1" --password "$2"; }

# claim A TOKEN - B : one claim less another.
claim() {
	local body
	body=$(cut -d. -f2 <<<"$2" | tr -- -_ +/)
	while [ $((${#body} % 4)) != 0 ]; do body+==; done
	base64 -d <<<"$body" | jq ".$1 - .$4"
}
# until_refused PATTERN COMMAND… : the command's success ends by itself, within
# half a minute.
until_refused() {
	local pattern=$1 i; shift
	for ((i = 0; i < 60; i++)); do
		"$@" >"$data/refusal" 2>&1 || { cat "$data/refusal"; grep -qE "$pattern" "$data/refusal" || fail "it failed for another reason than '$pattern': $*"; return 0; }
		read -rt 0.5 <> <(:) || :
	done
	fail "it still succeeds: $*"
}

step "A server, and a host with the Azure CLI and docker"
house --region westeurope --also-region eastus --registry-suffix azurecr.io
sign_in
az group create --name $RESOURCE_GROUP --location westeurope --output none
az acr create --resource-group $RESOURCE_GROUP --name $REGISTRY_NAME --sku Premium --output none
REGISTRY_ID=$(az acr show --name $REGISTRY_NAME --query id --output tsv)
image
docker_on outside

step "Name: az acr login takes the resource's name, docker login the whole login server"
az acr login --name $REGISTRY_NAME
on outside docker load --quiet --input "$data/hello.tar"
on outside docker tag hello-world:latest $host/hello-world:v1
on outside docker push --quiet $host/hello-world:v1
on outside docker logout $host
refused "denied|unauthorized: authentication required" on outside docker pull $host/hello-world:v1
az acr login --name $host
on outside docker pull --quiet $host/hello-world:v1
az acr login --name TeamRegistry

step "Name: a registry that does not exist, or is misspelt"
refused "Could not connect to the registry login server 'teamregistri.azurecr.io'" az acr login --name teamregistri
refused "lookup teamregistri.azurecr.io.*no such host" on outside docker pull teamregistri.azurecr.io/hello-world:v1
refused "could not be found in subscription" az acr show --name teamregistri

step "Credential: a token to sign in with elsewhere, and the user name that goes with it"
TOKEN=$(az acr login --name $REGISTRY_NAME --expose-token --query accessToken --output tsv)
login 00000000-0000-0000-0000-000000000000 "$TOKEN"
on outside docker pull --quiet $host/hello-world:v1
on outside skopeo login $host --username 00000000-0000-0000-0000-000000000000 --password "$TOKEN"
on outside skopeo list-tags docker://$host/hello-world
refused "unauthorized: authentication required" login $REGISTRY_NAME "$TOKEN"
refused "401 Unauthorized" on outside docker login TEAMREGISTRY.azurecr.io --username 00000000-0000-0000-0000-000000000000 --password "$TOKEN"
is "seconds that the token lasts" 10800 "$(claim exp "$TOKEN" - iat)"

step "Credential: a service principal, by its client id and secret"
principal puller --role AcrPull --scopes "$REGISTRY_ID"
refused "unauthorized: Invalid clientid or client secret" login "$APP_ID" wrong
refused "unauthorized: Application not registered with AAD" login puller "$APP_SECRET"
login "$APP_ID" "$APP_SECRET"
on outside docker pull --quiet $host/hello-world:v1
refused "denied|unauthorized: authentication required" on outside docker push --quiet $host/hello-world:v1

step "Credential: the secret has expired, and is reset"
OLD_SECRET=$APP_SECRET
APP_SECRET=$(az ad sp credential reset --id "$APP_ID" --end-date "$(date -u -d '+6 seconds' +%Y-%m-%dT%H:%M:%SZ)" --query password --output tsv)
login "$APP_ID" "$APP_SECRET"
until_refused "unauthorized: Invalid clientid or client secret" login "$APP_ID" "$APP_SECRET"
APP_SECRET=$(az ad sp credential reset --id "$APP_ID" --query password --output tsv)
login "$APP_ID" "$APP_SECRET"

step "Credential: the admin user is off until it is switched on"
refused "Run 'az acr update -n $REGISTRY_NAME --admin-enabled true' to enable admin first" az acr credential show --name $REGISTRY_NAME
refused "unauthorized: authentication required" login $REGISTRY_NAME wrong
refused "CONNECTIVITY_ACCESS_TOKEN_ERROR" az acr repository list --name $REGISTRY_NAME --username $REGISTRY_NAME --password wrong
az acr update --name $REGISTRY_NAME --admin-enabled true --output none
PASSWORD=$(az acr credential show --name $REGISTRY_NAME --query "passwords[0].value" --output tsv)
login $REGISTRY_NAME "$PASSWORD"
OLD_SECRET=$PASSWORD
PASSWORD=$(az acr credential renew --name $REGISTRY_NAME --password-name password --query "passwords[0].value" --output tsv)
refused "unauthorized: authentication required" login $REGISTRY_NAME "$OLD_SECRET"
login $REGISTRY_NAME "$PASSWORD"
az acr update --name $REGISTRY_NAME --admin-enabled false --output none
refused "unauthorized: authentication required" login $REGISTRY_NAME "$PASSWORD"

step "Anonymous pull: credentials that are stored get in its way"
az acr update --name $REGISTRY_NAME --anonymous-pull-enabled true --output none
refused "denied|unauthorized: authentication required" on outside docker pull --quiet $host/hello-world:v1
on outside docker logout $host
on outside docker pull --quiet $host/hello-world:v1
refused "denied|unauthorized: authentication required" on outside docker push --quiet $host/hello-world:v1
az acr update --name $REGISTRY_NAME --anonymous-pull-enabled false --output none
refused "denied|unauthorized: authentication required" on outside docker pull --quiet $host/hello-world:v1

step "Permission: to give out roles takes a role for that"
principal builder
BUILDER_ID=$APP_ID BUILDER_SECRET=$APP_SECRET
refused "unauthorized: authentication required" login "$BUILDER_ID" "$BUILDER_SECRET"
principal manager --role Contributor --scopes "$REGISTRY_ID"
account manager "$APP_ID" "$APP_SECRET"
BUILDER_OBJECT_ID=$(az ad sp show --id "$BUILDER_ID" --query id --output tsv)
refused "AuthorizationFailed.*'Microsoft.Authorization/roleAssignments/write'" az_as manager role assignment create --assignee-object-id "$BUILDER_OBJECT_ID" --assignee-principal-type ServicePrincipal --role AcrPush --scope "$REGISTRY_ID"
principal granter --role "Role Based Access Control Administrator" --scopes "$REGISTRY_ID"
account granter "$APP_ID" "$APP_SECRET"
az_as granter role assignment create --assignee-object-id "$BUILDER_OBJECT_ID" --assignee-principal-type ServicePrincipal --role AcrPush --scope "$REGISTRY_ID" --output none
login "$BUILDER_ID" "$BUILDER_SECRET"
on outside docker push --quiet $host/hello-world:v1
az role assignment list --scope "$REGISTRY_ID" --query "sort([].roleDefinitionName)" --output tsv
az role assignment delete --assignee "$BUILDER_ID" --role AcrPush --scope "$REGISTRY_ID"
refused "denied|unauthorized: authentication required" on outside docker pull --quiet $host/hello-world:v1

step "Permission: to manage a registry takes a role for that too"
principal keeper --role "Container Registry Configuration Reader and Data Access Configuration Reader" --scopes "$REGISTRY_ID"
account keeper "$APP_ID" "$APP_SECRET"
is "who may read the configuration sees it" false "$(az_as keeper acr show --name $REGISTRY_NAME --query adminUserEnabled --output tsv)"
refused "AuthorizationFailed.*'Microsoft.ContainerRegistry/registries/write'" az_as keeper acr update --name $REGISTRY_NAME --admin-enabled true
az role assignment create --assignee "$APP_ID" --role "Container Registry Contributor and Data Access Configuration Administrator" --scope "$REGISTRY_ID" --output none
az_as keeper acr update --name $REGISTRY_NAME --tags managed=yes --query tags.managed --output tsv
refused "authentication required" az_as keeper acr repository list --name $REGISTRY_NAME

step "Repositories: what is there, what it may be used for, and its end"
az acr login --name $REGISTRY_NAME
az acr repository list --name $REGISTRY_NAME
az acr repository show-tags --name $REGISTRY_NAME --repository hello-world
az acr repository update --name $REGISTRY_NAME --image hello-world:v1 --write-enabled false --query changeableAttributes --output json
refused "disallowed" on outside docker push --quiet $host/hello-world:v1
refused "not supported|disallowed" az acr repository delete --name $REGISTRY_NAME --image hello-world:v1 --yes
az acr repository update --name $REGISTRY_NAME --image hello-world:v1 --write-enabled true --output none
on outside docker push --quiet $host/hello-world:v1
on outside docker tag hello-world:latest $host/hello-world:v2
on outside docker push --quiet $host/hello-world:v2
az acr repository untag --name $REGISTRY_NAME --image hello-world:v2
is "the tags that are left" v1 "$(az acr repository show-tags --name $REGISTRY_NAME --repository hello-world --output tsv)"
az acr repository delete --name $REGISTRY_NAME --image hello-world:v1 --yes
refused "not found|manifest unknown" on outside docker pull --quiet $host/hello-world:v1
on outside docker push --quiet $host/hello-world:v1
az acr repository delete --name $REGISTRY_NAME --repository hello-world --yes
is "repositories that are left" 0 "$(az acr repository list --name $REGISTRY_NAME --query "length(@)" --output tsv)"

printf '\n%sEvery step held.%s\n' "$green" "$plain"
