package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"cove.example/cove/fault"
)

func (a *app) serveCommand() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server",
		Long: `Run the server: the registries' data plane, the Resource Manager, the token
issuer, the DNS views and the overlay networks, from one data folder.

Each flag is also an environment variable, COVE_ and its name in capitals with
underscores, and a key of the YAML file given with --config. A flag goes before
the environment, the environment before the file.`,
		Example: "  cove serve\n  cove serve --data ./data --listen 127.0.0.1:8443 --domain cove.test",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.settle(cmd.Flags(), a.env); err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), &c, a.out, a.err)
		},
	}
	c.flags(cmd.Flags())
	return cmd
}

// grace is how long requests under way may take to end when the server stops.
const grace = 10 * time.Second

// serve runs the server until ctx ends. What it says to the operator goes to
// out, its log to logs.
func serve(ctx context.Context, c *config, out, logs io.Writer) (err error) {
	log, err := logger(c.LogLevel, logs)
	if err != nil {
		return usageError{err}
	}
	s := &server{config: c, log: log, now: time.Now}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, step := range []func(context.Context) error{
		s.openData, s.openListeners, s.openStore, s.found, s.subscribe, s.assemble, s.listen, s.operate,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.announce(out)
	<-ctx.Done()
	log.Info("stopping")
	return nil
}

func logger(level string, w io.Writer) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %s: debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// closers are run in the opposite order of their opening.
type closers struct {
	mu   sync.Mutex
	list []func() error
}

func (c *closers) add(fn func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fn)
}

func (c *closers) close() error {
	c.mu.Lock()
	list := c.list
	c.list = nil
	c.mu.Unlock()
	var all []error
	for i := len(list) - 1; i >= 0; i-- {
		if err := list[i](); err != nil && !errors.Is(err, net.ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// background runs loops that end with the server.
type background struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	log    *slog.Logger
}

func newBackground(log *slog.Logger) *background {
	b := &background{log: log}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// run starts a loop. One that returns while the server runs has failed: the
// log says so, and readiness too.
func (b *background) run(name string, loop func(context.Context) error) {
	b.wg.Go(func() {
		if err := loop(b.ctx); b.ctx.Err() == nil {
			b.log.Error("a background loop ended", "loop", name, "err", err)
		}
	})
}

func (b *background) stop() error {
	b.cancel()
	b.wg.Wait()
	return nil
}

// announce says that the server is ready, where, and what to type next.
func (s *server) announce(out io.Writer) {
	c := s.config
	var b strings.Builder
	fmt.Fprintf(&b, "cove is ready.\n\n")
	line := func(what, where string) { fmt.Fprintf(&b, "  %-12s %s\n", what, where) }
	line("names", "*."+c.RegistrySuffix+", "+c.HostManagement+", "+c.HostLogin)
	line("HTTPS", strings.Join(s.run.Listen, ", "))
	if s.run.Connect != "" {
		line("proxy", "HTTPS_PROXY=http://"+s.run.Connect+" reaches these names from this machine")
	}
	if s.run.HTTP != "" {
		line("plain HTTP", s.run.HTTP)
	}
	if len(s.run.DNS) > 0 {
		line("DNS", strings.Join(s.run.DNS, ", "))
	}
	if s.run.WireGuard != "" {
		line("WireGuard", s.run.WireGuard+s.wireguardNote)
	}
	if len(s.run.Proxy) > 0 {
		line("balancers", strings.Join(s.run.Proxy, ", "))
	}
	if s.run.Admin != "" {
		line("health", "http://"+s.run.Admin+"/readyz")
	}
	line("data", c.Data)
	data := ""
	if c.Data != defaultData() {
		data = " --data " + c.Data
	}
	fmt.Fprintf(&b, "\nNext:\n\n  cove registry create myregistry --admin-enabled%s\n  cove registry credential show myregistry%s\n  cove trust --docker%s myregistry.%s\n\n", data, data, data, c.RegistrySuffix)
	fmt.Fprint(out, b.String())
}

// pairDNS opens UDP and TCP on one port; port 0 takes one that is free for
// both.
func pairDNS(addr string) (net.PacketConn, net.Listener, error) {
	const tries = 20
	want, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, nil, err
	}
	for range tries {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, err
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l, nil
		}
		if err := errors.Join(err, pc.Close()); want.Port() != 0 {
			return nil, nil, err
		}
	}
	return nil, nil, fault.Newf(fault.Unavailable, "no port is free for both UDP and TCP")
}

// withData tells which folder an error is about, for those that say only what.
func withData(err error, dir string) error {
	if errors.Is(err, os.ErrPermission) {
		return dataFault(dir, err)
	}
	return err
}
