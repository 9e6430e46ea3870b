package bitcoin

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/wire/v2"

	"signdrop/appliance/reason"
)

type vector struct {
	Section  string
	Case     string
	Base64   string
	LockTime *int64
}

func load(t testing.TB, name string, into any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func vectors(t testing.TB) []vector {
	var all []vector
	for _, name := range []string{"bip174.json", "bip370.json", "bip371.json"} {
		var some []vector
		load(t, name, &some)
		all = append(all, some...)
	}
	return all
}

// TestVectors: what the BIPs call valid is parsed and written again as it was,
// what they call invalid is refused, and what a signer must not sign is not
// signed.
func TestVectors(t *testing.T) {
	counts := map[string]int{}
	for _, v := range vectors(t) {
		t.Run(v.Case, func(t *testing.T) {
			p, err := Parse([]byte(v.Base64))
			section := strings.ToLower(v.Section)
			switch {
			case strings.Contains(section, "invalid") || v.LockTime != nil && *v.LockTime < 0:
				counts["invalid"]++
				code := reason.PSBTMalformed
				if strings.Contains(strings.ToLower(v.Case), "duplicate") {
					code = reason.KeyTwice
					counts["twice"]++
				}
				wantCode(t, err, code)
				return
			case err != nil:
				t.Fatal(err)
			}
			if got := p.form.encode(p.serialize(p.global, p.inputs, p.outputs)); string(got) != v.Base64 {
				t.Errorf("written again:\n got %s\nwant %s", got, v.Base64)
			}
			switch {
			case v.LockTime != nil:
				counts["lock time"]++
				if int64(p.tx.LockTime) != *v.LockTime {
					t.Errorf("lock time: got %d, want %d", p.tx.LockTime, *v.LockTime)
				}
			case strings.Contains(section, "valid"):
				counts["valid"]++
				for i, m := range p.inputs {
					// In which order the bytes of an id are, only these vectors say.
					raw := m.get(inTx)
					if p.version != 2 || raw == nil {
						continue
					}
					counts["spent"]++
					spent := p.tx.TxIn[i].PreviousOutPoint
					if id, out, err := readOutput(raw, spent.Index); err != nil || id != spent.Hash || out == nil {
						t.Errorf("input %d spends %v, and its previous transaction is %v (%v)", i, spent, id, err)
					}
				}
			default:
				counts["signer"]++
				_, err := p.Check(Rules{Network: "testnet", MaxFeePercent: -1}, signerKeys(t, "signer_a"))
				code := reason.ScriptMismatch
				if strings.Contains(v.Case, "non-witness input") {
					code = reason.AmountUnproven
				}
				wantCode(t, err, code)
			}
		})
	}
	// Nothing was lost on the way into the files.
	for name, want := range map[string]int{"invalid": 20 + 24 + 1 + 11, "valid": 10 + 14 + 6, "lock time": 9, "signer": 4, "twice": 1, "spent": 13} {
		if counts[name] != want {
			t.Errorf("%d vectors are %s, want %d", counts[name], name, want)
		}
	}
}

type signerVector struct {
	Updated, Combined, Finalized, Extracted string
	SignerA, SignerB                        struct {
		Keys   map[string]string
		Expect string
	}
}

func signerVectors(t testing.TB) *signerVector {
	var raw map[string]json.RawMessage
	load(t, "bip174-signer.json", &raw)
	v := &signerVector{}
	for name, into := range map[string]any{"updated": &v.Updated, "combined": &v.Combined, "finalized": &v.Finalized,
		"signer_a": &v.SignerA, "signer_b": &v.SignerB} {
		if err := json.Unmarshal(raw[name], into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return v
}

// signerKeys are the keys of a signer in BIP-174's flow. Its master key has the
// fingerprint d90c6a4f.
func signerKeys(t testing.TB, name string) *ring {
	v := signerVectors(t)
	r := newRing(name)
	r.fingerprint = [4]byte{0xd9, 0x0c, 0x6a, 0x4f}
	keys := v.SignerA.Keys
	if name == "signer_b" {
		keys = v.SignerB.Keys
	}
	for path, wif := range keys {
		raw, version, err := base58.CheckDecode(wif)
		if err != nil || version != 0xef || len(raw) != 33 {
			t.Fatalf("%s is no key of a testnet: %v", path, err)
		}
		priv, _ := btcec.PrivKeyFromBytes(raw[:32])
		r.add(priv, testPath(t, path))
	}
	return r
}

func testPath(t testing.TB, s string) (path []uint32) {
	for step := range strings.SplitSeq(strings.TrimPrefix(s, "m/"), "/") {
		if len(step) != 2 || step[1] != '\'' {
			t.Fatalf("path %s", s)
		}
		path = append(path, hardened|uint32(step[0]-'0'))
	}
	return path
}

// TestSignerFlow is "the following test vectors describe the flow" of BIP-174:
// each signer's answer byte for byte, in the order in which one signs after the
// other too.
func TestSignerFlow(t *testing.T) {
	v := signerVectors(t)
	// The vectors state the second amount without the transaction behind it.
	rules := Rules{Network: "testnet", MaxFeePercent: -1, WitnessAmounts: true}
	a, b := signerKeys(t, "signer_a"), signerKeys(t, "signer_b")
	for _, c := range []struct {
		name, expect string
		r            *ring
	}{{"a", v.SignerA.Expect, a}, {"b", v.SignerB.Expect, b}} {
		got := answered(t, hide(t, v.Updated, c.r), rules, c.r)
		if got.Complete || len(got.Files) != 1 || got.Files[0].Suffix != "-part.psbt" {
			t.Fatalf("signer %s: %+v", c.name, got)
		}
		if s := unhide(t, got.Files[0].Data, c.r); s != c.expect {
			t.Errorf("signer %s:\n got %s\nwant %s", c.name, s, c.expect)
		}
	}

	// b signs what a signed.
	both := answered(t, hide(t, v.SignerA.Expect, b), rules, b)
	if !both.Complete || len(both.Files) != 2 {
		t.Fatalf("both have signed: %+v", both.Description)
	}
	fin, err := Parse([]byte(v.Finalized))
	if err != nil {
		t.Fatal(err)
	}
	want := fin.tx.Copy()
	for i, m := range fin.inputs {
		want.TxIn[i].SignatureScript = m.get(inFinalScript)
		want.TxIn[i].Witness, _ = readWitness(m.get(inFinalWitness))
	}
	var raw bytes.Buffer
	want.Serialize(&raw)
	if got := strings.TrimSpace(string(both.Files[1].Data)); got != hex.EncodeToString(raw.Bytes()) {
		t.Errorf("transaction:\n got %s\nwant %x", got, raw.Bytes())
	}
	if s := unhide(t, both.Files[0].Data, b); s != v.Combined {
		t.Errorf("both signatures:\n got %s\nwant %s", s, v.Combined)
	}
	if d := both.Description; d.TxID != want.TxID() || d.WTxID != want.WitnessHash().String() || d.Estimated {
		t.Errorf("description: %+v", d)
	}
}

// hide gives the keys that r does not have to somebody else, since the two
// signers of the vector share a master key and Keys stand for all of one.
func hide(t testing.TB, text string, r *ring) []byte {
	return respell(t, []byte(text), r, [4]byte{1, 2, 3, 4})
}

func unhide(t testing.TB, text []byte, r *ring) string {
	return string(respell(t, text, r, r.fingerprint))
}

func respell(t testing.TB, text []byte, r *ring, fingerprint [4]byte) []byte {
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(append([]*keymap{}, p.inputs...), p.outputs...) {
		for i, f := range m.pairs {
			if isOrigin(f.value) && (f.kind() == inDerivation || f.kind() == outDerivation) && len(f.data()) == 33 && r.keys[string(f.data())] == nil {
				m.pairs[i].value = append(fingerprint[:len(fingerprint):len(fingerprint)], f.value[4:]...)
			}
		}
	}
	return p.form.encode(p.serialize(p.global, p.inputs, p.outputs))
}

type walletVectors struct {
	ScriptPubKey []struct {
		Given struct {
			InternalPubkey string
			ScriptTree     json.RawMessage
		}
		Intermediary struct {
			MerkleRoot    *string
			TweakedPubkey string
		}
		Expected struct {
			ScriptPubKey            string
			Bip350Address           string
			ScriptPathControlBlocks []string
		}
	}
	KeyPathSpending []struct {
		Given struct {
			RawUnsignedTx string
			UtxosSpent    []struct {
				ScriptPubKey string
				AmountSats   int64
			}
		}
		InputSpending []struct {
			Given struct {
				TxinIndex       int
				InternalPrivkey string
				MerkleRoot      *string
				HashType        uint32
			}
			Intermediary struct{ SigHash, TweakedPrivkey string }
			Expected     struct{ Witness []string }
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// flatten writes a tree of the vectors as BIP-371 does.
func flatten(t testing.TB, raw json.RawMessage, depth byte) []byte {
	var leaf struct {
		Script      string
		LeafVersion byte
	}
	if raw[0] == '{' {
		if err := json.Unmarshal(raw, &leaf); err != nil {
			t.Fatal(err)
		}
		return appendPrefixed([]byte{depth, leaf.LeafVersion}, unhex(t, leaf.Script))
	}
	var two []json.RawMessage
	if err := json.Unmarshal(raw, &two); err != nil || len(two) != 2 {
		t.Fatalf("%v: %s", err, raw)
	}
	return append(flatten(t, two[0], depth+1), flatten(t, two[1], depth+1)...)
}

// TestTaprootVectors: keys, trees, addresses, digests and signatures of BIP-341.
func TestTaprootVectors(t *testing.T) {
	var v walletVectors
	load(t, "bip341-wallet.json", &v)
	for _, c := range v.ScriptPubKey {
		internal := unhex(t, c.Given.InternalPubkey)
		var root []byte
		if c.Intermediary.MerkleRoot != nil {
			scripts, ok := treeRoot(flatten(t, c.Given.ScriptTree, 0))
			if root = scripts.root; !ok || hex.EncodeToString(root) != *c.Intermediary.MerkleRoot {
				t.Errorf("merkle root: got %x, want %s", root, *c.Intermediary.MerkleRoot)
			}
		}
		key, odd, ok := taprootKey(internal, root)
		if !ok || hex.EncodeToString(key) != c.Intermediary.TweakedPubkey {
			t.Errorf("tweaked key: got %x, want %s", key, c.Intermediary.TweakedPubkey)
		}
		script := p2trScript(t, internal, root)
		if got := networks["mainnet"].address(script); got != c.Expected.Bip350Address {
			t.Errorf("address: got %s, want %s", got, c.Expected.Bip350Address)
		}
		if c.Given.ScriptTree == nil || len(c.Expected.ScriptPathControlBlocks) == 0 {
			continue
		}
		// The leaves and the control blocks are in the same order.
		flat := reader{b: flatten(t, c.Given.ScriptTree, 0)}
		m := &keymap{}
		for _, block := range c.Expected.ScriptPathControlBlocks {
			flat.u8()
			version := flat.u8()
			leaf := flat.prefixed()
			control := unhex(t, block)
			if (control[0]&1 == 1) != odd {
				t.Errorf("parity: got %t, want that of %x", odd, control[0])
			}
			m.put(append([]byte{inTapLeaf}, control...), append(bytes.Clone(leaf), version))
		}
		in := &input{fields: m, spent: wire.NewTxOut(1, script)}
		if r := in.readScripts(); r != nil {
			t.Errorf("leaves with their control blocks: %v", r)
		}
	}
	for _, c := range v.KeyPathSpending {
		tx, err := readUnsigned(unhex(t, c.Given.RawUnsignedTx))
		if err != nil {
			t.Fatal(err)
		}
		var spent []*wire.TxOut
		for _, u := range c.Given.UtxosSpent {
			spent = append(spent, wire.NewTxOut(u.AmountSats, unhex(t, u.ScriptPubKey)))
		}
		d := newDigester(tx, spent)
		for _, in := range c.InputSpending {
			priv, pub := btcec.PrivKeyFromBytes(unhex(t, in.Given.InternalPrivkey))
			var root []byte
			if in.Given.MerkleRoot != nil {
				root = unhex(t, *in.Given.MerkleRoot)
			}
			s := &spend{schnorr: true, quorum: quorum{1, [][]byte{pub.SerializeCompressed()[1:]}}}
			digest, ok := d.digest(in.Given.TxinIndex, s, in.Given.HashType)
			if !ok || hex.EncodeToString(digest[:]) != in.Intermediary.SigHash {
				t.Errorf("digest of input %d: got %x, want %s", in.Given.TxinIndex, digest, in.Intermediary.SigHash)
			}
			tweaked := tweak(priv, root)
			if got := hex.EncodeToString(tweaked.Serialize()); got != in.Intermediary.TweakedPrivkey {
				t.Errorf("tweaked private key of input %d differs", in.Given.TxinIndex)
			}
			sig := signSchnorr(t, tweaked, digest[:])
			if in.Given.HashType != sighashDefault {
				sig = append(sig, byte(in.Given.HashType))
			}
			if got := hex.EncodeToString(sig); got != in.Expected.Witness[0] {
				t.Errorf("signature of input %d: got %s, want %s", in.Given.TxinIndex, got, in.Expected.Witness[0])
			}
		}
	}
}

// TestForms: the answer is written as the request was.
func TestForms(t *testing.T) {
	v := signerVectors(t)
	raw, err := base64.StdEncoding.DecodeString(v.Updated)
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(s string, width int, eol string) string {
		var b strings.Builder
		for len(s) > width {
			b.WriteString(s[:width] + eol)
			s = s[width:]
		}
		return b.String() + s
	}
	hexText := hex.EncodeToString(raw)
	a := signerKeys(t, "signer_a")
	wantRaw, _ := base64.StdEncoding.DecodeString(v.SignerA.Expect)
	wantHex := hex.EncodeToString(wantRaw)
	for _, c := range []struct{ name, in, want string }{
		{"binary", string(raw), string(wantRaw)},
		{"base64", v.Updated, v.SignerA.Expect},
		{"base64 and a line end", v.Updated + "\n", v.SignerA.Expect + "\n"},
		{"base64 in lines", wrap(v.Updated, 76, "\n") + "\n", wrap(v.SignerA.Expect, 76, "\n") + "\n"},
		{"base64 in lines of Windows", wrap(v.Updated, 64, "\r\n"), wrap(v.SignerA.Expect, 64, "\r\n")},
		{"hex", hexText, wantHex},
		{"HEX", strings.ToUpper(hexText) + "\r\n", strings.ToUpper(wantHex) + "\r\n"},
		{"hex in lines", wrap(hexText, 60, "\n") + "\n", wrap(wantHex, 60, "\n") + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := answered(t, hide(t, c.in, a), Rules{Network: "testnet", MaxFeePercent: -1, WitnessAmounts: true}, a)
			if s := unhide(t, got.Files[0].Data, a); s != c.want {
				t.Errorf("got  %q\nwant %q", s, c.want)
			}
		})
	}
	b64 := v.Updated
	for name, in := range map[string]string{
		"empty":                  "",
		"blank":                  " " + b64,
		"byte order mark":        "\ufeff" + b64,
		"blank inside":           b64[:100] + " " + b64[100:],
		"two ends":               b64 + "\n\n",
		"lines of other lengths": b64[:40] + "\n" + b64[40:90] + "\n" + b64[90:],
		"mixed ends":             b64[:40] + "\r\n" + b64[40:80] + "\n" + b64[80:120],
		"no padding":             "cHNidP8BAAoAAAAAAAAAAAAAAA",
		"base64url":              strings.ReplaceAll(b64, "/", "_"),
		"mixed hex":              hexText[:100] + strings.ToUpper(hexText[100:]),
		"odd hex":                hexText[:len(hexText)-1],
		"network transaction":    "0200000001",
	} {
		if p, err := Parse([]byte(in)); err == nil || p != nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantCode(t, err, reason.PSBTMalformed)
		}
	}
	_, err = Parse(append(raw, 0))
	wantCode(t, err, reason.TrailingBytes)
	_, err = Parse([]byte(base64.StdEncoding.EncodeToString(append(raw, 0))))
	wantCode(t, err, reason.TrailingBytes)
}
