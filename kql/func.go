package kql

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

func realSum(op byte, x, y float64) (float64, bool) {
	switch op {
	case '+':
		return x + y, true
	case '-':
		return x - y, true
	case '*':
		return x * y, true
	case '/':
		return x / y, y != 0
	}
	return math.Mod(x, y), y != 0
}

// whole is f as ticks or as a long; null where it does not fit.
func whole(typ Type, f float64) Value {
	if math.IsNaN(f) || math.Abs(f) >= math.MaxInt64 {
		return null
	}
	return Value{typ: typ, n: int64(f)}
}

// function is one scalar function.
type function struct {
	least, most int
	bind        func(b *binder, e *expr, args []code) code
}

const many = 100

// functions are all that there are.
var functions = map[string]function{
	"ago": {1, 1, func(b *binder, e *expr, args []code) code {
		wants(e, args, Timespan)
		now := b.now
		return join(Datetime, args, strict(args, func(v []Value) Value { return Value{typ: Datetime, n: now.n - v[0].n} }))
	}},
	"now": {0, 1, func(b *binder, e *expr, args []code) code {
		wants(e, args, Timespan)
		now := b.now
		if len(args) == 1 {
			return join(Datetime, args, strict(args, func(v []Value) Value { return Value{typ: Datetime, n: now.n + v[0].n} }))
		}
		return constantCode(now)
	}},
	"bin": {2, 2, bin}, "floor": {2, 2, bin},
	"startofday": {1, 1, func(_ *binder, e *expr, args []code) code {
		wants(e, args, Datetime)
		return named1(args, join(Datetime, args, strict(args, func(v []Value) Value { return Value{typ: Datetime, n: down(v[0].n, tickDay)} })))
	}},
	"hourofday": {1, 1, func(_ *binder, e *expr, args []code) code {
		wants(e, args, Datetime)
		return join(Long, args, strict(args, func(v []Value) Value { return Num((v[0].n - down(v[0].n, tickDay)) / (3600 * tickSecond)) }))
	}},
	"strlen": {1, 1, func(_ *binder, e *expr, args []code) code {
		wants(e, args, String)
		return join(Long, args, strict(args, func(v []Value) Value { return Num(int64(len([]rune(v[0].s)))) }))
	}},
	"tolower":    {1, 1, ofText(lower)},
	"toupper":    {1, 1, ofText(strings.ToUpper)},
	"trim_space": {1, 1, ofText(strings.TrimSpace)},
	"substring":  {2, 3, substring},
	"isempty":    {1, 1, empty(true)}, "isnotempty": {1, 1, empty(false)},
	"isnull": {1, 1, isNull(true)}, "isnotnull": {1, 1, isNull(false)},
	"not": {1, 1, func(_ *binder, e *expr, args []code) code {
		wants(e, args, Bool)
		return join(Bool, args, strict(args, func(v []Value) Value { return Truth(v[0].n == 0) }))
	}},
	"iff": {3, 3, iff}, "iif": {3, 3, iff},
	"case":     {3, many, choose},
	"coalesce": {2, many, coalesce},
	"strcat": {1, many, func(_ *binder, _ *expr, args []code) code {
		return join(String, args, func(row []Value) Value {
			var b strings.Builder
			for _, a := range args {
				b.WriteString(a.eval(row).String())
				if b.Len() > maxString {
					break
				}
			}
			if b.Len() > maxString {
				return Str(strings.ToValidUTF8(b.String()[:maxString], ""))
			}
			return Str(b.String())
		})
	}},
	"tostring": {1, 1, func(_ *binder, _ *expr, args []code) code {
		c := join(String, args, func(row []Value) Value { return Str(args[0].eval(row).String()) })
		return named1(args, c)
	}},
	"toint": {1, 1, toNumber(Int)}, "int": {1, 1, toNumber(Int)},
	"tolong": {1, 1, toNumber(Long)}, "long": {1, 1, toNumber(Long)},
	"toreal": {1, 1, toNumber(Real)}, "todouble": {1, 1, toNumber(Real)}, "real": {1, 1, toNumber(Real)}, "double": {1, 1, toNumber(Real)},
	"todatetime": {1, 1, func(_ *binder, e *expr, args []code) code {
		return join(Datetime, args, fromText(e, args, Datetime, parseTime))
	}},
	"totimespan": {1, 1, func(_ *binder, e *expr, args []code) code {
		return join(Timespan, args, fromText(e, args, Timespan, parseSpan))
	}},
}

