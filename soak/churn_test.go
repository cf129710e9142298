package soak

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

const (
	churned   = "churned"
	churnRepo = "team/large"
	// endsWithin is how long a transfer may outlive the rejection of the
	// private endpoint that it goes through.
	endsWithin = time.Second
)

// A member's own transfer is undisturbed while endpoints around it are added,
// approved, rejected and removed, and a rejected endpoint's transfers end
// within a second. row:42 row:43
func TestEndpointsComeAndGo(t *testing.T) { comeAndGo(t, 48<<20) }

// comings is what comeAndGo has seen.
type comings struct {
	seed uint64
	took time.Duration   // of the transfer
	ends []time.Duration // how long transfers outlived each rejection
	pid  int
}

// comeAndGo has a member pull a blob of so many bytes through one private
// endpoint while others, of its registry and of another, come and go in its
// network. It ends when the transfer does, after two rounds at least.
func comeAndGo(t *testing.T, size int64) (seen comings) {
	seen.seed = seed(t)
	s := covetest.Start(t, "--listen-http", "127.0.0.1:0", "--registry-alias", "127.0.0.1="+churned, "--rate-limits", "off")
	seen.pid = s.PID()
	for _, registry := range []string{churned, "beside"} {
		s.Cove(t, "registry", "create", registry, "--admin-enabled")
	}
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	digest, err := plain(s, churned, s.Password(t, churned)).random(t.Context(), seen.seed, size)
	if err != nil {
		t.Fatal(err)
	}
	s.Cove(t, "private-endpoint", "create", "stays", "--registry", churned, "--subnet", "office/default")
	s.Cove(t, "registry", "update", churned, "--public-network-enabled", "false")
	proxy := enter(t, s, "office", "laptop")
	c := outside(t, s, churned, s.Password(t, churned))

	// The transfer waits half way until a round is over: none is too quick for
	// the changes.
	round, done := make(chan struct{}), make(chan error, 1)
	began := time.Now()
	go func() {
		err := c.by(proxy, addresses(t, s, "stays")).down(t.Context(), digest, size/2, func() { <-round })
		seen.took = time.Since(began)
		done <- err
	}()
	for {
		seen.ends = append(seen.ends, come(t, s, c, proxy, digest))
		if len(seen.ends) == 1 {
			close(round)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the transfer was disturbed in round %d: %v", len(seen.ends), err)
			}
			done = nil
		default:
		}
		if done == nil && len(seen.ends) > 1 {
			break
		}
	}
	// On a busy machine one may take long: what ends for another reason than the
	// rejection takes long each time.
	if soon := slices.Min(seen.ends); soon > endsWithin {
		t.Errorf("transfers through rejected endpoints went on for %v", seen.ends)
	}
	return seen
}

// come makes two endpoints in the network, one that waits for approval and one
// of another registry, uses the first, and removes both. It returns how long a
// transfer went on after the first was rejected.
func come(t *testing.T, s *covetest.Server, c *client, proxy, digest string) time.Duration {
	t.Helper()
	const asks = "asks"
	s.Cove(t, "private-endpoint", "create", asks, "--registry", churned, "--subnet", "office/default", "--manual-request")
	s.Cove(t, "private-endpoint", "create", "beside", "--registry", "beside", "--subnet", "office/default")
	here := addresses(t, s, asks)
	refused := func(when string) {
		t.Helper()
		if _, err := c.by(proxy, here).blobStart(t.Context(), churnRepo); status(err) != http.StatusForbidden {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("an endpoint that waits")
	s.Cove(t, "private-endpoint", "approve", asks)
	// The transfer stands still where much is still to come.
	begun, rejected, cut := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		cut <- c.by(proxy, here).down(t.Context(), digest, 1<<20, func() { close(begun); <-rejected })
	}()
	select {
	case <-begun:
	case err := <-cut:
		t.Fatalf("an endpoint that was approved: %v", err)
	}
	s.Cove(t, "private-endpoint", "reject", asks)
	began := time.Now()
	close(rejected)
	if err := <-cut; err == nil || status(err) != 0 || errors.Is(err, errPartial) {
		t.Errorf("a transfer through a rejected endpoint ends with %v", err)
	}
	took := time.Since(began)
	refused("an endpoint that was rejected")
	s.Cove(t, "private-endpoint", "delete", "beside")
	s.Cove(t, "private-endpoint", "delete", asks)
	return took
}

// random pushes a blob of random bytes.
func (c *client) random(ctx context.Context, seed uint64, size int64) (digest string, err error) {
	at, err := c.blobStart(ctx, churnRepo)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), size), sum)
	h, err := c.tell(ctx, http.StatusAccepted, http.MethodPatch, at, body, "Content-Type", "application/octet-stream")
	if err != nil {
		return "", err
	}
	if at, err = location(h); err != nil {
		return "", err
	}
	digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	_, err = c.tell(ctx, http.StatusCreated, http.MethodPut, withDigest(at, digest), nil)
	return digest, err
}

// down fetches a blob in one request and checks it; then is called once, when
// so many bytes have come.
func (c *client) down(ctx context.Context, digest string, after int64, then func()) error {
	defer c.close()
	resp, err := c.call(ctx, http.StatusOK, http.MethodGet, "/v2/"+churnRepo+"/blobs/"+digest, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sum := sha256.New()
	if _, err := io.CopyN(sum, resp.Body, after); err != nil {
		return err
	}
	then()
	n, err := io.Copy(sum, resp.Body)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", after+n, err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("%s came, not %s: %w", got, digest, errPartial)
	}
	return nil
}
