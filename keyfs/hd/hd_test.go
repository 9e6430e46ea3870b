package hd_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/keyfs/hd"
)

func load[T any](t testing.TB, file string) (v T) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type bip32 struct {
	Valid   []struct{ Seed, Path, XPub, XPrv string }
	Invalid []struct{ Key, Why string }
}

type bip39 []struct{ Entropy, Words, Seed, XPrv string }

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hasChild holds HasChild to what is derived: the child at i is key, and nothing else is.
func hasChild(t *testing.T, parent *hd.Public, i uint32, key *btcec.PublicKey) {
	t.Helper()
	plain := i < hd.Hardened
	turned := key.SerializeCompressed()
	turned[0] ^= 1 // the other y
	negated, err := btcec.ParsePubKey(turned)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		i    uint32
		key  *btcec.PublicKey
		anyY bool
		want bool
	}{
		{"its key", i, key, false, plain},
		{"its key, by x", i, key, true, plain},
		{"the other y", i, negated, false, false},
		{"the other y, by x", i, negated, true, plain},
		{"the next index", i + 1, key, true, false},
		{"hardened", i | hd.Hardened, key, true, false},
		{"the parent's key", i, parent.Key(), true, false},
	} {
		if got := parent.HasChild(c.i, c.key, c.anyY); got != c.want {
			t.Errorf("child %d, %s: %v", i, c.name, got)
		}
	}
}

