package health

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"cove.example/cove/reason"
)

// helperName is what may stand behind docker-credential-: a configuration is
// somebody's file, and no path of it is run.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

const (
	maxSettings = 1 << 20  // of docker's config.json
	maxHelper   = 16 << 10 // of what a helper says
)

// notStored is what helpers say where they have nothing (source:
// docker-credential-helpers, which clients compare with).
const notStored = "credentials not found in native keychain"

// helper asks the program that keeps this user's credentials for a host, as
// docker, podman, skopeo and crane do: nothing where the configuration names
// none. What it answers is not kept.
func (m Machine) helper(ctx context.Context, host string) []Result {
	dir := cmp.Or(m.env("DOCKER_CONFIG"), filepath.Join(m.env("HOME"), ".docker"))
	settings := filepath.Join(dir, "config.json")
	f, err := os.Open(settings)
	if err != nil {
		return nil
	}
	defer f.Close()
	var conf struct {
		Store   string            `json:"credsStore"`
		Helpers map[string]string `json:"credHelpers"`
	}
	if json.NewDecoder(io.LimitReader(f, maxSettings)).Decode(&conf) != nil {
		r := Result{Layer: LayerEngine, Subject: "credentials"}
		r.fail(reason.HelperBroken, "%s cannot be read as JSON", settings)
		return []Result{r}
	}
	name, key := conf.Helpers[host], "credHelpers"
	if name == "" {
		name, key = conf.Store, "credsStore"
	}
	if name == "" {
		return nil
	}
	r := Result{Layer: LayerEngine, Subject: "credentials", Outcome: Passed, Said: name + " has one for " + host}
	if why := m.ask(ctx, name, host); why == notStored {
		r.Said = name + " has none for " + host + ": clients ask as nobody"
	} else if why != "" {
		r.fail(reason.HelperBroken, "docker-credential-%s: %s", name, why)
		r.Evidence = []string{settings + " names it as " + key}
		r.Fix = "take " + name + " out of " + key + " in " + settings + ", and log in to " + host + " again"
	}
	return []Result{r}
}

// ask asks a helper for a host's credential, and says why it has not given one.
func (m Machine) ask(ctx context.Context, name, host string) (why string) {
	if !helperName.MatchString(name) {
		return "not the name of a program"
	}
	path, err := exec.LookPath("docker-credential-" + name)
	if err != nil {
		return "there is no such program"
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "get")
	cmd.Stdin = strings.NewReader(host)
	cmd.WaitDelay = Patience / 5
	said := &head{left: maxHelper}
	cmd.Stdout = said
	err = cmd.Run()
	switch words := strings.TrimSpace(said.String()); {
	case ctx.Err() != nil:
		return "no answer in " + Patience.String()
	case err != nil && strings.Contains(words, notStored):
		return notStored
	case err != nil:
		line, _, _ := strings.Cut(words, "\n")
		return strings.TrimSuffix(err.Error()+": "+line[:min(len(line), 200)], ": ")
	}
	var got struct{ Username, Secret string }
	if json.Unmarshal(said.Bytes(), &got) != nil || got.Secret == "" {
		return "what it says is no credential"
	}
	return ""
}

// head keeps the beginning of what is written.
type head struct {
	bytes.Buffer
	left int
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.left)
	h.left -= n
	h.Buffer.Write(p[:n])
	return len(p), nil
}
