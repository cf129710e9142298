package condition

// The three truths, in their order: what AND takes the least of and OR the
// most, and NOT turns round.
const (
	no      int8 = -1
	unknown int8 = 0 // an attribute that the request does not have
	yes     int8 = 1
)

// truth is what an expression comes to. The two ends differ for the repository
// Any alone: they enclose what it comes to for each repository.
type truth struct{ least, most int8 }

func plainly(v bool) truth {
	if v {
		return truth{yes, yes}
	}
	return truth{no, no}
}

// expr is a part of a condition. What it comes to is eval's, not a method's: by
// way of an interface's method the request would have to be on the heap.
type expr interface{ isExpr() }

type (
	allOf      []expr
	anyOf      []expr
	not        struct{ of expr }
	constant   bool
	action     string // a pattern
	suboperate string
	exists     source
)

func (allOf) isExpr()       {}
func (anyOf) isExpr()       {}
func (not) isExpr()         {}
func (constant) isExpr()    {}
func (action) isExpr()      {}
func (suboperate) isExpr()  {}
func (exists) isExpr()      {}
func (*comparison) isExpr() {}

func eval(e expr, r *Request) truth {
	switch e := e.(type) {
	case allOf:
		out := truth{yes, yes}
		for _, of := range e {
			t := eval(of, r)
			out = truth{min(out.least, t.least), min(out.most, t.most)}
			if out.most == no {
				break
			}
		}
		return out
	case anyOf:
		out := truth{no, no}
		for _, of := range e {
			t := eval(of, r)
			out = truth{max(out.least, t.least), max(out.most, t.most)}
			if out.least == yes {
				break
			}
		}
		return out
	case not:
		t := eval(e.of, r)
		return truth{-t.most, -t.least}
	case constant:
		return plainly(bool(e))
	case action:
		return plainly(MatchAction(string(e), r.Action))
	case suboperate:
		return plainly(r.SubOperation != "" && MatchAction(string(e), r.SubOperation))
	case exists:
		_, has := source(e).of(r)
		return plainly(has != absent)
	case *comparison:
		return e.eval(r)
	}
	return truth{unknown, unknown}
}

// operand is one side of a comparison: an attribute, or values.
type operand struct {
	from   source // fromText: the values below
	values []value
}

type comparison struct {
	operator
	quantifier
	left, right operand
	text        string // as it is written
}

func (e *comparison) eval(r *Request) truth {
	var l, w [1]value
	left, leftHas := e.left.of(r, &l)
	right, rightHas := e.right.of(r, &w)
	switch {
	case leftHas == absent || rightHas == absent:
		return truth{unknown, unknown}
	case leftHas == every || rightHas == every:
		return truth{no, yes}
	}
	return plainly(e.compare(left, right))
}

func (o *operand) of(r *Request, room *[1]value) ([]value, presence) {
	if o.from == fromText {
		return o.values, present
	}
	v, has := o.from.of(r)
	room[0] = v
	return room[:], has
}

func (e *comparison) compare(left, right []value) bool {
	for _, l := range left {
		if e.one(l, right) != e.allLeft {
			return !e.allLeft
		}
	}
	return e.allLeft
}

func (e *comparison) one(l value, right []value) bool {
	for _, w := range right {
		if e.holds(l, w) != e.allRight {
			return !e.allRight
		}
	}
	return e.allRight
}

// source is where an operand's value comes from.
type source uint8

const (
	fromText source = iota
	repository
	privateLink
	endpoint
	subnet
	utcNow
)

type presence uint8

const (
	absent presence = iota
	present
	every // any value that a repository's name could be
)

func (s source) of(r *Request) (value, presence) {
	switch s {
	case repository:
		if r.Repository == Any {
			return value{}, every
		}
		return text(r.Repository)
	case privateLink:
		if r.PrivateLink {
			return value{n: 1}, present
		}
		return value{}, present
	case endpoint:
		return text(r.Endpoint)
	case subnet:
		return text(r.Subnet)
	case utcNow:
		if r.Now.IsZero() {
			return value{}, absent
		}
		return value{n: moment(r.Now)}, present
	}
	return value{}, absent
}

func text(s string) (value, presence) {
	if s == "" {
		return value{}, absent
	}
	return value{text: s}, present
}
