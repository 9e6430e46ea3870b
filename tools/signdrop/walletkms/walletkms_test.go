package walletkms_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"signdrop/tools/signdrop/walletkms"
)

const (
	c1 = "C_abcdefghijklmnopqrstuwxyzABCDE"
	a1 = "A_0123456789abcdefghijABCDEFGHIJ"
	k1 = "K_0123456789abcdefghijABCDEFGHIJ"
)

// entries are one of each kind, as walletKMS writes them.
var entries = [][2]string{
	{"ADDR:" + c1 + ":" + a1, `{"private_key":"-----BEGIN…","address":"MT1"}`},
	{"DB:COMPANY:" + c1, `{"name":"Acme ==> Ltd : x","ip":["10.0.0.1","10.0.0.2"],"public_key":"P","status":10}`},
	{"DB:KEY:" + k1, `{"company":"` + c1 + `","status":10,"name":"n","public_key":"P","private_key":"E"}`},
	{"INIT:ADMIN", `{"ip":["127.0.0.1"],"public_key":"A"}`},
}

func dump(sep string, hexKey, hexValue bool, entries ...[2]string) []byte {
	var b bytes.Buffer
	text := func(s string, inHex bool) string {
		if inHex {
			return "0x" + strings.ToUpper(hex.EncodeToString([]byte(s)))
		}
		return s
	}
	for _, e := range entries {
		fmt.Fprintf(&b, "%s%s%s\n", text(e[0], hexKey), sep, text(e[1], hexValue))
	}
	return b.Bytes()
}

