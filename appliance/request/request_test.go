package request_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/reason"
	"signdrop/appliance/request"
)

const transfer = `{"operation":"transfer","from":"MTiiiiiiiiiiiiMETACOINiiiiiiiiii79c3496e","to":"MTaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa6bc1d3c1","token":"0","amount":"100","nonce":"n000000000000000000000000000000000000001"}`

func TestParse(t *testing.T) {
	cases := []struct {
		name, in string
		code     reason.Code // "" for accepted
		field    string
	}{
		{"data", `{"type":"sign","wallet":"W_1","data":{"text":"hello","hash":"sha256"}}`, "", ""},
		{"data with scheme", `{"type":"sign","wallet":"W_1","data":{"text":"hello","hash":"sha256","scheme":"schnorr"}}`, "", ""},
		{"create", `{"type":"wallet.create","curve":"P-384"}`, "", ""},
		{"bind", `{"type":"wallet.bind","wallet":"W_1","address":"MT1"}`, "", ""},
		{"all common fields", `{"type":"wallet.create","curve":"P-384","reference":"r é 1","appliance":"SD_1","not_after":"2026-11-22T15:00:00+09:00"}`, "", ""},
		{"white space around", "\n\t {\"type\":\"wallet.create\",\n \"curve\":\"P-384\"} \r\n", "", ""},

		{"empty", ``, reason.RequestMalformed, ""},
		{"not an object", `[]`, reason.RequestMalformed, ""},
		{"a string", `"sign"`, reason.RequestMalformed, ""},
		{"cut short", `{"type":"sign","wal`, reason.RequestMalformed, ""},
		{"two objects", `{"type":"wallet.create","curve":"P-384"}{"type":"wallet.create","curve":"P-384"}`, reason.RequestMalformed, ""},
		{"byte after", `{"type":"wallet.create","curve":"P-384"}x`, reason.RequestMalformed, ""},
		{"NUL after", "{\"type\":\"wallet.create\",\"curve\":\"P-384\"}\x00", reason.RequestMalformed, ""},
		{"byte order mark", "\ufeff{\"type\":\"wallet.create\",\"curve\":\"P-384\"}", reason.RequestMalformed, ""},
		{"comment", `{"type":"wallet.create",/* */"curve":"P-384"}`, reason.RequestMalformed, ""},
		{"comma too much", `{"type":"wallet.create","curve":"P-384",}`, reason.RequestMalformed, ""},
		{"not UTF-8", "{\"type\":\"wallet.create\",\"curve\":\"P-384\xff\"}", reason.RequestMalformed, ""},
		{"lone surrogate", `{"type":"wallet.create","curve":"\ud800"}`, reason.RequestMalformed, ""},
		{"field twice", `{"type":"sign","wallet":"W_1","wallet":"W_2","data":{"text":"x","hash":"sha256"}}`, reason.RequestMalformed, "wallet"},
		{"field twice below", `{"type":"sign","wallet":"W_1","data":{"text":"x","text":"y","hash":"sha256"}}`, reason.RequestMalformed, "data.text"},
		{"escaped field twice", `{"type":"sign","wallet":"W_1","wall\u0065t":"W_2","data":{"text":"x","hash":"sha256"}}`, reason.RequestMalformed, "wallet"},
		{"unknown field", `{"type":"sign","wallet":"W_1","amount":"7"}`, reason.FieldUnknown, "amount"},
		{"field in capitals", `{"Type":"sign"}`, reason.FieldUnknown, "Type"},
		{"field of another type", `{"type":"wallet.create","curve":"P-384","wallet":"W_1"}`, reason.FieldUnknown, "wallet"},
		{"unknown field below", `{"type":"sign","wallet":"W_1","data":{"text":"x","hash":"sha256","salt":"y"}}`, reason.FieldUnknown, "data.salt"},
		{"no type", `{"wallet":"W_1"}`, reason.FieldMissing, "type"},
		{"unknown type", `{"type":"steal"}`, reason.TypeUnknown, "type"},
		{"create, no curve", `{"type":"wallet.create"}`, reason.FieldMissing, "curve"},
		{"create, another kind", `{"type":"wallet.create","kind":"multi","network":"main"}`, reason.FieldInvalid, "kind"},
		{"create, HD without network", `{"type":"wallet.create","kind":"hd"}`, reason.FieldMissing, "network"},
		{"create, HD on a curve", `{"type":"wallet.create","kind":"hd","network":"main","curve":"secp256k1"}`, reason.FieldUnknown, "curve"},
		{"create, HD elsewhere", `{"type":"wallet.create","kind":"hd","network":"signet"}`, reason.FieldInvalid, "network"},
		{"create, single on a network", `{"type":"wallet.create","curve":"secp256k1","network":"main"}`, reason.FieldUnknown, "network"},
		{"create, HD", `{"type":"wallet.create","kind":"hd","network":"regtest","wallet_not_after":"2027-11-22T15:00:00Z"}`, "", ""},
		{"import nothing", `{"type":"wallet.import"}`, reason.FieldMissing, "private_key"},
		{"import two", `{"type":"wallet.import","private_key":"x","mnemonic":"y","network":"main"}`, reason.FieldInvalid, "mnemonic"},
		{"import words of no network", `{"type":"wallet.import","mnemonic":"y"}`, reason.FieldMissing, "network"},
		{"import a key with a passphrase", `{"type":"wallet.import","private_key":"x","passphrase":"y"}`, reason.FieldUnknown, "passphrase"},
		{"import many words", `{"type":"wallet.import","network":"main","mnemonic":"` + strings.Repeat("x", 513) + `"}`, reason.FieldInvalid, "mnemonic"},
		{"import words", `{"type":"wallet.import","mnemonic":"x\ny","passphrase":"z","network":"test"}`, "", ""},
		{"address", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","account":0,"change":true,"index":0,"number":100}`, "", ""},
		{"address, no script", `{"type":"wallet.address","wallet":"W_1"}`, reason.FieldMissing, "script"},
		{"address, too many", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","number":101}`, reason.FieldInvalid, "number"},
		{"address, none", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","number":0}`, reason.FieldInvalid, "number"},
		{"address, the last", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","index":999999}`, "", ""},
		{"address, behind the last", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","index":1000000}`, reason.FieldInvalid, "index"},
		{"address, hardened", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","index":2147483648}`, reason.FieldInvalid, "index"},
		{"address, negative", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","account":-1}`, reason.FieldInvalid, "account"},
		{"address, string", `{"type":"wallet.address","wallet":"W_1","script":"p2tr","index":"1"}`, reason.FieldInvalid, "index"},
		{"no wallet", `{"type":"sign","data":{"text":"x","hash":"sha256"}}`, reason.FieldMissing, "wallet"},
		{"nothing to sign", `{"type":"sign","wallet":"W_1"}`, reason.FieldMissing, "metacoin"},
		{"no hash", `{"type":"sign","wallet":"W_1","data":{"text":"x"}}`, reason.FieldMissing, "data.hash"},
		{"no text", `{"type":"sign","wallet":"W_1","data":{"hash":"sha256"}}`, reason.FieldMissing, "data.text"},
		{"number for a string", `{"type":"sign","wallet":7,"data":{"text":"x","hash":"sha256"}}`, reason.FieldInvalid, "wallet"},
		{"null for a string", `{"type":null}`, reason.FieldInvalid, "type"},
		{"string for a boolean", `{"type":"sign","replace":"true","wallet":"W_1","data":{"text":"x","hash":"sha256"}}`, reason.FieldInvalid, "replace"},
		{"string for an object", `{"type":"sign","wallet":"W_1","data":"x"}`, reason.FieldInvalid, "data"},
		{"empty text", `{"type":"sign","wallet":"W_1","data":{"text":"","hash":"sha256"}}`, reason.FieldInvalid, "data.text"},
		{"long text", `{"type":"sign","wallet":"W_1","data":{"text":"` + strings.Repeat("x", request.MaxText+1) + `","hash":"sha256"}}`, reason.FieldInvalid, "data.text"},
		{"MD5", `{"type":"sign","wallet":"W_1","data":{"text":"x","hash":"md5"}}`, reason.FieldInvalid, "data.hash"},
		{"no such scheme", `{"type":"sign","wallet":"W_1","data":{"text":"x","hash":"sha256","scheme":"rsa"}}`, reason.FieldInvalid, "data.scheme"},
		{"long reference", `{"type":"wallet.create","curve":"P-384","reference":"` + strings.Repeat("x", 201) + `"}`, reason.FieldInvalid, "reference"},
		{"line break in reference", `{"type":"wallet.create","curve":"P-384","reference":"a\nb"}`, reason.FieldInvalid, "reference"},
		{"empty reference", `{"type":"wallet.create","curve":"P-384","reference":""}`, reason.FieldInvalid, "reference"},
		{"time without zone", `{"type":"wallet.create","curve":"P-384","not_after":"2026-11-22T15:00:00"}`, reason.FieldInvalid, "not_after"},
		{"metacoin and data", `{"type":"sign","wallet":"W_1","metacoin":{},"data":{"text":"x","hash":"sha256"}}`, reason.FieldInvalid, "data"},
		{"metacoin is empty", `{"type":"sign","wallet":"W_1","metacoin":{}}`, reason.FieldMissing, "metacoin.operation"},
		{"metacoin number", `{"type":"sign","wallet":"W_1","metacoin":` + strings.Replace(transfer, `"100"`, `100`, 1) + `}`, reason.FieldInvalid, "metacoin.amount"},
		{"metacoin unknown field", `{"type":"sign","wallet":"W_1","metacoin":` + strings.Replace(transfer, `"to"`, `"tu"`, 1) + `}`, reason.FieldUnknown, "metacoin.tu"},
		{"a batch's first line", `{"type":"batch","count":1}`, reason.FieldUnknown, "count"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, err := request.Parse([]byte(c.in))
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if r != nil {
				t.Errorf("a request came with the error: %+v", r)
			}
			ref, ok := reason.As(err)
			if !ok {
				t.Fatalf("error is %v", err)
			}
			if ref.Code != c.code || ref.Field != c.field || ref.Hint == "" {
				t.Errorf("got %s at %q (%s; %s), want %s at %q", ref.Code, ref.Field, ref.Message, ref.Hint, c.code, c.field)
			}
		})
	}
}

func TestParseValues(t *testing.T) {
	r, err := request.Parse([]byte(`{"type":"sign","wallet":"W_1","reference":"a","replace":true,"not_after":"2026-11-22T15:00:00Z","appliance":"SD_1","data":{"text":"h|é\n","hash":"sha512"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if r.Type != request.Sign || r.Wallet != "W_1" || r.Reference != "a" || !r.Replace || r.Appliance != "SD_1" ||
		!r.NotAfter.Equal(time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)) ||
		*r.Data != (request.Data{Text: "h|é\n", Hash: "sha512", Scheme: "ecdsa"}) {
		t.Errorf("got %+v, %+v", r, r.Data)
	}
}

func TestSyntaxErrorSaysWhere(t *testing.T) {
	_, err := request.Parse([]byte("{\"type\":\"sign\",\n  \"wallet\":\"W_1\",\n  wrong}"))
	if err == nil || !strings.Contains(err.Error(), "line 3, column 3") {
		t.Errorf("error is %v", err)
	}
}

func TestParseBatch(t *testing.T) {
	line := `{"type":"wallet.create","curve":"P-384"}`
	many := strings.Repeat(line+"\n", request.MaxLines)
	cases := []struct {
		name, in string
		code     reason.Code
		line     int
		lines    int
		first    int
		abort    bool
	}{
		{"one line", line, "", 0, 1, 1, false},
		{"two lines, CRLF", line + "\r\n" + line + "\r\n", "", 0, 2, 1, false},
		{"header", `{"type":"batch","count":2,"on_error":"abort"}` + "\n" + line + "\n" + line, "", 0, 2, 2, true},
		{"header continues", `{"type":"batch","on_error":"continue"}` + "\n" + line, "", 0, 1, 2, false},
		{"the limit", many, "", 0, request.MaxLines, 1, false},
		{"the limit and a header", `{"type":"batch"}` + "\n" + many, "", 0, request.MaxLines, 2, false},
		{"over the limit", many + line, reason.BatchTooLong, 0, 0, 0, false},
		{"empty line", line + "\n\n" + line, reason.RequestMalformed, 2, 0, 0, false},
		{"two line ends at the end", line + "\n\n", reason.RequestMalformed, 2, 0, 0, false},
		{"blank line", line + "\n \t\n", reason.RequestMalformed, 2, 0, 0, false},
		{"header alone", `{"type":"batch"}`, reason.BatchCount, 0, 0, 0, false},
		{"count too small", `{"type":"batch","count":1}` + "\n" + line + "\n" + line, reason.BatchCount, 1, 0, 0, false},
		{"count too large", `{"type":"batch","count":2}` + "\n" + line, reason.BatchCount, 1, 0, 0, false},
		{"header with unknown field", `{"type":"batch","cuont":1}` + "\n" + line, reason.RequestMalformed, 1, 0, 0, false},
		{"header with a count of text", `{"type":"batch","count":"1"}` + "\n" + line, reason.RequestMalformed, 1, 0, 0, false},
		{"header twice the same field", `{"type":"batch","count":1,"count":1}` + "\n" + line, reason.RequestMalformed, 1, 0, 0, false},
		{"unknown way", `{"type":"batch","on_error":"ignore"}` + "\n" + line, reason.FieldInvalid, 1, 0, 0, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b, err := request.ParseBatch([]byte(c.in))
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				if len(b.Lines) != c.lines || b.First != c.first || b.Abort != c.abort || string(b.Lines[0]) != line {
					t.Errorf("got %d lines from %d, abort %t", len(b.Lines), b.First, b.Abort)
				}
				return
			}
			ref, ok := reason.As(err)
			if !ok || b != nil || ref.Code != c.code || ref.Line != c.line {
				t.Errorf("got %v, %v; want %s at line %d", b, err, c.code, c.line)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"sign","wallet":"W_1","data":{"text":"hello","hash":"sha256"}}`))
	f.Add([]byte(`{"type":"sign","wallet":"W_1","metacoin":` + transfer + `}`))
	f.Add([]byte(`{"type":"wallet.create","curve":"P-384","not_after":"2026-11-22T15:00:00Z"}`))
	f.Add([]byte(`{"type":"wallet.bind","wallet":"W_1","address":"MT1","replace":false}`))
	for _, c := range typeCases {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := request.Parse(data)
		if err != nil {
			if _, ok := reason.As(err); !ok {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		// Asking for the role must not panic whatever the request says.
		r.For(request.Partner)
		r.For(request.Administrator)
		again, err := request.Parse(append([]byte(" "), append(data, '\n')...))
		if err != nil || fmt.Sprintf("%+v", again.Data) != fmt.Sprintf("%+v", r.Data) || again.Type != r.Type || again.Wallet != r.Wallet {
			t.Errorf("white space around it changes the meaning: %v", err)
		}
	})
}

func FuzzParseBatch(f *testing.F) {
	f.Add([]byte("{\"type\":\"batch\",\"count\":1}\n{\"type\":\"wallet.create\"}\n"))
	f.Add([]byte("{}\r\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := request.ParseBatch(data)
		if err != nil {
			if _, ok := reason.As(err); !ok {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		total := 0
		for _, l := range b.Lines {
			total += len(l)
			if strings.ContainsAny(string(l), "\n") {
				t.Errorf("line %q holds a line end", l)
			}
		}
		if total > len(data) || len(b.Lines) == 0 {
			t.Errorf("%d lines of %d bytes out of %d", len(b.Lines), total, len(data))
		}
	})
}

func BenchmarkParseTransfer(b *testing.B) {
	in := []byte(`{"type":"sign","reference":"payout-0001","wallet":"W_0123456789abcdef0123456789abcd","metacoin":` + transfer + `}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := request.Parse(in); err != nil {
			b.Fatal(err)
		}
	}
}

// typeCases are the requests beside sign, create and bind, right and wrong.
var typeCases = []struct {
	in    string
	code  reason.Code
	field string
}{
	{`{"type":"wallet.import","private_key":"-----BEGIN\n","address":"MT1","wallet_not_after":"2030-01-01T00:00:00Z"}`, "", ""},
	{`{"type":"wallet.import"}`, reason.FieldMissing, "private_key"},
	{`{"type":"wallet.import","private_key":""}`, reason.FieldInvalid, "private_key"},
	{`{"type":"wallet.import","private_key":["x"]}`, reason.FieldInvalid, "private_key"},
	{`{"type":"wallet.list","after":"W_1","limit":10}`, "", ""},
	{`{"type":"wallet.list","limit":0}`, reason.FieldInvalid, "limit"},
	{`{"type":"wallet.list","limit":1001}`, reason.FieldInvalid, "limit"},
	{`{"type":"wallet.list","limit":"10"}`, reason.FieldInvalid, "limit"},
	{`{"type":"wallet.list","limit":1.5}`, reason.FieldInvalid, "limit"},
	{`{"type":"wallet.list","limit":1e1}`, reason.FieldInvalid, "limit"},
	{`{"type":"wallet.list","wallet":"W_1"}`, reason.FieldUnknown, "wallet"},
	{`{"type":"wallet.disable","wallet":"W_1"}`, "", ""},
	{`{"type":"wallet.create","curve":"P-256","wallet_not_after":"tomorrow"}`, reason.FieldInvalid, "wallet_not_after"},
	{`{"type":"wallet.create","curve":"P-256","wallet_not_after":"1969-12-31T23:59:59Z"}`, reason.FieldInvalid, "wallet_not_after"},
	{`{"type":"datakey.create","passphrase":"long enough","name":"x"}`, "", ""},
	{`{"type":"datakey.create","name":"x"}`, reason.FieldMissing, "passphrase"},
	{`{"type":"encrypt","key":"K_1","text":"x"}`, "", ""},
	{`{"type":"encrypt","key":"K_1","bytes":"eA=="}`, "", ""},
	{`{"type":"encrypt","key":"K_1","bytes":"eA"}`, reason.FieldInvalid, "bytes"},
	{`{"type":"encrypt","key":"K_1","bytes":""}`, reason.FieldInvalid, "bytes"},
	{`{"type":"encrypt","key":"K_1"}`, reason.FieldMissing, "text"},
	{`{"type":"encrypt","key":"K_1","text":"x","bytes":"eA=="}`, reason.FieldInvalid, "bytes"},
	{`{"type":"decrypt","key":"K_1","ciphertext":"x","passphrase":"y","format":"jwe","clear":true}`, "", ""},
	{`{"type":"decrypt","key":"K_1","ciphertext":"x","passphrase":"y","format":"jwe"}`, reason.FieldMissing, "recipient"},
	{`{"type":"decrypt","key":"K_1","ciphertext":"x","passphrase":"y","recipient":"age1","clear":true}`, reason.FieldInvalid, "clear"},
	{`{"type":"company.create","company":"beta","signers":["k"],"authorized_keys":[],"policy":{"data":"safe"}}`, "", ""},
	{`{"type":"company.create","company":"beta","signers":"k"}`, reason.FieldInvalid, "signers"},
	{`{"type":"company.create","company":"beta","signers":["k",7]}`, reason.FieldInvalid, "signers[1]"},
	{`{"type":"company.create","company":"beta","signers":[""]}`, reason.FieldInvalid, "signers[0]"},
	{`{"type":"company.create","company":"beta"}`, reason.FieldMissing, "signers"},
	{`{"type":"company.update","company":"beta"}`, reason.FieldMissing, "signers"},
	{`{"type":"company.update","company":"beta","authorized_keys":[]}`, "", ""},
	{`{"type":"policy.set","company":"beta","policy":"none"}`, reason.FieldInvalid, "policy"},
	{`{"type":"policy.set","company":"beta","policy":{"data":"safe","data":"any"}}`, reason.RequestMalformed, "policy.data"},
	{`{"type":"admins.set","admins":["k"],"threshold":1}`, "", ""},
	{`{"type":"admins.set","admins":["k"],"threshold":-1}`, reason.FieldInvalid, "threshold"},
	{`{"type":"admins.set","admins":["k"]}`, reason.FieldMissing, "threshold"},
	{`{"type":"wallet.enable","wallet":"W_1"}`, reason.FieldMissing, "company"},
}

func TestParseTypes(t *testing.T) {
	for _, c := range typeCases {
		_, err := request.Parse([]byte(c.in))
		ref, _ := reason.As(err)
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%s: %v", c.in, err)
		case c.code != "" && (ref == nil || ref.Code != c.code || ref.Field != c.field):
			t.Errorf("%s: %v, want %s at %q", c.in, err, c.code, c.field)
		}
	}
	long := `["` + strings.Repeat(`k","`, request.MaxKeys) + `k"]`
	if _, err := request.Parse([]byte(`{"type":"admins.set","threshold":1,"admins":` + long + `}`)); err == nil {
		t.Errorf("%d keys are accepted", request.MaxKeys+1)
	}
}
