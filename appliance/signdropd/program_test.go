package main_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"signdrop/appliance/reason"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
)

// TestKeyFile: a wallet whose key file others may read is not used. The partner
// learns nothing of our disk, the operator all, and everybody else is served.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	open, good := v.wallet("P-384"), v.wallet("P-256")
	r.stop()
	key := v.path("db", "companies", "acme", "wallets", open, "key.pem")
	v.ok(os.Chmod(key, 0o440))

	r = v.serve()
	refused := func(name string, data []byte) {
		t.Helper()
		v.want(name, data, reason.KeyUnusable)
		reason := v.await(v.rejected(stem(name) + ".reason.json"))
		for _, secret := range []string{v.dir, "key.pem", "0440", "companies"} {
			if bytes.Contains(reason, []byte(secret)) {
				t.Errorf("the partner is told of %q: %s", secret, reason)
			}
		}
	}
	refused("single.json", testbed.Transfer(open, "single"))
	refused("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, open, testbed.Address("from")))
	v.ask("good.json", testbed.Transfer(good, "good"))
	v.drop("mixed.jsonl", append(testbed.Transfer(open, "m1"), testbed.Transfer(good, "m2")...))
	mixed := v.lines(v.await(v.outbox("mixed.result.jsonl")))
	if len(mixed) != 2 || mixed[0].Code != string(reason.KeyUnusable) || mixed[1].Verdict != "signed" {
		t.Errorf("the batch is answered with %+v", mixed)
	}
	for _, what := range []string{"companies/acme/wallets/" + open + "/key.pem is open to others (mode 0440)", "chmod 0400"} {
		if !strings.Contains(r.text(), what) {
			t.Errorf("the log does not say %q", what)
		}
	}

	// Mended, it is used; what was refused may come again.
	v.ok(os.Chmod(key, 0o400))
	v.ask("single-again.json", testbed.Transfer(open, "single"))
	r.stop()
}

// TestKeyFileLater: the same, when it happens to a wallet that is in use.
func TestKeyFileLater(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	open, good := v.wallet("P-384"), v.wallet("P-256")
	v.ask("before.json", testbed.Transfer(open, "before"))
	v.ok(os.Chmod(v.path("db", "companies", "acme", "wallets", open, "key.pem"), 0o440))
	// Binding reads the wallet's files again.
	v.want("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, open, testbed.Address("from")), reason.KeyUnusable)
	v.ask("good.json", testbed.Transfer(good, "good"))
	if !strings.Contains(r.text(), "key.pem is open to others (mode 0440)") {
		t.Error("the log does not name the file")
	}
	r.stop()
	v.check(true)
}

// TestNoSecrets: whatever happens, no private key shows anywhere but in its file.
func TestNoSecrets(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	for _, curve := range []string{"P-256", "P-384", "P-521", "secp256k1"} {
		w := v.wallet(curve)
		v.ask("data-"+curve+".json", testbed.DataRequest(w, curve))
		v.drop("batch-"+curve+".jsonl", append(testbed.DataRequest(w, "b1"+curve), walletCreate(curve, "b2")...))
		v.await(v.outbox("batch-" + curve + ".result.jsonl"))
		v.refused("refused-"+curve+".json", testbed.Transfer(w+"0", "x"))
	}
	r.stop()
	logs := []*run{r}
	secrets := map[string]string{} // text by what it is
	wallets := v.list(v.path("db", "companies", "acme", "wallets"))
	for _, w := range wallets {
		for what, text := range secretsOf(t, v.path("db", "companies", "acme", "wallets", w, "key.pem")) {
			secrets[w+": "+what] = text
		}
	}
	if len(wallets) != 8 || len(secrets) != 8*5 {
		t.Fatalf("%d wallets and %d secrets, want 8 and 40", len(wallets), len(secrets))
	}
	// Damage of all kinds, of which the log speaks.
	for i, w := range wallets {
		key := v.path("db", "companies", "acme", "wallets", w, "key.pem")
		text, err := os.ReadFile(key)
		v.ok(err)
		v.ok(os.Chmod(key, 0o600))
		switch i % 4 {
		case 0: // a letter of the base64
			text[60] ^= 1
		case 1: // cut
			text = text[:len(text)-30]
		case 2: // another wallet's
			text, err = os.ReadFile(v.path("db", "companies", "acme", "wallets", wallets[(i+1)%8], "key.pem"))
			v.ok(err)
		case 3:
			text = append(text, text...)
		}
		v.ok(os.WriteFile(key, text, 0o600))
		v.ok(os.Chmod(key, 0o400))
	}
	r = v.serve()
	logs = append(logs, r)
	for _, w := range wallets {
		v.want("damaged-"+w+".json", testbed.DataRequest(w, "damaged"), reason.KeyUnusable)
	}
	r.stop()

	look := func(where string, data []byte) {
		for what, text := range secrets {
			if bytes.Contains(data, []byte(text)) {
				t.Errorf("%s holds the private key of %s", where, what)
			}
		}
		if bytes.Contains(data, []byte("PRIVATE")) {
			t.Errorf("%s holds something PRIVATE", where)
		}
	}
	for _, l := range logs {
		l.logLines()
		look("the log", []byte(l.text()))
	}
	files := 0
	v.ok(filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "key.pem" {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		look(path, data)
		return err
	}))
	if files < 50 {
		t.Errorf("only %d files were looked at", files)
	}
}

