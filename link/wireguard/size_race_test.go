//go:build race

package wireguard

// transferSize is small under the race detector, which makes packets an order
// of magnitude dearer.
const transferSize = 8 << 20
