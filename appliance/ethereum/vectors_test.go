package ethereum

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
)

// walletOf makes a wallet of a private key in hexadecimal.
func walletOf(t testing.TB, private string) (*btcec.PrivateKey, ledger.Wallet) {
	t.Helper()
	b, err := hex.DecodeString(private)
	if err != nil {
		t.Fatal(err)
	}
	key, pub := btcec.PrivKeyFromBytes(b)
	// SubjectPublicKeyInfo of secp256k1 up to the point.
	info, _ := hex.DecodeString("3056301006072a8648ce3d020106052b8104000a034200")
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(info, pub.SerializeUncompressed()...)})
	return key, ledger.Wallet{ID: "W_1", Curve: "secp256k1", PublicPEM: string(text)}
}

// signed signs a request's object, and returns the answer as a partner reads it.
func signed(t testing.TB, private, object string) *answer.Answer {
	t.Helper()
	key, w := walletOf(t, private)
	tx, err := Ledger.Parse([]byte(object))
	if err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	ws := []ledger.Wallet{w}
	signings, err := tx.Signings(ws)
	if err != nil {
		t.Fatal(err)
	}
	c := secp.SignCompact(key, signings[0].Digest, false)
	sig := append(c[1:], c[0]-27)
	a := &answer.Signed{
		Wallet: w.ID, PublicKey: w.PublicPEM, Ledger: tx.Ledger(), Operation: tx.Operation(), Payload: tx.Payload(), Algorithm: signings[0].Algorithm,
	}
	tx.Answer(a, ws, []string{base64.StdEncoding.EncodeToString(sig)})
	parsed, err := answer.Parse(a.Append(nil))
	if err != nil {
		t.Fatalf("%v in %s", err, a.Append(nil))
	}
	return parsed
}

// TestPublished: what others have published comes out byte for byte.
func TestPublished(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			a := signed(t, v.key, v.request)
			own := string(a.Own["ethereum"])
			if v.payload != "" && a.Payload != v.payload {
				t.Errorf("payload %s", a.Payload)
			}
			for _, want := range v.want {
				if !strings.Contains(own, want) {
					t.Errorf("lacks %s:\n%s", want, own)
				}
			}
			if f := explain(a); !f.Signed || len(f.Problems) > 0 {
				t.Errorf("found %+v", f)
			}
		})
	}
}

// TestChecksum: the addresses of EIP-55 are written as there, and none with a letter of the
// other size is read.
func TestChecksum(t *testing.T) {
	for _, want := range []string{
		"0x52908400098527886E0F7030069857D2E4169EE7", "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
		"0xde709f2102306220921060314715629080e2fb77", "0x27b1fdb04752bbc536007a920d24acb045561c26",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
		"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	} {
		for _, in := range []string{want, strings.ToLower(want), "0x" + strings.ToUpper(want[2:])} {
			if a, r := parseAddress(in); r != nil || a.String() != want {
				t.Errorf("%s is read as %s, %v", in, a, r)
			}
		}
		for i := 2; i < len(want); i++ {
			other := strings.ToUpper(want[i : i+1])
			if other == want[i:i+1] {
				other = strings.ToLower(other)
			}
			in := want[:i] + other + want[i+1:]
			if in == want || strings.ToLower(in) == in || strings.ToUpper(in[2:]) == in[2:] {
				continue
			}
			if a, r := parseAddress(in); r == nil {
				t.Errorf("%s is read as %s", in, a)
			}
		}
	}
}

