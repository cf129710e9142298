package main

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/authority"
	"cove.example/cove/door"
)

// What came in by a virtual network's address is let end when the server
// stops, as what came in by the public door is; and a network that appears
// while it stops is not served.
func TestAServerThatStopsWaitsForItsNetworks(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ca, err := authority.Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	begun, release := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	work := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		ended.Store(true)
		io.WriteString(w, "done")
	})
	s := &server{ca: ca, log: slog.New(slog.DiscardHandler), router: &door.Router{Hosts: map[string]http.Handler{"harbor.test": work}}}
	ca.Serves = s.router.Serves
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serveNetwork("office", l)

	answer := make(chan string, 1)
	go func() {
		req, err := http.NewRequest(http.MethodGet, "https://"+l.Addr().String(), nil)
		if err != nil {
			answer <- err.Error()
			return
		}
		req.Host = "harbor.test"
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: "harbor.test", InsecureSkipVerify: true}}}).Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-begun
	closed := make(chan bool)
	go func() {
		s.servers.close()
		closed <- ended.Load()
	}()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the network's listener stays open")
		}
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the request under way was answered %q", got)
	}
	if !<-closed {
		t.Error("the server did not wait")
	}
	if err := s.servers.run(&http.Server{}, func() error { return nil }); err != http.ErrServerClosed {
		t.Errorf("a server that came too late: %v", err)
	}
}
