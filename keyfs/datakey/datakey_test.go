package datakey_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/spool/durable"
)

const (
	company = "acme"
	id      = "K_0123456789abcdef0123456789abcd"
	id2     = "K_fedcba9876543210fedcba98765432"
)

// passphrase opens the keys of testdata.
var passphrase = []byte("correct horse 12")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	return b
}

// volume is a data volume with one company, on the test's temporary directory.
type volume struct {
	t   *testing.T
	top string
	fs  durable.FS
}

func newVolume(t *testing.T) *volume {
	t.Helper()
	top := t.TempDir()
	must(t, os.Mkdir(filepath.Join(top, "db"), 0o700))
	must(t, os.MkdirAll(filepath.Join(top, "db/companies", company), 0o700))
	disk, err := durable.OpenDisk(top)
	must(t, err)
	t.Cleanup(func() { disk.Close() })
	return &volume{t, top, disk}
}

func (v *volume) open() *datakey.Store {
	v.t.Helper()
	return openStore(v.t, v.fs)
}

func openStore(t *testing.T, vol durable.FS) *datakey.Store {
	t.Helper()
	root, err := vol.Root()
	must(t, err)
	defer root.Close()
	db, err := root.Sub("db")
	must(t, err)
	t.Cleanup(func() { db.Close() })
	s := datakey.Open(db, nil)
	datakey.Quick(s, testdata(t, "other.pem"), passphrase)
	return s
}

func (v *volume) file(id, name string) string {
	return filepath.Join(v.top, "db/companies", company, "datakeys", id, name)
}

// imported is the key that Node made.
func (v *volume) imported(s *datakey.Store) *datakey.Key {
	v.t.Helper()
	k, err := s.Import(company, nodeSpec(v.t), v.fs)
	must(v.t, err)
	return k
}

func nodeSpec(t *testing.T) datakey.ImportSpec {
	t.Helper()
	return datakey.ImportSpec{ID: id, Name: "customers", EncryptedPEM: testdata(t, "node.pem"), PublicPEM: testdata(t, "node.pub.pem")}
}

// tree lists what lies in the company's directory.
func (v *volume) tree() string {
	v.t.Helper()
	var b strings.Builder
	top := filepath.Join(v.top, "db/companies", company)
	must(v.t, filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
		must(v.t, err)
		info, err := d.Info()
		must(v.t, err)
		rel, err := filepath.Rel(top, p)
		must(v.t, err)
		if rel != "." {
			fmt.Fprintf(&b, "%s %04o\n", rel, info.Mode().Perm())
		}
		return nil
	}))
	return b.String()
}

const wholeTree = `datakeys 0700
datakeys/` + id + ` 0700
datakeys/` + id + `/datakey.json 0400
datakeys/` + id + `/key.pem 0400
`

func run(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes()
}

func tempFile(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(name, content, 0o600))
	return name
}

