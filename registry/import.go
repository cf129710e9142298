package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/resource"
)

// ImportTask is the kind of the task that imports an image.
const ImportTask = "registry.import"

// MaxImportTargets bounds the tags and repositories of one import.
const MaxImportTargets = 100

// The failures of an import.
var (
	// ErrTagExists is a target that is there, in mode NoForce.
	ErrTagExists = fault.Coded(fault.Conflict, "Conflict", "a target tag exists already")
	// ErrRestricted is a registry that import may not pass the network rules of.
	ErrRestricted = fault.Coded(fault.Denied, "ImportNotAllowed", "the registry does not let import pass its network rules")
	// ErrNoExport is a source whose content is to stay where it is.
	ErrNoExport = fault.Coded(fault.Denied, "ExportNotAllowed", "the source registry's export policy forbids it")

	// ErrFull is a target that has reached its SKU's limit.
	ErrFull = fault.Coded(fault.Conflict, "StorageLimitReached", "the registry has reached the storage limit of its SKU")

	errNoPull   = fault.Coded(fault.Denied, "AuthorizationFailed", "the caller may not pull from the source")
	errNoImport = fault.Coded(fault.Denied, "AuthorizationFailed", "the caller may not import any more")
)

// openToAll is what opens a source from which everybody may pull.
const openToAll = "anonymous"

const actionImport = TypeName + "/importImage/action"

// Import is what an import has to do, as its task finds it in its operation.
type Import struct {
	UID     string         `json:"uid"` // of the target registry
	By      ImportCaller   `json:"by"`
	Source  ImportSource   `json:"source"`
	Targets []ImportTarget `json:"targets"`
	Force   bool           `json:"force"`
}

// ImportCaller is who has asked for an import: it goes on as long as they may.
type ImportCaller struct {
	ObjectID   string `json:"objectId"`
	Credential string `json:"credential,omitempty"` // what they had signed in with
}

// ImportSource is where the image is: in a registry of this deployment, whose
// id and UID it has then, or at another host.
type ImportSource struct {
	ID        string `json:"id,omitempty"`
	UID       string `json:"uid,omitempty"`
	Opened    string `json:"opened,omitempty"` // by what, where the caller's roles do not: openToAll, or the id of an admin password
	Host      string `json:"host,omitempty"`   // HOST or HOST:PORT, lower case
	Repo      string `json:"repo"`
	Reference string `json:"reference"` // a tag or a digest
	Username  string `json:"username,omitempty"`
	Password  string `json:"password,omitempty"` // sealed for the target and the host
}

// ImportTarget is a name that the image gets. Tag is "" for a repository that
// gets it untagged.
type ImportTarget struct {
	Repo string `json:"repo"`
	Tag  string `json:"tag,omitempty"`
}

// noUser is the user of a password that is a token (source: the documentation of Azure Container Registry).
const noUser = "00000000-0000-0000-0000-000000000000"

func importSeal(uid, host string) []byte { return []byte("import into " + uid + " from " + host) }

// Password opens the password of the source, "" where it has none.
func (im Import) Password(s Sealer) (string, error) {
	if im.Source.Password == "" {
		return "", nil
	}
	sealed, err := base64.StdEncoding.DecodeString(im.Source.Password)
	if err != nil {
		return "", err
	}
	text, err := s.Open(sealed, importSeal(im.UID, im.Source.Host))
	return string(text), err
}

// ParseImport reads what Import was stored as.
func ParseImport(o resource.Object) (im Import, err error) {
	text, err := resource.Encode(o)
	if err == nil {
		err = json.Unmarshal(text, &im)
	}
	return im, err
}

// importImage is the action importImage. Everything that can be known at once
// is refused at once; the rest is the task's.
func (c Config) importImage(ctx context.Context, tx resource.Tx, doc resource.Doc, by resource.Caller, body resource.Object) (resource.Work, error) {
	r := &importRequest{c: c, doc: doc, by: by, k: &checker{body: body}}
	r.im.UID, r.im.By = doc.UID, ImportCaller{by.ObjectID, by.Credential}
	if body == nil {
		return resource.Work{}, fault.Problems([]fault.Field{{Path: "source", Message: "is required"}})
	}
	r.read()
	if err := fault.Problems(r.k.problems); err != nil {
		return resource.Work{}, err
	}
	if err := r.locate(ctx, tx); err != nil {
		return resource.Work{}, err
	}
	if err := c.untaken(ctx, doc, r.im); err != nil {
		return resource.Work{}, err
	}
	if sku, _ := resource.Lookup(doc.Body, "sku.name").(string); c.Room != nil {
		if err := c.Room(ctx, doc.UID, sku); err != nil {
			return resource.Work{}, ErrFull.Detail("The registry %s has reached the storage limit of the SKU %s.", doc.ID.Name(), sku)
		}
	}
	text, err := json.Marshal(r.im)
	if err != nil {
		return resource.Work{}, err
	}
	request, err := resource.Decode(text)
	return resource.Work{Task: ImportTask, Request: request}, err
}

