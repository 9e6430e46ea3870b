package auth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"path/filepath"
	"strings"
	"testing"

	"signdrop/appliance/auth"
	"signdrop/appliance/reason"

	"golang.org/x/crypto/ssh"
)

var opensslKinds = []struct{ kind, algorithm string }{
	{"P-256", "ecdsa-p256-sha384"},
	{"P-384", "ecdsa-p384-sha384"},
	{"P-521", "ecdsa-p521-sha384"},
	{"rsa-2048", "rsa-pkcs1-sha384"},
	{"rsa-3072", "rsa-pkcs1-sha384"},
}

func TestVerifyOpenSSL(t *testing.T) {
	// Every key is listed, so that each signature finds its own among others of
	// the same and of other shapes.
	lines := []string{"frank " + publicLine(t, "ed25519"), opensslLine(t, "P-384/second", "second")}
	for _, k := range opensslKinds {
		lines = append(lines, opensslLine(t, k.kind, "signer-"+k.kind))
	}
	signers := parseSigners(t, lines...)

	for _, k := range opensslKinds {
		raw := opensslSign(t, k.kind, "sha384", message)
		encoded := run(t, raw, "openssl", "base64")
		forms := map[string][]byte{
			"binary":        raw,
			"base64":        encoded,
			"base64 CRLF":   bytes.ReplaceAll(encoded, []byte("\n"), []byte("\r\n")),
			"base64 line":   run(t, raw, "openssl", "base64", "-A"),
			"base64 spaced": append([]byte("\n  "), encoded...),
		}
		for form, file := range forms {
			t.Run(k.kind+"/"+form, func(t *testing.T) {
				sig := parseSignature(t, file)
				asker, err := signers.Verify(message, sig, auth.NamespaceRequest, noon)
				if err != nil {
					t.Fatal(err)
				}
				if asker.Principal != "signer-"+k.kind || asker.Method != auth.MethodOpenSSL || asker.Algorithm != k.algorithm {
					t.Errorf("got %+v", *asker)
				}
				if sig.Whole(message) {
					t.Error("a bare signature proves nothing by itself")
				}
				_, err = signers.Verify(message[:len(message)-1], sig, auth.NamespaceRequest, noon)
				wantCode(t, err, reason.SignatureInvalid, true)
			})
		}
		t.Run(k.kind+"/only sha384", func(t *testing.T) {
			for _, hash := range []string{"sha256", "sha512", "sha3-384"} {
				sig := parseSignature(t, opensslSign(t, k.kind, hash, message))
				_, err := signers.Verify(message, sig, auth.NamespaceRequest, noon)
				wantCode(t, err, reason.SignatureInvalid, true)
			}
		})
		t.Run(k.kind+"/cut anywhere", func(t *testing.T) {
			for _, file := range [][]byte{raw, encoded} {
				for n := range len(bytes.TrimSpace(file)) {
					sig, err := auth.ParseSignature(file[:n])
					if err == nil {
						_, err = signers.Verify(message, sig, auth.NamespaceRequest, noon)
					}
					if !auth.StillArriving(err) {
						t.Fatalf("%d of %d bytes: got %v, want a refusal that waiting may mend", n, len(file), err)
					}
				}
			}
		})
	}
}

// A listed key may sign by either method, in whichever form it was listed.
func TestOpenSSLKeyIsTheSSHKey(t *testing.T) {
	private, _ := opensslKey(t, "P-384")
	line := opensslLine(t, "P-384", "alice")
	fields := strings.Fields(line)
	if got := strings.TrimSpace(string(run(t, nil, "ssh-keygen", "-y", "-f", private))); got != fields[1]+" "+fields[2] {
		t.Errorf("got line %q, ssh-keygen says %q", line, got)
	}
	// ssh-keygen signs with the PEM key itself, once the public half lies beside
	// it as a line.
	signers := parseSigners(t, line)
	dir := t.TempDir()
	key, path := filepath.Join(dir, "key"), filepath.Join(dir, "message")
	writeFile(t, key, readFile(t, private))
	writeFile(t, key+".pub", []byte(fields[1]+" "+fields[2]+"\n"))
	writeFile(t, path, message)
	run(t, nil, "ssh-keygen", "-Y", "sign", "-q", "-n", auth.NamespaceRequest, "-f", key, path)
	viaSSH, err := signers.Verify(message, parseSignature(t, readFile(t, path+".sig")), auth.NamespaceRequest, noon)
	if err != nil {
		t.Fatal(err)
	}
	viaOpenSSL, err := signers.Verify(message, parseSignature(t, opensslSign(t, "P-384", "sha384", message)), auth.NamespaceRequest, noon)
	if err != nil {
		t.Fatal(err)
	}
	if viaSSH.Fingerprint != viaOpenSSL.Fingerprint || viaSSH.Principal != viaOpenSSL.Principal {
		t.Errorf("got %+v and %+v, want one asker", *viaSSH, *viaOpenSSL)
	}
}

