// Package cove is a private container registry that people run themselves.
// ARCHITECTURE.md says how its parts fit together.
package cove
