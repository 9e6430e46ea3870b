package bitcoin

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/answer"
)

// paid answers a PSBT as the appliance does: inline, or with files beside it.
func paid(t testing.TB, data []byte, r *ring, inline bool) *answer.Answer {
	t.Helper()
	p, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	p.inline = inline
	tx, err := p.Check(Rules{}, r)
	if err != nil {
		t.Fatal(err)
	}
	var sigs []string
	for _, w := range tx.Wants() {
		sigs = append(sigs, base64.StdEncoding.EncodeToString(r.sign(t, w)))
	}
	pay := NewPayment(p, tx, make([]int, len(sigs)))
	report, files, err := pay.Finish([]string{"W_1"}, sigs, false)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer.Answer{
		Type: answer.TypeSign, Verdict: "signed", Operation: "payment", Ledger: "bitcoin",
		Own: map[string]jsontext.Value{"bitcoin": raw},
	}
	for _, f := range files {
		sum := sha256.Sum256(f.Data)
		a.Files = append(a.Files, answer.FileEntry{Ending: f.Suffix, Size: int64(len(f.Data)), SHA256: hex.EncodeToString(sum[:])})
		if a.Beside == nil {
			a.Beside = map[string][]byte{}
		}
		a.Beside[f.Suffix] = f.Data
	}
	return a
}

// half is a transaction of which somebody else has to sign a part.
func half(t testing.TB, r *ring) []byte {
	p := newPlan()
	p.coin(t, r, kindP2WPKH, 1, 100_000)
	other := newRing("bob")
	ours, theirs := public(r.key(2)), public(other.key(1))
	script := multisig(2, ours, theirs)
	m := p.spend(50_000, p2wshScript(script))
	m.put([]byte{inWitness}, script)
	m.put(append([]byte{inDerivation}, ours...), r.origin(ours))
	m.put(append([]byte{inDerivation}, theirs...), other.origin(theirs))
	p.coin(t, other, kindP2WPKH, 9, 1000)
	p.pay(100_000)
	p.change(r, 3, 50_000)
	return p.bytes()
}

func sound(t testing.TB, what string, a *answer.Answer) {
	t.Helper()
	if f := explain(a); !f.Signed || len(f.Problems) > 0 {
		t.Fatalf("%s: signed %t, %q", what, f.Signed, f.Problems)
	}
}

// alter calls f with every variant of a JSON value in which one leaf is another or one
// entry is gone, and with the leaf's path.
func alter(v any, path string, f func(path string)) {
	switch v := v.(type) {
	case map[string]any:
		for name, old := range v {
			at := path + "." + name
			set := func(to any) { v[name] = to; f(at); v[name] = old }
			switch x := old.(type) {
			case string:
				set(x + "0")
				if x != "" {
					set(x[:len(x)-1])
				}
			case float64:
				set(x + 1)
			case bool:
				set(!x)
			default:
				alter(old, at, f)
			}
			delete(v, name)
			f(at + " gone")
			v[name] = old
		}
	case []any:
		for i, old := range v {
			at := fmt.Sprintf("%s[%d]", path, i)
			if s, ok := old.(string); ok {
				v[i] = s + "0"
				f(at)
				v[i] = old
			}
			alter(old, at, f)
		}
	}
}

// TestExplainAltered: an answer of which any member was changed is not sound. Which
// wallet signed is the appliance's word.
func TestExplainAltered(t *testing.T) {
	alice := newRing("alice")
	for name, data := range map[string][]byte{"whole": everyKind(t, alice, 0).bytes(), "half": half(t, alice), "version 2": everyKind(t, alice, 2).bytes()} {
		for _, inline := range []bool{false, true} {
			what := fmt.Sprintf("%s, inline %t", name, inline)
			a := paid(t, data, alice, inline)
			sound(t, what, a)
			good := a.Own["bitcoin"]
			var v any
			if err := json.Unmarshal(good, &v); err != nil {
				t.Fatal(err)
			}
			n := 0
			alter(v, "", func(path string) {
				if strings.HasSuffix(path, ".wallet") {
					return
				}
				raw, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				// What is left out because it is zero may as well be gone.
				var same Report
				var was Report
				if json.Unmarshal(raw, &same) == nil && json.Unmarshal(good, &was) == nil {
					x, _ := json.Marshal(same)
					y, _ := json.Marshal(was)
					if bytes.Equal(x, y) {
						return
					}
				}
				n++
				if testing.Short() && n%40 != 0 {
					return
				}
				a.Own["bitcoin"] = raw
				if f := explain(a); len(f.Problems) == 0 {
					t.Errorf("%s: nobody sees that %s is another", what, path)
				}
			})
			a.Own["bitcoin"] = good
			sound(t, what, a)
			if n < 50 {
				t.Errorf("%s: %d variants", what, n)
			}
		}
	}
}

// TestExplainVague: where others have to sign yet and there are several ways to do so,
// only the owner of the keys knows which is meant. That is no reason for an alarm; that
// the input lacks something is known.
func TestExplainVague(t *testing.T) {
	alice, bob := newRing("alice"), newRing("bob")
	p := newPlan().pay(95_000)
	p.leafCoin(t, 100_000, public(bob.key(5))[1:], 2, []*ring{alice, bob}, 20)
	a := paid(t, p.bytes(), alice, false)
	sound(t, "two ways", a)
	good := string(a.Own["bitcoin"])
	if !strings.Contains(good, `"missing":[{"input":0`) {
		t.Fatal(good)
	}
	for _, c := range [][2]string{{`"missing":[{"input":0`, `"missing":[{"input":1`}, {`"fee":5000`, `"fee":500`}, {`"complete":false`, `"complete":true`}} {
		a.Own["bitcoin"] = []byte(strings.Replace(good, c[0], c[1], 1))
		if f := explain(a); string(a.Own["bitcoin"]) == good || len(f.Problems) == 0 {
			t.Errorf("nobody sees %s", c[1])
		}
	}
}

