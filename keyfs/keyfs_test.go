package keyfs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"signdrop/keyfs"
)

func TestOpenChecksDirectory(t *testing.T) {
	v := newVolume(t)
	for _, mode := range []os.FileMode{0o755, 0o701, 0o770} {
		must(t, os.Chmod(v.path, mode))
		_, err := keyfs.Open(v.db(), keyfs.Options{})
		want := fmt.Sprintf("db is open to others (mode %04o): find out who could use it, then chmod 0700", mode)
		wantDamaged(t, err, want)
	}
	must(t, os.Chmod(v.path, 0o700))
	v.open(keyfs.Options{})

	if _, err := keyfs.Open(v.db(), keyfs.Options{Cache: -1}); !errors.Is(err, keyfs.ErrInvalid) {
		t.Errorf("a negative cache: got %v, want ErrInvalid", err)
	}
	if _, err := keyfs.Open(v.db(), keyfs.Options{Recheck: 3}); !errors.Is(err, keyfs.ErrInvalid) {
		t.Errorf("an unknown recheck: got %v, want ErrInvalid", err)
	}
}

func TestParseRecheck(t *testing.T) {
	for name, want := range map[string]keyfs.Recheck{
		"verify": keyfs.RecheckVerify, "repeat": keyfs.RecheckRepeat, "off": keyfs.RecheckOff,
	} {
		got, err := keyfs.ParseRecheck(name)
		if err != nil || got != want || got.String() != name {
			t.Errorf("ParseRecheck(%q) = %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "Verify", "on", "off "} {
		if _, err := keyfs.ParseRecheck(name); !errors.Is(err, keyfs.ErrInvalid) {
			t.Errorf("ParseRecheck(%q): got %v, want ErrInvalid", name, err)
		}
	}
	var o keyfs.Options
	if o.Recheck != keyfs.RecheckVerify {
		t.Error("the zero Options do not verify")
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 129)
	for _, c := range []struct {
		kind  string
		valid func(string) bool
		good  []string
		bad   []string
	}{
		{"company", keyfs.ValidCompany,
			[]string{"a", "7", "acme", "acme-2", long[:32]},
			[]string{"", "-a", "Acme", "a_b", "a.b", "..", "a/b", "a\x00", "ä", long[:33]}},
		{"id", keyfs.ValidID,
			[]string{"W_1", "abc", "W_a-Z09", long[:64]},
			[]string{"", "W_", "W_1/", "../W", ".W_1", "W_1.new", "W 1", "W_\n1", "W_é", long[:65]}},
		{"address", keyfs.ValidAddress,
			[]string{"M", "MT1", long[:128]},
			[]string{"", "M_T", "M-T", ".MT", "M/T", "MT\n", "0x é", long}},
	} {
		for _, s := range c.good {
			if !c.valid(s) {
				t.Errorf("%s %q is refused", c.kind, s)
			}
		}
		for _, s := range c.bad {
			if c.valid(s) {
				t.Errorf("%s %q is accepted", c.kind, s)
			}
		}
	}
}

// Every method refuses names that could leave their directory, and touches
// nothing.
func TestInvalidNames(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	v.create(s, "W_1", keyfs.P256)
	before := tree(t, v)
	for _, c := range []struct{ company, id, address string }{
		{"..", "W_1", "MT1"}, {"", "W_1", "MT1"}, {"acme/../acme", "W_1", "MT1"},
		{company, "../W_1", "../W_1"}, {company, ".W_1.new", ".MT1.new"}, {company, "", ""},
	} {
		_, err1 := s.Lookup(c.company, c.id)
		_, err2 := s.ByAddress(c.company, c.address)
		_, err3 := s.Bind(c.company, c.id, c.address)
		_, err4 := s.Create(c.company, []keyfs.Spec{{ID: c.id, Curve: keyfs.P256}}, v.fs)
		for i, err := range []error{err1, err2, err3, err4} {
			if !errors.Is(err, keyfs.ErrInvalid) || !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%+v, call %d: got %v, want ErrInvalid", c, i+1, err)
			}
		}
	}
	_, err := s.Create(company, []keyfs.Spec{{ID: "W_2", Curve: "P-224"}}, v.fs)
	want := `curve "P-224" is none of P-256, P-384, P-521, secp256k1: not of its form (invalid argument)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if after := tree(t, v); after != before {
		t.Errorf("the files have changed:\n%s\nwere\n%s", after, before)
	}
}

func TestCreate(t *testing.T) {
	for _, curve := range allCurves {
		t.Run(string(curve), func(t *testing.T) {
			v := newVolume(t)
			s := v.open(keyfs.Options{})
			made := v.create(s, "W_1", curve)
			if made.ID() != "W_1" || made.Curve() != curve || made.Address() != "" || !made.Active() {
				t.Errorf("got id %q, curve %q, address %q, active %v", made.ID(), made.Curve(), made.Address(), made.Active())
			}

			var got map[string]string
			b, err := os.ReadFile(v.inWallet("W_1", "wallet.json"))
			must(t, err)
			must(t, json.Unmarshal(b, &got))
			want := map[string]string{"id": "W_1", "curve": string(curve), "public_key": made.PublicPEM(), "status": "active"}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("wallet.json: got %v, want %v", got, want)
			}
			wantTree := `companies/acme/wallets 0700
companies/acme/wallets/W_1 0700
companies/acme/wallets/W_1/key.pem 0400
companies/acme/wallets/W_1/wallet.json 0400
`
			if got := tree(t, v); got != wantTree {
				t.Errorf("got files\n%swant\n%s", got, wantTree)
			}

			d := digest(t, "SHA-256", "message")
			first, err := made.Sign(keyfs.ECDSA, d)
			must(t, err)

			// Done again, by the same and by another Store: the same wallet.
			for _, s := range []*keyfs.Store{s, v.open(keyfs.Options{})} {
				again := v.create(s, "W_1", curve)
				found, err := s.Lookup(company, "W_1")
				must(t, err)
				for _, w := range []*keyfs.Wallet{again, found} {
					sig, err := w.Sign(keyfs.ECDSA, d)
					must(t, err)
					if w.PublicPEM() != made.PublicPEM() || !bytes.Equal(sig, first) {
						t.Error("the wallet has changed")
					}
				}
			}
		})
	}
}

func TestCreateMany(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{Cache: 10})
	old := v.create(s, "W_0042", keyfs.P256)

	const n = 500 // more than one goroutine's share
	var specs []keyfs.Spec
	for i := range n {
		specs = append(specs, keyfs.Spec{ID: fmt.Sprintf("W_%04d", i), Curve: keyfs.P256})
	}
	specs = append(specs, specs[7]) // the same twice
	ws, err := s.Create(company, specs, v.fs)
	must(t, err)
	keys := map[string]bool{}
	for i, w := range ws {
		if w.ID() != specs[i].ID {
			t.Fatalf("wallet %d: got %s, want %s", i, w.ID(), specs[i].ID)
		}
		keys[w.PublicPEM()] = true
	}
	if len(keys) != n {
		t.Errorf("got %d different keys, want %d", len(keys), n)
	}
	if ws[42].PublicPEM() != old.PublicPEM() || ws[n].PublicPEM() != ws[7].PublicPEM() {
		t.Error("a wallet was made twice")
	}
	if st := survey(t, v.disk); len(st.wallets) != n || len(st.temps) != 0 {
		t.Errorf("got %d wallets and temporary files %q on disk, want %d and none", len(st.wallets), st.temps, n)
	}
	if ws, err := s.Create(company, nil, v.fs); err != nil || len(ws) != 0 {
		t.Errorf("no spec: got %v, %v", ws, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	v.create(s, "W_1", keyfs.P256)
	before := tree(t, v)
	for _, c := range []struct {
		company string
		specs   []keyfs.Spec
		want    error
		message string
	}{
		{company, []keyfs.Spec{{ID: "W_2", Curve: keyfs.P384}, {ID: "W_1", Curve: keyfs.P384}}, keyfs.ErrCurve,
			"making wallets of company acme: wallet acme/W_1 is on P-256, not on P-384: the wallet is on another curve"},
		{company, []keyfs.Spec{{ID: "W_2", Curve: keyfs.P384}, {ID: "W_2", Curve: keyfs.P521}}, keyfs.ErrCurve,
			"wallet W_2 is asked for on P-384 and on P-521: the wallet is on another curve"},
		{"other", []keyfs.Spec{{ID: "W_2", Curve: keyfs.P384}}, keyfs.ErrUnknown,
			"company other: no such wallet or company (file does not exist)"},
	} {
		ws, err := s.Create(c.company, c.specs, v.fs)
		if !errors.Is(err, c.want) || err.Error() != c.message {
			t.Errorf("got  %v\nwant %s", err, c.message)
		}
		if ws != nil {
			t.Error("a wallet was returned")
		}
		if after := tree(t, v); after != before {
			t.Errorf("the files have changed:\n%s\nwere\n%s", after, before)
		}
	}
}

func TestBrokenRandomness(t *testing.T) {
	v := newVolume(t)
	for _, c := range []struct {
		source  string
		random  func() keyfs.Options
		message string
	}{
		{"zeros", func() keyfs.Options { return keyfs.Options{Rand: endless(0)} }, "the source of randomness is broken"},
		{"ones", func() keyfs.Options { return keyfs.Options{Rand: endless(0xff)} }, "the source of randomness is broken"},
		{"error", func() keyfs.Options { return keyfs.Options{Rand: iotest.ErrReader(errors.New("no entropy"))} }, "no entropy"},
	} {
		for _, curve := range allCurves {
			s := v.open(c.random())
			ws, err := s.Create(company, []keyfs.Spec{{ID: "W_1", Curve: curve}}, v.fs)
			want := "making wallets of company acme: making the key of wallet W_1: " + c.message
			if ws != nil || err == nil || err.Error() != want {
				t.Errorf("%s, %s: got %v, %v, want %s", c.source, curve, ws, err, want)
			}
			if st := survey(t, v.disk); len(st.wallets)+len(st.temps) != 0 {
				t.Errorf("%s, %s: files are left: %+v", c.source, curve, st)
			}
		}
	}
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestUnknown(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	check := func(err error, want string) {
		t.Helper()
		if !errors.Is(err, keyfs.ErrUnknown) || !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for range 2 { // without and with the directories
		_, err := s.Lookup(company, "W_9")
		check(err, "wallet acme/W_9: no such wallet or company (file does not exist)")
		_, err = s.Lookup("other", "W_9")
		check(err, "wallet other/W_9: no such wallet or company (file does not exist)")
		_, err = s.ByAddress(company, "MT9")
		check(err, "address acme/MT9: no such wallet or company (file does not exist)")
		_, err = s.Bind(company, "W_9", "MT9")
		check(err, "wallet acme/W_9: no such wallet or company (file does not exist)")
		v.create(s, "W_1", keyfs.P256)
		_, err = s.Bind(company, "W_1", "MT1")
		must(t, err)
	}
}

func TestBind(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	one := v.create(s, "W_1", keyfs.P384)
	v.create(s, "W_2", keyfs.P384)

	for _, s := range []*keyfs.Store{s, s, v.open(keyfs.Options{})} { // again is a success
		bound, err := s.Bind(company, "W_1", "MT1")
		must(t, err)
		byID, err := s.Lookup(company, "W_1")
		must(t, err)
		byAddress, err := s.ByAddress(company, "MT1")
		must(t, err)
		for _, w := range []*keyfs.Wallet{bound, byID, byAddress} {
			if w.ID() != "W_1" || w.Address() != "MT1" || w.PublicPEM() != one.PublicPEM() || !w.Active() {
				t.Errorf("got wallet %s with address %q", w.ID(), w.Address())
			}
			_, err := w.Sign(keyfs.ECDSA, make([]byte, 48))
			must(t, err)
		}
	}
	if one.Address() != "" {
		t.Error("a Wallet has changed")
	}
	wantTree := `companies/acme/addresses 0700
companies/acme/addresses/MT1 0400
companies/acme/wallets 0700
companies/acme/wallets/W_1 0700
companies/acme/wallets/W_1/key.pem 0400
companies/acme/wallets/W_1/wallet.json 0400
companies/acme/wallets/W_2 0700
companies/acme/wallets/W_2/key.pem 0400
companies/acme/wallets/W_2/wallet.json 0400
`
	if got := tree(t, v); got != wantTree {
		t.Errorf("got files\n%swant\n%s", got, wantTree)
	}

	for _, c := range []struct{ id, address, message string }{
		{"W_1", "MT2", "wallet acme/W_1 has the address MT1: bound already"},
		{"W_2", "MT1", "address MT1 belongs to another wallet: bound already"},
	} {
		w, err := s.Bind(company, c.id, c.address)
		if w != nil || !errors.Is(err, keyfs.ErrBound) || err.Error() != c.message {
			t.Errorf("got %v, %v, want %s", w, err, c.message)
		}
	}
	if got := tree(t, v); got != wantTree {
		t.Errorf("a refused Bind left files\n%s", got)
	}
	two, err := s.Bind(company, "W_2", "MT2")
	must(t, err)
	if two.Address() != "MT2" {
		t.Errorf("got address %q, want MT2", two.Address())
	}

	// Another company has addresses of its own.
	must(t, os.Mkdir(v.file("companies/other"), 0o700))
	_, err = s.Create("other", []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256}}, v.fs)
	must(t, err)
	_, err = s.ByAddress("other", "MT1")
	if !errors.Is(err, keyfs.ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
	w, err := s.Bind("other", "W_1", "MT1")
	must(t, err)
	if w.PublicPEM() == one.PublicPEM() {
		t.Error("two companies share a wallet")
	}
}

func TestDisabled(t *testing.T) {
	v := newVolume(t)
	v.create(v.open(keyfs.Options{}), "W_1", keyfs.P256)
	rewrite(t, v.inWallet("W_1", "wallet.json"), func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"active"`), []byte(`"disabled"`), 1)
	})
	w, err := v.open(keyfs.Options{}).Lookup(company, "W_1")
	must(t, err)
	sig, err := w.Sign(keyfs.ECDSA, make([]byte, 32))
	if w.Active() || sig != nil || !errors.Is(err, keyfs.ErrDisabled) {
		t.Errorf("got active %v, signature %x, %v", w.Active(), sig, err)
	}
}

