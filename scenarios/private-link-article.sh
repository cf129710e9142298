#!/bin/bash
# The Private Link article, from its first command to its last, typed into the
# real Azure CLI. row:7 row:35 row:37 row:38 row:39 row:41 row:42 row:43 row:44
# row:45 row:46 row:47 row:48 row:49 row:50 row:52 row:53 row:57 row:58 row:59
# row:60 row:61 row:95
#
# A Premium registry gets a private endpoint in a virtual network, its private
# zone its records, and its public access goes off. Each command is shown, and
# its effect is looked for in real traffic: a machine in the network, with
# docker, pulls by the usual name; outside the same pull is refused. The names
# are the public cloud's own, which this server serves itself. Portal steps are
# taken by their CLI equivalents.
#
# COVE and CRANE name the programs; DATA is the folder for everything; the
# exit status is 0 only if every step held.
set -euo pipefail

cove=${COVE:?the cove binary}
crane=${CRANE:?the crane binary}
data=${DATA:?a folder for the data}
here=$(cd "$(dirname "$0")" && pwd)

REGISTRY_NAME=myregistry
REGISTRY_LOCATION=westeurope
RESOURCE_GROUP=myresourcegroup
NETWORK_NAME=mynetwork
SUBNET_NAME=mysubnet
host=$REGISTRY_NAME.azurecr.io

. "$here/house.sh"

step "A server that has the public cloud's names, and a machine outside with the Azure CLI"
house --region westeurope --also-region eastus --registry-suffix azurecr.io --registry-alias mcr.microsoft.com=mcrmirror
sign_in

step "The site's own mirror answers for the image host that the article imports from"
az group create --name mirrors --location $REGISTRY_LOCATION --output none
az acr create --resource-group mirrors --name mcrmirror --sku Standard --output none
image
TOKEN=$(az acr login --name mcrmirror --expose-token --query accessToken --output tsv)
on outside "$crane" auth login mcrmirror.azurecr.io -u 00000000-0000-0000-0000-000000000000 -p "$TOKEN"
on outside "$crane" push "$data/hello.tar" mcrmirror.azurecr.io/hello-world:latest

step "Before starting: a network with a subnet, a Premium registry, an image in it"
az group create --name $RESOURCE_GROUP --location $REGISTRY_LOCATION --output none
az network vnet create --resource-group $RESOURCE_GROUP --name $NETWORK_NAME --address-prefixes 10.0.0.0/16 --subnet-name $SUBNET_NAME --subnet-prefixes 10.0.0.0/24 --output none
az acr create --resource-group $RESOURCE_GROUP --name $REGISTRY_NAME --sku Premium --output none
az acr import --name $REGISTRY_NAME --source mcr.microsoft.com/hello-world --image hello-world:v1
refused "already exists|Conflict" az acr import --name $REGISTRY_NAME --source mcr.microsoft.com/hello-world --image hello-world:v1
TOKEN=$(az acr login --name $REGISTRY_NAME --expose-token --query accessToken --output tsv)
on outside "$crane" auth login $host -u 00000000-0000-0000-0000-000000000000 -p "$TOKEN"
on outside "$crane" validate --remote $host/hello-world:v1

step "Limits"
is "a Premium registry may have 200 private endpoints" 200 \
	"$(az acr show-usage --name $REGISTRY_NAME --query "value[?name=='PrivateEndpointConnections'].limit" --output tsv)"

step "Premium only"
az acr create --resource-group $RESOURCE_GROUP --name mybasicregistry --sku Basic --output none
refused "private endpoints need Premium" az network private-endpoint create --name toBasic --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --subnet $SUBNET_NAME --private-connection-resource-id "$(az acr show --name mybasicregistry --query id --output tsv)" --group-ids registry --connection-name toBasic
az acr delete --name mybasicregistry --yes

step "1. Network policies are off on the endpoint's subnet"
az network vnet subnet update --name $SUBNET_NAME --vnet-name $NETWORK_NAME --resource-group $RESOURCE_GROUP --disable-private-endpoint-network-policies --output none
is "the subnet's policies" Disabled "$(az network vnet subnet show --name $SUBNET_NAME --vnet-name $NETWORK_NAME --resource-group $RESOURCE_GROUP --query privateEndpointNetworkPolicies --output tsv)"

step "A machine joins the network"
machine member $NETWORK_NAME/$SUBNET_NAME
is "before there is an endpoint the name leads to the public address, inside too" $front "$(resolve member $host)"

step "2. The private zone, and its link to the network"
az network private-dns zone create --resource-group $RESOURCE_GROUP --name "privatelink.azurecr.io" --output none
az network private-dns link vnet create --resource-group $RESOURCE_GROUP --zone-name "privatelink.azurecr.io" --name MyDNSLink --virtual-network $NETWORK_NAME --registration-enabled false --output none

