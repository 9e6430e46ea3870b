package metacoin

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/reason"
)

// A shape says what a value that is JSON text must hold. Nothing beyond it is
// taken: an unknown member would be signed with the rest and mean nothing.
// Exactly one of str, integer, elem, members and key is set.
type shape struct {
	str *kind // a string of this kind

	integer bool // a number, in the few places where the chaincode wants one

	elem   *shape // an array of these
	unique string // the member that no two elements may share; "." the elements themselves

	members []member // an object

	key   *kind // an object with names of this kind
	value *kind // and strings of this kind

	// The smallest and greatest number, or number of elements or names.
	least, most int64
}

type member struct {
	name     string
	required bool // must be there
	blank    bool // may be ""
	shape    *shape
}

// The shapes as the table writes them: a string member must be there and say
// something, must be there (mustSay), or may be there.
func must(name string, k kind) member {
	return member{name: name, required: true, shape: each(k)}
}
func mustSay(name string, k kind) member {
	return member{name: name, required: true, blank: true, shape: each(k)}
}
func may(name string, k kind) member {
	return member{name: name, blank: true, shape: each(k)}
}
func mustBe(name string, s *shape) member { return member{name: name, required: true, shape: s} }
func mayBe(name string, s *shape) member  { return member{name: name, shape: s} }

func each(k kind) *shape                { return &shape{str: &k} }
func integer(least, most int64) *shape  { return &shape{integer: true, least: least, most: most} }
func object(members ...member) *shape   { return &shape{members: members} }
func dict(most int64, k, v kind) *shape { return &shape{key: &k, value: &v, most: most} }
func list(most int64, e *shape) *shape  { return &shape{elem: e, least: 1, most: most} }

func (s *shape) noTwo(unique string) *shape {
	s.unique = unique
	return s
}

// name says what kind of JSON value it is.
func (s *shape) name() string {
	switch {
	case s.elem != nil:
		return "json array"
	case s.members != nil, s.key != nil:
		return "json object"
	case s.integer:
		return "json number"
	}
	return "json string"
}

