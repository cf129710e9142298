package armapi_test

import (
	"testing"

	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// What a type works out when asked is under its own permission, one by one or
// as a list.
func TestComputedCollections(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		if a := s.expect(200, "owner", "GET", harbor+"/listusages"+version, ""); len(a.names()) != 8 {
			t.Errorf("usages: %s", a.text)
		}
		if a := s.expect(200, "owner", "GET", harbor+"/privateLinkResources/Registry"+version, ""); a.body["name"] != "registry" {
			t.Errorf("a private link resource: %s", a.text)
		}
		s.expect(404, "owner", "GET", harbor+"/privateLinkResources/blob"+version, "")
		s.expect(404, "owner", "GET", registries+"/nowhere/listUsages"+version, "")
		s.expect(403, "reader", "GET", harbor+"/listUsages"+version, "")
		s.expect(404, "owner", "DELETE", harbor+"/privateLinkResources/registry"+version, "")
	})
}

// row:98 A subscription's registration is stored, and a namespace that it is
// not registered for makes nothing in it.
func TestUnregister(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		provider := sub + "/providers/Microsoft.ContainerRegistry"
		if a := s.expect(409, "owner", "POST", provider+"/unregister"+version, ""); a.code() != "SubscriptionHasResources" {
			t.Errorf("with registries: %s", a.text)
		}
		s.expect(403, "reader", "POST", provider+"/unregister"+version, "")
		s.expect(200, "owner", "DELETE", group+version, "")
		if a := s.expect(200, "owner", "POST", provider+"/unregister"+version, ""); a.body["registrationState"] != "Unregistered" {
			t.Errorf("unregistered: %s", a.text)
		}
		s.expect(201, "owner", "PUT", group+version, `{"location":"eastus"}`)
		if a := s.expect(409, "owner", "PUT", harbor+version, premium); a.code() != "MissingSubscriptionRegistration" {
			t.Errorf("a registry: %s", a.text)
		}
		if a := s.expect(200, "owner", "POST", provider+"/register"+version, ""); a.body["registrationState"] != "Registered" {
			t.Errorf("registered: %s", a.text)
		}
		s.expect(201, "owner", "PUT", harbor+version, premium)
	})
}
