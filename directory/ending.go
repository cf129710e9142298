package directory

import "time"

// Ending is a credential and when it ends.
type Ending struct {
	ObjectID, AppID string // the holder's
	Holder          string // the holder's name
	Name            string // the credential's, as its maker called it
	Kind            CredentialKind
	KeyID           string
	Ends            time.Time
}
