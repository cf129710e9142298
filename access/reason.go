package access

import "strings"

// Reason is a code of a closed list. A code never changes its meaning; a
// meaning that changes gets another code.
type Reason string

// The reasons for which a request is refused.
const (
	PublicAccessOff    Reason = "COVE-NET-001"
	AddressUnknown     Reason = "COVE-NET-002"
	NoRule             Reason = "COVE-NET-003"
	EndpointNotOpen    Reason = "COVE-NET-005"
	EndpointElsewhere  Reason = "COVE-NET-006"
	RegistryUnknown    Reason = "COVE-NAME-001"
	NoCredential       Reason = "COVE-AUTH-001"
	WrongCredential    Reason = "COVE-AUTH-002"
	SecretExpired      Reason = "COVE-AUTH-003"
	AdminOff           Reason = "COVE-AUTH-004"
	TokenExpired       Reason = "COVE-AUTH-005"
	TokenNotForHere    Reason = "COVE-AUTH-006"
	CredentialUnread   Reason = "COVE-AUTH-007"
	IdentityGone       Reason = "COVE-AUTH-008"
	AnonymousOff       Reason = "COVE-AUTH-009"
	NotRegistered      Reason = "COVE-AUTH-010"
	HostCapitals       Reason = "COVE-AUTH-011"
	NoRoleForAction    Reason = "COVE-PERM-001"
	NoRoleHere         Reason = "COVE-PERM-002"
	TokenScopeTooSmall Reason = "COVE-PERM-003"
	AnonymousReadsOnly Reason = "COVE-PERM-004"
	CannotDecide       Reason = "COVE-INT-001"
)

// Meaning is what a reason says to people: `cove help CODE` and explain print
// it.
type Meaning struct {
	Code  Reason `json:"code"`
	Title string `json:"title"` // a few words
	Cause string `json:"cause"` // one sentence
	Next  string `json:"next"`  // what to do about it
}

// Reasons is the closed list, in order.
var Reasons = []Meaning{
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
		"The client secret was right and its time is over.",
		"Make a new secret for the application and log in with it.",
	},
	{
		AdminOff, "the admin user is disabled",
		"The registry's admin user was used, and it is switched off.",
		"Sign in as a service principal, or switch the admin user on.",
	},
	{
		TokenExpired, "the token has expired",
		"The token was a good one and its time is over.",
		"Log in again. A refresh token is good for three hours, an access token for 75 minutes.",
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
		"The user name is neither this registry's admin user nor the id of an application.",
		"Use the application's client id, a GUID, as the user name; or the registry's name, where its admin user is on.",
	},
	{
		HostCapitals, "the login server is written with capitals",
		"The credential was sent to the login server's name written with capitals. Credentials are for the name in lower case, and clients keep them apart by its spelling.",
		"Write the login server in lower case, in the login as in the image name.",
	},
	{
		NoRoleForAction, "no role allows this",
		"The identity holds a role on the registry, and none that allows what was asked.",
		"Assign a role that does: AcrPull to pull, AcrPush to push, AcrDelete to delete.",
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
		CannotDecide, "the decision could not be made",
		"What the decision needs could not be read, so the request was refused.",
		"Try again. If it persists, the server's log has the cause under this id.",
	},
}

// Explained returns the meaning of a code in any case, and whether there is
// such a code.
func Explained(code string) (Meaning, bool) {
	for _, m := range Reasons {
		if strings.EqualFold(string(m.Code), code) {
			return m, true
		}
	}
	return Meaning{}, false
}

func meaning(r Reason) Meaning {
	m, _ := Explained(string(r))
	return m
}
