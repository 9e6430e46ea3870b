package ethereum

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
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
			if strings.HasPrefix(v.name, "eip155") && a.Payload != v.payload {
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
}
