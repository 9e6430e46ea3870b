package keyfs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/asn1"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"signdrop/keyfs"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

// fixed turns a DER signature into r || s, each of size bytes.
func fixed(t *testing.T, der []byte, size int) []byte {
	t.Helper()
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &sig)
	must(t, err)
	if len(rest) > 0 {
		t.Fatal("bytes after the signature")
	}
	out := make([]byte, 2*size)
	sig.R.FillBytes(out[:size])
	sig.S.FillBytes(out[size:])
	return out
}

func records(t *testing.T, name string, fields int) [][]string {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	r := csv.NewReader(f)
	r.Comment = '#'
	r.FieldsPerRecord = fields
	all, err := r.ReadAll()
	must(t, err)
	return all
}

// TestRFC6979 signs with wallets whose keys are those of the vectors.
func TestRFC6979(t *testing.T) {
	seen := map[string]int{}
	for _, r := range records(t, "testdata/rfc6979.csv", 6) {
		curve, hash, message := keyfs.Curve(r[0]), r[1], r[2]
		v := newVolume(t)
		wallet, key, err := keyfs.KeyFiles("W_1", curve, unhex(t, r[3]))
		must(t, err)
		v.put("W_1", wallet, key)
		w, err := v.open(keyfs.Options{}).Lookup(company, "W_1")
		must(t, err)
		sig, err := w.Sign(keyfs.ECDSA, digest(t, hash, message))
		must(t, err)
		want := unhex(t, r[4]+r[5])
		if got := fixed(t, sig, len(want)/2); !bytes.Equal(got, want) {
			t.Errorf("%s, %s, %q: got %x, want %x", curve, hash, message, got, want)
		}
		seen[r[0]+hash]++
	}
	for _, name := range []string{"P-256SHA-256", "P-256SHA-384", "P-256SHA-512", "P-384SHA-256", "P-384SHA-384",
		"P-384SHA-512", "P-521SHA-256", "P-521SHA-384", "P-521SHA-512", "secp256k1SHA-256"} {
		if seen[name] == 0 {
			t.Errorf("no vector for %s", name)
		}
	}
}

