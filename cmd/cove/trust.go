package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

// A truster puts a certificate where one kind of client looks for it.
type truster struct {
	files   func(host string, ca []byte) map[string][]byte // path → content
	refresh [][]string                                     // the first of these programs that exists is run afterwards
	after   string                                         // what a person still has to do, if anything
}

var trusters = map[string]truster{
	"docker": {files: func(host string, ca []byte) map[string][]byte {
		return map[string][]byte{"/etc/docker/certs.d/" + host + "/ca.crt": ca}
	}},
	"podman": {files: func(host string, ca []byte) map[string][]byte {
		return map[string][]byte{"/etc/containers/certs.d/" + host + "/ca.crt": ca}
	}},
	"containerd": {
		files: func(host string, ca []byte) map[string][]byte {
			dir := "/etc/containerd/certs.d/" + host
			return map[string][]byte{
				dir + "/ca.crt":     ca,
				dir + "/hosts.toml": []byte(fmt.Sprintf("server = \"https://%s\"\n\n[host.\"https://%s\"]\n  ca = \"%s/ca.crt\"\n", host, host, dir)),
			}
		},
		after: "containerd reads this where its CRI plugin has config_path = \"/etc/containerd/certs.d\"; ctr takes --hosts-dir /etc/containerd/certs.d",
	},
	"system": {
		files: func(_ string, ca []byte) map[string][]byte {
			name := "cove-" + fingerprint(ca)[:12] + ".crt"
			if _, err := os.Stat("/etc/pki/ca-trust/source/anchors"); err == nil {
				return map[string][]byte{"/etc/pki/ca-trust/source/anchors/" + name: ca}
			}
			return map[string][]byte{"/usr/local/share/ca-certificates/" + name: ca}
		},
		refresh: [][]string{{"update-ca-certificates"}, {"update-ca-trust", "extract"}},
		after:   "programs that are running keep the list they started with",
	},
}

