package audit

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"time"
)

// moments are the units of an id's time in a second.
const moments = 256

// NewID returns a GUID (RFC 9562, version 8) for something that happens at t.
// Its first eight digits rise with time, by 256 in a second, and begin again
// after 194 days; the others are random.
//
// That the ids of one day stand in the order in which they came is what makes
// keeping them cheap: an index of random ones has another of its pages written
// for each event.
func NewID(t time.Time) string {
	var b [16]byte
	rand.Read(b[4:]) // never fails, crypto/rand ends the program instead
	n := momentOf(t)
	b[0], b[1], b[2], b[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	var text [36]byte
	hex.Encode(text[:8], b[:4])
	hex.Encode(text[9:13], b[4:6])
	hex.Encode(text[14:18], b[6:8])
	hex.Encode(text[19:23], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}

func momentOf(t time.Time) uint32 { return uint32(t.UnixNano() / (int64(time.Second) / moments)) }

// TimeOf is when an id was made that begins with the eight digits of prefix,
// if NewID made it: of the times that it may be, the last that is not more than
// a day after now. For what does not begin so, it is now.
func TimeOf(prefix string, now time.Time) time.Time {
	if len(prefix) < 8 {
		return now
	}
	n, err := strconv.ParseUint(prefix[:8], 16, 32)
	if err != nil {
		return now
	}
	const day = 24 * 3600 * moments
	ago := int64(momentOf(now)+day-uint32(n)) - day
	return now.Add(-time.Duration(ago) * (time.Second / moments))
}
