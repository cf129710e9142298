// Package zone is private DNS zones, the virtual networks they are linked to,
// and the answer that each network's view gives to a name.
//
// The one idea: a view is a value. It holds the zones linked to one network
// and, below them, the public names of this deployment; Answer walks from name
// to name, and where a name lies in a linked zone that zone alone decides. A
// name that the zone does not have is then a name that does not exist, even
// when the public view has it. That is what makes a forgotten link visible.
//
// The package speaks no protocol: dnsapi turns answers into messages.
package zone

import (
	"net/netip"
	"strings"

	"cove.example/cove/fault"
)

// The record types that views hold, by their numbers (RFC 1035, RFC 2782,
// RFC 3596).
const (
	TypeA     uint16 = 1
	TypeNS    uint16 = 2
	TypeCNAME uint16 = 5
	TypeSOA   uint16 = 6
	TypePTR   uint16 = 12
	TypeMX    uint16 = 15
	TypeTXT   uint16 = 16
	TypeAAAA  uint16 = 28
	TypeSRV   uint16 = 33
	TypeANY   uint16 = 255
)

// Times to live, in seconds. The private-link article shows a chain seen from
// outside with 2881, 2881, 300, 60 and 10 seconds left, and one from inside
// with 1783 and 10.
const (
	// ttlLabel is the CNAME that leads a registry's name to its privatelink
	// label. Once given the label stays, so an hour is safe: what changes
	// comes after it.
	ttlLabel = 3600
	// ttlRoute is a CNAME to a region's front end, the step that chooses the
	// region. A registry without the label begins with this step, so that its
	// first private endpoint is seen within a minute.
	ttlRoute = 60
	// ttlAddress is every address that we write: the front ends', the private
	// endpoints'.
	ttlAddress = 10
	// ttlNegative is how long an absence may be remembered: as long as an
	// address, so that a name made a moment after it was asked for is found.
	ttlNegative = 10
	// ttlManual is a record set's without properties.ttl; az writes the same.
	ttlManual = 3600
)

// Limits of a zone, as Azure has them.
const (
	maxRecordSets = 25_000
	maxRecords    = 20 // in one set
	maxLinks      = 1_000
	maxZoneGroups = 5 // zones in one group
	maxTTL        = 1<<31 - 1
)

// The failures that have a code of their own.
var (
	ErrOverlap  = fault.Coded(fault.Invalid, "BadRequest", "a virtual network cannot be linked to multiple zones with overlapping namespaces")
	ErrOneGroup = fault.Coded(fault.Invalid, "BadRequest", "Cannot create more than one private dns zone groups in the private endpoint.")
	ErrLinked   = fault.Coded(fault.Denied, "LinkedAuthorizationFailed", "the caller may not use a resource that this one names")
	ErrMixed    = fault.Coded(fault.Conflict, "Conflict", "a CNAME record set cannot share its name with another record set")
	ErrFull     = fault.Coded(fault.Conflict, "QuotaExceeded", "the zone holds as much as it may")
)

// Record is one resource record. Names are lower case and have no final dot,
// but for the owner that was asked for, which is as the asker spelled it.
type Record struct {
	Name   string
	Type   uint16
	TTL    uint32
	Addr   netip.Addr // A, AAAA
	Target string     // CNAME, NS, PTR, MX, SRV; the primary server of an SOA
	Text   []string   // TXT

	Preference             uint16 // MX
	Priority, Weight, Port uint16 // SRV

	SOA *SOA // nil is the SOA of the names that are ours, whose numbers are in StandardSOA
}

// SOA is what an SOA record says besides its server.
type SOA struct {
	Mailbox                                 string // "" is the server's own name
	Serial, Refresh, Retry, Expire, Minimum uint32
}

// StandardSOA are the numbers of every SOA record that nobody has changed;
// Azure's private zones have the same. The serial never moves, since nobody
// transfers a view.
var StandardSOA = SOA{Serial: 1, Refresh: 3600, Retry: 300, Expire: 2_419_200, Minimum: ttlNegative}

// canonical is a name as maps hold it: lower case, no final dot.
func canonical(name string) string {
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			// Only ASCII letters have case in DNS (RFC 4343); the rest
			// arrives escaped.
			return strings.ToLower(name)
		}
	}
	return name
}

// next is where the label after the one at i begins, or -1 after the last. A
// dot behind a backslash belongs to its label: "a\.privatelink.example" is one
// label below example, and a comparison of strings would take it for a name
// below privatelink.example.
func next(name string, i int) int {
	for ; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '.':
			return i + 1
		}
	}
	return -1
}

// below returns what stands before apex in name, "" for apex itself. Both are
// canonical.
func below(name, apex string) (string, bool) {
	if name == apex {
		return "", true
	}
	if apex == "" || len(name) <= len(apex) {
		return "", false
	}
	cut := len(name) - len(apex)
	if name[cut-1] != '.' || name[cut:] != apex {
		return "", false
	}
	for i := 0; i >= 0 && i <= cut; i = next(name, i) {
		if i == cut {
			return name[:cut-1], true
		}
	}
	return "", false
}
