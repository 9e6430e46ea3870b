package bitcoin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"testing"

	"signdrop/appliance/reason"
)

// everything owns all keys, so that as much code as possible sees the bytes.
type everything struct{}

func (everything) Knows([4]byte) bool { return true }
func (everything) Owns(k Key) bool    { return k.Near() }

// FuzzParse: no bytes make Parse or Check panic or fail otherwise than with a
// refusal; what is accepted is written again as it was; and what base64 and
// hexadecimal say of the same PSBT is the same.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		raw, err := base64.StdEncoding.DecodeString(v.Base64)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	v := signerVectors(f)
	for _, s := range []string{v.Updated, v.Combined, v.Finalized} {
		f.Add([]byte(s))
		f.Add([]byte(s + "\r\n"))
	}
	for _, version := range []uint32{0, 2} {
		f.Add(everyKind(f, newRing("alice"), version).bytes())
	}
	f.Add(half(f, newRing("alice")))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		p, err := Parse(data)
		if !bytes.Equal(data, before) {
			t.Fatal("Parse changed its input")
		}
		if err != nil {
			if _, ok := reason.As(err); !ok || p != nil {
				t.Fatalf("Parse: %v, %v", p, err)
			}
			return
		}
		raw := p.serialize(p.global, p.inputs, p.outputs)
		if !bytes.Equal(p.form.encode(raw), data) {
			t.Fatal("it is written otherwise")
		}
		for _, again := range [][]byte{raw, []byte(base64.StdEncoding.EncodeToString(raw)), []byte(hex.EncodeToString(raw))} {
			if len(again) > MaxSize {
				continue
			}
			q, err := Parse(again)
			if err != nil {
				t.Fatalf("in another form: %v", err)
			}
			if !bytes.Equal(q.serialize(q.global, q.inputs, q.outputs), raw) {
				t.Fatal("another form means another PSBT")
			}
		}
		for _, rules := range []Rules{{}, {Network: "testnet", MaxFeePercent: -1, WitnessAmounts: true}} {
			tx, err := p.Check(rules, everything{})
			if !bytes.Equal(p.serialize(p.global, p.inputs, p.outputs), raw) {
				t.Fatal("Check changed the PSBT")
			}
			if rules.Network == "" {
				rules.Network = Networks[0] // which preview would take from the PSBT
			}
			previewHolds(t, p, rules, err != nil)
			if err != nil {
				if _, ok := reason.As(err); !ok || tx != nil {
					t.Fatalf("Check: %v, %v", tx, err)
				}
				continue
			}
			d := tx.Describe()
			if len(tx.Wants()) == 0 || d.Fee < 0 || d.Fee+d.Paid+d.Change != tx.in {
				t.Fatalf("%d wants, %+v", len(tx.Wants()), d)
			}
			if _, err := tx.Finish(); err == nil {
				t.Fatal("finished without a signature")
			}
		}
	})
}

// FuzzForm: the same for the text forms alone, which Parse reaches seldom.
func FuzzForm(f *testing.F) {
	f.Add([]byte("cHNidP8BAAoAAAAAAAAAAAAAAA==\n"))
	f.Add([]byte("70736274FF\r\n01\r\n"))
	f.Add([]byte("70736274ff0100\n0a00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		form, raw, err := detect(data)
		if err != nil {
			if _, ok := reason.As(err); !ok {
				t.Fatal(err)
			}
			return
		}
		if got := form.encode(raw); !bytes.Equal(got, data) {
			t.Fatalf("got %q, want %q", got, data)
		}
	})
}
