package keyfs_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"signdrop/keyfs"
	"signdrop/keyfs/hd"
	"signdrop/spool/durable"
)

// everyFailure calls try for each way to fail and for each call of what try
// does: the first, the second and so on. try reports whether it got as far as
// that call.
func everyFailure(t *testing.T, try func(t *testing.T, how failure, at int) bool) {
	// With -short every third call: the whole is for the run without it.
	step := 1
	if testing.Short() {
		step = 3
	}
	for how := range wouldFail {
		t.Run(how.String(), func(t *testing.T) {
			at := 1 - step
			for reached := true; reached && !t.Failed(); {
				at += step
				t.Run(fmt.Sprint(at), func(t *testing.T) { reached = try(t, how, at) })
			}
			t.Logf("%d calls", at-1)
			if at < 15 && !t.Failed() {
				t.Errorf("only %d calls went wrong in turn", at-1)
			}
		})
	}
}

// makeFunc is Create or Import for the wallets W_1, W_old and W_2, or for the last
// of them alone.
type makeFunc func(s *keyfs.Store, vol durable.FS) ([]*keyfs.Wallet, error)

var threeWallets = []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256}, {ID: "W_old", Curve: keyfs.P256}, {ID: "W_2", Network: hd.Test}}

// makers are the two ways in which wallets come to be. old makes W_old alone.
func makers(t *testing.T) map[string]struct{ all, old makeFunc } {
	t.Helper()
	var imports []keyfs.ImportSpec
	for _, spec := range threeWallets {
		if spec.Network != "" {
			key, err := keyfs.KeyOfWords([]byte(vectorWords), nil, spec.Network)
			must(t, err)
			imports = append(imports, keyfs.ImportSpec{ID: spec.ID, PrivateKeyPEM: key, Network: spec.Network})
			continue
		}
		imports = append(imports, keyfs.ImportSpec{ID: spec.ID, PrivateKeyPEM: newKey(t, spec.Curve)})
	}
	return map[string]struct{ all, old makeFunc }{
		"create": {
			func(s *keyfs.Store, vol durable.FS) ([]*keyfs.Wallet, error) {
				return s.Create(company, threeWallets, vol)
			},
			func(s *keyfs.Store, vol durable.FS) ([]*keyfs.Wallet, error) {
				return s.Create(company, threeWallets[1:2], vol)
			},
		},
		"import": {
			func(s *keyfs.Store, vol durable.FS) ([]*keyfs.Wallet, error) {
				return s.Import(company, imports, vol)
			},
			func(s *keyfs.Store, vol durable.FS) ([]*keyfs.Wallet, error) {
				return s.Import(company, imports[1:2], vol)
			},
		},
	}
}

// Whatever goes wrong while wallets are made: no key is returned, none is lost
// or half there, no temporary file stays, and doing it again finishes.
func TestCreateFaults(t *testing.T) {
	for name, maker := range makers(t) {
		befores := []string{"new company", "a wallet exists", "a crash left files"}
		if name == "import" && testing.Short() {
			befores = befores[2:] // import shares create's code
		}
		t.Run(name, func(t *testing.T) { testCreateFaults(t, maker.all, maker.old, befores) })
	}
}

func testCreateFaults(t *testing.T, makeAll, makeOld makeFunc, befores []string) {
	specs := threeWallets
	for _, before := range befores {
		t.Run(before, func(t *testing.T) {
			everyFailure(t, func(t *testing.T, how failure, at int) bool {
				v, f := newFaulty(t)
				if before != "new company" {
					_, err := makeOld(v.open(keyfs.Options{}), v.fs)
					must(t, err)
				}
				if before == "a crash left files" {
					must(t, os.Mkdir(v.inWallet(".W_2.new", ""), 0o700))
					must(t, os.WriteFile(v.inWallet(".W_2.new", "key.pem"), []byte("-----BEGIN PRI"), 0o400))
				}
				first := survey(t, v.disk)

				s := v.open(keyfs.Options{})
				f.start(at, how)
				ws, err := makeAll(s, f)
				log := f.stop()

				// A failure may be of no account, as that of closing a file that
				// was read; none is a success without the wallets.
				failed := survey(t, v.disk)
				keep(t, first, failed)
				if err == nil {
					wantWallets(t, failed, specs, ws)
				} else if ws != nil {
					t.Error("wallets were returned with an error")
				}
				if how != killed {
					wantTrace(t, v, first, failed, "wallets", log, how, at, err)
					ws, again := makeAll(s, f)
					switch {
					case !errors.Is(err, keyfs.ErrRestart):
						must(t, again)
						wantWallets(t, survey(t, v.disk), specs, ws)
					case !errors.Is(again, keyfs.ErrRestart) || ws != nil:
						t.Errorf("after a failed sync: got %v, %v, want ErrRestart", ws, again)
					}
				}

				// The program starts again, and the request is done again.
				ws, err = makeAll(v.open(keyfs.Options{}), f)
				must(t, err)
				last := survey(t, v.disk)
				keep(t, failed, last)
				wantWallets(t, last, specs, ws)
				if len(last.temps) > 0 {
					t.Errorf("%q are left", last.temps)
				}
				return len(log) >= at
			})
		})
	}
}

