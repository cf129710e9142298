package graphapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cove.example/cove/directory"
)

// kind is one sort of object as Graph shows and takes it.
type kind struct {
	name     string // directory's
	set      string // Graph's collection
	secrets  bool
	computed []string // what callers cannot set: dropped, as clients send back what they were shown
	required []string // of a POST
	show     func(o *directory.Object, out map[string]any)
	take     func(o *directory.Object, body map[string]any, bad problem)
}

// problem notes what is wrong with a property.
type problem func(property, format string, args ...any)

var kinds = []kind{
	{
		name: directory.Application, set: "applications", secrets: true,
		computed: []string{"appId", "publisherDomain"},
		required: []string{"displayName"},
		show: func(o *directory.Object, out map[string]any) {
			fill(out, map[string]any{
				"identifierUris": []any{}, "signInAudience": "AzureADMyOrg", "tags": []any{}, "appRoles": []any{}, "requiredResourceAccess": []any{},
				"api": map[string]any{"oauth2PermissionScopes": []any{}}, "web": map[string]any{"redirectUris": []any{}},
			})
			out["appId"] = o.AppID
		},
	},
	{
		name: directory.ServicePrincipal, set: "servicePrincipals", secrets: true,
		computed: []string{"appDisplayName", "appOwnerOrganizationId", "servicePrincipalNames", "servicePrincipalType"},
		required: []string{"appId"},
		show: func(o *directory.Object, out map[string]any) {
			fill(out, map[string]any{"tags": []any{}, "alternativeNames": []any{}, "appRoles": []any{}, "oauth2PermissionScopes": []any{}})
			out["appId"], out["appDisplayName"], out["appOwnerOrganizationId"] = o.AppID, o.Name, o.Tenant
			out["servicePrincipalNames"], out["servicePrincipalType"] = []string{o.AppID}, "Application"
			if o.Managed != "" {
				explicit := "isExplicit=False"
				if strings.Contains(strings.ToLower(o.Managed), "/userassignedidentities/") {
					explicit = "isExplicit=True"
				}
				out["servicePrincipalType"], out["alternativeNames"] = "ManagedIdentity", []string{explicit, o.Managed}
			}
			out["accountEnabled"] = !o.Disabled
		},
		take: func(o *directory.Object, body map[string]any, bad problem) {
			enabled(o, body, bad)
			if id, ok := body["appId"].(string); ok && o.AppID != "" && !strings.EqualFold(id, o.AppID) || body["appId"] != nil && !ok {
				bad("appId", "cannot be changed")
			}
			delete(body, "appId")
		},
	},
	{
		name: directory.User, set: "users",
		required: []string{"accountEnabled", "displayName", "mailNickname", "userPrincipalName", "passwordProfile"},
		show: func(o *directory.Object, out map[string]any) {
			fill(out, map[string]any{"mail": nil, "userType": "Member", "businessPhones": []any{}})
			out["userPrincipalName"], out["accountEnabled"] = o.UPN, !o.Disabled
		},
		take: func(o *directory.Object, body map[string]any, bad problem) {
			enabled(o, body, bad)
			if v, ok := body["userPrincipalName"]; ok {
				upn, _ := v.(string)
				local, domain, _ := strings.Cut(upn, "@")
				if local == "" || domain == "" || len(upn) > 113 || strings.ContainsFunc(upn, func(r rune) bool { return r <= ' ' || r > '~' }) || strings.Contains(domain, "@") {
					bad("userPrincipalName", "must be NAME@DOMAIN, of at most 113 characters")
				}
				o.UPN = strings.ToLower(upn)
				delete(body, "userPrincipalName")
			}
			if profile, ok := body["passwordProfile"]; ok {
				p, _ := profile.(map[string]any)
				if text, _ := p["password"].(string); text == "" {
					bad("passwordProfile", "must have a password")
				}
				if on, _ := p["forceChangePasswordNextSignIn"].(bool); on {
					bad("passwordProfile", "forceChangePasswordNextSignIn is not supported: set another password when the time has come")
				}
			}
			delete(body, "passwordProfile") // the password is kept elsewhere, as its hash
		},
	},
	{
		name: directory.Group, set: "groups",
		required: []string{"displayName", "mailEnabled", "mailNickname", "securityEnabled"},
		show: func(_ *directory.Object, out map[string]any) {
			fill(out, map[string]any{"description": nil, "mail": nil, "groupTypes": []any{}, "visibility": nil})
		},
		take: func(_ *directory.Object, body map[string]any, bad problem) {
			if types, _ := body["groupTypes"].([]any); len(types) > 0 {
				bad("groupTypes", "this version has groups with assigned members only")
			}
			if on, _ := body["mailEnabled"].(bool); on {
				bad("mailEnabled", "no group of this directory has a mailbox")
			}
			if on, ok := body["securityEnabled"].(bool); ok && !on {
				bad("securityEnabled", "a group that is not for security is for nothing here")
			}
		},
	},
}

