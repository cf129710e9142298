package audit

import (
	"regexp"
	"testing"
	"time"
)

func TestIDsRiseWithTime(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	begin := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	last, seen := "", map[string]bool{}
	for i := range 10_000 {
		id := NewID(begin.Add(time.Duration(i) * 8640 * time.Millisecond)) // a day in all
		if !form.MatchString(id) {
			t.Fatalf("%s is no GUID of version 8", id)
		}
		if id <= last || seen[id] {
			t.Fatalf("%s comes after %s", id, last)
		}
		last, seen[id] = id, true
	}
	// Of one moment, the random rest tells them apart.
	if a, b := NewID(begin), NewID(begin); a == b || a[:8] != b[:8] {
		t.Errorf("%s and %s", a, b)
	}
}

func TestAnIDSaysItsTime(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, ago := range []time.Duration{0, time.Second, 24 * time.Hour, 90 * 24 * time.Hour, 192 * 24 * time.Hour, -time.Hour, -23 * time.Hour} {
		at := now.Add(-ago)
		if got := TimeOf(NewID(at)[:8], now); got.Sub(at).Abs() > 8*time.Millisecond {
			t.Errorf("%s ago: %s, want %s", ago, got, at)
		}
	}
	for _, none := range []string{"", "0123", "zzzzzzzz", "0123-567"} {
		if got := TimeOf(none, now); !got.Equal(now) {
			t.Errorf("%q: %s", none, got)
		}
	}
}