func TestCreate(t *testing.T) {
	v := newVolume(t)
	s := v.open()
	spec := datakey.Spec{ID: id, Name: "customers <&> äöü", Passphrase: []byte("pässword")}
	for _, s := range []*datakey.Store{s, s, v.open()} { // again is a success
		k, err := s.Create(company, spec, v.fs)
		must(t, err)
		found, err := s.Lookup(company, id)
		must(t, err)
		for _, k := range []*datakey.Key{k, found} {
			if k.ID() != id || k.Name() != spec.Name || !k.Active() || k.PublicPEM() != string(testdata(t, "other.pub.pem")) {
				t.Errorf("got %s, %q, active %v, public key\n%s", k.ID(), k.Name(), k.Active(), k.PublicPEM())
			}
		}
	}
	if got := v.tree(); got != wholeTree {
		t.Errorf("got files\n%swant\n%s", got, wholeTree)
	}
	// OpenSSL opens it.
	for _, args := range [][]string{{"pkcs8"}, {"rsa"}, {"pkey"}} {
		out := run(t, nil, "openssl", append(args, "-in", v.file(id, "key.pem"), "-passin", "pass:pässword")...)
		if pub := run(t, out, "openssl", "pkey", "-pubout"); !bytes.Equal(pub, testdata(t, "other.pub.pem")) {
			t.Errorf("openssl %s: got the public key\n%s", args[0], pub)
		}
	}
	for _, c := range []struct {
		name string
		spec datakey.Spec
		want error
	}{
		{"another passphrase", datakey.Spec{id, spec.Name, passphrase}, datakey.ErrPassphrase},
		{"another name", datakey.Spec{id, "", spec.Passphrase}, keyfs.ErrOther},
		{"short", datakey.Spec{id2, "", []byte("1234567")}, keyfs.ErrInvalid},
		{"short in characters", datakey.Spec{id2, "", []byte("ääääää7")}, keyfs.ErrInvalid},
		{"long", datakey.Spec{id2, "", bytes.Repeat([]byte("x"), 129)}, keyfs.ErrInvalid},
		{"not UTF-8", datakey.Spec{id2, "", []byte("12345678\xff")}, keyfs.ErrInvalid},
		{"a wallet's id", datakey.Spec{"W_" + id[2:], "", passphrase}, keyfs.ErrInvalid},
		{"a path", datakey.Spec{"../" + id, "", passphrase}, keyfs.ErrInvalid},
		{"capitals", datakey.Spec{strings.ToUpper(id), "", passphrase}, keyfs.ErrInvalid},
		{"a control character", datakey.Spec{id2, "a\nb", passphrase}, keyfs.ErrInvalid},
		{"a long name", datakey.Spec{id2, strings.Repeat("x", 201), passphrase}, keyfs.ErrInvalid},
	} {
		k, err := s.Create(company, c.spec, v.fs)
		if k != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, k, err, c.want)
		}
		if err != nil && bytes.Contains([]byte(err.Error()), c.spec.Passphrase) {
			t.Errorf("%s: the error holds the passphrase", c.name)
		}
		if got := v.tree(); got != wholeTree {
			t.Errorf("%s: files have changed:\n%s", c.name, got)
		}
	}
	if _, err := s.Create("other", spec, v.fs); !errors.Is(err, keyfs.ErrUnknown) {
		t.Errorf("no such company: %v", err)
	}
	if _, err := s.Lookup(company, id2); !errors.Is(err, keyfs.ErrUnknown) {
		t.Errorf("no such key: %v", err)
	}
	if _, err := s.Lookup(company, "../"+id2); !errors.Is(err, keyfs.ErrInvalid) {
		t.Errorf("a path: %v", err)
	}
}

// TestGenerate makes a key as the appliance does.
func TestGenerate(t *testing.T) {
	if testing.Short() {
		t.Log("left to a run without -short: it takes minutes under an emulator")
		return
	}
	v := newVolume(t)
	root, err := v.fs.Root()
	must(t, err)
	db, err := root.Sub("db")
	must(t, err)
	k, err := datakey.Open(db, nil).Create(company, datakey.Spec{ID: id, Passphrase: passphrase}, v.fs)
	must(t, err)
	text := run(t, nil, "openssl", "asn1parse", "-in", v.file(id, "key.pem"))
	for _, want := range []string{"INTEGER           :0927C0", ":hmacWithSHA256", ":aes-256-cbc", ":PBKDF2"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("key.pem does not hold %s", want)
		}
	}
	out := run(t, nil, "openssl", "rsa", "-in", v.file(id, "key.pem"), "-passin", "pass:"+string(passphrase), "-check", "-noout")
	if !bytes.Contains(out, []byte("RSA key ok")) {
		t.Errorf("openssl rsa -check says %s", out)
	}
	sealed, err := k.EncryptText([]byte("text"))
	must(t, err)
	plain, err := k.Decrypt(datakey.OAEPSHA256, sealed, passphrase)
	must(t, err)
	if string(plain) != "text" {
		t.Errorf("got %q", plain)
	}
	other, err := datakey.Open(db, nil).Create(company, datakey.Spec{ID: id2, Passphrase: passphrase}, v.fs)
	must(t, err)
	if other.PublicPEM() == k.PublicPEM() {
		t.Error("two keys are the same")
	}
}

