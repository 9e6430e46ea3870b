package keyfs_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"signdrop/keyfs"
)

func fromPEM(t testing.TB, text []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatal("not PEM")
	}
	return block.Bytes
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Each case damages one thing of wallet W_1 and says what Lookup must answer.
func TestDamaged(t *testing.T) {
	const (
		keyFile    = "companies/acme/wallets/W_1/key.pem "
		walletFile = "companies/acme/wallets/W_1/wallet.json "
		aKey       = ": restore it from the backup; a key cannot be made again"
		aWallet    = ": restore it from the backup"
		both       = ": restore wallet.json and key.pem together from the backup"
		mode       = ": find out who could use it, then chmod 0400"
		notWritten = "is not in the form in which it was written"
	)
	key := func(change func([]byte) []byte) func(*testing.T, *volume) {
		return func(t *testing.T, v *volume) { rewrite(t, v.inWallet("W_1", "key.pem"), change) }
	}
	der := func(change func([]byte) []byte) func(*testing.T, *volume) {
		return key(func(b []byte) []byte { return toPEM("PRIVATE KEY", change(fromPEM(t, b))) })
	}
	wallet := func(old, new string) func(*testing.T, *volume) {
		return func(t *testing.T, v *volume) {
			rewrite(t, v.inWallet("W_1", "wallet.json"), func(b []byte) []byte {
				if !bytes.Contains(b, []byte(old)) {
					t.Fatalf("wallet.json has no %q", old)
				}
				return bytes.Replace(b, []byte(old), []byte(new), 1)
			})
		}
	}
	chmod := func(file string, mode os.FileMode) func(*testing.T, *volume) {
		return func(t *testing.T, v *volume) { must(t, os.Chmod(v.inWallet("W_1", file), mode)) }
	}
	// replace puts what make makes in the place of a file.
	replace := func(file string, make func(string) error) func(*testing.T, *volume) {
		return func(t *testing.T, v *volume) {
			must(t, os.Remove(v.inWallet("W_1", file)))
			must(t, make(v.inWallet("W_1", file)))
		}
	}
	swap := func(file, id string) func(*testing.T, *volume) {
		return func(t *testing.T, v *volume) {
			other, err := os.ReadFile(v.inWallet(id, file))
			must(t, err)
			rewrite(t, v.inWallet("W_1", file), func([]byte) []byte { return other })
		}
	}
	// The parts of a P-256 key: 30 81 87 | 02 01 00 | 30 13 (19 bytes, up to 26) |
	// 04 6d | 30 6b | 02 01 01 | 04 20 (32 bytes at 36) | a1 44 03 42 00 04 …
	at := func(i int, b ...byte) func(*testing.T, *volume) {
		return der(func(d []byte) []byte { copy(d[i:], b); return d })
	}
	scalar := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

	for _, c := range []struct {
		name   string
		damage func(*testing.T, *volume)
		want   string
	}{
		{"key missing", replace("key.pem", func(string) error { return nil }), keyFile + "is missing" + aKey},
		{"key empty", key(func([]byte) []byte { return nil }), keyFile + "is not PEM: it is empty, cut off or garbled" + aKey},
		{"key cut off", key(func(b []byte) []byte { return b[:len(b)/2] }), keyFile + "is not PEM: it is empty, cut off or garbled" + aKey},
		{"key too large", key(func(b []byte) []byte { return append(b, make([]byte, 5000)...) }), keyFile + "is larger than it can be" + aKey},
		{"key of another type", key(func(b []byte) []byte { return toPEM("EC PRIVATE KEY", fromPEM(t, b)) }), keyFile + "is not a PEM of the type PRIVATE KEY" + aKey},
		{"key encrypted", key(func(b []byte) []byte { return toPEM("ENCRYPTED PRIVATE KEY", fromPEM(t, b)) }), keyFile + "is not a PEM of the type PRIVATE KEY" + aKey},
		{"text before key", key(func(b []byte) []byte { return append([]byte("# mine\n"), b...) }), keyFile + "holds something beside the key" + aKey},
		{"text after key", key(func(b []byte) []byte { return append(b, '\n') }), keyFile + "holds something beside the key" + aKey},
		{"two keys", key(func(b []byte) []byte { return append(b, b...) }), keyFile + "holds something beside the key" + aKey},
		{"CRLF key", key(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }), keyFile + "holds something beside the key" + aKey},
		{"PEM headers", key(func(b []byte) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"a": "b"}, Bytes: fromPEM(t, b)})
		}), keyFile + "holds something beside the key" + aKey},
		{"DER empty", der(func([]byte) []byte { return nil }), keyFile + "is not a PKCS#8 key" + aKey},
		{"DER cut off", der(func(d []byte) []byte { return d[:len(d)-1] }), keyFile + "is not a PKCS#8 key" + aKey},
		{"bytes after key", der(func(d []byte) []byte { return append(d, 0) }), keyFile + "has bytes after the end of the key" + aKey},
		{"attributes", der(func(d []byte) []byte { d[2] += 2; return append(d, 0xa0, 0) }), keyFile + "has bytes after the end of the key" + aKey},
		{"bytes after the inner key", der(func(d []byte) []byte {
			d[2], d[28], d[30] = d[2]+2, d[28]+2, d[30]+2
			return append(d, 5, 0)
		}), keyFile + "has bytes after the end of the key" + aKey},
		{"bytes after the point", der(func(d []byte) []byte {
			d[2], d[28], d[30], d[69] = d[2]+2, d[28]+2, d[30]+2, d[69]+2
			return append(d, 5, 0)
		}), keyFile + "has bytes after the end of the key" + aKey},
		{"version 1", at(5, 1), keyFile + "is not a PKCS#8 key of version 0" + aKey},
		{"no algorithm", at(6, 0x31), keyFile + "is not a PKCS#8 key" + aKey},
		{"no key inside", at(27, 0x05), keyFile + "is not a PKCS#8 key" + aKey},
		{"inner version 0", at(33, 0), keyFile + "is not a PKCS#8 key" + aKey},
		{"another curve's OID", at(26, 6), keyFile + "is not a key on P-256, P-384, P-521 or secp256k1" + aKey},
		{"scalar of zero", at(36, scalar(0)...), keyFile + "holds a private number that is not in the curve's range" + aKey},
		{"scalar above the order", at(36, scalar(0xff)...), keyFile + "holds a private number that is not in the curve's range" + aKey},
		{"another scalar", at(36, scalar(7)...), keyFile + "holds a public key that is not that of its private key" + aKey},
		{"public half changed", der(func(d []byte) []byte { d[len(d)-1] ^= 1; return d }), keyFile + "holds a public key that is not that of its private key" + aKey},
		{"key of another wallet", swap("key.pem", "W_2"), keyFile + "is not the key whose public key wallet.json holds" + both},
		{"key on another curve", swap("key.pem", "W_3"), keyFile + "is a key on P-384, and wallet.json says P-256" + both},
		{"key readable by the group", chmod("key.pem", 0o440), keyFile + "is open to others (mode 0440)" + mode},
		{"key readable by others", chmod("key.pem", 0o404), keyFile + "is open to others (mode 0404)" + mode},
		{"key executable by others", chmod("key.pem", 0o601), keyFile + "is open to others (mode 0601)" + mode},
		{"key is a link", replace("key.pem", func(p string) error { return os.Symlink("../W_2/key.pem", p) }), keyFile + "is not a regular file" + aKey},
		{"key is a directory", replace("key.pem", func(p string) error { return os.Mkdir(p, 0o700) }), keyFile + "is not a regular file" + aKey},

		{"wallet missing", replace("wallet.json", func(string) error { return nil }), walletFile + "is missing" + aWallet},
		{"wallet is a link", replace("wallet.json", func(p string) error { return os.Symlink("../W_2/wallet.json", p) }), walletFile + "is not a regular file" + aWallet},
		{"wallet writable by the group", chmod("wallet.json", 0o460), walletFile + "is open to others (mode 0460)" + mode},
		{"wallet of another id", swap("wallet.json", "W_2"), walletFile + "belongs to the wallet W_2" + aWallet},
		{"public key of another", func(t *testing.T, v *volume) {
			wallet(publicLine(t, v, "W_1"), publicLine(t, v, "W_2"))(t, v)
		}, keyFile + "is not the key whose public key wallet.json holds" + both},
		{"curve of another", wallet(`"P-256"`, `"P-384"`), keyFile + "is a key on P-256, and wallet.json says P-384" + both},
		{"curve unknown", wallet(`"P-256"`, `"P-224"`), walletFile + "has a curve that is not known" + aWallet},
		{"status unknown", wallet(`"active"`, `"Active"`), walletFile + "has a status that is neither active nor disabled" + aWallet},
		{"address malformed", wallet(`"active"`, "\"active\",\n  \"address\": \"../W_2\""), walletFile + "has an address that is not one" + aWallet},
		{"id malformed", wallet(`"W_1"`, `"../W_1"`), walletFile + "has an id that is not one" + aWallet},
		{"field unknown", wallet(`"status"`, `"note": "x", "status"`), walletFile + `is not the JSON of a wallet (unknown field "note")` + aWallet},
		{"field twice", wallet(`"status"`, `"id": "W_1", "status"`), walletFile + notWritten + aWallet},
		{"field in capitals", wallet(`"status"`, `"STATUS"`), walletFile + notWritten + aWallet},
		{"empty address", wallet(`"active"`, "\"active\",\n  \"address\": \"\""), walletFile + notWritten + aWallet},
		{"bytes after the wallet", wallet("}\n", "}\n{}"), walletFile + notWritten + aWallet},
		{"wallet cut off", wallet("}\n", ""), walletFile + "is not the JSON of a wallet (unexpected EOF)" + aWallet},
		{"wallet empty", func(t *testing.T, v *volume) {
			rewrite(t, v.inWallet("W_1", "wallet.json"), func([]byte) []byte { return nil })
		}, walletFile + "is not the JSON of a wallet (EOF)" + aWallet},
		{"wallet not JSON", wallet("{", "["), walletFile + "is not the JSON of a wallet (invalid character ':' after array element)" + aWallet},

		{"folder is a link", func(t *testing.T, v *volume) {
			must(t, os.RemoveAll(v.inWallet("W_1", "")))
			must(t, os.Symlink("W_2", strings.TrimSuffix(v.inWallet("W_1", ""), "/")))
		}, "companies/acme/wallets/W_1 or a folder above it is not a plain folder: restore the folder from the backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t)
			s := v.open(keyfs.Options{})
			for id, curve := range map[string]keyfs.Curve{"W_1": keyfs.P256, "W_2": keyfs.P256, "W_3": keyfs.P384} {
				v.create(s, id, curve)
			}
			c.damage(t, v)
			before := tree(t, v)
			s = v.open(keyfs.Options{})
			w, err := s.Lookup(company, "W_1")
			wantDamaged(t, err, c.want)
			if w != nil {
				t.Error("a wallet was returned")
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Error("damage looks like a wallet that does not exist")
			}
			// Neither is it made or bound anew over what may be repaired.
			ws, err := s.Create(company, []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256}}, v.fs)
			wantDamaged(t, errors.Unwrap(err), c.want)
			bound, err := s.Bind(company, "W_1", "MT1")
			wantDamaged(t, err, c.want)
			if ws != nil || bound != nil {
				t.Error("a wallet was returned")
			}
			if after := tree(t, v); after != before {
				t.Errorf("the files have changed:\n%s\nwere\n%s", after, before)
			}
			if _, err := s.Lookup(company, "W_2"); err != nil {
				t.Errorf("another wallet: %v", err)
			}
		})
	}
}

