package resource

import (
	"errors"

	"cove.example/cove/fault"
)

// ErrInUse is below the refusal of a deletion because another resource uses
// this one, where ARM answers 400 and not 409 for that. In a cascade such a
// resource is tried again after its users have gone, as one that is refused
// with fault.Conflict.
var ErrInUse = fault.New(fault.Invalid, "another resource uses this one")

// waits reports whether a deletion may succeed once others have.
func waits(err error) bool { return fault.Is(err, fault.Conflict) || errors.Is(err, ErrInUse) }
