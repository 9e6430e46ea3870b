package auth_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signdrop/appliance/auth"

	"golang.org/x/crypto/ssh"
)

func TestLineFromPEM(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "P-521", "rsa-2048", "rsa-3072", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			_, path := opensslKey(t, kind)
			public := readFile(t, path)
			alone, err := auth.LineFromPEM(public, "")
			if err != nil {
				t.Fatal(err)
			}
			if kind != "ed25519" { // which ssh-keygen does not import from PEM
				if want := strings.TrimSpace(string(run(t, nil, "ssh-keygen", "-i", "-m", "PKCS8", "-f", path))); alone != want {
					t.Errorf("got %q, ssh-keygen says %q", alone, want)
				}
			}
			for principal, want := range map[string]string{
				"alice@example.com": "alice@example.com " + alone,
				"Alice Example":     `"Alice Example" ` + alone,
				"#1":                `"#1" ` + alone,
			} {
				line, err := auth.LineFromPEM(public, principal)
				if err != nil || line != want {
					t.Errorf("got %q, %v, want %q", line, err, want)
				}
				if s := parseSigners(t, line); s.Len() != 1 {
					t.Errorf("%q: got %d keys, want 1", line, s.Len())
				}
			}
			fromPEM, err := auth.ParseAnyPublicKey(public)
			if err != nil {
				t.Fatal(err)
			}
			fromLine, err := auth.ParseAnyPublicKey([]byte(alone + " comment of its owner\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(fromPEM.Marshal(), fromLine.Marshal()) {
				t.Error("PEM and line give different keys")
			}
		})
	}
	t.Run("RSA PUBLIC KEY", func(t *testing.T) {
		private, public := opensslKey(t, "rsa-2048")
		old := run(t, nil, "openssl", "rsa", "-in", private, "-RSAPublicKey_out")
		old = old[bytes.Index(old, []byte("-----BEGIN")):] // it says "writing RSA key" first
		got, err := auth.LineFromPEM(old, "")
		if err != nil {
			t.Fatal(err)
		}
		if want, err := auth.LineFromPEM(readFile(t, public), ""); got != want || err != nil {
			t.Errorf("got %q, want %q (%v)", got, want, err)
		}
	})
	t.Run("bad principal", func(t *testing.T) {
		_, public := opensslKey(t, "P-256")
		for _, principal := range []string{"*", "a,b", `a"b`, "a\nb", "a\tb", " a", `a\`, "\xff"} {
			if line, err := auth.LineFromPEM(readFile(t, public), principal); err == nil || line != "" {
				t.Errorf("principal %q: got %q, %v, want an error alone", principal, line, err)
			}
		}
	})
	t.Run("line is not PEM", func(t *testing.T) {
		if line, err := auth.LineFromPEM([]byte(publicLine(t, "ed25519")), "alice"); err == nil {
			t.Errorf("got %q, want an error", line)
		}
	})
}

func TestLine(t *testing.T) {
	line, err := auth.Line(sshSigner(t, "ed25519").PublicKey(), "alice")
	if want := "alice " + publicLine(t, "ed25519"); line != want || err != nil {
		t.Errorf("got %q, %v, want %q", line, err, want)
	}
	if line, err := auth.Line(sshSigner(t, "rsa-1024").PublicKey(), "alice"); err == nil {
		t.Errorf("got %q for a small RSA key, want an error", line)
	}
}

func TestParseAnyPublicKey(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa-256", "ecdsa-384", "ecdsa-521", "rsa-2048"} {
		key, err := auth.ParseAnyPublicKey([]byte("# my key\n\n" + publicLine(t, kind) + " me@laptop\n"))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if got := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))); got != publicLine(t, kind) {
			t.Errorf("got %q, want %q", got, publicLine(t, kind))
		}
	}
	for _, keyType := range []string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256} {
		line := newSecurityKey(t, keyType).line(t)
		if _, err := auth.ParseAnyPublicKey([]byte(line)); err != nil {
			t.Errorf("%s: %v", keyType, err)
		}
	}

	line := publicLine(t, "ed25519")
	private, public := opensslKey(t, "P-384")
	pem := string(readFile(t, public))
	signer := filepath.Join(t.TempDir(), "id.pub")
	writeFile(t, signer, []byte(line+"\n"))
	run(t, nil, "ssh-keygen", "-q", "-s", sshKey(t, "ed25519"), "-I", "id", signer)
	certificate, err := os.ReadFile(strings.TrimSuffix(signer, ".pub") + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	ofKind := func(kind string) string {
		_, public := opensslKey(t, kind)
		return string(readFile(t, public))
	}
	faults := []struct{ name, data, want string }{
		{"empty", "", "no public key"},
		{"comment alone", "# key\n", "no public key"},
		{"two lines", line + "\n" + line + "\n", "more than one public key"},
		{"options", "restrict " + line, "want a key type"},
		{"options with a value", `command="x" ` + line, "want a key type"},
		{"line of allowed_signers", "alice " + line, "want a key type"},
		{"certificate", string(certificate), "certificates are not accepted"},
		{"small rsa line", publicLine(t, "rsa-1024"), "1024 bits is not accepted"},
		{"small rsa PEM", ofKind("rsa-1024"), "1024 bits is not accepted"},
		{"secp256k1", ofKind("secp256k1"), "reading the PEM public key"},
		{"P-224", ofKind("P-224"), "reading the PEM public key"},
		{"two PEM blocks", pem + pem, "more than one PEM block"},
		{"text after PEM", pem + "x", "more than one PEM block"},
		{"PEM cut", pem[:len(pem)-10], "not a complete PEM block"},
		{"PEM damaged", strings.Replace(pem, "\nMHY", "\nMHX", 1), "reading the PEM public key"},
		{"private PEM", string(readFile(t, private)), "this is a private key"},
		{"private OpenSSH key", string(readFile(t, sshKey(t, "ed25519"))), "this is a private key"},
		{"too long", line + strings.Repeat(" ", 16<<10), "at most 16384 bytes"},
	}
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			key, err := auth.ParseAnyPublicKey([]byte(tt.data))
			if key != nil {
				t.Error("got a key with an error")
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}