func TestSignRefuses(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	p384 := v.create(s, "W_1", keyfs.P384)
	secp := v.create(s, "W_2", keyfs.Secp256k1)
	for _, c := range []struct {
		w       *keyfs.Wallet
		scheme  keyfs.Scheme
		length  int
		want    error
		message string
	}{
		{p384, keyfs.ECDSA, 0, keyfs.ErrDigest, "signing with wallet acme/W_1: the digest has the wrong length: it has 0 bytes, want 32, 48 or 64"},
		{p384, keyfs.ECDSA, 20, keyfs.ErrDigest, "signing with wallet acme/W_1: the digest has the wrong length: it has 20 bytes, want 32, 48 or 64"},
		{secp, keyfs.ECDSA, 33, keyfs.ErrDigest, "signing with wallet acme/W_2: the digest has the wrong length: it has 33 bytes, want 32, 48 or 64"},
		{secp, keyfs.Schnorr, 48, keyfs.ErrDigest, "signing with wallet acme/W_2: the digest has the wrong length: it has 48 bytes, want 32"},
		{secp, keyfs.ECDSARecoverable, 64, keyfs.ErrDigest, "signing with wallet acme/W_2: the digest has the wrong length: it has 64 bytes, want 32"},
		{p384, keyfs.Schnorr, 32, keyfs.ErrCurve, "signing with wallet acme/W_1: the wallet is on another curve: it is P-384, and the scheme needs secp256k1"},
		{p384, keyfs.ECDSARecoverable, 32, keyfs.ErrCurve, "signing with wallet acme/W_1: the wallet is on another curve: it is P-384, and the scheme needs secp256k1"},
		{p384, keyfs.Scheme(9), 32, keyfs.ErrInvalid, "signing with wallet acme/W_1: scheme 9: not of its form (invalid argument)"},
	} {
		sig, err := c.w.Sign(c.scheme, make([]byte, c.length))
		if sig != nil || !errors.Is(err, c.want) || err.Error() != c.message {
			t.Errorf("got  %x, %v\nwant %s", sig, err, c.message)
		}
	}
}

