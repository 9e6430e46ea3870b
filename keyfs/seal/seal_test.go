package seal_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

	"signdrop/keyfs/seal"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rawKEK is a KEK of 32 bytes of b.
func rawKEK(t testing.TB, b byte) seal.KEK {
	t.Helper()
	k, err := seal.ParseKEK(bytes.Repeat([]byte{b}, 32))
	must(t, err)
	return k
}

// newSealer makes the Sealer of a new volume.
func newSealer(t testing.TB) *seal.Sealer {
	t.Helper()
	s, _, err := seal.New(rawKEK(t, 1))
	must(t, err)
	return s
}

var (
	secret = []byte("-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n")
	label  = seal.Label{Path: "companies/acme/wallets/W_1/key.pem", Public: "-----BEGIN PUBLIC KEY-----\n…"}
)

func TestSealOpen(t *testing.T) {
	s := newSealer(t)
	for _, plain := range [][]byte{secret, {}, bytes.Repeat([]byte{0}, 20000)} {
		text, err := s.Seal(plain, label)
		must(t, err)
		if len(plain) > 0 && bytes.Contains(text, plain[:min(len(plain), 20)]) || !seal.Sealed(text) {
			t.Errorf("sealed: %.100q", text)
		}
		if int64(len(text)) > seal.MaxSize(int64(len(plain))) {
			t.Errorf("%d bytes became %d, more than MaxSize says", len(plain), len(text))
		}
		got, err := s.Open(text, label)
		must(t, err)
		if !bytes.Equal(got, plain) {
			t.Errorf("got %q, want %q", got, plain)
		}
		again, err := s.Seal(plain, label)
		must(t, err)
		if bytes.Equal(again, text) {
			t.Error("sealed twice with the same bytes: the nonce is not random")
		}
	}
}

// A sealed file opens at its place and beside its public key only, and a sealed volume
// takes no file in the clear.
func TestOpenRefuses(t *testing.T) {
	s := newSealer(t)
	text, err := s.Seal(secret, label)
	must(t, err)
	var none *seal.Sealer
	header, body, _ := bytes.Cut(text, []byte("\n"))
	for _, tt := range []struct {
		name   string
		sealer *seal.Sealer
		text   []byte
		label  seal.Label
		want   string
	}{
		{"another wallet", s, text, seal.Label{Path: "companies/acme/wallets/W_2/key.pem", Public: label.Public}, "does not open"},
		{"another company", s, text, seal.Label{Path: "companies/beta/wallets/W_1/key.pem", Public: label.Public}, "does not open"},
		{"another public key", s, text, seal.Label{Path: label.Path, Public: "other"}, "does not open"},
		{"parts of the label shifted", s, text, seal.Label{Path: label.Path + "\n" + label.Public}, "does not open"},
		{"another volume", newSealer(t), text, label, "is sealed with another volume key (" + s.VolumeKey()},
		{"in the clear", s, secret, label, "is in the clear"},
		{"empty", s, nil, label, "is in the clear"},
		{"without a key", none, text, label, "without a key-encryption key (--seal)"},
		{"header alone", s, header, label, "cut off"},
		{"header and line break", s, append(bytes.Clone(header), '\n'), label, "cut off"},
		{"another version", s, bytes.Replace(text, []byte("sealed 1"), []byte("sealed 2"), 1), label, "not in the form"},
		{"another algorithm", s, bytes.Replace(text, []byte("XChaCha20"), []byte("xchacha20"), 1), label, "not in the form"},
		{"CRLF", s, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), label, "not in the form"},
		{"a line more", s, append(bytes.Clone(text), '\n'), label, "not in the form"},
		{"base64 in two lines", s, fmt.Appendf(nil, "%s\n%s\n%s", header, body[:20], body[20:]), label, "not in the form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.sealer.Open(tt.text, tt.label)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if got != nil {
				t.Errorf("bytes were returned with the error: %q", got)
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
	for i := range text {
		cut, bent := text[:i], bytes.Clone(text)
		bent[i] ^= 1
		for _, b := range [][]byte{cut, bent} {
			if got, err := s.Open(b, label); err == nil || got != nil {
				t.Fatalf("opened with byte %d changed, or cut there: %q", i, b)
			}
		}
	}
	// Without a Sealer what is in the clear passes through.
	if got, err := none.Open(secret, label); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("a nil Sealer: got %q, %v", got, err)
	}
	if got, err := none.Seal(secret, label); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("a nil Sealer: got %q, %v", got, err)
	}
}