func TestParse(t *testing.T) {
	want := &walletkms.Dump{
		Admins:    []walletkms.Admin{{Entry: walletkms.Entry{Line: 4}, IPs: 1, PublicPEM: "A"}},
		Companies: []walletkms.Company{{Entry: walletkms.Entry{Line: 2, ID: c1}, IPs: 2, Name: "Acme ==> Ltd : x", PublicPEM: "P", Status: 10}},
		Wallets:   []walletkms.Wallet{{Entry: walletkms.Entry{Line: 1, ID: a1}, Company: c1, PrivatePEM: "-----BEGIN…", Address: "MT1"}},
		DataKeys:  []walletkms.DataKey{{Entry: walletkms.Entry{Line: 3, ID: k1}, Company: c1, Name: "n", PublicPEM: "P", EncryptedPEM: "E", Status: 10}},
	}
	for _, sep := range []string{" : ", " ==> "} {
		for i := range 4 {
			text := dump(sep, i&1 != 0, i&2 != 0, entries...)
			for _, text := range [][]byte{text, append(text, "Keys in range: 4\n"...)} {
				got, err := walletkms.Parse(text)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s\ngot  %+v, %v\nwant %+v", text, got, err, want)
				}
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	whole := dump(" : ", false, false, entries...)
	for _, c := range []struct {
		name, text, want string
	}{
		{"empty", "", "the dump is empty"},
		{"cut off", string(whole[:len(whole)-1]), "the last line of the dump has no end: the dump was cut off"},
		{"a message", "Failed: IO error\n", `line 1 is not "KEY : VALUE" or "KEY ==> VALUE", as ldb scan and ldb dump write: give their whole output and nothing else`},
		{"twice", string(whole) + string(whole), "line 5 has a key that was there before: give one dump"},
		{"not all", string(whole) + "Keys in range: 5\n", "line 5 counts other than the 4 keys above it: the dump is not whole"},
		{"two dumps", "Keys in range: 0\n" + string(whole), "line 2 comes after the line that counts the keys: give one dump"},
		{"odd hex", "0x41 : 0x4\n", "line 1 is not hexadecimal all through: the dump was damaged"},
	} {
		d, err := walletkms.Parse([]byte(c.text))
		if d != nil || err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, %v\nwant %s", c.name, d, err, c.want)
		}
	}
}

// A faulty entry is told of and keeps no other from coming.
func TestEntries(t *testing.T) {
	for _, c := range []struct {
		key, value string
		err        string
		unknown    string
	}{
		{"ADDR:" + c1 + ":" + a1, `{"private_key":"x","address":"MT1","id":""}`, "", "[]"},
		{"ADDR:" + c1 + ":" + a1, `{"private_key":"x","address":"MT1","id":"y"}`, "", "[id]"},
		{"ADDR:" + c1 + ":" + a1, `{"private_key":"x"}`, "has no field address", "[]"},
		{"ADDR:" + c1 + ":" + a1, `{"private_key":"x","address":{"a":1}}`, "has a field address of another type than walletKMS writes", "[]"},
		{"ADDR:" + c1 + ":" + a1, `{"private_key":null,"address":"MT1"}`, "has a field private_key of another type than walletKMS writes", "[]"},
		{"ADDR:" + c1 + ":" + a1, `{"private_key":"x","private_key":"y","address":"MT1"}`, "is not an object of JSON", "[]"},
		{"ADDR:" + c1 + ":" + a1, `{"private_key":"x`, "is not an object of JSON", "[]"},
		{"ADDR:" + c1 + ":" + a1, `null`, "is not an object of JSON", "[]"},
		{"DB:COMPANY:" + c1, `{"name":"x","ip":"10.0.0.1","public_key":"P","status":10}`, "has a field ip of another type than walletKMS writes", "[]"},
		{"DB:COMPANY:" + c1, `{"name":"x","ip":[],"public_key":"P","status":10,"memo":"y","Name":"z"}`, "", "[Name memo]"},
		{"DB:COMPANY:" + c1, `{"name":"x","ip":[],"public_key":"P","status":10.5}`, "has a field status of another type than walletKMS writes", "[]"},
		{"DB:KEY:" + k1, `{"company":"` + c1 + `","status":10,"public_key":"P","private_key":"E"}`, "", "[]"},
		{"DB:KEY:" + k1, `{"company":"acme","status":10,"public_key":"P","private_key":"E"}`, "has a company that is no id", "[]"},
		{"INIT:ADMIN", `{"ip":[],"public_key":"P","secret value":1}`, "", "[(a name that cannot be shown)]"},
		{"DB:OTHER:x", `{}`, "is no key of walletKMS", "[]"},
		{"ADDR:" + a1 + ":" + c1, `{}`, "is no key of walletKMS", "[]"},
		{"INIT:ADMIN2", `{}`, "is no key of walletKMS", "[]"},
	} {
		d, err := walletkms.Parse(dump(" ==> ", true, false, [2]string{c.key, c.value}, [2]string{"INIT:OTHER", "{}"}))
		if err != nil {
			t.Errorf("%s %s: %v", c.key, c.value, err)
			continue
		}
		var all []walletkms.Entry
		for _, a := range d.Admins {
			all = append(all, a.Entry)
		}
		for _, a := range d.Companies {
			all = append(all, a.Entry)
		}
		for _, a := range d.Wallets {
			all = append(all, a.Entry)
		}
		for _, a := range d.DataKeys {
			all = append(all, a.Entry)
		}
		all = append(all, d.Others...)
		if len(all) != 2 {
			t.Errorf("%s %s: got %d entries", c.key, c.value, len(all))
			continue
		}
		got := ""
		if all[0].Err != nil {
			got = all[0].Err.Error()
		}
		if got != c.err || fmt.Sprint(all[0].Unknown) != c.unknown {
			t.Errorf("%s %s: got %q, unknown %v; want %q, %s", c.key, c.value, got, all[0].Unknown, c.err, c.unknown)
		}
	}
}

// The names are for ever: a second import finds by them what the first one made.
func TestNames(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{walletkms.CompanyName(c1), "c-039a94d1726fcdbf592519deb4bfc9"},
		{walletkms.WalletID(c1, a1), "W_02ac7cb0f22ee44d2bd2b467a3200b"},
		{walletkms.DataKeyID(c1, k1), "K_4c1e9400d8a2cb4eac3f88774dcaa2"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	seen := map[string]bool{}
	for _, name := range []string{
		walletkms.CompanyName(c1), walletkms.CompanyName(strings.ToLower(c1)), walletkms.CompanyName(strings.ToUpper(c1)),
		walletkms.WalletID(c1, a1)[2:], walletkms.WalletID(a1, c1)[2:], walletkms.DataKeyID(c1, a1)[2:],
	} {
		if seen[name] {
			t.Errorf("%s comes twice", name)
		}
		seen[name] = true
	}
}

func FuzzParse(f *testing.F) {
	f.Add(dump(" : ", false, false, entries...))
	f.Add(dump(" ==> ", true, true, entries...))
	f.Add([]byte("Keys in range: 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := walletkms.Parse(text)
		if (d == nil) != (err != nil) {
			t.Fatalf("got %v, %v", d, err)
		}
		if d == nil {
			return
		}
		for _, w := range d.Wallets {
			if w.Err == nil && (w.ID == "" || w.Company == "") {
				t.Errorf("a wallet without a name: %+v", w.Entry)
			}
		}
		for _, k := range d.DataKeys {
			if k.Err == nil && (k.ID == "" || k.Company == "") {
				t.Errorf("a data key without a name: %+v", k.Entry)
			}
		}
	})
}