// secretsOf returns what would give a key away: the lines of its PEM, and the
// private number itself in the ways in which numbers are written.
func secretsOf(t testing.TB, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	var number []byte
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		number, err = key.(interface{ Bytes() ([]byte, error) }).Bytes()
		if err != nil {
			t.Fatal(err)
		}
	} else {
		// secp256k1, which x509 does not read: an OCTET STRING of 32 bytes behind
		// the version of the inner ECPrivateKey (RFC 5915).
		i := bytes.Index(block.Bytes, []byte{2, 1, 1, 4, 32})
		if i < 0 {
			t.Fatalf("no private number in %s", path)
		}
		number = block.Bytes[i+5 : i+5+32]
	}
	body := base64.StdEncoding.EncodeToString(block.Bytes)
	return map[string]string{
		"PEM":               body[32:64], // before it comes what all keys have alike
		"number":            string(number),
		"number, hex":       hex.EncodeToString(number),
		"number, HEX":       strings.ToUpper(hex.EncodeToString(number)),
		"number, in base64": base64.StdEncoding.EncodeToString(number[:30]),
	}
}

// inTheMiddle has f send a signal when a few of many requests are answered, until it
// came before all were, as f says. Where this test is slow and signdropd is not, that
// takes more requests each time.
func inTheMiddle(t *testing.T, f func(v *volume, few func() bool) bool) {
	t.Helper()
	for n := 100; n <= 3200; n *= 2 {
		v := newVolume(t)
		v.drop("w.json", walletCreate("P-256", ""))
		if status := v.once(); status != 0 {
			t.Fatalf("exit status %d", status)
		}
		w := v.parse(v.await(v.outbox("w.result.json"))).Wallet
		var drops []drop
		for i := range n {
			var b bytes.Buffer
			for j := range 30 {
				b.Write(testbed.Transfer(w, fmt.Sprintf("%d %d", i, j)))
			}
			drops = append(drops, drop{fmt.Sprintf("p%d.jsonl", i), b.Bytes(), v.acme.Sign(b.Bytes())})
		}
		v.move(drops...)
		if f(v, func() bool { return len(v.list(v.outbox())) > 3 }) {
			return
		}
	}
	t.Error("all was done before the signal came, each time: this test needs more requests")
}

// slowly is how signdropd answers one request after the other.
var slowly = []string{"--workers=1", "--group=1"}

// TestTerm: SIGTERM in the middle of a flood. What was begun is finished, the rest
// has not been touched, and the next start does it.
func TestTerm(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			inTheMiddle(t, func(v *volume, few func() bool) bool {
				r := v.begin(nil, "serve", slowly...)
				v.until("a few answers are there", few)
				r.signal(sig)
				if status := r.wait(); status != 0 {
					t.Fatalf("exit status %d", status)
				}
				v.none(v.path("work", "acme"))
				v.none(v.path("work", ".made"))
				if !strings.Contains(r.text(), `"message":"stopped"`) {
					t.Error("the log does not say that it has stopped")
				}
				if len(v.list(v.inbox())) == 0 {
					return false
				}
				if status := v.once(); status != 0 {
					t.Errorf("exit status %d of the next run", status)
				}
				v.check(true)
				return true
			})
		})
	}
}

// TestTermOnce: once says that it has not done all.
func TestTermOnce(t *testing.T) {
	t.Parallel()
	inTheMiddle(t, func(v *volume, few func() bool) bool {
		r := v.begin(nil, "once", slowly...)
		v.until("a few answers are there", few)
		r.signal(syscall.SIGTERM)
		status := r.wait()
		if len(v.list(v.inbox())) == 0 {
			return false
		}
		if status != 4 {
			t.Errorf("exit status %d, want 4 for what is left", status)
		}
		v.none(v.path("work", "acme"))
		if status := v.once(); status != 0 {
			t.Errorf("exit status %d of the next run", status)
		}
		v.check(true)
		return true
	})
}

