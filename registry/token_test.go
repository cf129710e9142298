package registry_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const pullMap = `"scopeMapId":"` + harbor + `/scopeMaps/_repositories_pull"`

// generate makes passwords of a token, and returns them by name.
func (w *world) generate(body string) map[string]string {
	w.t.Helper()
	out, err := w.act(harbor, "generateCredentials", body)
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range out["passwords"].([]any) {
		o := p.(resource.Object)
		got[o["name"].(string)] = o["value"].(string)
	}
	return got
}

func robot(name string) string { return `{"tokenId":"` + harbor + `/tokens/robot"` + name + `}` }

// What az sends to make, show and renew a token. The passwords are shown once:
// afterwards nobody can see one, in an answer or in the database.
func TestTokensOfARegistry(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		made := w.put(harbor+"/tokens/robot", `{"properties":{`+pullMap+`,"status":"Enabled"}}`)
		credentials := fmt.Sprint(resource.Lookup(made, "properties.credentials"))
		if credentials != "map[certificates:[] passwords:[]]" || resource.Lookup(made, "properties.status") != "enabled" {
			t.Errorf("made: %v", made)
		}
		ends := time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
		both := w.generate(robot(`,"expiry":"` + ends + `"`))
		if len(both) != 2 || both["password1"] == both["password2"] || len(both["password1"]) < 50 {
			t.Fatalf("%v", both)
		}
		renewed := w.generate(robot(`,"name":"Password2"`))
		if len(renewed) != 1 || renewed["password2"] == both["password2"] {
			t.Fatalf("%v", renewed)
		}
		shown, err := w.Get(t.Context(), arm.MustID(harbor+"/tokens/ROBOT"))
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(shown.Body)
		list, _ := resource.Lookup(shown.Body, "properties.credentials.passwords").([]any)
		if len(list) != 2 || list[0].(resource.Object)["expiry"] != ends || list[1].(resource.Object)["expiry"] != nil || list[1].(resource.Object)["creationTime"] == nil || shown.Body["cove"] != nil {
			t.Errorf("shown: %v", text)
		}
		stored := fmt.Sprint(w.stored(harbor + "/tokens/robot").Body)
		for _, secret := range []string{both["password1"], both["password2"], renewed["password2"]} {
			if strings.Contains(text, secret) || strings.Contains(stored, secret) {
				t.Error("a password is shown again, or kept")
			}
		}

		d := registry.NewDirectory(w.store, w.c)
		token := func() *registry.Token {
			t.Helper()
			s, err := d.ByName(t.Context(), "harbor")
			if err != nil {
				t.Fatal(err)
			}
			tok, err := d.Token(t.Context(), s, "Robot")
			if err != nil || tok == nil {
				t.Fatal(tok, err)
			}
			return tok
		}
		tok := token()
		id, at, ok := tok.Check(both["password1"])
		if !ok || at.Format(time.RFC3339) != ends || id == "" {
			t.Errorf("the first password: %s %v %v", id, at, ok)
		}
		if _, at, ok := tok.Check(renewed["password2"]); !ok || !at.IsZero() {
			t.Error("the renewed password does not work, or ends")
		}
		for _, wrong := range []string{both["password2"], "", both["password1"] + " ", both["password1"][1:]} {
			if _, _, ok := tok.Check(wrong); ok {
				t.Errorf("%q is a password", wrong)
			}
		}
		if !tok.Enabled || !tok.Map.Allows("a/b", registry.ContentRead) || tok.Map.Allows("a/b", registry.ContentWrite) {
			t.Errorf("%+v", tok.Map)
		}
		if text := fmt.Sprintf("%v %+v %#v", tok, tok, tok); text != "token robot token robot token robot" {
			t.Errorf("a token prints as %s", text)
		}

		// az acr token credential delete: the passwords that stay.
		w.patch(harbor+"/tokens/robot", `{"properties":{"credentials":{"passwords":[{"name":"password1"}]}}}`)
		if _, at, ok := token().Check(both["password1"]); !ok || at.IsZero() {
			t.Error("the password that stays is gone, or has lost its end")
		}
		if _, _, ok := token().Check(renewed["password2"]); ok {
			t.Error("the password that was deleted is right")
		}
		// Sent back as it was shown, nothing changes.
		shown, _ = w.Get(t.Context(), arm.MustID(harbor+"/tokens/robot"))
		again, err := w.Put(t.Context(), owner, arm.MustID(harbor+"/tokens/robot"), shown.Body, resource.Condition{})
		if err != nil || again.ETag != shown.ETag {
			t.Errorf("%v, %s is not %s", err, again.ETag, shown.ETag)
		}
		w.patch(harbor+"/tokens/robot", `{"properties":{"status":"disabled"}}`)
		if tok := token(); tok.Enabled {
			t.Error("a disabled token is enabled")
		}
		if _, _, ok := token().Check(both["password1"]); !ok {
			t.Error("a change of the status took a password")
		}
		w.patch(harbor+"/tokens/robot", `{"properties":{"credentials":{"passwords":[]}}}`)
		if _, _, ok := token().Check(both["password1"]); ok {
			t.Error("a token without passwords has one")
		}
	})
}