// wantTrace checks what a failure of one call leaves behind, and whether it is
// the end of the Store. dir is the directory that is made on demand.
func wantTrace(t *testing.T, v *volume, first, failed state, dir string, log []string, how failure, at int, err error) {
	t.Helper()
	for _, name := range failed.temps {
		if !slices.Contains(first.temps, name) {
			t.Errorf("%s is left", name)
		}
	}
	if len(log) < at {
		return
	}
	made := func(call string) bool {
		return slices.ContainsFunc(log[:at], func(c string) bool { return strings.HasPrefix(c, call) })
	}
	// The call that went wrong made the directory, or was to make it durable.
	if err != nil && made("mkdir "+dir) && !made("stat ") {
		if _, err := os.Stat(v.file("companies", company, dir)); !os.IsNotExist(err) {
			t.Errorf("%s is left, and may not be durable", dir)
		}
	}
	// Names had changed when the sync failed, or may have.
	call := log[at-1]
	unknown := call == "syncdir" && (made("move ") || made("replace ")) ||
		strings.HasPrefix(call, "replace ") && how == reported
	if got := errors.Is(err, keyfs.ErrRestart); got != unknown {
		t.Errorf("%s failed: ErrRestart is %v, want %v", call, got, unknown)
	}
}

// keep checks that every wallet of a still has its key in b, and that no address
// has another wallet.
func keep(t *testing.T, a, b state) {
	t.Helper()
	for id, w := range a.wallets {
		if b.wallets[id].publicKey != w.publicKey {
			t.Errorf("wallet %s has lost its key", id)
		}
		if w.address != "" && b.wallets[id].address != w.address {
			t.Errorf("wallet %s has lost its address", id)
		}
	}
	for address, id := range a.claims {
		if b.claims[address] != id {
			t.Errorf("address %s names %q, want %q", address, b.claims[address], id)
		}
	}
}

// wantWallets checks that ws are those of the specs, and on disk.
func wantWallets(t *testing.T, st state, specs []keyfs.Spec, ws []*keyfs.Wallet) {
	t.Helper()
	if len(ws) != len(specs) {
		t.Fatalf("got %d wallets, want %d", len(ws), len(specs))
	}
	for i, w := range ws {
		if w.ID() != specs[i].ID || w.PublicPEM() != st.wallets[w.ID()].publicKey {
			t.Errorf("wallet %d is not %s on the disk", i, specs[i].ID)
		}
	}
}

// Whatever goes wrong while a wallet is bound: its address is never that of two
// wallets, and doing it again finishes, whoever else tried in between.
func TestBindFaults(t *testing.T) {
	for _, before := range []string{"no addresses", "an address exists", "a crash left files"} {
		for _, rival := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rival %v", before, rival), func(t *testing.T) {
				everyFailure(t, func(t *testing.T, how failure, at int) bool {
					v, f := newFaulty(t)
					s := v.open(keyfs.Options{})
					for _, id := range []string{"W_0", "W_1", "W_2", "W_rival"} {
						v.create(s, id, keyfs.P256)
					}
					if before != "no addresses" {
						_, err := s.Bind(company, "W_0", "MT0")
						must(t, err)
					}
					if before == "a crash left files" {
						must(t, os.WriteFile(v.file("companies", company, "addresses", ".MT1.new"), []byte("W"), 0o400))
						must(t, os.WriteFile(v.inWallet("W_1", ".wallet.json.new"), []byte("{"), 0o400))
					}
					first := survey(t, v.disk)

					s = v.open(keyfs.Options{})
					f.start(at, how)
					w, err := s.Bind(company, "W_1", "MT1")
					log := f.stop()

					failed := survey(t, v.disk)
					keep(t, first, failed)
					if err == nil {
						wantBound(t, v, s, "W_1", w)
					} else if w != nil {
						t.Error("a wallet was returned with an error")
					}
					if how != killed {
						wantTrace(t, v, first, failed, "addresses", log, how, at, err)
						if _, again := s.Bind(company, "W_2", "MT2"); errors.Is(again, keyfs.ErrRestart) != errors.Is(err, keyfs.ErrRestart) {
							t.Errorf("got %v, and then %v", err, again)
						}
					}
					if how == killed || errors.Is(err, keyfs.ErrRestart) {
						s = v.open(keyfs.Options{}) // the program starts again
					}

					taken := false
					if rival {
						_, err := s.Bind(company, "W_rival", "MT1")
						taken = err == nil
						if free := failed.claims["MT1"] == ""; taken != free || !taken && !errors.Is(err, keyfs.ErrBound) {
							t.Errorf("the address was free: %v; another wallet asks for it: %v", free, err)
						}
					}
					w, err = s.Bind(company, "W_1", "MT1")
					if taken {
						if !errors.Is(err, keyfs.ErrBound) {
							t.Errorf("two wallets have the address: %v", err)
						}
						return len(log) >= at
					}
					must(t, err)
					wantBound(t, v, s, "W_1", w)
					last := survey(t, v.disk)
					keep(t, failed, last)
					if len(last.temps) > 0 {
						t.Errorf("%q are left", last.temps)
					}
					return len(log) >= at
				})
			})
		}
	}
}

