package auth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
	"math/big"
	"strings"
	"testing"

	"signdrop/appliance/auth"
	"signdrop/appliance/reason"

	"golang.org/x/crypto/ssh"
)

// Every key type that ssh-keygen signs with and we accept.
var sshKinds = []struct{ kind, algorithm string }{
	{"ed25519", "ssh-ed25519"},
	{"ecdsa-256", "ecdsa-sha2-nistp256"},
	{"ecdsa-384", "ecdsa-sha2-nistp384"},
	{"ecdsa-521", "ecdsa-sha2-nistp521"},
	{"rsa-2048", "rsa-sha2-512"},
	{"rsa-3072", "rsa-sha2-512"},
}

func TestVerifySSHKeygen(t *testing.T) {
	for _, k := range sshKinds {
		for _, namespace := range []string{auth.NamespaceRequest, auth.NamespaceApprove, auth.NamespaceAdmin} {
			for _, hash := range []string{"sha512", "sha256"} {
				t.Run(k.kind+"/"+namespace+"/"+hash, func(t *testing.T) {
					file := sshSign(t, k.kind, namespace, message, "-O", "hashalg="+hash)
					sig := parseSignature(t, file)
					signers := parseSigners(t, "bob "+publicLine(t, "ed25519/bob"), "alice "+publicLine(t, k.kind))

					asker, err := signers.Verify(message, sig, namespace, noon)
					if err != nil {
						t.Fatal(err)
					}
					fingerprint := strings.Fields(string(run(t, nil, "ssh-keygen", "-l", "-f", sshKey(t, k.kind)+".pub")))[1]
					algorithm := k.algorithm
					if strings.HasPrefix(k.kind, "rsa") && hash == "sha256" {
						// Newer ssh-keygen signs with the hash it was told,
						// older ones always with rsa-sha2-512.
						algorithm = asker.Algorithm
						if algorithm != "rsa-sha2-256" && algorithm != "rsa-sha2-512" {
							t.Errorf("got algorithm %s, want rsa-sha2-256 or rsa-sha2-512", algorithm)
						}
					}
					want := auth.Asker{Principal: "alice", Fingerprint: fingerprint, Method: auth.MethodSSHSIG, Algorithm: algorithm}
					if *asker != want {
						t.Errorf("got %+v, want %+v", *asker, want)
					}
					if !sig.Whole(message) {
						t.Error("a good signature does not prove the message whole")
					}

					// The same with one byte more, one less, one changed.
					for _, other := range [][]byte{
						append(bytes.Clone(message), '\n'),
						message[:len(message)-1],
						bytes.Replace(message, []byte("0001"), []byte("0002"), 1),
						nil,
					} {
						_, err := signers.Verify(other, sig, namespace, noon)
						wantCode(t, err, reason.SignatureInvalid, true)
						if sig.Whole(other) {
							t.Error("a changed message counts as whole")
						}
					}
				})
			}
		}
	}
}

