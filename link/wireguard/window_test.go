package wireguard

import (
	"bytes"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// A device gets a window of packets, and as many more as it passes on. One that
// drops them all gets the next window a moment later: nobody can shut a network
// with rubbish. What is never passed on, handshakes and keepalives, needs no
// room.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow()
		b := newInbox(new(drops), w)
		defer func() {
			b.close()
			<-time.After(2 * windowPause)
		}()
		put := func(kind byte, size, n int) {
			d := append([]byte{kind}, make([]byte, size-1)...)
			buf := bufFor(n * size)
			b.put(parcel{buf, buf.data[:copy(buf.data, bytes.Repeat(d, n))], size, new(endpoint)})
		}
		put(device.MessageInitiationType, device.MessageInitiationSize, 100)
		put(device.MessageTransportType, device.MessageKeepaliveSize, 100)
		for range 10 {
			put(device.MessageTransportType, device.MessageKeepaliveSize+1, windowSize)
		}

		var got atomic.Int64
		go func() {
			bufs := make([][]byte, readBatch)
			for i := range bufs {
				bufs[i] = make([]byte, maxDatagram)
			}
			for sizes, eps := make([]int, readBatch), make([]conn.Endpoint, readBatch); ; {
				n, err := b.receive(bufs, sizes, eps)
				if err != nil {
					return
				}
				got.Add(int64(n))
			}
		}()
		next := func(want int64, what string) {
			t.Helper()
			synctest.Wait()
			if n := got.Swap(0); n != want {
				t.Fatalf("%s: %d datagrams, want %d", what, n, want)
			}
		}
		next(200+windowSize, "at first")
		w.leave(1)
		next(readBatch, "one has left")
		w.leave(2 * readBatch)
		next(2*readBatch, "more have left")
		<-time.After(windowPause - 1)
		next(0, "before the pause is over")
		<-time.After(1)
		next(windowSize, "nothing has left")
		w.leave(10 * windowSize) // late
		next(windowSize, "all have left")
	})
}