// What a bare signature may not do. It names no purpose, so it is never more
// than a request; and its key, once found, gets a definite answer.
func TestVerifyOpenSSLDefiniteAnswers(t *testing.T) {
	line := opensslLine(t, "P-384", "alice")
	key := strings.TrimPrefix(line, "alice ")
	sig := parseSignature(t, opensslSign(t, "P-384", "sha384", message))
	tests := []struct {
		name, line, namespace string
		code                  reason.Code // "" for yes
		arriving              bool
	}{
		{"no namespaces", line, auth.NamespaceRequest, "", false},
		{"namespaces with request", `alice namespaces="request@signdrop" ` + key, auth.NamespaceRequest, "", false},
		{"namespaces with a pattern", `alice namespaces="*@signdrop" ` + key, auth.NamespaceRequest, "", false},
		{"namespaces without request", `alice namespaces="admin@signdrop,approve@signdrop" ` + key, auth.NamespaceRequest, reason.SignerUnknown, false},
		{"approve", line, auth.NamespaceApprove, reason.SignatureNamespace, false},
		{"admin", line, auth.NamespaceAdmin, reason.SignatureNamespace, false},
		{"admin, listed for it", `alice namespaces="admin@signdrop" ` + key, auth.NamespaceAdmin, reason.SignatureNamespace, false},
		{"expired", `alice valid-before="20260101Z" ` + key, auth.NamespaceRequest, reason.SignerNotValid, false},
		{"not yet", `alice valid-after="20270101Z" ` + key, auth.NamespaceRequest, reason.SignerNotValid, false},
		{"key not listed", opensslLine(t, "P-384/second", "bob"), auth.NamespaceRequest, reason.SignatureInvalid, true},
		{"key not listed, admin", opensslLine(t, "P-384/second", "bob"), auth.NamespaceAdmin, reason.SignatureInvalid, true},
		{"no key of this shape", opensslLine(t, "P-256", "bob"), auth.NamespaceRequest, reason.SignatureInvalid, true},
		{"nobody listed", "", auth.NamespaceRequest, reason.SignatureInvalid, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asker, err := parseSigners(t, tt.line).Verify(message, sig, tt.namespace, noon)
			if tt.code == "" {
				if err != nil || asker.Principal != "alice" {
					t.Fatalf("got %+v, %v, want alice", asker, err)
				}
				return
			}
			if asker != nil {
				t.Errorf("got an asker with a refusal: %+v", asker)
			}
			wantCode(t, err, tt.code, tt.arriving)
		})
	}
}

// The inner signature of an SSHSIG is an ECDSA signature too: with P-384 and
// SHA-384, just as openssl makes them. Taken out, it is none over the message.
func TestInnerSignatureIsNotBare(t *testing.T) {
	signer := sshSigner(t, "ecdsa-384")
	var inner ssh.Signature
	if err := ssh.Unmarshal(newWire(t, signer, ssh.KeyAlgoECDSA384, nil).Signature, &inner); err != nil {
		t.Fatal(err)
	}
	var numbers struct{ R, S *big.Int }
	if err := ssh.Unmarshal(inner.Blob, &numbers); err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseSigners(t, "alice "+publicLine(t, "ecdsa-384")).Verify(message, parseSignature(t, der), auth.NamespaceRequest, noon)
	wantCode(t, err, reason.SignatureInvalid, true)
}

// A security key signs its flags and counter as well, so it has no bare form
// and is never tried.
func TestSecurityKeyHasNoBareSignature(t *testing.T) {
	k := newSecurityKey(t, ssh.KeyAlgoSKECDSA256)
	digest := sha512.Sum384(message)
	der, err := ecdsa.SignASN1(rand.Reader, k.ecdsa, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseSigners(t, "alice "+k.line(t)).Verify(message, parseSignature(t, der), auth.NamespaceRequest, noon)
	wantCode(t, err, reason.SignatureInvalid, true)
}

func TestParseBareFaults(t *testing.T) {
	ec := opensslSign(t, "P-384", "sha384", message)
	rsa := opensslSign(t, "rsa-2048", "sha384", message)
	_, public := opensslKey(t, "P-384")
	large := new(big.Int).Lsh(big.NewInt(1), 255)
	three, err := asn1.Marshal(struct{ R, S, T *big.Int }{large, large, large})
	if err != nil {
		t.Fatal(err)
	}
	// 71 bytes, which base64 must pad, of a form that is accepted.
	short, err := asn1.Marshal(struct{ R, S *big.Int }{large, new(big.Int).Rsh(large, 1)})
	if err != nil {
		t.Fatal(err)
	}
	parseSignature(t, []byte(base64.StdEncoding.EncodeToString(short)))
	tests := map[string][]byte{
		"DER with a byte more":          append(bytes.Clone(ec), 0),
		"DER, binary, line end":         append(bytes.Clone(ec), '\n'),
		"DER with a negative number":    {0x30, 0x06, 0x02, 0x01, 0xff, 0x02, 0x01, 0x01},
		"DER with zero":                 {0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x01},
		"DER, small numbers":            {0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01},
		"DER, three numbers":            three,
		"RSA too short":                 rsa[:255],
		"RSA too long":                  bytes.Repeat(rsa, 5),
		"text as long as RSA":           []byte(strings.Repeat("signed by me ", 30)),
		"zeros as long as RSA":          make([]byte, 256),
		"base64 of text":                []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("signed by me ", 30)))),
		"base64 with an unused bit set": []byte(loosen(t, base64.StdEncoding.EncodeToString(short))),
		"base64 without its padding":    bytes.TrimRight(run(t, []byte("0123456789"), "openssl", "base64", "-A"), "="),
		"openssl dgst -hex":             []byte("EC-SHA2-384(pay.json)= 3065023100abcd\n"),
		"a public key":                  readFile(t, public),
		"an ASN.1 structure of another": {0x30, 0x03, 0x04, 0x01, 0x01},
	}
	for name, file := range tests {
		t.Run(name, func(t *testing.T) {
			sig, err := auth.ParseSignature(file)
			if sig != nil {
				t.Error("got a signature with a refusal")
			}
			wantCode(t, err, reason.SignatureMalformed, true)
		})
	}
}
