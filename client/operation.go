package client

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// maxPause bounds what a server may ask a client to wait between two looks.
const maxPause = 30 * time.Second

// Run does an action that goes on after its answer, and returns when it has
// ended: with the operation's properties, or an *Error in the words of its
// failure. watch is called with the operation each time it has been looked at.
func (c *Client) Run(ctx context.Context, id string, body Object, watch func(Object)) (Object, error) {
	out, head, err := c.exchange(ctx, http.MethodPost, c.url(id), body)
	if err != nil {
		return nil, err
	}
	at := head.Get("Azure-AsyncOperation")
	if at == "" {
		return out, nil
	}
	// The token goes to the Resource Manager and nowhere else.
	if !strings.HasPrefix(at, c.Profile.ResourceManager+"/") {
		return nil, fault.Newf(fault.Unavailable, "the server's operation lies at another host: %s", at)
	}
	for {
		pause := time.NewTimer(wait(head))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		}
		if out, head, err = c.exchange(ctx, http.MethodGet, at, nil); err != nil {
			return nil, err
		}
		watch(out)
		properties, _ := out["properties"].(Object)
		switch out["status"] {
		case "Succeeded":
			return properties, nil
		case "Failed", "Canceled":
			e := &Error{Status: http.StatusConflict, Correlation: head.Get("X-Ms-Correlation-Request-Id")}
			if failure, ok := out["error"].(Object); ok {
				e.Code, _ = failure["code"].(string)
				e.Message, _ = failure["message"].(string)
			}
			return nil, e
		}
	}
}

func wait(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 1 {
		seconds = 1
	}
	return min(time.Duration(seconds)*time.Second, maxPause)
}
