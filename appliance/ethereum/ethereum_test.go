package ethereum

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

const (
	payee = "0x3535353535353535353535353535353535353535"
	plain = `{"operation":"eip1559","chain_id":"1","nonce":"9","to":"` + payee + `","value":"1000","gas_limit":"21000","max_fee_per_gas":"30","max_priority_fee_per_gas":"1"}`
	mail  = `{"operation":"typed_data","typed_data":{"types":{"Mail":[{"name":"to","type":"address"},{"name":"n","type":"uint8"},{"name":"l","type":"bool[2]"}]},"primaryType":"Mail","domain":{"name":"x","chainId":1},"message":{"to":"` + payee + `","n":1,"l":[true,false]}}}`
)

// with returns an object with members changed; null removes one.
func with(t testing.TB, object, changes string) string {
	t.Helper()
	var m, c map[string]any
	if err := json.Unmarshal([]byte(object), &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(changes), &c); err != nil {
		t.Fatal(err)
	}
	for k, v := range c {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRefused: what is not of its form is refused by its field, and no value is shown.
func TestRefused(t *testing.T) {
	auth := `{"chain_id":"1","address":"` + payee + `","nonce":"0","y_parity":"0","r":"0x` + strings.Repeat("11", 32) + `","s":"0x` + strings.Repeat("11", 32) + `"}`
	setCode := with(t, plain, `{"operation":"eip7702","authorization_list":[`+auth+`]}`)
	authWith := func(changes string) string {
		return with(t, setCode, `{"authorization_list":[`+with(t, auth, changes)+`]}`)
	}
	authorization := `{"operation":"authorization","chain_id":"1","nonce":"0","address":"` + payee + `"}`
	typedWith := func(pairs ...string) string {
		out := mail
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(out, pairs[i]) {
				t.Fatalf("no %s", pairs[i])
			}
			out = strings.Replace(out, pairs[i], pairs[i+1], 1)
		}
		return out
	}
	// deep has structs in each other, n below the message.
	deep := func(n int) string {
		types, value := "", "{}"
		for i := range n {
			types += `"T` + strconv.Itoa(i) + `":[{"name":"a","type":"T` + strconv.Itoa(i+1) + `"}],`
			value = `{"a":` + value + `}`
		}
		return `{"operation":"typed_data","typed_data":{"types":{` + types + `"T` + strconv.Itoa(n) + `":[]},"primaryType":"T0","domain":{"name":"x","chainId":1},"message":` + value + `}}`
	}
	for _, good := range []string{
		deep(maxDepth), typedWith(`uint8`, `int8`, `"n":1`, `"n":127`), typedWith(`uint8`, `int8`, `"n":1`, `"n":-128`),
		typedWith(`uint8`, `uint64`, `"n":1`, `"n":9007199254740991`),
	} {
		if _, err := Ledger.Parse([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	manyTypes := func(n int) (out string) {
		for i := range n {
			out += `"T` + strconv.Itoa(i) + `":[],`
		}
		return out
	}
	for _, c := range []struct {
		name, object string
		code         reason.Code
		field        string
	}{
		{"no operation", `{}`, reason.FieldMissing, "operation"},
		{"not an object", `[]`, reason.FieldInvalid, ""},
		{"unknown operation", `{"operation":"transfer"}`, reason.OperationUnknown, "operation"},
		{"no chain", with(t, plain, `{"chain_id":null}`), reason.FieldMissing, "chain_id"},
		{"chain 0", with(t, plain, `{"chain_id":"0"}`), reason.FieldInvalid, "chain_id"},
		{"a chain beyond EIP-2294", with(t, plain, `{"chain_id":"9223372036854775772"}`), reason.FieldInvalid, "chain_id"},
		{"a field of another operation", with(t, plain, `{"gas_price":"1"}`), reason.FieldUnknown, "gas_price"},
		{"a number without quotes", with(t, plain, `{"nonce":9}`), reason.FieldInvalid, "nonce"},
		{"leading zero", with(t, plain, `{"nonce":"09"}`), reason.FieldInvalid, "nonce"},
		{"leading zero in hexadecimal", with(t, plain, `{"nonce":"0x09"}`), reason.FieldInvalid, "nonce"},
		{"a sign", with(t, plain, `{"value":"-1"}`), reason.FieldInvalid, "value"},
		{"a plus", with(t, plain, `{"value":"+1"}`), reason.FieldInvalid, "value"},
		{"an underscore", with(t, plain, `{"value":"1_0"}`), reason.FieldInvalid, "value"},
		{"a point", with(t, plain, `{"value":"1.0"}`), reason.FieldInvalid, "value"},
		{"an exponent", with(t, plain, `{"value":"1e18"}`), reason.FieldInvalid, "value"},
		{"a blank", with(t, plain, `{"value":" 1"}`), reason.FieldInvalid, "value"},
		{"capital X", with(t, plain, `{"value":"0X1"}`), reason.FieldInvalid, "value"},
		{"nothing after 0x", with(t, plain, `{"value":"0x"}`), reason.FieldInvalid, "value"},
		{"empty", with(t, plain, `{"value":""}`), reason.FieldInvalid, "value"},
		{"2^256", with(t, plain, `{"value":"0x1`+strings.Repeat("0", 64)+`"}`), reason.FieldInvalid, "value"},
		{"the nonce of EIP-2681", with(t, plain, `{"nonce":"18446744073709551615"}`), reason.FieldInvalid, "nonce"},
		{"too little gas", with(t, plain, `{"gas_limit":"20999"}`), reason.FieldInvalid, "gas_limit"},
		{"too much gas", with(t, plain, `{"gas_limit":"0x10000000000000000"}`), reason.FieldInvalid, "gas_limit"},
		{"a tip above the fee", with(t, plain, `{"max_priority_fee_per_gas":"31"}`), reason.FieldInvalid, "max_priority_fee_per_gas"},
		{"more than 256 bits of fees", with(t, plain, `{"max_fee_per_gas":"0x`+strings.Repeat("f", 64)+`"}`), reason.FieldInvalid, "gas_limit"},
		{"more than 256 bits together", with(t, plain, `{"value":"0x`+strings.Repeat("f", 64)+`"}`), reason.FieldInvalid, "gas_limit"},
		{"no payee", with(t, plain, `{"to":null}`), reason.FieldMissing, "to"},
		{"an empty payee", with(t, plain, `{"to":""}`), reason.FieldInvalid, "to"},
		{"no 0x", with(t, plain, `{"to":"3535353535353535353535353535353535353535"}`), reason.FieldInvalid, "to"},
		{"a short address", with(t, plain, `{"to":"0x35"}`), reason.FieldInvalid, "to"},
		{"a wrong checksum", with(t, plain, `{"to":"0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4f"}`), reason.FieldInvalid, "to"},
		{"a creation with a payee", with(t, plain, `{"create":true,"data":"0x00"}`), reason.FieldInvalid, "create"},
		{"a creation of nothing", with(t, plain, `{"create":true,"to":null}`), reason.FieldInvalid, "data"},
		{"a creation in words", with(t, plain, `{"create":"true","to":null,"data":"0x00"}`), reason.FieldInvalid, "create"},
		{"no creation", with(t, plain, `{"create":false}`), reason.FieldInvalid, "create"},
		{"half a byte", with(t, plain, `{"data":"0x0"}`), reason.FieldInvalid, "data"},
		{"data without 0x", with(t, plain, `{"data":"00"}`), reason.FieldInvalid, "data"},
		{"too long", with(t, plain, `{"data":"0x`+strings.Repeat("00", maxRaw)+`"}`), reason.FieldInvalid, "data"},
		{"an access list as text", with(t, plain, `{"access_list":"[]"}`), reason.FieldInvalid, "access_list"},
		{"an entry without keys", with(t, plain, `{"access_list":[{"address":"`+payee+`"}]}`), reason.FieldMissing, "access_list[0].storage_keys"},
		{"a short key", with(t, plain, `{"access_list":[{"address":"`+payee+`","storage_keys":["0x00"]}]}`), reason.FieldInvalid, "access_list[0].storage_keys[0]"},
		{"a stranger in an entry", with(t, plain, `{"access_list":[{"address":"`+payee+`","storage_keys":[],"x":1}]}`), reason.FieldUnknown, "access_list[0].x"},
		{"an access list where there is none", with(t, plain, `{"operation":"legacy","gas_price":"1","max_fee_per_gas":null,"max_priority_fee_per_gas":null,"access_list":[]}`), reason.FieldUnknown, "access_list"},
		{"more entries than fit", with(t, plain, `{"access_list":[`+strings.TrimSuffix(strings.Repeat(`{"address":"`+payee+`","storage_keys":[]},`, maxEntries+1), ",")+`]}`), reason.FieldInvalid, "access_list"},
		{"no authorization", with(t, setCode, `{"authorization_list":[]}`), reason.FieldInvalid, "authorization_list"},
		{"EIP-7702 creates nothing", with(t, setCode, `{"to":null,"create":true,"data":"0x00"}`), reason.FieldUnknown, "create"},
		{"a parity of 2", authWith(`{"y_parity":"2"}`), reason.FieldInvalid, "authorization_list[0].y_parity"},
		{"r is 0", authWith(`{"r":"0x` + strings.Repeat("00", 32) + `"}`), reason.FieldInvalid, "authorization_list[0].r"},
		{"r is the order", authWith(`{"r":"0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"}`), reason.FieldInvalid, "authorization_list[0].r"},
		{"s is high", authWith(`{"s":"0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1"}`), reason.FieldInvalid, "authorization_list[0].s"},
		{"an authorization for no chain", with(t, authorization, `{"chain_id":null}`), reason.FieldMissing, "chain_id"},
		{"an authorization for no code", with(t, authorization, `{"address":null}`), reason.FieldMissing, "address"},
		{"no message", `{"operation":"message"}`, reason.FieldMissing, "text"},
		{"two messages", `{"operation":"message","text":"a","bytes":"0x61"}`, reason.FieldInvalid, "bytes"},
		{"an empty message", `{"operation":"message","text":""}`, reason.FieldInvalid, "text"},
		{"a long message", `{"operation":"message","text":"` + strings.Repeat("a", maxText+1) + `"}`, reason.FieldInvalid, "text"},
		{"a short hash", `{"operation":"hash","hash":"0x00"}`, reason.FieldInvalid, "hash"},

		{"typed data as text", `{"operation":"typed_data","typed_data":"{}"}`, reason.FieldInvalid, "typed_data"},
		{"typed data without a type", typedWith(`"primaryType":"Mail",`, ``), reason.FieldMissing, "typed_data.primaryType"},
		{"a type that is not there", typedWith(`"primaryType":"Mail"`, `"primaryType":"Male"`), reason.FieldInvalid, "typed_data.primaryType"},
		{"only the domain", typedWith(`"primaryType":"Mail"`, `"primaryType":"EIP712Domain"`), reason.FieldInvalid, "typed_data.primaryType"},
		{"a type that nothing has", typedWith(`"types":{`, `"types":{"X":[],`), reason.FieldInvalid, "typed_data.types.X"},
		{"a type in a circle", typedWith(`"type":"uint8"}`, `"type":"uint8"},{"name":"m","type":"Mail[]"}`), reason.FieldInvalid, "typed_data.types.Mail"},
		{"uint without a size", typedWith(`uint8`, `uint`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"uint7", typedWith(`uint8`, `uint7`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"uint08", typedWith(`uint8`, `uint08`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"uint264", typedWith(`uint8`, `uint264`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"bytes33", typedWith(`uint8`, `bytes33`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"an array of 0", typedWith(`bool[2]`, `bool[0]`), reason.FieldInvalid, "typed_data.types.Mail[2].type"},
		{"an array of 02", typedWith(`bool[2]`, `bool[02]`), reason.FieldInvalid, "typed_data.types.Mail[2].type"},
		{"half an array", typedWith(`bool[2]`, `bool2]`), reason.FieldInvalid, "typed_data.types.Mail[2].type"},
		{"a field twice", typedWith(`"name":"n"`, `"name":"to"`), reason.FieldInvalid, "typed_data.types.Mail[1].name"},
		{"a comma in a name", typedWith(`"name":"n"`, `"name":"n,uint8 m"`), reason.FieldInvalid, "typed_data.types.Mail[1].name"},
		{"a type called address", typedWith(`"types":{`, `"types":{"address":[],`), reason.FieldInvalid, "typed_data.types.address"},
		{"only the domain, whose type is given", typedWith(`"types":{`, `"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint256"}],`,
			`"primaryType":"Mail"`, `"primaryType":"EIP712Domain"`), reason.FieldInvalid, "typed_data.primaryType"},
		{"too many types", typedWith(`"types":{`, `"types":{`+manyTypes(maxTypes)), reason.FieldInvalid, "typed_data.types"},
		{"a type with a bracket", typedWith(`"types":{`, `"types":{"A(bool b)":[],`, `uint8`, `A(bool b)`), reason.FieldInvalid, "typed_data.types.A(bool b)"},
		{"a type with a digit first", typedWith(`"types":{`, `"types":{"1A":[],`, `uint8`, `1A`), reason.FieldInvalid, "typed_data.types.1A"},
		{"a long name", typedWith(`"name":"n"`, `"name":"`+strings.Repeat("n", 129)+`"`), reason.FieldInvalid, "typed_data.types.Mail[1].name"},
		{"uint12", typedWith(`uint8`, `uint12`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"bytes0", typedWith(`uint8`, `bytes0`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"an array of 4097", typedWith(`bool[2]`, `bool[4097]`), reason.FieldInvalid, "typed_data.types.Mail[2].type"},
		{"a domain in the message", typedWith(`"types":{`, `"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint256"}],`,
			`"type":"uint8"`, `"type":"EIP712Domain"`), reason.FieldInvalid, "typed_data.types.Mail[1].type"},
		{"a type called uint", typedWith(`"types":{`, `"types":{"uint":[],`, `uint8`, `uint`), reason.FieldInvalid, "typed_data.types.uint"},
		{"a type called uint7", typedWith(`"types":{`, `"types":{"uint7":[],`, `uint8`, `uint7`), reason.FieldInvalid, "typed_data.types.uint7"},
		{"a type called bytes0", typedWith(`"types":{`, `"types":{"bytes0":[],`, `uint8`, `bytes0`), reason.FieldInvalid, "typed_data.types.bytes0"},
		{"a type called fixed128x18", typedWith(`"types":{`, `"types":{"fixed128x18":[],`, `uint8`, `fixed128x18`), reason.FieldInvalid, "typed_data.types.fixed128x18"},
		{"a member that is not signed", typedWith(`"n":1`, `"n":1,"x":2`), reason.FieldUnknown, "typed_data.message.x"},
		{"a member that is missing", typedWith(`"n":1,`, ``), reason.FieldMissing, "typed_data.message.n"},
		{"a number that does not fit", typedWith(`"n":1`, `"n":256`), reason.FieldInvalid, "typed_data.message.n"},
		{"a number that does not fit a sign", typedWith(`uint8`, `int8`, `"n":1`, `"n":128`), reason.FieldInvalid, "typed_data.message.n"},
		{"a negative number that does not fit", typedWith(`uint8`, `int8`, `"n":1`, `"n":-129`), reason.FieldInvalid, "typed_data.message.n"},
		{"minus 0", typedWith(`uint8`, `int8`, `"n":1`, `"n":-0`), reason.FieldInvalid, "typed_data.message.n"},
		{"minus in hexadecimal", typedWith(`uint8`, `int8`, `"n":1`, `"n":"-0x1"`), reason.FieldInvalid, "typed_data.message.n"},
		{"a number that JSON's readers round", typedWith(`uint8`, `uint64`, `"n":1`, `"n":9007199254740992`), reason.FieldInvalid, "typed_data.message.n"},
		{"a negative number", typedWith(`"n":1`, `"n":-1`), reason.FieldInvalid, "typed_data.message.n"},
		{"a number with a point", typedWith(`"n":1`, `"n":1.0`), reason.FieldInvalid, "typed_data.message.n"},
		{"a number with an exponent", typedWith(`"n":1`, `"n":1e0`), reason.FieldInvalid, "typed_data.message.n"},
		{"null", typedWith(`"n":1`, `"n":null`), reason.FieldInvalid, "typed_data.message.n"},
		{"too few", typedWith(`[true,false]`, `[true]`), reason.FieldInvalid, "typed_data.message.l"},
		{"not a boolean", typedWith(`[true,false]`, `[true,1]`), reason.FieldInvalid, "typed_data.message.l[1]"},
		{"an empty domain", typedWith(`{"name":"x","chainId":1}`, `{}`), reason.FieldInvalid, "typed_data.domain"},
		{"a domain with a stranger", typedWith(`"chainId":1`, `"chain":1`), reason.FieldUnknown, "typed_data.domain.chain"},
		{"a domain of chain 0", typedWith(`"chainId":1`, `"chainId":0`), reason.FieldInvalid, "typed_data.domain.chainId"},
		{"a domain of a chain beyond EIP-2294", typedWith(`"chainId":1`, `"chainId":"9223372036854775772"`), reason.FieldInvalid, "typed_data.domain.chainId"},
		{"structs too deep", deep(maxDepth + 1), reason.FieldInvalid, "typed_data.message" + strings.Repeat(".a", maxDepth+1)},
		{"a domain in another order", typedWith(`"types":{`, `"types":{"EIP712Domain":[{"name":"chainId","type":"uint256"},{"name":"name","type":"string"}],`), reason.FieldInvalid, "typed_data.types.EIP712Domain"},
		{"a domain of other types", typedWith(`"types":{`, `"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint8"}],`), reason.FieldInvalid, "typed_data.types.EIP712Domain"},
		{"too deep", typedWith(`"type":"bool[2]"`, `"type":"bool`+strings.Repeat("[]", maxDepth+1)+`"`), reason.FieldInvalid, "typed_data.types.Mail[2].type"},
		{"too long typed data", typedWith(`"name":"x"`, `"name":"`+strings.Repeat("x", maxText)+`"`), reason.FieldInvalid, "typed_data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx, err := Ledger.Parse([]byte(c.object))
			ref, ok := reason.As(err)
			if !ok || tx != nil {
				t.Fatalf("got %v, %v; want %s at %s", tx, err, c.code, c.field)
			}
			if ref.Code != c.code || ref.Field != c.field || ref.Hint == "" {
				t.Errorf("got %v (%s); want %s at %s", ref, ref.Field, c.code, c.field)
			}
		})
	}
}

// TestWallets: who cannot sign is refused.
func TestWallets(t *testing.T) {
	_, k1 := walletOf(t, strings.Repeat("46", 32))
	for _, c := range []struct {
		name, object string
		wallet       ledger.Wallet
		code         reason.Code
		field        string
	}{
		{"good", plain, k1, "", ""},
		{"its own address", with(t, plain, `{"from":"0x9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f"}`), k1, "", ""},
		{"another's", with(t, plain, `{"from":"`+payee+`"}`), k1, reason.AddressMismatch, "ethereum.from"},
		{"another curve", plain, ledger.Wallet{Curve: "P-256", PublicPEM: k1.PublicPEM}, reason.CurveUnsuitable, "wallet"},
	} {
		tx, err := Ledger.Parse([]byte(c.object))
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Signings([]ledger.Wallet{c.wallet})
		ref, _ := reason.As(err)
		if c.code == "" && err != nil || c.code != "" && (ref == nil || ref.Code != c.code || ref.Field != c.field) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestUses: a nonce of a chain is used up by a transaction and by an authorization
// alike, and a replacement pays the same if fees alone differ.
func TestUses(t *testing.T) {
	use := func(object string) ledger.Use {
		t.Helper()
		_, w := walletOf(t, strings.Repeat("46", 32))
		tx, err := Ledger.Parse([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		s, err := tx.Signings([]ledger.Wallet{w})
		if err != nil {
			t.Fatal(err)
		}
		return s[0].Use
	}
	base := use(plain)
	if base.Key != "1:9" || base.Field != "ethereum.nonce" {
		t.Errorf("uses %+v", base)
	}
	if got := use(`{"operation":"authorization","chain_id":"1","nonce":"9","address":"` + payee + `"}`); got.Key != base.Key || got.Pays == base.Pays {
		t.Errorf("an authorization uses %+v", got)
	}
	for _, object := range []string{mail, `{"operation":"message","text":"a"}`, `{"operation":"hash","hash":"0x` + strings.Repeat("11", 32) + `"}`} {
		if got := use(object); got.Key != "" {
			t.Errorf("%s uses %+v", object, got)
		}
	}
	for changes, same := range map[string]bool{
		`{"max_fee_per_gas":"31"}`: true, `{"gas_limit":"30000"}`: true, `{"to":"0x` + strings.Repeat("35", 20) + `"}`: true,
		`{"access_list":[{"address":"` + payee + `","storage_keys":[]}]}`:                               true,
		`{"operation":"legacy","gas_price":"7","max_fee_per_gas":null,"max_priority_fee_per_gas":null}`: true,
		`{"value":"1001"}`: false, `{"data":"0x00"}`: false, `{"to":"0x` + strings.Repeat("36", 20) + `"}`: false, `{"to":null,"create":true,"data":"0x00"}`: false,
	} {
		if got := use(with(t, plain, changes)); got.Key != base.Key || (got.Pays == base.Pays) != same {
			t.Errorf("%s: pays the same %t, want %t", changes, got.Pays == base.Pays, same)
		}
	}
	// Whose code an account gets is a part of what is done.
	code := func(to string) string {
		return `{"operation":"authorization","chain_id":"1","nonce":"9","address":"0x` + strings.Repeat(to, 20) + `"}`
	}
	if use(code("35")).Pays == use(code("36")).Pays {
		t.Error("an authorization may be replaced by one for another code")
	}
	list := setCode(t)
	if got := use(list); got.Key != base.Key || got.Pays == base.Pays {
		t.Error("a payment may be replaced by one with authorizations")
	}
	if got := use(with(t, list, `{"max_fee_per_gas":"31"}`)); got.Pays != use(list).Pays {
		t.Error("the fee of a transaction with authorizations cannot be raised")
	}
	if got := use(strings.Replace(list, `"chain_id":"0"`, `"chain_id":"2"`, 1)); got.Pays == use(list).Pays {
		t.Error("authorizations may be replaced by others")
	}
}

// TestPaysApart: a contract's code cannot be written so that a payment counts as the
// replacement of its creation. An address that begins with the four bytes below is found
// in minutes.
func TestPaysApart(t *testing.T) {
	// No address, value 0, and a code of 56 bytes, which goes on as the address, a value
	// of 1 ether and data.
	const start = "0080b838"
	tail := strings.Repeat("aa", 16)
	data := strings.Repeat("bb", 29)
	code := tail + "00" + "880de0b6b3a7640000" + "9d" + data // 56 bytes
	of := func(object string) [32]byte {
		t.Helper()
		tx, err := Ledger.Parse([]byte(object))
		if err != nil {
			t.Fatal(err)
		}
		return tx.(*Tx).pays
	}
	create := with(t, plain, `{"to":null,"create":true,"value":"0","data":"0x`+code+`"}`)
	pay := with(t, plain, `{"to":"0x`+start+tail+`","value":"1000000000000000000","data":"0x`+data+`"}`)
	if of(create) == of(pay) {
		t.Error("the creation of a contract may be replaced by a payment")
	}
}

func TestRules(t *testing.T) {
	anyAuth := `{"operation":"authorization","chain_id":"0","nonce":"9","address":"` + payee + `"}`
	hash := `{"operation":"hash","hash":"0x` + strings.Repeat("11", 32) + `"}`
	noChain := strings.Replace(mail, `,"chainId":1`, "", 1)
	for _, c := range []struct{ rules, object, field string }{
		{``, plain, ""}, {``, mail, ""}, {``, `{"operation":"message","text":"a"}`, ""},
		{``, hash, "ethereum.hash"}, {`{"hash":true}`, hash, ""},
		{``, anyAuth, "ethereum.chain_id"}, {`{"any_chain":true}`, anyAuth, ""},
		{``, noChain, "ethereum.typed_data.domain.chainId"}, {`{"any_chain":true}`, noChain, ""},
		{`{"chains":["1"]}`, plain, ""}, {`{"chains":["5","10"]}`, plain, "ethereum.chain_id"}, {`{"chains":["5"]}`, mail, "ethereum.typed_data.domain.chainId"},
		{`{"chains":["5"],"any_chain":true}`, anyAuth, "ethereum.chain_id"},
		{`{"max_fee":"630000"}`, plain, ""}, {`{"max_fee":"629999"}`, plain, "ethereum.gas_limit"}, {`{"max_fee":"0"}`, mail, ""},
	} {
		var raw []byte
		if c.rules != "" {
			raw = []byte(c.rules)
		}
		rules, err := Ledger.Rules(raw)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := Ledger.Parse([]byte(c.object))
		if err != nil {
			t.Fatal(err)
		}
		err = rules.Allow(tx)
		ref, _ := reason.As(err)
		if c.field == "" && err != nil || c.field != "" && (ref == nil || ref.Code != reason.PolicyForbids || ref.Field != c.field) {
			t.Errorf("%s: %s: %v, want %q", c.rules, c.object, err, c.field)
		}
	}
	for _, bad := range []string{`{"hsh":true}`, `[]`, `{"chains":[]}`, `{"chains":["01"]}`, `{"chains":["0"]}`, `{"chains":["9223372036854775772"]}`, `{"chains":[1]}`, `{"max_fee":"1e18"}`, `{"max_fee":""}`, `{"hash":"true"}`, `{"hash":true,"hash":false}`} {
		if _, err := Ledger.Rules([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestLeadingZeros: where r or s begins with a zero, it is short in the raw transaction
// and long elsewhere.
func TestLeadingZeros(t *testing.T) {
	shortR, shortS := 0, 0
	for nonce := 0; shortR == 0 || shortS == 0; nonce++ {
		if nonce == 20000 {
			t.Fatal("none was found")
		}
		a := signed(t, strings.Repeat("46", 32), with(t, plain, `{"nonce":"`+big.NewInt(int64(nonce)).String()+`"}`))
		var o own
		if err := json.Unmarshal(a.Own["ethereum"], &o); err != nil {
			t.Fatal(err)
		}
		r, s := strings.HasPrefix(o.R, "0x00"), strings.HasPrefix(o.S, "0x00")
		if !r && !s {
			continue
		}
		if r {
			shortR++
		}
		if s {
			shortS++
		}
		if len(o.R) != 66 || len(o.S) != 66 || strings.Contains(o.Raw, "a000") {
			t.Errorf("nonce %d: %s", nonce, a.Own["ethereum"])
		}
		if f := explain(a); !f.Signed || len(f.Problems) > 0 {
			t.Errorf("nonce %d: %+v", nonce, f)
		}
	}
}

// TestExplainTampered: whatever is changed in an answer is noticed.
func TestExplainTampered(t *testing.T) {
	other := signed(t, strings.Repeat("47", 32), plain)
	for _, object := range []string{
		plain, mail, with(t, plain, `{"to":null,"create":true,"data":"0x6000"}`),
		with(t, plain, `{"operation":"legacy","gas_price":"7","max_fee_per_gas":null,"max_priority_fee_per_gas":null}`),
		`{"operation":"message","text":"a"}`, `{"operation":"message","bytes":"0x61"}`, `{"operation":"hash","hash":"0x` + strings.Repeat("11", 32) + `"}`,
		`{"operation":"authorization","chain_id":"1","nonce":"9","address":"` + payee + `"}`, setCode(t),
	} {
		good := signed(t, strings.Repeat("46", 32), object)
		if f := explain(good); !f.Signed || len(f.Problems) > 0 || len(f.Fields) == 0 {
			t.Fatalf("%s: %+v", object, f)
		}
		bad := func(what string, change func(a *answer.Answer)) {
			t.Helper()
			a := *good
			a.Own = map[string]jsontext.Value{"ethereum": bytes.Clone(good.Own["ethereum"])}
			change(&a)
			if f := explain(&a); len(f.Problems) == 0 {
				t.Errorf("%s: %s is not noticed", object, what)
			}
		}
		bad("another key", func(a *answer.Answer) { a.PublicKey = other.PublicKey })
		bad("another address", func(a *answer.Answer) { a.Address = other.Address })
		bad("another signature", func(a *answer.Answer) { a.Signature = other.Signature })
		bad("another payload", func(a *answer.Answer) { a.Payload += "00" })
		bad("another algorithm", func(a *answer.Answer) { a.Algorithm = "schnorr-secp256k1-sha256" })
		bad("another operation", func(a *answer.Answer) {
			a.Operation = map[bool]string{true: opFees, false: opSetCode}[good.Operation == opSetCode]
		})
		bad("an unknown operation", func(a *answer.Answer) { a.Operation = "eip9999" })
		bad("a form to submit", func(a *answer.Answer) { a.Submit = &answer.Submit{Method: "POST", Path: "/transfer"} })
		bad("an unknown member", func(a *answer.Answer) {
			a.Own["ethereum"] = jsontext.Value(`{"x":1,` + string(a.Own["ethereum"])[1:])
		})
		var members map[string]any
		if err := json.Unmarshal(good.Own["ethereum"], &members); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"chain_id", "nonce", "to", "contract", "value", "max_fee", "raw", "signature", "text", "typed_data"} {
			if members[name] == nil {
				bad(name+", which it has not", func(a *answer.Answer) {
					a.Own["ethereum"] = jsontext.Value(`{"` + name + `":"1",` + string(a.Own["ethereum"])[1:])
				})
			}
			if members[name] == nil || name == "text" { // without text it is a message of bytes
				continue
			}
			bad("no "+name, func(a *answer.Answer) {
				a.Own["ethereum"] = jsontext.Value(with(t, string(a.Own["ethereum"]), `{"`+name+`":null}`))
			})
		}
		for name, v := range members {
			if name == "typed_data" {
				bad(name, func(a *answer.Answer) {
					a.Own["ethereum"] = jsontext.Value(strings.Replace(string(a.Own["ethereum"]), `"n":1`, `"n":2`, 1))
				})
				continue
			}
			bad(name, func(a *answer.Answer) {
				changed := map[string]any{}
				for k, v := range members {
					changed[k] = v
				}
				text := v.(string)
				last := "1"
				if strings.HasSuffix(text, "1") {
					last = "2"
				}
				changed[name] = text[:len(text)-1] + last
				b, err := json.Marshal(changed)
				if err != nil {
					t.Fatal(err)
				}
				a.Own["ethereum"] = b
			})
		}
	}
}

// setCode is a transaction with an authorization that the account of the key 46… has signed.
func setCode(t testing.TB) string {
	t.Helper()
	var o own
	a := signed(t, strings.Repeat("46", 32), `{"operation":"authorization","chain_id":"1","nonce":"9","address":"`+payee+`"}`)
	if err := json.Unmarshal(a.Own["ethereum"], &o); err != nil {
		t.Fatal(err)
	}
	entry := `{"chain_id":"1","nonce":"9","address":"` + payee + `","y_parity":"` + o.YParity + `","r":"` + o.R + `","s":"` + o.S + `"}`
	return with(t, plain, `{"operation":"eip7702","authorization_list":[`+entry+`,`+with(t, entry, `{"chain_id":"0"}`)+`]}`)
}

// TestWords: a person can read what a signature does, in numbers and addresses that can
// be compared, and nothing is called what it is not.
func TestWords(t *testing.T) {
	max256 := "115792089237316195423570985008687907853269984665640564039457584007913129639935"
	word := func(hex string) string { return strings.Repeat("0", 64-len(hex)) + hex }
	transfer := "a9059cbb" + word(payee[2:]) + word("5")
	approve := "095ea7b3" + word(payee[2:]) + strings.Repeat("f", 64)
	for _, c := range []struct {
		name, object string
		want         map[string]string
		never        string
	}{
		{"a payment", plain, map[string]string{
			"to": payee, "value": "1000", "amount": "0.000000000000001 of the chain's coin", "max_fee": "630000", "chain_id": "1", "nonce": "9", "gas_limit": "21000",
			"hash": "0x2cc59ce8b7393a29d6dcc696a77fba036a7343be3cf11a6036bbb540f8f89751",
		}, "data"},
		{"a token", with(t, plain, `{"data":"0x`+transfer+`"}`), map[string]string{"data": "transfer(address,uint256): 5 of a token to " + payee, "data_hex": "0x" + transfer}, ""},
		{"an approval", with(t, plain, `{"data":"0x`+approve+`"}`), map[string]string{
			"data": "approve(address,uint256): " + payee + " may spend " + max256 + " (2^256 - 1, which stands for no limit) of a token, or its piece of this number",
		}, ""},
		{"a transfer to no address", with(t, plain, `{"data":"0x`+strings.Replace(transfer, "a9059cbb00", "a9059cbb01", 1)+`"}`), map[string]string{
			"data": "68 bytes, which begin as transfer(address,uint256) and are not of its form: do not trust them",
		}, ""},
		{"more than a transfer", with(t, plain, `{"data":"0x`+transfer+`00"}`), map[string]string{
			"data": "69 bytes, which begin as transfer(address,uint256) and are not of its form: do not trust them",
		}, ""},
		{"all pieces", with(t, plain, `{"data":"0xa22cb465`+word(payee[2:])+word("1")+`"}`), map[string]string{
			"data": "setApprovalForAll(address,bool): " + payee + " may take all pieces of a token, now and later",
		}, ""},
		{"no pieces", with(t, plain, `{"data":"0xa22cb465`+word(payee[2:])+word("0")+`"}`), map[string]string{
			"data": "setApprovalForAll(address,bool): " + payee + " may no longer take the pieces of a token",
		}, ""},
		{"neither", with(t, plain, `{"data":"0xa22cb465`+word(payee[2:])+word("2")+`"}`), map[string]string{
			"data": "68 bytes, which begin as setApprovalForAll(address,bool) and are not of its form: do not trust them",
		}, ""},
		{"a larger allowance", with(t, plain, `{"data":"0x39509351`+word(payee[2:])+word("2")+`"}`), map[string]string{
			"data": "increaseAllowance(address,uint256): " + payee + " may spend 2 more of a token",
		}, ""},
		{"from another", with(t, plain, `{"data":"0x23b872dd`+word(strings.Repeat("36", 20))+word(payee[2:])+word("2")+`"}`), map[string]string{
			"data": "transferFrom(address,address,uint256): 2 of a token, or its piece of this number, from 0x" + strings.Repeat("36", 20) + " to " + payee,
		}, ""},
		{"a piece", with(t, plain, `{"data":"0x42842e0e`+word(strings.Repeat("36", 20))+word(payee[2:])+word("2")+`"}`), map[string]string{
			"data": "safeTransferFrom(address,address,uint256): a token's piece 2 from 0x" + strings.Repeat("36", 20) + " to " + payee,
		}, ""},
		{"an unknown call", with(t, plain, `{"data":"0x01020304"}`), map[string]string{"data": "4 bytes, which begin with 0x01020304"}, ""},
		{"a contract whose code looks like a transfer", with(t, plain, `{"to":null,"create":true,"data":"0x`+transfer+`"}`), map[string]string{
			"contract": "0x1fD43573682A8E3CBA6368836BaF6f9DBEadEfCa", "means": "a contract is created, of the code in data_hex", "data": "68 bytes, which begin with 0xa9059cbb",
		}, "to"},
		{"an access list", with(t, plain, `{"access_list":[{"address":"`+payee+`","storage_keys":[]}]}`), map[string]string{"access_list": "1, which change only what it costs"}, ""},
		{"authorizations", setCode(t), map[string]string{
			"authorization_list[0]": "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F gets the code at " + payee + ", on chain 1, nonce 9",
		}, ""},
		{"an authorization", `{"operation":"authorization","chain_id":"1","nonce":"9","address":"` + payee + `"}`, map[string]string{
			"means": "the account gets the code at this address: that code commands all that the account has",
		}, ""},
		{"an authorization on every chain", `{"operation":"authorization","chain_id":"0","nonce":"9","address":"` + payee + `"}`, map[string]string{
			"means": "the account gets the code at this address on every chain: that code commands all that the account has",
		}, ""},
		{"an authorization taken back", `{"operation":"authorization","chain_id":"1","nonce":"9","address":"0x` + strings.Repeat("0", 40) + `"}`, map[string]string{
			"means": "the account's code is taken away",
		}, ""},
		{"text", `{"operation":"message","text":"a\nb"}`, map[string]string{"text": "a\nb"}, "bytes"},
		{"bytes that are text", `{"operation":"message","bytes":"0x48656c6c6f"}`, map[string]string{"bytes": "0x48656c6c6f", "as text": "Hello"}, "text"},
		{"bytes that are none", `{"operation":"message","bytes":"0xff"}`, map[string]string{"bytes": "0xff"}, "as text"},
		{"a hash", `{"operation":"hash","hash":"0x` + strings.Repeat("11", 32) + `"}`, map[string]string{
			"hash": "0x" + strings.Repeat("11", 32), "means": "nobody here can know: it can be a transaction of the account",
		}, ""},
		{"typed data", mail, map[string]string{
			"primaryType": "Mail", "domain.name": "x", "domain.chainId": "1", "message.to": payee, "message.n": "1", "message.l[0]": "true", "message.l[1]": "false", "chain_id": "1",
		}, "means"},
		{"typed data for every chain", strings.Replace(mail, `,"chainId":1`, "", 1), map[string]string{"means": "it is good on every chain"}, "chain_id"},
		{"typed data of other kinds", `{"operation":"typed_data","typed_data":{"types":{"A":[{"name":"b","type":"B[][1]"},{"name":"v","type":"uint256"},{"name":"w","type":"uint256"},{"name":"i","type":"int8"},
			{"name":"a","type":"address"},{"name":"s","type":"string"},{"name":"y","type":"bytes"},{"name":"z","type":"bytes2"}],"B":[{"name":"c","type":"string[]"}]},"primaryType":"A","domain":{"name":"x","chainId":"0x7a69"},
			"message":{"b":[[{"c":[]},{"c":["d","e"]}]],"v":"0x` + strings.Repeat("f", 64) + `","w":"0x10","i":-128,"a":"0x9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f","s":"","y":"0x","z":"0x0102"}}}`, map[string]string{
			"message.b[0][0].c": "an empty list", "message.b[0][1].c[1]": "e", "message.v": max256 + " (2^256 - 1, which stands for no limit)", "message.w": "16", "message.i": "-128",
			"message.a": "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F", "message.s": `""`, "message.y": "0x", "message.z": "0x0102", "domain.chainId": "31337",
		}, ""},
	} {
		f := explain(signed(t, strings.Repeat("46", 32), c.object))
		if !f.Signed || len(f.Problems) > 0 {
			t.Errorf("%s: %+v", c.name, f)
		}
		got := map[string]string{}
		for _, field := range f.Fields {
			if _, twice := got[field.Name]; twice || field.Name == "" || field.Value == "" {
				t.Errorf("%s: the field %q is %q", c.name, field.Name, field.Value)
			}
			got[field.Name] = field.Value
		}
		for name, want := range c.want {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", c.name, name, got[name], want)
			}
		}
		if v, there := got[c.never]; there {
			t.Errorf("%s: %s is %q", c.name, c.never, v)
		}
	}
}

// TestExplainForged: what another signer than the appliance has signed, in a form that no
// node takes or for no chain, is not explained as if it were good.
func TestExplainForged(t *testing.T) {
	key, w := walletOf(t, strings.Repeat("46", 32))
	str := func(b ...byte) []byte { return appendString(nil, b) }
	good := map[string][]byte{
		"nonce": str(9), "gas_price": str(7), "gas_limit": str(0x52, 8), "to": appendString(nil, bytes.Repeat([]byte{0x35}, 20)), "value": str(1), "data": str(), "chain": str(1),
		"rest": {0x80, 0x80}, // where the signature will be
	}
	forge := func(changes map[string][]byte, v byte) *answer.Answer {
		t.Helper()
		var body []byte
		item := func(name string) []byte {
			if b, there := changes[name]; there {
				return b
			}
			return good[name]
		}
		for _, name := range transactionFields[opLegacy] {
			body = append(body, item(name)...)
		}
		payload := appendList(nil, slices.Concat(body, item("chain"), item("rest")))
		digest := keccak(payload)
		sig := secp.SignCompact(key, digest[:], false)
		raw := appendString(body, []byte{v + sig[0] - 27})
		raw = appendList(nil, appendString(appendString(raw, shorten(sig[1:33])), shorten(sig[33:])))
		hash := keccak(raw)
		o := own{
			ChainID: "1", From: "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F", Nonce: "9", To: payee, Value: "1", MaxFee: "147000",
			Hash: hex0x(hash[:]), Raw: hex0x(raw), R: hex0x(sig[1:33]), S: hex0x(sig[33:]), V: strconv.Itoa(int(v + sig[0] - 27)), YParity: strconv.Itoa(int(sig[0] - 27)),
		}
		return &answer.Answer{
			Operation: opLegacy, Address: o.From, Payload: hex0x(payload), Algorithm: algorithm(opLegacy), PublicKey: w.PublicPEM,
			Signature: base64.StdEncoding.EncodeToString(append(bytes.Clone(sig[1:]), sig[0]-27)), Own: map[string]jsontext.Value{"ethereum": o.append(nil)},
		}
	}
	if f := explain(forge(nil, 37)); !f.Signed || len(f.Problems) > 0 {
		t.Fatalf("the pattern: %+v", f)
	}
	for name, changes := range map[string]map[string][]byte{
		"zeros before the nonce":     {"nonce": str(0, 9)},
		"zeros before the value":     {"value": str(0, 1)},
		"zeros before the gas limit": {"gas_limit": str(0, 0x52, 8)},
		"zeros before the chain":     {"chain": str(0, 1)},
		"a list for the value":       {"value": {0xc1, 0x01}},
	} {
		if f := explain(forge(changes, 37)); len(f.Problems) == 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
	long := appendString(nil, append([]byte{1}, make([]byte, 32)...))
	a := forge(map[string][]byte{"value": long}, 37)
	a.Own["ethereum"] = jsontext.Value(with(t, string(a.Own["ethereum"]), `{"value":"`+new(big.Int).Lsh(big.NewInt(1), 256).String()+`"}`))
	if f := explain(a); len(f.Problems) == 0 {
		t.Errorf("a value of 257 bits: %+v", f)
	}
	a = forge(map[string][]byte{"chain": str()}, 35)
	a.Own["ethereum"] = jsontext.Value(with(t, string(a.Own["ethereum"]), `{"chain_id":"0"}`))
	if f := explain(a); len(f.Problems) == 0 {
		t.Errorf("no chain: %+v", f)
	}
	for name, change := range map[string]func(a *answer.Answer){
		"payload": func(a *answer.Answer) { a.Payload += strings.Repeat("00", maxRaw) },
		"raw": func(a *answer.Answer) {
			a.Own["ethereum"] = jsontext.Value(with(t, string(a.Own["ethereum"]), `{"raw":"0x`+strings.Repeat("00", maxRaw+1)+`"}`))
		},
	} {
		a := forge(nil, 37)
		change(a)
		if f := explain(a); f.Signed || len(f.Problems) != 1 || !strings.Contains(f.Problems[0], "longer than") {
			t.Errorf("a %s without end: %q", name, f.Problems)
		}
	}
	for _, changes := range []map[string][]byte{
		{"chain": {1, 0x80}}, {"chain": {0xc1, 1}}, {"rest": {0x80}}, {"rest": {0x80, 1}}, {"rest": {1, 0x80}}, {"rest": {0x80, 0x80, 0x80}}, {"rest": {0xc0, 0xc0}},
	} {
		if f := explain(forge(changes, 37)); len(f.Problems) == 0 {
			t.Errorf("%x: %+v", changes, f)
		}
	}
}

// TestExplainRaw: the raw transaction is the one that was signed, with this signature, also
// where the answer's hash fits another.
func TestExplainRaw(t *testing.T) {
	for _, object := range []string{
		plain, setCode(t), with(t, plain, `{"operation":"legacy","gas_price":"7","max_fee_per_gas":null,"max_priority_fee_per_gas":null,"data":"0x01"}`),
		with(t, plain, `{"operation":"eip2930","gas_price":"7","max_fee_per_gas":null,"max_priority_fee_per_gas":null}`),
	} {
		good := signed(t, strings.Repeat("46", 32), object)
		var o own
		if err := json.Unmarshal(good.Own["ethereum"], &o); err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(o.Raw[2:])
		if err != nil {
			t.Fatal(err)
		}
		var kind []byte
		if raw[0] < 0x80 {
			kind, raw = raw[:1], raw[1:]
		}
		it, err := decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		try := func(what string, items [][]byte) {
			t.Helper()
			other := append(bytes.Clone(kind), appendList(nil, bytes.Join(items, nil))...)
			hash := keccak(other)
			a := *good
			a.Own = map[string]jsontext.Value{"ethereum": jsontext.Value(with(t, string(good.Own["ethereum"]), `{"raw":"`+hex0x(other)+`","hash":"`+hex0x(hash[:])+`"}`))}
			if f := explain(&a); (len(f.Problems) == 0) != (what == "") {
				t.Errorf("%s: %s: %q", object, what, f.Problems)
			}
		}
		var items [][]byte
		for _, sub := range it.items {
			items = append(items, sub.raw)
		}
		try("", items)
		try("an item less", items[:len(items)-1])
		try("an item more", append(append([][]byte(nil), items...), []byte{0x80}))
		for i := range items {
			for _, other := range [][]byte{{0x80}, {0xc0}, {0x7f}, append([]byte{0xa0}, bytes.Repeat([]byte{1}, 32)...), {0xc1, 1}} {
				if !bytes.Equal(other, items[i]) {
					changed := append([][]byte(nil), items...)
					changed[i] = other
					try("item "+strconv.Itoa(i)+" is "+hex0x(other), changed)
				}
			}
		}
	}
}

// TestExplainSignature: a signature has one form, that which nodes take.
func TestExplainSignature(t *testing.T) {
	good := signed(t, strings.Repeat("46", 32), `{"operation":"message","text":"a"}`)
	sig, err := base64.StdEncoding.DecodeString(good.Signature)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, signature string, members string) {
		t.Helper()
		a := *good
		a.Signature = signature
		a.Own = map[string]jsontext.Value{"ethereum": jsontext.Value(with(t, string(good.Own["ethereum"]), members))}
		if f := explain(&a); (len(f.Problems) == 0) != (name == "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
	try("", good.Signature, `{}`)
	try("a line break", good.Signature[:8]+"\n"+good.Signature[8:], `{}`)
	try("no end", good.Signature[:len(good.Signature)-4], `{}`)
	// The other s that verifies, with everything that the answer says of it.
	high := bytes.Clone(sig)
	new(big.Int).Sub(order, new(big.Int).SetBytes(sig[32:64])).FillBytes(high[32:64])
	high[64] ^= 1
	try("a high s", base64.StdEncoding.EncodeToString(high), `{"s":"`+hex0x(high[32:64])+`","y_parity":"`+strconv.Itoa(int(high[64]))+`","v":"`+strconv.Itoa(27+int(high[64]))+
		`","signature":"`+hex0x(append(bytes.Clone(high[:64]), 27+high[64]))+`"}`)
	two := bytes.Clone(sig)
	two[64] += 2
	try("a parity of 2", base64.StdEncoding.EncodeToString(two), `{"y_parity":"`+strconv.Itoa(int(two[64]))+`"}`)
}

// TestGolden: the same bytes on every machine, whatever its byte order.
func TestGolden(t *testing.T) {
	var out bytes.Buffer
	for _, v := range vectors {
		a := signed(t, v.key, v.request)
		out.WriteString(v.name + "\n" + a.Payload + "\n" + string(a.Own["ethereum"]) + "\n")
	}
	const name = "testdata/answers.txt"
	if os.Getenv("SIGNDROP_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(name, out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got\n%s", out.Bytes())
	}
}

// TestDecode: what is not the one encoding of its content is not read.
func TestDecode(t *testing.T) {
	for in, ok := range map[string]bool{
		"80": true, "c0": true, "7f": true, "8180": true, "83646f67": true, "c88363617483646f67": true, "b838" + strings.Repeat("00", 56): true,
		"": false, "81": false, "817f": false, "8000": false, "b837" + strings.Repeat("00", 55): false, "b90038" + strings.Repeat("00", 56): false,
		"c1": false, "c281": false, "bfffffffffffffffff": false, "ffffffffffffffffff": false, "c18180": false,
		"c8c7c6c5c4c3c2c1c0": true, "c9c8c7c6c5c4c3c2c1c0": false, // too deep
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(b); (err == nil) != ok {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// encodeItem writes an item once more.
func encodeItem(it item) []byte {
	if !it.list {
		return appendString(nil, it.bytes)
	}
	var body []byte
	for _, sub := range it.items {
		body = append(body, encodeItem(sub)...)
	}
	return appendList(nil, body)
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"c88363617483646f67", "b838" + strings.Repeat("00", 56), "f83a" + strings.Repeat("80", 58)} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		it, err := decode(b)
		if err == nil && !bytes.Equal(encodeItem(it), b) {
			t.Errorf("%x is read as %x", b, encodeItem(it))
		}
	})
}

// FuzzParse: whatever is accepted is signed, explained without a problem, and parsed to
// the same again.
func FuzzParse(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.request))
	}
	f.Add([]byte(mail))
	f.Fuzz(func(t *testing.T, data []byte) {
		tx, err := Ledger.Parse(bytes.Clone(data))
		if err != nil {
			if _, ok := reason.As(err); !ok || tx != nil {
				t.Fatalf("%v with %v", tx, err)
			}
			return
		}
		p := tx.(*Tx)
		if p.from != nil {
			return
		}
		// The request's parser has seen to this.
		if v := jsontext.Value(data); !v.IsValid() {
			return
		}
		a := signed(t, strings.Repeat("46", 32), string(data))
		if found := explain(a); !found.Signed || len(found.Problems) > 0 {
			t.Errorf("%s: %+v", data, found)
		} else {
			previewHolds(t, tx, found)
		}
		again, err := Ledger.Parse(data)
		if err != nil || again.Payload() != tx.Payload() {
			t.Errorf("%s: not the same twice", data)
		}
	})
}

// FuzzExplain: whatever an answer says, explaining it ends well, and only what was signed
// is good.
func FuzzExplain(f *testing.F) {
	for _, v := range vectors {
		a := signed(f, v.key, v.request)
		f.Add(a.Operation, a.Payload, a.Signature, a.PublicKey, []byte(a.Own["ethereum"]))
	}
	f.Fuzz(func(t *testing.T, op, payload, sig, key string, own []byte) {
		a := &answer.Answer{
			Type: answer.TypeSign, Verdict: "signed", Ledger: "ethereum", Operation: op, Payload: payload, Signature: sig, PublicKey: key,
			Algorithm: algorithm(op), Own: map[string]jsontext.Value{"ethereum": own},
		}
		found := explain(a)
		if !found.Signed && len(found.Problems) == 0 {
			t.Error("nothing was signed, and that is no problem")
		}
	})
}

func BenchmarkSignings(b *testing.B) {
	_, w := walletOf(b, strings.Repeat("46", 32))
	ws := []ledger.Wallet{w}
	sig := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	b.ReportAllocs()
	for b.Loop() {
		tx, err := Ledger.Parse([]byte(plain))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Signings(ws); err != nil {
			b.Fatal(err)
		}
		var a answer.Signed
		tx.Answer(&a, ws, []string{sig})
	}
}