func TestImport(t *testing.T) {
	v := newVolume(t)
	s := v.open()
	spec := nodeSpec(t)
	for _, s := range []*datakey.Store{s, s, v.open()} {
		k, err := s.Import(company, spec, v.fs)
		must(t, err)
		if k.ID() != id || k.Name() != "customers" || k.PublicPEM() != string(spec.PublicPEM) || !k.Active() {
			t.Errorf("got %v", k)
		}
	}
	crlf := spec
	crlf.EncryptedPEM = bytes.TrimSuffix(bytes.ReplaceAll(spec.EncryptedPEM, []byte("\n"), []byte("\r\n")), []byte("\r\n"))
	_, err := s.Import(company, crlf, v.fs)
	must(t, err)
	if got := v.tree(); got != wholeTree {
		t.Errorf("got files\n%swant\n%s", got, wholeTree)
	}
	kept, err := os.ReadFile(v.file(id, "key.pem"))
	must(t, err)
	if !bytes.Equal(kept, spec.EncryptedPEM) {
		t.Error("key.pem is not what was imported")
	}
	plain := run(t, spec.EncryptedPEM, "openssl", "pkey", "-passin", "pass:"+string(passphrase))
	small := run(t, nil, "openssl", "genrsa", "1024")
	seal := func(key []byte, args ...string) []byte {
		return run(t, key, "openssl", append([]string{"pkcs8", "-topk8", "-passout", "pass:" + string(passphrase)}, args...)...)
	}
	for _, c := range []struct {
		name   string
		change func(*datakey.ImportSpec)
		want   error
	}{
		{"another key", func(s *datakey.ImportSpec) {
			s.EncryptedPEM, s.PublicPEM = testdata(t, "other.pem"), testdata(t, "other.pub.pem")
		}, keyfs.ErrOther},
		{"the same key under other bytes", func(s *datakey.ImportSpec) { s.EncryptedPEM = testdata(t, "sha1.pem") }, keyfs.ErrOther},
		{"another name", func(s *datakey.ImportSpec) { s.Name = "x" }, keyfs.ErrOther},
		{"plain", func(s *datakey.ImportSpec) { s.ID, s.EncryptedPEM = id2, plain }, datakey.ErrPrivateKey},
		{"another cipher", func(s *datakey.ImportSpec) { s.ID, s.EncryptedPEM = id2, seal(plain, "-v2", "aes-128-cbc") }, datakey.ErrPrivateKey},
		{"another HMAC", func(s *datakey.ImportSpec) {
			s.ID, s.EncryptedPEM = id2, seal(plain, "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512")
		}, datakey.ErrPrivateKey},
		{"scrypt", func(s *datakey.ImportSpec) { s.ID, s.EncryptedPEM = id2, seal(plain, "-scrypt") }, datakey.ErrPrivateKey},
		{"too many rounds", func(s *datakey.ImportSpec) {
			s.ID, s.EncryptedPEM = id2, moreRounds(t, s.EncryptedPEM)
		}, datakey.ErrPrivateKey},
		{"two keys", func(s *datakey.ImportSpec) { s.ID, s.EncryptedPEM = id2, append(s.EncryptedPEM, s.EncryptedPEM...) }, datakey.ErrPrivateKey},
		{"cut off", func(s *datakey.ImportSpec) { s.ID, s.EncryptedPEM = id2, s.EncryptedPEM[:2000] }, datakey.ErrPrivateKey},
		{"no public key", func(s *datakey.ImportSpec) { s.ID, s.PublicPEM = id2, nil }, datakey.ErrPrivateKey},
		{"a small public key", func(s *datakey.ImportSpec) {
			s.ID, s.PublicPEM = id2, run(t, small, "openssl", "pkey", "-pubout")
		}, datakey.ErrPrivateKey},
	} {
		spec := nodeSpec(t)
		c.change(&spec)
		k, err := s.Import(company, spec, v.fs)
		if k != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.name, k, err, c.want)
		}
		if got := v.tree(); got != wholeTree {
			t.Errorf("%s: files have changed:\n%s", c.name, got)
		}
	}
}