// A signature that verifies settles at once whether its key may ask.
func TestVerifyDefiniteAnswers(t *testing.T) {
	alice := publicLine(t, "ed25519")
	tests := []struct {
		name      string
		made      string // the namespace in the signature
		asked     string
		signers   string
		code      reason.Code
		inMessage string
	}{
		{"unknown key", auth.NamespaceRequest, auth.NamespaceRequest, "bob " + publicLine(t, "ed25519/bob"), reason.SignerUnknown, "not listed"},
		{"nobody listed", auth.NamespaceRequest, auth.NamespaceRequest, "", reason.SignerUnknown, "not listed"},
		{"foreign namespace", "file", auth.NamespaceRequest, "alice " + alice, reason.SignatureNamespace, `made for "file"`},
		{"request used as command", auth.NamespaceRequest, auth.NamespaceAdmin, "alice " + alice, reason.SignatureNamespace, auth.NamespaceAdmin},
		{"command used as request", auth.NamespaceAdmin, auth.NamespaceRequest, "alice " + alice, reason.SignatureNamespace, auth.NamespaceAdmin},
		{"foreign namespace, unknown key", "file", auth.NamespaceRequest, "", reason.SignatureNamespace, `made for "file"`},
		{"asked for a foreign namespace", "file", "file", "alice " + alice, reason.SignatureNamespace, `purpose "file"`},
		{"asked for no namespace", auth.NamespaceRequest, "", "alice " + alice, reason.SignatureNamespace, `purpose ""`},
		{"other role", auth.NamespaceRequest, auth.NamespaceRequest, `alice namespaces="approve@signdrop" ` + alice, reason.SignerUnknown, "but not for request@signdrop"},
		{"expired", auth.NamespaceRequest, auth.NamespaceRequest, `alice valid-before="20260615115959Z" ` + alice, reason.SignerNotValid, "until 2026-06-15T11:59:59Z"},
		{"not yet", auth.NamespaceRequest, auth.NamespaceRequest, `alice valid-after="20260615120001Z" ` + alice, reason.SignerNotValid, "from 2026-06-15T12:00:01Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sig := parseSignature(t, sshSign(t, "ed25519", tt.made, message))
			asker, err := parseSigners(t, tt.signers).Verify(message, sig, tt.asked, noon)
			if asker != nil {
				t.Errorf("got an asker with a refusal: %+v", asker)
			}
			wantCode(t, err, tt.code, false)
			if !strings.Contains(err.Error(), tt.inMessage) {
				t.Errorf("got %q, want %q in it", err, tt.inMessage)
			}
			if !sig.Whole(message) {
				t.Error("the message is whole whoever signed it")
			}
		})
	}
}

// wire is an SSHSIG without armour, all of it open to change.
type wire struct {
	Magic     [6]byte
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

// signedBytes is what the key signs (PROTOCOL.sshsig, section 3).
func signedBytes(w *wire, message []byte) []byte {
	hash := sha512.Sum512(message)
	sum := hash[:]
	if w.Hash == "sha256" {
		hash := sha256.Sum256(message)
		sum = hash[:]
	}
	return append([]byte("SSHSIG"), ssh.Marshal(struct {
		Namespace string
		Reserved  []byte
		Hash      string
		Sum       []byte
	}{w.Namespace, w.Reserved, w.Hash, sum})...)
}

// newWire signs message by hand, with a chance to change what is signed.
func newWire(t testing.TB, signer ssh.Signer, algorithm string, change func(*wire)) *wire {
	t.Helper()
	w := &wire{
		Magic:     [6]byte([]byte("SSHSIG")),
		Version:   1,
		PublicKey: signer.PublicKey().Marshal(),
		Namespace: auth.NamespaceRequest,
		Hash:      "sha512",
	}
	if change != nil {
		change(w)
	}
	inner, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signedBytes(w, message), algorithm)
	if err != nil {
		t.Fatal(err)
	}
	w.Signature = ssh.Marshal(inner)
	return w
}