func TestTokensAreChecked(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		w.put(registries+"other", `{"location":"westeurope","sku":{"name":"Basic"}}`)
		w.put(registries+"other/tokens/robot", `{"properties":{"scopeMapId":"`+registries+`other/scopeMaps/_repositories_pull"}}`)
		for _, c := range []struct{ id, body, want string }{
			{"/tokens/robot", `{"properties":{}}`, "must be the id of a scope map of the same registry"},
			{"/tokens/robot", `{"properties":{"scopeMapId":"` + registries + `other/scopeMaps/_repositories_pull"}}`, "must be the id of a scope map of the same registry"},
			{"/tokens/robot", `{"properties":{"scopeMapId":"` + harbor + `/tokens/robot"}}`, "must be the id of a scope map of the same registry"},
			{"/tokens/robot", `{"properties":{"scopeMapId":"` + harbor + `/scopeMaps/absent"}}`, "the registry has no scope map absent"},
			{"/tokens/robot", `{"properties":{` + pullMap + `,"status":"asleep"}}`, "must be one of enabled, disabled"},
			{"/tokens/robot", `{"properties":{` + pullMap + `,"credentials":{"certificates":[{"name":"certificate1","encodedPemCertificate":"x"}]}}}`, "signing in with these is not in this version"},
			{"/tokens/robot", `{"properties":{` + pullMap + `,"credentials":{"passwords":[{"name":"password1","value":"mine"}]}}}`, "generateCredentials makes one"},
			{"/tokens/robot", `{"properties":{` + pullMap + `,"credentials":[]}}`, "must be an object"},
			{"/tokens/" + "0d9cbd62-6b9b-4b35-9e6e-0123456789ab", `{"properties":{` + pullMap + `}}`, "form of a GUID"},
			{"/tokens/HARBOR", `{"properties":{` + pullMap + `}}`, "user name of its admin user"},
			{"/tokens/a_b_c_d", `{"properties":{` + pullMap + `}}`, "5 to 50 letters, digits and hyphens"},
		} {
			if _, err := w.try(harbor+c.id, c.body); !strings.Contains(refused(err), c.want) || !fault.Is(err, fault.Invalid) {
				t.Errorf("%s %s: %v, not %s", c.id, c.body, err, c.want)
			}
		}
		w.put(harbor+"/tokens/robot", `{"properties":{`+pullMap+`},"cove":{"passwords":{"password1":{"hash":"x"}}}}`)
		if got := w.stored(harbor + "/tokens/robot").Body["cove"]; got != nil {
			t.Errorf("a caller has set %v", got)
		}
		for body, want := range map[string]string{
			`{}`: "must be the id of a token",
			`{"tokenId":"` + registries + `other/tokens/robot"}`: "must be the id of a token of this registry",
			`{"tokenId":"` + harbor + `/tokens/absent"}`:         "the registry has no token absent",
			robot(`,"name":"password3"`):                         "must be password1 or password2",
			robot(`,"expiry":"2001-01-01T00:00:00Z"`):            "is in the past",
			robot(`,"expiry":"tomorrow"`):                        "must be a time such as",
			robot(`,"expiry":7`):                                 "must be a time such as",
		} {
			if _, err := w.act(harbor, "generateCredentials", body); !strings.Contains(refused(err), want) {
				t.Errorf("%s: %v, not %s", body, err, want)
			}
		}
	})
}