// publicLine returns the line of a wallet.json with the public key.
func publicLine(t *testing.T, v *volume, id string) string {
	t.Helper()
	b, err := os.ReadFile(v.inWallet(id, "wallet.json"))
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "public_key") {
			return line
		}
	}
	t.Fatal("wallet.json has no public key")
	return ""
}

// A file of another user is refused, one of root's is not.
func TestOwner(t *testing.T) {
	v, f := newFaulty(t)
	v.create(v.open(keyfs.Options{}), "W_1", keyfs.P256)
	s := v.open(keyfs.Options{})
	for _, file := range []string{"key.pem", "wallet.json"} {
		f.uid[file] = 4321
		_, err := s.Lookup(company, "W_1")
		wantDamaged(t, err, fmt.Sprintf("companies/acme/wallets/W_1/%s belongs to uid 4321: chown it to uid %d, which this program runs as", file, os.Geteuid()))
		f.uid[file] = 0
	}
	if _, err := s.Lookup(company, "W_1"); err != nil {
		t.Errorf("files of root: %v", err)
	}
	f.uid["."] = 4321
	_, err := keyfs.Open(v.db(), keyfs.Options{})
	wantDamaged(t, err, fmt.Sprintf("db belongs to uid 4321: chown it to uid %d, which this program runs as", os.Geteuid()))
}

