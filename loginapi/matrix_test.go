package loginapi_test

import (
	"strings"
	"testing"
	"time"

	"cove.example/cove/loginapi"
	"cove.example/cove/token"
)

// What a route answers to who proves nothing by its form: what is public, or a
// refusal. Nothing else that a caller shows changes that.
const (
	isPublic = "200 "
	noProof  = "401 invalid_client"
	noClient = "400 unauthorized_client" // a sign-in by a code begins with a program that is known
)

var matrix = map[string]struct{ form, answer string }{
	"GET {tenant}/.well-known/openid-configuration":      {"", isPublic},
	"GET adfs/.well-known/openid-configuration":          {"", isPublic},
	"GET {tenant}/v2.0/.well-known/openid-configuration": {"", isPublic},
	"GET {tenant}/discovery/keys":                        {"", isPublic},
	"GET adfs/discovery/keys":                            {"", isPublic},
	"GET {tenant}/discovery/v2.0/keys":                   {"", isPublic},
	"POST {tenant}/oauth2/token":                         {"token", noProof},
	"POST adfs/oauth2/token":                             {"token", noProof},
	"POST {tenant}/oauth2/v2.0/token":                    {"token", noProof},
	"POST {tenant}/oauth2/devicecode":                    {"code", noClient},
	"POST adfs/oauth2/devicecode":                        {"code", noClient},
	"POST {tenant}/oauth2/v2.0/devicecode":               {"code", noClient},
}

// Every route against every kind of token that there is, from the table that
// serves: the issuer takes what the form says and no token that is shown to it,
// the administrator's neither. A route without a line here fails.
//
// Published failures 14, 43, 49.
func TestRoutesAndPrincipals(t *testing.T) {
	s := open(t)
	s.api.People = true
	owner := token.PrincipalClaims{Audience: management, ObjectID: s.admin.ObjectID, Tenant: s.admin.Tenant, AppID: s.admin.ClientID}
	principal, _, err := s.api.Tokens.MintPrincipal(owner)
	s.must(err)
	claims := token.RegistryClaims{Audience: "harbor.cr.cove.internal", RegistryUID: "u", ObjectID: s.admin.ObjectID, Tenant: s.admin.Tenant, Kind: "servicePrincipal"}
	refresh, _, err := s.api.Tokens.MintRefresh(claims)
	s.must(err)
	access, _, err := s.api.Tokens.MintRegistry(claims, time.Time{})
	s.must(err)
	session, err := s.api.Tokens.MintSession(token.Session{Client: s.admin.ClientID, ObjectID: s.admin.ObjectID, Tenant: s.admin.Tenant})
	s.must(err)
	forms := map[string]string{
		"token": "grant_type=client_credentials&client_id=" + s.admin.ClientID + "&client_secret=x&scope=" + management + "/.default",
		"code":  "client_id=" + s.admin.ClientID + "&scope=" + management + "/.default",
	}
	for who, bearer := range map[string]string{
		"nobody": "", "an owner": principal, "the holder of a registry's token": access, "the holder of a registry's refresh token": refresh, "a person's refresh token": session, "nonsense": "x",
	} {
		for _, route := range loginapi.Routes() {
			m, ok := matrix[route]
			if !ok {
				t.Errorf("%s has no line in the matrix", route)
				continue
			}
			method, path, _ := strings.Cut(strings.Replace(route, "{tenant}", s.admin.Tenant, 1), " ")
			headers := []string{"Content-Type", "application/x-www-form-urlencoded"}
			if bearer != "" {
				headers = append(headers, "Authorization", "Bearer "+bearer)
			}
			r := s.do(method, "/"+path, name, strings.NewReader(forms[m.form]), headers...)
			code, _ := r.body["error"].(string)
			got := r.Status[:4] + code
			if got != m.answer {
				t.Errorf("%s, %s: %s, want %s", who, route, r.text, m.answer)
			}
			if strings.Contains(r.text, `"access_token":`) || strings.Contains(r.text, `"device_code":`) {
				t.Errorf("%s, %s: %s", who, route, r.text)
			}
		}
		s.now = s.now.Add(time.Hour) // so that guesses do not add up
	}
	if len(matrix) != len(loginapi.Routes()) {
		t.Errorf("%d lines for %d routes", len(matrix), len(loginapi.Routes()))
	}
}
