package reason

// What can be wrong on the way to a registry, before it is asked, and with
// what comes back. The health check finds these where it runs; the registry
// cannot know of them.
const (
	NameUnknown      Code = "COVE-DNS-001"
	NamePublic       Code = "COVE-DNS-002"
	NameElsewhere    Code = "COVE-DNS-003"
	ResolverSilent   Code = "COVE-DNS-004"
	NameEmpty        Code = "COVE-DNS-005"
	PrivateNoRecord  Code = "COVE-DNS-006"
	DataNamePublic   Code = "COVE-DNS-007"
	ResolversDiffer  Code = "COVE-DNS-008"
	ResolversSplit   Code = "COVE-DNS-009"
	ResolverFails    Code = "COVE-DNS-010"
	PathSilent       Code = "COVE-PATH-001"
	PathRefused      Code = "COVE-PATH-002"
	PathCut          Code = "COVE-PATH-003"
	NoRoute          Code = "COVE-PATH-004"
	GroupDenies      Code = "COVE-PATH-005"
	AddressOpen      Code = "COVE-PATH-006"
	PathStalls       Code = "COVE-PATH-007"
	MetadataAway     Code = "COVE-PATH-008"
	MachineNobody    Code = "COVE-AUTH-035"
	ProxyAway        Code = "COVE-PROXY-001"
	ProxyRefuses     Code = "COVE-PROXY-002"
	ProxyCuts        Code = "COVE-PROXY-003"
	ProxyAnswers     Code = "COVE-PROXY-004"
	ProxyLimits      Code = "COVE-PROXY-005"
	AuthorityUnknown Code = "COVE-TLS-001"
	CertificateTime  Code = "COVE-TLS-002"
	CertificateName  Code = "COVE-TLS-003"
	PrivateName      Code = "COVE-TLS-004"
	ChainIncomplete  Code = "COVE-TLS-005"
	NotTLS           Code = "COVE-TLS-006"
	ClockWrong       Code = "COVE-CLOCK-001"
	NoChallenge      Code = "COVE-CHAL-001"
	RealmElsewhere   Code = "COVE-CHAL-002"
	NetworkRefuses   Code = "COVE-NET-000"
	SignInRefused    Code = "COVE-AUTH-000"
	TokenLacks       Code = "COVE-PERM-000"
	ImageUnknown     Code = "COVE-NAME-002"
	PlatformAbsent   Code = "COVE-NAME-003"
	NameInvalid      Code = "COVE-NAME-004"
	LockForbids      Code = "COVE-LOCK-001"
	BytesWrong       Code = "COVE-DATA-002"
	LayerGone        Code = "COVE-DATA-003"
	DataBlocked      Code = "COVE-DATA-001"
	Throttled        Code = "COVE-RATE-001"
	ServerFails      Code = "COVE-SRV-001"
	DatabaseAway     Code = "COVE-SRV-002"
	ServerFull       Code = "COVE-SRV-003"
	NotServedName    Code = "COVE-SRV-004"
	ClientOld        Code = "COVE-CLIENT-001"
	EngineAway       Code = "COVE-CLIENT-002"
	EngineProxy      Code = "COVE-CLIENT-003"
	HelperBroken     Code = "COVE-CLIENT-004"
	EngineFull       Code = "COVE-CLIENT-005"
	WaitsToRetry     Code = "COVE-CLIENT-006"
	ManagerRefuses   Code = "COVE-ARM-001"
	ManagerHasNone   Code = "COVE-ARM-002"
	CredentialEnds   Code = "COVE-CRED-001"
)