// One fault each, in an SSHSIG that is otherwise good. Whatever is signed
// correctly but not accepted never becomes an asker.
func TestParseSSHSIGFaults(t *testing.T) {
	ed := sshSigner(t, "ed25519")
	rsa3072 := sshSigner(t, "rsa-3072")
	const edAlgo, rsaAlgo = ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA512
	inner := func(format string, blob, rest []byte) []byte {
		return ssh.Marshal(&ssh.Signature{Format: format, Blob: blob, Rest: rest})
	}
	dsaKey := ssh.Marshal(struct{ Type, Rest string }{"ssh-dss", "x"})
	newKey := ssh.Marshal(struct{ Type, Rest string }{"ssh-from-the-future", "x"})
	cert := &ssh.Certificate{Key: ed.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, ed); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name string
		wire *wire
		code reason.Code
	}{
		{"magic", newWire(t, ed, edAlgo, func(w *wire) { w.Magic[5] = 'X' }), reason.SignatureMalformed},
		{"version 0", newWire(t, ed, edAlgo, func(w *wire) { w.Version = 0 }), reason.SignatureMalformed},
		{"version 2", newWire(t, ed, edAlgo, func(w *wire) { w.Version = 2 }), reason.SignatureMalformed},
		{"reserved, signed as such", newWire(t, ed, edAlgo, func(w *wire) { w.Reserved = []byte("tag") }), reason.SignatureMalformed},
		{"sha1", newWire(t, ed, edAlgo, func(w *wire) { w.Hash = "sha1" }), reason.SignatureAlgorithm},
		{"sha384", newWire(t, ed, edAlgo, func(w *wire) { w.Hash = "sha384" }), reason.SignatureAlgorithm},
		{"no hash", newWire(t, ed, edAlgo, func(w *wire) { w.Hash = "" }), reason.SignatureAlgorithm},
		{"rsa with sha1", newWire(t, rsa3072, ssh.KeyAlgoRSA, nil), reason.SignatureAlgorithm},
		{"small rsa", newWire(t, sshSigner(t, "rsa-1024"), rsaAlgo, nil), reason.SignatureAlgorithm},
		{"certificate", newWire(t, ed, edAlgo, func(w *wire) { w.PublicKey = cert.Marshal() }), reason.SignatureAlgorithm},
		{"dsa", newWire(t, ed, edAlgo, func(w *wire) { w.PublicKey = dsaKey }), reason.SignatureAlgorithm},
		{"unheard-of key type", newWire(t, ed, edAlgo, func(w *wire) { w.PublicKey = newKey }), reason.SignatureAlgorithm},
		{"key with a byte more", newWire(t, ed, edAlgo, func(w *wire) { w.PublicKey = append(w.PublicKey, 0) }), reason.SignatureMalformed},
		{"key with a byte less", newWire(t, ed, edAlgo, func(w *wire) { w.PublicKey = w.PublicKey[:len(w.PublicKey)-1] }), reason.SignatureMalformed},
		{"no key", newWire(t, ed, edAlgo, func(w *wire) { w.PublicKey = nil }), reason.SignatureMalformed},
	}
	later := func(name string, signature []byte, code reason.Code) {
		w := newWire(t, ed, edAlgo, nil)
		w.Signature = signature
		tests = append(tests, struct {
			name string
			wire *wire
			code reason.Code
		}{name, w, code})
	}
	later("format of another key", inner("ecdsa-sha2-nistp256", make([]byte, 64), nil), reason.SignatureAlgorithm)
	later("bytes after the inner signature", inner(edAlgo, make([]byte, 64), []byte{1}), reason.SignatureMalformed)
	later("inner signature cut", inner(edAlgo, make([]byte, 64), nil)[:40], reason.SignatureMalformed)
	later("no inner signature", nil, reason.SignatureMalformed)

	// The key's modulus with a leading zero byte too many: the same key, but
	// another blob, so it could stand for a listed key that is not found.
	loose := newWire(t, rsa3072, rsaAlgo, nil)
	var k struct {
		Type string
		E, N []byte
	}
	if err := ssh.Unmarshal(loose.PublicKey, &k); err != nil {
		t.Fatal(err)
	}
	k.N = append([]byte{0}, k.N...)
	loose.PublicKey = ssh.Marshal(k)
	tests = append(tests, struct {
		name string
		wire *wire
		code reason.Code
	}{"key not canonical", loose, reason.SignatureMalformed})

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sig, err := auth.ParseSignature(rearmour(ssh.Marshal(tt.wire)))
			if sig != nil {
				t.Error("got a signature with a refusal")
			}
			wantCode(t, err, tt.code, true)
		})
	}
}