// TestChanges: what an operator changes below db/ counts without a restart.
func TestChanges(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-256")
	company := v.path("db", "companies", "acme")
	n := 0
	// The files are looked at every second.
	refusedAs := func(code reason.Code) {
		t.Helper()
		v.until("requests are refused with "+string(code), func() bool {
			n++
			name := fmt.Sprintf("r%d.json", n)
			v.drop(name, testbed.Transfer(w, name))
			v.finished()
			return v.refusedWith(name) == code
		})
	}
	answered := func() {
		t.Helper()
		v.until("requests are answered", func() bool {
			n++
			name := fmt.Sprintf("r%d.json", n)
			v.drop(name, testbed.Transfer(w, name))
			v.finished()
			return v.refusedWith(name) == ""
		})
	}

	v.ok(os.WriteFile(filepath.Join(company, "company.json"), []byte(`{"name":"acme","status":"disabled"}`), 0o600))
	refusedAs(reason.CompanyDisabled)
	v.ok(os.WriteFile(filepath.Join(company, "company.json"), []byte(`{"name":"acme","status":"active"}`), 0o600))
	signers, err := os.ReadFile(filepath.Join(company, "allowed_signers"))
	v.ok(err)
	v.ok(os.WriteFile(filepath.Join(company, "allowed_signers"), nil, 0o600))
	refusedAs(reason.SignerUnknown)
	v.ok(os.WriteFile(filepath.Join(company, "allowed_signers"), signers, 0o600))
	answered()

	// Another company.
	beta := testbed.NewPartner("beta")
	s, err := setup.ReadSigner([]byte(beta.PublicKey()), "beta")
	v.ok(err)
	_, err = setup.MakeDisk(v.dir, setup.Plan{Company: "beta", Signers: []setup.Signer{s}})
	v.ok(err)
	data := walletCreate("P-256", "")
	v.put(v.path("spool", "beta", "inbox", "w.json.sig"), beta.Sign(data))
	v.put(v.path("spool", "beta", "inbox", "w.json"), data)
	if a := v.parse(v.await(v.path("spool", "beta", "outbox", "w.result.json"))); a.Wallet == w {
		t.Error("two companies share a wallet's id")
	}
	// A wallet is its company's.
	data = testbed.Transfer(w, "theft")
	v.put(v.path("spool", "beta", "inbox", "theft.json.sig"), beta.Sign(data))
	v.put(v.path("spool", "beta", "inbox", "theft.json"), data)
	if a := v.parse(v.await(v.path("spool", "beta", "rejected", "theft.reason.json"))); a.Code != string(reason.WalletUnknown) {
		t.Errorf("another company's wallet: refused with %+v", a)
	}
	r.stop()
	v.check(true)
}

// refusedWith is the code with which a request was refused, "" if it was not.
func (v *volume) refusedWith(name string) reason.Code {
	v.t.Helper()
	data, err := os.ReadFile(v.rejected(stem(name) + ".reason.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	v.ok(err)
	return reason.Code(v.parse(data).Code)
}

// TestGroup: the partner's group can read what is for it, and nobody else can,
// whatever the umask of the service is.
func TestGroup(t *testing.T) {
	t.Parallel()
	for _, umask := range []string{"000", "022", "077"} {
		t.Run(umask, func(t *testing.T) {
			v := bareVolume(t)
			gid := os.Getgid()
			if os.Getuid() == 0 {
				gid = 54321 // any but root's
			}
			s, err := setup.ReadSigner([]byte(v.acme.PublicKey()), "acme")
			v.ok(err)
			_, err = setup.MakeDisk(v.dir, setup.Plan{Company: "acme", Signers: []setup.Signer{s}, Group: &gid})
			v.ok(err)
			v.drop("make.json", walletCreate("P-256", ""))
			v.drop("bad.json", []byte(`{"type":"nonsense"}`))
			r := v.begin([]string{"sh", "-c", "umask " + umask + `; exec "$@"`, "sh"}, "once")
			if status := r.wait(); status != 3 {
				t.Fatalf("exit status %d", status)
			}
			for _, path := range []string{v.outbox("make.result.json"), v.rejected("bad.reason.json")} {
				info, err := os.Stat(path)
				v.ok(err)
				if got := info.Sys().(*syscall.Stat_t).Gid; info.Mode() != 0o640 || int(got) != gid {
					t.Errorf("%s has mode %v and group %d, want 0640 and %d", path, info.Mode(), got, gid)
				}
			}
			// Below db/, work/, journal/, index/ and archive/ nothing is for anybody else.
			for _, top := range []string{"db", "work", "journal", "index", "archive"} {
				v.ok(filepath.WalkDir(v.path(top), func(path string, d fs.DirEntry, err error) error {
					if err != nil {
						return err
					}
					info, err := d.Info()
					if err == nil && info.IsDir() && info.Mode().Perm()&0o077 != 0 {
						t.Errorf("%s has mode %v", path, info.Mode())
					}
					if err == nil && info.Mode().IsRegular() && top != "archive" && info.Mode().Perm()&0o077 != 0 {
						t.Errorf("%s has mode %v", path, info.Mode())
					}
					return err
				}))
			}
			v.check(true)
		})
	}
}

// TestFullDisk: without room for the answers nothing is claimed. Serve waits for
// room, once says so and exits.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-256")
	v.finished()
	r.stop()
	const all = "--reserve=1000000000000000000"
	r = v.serve(all)
	v.drop("waits.json", testbed.Transfer(w, "waits"))
	r.logged("data volume is nearly full")
	r.stop()
	v.none(v.path("work", "acme"))
	if status := v.once(all); status != 1 {
		t.Errorf("exit status %d of once on a full disk, want 1", status)
	}
	v.none(v.path("work", "acme"))
	if report := v.check(false); report.Waiting != 1 {
		t.Errorf("%d requests wait, want 1", report.Waiting)
	}
	if status := v.once(); status != 0 {
		t.Errorf("exit status %d of once with room", status)
	}
	v.check(true)
}
