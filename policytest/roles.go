package policytest

import "strings"

// actions puts the provider before each of the space-separated names.
func actions(names string) []string {
	var full []string
	for _, n := range strings.Fields(names) {
		full = append(full, prefix+n)
	}
	return full
}

func role(name, acts, data string, others ...string) RoleDefinition {
	return RoleDefinition{name, []Permission{{Actions: append(actions(acts), others...), DataActions: actions(data)}}}
}

// Builtin are the roles that exist without anybody having made them, by id.
var Builtin = map[string]RoleDefinition{
	"7f951dda-4ed3-4680-a7ca-43fe172d538d": role("AcrPull", "pull/read", ""),
	"8311e382-0749-4cb8-b61a-304f252e45ec": role("AcrPush", "pull/read push/write", ""),
	"c2f4ef07-c644-48eb-af81-4b1b4947fb11": role("AcrDelete", "artifacts/delete", ""),
	"6cef56e8-d556-48e5-a04f-b8e64114680f": role("AcrImageSigner", "sign/write", "trustedCollections/write"),
	"cdda3590-29a3-44f6-95f2-9f980659eb04": role("AcrQuarantineReader", "quarantine/read", "quarantinedArtifacts/read"),
	"c8d4ff99-41c3-41a8-9f60-21dfdad59608": role("AcrQuarantineWriter", "quarantine/read quarantine/write",
		"quarantinedArtifacts/read quarantinedArtifacts/write"),
	"b93aa761-3e63-49ed-ac28-beffa264f7ac": role("Container Registry Repository Reader", "",
		"repositories/metadata/read repositories/content/read"),
	"2a1e307c-b015-4ebd-883e-5b7698a07328": role("Container Registry Repository Writer", "",
		"repositories/metadata/read repositories/content/read repositories/metadata/write repositories/content/write"),
	"2efddaa5-3f1f-4df3-97df-af3f13818f4c": role("Container Registry Repository Contributor", "",
		"repositories/metadata/read repositories/content/read repositories/metadata/write repositories/content/write repositories/metadata/delete repositories/content/delete"),
	"bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7": role("Container Registry Repository Catalog Lister", "", "catalog/read"),
	"577a9874-89fd-4f24-9dbd-b5034d0ad23a": role("Container Registry Data Importer and Data Reader",
		"importImage/action read pull/read", "repositories/content/read repositories/metadata/read catalog/read"),
	"3bc748fc-213d-45c1-8d91-9da5725539b9": role("Container Registry Contributor and Data Access Configuration Administrator",
		`read write delete operationStatuses/read listCredentials/action regenerateCredential/action generateCredentials/action
		replications/read replications/write replications/delete replications/operationStatuses/read
		privateEndpointConnectionsApproval/action
		privateEndpointConnections/read privateEndpointConnections/write privateEndpointConnections/delete privateEndpointConnections/operationStatuses/read
		tokens/read tokens/write tokens/delete tokens/operationStatuses/read
		scopeMaps/read scopeMaps/write scopeMaps/delete scopeMaps/operationStatuses/read
		connectedRegistries/read connectedRegistries/write connectedRegistries/delete connectedRegistries/deactivate/action
		webhooks/read webhooks/write webhooks/delete webhooks/getCallbackConfig/action webhooks/ping/action webhooks/listEvents/action webhooks/operationStatuses/read
		providers/Microsoft.Insights/diagnosticSettings/read providers/Microsoft.Insights/diagnosticSettings/write
		providers/Microsoft.Insights/logDefinitions/read providers/Microsoft.Insights/metricDefinitions/read`, "",
		"Microsoft.Network/virtualNetworks/read", "Microsoft.Network/virtualNetworks/subnets/read",
		"Microsoft.Network/virtualNetworks/subnets/write", "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action",
		"Microsoft.Network/privateEndpoints/privateLinkServiceProxies/write",
		"Microsoft.Authorization/*/read", "Microsoft.Resources/deployments/*", "Microsoft.Insights/AlertRules/*"),
	"69b07be0-09bf-439a-b9a6-e73de851bd59": role("Container Registry Configuration Reader and Data Access Configuration Reader",
		`read operationStatuses/read listCredentials/action
		replications/read replications/operationStatuses/read
		privateEndpointConnections/read privateEndpointConnections/operationStatuses/read
		tokens/read tokens/operationStatuses/read scopeMaps/read scopeMaps/operationStatuses/read connectedRegistries/read
		webhooks/read webhooks/getCallbackConfig/action webhooks/listEvents/action webhooks/operationStatuses/read
		providers/Microsoft.Insights/diagnosticSettings/read providers/Microsoft.Insights/diagnosticSettings/write
		providers/Microsoft.Insights/logDefinitions/read providers/Microsoft.Insights/metricDefinitions/read`, "",
		"Microsoft.Network/virtualNetworks/read", "Microsoft.Network/virtualNetworks/subnets/read",
		"Microsoft.Authorization/*/read", "Microsoft.Resources/deployments/*", "Microsoft.Insights/AlertRules/*"),
	"fb382eab-e894-4461-af04-94435c366c3f": role("Container Registry Tasks Contributor",
		`agentpools/* tasks/* taskruns/* runs/read runs/write runs/listLogSasUrl/action runs/cancel/action
		scheduleRun/action listBuildSourceUploadUrl/action read`, ""),
	"bf94e731-3a51-4a7c-8c54-a1ab9971dfc1": role("Container Registry Transfer Pipeline Contributor",
		"exportPipelines/* importPipelines/* pipelineRuns/*", ""),
	"df87f177-bb12-4db1-9793-a413691eff94": role("Container Registry Cache Rule Administrator", "cacheRules/*", ""),
	"c357b964-0002-4b64-a50d-7a28f02edc52": role("Container Registry Cache Rule Reader", "cacheRules/read", ""),
	"f094fb07-0703-4400-ad6a-e16dd8000e14": role("Container Registry Credential Set Administrator", "credentialSets/*", ""),
	"29093635-9924-4f2c-913b-650a12949526": role("Container Registry Credential Set Reader", "credentialSets/read", ""),
	"8e3af657-a8ff-443c-a75c-2fe8c4bcb635": role("Owner", "", "", "*"),
	"b24988ac-6180-42a0-ab88-20f7382dd24c": {"Contributor", []Permission{{
		Actions:    []string{"*"},
		NotActions: []string{"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write", "Microsoft.Authorization/elevateAccess/Action"},
	}}},
	"acdd72a7-3385-48ef-bd42-f606fba81ae7": role("Reader", "", "", "*/read"),
	"f58310d9-a9f6-439a-9e8d-f62e7b41a168": role("Role Based Access Control Administrator", "", "",
		"Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete", "*/read"),
	"18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": role("User Access Administrator", "", "", "*/read", "Microsoft.Authorization/*"),
}
