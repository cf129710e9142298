//go:build !linux

package wireguard

import "net/netip"

// receiver reads from the socket, one datagram at a time.
type receiver struct {
	s    *socket
	buf  *parcelBuf
	n    int
	from netip.AddrPort
}

const receiveBatch = 1

func (s *socket) receiver() *receiver {
	return &receiver{s: s, buf: largeBufs.Get().(*parcelBuf)}
}

func (r *receiver) receive() (int, error) {
	var err error
	r.n, r.from, err = r.s.conn.ReadFromUDPAddrPort(r.buf.data)
	if err != nil {
		return 0, err
	}
	return 1, nil
}

func (r *receiver) arrival(int) arrival {
	return arrival{data: r.buf.data[:r.n], segment: r.n, from: netip.AddrPortFrom(r.from.Addr().Unmap(), r.from.Port())}
}

func (r *receiver) take(int) *parcelBuf {
	b := r.buf
	r.buf = largeBufs.Get().(*parcelBuf)
	return b
}

func (r *receiver) free() { r.buf.free() }

type envelope struct{}

func (s *socket) write(t *train, data, oob []byte) error {
	_, _, err := s.conn.WriteMsgUDPAddrPort(data, oob, t.to.dst)
	return err
}