// TestBorders: what is signed at the borders of RLP's lengths, written by hand. ethers knows
// no nonce above 2^53.
func TestBorders(t *testing.T) {
	const to, ff = "943535353535353535353535353535353535353535", "ffffffffffffffff"
	for _, c := range []struct{ chain, nonce, value, want, v string }{
		{"1", "0", "0", "df" + "80" + "01" + "825208" + to + "80" + "80" + "01" + "8080", "3[78]"},
		{"1", "0x7f", "0x7f", "df" + "7f" + "01" + "825208" + to + "7f" + "80" + "01" + "8080", "3[78]"},
		{"1", "0x80", "0x80", "e1" + "8180" + "01" + "825208" + to + "8180" + "80" + "01" + "8080", "3[78]"},
		{"0x7f", "255", "255", "e1" + "81ff" + "01" + "825208" + to + "81ff" + "80" + "7f" + "8080", "2(89|90)"},
		{"0x80", "256", "256", "e4" + "820100" + "01" + "825208" + to + "820100" + "80" + "8180" + "8080", "29[12]"},
		{"1", "0x7fffffffffffffff", "0x" + ff, "ef" + "887fffffffffffffff" + "01" + "825208" + to + "88" + ff + "80" + "01" + "8080", "3[78]"},
		{"1", "0x8000000000000000", "0x1" + strings.Repeat("0", 16), "f0" + "888000000000000000" + "01" + "825208" + to + "89010000000000000000" + "80" + "01" + "8080", "3[78]"},
		{"9223372036854775771", "18446744073709551614", "0x" + strings.Repeat(ff, 4),
			"f84f" + "88fffffffffffffffe" + "80" + "825208" + to + "a0" + strings.Repeat(ff, 4) + "80" + "887fffffffffffffdb" + "8080", "1844674407370955157[78]"},
	} {
		price := "1"
		if strings.HasPrefix(c.want, "f84f") {
			price = "0" // together they would be more than 256 bits
		}
		a := signed(t, strings.Repeat("46", 32), fmt.Sprintf(
			`{"operation":"legacy","chain_id":%q,"nonce":%q,"to":%q,"value":%q,"gas_limit":"21000","gas_price":%q}`, c.chain, c.nonce, payee, c.value, price))
		if a.Payload != "0x"+c.want {
			t.Errorf("chain %s, nonce %s, value %s: %s, want %s", c.chain, c.nonce, c.value, a.Payload, c.want)
		}
		if !regexp.MustCompile(`"v":"` + c.v + `"`).Match(a.Own["ethereum"]) {
			t.Errorf("chain %s: %s, want v %s", c.chain, a.Own["ethereum"], c.v)
		}
		if f := explain(a); !f.Signed || len(f.Problems) > 0 {
			t.Errorf("chain %s, nonce %s: %+v", c.chain, c.nonce, f)
		}
	}
}

