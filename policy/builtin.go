package policy

import "strings"

// The ids of the built-in roles that the program itself names.
const (
	RoleOwner       = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	RoleContributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	RoleReader      = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	RoleAcrPull     = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
	RoleAcrPush     = "8311e382-0749-4cb8-b61a-304f252e45ec"
	RoleAcrDelete   = "c2f4ef07-c644-48eb-af81-4b1b4947fb11"
	RoleRepoReader  = "b93aa761-3e63-49ed-ac28-beffa264f7ac"
)

const acr = "Microsoft.ContainerRegistry/registries/"

// under spells out names below the registry: "tokens/{read,write}" is two.
func under(prefix string, names ...string) []string {
	var out []string
	for _, n := range names {
		head, list, ok := strings.Cut(n, "{")
		if !ok {
			out = append(out, prefix+n)
			continue
		}
		for part := range strings.SplitSeq(strings.TrimSuffix(list, "}"), ",") {
			out = append(out, prefix+head+part)
		}
	}
	return out
}

var (
	repoRead   = []string{DataMetadataRead, DataContentRead}
	repoWrite  = []string{DataMetadataWrite, DataContentWrite}
	repoDelete = []string{DataMetadataDelete, DataContentDelete}

	// What both configuration roles need outside the registry.
	around = []string{"Microsoft.Authorization/*/read", "Microsoft.Resources/deployments/*", "Microsoft.Insights/AlertRules/*"}

	diagnostics = under("Microsoft.ContainerRegistry/registries/providers/Microsoft.Insights/",
		"diagnosticSettings/{read,write}", "logDefinitions/read", "metricDefinitions/read")
)