// Modes that are as good as 0400.
func TestModesAccepted(t *testing.T) {
	v := newVolume(t)
	v.create(v.open(keyfs.Options{}), "W_1", keyfs.P256)
	for _, c := range []struct{ key, wallet os.FileMode }{{0o600, 0o600}, {0o400, 0o444}, {0o400, 0o644}} {
		must(t, os.Chmod(v.inWallet("W_1", "key.pem"), c.key))
		must(t, os.Chmod(v.inWallet("W_1", "wallet.json"), c.wallet))
		if _, err := v.open(keyfs.Options{}).Lookup(company, "W_1"); err != nil {
			t.Errorf("key.pem %04o, wallet.json %04o: %v", c.key, c.wallet, err)
		}
	}
}

func TestDamagedAddress(t *testing.T) {
	const file = "companies/acme/addresses/MT1 "
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, v *volume, path string)
		want   string
	}{
		{"empty", func(t *testing.T, _ *volume, p string) { rewrite(t, p, func([]byte) []byte { return nil }) },
			file + "does not hold a wallet's id: restore it from the backup"},
		{"no newline", func(t *testing.T, _ *volume, p string) { rewrite(t, p, func([]byte) []byte { return []byte("W_1") }) },
			file + "does not hold a wallet's id: restore it from the backup"},
		{"a path", func(t *testing.T, _ *volume, p string) {
			rewrite(t, p, func([]byte) []byte { return []byte("../W_1\n") })
		},
			file + "does not hold a wallet's id: restore it from the backup"},
		{"writable", func(t *testing.T, _ *volume, p string) { must(t, os.Chmod(p, 0o620)) },
			file + "is open to others (mode 0620): find out who could use it, then chmod 0400"},
		{"a link", func(t *testing.T, _ *volume, p string) {
			must(t, os.Remove(p))
			must(t, os.Symlink("MT2", p))
		}, file + "is not a regular file: restore it from the backup"},
		{"wallet gone", func(t *testing.T, v *volume, _ string) { must(t, os.RemoveAll(v.inWallet("W_1", ""))) },
			file + "names a wallet that does not exist: restore the folder of that wallet from the backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t)
			s := v.open(keyfs.Options{})
			v.create(s, "W_1", keyfs.P256)
			_, err := s.Bind(company, "W_1", "MT1")
			must(t, err)
			c.damage(t, v, v.file("companies", company, "addresses", "MT1"))
			w, err := v.open(keyfs.Options{}).ByAddress(company, "MT1")
			wantDamaged(t, err, c.want)
			if w != nil {
				t.Error("a wallet was returned")
			}
		})
	}
}

// No error names a byte of a key: the text of each damaged key is looked for in
// what Lookup says of it.
func TestErrorsHoldNoKey(t *testing.T) {
	for _, curve := range allCurves {
		_, key := sampleFiles(t, curve)
		for cut := range len(key) {
			_, err := keyfs.Reencode(append(key[:cut:cut], key[cut+1:]...))
			if err == nil {
				t.Fatalf("%s: byte %d can be left out", curve, cut)
			}
			for _, line := range strings.Split(string(key), "\n") {
				for i := 0; i+8 <= len(line) && !strings.HasPrefix(line, "-"); i++ {
					if strings.Contains(err.Error(), line[i:i+8]) {
						t.Fatalf("%s: the error %q holds %q of the key", curve, err, line[i:i+8])
					}
				}
			}
		}
	}
}
