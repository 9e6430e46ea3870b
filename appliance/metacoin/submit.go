package metacoin

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Submit is exactly what the Metacoin node takes: a request line and the form
// that goes into its body, urlencoded (with + as %2B) or as a JSON object.
type Submit struct {
	Method string // "POST" or "PUT"
	Path   string // "/transfer"; needs no escaping
	Form   []Field

	// Missing names the form fields that the other signer of the call has still
	// to give; the node refuses the call without them.
	Missing []string
}

// Field is one field of a form.
type Field struct{ Name, Value string }

// Submit returns the call that carries the signature to the node, or nil for
// an operation that neither node nor bridge has a route for. signature is the
// standard base64 of a DER signature over Text; it is not checked here.
//
// A field that was left out is left out here too, unless it is signed (then it
// is signed as empty) or the node demands it: those are there and empty.
func (t *Tx) Submit(signature string) *Submit {
	op := t.op
	if op.method == "" {
		return nil
	}
	s := &Submit{Method: op.method, Path: t.path()}
	if op.form != nil {
		s.Form = op.form(t, signature)
		return s
	}
	s.Form = make([]Field, 0, len(op.fields)+len(op.fixed)+1)
	for i := range op.fields {
		f, v := &op.fields[i], t.values[i]
		switch {
		case f.node == "-":
		case v == "" && f.use == awaited:
			s.Missing = append(s.Missing, f.name)
		case v != "" || f.use == sent:
			s.Form = append(s.Form, Field{f.formName(), v})
		}
	}
	s.Form = append(s.Form, op.fixed...)
	s.Form = append(s.Form, Field{op.signatureName(), signature})
	return s
}

// AppendJSON appends the submission as JSON, in the order of the form:
//
//	{"method":"POST","path":"/transfer","form":{"from":"MT…",…}}
//
// with "missing":["buyerNonce",…] at the end where something is.
func (s *Submit) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"method":`...)
	dst = quote(dst, s.Method)
	dst = append(dst, `,"path":`...)
	dst = quote(dst, s.Path)
	dst = append(dst, `,"form":{`...)
	for i, f := range s.Form {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = quote(dst, f.Name)
		dst = append(dst, ':')
		dst = quote(dst, f.Value)
	}
	dst = append(dst, '}')
	for i, name := range s.Missing {
		if i == 0 {
			dst = append(dst, `,"missing":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = quote(dst, name)
	}
	if len(s.Missing) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// quote appends a JSON string. Its error is for invalid UTF-8, which it
// replaces; no value of a Tx holds any.
func quote(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

// path fills the fields into the route. Their kinds leave nothing to escape.
func (t *Tx) path() string {
	if len(t.op.route) == 1 {
		return t.op.route[0]
	}
	var b strings.Builder
	for i, piece := range t.op.route {
		if i%2 == 1 {
			piece = t.value(piece)
		}
		b.WriteString(piece)
	}
	return b.String()
}

func (f *field) formName() string {
	if f.node == "" || f.node == pathToo {
		return f.name
	}
	return f.node
}

func (op *operation) signatureName() string {
	if op.signature == "" {
		return "signature"
	}
	return op.signature
}

// paymentForm is the form of an mrc100_payment: its signature is inside the
// list of players.
func paymentForm(t *Tx, signature string) []Field {
	entry := []byte(`[{"address":`)
	entry = quote(entry, t.value("address"))
	entry = append(entry, `,"amount":`...)
	entry = quote(entry, t.value("amount"))
	entry = append(entry, `,"memo":`...)
	entry = quote(entry, t.value("memo"))
	entry = append(entry, `,"signature":`...)
	entry = quote(entry, signature)
	entry = append(entry, `,"tkey":`...)
	entry = quote(entry, t.Nonce())
	entry = append(entry, "}]"...)
	return []Field{
		{"to", t.value("to")}, {"token", t.value("token")}, {"tag", t.value("tag")},
		{"userlist", string(entry)}, {"gameid", t.value("gameid")}, {"gamememo", t.value("gamememo")},
	}
}
