//go:build !race

package wireguard

// transferSize is what the transfer tests move each way.
const transferSize = 100 << 20
