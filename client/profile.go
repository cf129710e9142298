package client

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cove.example/cove/fault"
)

// Profile says which deployment a client talks to and as whom. It does not
// print its secret.
type Profile struct {
	ResourceManager string // URL, no trailing slash
	ActiveDirectory string // URL; "" is asked of the Resource Manager
	Graph           string
	Logs            string
	RegistrySuffix  string
	TenantID        string
	SubscriptionID  string
	ClientID        string
	ClientSecret    Secret
	CA              []byte // PEM
	Dial            string // host:port that stands for every name's 443; "" resolves them
	Connect         string // host:port of the server's CONNECT proxy, where it has one on this machine
	From            string // where it was read, for messages
}

// Secret is a string that prints as redacted.
type Secret string

func (s Secret) String() string { return "redacted" }

// GoString is String.
func (s Secret) GoString() string { return "redacted" }

// file is admin.json, and what `cove login` keeps.
type file struct {
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
	ClientID       string `json:"clientId"`
	ClientSecret   string `json:"clientSecret"`
	Endpoints      struct {
		ResourceManager string `json:"resourceManager"`
		ActiveDirectory string `json:"activeDirectory"`
		Graph           string `json:"graph"`
		Logs            string `json:"logs"`
		RegistrySuffix  string `json:"registrySuffix"`
	} `json:"endpoints"`
	CA string `json:"ca,omitempty"`
}

// ErrNone is the failure of Find when nothing says where the server is.
var ErrNone = fault.New(fault.Invalid, "no server is known: use --data DIR on the server's machine, set COVE_ENDPOINT, or run `cove login`")

// Find reads the profile from, in this order, dataDir when it is given, the
// environment (COVE_ENDPOINT and its like), what `cove login` wrote, and the
// server's default folder.
func Find(dataDir, defaultDir string, env func(string) string) (Profile, error) {
	if dataDir != "" {
		return FromData(dataDir)
	}
	if env("COVE_ENDPOINT") != "" {
		return fromEnv(env)
	}
	if name, err := loginFile(); err == nil {
		if p, err := fromFile(name); !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
	}
	p, err := FromData(defaultDir)
	if errors.Is(err, fs.ErrNotExist) {
		return Profile{}, ErrNone
	}
	return p, err
}

func fromEnv(env func(string) string) (Profile, error) {
	p := Profile{
		ResourceManager: strings.TrimRight(env("COVE_ENDPOINT"), "/"),
		TenantID:        env("COVE_TENANT_ID"),
		SubscriptionID:  env("COVE_SUBSCRIPTION_ID"),
		ClientID:        env("COVE_CLIENT_ID"),
		ClientSecret:    Secret(env("COVE_CLIENT_SECRET")),
		From:            "the environment",
	}
	if !strings.HasPrefix(p.ResourceManager, "https://") {
		return p, fault.Newf(fault.Invalid, "COVE_ENDPOINT must be an https:// URL")
	}
	var missing []string
	for _, name := range []string{"COVE_TENANT_ID", "COVE_SUBSCRIPTION_ID", "COVE_CLIENT_ID", "COVE_CLIENT_SECRET"} {
		if env(name) == "" {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		return p, fault.Newf(fault.Invalid, "COVE_ENDPOINT is set, but not %s", strings.Join(missing, ", "))
	}
	if name := env("COVE_CA_FILE"); name != "" {
		ca, err := os.ReadFile(name)
		if err != nil {
			return p, fault.Newf(fault.Invalid, "COVE_CA_FILE cannot be read: %v", err)
		}
		p.CA = ca
	}
	return p, nil
}

// FromData reads the folder of a server on this machine.
func FromData(dir string) (Profile, error) {
	p, err := fromFile(filepath.Join(dir, "admin.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, fault.New(fault.NotFound, dir+" holds no admin.json: has `cove serve --data "+dir+"` been started? If the file is lost, start it once with --renew-admin").Because(err)
	case errors.Is(err, fs.ErrPermission):
		return p, fault.Newf(fault.Denied, "%s may be read by the server's user only: run this as that user, or sign in with `cove login`", filepath.Join(dir, "admin.json"))
	case err != nil:
		return p, err
	}
	if p.CA, err = os.ReadFile(filepath.Join(dir, "ca.pem")); err != nil {
		return p, err
	}
	run, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	var r struct {
		Listen  []string `json:"listen"`
		Connect string   `json:"connect"`
	}
	if json.Unmarshal(run, &r) == nil && len(r.Listen) > 0 {
		p.Dial, p.Connect = r.Listen[0], r.Connect
	}
	return p, nil
}

func fromFile(name string) (Profile, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return Profile{}, err
	}
	p, err := ReadAdmin(data)
	if err != nil {
		return Profile{}, fault.Newf(fault.Invalid, "%s is damaged: %v", name, err)
	}
	p.From = name
	return p, nil
}

// ReadAdmin is the profile that WriteAdmin wrote.
func ReadAdmin(data []byte) (Profile, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return Profile{}, err
	}
	return Profile{
		ResourceManager: f.Endpoints.ResourceManager, ActiveDirectory: f.Endpoints.ActiveDirectory,
		Graph: f.Endpoints.Graph, Logs: f.Endpoints.Logs, RegistrySuffix: f.Endpoints.RegistrySuffix,
		TenantID: f.TenantID, SubscriptionID: f.SubscriptionID, ClientID: f.ClientID, ClientSecret: Secret(f.ClientSecret),
		CA: []byte(f.CA),
	}, nil
}

// WriteAdmin is the content of admin.json for p.
func WriteAdmin(p Profile) ([]byte, error) {
	var f file
	f.TenantID, f.SubscriptionID, f.ClientID, f.ClientSecret = p.TenantID, p.SubscriptionID, p.ClientID, string(p.ClientSecret)
	f.Endpoints.ResourceManager, f.Endpoints.ActiveDirectory = p.ResourceManager, p.ActiveDirectory
	f.Endpoints.Graph, f.Endpoints.Logs, f.Endpoints.RegistrySuffix = p.Graph, p.Logs, p.RegistrySuffix
	f.CA = string(p.CA)
	out, err := json.MarshalIndent(f, "", "  ")
	return append(out, '\n'), err
}

// Keep writes p, secret included, where Find looks for it, readable by this
// user only. It returns the file's name.
func Keep(p Profile) (string, error) {
	name, err := loginFile()
	if err != nil {
		return "", err
	}
	data, err := WriteAdmin(p)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	tmp := name + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return "", err
	}
	return name, os.Rename(tmp, name)
}

// Forget removes what Keep wrote.
func Forget() error {
	name, err := loginFile()
	if err != nil {
		return err
	}
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func loginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "cove", "profile.json"), nil
}