// A hash that is written over another's in the database is no password: it is
// bound to its token and its name.
func TestAHashIsBoundToItsToken(t *testing.T) {
	w := scoped(t, storetest.Open(t, storetest.SQLite(t)))
	w.put(harbor+"/tokens/robot", `{"properties":{`+pullMap+`}}`)
	w.put(harbor+"/tokens/victim", `{"properties":{"scopeMapId":"`+harbor+`/scopeMaps/_repositories_admin"}}`)
	w.generate(robot(""))
	mine := w.stored(harbor + "/tokens/robot")
	err := w.store.Update(t.Context(), func(tx resource.Tx) error {
		doc, err := tx.Get(t.Context(), arm.MustID(harbor+"/tokens/victim"))
		if err != nil {
			return err
		}
		doc.Body["cove"] = mine.Body["cove"]
		return tx.Put(t.Context(), &doc)
	})
	if err != nil {
		t.Fatal(err)
	}
	d := registry.NewDirectory(w.store, w.c)
	s, err := d.ByName(t.Context(), "harbor")
	if err != nil {
		t.Fatal(err)
	}
	if tok, err := d.Token(t.Context(), s, "victim"); err == nil {
		t.Errorf("%v takes another's password", tok)
	}
}

// What a Directory remembers of a token is forgotten in the commit that
// changes the token, its scope map or its registry.
func TestATokenIsForgottenWhenItChanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		d := registry.NewDirectory(w.store, w.c)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
		<-d.Live()
		token := func() *registry.Token {
			t.Helper()
			s, err := d.ByName(t.Context(), "harbor")
			if err != nil {
				t.Fatal(err)
			}
			tok, err := d.Token(t.Context(), s, "robot")
			if err != nil {
				t.Fatal(err)
			}
			return tok
		}
		if token() != nil {
			t.Fatal("there is a token")
		}
		w.put(harbor+"/scopeMaps/some-map", `{"properties":{"actions":["repositories/a/content/read"]}}`)
		w.put(harbor+"/tokens/robot", `{"properties":{"scopeMapId":"`+harbor+`/scopeMaps/some-map"}}`)
		first := token()
		if first == nil || !first.Map.Allows("a", registry.ContentRead) || first.Map.Allows("b", registry.ContentRead) {
			t.Fatalf("%v", first)
		}
		w.put(harbor+"/scopeMaps/some-map", `{"properties":{"actions":["repositories/b/content/read"]}}`)
		if tok := token(); tok.Map.Allows("a", registry.ContentRead) || !tok.Map.Allows("b", registry.ContentRead) {
			t.Error("the token has the scope map of before")
		}
		secret := w.generate(robot(`,"name":"password1"`))["password1"]
		if _, _, ok := token().Check(secret); !ok {
			t.Error("a new password is not known")
		}
		w.remove(harbor + "/tokens/robot")
		if token() != nil {
			t.Error("a token outlives its deletion")
		}
		w.put(harbor+"/tokens/robot", `{"properties":{"scopeMapId":"`+harbor+`/scopeMaps/some-map"}}`)
		if tok := token(); tok == nil || tok.UID == first.UID {
			t.Error("a token made again is the one of before")
		}
		w.remove(harbor)
		if s, err := d.ByName(t.Context(), "harbor"); s != nil || err != nil {
			t.Error(s, err)
		}
	})
}

// A renewed password is another: its id tells what was bought with the old one.
func TestAdminPasswordsHaveIDs(t *testing.T) {
	before := registry.Settings{UID: "u", Name: "harbor", AdminUser: true}.WithAdmin("one", "two")
	after := registry.Settings{UID: "u", Name: "harbor", AdminUser: true}.WithAdmin("one", "three")
	first, ok := before.AdminPassword("harbor", "one")
	second, ok2 := before.AdminPassword("harbor", "two")
	if !ok || !ok2 || first == second || first == "" {
		t.Fatalf("%q %q", first, second)
	}
	if !after.HasAdminPassword(first) || after.HasAdminPassword(second) || after.HasAdminPassword("") {
		t.Error("the renewed password is still there, or the other is gone")
	}
	elsewhere := registry.Settings{UID: "v", Name: "harbor", AdminUser: true}.WithAdmin("one", "two")
	if elsewhere.HasAdminPassword(first) {
		t.Error("another registry's password has the same id")
	}
}

func TestTheARMAudiencePolicyIsObeyed(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		only := func() bool {
			t.Helper()
			s, err := registry.NewDirectory(w.store, w.c).ByName(t.Context(), "harbor")
			if err != nil {
				t.Fatal(err)
			}
			return s.RegistryAudienceOnly
		}
		if only() {
			t.Error("a new registry refuses Resource Manager tokens")
		}
		w.patch(harbor, `{"properties":{"policies":{"azureADAuthenticationAsArmPolicy":{"status":"Disabled"}}}}`)
		if !only() {
			t.Error("the policy is kept and not obeyed")
		}
		w.patch(harbor, `{"properties":{"policies":{"azureADAuthenticationAsArmPolicy":{"status":"enabled"}}}}`)
		if only() {
			t.Error("the policy cannot be enabled again")
		}
	})
}