var vectors = []struct {
	name, key, request, payload string
	want                        []string
}{
	{
		name: "eip155", key: strings.Repeat("46", 32),
		request: `{"operation":"legacy","chain_id":"1","nonce":"9","gas_price":"20000000000","gas_limit":"21000",
			"to":"0x3535353535353535353535353535353535353535","value":"1000000000000000000","from":"0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"}`,
		payload: "0xec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080",
		want: []string{
			`"raw":"0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"`,
			`"v":"37"`, `"from":"0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F"`,
		},
	},
	{
		name: "eip712 mail", key: "c85ef7d79691fe79573b1a7064c19c1a9819ebdbd1faaab1a8ec92344438aaf4", // Keccak-256 of "cow"
		request: `{"operation":"typed_data","typed_data":{"types":{
			"EIP712Domain":[{"name":"name","type":"string"},{"name":"version","type":"string"},{"name":"chainId","type":"uint256"},{"name":"verifyingContract","type":"address"}],
			"Person":[{"name":"name","type":"string"},{"name":"wallet","type":"address"}],
			"Mail":[{"name":"from","type":"Person"},{"name":"to","type":"Person"},{"name":"contents","type":"string"}]},
			"primaryType":"Mail",
			"domain":{"name":"Ether Mail","version":"1","chainId":1,"verifyingContract":"0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"},
			"message":{"from":{"name":"Cow","wallet":"0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},"to":{"name":"Bob","wallet":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},"contents":"Hello, Bob!"}}}`,
		want: []string{
			`"hash":"0xbe609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"`,
			`"signature":"0x4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b915621c"`,
			`"from":"0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"`, `"chain_id":"1"`,
		},
	},
	{
		// web3.js, documentation of eth.accounts.sign.
		name: "eip191", key: "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318",
		request: `{"operation":"message","text":"Some data"}`,
		want: []string{
			`"hash":"0x1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655"`, `"v":"28"`,
			`"signature":"0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c"`,
			`"text":"Some data"`,
		},
	},
	{
		// MEWwalletKit, EIP2930Tests, from the devnet YOLOv3.
		name: "eip2930", key: "fad9c8855b740a0b7ed4c221dbad0f33a83a49cad6b3fe8d5817ac83d38b6a19",
		request: `{"operation":"eip2930","chain_id":"0x796f6c6f763378","nonce":"0","gas_price":"0x3b9aca00","gas_limit":"0x62d4","value":"1",
			"to":"0xdf0a88b2b68c673713a8ec826003676f272e3573","access_list":[{"address":"0x0000000000000000000000000000000000001337",
			"storage_keys":["0x0000000000000000000000000000000000000000000000000000000000000000"]}]}`,
		want: []string{
			`"raw":"0x01f8a587796f6c6f76337880843b9aca008262d494df0a88b2b68c673713a8ec826003676f272e35730180f838f7940000000000000000000000000000000000001337e1a0000000000000000000000000000000000000000000000000000000000000000080a0294ac94077b35057971e6b4b06dfdf55a6fbed819133a6c1d31e187f1bca938da00be950468ba1c25a5cb50e9f6d8aa13c8cd21f24ba909402775b262ac76d374d"`,
			`"hash":"0xbbd570a3c6acc9bb7da0d5c0322fe4ea2a300db80226f7df4fef39b2d6649eec"`,
		},
	},
	{
		// ethereumjs, packages/tx/test/json/eip1559.json.
		name: "eip1559", key: "8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63",
		request: fees(7822, 819, 43203529, 35552, 75853, 121212),
		want:    []string{`"raw":"0x02f870821e8e8203338301284d8301d97c828ae094000000000000000000000000000000000000aaaa8402933bc980c080a0d067f2167008c59219652f91cbf8788dbca5f771f6e91e2b7657e85b78b472e0a01d305af9fe81fdba43f0dfcd400ed24dcace0a7e30d4e85701dcaaf484cd079e"`},
	},
	{
		name: "eip1559, the other parity", key: "8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63",
		request: fees(7822, 353, 61901619, 32593, 38850, 136295),
		want:    []string{`"raw":"0x02f86f821e8e8201618297c283021467827f5194000000000000000000000000000000000000aaaa8403b08b3380c001a004205678f13fc1d7b10feea6513dfa76e24418b6e08097d95c6f93a3b64e536da01d45ad61bfece43862de2cce7d2575a8c1d08c26c87f3cb5f26d7b0be54a91b2"`, `"y_parity":"1"`},
	},
	{
		name: "eip1559, a small nonce", key: "8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63",
		request: fees(7822, 119, 65456115, 62341, 24721, 107729),
		want:    []string{`"raw":"0x02f86d821e8e778260918301a4d182f38594000000000000000000000000000000000000aaaa8403e6c7f380c001a0e38e239770801eb995498c821e55ac9c19ae09184bb27b34be105e02fe3b7615a067c64ca6bd6d9107e85fd581ab2e70a14b637eb36505bb40861ef9d6e800cab6"`},
	},
	{
		// Ethereum's execution-spec-tests, test_address_from_set_code.
		name: "eip7702, authorization", key: "45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8",
		request: `{"operation":"authorization","chain_id":"0","address":"0x0000000000000000000000000000000000001000","nonce":"0","from":"0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b"}`,
		want: []string{`"chain_id":"0"`, `"y_parity":"0"`,
			`"r":"0xdbcff17ff6c249f13b334fa86bcbaa1afd9f566ca9b06e4ea5fab9bdde9a9202"`, `"s":"0x5c34c9d8af5b20e4a425fc1daf2d9d484576857eaf1629145b4686bac733868e"`},
	},
	{
		// Hardhat's EDR, its account 0 authorizes and its account 1 sends.
		name: "eip7702, its authorization", key: "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
		request: `{"operation":"authorization","chain_id":"31337","address":"0x1234567890123456789012345678901234567890","nonce":"0"}`,
		want: []string{`"y_parity":"0"`, `"r":"0xb776080626e62615e2a51a6bde9b4b4612af2627e386734f9af466ecfce19b8d"`,
			`"s":"0x0d5c886f5874383826ac237ea99bfbbf601fad0fd344458296677930d51ff444"`},
	},
	{
		name: "eip7702", key: "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
		request: `{"operation":"eip7702","chain_id":"31337","nonce":"0","max_priority_fee_per_gas":"1000000000","max_fee_per_gas":"2200000000","gas_limit":"63000","value":"0",
			"to":"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266","authorization_list":[{"chain_id":"31337","address":"0x1234567890123456789012345678901234567890","nonce":"0","y_parity":"0",
			"r":"0xb776080626e62615e2a51a6bde9b4b4612af2627e386734f9af466ecfce19b8d","s":"0x0d5c886f5874383826ac237ea99bfbbf601fad0fd344458296677930d51ff444"}]}`,
		want: []string{`"raw":"0x04f8cc827a6980843b9aca00848321560082f61894f39fd6e51aad88f6f4ce6ab8827279cfffb922668080c0f85ef85c827a699412345678901234567890123456789012345678908080a0b776080626e62615e2a51a6bde9b4b4612af2627e386734f9af466ecfce19b8da00d5c886f5874383826ac237ea99bfbbf601fad0fd344458296677930d51ff44480a0a5f83207382081e8de07113af9ba61e4b41c9ae306edc55a2787996611d1ade9a0082f979b985ea64b4755344b57bcd66ade2b840e8be2036101d9cf23a8548412"`},
	},
}

func fees(chain, nonce, value, gas, tip, fee int) string {
	return fmt.Sprintf(`{"operation":"eip1559","chain_id":"%d","nonce":"%d","value":"%d","gas_limit":"%d","max_priority_fee_per_gas":"%d","max_fee_per_gas":"%d","to":"0x000000000000000000000000000000000000aaaa"}`,
		chain, nonce, value, gas, tip, fee)
}
