package keyfs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"

	"signdrop/keyfs"
	"signdrop/keyfs/hd"
)

// The words of the vectors of BIP-49, 84 and 86, and their master key.
const (
	vectorWords = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
	vectorXprv  = "xprv9s21ZrQH143K3GJpoapnV8SFfukcVBSfeCficPSGfubmSFDxo1kuHnLisriDvSnRRuL2Qrg5ggqHKNVpxR86QEC8w35uxmGoggxtQTPvfUu"
	vectorXpub  = "xpub661MyMwAqRbcFkPHucMnrGNzDwb6teAX1RbKQmqtEF8kK3Z7LZ59qafCjB9eCRLiTVG3uxBxgKvRgbubRhqSKXnGGb1aoaqLrpMBDrVxga8"
	vectorWIF   = "KyZpNDKnfs94vbrwhJneDi77V6jF64PWPF8x5cdJb8ifgg2DUc9d" // m/84h/0h/0h/0/0
	testWIF     = "cULrpoZGXiuC19Uhvykx7NugygA3k86b3hmdCeyvHYQZSxojGyXJ"
)

func (v *volume) hd(s *keyfs.Store, id string, n hd.Network) *keyfs.Wallet {
	v.t.Helper()
	ws, err := s.Create(company, []keyfs.Spec{{ID: id, Network: n}}, v.fs)
	must(v.t, err)
	return ws[0]
}

func (v *volume) imported(s *keyfs.Store, id, key string, n hd.Network) *keyfs.Wallet {
	v.t.Helper()
	ws, err := s.Import(company, []keyfs.ImportSpec{{ID: id, PrivateKeyPEM: []byte(key), Network: n}}, v.fs)
	must(v.t, err)
	return ws[0]
}

func pathOf(t testing.TB, s string) hd.Path {
	t.Helper()
	p, err := hd.ParsePath(s)
	must(t, err)
	return p
}

