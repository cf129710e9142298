package access

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/fault"
)

// Explanation is one decision for the person who asks why. Only who may read
// the registry gets it; the control plane sees to that.
type Explanation struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Asked    string    `json:"asked"`   // "pull from team/app at myregistry.cr.cove.internal"
	Verdict  string    `json:"verdict"` // ALLOWED or DENIED
	Status   int       `json:"status"`
	Registry string    `json:"registry,omitempty"` // resource id
	Caller   string    `json:"caller"`             // address
	Identity Identity  `json:"identity,omitzero"`
	Reason   Reason    `json:"reason,omitempty"`
	Cause    string    `json:"cause,omitempty"`
	Evidence []string  `json:"evidence,omitempty"`
	Next     string    `json:"next,omitempty"`
	Steps    []Step    `json:"steps"`
	Fixes    []Fix     `json:"fixes,omitempty"`
}

// Fix is a command that would let the same request through.
type Fix struct {
	Command string `json:"command"`
	Opens   string `json:"opens"` // what else it lets in
	Needs   string `json:"needs"` // the action that whoever types it must hold, and where
}

// ErrNoDecision is the failure of Explain for an event without a decision.
var ErrNoDecision = fault.Coded(fault.NotFound, "DecisionNotKept", "the event was kept without the decision's steps")

// Explain makes words of what an event has kept of its decision.
func Explain(e audit.Event) (Explanation, error) {
	var r record
	if len(e.Detail) == 0 {
		return Explanation{}, ErrNoDecision
	}
	if err := json.Unmarshal(e.Detail, &r); err != nil {
		return Explanation{}, ErrNoDecision.Because(err)
	}
	out := Explanation{
		ID: e.ID, Time: e.Time, Asked: r.asked(e), Verdict: "ALLOWED", Status: e.Status,
		Registry: r.Registry, Caller: address(r.From), Identity: r.Identity, Steps: r.steps(),
	}
	if r.Allow {
		return out, nil
	}
	out.Verdict, out.Reason = "DENIED", r.Reason
	m := meaning(r.Reason)
	out.Cause, out.Next = m.Cause, m.Next
	for _, s := range out.Steps {
		if s.Outcome == Failed || s.Outcome == Unknown {
			out.Evidence = append(out.Evidence, s.Why)
		}
	}
	out.Fixes = r.fixes()
	return out, nil
}

func (r *record) asked(e audit.Event) string {
	verb := strings.ToLower(e.Operation)
	var of []string
	for i := range r.Want {
		of = append(of, r.Want[i].words())
	}
	if len(of) > 0 {
		verb = strings.Join(of, ", ")
	}
	if verb == "" {
		verb = "request"
	}
	if e.Tag != "" {
		verb += ":" + e.Tag
	} else if e.Digest != "" {
		verb += "@" + e.Digest
	}
	return verb + " at " + r.Host
}

const needsRegistryWrite = "Microsoft.ContainerRegistry/registries/write on "

// fixes are the commands that would let the same request through, the one
// that opens least first.
func (r *record) fixes() []Fix {
	if r.Registry == "" {
		return nil
	}
	needs := needsRegistryWrite + r.Registry
	switch r.Reason {
	case PublicAccessOff, NoRule:
		return append(r.endpointFix(), r.doorFix()...)
	case EndpointNotOpen:
		if r.State != "Pending" && r.State != "Rejected" {
			return nil // what was disconnected must be made again by its owner
		}
		return []Fix{{
			Command: fmt.Sprintf("cove private-endpoint approve %s --registry %s", last(r.Connection), r.Name),
			Opens:   "the registry, to everybody in the private endpoint's network",
			Needs:   "Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action on " + r.Registry,
		}}
	case AdminOff:
		return []Fix{{
			Command: "cove registry update " + r.Name + " --admin-enabled",
			Opens:   "everything in the registry, to whoever knows the admin user's password",
			Needs:   needs,
		}}
	case WrongCredential:
		if r.Claimed != r.Name {
			return nil
		}
		return []Fix{{
			Command: "cove registry credential show " + r.Name,
			Opens:   "nothing; it shows the password to log in with",
			Needs:   "Microsoft.ContainerRegistry/registries/listCredentials/action on " + r.Registry,
		}}
	case AnonymousOff:
		return []Fix{{
			Command: "cove registry update " + r.Name + " --anonymous-pull-enabled",
			Opens:   "everything in the registry for reading, to everybody whom the network rules admit",
			Needs:   needs,
		}}
	case NoRoleForAction, NoRoleHere:
		return r.roleFix()
	}
	return nil
}

// doorFix opens the public door to this address. Both settings are in it when
// both stand in the way; a command that leaves the request refused is no fix.
func (r *record) doorFix() []Fix {
	from := r.From.Unmap()
	rule := r.Rule == 0 && !r.DefaultAllow
	// Rules are for public IPv4 addresses: a caller inside a virtual network
	// or with another address can be let in by none.
	if r.At.IsValid() || rule && (!from.Is4() || from.IsPrivate() || from.IsLoopback() || from.IsLinkLocalUnicast()) {
		return nil
	}
	var commands []string
	opens := "the public door, to every address that the network rules admit"
	if r.Reason == PublicAccessOff {
		commands = append(commands, "cove registry update "+r.Name+" --public-network-enabled true")
		if r.DefaultAllow {
			opens = "the public door, to every address: the default action is Allow"
		}
	}
	if rule {
		commands = append(commands, "cove network-rule add "+r.Name+" "+from.String())
		if r.Reason == NoRule {
			opens = "the public door, to " + from.String() + " and whoever shares that address"
		}
	}
	return []Fix{{Command: strings.Join(commands, " && "), Opens: opens, Needs: needsRegistryWrite + r.Registry}}
}

// endpointFix gives a caller inside a network a private endpoint there.
func (r *record) endpointFix() []Fix {
	_, zone, ok := strings.Cut(r.Host, ".")
	if r.Subnet == "" || !ok {
		return nil
	}
	vnet := strings.Split(r.Subnet, "/")
	if len(vnet) < 3 {
		return nil
	}
	name := vnet[len(vnet)-3] + "/" + last(r.Subnet)
	return []Fix{{
		Command: fmt.Sprintf("cove private-endpoint create %s-%s --registry %s --subnet %s --zone privatelink.%s", r.Name, vnet[len(vnet)-3], r.Name, name, zone),
		Opens:   "the registry, to everybody in the network " + vnet[len(vnet)-3],
		Needs:   "Microsoft.Network/privateEndpoints/write, and Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action on " + r.Registry,
	}}
}

func (r *record) roleFix() []Fix {
	if r.Identity.Kind != KindServicePrincipal {
		return nil
	}
	role, opens := "AcrPull", "all of the registry for reading"
	if r.Lacks != nil {
		switch r.Lacks.Action {
		case "push":
			role, opens = "AcrPush", "all of the registry for reading and writing"
		case "delete":
			role, opens = "AcrDelete", "deleting, anywhere in the registry"
		case "metadata_write":
			role, opens = "Contributor", "the registry and its settings"
		}
	}
	return []Fix{{
		Command: fmt.Sprintf("cove role assign %s %s --scope %s", r.Identity.ObjectID, role, r.Registry),
		Opens:   opens + ", to " + r.Identity.Name,
		Needs:   "Microsoft.Authorization/roleAssignments/write on " + r.Registry,
	}}
}
