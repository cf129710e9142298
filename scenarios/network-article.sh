#!/bin/bash
# The network troubleshooting articles, typed into the real Azure CLI: every
# check and every remedy that is made in the control plane. row:5 row:6 row:7
# row:8 row:9 row:10 row:11 row:12 row:15 row:16 row:17 row:27 row:28 row:29
# row:51 row:56 row:57 row:64 row:84 row:89 row:98
#
# Two hosts outside, with addresses of their own, and two virtual networks with
# a machine in each. A remedy counts when traffic obeys it: each is followed by
# the request that it should let in, or keep out, on the next try.
#
# COVE and CRANE name the programs; DATA is the folder for everything; the
# exit status is 0 only if every step held.
set -euo pipefail

cove=${COVE:?the cove binary}
crane=${CRANE:?the crane binary}
data=${DATA:?a folder for the data}
here=$(cd "$(dirname "$0")" && pwd)

REGISTRY_NAME=officeregistry
REGISTRY_LOCATION=westeurope
RESOURCE_GROUP=officegroup
NETWORK_NAME=westnetwork
SUBNET_NAME=westsubnet
host=$REGISTRY_NAME.azurecr.io
number=220

. "$here/house.sh"
office=198.18.221.2
elsewhere=198.18.222.2
names+=(APP_ID APP_SECRET SUBNET_ID PARTNER_SUBNET_ID EAST_NETWORK_ID MANY_RULES)

pulls() { on "$1" "$crane" digest $host/hello-world:v1 >"$data/digest"; printf '   %s pulls\n' "$1"; }

# address_of ENDPOINT : where it answers for the registry's name.
address_of() { az network private-endpoint show --name "$1" --resource-group $RESOURCE_GROUP --query "customDnsConfigs[?fqdn=='$host'].ipAddresses[0] | [0]" --output tsv; }
# many N : a body with so many rules.
many() {
	local i out=
	for ((i = 0; i < $1; i++)); do out+="{\"action\":\"Allow\",\"value\":\"203.0.113.$i\"},"; done
	printf '{"properties":{"networkRuleSet":{"defaultAction":"Deny","ipRules":[%s]}}}' "${out%,}"
}
# checked WHERE FLAG… : az acr check-health, which must find nothing wrong. It
# goes on after an error, since helm and notary are not on these hosts, and
# docker's engine is on one.
checked() {
	local where=$1; shift
	az_on "$where" acr check-health "$@" --ignore-errors --yes 2>"$data/health" || { cat "$data/health" >&2; return 1; }
	sed -i -E '/An error occurred: (DOCKER|HELM|NOTARY)_COMMAND_ERROR/,+1d' "$data/health"
	cat "$data/health" >&2
	! grep -q 'An error occurred' "$data/health"
}

step "A server, and two hosts outside: the office with the Azure CLI, and one elsewhere"
house --region westeurope --also-region eastus --registry-suffix azurecr.io --registry-alias mcr.microsoft.com=mcrmirror --also-subscription partner
namespace elsewhere $front
sign_in
az account set --subscription cove
az group create --name $RESOURCE_GROUP --location $REGISTRY_LOCATION --output none
az acr create --resource-group $RESOURCE_GROUP --name mcrmirror --sku Standard --output none
az acr update --name mcrmirror --anonymous-pull-enabled true --output none
image
TOKEN=$(az acr login --name mcrmirror --expose-token --query accessToken --output tsv)
on outside "$crane" auth login mcrmirror.azurecr.io -u 00000000-0000-0000-0000-000000000000 -p "$TOKEN"
on outside "$crane" push "$data/hello.tar" mcrmirror.azurecr.io/mcr/hello-world:latest
az acr create --resource-group $RESOURCE_GROUP --name $REGISTRY_NAME --sku Premium --output none
az acr import --name $REGISTRY_NAME --source mcr.microsoft.com/mcr/hello-world --image hello-world:v1

step "Public access: a new registry is open to all networks"
az acr show --name $REGISTRY_NAME --query "{public:publicNetworkAccess, default:networkRuleSet.defaultAction, rules:networkRuleSet.ipRules}" --output json
REGISTRY_ID=$(az acr show --name $REGISTRY_NAME --query id --output tsv)
TOKEN=$(az acr login --name $REGISTRY_NAME --expose-token --query accessToken --output tsv)
on outside "$crane" auth login $host -u 00000000-0000-0000-0000-000000000000 -p "$TOKEN"
pulls outside
pulls elsewhere

