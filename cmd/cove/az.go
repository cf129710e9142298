package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

func (a *app) azCommand() *cobra.Command {
	var out string
	c := a.asClient(&cobra.Command{
		Use: "az --out DIR", Short: "Write what the Azure CLI needs to speak to this server", Args: cobra.NoArgs,
		Long: `Write DIR/cloud.json, DIR/ca-bundle.pem and DIR/env.sh. After ". DIR/env.sh" in a
shell, the Azure CLI there speaks to this server: it has a configuration folder
of its own, DIR/azure, and yours is not touched.

DIR holds the client secret and is readable by you alone.`,
		Example: `  cove az --out ./azure-cli
  . ./azure-cli/env.sh
  az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is missing: the folder to write to")
			}
			dir, err := filepath.Abs(out)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			cloud, err := cl.Metadata(cmd.Context())
			if err != nil {
				return err
			}
			if err := writeAz(dir, cloud, cl.Profile); err != nil {
				return err
			}
			a.note("Now: . %s", shellQuoted(filepath.Join(dir, "env.sh")))
			return nil
		},
	})
	c.Flags().StringVar(&out, "out", "", "folder to write to")
	return c
}

// writeAz writes the three files. The folder's mode is set also where it was
// there before, since env.sh holds a secret.
func writeAz(dir string, cloud client.Cloud, p client.Profile) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Newf(fault.Invalid, "--out: %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fault.Newf(fault.Invalid, "--out: %v", err)
	}
	description, err := json.MarshalIndent(azCloud(cloud), "", "  ")
	if err != nil {
		return err
	}
	roots, err := systemRoots()
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{
		{"cloud.json", append(description, '\n')},
		{"ca-bundle.pem", bytes.Join([][]byte{roots, p.CA}, []byte("\n"))},
		{"env.sh", azEnvironment(dir, p)},
	} {
		name := filepath.Join(dir, f.name)
		if err := os.WriteFile(name+".new", f.text, 0o600); err != nil {
			return fault.Newf(fault.Invalid, "--out: %v", err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			return fault.Newf(fault.Invalid, "--out: %v", err)
		}
	}
	return nil
}

// azCloud is a cloud in the words of `az cloud register --cloud-config`. The
// authority ends in /adfs: with another, MSAL would first ask Microsoft about
// it. The registry suffix wants its dot, because az glues it to a name.
func azCloud(c client.Cloud) client.Object {
	return client.Object{
		"endpoints": client.Object{
			"resourceManager":                c.ResourceManager,
			"management":                     c.ResourceManager,
			"activeDirectory":                c.ActiveDirectory + "/adfs",
			"activeDirectoryResourceId":      c.ResourceManager + "/",
			"activeDirectoryGraphResourceId": c.Graph + "/",
			"microsoftGraphResourceId":       c.Graph + "/",
			"logAnalyticsResourceId":         c.Logs,
		},
		"suffixes": client.Object{
			"acrLoginServerEndpoint": "." + c.RegistrySuffix,
			"storageEndpoint":        c.StorageSuffix,
			"keyvaultDns":            "." + c.VaultSuffix,
		},
	}
}

// azEnvironment is the file that a shell reads. It may be read again.
func azEnvironment(dir string, p client.Profile) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by `cove az`; holds a secret. Read it with: . env.sh\n")
	set := func(name, value string) { fmt.Fprintf(&b, "export %s=%s\n", name, shellQuoted(value)) }
	set("AZURE_CONFIG_DIR", filepath.Join(dir, "azure"))
	set("REQUESTS_CA_BUNDLE", filepath.Join(dir, "ca-bundle.pem"))
	// Nothing is reported to, or fetched from, the public cloud.
	set("AZURE_CORE_COLLECT_TELEMETRY", "no")
	set("AZURE_CORE_SURVEY_MESSAGE", "no")
	set("AZURE_EXTENSION_USE_DYNAMIC_INSTALL", "no")
	set("COVE_CLIENT_ID", p.ClientID)
	set("COVE_CLIENT_SECRET", string(p.ClientSecret))
	set("COVE_TENANT_ID", p.TenantID)
	if p.Connect != "" {
		// Both spellings, since a proxy that is set in the other would be used.
		set("HTTPS_PROXY", "http://"+p.Connect)
		set("https_proxy", "http://"+p.Connect)
	}
	config := shellQuoted("@" + filepath.Join(dir, "cloud.json"))
	fmt.Fprintf(&b, "if az cloud show --name cove >/dev/null 2>&1; then\n\taz cloud update --name cove --cloud-config %s\nelse\n\taz cloud register --name cove --cloud-config %s\nfi &&\naz cloud set --name cove\n", config, config)
	return b.Bytes()
}

func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// rootFiles are where systems keep the authorities that they trust, in the
// order in which Go looks for them.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// systemRoots is the first of rootFiles; a machine without any has no roots.
func systemRoots() ([]byte, error) {
	for _, name := range rootFiles {
		text, err := os.ReadFile(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return nil, nil
}