// moreRounds makes a key ask for 2^30 rounds of work or so, in the bytes that say
// 2048.
func moreRounds(t *testing.T, text []byte) []byte {
	t.Helper()
	lines := strings.SplitN(string(text), "\n", 3)
	der, err := base64.StdEncoding.DecodeString(lines[1])
	must(t, err)
	at := bytes.Index(der, []byte{2, 2, 8, 0}) // INTEGER 2048
	if at < 0 {
		t.Fatal("the rounds are not where they were")
	}
	// The salt gives two bytes to the number, so that all lengths fit.
	salt := bytes.Index(der, []byte{4, 8})
	if salt < 0 || salt+10 != at {
		t.Fatal("the salt is not where it was")
	}
	der[salt+1] = 6
	copy(der[salt+8:], []byte{2, 4, 0x40, 0, 0, 0})
	lines[1] = base64.StdEncoding.EncodeToString(der)
	return []byte(strings.Join(lines, "\n"))
}

func TestDisabled(t *testing.T) {
	v := newVolume(t)
	spec := nodeSpec(t)
	spec.Disabled = true
	k, err := v.open().Import(company, spec, v.fs)
	must(t, err)
	_, err1 := k.EncryptText([]byte("x"))
	_, err2 := k.EncryptJWE([]byte("x"))
	_, err3 := k.Decrypt(datakey.OAEPSHA256, make([]byte, 512), passphrase)
	for i, err := range []error{err1, err2, err3} {
		if !errors.Is(err, keyfs.ErrDisabled) {
			t.Errorf("call %d: got %v, want ErrDisabled", i+1, err)
		}
	}
	// Import does not change the status of a key that is there.
	k, err = v.open().Import(company, nodeSpec(t), v.fs)
	must(t, err)
	if k.Active() {
		t.Error("the key is active")
	}
}

func TestSetStatusAndList(t *testing.T) {
	v := newVolume(t)
	s := v.open()
	if list, err := s.List(company, "", 1); err != nil || len(list) != 0 {
		t.Errorf("no keys: got %v, %v", list, err)
	}
	v.imported(s)
	_, err := s.Create(company, datakey.Spec{ID: id2, Name: "other", Passphrase: passphrase}, v.fs)
	must(t, err)
	for _, status := range []string{keyfs.StatusDisabled, keyfs.StatusDisabled, keyfs.StatusActive} {
		k, err := s.SetStatus(company, id, status)
		must(t, err)
		found, err := v.open().Lookup(company, id)
		must(t, err)
		for _, k := range []*datakey.Key{k, found} {
			if k.Active() != (status == keyfs.StatusActive) || k.Name() != "customers" {
				t.Errorf("%s: got active %v, name %s", status, k.Active(), k.Name())
			}
		}
	}
	for _, c := range []struct {
		company, id, status string
		want                error
	}{
		{company, id, "on", keyfs.ErrInvalid}, {company, "../" + id, "active", keyfs.ErrInvalid},
		{company, id[:31] + "0", "active", keyfs.ErrUnknown}, {"other", id, "active", keyfs.ErrUnknown},
	} {
		if k, err := s.SetStatus(c.company, c.id, c.status); k != nil || !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, %v", c, k, err)
		}
	}
	must(t, os.Mkdir(v.file(".K_1.new", ""), 0o700)) // left by a crash
	list, err := s.List(company, "", 10)
	must(t, err)
	if len(list) != 2 || list[0].ID != id || list[0].Key.Name() != "customers" || list[1].ID != id2 || list[1].Key.Name() != "other" {
		t.Errorf("got %+v", list)
	}
	must(t, os.Remove(v.file(id, "datakey.json")))
	list, err = s.List(company, "", 1)
	must(t, err)
	if len(list) != 1 || list[0].ID != id || list[0].Key != nil || list[0].Damage == nil {
		t.Errorf("got %+v", list)
	}
	list, err = s.List(company, id, 10)
	must(t, err)
	if len(list) != 1 || list[0].ID != id2 {
		t.Errorf("got %+v", list)
	}
	if _, err := s.List(company, "", 0); !errors.Is(err, keyfs.ErrInvalid) {
		t.Errorf("a list of none: %v", err)
	}
	if _, err := s.List("other", "", 1); !errors.Is(err, keyfs.ErrUnknown) {
		t.Errorf("no company: %v", err)
	}
}