step "Selected networks: nobody comes in whom no rule admits, and the refusal says where to look"
az acr update --name $REGISTRY_NAME --default-action Deny --output none
refused "client with IP '$office' is not allowed access" on outside "$crane" digest $host/hello-world:v1
refused "Looks like you don't have access to registry '$host'" az acr login --name $REGISTRY_NAME --expose-token
az acr show --query networkRuleSet --name $REGISTRY_NAME
az acr show --query publicNetworkAccess --name $REGISTRY_NAME
refused "CONNECTIVITY_FORBIDDEN_ERROR" checked outside --name $REGISTRY_NAME

step "The remedy: a rule for the office's address"
az acr network-rule add --name $REGISTRY_NAME --ip-address $office --output none
pulls outside
refused "client with IP '$elsewhere' is not allowed access" on elsewhere "$crane" digest $host/hello-world:v1
az acr network-rule add --name $REGISTRY_NAME --ip-address ${elsewhere%.*}.0/24 --output none
pulls elsewhere
az acr network-rule list --name $REGISTRY_NAME --query "ipRules[].ipAddressOrRange" --output tsv
az acr network-rule remove --name $REGISTRY_NAME --ip-address ${elsewhere%.*}.0/24 --output none
refused "client with IP '$elsewhere' is not allowed access" on elsewhere "$crane" digest $host/hello-world:v1
pulls outside

step "Settings that cannot be saved say why"
refused 'is not an IPv4 address or an IPv4 range' az acr network-rule add --name $REGISTRY_NAME --ip-address 2001:db8::1
refused "only supported for managed registries in Premium SKU" az acr network-rule add --name mcrmirror --ip-address $office
az rest --method get --url "$REGISTRY_ID?api-version=2022-12-01" --query "properties.networkRuleSet.ipRules[].value" --output tsv
MANY_RULES=$(many 201)
refused "exceeds allowed quota 200 for the SKU Premium" az rest --method patch --url "$REGISTRY_ID?api-version=2022-12-01" --body "$MANY_RULES"
is "rules that are left" 1 "$(az acr network-rule list --name $REGISTRY_NAME --query "length(ipRules)" --output tsv)"

step "Public access off: nobody comes in, whatever the rules say"
az acr update --name $REGISTRY_NAME --public-network-enabled false --output none
refused "client with IP '$office' is not allowed access" on outside "$crane" digest $host/hello-world:v1
refused "Looks like you don't have access to registry '$host'" az acr repository list --name $REGISTRY_NAME
refused "Looks like you don't have access to registry '$host'" az acr repository show-tags --name $REGISTRY_NAME --repository hello-world
is "the rules stay" $office "$(az acr network-rule list --name $REGISTRY_NAME --query "ipRules[].ipAddressOrRange" --output tsv)"

step "The remedy: public access on again; the rules count again, until all networks are allowed"
az acr update --name $REGISTRY_NAME --public-network-enabled true --output none
pulls outside
refused "client with IP '$elsewhere' is not allowed access" on elsewhere "$crane" digest $host/hello-world:v1
az acr update --name $REGISTRY_NAME --default-action Allow --output none
pulls elsewhere

step "A service endpoint: whoever is in a subnet that a rule names comes in"
az network vnet create --resource-group $RESOURCE_GROUP --name $NETWORK_NAME --location $REGISTRY_LOCATION --address-prefixes 10.0.0.0/16 --subnet-name $SUBNET_NAME --subnet-prefixes 10.0.0.0/24 --output none
SUBNET_ID=$(az network vnet subnet show --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --name $SUBNET_NAME --query id --output tsv)
machine west $NETWORK_NAME/$SUBNET_NAME
az acr update --name $REGISTRY_NAME --default-action Deny --output none
refused "do not have ServiceEndpoints for Microsoft.ContainerRegistry" az acr network-rule add --name $REGISTRY_NAME --subnet "$SUBNET_ID"
az network vnet subnet update --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --name $SUBNET_NAME --service-endpoints Microsoft.ContainerRegistry --output none
refused "is not allowed access" on west "$crane" digest $host/hello-world:v1
az acr network-rule add --name $REGISTRY_NAME --subnet "$SUBNET_ID" --output none
pulls west
az acr update --name $REGISTRY_NAME --public-network-enabled false --output none
refused "is not allowed access" on west "$crane" digest $host/hello-world:v1
az acr update --name $REGISTRY_NAME --public-network-enabled true --output none
pulls west

