package reason

// Why the registry refuses a request. The decision that finds these is
// access.Decide; each is in the event, in the refusal and in what explain says.
const (
	PublicAccessOff    Code = "COVE-NET-001"
	AddressUnknown     Code = "COVE-NET-002"
	NoRule             Code = "COVE-NET-003"
	EndpointNotOpen    Code = "COVE-NET-005"
	EndpointElsewhere  Code = "COVE-NET-006"
	RegistryUnknown    Code = "COVE-NAME-001"
	NoSubnetRule       Code = "COVE-NET-021"
	KindNotServed      Code = "COVE-NET-022"
	NoServiceEndpoint  Code = "COVE-NET-023"
	LinkUnknown        Code = "COVE-NET-031"
	LinkMissing        Code = "COVE-NET-032"
	NoCredential       Code = "COVE-AUTH-001"
	WrongCredential    Code = "COVE-AUTH-002"
	SecretExpired      Code = "COVE-AUTH-003"
	AdminOff           Code = "COVE-AUTH-004"
	TokenExpired       Code = "COVE-AUTH-005"
	TokenNotForHere    Code = "COVE-AUTH-006"
	CredentialUnread   Code = "COVE-AUTH-007"
	IdentityGone       Code = "COVE-AUTH-008"
	AnonymousOff       Code = "COVE-AUTH-009"
	NotRegistered      Code = "COVE-AUTH-010"
	HostCapitals       Code = "COVE-AUTH-011"
	LinkInvalid        Code = "COVE-AUTH-021"
	LinkExpired        Code = "COVE-AUTH-022"
	ForeignCredential  Code = "COVE-AUTH-023"
	NotQuiteAnID       Code = "COVE-AUTH-031"
	TooManyGuesses     Code = "COVE-AUTH-032"
	ModeChanged        Code = "COVE-AUTH-033"
	AudienceRefused    Code = "COVE-AUTH-034"
	NoRoleForAction    Code = "COVE-PERM-001"
	NoRoleHere         Code = "COVE-PERM-002"
	TokenScopeTooSmall Code = "COVE-PERM-003"
	AnonymousReadsOnly Code = "COVE-PERM-004"
	ModeIgnoresRole    Code = "COVE-PERM-011"
	ConditionNotMet    Code = "COVE-PERM-012"
	ScopeMapTooSmall   Code = "COVE-PERM-031"
	RateExceeded       Code = "COVE-RATE-011"
	CannotDecide       Code = "COVE-INT-001"
)

