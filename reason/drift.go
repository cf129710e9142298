package reason

// What the server finds by itself, by looking at what it holds: things that
// fail now without anybody having noticed, or that will.
const (
	StaleLink       Code = "COVE-DRIFT-001"
	WaitsForOwner   Code = "COVE-DRIFT-002"
	EndpointDead    Code = "COVE-DRIFT-003"
	RuleIdle        Code = "COVE-DRIFT-004"
	RulesIdle       Code = "COVE-DRIFT-005"
	RoleIdle        Code = "COVE-DRIFT-006"
	CertificateEnds Code = "COVE-DRIFT-007"
	EndpointClash   Code = "COVE-DRIFT-008"

	RulesAndEndpoint Code = "COVE-DRIFT-009"
	EndpointRejected Code = "COVE-DRIFT-010"

	DiskFills Code = "COVE-DRIFT-011"

	AttachedNothing Code = "COVE-DRIFT-021"
	AddressUnserved Code = "COVE-DRIFT-022"
	LinkNowhere     Code = "COVE-DRIFT-023"
	MembersCutOff   Code = "COVE-DRIFT-024"
	MembersBehind   Code = "COVE-DRIFT-025"
)

// Drift is the closed list of them. Names that lead elsewhere and credentials
// that end have the codes that the health check gives them.
var Drift = []Meaning{
	{
		StaleLink, "a private zone hides a registry from a network",
		"A private zone is linked to a network, and holds no record for a registry that has, or once had, a private endpoint. In that network the registry's name does not exist: a linked zone has the last word.",
		"Give the network a private endpoint and the zone its records; or remove the zone's link to the network, where no private endpoint of another registry needs it.",
	},
	{
		WaitsForOwner, "a private endpoint waits for approval",
		"A private endpoint has asked for a connection and the registry's owner has not answered. It carries nothing until then.",
		"Approve the connection, or reject it.",
	},
	{
		EndpointDead, "a private endpoint leads nowhere",
		"The registry's owner has removed the private endpoint's connection, or the registry is gone. It cannot be brought back to life.",
		"Delete the private endpoint, and create it again if it is wanted.",
	},
	{
		RuleIdle, "a network rule can match nothing",
		"An address rule names addresses inside a virtual network, with which nobody comes to the public door, or lies within another rule; or a rule names a subnet that has no service endpoint.",
		"Remove the rule, or give the subnet its service endpoint. Members of a virtual network need a private endpoint or a service endpoint.",
	},
	{
		RulesIdle, "network rules without effect",
		"The registry has network rules and its public access is disabled: nothing gets as far as the rules.",
		"Remove the rules, or enable public access if they are meant to let somebody in.",
	},
	{
		RoleIdle, "a role that counts for nothing here",
		"An identity holds a role on a registry that the registry's permissions mode does not honour for content, and no role that it honours.",
		"Assign the repository role that does the same, or switch the mode back.",
	},
	{
		CertificateEnds, "a certificate ends soon",
		"A certificate that the server serves ends within a month.",
		"Put a new one in its place; the server takes it up without a restart.",
	},
	{
		EndpointClash, "two private endpoints share a name in one zone",
		"Two private endpoints of one registry, in networks that see the same zone, have one record between them: one network is led to the other's address.",
		"Give each network a zone of its own, in a resource group of its own.",
	},
	{
		EndpointRejected, "a private endpoint was rejected",
		"The registry's owner has rejected the private endpoint's connection. It carries nothing.",
		"Delete the private endpoint, or approve its connection after all.",
	},
	{
		RulesAndEndpoint, "subnet rules beside a private endpoint",
		"The registry has rules for subnets, and a private endpoint. The two are alternatives: no further subnet rule is taken until those are gone.",
		"Remove the subnet rules.",
	},
	{
		DiskFills, "the server's disk is full or nearly",
		"The disk with the server's data folder has little space left. When it is full, pushes and changes are refused, and events wait in memory; pulls go on.",
		"Free space on it or make it larger; the server goes on by itself. Deleting images frees theirs when collection has run, and uploads that broke off keep their bytes for 7 days.",
	},
	{
		AttachedNothing, "an attached network does not exist",
		"The server's configuration attaches a virtual network that does not exist. It may not have been made yet, or its resource id is misspelt.",
		"Make the network, or correct the resource id and start the server again.",
	},
	{
		AddressUnserved, "a private endpoint's address is not served",
		"A network is attached to the host, and the server does not listen at the address of a private endpoint in it: it lies outside the range that the operator has given to the network, or something else on the machine has it.",
		"Give the private endpoint an address in the range, extend the range with --attach-host, or end the other program.",
	},
	{
		LinkNowhere, "a private link of a cloud leads nowhere",
		"The file of --proxy-map leads a private link to a private endpoint that does not exist, or that lies in a network which is not attached by --attach-proxy. Connections that come by the link are refused.",
		"Make the private endpoint, correct the file, or take the line out.",
	},
	{
		MembersCutOff, "members of an attached network have no tunnel",
		"Machines had joined the network before it was attached to the host or to a cloud's balancers. A network exists in one way only: their tunnels carry nothing any more.",
		"Give those machines a way to the network's addresses that is the attachment's, and remove the members; or start the server without the attachment.",
	},
	{
		MembersBehind, "members have no route to private endpoints",
		"Machines joined the network before it was peered with another one that has private endpoints, or before its own address space grew, and have not asked since, as cove join does while it runs. Nobody can change a machine's routes from here: what they send there does not enter the tunnel.",
		"On each machine ask dig +short TXT _routes.resolver.arpa @168.63.129.16 and write the answer into AllowedIPs; or end the tunnel and join again: cove join VNET/SUBNET --name NAME --replace.",
	},
}