step "A network of another subscription: that must be registered for registries first"
az account list --refresh --query "sort_by([], &name)[].{name:name, state:state}" --output table
az provider unregister --namespace Microsoft.ContainerRegistry --subscription partner
az group create --name partnergroup --location $REGISTRY_LOCATION --subscription partner --output none
az network vnet create --resource-group partnergroup --name partnernetwork --subscription partner --address-prefixes 10.2.0.0/16 --subnet-name partnersubnet --subnet-prefixes 10.2.0.0/24 --output none
az network vnet subnet update --resource-group partnergroup --vnet-name partnernetwork --name partnersubnet --subscription partner --service-endpoints Microsoft.ContainerRegistry --output none
PARTNER_SUBNET_ID=$(az network vnet subnet show --resource-group partnergroup --vnet-name partnernetwork --name partnersubnet --subscription partner --query id --output tsv)
refused "Failed to save firewall and virtual network settings for container registry '$REGISTRY_NAME'. Error: Could not validate network rule" az acr network-rule add --name $REGISTRY_NAME --subnet "$PARTNER_SUBNET_ID"
az account set --subscription partner
az provider register --namespace Microsoft.ContainerRegistry
az account set --subscription cove
az acr network-rule add --name $REGISTRY_NAME --subnet "$PARTNER_SUBNET_ID" --output none
is "rules for subnets" 2 "$(az acr network-rule list --name $REGISTRY_NAME --query "length(virtualNetworkRules)" --output tsv)"
az acr network-rule remove --name $REGISTRY_NAME --subnet "$PARTNER_SUBNET_ID" --output none

step "A private endpoint: rules for addresses do not apply to it, and rules for subnets have to go"
az network private-dns zone create --resource-group $RESOURCE_GROUP --name privatelink.azurecr.io --output none
az network private-dns link vnet create --resource-group $RESOURCE_GROUP --zone-name privatelink.azurecr.io --name westlink --virtual-network $NETWORK_NAME --registration-enabled false --output none
az network private-endpoint create --name westendpoint --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --subnet $SUBNET_NAME --private-connection-resource-id "$REGISTRY_ID" --group-ids registry --connection-name west --output none
az network private-endpoint dns-zone-group create --endpoint-name westendpoint --resource-group $RESOURCE_GROUP --name default --private-dns-zone privatelink.azurecr.io --zone-name azurecr --output none
WEST_IP=$(address_of westendpoint)
az acr show --name $REGISTRY_NAME --query status --output json
refused "private endpoint" az acr network-rule add --name $REGISTRY_NAME --subnet "$PARTNER_SUBNET_ID"
az acr network-rule remove --name $REGISTRY_NAME --subnet "$SUBNET_ID" --output none
is "what the registry says when they are gone" "" "$(az acr show --name $REGISTRY_NAME --query status --output tsv)"
is "in the network the name leads to the endpoint" "$WEST_IP" "$(resolve west $host)"
az acr network-rule remove --name $REGISTRY_NAME --ip-address $office --output none
refused "client with IP '$office' is not allowed access" on outside "$crane" digest $host/hello-world:v1
pulls west
az acr update --name $REGISTRY_NAME --public-network-enabled false --output none
pulls west

step "Look closer: in the network az acr check-health finds nothing wrong"
docker_on west mcr.microsoft.com
checked west --name $REGISTRY_NAME --vnet $NETWORK_NAME
grep -q "Docker pull of 'mcr.microsoft.com/mcr/hello-world:latest' : OK" "$data/health" || fail "docker did not pull"

