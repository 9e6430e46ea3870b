package answer_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"signdrop/appliance/answer"
	"signdrop/appliance/reason"
)

var digest = [32]byte{1, 2, 31: 0xff}

const digestHex = "01020000000000000000000000000000000000000000000000000000000000ff"

// TestWritersAndParser: whatever the writers write, Parse reads with the same
// meaning, and so does encoding/json.
func TestWritersAndParser(t *testing.T) {
	nasty := "a\"b\\c\x01\u2028é<>&|"
	head := answer.Head{Line: 7, Reference: nasty, Request: digest}
	refusal := reason.New(reason.FieldInvalid, nasty, "wrong: %s", nasty).At("metacoin.amount")
	cases := []struct {
		name string
		out  []byte
		want answer.Answer
	}{
		{"signed", (&answer.Signed{
			Head: head, Wallet: "W_1", Address: "MT1", PublicKey: "-----BEGIN\nx\n", Algorithm: "ecdsa-p384-sha384", Operation: "transfer",
			Payload: nasty, Signature: "c2ln", NotCovered: []string{"memo", nasty}, AlsoMeans: []string{"x"},
			Submit: []byte(`{"method":"POST","path":"/transfer","form":{"a":"b"},"missing":["c"]}`),
		}).Append(nil), answer.Answer{
			Type: "sign.result", Line: 7, Verdict: "signed", Reference: nasty, Request: digestHex, Wallet: "W_1", Address: "MT1",
			PublicKey: "-----BEGIN\nx\n", Algorithm: "ecdsa-p384-sha384", Operation: "transfer", Payload: nasty, Signature: "c2ln",
			NotCovered: []string{"memo", nasty}, AlsoMeans: []string{"x"},
			Submit: &answer.Submit{Method: "POST", Path: "/transfer", Form: map[string]string{"a": "b"}, Missing: []string{"c"}},
		}},
		{"signed, least", (&answer.Signed{Wallet: "W_1", PublicKey: "k", Algorithm: "a", Payload: "p", Signature: "s"}).Append(nil),
			answer.Answer{Type: "sign.result", Verdict: "signed", Wallet: "W_1", PublicKey: "k", Algorithm: "a", Payload: "p", Signature: "s"}},
		{"created", (&answer.Wallet{Head: answer.Head{Request: digest}, Wallet: "W_1", Curve: "P-384", PublicKey: "k"}).AppendCreated(nil),
			answer.Answer{Type: "wallet.create.result", Verdict: "created", Request: digestHex, Wallet: "W_1", Curve: "P-384", PublicKey: "k"}},
		{"bound", (&answer.Wallet{Head: head, Wallet: "W_1", Curve: "P-384", PublicKey: "k", Address: "MT1"}).AppendBound(nil),
			answer.Answer{Type: "wallet.bind.result", Line: 7, Verdict: "bound", Reference: nasty, Request: digestHex, Wallet: "W_1", Curve: "P-384", PublicKey: "k", Address: "MT1"}},
		{"batch", answer.AppendBatch(nil, digest, 3, 1),
			answer.Answer{Type: "batch.result", Line: 1, Verdict: "answered", Request: digestHex, Count: 3, Refused: 1}},
		{"refusal", answer.AppendRefusal(nil, head, "pay.json", refusal),
			answer.Answer{Type: "refusal", Line: 7, Verdict: "refused", Reference: nasty, Request: digestHex, Name: "pay.json", Code: "field-invalid",
				Field: "metacoin.amount", Message: "wrong: " + nasty, Hint: nasty}},
		{"refusal of a line", answer.AppendRefusal(nil, answer.Head{}, "", reason.New(reason.KeyUnusable, "", "m").OnLine(9)),
			answer.Answer{Type: "refusal", Line: 9, Verdict: "refused", Code: "key-unusable", Message: "m", Retry: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !bytes.HasSuffix(c.out, []byte("}\n")) || bytes.Count(c.out, []byte("\n")) != 1 {
				t.Errorf("%q is not one line", c.out)
			}
			got, err := answer.Parse(c.out)
			if err != nil {
				t.Fatalf("%v in %s", err, c.out)
			}
			gotText, _ := json.Marshal(got)
			wantText, _ := json.Marshal(c.want)
			if !bytes.Equal(gotText, wantText) {
				t.Errorf("got  %s\nwant %s", gotText, wantText)
			}
			var other answer.Answer
			if err := json.Unmarshal(c.out, &other); err != nil {
				t.Errorf("encoding/json: %v", err)
			}
			if text, _ := json.Marshal(other); !bytes.Equal(text, gotText) {
				t.Errorf("encoding/json reads %s", text)
			}
		})
	}
}

func TestParseIsStrict(t *testing.T) {
	good := string((&answer.Signed{Wallet: "W_1", PublicKey: "k", Algorithm: "a", Payload: "p", Signature: "s"}).Append(nil))
	for name, in := range map[string]string{
		"unknown field": strings.Replace(good, `"wallet"`, `"x":1,"wallet"`, 1),
		"field twice":   strings.Replace(good, `"payload":"p"`, `"payload":"p","payload":"q"`, 1),
		"two answers":   good + good,
		"capitals":      strings.Replace(good, `"payload"`, `"Payload"`, 1),
		"nothing":       "",
	} {
		if a, err := answer.Parse([]byte(in)); err == nil {
			t.Errorf("%s: accepted as %+v", name, a)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add((&answer.Signed{Wallet: "W_1", PublicKey: "k", Algorithm: "a", Payload: "p", Signature: "s"}).Append(nil))
	f.Add(answer.AppendBatch(nil, digest, 3, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := answer.Parse(data)
		if err == nil && a == nil {
			t.Error("neither an answer nor an error")
		}
	})
}