// importRequest is a request that is being read.
type importRequest struct {
	c        Config
	doc      resource.Doc
	by       resource.Caller
	k        *checker
	im       Import
	id       string // source.resourceId
	password string
}

func (r *importRequest) read() {
	k := r.k
	for _, path := range []string{"source", "source.credentials"} {
		k.object(path)
	}
	if len(k.problems) > 0 {
		return
	}
	if resource.Spell(k.body, "source", "targetTags", "untaggedTargetRepositories", "mode") != "" {
		k.bad("source", "a property is given twice, in spellings that differ in case only")
	}
	k.spell("source", "credentials", "registryUri", "resourceId", "sourceImage")
	k.spell("source.credentials", "username", "password")
	r.im.Force = k.word("mode", "NoForce", "NoForce", "Force") == "Force"
	r.id = k.text("source.resourceId")
	host := strings.TrimSuffix(strings.TrimPrefix(strings.ToLower(k.text("source.registryUri")), "https://"), "/")
	switch {
	case r.id == "" && host == "":
		k.bad("source.registryUri", "is required, or source.resourceId")
	case r.id != "" && host != "":
		k.bad("source.registryUri", "cannot be given together with source.resourceId")
	case host != "" && !isHost(host):
		k.bad("source.registryUri", "%.100q is not a host such as registry.example.com, or registry.example.com:5000", host)
	}
	r.im.Source.Host = host
	r.im.Source.Username, r.password = k.text("source.credentials.username"), k.text("source.credentials.password")
	switch {
	case r.password == "" && r.im.Source.Username != "":
		k.bad("source.credentials.password", "is required with a user name")
	case r.password != "" && r.im.Source.Username == "":
		r.im.Source.Username = noUser
	case len(r.password) > 16<<10 || len(r.im.Source.Username) > 1<<10:
		k.bad("source.credentials", "are too long")
	}
	image := k.text("source.sourceImage")
	repo, reference, why := splitImage(image)
	if why != "" {
		k.bad("source.sourceImage", "%.200q is not an image such as team/app:1.4 or team/app@sha256:…: %s", image, why)
	}
	r.im.Source.Repo, r.im.Source.Reference = repo, reference
	r.targets(repo, reference)
}

func (r *importRequest) targets(repo, reference string) {
	add := func(path, repo, tag string) {
		if _, err := oci.ParseRepo(repo); err != nil {
			_, why := fault.Of(err)
			r.k.bad(path, "%s", why)
			return
		}
		if t := (ImportTarget{repo, tag}); !slices.Contains(r.im.Targets, t) {
			r.im.Targets = append(r.im.Targets, t)
		}
	}
	tags, bare := r.k.texts("targetTags"), r.k.texts("untaggedTargetRepositories")
	if len(tags)+len(bare) > MaxImportTargets {
		r.k.bad("targetTags", "an import has at most %d targets", MaxImportTargets)
		return
	}
	for i, text := range tags {
		path := fmt.Sprintf("targetTags[%d]", i)
		to, ref, why := splitImage(text)
		if why == "" && strings.Contains(ref, ":") {
			why = "a target has a tag, not a digest"
		}
		if why != "" {
			r.k.bad(path, "%.200q is not a target such as team/app:1.4: %s", text, why)
			continue
		}
		add(path, to, ref)
	}
	for i, text := range bare {
		add(fmt.Sprintf("untaggedTargetRepositories[%d]", i), text, "")
	}
	if len(r.im.Targets) == 0 && len(r.k.problems) == 0 {
		tag := reference
		if strings.Contains(tag, ":") {
			tag = "" // by digest: it has no name but that
		}
		add("targetTags", repo, tag)
	}
}

// text is a property that must be a string, "" where it is absent.
func (k *checker) text(path string) string {
	v := resource.Lookup(k.body, path)
	s, ok := v.(string)
	if !ok && v != nil {
		k.bad(path, "must be a text")
	}
	return strings.TrimSpace(s)
}

