package registry

import "cove.example/cove/resource"

// Compile is the data path's view of a registry's document that is not, or not
// yet, what is stored.
func (d *Directory) Compile(doc resource.Doc) (*Settings, error) { return d.c.compile(doc) }

// Over is a Directory of the same deployment over other documents, such as those
// of another time. It remembers nothing.
func (d *Directory) Over(store resource.Store) *Directory { return NewDirectory(store, d.c) }