// What Node encrypted with walletKMS's call, under a key that Node made, is
// decrypted, whichever HMAC its passphrase went through.
func TestWalletKMS(t *testing.T) {
	for _, file := range []string{"node.pem", "sha1.pem"} {
		v := newVolume(t)
		spec := nodeSpec(t)
		spec.EncryptedPEM = testdata(t, file)
		k, err := v.open().Import(company, spec, v.fs)
		must(t, err)
		sealed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(testdata(t, "node.oaep-sha1.base64"))))
		must(t, err)
		plain, err := k.Decrypt(datakey.OAEPSHA1, sealed, passphrase)
		if err != nil || string(plain) != "a text of walletKMS, ÄÖÜ" {
			t.Errorf("%s: got %q, %v", file, plain, err)
		}
		for _, a := range []datakey.Algorithm{datakey.OAEPSHA256, datakey.JWE} {
			if plain, err := k.Decrypt(a, sealed, passphrase); plain != nil || !errors.Is(err, datakey.ErrCiphertext) {
				t.Errorf("%s, %s: got %q, %v", file, a, plain, err)
			}
		}
	}
}

func TestOpenSSL(t *testing.T) {
	v := newVolume(t)
	k := v.imported(v.open())
	key, pub := tempFile(t, testdata(t, "node.pem")), tempFile(t, []byte(k.PublicPEM()))
	for _, n := range []int{0, 1, datakey.MaxText} {
		text := bytes.Repeat([]byte("ä"), n)[:n]
		sealed, err := k.EncryptText(text)
		must(t, err)
		got := run(t, sealed, "openssl", "pkeyutl", "-decrypt", "-inkey", key, "-passin", "pass:"+string(passphrase),
			"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
		if !bytes.Equal(got, text) {
			t.Errorf("%d bytes: openssl decrypts %d", n, len(got))
		}
	}
	if out, err := k.EncryptText(make([]byte, datakey.MaxText+1)); out != nil || !errors.Is(err, datakey.ErrTooLong) {
		t.Errorf("447 bytes: got %x, %v", out, err)
	}
	for a, md := range map[datakey.Algorithm]string{datakey.OAEPSHA256: "sha256", datakey.OAEPSHA1: "sha1"} {
		sealed := run(t, []byte("text"), "openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", pub,
			"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:"+md)
		plain, err := k.Decrypt(a, sealed, passphrase)
		if err != nil || string(plain) != "text" {
			t.Errorf("%s: got %q, %v", a, plain, err)
		}
	}
}

// jwcrypto is a program on another implementation of JOSE: Debian's python3-jwcrypto,
// on OpenSSL. It reads the private key of testdata with its passphrase.
const jwcrypto = `
import sys
from jwcrypto import jwk, jwe
with open("testdata/node.pem", "rb") as f:
    key = jwk.JWK.from_pem(f.read(), password=sys.argv[2].encode())
stdin = sys.stdin.buffer.read()
if sys.argv[1] == "decrypt":
    e = jwe.JWE()
    e.deserialize(stdin.decode(), key)
    sys.stdout.buffer.write(e.payload)
else:
    e = jwe.JWE(stdin, protected=sys.argv[3])
    e.add_recipient(key)
    print(e.serialize(compact=True), end="")
`

// Another implementation decrypts our JWE, and we decrypt its.
func TestJWEInterop(t *testing.T) {
	v := newVolume(t)
	k := v.imported(v.open())
	program := func(stdin []byte, args ...string) []byte {
		t.Helper()
		return run(t, stdin, "/usr/bin/python3", append([]string{"-c", jwcrypto, args[0], string(passphrase)}, args[1:]...)...)
	}
	large := bytes.Repeat([]byte("0123456789"), 100_000)
	for _, plain := range [][]byte{{}, []byte("text"), large} {
		text, err := k.EncryptJWE(plain)
		must(t, err)
		if len(plain) > 0 { // jwcrypto 1.1 does not take a JWE of nothing
			if got := program([]byte(text), "decrypt"); !bytes.Equal(got, plain) {
				t.Errorf("jwcrypto decrypts %d bytes, want %d", len(got), len(plain))
			}
		}
		got, err := k.Decrypt(datakey.JWE, []byte(text), passphrase)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(plain))
		}
	}
	for _, c := range []struct {
		header string
		good   bool
	}{
		{`{"alg":"RSA-OAEP-256","enc":"A256GCM"}`, true},
		{`{"enc":"A256GCM","typ":"JWE","kid":"` + id + `","cty":"text/plain","alg":"RSA-OAEP-256"}`, true},
		{`{"alg":"RSA-OAEP","enc":"A256GCM"}`, false},
		{`{"alg":"RSA-OAEP-256","enc":"A128GCM"}`, false},
		{`{"alg":"RSA-OAEP-256","enc":"A256CBC-HS512"}`, false},
		{`{"alg":"RSA-OAEP-256","enc":"A256GCM","zip":"DEF"}`, false},
		{`{"alg":"RSA-OAEP-256","enc":"A256GCM","x":"y"}`, false},
	} {
		got, err := k.Decrypt(datakey.JWE, program([]byte("text"), "encrypt", c.header), passphrase)
		if c.good && (err != nil || string(got) != "text") || !c.good && (got != nil || !errors.Is(err, datakey.ErrCiphertext)) {
			t.Errorf("%s: got %q, %v", c.header, got, err)
		}
	}
}

