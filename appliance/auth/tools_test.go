package auth_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"signdrop/appliance/auth"
	"signdrop/appliance/reason"

	"golang.org/x/crypto/ssh"
)

// The tests run the real ssh-keygen and openssl. A missing one fails them.

var message = []byte(`{"type": "sign", "reference": "payout-0001", "wallet": "W_1"}` + "\n")

// noon is the time at which tests verify unless they say otherwise.
var noon = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

// keyDir holds the key pairs that tests share, each made when first asked for.
var keyDir string

func TestMain(m *testing.M) {
	var err error
	if keyDir, err = os.MkdirTemp("", "auth-keys-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(keyDir)
	os.Exit(code)
}

// run runs a program in UTC and returns what it prints; it must succeed.
func run(t testing.TB, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := try(t, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// try is run for a program that may exit with another code than 0.
func try(t testing.TB, stdin []byte, name string, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("these tests need %s: %v", name, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	return cmd.CombinedOutput()
}

var keyLock sync.Mutex

// sshKey returns the path of a private key made by ssh-keygen. kind is its type
// and bits, "ecdsa-384", with an optional name to have several: "ed25519/bob".
func sshKey(t testing.TB, kind string) string {
	t.Helper()
	keyLock.Lock()
	defer keyLock.Unlock()
	path := filepath.Join(keyDir, strings.ReplaceAll(kind, "/", "_"))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	kind, _, _ = strings.Cut(kind, "/")
	kind, bits, hasBits := strings.Cut(kind, "-")
	args := []string{"-q", "-t", kind, "-N", "", "-C", "", "-f", path}
	if hasBits {
		args = append(args, "-b", bits)
	}
	run(t, nil, "ssh-keygen", args...)
	return path
}

// publicLine returns "KEYTYPE BASE64" of a key made by sshKey.
func publicLine(t testing.TB, kind string) string {
	t.Helper()
	return strings.TrimSpace(string(readFile(t, sshKey(t, kind)+".pub")))
}

// sshSigner returns the key as our client would load it.
func sshSigner(t testing.TB, kind string) ssh.Signer {
	t.Helper()
	signer, err := ssh.ParsePrivateKey(readFile(t, sshKey(t, kind)))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// sshSign signs with ssh-keygen -Y sign and returns the signature file.
func sshSign(t testing.TB, kind, namespace string, message []byte, options ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "message")
	writeFile(t, path, message)
	args := append([]string{"-Y", "sign", "-q", "-n", namespace, "-f", sshKey(t, kind)}, options...)
	run(t, nil, "ssh-keygen", append(args, path)...)
	return readFile(t, path+".sig")
}

// sshVerify asks ssh-keygen -Y verify for its verdict.
func sshVerify(t testing.TB, signers, principal, namespace string, at time.Time, message, sig []byte) bool {
	t.Helper()
	dir := t.TempDir()
	signersPath, sigPath := filepath.Join(dir, "allowed_signers"), filepath.Join(dir, "sig")
	writeFile(t, signersPath, []byte(signers))
	writeFile(t, sigPath, sig)
	out, err := try(t, message, "ssh-keygen", "-Y", "verify", "-f", signersPath, "-I", principal,
		"-n", namespace, "-s", sigPath, "-O", "verify-time="+at.UTC().Format("20060102150405Z"))
	t.Logf("ssh-keygen: %s", bytes.TrimSpace(out))
	return err == nil
}

// opensslKey makes a PEM key pair and returns the paths of both halves. kind is
// "P-256", "P-384", "P-521", "secp256k1", "P-224", "ed25519" or "rsa-BITS".
func opensslKey(t testing.TB, kind string) (private, public string) {
	t.Helper()
	keyLock.Lock()
	defer keyLock.Unlock()
	private = filepath.Join(keyDir, "openssl_"+strings.ReplaceAll(kind, "/", "_")+".pem")
	public = private + ".pub"
	if _, err := os.Stat(public); err == nil {
		return private, public
	}
	kind, _, _ = strings.Cut(kind, "/")
	args := []string{"genpkey", "-out", private, "-algorithm"}
	if bits, ok := strings.CutPrefix(kind, "rsa-"); ok {
		args = append(args, "RSA", "-pkeyopt", "rsa_keygen_bits:"+bits)
	} else if kind == "ed25519" {
		args = append(args, "ed25519")
	} else {
		args = append(args, "EC", "-pkeyopt", "ec_paramgen_curve:"+kind)
	}
	run(t, nil, "openssl", args...)
	run(t, nil, "openssl", "pkey", "-in", private, "-pubout", "-out", public)
	return private, public
}

// opensslSign returns what openssl dgst -sign writes.
func opensslSign(t testing.TB, kind, hash string, message []byte) []byte {
	t.Helper()
	private, _ := opensslKey(t, kind)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "message"), message)
	run(t, nil, "openssl", "dgst", "-"+hash, "-sign", private, "-out", filepath.Join(dir, "sig"), filepath.Join(dir, "message"))
	return readFile(t, filepath.Join(dir, "sig"))
}

// opensslLine returns the key's line in allowed_signers.
func opensslLine(t testing.TB, kind, principal string) string {
	t.Helper()
	_, public := opensslKey(t, kind)
	line, err := auth.LineFromPEM(readFile(t, public), principal)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func parseSigners(t testing.TB, lines ...string) *auth.Signers {
	t.Helper()
	s, err := auth.ParseSigners([]byte(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parseSignature(t testing.TB, data []byte) *auth.Signature {
	t.Helper()
	sig, err := auth.ParseSignature(data)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// wantCode checks that err is a refusal with this code, and that it is, or is
// not, one that waiting may mend.
func wantCode(t testing.TB, err error, code reason.Code, arriving bool) {
	t.Helper()
	r, ok := reason.As(err)
	if !ok {
		t.Fatalf("got error %v, want a refusal %s", err, code)
	}
	if r.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
	if got := auth.StillArriving(err); got != arriving {
		t.Errorf("StillArriving(%v) = %v, want %v", err, got, arriving)
	}
}

// unarmour and rearmour let a test change an SSHSIG's bytes.
func unarmour(t testing.TB, sig []byte) []byte {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(sig)), "\n")
	blob, err := base64.StdEncoding.DecodeString(strings.Join(lines[1:len(lines)-1], ""))
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func rearmour(blob []byte) []byte {
	return []byte("-----BEGIN SSH SIGNATURE-----\n" + base64.StdEncoding.EncodeToString(blob) + "\n-----END SSH SIGNATURE-----\n")
}

// loosen changes a letter of padded base64 so that a lax reader still decodes it
// to the same bytes: it sets a bit that the padding leaves unused.
func loosen(t testing.TB, encoded string) string {
	t.Helper()
	letters := strings.TrimRight(encoded, "=")
	if letters == encoded {
		t.Fatal("base64 without padding has no unused bits")
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := len(letters) - 1
	return letters[:last] + alphabet[strings.IndexByte(alphabet, letters[last])+1:][:1] + encoded[len(letters):]
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