step "Settings that cannot be viewed or managed are another matter than content that cannot be pulled"
az ad sp create-for-rbac --name puller --role AcrPull --scopes "$REGISTRY_ID" --query "[appId, password]" --output tsv >"$data/puller"
{ read -r APP_ID; read -r APP_SECRET; } <"$data/puller"
on west "$crane" auth login $host -u "$APP_ID" -p "$APP_SECRET"
pulls west
account puller "$APP_ID" "$APP_SECRET"
refused "AuthorizationFailed.*'Microsoft.ContainerRegistry/registries/read'" az_as puller acr show --resource-group $RESOURCE_GROUP --name $REGISTRY_NAME
refused "AuthorizationFailed.*'Microsoft.ContainerRegistry/registries/write'" az_as puller rest --method patch --url "$REGISTRY_ID?api-version=2022-12-01" --body '{"properties":{"publicNetworkAccess":"Enabled"}}'
az ad sp create-for-rbac --name watcher --role Reader --scopes "$REGISTRY_ID" --query "[appId, password]" --output tsv >"$data/watcher"
{ read -r APP_ID; read -r APP_SECRET; } <"$data/watcher"
account watcher "$APP_ID" "$APP_SECRET"
is "who may only read sees the settings" Disabled "$(az_as watcher acr show --name $REGISTRY_NAME --query publicNetworkAccess --output tsv)"
refused "AuthorizationFailed.*'Microsoft.ContainerRegistry/registries/write'" az_as watcher acr update --name $REGISTRY_NAME --public-network-enabled true
refused "AuthorizationFailed.*'Microsoft.ContainerRegistry/registries/write'" az_as watcher acr network-rule add --name $REGISTRY_NAME --ip-address $office
refused "Looks like you don't have access to registry '$host'" az_as watcher acr login --name $REGISTRY_NAME --expose-token
printf '%s' "$TOKEN" | on west "$crane" auth login $host -u 00000000-0000-0000-0000-000000000000 --password-stdin

step "A record is missing: the check names it"
az network private-endpoint dns-zone-group delete --endpoint-name westendpoint --resource-group $RESOURCE_GROUP --name default
az network private-dns record-set a add-record --record-set-name $REGISTRY_NAME --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --ipv4-address "$WEST_IP" --output none
pulls west
refused "Error resolving DNS for $REGISTRY_NAME.$REGISTRY_LOCATION.data.azurecr.io" checked west --name $REGISTRY_NAME --vnet $NETWORK_NAME
refused "lookup $REGISTRY_NAME.$REGISTRY_LOCATION.data.azurecr.io.*no such host" on west "$crane" export $host/hello-world:v1 "$data/files.tar"
az network private-dns record-set a add-record --record-set-name $REGISTRY_NAME.$REGISTRY_LOCATION.data --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --ipv4-address 10.0.0.99 --output none
refused "DNS routing to registry \"$REGISTRY_NAME\" through private IP is incorrect. Expect: 10.0.0.[0-9]*, Actual: 10.0.0.99" checked west --name $REGISTRY_NAME --vnet $NETWORK_NAME
az network private-dns record-set a delete --name $REGISTRY_NAME.$REGISTRY_LOCATION.data --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --yes
az network private-dns record-set a delete --name $REGISTRY_NAME --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --yes
az network private-endpoint dns-zone-group create --endpoint-name westendpoint --resource-group $RESOURCE_GROUP --name default --private-dns-zone privatelink.azurecr.io --zone-name azurecr --output none
on west "$crane" export $host/hello-world:v1 "$data/files.tar"
checked west --name $REGISTRY_NAME --vnet $NETWORK_NAME

step "Two regions that share a zone: the second endpoint takes the name from the first"
az network vnet create --resource-group $RESOURCE_GROUP --name eastnetwork --location eastus --address-prefixes 10.1.0.0/16 --subnet-name eastsubnet --subnet-prefixes 10.1.0.0/24 --output none
az network private-dns link vnet create --resource-group $RESOURCE_GROUP --zone-name privatelink.azurecr.io --name eastlink --virtual-network eastnetwork --registration-enabled false --output none
az network private-endpoint create --name eastendpoint --resource-group $RESOURCE_GROUP --location eastus --vnet-name eastnetwork --subnet eastsubnet --private-connection-resource-id "$REGISTRY_ID" --group-ids registry --connection-name east --output none
az network private-endpoint dns-zone-group create --endpoint-name eastendpoint --resource-group $RESOURCE_GROUP --name default --private-dns-zone privatelink.azurecr.io --zone-name azurecr --output none
EAST_IP=$(address_of eastendpoint)
is "in the west the name leads to the east's endpoint" "$EAST_IP" "$(resolve west $host)"
# Which of its timeouts ends first is chance.
refused "Client.Timeout exceeded while awaiting headers|i/o timeout|context deadline exceeded" on west docker pull $host/hello-world:v1 >/dev/null
echo "   it times out"
on_host west sysctl -qw net.ipv4.tcp_syn_retries=1 # or the check waits for two minutes
refused "Expect: $WEST_IP, Actual: $EAST_IP" checked west --name $REGISTRY_NAME --vnet $NETWORK_NAME

