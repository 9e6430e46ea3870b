package keyfs_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signdrop/keyfs"
)

// opensslCurves are the curves by the names that OpenSSL writes.
var opensslCurves = map[keyfs.Curve]string{
	keyfs.P256: "prime256v1", keyfs.P384: "secp384r1", keyfs.P521: "secp521r1", keyfs.Secp256k1: "secp256k1",
}

// newKey makes a private key elsewhere: SEC1, with its parameters before it.
func newKey(t *testing.T, c keyfs.Curve) []byte {
	t.Helper()
	return openssl(t, nil, "ecparam", "-name", opensslCurves[c], "-genkey")
}

// Every form in which OpenSSL writes a private key is read, and is the same key.
func TestParsePrivateKeyOpenSSL(t *testing.T) {
	for _, curve := range allCurves {
		t.Run(string(curve), func(t *testing.T) {
			key := newKey(t, curve)
			want := string(openssl(t, key, "pkey", "-pubout"))
			forms := map[string][]byte{
				"ecparam":      key,
				"ec":           openssl(t, key, "ec"),
				"pkcs8":        openssl(t, key, "pkcs8", "-topk8", "-nocrypt"),
				"pkey":         openssl(t, key, "pkey"),
				"traditional":  openssl(t, key, "pkey", "-traditional"),
				"no public":    openssl(t, key, "ec", "-no_public"),
				"no public p8": openssl(t, openssl(t, key, "ec", "-no_public"), "pkcs8", "-topk8", "-nocrypt"),
			}
			for _, form := range []string{"compressed", "uncompressed", "hybrid"} {
				forms[form] = openssl(t, key, "ec", "-conv_form", form)
				forms[form+" p8"] = openssl(t, forms[form], "pkcs8", "-topk8", "-nocrypt")
			}
			for name, text := range forms {
				for ends, text := range map[string][]byte{
					"LF":           text,
					"CRLF":         bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
					"no last LF":   bytes.TrimSuffix(text, []byte("\n")),
					"no last CRLF": bytes.TrimSuffix(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), []byte("\r\n")),
				} {
					before := bytes.Clone(text)
					got, err := keyfs.ParsePrivateKey(text)
					if err != nil {
						t.Errorf("%s, %s: %v", name, ends, err)
						continue
					}
					if got.Curve() != curve || got.PublicPEM() != want {
						t.Errorf("%s, %s: got a key on %s with the public key\n%swant\n%s", name, ends, got.Curve(), got.PublicPEM(), want)
					}
					if !bytes.Equal(text, before) {
						t.Errorf("%s, %s: the caller's text has changed", name, ends)
					}
				}
			}
		})
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	key := newKey(t, keyfs.P384)
	sec1 := openssl(t, key, "ec")
	p8 := openssl(t, key, "pkey")
	other := openssl(t, newKey(t, keyfs.P384), "pkey")
	params := func(c keyfs.Curve) []byte { return openssl(t, nil, "ecparam", "-name", opensslCurves[c]) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	// The last 97 bytes of each are its public key.
	mixed := fromPEM(t, p8)
	copy(mixed[len(mixed)-97:], fromPEM(t, other)[len(mixed)-97:])
	zero := fromPEM(t, sec1)
	clear(zero[8 : 8+48])

	const at = "the private key cannot be imported: "
	for _, c := range []struct {
		name string
		text []byte
		want string
	}{
		{"empty", nil, at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"text before", join([]byte("key:\n"), p8), at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"text after", join(p8, []byte("\n")), at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"two keys", join(p8, other), at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"one line", join([]byte("-----BEGIN PRIVATE KEY-----\n"), bytes.ReplaceAll(p8[28:len(p8)-26], []byte("\n"), nil), []byte("\n-----END PRIVATE KEY-----\n")),
			at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"DER", fromPEM(t, p8), at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"mixed line ends", bytes.Replace(p8, []byte("\n"), []byte("\r\n"), 1), at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"large", bytes.Repeat(p8, 20), at + "it is not PEM as openssl writes it, with nothing beside the key"},
		{"public key", openssl(t, key, "pkey", "-pubout"), at + "it is neither an EC PRIVATE KEY nor a PRIVATE KEY in PEM"},
		{"parameters and PKCS#8", join(params(keyfs.P384), p8), at + "it is neither an EC PRIVATE KEY nor a PRIVATE KEY in PEM"},
		{"RSA", openssl(t, nil, "genrsa", "-traditional", "1024"), at + "it is neither an EC PRIVATE KEY nor a PRIVATE KEY in PEM"},
		{"encrypted PKCS#8", openssl(t, key, "pkcs8", "-topk8", "-passout", "pass:x"), at + "it is encrypted: decrypt it first, as openssl pkey does"},
		{"encrypted SEC1", openssl(t, key, "ec", "-aes128", "-passout", "pass:abcd"), at + "it is encrypted: decrypt it first, as openssl pkey does"},
		{"RSA in PKCS#8", openssl(t, nil, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"), at + "it is not on P-256, P-384, P-521 or secp256k1, named by its name"},
		{"Ed25519", openssl(t, nil, "genpkey", "-algorithm", "ED25519"), at + "it is not on P-256, P-384, P-521 or secp256k1, named by its name"},
		{"P-224", openssl(t, nil, "ecparam", "-name", "secp224r1", "-genkey", "-noout"), at + "it is not on P-256, P-384, P-521 or secp256k1, named by its name"},
		{"explicit parameters", openssl(t, key, "ec", "-param_enc", "explicit"), at + "it is not on P-256, P-384, P-521 or secp256k1, named by its name"},
		{"parameters of another curve", join(params(keyfs.P256), sec1), at + "it names two different curves"},
		{"another public key", toPEM("PRIVATE KEY", mixed), at + "its public key is not that of its private key"},
		{"zero", toPEM("EC PRIVATE KEY", zero), at + "its private number is not in the curve's range or not in its full size"},
		{"bytes after SEC1", toPEM("EC PRIVATE KEY", append(fromPEM(t, sec1), 0)), at + "it has bytes after the end of the key, or attributes"},
		{"bytes after PKCS#8", toPEM("PRIVATE KEY", append(fromPEM(t, p8), 0)), at + "it has bytes after the end of the key, or attributes"},
		{"PKCS#8 under the other type", toPEM("EC PRIVATE KEY", fromPEM(t, p8)), at + "it is not an elliptic-curve key in DER"},
		{"SEC1 under the other type", toPEM("PRIVATE KEY", fromPEM(t, sec1)), at + "it is not a PKCS#8 key of version 0"},
	} {
		_, err := keyfs.ParsePrivateKey(c.text)
		if !errors.Is(err, keyfs.ErrPrivateKey) || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
}

// No error of an import holds a piece of the key, whichever byte is changed.
func TestImportErrorsHoldNoKey(t *testing.T) {
	key := newKey(t, keyfs.P256)
	for at := range key {
		bad := bytes.Clone(key)
		bad[at] ^= 1
		_, err := keyfs.ParsePrivateKey(bad)
		if err == nil {
			t.Fatalf("byte %d can be changed", at)
		}
		for _, line := range strings.Split(string(bad), "\n") {
			for i := 0; i+8 <= len(line) && !strings.HasPrefix(line, "-"); i++ {
				if strings.Contains(err.Error(), line[i:i+8]) {
					t.Fatalf("the error %q holds %q of the key", err, line[i:i+8])
				}
			}
		}
	}
}

func TestImport(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	end := time.Date(2027, 12, 31, 23, 59, 59, 999, time.FixedZone("", 3600))
	var specs []keyfs.ImportSpec
	for i, curve := range allCurves {
		specs = append(specs, keyfs.ImportSpec{ID: fmt.Sprintf("W_%d", i), PrivateKeyPEM: newKey(t, curve), NotAfter: end})
	}
	specs = append(specs, specs[0]) // the same twice
	var before string
	for i, s := range []*keyfs.Store{s, s, v.open(keyfs.Options{})} { // again is a success
		ws, err := s.Import(company, specs, v.fs)
		must(t, err)
		for i, w := range ws {
			pub := openssl(t, specs[i].PrivateKeyPEM, "pkey", "-pubout")
			if w.ID() != specs[i].ID || w.PublicPEM() != string(pub) || !w.Active() || w.Address() != "" {
				t.Errorf("wallet %d: got %s with the public key\n%swant\n%s", i, w.ID(), w.PublicPEM(), pub)
			}
			if got := w.NotAfter().Format(time.RFC3339); got != "2027-12-31T22:59:59Z" {
				t.Errorf("wallet %d ends %s", i, got)
			}
			sig, err := w.Sign(keyfs.ECDSA, digest(t, "SHA-384", "message"))
			must(t, err)
			dir := t.TempDir()
			for name, b := range map[string][]byte{"pub": pub, "sig": sig, "msg": []byte("message")} {
				must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
			openssl(t, nil, "dgst", "-sha384", "-verify", dir+"/pub", "-signature", dir+"/sig", dir+"/msg")
		}
		if i == 0 {
			before = tree(t, v)
		}
	}
	// What lies on disk is our own form, whichever came.
	b, err := os.ReadFile(v.inWallet("W_1", "key.pem"))
	must(t, err)
	if again, err := keyfs.Reencode(b); err != nil || !bytes.Equal(again, b) {
		t.Errorf("key.pem is not in our form: %v", err)
	}

	later, none := end.Add(time.Second), time.Time{}
	for _, c := range []struct {
		name  string
		specs []keyfs.ImportSpec
		want  error
	}{
		{"another key", []keyfs.ImportSpec{{"W_9", newKey(t, keyfs.P256), none, ""}, {"W_0", newKey(t, keyfs.P256), end, ""}}, keyfs.ErrOther},
		{"another curve", []keyfs.ImportSpec{{"W_9", newKey(t, keyfs.P256), none, ""}, {"W_0", newKey(t, keyfs.P384), end, ""}}, keyfs.ErrOther},
		{"another end", []keyfs.ImportSpec{{"W_9", newKey(t, keyfs.P256), none, ""}, {"W_0", specs[0].PrivateKeyPEM, later, ""}}, keyfs.ErrOther},
		{"no end", []keyfs.ImportSpec{{"W_0", specs[0].PrivateKeyPEM, none, ""}}, keyfs.ErrOther},
		{"two keys", []keyfs.ImportSpec{{"W_9", newKey(t, keyfs.P256), none, ""}, {"W_9", newKey(t, keyfs.P256), none, ""}}, keyfs.ErrOther},
		{"a bad key", []keyfs.ImportSpec{{"W_9", newKey(t, keyfs.P256), none, ""}, {"W_8", []byte("x"), none, ""}}, keyfs.ErrPrivateKey},
		{"a bad id", []keyfs.ImportSpec{{"../W_9", newKey(t, keyfs.P256), none, ""}}, keyfs.ErrInvalid},
		{"a mistaken end", []keyfs.ImportSpec{{"W_9", newKey(t, keyfs.P256), time.Unix(-1, 0), ""}}, keyfs.ErrInvalid},
	} {
		ws, err := s.Import(company, c.specs, v.fs)
		if ws != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v", c.name, ws, err)
		}
		if after := tree(t, v); after != before {
			t.Errorf("%s: the files have changed:\n%s\nwere\n%s", c.name, after, before)
		}
	}
	if _, err := s.Import("other", specs[:1], v.fs); !errors.Is(err, keyfs.ErrUnknown) {
		t.Errorf("no such company: %v", err)
	}

	// Create finds an imported wallet as it finds any other.
	ws, err := s.Create(company, []keyfs.Spec{{ID: "W_0", Curve: keyfs.P256, NotAfter: end}}, v.fs)
	must(t, err)
	if ws[0].PublicPEM() != string(openssl(t, specs[0].PrivateKeyPEM, "pkey", "-pubout")) {
		t.Error("Create has made another key")
	}
}

func TestNotAfter(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	end := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	_, err := s.Create(company, []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256, NotAfter: end}, {ID: "W_2", Curve: keyfs.P256}}, v.fs)
	must(t, err)
	b, err := os.ReadFile(v.inWallet("W_1", "wallet.json"))
	must(t, err)
	if !bytes.Contains(b, []byte(`"status": "active",`+"\n"+`  "not_after": "2030-01-02T03:04:05Z"`)) {
		t.Errorf("wallet.json is\n%s", b)
	}
	w, err := v.open(keyfs.Options{}).Lookup(company, "W_1")
	must(t, err)
	if !w.NotAfter().Equal(end) {
		t.Errorf("got %v, want %v", w.NotAfter(), end)
	}
	w, err = v.open(keyfs.Options{}).Lookup(company, "W_2")
	must(t, err)
	if !w.NotAfter().IsZero() {
		t.Errorf("got %v, want none", w.NotAfter())
	}
	if _, err := s.Create(company, []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256}}, v.fs); !errors.Is(err, keyfs.ErrOther) {
		t.Errorf("another end: got %v, want ErrOther", err)
	}
	for _, bad := range []string{"2030-01-02T03:04:05+00:00", "2030-01-02T03:04:05.0Z", "2030-01-02 03:04:05Z", "2030-02-30T00:00:00Z",
		"1969-12-31T23:59:59Z", "10000-01-01T00:00:00Z", "soon"} {
		if _, err := keyfs.ReencodeWallet(bytes.Replace(b, []byte("2030-01-02T03:04:05Z"), []byte(bad), 1)); err == nil {
			t.Errorf("not_after %q is accepted", bad)
		}
	}
}