// What is well formed but verifies over something else.
func TestVerifySSHSIGInvalid(t *testing.T) {
	ed := sshSigner(t, "ed25519")
	signers := parseSigners(t, "alice "+publicLine(t, "ed25519"), "bob "+publicLine(t, "ed25519/bob"))
	good := newWire(t, ed, ssh.KeyAlgoED25519, nil)
	if _, err := signers.Verify(message, parseSignature(t, rearmour(ssh.Marshal(good))), auth.NamespaceRequest, noon); err != nil {
		t.Fatalf("the wire form of these tests is wrong: %v", err)
	}
	tests := []struct {
		name   string
		change func(*wire)
	}{
		{"namespace changed after signing", func(w *wire) { w.Namespace = auth.NamespaceAdmin }},
		{"namespace emptied after signing", func(w *wire) { w.Namespace = "" }},
		{"hash changed after signing", func(w *wire) { w.Hash = "sha256" }},
		{"another listed key put in", func(w *wire) { w.PublicKey = sshSigner(t, "ed25519/bob").PublicKey().Marshal() }},
		{"a bit flipped", func(w *wire) { w.Signature = bytes.Clone(w.Signature); w.Signature[len(w.Signature)-1] ^= 1 }},
		{"no bytes", func(w *wire) { w.Signature = ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoED25519}) }},
		{"too many bytes", func(w *wire) {
			w.Signature = ssh.Marshal(&ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 65)})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := *good
			tt.change(&w)
			sig := parseSignature(t, rearmour(ssh.Marshal(w)))
			for _, namespace := range []string{auth.NamespaceRequest, auth.NamespaceAdmin} {
				_, err := signers.Verify(message, sig, namespace, noon)
				wantCode(t, err, reason.SignatureInvalid, true)
			}
		})
	}
	t.Run("empty namespace, signed as such", func(t *testing.T) {
		w := newWire(t, ed, ssh.KeyAlgoED25519, func(w *wire) { w.Namespace = "" })
		sig := parseSignature(t, rearmour(ssh.Marshal(w)))
		for _, namespace := range []string{auth.NamespaceRequest, ""} {
			_, err := signers.Verify(message, sig, namespace, noon)
			wantCode(t, err, reason.SignatureNamespace, false)
		}
	})
}

func TestArmour(t *testing.T) {
	good := string(sshSign(t, "ed25519", auth.NamespaceRequest, message))
	const begin, end = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
	accepted := map[string]string{
		"as made":              good,
		"CRLF":                 strings.ReplaceAll(good, "\n", "\r\n"),
		"no last line end":     strings.TrimSpace(good),
		"blank lines after":    good + "\n \n",
		"one long line":        string(rearmour(unarmour(t, []byte(good)))),
		"folded at 10 letters": fold(good, begin, end),
	}
	signers := parseSigners(t, "alice "+publicLine(t, "ed25519"))
	for name, text := range accepted {
		t.Run(name, func(t *testing.T) {
			if _, err := signers.Verify(message, parseSignature(t, []byte(text)), auth.NamespaceRequest, noon); err != nil {
				t.Error(err)
			}
		})
	}
	refused := map[string]string{
		"empty":                 "",
		"white space":           " \n",
		"first line alone":      begin + "\n",
		"first line, no end":    begin,
		"first line cut":        begin[:20],
		"spaces after begin":    strings.Replace(good, begin, begin+" ", 1),
		"something before":      "x\n" + good,
		"blank line before":     "\n" + good,
		"something after":       good + "x",
		"two signatures":        good + good,
		"other armour":          strings.ReplaceAll(good, "SSH SIGNATURE", "PGP SIGNATURE"),
		"header line":           strings.Replace(good, begin+"\n", begin+"\nVersion: 1\n\n", 1),
		"end not on a new line": strings.Replace(good, "\n"+end, end, 1),
		"letter outside base64": strings.Replace(good, "U1NI", "U1N*", 1),
		"letter missing":        strings.Replace(good, "U1NI", "U1N", 1),
		"empty body":            begin + "\n" + end + "\n",
		"byte order mark":       "\ufeff" + good,
		"no armour":             string(unarmour(t, []byte(good))),
	}
	for name, text := range refused {
		t.Run("refused: "+name, func(t *testing.T) {
			_, err := auth.ParseSignature([]byte(text))
			wantCode(t, err, reason.SignatureMalformed, true)
		})
	}
	t.Run("refused: every prefix", func(t *testing.T) {
		for n := range len(strings.TrimSpace(good)) {
			_, err := auth.ParseSignature([]byte(good[:n]))
			wantCode(t, err, reason.SignatureMalformed, true)
		}
	})
	t.Run("refused: too large", func(t *testing.T) {
		_, err := auth.ParseSignature([]byte(good + strings.Repeat("\n", auth.MaxSignature)))
		wantCode(t, err, reason.TooLarge, false)
	})
}

