package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/link"
	"cove.example/cove/link/proxy"
	"cove.example/cove/network"
)

// links is which private link of a cloud leads to which private endpoint. That
// is the operator's word, in the file of --proxy-map: whoever runs the
// balancers sees in the cloud whose link has which id. A tenant who could claim
// one could claim another tenant's. Whether the endpoint may lead to the
// registry is the registry owner's, as for every private endpoint.
type links struct {
	file     string
	networks []string // keys of those that are attached by proxy
	find     func(network, endpoint string) *network.Endpoint
	admits   func(link.Origin) bool // by the security groups
	table    atomic.Pointer[map[proxy.ID]arm.ID]

	mu        sync.Mutex
	listeners []*proxy.Listener
	carried   map[proxy.ID]string // the approved connection that each led to
	read      os.FileInfo         // what was read last
}

// LinkEndpoint implements access.LinkLookup.
func (l *links) LinkEndpoint(id string) *network.Endpoint {
	e, _ := l.lookup(proxy.ID(id))
	return e
}

func (l *links) lookup(id proxy.ID) (e *network.Endpoint, in string) {
	pe, ok := (*l.table.Load())[id]
	if !ok {
		return nil, ""
	}
	return l.endpoint(pe)
}

func (l *links) endpoint(pe arm.ID) (e *network.Endpoint, in string) {
	for _, in := range l.networks {
		if e := l.find(in, pe.Key()); e != nil {
			return e, in
		}
	}
	return nil, ""
}

// to is the link that leads to a private endpoint, the first by its id; "" where
// none does.
func (l *links) to(pe arm.ID) string {
	first := ""
	for id, to := range *l.table.Load() {
		if to.Equal(pe) && (first == "" || string(id) < first) {
			first = string(id)
		}
	}
	return first
}

// lost are the links that lead to an endpoint that is not there, or that lies
// in a network of another attachment.
func (l *links) lost() map[proxy.ID]arm.ID {
	out := maps.Clone(*l.table.Load())
	maps.DeleteFunc(out, func(_ proxy.ID, pe arm.ID) bool {
		e, _ := l.endpoint(pe)
		return e != nil
	})
	return out
}

// changed ends the connections of links that led to an approved connection and
// no longer do, or lead to another, and those that a security group now denies.
func (l *links) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := map[proxy.ID]string{}
	for id := range *l.table.Load() {
		if e, _ := l.lookup(id); e != nil && e.State == network.Approved {
			now[id] = e.Connection.Key()
		}
	}
	before := l.carried
	l.carried = now
	for _, open := range l.listeners {
		open.Reset(func(o link.Origin) bool {
			was := before[proxy.ID(o.Link)]
			return was != "" && was != now[proxy.ID(o.Link)] || !l.admits(o)
		})
	}
}

// load reads the file.
func (l *links) load() error {
	f, err := os.Open(l.file)
	if err != nil {
		return fault.Newf(fault.Invalid, "--proxy-map cannot be read: %v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fault.Newf(fault.Invalid, "--proxy-map cannot be read: %v", err)
	}
	l.mu.Lock()
	l.read = info // a bad one is not read again and again
	l.mu.Unlock()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return fault.Newf(fault.Invalid, "--proxy-map cannot be read: %v", err)
	}
	if len(text) > maxConfig {
		return fault.Newf(fault.Invalid, "%s is larger than a file of private links may be (1 MiB)", l.file)
	}
	table, err := parseLinks(l.file, text)
	if err != nil {
		return err
	}
	l.table.Store(&table)
	return nil
}