// A signature that a fault disturbs never leaves, and its wallet never signs
// again in this process, however it is found.
func TestFault(t *testing.T) {
	for _, c := range []struct {
		curve  keyfs.Curve
		scheme keyfs.Scheme
	}{
		{keyfs.P256, keyfs.ECDSA}, {keyfs.P384, keyfs.ECDSA}, {keyfs.P521, keyfs.ECDSA},
		{keyfs.Secp256k1, keyfs.ECDSA}, {keyfs.Secp256k1, keyfs.ECDSARecoverable}, {keyfs.Secp256k1, keyfs.Schnorr},
	} {
		for _, recheck := range []keyfs.Recheck{keyfs.RecheckVerify, keyfs.RecheckRepeat} {
			t.Run(fmt.Sprint(c.curve, c.scheme, recheck), func(t *testing.T) {
				v := newVolume(t)
				s := v.open(keyfs.Options{Recheck: recheck, Cache: 1})
				v.create(s, "W_1", c.curve)
				w, err := s.Bind(company, "W_1", "MT1")
				must(t, err)
				other, err := v.open(keyfs.Options{}).Lookup(company, "W_1") // another process
				must(t, err)
				d := digest(t, "SHA-256", "message")
				good, err := w.Sign(c.scheme, d)
				must(t, err)

				calls := 0
				keyfs.DisturbedKey(w, func(sig []byte) {
					if calls++; calls == 1 {
						sig[len(sig)-1] ^= 1
					}
				})
				for range 2 {
					if sig, err := w.Sign(c.scheme, d); sig != nil || !errors.Is(err, keyfs.ErrFault) {
						t.Fatalf("got %x, %v, want ErrFault", sig, err)
					}
				}
				v.create(s, "W_2", c.curve) // puts W_1 out of memory
				byID, err := s.Lookup(company, "W_1")
				must(t, err)
				byAddress, err := s.ByAddress(company, "MT1")
				must(t, err)
				for _, again := range []*keyfs.Wallet{byID, byAddress} {
					if sig, err := again.Sign(c.scheme, d); sig != nil || !errors.Is(err, keyfs.ErrFault) {
						t.Errorf("loaded again: got %x, %v, want ErrFault", sig, err)
					}
				}
				if sig, err := other.Sign(c.scheme, d); err != nil || !bytes.Equal(sig, good) {
					t.Errorf("another process: got %x, %v, want %x", sig, err, good)
				}
				w2, err := s.Lookup(company, "W_2")
				must(t, err)
				if _, err := w2.Sign(c.scheme, d); err != nil {
					t.Errorf("another wallet: %v", err)
				}
			})
		}
	}

	t.Run("off", func(t *testing.T) {
		v := newVolume(t)
		w := v.create(v.open(keyfs.Options{Recheck: keyfs.RecheckOff}), "W_1", keyfs.P256)
		keyfs.DisturbedKey(w, func(sig []byte) { sig[len(sig)-1] ^= 1 })
		if sig, err := w.Sign(keyfs.ECDSA, make([]byte, 32)); err != nil || sig == nil {
			t.Errorf("got %x, %v, want the wrong signature", sig, err)
		}
	})
}