// describe puts the shape in a line, for help.
func (s *shape) describe() string {
	switch {
	case s.elem != nil:
		return strconv.FormatInt(s.least, 10) + " to " + strconv.FormatInt(s.most, 10) + " of " + s.elem.describe()
	case s.members != nil:
		parts := make([]string, len(s.members))
		for i, m := range s.members {
			parts[i] = m.name
			if !m.required {
				parts[i] += "?"
			}
			if m.shape.str == nil {
				parts[i] += " (" + m.shape.describe() + ")"
			}
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case s.key != nil:
		return "at most " + strconv.FormatInt(s.most, 10) + " of {" + s.key.name + ": " + s.value.name + "}"
	case s.integer:
		return "a number without quotes"
	}
	return s.str.name
}

// rows are the strings in the outermost array or object of a JSON value: one
// row an element (an object alone is one row), one column a member in the
// shape's order, "" where a member is absent or no string. An array of strings
// has one column.
type rows struct {
	columns int
	cells   []string
}

func (r *rows) len() int {
	if r.columns == 0 {
		return 0
	}
	return len(r.cells) / r.columns
}

func (r *rows) at(row, column int) string { return r.cells[row*r.columns+column] }

// column finds a member among the columns; "." is the only one of an array of
// strings. A name that the shape does not have is a mistake in the table.
func (s *shape) column(name string) int {
	if s.elem != nil {
		s = s.elem
	}
	i := s.find(name)
	if i < 0 && name == "." {
		i = 0
	}
	if i < 0 {
		panic("internal error: metacoin: no member " + name)
	}
	return i
}

func (s *shape) find(name string) int {
	for i := range s.members {
		if s.members[i].name == name {
			return i
		}
	}
	return -1
}

// read checks that text is one value of this shape. The refusal's field is
// relative to the value: "[3].address".
func (s *shape) read(text string) (rows, *reason.Refusal) {
	top := rows{columns: 1}
	switch {
	case s.elem != nil && s.elem.members != nil:
		top.columns = len(s.elem.members)
	case s.members != nil:
		top.columns = len(s.members)
	}
	in := newReader(text, []byte(text))
	defer in.done()
	if r := s.check(in, &top.cells); r != nil {
		return rows{}, r
	}
	if _, err := in.ReadToken(); err != io.EOF {
		return rows{}, reason.New(reason.FieldInvalid, "give one "+s.name(), "holds more than one JSON value")
	}
	if s.unique != "" {
		if r := top.distinct(s); r != nil {
			return rows{}, r
		}
	}
	return top, nil
}

// distinct refuses two elements that share their unique member.
func (r *rows) distinct(s *shape) *reason.Refusal {
	column := s.column(s.unique)
	seen := make(map[string]int, r.len())
	for i := range r.len() {
		v := r.at(i, column)
		if first, twice := seen[v]; twice {
			err := reason.New(reason.FieldInvalid, "name each once only", "the same as in entry [%d]", first)
			if s.unique != "." {
				err = err.At(s.unique)
			}
			return within(err, index(i))
		}
		seen[v] = i
	}
	return nil
}

// check reads one value. cells is where the strings of the outermost array or
// object go, nil further inside.
func (s *shape) check(in *reader, cells *[]string) *reason.Refusal {
	switch {
	case s.elem != nil:
		return s.array(in, cells)
	case s.members != nil:
		return s.object(in, cells)
	case s.key != nil:
		return s.dict(in)
	case s.integer:
		return s.number(in)
	}
	v, r := s.str.read(in, false)
	if r == nil && cells != nil {
		*cells = append(*cells, v)
	}
	return r
}

func (s *shape) array(in *reader, cells *[]string) *reason.Refusal {
	if r := open(in, '[', s.name()); r != nil {
		return r
	}
	n := int64(0)
	for ; in.PeekKind() != ']'; n++ {
		if n == s.most {
			return s.tooMany()
		}
		if r := s.elem.check(in, cells); r != nil {
			return within(r, index(int(n)))
		}
	}
	if n < s.least {
		return reason.New(reason.FieldInvalid, "give at least "+strconv.FormatInt(s.least, 10), "holds too few entries")
	}
	return token(in)
}

func (s *shape) object(in *reader, cells *[]string) *reason.Refusal {
	if r := open(in, '{', s.name()); r != nil {
		return r
	}
	var row []string
	if cells != nil {
		for range s.members {
			*cells = append(*cells, "")
		}
		row = (*cells)[len(*cells)-len(s.members):]
	}
	var seen uint64
	for in.PeekKind() == '"' {
		name, r := str(in)
		if r != nil {
			return r
		}
		i := s.find(name)
		if i < 0 {
			return reason.New(reason.FieldUnknown, "leave it out; known are "+s.describe(), "unknown").At(shown(name))
		}
		seen |= 1 << i
		m := &s.members[i]
		if m.shape.str == nil {
			r = m.shape.check(in, nil)
		} else {
			var v string
			if v, r = m.shape.str.read(in, m.blank); row != nil {
				row[i] = v
			}
		}
		if r != nil {
			return within(r, name)
		}
	}
	if r := token(in); r != nil {
		return r
	}
	for i := range s.members {
		if s.members[i].required && seen&(1<<i) == 0 {
			return reason.New(reason.FieldMissing, "give "+s.describe(), "missing").At(s.members[i].name)
		}
	}
	return nil
}

func (s *shape) dict(in *reader) *reason.Refusal {
	if r := open(in, '{', s.name()); r != nil {
		return r
	}
	for n := int64(0); in.PeekKind() == '"'; n++ {
		name, r := str(in)
		switch {
		case r != nil:
			return r
		case n == s.most:
			return s.tooMany()
		case name == "" || !s.key.is(name):
			return s.key.explain(name).At(index(int(n)))
		}
		if _, r := s.value.read(in, false); r != nil {
			return within(r, shown(name))
		}
	}
	return token(in)
}

// number takes plain digits only: the chaincode's integers take neither 1e3
// nor 1.0.
func (s *shape) number(in *reader) *reason.Refusal {
	if r := expect(in, '0', s.name()); r != nil {
		return r
	}
	v, _, err := in.next()
	if err != nil {
		return notJSON(err)
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || !isDigits(v) || n < s.least || n > s.most {
		return reason.New(reason.FieldInvalid,
			"give "+strconv.FormatInt(s.least, 10)+" to "+strconv.FormatInt(s.most, 10)+" in plain digits",
			"not a whole number in range")
	}
	return nil
}

func (s *shape) tooMany() *reason.Refusal {
	return reason.New(reason.FieldInvalid, "give at most "+strconv.FormatInt(s.most, 10), "holds too many entries")
}

// read reads a string of kind k; blank says whether "" will do.
func (k *kind) read(in *reader, blank bool) (string, *reason.Refusal) {
	if r := expect(in, '"', "json string"); r != nil {
		return "", r
	}
	v, r := str(in)
	if r != nil {
		return "", r
	}
	if v == "" && blank || v != "" && k.is(v) {
		return v, nil
	}
	return "", k.explain(v)
}

// expect refuses a value of another JSON kind without reading it.
func expect(in *reader, want jsontext.Kind, name string) *reason.Refusal {
	got := in.PeekKind()
	if got == want {
		return nil
	}
	if got == 0 {
		if r := token(in); r != nil {
			return r
		}
	}
	return wrongKind(got, name)
}

// wrongKind refuses a JSON value that is of another kind than name says.
func wrongKind(got jsontext.Kind, name string) *reason.Refusal {
	hint := "give a " + name
	if got == '0' && name == "json string" {
		hint = "put the number in quotes: every value is a JSON string, which keeps its digits as they are"
	}
	return reason.New(reason.FieldInvalid, hint, "not a %s", name)
}

// open reads the bracket that an array or object begins with.
func open(in *reader, bracket jsontext.Kind, name string) *reason.Refusal {
	if r := expect(in, bracket, name); r != nil {
		return r
	}
	return token(in)
}

// token reads a token that says nothing of its own.
func token(in *reader) *reason.Refusal {
	if _, err := in.ReadToken(); err != nil {
		return notJSON(err)
	}
	return nil
}

// str reads a string, a member's name or its value.
func str(in *reader) (string, *reason.Refusal) {
	v, _, err := in.next()
	if err != nil {
		return "", notJSON(err)
	}
	return unquote(v), nil
}

// notJSON is the refusal for text in a field that is not strict JSON. The
// decoder's own words are left out: they can quote the text.
func notJSON(err error) *reason.Refusal {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return reason.New(reason.FieldInvalid, "give each name once", "holds a name twice")
	}
	return reason.New(reason.FieldInvalid, "give JSON in UTF-8, as RFC 8259 and RFC 7493 have it", "not strict JSON")
}

// within puts a refusal's field below a member or an entry:
// within("address", "[3]") is "[3].address".
func within(r *reason.Refusal, parent string) *reason.Refusal {
	if strings.HasPrefix(r.Field, "[") {
		return r.At(parent + r.Field)
	}
	return r.Under(parent)
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// shown is a name out of a request as a refusal may repeat it: what does not
// look like a name could be anything, a secret included.
func shown(name string) string {
	if len(name) > 40 || !isAlnum(strings.ReplaceAll(name, "_", "")) {
		return "?"
	}
	return name
}