// TestExplainLeaves: a key that signs several leaves of an input has several signatures,
// and each is told once.
func TestExplainLeaves(t *testing.T) {
	alice := newRing("alice")
	p := newPlan()
	p.bushCoin(t, alice, 4, 18)
	a := paid(t, p.pay(95_000).bytes(), alice, false)
	sound(t, "four leaves", a)
	var r Report
	if err := json.Unmarshal(a.Own["bitcoin"], &r); err != nil || len(r.Signed) != 4*18 {
		t.Fatalf("%d signatures, %v", len(r.Signed), err)
	}
	r.Signed[5] = r.Signed[3]
	a.Own["bitcoin"], _ = json.Marshal(r)
	if f := explain(a); f.Signed || len(f.Problems) == 0 {
		t.Error("nobody sees that a signature is told twice")
	}
}

// TestExplainElse: what does not belong to a payment's answer, and files that are not
// its own.
func TestExplainElse(t *testing.T) {
	alice := newRing("alice")
	p := newPlan().pay(199_000)
	p.coin(t, alice, kindP2WPKH, 1, 100_000)
	p.coin(t, alice, kindP2PKH, 2, 100_000)
	data := p.bytes()
	other := paid(t, half(t, alice), alice, false)
	for name, change := range map[string]func(a *answer.Answer){
		"operation":       func(a *answer.Answer) { a.Operation = "transfer" },
		"public key":      func(a *answer.Answer) { a.PublicKey = "-----BEGIN PUBLIC KEY-----" },
		"payload":         func(a *answer.Answer) { a.Payload = "x" },
		"signature":       func(a *answer.Answer) { a.Signature = "x" },
		"wallet":          func(a *answer.Answer) { a.Wallet = "W_1" },
		"no report":       func(a *answer.Answer) { a.Own = nil },
		"no files":        func(a *answer.Answer) { a.Beside = nil },
		"no PSBT":         func(a *answer.Answer) { delete(a.Beside, "-signed.psbt") },
		"no transaction":  func(a *answer.Answer) { delete(a.Beside, "-final.txn") },
		"nothing named":   func(a *answer.Answer) { a.Files = nil },
		"other PSBT":      func(a *answer.Answer) { a.Beside["-signed.psbt"] = other.Beside["-part.psbt"] },
		"unsigned PSBT":   func(a *answer.Answer) { a.Beside["-signed.psbt"] = data },
		"transaction":     func(a *answer.Answer) { a.Beside["-final.txn"][200] ^= 1 },
		"more of it":      func(a *answer.Answer) { a.Beside["-final.txn"] = append(a.Beside["-final.txn"], "00"...) },
		"no hexadecimal":  func(a *answer.Answer) { a.Beside["-final.txn"][0] = 'x' },
		"another ending":  func(a *answer.Answer) { a.Files[0].Ending = "-part.psbt" },
		"answer of half":  func(a *answer.Answer) { a.Own = other.Own },
		"unsigned finale": func(a *answer.Answer) { a.Beside["-final.txn"] = bareFinal(t, data) },
	} {
		a := paid(t, data, alice, false)
		sound(t, name, a)
		change(a)
		if f := explain(a); len(f.Problems) == 0 {
			t.Errorf("%s: nobody sees it", name)
		}
	}
}

func bareFinal(t testing.TB, data []byte) []byte {
	p, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if err := p.tx.Serialize(&raw); err != nil {
		t.Fatal(err)
	}
	return hex.AppendEncode(nil, raw.Bytes())
}

// FuzzExplain: no answer and no files make it panic, and what is sound says what the
// PSBT says.
func FuzzExplain(f *testing.F) {
	alice := newRing("alice")
	p := newPlan().pay(99_000)
	p.coin(f, alice, kindP2TR, 1, 100_000)
	whole := paid(f, p.bytes(), alice, false)
	f.Add([]byte(whole.Own["bitcoin"]), whole.Beside["-signed.psbt"], whole.Beside["-final.txn"])
	part := paid(f, half(f, alice), alice, false)
	f.Add([]byte(part.Own["bitcoin"]), part.Beside["-part.psbt"], []byte(nil))
	inline := paid(f, half(f, alice), alice, true)
	f.Add([]byte(inline.Own["bitcoin"]), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, own, psbt, final []byte) {
		a := &answer.Answer{Type: answer.TypeSign, Operation: "payment", Ledger: "bitcoin", Own: map[string]jsontext.Value{"bitcoin": own}}
		switch {
		case final != nil:
			a.Files = []answer.FileEntry{{Ending: "-signed.psbt"}, {Ending: "-final.txn"}}
			a.Beside = map[string][]byte{"-signed.psbt": psbt, "-final.txn": final}
		case psbt != nil:
			a.Files = []answer.FileEntry{{Ending: "-part.psbt"}}
			a.Beside = map[string][]byte{"-part.psbt": psbt}
		}
		found := explain(a)
		if len(found.Problems) > 0 {
			return
		}
		var r Report
		if err := json.Unmarshal(own, &r); err != nil || !found.Signed || len(r.Signed) == 0 || len(found.Fields) == 0 {
			t.Fatalf("sound: %+v", found)
		}
	})
}