func path(t testing.TB, s string) hd.Path {
	t.Helper()
	p, err := hd.ParsePath(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return p
}

// TestBIP32 are the vectors of the BIP, privately and, where the last step allows it,
// publicly.
func TestBIP32(t *testing.T) {
	v := load[bip32](t, "bip32.json")
	if len(v.Valid) != 17 || len(v.Invalid) != 16 {
		t.Fatalf("%d and %d vectors", len(v.Valid), len(v.Invalid))
	}
	for _, c := range v.Valid {
		master, err := hd.Master(unhex(t, c.Seed))
		if err != nil {
			t.Fatal(err)
		}
		p := path(t, c.Path)
		k, err := master.Derive(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Public().String(hd.Main); got != c.XPub {
			t.Errorf("%s: public key is %s", c.Path, got)
		}
		parsed, n, err := hd.Parse(c.XPrv)
		if err != nil || n != hd.Main || !bytes.Equal(parsed.Bytes(hd.Main), k.Bytes(hd.Main)) {
			t.Errorf("%s: the private key differs (%v)", c.Path, err)
		}
		again, n, err := hd.ParseBytes(k.Bytes(hd.Regtest))
		if err != nil || n != hd.Test || !bytes.Equal(again.Bytes(hd.Main), k.Bytes(hd.Main)) {
			t.Errorf("%s: it is not read back (%v)", c.Path, err)
		}
		pub, _, err := hd.ParsePublic(c.XPub)
		if err != nil || pub.String(hd.Main) != c.XPub {
			t.Errorf("%s: the public key is not read back (%v)", c.Path, err)
		}
		if len(p) == 0 {
			continue
		}
		last := p[len(p)-1]
		parent, err := master.Derive(p[:len(p)-1])
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parent.Public().Derive(hd.Path{last}); last >= hd.Hardened {
			if err == nil {
				t.Errorf("%s: a hardened child of a public key is %s", c.Path, got.String(hd.Main))
			}
		} else if err != nil || got.String(hd.Main) != c.XPub {
			t.Errorf("%s: derived publicly it differs (%v)", c.Path, err)
		}
		hasChild(t, parent.Public(), last, k.Public().Key())
		if master.Public().String(hd.Main) == c.XPub {
			t.Error("the master key was changed")
		}
	}
	for _, c := range v.Invalid {
		_, _, err := hd.Parse(c.Key)
		_, _, perr := hd.ParsePublic(c.Key)
		if err == nil || perr == nil {
			t.Errorf("accepted: %s", c.Why)
		}
		if strings.Contains(err.Error()+perr.Error(), c.Key[8:16]) {
			t.Errorf("the error repeats the key: %v", err)
		}
	}
}

// TestBIP39 are the English vectors.
func TestBIP39(t *testing.T) {
	v := load[bip39](t, "bip39.json")
	if len(v) != 24 {
		t.Fatalf("%d vectors", len(v))
	}
	for _, c := range v {
		for _, words := range []string{c.Words, " " + strings.ReplaceAll(c.Words, " ", " \r\n\t") + "\n"} {
			seed, err := hd.SeedOfWords([]byte(words), []byte("TREZOR"))
			if err != nil || hex.EncodeToString(seed) != c.Seed {
				t.Errorf("%s: %v", c.Entropy, err)
				continue
			}
			k, err := hd.Master(seed)
			if want, _, perr := hd.Parse(c.XPrv); err != nil || perr != nil || !bytes.Equal(k.Bytes(hd.Main), want.Bytes(hd.Main)) {
				t.Errorf("%s: another master key (%v, %v)", c.Entropy, err, perr)
			}
		}
		list := strings.Fields(c.Words)
		for i := range list { // each word matters
			other := append([]string(nil), list...)
			other[i] = "zebra"
			if list[i] == "zebra" {
				continue
			}
			a, err := hd.SeedOfWords([]byte(strings.Join(other, " ")), nil)
			if b, _ := hd.SeedOfWords([]byte(c.Words), nil); err == nil && bytes.Equal(a, b) {
				t.Errorf("%s: word %d does not matter", c.Entropy, i)
			}
		}
	}
	good := v[0].Words
	for name, bad := range map[string][2]string{
		"nothing":        {"", ""},
		"eleven":         {strings.TrimPrefix(good, "abandon "), ""},
		"thirteen":       {"abandon " + good, ""},
		"checksum":       {strings.Replace(good, "about", "abandon", 1), ""},
		"not in it":      {strings.Replace(good, "about", "aboutt", 1), ""},
		"capitals":       {strings.ToUpper(good), ""},
		"27":             {strings.Repeat("abandon ", 26) + "about", ""},
		"passphrase":     {good, "pässword"},
		"passphrase tab": {good, "pass\tword"},
	} {
		if _, err := hd.SeedOfWords([]byte(bad[0]), []byte(bad[1])); err == nil || strings.Contains(err.Error(), "abandon") || strings.Contains(err.Error(), "ssword") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// words are those of the vectors of BIP-49, 84 and 86.
const words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"

func master(t testing.TB) *hd.Key {
	t.Helper()
	seed, err := hd.SeedOfWords([]byte(words), nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := hd.Master(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestAddresses are the vectors of BIP-49, 84 and 86, and for BIP-44, which has none,
// the address that wallets show for these words.
func TestAddresses(t *testing.T) {
	m := master(t)
	if got := m.Fingerprint().String(); got != "73c5da0a" {
		t.Errorf("fingerprint %s", got)
	}
	for _, c := range []struct {
		script        hd.Script
		network       hd.Network
		change, index uint32
		path          string
		wif, address  string
	}{
		{hd.P2PKH, hd.Main, 0, 0, "m/44h/0h/0h/0/0", "", "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA"},
		{hd.P2SHP2WPKH, hd.Test, 0, 0, "m/49h/1h/0h/0/0", "cULrpoZGXiuC19Uhvykx7NugygA3k86b3hmdCeyvHYQZSxojGyXJ", "2Mww8dCYPUpKHofjgcXcBCEGmniw9CoaiD2"},
		{hd.P2WPKH, hd.Main, 0, 0, "m/84h/0h/0h/0/0", "KyZpNDKnfs94vbrwhJneDi77V6jF64PWPF8x5cdJb8ifgg2DUc9d", "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"},
		{hd.P2WPKH, hd.Main, 0, 1, "m/84h/0h/0h/0/1", "Kxpf5b8p3qX56DKEe5NqWbNUP9MnqoRFzZwHRtsFqhzuvUJsYZCy", "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"},
		{hd.P2WPKH, hd.Main, 1, 0, "m/84h/0h/0h/1/0", "KxuoxufJL5csa1Wieb2kp29VNdn92Us8CoaUG3aGtPtcF3AzeXvF", "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"},
		{hd.P2TR, hd.Main, 0, 0, "m/86h/0h/0h/0/0", "", "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"},
		{hd.P2TR, hd.Main, 0, 1, "m/86h/0h/0h/0/1", "", "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"},
		{hd.P2TR, hd.Main, 1, 0, "m/86h/0h/0h/1/0", "", "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7"},
	} {
		p := hd.Account(c.script, c.network, 0).Below(c.change, c.index)
		if p.String() != c.path {
			t.Errorf("path %s, want %s", p, c.path)
		}
		k, err := m.Derive(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.script.Address(k.Public().Key(), c.network); got != c.address {
			t.Errorf("%s: %s, want %s", c.path, got, c.address)
		}
		if c.wif == "" {
			continue
		}
		number, n, err := hd.ParseWIF(c.wif)
		if err != nil || n != c.network || !bytes.Equal(number, k.Private().Serialize()) {
			t.Errorf("%s: WIF of %s: %v", c.path, n, err)
		}
	}
	k, _ := m.Derive(path(t, "m/84h/1h/0h/0/0"))
	if got := hd.P2WPKH.Address(k.Public().Key(), hd.Regtest); !strings.HasPrefix(got, "bcrt1q") {
		t.Errorf("on regtest %s", got)
	}
}

// TestBIP341 are the outputs and tweaked keys of the BIP's vectors for wallets.
func TestBIP341(t *testing.T) {
	type vectors struct {
		ScriptPubKey []struct {
			Given        struct{ InternalPubkey string }
			Intermediary struct{ MerkleRoot, TweakedPubkey string }
		}
		KeyPathSpending []struct {
			InputSpending []struct {
				Given        struct{ InternalPrivkey, MerkleRoot string }
				Intermediary struct{ TweakedPrivkey string }
			}
		}
	}
	v := load[vectors](t, "bip341.json")
	if len(v.ScriptPubKey) != 7 || len(v.KeyPathSpending) != 1 {
		t.Fatal("the vectors are not those of the BIP")
	}
	for i, c := range v.ScriptPubKey {
		pub, err := btcec.ParsePubKey(append([]byte{2}, unhex(t, c.Given.InternalPubkey)...))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(hd.XOnly(hd.TapOutput(pub, unhex(t, c.Intermediary.MerkleRoot)))); got != c.Intermediary.TweakedPubkey {
			t.Errorf("%d: output key %s", i, got)
		}
	}
	for i, c := range v.KeyPathSpending[0].InputSpending {
		priv, _ := btcec.PrivKeyFromBytes(unhex(t, c.Given.InternalPrivkey))
		root := unhex(t, c.Given.MerkleRoot)
		got := hd.TapPrivate(priv, root)
		if hex.EncodeToString(got.Serialize()) != c.Intermediary.TweakedPrivkey {
			t.Errorf("%d: another tweaked key", i)
		}
		if !bytes.Equal(hd.XOnly(got.PubKey()), hd.XOnly(hd.TapOutput(priv.PubKey(), root))) {
			t.Errorf("%d: private and public half do not fit", i)
		}
	}
}

// TestScripts are vectors of BIP-381, 382 and 386 for one key.
func TestScripts(t *testing.T) {
	const wif = "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1"
	number, _, err := hd.ParseWIF(wif)
	if err != nil {
		t.Fatal(err)
	}
	priv, pub := btcec.PrivKeyFromBytes(number)
	_ = priv
	for s, want := range map[hd.Script]string{
		hd.P2PKH:  "76a9149a1c78a507689f6f54b847ad1cef1e614ee23f1e88ac",
		hd.P2WPKH: "00149a1c78a507689f6f54b847ad1cef1e614ee23f1e",
		hd.P2TR:   "512077aab6e066f8a7419c5ab714c12c67d25007ed55a43cadcacb4d7a970a093f11",
	} {
		if got := hex.EncodeToString(s.Output(pub)); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
	// The last part of sh(wpkh(…/10/20/30/40/*h)) in BIP-382.
	m, _, err := hd.Parse(load[bip32](t, "bip32.json").Valid[0].XPrv)
	if err != nil {
		t.Fatal(err)
	}
	k, err := m.Derive(path(t, "m/10/20/30/40/0h"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(hd.P2SHP2WPKH.Output(k.Public().Key())); got != "a9149a4d9901d6af519b2a23d4a2f51650fcba87ce7b87" {
		t.Errorf("sh(wpkh()): %s", got)
	}
	if _, _, err := hd.ParseWIF("5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss"); err == nil || !strings.Contains(err.Error(), "uncompressed") {
		t.Errorf("the key of an uncompressed public key: %v", err)
	}
	for _, bad := range []string{"", wif[:51], wif + "1", strings.Replace(wif, "K1", "K2", 1), "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA", "0OIl"} {
		if _, _, err := hd.ParseWIF(bad); err == nil {
			t.Errorf("accepted a WIF of %d characters", len(bad))
		}
	}
}

func TestDescriptors(t *testing.T) {
	if got, err := hd.DescriptorSum("raw(deadbeef)"); got != "89f8spxm" || err != nil {
		t.Errorf("checksum %s, %v", got, err) // BIP-380
	}
	if _, err := hd.DescriptorSum("raw(Ü)"); err == nil {
		t.Error("a character that no descriptor has")
	}
	m := master(t)
	p := hd.Account(hd.P2TR, hd.Main, 0)
	account, err := m.Derive(p)
	if err != nil {
		t.Fatal(err)
	}
	got := hd.Descriptor(hd.P2TR, m.Fingerprint(), p, account.Public(), hd.Main)
	// The account's key is that of BIP-86.
	want := "tr([73c5da0a/86h/0h/0h]xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ/<0;1>/*)#"
	if !strings.HasPrefix(got, want) || len(got) != len(want)+8 {
		t.Errorf("descriptor %s", got)
	}
	for s, want := range map[hd.Script]string{hd.P2PKH: "pkh(02", hd.P2SHP2WPKH: "sh(wpkh(02", hd.P2WPKH: "wpkh(02", hd.P2TR: "tr("} {
		pub, _ := btcec.ParsePubKey(unhex(t, "0260b2003c386519fc9eadf2b5cf124dd8eea4c4e68d5e154050a9346ea98ce600"))
		if got := hd.KeyDescriptor(s, pub); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", s, got)
		}
	}
}

func TestPath(t *testing.T) {
	for _, s := range []string{"m", "m/0", "m/84h/0h/0h/0/5", "m/2147483647h/2147483647"} {
		if got := path(t, s).String(); got != s {
			t.Errorf("%s reads as %s", s, got)
		}
	}
	if got := path(t, "m/84'/0h").String(); got != "m/84h/0h" {
		t.Error(got)
	}
	for _, bad := range []string{"", "M", "m/", "m//0", "m/00", "m/-1", "m/+1", "m/2147483648", "m/1hh", "m/1h'", "m/h", "m/1H", "m/x", "84h/0", "m/1/", "m/ 1", "m" + strings.Repeat("/0", 17)} {
		if p, err := hd.ParsePath(bad); err == nil {
			t.Errorf("%q reads as %s", bad, p)
		}
	}
	if _, ok := hd.ParseFingerprint("73c5da0"); ok {
		t.Error("a fingerprint of seven digits")
	}
	if f, ok := hd.ParseFingerprint("73c5da0a"); !ok || f.String() != "73c5da0a" {
		t.Error("a fingerprint is not read")
	}
}

// TestHoldsSecret: what is one is found in the middle of other text, and what is not
// one is left alone.
func TestHoldsSecret(t *testing.T) {
	v := load[bip32](t, "bip32.json")
	for name, secret := range map[string]string{
		"WIF":          "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1",
		"WIF, test":    "cULrpoZGXiuC19Uhvykx7NugygA3k86b3hmdCeyvHYQZSxojGyXJ",
		"WIF, old":     "5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss",
		"xprv":         v.Valid[0].XPrv,
		"zprv":         "zprvAWgYBBk7JR8Gjrh4UJQ2uJdG1r3WNRRfURiABBE3RvMXYSrRJL62XuezvGdPvG6GFBZduosCc1YP5wixPox7zhZLfiUm8aunE96BBa4Kei5",
		"words":        words,
		"words, list":  `"` + strings.ReplaceAll(words, " ", `", "`) + `"`,
		"words, lines": strings.ReplaceAll(words, " ", "\r\n"),
		"words, large": strings.ToUpper(words),
		"24 words":     strings.Repeat("abandon ", 23) + "art",
		"more words":   "zebra zebra zebra " + words + " zoo zoo",
	} {
		for _, around := range [][2]string{{"", ""}, {`{"text":"`, `"}`}, {strings.Repeat("x ", 1000), "\n"}, {"\x00\xff:", "\x80"}} {
			if !hd.HoldsSecret([]byte(around[0] + secret + around[1])) {
				t.Errorf("%s is not found between %.10q and %q", name, around[0], around[1])
			}
		}
	}
	for name, text := range map[string]string{
		"nothing":         "",
		"xpub":            v.Valid[0].XPub,
		"address":         "1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
		"WIF, wrong":      "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY2",
		"eleven words":    strings.TrimPrefix(words, "abandon "),
		"wrong checksum":  strings.Repeat("abandon ", 12),
		"torn":            "abandon abandon abandon abandon abandon abandon and abandon abandon abandon abandon abandon about",
		"far apart":       strings.ReplaceAll(words, " ", "        "),
		"prose":           "the quick brown fox jumps over the lazy dog and sails about the world",
		"a request":       `{"type":"sign","reference":"payout-0001","wallet":"W_35765032c8574ea09c45849cef1519","not_after":"2026-12-01T00:00:00Z"}`,
		"a longer number": "xL4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1",
	} {
		if hd.HoldsSecret([]byte(text)) {
			t.Errorf("%s is taken for a secret", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	v := load[bip32](f, "bip32.json")
	for _, c := range v.Valid {
		f.Add(c.XPrv)
		f.Add(c.XPub)
	}
	for _, c := range v.Invalid {
		f.Add(c.Key)
	}
	f.Add("cULrpoZGXiuC19Uhvykx7NugygA3k86b3hmdCeyvHYQZSxojGyXJ")
	f.Fuzz(func(t *testing.T, s string) {
		if k, n, err := hd.Parse(s); err == nil {
			if again, m, err := hd.ParseBytes(k.Bytes(n)); err != nil || m != n || !bytes.Equal(again.Bytes(n), k.Bytes(n)) {
				t.Error("a key does not read back")
			}
			if !hd.HoldsSecret([]byte(s)) {
				t.Errorf("%q is not known as a secret", s)
			}
		} else if s != "" && len(s) > 20 && strings.Contains(err.Error(), s) {
			t.Errorf("the error repeats the key: %v", err)
		}
		if p, n, err := hd.ParsePublic(s); err == nil && p.String(n) != s {
			t.Errorf("%q is written as %q", s, p.String(n))
		}
		if number, _, err := hd.ParseWIF(s); err == nil && (len(number) != 32 || !hd.HoldsSecret([]byte(s))) {
			t.Errorf("%q is not known as a secret", s)
		}
	})
}

func FuzzWords(f *testing.F) {
	f.Add(words, "")
	f.Add(strings.Repeat("zoo ", 23)+"vote", "TREZOR")
	f.Add("legal winner thank year wave sausage worth useful legal winner thank yellow", "x")
	f.Add("abandon", "\x00")
	f.Fuzz(func(t *testing.T, text, passphrase string) {
		if len(passphrase) > 100 {
			return
		}
		_, err := hd.SeedOfWords([]byte(text), []byte(passphrase))
		if err != nil {
			return
		}
		list := strings.Fields(text)
		if n := len(list); n < 12 || n > 24 || n%3 != 0 {
			t.Errorf("%d words", n)
		}
		if !hd.HoldsSecret([]byte(strings.Join(list, " "))) {
			t.Errorf("%q is not known as a secret", text)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"m", "m/84h/0'/0h/0/5", "m/2147483648", "m//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := hd.ParsePath(s)
		if err != nil {
			return
		}
		if got := p.String(); got != strings.ReplaceAll(s, "'", "h") {
			t.Errorf("%q reads as %s", s, got)
		}
	})
}

func FuzzHoldsSecret(f *testing.F) {
	f.Add([]byte(words))
	f.Add([]byte("\xffL4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1,"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if hd.HoldsSecret(data) && !hd.HoldsSecret(append([]byte("{\""), append(data, '"')...)) {
			t.Error("a secret is not found between other bytes")
		}
	})
}

func BenchmarkHoldsSecret(b *testing.B) {
	line := []byte(`{"type":"sign","reference":"payout-0001","wallet":"W_35765032c8574ea09c45849cef1519","metacoin":{"operation":"transfer","from":"MTDEMOdemoDEMOdemoDEMOdemoDEMOde37f35261","to":"MTiiiiiiiiiiiiMETACOINiiiiiiiiii79c3496e","token":"0","amount":"100000000","nonce":"4dTGSyQnlSQTpKbNDBoUkBbkLVa5aU7PtUGsHXnC"}}` + "\n")
	data := bytes.Repeat(line, 1<<20/len(line))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		hd.HoldsSecret(data)
	}
}
