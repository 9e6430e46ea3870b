package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/spool"
	"signdrop/tools/signdrop/proof"
)

// print says in words what was found. A line of a batch takes one line, an answer
// alone as many as it needs.
func (v *verify) print(name string, f *proof.Finding) {
	a := f.Answer
	where := name
	if a.Line > 0 {
		where = fmt.Sprintf("%s: line %d", name, a.Line)
	}
	fmt.Fprintf(v.out, "%s: %s\n", printable(where), printable(headline(f)))
	for _, p := range f.Problems {
		fmt.Fprintf(v.out, "  problem: %s\n", printable(p))
	}
	if a.Line == 0 || len(f.Problems) > 0 {
		v.details(name, f)
	}
}

func headline(f *proof.Finding) string {
	a := f.Answer
	if len(f.Problems) > 0 {
		return "DO NOT TRUST THIS"
	}
	switch a.Type {
	case answer.TypeSign:
		if a.Line == 0 {
			return "good signature" // details say of what
		}
		if a.Operation == "" {
			return "good signature, data of " + plural(len(a.Payload), "byte")
		}
		text := "good signature, " + a.Operation
		for _, field := range f.Fields {
			text += " " + field.Name + "=" + inLine(field.Value)
		}
		return text
	case answer.TypeCreate:
		return "wallet " + a.Wallet + " was created; there is no signature to check"
	case answer.TypeBind:
		return "wallet " + a.Wallet + " was bound to " + a.Address + "; there is no signature to check"
	case answer.TypeRefusal:
		if a.Field != "" {
			return "refused: " + a.Code + ": field " + a.Field + ": " + a.Message
		}
		return "refused: " + a.Code + ": " + a.Message
	case answer.TypeBatch:
		return fmt.Sprintf("a batch of %s, %d refused", plural(a.Count, "request"), a.Refused)
	}
	return strings.TrimSuffix(a.Type, ".result") + ": " + a.Verdict + "; there is no signature to check"
}

// details prints all that an answer says.
func (v *verify) details(name string, f *proof.Finding) {
	a := f.Answer
	t := newTable(v.out)
	row := func(head, text string) {
		if text != "" {
			t.row("  "+head, text)
		}
	}
	row("reference", a.Reference)
	row("company", a.Company)
	row("title", a.Title)
	row("wallet", a.Wallet)
	row("address", a.Address)
	row("curve", a.Curve)
	if a.PublicKey != "" {
		row("key", v.keyNote())
	}
	row("algorithm", a.Algorithm)
	if a.Type == answer.TypeSign {
		row("operation", or(a.Operation, "none: the text is signed as data"))
		for _, field := range f.Fields {
			row("  "+field.Name, oneLine(field.Value))
		}
		row("text", a.Payload)
	}
	rowOpen(row, f.NotCovered, f.AlsoMeans)
	row("kind", a.Kind)
	row("network", a.Network)
	row("fingerprint", a.Fingerprint)
	for _, e := range a.Accounts {
		row(e.Script, e.Descriptor)
	}
	for _, e := range a.Addresses {
		row(or(e.Path, "address"), e.Address)
	}
	for _, e := range a.Wallets {
		row(e.Wallet, strings.Join(slices.Concat([]string{or(e.Kind, e.Curve), e.Status}, slices.Sorted(maps.Values(e.Addresses))), " "))
	}
	row("status", a.Status)
	row("not after", a.NotAfter)
	row("data key", a.Key)
	row("format", a.Format)
	for _, e := range a.Companies {
		row(e.Company, strings.TrimSpace(e.Status+", "+plural(e.Signers, "signer")+" "+e.Name))
	}
	row("next", a.Next)
	for _, print := range a.Admins {
		row("administrator", print)
	}
	if a.Threshold > 0 {
		row("threshold", fmt.Sprint(a.Threshold))
	}
	row("backup", a.Backup)
	if a.File != "" {
		row("file", fmt.Sprintf("%s, %s, SHA-256 %s", a.File, plural(int(a.Size), "byte"), a.SHA256))
	}
	row("since", a.Since)
	row("time", a.Time)
	row("restore", a.Restore)
	for _, e := range a.Files {
		row("file", fmt.Sprintf("%s, %s, SHA-256 %s", or(spool.Beside(filepath.Base(name), e.Ending), "NAME"+e.Ending), plural(int(e.Size), "byte"), e.SHA256))
	}
	row("request", v.requestNote(a))
	row("hint", a.Hint)
	if a.Type == answer.TypeRefusal && a.Retry {
		row("", "the same request may be dropped again once the cause is gone")
	}
	// Nothing fails: the writer beneath is a buffer that reports at its end.
	t.flush()
	if a.Submit != nil {
		printSubmit(v.out, a.Submit)
	}
}

