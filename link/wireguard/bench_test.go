//go:build linux

package wireguard

import (
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"testing"
)

// cpu is what this process has used, both ends of the tunnel included.
func cpu(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// TLS through the tunnel, server and member in one process over loopback UDP:
// the numbers cover two TCP stacks, two WireGuard devices and TLS twice.
func BenchmarkTunnel(b *testing.B) {
	const size = 64 << 20
	for name, transfer := range map[string]func(l *lab, tun *Tunnel) error{
		"download": func(l *lab, tun *Tunnel) error {
			res, err := l.client(tun).Get(fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
			if err != nil {
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			return err
		},
		"upload": func(l *lab, tun *Tunnel) error {
			res, err := l.client(tun).Post("https://10.0.0.7/discard", "", io.LimitReader(zeros{}, size))
			if err != nil {
				return err
			}
			return res.Body.Close()
		},
	} {
		b.Run(name, func(b *testing.B) {
			l := openLab(b)
			tun := l.network("contoso", laptop).join(laptop)
			b.SetBytes(size)
			b.ResetTimer()
			before := cpu(b)
			for range b.N {
				if err := transfer(l, tun); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*size/1e6/(cpu(b)-before), "MB/cpu-s")
		})
	}
}

// A member that comes or goes costs about the same among ten as among ten
// thousand.
func BenchmarkOneChangeAmong(b *testing.B) {
	for _, size := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			v := openLab(b).network("contoso")
			a := netip.MustParseAddr("10.0.1.0")
			for range size {
				v.admit(a)
				a = a.Next()
			}
			v.apply()
			all, key := v.Peers, NewPrivateKey().Public()
			b.ReportAllocs()
			for b.Loop() {
				v.Peers, v.Addresses = all.With(a, key), v.Addresses.With(second, true)
				v.apply()
				v.Peers, v.Addresses = all, v.Addresses.Without(second)
				v.apply()
			}
		})
	}
}
