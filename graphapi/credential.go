package graphapi

import (
	"context"
	"crypto/sha1" //nolint:gosec // the thumbprint by which Graph calls a certificate
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cove.example/cove/directory"
)

// certificate is a keyCredential as Graph shows it. The key itself is shown to
// nobody who does not ask for it, and here to nobody.
func certificate(c directory.Credential) map[string]any {
	return map[string]any{
		"keyId": c.KeyID, "displayName": c.Name, "customKeyIdentifier": fmt.Sprintf("%X", sha1.Sum(c.Data)), //nolint:gosec // see the import
		"key": nil, "type": "AsymmetricX509Cert", "usage": "Verify",
		"startDateTime": stamp(c.Start), "endDateTime": stamp(c.End),
	}
}

// certificates reads keyCredentials, the whole list of them: one with a key is
// new, one without is one of the old, named by its keyId, and what is left out
// ends. It reports false where the body has no such list. Every problem is in
// its error.
func certificates(body map[string]any, now time.Time) (change func([]directory.Credential) ([]directory.Credential, error), given bool, err error) {
	v, given := body["keyCredentials"]
	list, ok := v.([]any)
	if v != nil && !ok || len(list) > directory.MaxCredentials {
		return nil, false, errRequest.Detail("The keyCredentials must be a list of at most %d.", directory.MaxCredentials)
	}
	var added []directory.Credential
	var kept []string
	for _, one := range list {
		o, _ := one.(map[string]any)
		id, _ := o["keyId"].(string)
		text, _ := o["key"].(string)
		if text == "" {
			kept = append(kept, strings.ToLower(id))
			continue
		}
		cred, err := newCertificate(o, id, text, now)
		if err != nil {
			return nil, false, err
		}
		added = append(added, cred)
	}
	return func(old []directory.Credential) ([]directory.Credential, error) {
		next := slices.Clone(added)
		for _, id := range kept {
			i := slices.IndexFunc(old, func(c directory.Credential) bool { return c.KeyID == id })
			if i < 0 {
				return nil, errRequest.Detail("The key credential '%.60s' has no key, and is none of those that are there.", id)
			}
			next = append(next, old[i])
		}
		return next, nil
	}, given, nil
}

func newCertificate(o map[string]any, id, text string, now time.Time) (directory.Credential, error) {
	for name, want := range map[string]string{"type": "AsymmetricX509Cert", "usage": "Verify"} {
		if got, _ := o[name].(string); o[name] != nil && got != want {
			return directory.Credential{}, errRequest.Detail("The %s of a key credential must be %s.", name, want)
		}
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return directory.Credential{}, errRequest.Detail("The key of a key credential must be a certificate, DER in base64.")
	}
	name, _ := o["displayName"].(string)
	if len(name) > 120 {
		return directory.Credential{}, errRequest.Detail("The displayName of a key credential is at most 120 characters long.")
	}
	start, err := moment(o, "startDateTime", now)
	if err != nil {
		return directory.Credential{}, err
	}
	end, err := moment(o, "endDateTime", directory.Forever) // or the certificate's
	if err != nil {
		return directory.Credential{}, err
	}
	if start.Before(now.Add(skew)) {
		start = now
	}
	return directory.NewCertificate(id, name, der, start, end)
}

// newPassword is the password that a body sets, "" for none.
func newPassword(body map[string]any) string {
	p, _ := body["passwordProfile"].(map[string]any)
	text, _ := p["password"].(string)
	return text
}

// federated is a federated identity credential as Graph shows it.
func federated(c directory.Credential) map[string]any {
	f, _ := c.Federation()
	out := map[string]any{"id": c.KeyID, "name": c.Name, "issuer": f.Issuer, "subject": f.Subject, "audiences": f.Audiences, "description": nil}
	if f.Description != "" {
		out["description"] = f.Description
	}
	return out
}

// readFederation puts what a body says over what there was.
func readFederation(body map[string]any, name string, f directory.Federation) (directory.Credential, error) {
	for property, into := range map[string]*string{"name": &name, "issuer": &f.Issuer, "subject": &f.Subject, "description": &f.Description} {
		v, given := body[property]
		text, ok := v.(string)
		if given && v != nil && !ok {
			return directory.Credential{}, errRequest.Detail("The %s of a federated identity credential must be a text.", property)
		}
		if given {
			*into = text
		}
	}
	if _, given := body["audiences"]; given {
		var err error
		if f.Audiences, err = texts(body, "audiences"); err != nil {
			return directory.Credential{}, err
		}
	}
	return directory.NewFederation(name, f)
}

func federationsOf(o *directory.Object) (out []directory.Credential) {
	for _, c := range o.Credentials {
		if c.Kind == directory.KindFederated {
			out = append(out, c)
		}
	}
	return out
}

// among finds a federated credential by its id or name.
func among(list []directory.Credential, named string) (int, error) {
	i := slices.IndexFunc(list, func(c directory.Credential) bool {
		return strings.EqualFold(c.KeyID, named) || strings.EqualFold(c.Name, named)
	})
	if i < 0 {
		return -1, unknown(named)
	}
	return i, nil
}

func (k *kind) federations(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	list := []any{}
	for _, f := range federationsOf(&o) {
		list = append(list, federated(f))
	}
	return reply{http.StatusOK, map[string]any{"@odata.context": s.at("$metadata#" + k.set + "('" + o.ObjectID + "')/federatedIdentityCredentials"), "value": list}}, nil
}

func (k *kind) federation(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	list := federationsOf(&o)
	i, err := among(list, c.params[1])
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, federated(list[i])}, nil
}

func (k *kind) federate(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	cred, err := readFederation(c.body, "", directory.Federation{})
	if err != nil {
		return reply{}, err
	}
	err = s.Directory.ChangeFederations(ctx, o.ObjectID, func(old []directory.Credential) ([]directory.Credential, error) {
		return append(old, cred), nil
	})
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, federated(cred)}, nil
}

// refederate changes one. Its name stays, and its id; tokens that were bought by
// what it said before end (directory.Standing).
func (k *kind) refederate(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	err = s.Directory.ChangeFederations(ctx, o.ObjectID, func(old []directory.Credential) ([]directory.Credential, error) {
		i, err := among(old, c.params[1])
		if err != nil {
			return nil, err
		}
		f, _ := old[i].Federation()
		next, err := readFederation(c.body, old[i].Name, f)
		if err != nil {
			return nil, err
		}
		if next.Name != old[i].Name {
			return nil, errRequest.Detail("The name of a federated identity credential cannot be changed.")
		}
		next.KeyID = old[i].KeyID
		list := slices.Clone(old)
		list[i] = next
		return list, nil
	})
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}

func (k *kind) unfederate(s *Server, ctx context.Context, c *call) (reply, error) {
	o, err := s.object(ctx, c, k, c.params[0])
	if err != nil {
		return reply{}, err
	}
	err = s.Directory.ChangeFederations(ctx, o.ObjectID, func(old []directory.Credential) ([]directory.Credential, error) {
		i, err := among(old, c.params[1])
		if err != nil {
			return nil, err
		}
		return slices.Delete(slices.Clone(old), i, i+1), nil
	})
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, nil
}