// maxString bounds what strcat makes, in bytes.
const maxString = 64 << 10

func (b *binder) call(e *expr, s scope) code {
	f, ok := functions[e.text]
	if !ok {
		if _, ok := aggregates[e.text]; ok {
			wrong(ErrSemantic, e.at, "%s sums up rows, and stands behind summarize only", e.text)
		}
		names := make([]string, 0, len(functions))
		for n := range functions {
			names = append(names, n)
		}
		slices.Sort(names)
		wrong(ErrSemantic, e.at, "there is no function %s%s", clip(e.text), instead(e.text, names))
	}
	arity(e, f.least, f.most)
	args := make([]code, len(e.args))
	for i, a := range e.args {
		args[i] = b.expr(a, s)
	}
	return f.bind(b, e, args)
}

func arity(e *expr, least, most int) {
	n := len(e.args)
	if n >= least && n <= most {
		return
	}
	want := strconv.Itoa(least)
	switch {
	case most == many:
		want += " or more"
	case most > least:
		want += " to " + strconv.Itoa(most)
	}
	wrong(ErrSemantic, e.at, "%s takes %s arguments, not %d", e.text, want, n)
}

// wants fails where an argument is of another type. Int is a Long.
func wants(e *expr, args []code, types ...Type) {
	for i, want := range types {
		if i >= len(args) {
			return
		}
		if got := args[i].typ; got != want && got != Null && (want != Long || got != Int) {
			wrong(ErrSemantic, e.args[i].at, "%s wants a %s here, not a %s", e.text, want, got)
		}
	}
}

// strict is fn, and null where one of the arguments is.
func strict(args []code, fn func(v []Value) Value) func([]Value) Value {
	return func(row []Value) Value {
		var few [4]Value
		v := few[:0]
		for _, a := range args {
			x := a.eval(row)
			if x.typ == Null {
				return null
			}
			v = append(v, x)
		}
		return fn(v)
	}
}

// named1 gives a code the name of its first argument.
func named1(args []code, c code) code {
	c.name = args[0].name
	return c
}

// down is n rounded down to a multiple of by.
func down(n, by int64) int64 {
	rest := n % by
	if rest < 0 {
		rest += by
	}
	return n - rest
}

// zero is where bins of days begin: 0001-01-01, which a Datetime counts from
// in Kusto.
const zero = -719162 * tickDay

func bin(_ *binder, e *expr, args []code) code {
	v, size := args[0], args[1]
	if !size.constant {
		wrong(ErrSemantic, e.args[1].at, "the size of a bin is a constant")
	}
	by := size.value()
	switch {
	case v.typ == Datetime || v.typ == Timespan:
		wants(e, args[1:], Timespan)
	case v.typ.number() && by.typ.number():
	default:
		wrong(ErrSemantic, e.at, "%s of a %s by a %s is not possible", e.text, v.typ, by.typ)
	}
	if by.typ == Null || by.real() <= 0 {
		wrong(ErrSemantic, e.args[1].at, "the size of a bin is above zero")
	}
	if v.typ == Real || by.typ == Real {
		step := by.real()
		return named1(args, join(Real, args, strict(args, func(v []Value) Value { return Float(math.Floor(v[0].real()/step) * step) })))
	}
	typ, step, origin := v.typ, by.n, int64(0)
	if typ == Datetime {
		origin = zero
	}
	return named1(args, join(typ, args, func(row []Value) Value {
		x := v.eval(row)
		if x.typ == Null {
			return x
		}
		return Value{typ: typ, n: down(x.n-origin, step) + origin}
	}))
}

func ofText(fn func(string) string) func(*binder, *expr, []code) code {
	return func(_ *binder, e *expr, args []code) code {
		wants(e, args, String)
		return join(String, args, func(row []Value) Value { return Str(fn(args[0].eval(row).s)) })
	}
}

func substring(_ *binder, e *expr, args []code) code {
	wants(e, args, String, Long, Long)
	return join(String, args, strict(args, func(v []Value) Value {
		r := []rune(v[0].s)
		from := min(max(v[1].n, 0), int64(len(r)))
		to := int64(len(r))
		if len(v) == 3 {
			to = from + min(max(v[2].n, 0), to-from)
		}
		return Str(string(r[from:to]))
	}))
}

