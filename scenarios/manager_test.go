package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// TestRootResourceManager runs manager.txt. row:29 row:40 row:74 row:98
func TestRootResourceManager(t *testing.T) {
	text, err := os.ReadFile("manager.txt")
	if err != nil {
		t.Fatal(err)
	}
	s := covetest.Start(t, "--region", "westeurope", "--also-region", "eastus", "--also-subscription", "sandbox")
	c := openCLI(t, s)
	c.vars["DIR"] = t.TempDir()
	const template = `{
		// A template may have comments.
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
		"resources": [{"type": "Microsoft.ContainerRegistry/registries", "apiVersion": "2023-07-01", "name": "another",
			"location": "eastus", "sku": {"name": "Premium"}, "properties": {"dataEndpointEnabled": true}}]
	}`
	for name, text := range map[string]string{"good.json": template, "bad.json": strings.Replace(template, "Premium", "Gold", 1)} {
		if err := os.WriteFile(filepath.Join(c.vars["DIR"], name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range table(t, string(text)) {
		if !c.play(r) && r.set != "" {
			t.FailNow() // what follows needs it
		}
	}
}