// parseLinks reads a YAML mapping of ids of private links to those of private
// endpoints, and returns every problem.
func parseLinks(name string, text []byte) (map[proxy.ID]arm.ID, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fault.Newf(fault.Invalid, "%s: %v", name, err)
	}
	table := map[proxy.ID]arm.ID{}
	if len(doc.Content) == 0 {
		return table, nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, fault.Newf(fault.Invalid, "%s:%d: expected lines such as `azure:305419896: /subscriptions/…/privateEndpoints/NAME`", name, root.Line)
	}
	var problems []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		bad := func(format string, args ...any) {
			problems = append(problems, fmt.Errorf("%s:%d: "+format, append([]any{name, k.Line}, args...)...))
		}
		id, err := proxy.ParseID(k.Value)
		if err != nil {
			bad("%w", err)
			continue
		}
		pe, err := arm.ParseID(v.Value)
		if err != nil || v.Kind != yaml.ScalarNode || !strings.EqualFold(pe.Type(), network.TypeEndpoint) {
			bad("%s: expected the resource id of a private endpoint, /subscriptions/…/privateEndpoints/NAME", k.Value)
			continue
		}
		if _, twice := table[id]; twice {
			bad("%s is given twice", id)
			continue
		}
		table[id] = pe
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fault.Newf(fault.Invalid, "%v", err)
	}
	return table, nil
}

// linksAgain is how often the file is looked at: a change is obeyed within a
// second.
const linksAgain = 500 * time.Millisecond

// followLinks obeys changes of the file until ctx ends. One that cannot be read
// changes nothing: what was said before stands.
func (s *server) followLinks(ctx context.Context) error {
	l := s.ways.links
	tick := time.NewTicker(linksAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		info, err := os.Stat(l.file)
		l.mu.Lock()
		same := err == nil && os.SameFile(info, l.read) && info.ModTime().Equal(l.read.ModTime()) && info.Size() == l.read.Size()
		l.mu.Unlock()
		if err != nil || same {
			continue
		}
		if err := l.load(); err != nil {
			s.log.Error("the file of --proxy-map has changed and cannot be read; what it said before stands", "err", err)
			continue
		}
		l.changed()
		s.log.Info("private links read", "file", l.file, "links", len(*l.table.Load()))
	}
}

// openLinks reads the file of --proxy-map. Without one there are no links.
func (s *server) openLinks(networks []string) (*links, error) {
	s.cutOff = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cove_proxy_refused_total", Help: "Connections that were cut off at listeners for balancers, by why."}, []string{"why"})
	for _, why := range proxy.Refusals {
		s.cutOff.WithLabelValues(string(why))
	}
	l := &links{
		file: s.config.ProxyMap, networks: networks, admits: s.linkAdmits,
		find: func(in, pe string) *network.Endpoint { return s.networks.Private(in, pe) },
	}
	l.table.Store(&map[proxy.ID]arm.ID{})
	if l.file == "" {
		return l, nil
	}
	return l, l.load()
}

// listenProxy opens the listeners that balancers connect to.
func (s *server) listenProxy(context.Context) error {
	from, _ := s.config.balancers()
	for _, addr := range s.config.ProxyListen {
		at, err := net.Listen("tcp", addr)
		if err != nil {
			return taken("--proxy-listen", addr, err)
		}
		l := proxy.Listen(at.(*net.TCPListener), proxy.Config{From: from, Admit: s.linkAdmits, Refused: s.linkRefused})
		s.closers.add(l.Close)
		s.ways.links.mu.Lock()
		s.ways.links.listeners = append(s.ways.links.listeners, l)
		s.ways.links.mu.Unlock()
		s.run.Proxy = append(s.run.Proxy, l.Addr().String())
		s.servePrivate(l, func(err error) { s.log.Debug("a listener for balancers ended", "addr", addr, "err", err) })
	}
	if s.ways.links.file != "" {
		s.loops.run("private links", s.followLinks)
	}
	return nil
}

// linkAdmits asks the security groups of the private endpoint that a link leads
// to. A link that leads nowhere is refused later, in words.
func (s *server) linkAdmits(o link.Origin) bool {
	e, in := s.ways.links.lookup(proxy.ID(o.Link))
	if e == nil {
		return true
	}
	w, ok := s.networks.Wanted(in)
	return !ok || w.Filter.Admit(network.Flow{Protocol: 6, From: o.Remote.Addr(), FromPort: o.Remote.Port(), To: e.Address, ToPort: 443})
}

// linkRefused counts who was cut off at a listener for balancers, and tells
// whoever looks for it.
func (s *server) linkRefused(peer netip.AddrPort, why proxy.Refusal, err error) {
	s.cutOff.WithLabelValues(string(why)).Inc()
	s.log.Debug("a connection for balancers was refused", "peer", peer, "why", string(why), "err", err)
}