// Refusals is the closed list of them, in order.
var Refusals = []Meaning{
	{
		PublicAccessOff, "public access is disabled",
		"The request came in by the public door, and the registry's public access is disabled.",
		"Come through a private endpoint: inside its network the same name leads to it. Or enable public access, which opens the door to whatever the network rules admit.",
	},
	{
		AddressUnknown, "the caller's address is not known",
		"The connection carried no address to compare with the network rules.",
		"Look at what stands in front of the server; a connection without an address is never admitted.",
	},
	{
		NoRule, "no rule admits the address",
		"The request came in by the public door, no network rule contains the caller's address, and the default action is Deny.",
		"Come through a private endpoint, or add a rule for the address. An address that changes, such as a hosted runner's, is better served by a private endpoint.",
	},
	{
		EndpointNotOpen, "the private endpoint's connection is not approved",
		"The request reached a private endpoint whose connection the registry's owner has not approved, or has rejected or removed.",
		"The registry's owner approves the connection; nothing on the client needs to change.",
	},
	{
		EndpointElsewhere, "the private endpoint leads to another registry",
		"The name asked for belongs to one registry and the private endpoint that was reached leads to another.",
		"Compare the name's record in the network's private zone with the addresses of the private endpoints: the record points at the wrong one.",
	},
	{
		RegistryUnknown, "no registry has this name",
		"No registry is served under the name that was asked for.",
		"Compare the login server in the image name with the list of registries.",
	},
	{
		NoSubnetRule, "no rule names the subnet",
		"The request came through the service endpoint of a subnet that no rule of the registry names, and the default action is Deny.",
		"Add a rule for the subnet, or come through a private endpoint.",
	},
	{
		KindNotServed, "service endpoints are not for this kind of machine",
		"A rule names the subnet, and the caller is neither a virtual machine nor a node of a cluster, which are what service endpoints are for.",
		"Use a private endpoint: it serves every kind of machine in the network.",
	},
	{
		NoServiceEndpoint, "the subnet has no service endpoint",
		"The request came from inside a virtual network to the registry's public side, from a subnet without a service endpoint for registries, and the default action is Deny. Address rules are for public addresses and never admit an address inside a network.",
		"Give the subnet the service endpoint Microsoft.ContainerRegistry and the registry a rule for the subnet, or use a private endpoint.",
	},
	{
		LinkUnknown, "the private link is not known",
		"The request came through a listed balancer of a cloud, by a private link that the operator has mapped to no private endpoint, or to one that is not there.",
		"The operator adds the link's id, and the private endpoint that it belongs to, to the file of --proxy-map. Only who runs the balancer knows whose link it is.",
	},
	{
		LinkMissing, "the balancer named no private link",
		"The request came through a listed balancer of a cloud, whose header names no private link. Nothing but private links is served there.",
		"Let the balancer's private link service add the id of the connection to its headers (TCP Proxy v2). Callers without a private link take the public door.",
	},
	{
		NoCredential, "no credential was sent",
		"The request carried no credential. Clients begin so, and sign in when asked to.",
		"If the client did not go on to sign in, it has no credential stored for this name: log in to the login server in lower case, without a path.",
	},
	{
		WrongCredential, "the user name or password is wrong",
		"The user name and the password or secret do not belong together.",
		"Log in again with the present password. A secret that was renewed must be renewed wherever it is stored.",
	},
	{
		SecretExpired, "the secret has expired",
		"The client secret, or the password of the registry's token, was right and its time is over.",
		"Make a new secret for the application, or a new password for the token, and log in with it.",
	},
	{
		AdminOff, "the admin user is disabled",
		"The registry's admin user was used, and it is switched off.",
		"Sign in as a service principal, or switch the admin user on.",
	},
	{
		TokenExpired, "the token has expired",
		"The token was a good one and its time is over.",
		"Log in again. Unless the operator has said otherwise, a refresh token is good for three hours and an access token for 75 minutes.",
	},
	{
		TokenNotForHere, "the token is not valid here",
		"The token is of another kind, for another registry, of another tenant, not ours, or damaged.",
		"Log out, remove stale entries from the client's credential store, and log in to this very login server.",
	},
	{
		CredentialUnread, "the credential cannot be read",
		"The Authorization header is not of a form that the registry knows.",
		"Send Basic with user name and password, or Bearer with a token of this registry.",
	},
	{
		IdentityGone, "the identity is disabled or gone",
		"The credential belonged to an identity, or was bought with a secret, that has since been disabled or removed.",
		"Enable the identity, or sign in as another.",
	},
	{
		AnonymousOff, "anonymous pull is off",
		"A token without an identity was used, and the registry does not let everybody pull.",
		"Log in, or switch anonymous pull on.",
	},
	{
		NotRegistered, "the user name is not known",
		"The user name is neither this registry's admin user, nor one of its tokens, nor the id of an application.",
		"Use the application's client id, a GUID, as the user name; or the name of a token of this registry; or the registry's name, where its admin user is on.",
	},
	{
		HostCapitals, "the login server is written with capitals",
		"The credential was sent to the login server's name written with capitals. Credentials are for the name in lower case, and clients keep them apart by its spelling.",
		"Write the login server in lower case, in the login as in the image name.",
	},
	{
		LinkInvalid, "the download link is not valid",
		"The request came to a data endpoint without a link of this registry for this very blob, or with one that was changed, made for something else, or signed with a key that is no longer used.",
		"Ask the login server for the blob again: it answers with a link. Clients do so by themselves; a link is not to be kept or passed on.",
	},
	{
		LinkExpired, "the download link has expired",
		"The request came to a data endpoint with a good link whose 25 minutes are over.",
		"Ask the login server for the blob again: it answers with a new link.",
	},
	{
		ForeignCredential, "a credential came to the data endpoint",
		"The request to a data endpoint carried an Authorization header. What lets a caller in there is the link in the URL; a client that sends its registry credential along a redirect gives it to a host that it was not meant for.",
		"Update the client: those that do this are old. Programs of your own follow the redirect without the header.",
	},
	{
		NotQuiteAnID, "the user name is not quite an id",
		"The user name looks like the id of an application and is not one: hyphens are missing, or it has braces or other characters.",
		"Write the client id as five groups of hexadecimal digits with hyphens between them.",
	},
	{
		TooManyGuesses, "too many wrong passwords",
		"Many different wrong passwords came from this address, or one of them came again and again.",
		"Wait as long as the answer says. A client that keeps a stale password must be given the present one; a password that is right keeps working elsewhere.",
	},
	{
		ModeChanged, "the credential is of another permission mode",
		"The token was issued while the registry was in its other role assignment mode. A credential is bound to the mode that it was issued in.",
		"Log in again.",
	},
	{
		AudienceRefused, "the access token is for the Resource Manager",
		"The registry takes access tokens that are made out to registries only: its authentication-as-arm policy is disabled.",
		"Ask for a token for https://containerregistry.azure.net; az does so by itself when it can read the registry. Or enable the policy.",
	},
	{
		NoRoleForAction, "no role allows this",
		"The identity holds a role on the registry, and none that allows what was asked.",
		"Assign a role that does: AcrPull to pull, AcrPush to push, AcrDelete to delete; in the permission mode AbacRepositoryPermissions, Container Registry Repository Reader, Writer or Contributor, and Catalog Lister to list.",
	},
	{
		NoRoleHere, "no role on this registry",
		"The identity is known and holds no role on this registry or above it.",
		"Assign a role on the registry. Check first that this is the identity you meant: the one that pulls is often not the one that was given the role.",
	},
	{
		TokenScopeTooSmall, "the token does not cover this",
		"The token is good and was issued for other repositories or actions.",
		"The client asks for another token by itself; if it does not, log in again.",
	},
	{
		AnonymousReadsOnly, "anonymous callers may only read",
		"Without an identity the registry can be read, and what was asked is more.",
		"Log in.",
	},
	{
		ModeIgnoresRole, "the permission mode ignores the role",
		"The identity holds a role that would allow this in the registry's other permission mode. With AbacRepositoryPermissions only data actions count, such as those of Container Registry Repository Reader; with LegacyRegistryPermissions only actions do, such as those of AcrPull.",
		"Assign a role of the registry's mode: Container Registry Repository Reader, Writer or Contributor, and Catalog Lister to list; or AcrPull, AcrPush, AcrDelete. Or change the registry's mode, after which everybody logs in again.",
	},
	{
		ConditionNotMet, "the role's condition is not true",
		"The identity holds a role that allows this, under a condition that is not true of the request: another repository, another way in, another time. What a request does not have makes nothing true.",
		"Compare the condition with the repository and with how the request came. Change the condition, or assign the role without one.",
	},
	{
		ScopeMapTooSmall, "the scope map does not allow this",
		"The registry's token has a scope map, and no action in it covers what was asked. No scope map lets a token list the catalog.",
		"Add the repository and the action to the scope map, or point the token at another. The change counts at once.",
	},
	{
		RateExceeded, "a rate limit is exceeded",
		"The registry, or this identity on it, has made more requests of this kind than a minute may have.",
		"Wait as long as the answer says. Spread the load over identities, or choose a larger SKU; the operator can scale the limits.",
	},
	{
		CannotDecide, "the decision could not be made",
		"What the decision needs could not be read, so the request was refused.",
		"Try again. If it persists, the server's log has the cause under this id.",
	},
}