// TestHDGolden: the very bytes of an HD wallet's files, on every architecture.
func TestHDGolden(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{Rand: bytes.NewReader(bytes.Repeat([]byte{7}, 32))})
	v.hd(s, "W_1", hd.Regtest)
	seed := bytes.Repeat([]byte{7}, 32)
	m, err := hd.Master(seed)
	must(t, err)
	wallet, err := os.ReadFile(v.inWallet("W_1", "wallet.json"))
	must(t, err)
	key, err := os.ReadFile(v.inWallet("W_1", "key.pem"))
	must(t, err)
	block, rest := pem.Decode(key)
	if block == nil || len(rest) > 0 || block.Type != "BIP32 PRIVATE KEY" || !bytes.Equal(block.Bytes, m.Bytes(hd.Test)) {
		t.Errorf("key.pem is not the master key")
	}
	const want = "1c34dc12ffd4e3495194e55ae0706c5d"
	sum := sha256.Sum256(append(wallet, key...))
	if got := hex.EncodeToString(sum[:16]); got != want {
		t.Errorf("digest %s, want %s, of\n%s", got, want, wallet)
	}
	for _, name := range []string{"wallet.json", "key.pem"} {
		if info, err := os.Stat(v.inWallet("W_1", name)); err != nil || info.Mode().Perm() != 0o400 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestHDCreate: doing it again finds it, another kind or network is refused, a new
// store reads it.
func TestHDCreate(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	w := v.hd(s, "W_1", hd.Test)
	if !w.HD() || w.Network() != hd.Test || w.Curve() != keyfs.Secp256k1 || !w.Active() {
		t.Errorf("it is %+v", w)
	}
	again := v.hd(s, "W_1", hd.Test)
	if again.Fingerprint() != w.Fingerprint() {
		t.Error("a second key was made")
	}
	if other := v.hd(s, "W_2", hd.Test); other.Fingerprint() == w.Fingerprint() {
		t.Error("two wallets have one key")
	}
	for _, spec := range []keyfs.Spec{{ID: "W_1", Network: hd.Regtest}, {ID: "W_1", Network: hd.Main}, {ID: "W_1", Curve: keyfs.Secp256k1}} {
		if _, err := s.Create(company, []keyfs.Spec{spec}, v.fs); !errors.Is(err, keyfs.ErrOther) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	v.create(s, "W_3", keyfs.Secp256k1)
	if _, err := s.Create(company, []keyfs.Spec{{ID: "W_3", Network: hd.Main}}, v.fs); !errors.Is(err, keyfs.ErrOther) {
		t.Errorf("an HD wallet in the place of another: %v", err)
	}
	for _, spec := range []keyfs.Spec{{ID: "W_4", Network: "moon"}, {ID: "W_4", Network: hd.Main, Curve: keyfs.P256}} {
		if _, err := s.Create(company, []keyfs.Spec{spec}, v.fs); !errors.Is(err, keyfs.ErrInvalid) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	if _, err := s.Create(company, []keyfs.Spec{{ID: "W_5", Network: hd.Main}, {ID: "W_5", Network: hd.Test}}, v.fs); !errors.Is(err, keyfs.ErrOther) {
		t.Errorf("two networks at once: %v", err)
	}
	fresh, err := v.open(keyfs.Options{}).Lookup(company, "W_1")
	must(t, err)
	if fresh.Fingerprint() != w.Fingerprint() || fresh.Network() != hd.Test || fresh.PublicPEM() != w.PublicPEM() {
		t.Error("another wallet is read")
	}
	list, err := s.List(company, "", 10)
	must(t, err)
	if len(list) != 3 || list[0].Network != hd.Test || list[0].Fingerprint != w.Fingerprint().String() || list[2].Network != "" {
		t.Errorf("list is %+v", list)
	}
	digest := sha256.Sum256(nil)
	for _, scheme := range []keyfs.Scheme{keyfs.ECDSA, keyfs.ECDSARecoverable, keyfs.Schnorr} {
		if sig, err := w.Sign(scheme, digest[:]); !errors.Is(err, keyfs.ErrHD) || sig != nil {
			t.Errorf("scheme %d: the master key signs (%v)", scheme, err)
		}
	}
	// Change of status and address keep what is an HD wallet's.
	off, err := s.SetStatus(company, "W_1", keyfs.StatusDisabled)
	must(t, err)
	if off.Active() || !off.HD() {
		t.Error("it is not disabled, or no HD wallet")
	}
	if _, err := v.open(keyfs.Options{}).Lookup(company, "W_1"); err != nil {
		t.Error(err)
	}
}

// TestHDDamaged: files that are not as they were made are refused, by their names.
func TestHDDamaged(t *testing.T) {
	for _, c := range []struct {
		name, file string
		change     func(v *volume, b []byte) []byte
		want       string
	}{
		{"swapped key", "key.pem", func(v *volume, b []byte) []byte { return read(v.t, v.inWallet("W_2", "key.pem")) }, "key.pem is not the key whose public key wallet.json holds"},
		{"swapped wallet", "wallet.json", func(v *volume, b []byte) []byte { return read(v.t, v.inWallet("W_2", "wallet.json")) }, "wallet.json belongs to the wallet W_2"},
		{"single key", "key.pem", func(v *volume, b []byte) []byte { return read(v.t, v.inWallet("W_3", "key.pem")) }, "key.pem is a key of another kind than wallet.json says"},
		{"chain code", "key.pem", func(v *volume, b []byte) []byte { return changeRaw(v.t, b, 20, 1) }, "key.pem is not the key whose xpub and fingerprint wallet.json holds"},
		{"private number", "key.pem", func(v *volume, b []byte) []byte { return changeRaw(v.t, b, 60, 1) }, "key.pem is not the key whose public key wallet.json holds"},
		{"depth", "key.pem", func(v *volume, b []byte) []byte { return changeRaw(v.t, b, 4, 1) }, "key.pem is not the master key of a BIP-32 tree"},
		{"version", "key.pem", func(v *volume, b []byte) []byte { return changeRaw(v.t, b, 0, 1) }, "key.pem is not the master key of a BIP-32 tree"},
		{"cut off", "key.pem", func(v *volume, b []byte) []byte { return b[:len(b)/2] }, "key.pem is not PEM: it is empty, cut off or garbled"},
		{"network", "wallet.json", func(v *volume, b []byte) []byte {
			return bytes.Replace(b, []byte(`"network": "test"`), []byte(`"network": "main"`), 1)
		}, "key.pem is a key of another network than wallet.json says"},
		{"fingerprint", "wallet.json", func(v *volume, b []byte) []byte {
			i := bytes.Index(b, []byte(`"fingerprint": "`)) + 16
			return append(append(bytes.Clone(b[:i]), "00000000"...), b[i+8:]...)
		}, "key.pem is not the key whose xpub and fingerprint wallet.json holds"},
		{"kind", "wallet.json", func(v *volume, b []byte) []byte { return bytes.Replace(b, []byte(`"hd"`), []byte(`"hb"`), 1) }, "wallet.json has a kind that is not known"},
		{"no kind", "wallet.json", func(v *volume, b []byte) []byte {
			return bytes.Replace(b, []byte("  \"kind\": \"hd\",\n"), nil, 1)
		}, "wallet.json has a network or fingerprint that does not fit its kind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t)
			s := v.open(keyfs.Options{})
			v.hd(s, "W_1", hd.Test)
			v.hd(s, "W_2", hd.Test)
			v.create(s, "W_3", keyfs.Secp256k1)
			rewrite(t, v.inWallet("W_1", c.file), func(b []byte) []byte { return c.change(v, b) })
			s = v.open(keyfs.Options{})
			_, err := s.Lookup(company, "W_1")
			if damaged := (*keyfs.Damaged)(nil); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "companies/acme/wallets/W_1/"+c.want) {
				t.Errorf("got %v\nwant …%s", err, c.want)
			}
			if _, err := s.Lookup(company, "W_2"); err != nil {
				t.Errorf("the other wallet: %v", err)
			}
		})
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

// changeRaw flips a bit of what a PEM holds.
func changeRaw(t testing.TB, text []byte, at int, bit byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("no PEM")
	}
	block.Bytes[at] ^= bit
	return pem.EncodeToMemory(block)
}

// TestBitcoinImport: the forms in which Bitcoin's wallets write keys.
func TestBitcoinImport(t *testing.T) {
	words, err := keyfs.KeyOfWords([]byte(vectorWords), nil, hd.Main)
	must(t, err)
	regtest, err := keyfs.KeyOfWords([]byte(vectorWords), []byte("TREZOR"), hd.Regtest)
	must(t, err)
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	for i, c := range []struct {
		key         string
		network     hd.Network
		want        hd.Network
		fingerprint string
	}{
		{vectorXprv, "", hd.Main, "73c5da0a"},
		{" " + vectorXprv + "\r\n", hd.Main, hd.Main, "73c5da0a"},
		{string(words), "", hd.Main, "73c5da0a"},
		{string(regtest), hd.Regtest, hd.Regtest, "b4e3f5ed"},
	} {
		id := fmt.Sprintf("W_%d", i)
		w := v.imported(s, id, c.key, c.network)
		if !w.HD() || w.Network() != c.want || w.Fingerprint().String() != c.fingerprint {
			t.Errorf("%d: network %s, fingerprint %s", i, w.Network(), w.Fingerprint())
		}
		fresh, err := v.open(keyfs.Options{}).Lookup(company, id)
		must(t, err)
		if fresh.Network() != c.want || fresh.Fingerprint() != w.Fingerprint() {
			t.Errorf("%d: it is read as another", i)
		}
		v.imported(s, id, c.key, c.network) // again
		if _, err := s.Import(company, []keyfs.ImportSpec{{ID: id, PrivateKeyPEM: []byte(vectorWIF)}}, v.fs); !errors.Is(err, keyfs.ErrOther) {
			t.Errorf("%d: another key: %v", i, err)
		}
	}
	pub, err := s.Lookup(company, "W_0")
	must(t, err)
	first, err := pub.PublicAt(pathOf(t, "m/84h/0h/0h/0/0"))
	must(t, err)
	w := v.imported(s, "W_wif", vectorWIF, "")
	key, err := w.Secp256k1Key()
	must(t, err)
	if w.HD() || !key.IsEqual(first.Key()) {
		t.Error("the key in WIF is another")
	}
	v.imported(s, "W_wif2", testWIF, hd.Regtest)
	for name, c := range map[string]struct {
		key     string
		network hd.Network
	}{
		"xprv of another network": {vectorXprv, hd.Test},
		"WIF of another network":  {vectorWIF, hd.Regtest},
		"PEM with a network":      {string(newKey(t, keyfs.Secp256k1)), hd.Main},
		"xpub":                    {vectorXpub, ""},
		"an account's key":        {"xprv9xgqHN7yz9MwCkxsBPN5qetuNdQSUttZNKw1dcYTV4mkaAFiBVGQziHs3NRSWMkCzvgjEe3n9xV8oYywvM8at9yRqyaZVz6TYYhX98VjsUk", ""},
		"zprv":                    {"zprvAWgYBBk7JR8Gjrh4UJQ2uJdG1r3WNRRfURiABBE3RvMXYSrRJL62XuezvGdPvG6GFBZduosCc1YP5wixPox7zhZLfiUm8aunE96BBa4Kei5", ""},
		"wrong checksum":          {vectorWIF[:51] + "e", ""},
		"old WIF":                 {"5KYZdUEo39z3FPrtuX2QbbwGnNP5zTd7yyr2SC1j299sBCnWjss", ""},
		"words":                   {vectorWords, ""},
		"two keys":                {vectorWIF + "\n" + vectorWIF, ""},
	} {
		_, err := s.Import(company, []keyfs.ImportSpec{{ID: "W_bad", PrivateKeyPEM: []byte(c.key), Network: c.network}}, v.fs)
		if !errors.Is(err, keyfs.ErrPrivateKey) {
			t.Errorf("%s: %v", name, err)
		} else if n := len(c.key); n > 20 && strings.Contains(err.Error(), c.key[8:20]) {
			t.Errorf("%s: the error repeats the key: %v", name, err)
		}
		if _, err := s.Lookup(company, "W_bad"); !errors.Is(err, keyfs.ErrUnknown) {
			t.Errorf("%s: there is a wallet", name)
		}
	}
	for name, c := range map[string][3]string{
		"checksum": {strings.Repeat("abandon ", 12), "", "main"}, "network": {vectorWords, "", ""}, "passphrase": {vectorWords, "é", "main"},
	} {
		if _, err := keyfs.KeyOfWords([]byte(c[0]), []byte(c[1]), hd.Network(c[2])); !errors.Is(err, keyfs.ErrPrivateKey) || strings.Contains(err.Error(), "abandon") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInputSigner: each scheme, with a key of a tree and with a single one, verified by
// arithmetic that is not ours where there is some.
func TestInputSigner(t *testing.T) {
	for _, recheck := range []keyfs.Recheck{keyfs.RecheckVerify, keyfs.RecheckRepeat, keyfs.RecheckOff} {
		v := newVolume(t)
		s := v.open(keyfs.Options{Recheck: recheck})
		tree := v.imported(s, "W_tree", vectorXprv, "")
		single := v.imported(s, "W_single", vectorWIF, "")
		digest := sha256.Sum256([]byte("an input"))
		root := sha256.Sum256([]byte("scripts"))
		for _, at := range []string{"m/84h/0h/0h/0/0", "m/86h/0h/0h/1/7", "m/0", "m/44h/0h/0h/0/2147483647"} {
			pub, err := tree.PublicAt(pathOf(t, at))
			must(t, err)
			for _, w := range []*keyfs.Wallet{tree, single} {
				key, in := pub.Key(), keyfs.Input{Path: pathOf(t, at)}
				if w == single {
					in.Path = nil
					key, err = single.Secp256k1Key()
					must(t, err)
				}
				in.Public = key.SerializeCompressed()
				sig, err := w.InputSigner().Sign(in, digest)
				must(t, err)
				parsed, err := secp.ParseDERSignature(sig)
				if err != nil || !parsed.Verify(digest[:], key) || !bytes.Equal(parsed.Serialize(), sig) {
					t.Errorf("%s: ECDSA: %v", at, err)
				}
				in.Point = key
				if again, err := w.InputSigner().Sign(in, digest); err != nil || !bytes.Equal(again, sig) {
					t.Errorf("%s: the same input has two signatures (%v)", at, err)
				}
				for i, public := range [][]byte{key.SerializeCompressed(), hd.XOnly(key), key.SerializeCompressed(), hd.XOnly(key)} {
					in.Public = public
					if in.Point = nil; i >= 2 {
						in.Point = key
					}
					in.Scheme, in.Root = keyfs.InputTapScript, nil
					if sig, err := w.InputSigner().Sign(in, digest); err != nil || !keyfs.VerifySchnorr(hd.XOnly(key), digest[:], sig) {
						t.Errorf("%s: tapscript: %v", at, err)
					}
					for _, r := range [][]byte{nil, root[:]} {
						in.Scheme, in.Root = keyfs.InputTapKey, r
						sig, err := w.InputSigner().Sign(in, digest)
						if err != nil || !keyfs.VerifySchnorr(hd.XOnly(hd.TapOutput(key, r)), digest[:], sig) {
							t.Errorf("%s: key path, root %x: %v", at, r, err)
						}
						if keyfs.VerifySchnorr(hd.XOnly(key), digest[:], sig) {
							t.Errorf("%s: the internal key signs", at)
						}
					}
				}
			}
		}
	}
}

// TestPublicAtTogether: one wallet is asked by many at once, for more paths than are
// remembered, and signs meanwhile.
func TestPublicAtTogether(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	w := v.imported(s, "W_tree", vectorXprv, "")
	want := map[string]string{}
	var paths []hd.Path
	for i := range 40 {
		path := pathOf(t, fmt.Sprintf("m/84h/0h/%dh/0/%d", i%20, i))
		d, err := w.PublicAt(path)
		must(t, err)
		want[path.String()] = d.String(hd.Main)
		paths = append(paths, path)
	}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			in := w.InputSigner()
			defer in.Wipe()
			for i := range paths {
				path := paths[(i*(2*n+1)+n)%len(paths)]
				d, err := w.PublicAt(path)
				if err != nil || d.String(hd.Main) != want[path.String()] {
					t.Errorf("%s is another key (%v)", path, err)
					return
				}
				digest := sha256.Sum256([]byte(path.String()))
				sig, err := in.Sign(keyfs.Input{Path: path, Public: d.Key().SerializeCompressed()}, digest)
				if err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				if parsed, err := secp.ParseDERSignature(sig); err != nil || !parsed.Verify(digest[:], d.Key()) {
					t.Errorf("%s: the signature does not verify (%v)", path, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestInputSignerRefuses: nothing is signed with another key than the transaction names,
// or with a wallet that cannot.
func TestInputSignerRefuses(t *testing.T) {
	for _, r := range []keyfs.Recheck{keyfs.RecheckVerify, keyfs.RecheckRepeat, keyfs.RecheckOff} {
		t.Run(r.String(), func(t *testing.T) { testInputSignerRefuses(t, r) })
	}
}

func testInputSignerRefuses(t *testing.T, r keyfs.Recheck) {
	v := newVolume(t)
	s := v.open(keyfs.Options{Recheck: r})
	tree := v.imported(s, "W_tree", vectorXprv, "")
	single := v.imported(s, "W_single", vectorWIF, "")
	nist := v.create(s, "W_nist", keyfs.P256)
	digest := sha256.Sum256([]byte("an input"))
	p := pathOf(t, "m/84h/0h/0h/0/0")
	pub, err := tree.PublicAt(p)
	must(t, err)
	key := pub.Key().SerializeCompressed()
	other := bytes.Clone(key)
	other[0] ^= 1
	next, err := tree.PublicAt(pathOf(t, "m/84h/0h/0h/0/1"))
	must(t, err)
	var x, y btcec.FieldVal // with the bytes of key, and not on the curve
	x.SetByteSlice(key[1:])
	y.SetInt(uint16(key[0] & 1))
	nowhere := btcec.NewPublicKey(&x, &y)
	if !bytes.Equal(nowhere.SerializeCompressed(), key) {
		t.Fatal("the point off the curve has other bytes")
	}
	// A point of the curve whose numbers are not reduced: written, they lose what is above
	// the 26 bits of each word, and are those of key.
	var step btcec.FieldVal
	step.SetByteSlice([]byte{2, 0, 0, 0}) // 2^25
	x.SetByteSlice(key[1:])
	for on := false; !on; {
		reduced := *x.Add(&step).Add(&step)
		on = btcec.DecompressY(reduced.Normalize(), key[0]&1 == 1, &y)
	}
	hidden := btcec.NewPublicKey(&x, &y)
	if !bytes.Equal(hidden.SerializeCompressed(), key) || !hidden.IsOnCurve() {
		t.Fatal("the point that is not reduced has other bytes, or is not on the curve")
	}
	for name, c := range map[string]struct {
		w    *keyfs.Wallet
		in   keyfs.Input
		want error
	}{
		"another key":         {tree, keyfs.Input{Path: p, Public: next.Key().SerializeCompressed()}, keyfs.ErrOther},
		"the other y":         {tree, keyfs.Input{Path: p, Public: other}, keyfs.ErrOther},
		"another key, single": {single, keyfs.Input{Public: next.Key().SerializeCompressed()}, keyfs.ErrOther},
		"no key":              {tree, keyfs.Input{Path: p}, keyfs.ErrInvalid},
		"x for ECDSA":         {tree, keyfs.Input{Path: p, Public: key[1:]}, keyfs.ErrInvalid},
		"uncompressed":        {single, keyfs.Input{Public: make([]byte, 65)}, keyfs.ErrInvalid},
		"another point":       {tree, keyfs.Input{Path: p, Public: key, Point: next.Key()}, keyfs.ErrInvalid},
		"a point off curve":   {tree, keyfs.Input{Path: p, Public: key, Point: nowhere}, keyfs.ErrInvalid},
		"a point not reduced": {tree, keyfs.Input{Path: p, Public: key, Point: hidden}, keyfs.ErrInvalid},
		"no path":             {tree, keyfs.Input{Public: key}, keyfs.ErrHD},
		"a path":              {single, keyfs.Input{Path: p, Public: key}, keyfs.ErrHD},
		"P-256":               {nist, keyfs.Input{Public: key}, keyfs.ErrCurve},
		"scheme":              {single, keyfs.Input{Scheme: 3, Public: key}, keyfs.ErrInvalid},
		"short root":          {single, keyfs.Input{Scheme: keyfs.InputTapKey, Public: key, Root: []byte{1}}, keyfs.ErrInvalid},
		"root for a script":   {single, keyfs.Input{Scheme: keyfs.InputTapScript, Public: key, Root: digest[:]}, keyfs.ErrInvalid},
	} {
		if sig, err := c.w.InputSigner().Sign(c.in, digest); !errors.Is(err, c.want) || sig != nil {
			t.Errorf("%s: %x, %v", name, sig, err)
		}
	}
	if _, err := tree.InputSigner().Sign(keyfs.Input{Path: p, Public: key}, digest); err != nil {
		t.Errorf("a request for another key was taken for a fault of the wallet: %v", err)
	}
	off, err := s.SetStatus(company, "W_tree", keyfs.StatusDisabled)
	must(t, err)
	if _, err := off.InputSigner().Sign(keyfs.Input{Path: p, Public: key}, digest); !errors.Is(err, keyfs.ErrDisabled) {
		t.Errorf("disabled: %v", err)
	}
	if _, err := single.PublicAt(p); !errors.Is(err, keyfs.ErrHD) {
		t.Errorf("a single key at a path: %v", err)
	}
	if _, err := tree.Secp256k1Key(); !errors.Is(err, keyfs.ErrHD) {
		t.Errorf("the single key of a tree: %v", err)
	}
}

// TestBitcoinIndex finds wallets by what a transaction tells, those that were there
// before and those that come later.
func TestBitcoinIndex(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	tree := v.hd(s, "W_1", hd.Main)
	single := v.imported(s, "W_2", vectorWIF, "")
	v.create(s, "W_3", keyfs.P256)
	bad := v.create(s, "W_bad", keyfs.Secp256k1)
	var whole []byte
	rewrite(t, v.inWallet("W_bad", "wallet.json"), func(b []byte) []byte { whole = bytes.Clone(b); return b[:10] })
	ids := func(ws []*keyfs.Wallet, err error) string {
		t.Helper()
		must(t, err)
		var list []string
		for _, w := range ws {
			list = append(list, w.ID())
		}
		return strings.Join(list, " ")
	}
	s = v.open(keyfs.Options{})
	key, err := single.Secp256k1Key()
	must(t, err)
	compressed := key.SerializeCompressed()
	check := func(more string) {
		t.Helper()
		for name, got := range map[string]string{
			"fingerprint": ids(s.ByFingerprint(company, tree.Fingerprint())),
		} {
			if got != "W_1" {
				t.Errorf("%s finds %q", name, got)
			}
		}
		for name, got := range map[string]string{
			"key":         ids(s.ByPublicKey(company, compressed)),
			"x":           ids(s.ByPublicKey(company, compressed[1:])),
			"P2PKH":       ids(s.ByScript(company, hd.P2PKH.Output(key))),
			"P2WPKH":      ids(s.ByScript(company, hd.P2WPKH.Output(key))),
			"P2SH-P2WPKH": ids(s.ByScript(company, hd.P2SHP2WPKH.Output(key))),
		} {
			if got != "W_2"+more {
				t.Errorf("%s finds %q", name, got)
			}
		}
	}
	check("")
	odd := append([]byte{compressed[0] ^ 1}, compressed[1:]...)
	swapped := hd.P2PKH.Output(key)
	swapped[0] = 0
	inner := hd.P2WPKH.Output(key)
	for name, got := range map[string]string{
		"the other y":           ids(s.ByPublicKey(company, odd)),
		"another fingerprint":   ids(s.ByFingerprint(company, hd.Fingerprint{1})),
		"another script":        ids(s.ByScript(company, swapped)),
		"no script":             ids(s.ByScript(company, nil)),
		"P2SH of the hash":      ids(s.ByScript(company, append(append([]byte{0xa9, 20}, inner[2:]...), 0x87))),
		"P2TR":                  ids(s.ByScript(company, hd.P2TR.Output(key))),
		"the tree's master key": ids(s.ByPublicKey(company, masterKey(t, tree))),
	} {
		if got != "" {
			t.Errorf("%s finds %q", name, got)
		}
	}
	if _, err := s.ByPublicKey(company, compressed[:20]); !errors.Is(err, keyfs.ErrInvalid) {
		t.Error(err)
	}
	if _, err := s.ByFingerprint("nobody", hd.Fingerprint{}); !errors.Is(err, keyfs.ErrUnknown) {
		t.Error(err)
	}
	// Later ones, also the same key once more.
	v.imported(s, "W_9", vectorWIF, "")
	check(" W_9")
	late := v.hd(s, "W_8", hd.Test)
	if got := ids(s.ByFingerprint(company, late.Fingerprint())); got != "W_8" {
		t.Errorf("a later wallet is found as %q", got)
	}
	// What was damaged is found when it is mended.
	if lost, err := s.Unread(company); err != nil || lost == nil || !strings.Contains(lost.Error(), "W_bad") {
		t.Errorf("unread: %v, %v", lost, err)
	}
	rewrite(t, v.inWallet("W_bad", "wallet.json"), func([]byte) []byte { return whole })
	for range 2 {
		if lost, err := s.Unread(company); err != nil || lost != nil {
			t.Errorf("unread: %v, %v", lost, err)
		}
	}
	mended, err := bad.Secp256k1Key()
	must(t, err)
	if got := ids(s.ByPublicKey(company, mended.SerializeCompressed())); got != "W_bad" {
		t.Errorf("a mended wallet is found as %q", got)
	}
	// While they are made.
	s = v.open(keyfs.Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			w := v.hd(s, fmt.Sprintf("W_many_%d", i), hd.Test)
			if ws, err := s.ByFingerprint(company, w.Fingerprint()); err != nil || len(ws) != 1 || ws[0].ID() != w.ID() {
				t.Errorf("%s is not found (%v)", w.ID(), err)
			}
		})
	}
	wg.Wait()
}

func masterKey(t testing.TB, w *keyfs.Wallet) []byte {
	t.Helper()
	p, err := w.PublicAt(nil)
	must(t, err)
	return p.Key().SerializeCompressed()
}

// TestIndexReadsNoKeys: a company of many wallets is asked without their keys.
func TestIndexReadsNoKeys(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	var specs []keyfs.Spec
	for i := range 50 {
		specs = append(specs, keyfs.Spec{ID: fmt.Sprintf("W_%03d", i), Curve: keyfs.Secp256k1})
	}
	ws, err := s.Create(company, specs, v.fs)
	must(t, err)
	for i := range 50 {
		if i != 7 {
			must(t, os.Remove(v.inWallet(fmt.Sprintf("W_%03d", i), "key.pem")))
		}
	}
	key, err := ws[7].Secp256k1Key()
	must(t, err)
	found, err := v.open(keyfs.Options{}).ByPublicKey(company, key.SerializeCompressed())
	if err != nil || len(found) != 1 || found[0].ID() != "W_007" {
		t.Errorf("found %v, %v", found, err)
	}
}

func FuzzParsePrivateKeyBitcoin(f *testing.F) {
	for _, s := range []string{vectorWIF, testWIF, vectorXprv, vectorXpub, "\n" + vectorXprv + " "} {
		f.Add([]byte(s))
	}
	if text, err := keyfs.KeyOfWords([]byte(vectorWords), nil, hd.Test); err == nil {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := keyfs.ParsePrivateKey(text)
		if err != nil {
			return
		}
		if !hd.HoldsSecret(text) && !bytes.Contains(text, []byte("PRIVATE KEY-----")) {
			t.Errorf("%q is not known as a secret", text)
		}
		again, err := keyfs.ParsePrivateKey(keyfs.EncodeImported(i))
		if err != nil || again.PublicPEM() != i.PublicPEM() || again.Curve() != i.Curve() {
			t.Errorf("it is not read back: %v", err)
		}
	})
}

// TestSignInputShort: numbers that begin with zeros give the shorter DER, the fixed form
// of BIP-340, and never a high s.
func TestSignInputShort(t *testing.T) {
	v := newVolume(t)
	w := v.imported(v.open(keyfs.Options{Recheck: keyfs.RecheckOff}), "W_1", vectorWIF, "")
	key, err := w.Secp256k1Key()
	must(t, err)
	in := keyfs.Input{Public: key.SerializeCompressed()}
	seen := map[string]bool{}
	want := []string{"r 31", "r 32", "r 33", "s 31", "s 32", "schnorr r", "schnorr s"}
	all := func() bool { return !slices.ContainsFunc(want, func(what string) bool { return !seen[what] }) }
	most := 5000
	if testing.Short() {
		most = 20
	}
	for i := 0; i < most && !all(); i++ {
		digest := sha256.Sum256(fmt.Append(nil, i))
		in.Scheme = keyfs.InputECDSA
		sig, err := w.InputSigner().Sign(in, digest)
		must(t, err)
		parsed, err := secp.ParseDERSignature(sig)
		if err != nil || !parsed.Verify(digest[:], key) || !bytes.Equal(parsed.Serialize(), sig) || !lowS(t, sig) {
			t.Fatalf("%d: %x: %v", i, sig, err)
		}
		seen[fmt.Sprint("r ", sig[3])] = true
		seen[fmt.Sprint("s ", sig[5+sig[3]])] = true
		in.Scheme = keyfs.InputTapScript
		sig, err = w.InputSigner().Sign(in, digest)
		must(t, err)
		if !keyfs.VerifySchnorr(hd.XOnly(key), digest[:], sig) {
			t.Fatalf("%d: %x", i, sig)
		}
		seen["schnorr r"] = seen["schnorr r"] || sig[0] == 0
		seen["schnorr s"] = seen["schnorr s"] || sig[32] == 0
	}
	if !testing.Short() && !all() {
		t.Errorf("of %q only %v was seen", want, seen)
	}
}
