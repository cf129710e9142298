package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"cove.example/cove/fault"
)

// The addresses that stand where no flag names one.
const (
	publicHTTPS   = "0.0.0.0:443"
	loopbackHTTPS = "127.0.0.1:8443"
	loopbackProxy = "127.0.0.1:8480"
)

// listenHTTPS opens the public listeners. Where none is named it takes port
// 443 of every address, or, for who may not bind that, loopback and the
// CONNECT proxy beside it.
func (c *config) listenHTTPS() ([]net.Listener, error) {
	if len(c.Listen) == 0 {
		l, err := net.Listen("tcp", publicHTTPS)
		if err == nil {
			return []net.Listener{l}, nil
		}
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EADDRINUSE) {
			return nil, taken("--listen", publicHTTPS, err)
		}
		c.Listen = []string{loopbackHTTPS}
		if !c.given["connect"] {
			c.Connect = loopbackProxy
		}
	}
	var all []net.Listener
	for _, addr := range c.Listen {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.Close())
			}
			return nil, taken("--listen", addr, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// taken is the one sentence for an address that cannot be had.
func taken(flag, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.Newf(fault.Conflict, "%s %s: another program has that port; name a free one", flag, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fault.Newf(fault.Invalid, "%s %s: this machine does not have that address", flag, addr)
	case errors.Is(err, fs.ErrPermission):
		return fault.Newf(fault.Denied, "%s %s: this user may not bind that port; name one above 1023 or grant CAP_NET_BIND_SERVICE", flag, addr)
	}
	return fault.Newf(fault.Unavailable, "%s %s: %v", flag, addr, err)
}

// advertised is the address that the public DNS view answers: the one given,
// the first listener's if that is specific, else the one that this machine
// uses towards its default route.
func (c *config) advertised(listeners []net.Listener) (netip.Addr, error) {
	if c.Advertise != "" {
		return netip.ParseAddr(c.Advertise)
	}
	if len(listeners) > 0 {
		if ap, err := netip.ParseAddrPort(listeners[0].Addr().String()); err == nil && unicast(ap.Addr().Unmap()) {
			return ap.Addr().Unmap(), nil
		}
	}
	// Connecting a UDP socket sends nothing; it asks the routing table which
	// address of ours would be used.
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err == nil {
		defer conn.Close()
		if ap, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil && unicast(ap.Addr()) {
			return ap.Addr(), nil
		}
	}
	return netip.Addr{}, fault.Newf(fault.Invalid, "there is no default route to tell which address clients reach this server at: give it with --advertise IP")
}

// running is run.json: where the server listens, for commands that are given
// --data and for scripts.
type running struct {
	PID       int      `json:"pid"`
	Listen    []string `json:"listen"`
	Advertise string   `json:"advertise"`
	Connect   string   `json:"connect"`
	HTTP      string   `json:"listenHttp"`
	DNS       []string `json:"dns"`
	WireGuard string   `json:"wireguard"`
	Proxy     []string `json:"proxy"`
	Admin     string   `json:"admin"`
}

// write replaces run.json as a whole. A wildcard listener is written as the
// loopback address, which reaches it.
func (r running) write(dir *os.Root) error {
	r.PID, r.Listen = os.Getpid(), slices.Clone(r.Listen)
	for i, addr := range r.Listen {
		ap, err := netip.ParseAddrPort(addr)
		if err == nil && ap.Addr().IsUnspecified() {
			r.Listen[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port()).String()
		}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(dir, "run.json", append(data, '\n'), 0o644)
}

// writeWhole makes a file whole or not at all, and durable.
func writeWhole(dir *os.Root, name string, data []byte, mode os.FileMode) error {
	tmp := name + ".new"
	if err := dir.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return dir.Rename(tmp, name)
}

// openData makes the data folder and opens it; every file of the server is
// reached through the handle. The lock is held until it is closed.
func (c *config) openData() (root *os.Root, lock *os.File, err error) {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, nil, dataFault(c.Data, err)
	}
	if root, err = os.OpenRoot(c.Data); err != nil {
		return nil, nil, dataFault(c.Data, err)
	}
	if lock, err = claim(root); err == nil {
		// What cannot be written is found now, not at the first push.
		if err = writeWhole(root, "writable", nil, 0o600); err == nil {
			return root, lock, root.Remove("writable")
		}
		err = errors.Join(err, lock.Close())
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fault.Newf(fault.Conflict, "--data %s is in use by another cove server", c.Data)
	} else {
		err = dataFault(c.Data, err)
	}
	return nil, nil, errors.Join(err, root.Close())
}

// claim makes this process the only server of a data folder: two that start at
// once would each make an authority and write half of it. The lock goes with
// the process, however it ends; the file stays.
func claim(root *os.Root) (*os.File, error) {
	f, err := root.OpenFile("server.lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func dataFault(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fault.Newf(fault.Unavailable, "--data %s: the disk is full", dir)
	case errors.Is(err, syscall.EROFS):
		return fault.Newf(fault.Invalid, "--data %s: the folder is on a read-only file system", dir)
	case errors.Is(err, fs.ErrPermission):
		return fault.Newf(fault.Denied, "--data %s: this user may not write there; name a folder of its own", dir)
	case errors.Is(err, syscall.ENOTDIR):
		return fault.Newf(fault.Invalid, "--data %s is not a folder", dir)
	}
	return fault.Newf(fault.Invalid, "--data %s: %v", dir, err)
}

func endpointURL(host string) string { return "https://" + strings.TrimSuffix(host, "/") }
