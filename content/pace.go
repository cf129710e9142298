package content

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// pace bounds how fast bytes are read.
type pace struct{ limit *rate.Limiter }

func newPace(bytesPerSecond int64) *pace {
	return &pace{rate.NewLimiter(rate.Limit(bytesPerSecond), chunkSize)}
}

func (p *pace) reader(ctx context.Context, r io.Reader) io.Reader {
	return pacedReader{p.limit, ctx, r}
}

type pacedReader struct {
	limit *rate.Limiter
	ctx   context.Context // of the run that made the reader
	r     io.Reader
}

func (r pacedReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b[:min(len(b), chunkSize)])
	if werr := r.limit.WaitN(r.ctx, n); werr != nil {
		return n, werr
	}
	return n, err
}