func TestDecryptRefuses(t *testing.T) {
	v := newVolume(t)
	s := v.open()
	k := v.imported(s)
	other, err := s.Create(company, datakey.Spec{ID: id2, Passphrase: passphrase}, v.fs)
	must(t, err)
	sealed, err := k.EncryptText([]byte("secret text"))
	must(t, err)
	text, err := k.EncryptJWE([]byte("secret text"))
	must(t, err)
	foreign, err := other.EncryptText([]byte("secret text"))
	must(t, err)
	foreignJWE, err := other.EncryptJWE([]byte("secret text"))
	must(t, err)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	parts := strings.Split(text, ".")
	swapped := strings.Split(foreignJWE, ".")
	mixed := strings.Join([]string{parts[0], parts[1], swapped[2], swapped[3], swapped[4]}, ".")

	const generic = "this cannot be decrypted with this data key"
	for _, c := range []struct {
		name       string
		algorithm  datakey.Algorithm
		ciphertext []byte
		passphrase string
		want       error
	}{
		{"wrong passphrase", datakey.OAEPSHA256, sealed, "correct horse 13", datakey.ErrPassphrase},
		{"wrong passphrase, JWE", datakey.JWE, []byte(text), "correct horse 13", datakey.ErrPassphrase},
		{"short passphrase", datakey.OAEPSHA256, sealed, "correct", keyfs.ErrInvalid},
		{"no algorithm", "", sealed, string(passphrase), keyfs.ErrInvalid},
		{"another algorithm", "RSA-OAEP", sealed, string(passphrase), keyfs.ErrInvalid},
		{"SHA-256 as SHA-1", datakey.OAEPSHA1, sealed, string(passphrase), datakey.ErrCiphertext},
		{"a bit", datakey.OAEPSHA256, flip(sealed, 100), string(passphrase), datakey.ErrCiphertext},
		{"too large a number", datakey.OAEPSHA256, bytes.Repeat([]byte{0xff}, 512), string(passphrase), datakey.ErrCiphertext},
		{"short", datakey.OAEPSHA256, sealed[1:], string(passphrase), datakey.ErrCiphertext},
		{"base64", datakey.OAEPSHA256, []byte(base64.StdEncoding.EncodeToString(sealed)), string(passphrase), datakey.ErrCiphertext},
		{"another key's", datakey.OAEPSHA256, foreign, string(passphrase), datakey.ErrCiphertext},
		{"another key's JWE", datakey.JWE, []byte(foreignJWE), string(passphrase), datakey.ErrCiphertext},
		{"a JWE with another's content", datakey.JWE, []byte(mixed), string(passphrase), datakey.ErrCiphertext},
		{"a bit of the tag", datakey.JWE, flip([]byte(text), len(text)-3), string(passphrase), datakey.ErrCiphertext},
		{"a line break", datakey.JWE, []byte(text + "\n"), string(passphrase), datakey.ErrCiphertext},
		{"four parts", datakey.JWE, []byte(strings.Join(parts[:4], ".")), string(passphrase), datakey.ErrCiphertext},
		{"empty", datakey.JWE, nil, string(passphrase), datakey.ErrCiphertext},
	} {
		plain, err := k.Decrypt(c.algorithm, c.ciphertext, []byte(c.passphrase))
		if plain != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: got %q, %v, want %v", c.name, plain, err, c.want)
		}
		if c.want == datakey.ErrCiphertext && err.Error() != generic {
			t.Errorf("%s: the error says why: %v", c.name, err)
		}
		if err != nil && strings.Contains(err.Error(), c.passphrase) {
			t.Errorf("%s: the error holds the passphrase", c.name)
		}
	}
}

