package main_test

import (
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/answer"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// The tests of this file play the partner with nothing but the tools that a partner
// has: ssh-keygen and openssl sign, mv drops, openssl verifies.

// desk is where a partner works: a directory with its keys and files.
type desk struct {
	t   testing.TB
	dir string
}

func newDesk(t testing.TB) *desk { return &desk{t, t.TempDir()} }

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) read(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

func (d *desk) write(name string, data []byte) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// sshKey makes a key pair with ssh-keygen and returns the public key.
func (d *desk) sshKey(name string, options ...string) []byte {
	d.t.Helper()
	tool(d.t, "ssh-keygen", append([]string{"-q", "-N", "", "-C", name + "@example.com", "-f", d.path(name)}, options...)...)
	return d.read(name + ".pub")
}

// pemKey makes a key pair with openssl and returns the public key.
func (d *desk) pemKey(name string, options ...string) []byte {
	d.t.Helper()
	tool(d.t, "openssl", append([]string{"genpkey", "-out", d.path(name)}, options...)...)
	return tool(d.t, "openssl", "pkey", "-in", d.path(name), "-pubout")
}

// sshSign signs a file, to file.sig.
func (d *desk) sshSign(key, namespace, file string) {
	d.t.Helper()
	tool(d.t, "ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", d.path(key), d.path(file))
}

func (d *desk) opensslSign(key, file string) {
	d.t.Helper()
	tool(d.t, "openssl", "dgst", "-sha384", "-sign", d.path(key), "-out", d.path(file+".sig"), d.path(file))
}

// drop moves a file and its signature into the inbox.
func (d *desk) drop(v *volume, file string) {
	d.t.Helper()
	tool(d.t, "mv", d.path(file+".sig"), v.inbox())
	tool(d.t, "mv", d.path(file), v.inbox())
}

// opensslVerify verifies an answer's signature over its payload as an outsider
// does.
func (d *desk) opensslVerify(a *answer.Answer, hash string) {
	d.t.Helper()
	sig, err := base64.StdEncoding.DecodeString(a.Signature)
	if err != nil {
		d.t.Fatal(err)
	}
	d.write("key.pem", []byte(a.PublicKey))
	d.write("payload", []byte(a.Payload))
	d.write("signature", sig)
	out := tool(d.t, "openssl", "dgst", "-"+hash, "-verify", d.path("key.pem"), "-signature", d.path("signature"), d.path("payload"))
	if got := strings.TrimSpace(string(out)); got != "Verified OK" {
		d.t.Errorf("openssl says %q", got)
	}
}

// TestTools does a whole round with each kind of key that a partner may sign with.
func TestTools(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	ec := func(curve string) []string {
		return []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	ssh := func(name, file string) { d.sshSign(name, "request@signdrop", file) }
	base64Sign := func(name, file string) {
		d.opensslSign(name, file)
		tool(t, "openssl", "base64", "-in", d.path(file+".sig"), "-out", d.path("sig.b64"))
		tool(t, "mv", d.path("sig.b64"), d.path(file+".sig"))
	}
	cases := []struct {
		name string
		make func(name string) []byte
		sign func(name, file string)
	}{
		{"ed25519", func(n string) []byte { return d.sshKey(n, "-t", "ed25519") }, ssh},
		{"ecdsa-256", func(n string) []byte { return d.sshKey(n, "-t", "ecdsa", "-b", "256") }, ssh},
		{"ecdsa-384", func(n string) []byte { return d.sshKey(n, "-t", "ecdsa", "-b", "384") }, ssh},
		{"ecdsa-521", func(n string) []byte { return d.sshKey(n, "-t", "ecdsa", "-b", "521") }, ssh},
		{"rsa", func(n string) []byte { return d.sshKey(n, "-t", "rsa", "-b", "2048") }, ssh},
		{"openssl-p256", func(n string) []byte { return d.pemKey(n, ec("P-256")...) }, d.opensslSign},
		{"openssl-p384", func(n string) []byte { return d.pemKey(n, ec("P-384")...) }, d.opensslSign},
		{"openssl-p521", func(n string) []byte { return d.pemKey(n, ec("P-521")...) }, d.opensslSign},
		{"openssl-p384-base64", func(n string) []byte { return d.pemKey(n, ec("P-384")...) }, base64Sign},
		{"openssl-rsa", func(n string) []byte {
			return d.pemKey(n, "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
		}, d.opensslSign},
		{"openssl-rsa-base64", func(n string) []byte {
			return d.pemKey(n, "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
		}, base64Sign},
	}
	var keys [][]byte
	for _, c := range cases {
		keys = append(keys, c.make(c.name))
	}
	v := newVolume(t, keys...)
	r := v.serve()
	w := v.wallet("P-384")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			request := testbed.Transfer(w, c.name)
			d.write(c.name+".json", request)
			c.sign(c.name, c.name+".json")
			d.drop(v, c.name+".json")
			a := v.parse(v.await(v.outbox(c.name + ".result.json")))
			d.opensslVerify(a, "sha384")
			want := strings.Join([]string{testbed.Address("from"), testbed.Address("to"), "0", "100000000", testbed.Nonce(c.name)}, "|")
			if a.Payload != want {
				t.Errorf("payload is %s, want %s", a.Payload, want)
			}
			if a.Submit == nil || a.Submit.Path != "/transfer" || a.Submit.Form["signature"] != a.Signature ||
				a.Submit.Form["checkkey"] != testbed.Nonce(c.name) {
				t.Errorf("submit is %+v", a.Submit)
			}
			v.until("the request is archived", func() bool { return len(v.list(v.path("work", "acme"))) == 0 })
		})
	}
	r.stop()
	v.none(v.inbox())
	v.none(v.rejected())
	// Each was asked by the key that signed it.
	by := map[string]int{}
	for _, ev := range v.events() {
		by[ev.Key]++
	}
	if len(by) != len(cases)+1 {
		t.Errorf("the journal names %d keys, want %d: %v", len(by), len(cases)+1, by)
	}
	v.check(true)
}

// TestWrongSigner drops requests whose signature does not entitle to anything.
func TestWrongSigner(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	good := d.sshKey("good", "-t", "ed25519")
	d.sshKey("stranger", "-t", "ecdsa")
	d.pemKey("stranger.pem", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384")
	v := newVolume(t, good, d.pemKey("good.pem", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"))
	r := v.serve()
	w := v.wallet("P-384")
	v.finished()
	answers := len(v.list(v.outbox()))
	cases := []struct {
		name string
		sign func(file string)
		code reason.Code
	}{
		{"approve", func(f string) { d.sshSign("good", "approve@signdrop", f) }, reason.SignatureNamespace},
		{"admin", func(f string) { d.sshSign("good", "admin@signdrop", f) }, reason.SignatureNamespace},
		{"git", func(f string) { d.sshSign("good", "git", f) }, reason.SignatureNamespace},
		{"file", func(f string) { d.sshSign("good", "file", f) }, reason.SignatureNamespace},
		{"empty-namespace", func(f string) { d.signEmpty("good", f) }, reason.SignatureNamespace},
		{"stranger", func(f string) { d.sshSign("stranger", "request@signdrop", f) }, reason.SignerUnknown},
		{"stranger-openssl", func(f string) { d.opensslSign("stranger.pem", f) }, reason.SignatureInvalid},
		{"sha256", func(f string) { // a listed key, and not the hash that we take
			tool(t, "openssl", "dgst", "-sha256", "-sign", d.path("good.pem"), "-out", d.path(f+".sig"), d.path(f))
		}, reason.SignatureInvalid},
		{"other-bytes", func(f string) {
			d.write("other.json", []byte("{}"))
			d.sshSign("good", "request@signdrop", "other.json")
			tool(t, "mv", d.path("other.json.sig"), d.path(f+".sig"))
		}, reason.SignatureInvalid},
		{"armour-cut", func(f string) {
			d.sshSign("good", "request@signdrop", f)
			d.write(f+".sig", d.read(f + ".sig")[:100])
		}, reason.SignatureMalformed},
	}
	for _, c := range cases {
		file := c.name + ".json"
		d.write(file, testbed.Transfer(w, c.name))
		c.sign(file)
		d.drop(v, file)
	}
	for _, c := range cases {
		if got := v.reason(c.name + ".json"); got.Code != string(c.code) {
			t.Errorf("%s: refused with %s (%s), want %s", c.name, got.Code, got.Message, c.code)
		}
		v.await(v.rejected(c.name + ".json"))
		v.await(v.rejected(c.name + ".json.sig"))
	}
	r.stop()
	if n := len(v.list(v.outbox())); n != answers {
		t.Errorf("%d answers more than before are in the outbox", n-answers)
	}
	for _, ev := range v.events() {
		if ev.Signature != "" {
			t.Errorf("something was signed: %+v", ev)
		}
	}
	v.check(true)
}

// signEmpty signs for the empty namespace, which ssh-keygen itself refuses to do.
func (d *desk) signEmpty(key, file string) {
	d.t.Helper()
	signer, err := ssh.ParsePrivateKey(d.read(key))
	if err != nil {
		d.t.Fatal(err)
	}
	sum := sha512.Sum512(d.read(file))
	const hash = "sha512"
	var magic = [6]byte([]byte("SSHSIG"))
	sig, err := signer.Sign(rand.Reader, ssh.Marshal(struct {
		Magic                          [6]byte
		Namespace, Reserved, Algorithm string
		Hash                           []byte
	}{magic, "", "", hash, sum[:]}))
	if err != nil {
		d.t.Fatal(err)
	}
	blob := ssh.Marshal(struct {
		Magic                          [6]byte
		Version                        uint32
		Key                            []byte
		Namespace, Reserved, Algorithm string
		Signature                      []byte
	}{magic, 1, signer.PublicKey().Marshal(), "", "", hash, ssh.Marshal(sig)})
	d.write(file+".sig", pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: blob}))
}

// TestNotNow drops requests whose signature is good but whose time or place is not.
func TestNotNow(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	v := newVolume(t, d.sshKey("good", "-t", "ed25519"))
	r := v.serve()
	w := v.wallet("P-384")
	id := strings.Split(r.text(), `"appliance":"`)[1][:len("SD_0123456789abcdef")]
	with := func(name, fields string) {
		request := testbed.Transfer(w, name)
		d.write(name+".json", append([]byte("{"+fields+","), request[1:]...))
		d.sshSign("good", "request@signdrop", name+".json")
		d.drop(v, name+".json")
	}
	at := func(after time.Duration) string {
		return fmt.Sprintf(`"not_after":%q`, time.Now().Add(after).Format(time.RFC3339))
	}
	with("expired", at(-time.Minute))
	with("long-expired", `"not_after":"2001-01-01T00:00:00Z"`)
	with("elsewhere", `"appliance":"SD_0000000000000000"`)
	with("in-time", at(time.Hour))
	with("here", fmt.Sprintf(`"appliance":%q`, id))
	for name, code := range map[string]reason.Code{
		"expired": reason.Expired, "long-expired": reason.Expired, "elsewhere": reason.ApplianceMismatch,
	} {
		if got := v.reason(name + ".json"); got.Code != string(code) || got.Retry || got.Reference != name {
			t.Errorf("%s: refused with %+v, want %s for good", name, got, code)
		}
	}
	for _, name := range []string{"in-time", "here"} {
		d.opensslVerify(v.parse(v.await(v.outbox(name+".result.json"))), "sha384")
	}
	r.stop()
	if got := len(v.list(v.outbox())); got != 3 {
		t.Errorf("%d answers are in the outbox, want the wallet's and two", got)
	}
	v.check(true)
}

// TestCurves signs with a wallet of each curve, each scheme and each hash, and
// verifies with what is not ours: openssl, or btcec where openssl cannot.
func TestCurves(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	v := newVolume(t)
	r := v.serve()
	data := func(wallet, hash, scheme, text string) []byte {
		if scheme != "" {
			scheme = fmt.Sprintf(`,"scheme":%q`, scheme)
		}
		return fmt.Appendf(nil, `{"type":"sign","wallet":%q,"data":{"text":%q,"hash":%q%s}}`, wallet, text, hash, scheme)
	}
	for _, curve := range []string{"P-256", "P-384", "P-521"} {
		w := v.wallet(curve)
		name := strings.ToLower(strings.Replace(curve, "-", "", 1))
		a := v.ask(name+"-transfer.json", testbed.Transfer(w, name))
		if want := "ecdsa-" + name + "-sha384"; a.Algorithm != want {
			t.Errorf("algorithm is %s, want %s", a.Algorithm, want)
		}
		d.opensslVerify(a, "sha384")
		for _, hash := range []string{"sha256", "sha384", "sha512"} {
			a := v.ask(name+"-"+hash+".json", data(w, hash, "", "héllo "+hash))
			if want := "ecdsa-" + name + "-" + hash; a.Algorithm != want {
				t.Errorf("algorithm is %s, want %s", a.Algorithm, want)
			}
			d.opensslVerify(a, hash)
		}
		for _, scheme := range []string{"ecdsa-recoverable", "schnorr"} {
			got := v.refused(name+"-"+scheme+".json", data(w, "sha256", scheme, "x"))
			if got.Code != string(reason.CurveUnsuitable) {
				t.Errorf("%s on %s: refused with %s", scheme, curve, got.Code)
			}
		}
	}
	w := v.wallet("secp256k1")
	for _, hash := range []string{"sha256", "sha384", "sha512"} {
		d.opensslVerify(v.ask("k1-"+hash+".json", data(w, hash, "ecdsa", "k1 "+hash)), hash)
	}
	checkRecoverable(t, v.ask("k1-recoverable.json", data(w, "sha256", "ecdsa-recoverable", "k1 recoverable")))
	checkSchnorr(t, v.ask("k1-schnorr.json", data(w, "sha256", "schnorr", "k1 schnorr")))
	if got := v.refused("k1-schnorr-long.json", data(w, "sha512", "schnorr", "x")); got.Code != string(reason.FieldInvalid) {
		t.Errorf("schnorr over 64 bytes: refused with %s", got.Code)
	}
	got := v.refused("k1-transfer.json", testbed.Transfer(w, "k1"))
	if got.Code != string(reason.CurveUnsuitable) || !strings.Contains(got.Hint, "P-384") {
		t.Errorf("Metacoin with secp256k1: refused with %+v", got)
	}
	r.stop()
	v.check(true)
}

// TestUploads brings requests in the ways that clients do.
func TestUploads(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve("--still=1m") // however slow this machine is
	w := v.wallet("P-256")
	put := func(name string, data []byte) { v.ok(os.WriteFile(v.inbox(name), data, 0o600)) }
	ways := map[string]func(name string, data, sig []byte){
		"request-first": func(n string, data, sig []byte) { put(n, data); put(n+".sig", sig) },
		"part-and-rename": func(n string, data, sig []byte) {
			put(n+".part", data)
			put(n+".sig.filepart", sig)
			tool(t, "mv", v.inbox(n+".part"), v.inbox(n))
			tool(t, "mv", v.inbox(n+".sig.filepart"), v.inbox(n+".sig"))
		},
		"link-and-unlink": func(n string, data, sig []byte) { // OpenSSH's server renames so
			put("."+n, data)
			put(n+".sig", sig)
			v.ok(os.Link(v.inbox("."+n), v.inbox(n)))
			tick()
			v.ok(os.Remove(v.inbox("." + n)))
		},
		"copied-in-place": func(n string, data, sig []byte) {
			d := newDesk(t)
			d.write(n, data)
			d.write(n+".sig", sig)
			tool(t, "cp", d.path(n), d.path(n+".sig"), v.inbox())
		},
		"byte-by-byte": func(n string, data, sig []byte) {
			for name, content := range map[string][]byte{n: data, n + ".sig": sig} {
				f, err := os.Create(v.inbox(name))
				v.ok(err)
				for _, b := range content {
					_, err := f.Write([]byte{b})
					v.ok(err)
				}
				v.ok(f.Close())
			}
		},
	}
	for name, way := range ways {
		data := testbed.Transfer(w, name)
		way(name+".json", data, v.acme.Sign(data))
	}
	for name := range ways {
		if a := v.parse(v.await(v.outbox(name + ".result.json"))); a.Reference != name {
			t.Errorf("%s: the answer is to %s", name, a.Reference)
		}
	}
	r.stop()
	v.none(v.rejected())
	v.none(v.inbox())
	v.check(true)
}