func empty(want bool) func(*binder, *expr, []code) code {
	return func(_ *binder, _ *expr, args []code) code {
		return join(Bool, args, func(row []Value) Value {
			v := args[0].eval(row)
			return Truth((v.typ == Null || v.typ == String && v.s == "") == want)
		})
	}
}

func isNull(want bool) func(*binder, *expr, []code) code {
	return func(_ *binder, _ *expr, args []code) code {
		return join(Bool, args, func(row []Value) Value { return Truth((args[0].eval(row).typ == Null) == want) })
	}
}

// common is the type of two alternatives.
func common(e *expr, i int, a, b Type) Type {
	switch {
	case a == b || b == Null:
		return a
	case a == Null:
		return b
	case a.number() && b.number():
		if a == Real || b == Real {
			return Real
		}
		return Long
	}
	wrong(ErrSemantic, e.args[i].at, "%s gives a %s in one case and a %s in another", e.text, a, b)
	panic("unreachable")
}

func iff(b *binder, e *expr, args []code) code { return choose(b, e, args) }

// choose is case: condition, value, condition, value, …, else.
func choose(_ *binder, e *expr, args []code) code {
	if len(args)%2 == 0 {
		wrong(ErrSemantic, e.at, "%s wants pairs of condition and value, and a last value", e.text)
	}
	last := len(args) - 1
	typ := args[last].typ
	for i := 0; i < last; i += 2 {
		if t := args[i].typ; t != Bool && t != Null {
			wrong(ErrSemantic, e.args[i].at, "%s wants a condition here, not a %s", e.text, t)
		}
		typ = common(e, i+1, typ, args[i+1].typ)
	}
	return join(typ, args, func(row []Value) Value {
		for i := 0; i < last; i += 2 {
			if args[i].eval(row).isTrue() {
				return as(typ, args[i+1].eval(row))
			}
		}
		return as(typ, args[last].eval(row))
	})
}

func coalesce(_ *binder, e *expr, args []code) code {
	typ := args[0].typ
	for i, a := range args[1:] {
		typ = common(e, i+1, typ, a.typ)
	}
	return join(typ, args, func(row []Value) Value {
		for _, a := range args {
			if v := a.eval(row); v.typ != Null && (v.typ != String || v.s != "") {
				return as(typ, v)
			}
		}
		return as(typ, null)
	})
}

// as makes a number of the type that its column has, and an empty string of
// what a string column has nothing for.
func as(typ Type, v Value) Value {
	switch {
	case typ == String && v.typ == Null:
		return Str("")
	case typ == Real && v.typ.number():
		return Float(v.real())
	}
	return v
}

func toNumber(typ Type) func(*binder, *expr, []code) code {
	return func(_ *binder, e *expr, args []code) code {
		a := args[0]
		if t := a.typ; !t.number() && t != String && t != Bool && t != Null {
			wrong(ErrSemantic, e.args[0].at, "%s makes no number of a %s", e.text, t)
		}
		return join(typ, args, func(row []Value) Value {
			v := a.eval(row)
			switch {
			case v.typ == Null:
				return v
			case v.typ == String:
				f, err := strconv.ParseFloat(strings.TrimSpace(v.s), 64)
				if err != nil {
					return null
				}
				if n, err := strconv.ParseInt(strings.TrimSpace(v.s), 10, 64); err == nil {
					v = Num(n)
				} else {
					v = Float(f)
				}
			}
			switch {
			case typ == Real:
				return Float(v.real())
			case v.typ == Real:
				v = whole(Long, v.real())
			}
			if v.typ == Null || typ == Int && v.n != int64(int32(v.n)) {
				return null
			}
			return Value{typ: typ, n: v.n}
		})
	}
}

func fromText(e *expr, args []code, typ Type, parse func(string) (Value, bool)) func([]Value) Value {
	a := args[0]
	if a.typ != String && a.typ != typ && a.typ != Null {
		wrong(ErrSemantic, e.args[0].at, "%s wants a string here, not a %s", e.text, a.typ)
	}
	return func(row []Value) Value {
		v := a.eval(row)
		if v.typ != String {
			return v
		}
		if parsed, ok := parse(v.s); ok {
			return parsed
		}
		return null
	}
}
