package appliance_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"signdrop/appliance/testbed"
)

// testKey makes a private key with openssl and returns it and its public key, in
// PEM.
func testKey(t *testing.T, curve string) (private, public string) {
	t.Helper()
	private = openssl(t, nil, "ecparam", "-name", curve, "-genkey", "-noout")
	return private, openssl(t, []byte(private), "ec", "-pubout")
}

func openssl(t *testing.T, in []byte, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(in)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", args[0], err, errs.Bytes())
	}
	return string(out)
}

func sealFor(to age.Recipient, text string) []byte {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	if err == nil {
		if _, err = w.Write([]byte(text)); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// importRequest asks for the import of a key that follows from a name.
func importRequest(t testing.TB, name string) string {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return fmt.Sprintf(`{"type":"wallet.import","private_key":%q,"address":%q}`, text, testbed.Address(name))
}

// keyBody is a stretch of a PEM's base64 that occurs nowhere else.
func keyBody(pem string) string {
	lines := strings.Split(pem, "\n")
	return lines[1][16:48]
}

// nowhere fails the test if a secret lies in a file of the volume, but for files of
// the name given, or was logged. It stops the appliance first: files that are being put
// away would be passed over, or gone between the list and the reading.
func (r *rig) nowhere(secret, but string) {
	r.t.Helper()
	if r.stop != nil {
		r.stop()
	}
	r.log.mu.Lock()
	if bytes.Contains(r.log.text.Bytes(), []byte(secret)) {
		r.t.Error("a secret was logged")
	}
	r.log.mu.Unlock()
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == but {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret)) {
			r.t.Errorf("a secret lies in %s", path)
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
}
