package registry

import (
	"time"

	"cove.example/cove/resource"
)

// Ending is a token's password and when it ends.
type Ending struct {
	Name string // password1 or password2
	Ends time.Time
}

// Endings are the passwords of a stored token that end at some time.
func Endings(token resource.Doc) (out []Ending) {
	for _, name := range tokenPasswords {
		p, _ := resource.Lookup(token.Body, pathTokenPasswords+"."+name).(resource.Object)
		text, _ := p["expires"].(string)
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			out = append(out, Ending{name, at})
		}
	}
	return out
}