step "The remedy: a resource group and a zone for each region"
az group create --name eastgroup --location eastus --output none
az network private-endpoint delete --name eastendpoint --resource-group $RESOURCE_GROUP
az network private-dns link vnet delete --resource-group $RESOURCE_GROUP --zone-name privatelink.azurecr.io --name eastlink --yes
az network private-dns zone create --resource-group eastgroup --name privatelink.azurecr.io --output none
EAST_NETWORK_ID=$(az network vnet show --resource-group $RESOURCE_GROUP --name eastnetwork --query id --output tsv)
az network private-dns link vnet create --resource-group eastgroup --zone-name privatelink.azurecr.io --name eastlink --virtual-network "$EAST_NETWORK_ID" --registration-enabled false --output none
az network private-endpoint create --name eastendpoint --resource-group eastgroup --location eastus --subnet "$EAST_NETWORK_ID/subnets/eastsubnet" --private-connection-resource-id "$REGISTRY_ID" --group-ids registry --connection-name east --output none
az network private-endpoint dns-zone-group create --endpoint-name eastendpoint --resource-group eastgroup --name default --private-dns-zone privatelink.azurecr.io --zone-name azurecr --output none
machine east eastnetwork/eastsubnet
EAST_IP=$(RESOURCE_GROUP=eastgroup address_of eastendpoint)
refused "Expect: $WEST_IP, Actual: |Error resolving DNS" checked west --name $REGISTRY_NAME --vnet $NETWORK_NAME
az network private-endpoint dns-zone-group delete --endpoint-name westendpoint --resource-group $RESOURCE_GROUP --name default
az network private-endpoint dns-zone-group create --endpoint-name westendpoint --resource-group $RESOURCE_GROUP --name default --private-dns-zone privatelink.azurecr.io --zone-name azurecr --output none
is "in the west the name leads to the west's endpoint" "$WEST_IP" "$(resolve west $host)"
is "in the east to the east's" "$EAST_IP" "$(resolve east $host)"
pulls west
pulls east

step "A link that stays behind: the name is unresolvable until it goes"
az network private-endpoint delete --name eastendpoint --resource-group eastgroup
unresolvable east $host
refused "lookup $host.*no such host" on east "$crane" digest $host/hello-world:v1
refused "CONNECTIVITY_DNS_ERROR" checked east --name $REGISTRY_NAME
az network private-dns link vnet delete --resource-group eastgroup --zone-name privatelink.azurecr.io --name eastlink --yes
is "without the link the name leads to the public address" $front "$(resolve east $host)"

step "A registry that does not exist"
refused "lookup nosuchregistry.azurecr.io.*no such host" on outside "$crane" digest nosuchregistry.azurecr.io/hello-world:v1
refused "Could not connect to the registry login server 'nosuchregistry.azurecr.io'" az acr login --name nosuchregistry --expose-token
refused "CONNECTIVITY_DNS_ERROR" checked outside --name nosuchregistry

step "The remedy for those who cannot use a private endpoint: it goes, and all networks are allowed"
az network private-endpoint delete --name westendpoint --resource-group $RESOURCE_GROUP
is "connections that are left" 0 "$(az acr private-endpoint-connection list --registry-name $REGISTRY_NAME --query "length(@)" --output tsv)"
az acr update --name $REGISTRY_NAME --public-network-enabled true --default-action Allow --output none
pulls elsewhere

printf '\n%sEvery step held.%s\n' "$green" "$plain"
