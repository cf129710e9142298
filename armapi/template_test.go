package armapi_test

import (
	"strings"
	"testing"

	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const validate = group + "/providers/Microsoft.Resources/deployments/try/validate" + version

// row:40: what would be made is checked before it is made, by the same code,
// and nothing of it stays: not the resource, not its name, not a line in the
// record of changes.
func TestValidationBeforeCreate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.expect(201, "owner", "PUT", group+version, `{"location":"westeurope"}`)
		before := s.changes()
		template := func(resources string) string {
			return `{"properties":{"mode":"Incremental","parameters":{},"template":{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","parameters":{},"resources":[` + resources + `]}}}`
		}
		const reg = `{"type":"Microsoft.ContainerRegistry/registries","apiVersion":"2025-04-01","name":"harbor","location":"eastus","sku":{"name":"Premium"},"properties":{}}`
		const ship = `{"type":"Test.Sea/ships","apiVersion":"2025-04-01","name":"albatross"}`
		const sail = `{"type":"Test.Sea/ships/sails","apiVersion":"2025-04-01","name":"albatross/main","dependsOn":["albatross"]}`
		a := s.expect(200, "owner", "POST", validate, template(reg+","+ship+","+sail))
		valid, _ := resource.Lookup(a.body, "properties.validatedResources").([]any)
		if resource.Lookup(a.body, "properties.provisioningState") != "Succeeded" || len(valid) != 3 || valid[0].(resource.Object)["id"] != harbor {
			t.Errorf("valid: %s", a.text)
		}
		for body, code := range map[string]string{
			template(sail): "ParentResourceNotFound",
			template(strings.Replace(reg, "eastus", "moon", 1)):                                                  "LocationNotAvailableForResourceType",
			template(reg + "," + strings.Replace(reg, "Premium", "Gold", 1)):                                     "InvalidRequestContent",
			template(strings.Replace(ship, "ships", "submarines", 1)):                                            "InvalidResourceType",
			template(strings.Replace(reg, `"harbor"`, `"[parameters('name')]"`, 1)):                              "InvalidTemplate",
			template(strings.Replace(reg, `"name":"harbor"`, `"name":"harbor/x"`, 1)):                            "InvalidTemplate",
			template(strings.Replace(reg, `"sku"`, `"copy":{},"sku"`, 1)):                                        "InvalidTemplate",
			strings.Replace(template(reg), "Incremental", "Complete", 1):                                         "InvalidTemplate",
			strings.Replace(template(reg), `"parameters":{},"resources"`, `"parameters":{"a":1},"resources"`, 1): "InvalidTemplate",
			`{"properties":{"templateLink":{"uri":"https://example.com"}}}`:                                      "InvalidTemplate",
		} {
			if a := s.do("owner", "POST", validate, body); a.StatusCode < 400 || a.StatusCode >= 500 || a.code() != code {
				t.Errorf("%s: %d %s", body, a.StatusCode, a.text)
			}
		}
		if a := s.expect(400, "owner", "POST", validate, template(strings.Replace(reg, `"properties":{}`, `"tags":{"a":1},"properties":{"publicNetworkAccess":"Maybe","zoneRedundancy":7}`, 1))); a.code() != "InvalidRequestContent" {
			t.Errorf("problems: %s", a.text)
		}
		if s.changes() != before {
			t.Error("a validation was stored")
		}
		s.expect(404, "owner", "GET", harbor+version, "")
		s.expect(403, "stranger", "POST", validate, template(reg))
		s.expect(403, "clerk", "POST", validate, template(reg))
		s.expect(201, "owner", "PUT", harbor+version, premium) // its name was not taken
		s.expect(200, "owner", "POST", validate, template(reg))
		s.expect(201, "owner", "PUT", harbor+locks+"/one"+version, readOnly)
		if a := s.expect(409, "owner", "POST", validate, template(reg)); a.code() != "ScopeLocked" {
			t.Errorf("behind a lock: %s", a.text)
		}
	})
}