step "3. The private endpoint, connected to the registry"
REGISTRY_ID=$(az acr show --name $REGISTRY_NAME --query 'id' --output tsv)
refused "PrivateEndpoint|groupId|group id" az network private-endpoint create --name wrong --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --subnet $SUBNET_NAME --private-connection-resource-id "$REGISTRY_ID" --group-ids blob --connection-name wrong
az network private-endpoint create --name myPrivateEndpoint --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --subnet $SUBNET_NAME --private-connection-resource-id "$REGISTRY_ID" --group-ids registry --connection-name myConnection --output none
is "its connection" Approved "$(az acr private-endpoint-connection list --registry-name $REGISTRY_NAME --query "[0].privateLinkServiceConnectionState.status" --output tsv)"
is "dedicated data endpoints" true "$(az acr show --name $REGISTRY_NAME --query dataEndpointEnabled --output tsv)"

step "4. Its addresses"
NETWORK_INTERFACE_ID=$(az network private-endpoint show --name myPrivateEndpoint --resource-group $RESOURCE_GROUP --query 'networkInterfaces[0].id' --output tsv)
nic() { az network nic show --ids "$NETWORK_INTERFACE_ID" --query "ipConfigurations[?privateLinkConnectionProperties.requiredMemberName=='$1'].$2" --output tsv; }
REGISTRY_PRIVATE_IP=$(nic registry privateIpAddress)
DATA_ENDPOINT_PRIVATE_IP=$(nic registry_data_$REGISTRY_LOCATION privateIpAddress)
REGISTRY_FQDN=$(nic registry privateLinkConnectionProperties.fqdns)
DATA_ENDPOINT_FQDN=$(nic registry_data_$REGISTRY_LOCATION privateLinkConnectionProperties.fqdns)
is "the registry's name" $host "$REGISTRY_FQDN"
is "the data endpoint's name" $REGISTRY_NAME.$REGISTRY_LOCATION.data.azurecr.io "$DATA_ENDPOINT_FQDN"
is "newer tools spell the address privateIPAddress" "$REGISTRY_PRIVATE_IP" \
	"$(az rest --method get --url "$NETWORK_INTERFACE_ID?api-version=2022-01-01" --query "properties.ipConfigurations[?properties.privateLinkConnectionProperties.requiredMemberName=='registry'] | [0].properties.privateIPAddress" --output tsv)"
unresolvable member $host

step "5. Records in the private zone: empty sets, then the addresses"
az network private-dns record-set a create --name $REGISTRY_NAME --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --output none
az network private-dns record-set a create --name ${REGISTRY_NAME}.${REGISTRY_LOCATION}.data --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --output none
unresolvable member $host
az network private-dns record-set a add-record --record-set-name $REGISTRY_NAME --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --ipv4-address "$REGISTRY_PRIVATE_IP" --output none
az network private-dns record-set a add-record --record-set-name ${REGISTRY_NAME}.${REGISTRY_LOCATION}.data --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --ipv4-address "$DATA_ENDPOINT_PRIVATE_IP" --output none

step "6. Public access goes off"
on outside "$crane" manifest $host/hello-world:v1 >/dev/null
az acr update --name $REGISTRY_NAME --public-network-enabled false --output none

step "8. Validate: the names, from both sides"
on member dig $host +noall +answer
is "inside the name leads to the private address" "$REGISTRY_PRIVATE_IP" "$(resolve member $host)"
is "and the data endpoint's too" "$DATA_ENDPOINT_PRIVATE_IP" "$(resolve member "$DATA_ENDPOINT_FQDN")"
on outside dig $host +noall +answer
is "outside to the public one" $front "$(resolve outside $host)"

step "8. Validate: inside, az acr login and docker pull"
docker_on member
az_on member acr login --name $REGISTRY_NAME
on member docker pull $host/hello-world:v1

step "Outside, the same is refused"
refused "client with IP '198.18.241.2' is not allowed access" on outside "$crane" manifest $host/hello-world:v1
refused "have access to registry" az acr login --name $REGISTRY_NAME --expose-token
refused "have access to registry" az acr repository list --name $REGISTRY_NAME

step "9. Manage the connections"
az acr private-endpoint-connection list --registry-name $REGISTRY_NAME --query "[].{name:name, status:privateLinkServiceConnectionState.status}" --output table
CONNECTION=$(az acr private-endpoint-connection list --registry-name $REGISTRY_NAME --query "[0].name" --output tsv)
az acr private-endpoint-connection reject --registry-name $REGISTRY_NAME --name "$CONNECTION" --output none
refused "client with IP '10.0.0." on member docker pull $host/hello-world:v1
az acr private-endpoint-connection approve --registry-name $REGISTRY_NAME --name "$CONNECTION" --output none
on member docker pull $host/hello-world:v1
is "its state" Approved "$(az acr private-endpoint-connection show --registry-name $REGISTRY_NAME --name "$CONNECTION" --query privateLinkServiceConnectionState.status --output tsv)"