// texts is a list of strings.
func (k *checker) texts(path string) (out []string) {
	v := resource.Lookup(k.body, path)
	list, ok := v.([]any)
	if !ok && v != nil {
		k.bad(path, "must be a list")
	}
	for i, e := range list {
		s, ok := e.(string)
		if !ok {
			k.bad(fmt.Sprintf("%s[%d]", path, i), "must be a text")
			continue
		}
		out = append(out, strings.TrimSpace(s))
	}
	return out
}

// splitImage splits REPO, REPO:TAG or REPO@DIGEST; no tag is latest.
func splitImage(s string) (repo, reference, why string) {
	repo, digest, pinned := strings.Cut(s, "@")
	tag := "latest"
	if i := strings.LastIndexByte(repo, ':'); i >= 0 {
		repo, tag = repo[:i], repo[i+1:]
	}
	if pinned {
		tag = digest
	}
	_, err := oci.ParseRepo(repo)
	if err == nil {
		_, err = oci.ParseReference(tag)
		if pinned && !strings.Contains(tag, ":") {
			err = oci.ErrDigestInvalid.Detail("%.100q is not a digest", tag)
		}
	}
	if err != nil {
		_, why = fault.Of(err)
	}
	return repo, tag, why
}

// isHost accepts HOST and HOST:PORT, where HOST has a dot: a bare word would
// mean what this machine's resolver makes of it.
func isHost(s string) bool {
	host, port := s, "443"
	if strings.Contains(s, ":") {
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return false
		}
	}
	if len(host) > 253 || !strings.Contains(host, ".") || len(port) == 0 || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// locate finds out whether the source is a registry of this deployment, which
// is never dialled, and whether the caller may have what is in it.
func (r *importRequest) locate(ctx context.Context, tx resource.Reader) error {
	if err := r.c.passes(&r.doc); err != nil {
		return err
	}
	source := resource.Doc{}
	switch name := r.c.nameOf(r.im.Source.Host); {
	case r.id != "":
		id, err := arm.ParseID(r.id)
		if err != nil || !strings.EqualFold(id.Type(), TypeName) {
			return fault.Problems([]fault.Field{{Path: "source.resourceId", Message: "is not the id of a registry"}})
		}
		// An id that does not exist and one that is not the caller's to pull
		// from get the same answer.
		source, err = tx.Get(ctx, id)
		switch {
		case errors.Is(err, resource.ErrUnknown) && !r.holdsPull(id):
			return r.noPull(id.String())
		case errors.Is(err, resource.ErrUnknown):
			return resource.ErrUnknown.Detail("The resource '%.200s' was not found.", r.id)
		case err != nil:
			return err
		case !r.mayPull(source):
			return r.noPull(id.String())
		}
	case name != "":
		id, err := resource.Holder(ctx, tx, TypeName, name)
		if err == nil {
			source, err = tx.Get(ctx, id)
		}
		if errors.Is(err, resource.ErrUnknown) {
			return r.noPull(r.im.Source.Host)
		}
		if err != nil {
			return err
		}
		if !r.mayPull(source) {
			if r.im.Source.Opened = r.c.opens(source, r.im.Source.Username, r.password); r.im.Source.Opened == "" {
				return r.noPull(r.im.Source.Host)
			}
		}
	default:
		if r.password == "" {
			return nil
		}
		sealed, err := r.c.Sealer.Seal([]byte(r.password), importSeal(r.im.UID, r.im.Source.Host))
		r.im.Source.Password = base64.StdEncoding.EncodeToString(sealed)
		return err
	}
	r.im.Source.ID, r.im.Source.UID, r.im.Source.Host, r.im.Source.Username = source.ID.String(), source.UID, "", ""
	return r.gives(&source)
}

// gives refuses a source of this deployment whose rules keep its content there.
func (r *importRequest) gives(source *resource.Doc) error {
	if source.UID != r.doc.UID && resource.Lookup(source.Body, "properties.policies.exportPolicy.status") == "disabled" {
		return ErrNoExport.Detail("The export policy of the registry %s is disabled; nothing can be imported from it.", source.ID.Name())
	}
	return r.c.passes(source)
}

