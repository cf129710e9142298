package host

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func freebind(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	return errors.Join(err, set)
}
