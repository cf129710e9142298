package arm

import (
	"errors"

	"cove.example/cove/fault"
)

// Envelope is the body of every refusal.
type Envelope struct {
	Error Problem `json:"error"`
}

// Problem is one failure; a refused body has one detail for each property.
type Problem struct {
	Code    string    `json:"code"`
	Message string    `json:"message"`
	Target  string    `json:"target,omitempty"` // the property: "properties.networkRuleSet.ipRules[3].value"
	Details []Problem `json:"details,omitempty"`
}

// codes are the words for failures that have none of their own.
var codes = map[fault.Kind]string{
	fault.Internal:        "InternalServerError",
	fault.Invalid:         "InvalidRequestContent",
	fault.Unauthenticated: "AuthenticationFailed",
	fault.Denied:          "AuthorizationFailed",
	fault.NotFound:        "ResourceNotFound",
	fault.Conflict:        "Conflict",
	fault.Stale:           "PreconditionFailed",
	fault.TooLarge:        "RequestContentTooLarge",
	fault.Disallowed:      "MethodNotAllowed",
	fault.Throttled:       "TooManyRequests",
	fault.Unavailable:     "ServiceUnavailable",
	fault.Unsupported:     "NotSupported",
}

// Describe is the body for err. It holds the public sentence only; of an
// error that never met fault it says "internal error".
func Describe(err error) Envelope {
	kind, public := fault.Of(err)
	p := Problem{Code: codes[kind], Message: public}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		if e.Code != "" {
			p.Code = e.Code
		}
		if len(e.Fields) == 1 {
			p.Target = e.Fields[0].Path
		}
		if len(e.Fields) > 1 || e.Code == "" {
			for _, f := range e.Fields {
				p.Details = append(p.Details, Problem{Code: "InvalidParameter", Target: f.Path, Message: f.Message})
			}
		}
	}
	return Envelope{p}
}