func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

func (k *kind) odata() string { return "#microsoft.graph." + k.name }

func fill(out, defaults map[string]any) {
	for name, v := range defaults {
		if _, ok := out[name]; !ok {
			out[name] = v
		}
	}
}

func enabled(o *directory.Object, body map[string]any, bad problem) {
	v, ok := body["accountEnabled"]
	if !ok {
		return
	}
	// az sends it as a text in some versions.
	switch on := v.(type) {
	case bool:
		o.Disabled = !on
	case string:
		if o.Disabled = strings.EqualFold(on, "false"); !o.Disabled && !strings.EqualFold(on, "true") {
			bad("accountEnabled", "must be true or false")
		}
	default:
		bad("accountEnabled", "must be true or false")
	}
	delete(body, "accountEnabled")
}

// always are the properties that no caller sets on any object.
var always = []string{"id", "createdDateTime", "deletedDateTime"}

// shown is an object as callers see it.
func shown(o *directory.Object) map[string]any {
	k := kindOf(o.Kind)
	out := map[string]any{}
	maps.Copy(out, o.Properties)
	k.show(o, out)
	out["id"], out["displayName"] = o.ObjectID, o.Name
	out["createdDateTime"], out["deletedDateTime"] = stamp(o.Created), nil
	if k.secrets {
		secrets, keys := []any{}, []any{}
		for _, c := range o.Credentials {
			switch c.Kind {
			case directory.KindSecret:
				secrets = append(secrets, password(c))
			case directory.KindCertificate:
				keys = append(keys, certificate(c))
			}
		}
		out["passwordCredentials"], out["keyCredentials"] = secrets, keys
	}
	return out
}

func password(c directory.Credential) map[string]any {
	return map[string]any{
		"keyId": c.KeyID, "displayName": c.Name, "hint": c.Hint, "customKeyIdentifier": nil, "secretText": nil,
		"startDateTime": stamp(c.Start), "endDateTime": stamp(c.End),
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

// accept puts what a caller has sent into an object, and returns every problem
// of it in one error.
func (k *kind) accept(o *directory.Object, body map[string]any, create bool) error {
	var wrong []string
	bad := func(property, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("Property '%.60s': %s.", property, fmt.Sprintf(format, args...)))
	}
	body = maps.Clone(body)
	if create {
		for _, name := range k.required {
			if body[name] == nil {
				bad(name, "a value is required")
			}
		}
	}
	for _, name := range slices.Concat(always, k.computed) {
		delete(body, name)
	}
	if k.take != nil {
		k.take(o, body, bad)
	}
	if v, ok := body["displayName"]; ok {
		text, _ := v.(string)
		if n := utf8.RuneCountInString(text); n == 0 || n > 256 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			bad("displayName", "must be a text of 1 to 256 characters")
		}
		o.Name = text
		delete(body, "displayName")
	}
	if list, _ := body["passwordCredentials"].([]any); len(list) > 0 && k.secrets {
		bad("passwordCredentials", "secrets are made by addPassword and ended by removePassword")
	}
	delete(body, "passwordCredentials")
	delete(body, "keyCredentials") // see certificates
	if o.Properties == nil {
		o.Properties = map[string]any{}
	}
	for name, v := range body {
		switch {
		case strings.ContainsAny(name, "@#"):
			bad(name, "is not supported when an object is written")
		case v == nil:
			delete(o.Properties, name)
		default:
			o.Properties[name] = v
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return errRequest.Detail("%s", strings.Join(wrong, " "))
	}
	return nil
}