func (a *app) trustCommand() *cobra.Command {
	var remove bool
	var caFile string
	chosen := map[string]*bool{}
	c := &cobra.Command{
		Use: "trust [--docker] [--containerd] [--podman] [--system] HOST", Short: "Make this machine's clients trust cove's certificates",
		Long:    "Put the certificate of cove's own authority where a client looks for it, for\none login server, or take it away again with --remove.",
		Example: "  cove trust --docker myregistry.cr.cove.internal\n  cove trust --system --remove myregistry.cr.cove.internal",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := strings.ToLower(args[0])
			if !hostName(host) {
				return usagef("%q is not a host name; give the login server, such as myregistry.cr.cove.internal", args[0])
			}
			some := false
			for _, on := range chosen {
				some = some || *on
			}
			if !some {
				return usagef("say which client: --docker, --containerd, --podman or --system")
			}
			ca, err := a.authority(caFile)
			if err != nil {
				return err
			}
			for _, kind := range []string{"docker", "containerd", "podman", "system"} {
				if !*chosen[kind] {
					continue
				}
				if err := a.trust(trusters[kind], host, ca, remove); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for _, kind := range []string{"docker", "containerd", "podman", "system"} {
		chosen[kind] = c.Flags().Bool(kind, false, map[string]string{
			"docker": "docker's engine", "containerd": "containerd, Kubernetes nodes", "podman": "podman, buildah and skopeo", "system": "everything that uses the system's list",
		}[kind])
	}
	c.Flags().BoolVar(&remove, "remove", false, "take the certificate away")
	c.Flags().StringVar(&caFile, "ca-file", "", "the authority's ca.pem (default: the server's that this machine knows)")
	c.Flags().StringVar(&a.data, "data", "", "the server's data folder, on its own machine")
	return c
}

// authority is the PEM of the root that clients are to trust.
func (a *app) authority(file string) ([]byte, error) {
	if file != "" {
		ca, err := os.ReadFile(file)
		if err != nil {
			return nil, fault.Newf(fault.Invalid, "--ca-file cannot be read: %v", err)
		}
		return checkedCA(ca)
	}
	if file, ok := a.env("COVE_CA_FILE"); ok && file != "" && a.data == "" {
		return a.authority(file)
	}
	cl, err := a.client()
	if err != nil {
		return nil, err
	}
	if len(cl.Profile.CA) == 0 {
		return nil, fault.Newf(fault.Invalid, "no certificate authority is known: give the server's ca.pem with --ca-file")
	}
	return checkedCA(cl.Profile.CA)
}

func checkedCA(ca []byte) ([]byte, error) {
	block, _ := pem.Decode(ca)
	if block == nil {
		return nil, fault.Newf(fault.Invalid, "the authority's file holds no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA {
		return nil, fault.Newf(fault.Invalid, "the authority's file holds no certificate of an authority")
	}
	return ca, nil
}

func (a *app) trust(t truster, host string, ca []byte, remove bool) error {
	for name, content := range t.files(host, ca) {
		if remove {
			err := os.Remove(name)
			if errors.Is(err, fs.ErrNotExist) {
				a.note("not there: %s", name)
				continue
			}
			if err != nil {
				return denied(name, err)
			}
			a.note("removed %s", name)
			// The folder goes with its last file; a full one stays.
			if dir := filepath.Dir(name); filepath.Base(dir) == host {
				if left, err := os.ReadDir(dir); err == nil && len(left) == 0 {
					if err := os.Remove(dir); err != nil {
						return denied(dir, err)
					}
				}
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return denied(name, err)
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return denied(name, err)
		}
		a.note("wrote %s", name)
	}
	for _, argv := range t.refresh {
		path, err := exec.LookPath(argv[0])
		if err != nil {
			continue
		}
		if out, err := exec.Command(path, argv[1:]...).CombinedOutput(); err != nil {
			return fault.Newf(fault.Unavailable, "%s failed: %s", argv[0], strings.TrimSpace(string(out)))
		}
		break
	}
	if t.after != "" && !remove {
		a.note("note: %s", t.after)
	}
	return nil
}

func denied(name string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.Newf(fault.Denied, "%s cannot be changed by this user: run it as root", name)
	}
	return err
}

func fingerprint(ca []byte) string {
	block, _ := pem.Decode(ca)
	if block == nil {
		return strings.Repeat("0", 64)
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}

func (a *app) loginCommand() *cobra.Command {
	var p client.Profile
	var caFile, secretFile, fingerprintWanted string
	c := &cobra.Command{
		Use: "login URL", Short: "Sign in to a server elsewhere and remember it",
		Long:    "Sign in as a service principal and keep the profile for later commands. The\nsecret is read from --secret-file or from standard input, never from the\ncommand line.",
		Example: "  cove login https://management.cove.internal --tenant T --subscription S --client-id ID --ca-file ca.pem < secret",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.ResourceManager = strings.TrimRight(args[0], "/")
			if !strings.HasPrefix(p.ResourceManager, "https://") {
				return usagef("%q: give the Resource Manager's https:// URL", args[0])
			}
			secret, err := a.secret(secretFile)
			if err != nil {
				return err
			}
			p.ClientSecret = client.Secret(secret)
			if caFile == "" {
				caFile, _ = a.env("COVE_CA_FILE")
			}
			if caFile != "" {
				if p.CA, err = a.authority(caFile); err != nil {
					return err
				}
				if fingerprintWanted != "" && !strings.EqualFold(fingerprintWanted, fingerprint(p.CA)) {
					return fault.Newf(fault.Denied, "%s has the fingerprint %s, not the one given", caFile, fingerprint(p.CA))
				}
			}
			cl, err := client.New(p)
			if err != nil {
				return err
			}
			if _, err := cl.Get(cmd.Context(), cl.Scope()); err != nil {
				return err
			}
			name, err := client.Keep(cl.Profile)
			if err != nil {
				return err
			}
			a.note("signed in; the profile is in %s", name)
			return nil
		},
	}
	fs := c.Flags()
	fs.StringVar(&p.TenantID, "tenant", "", "tenant id")
	fs.StringVar(&p.SubscriptionID, "subscription", "", "subscription id")
	fs.StringVar(&p.ClientID, "client-id", "", "application (client) id")
	fs.StringVar(&secretFile, "secret-file", "", "file that holds the client secret (default standard input)")
	fs.StringVar(&caFile, "ca-file", "", "the server's ca.pem")
	fs.StringVar(&fingerprintWanted, "ca-fingerprint", "", "SHA-256 of the authority's certificate, to be sure of the file")
	for _, name := range []string{"tenant", "subscription", "client-id"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return c
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the profile that `cove login` kept", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return client.Forget() },
	}
}
