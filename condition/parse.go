package condition

import (
	"strings"
	"unicode/utf8"
)

// Parse reads a condition. Its errors are *Error.
//
// AND and OR side by side need parentheses, as they do in Azure: what was meant
// cannot be told from what was written, and this decides who may enter.
func Parse(text string) (*Condition, error) {
	p := parser{lexer: lexer{text: text}}
	if len(text) > MaxLength {
		return nil, p.fail(MaxLength, "a condition has at most %d bytes, this one has %d", MaxLength, len(text))
	}
	if !utf8.ValidString(text) {
		return nil, p.fail(0, "the condition is not UTF-8")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	root, err := p.junction()
	if err != nil {
		return nil, err
	}
	if p.now.kind != end {
		return nil, p.expected("AND, OR or the end of the condition")
	}
	return &Condition{text: text, root: root, patterns: p.patterns}, nil
}

type parser struct {
	lexer
	now      lexeme
	depth    int
	patterns []Pattern
}

func (p *parser) advance() (err *Error) {
	p.now, err = p.next()
	return err
}

func (p *parser) source(x *lexeme) string { return p.text[x.at:x.to] }

func (p *parser) is(text string) bool {
	return (p.now.kind == mark || p.now.kind == word) && p.source(&p.now) == text
}

// expected is the failure of finding something else than what may stand here.
func (p *parser) expected(what string) *Error {
	if p.now.kind == end {
		return p.fail(p.now.at, "expected %s, found the end of the condition", what)
	}
	return p.fail(p.now.at, "expected %s, found %s", what, clip(p.source(&p.now)))
}

func (p *parser) take(text, after string) *Error {
	if !p.is(text) {
		return p.expected(text + " " + after)
	}
	return p.advance()
}

// junction is terms joined by AND, or by OR.
func (p *parser) junction() (expr, *Error) {
	first, err := p.term()
	if err != nil {
		return nil, err
	}
	var terms []expr
	joint := ""
	for {
		this := ""
		switch {
		case p.is("AND") || p.is("&&"):
			this = "AND"
		case p.is("OR") || p.is("||"):
			this = "OR"
		}
		switch {
		case this == "" && joint == "":
			return first, nil
		case this == "" && joint == "AND":
			return allOf(terms), nil
		case this == "":
			return anyOf(terms), nil
		case joint == "":
			joint, terms = this, append(terms, first)
		case joint != this:
			return nil, p.fail(p.now.at, "expected parentheses: %s stands beside %s, and which goes first is not said", this, joint)
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		one, err := p.term()
		if err != nil {
			return nil, err
		}
		terms = append(terms, one)
	}
}

func (p *parser) term() (expr, *Error) {
	if !p.is("NOT") && !p.is("!") {
		return p.primary()
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	of, err := p.primary()
	return not{of}, err
}

func (p *parser) primary() (expr, *Error) {
	switch {
	case p.is("("):
		return p.group()
	case p.is("ActionMatches"):
		at := p.now.at
		pattern, err := p.pattern()
		line, column := place(p.text, at)
		p.patterns = append(p.patterns, Pattern{pattern, line, column})
		return action(pattern), err
	case p.is("SubOperationMatches"):
		pattern, err := p.pattern()
		return suboperate(pattern), err
	case p.is("Exists"):
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.now.kind != attribute {
			return nil, p.expected("an attribute after Exists, such as " + examples[0])
		}
		from, _, err := p.attribute()
		if err != nil {
			return nil, err
		}
		return exists(from), p.advance()
	case p.now.kind == attribute, p.now.kind == quoted, p.now.kind == number, p.is("{"), p.is("true"), p.is("false"):
		return p.comparison()
	case p.now.kind == word:
		return nil, p.misspelt("a condition", "NOT", "ActionMatches", "SubOperationMatches", "Exists", "true", "false")
	}
	return nil, p.expected("a condition")
}

func (p *parser) group() (expr, *Error) {
	from := p.now.at
	if p.depth++; p.depth > MaxDepth {
		return nil, p.fail(from, "parentheses are nested more than %d deep", MaxDepth)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	inside, err := p.junction()
	if err != nil {
		return nil, err
	}
	if !p.is(")") {
		return nil, p.expected("AND, OR or the ) that closes the ( at " + spot(place(p.text, from)))
	}
	p.depth--
	return inside, p.advance()
}

// pattern is what stands between the braces of ActionMatches{'…'}.
func (p *parser) pattern() (string, *Error) {
	name := p.source(&p.now)
	if err := p.advance(); err != nil {
		return "", err
	}
	if err := p.take("{", "after "+name); err != nil {
		return "", err
	}
	if p.now.kind != quoted {
		return "", p.expected("a pattern in single quotes")
	}
	out := p.now.inner
	if err := p.advance(); err != nil {
		return "", err
	}
	return out, p.take("}", "after the pattern")
}

// side is an operand before it is known what it is compared as.
type side struct {
	at       int
	from     source
	of       domain // of an attribute
	literals []lexeme
	set      bool // written with braces
}

func (p *parser) comparison() (expr, *Error) {
	left, err := p.side()
	if err != nil {
		return nil, err
	}
	name := p.now
	e := &comparison{}
	if err := p.operator(e); err != nil {
		return nil, err
	}
	right, err := p.side()
	if err != nil {
		return nil, err
	}
	of := p.source(&name)
	e.text = strings.TrimSpace(p.text[left.at:p.now.at])
	if e.left, err = p.operand(&left, e, of); err != nil {
		return nil, err
	}
	if e.right, err = p.operand(&right, e, of); err != nil {
		return nil, err
	}
	if e.left.from == fromText && e.right.from == fromText {
		// Nothing of the request is in it, so it is worked out once: two
		// long lists would else cost their product each time.
		return constant(e.compare(e.left.values, e.right.values)), nil
	}
	return e, nil
}

// operator reads an operator, with the quantifiers that may stand before it.
func (p *parser) operator(e *comparison) *Error {
	if p.now.kind != word {
		return p.expected("an operator such as StringEquals")
	}
	name := p.source(&p.now)
	how, bare, crossing := strings.Cut(name, ":")
	if !crossing {
		bare = how
	}
	op, ok := operators[bare]
	switch q, known := quantifiers[how]; {
	case crossing && !known:
		return p.fail(p.now.at, "there is no %s: expected ForAnyOfAnyValues, ForAllOfAnyValues, ForAnyOfAllValues or ForAllOfAllValues", clip(how))
	case !ok && crossing:
		return p.fail(p.now.at+len(how)+1, "there is no operator %s%s", clip(bare), meant(bare))
	case !ok:
		return p.fail(p.now.at, "there is no operator %s%s", clip(bare), meant(bare))
	case crossing && !op.crosses:
		return p.fail(p.now.at, "%s does not go with %s", bare, how)
	default:
		e.operator, e.quantifier = op, q
	}
	return p.advance()
}

// meant is the operator that somebody had in mind who wrote it in other
// letters.
func meant(name string) string {
	for known := range operators {
		if equal(known, name, true) {
			return "; it is written " + known
		}
	}
	return ""
}

func (p *parser) misspelt(what string, known ...string) *Error {
	err := p.expected(what)
	for _, k := range known {
		if equal(k, p.source(&p.now), true) {
			err.Why += "; it is written " + k
		}
	}
	return err
}

func (p *parser) side() (side, *Error) {
	s := side{at: p.now.at}
	switch {
	case p.now.kind == attribute:
		var err *Error
		if s.from, s.of, err = p.attribute(); err != nil {
			return s, err
		}
		return s, p.advance()
	case p.is("{"):
		s.set = true
		return s, p.set(&s)
	}
	return s, p.literal(&s)
}

// set is values between braces.
func (p *parser) set(s *side) *Error {
	for {
		if err := p.advance(); err != nil { // past { or a comma
			return err
		}
		if err := p.literal(s); err != nil {
			return err
		}
		if !p.is(",") {
			return p.take("}", "or a comma after a value")
		}
	}
}

func (p *parser) literal(s *side) *Error {
	if p.now.kind != quoted && p.now.kind != number && !p.is("true") && !p.is("false") {
		if p.now.kind == word {
			return p.misspelt("a value", "true", "false")
		}
		if p.now.kind == attribute || p.is("{") {
			return p.expected("a value: braces hold texts in single quotes, whole numbers, true or false")
		}
		return p.expected("a value")
	}
	s.literals = append(s.literals, p.now)
	return p.advance()
}

// operand makes of a side what an operator compares.
func (p *parser) operand(s *side, e *comparison, name string) (operand, *Error) {
	if s.from != fromText {
		if s.of != e.of {
			return operand{}, p.fail(s.at, "%s compares %s, and this attribute is one of %s", clip(name), domainNames[e.of], domainNames[s.of])
		}
		return operand{from: s.from}, nil
	}
	if len(s.literals) > 1 && !strings.Contains(name, ":") {
		return operand{}, p.fail(s.at, "%s compares one value with one; for several write ForAnyOfAnyValues:%s or another of its kind", name, name)
	}
	out := operand{values: make([]value, len(s.literals))}
	for i := range s.literals {
		x := &s.literals[i]
		v, err := e.of.parse(x, p.source(x))
		if err != nil {
			return operand{}, p.fail(x.at, "%s compares %s: %s", clip(name), domainNames[e.of], err)
		}
		out.values[i] = v
	}
	return out, nil
}