// Way is the closed list of them, in the order in which a request meets them.
var Way = []Meaning{
	{
		NameUnknown, "the name does not exist",
		"The resolver that this machine uses says that there is no such name.",
		"Compare the name with the registry's login server. If it is right, this machine's resolver does not know cove's names: forward the whole registry suffix to cove's resolver.",
	},
	{
		NamePublic, "the name leads to the public address",
		"A private endpoint in this network serves the name, and the name resolves to the public address.",
		"Link the private zone to this network, or let the network's resolver forward the whole registry suffix to 168.63.129.16. Forwarding privatelink names alone is not enough for every resolver.",
	},
	{
		NameElsewhere, "the name leads to another address",
		"The name resolves to an address that the private endpoint does not hold: a record is stale, or two private endpoints share one zone.",
		"Compare the zone's record with the private endpoint's addresses and put the right one in, or give each network a zone of its own.",
	},
	{
		ResolverSilent, "the resolver does not answer",
		"No answer came from the resolver that this machine is set to use.",
		"See that UDP and TCP port 53 to the resolver are let through and that it is running.",
	},
	{
		ResolverFails, "the resolver does not resolve the name",
		"The resolver answers, and neither with addresses nor that there are none: it refuses such questions (REFUSED), or it could not ask further (SERVFAIL). Clients say \"server misbehaving\".",
		"Compare the name with the login server first. If it is right, let this machine's resolver forward the registry suffix to cove's, and see that it can reach it; DNSSEC validation fails for names that are not public.",
	},
	{
		NameEmpty, "the name has no IPv4 address",
		"The name exists and has no IPv4 address.",
		"Look at the record set: it may be empty, or of another type.",
	},
	{
		PrivateNoRecord, "the private zone has no record for the name",
		"The name leads into a private zone that is linked to this network, and the zone holds no record for it. A linked zone has the last word: the public address is not tried.",
		"Add the record, or have the private endpoint's zone group keep it. If the private endpoint was deleted, make it again, or remove the zone's link to this network where no other registry's private endpoint needs it.",
	},
	{
		DataNamePublic, "the data endpoint's name leads to the public address",
		"Layers come from the data endpoint, a private endpoint in this network serves its name, and that name resolves to the public address.",
		"Add the data endpoint's record to the private zone: one for each region of the registry.",
	},
	{
		ResolversDiffer, "programs here get other addresses than the resolver gives",
		"The system's own lookup, which clients use, and the resolver disagree: the hosts file or a cache has another address.",
		"Remove the name from the hosts file, or clear the cache.",
	},
	{
		ResolversSplit, "this machine's resolvers do not say the same",
		"This machine is set to use several resolvers. Programs take the answer of whichever they hear, and these give different ones, or the first gives none: pulls fail now and then, or start late.",
		"Let each of them know the name, or take those that do not out of the machine's settings (/etc/resolv.conf).",
	},
	{
		PathSilent, "no answer from the address",
		"The address does not answer on its port: packets are dropped on the way. Clients say \"Client.Timeout exceeded while awaiting headers\".",
		"Look at firewalls and routes between here and the address; the registry has not seen this connection, and nothing is wrong with names.",
	},
	{
		PathRefused, "the connection is refused",
		"The machine at the address says that nothing listens on the port.",
		"See that the address is the server's and that the server is running.",
	},
	{
		PathCut, "the connection is cut",
		"The connection was opened and then cut before TLS was agreed on.",
		"Something on the way, mostly a firewall that reads the name in TLS, lets the connection begin and ends it. Let the name through.",
	},
	{
		NoRoute, "there is no way to the address",
		"This machine, or a router on the way, says that it knows no route to the address.",
		"See that the machine is in the network that it should be in, that its tunnel is up, and that the networks are peered.",
	},
	{
		GroupDenies, "a security group denies it",
		"A network security group on the caller's subnet or interface, or on the private endpoint's, denies the connection. Packets are dropped: the caller sees no answer.",
		"Look at the group's rules in their order of priority, and allow TCP port 443 to the private endpoint's addresses.",
	},
	{
		PathStalls, "the connection opens and goes no further",
		"The connection was opened, and what was sent after that got no answer. Either packets of full size are lost on the way, as in tunnels whose MTU is smaller than this machine believes, or a firewall lets the beginning through and drops the rest.",
		"Small packets tell the two apart: cove check-health tries them where TLS gets no answer, and prints the MTU that gets through. Where no size does, look at firewalls on the way that read TLS, and at what listens at the address.",
	},
	{
		MetadataAway, "the metadata service cannot be reached",
		"A machine gets its managed identity's tokens from 169.254.169.254, and this one does not reach that address: it has joined no network with --metadata, or a proxy stands in the way.",
		"Join with --metadata (cove join VNET/SUBNET --name NAME --up --replace --metadata), and name 169.254.169.254 in NO_PROXY.",
	},
	{
		MachineNobody, "the machine does not have the identity",
		"The metadata service was reached and gave no token: the machine has no managed identity, or not the one that was asked for. It knows a machine by the key that it has joined with, whatever it says of itself.",
		"Assign the identity to this very member, see that the machine has joined as that member, and ask for the identity by its client id where it has several.",
	},
	{
		AddressOpen, "where the caller comes from is not known",
		"The name leads out of the network to the public address, and which address the caller has there decides. That depends on the way out, which cove does not know.",
		"Ask again with the public address that the caller has: cove can … --from ADDRESS.",
	},
	{
		ProxyAway, "the proxy cannot be reached",
		"The environment names a proxy for this address and no connection to the proxy can be made.",
		"Correct HTTPS_PROXY, or name the registry's hosts in NO_PROXY. An engine's daemon has settings of its own and must be restarted after a change.",
	},
	{
		ProxyRefuses, "the proxy refuses",
		"The proxy answered and will not open a connection to the registry.",
		"Let the proxy's rules admit the registry's login server and data endpoints at port 443, or name these hosts in NO_PROXY.",
	},
	{
		ProxyCuts, "the proxy ends the connection",
		"The proxy took the connection and closed it without an answer. Clients say \"proxyconnect tcp: EOF\".",
		"Mostly the proxy's URL has the wrong scheme: a proxy that speaks plain HTTP is written http://, also for HTTPS destinations.",
	},
	{
		ProxyAnswers, "something else answers in the registry's place",
		"What came back was not written by a registry: a proxy, a portal or a load balancer on the way answers for everybody.",
		"Let the registry's hosts pass that device, or name them in NO_PROXY.",
	},
	{
		ProxyLimits, "something on the way limits a request's size",
		"A proxy or load balancer between the client and the registry refuses requests with large bodies: 413, as a rule with a web page. Layers are pushed in such requests; the registry has not seen this one.",
		"Take the limit off that device for the registry's hosts (client_max_body_size 0 in nginx), or let them pass it.",
	},
	{
		AuthorityUnknown, "the certificate's authority is not trusted here",
		"The certificate was signed by an authority that this machine does not trust: the registry's own, or a proxy's that reads TLS.",
		"Where the issuer is the registry's own authority, install it: cove trust. Where it is a proxy's, let the registry's hosts pass unread.",
	},
	{
		CertificateTime, "the certificate is not valid now",
		"By this machine's clock the certificate's time has not come or is over.",
		"Compare this machine's clock with the right time first; if it is right, the server's certificate must be renewed.",
	},
	{
		CertificateName, "the certificate is for other names",
		"The certificate does not name the host that was asked for.",
		"Ask for the login server's own name. If that is what was asked, the address belongs to another server.",
	},
	{
		PrivateName, "a privatelink name was used",
		"Names with privatelink in them are for the resolver only; no certificate has them.",
		"Use the login server's own name. Inside the network it leads to the private address by itself.",
	},
	{
		ChainIncomplete, "the server sends an incomplete chain",
		"The server sends its certificate without the one that signed it. Browsers find it elsewhere; engines do not.",
		"Put the intermediate certificates behind the server's own in the file that it serves.",
	},
	{
		NotTLS, "the port does not speak TLS",
		"What answers at the port speaks something else than TLS.",
		"See that the port is the HTTPS one, and what listens there.",
	},
	{
		ClockWrong, "this machine's clock is wrong",
		"This machine's time and the server's differ by more than tokens and certificates tolerate.",
		"Set the clock; most systems do it by themselves once time synchronisation is on.",
	},
	{
		NoChallenge, "the answer is not a registry's",
		"A registry answers the first request with 401 and says where tokens are issued. This answer was another.",
		"See what answers at the address. A private endpoint that is not approved gives no challenge either.",
	},
	{
		RealmElsewhere, "tokens are issued at a host that was not asked for",
		"The registry sends credentials to another host, and this check gives them to the registry's own host only.",
		"If the registry's documentation names that host, say so with --token-host; else somebody answers in the registry's place.",
	},
	{
		NetworkRefuses, "the registry's network rules refuse",
		"The registry was reached and does not let this address speak to it.",
		"Give the id to `cove explain`: whoever may read the registry learns the rule that decided and the command that admits this address. Where the client printed no id, `cove logs --refused` has it.",
	},
	{
		SignInRefused, "the credential is refused",
		"The registry was reached and did not accept the credential.",
		"Log in again with the present password or secret. `cove explain` with the id tells the registry's owner why; where the client printed none, `cove logs --refused` has it.",
	},
	{
		TokenLacks, "the token does not allow this",
		"The sign-in was good, and the token was issued without what the pull needs.",
		"Give the identity a role that lets it pull; `cove can` says what is missing.",
	},
	{
		ImageUnknown, "there is no such image",
		"The registry was reached and signed in to, and has no such repository, tag or digest that this identity may see.",
		"Compare the repository and the tag with what was pushed.",
	},
	{
		NameInvalid, "the image's name is not a name",
		"The repository has capitals or other characters that no repository's name may have, or the reference is not one. Most clients do not ask the registry then.",
		"Write the repository in lower-case letters and digits, joined by /, ., _ or dashes.",
	},
	{
		LockForbids, "a lock forbids it",
		"The repository, the tag or the manifest is locked against what was tried: reading, writing or deleting. Who it is and what they may do does not matter.",
		"`az acr repository show` with --repository or --image shows the locks as changeableAttributes; `az acr repository update` with --write-enabled true or its like takes one away.",
	},
	{
		PlatformAbsent, "the image is not for this platform",
		"The image is there, alone or as an index of several, and none is for the platform that was asked for: this machine's, unless --platform says another. Engines refuse it, or take it and it does not run.",
		"Build and push the image for this platform as well, or run it on a machine of a platform that it is for.",
	},
	{
		BytesWrong, "the bytes are not the image's",
		"What came back does not have the digest that was asked for.",
		"Something on the way changes what passes: a cache, a scanner or a broken mirror.",
	},
	{
		LayerGone, "a layer is not there",
		"The manifest is in the registry, and a layer or the configuration that it names is not: it has been deleted.",
		"Push the image again.",
	},
	{
		DataBlocked, "layers cannot be fetched",
		"The registry and the manifest can be read, and the way to the data endpoint, where layers come from, is closed.",
		"Admit the data endpoint's name wherever the login server's name was admitted; `cove status --firewall no-proxy` lists all names.",
	},
	{
		Throttled, "too many requests",
		"The registry answers that this identity or address has asked too often.",
		"Wait as long as it says, and spread the requests. Rights and credentials are not the matter.",
	},
	{
		ServerFails, "the server failed",
		"The registry answered that it could not serve the request now.",
		"Try again; if it persists, the server's log has the cause under the id.",
	},
	{
		DatabaseAway, "the server cannot reach its database",
		"The registry's server runs and its database does not answer, so what needs it is refused. Nothing is wrong with the client, its rights or the network.",
		"On the server see that the database runs and can be reached; /readyz turns ready again by itself. `cove explain` and `cove logs` work again then.",
	},
	{
		ServerFull, "the server's disk is full",
		"The disk with the server's data folder is full. Pushes and changes are refused, pulls go on, nothing is damaged.",
		"Free space on the server's disk, not on the client's; the server goes on by itself. Uploads that broke off keep their bytes for 7 days.",
	},
	{
		NotServedName, "the server does not serve this name",
		"The request reached a cove server under a name that is none of its own, or the name in TLS and the Host header differ: 421.",
		"Compare the name in the URL with the login server. A proxy or load balancer in front must pass both names on unchanged.",
	},
	{
		ClientOld, "the container engine is too old",
		"Engines before 18.03 do not sign in as this registry needs.",
		"Update the engine.",
	},
	{
		EngineAway, "the container engine does not run",
		"The client is installed and its daemon does not answer.",
		"Start the daemon, or let this user use it.",
	},
	{
		EngineProxy, "the engine's proxy is another than the shell's",
		"The engine's daemon has proxy settings of its own; this shell's do not reach it.",
		"Set the daemon's proxy as the shell's, or name the registry in its NO_PROXY, and restart the daemon.",
	},
	{
		HelperBroken, "the credential helper does not work",
		"The client's configuration leaves its credentials to a program that is missing or fails. Clients then stop, or ask as nobody, and print what looks like a refusal.",
		"Install the program that the configuration names, or take its name out and log in again.",
	},
	{
		EngineFull, "the disk of the client's machine is full",
		"The client fetched the image and could not write it: the disk on which it keeps images is full. The registry has done its part.",
		"Free space on the client's machine, such as with `docker system prune` or `crictl rmi --prune`, and pull again.",
	},
	{
		WaitsToRetry, "the node waits before it tries again",
		"Pulls of this image have failed before, and the kubelet waits longer each time. Why they failed is in an earlier event of the pod.",
		"Look for \"Failed to pull image\" in `kubectl describe pod`, and give that text to `cove explain`; or run cove check-health on the node.",
	},
	{
		ManagerRefuses, "the Resource Manager does not allow it",
		"The sign-in was good, and the identity may not do this at the Resource Manager. Rights to pull and push are other rights than those to read or change the registry as a resource.",
		"Assign a role that has the action which the message names, such as Reader to read or Contributor to change, at the registry or its group. To pull, `docker login` needs none of it.",
	},
	{
		ManagerHasNone, "the Resource Manager shows no such resource",
		"The Resource Manager lists no resource of this name in the subscription. It is told so also to who may not read it.",
		"Compare the name, the group and the subscription (`az account show`). If they are right, the identity lacks a role to read it, such as Reader: AcrPull alone lets it pull and not see.",
	},
	{
		CredentialEnds, "the credential ends soon",
		"The credential is good now and ends within a week.",
		"Renew it wherever it is stored before it ends.",
	},
}