step "An endpoint can be made to ask, and waits until it is approved"
az network private-endpoint create --name asking --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --subnet $SUBNET_NAME --private-connection-resource-id "$REGISTRY_ID" --group-ids registry --connection-name asking --manual-request --request-message please --output none
state_of() { az acr private-endpoint-connection list --registry-name $REGISTRY_NAME --query "[?starts_with(name, '$1.')].$2 | [0]" --output tsv; }
is "its connection" Pending "$(state_of asking privateLinkServiceConnectionState.status)"
ASKING_IP=$(az network private-endpoint show --name asking --resource-group $RESOURCE_GROUP --query "customDnsConfigs[0].ipAddresses[0]" --output tsv)
refused "is not allowed access" on member curl -sS --fail-with-body --resolve $host:443:"$ASKING_IP" https://$host/v2/
az acr private-endpoint-connection approve --registry-name $REGISTRY_NAME --name "$(state_of asking name)" --output none
refused "authentication required" on member curl -sS --fail-with-body --resolve $host:443:"$ASKING_IP" https://$host/v2/

step "A replica gives each endpoint one more address; by hand, its record is added too"
REPLICA_LOCATION=eastus
refused "is not available for resource type" az acr replication create --registry $REGISTRY_NAME --location northeurope
az acr replication create --registry $REGISTRY_NAME --location $REPLICA_LOCATION --output none
is "the connection that was approved by hand" Pending "$(state_of asking privateLinkServiceConnectionState.status)"
is "the one that was approved by itself" Approved "$(state_of myPrivateEndpoint privateLinkServiceConnectionState.status)"
REPLICA_DATA_ENDPOINT_PRIVATE_IP=$(nic registry_data_$REPLICA_LOCATION privateIpAddress)
REPLICA_DATA_ENDPOINT_FQDN=$(nic registry_data_$REPLICA_LOCATION privateLinkConnectionProperties.fqdns)
is "the replica's data endpoint" ${REGISTRY_NAME}.${REPLICA_LOCATION}.data.azurecr.io "$REPLICA_DATA_ENDPOINT_FQDN"
unresolvable member "$REPLICA_DATA_ENDPOINT_FQDN"
az network private-dns record-set a create --name ${REGISTRY_NAME}.${REPLICA_LOCATION}.data --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --output none
az network private-dns record-set a add-record --record-set-name ${REGISTRY_NAME}.${REPLICA_LOCATION}.data --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --ipv4-address "$REPLICA_DATA_ENDPOINT_PRIVATE_IP" --output none
is "with its record it resolves" "$REPLICA_DATA_ENDPOINT_PRIVATE_IP" "$(resolve member "$REPLICA_DATA_ENDPOINT_FQDN")"
refused "AuthenticationFailed" on member curl -sS --fail-with-body https://"$REPLICA_DATA_ENDPOINT_FQDN"/v2/hello-world/blobs/sha256:"$(printf %064d 0)"
az acr show-endpoints --name $REGISTRY_NAME --query "dataEndpoints[].endpoint" --output tsv
az acr replication delete --registry $REGISTRY_NAME --name $REPLICA_LOCATION
unresolvable member "$REPLICA_DATA_ENDPOINT_FQDN"
az network private-endpoint delete --name asking --resource-group $RESOURCE_GROUP

step "The endpoint's DNS configuration"
az network private-endpoint show --name myPrivateEndpoint --resource-group $RESOURCE_GROUP --query "customDnsConfigs[].{fqdn:fqdn, address:ipAddresses[0]}" --output table

step "10. After the endpoint is deleted, the zone's link still answers: the name is unresolvable"
az network private-endpoint delete --name myPrivateEndpoint --resource-group $RESOURCE_GROUP
az network private-dns record-set a delete --name $REGISTRY_NAME --zone-name privatelink.azurecr.io --resource-group $RESOURCE_GROUP --yes
unresolvable member $host

step "The portal's way: an endpoint that is integrated with the zone writes its own records, and takes them with it"
az network private-endpoint create --name integrated --resource-group $RESOURCE_GROUP --vnet-name $NETWORK_NAME --subnet $SUBNET_NAME --private-connection-resource-id "$REGISTRY_ID" --group-ids registry --connection-name integrated --output none
az network private-endpoint dns-zone-group create --endpoint-name integrated --resource-group $RESOURCE_GROUP --name default --private-dns-zone privatelink.azurecr.io --zone-name azurecr --output none
is "the name leads to its address" "$(az network private-endpoint show --name integrated --resource-group $RESOURCE_GROUP --query "customDnsConfigs[?fqdn=='$host'].ipAddresses[0] | [0]" --output tsv)" "$(resolve member $host)"
on member docker pull $host/hello-world:v1
az network private-endpoint delete --name integrated --resource-group $RESOURCE_GROUP
unresolvable member $host

step "A zone that is linked to the network answers for it until the link goes"
az network private-dns link vnet delete --resource-group $RESOURCE_GROUP --zone-name "privatelink.azurecr.io" --name MyDNSLink --yes
is "without the link it leads to the public address again" $front "$(resolve member $host)"

step "Clean up: deleting the group takes everything in it"
leave member
az group delete --name $RESOURCE_GROUP --yes
is "registries of the group that are left" 0 "$(az acr list --query "length([?name=='$REGISTRY_NAME'])" --output tsv)"
refused "Could not resolve|NXDOMAIN|no such host|Try running 'az acr check-health" az acr login --name $REGISTRY_NAME --expose-token
unresolvable outside $host

printf '\n%sEvery step held.%s\n' "$green" "$plain"