// wantBound checks that address MT1 finds the wallet, in memory and on disk.
func wantBound(t *testing.T, v *volume, s *keyfs.Store, id string, w *keyfs.Wallet) {
	t.Helper()
	st := survey(t, v.disk)
	if w.ID() != id || w.Address() != "MT1" || st.claims["MT1"] != id || st.wallets[id].address != "MT1" {
		t.Errorf("wallet %s has address %q; on disk %q has it", w.ID(), w.Address(), st.claims["MT1"])
	}
	for _, s := range []*keyfs.Store{s, v.open(keyfs.Options{})} {
		found, err := s.ByAddress(company, "MT1")
		must(t, err)
		if found.ID() != id {
			t.Errorf("the address finds %s, want %s", found.ID(), id)
		}
	}
}

// An address whose binding was begun and not finished finds nothing.
func TestHalfBound(t *testing.T) {
	v, _ := newFaulty(t)
	s := v.open(keyfs.Options{})
	v.create(s, "W_1", keyfs.P256)
	must(t, os.Mkdir(v.file("companies", company, "addresses"), 0o700))
	must(t, os.WriteFile(v.file("companies", company, "addresses", "MT1"), []byte("W_1\n"), 0o400))
	w, err := s.ByAddress(company, "MT1")
	want := "address acme/MT1, whose binding was begun and not finished: no such wallet or company (file does not exist)"
	if w != nil || !errors.Is(err, keyfs.ErrUnknown) || err.Error() != want {
		t.Errorf("got %v, %v, want %s", w, err, want)
	}
	w, err = s.Bind(company, "W_1", "MT1")
	must(t, err)
	wantBound(t, v, s, "W_1", w)
}

// The order of the calls is what makes a crash harmless: a key has its name only
// after the volume was synced, and is returned only after the directory was.
func TestOrderOfCalls(t *testing.T) {
	v, f := newFaulty(t)
	s := v.open(keyfs.Options{})
	calls := func(do func() error) string {
		t.Helper()
		f.start(0, 0)
		must(t, do())
		return strings.Join(f.stop(), "\n")
	}
	create := func(ids ...string) func() error {
		return func() error {
			var specs []keyfs.Spec
			for _, id := range ids {
				specs = append(specs, keyfs.Spec{ID: id, Curve: keyfs.P256})
			}
			_, err := s.Create(company, specs, f)
			return err
		}
	}
	bind := func() error { _, err := s.Bind(company, "W_1", "MT1"); return err }

	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"create", create("W_1", "W_2"), `sub companies
sub acme
sub wallets
mkdir wallets
syncdir
sub wallets
stat W_1
stat W_2
mkdir .W_1.new
sub .W_1.new
create key.pem
write key.pem
close key.pem
create wallet.json
write wallet.json
close wallet.json
mkdir .W_2.new
sub .W_2.new
create key.pem
write key.pem
close key.pem
create wallet.json
write wallet.json
close wallet.json
syncfs
move .W_1.new W_1
move .W_2.new W_2
syncdir`},
		{"create again", create("W_1", "W_2"), `sub companies
sub acme
sub wallets
stat W_1
stat W_2
syncdir`},
		{"bind", bind, `sub companies
sub acme
sub wallets
sub W_1
open wallet.json
fstat wallet.json
read wallet.json
read wallet.json
close wallet.json
open key.pem
fstat key.pem
read key.pem
read key.pem
close key.pem
sub companies
sub acme
sub addresses
mkdir addresses
syncdir
sub addresses
stat MT1
remove .MT1.new
create .MT1.new
write .MT1.new
sync .MT1.new
close .MT1.new
move .MT1.new MT1
syncdir
syncdir
sub wallets
sub W_1
remove .wallet.json.new
create .wallet.json.new
write .wallet.json.new
sync .wallet.json.new
close .wallet.json.new
replace .wallet.json.new wallet.json
syncdir`},
	} {
		if got := calls(c.do); got != c.want {
			t.Errorf("%s: got calls\n%s\nwant\n%s", c.name, got, c.want)
		}
	}

	// However many wallets there are, the volume is synced once.
	var ids []string
	for i := range 300 {
		ids = append(ids, fmt.Sprintf("W_many_%d", i))
	}
	log := calls(create(ids...))
	if n := strings.Count(log, "syncfs"); n != 1 {
		t.Errorf("the volume was synced %d times", n)
	}
	if n := strings.Count(log, "syncdir"); n != 1 {
		t.Errorf("a directory was synced %d times", n)
	}
	if strings.Index(log, "move") < strings.Index(log, "syncfs") || strings.LastIndex(log, "write") > strings.Index(log, "syncfs") {
		t.Error("a wallet has its name before it is durable")
	}
}
