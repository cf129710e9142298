package wireguard

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBatch is how many datagrams, or trains of them, one call brings at
// most. Clients that send each packet by itself, as older ones do, cost a call
// for each without it.
const receiveBatch = 64

// receiver reads from the socket. Only one goroutine uses it.
//
// Go's runtime is not told of its system calls, nor of those that send: they
// never wait, and the longest copies what the socket holds, 4 MiB. A call that
// the runtime knows of wakes the thread that looks for those that take long,
// and it goes on looking every 20 µs: a tenth of what an upload costs.
type receiver struct {
	raw    syscall.RawConn
	sticky bool
	call   func(fd uintptr) bool
	n      int
	errno  syscall.Errno

	msgs  [receiveBatch]message
	iovs  [receiveBatch]unix.Iovec
	names [receiveBatch]unix.RawSockaddrInet6 // the largest that comes
	oobs  [receiveBatch][oobSize]byte
	bufs  [receiveBatch]*parcelBuf
}

// message is struct mmsghdr of recvmmsg(2).
type message struct {
	header unix.Msghdr
	length uint32
}

func (s *socket) receiver() *receiver {
	r := &receiver{raw: s.raw, sticky: s.sticky}
	for i := range r.msgs {
		r.take(i)
		h := &r.msgs[i].header
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.oobs[i][0]
	}
	r.call = func(fd uintptr) bool {
		for i := range r.msgs {
			h := &r.msgs[i].header
			h.Namelen = unix.SizeofSockaddrInet6
			h.SetControllen(oobSize)
		}
		// The kernel writes to r and to buffers that r holds, all on the heap,
		// where nothing moves.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), receiveBatch, unix.MSG_DONTWAIT, 0, 0)
		r.n, r.errno = int(n), errno
		return errno != unix.EAGAIN && errno != unix.EINTR
	}
	return r
}

// receive waits for datagrams and returns how many arrivals there are; they are
// good until the next call. It allocates nothing.
func (r *receiver) receive() (int, error) {
	if err := r.raw.Read(r.call); err != nil {
		return 0, net.ErrClosed // nothing else ends waiting: there is no deadline
	}
	if r.errno != 0 {
		return 0, r.errno
	}
	return r.n, nil
}

func (r *receiver) arrival(i int) arrival {
	m := &r.msgs[i]
	a := arrival{data: r.bufs[i].data[:m.length], segment: int(m.length), from: sender(&r.names[i])}
	segment, at := readControl(r.oobs[i][:m.header.Controllen])
	if segment > 0 && segment < len(a.data) {
		a.segment = segment
	}
	if r.sticky {
		a.at = at
	}
	return a
}

// take gives away the buffer of an arrival, and puts another in its place.
func (r *receiver) take(i int) *parcelBuf {
	b := r.bufs[i]
	r.bufs[i] = largeBufs.Get().(*parcelBuf)
	r.iovs[i].Base = &r.bufs[i].data[0]
	r.iovs[i].SetLen(len(r.bufs[i].data))
	return b
}

func (r *receiver) free() {
	for _, b := range r.bufs {
		b.free()
	}
}

func sender(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port)
	}
	a := netip.AddrFrom16(name.Addr).Unmap()
	if name.Scope_id != 0 { // of a link-local address: answers need it
		a = a.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, port)
}
