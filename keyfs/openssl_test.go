package keyfs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"signdrop/keyfs"
)

// openssl runs the openssl command, which must be there: it is what partners
// verify with.
func openssl(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("openssl %q: %v\n%s%s", args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

// OpenSSL reads our keys, finds them sound, computes the same public key, and
// verifies our signatures with it.
func TestOpenSSL(t *testing.T) {
	for _, curve := range allCurves {
		t.Run(string(curve), func(t *testing.T) {
			v := newVolume(t)
			w := v.create(v.open(keyfs.Options{}), "W_1", curve)
			key := v.inWallet("W_1", "key.pem")
			if out := openssl(t, nil, "pkey", "-in", key, "-check", "-noout"); !bytes.Contains(out, []byte("Key is valid")) {
				t.Errorf("openssl pkey -check says %q", out)
			}
			if got := openssl(t, nil, "pkey", "-in", key, "-pubout"); string(got) != w.PublicPEM() {
				t.Errorf("openssl's public key is\n%swant\n%s", got, w.PublicPEM())
			}

			dir := t.TempDir()
			file := func(name string, content []byte) string {
				path := filepath.Join(dir, name)
				must(t, os.WriteFile(path, content, 0o600))
				return path
			}
			message := "payout-0001|100000000"
			pub, msg := file("pub.pem", []byte(w.PublicPEM())), file("message", []byte(message))
			for _, hash := range []string{"SHA-256", "SHA-384", "SHA-512"} {
				sig, err := w.Sign(keyfs.ECDSA, digest(t, hash, message))
				must(t, err)
				out := openssl(t, nil, "dgst", "-"+hash[:3]+hash[4:], "-verify", pub, "-signature", file("sig", sig), msg)
				if string(out) != "Verified OK\n" {
					t.Errorf("%s: openssl dgst -verify says %q", hash, out)
				}
			}
			if curve == keyfs.Secp256k1 { // what is recoverable is the same r and s
				d := digest(t, "SHA-256", message)
				rec, err := w.Sign(keyfs.ECDSARecoverable, d)
				must(t, err)
				der, err := w.Sign(keyfs.ECDSA, d)
				must(t, err)
				if len(rec) != 65 || rec[64] > 1 || !bytes.Equal(rec[:64], fixed(t, der, 32)) {
					t.Errorf("got recoverable %x, want r and s of %x", rec, der)
				}
			}
		})
	}
}

// A key that OpenSSL made has the bytes that we would write for it.
func TestOpenSSLKey(t *testing.T) {
	for _, curve := range allCurves {
		key := openssl(t, nil, "genpkey", "-algorithm", "EC",
			"-pkeyopt", "ec_paramgen_curve:"+string(curve), "-pkeyopt", "ec_param_enc:named_curve")
		got, err := keyfs.Reencode(key)
		if err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: parsed and written again: %v", curve, err)
		}
	}
}
