package registry

// MaxUnknown is the bound that TestStrangersCannotFillTheMemory looks at.
const MaxUnknown = maxUnknown

// Remembered is how many registries and how many other names d remembers.
func (d *Directory) Remembered() (known, unknown int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.known), len(d.unknown)
}
