package main

import (
	"net"
	"strings"
	"testing"
)

// The proxy of a tunnel has no password. It listens where only this machine
// reaches it, and what is wrong with the address is said before anything else
// is: before a code is used up, and before the proxy is announced.
func TestJoinProxyAddress(t *testing.T) {
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	for at, want := range map[string]string{
		"0.0.0.0:0":           "loopback address only",
		"[::]:0":              "loopback address only",
		":0":                  "loopback address only",
		"192.0.2.1:8118":      "loopback address only",
		"somewhere.test:8118": "loopback address only",
		"127.0.0.1":           "an address and port is expected",
		used.Addr().String():  "another program has that port",
		"127.0.0.1:0":         "",
		"localhost:0":         "",
	} {
		l, err := joinFlags{proxy: at}.listen(false)
		if err == nil {
			_ = l.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("--proxy %s: %v, want %q", at, err, want)
		}
	}
	side, err := joinFlags{proxy: proxyDefault}.listen(true)
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close()
	if side.Addr().String() == proxyDefault {
		t.Error("two commands cannot run side by side")
	}
}