// A wallet in memory costs no call to the file system, and no more of them are
// held than Options say.
func TestCache(t *testing.T) {
	v, f := newFaulty(t)
	s := v.open(keyfs.Options{Cache: 2})
	for _, id := range []string{"W_1", "W_2", "W_3"} {
		v.create(v.open(keyfs.Options{}), id, keyfs.P256)
	}
	_, err := v.open(keyfs.Options{}).Bind(company, "W_1", "MT1")
	must(t, err)

	lookup := func(id string) { _, err := s.Lookup(company, id); must(t, err) }
	byAddress := func(string) { _, err := s.ByAddress(company, "MT1"); must(t, err) }
	for i, step := range []struct {
		do    func(string)
		id    string
		reads bool
	}{
		{lookup, "W_1", true}, {lookup, "W_1", false},
		{byAddress, "", true}, {byAddress, "", false},
		{lookup, "W_2", true}, {lookup, "W_1", false}, {byAddress, "", false},
		{lookup, "W_3", true}, // W_2 goes, W_1 was used since
		{lookup, "W_1", false}, {byAddress, "", false}, {lookup, "W_3", false},
		{lookup, "W_2", true}, // W_1 goes, with its address
		{lookup, "W_3", false}, {byAddress, "", true}, {lookup, "W_1", false},
	} {
		before := f.calls()
		step.do(step.id)
		if reads := f.calls() > before; reads != step.reads {
			t.Errorf("step %d: reads files: %v, want %v", i, reads, step.reads)
		}
	}
}