// ring is seal.json as docs/formats.md has it.
type ring struct {
	Version int    `json:"version"`
	State   string `json:"state"`
	Current string `json:"current"`
	Keys    []struct {
		ID      string `json:"id"`
		Wrapped []struct {
			KEK  string `json:"kek"`
			Kind string `json:"kind"`
			Data []byte `json:"data"`
		} `json:"wrapped"`
	} `json:"keys"`
	MAC string `json:"mac"`
}

// hkdf32 is what docs/formats.md calls HKDF-SHA-256(key, info …).
func hkdf32(t *testing.T, key []byte, info string) []byte {
	t.Helper()
	out, err := hkdf.Key(sha256.New, key, nil, info, 32)
	must(t, err)
	return out
}

func openX(t *testing.T, key, data []byte, aad string) []byte {
	t.Helper()
	a, err := chacha20poly1305.NewX(key)
	must(t, err)
	plain, err := a.Open(nil, data[:24], data[24:], []byte(aad))
	must(t, err)
	return plain
}

// TestFormat opens a file by the words of docs/formats.md alone, with each kind of KEK.
func TestFormat(t *testing.T) {
	rawKey := bytes.Repeat([]byte{7}, 32)
	id, err := age.GenerateX25519Identity()
	must(t, err)
	hybrid, err := age.GenerateHybridIdentity()
	must(t, err)
	unwrapAge := func(identity age.Identity, recipient, secret string) func(t *testing.T, kek, volumeKey string, data []byte) []byte {
		return func(t *testing.T, kek, volumeKey string, data []byte) []byte {
			sum := sha256.Sum256([]byte("signdrop kek age 1\n" + recipient))
			if want := "KEK_" + hex.EncodeToString(sum[:8]); kek != want {
				t.Errorf("id of the KEK: got %s, want %s", kek, want)
			}
			r, err := age.Decrypt(bytes.NewReader(data), identity)
			must(t, err)
			var plain bytes.Buffer
			_, err = plain.ReadFrom(r)
			must(t, err)
			m := hmac.New(sha256.New, hkdf32(t, []byte(secret), "signdrop kek age 1"))
			m.Write([]byte("signdrop volume key 1 age " + kek + " " + volumeKey))
			m.Write(plain.Bytes()[:32])
			if !bytes.Equal(m.Sum(nil), plain.Bytes()[32:]) {
				t.Error("the tag differs")
			}
			return plain.Bytes()[:32]
		}
	}
	for _, tt := range []struct {
		kind, name, secret string
		unwrap             func(t *testing.T, kek, volumeKey string, data []byte) []byte
	}{
		{"raw", "raw", string(rawKey), func(t *testing.T, kek, volumeKey string, data []byte) []byte {
			if want := "KEK_" + hex.EncodeToString(hkdf32(t, rawKey, "signdrop kek id 1")[:8]); kek != want {
				t.Errorf("id of the KEK: got %s, want %s", kek, want)
			}
			return openX(t, hkdf32(t, rawKey, "signdrop kek wrap 1"), data, "signdrop volume key 1 raw "+kek+" "+volumeKey)
		}},
		{"age", "age", "# created: today\n# public key: " + id.Recipient().String() + "\n" + id.String() + "\n", unwrapAge(id, id.Recipient().String(), id.String())},
		{"age", "age, post-quantum", hybrid.String() + "\n", unwrapAge(hybrid, hybrid.Recipient().String(), hybrid.String())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kek, err := seal.ParseKEK([]byte(tt.secret))
			must(t, err)
			s, text, err := seal.New(kek)
			must(t, err)
			sealed, err := s.Seal(secret, label)
			must(t, err)

			var r ring
			must(t, json.Unmarshal(text, &r))
			if r.Version != 1 || r.State != "sealed" || len(r.Keys) != 1 || r.Keys[0].ID != r.Current || len(r.Keys[0].Wrapped) != 1 {
				t.Fatalf("seal.json is %s", text)
			}
			w := r.Keys[0].Wrapped[0]
			if w.Kind != tt.kind || w.KEK != kek.ID() || w.Kind != kek.Kind() {
				t.Errorf("kind %s, KEK %s; want %s, %s", w.Kind, w.KEK, tt.kind, kek.ID())
			}
			volumeKey := tt.unwrap(t, w.KEK, r.Current, w.Data)
			if want := "VK_" + hex.EncodeToString(hkdf32(t, volumeKey, "signdrop volume key id 1")[:8]); r.Current != want {
				t.Errorf("id of the volume key: got %s, want %s", r.Current, want)
			}
			m := hmac.New(sha256.New, hkdf32(t, volumeKey, "signdrop seal.json 1"))
			m.Write(bytes.Replace(text, []byte(r.MAC), nil, 1))
			if got := base64.StdEncoding.EncodeToString(m.Sum(nil)); got != r.MAC {
				t.Errorf("mac: got %s, want %s", r.MAC, got)
			}
			header, body, _ := strings.Cut(string(sealed), "\n")
			if header != "signdrop-sealed 1 XChaCha20-Poly1305 "+r.Current {
				t.Errorf("header %q", header)
			}
			data, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(body, "\n"))
			must(t, err)
			got := openX(t, hkdf32(t, volumeKey, "signdrop key files 1"), data, header+"\n"+label.Path+"\n"+label.Public+"\n")
			if !bytes.Equal(got, secret) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestParseKEK(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	must(t, err)
	for _, tt := range []struct{ name, secret string }{
		{"empty", ""},
		{"31 bytes", strings.Repeat("k", 31)},
		{"33 bytes, as with a line break", strings.Repeat("k", 32) + "\n"},
		{"hexadecimal", strings.Repeat("ab", 32)},
		{"a recipient", id.Recipient().String()},
		{"an identity with a letter less", id.String()[:len(id.String())-1]},
		{"two identities", id.String() + "\n" + id.String()},
		{"an identity and another line", id.String() + "\nsomething"},
		{"a plugin's identity", "AGE-PLUGIN-YUBIKEY-1QQPQQQQQQ"},
		{"too long", strings.Repeat("# x\n", 2000) + id.String()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := seal.ParseKEK([]byte(tt.secret))
			if err == nil {
				t.Fatalf("taken as %s", k.ID())
			}
			if k != nil {
				t.Error("a key was returned with the error")
			}
			if len(tt.secret) > 0 && strings.Contains(err.Error(), tt.secret[:min(len(tt.secret), 20)]) {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}

// Whoever knows an age recipient can encrypt to it. A volume key of a stranger's making
// is not taken for that.
func TestAgeForgery(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	must(t, err)
	kek, err := seal.ParseKEK([]byte(id.String()))
	must(t, err)
	key := bytes.Repeat([]byte{9}, 32)
	for _, plain := range [][]byte{key, append(bytes.Clone(key), make([]byte, 32)...)} {
		var out bytes.Buffer
		w, err := age.Encrypt(&out, id.Recipient())
		must(t, err)
		_, err = w.Write(plain)
		must(t, errors.Join(err, w.Close()))
		if got, err := kek.Unwrap(out.Bytes(), "context"); err == nil || got != nil {
			t.Errorf("a forged volume key was unwrapped: %x", got)
		}
	}
	data, err := kek.Wrap(key, "context")
	must(t, err)
	if got, err := kek.Unwrap(data, "context"); err != nil || !bytes.Equal(got, key) {
		t.Errorf("got %x, %v", got, err)
	}
	if got, err := kek.Unwrap(data, "another context"); err == nil || got != nil {
		t.Error("unwrapped with another context")
	}
}

func FuzzParse(f *testing.F) {
	s := newSealer(f)
	text, err := s.Seal(secret, label)
	must(f, err)
	f.Add(text)
	f.Add(text[:60])
	f.Add([]byte("signdrop-sealed 1 XChaCha20-Poly1305 VK_0123456789abcdef\nAAAA\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		again, err := seal.Reencode(text)
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("%q was read, and would be written as %q", text, again)
		}
		if got, err := s.Open(text, label); err == nil && !bytes.Equal(got, secret) {
			t.Errorf("%q opens as %q", text, got)
		}
	})
}

func FuzzRing(f *testing.F) {
	_, text, err := seal.New(rawKEK(f, 1))
	must(f, err)
	f.Add(text)
	f.Add(bytes.Replace(text, []byte("sealed"), []byte("sealing"), 1))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		again, err := seal.ReencodeRing(text)
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("%q was read, and would be written as %q", text, again)
		}
	})
}
