package access

import (
	"strings"

	"cove.example/cove/audit"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// stepLock is what comes behind the decision: whether what was asked for is
// locked. It is told where it was what refused.
const stepLock = "lock"

// locked explains a request that the decision allowed and a lock forbade.
func (r *record) locked(out *Explanation, e audit.Event) {
	m := meaning(reason.LockForbids)
	out.Verdict, out.Reason, out.Cause, out.Next = "DENIED", m.Code, m.Cause, m.Next
	flag, verb := lockOf(r.Operation)
	what := e.Repository
	switch {
	case e.Tag != "":
		what += ":" + e.Tag
	case e.Digest != "":
		what += "@" + e.Digest
	}
	at := e.Time.Add(e.Duration).UTC()
	why := what + ", or the repository, is locked against " + verb
	out.Steps = append(out.Steps, Step{Name: stepLock, Input: what, Outcome: Failed, Why: why, Reason: m.Code, At: &at})
	out.Evidence = []string{why}
	if r.Name == "" || e.Repository == "" {
		return
	}
	role := "Contributor" // where roles are the registry's, none for content manages locks
	if r.Mode == registry.AbacMode {
		role = "Container Registry Repository Writer"
	}
	unlock := func(target, opens string) Fix {
		command := "az acr repository update --name " + r.Name + " " + target + " --" + flag + "-enabled "
		return Fix{
			Command: command + "true", Opens: opens + " for " + verb + ", to whoever may do that",
			Needs: "a role that changes metadata of " + e.Repository + ", such as " + role + " on " + r.Registry, Lasts: "until " + command + "false",
		}
	}
	if what != e.Repository {
		out.Fixes = append(out.Fixes, unlock("--image "+what, what))
	}
	out.Fixes = append(out.Fixes, unlock("--repository "+e.Repository, "the repository "+e.Repository))
}

// lockOf is the attribute that stands in the way of a kind of call, and what it
// is a lock against.
func lockOf(operation string) (flag, verb string) {
	switch {
	case strings.Contains(operation, "Delete"), strings.Contains(operation, "Untag"):
		return "delete", "deleting"
	case strings.Contains(operation, "Put"), strings.Contains(operation, "Upload"), strings.Contains(operation, "Update"):
		return "write", "writing"
	}
	return "read", "reading"
}