// rowOpen says what a signature leaves open.
func rowOpen(row func(head, text string), notCovered, alsoMeans []string) {
	if len(notCovered) > 0 {
		row("not covered", strings.Join(notCovered, ", "))
		row("", "whoever submits it may choose these")
	}
	if len(alsoMeans) > 0 {
		row("also means", strings.Join(alsoMeans, ", "))
		row("", "the same signature can be used for these operations")
	}
}

func (v *verify) keyNote() string {
	if v.pinned != nil {
		return "compared with " + v.keyFile
	}
	return "the answer's own; compare it with the one you know: --key FILE"
}

func (v *verify) requestNote(a *answer.Answer) string {
	if v.asked != nil && a.Request == v.asked.digest {
		return "is " + v.requestFile
	}
	return a.Request
}

func printSubmit(w io.Writer, s *answer.Submit) {
	fmt.Fprintf(w, "  submit to the node: %s %s\n", printable(s.Method), printable(s.Path))
	t := newTable(w)
	for _, name := range slices.Sorted(maps.Keys(s.Form)) {
		t.row("    "+name, oneLine(s.Form[name])) // a key in PEM has lines
	}
	t.flush()
	if len(s.Missing) > 0 {
		fmt.Fprintf(w, "    the other signer has still to give %s\n", printable(strings.Join(s.Missing, ", ")))
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// finding is what --json prints for one answer. Its names do not change.
type finding struct {
	File       string        `json:"file"`
	Line       int           `json:"line,omitzero"`
	Type       string        `json:"type"`
	Verdict    string        `json:"verdict"` // as the answer says
	Good       bool          `json:"good"`    // nothing speaks against it
	Signed     bool          `json:"signed"`  // it has a signature that verifies
	Pinned     bool          `json:"pinned"`  // its key was compared with one that was given
	Problems   []string      `json:"problems,omitempty"`
	Reference  string        `json:"reference,omitempty"`
	Request    string        `json:"request_sha256,omitempty"`
	Wallet     string        `json:"wallet,omitempty"`
	Algorithm  string        `json:"algorithm,omitempty"`
	Operation  string        `json:"operation,omitempty"`
	Fields     []proof.Field `json:"fields,omitempty"`
	Payload    string        `json:"payload,omitempty"`
	NotCovered []string      `json:"not_covered,omitempty"`
	AlsoMeans  []string      `json:"also_means,omitempty"`
	Code       string        `json:"code,omitempty"`
	Message    string        `json:"message,omitempty"`
	Hint       string        `json:"hint,omitempty"`
}

func (v *verify) printJSON(name string, f *proof.Finding) error {
	a := f.Answer
	good := len(f.Problems) == 0
	return printJSON(v.out, finding{
		File: name, Line: a.Line, Type: a.Type, Verdict: a.Verdict,
		Good: good, Signed: f.Signed, Pinned: good && v.pinned != nil && a.PublicKey != "", Problems: f.Problems,
		Reference: a.Reference, Request: a.Request, Wallet: a.Wallet, Algorithm: a.Algorithm,
		Operation: a.Operation, Fields: f.Fields, Payload: a.Payload,
		NotCovered: f.NotCovered, AlsoMeans: f.AlsoMeans, Code: a.Code, Message: a.Message, Hint: a.Hint,
	})
}

// printJSON prints one line of JSON.
func printJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
