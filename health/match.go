package health

import (
	"regexp"
	"strings"

	"cove.example/cove/reason"
)

// symptom is a client's own words for one cause.
type symptom struct {
	words *regexp.Regexp
	code  reason.Code
}

// symptoms are what docker, containerd, podman, skopeo, crane, helm, curl, az
// and the kubelet print, most telling first: the words for a cause often stand
// inside more general ones. Sources: the troubleshooting articles of Azure
// Container Registry, and the programs' own output in this package's tests.
var symptoms = []symptom{
	// What the issuer says of a sign-in (source: Microsoft Entra's error codes).
	{regexp.MustCompile(`aadsts7000222`), reason.SecretExpired},
	{regexp.MustCompile(`aadsts(7000215|7000218|50126)`), reason.WrongCredential},
	{regexp.MustCompile(`aadsts700016`), reason.NotRegistered},
	{regexp.MustCompile(`aadsts50053`), reason.TooManyGuesses},
	{regexp.MustCompile(`aadsts\d`), reason.SignInRefused},
	// What the metadata service says, and clients that did not reach it.
	{regexp.MustCompile(`169\.254\.169\.254.*(timed out|refused|unreachable|no route|timeout|deadline)`), reason.MetadataAway},
	{regexp.MustCompile(`"error_description":"identity not found|failed to connect to msi.*http error: 400|no default identity is assigned`), reason.MachineNobody},
	// What the Resource Manager says.
	{regexp.MustCompile(`authorizationfailed|does not have authorization to perform action`), reason.ManagerRefuses},
	// What cove says when the fault is its own.
	{regexp.MustCompile(`the database (cannot be reached|does not answer)`), reason.DatabaseAway},
	{regexp.MustCompile(`unknown: the disk is full|message":"the disk is full|cove: the disk is full`), reason.ServerFull},
	{regexp.MustCompile(`\b421\b|misdirected`), reason.NotServedName},
	// What machines say of themselves, having fetched what they wanted.
	{regexp.MustCompile(`no space left on device`), reason.EngineFull},
	{regexp.MustCompile(`no matching manifest for|no match for platform in manifest|no image found in (manifest list|image index) for architecture|exec format error|cannot be used on this platform|no child with platform`), reason.PlatformAbsent},
	{regexp.MustCompile(`filesystem layer verification failed|unexpected commit digest|failed size validation|digest did not match|does not match expected digest|digest invalid: provided digest`), reason.BytesWrong},
	{regexp.MustCompile(`privatelink\.[^ ]*.*(x509|certificate|tls)|(x509|certificate|tls).*\.privatelink\.`), reason.PrivateName},
	// Beside EOF, what the wrong scheme of a proxy's URL looks like where the
	// proxy answers, cuts, or speaks TLS.
	{regexp.MustCompile(`proxyconnect tcp: (eof|tls: first record|read tcp .*reset by peer)|malformed http response "\\x15\\x03`), reason.ProxyCuts},
	{regexp.MustCompile(`proxyconnect tcp|unable to connect to proxy|could not resolve proxy|cannot connect to proxy`), reason.ProxyAway},
	{regexp.MustCompile(`proxy authentication required|received http code \d+ from proxy|tunnel connection failed|connect tunnel failed`), reason.ProxyRefuses},
	{regexp.MustCompile(`is not allowed access\. refer https://aka\.ms/acr/firewall`), reason.NetworkRefuses},
	{regexp.MustCompile(`looks like you don't have access to registry`), reason.NetworkRefuses},
	{regexp.MustCompile(`error parsing http \d+ response body: invalid character '?<`), reason.ProxyAnswers},
	{regexp.MustCompile(`connectivity_(refresh|access)_token_error.*response code: 403`), reason.NetworkRefuses},
	{regexp.MustCompile(`server failed to authenticate the request`), reason.LinkInvalid},
	{regexp.MustCompile(`failed with status: 403 forbidden|unexpected status: 403|status code 403|status code from registry 403|status code \[manifests [^]]*\]: 403|connectivity_forbidden_error`), reason.NetworkRefuses},
	{regexp.MustCompile(`server misbehaving`), reason.ResolverFails},
	{regexp.MustCompile(`lookup \S+ on \S+: (read|write|dial|i/o)|lookup \S+: i/o timeout|temporary failure in name resolution|resolving timed out`), reason.ResolverSilent},
	{regexp.MustCompile(`no such host|name or service not known|temporary failure in name resolution|could not resolve host|nodename nor servname|unresolvable host|name resolution failed|dial tcp: lookup|connectivity_dns_error`), reason.NameUnknown},
	{regexp.MustCompile(`server gave http response to https client|first record does not look like a tls handshake|wrong version number`), reason.NotTLS},
	{regexp.MustCompile(`certificate has expired|certificate is not yet valid|has expired or is not yet valid`), reason.CertificateTime},
	{regexp.MustCompile(`certificate is valid for .* not |not valid for any names|cannot validate certificate for \S+ because|no alternative certificate subject name|doesn't match (either of )?'|hostname mismatch`), reason.CertificateName},
	{regexp.MustCompile(`signed by unknown authority|self[- ]signed certificate|unable to get (local )?issuer certificate|certificate verify failed|connectivity_ssl_error`), reason.AuthorityUnknown},
	{regexp.MustCompile(`413 request entity too large|unexpected status: 413|status code 413|http 413|payload too large|content too large`), reason.ProxyLimits},
	{regexp.MustCompile(`error (getting|saving|storing) credentials|docker-credential-[^ ]*"?: executable file not found|credential helper`), reason.HelperBroken},
	{regexp.MustCompile(`cannot connect to the docker daemon|is the docker daemon running|docker daemon is not running|connect to the docker daemon socket|docker_daemon_error|dial unix \S+\.sock`), reason.EngineAway},
	{regexp.MustCompile(`connection refused`), reason.PathRefused},
	{regexp.MustCompile(`no route to host|network is unreachable`), reason.NoRoute},
	{regexp.MustCompile(`tls handshake timeout|ssl connection timeout|handshake operation timed out`), reason.PathStalls},
	{regexp.MustCompile(`connection reset by peer|unexpected eof|tls: (handshake failure|unrecognized name)|ssl_error_syscall|empty reply from server|attempts=\d+: eof`), reason.PathCut},
	{regexp.MustCompile(`client\.timeout exceeded|i/o timeout|context deadline exceeded|timed out|timeout was reached|operation timed out|http 408`), reason.PathSilent},
	{regexp.MustCompile(`operation is disallowed|registry_disallowed_operation|unexpected status: 405|status code \[manifests [^]]*\]: 405`), reason.LockForbids},
	{regexp.MustCompile(`repository name (\(.*\) )?must be lowercase|invalid reference format|name_invalid|is not a repository name|invalid repository "|could not parse reference|status code \[manifests [^]]*\]: 400`), reason.NameInvalid},
	{regexp.MustCompile(`blob unknown|unknown blob|blob_unknown|error fetching blob: .*404|could not fetch content descriptor .*not found`), reason.LayerGone},
	{regexp.MustCompile(`invalidauthenticationinfo`), reason.ForeignCredential},
	{regexp.MustCompile(`toomanyrequests|too many requests|\b429\b|connectivity_toomanyrequests_error`), reason.Throttled},
	{regexp.MustCompile(`requested access to the resource is denied|insufficient_scope|invalid_token: authorization failed|pull access denied|may require 'docker login'`), reason.TokenLacks},
	{regexp.MustCompile(`manifest unknown|manifest for .* not found|manifest tagged by .* is not found|manifest sha256:\S+ is not found|manifest_unknown|specified tag does not exist|"fetchreference" on source: \S+ not found|repository name not known|not found: not found|failed to resolve reference .*: not found|name_unknown`), reason.ImageUnknown},
	{regexp.MustCompile(`failed to fetch anonymous token|no basic auth credentials`), reason.NoCredential},
	{regexp.MustCompile(`application not registered with aad|invalid clientid or client secret|invalid username/password|unauthorized|\b401\b|no basic auth credentials|connectivity_refresh_token_error|connectivity_access_token_error|authentication required|please run 'az login'`), reason.SignInRefused},
	{regexp.MustCompile(`did not issue a challenge|connectivity_aad_login_error|connectivity_challenge_error|could not connect to the registry login server`), reason.NoChallenge},
	{regexp.MustCompile(`could not be found in subscription|login_server_error|\(resourcenotfound\)|\(resourcegroupnotfound\)`), reason.ManagerHasNone},
	{regexp.MustCompile(`back-?off pulling image|imagepullbackoff`), reason.WaitsToRetry},
	{regexp.MustCompile(`\b50[0-4]\b|internal server error|service unavailable|bad gateway`), reason.ServerFails},
}

// dataHost is a data endpoint in a URL: what is wrong on the way to it is not
// wrong on the way to the login server.
var dataHost = regexp.MustCompile(`https://[a-z0-9]+\.[a-z0-9-]+\.data\.`)

// maxText bounds a pasted error.
const maxText = 64 << 10

// Symptom names the cause behind a client's error text, in English, as far as
// the text alone can tell it. It is asked when the text carries no
// correlation id: such requests never reached the registry, as a rule.
func Symptom(text string) (reason.Meaning, bool) {
	if len(text) > maxText {
		text = text[len(text)-maxText:] // the end says what failed
	}
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	for _, s := range symptoms {
		if !s.words.MatchString(text) {
			continue
		}
		switch s.code {
		case reason.PathSilent, reason.PathRefused, reason.PathCut, reason.PathStalls, reason.NoRoute:
			if dataHost.MatchString(text) {
				return reason.Of(string(reason.DataBlocked))
			}
		}
		return reason.Of(string(s.code))
	}
	return reason.Meaning{}, false
}
