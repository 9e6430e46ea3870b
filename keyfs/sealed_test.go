package keyfs_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"signdrop/keyfs"
	"signdrop/keyfs/seal"
)

// newSealer makes the Sealer of a volume, whose keys are sealed from now on.
func newSealer(t *testing.T, v *volume) *seal.Sealer {
	t.Helper()
	kek, err := seal.ParseKEK(bytes.Repeat([]byte("k"), 32))
	must(t, err)
	s, ring, err := seal.New(kek)
	must(t, err)
	must(t, os.MkdirAll(v.file("appliance"), 0o700))
	must(t, os.WriteFile(v.file("appliance", "seal.json"), ring, 0o400))
	return s
}

// Wallets of a sealed volume are made, imported, changed and found as others, and none
// of their keys is in the clear at any time.
func TestSealedWallets(t *testing.T) {
	v := newVolume(t)
	sealer := newSealer(t, v)
	s := v.open(keyfs.Options{Sealer: sealer})
	for _, c := range allCurves {
		id := "W_" + string(c)
		made := v.create(s, id, c)
		again := v.create(s, id, c)
		if made.PublicPEM() != again.PublicPEM() {
			t.Errorf("%s: made twice", c)
		}
		_, err := s.Import(company, []keyfs.ImportSpec{{ID: id + "i", PrivateKeyPEM: newKey(t, c)}}, v.fs)
		must(t, err)
		_, err = s.Bind(company, id, "MT"+strings.ReplaceAll(string(c), "-", ""))
		must(t, err)
		for _, id := range []string{id, id + "i"} {
			text, err := os.ReadFile(v.inWallet(id, "key.pem"))
			must(t, err)
			if bytes.Contains(text, []byte("PRIVATE")) || !seal.Sealed(text) {
				t.Errorf("%s: the key is not sealed", id)
			}
			w, err := v.open(keyfs.Options{Sealer: sealer}).Lookup(company, id)
			must(t, err)
			h := digest(t, "SHA-384", "text")
			scheme := keyfs.ECDSA
			if c == keyfs.Secp256k1 {
				h = digest(t, "SHA-256", "text")
			}
			if _, err := w.Sign(scheme, h); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	if _, err := keyfs.Open(v.db(), keyfs.Options{}); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("opened without a sealer: %v", err)
	}
}

// A key file that is not this wallet's, or not sealed, is damage. Nothing is signed
// with it.
func TestSealedDamage(t *testing.T) {
	v := newVolume(t)
	sealer := newSealer(t, v)
	v.create(v.open(keyfs.Options{Sealer: sealer}), "W_1", keyfs.P256)
	v.create(v.open(keyfs.Options{Sealer: sealer}), "W_2", keyfs.P256)
	key := v.inWallet("W_1", "key.pem")
	good, err := os.ReadFile(key)
	must(t, err)
	other, err := os.ReadFile(v.inWallet("W_2", "key.pem"))
	must(t, err)
	must(t, os.Mkdir(v.file("companies", "beta"), 0o700))
	stranger, _, err := seal.New(func() seal.KEK { k, err := seal.ParseKEK(bytes.Repeat([]byte("o"), 32)); must(t, err); return k }())
	must(t, err)
	foreign, err := stranger.Seal(newKey(t, keyfs.P256), seal.Label{})
	must(t, err)
	const at = "companies/acme/wallets/W_1/key.pem "
	for name, tt := range map[string]struct {
		text []byte
		want string
	}{
		"another wallet's": {other, "does not open with the volume key: it was changed, or belongs to another key"},
		"in the clear":     {newKey(t, keyfs.P256), "is in the clear, on a volume whose keys are sealed"},
		"cut off":          {good[:len(good)-5], "begins like a sealed key and is not in the form of one: it is cut off or garbled"},
		"header cut off":   {good[:30], "begins like a sealed key and is not in the form of one: it is cut off or garbled"},
		"another volume's": {foreign, "is sealed with another volume key (" + stranger.VolumeKey() + ", this volume has " + sealer.VolumeKey() + ")"},
	} {
		t.Run(name, func(t *testing.T) {
			rewrite(t, key, func([]byte) []byte { return tt.text })
			w, err := v.open(keyfs.Options{Sealer: sealer}).Lookup(company, "W_1")
			wantDamaged(t, err, at+tt.want+": restore it from the backup; a key cannot be made again")
			if w != nil {
				t.Error("a wallet was returned")
			}
		})
	}
	rewrite(t, key, func([]byte) []byte { return good })
	if _, err := v.open(keyfs.Options{Sealer: sealer}).Lookup(company, "W_1"); err != nil {
		t.Error(err)
	}
	// Both files of another wallet, under this one's name.
	rewrite(t, key, func([]byte) []byte { return other })
	record, err := os.ReadFile(v.inWallet("W_2", "wallet.json"))
	must(t, err)
	rewrite(t, v.inWallet("W_1", "wallet.json"), func([]byte) []byte { return bytes.Replace(record, []byte("W_2"), []byte("W_1"), 1) })
	if _, err := v.open(keyfs.Options{Sealer: sealer}).Lookup(company, "W_1"); err == nil {
		t.Error("a sealed key was taken for another wallet's")
	}
}