// ImportAllowed reports whether an import into a registry that was begun may go
// on: by is who has asked for it, as they are now. What is taken away ends an
// import as it ends a download, or whoever keeps the importers busy would have
// today's right to what is pushed tomorrow. It fails as asking anew would, and
// with resource.ErrUnknown where the target is gone.
func (d *Directory) ImportAllowed(ctx context.Context, on arm.ID, im Import, by resource.Caller) error {
	return d.store.View(ctx, func(tx resource.Reader) error {
		doc, err := tx.Get(ctx, on)
		if err != nil {
			return err
		}
		if by.May == nil || !by.May(actionImport, on) {
			return errNoImport.Detail("The client '%s' with object id '%s' does not have authorization any more to perform action '%s' over scope '%s'.", by.Name, by.ObjectID, actionImport, on)
		}
		r := &importRequest{c: d.c, doc: doc, by: by, im: im}
		if err := r.c.passes(&doc); err != nil || im.Source.ID == "" {
			return err
		}
		id, err := arm.ParseID(im.Source.ID)
		if err != nil {
			return err
		}
		source, err := tx.Get(ctx, id)
		switch {
		case errors.Is(err, resource.ErrUnknown), err == nil && source.UID != im.Source.UID:
			return r.noPull(im.Source.ID)
		case err != nil:
			return err
		case !r.mayPull(source) && !r.c.stillOpens(source, im.Source.Opened):
			return r.noPull(im.Source.ID)
		}
		return r.gives(&source)
	})
}

// mayPull reports whether the caller may have what is to be copied, as the
// source's permission mode says: else a control plane role would be a way
// around the conditions of the data plane.
func (r *importRequest) mayPull(source resource.Doc) bool {
	if mode(source) == AbacMode {
		return r.by.MayData != nil && r.by.MayData(TypeName+"/repositories/content/read", source.ID, r.im.Source.Repo)
	}
	return r.holdsPull(source.ID)
}

func (r *importRequest) holdsPull(id arm.ID) bool {
	return r.by.May != nil && r.by.May(TypeName+"/pull/read", id)
}

func (r *importRequest) noPull(source string) error {
	return errNoPull.Detail("The client '%s' with object id '%s' does not have authorization to perform action '%s/pull/read' on the source '%.200s' or the source is invalid.",
		r.by.Name, r.by.ObjectID, TypeName, source)
}

// opens is what opens a registry to somebody whose roles do not: that everybody
// may pull, or the password of its admin user, by its id; "" is nothing.
func (c Config) opens(doc resource.Doc, user, password string) string {
	s, err := c.compile(doc)
	switch {
	case err != nil:
		return ""
	case s.AnonymousPull:
		return openToAll
	case password == "":
		return ""
	}
	id, _ := s.AdminPassword(user, password)
	return id
}

// stillOpens reports whether what has opened a registry before would now.
func (c Config) stillOpens(doc resource.Doc, by string) bool {
	s, err := c.compile(doc)
	if err != nil || by == "" {
		return false
	}
	return by == openToAll && s.AnonymousPull || s.AdminUser && s.HasAdminPassword(by)
}

// passes refuses a registry that is closed to the internet and does not let
// trusted services pass, of which import is one (source: the documentation of Azure Container Registry).
func (c Config) passes(doc *resource.Doc) error {
	closed := resource.Lookup(doc.Body, pathPublic) != "Enabled" || resource.Lookup(doc.Body, pathDefault) == "Deny"
	if closed && resource.Lookup(doc.Body, "properties.networkRuleBypassOptions") == "None" {
		return ErrRestricted.Detail("The registry %s has network rules and networkRuleBypassOptions None, so nothing is imported to or from it.", doc.ID.Name())
	}
	return nil
}

// nameOf is the name of the registry that a host of this deployment can only
// be of, "" for other hosts.
func (c Config) nameOf(host string) string {
	host = strings.TrimSuffix(host, ":443")
	for name, aliases := range c.Aliases {
		if slices.ContainsFunc(aliases, func(a string) bool { return strings.EqualFold(a, host) }) {
			return name
		}
	}
	name, ok := strings.CutSuffix(host, "."+c.Suffix)
	if !ok {
		return ""
	}
	return name
}

// untaken refuses targets that exist, unless they are to be overwritten. The
// task looks again, since much may happen before it is there.
func (c Config) untaken(ctx context.Context, doc resource.Doc, im Import) error {
	if im.Force || c.Tagged == nil {
		return nil
	}
	for _, t := range im.Targets {
		if t.Tag == "" {
			continue
		}
		repo, err := oci.ParseRepo(t.Repo)
		if err != nil {
			return err
		}
		tag, err := oci.ParseTag(t.Tag)
		if err != nil {
			return err
		}
		taken, err := c.Tagged(ctx, doc.UID, repo, tag)
		if err != nil {
			return err
		}
		if taken {
			return ErrTagExists.Detail("Tag %s:%s already exists in target registry.", t.Repo, t.Tag)
		}
	}
	return nil
}