// A wallet that was read before a Bind and comes after it is not held: it would
// be without its address for as long as it is.
func TestCacheBehindBind(t *testing.T) {
	v, f := newFaulty(t)
	v.create(v.open(keyfs.Options{}), "W_1", keyfs.P256)
	v.create(v.open(keyfs.Options{}), "W_2", keyfs.P256)
	s := v.open(keyfs.Options{Cache: 1})
	f.stall = func(call string) {
		if call != "open key.pem" { // wallet.json has been read
			return
		}
		f.stall = nil
		_, err := s.Bind(company, "W_1", "MT1")
		must(t, err)
		_, err = s.Lookup(company, "W_2") // puts W_1 out of memory
		must(t, err)
	}
	before, err := s.Lookup(company, "W_1")
	must(t, err)
	after, err := s.Lookup(company, "W_1")
	must(t, err)
	if before.Address() != "" || after.Address() != "MT1" {
		t.Errorf("got address %q and then %q, want none and then MT1", before.Address(), after.Address())
	}
}

func TestConcurrent(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{Cache: 3, Recheck: keyfs.RecheckRepeat})
	const wallets, rounds = 8, 20
	var specs []keyfs.Spec
	for i := range wallets {
		specs = append(specs, keyfs.Spec{ID: fmt.Sprintf("W_%d", i), Curve: allCurves[i%len(allCurves)]})
	}
	made, err := s.Create(company, specs, v.fs)
	must(t, err)
	d := digest(t, "SHA-256", "message")
	want := make([][]byte, wallets)
	for i, w := range made {
		want[i], err = w.Sign(keyfs.ECDSA, d)
		must(t, err)
	}

	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for r := range rounds {
				i := (g + r) % wallets
				address := "MT" + strconv.Itoa(i)
				var w *keyfs.Wallet
				var err error
				switch r % 4 {
				case 0:
					w, err = s.Lookup(company, specs[i].ID)
				case 1:
					w, err = s.Bind(company, specs[i].ID, address)
				case 2:
					var ws []*keyfs.Wallet
					if ws, err = s.Create(company, specs[i:i+1], v.fs); err == nil {
						w = ws[0]
					}
				case 3:
					w, err = s.ByAddress(company, address)
					if errors.Is(err, keyfs.ErrUnknown) {
						continue
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				sig, err := w.Sign(keyfs.ECDSA, d)
				if err != nil || !bytes.Equal(sig, want[i]) {
					t.Errorf("wallet %d: got %x, %v, want %x", i, sig, err, want[i])
				}
			}
		})
	}
	wg.Wait()
	for i := range wallets {
		w, err := s.Bind(company, specs[i].ID, "MT"+strconv.Itoa(i))
		must(t, err)
		held, err := s.Lookup(company, specs[i].ID)
		must(t, err)
		if held.Address() != w.Address() {
			t.Errorf("wallet %d: memory has address %q, want %q", i, held.Address(), w.Address())
		}
	}
	survey(t, v.disk)
}

