package wireguard

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// envelope is what sendmsg(2) is told. It is part of a train, so that sending
// allocates nothing.
type envelope struct {
	header unix.Msghdr
	iov    unix.Iovec
	name   unix.RawSockaddrInet6 // or, at its beginning, an IPv4 one
	errno  syscall.Errno
	call   func(fd uintptr) bool
}

// write sends data, a part of t, with the control messages in oob. Go's runtime
// is not told of the call, see receiver.
func (s *socket) write(t *train, data, oob []byte) error {
	to := t.to.dst
	if to.Addr().Zone() != "" {
		_, _, err := s.conn.WriteMsgUDPAddrPort(data, oob, to)
		return err
	}
	e := &t.envelope
	if e.call == nil {
		e.call = func(fd uintptr) bool {
			_, _, e.errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&e.header)), unix.MSG_DONTWAIT)
			return e.errno != unix.EAGAIN
		}
	}
	e.address(to, s.six)
	e.iov.Base = unsafe.SliceData(data)
	e.iov.SetLen(len(data))
	e.header.Iov = &e.iov
	e.header.SetIovlen(1)
	e.header.Control = unsafe.SliceData(oob)
	e.header.SetControllen(len(oob))
	if err := s.raw.Write(e.call); err != nil {
		return err
	}
	if e.errno != 0 {
		return e.errno
	}
	return nil
}

// address writes whom it is for. A socket of IPv6's knows IPv4 addresses as
// mapped ones.
func (e *envelope) address(to netip.AddrPort, six bool) {
	e.header.Name = (*byte)(unsafe.Pointer(&e.name))
	e.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	e.header.Namelen = unix.SizeofSockaddrInet6
	if !six {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&e.name))
		*four = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().Unmap().As4()}
		e.header.Namelen = unix.SizeofSockaddrInet4
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&e.name.Port))[:], to.Port())
}
