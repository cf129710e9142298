package token

import "context"

// Reload is what Keys do when they hear of a change.
func (k *Keys) Reload(ctx context.Context) error { return k.reload(ctx) }
