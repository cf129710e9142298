package insight

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"cove.example/cove/resource"
)

// hookTime is how long a webhook may take: one that hangs holds up its own
// setting only, and not for ever.
const hookTime = 20 * time.Second

// post sends records to a webhook, which says with a status of 2xx that it has
// them. A redirect is none: it would lead elsewhere than the sink says.
func (d *Delivery) post(ctx context.Context, sink resource.Doc, records []Record) error {
	body, err := json.Marshal(map[string]any{"records": records})
	if err != nil {
		return err
	}
	headers, err := d.headers(sink)
	if err != nil {
		return err
	}
	address, err := d.address(sink)
	if err != nil {
		return err
	}
	limit := d.Patience
	if limit == 0 {
		limit = hookTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("the webhook's address is none") // the failure itself would tell it
	}
	req.Header = headers
	req.Header.Set("Content-Type", "application/json")
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "cove")
	}
	resp, err := d.Web.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answered %d", resp.StatusCode)
	}
	return nil
}