func TestBIP340(t *testing.T) {
	all := records(t, "testdata/bip340.csv", 8)
	signed, verified, refused := 0, 0, 0
	for _, r := range all[1:] {
		index, secret, public, aux, message, sig, result := r[0], r[1], unhex(t, r[2]), r[3], unhex(t, r[4]), unhex(t, r[5]), r[6]
		if secret != "" {
			got, err := keyfs.SignSchnorr(unhex(t, secret), [32]byte(unhex(t, aux)), message)
			if err != nil || !bytes.Equal(got, sig) {
				t.Errorf("vector %s: got %x, %v, want %x", index, got, err, sig)
			}
			signed++
		}
		if got, want := keyfs.VerifySchnorr(public, message, sig), result == "TRUE"; got != want {
			t.Errorf("vector %s: verified %v, want %v (%s)", index, got, want, r[7])
		} else if got {
			verified++
		} else {
			refused++
		}
	}
	if signed < 8 || verified < 9 || refused < 10 {
		t.Errorf("signed %d, verified %d and refused %d vectors: the file is not whole", signed, verified, refused)
	}

	// A wallet signs with the auxiliary value of vector 0.
	v := newVolume(t)
	wallet, key, err := keyfs.KeyFiles("W_1", keyfs.Secp256k1, unhex(t, all[1][1]))
	must(t, err)
	v.put("W_1", wallet, key)
	w, err := v.open(keyfs.Options{}).Lookup(company, "W_1")
	must(t, err)
	got, err := w.Sign(keyfs.Schnorr, unhex(t, all[1][4]))
	if want := unhex(t, all[1][5]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

// TestWycheproof holds the check of signatures against Project Wycheproof's
// vectors.
func TestWycheproof(t *testing.T) {
	for _, c := range []struct {
		file  string
		curve keyfs.Curve
		hash  string
		lowS  bool // the vectors themselves want the low s
	}{
		{"ecdsa_secp256r1_sha256_test.json", keyfs.P256, "SHA-256", false},
		{"ecdsa_secp384r1_sha256_test.json", keyfs.P384, "SHA-256", false},
		{"ecdsa_secp384r1_sha384_test.json", keyfs.P384, "SHA-384", false},
		{"ecdsa_secp521r1_sha512_test.json", keyfs.P521, "SHA-512", false},
		{"ecdsa_secp256k1_sha256_test.json", keyfs.Secp256k1, "SHA-256", false},
		{"ecdsa_secp256k1_sha256_bitcoin_test.json", keyfs.Secp256k1, "SHA-256", true},
	} {
		t.Run(c.file, func(t *testing.T) {
			f, err := os.Open(filepath.Join("testdata", "wycheproof", c.file+".gz"))
			must(t, err)
			defer f.Close()
			z, err := gzip.NewReader(f)
			must(t, err)
			b, err := io.ReadAll(z)
			must(t, err)
			var vectors struct {
				TestGroups []struct {
					PublicKey struct{ Uncompressed string }
					Tests     []struct {
						ID           int `json:"tcId"`
						Comment, Msg string
						Sig, Result  string
					}
				}
			}
			must(t, json.Unmarshal(b, &vectors))
			n := map[bool]int{}
			for _, g := range vectors.TestGroups {
				for _, v := range g.Tests {
					if v.Result != "valid" && v.Result != "invalid" {
						t.Fatalf("test %d: result %q is not known", v.ID, v.Result)
					}
					want := v.Result == "valid"
					sig := unhex(t, v.Sig)
					if want && c.curve == keyfs.Secp256k1 && !c.lowS {
						want = lowS(t, sig) // the high s is none of ours
					}
					got, err := keyfs.Verify(c.curve, unhex(t, g.PublicKey.Uncompressed), keyfs.ECDSA,
						digest(t, c.hash, string(unhex(t, v.Msg))), sig)
					must(t, err)
					if got != want {
						t.Errorf("test %d (%s): got %v, want %v", v.ID, v.Comment, got, want)
					}
					n[want]++
				}
			}
			if n[true] == 0 || n[false] == 0 {
				t.Errorf("%d valid and %d invalid vectors: the file is not whole", n[true], n[false])
			}
		})
	}
}

// lowS reports whether s of a secp256k1 signature is at most half the order.
func lowS(t *testing.T, der []byte) bool {
	t.Helper()
	half := new(big.Int).SetBytes(unhex(t, "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0"))
	return new(big.Int).SetBytes(fixed(t, der, 32)[32:]).Cmp(half) <= 0
}

// The check of a signature refuses every other length, every other byte and
// every other digest.
func TestVerifyRefuses(t *testing.T) {
	for _, scheme := range []keyfs.Scheme{keyfs.ECDSA, keyfs.ECDSARecoverable, keyfs.Schnorr} {
		v := newVolume(t)
		w := v.create(v.open(keyfs.Options{}), "W_1", keyfs.Secp256k1)
		info := fromPEM(t, []byte(w.PublicPEM()))
		point := info[len(info)-65:]
		d := digest(t, "SHA-256", "message")
		sig, err := w.Sign(scheme, d)
		must(t, err)
		verify := func(d, sig []byte) bool {
			t.Helper()
			ok, err := keyfs.Verify(keyfs.Secp256k1, point, scheme, d, sig)
			must(t, err)
			return ok
		}
		if !verify(d, sig) {
			t.Errorf("scheme %d: a good signature is refused", scheme)
		}
		if verify(digest(t, "SHA-256", "another"), sig) {
			t.Errorf("scheme %d: a signature of another message is accepted", scheme)
		}
		if verify(d, nil) || verify(d, sig[:len(sig)-1]) || verify(d, append(sig[:len(sig):len(sig)], 0)) {
			t.Errorf("scheme %d: another length is accepted", scheme)
		}
		for i := range sig {
			for _, bit := range []byte{1, 0x80} {
				wrong := bytes.Clone(sig)
				wrong[i] ^= bit
				if verify(d, wrong) {
					t.Errorf("scheme %d: byte %d changed to %02x is accepted", scheme, i, wrong[i])
				}
			}
		}
	}
	point := make([]byte, 65)
	point[0] = 4
	for _, c := range allCurves {
		if _, err := keyfs.Verify(c, point, keyfs.ECDSA, nil, nil); err == nil {
			t.Errorf("%s: (0, 0) is accepted as a public key", c)
		}
	}
}