// Builtin are the roles that exist without having been made, with the ids
// and actions of the documentation of Azure RBAC.
var Builtin = []*Role{
	{
		ID: RoleOwner, Name: "Owner", Description: "Manages everything, access included.",
		Actions: []string{"*"},
	},
	{
		ID: RoleContributor, Name: "Contributor", Description: "Manages everything but access.",
		Actions: []string{"*"},
		NotActions: []string{
			"Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write",
			"Microsoft.Authorization/elevateAccess/Action",
		},
	},
	{
		ID: RoleReader, Name: "Reader", Description: "Sees everything and changes nothing.",
		Actions: []string{"*/read"},
	},
	{
		ID: "f58310d9-a9f6-439a-9e8d-f62e7b41a168", Name: "Role Based Access Control Administrator", Description: "Manages role assignments.",
		Actions: []string{"Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete", "*/read"},
	},
	{
		ID: "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", Name: "User Access Administrator", Description: "Manages who may do what.",
		Actions: []string{"*/read", "Microsoft.Authorization/*"},
	},
	{
		ID: RoleAcrPull, Name: "AcrPull", Description: "Pulls from a registry.",
		Actions: under(acr, "pull/read"),
	},
	{
		ID: RoleAcrPush, Name: "AcrPush", Description: "Pushes to a registry and pulls from it.",
		Actions: under(acr, "pull/read", "push/write"),
	},
	{
		ID: RoleAcrDelete, Name: "AcrDelete", Description: "Deletes from a registry.",
		Actions: under(acr, "artifacts/delete"),
	},
	{
		ID: "6cef56e8-d556-48e5-a04f-b8e64114680f", Name: "AcrImageSigner", Description: "Signs images.",
		Actions: under(acr, "sign/write"), DataActions: under(acr, "trustedCollections/write"),
	},
	{
		ID: "cdda3590-29a3-44f6-95f2-9f980659eb04", Name: "AcrQuarantineReader", Description: "Reads quarantined images.",
		Actions: under(acr, "quarantine/read"), DataActions: under(acr, "quarantinedArtifacts/read"),
	},
	{
		ID: "c8d4ff99-41c3-41a8-9f60-21dfdad59608", Name: "AcrQuarantineWriter", Description: "Reads and releases quarantined images.",
		Actions: under(acr, "quarantine/{read,write}"), DataActions: under(acr, "quarantinedArtifacts/{read,write}"),
	},
	{
		ID: RoleRepoReader, Name: "Container Registry Repository Reader", Description: "Reads repositories (ABAC mode).",
		DataActions: repoRead,
	},
	{
		ID: "2a1e307c-b015-4ebd-883e-5b7698a07328", Name: "Container Registry Repository Writer", Description: "Reads and writes repositories (ABAC mode).",
		DataActions: join(repoRead, repoWrite),
	},
	{
		ID: "2efddaa5-3f1f-4df3-97df-af3f13818f4c", Name: "Container Registry Repository Contributor", Description: "Reads, writes and deletes in repositories (ABAC mode).",
		DataActions: join(repoRead, repoWrite, repoDelete),
	},
	{
		ID: "bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7", Name: "Container Registry Repository Catalog Lister", Description: "Lists all repositories (ABAC mode).",
		DataActions: under(acr, "catalog/read"),
	},
	{
		ID: "3bc748fc-213d-45c1-8d91-9da5725539b9", Name: "Container Registry Contributor and Data Access Configuration Administrator",
		Description: "Manages registries and how their content is reached, without reaching it.",
		Actions: join(under(acr, "{read,write,delete}", "operationStatuses/read",
			"listCredentials/action", "regenerateCredential/action", "generateCredentials/action",
			"replications/{read,write,delete,operationStatuses/read}", "privateEndpointConnectionsApproval/action",
			"privateEndpointConnections/{read,write,delete,operationStatuses/read}",
			"tokens/{read,write,delete,operationStatuses/read}", "scopeMaps/{read,write,delete,operationStatuses/read}",
			"connectedRegistries/{read,write,delete,deactivate/action}",
			"webhooks/{read,write,delete,getCallbackConfig/action,ping/action,listEvents/action,operationStatuses/read}"),
			diagnostics, under("Microsoft.Network/", "virtualNetworks/read", "virtualNetworks/subnets/{read,write,joinViaServiceEndpoint/action}",
				"privateEndpoints/privateLinkServiceProxies/write"), around),
	},
	{
		ID: "69b07be0-09bf-439a-b9a6-e73de851bd59", Name: "Container Registry Configuration Reader and Data Access Configuration Reader",
		Description: "Sees registries and how their content is reached, without reaching it.",
		Actions: join(under(acr, "read", "operationStatuses/read", "listCredentials/action",
			"replications/{read,operationStatuses/read}", "privateEndpointConnections/{read,operationStatuses/read}",
			"tokens/{read,operationStatuses/read}", "scopeMaps/{read,operationStatuses/read}", "connectedRegistries/read",
			"webhooks/{read,getCallbackConfig/action,listEvents/action,operationStatuses/read}"),
			diagnostics, under("Microsoft.Network/", "virtualNetworks/read", "virtualNetworks/subnets/read"), around),
	},
	{
		ID: "fb382eab-e894-4461-af04-94435c366c3f", Name: "Container Registry Tasks Contributor", Description: "Manages and runs tasks.",
		Actions: under(acr, "agentpools/*", "tasks/*", "taskruns/*", "runs/{read,write,listLogSasUrl/action,cancel/action}",
			"scheduleRun/action", "listBuildSourceUploadUrl/action", "read"),
	},
	{
		ID: "577a9874-89fd-4f24-9dbd-b5034d0ad23a", Name: "Container Registry Data Importer and Data Reader", Description: "Imports images and reads them.",
		Actions: under(acr, "importImage/action", "read", "pull/read"), DataActions: join(repoRead, under(acr, "catalog/read")),
	},
	{
		ID: "bf94e731-3a51-4a7c-8c54-a1ab9971dfc1", Name: "Container Registry Transfer Pipeline Contributor", Description: "Manages transfer pipelines.",
		Actions: under(acr, "exportPipelines/*", "importPipelines/*", "pipelineRuns/*"),
	},
	{
		ID: "df87f177-bb12-4db1-9793-a413691eff94", Name: "Container Registry Cache Rule Administrator", Description: "Manages cache rules.",
		Actions: under(acr, "cacheRules/*"),
	},
	{
		ID: "c357b964-0002-4b64-a50d-7a28f02edc52", Name: "Container Registry Cache Rule Reader", Description: "Sees cache rules.",
		Actions: under(acr, "cacheRules/read"),
	},
	{
		ID: "f094fb07-0703-4400-ad6a-e16dd8000e14", Name: "Container Registry Credential Set Administrator", Description: "Manages credential sets.",
		Actions: under(acr, "credentialSets/*"),
	},
	{
		ID: "29093635-9924-4f2c-913b-650a12949526", Name: "Container Registry Credential Set Reader", Description: "Sees credential sets.",
		Actions: under(acr, "credentialSets/read"),
	},
}

// BuiltinByID finds a built-in role by its GUID in any case, or nil.
func BuiltinByID(id string) *Role { return builtinIndex[strings.ToLower(id)] }

// BuiltinByName finds a built-in role by its name in any case, or nil.
func BuiltinByName(name string) *Role {
	for _, r := range Builtin {
		if strings.EqualFold(r.Name, name) {
			return r
		}
	}
	return nil
}

var builtinIndex = func() map[string]*Role {
	m := make(map[string]*Role, len(Builtin))
	for _, r := range Builtin {
		m[r.ID] = r
	}
	return m
}()

func join(lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}
