package scenarios

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cove.example/cove/reason"
)

// node is containerd with the interface that a kubelet speaks to, on a host.
type node struct {
	t      *testing.T
	l      *lab
	at     host
	client *http.Client
}

// newNode starts it. It trusts a registry as nodes do, by a hosts.toml.
func newNode(t *testing.T, l *lab, at host, registry string) *node {
	t.Helper()
	dir := filepath.Join(l.dir, "node-"+at.name)
	certs := filepath.Join(dir, "certs.d", registry)
	if err := os.MkdirAll(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(certs, "hosts.toml"), fmt.Sprintf("server = \"https://%s\"\n[host.\"https://%s\"]\n  ca = %q\n", registry, registry, filepath.Join(l.Data, "ca.pem")))
	socket := filepath.Join(dir, "containerd.sock")
	overwrite(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(`version = 2
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = %q
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
`, socket, filepath.Join(dir, "certs.d")))
	l.background(t, at, "containerd successfully booted", nil, "/usr/bin/containerd", "--config", filepath.Join(dir, "config.toml"), "--root", dir+"/root", "--state", dir+"/state")
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &node{t, l, at, &http.Client{Transport: transport, Timeout: time.Minute}}
}

// pull is ask without the status.
func (n *node) pull(image, user, password string) string {
	n.t.Helper()
	_, message := n.ask(image, user, password)
	return message
}

// ask asks for an image as a kubelet does; the user "" has no pull secret. It
// returns gRPC's status and what the node says went wrong, "" if nothing did:
// what a person finds in the events of a pod.
func (n *node) ask(image, user, password string) (status, message string) {
	n.t.Helper()
	// PullImageRequest{image: {image}, auth: {username, password}}
	ask := lengthField(1, lengthField(1, []byte(image)))
	if user != "" {
		ask = append(ask, lengthField(2, append(lengthField(1, []byte(user)), lengthField(2, []byte(password))...))...)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(ask)))
	req, err := http.NewRequest(http.MethodPost, "http://cri/runtime.v1.ImageService/PullImage", bytes.NewReader(append(frame, ask...)))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := n.client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		n.t.Fatal(err)
	}
	said := func(name string) string { return resp.Header.Get(name) + resp.Trailer.Get(name) }
	status = said("Grpc-Status")
	if status == "0" {
		if !bytes.Contains(body, []byte("sha256:")) {
			n.t.Errorf("the node pulled %s and names no image: %q", image, body)
		}
		return status, ""
	}
	message, err = url.PathUnescape(said("Grpc-Message"))
	if err != nil || message == "" {
		n.t.Fatalf("no status and no message: %s %v %v", resp.Status, resp.Header, resp.Trailer)
	}
	return status, message
}

// lengthField is a field of a protocol buffer that holds bytes.
func lengthField(number int, value []byte) []byte {
	return append(binary.AppendUvarint([]byte{byte(number<<3 | 2)}, uint64(len(value))), value...)
}

// A Kubernetes node pulls from a registry that is closed to everybody outside,
// through the interface that its kubelet uses. Each thing that can be in its way
// is in the text that the kubelet shows; where the registry refused, its record
// leads to the reason, and where it was never asked, the text leads to the
// cause. row:99 row:7 row:22 row:88
func TestRootKubeletPulls(t *testing.T) {
	f := newFaulty(t)
	f.Cove(t, "registry", "update", "harbor", "--public-network-enabled", "false")
	image := f.host + "/team/app:1"
	var stranger struct{ ClientID, ClientSecret string }
	f.decode(f.Cove(t, "principal", "create", "stranger", "-o", "json"), &stranger)
	inside := newNode(t, f.lab, f.inside, f.host)
	outside := newNode(t, f.lab, f.outside, f.host)
	// Layers come first: later the node has them.
	f.Cove(t, "dns", "record", "remove", f.zone, "harbor.local.data")
	said := inside.pull(image, f.ci.ClientID, f.ci.ClientSecret)
	if out, _, _ := f.Try(t, "explain", said); !strings.Contains(said, "lookup harbor.local.data.cr."+f.domain) || !strings.Contains(out, string(reason.NameUnknown)) {
		t.Errorf("without the data endpoint's record the node says %q\n%s", said, out)
	}
	f.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe")
	if said := inside.pull(image, f.ci.ClientID, f.ci.ClientSecret); said != "" {
		t.Fatalf("all is well, and the node says: %s", said)
	}
	for _, x := range []struct {
		name, image string
		node        *node
		stranger    bool
		break_      []string
		says        string
		code        reason.Code // what the text means
		reason      string      // why the registry refused, by its record
		mend        []string
	}{
		{name: "outside", image: image, node: outside, says: "403 Forbidden", code: reason.NetworkRefuses, reason: "COVE-NET-001"},
		{
			name: "the connection is rejected", image: image, node: inside, says: "403 Forbidden", code: reason.NetworkRefuses, reason: "COVE-NET-005",
			break_: []string{"private-endpoint", "reject", "pe", "--registry", "harbor"}, mend: []string{"private-endpoint", "approve", "pe", "--registry", "harbor"},
		},
		{name: "an identity without a role", image: image, node: inside, stranger: true, says: "401 Unauthorized", code: reason.SignInRefused, reason: "COVE-PERM-002"},
		{name: "there is no such tag", image: f.host + "/team/app:2", node: inside, says: "not found", code: reason.ImageUnknown},
		{
			name: "the login server's record is gone", image: image, node: inside, says: "lookup " + f.host, code: reason.NameUnknown,
			break_: []string{"dns", "record", "remove", f.zone, "harbor"}, mend: []string{"dns", "record", "sync", "--private-endpoint", "pe"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.node.t = t
			user, password := f.ci.ClientID, f.ci.ClientSecret
			if x.stranger {
				user, password = stranger.ClientID, stranger.ClientSecret
			}
			if x.break_ != nil {
				f.Cove(t, x.break_...)
			}
			said := x.node.pull(x.image, user, password)
			if !strings.Contains(said, x.says) || !strings.Contains(said, "failed to pull and unpack image") {
				t.Errorf("the node says %q, not %q", said, x.says)
			}
			if out, errs, _ := f.Try(t, "explain", said); !strings.Contains(out, string(x.code)) {
				t.Errorf("cove explain %q, not %s:\n%s%s", said, x.code, out, errs)
			}
			if x.reason != "" {
				f.explained(t, f.Cove(t, "logs", "--registry", "harbor", "--refused", "-o", "tsv", "--query", "[?ReasonCode=='"+x.reason+"'] | [-1].CorrelationId"), x.reason)
			}
			if x.mend != nil {
				f.Cove(t, x.mend...)
			}
			if said := inside.pull(image, f.ci.ClientID, f.ci.ClientSecret); said != "" {
				t.Errorf("mended, and the node says: %s", said)
			}
		})
	}
}