func TestDamaged(t *testing.T) {
	const at = "companies/acme/datakeys/" + id
	for _, c := range []struct {
		name   string
		damage func(v *volume)
		want   string
	}{
		{"key missing", func(v *volume) { must(t, os.Remove(v.file(id, "key.pem"))) },
			at + "/key.pem is missing: restore it from the backup"},
		{"record missing", func(v *volume) { must(t, os.Remove(v.file(id, "datakey.json"))) },
			at + "/datakey.json is missing: restore it from the backup"},
		{"open key", func(v *volume) { must(t, os.Chmod(v.file(id, "key.pem"), 0o440)) },
			at + "/key.pem is open to others (mode 0440): find out who could use it, then chmod 0400"},
		{"writable record", func(v *volume) { must(t, os.Chmod(v.file(id, "datakey.json"), 0o460)) },
			at + "/datakey.json is open to others (mode 0460): find out who could use it, then chmod 0400"},
		{"another key", func(v *volume) { rewrite(t, v.file(id, "key.pem"), testdata(t, "other.pem")) },
			at + "/key.pem is not the key whose public key datakey.json holds: restore both together from the backup"},
		{"no key", func(v *volume) { rewrite(t, v.file(id, "key.pem"), []byte("x")) },
			at + "/key.pem is not an ENCRYPTED PRIVATE KEY in PEM with nothing beside it: restore it from the backup"},
		{"an edited record", func(v *volume) {
			b, err := os.ReadFile(v.file(id, "datakey.json"))
			must(t, err)
			rewrite(t, v.file(id, "datakey.json"), append(b, '\n'))
		}, at + "/datakey.json is not in the form in which it was written: restore it from the backup"},
		{"another's record", func(v *volume) {
			b, err := os.ReadFile(v.file(id, "datakey.json"))
			must(t, err)
			rewrite(t, v.file(id, "datakey.json"), bytes.Replace(b, []byte(id), []byte(id2), 1))
		}, at + "/datakey.json belongs to the data key " + id2 + ": restore it from the backup"},
		{"a link", func(v *volume) {
			must(t, os.Rename(v.file(id, "key.pem"), v.file(id, "x")))
			must(t, os.Symlink("x", v.file(id, "key.pem")))
		}, at + "/key.pem is not a regular file: restore it from the backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t)
			s := v.open()
			sealed, err := v.imported(s).EncryptText([]byte("x"))
			must(t, err)
			c.damage(v)
			k, err := s.Lookup(company, id)
			var plain []byte
			if err == nil {
				plain, err = k.Decrypt(datakey.OAEPSHA256, sealed, passphrase)
			}
			var damaged *keyfs.Damaged
			if plain != nil || !errors.As(err, &damaged) || err.Error() != c.want {
				t.Errorf("got  %q, %v\nwant %s", plain, err, c.want)
			}
		})
	}
}