// Whatever is accepted is a key that our own form holds too, with the same public
// key, and that OpenSSL's rules for PEM would not read in another way: the block is
// the whole text.
func FuzzParsePrivateKey(f *testing.F) {
	for _, c := range allCurves {
		_, key := sampleFiles(f, c)
		f.Add(key)
		f.Add(bytes.ReplaceAll(key, []byte("\n"), []byte("\r\n")))
		f.Add(sec1Sample(f, c, true))
		f.Add(append([]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"), sec1Sample(f, c, false)...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		checkImport(t, text)
	})
}

// FuzzParsePrivateKeyDER is FuzzParsePrivateKey below the PEM.
func FuzzParsePrivateKeyDER(f *testing.F) {
	for _, c := range allCurves {
		_, key := sampleFiles(f, c)
		f.Add(fromPEM(f, key))
		f.Add(fromPEM(f, sec1Sample(f, c, true)))
		f.Add(fromPEM(f, sec1Sample(f, c, false)))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		checkImport(t, toPEM("PRIVATE KEY", der))
		checkImport(t, toPEM("EC PRIVATE KEY", der))
	})
}

func checkImport(t *testing.T, text []byte) {
	before := bytes.Clone(text)
	got, err := keyfs.ParsePrivateKey(text)
	if !bytes.Equal(text, before) {
		t.Fatal("the caller's text has changed")
	}
	if err != nil {
		return
	}
	own := keyfs.EncodeImported(got)
	again, err := keyfs.ParsePrivateKey(own)
	if err != nil || again.PublicPEM() != got.PublicPEM() {
		t.Errorf("our own form of it: %v", err)
	}
	if written, err := keyfs.Reencode(own); err != nil || !bytes.Equal(written, own) {
		t.Errorf("it cannot be read from key.pem: %v", err)
	}
	if block, _ := pem.Decode(text); block == nil {
		t.Error("it is not PEM")
	}
}

// sec1Sample is the key of sampleFiles as SEC1.
func sec1Sample(t testing.TB, c keyfs.Curve, public bool) []byte {
	t.Helper()
	_, key := sampleFiles(t, c)
	der, err := keyfs.SEC1(key, public)
	must(t, err)
	return toPEM("EC PRIVATE KEY", der)
}
