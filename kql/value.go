package kql

import (
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// Type is the type of a column or an expression.
type Type uint8

// The types. Int and Long differ in name only.
const (
	Null Type = iota // of null itself, which goes with every type but String
	Bool
	Int
	Long
	Real
	Datetime
	Timespan
	String
	Dynamic // a list, as make_set makes one
)

var typeNames = [...]string{"null", "bool", "int", "long", "real", "datetime", "timespan", "string", "dynamic"}

func (t Type) String() string { return typeNames[t] }

func (t Type) number() bool { return t == Int || t == Long || t == Real }

// Value is one cell. The zero Value is null.
type Value struct {
	typ Type
	n   int64 // Bool, Int, Long; the bits of a Real; ticks of a Datetime or Timespan
	s   string
	set *[]Value
}

// tick is the resolution of times: 100 ns. A Datetime counts them from 1970.
const (
	tick       = 100 * time.Nanosecond
	tickSecond = int64(time.Second / tick)
	tickDay    = 24 * 3600 * tickSecond
)

// Str, Num, Time and Truth make values of the language from Go's.
func Str(s string) Value { return Value{typ: String, s: s} }

// Num is a long.
func Num(n int64) Value { return Value{typ: Long, n: n} }

// Time is a datetime; what is below 100 ns is cut off.
func Time(t time.Time) Value { return Value{typ: Datetime, n: ticks(t)} }

// Float is a real.
func Float(f float64) Value { return Value{typ: Real, n: int64(math.Float64bits(f))} }

// Truth is a bool.
func Truth(b bool) Value {
	if b {
		return Value{typ: Bool, n: 1}
	}
	return Value{typ: Bool}
}

func ticks(t time.Time) int64 { return t.Unix()*tickSecond + int64(t.Nanosecond())/int64(tick) }

func fromTicks(n int64) time.Time {
	sec, rest := n/tickSecond, n%tickSecond
	if rest < 0 {
		sec, rest = sec-1, rest+tickSecond
	}
	return time.Unix(sec, rest*int64(tick)).UTC()
}

// Type is the value's type, Null for null.
func (v Value) Type() Type { return v.typ }

// IsNull reports whether it is null. An empty string is not.
func (v Value) IsNull() bool { return v.typ == Null }

// Text is a String's text.
func (v Value) Text() string { return v.s }

// Moment is a Datetime's time.
func (v Value) Moment() time.Time { return fromTicks(v.n) }

func (v Value) isTrue() bool { return v.typ == Bool && v.n != 0 }

func (v Value) real() float64 {
	if v.typ == Real {
		return math.Float64frombits(uint64(v.n))
	}
	return float64(v.n)
}

// size is what v takes in memory, about.
func (v Value) size() int64 {
	n := int64(40 + len(v.s))
	if v.set != nil {
		for _, e := range *v.set {
			n += e.size()
		}
	}
	return n
}

// String is the value as tostring has it; "" for null.
func (v Value) String() string {
	switch v.typ {
	case Null:
		return ""
	case Bool:
		if v.n != 0 {
			return "True"
		}
		return "False"
	case Int, Long:
		return strconv.FormatInt(v.n, 10)
	case Real:
		return strconv.FormatFloat(v.real(), 'g', -1, 64)
	case Datetime:
		return v.Moment().Format("2006-01-02T15:04:05.0000000Z")
	case Timespan:
		return span(v.n)
	case Dynamic:
		b, err := json.Marshal(v.Go())
		if err != nil {
			return ""
		}
		return string(b)
	}
	return v.s
}

// span writes ticks as Kusto does: 1.02:03:04.0000000.
func span(n int64) string {
	var b strings.Builder
	abs := uint64(n)
	if n < 0 {
		b.WriteByte('-')
		abs = -abs
	}
	two := func(n uint64) {
		if n < 10 {
			b.WriteByte('0')
		}
		b.WriteString(strconv.FormatUint(n, 10))
	}
	const second = uint64(tickSecond)
	if d := abs / uint64(tickDay); d > 0 {
		b.WriteString(strconv.FormatUint(d, 10) + ".")
	}
	two(abs / (3600 * second) % 24)
	b.WriteByte(':')
	two(abs / (60 * second) % 60)
	b.WriteByte(':')
	two(abs / second % 60)
	if f := abs % second; f > 0 {
		digits := strconv.FormatUint(f, 10)
		b.WriteString("." + strings.Repeat("0", 7-len(digits)) + digits)
	}
	return b.String()
}

// Go is the value as encoding/json takes it: datetimes and timespans are
// text, null is nil.
func (v Value) Go() any {
	switch v.typ {
	case Null:
		return nil
	case Bool:
		return v.n != 0
	case Int, Long:
		return v.n
	case Real:
		if f := v.real(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		return v.String()
	case Datetime:
		return v.Moment().Format(time.RFC3339Nano)
	case Dynamic:
		list := make([]any, len(*v.set))
		for i, e := range *v.set {
			list[i] = e.Go()
		}
		return list
	}
	return v.String()
}

// compare orders two values of types that go together; null comes first.
func compare(a, b Value) int {
	switch {
	case a.typ == Null || b.typ == Null:
		return cmp.Compare(boolInt(a.typ != Null), boolInt(b.typ != Null))
	case a.typ == String:
		return strings.Compare(a.s, b.s)
	case a.typ == Real || b.typ == Real:
		return cmp.Compare(a.real(), b.real())
	case a.typ == Dynamic:
		return strings.Compare(a.String(), b.String())
	}
	return cmp.Compare(a.n, b.n)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// appendKey adds an encoding of v to b that no other value has.
func appendKey(b []byte, v Value) []byte {
	typ := v.typ
	if typ == Int {
		typ = Long
	}
	b = append(b, byte(typ))
	text := v.s
	switch typ {
	case Dynamic:
		text = v.String()
	case String:
	default:
		n := uint64(v.n)
		return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(n>>32), byte(n>>40), byte(n>>48), byte(n>>56))
	}
	n := len(text)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	return append(b, text...)
}
