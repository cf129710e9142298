package door

import (
	"net"
	"syscall"
)

// acknowledge has the kernel confirm at once what has been received. A client
// that sends small packets and waits for each to be confirmed (Nagle's
// algorithm, which urllib3 and so the Azure CLI leave on behind a proxy) stands
// still for 40 ms at the end of each TLS handshake otherwise: the server has
// nothing to say then that would carry the confirmation.
func acknowledge(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // a failure costs those 40 ms
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}
