package metacoin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/metacoin"
	"signdrop/appliance/reason"
)

var plainPath = regexp.MustCompile(`^/[A-Za-z0-9_/]+$`)

// FuzzParse: no request makes Parse panic; what it refuses it refuses as the
// asker's to mend; and the text of what it accepts is what a second, slower way
// makes of the same fields.
func FuzzParse(f *testing.F) {
	for _, c := range accepted {
		f.Add([]byte("{" + expand(c.request) + "}"))
	}
	for _, s := range []string{sellOrder, auction, update, reward, newItems, saleItems, itemIDs, poll, vote, sealed, newArt, project, trade} {
		f.Add([]byte(expand(s)))
	}
	f.Add([]byte(`{"operation":"transfer","memo":"a\u007cb\ud83d\ude00"}`))

	rows := map[string]metacoin.Operation{}
	for _, op := range metacoin.Operations() {
		rows[op.Name+" "+op.Ledger] = op
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		tx, err := metacoin.Parse(raw)
		if !bytes.Equal(raw, before) {
			t.Fatal("Parse changed its input")
		}
		if err != nil {
			var r *reason.Refusal
			if tx != nil || !errors.As(err, &r) || !reason.Final(r.Code) {
				t.Fatalf("Parse: %v, %v", tx, err)
			}
			return
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatalf("accepted, but not by encoding/json: %v", err)
		}
		var ledger string
		json.Unmarshal(fields["ledger"], &ledger)
		op, ok := rows[tx.Operation()+" "+ledger]
		if !ok {
			op = rows[tx.Operation()+" "]
		}
		values := joined(t, op, fields)
		if want := strings.Join(values, "|"); tx.Text() != want {
			t.Errorf("Text:\n got %q\nwant %q", tx.Text(), want)
		}
		if got, want := strings.Count(tx.Text(), "|"), len(values)-1; got != want {
			t.Errorf("the text has %d separators for %d values", got, len(values))
		}

		previewHolds(t, tx, values)

		// The same fields in another spelling are the same transaction.
		again, err := metacoin.Parse(respell(t, fields))
		if err != nil {
			t.Fatalf("respelt: %v", err)
		}
		submit, resubmit := tx.Submit("S+/="), again.Submit("S+/=")
		if again.Text() != tx.Text() || again.Signer() != tx.Signer() || again.Nonce() != tx.Nonce() {
			t.Errorf("respelt: got %q, want %q", again.Text(), tx.Text())
		}
		if submit == nil {
			return
		}
		out := submit.AppendJSON(nil)
		if !bytes.Equal(out, resubmit.AppendJSON(nil)) {
			t.Errorf("respelt: got %s, want %s", resubmit.AppendJSON(nil), out)
		}
		if !json.Valid(out) || !plainPath.MatchString(submit.Path) {
			t.Errorf("Submit: %s", out)
		}
	})
}

// joined finds the values of the signed text by the description of the
// operation alone.
func joined(t *testing.T, op metacoin.Operation, fields map[string]json.RawMessage) []string {
	t.Helper()
	list, entry, _ := strings.Cut(op.Text, "[].")
	if entry == "" {
		var values []string
		for name := range strings.SplitSeq(op.Text, "|") {
			values = append(values, value(t, fields[name]))
		}
		return values
	}
	token, list, _ := strings.Cut(list, "|")
	values := []string{value(t, fields[token])}
	var entries []map[string]string
	if err := json.Unmarshal([]byte(value(t, fields[list])), &entries); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		values = append(values, e["address"], e["amount"], e["tag"])
	}
	return append(values, value(t, fields["nonce"]))
}

// value is what a field's JSON is signed as.
func value(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	if len(raw) == 0 {
		return ""
	}
	if raw[0] == '"' {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(s)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// respell writes the fields in another order, with every string trimmed and
// every character of it escaped.
func respell(t *testing.T, fields map[string]json.RawMessage) []byte {
	t.Helper()
	names := slices.Sorted(maps.Keys(fields))
	slices.Reverse(names)
	out := []byte("\n{")
	for i, name := range names {
		if i > 0 {
			out = append(out, " ,\t"...)
		}
		out = append(escape(out, name), " : "...)
		if raw := fields[name]; raw[0] != '"' {
			out = append(out, raw...)
		} else {
			out = escape(out, value(t, raw))
		}
	}
	return append(out, "} "...)
}

func escape(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		if r > 0xffff {
			dst = append(dst, string(r)...)
			continue
		}
		dst = append(dst, '\\', 'u', hex[r>>12], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	return append(dst, '"')
}