func TestProtectedGuest(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]bool{"1\n": true, "1": true, "0\n": false, "": false, "yes": false, " 1": false} {
		name := filepath.Join(dir, "prot_virt_guest")
		must(t, os.WriteFile(name, []byte(content), 0o600))
		if got := keyfs.ProtectedGuestAt(name, false); got != want {
			t.Errorf("with %q: got %v, want %v", content, got, want)
		}
		if keyfs.ProtectedGuestAt(name, true) {
			t.Errorf("with %q: a file that is not the kernel's says protected", content)
		}
	}
	for _, genuine := range []bool{false, true} {
		if keyfs.ProtectedGuestAt(filepath.Join(dir, "missing"), genuine) || keyfs.ProtectedGuestAt(dir, genuine) {
			t.Error("a missing file says protected")
		}
	}
	// The loopback interface is the first of every network namespace: a file of the
	// kernel's that says 1.
	if !keyfs.ProtectedGuestAt("/sys/class/net/lo/ifindex", true) {
		t.Error("a file of sysfs that says 1 does not say protected")
	}
	keyfs.ProtectedGuest() // whatever this machine is
}

// keyfs knows nothing of the signing path: it may import the file system's
// interface and cryptography only.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	must(t, err)
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		must(t, err)
		seen++
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			must(t, err)
			first, _, _ := strings.Cut(path, "/")
			if strings.Contains(first, ".") || first == "signdrop" {
				if path != "signdrop/spool/durable" && path != "signdrop/keyfs/hd" && path != "signdrop/keyfs/seal" &&
					path != "github.com/btcsuite/btcd/address/v2" &&
					!strings.HasPrefix(path, "golang.org/x/crypto/") &&
					!strings.HasPrefix(path, "github.com/btcsuite/btcd/btcec/v2") {
					t.Errorf("%s imports %s", name, path)
				}
			}
		}
	}
	if seen == 0 {
		t.Error("no file was looked at")
	}
}

func wantDamaged(t *testing.T, err error, want string) {
	t.Helper()
	var d *keyfs.Damaged
	if !errors.As(err, &d) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