func rewrite(t *testing.T, name string, content []byte) {
	t.Helper()
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, content, 0o400))
}

func TestGuard(t *testing.T) {
	var g datakey.Guard
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const s, m = time.Second, time.Minute
	for i, want := range []time.Duration{0, 0, 0, 0, 0, 1 * s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 64 * s, 128 * s, 256 * s, 512 * s, 15 * m, 15 * m, 15 * m} {
		got := g.Wait("acme/K_1", now)
		if got != want {
			t.Fatalf("after %d wrong ones: got %v, want %v", i, got, want)
		}
		if want > 0 {
			if got := g.Wait("acme/K_1", now.Add(want-1)); got != 1 {
				t.Errorf("just before: got %v", got)
			}
			if got := g.Wait("acme/K_1", now.Add(-time.Hour)); got != want {
				t.Errorf("the clock went back: got %v", got)
			}
		}
		now = now.Add(want)
		if got := g.Wait("acme/K_1", now); got != 0 {
			t.Errorf("when it is over: got %v", got)
		}
		if got := g.Wait("acme/K_2", now); got != 0 {
			t.Errorf("another key: got %v", got)
		}
		g.Wrong("acme/K_1", now)
	}
	for range 1000 {
		g.Wrong("acme/K_1", now)
	}
	if got := g.Wait("acme/K_1", now); got != 15*m {
		t.Errorf("after many: got %v", got)
	}
	g.Right("acme/K_1")
	if got := g.Wait("acme/K_1", now); got != 0 {
		t.Errorf("after a right one: got %v", got)
	}
}

func FuzzCanonical(f *testing.F) {
	for _, name := range []string{"node.pem", "sha1.pem", "other.pem"} {
		b := testdata(f, name)
		f.Add(b)
		f.Add(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		kept, err := datakey.Canonical(text)
		if err != nil {
			return
		}
		if again, err := datakey.Canonical(kept); err != nil || !bytes.Equal(again, kept) {
			t.Errorf("what is kept of\n%s\nis not kept as it is: %v", text, err)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	pub, err := json.Marshal(string(testdata(f, "node.pub.pem")))
	must(f, err)
	f.Add(fmt.Appendf(nil, "{\n  \"id\": %q,\n  \"name\": \"x\",\n  \"public_key\": %s,\n  \"status\": \"active\"\n}\n", id, pub))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		again, err := datakey.ReencodeRecord(text)
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("parsed\n%s\nwhich is written\n%s", text, again)
		}
	})
}

func FuzzParseJWE(f *testing.F) {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RSA-OAEP-256","enc":"A256GCM"}`))
	f.Add([]byte(header + ".AAAA.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA"))
	f.Add([]byte("e30....."))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := datakey.ParseJWE(text); err != nil && !errors.Is(err, datakey.ErrCiphertext) {
			t.Errorf("got %v", err)
		}
	})
}
