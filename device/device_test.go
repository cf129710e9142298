package device_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/device"
	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const az, tenant = "04b07795-8ddb-461a-bbee-02f9e1bf7b46", "11111111-1111-4111-8111-111111111111"

type desk struct {
	device.Desk
	now time.Time
}

func open(db *store.DB) *desk {
	d := &desk{now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	d.Desk = device.Desk{Store: store.NewDevices(db), Now: func() time.Time { return d.now }}
	return d
}

func asks(from string) device.Login {
	return device.Login{Client: az, Tenant: tenant, Audience: "https://management.cove.internal", From: from}
}

// A login is approved once and taken once, by the program that began it, also
// by a server that has been started again; its codes are nowhere in the store.
//
// Published failure 47.
func TestALoginIsTakenOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, d := t.Context(), open(db)
		c, err := d.Begin(ctx, asks("203.0.113.9"))
		if err != nil || !regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`).MatchString(c.User) || len(c.Device.Reveal()) != 43 {
			t.Fatalf("%+v %v", c, err)
		}
		poll := func(client, of, code string, want error) device.Login {
			t.Helper()
			l, err := d.Poll(ctx, client, of, code)
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			return l
		}
		code := c.Device.Reveal()
		poll(az, tenant, code, device.ErrPending)
		poll(az, tenant, code, device.ErrSlow)
		d.now = d.now.Add(device.Interval)
		poll(az, tenant, code, device.ErrPending)
		poll(az, tenant, c.User, device.ErrUnknown)
		poll(az, directory.NewID(), code, device.ErrUnknown)
		poll(directory.NewID(), tenant, code, device.ErrUnknown)

		// As people type it.
		for _, typed := range []string{strings.ToLower(c.User), strings.ReplaceAll(c.User, "-", ""), " " + strings.ReplaceAll(c.User, "-", " - ")} {
			if l, err := d.Show(ctx, typed); err != nil || l.Client != az || l.From != "203.0.113.9" || l.Audience != "https://management.cove.internal" {
				t.Errorf("%q: %+v %v", typed, l, err)
			}
		}
		for _, typed := range []string{"", "-", code, c.User + c.User, c.User[:8], strings.Repeat("B", 1<<20)} {
			if _, err := d.Show(ctx, typed); !errors.Is(err, device.ErrUnknown) {
				t.Errorf("%.40q is a code: %v", typed, err)
			}
		}
		l, err := d.Show(ctx, c.User)
		if err != nil || strings.Contains(l.User+l.Device, code) || strings.Contains(l.User+l.Device, c.User) {
			t.Errorf("the codes are kept: %+v %v", l, err)
		}

		now := d.now
		d = open(db)
		d.now = now
		if err := d.Approve(ctx, c.User, "22222222-2222-4222-8222-222222222222", "key"); err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{"approved again": d.Approve(ctx, c.User, "33333333-3333-4333-8333-333333333333", "key"), "declined afterwards": d.Deny(ctx, c.User)} {
			if !errors.Is(err, device.ErrUnknown) {
				t.Errorf("%s: %v", name, err)
			}
		}
		poll(directory.NewID(), tenant, code, device.ErrUnknown)
		if l := poll(az, tenant, code, nil); l.ObjectID != "22222222-2222-4222-8222-222222222222" || l.Credential != "key" {
			t.Errorf("%+v", l)
		}
		poll(az, tenant, code, device.ErrUnknown)
	})
}

// What nobody has answered in fifteen minutes cannot be answered any more.
func TestALoginEnds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, d := t.Context(), open(db)
		one, err1 := d.Begin(ctx, asks("a"))
		two, err2 := d.Begin(ctx, asks("a"))
		three, err3 := d.Begin(ctx, asks("a"))
		if err := errors.Join(err1, err2, err3, d.Deny(ctx, two.User), d.Approve(ctx, three.User, "o", "k")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Poll(ctx, az, tenant, two.Device.Reveal()); !errors.Is(err, device.ErrDenied) {
			t.Errorf("declined: %v", err)
		}
		d.now = d.now.Add(device.Life - time.Second)
		if _, err := d.Show(ctx, one.User); err != nil {
			t.Errorf("a second before the end: %v", err)
		}
		d.now = d.now.Add(time.Second)
		if err := d.Approve(ctx, one.User, "o", "k"); !errors.Is(err, device.ErrUnknown) {
			t.Errorf("approved after the end: %v", err)
		}
		for name, c := range map[string]device.Codes{"open": one, "declined": two, "approved and not taken": three} {
			if _, err := d.Poll(ctx, az, tenant, c.Device.Reveal()); !errors.Is(err, device.ErrEnded) {
				t.Errorf("%s: %v", name, err)
			}
		}
		d.now = d.now.Add(device.Life + time.Second)
		if _, err := d.Begin(ctx, asks("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Poll(ctx, az, tenant, one.Device.Reveal()); !errors.Is(err, device.ErrUnknown) {
			t.Errorf("what has ended is kept for ever: %v", err)
		}
	})
}

// Nobody can fill the store with logins, and one address not the room of all.
func TestLoginsAreBounded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		d := open(db)
		begin := func(from string) error {
			_, err := d.Begin(t.Context(), asks(from))
			return err
		}
		for i := range 20 {
			if err := begin("one"); err != nil {
				t.Fatal(i, err)
			}
		}
		if err := begin("one"); !errors.Is(err, device.ErrFull) {
			t.Errorf("the twenty-first: %v", err)
		}
		if err := begin("another"); err != nil {
			t.Error(err)
		}
		l := asks("third")
		l.User, l.Device, l.Begun, l.Ends = "u", "d", d.now, d.now.Add(device.Life)
		if err := d.Store.AddLogin(t.Context(), l, d.now, 100, 21); !errors.Is(err, device.ErrFull) {
			t.Errorf("past the room of all: %v", err)
		}
		d.now = d.now.Add(device.Life)
		if err := begin("one"); err != nil {
			t.Errorf("after they have ended: %v", err)
		}
	})
}

// Two servers that are asked at once give one login to one of them.
//
// Published failure 47.
func TestALoginIsTakenByOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, d := t.Context(), open(db)
		for range 10 {
			c, err := d.Begin(ctx, asks("a"))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Approve(ctx, c.User, "o", "k"); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 4)
			for range cap(done) {
				go func() {
					_, err := d.Poll(ctx, az, tenant, c.Device.Reveal())
					done <- err
				}()
			}
			taken := 0
			for range cap(done) {
				if err := <-done; err == nil {
					taken++
				} else if !errors.Is(err, device.ErrUnknown) {
					t.Error(err)
				}
			}
			if taken != 1 {
				t.Fatalf("taken %d times", taken)
			}
		}
	})
}
