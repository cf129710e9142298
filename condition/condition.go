// Package condition is the language in which a role assignment says when it
// counts: version 2.0 of the conditions of Azure role assignments.
//
//	(
//	  (!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'}))
//	  OR
//	  (@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWith 'team/')
//	)
//
// Parse reads a condition once and says at which column it is wrong. What it
// returns is evaluated without I/O and without allocating: that happens in the
// path of every request.
//
// An attribute that a request does not have makes a comparison neither true nor
// false, and so its negation. Only a condition that is true grants anything, so
// nobody is let in by what is not known.
package condition

import (
	"fmt"
	"time"
)

// Version is the only version of the language that there is here.
const Version = "2.0"

// Bounds on what somebody may write.
const (
	MaxLength = 8 << 10 // bytes
	MaxDepth  = 50      // parentheses within parentheses
)

// Any, as the repository of a Request, stands for every repository there is or
// could be. It is no repository's name.
const Any = "*"

// Request is what a condition is asked about. It never comes from what a
// caller says of itself: origin and time are the server's own knowledge.
type Request struct {
	Action       string // the permission that is asked for, whole
	SubOperation string // "": requests of a registry have none
	Repository   string // "" is none, such as for the catalog; Any is all of them
	PrivateLink  bool   // it came over a private endpoint
	Endpoint     string // resource id of that, "" where it came another way
	Subnet       string // resource id of the subnet that it came from, "" where that is not known
	Now          time.Time
}

// Condition is a condition that can be evaluated. It is never modified.
type Condition struct {
	text     string
	root     expr
	patterns []Pattern
}

// Pattern is what an ActionMatches of a condition compares actions with.
type Pattern struct {
	Text   string
	Line   int // both from 1
	Column int
}

// String is the condition as it was written.
func (c *Condition) String() string { return c.text }

// Patterns are those of every ActionMatches in the condition. The caller does
// not change them. A pattern that fits no action opens what its author meant to
// close, so whoever knows the actions looks at them.
func (c *Condition) Patterns() []Pattern { return c.patterns }

// Holds reports whether the condition is true; for the repository Any, whether
// it is true whichever that is.
func (c *Condition) Holds(r *Request) bool { return eval(c.root, r).least == yes }

// Possible reports whether the condition may be true. It differs from Holds for
// the repository Any alone, where it never says no to what Holds would say yes
// to for some repository.
func (c *Condition) Possible(r *Request) bool { return eval(c.root, r).most == yes }

// Error is what is wrong with a condition, and where.
type Error struct {
	Line   int // from 1
	Column int // from 1, in characters
	Why    string
}

func (e *Error) Error() string { return spot(e.Line, e.Column) + ": " + e.Why }

func spot(line, column int) string {
	if line > 1 {
		return fmt.Sprintf("line %d, column %d", line, column)
	}
	return fmt.Sprintf("column %d", column)
}