// fold breaks an armour's body after every ten letters.
func fold(armoured, begin, end string) string {
	body := strings.TrimSuffix(strings.TrimPrefix(armoured, begin+"\n"), end+"\n")
	body = strings.ReplaceAll(body, "\n", "")
	folded := begin + "\n"
	for len(body) > 10 {
		folded += body[:10] + "\n"
		body = body[10:]
	}
	return folded + body + "\n" + end + "\n"
}

// SignFile writes what ssh-keygen writes: byte for byte where the algorithm is
// deterministic, and ssh-keygen verifies it in each case.
func TestSignFile(t *testing.T) {
	for _, k := range sshKinds {
		t.Run(k.kind, func(t *testing.T) {
			got, err := auth.SignFile(message, sshSigner(t, k.kind), auth.NamespaceRequest)
			if err != nil {
				t.Fatal(err)
			}
			if want := sshSign(t, k.kind, auth.NamespaceRequest, message); !strings.HasPrefix(k.kind, "ecdsa") && !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			line := "alice " + publicLine(t, k.kind)
			if !sshVerify(t, line+"\n", "alice", auth.NamespaceRequest, noon, message, got) {
				t.Error("ssh-keygen does not verify it")
			}
			if _, err := parseSigners(t, line).Verify(message, parseSignature(t, got), auth.NamespaceRequest, noon); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("no namespace", func(t *testing.T) {
		if got, err := auth.SignFile(message, sshSigner(t, "ed25519"), ""); err == nil || got != nil {
			t.Errorf("got %q, %v, want an error alone", got, err)
		}
	})
	t.Run("small rsa", func(t *testing.T) {
		if got, err := auth.SignFile(message, sshSigner(t, "rsa-1024"), auth.NamespaceRequest); err == nil || got != nil {
			t.Errorf("got %q, %v, want an error alone", got, err)
		}
	})
	t.Run("signer that signs something else", func(t *testing.T) {
		if got, err := auth.SignFile(message, wrongSigner{sshSigner(t, "ed25519")}, auth.NamespaceRequest); err == nil || got != nil {
			t.Errorf("got %q, %v, want an error alone", got, err)
		}
	})
}

// wrongSigner signs other bytes than it is given.
type wrongSigner struct{ ssh.Signer }

func (s wrongSigner) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return s.Signer.Sign(random, append(data, 0))
}

// securityKey is a FIDO key without the device: it signs as PROTOCOL.u2f says.
type securityKey struct {
	keyType     string
	application string
	blob        []byte
	ecdsa       *ecdsa.PrivateKey
	sign        func(data []byte) []byte // gives the inner signature's blob
}

func newSecurityKey(t testing.TB, keyType string) *securityKey {
	t.Helper()
	k := &securityKey{keyType: keyType, application: "ssh:"}
	if keyType == ssh.KeyAlgoSKED25519 {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.blob = ssh.Marshal(struct {
			Type        string
			Key         []byte
			Application string
		}{keyType, public, k.application})
		k.sign = func(data []byte) []byte { return ed25519.Sign(private, data) }
		return k
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	k.blob = ssh.Marshal(struct {
		Type, Curve string
		Point       []byte
		Application string
	}{keyType, "nistp256", point, k.application})
	k.ecdsa = private
	k.sign = func(data []byte) []byte {
		digest := sha256.Sum256(data)
		r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return ssh.Marshal(struct{ R, S *big.Int }{r, s})
	}
	return k
}

func (k *securityKey) line(t testing.TB) string {
	t.Helper()
	key, err := ssh.ParsePublicKey(k.blob)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// signFile makes the signature file of a device that reports these flags.
// signedApplication is what the device was told, normally the key's own.
func (k *securityKey) signFile(signedApplication string, flags byte, counter uint32, rest []byte) []byte {
	w := &wire{Magic: [6]byte([]byte("SSHSIG")), Version: 1, PublicKey: k.blob, Namespace: auth.NamespaceRequest, Hash: "sha512"}
	application, data := sha256.Sum256([]byte(signedApplication)), sha256.Sum256(signedBytes(w, message))
	tail := ssh.Marshal(struct {
		Flags   byte
		Counter uint32
	}{flags, counter})
	signature := k.sign(bytes.Join([][]byte{application[:], tail, data[:]}, nil))
	if rest != nil {
		tail = rest
	}
	w.Signature = ssh.Marshal(&ssh.Signature{Format: k.keyType, Blob: signature, Rest: tail})
	return rearmour(ssh.Marshal(w))
}

func TestSecurityKeys(t *testing.T) {
	for _, keyType := range []string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256} {
		k := newSecurityKey(t, keyType)
		line := "alice " + k.line(t)
		signers := parseSigners(t, line)

		for _, tt := range []struct {
			flags   byte
			counter uint32
		}{{0x01, 0}, {0x01, 7}, {0x05, 1 << 31}} { // touched; touched with PIN
			t.Run(fmt.Sprintf("%s/flags %#02x counter %d", keyType, tt.flags, tt.counter), func(t *testing.T) {
				file := k.signFile(k.application, tt.flags, tt.counter, nil)
				asker, err := signers.Verify(message, parseSignature(t, file), auth.NamespaceRequest, noon)
				if err != nil {
					t.Fatal(err)
				}
				if asker.Algorithm != keyType || asker.Method != auth.MethodSSHSIG {
					t.Errorf("got %+v", *asker)
				}
				if !sshVerify(t, line+"\n", "alice", auth.NamespaceRequest, noon, message, file) {
					t.Error("ssh-keygen does not verify it: this test makes it wrongly")
				}
			})
		}
		for _, flags := range []byte{0x00, 0x04, 0xfe} {
			t.Run(fmt.Sprintf("%s/no touch, flags %#02x", keyType, flags), func(t *testing.T) {
				file := k.signFile(k.application, flags, 1, nil)
				sig := parseSignature(t, file)
				_, err := signers.Verify(message, sig, auth.NamespaceRequest, noon)
				wantCode(t, err, reason.SignatureInvalid, true)
				if !strings.Contains(err.Error(), "without a touch") {
					t.Errorf("got %q, want it to name the touch", err)
				}
				if sig.Whole(message) {
					t.Error("counts as whole")
				}
				// Where we are stricter: ssh-keygen never looks at the flag.
				if !sshVerify(t, line+"\n", "alice", auth.NamespaceRequest, noon, message, file) {
					t.Error("ssh-keygen refuses too: change the comment in verifyCarried")
				}
			})
		}
		for name, tail := range map[string][]byte{
			"flag set after signing":    {0x05, 0, 0, 0, 1},
			"counter set after signing": {0x01, 0, 0, 0, 2},
		} {
			t.Run(keyType+"/"+name, func(t *testing.T) {
				_, err := signers.Verify(message, parseSignature(t, k.signFile(k.application, 0x01, 1, tail)), auth.NamespaceRequest, noon)
				wantCode(t, err, reason.SignatureInvalid, true)
			})
		}
		for name, tail := range map[string][]byte{
			"tail short": {0x01, 0, 0, 0},
			"tail long":  {0x01, 0, 0, 0, 1, 0},
			"no tail":    {},
		} {
			t.Run(keyType+"/"+name, func(t *testing.T) {
				_, err := auth.ParseSignature(k.signFile(k.application, 0x01, 1, tail))
				wantCode(t, err, reason.SignatureMalformed, true)
			})
		}
		t.Run(keyType+"/signed for another application", func(t *testing.T) {
			_, err := signers.Verify(message, parseSignature(t, k.signFile("https://example.com", 0x01, 1, nil)), auth.NamespaceRequest, noon)
			wantCode(t, err, reason.SignatureInvalid, true)
		})
	}
}
