package keyfs_test

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"signdrop/keyfs"
	"signdrop/spool/durable/modelfs"
)

func TestSetStatus(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	v.create(s, "W_1", keyfs.P256)
	held, err := s.Bind(company, "W_1", "MT1")
	must(t, err)
	for _, c := range []struct {
		status string
		want   error
	}{
		{keyfs.StatusActive, nil}, {keyfs.StatusDisabled, keyfs.ErrDisabled}, {keyfs.StatusDisabled, keyfs.ErrDisabled},
		{keyfs.StatusActive, nil},
	} {
		set, err := s.SetStatus(company, "W_1", c.status)
		must(t, err)
		found := []*keyfs.Wallet{set}
		for _, s := range []*keyfs.Store{s, v.open(keyfs.Options{})} {
			byID, err := s.Lookup(company, "W_1")
			must(t, err)
			byAddress, err := s.ByAddress(company, "MT1")
			must(t, err)
			found = append(found, byID, byAddress)
		}
		for i, w := range found {
			sig, err := w.Sign(keyfs.ECDSA, make([]byte, 32))
			if !errors.Is(err, c.want) || (sig == nil) != (c.want != nil) || w.Active() != (c.want == nil) || w.Address() != "MT1" {
				t.Errorf("%s, %d: got active %v, address %q, %v", c.status, i, w.Active(), w.Address(), err)
			}
		}
	}
	if !held.Active() {
		t.Error("a Wallet has changed")
	}
	before := tree(t, v)
	for _, c := range []struct {
		company, id, status string
		want                error
	}{
		{company, "W_1", "", keyfs.ErrInvalid}, {company, "W_1", "Active", keyfs.ErrInvalid}, {company, "../W_1", "active", keyfs.ErrInvalid},
		{company, "W_9", "active", keyfs.ErrUnknown}, {"other", "W_1", "active", keyfs.ErrUnknown},
	} {
		w, err := s.SetStatus(c.company, c.id, c.status)
		if w != nil || !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, %v", c, w, err)
		}
	}
	if after := tree(t, v); after != before {
		t.Errorf("the files have changed:\n%s\nwere\n%s", after, before)
	}
	// One without an address is not found by the empty one.
	v.create(s, "W_2", keyfs.P256)
	_, err = s.SetStatus(company, "W_2", keyfs.StatusDisabled)
	must(t, err)
	if w, err := s.ByAddress(company, ""); w != nil || !errors.Is(err, keyfs.ErrInvalid) {
		t.Errorf("no address: got %v, %v", w, err)
	}
}

func TestRebind(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	for _, id := range []string{"W_1", "W_2", "W_3"} {
		v.create(s, id, keyfs.P256)
	}
	has := func(id, address string) {
		t.Helper()
		for _, s := range []*keyfs.Store{s, v.open(keyfs.Options{})} {
			w, err := s.Lookup(company, id)
			must(t, err)
			if w.Address() != address {
				t.Errorf("wallet %s has address %q, want %q", id, w.Address(), address)
			}
			w, err = s.ByAddress(company, address)
			must(t, err)
			if w.ID() != id {
				t.Errorf("address %s finds %s, want %s", address, w.ID(), id)
			}
		}
	}
	gone := func(address string) {
		t.Helper()
		for _, s := range []*keyfs.Store{s, v.open(keyfs.Options{})} {
			if w, err := s.ByAddress(company, address); w != nil || !errors.Is(err, keyfs.ErrUnknown) {
				t.Errorf("address %s: got %v, %v", address, w, err)
			}
		}
		if _, err := os.Lstat(v.file("companies", company, "addresses", address)); !os.IsNotExist(err) {
			t.Errorf("the file of address %s is left: %v", address, err)
		}
	}
	rebind := func(id, address string) {
		t.Helper()
		w, err := s.Rebind(company, id, address)
		must(t, err)
		if w.ID() != id || w.Address() != address {
			t.Errorf("got %s with %s", w.ID(), w.Address())
		}
		has(id, address)
	}
	rebind("W_1", "MT1") // from none
	rebind("W_1", "MT1") // again
	rebind("W_1", "MT2")
	gone("MT1")
	rebind("W_2", "MT1") // it is free
	for _, c := range []struct{ id, address string }{{"W_1", "MT1"}, {"W_2", "MT2"}, {"W_3", "MT1"}} {
		before := tree(t, v)
		w, err := s.Rebind(company, c.id, c.address)
		if w != nil || !errors.Is(err, keyfs.ErrBound) {
			t.Errorf("%+v: got %v, %v, want ErrBound", c, w, err)
		}
		if after := tree(t, v); after != before {
			t.Errorf("%+v: the files have changed", c)
		}
	}
	has("W_1", "MT2")
	has("W_2", "MT1")
	// Two change places over a third.
	rebind("W_1", "MT9")
	rebind("W_2", "MT2")
	rebind("W_1", "MT1")
	gone("MT9")

	// A Bind that was not finished holds the address against Bind only.
	must(t, os.WriteFile(v.file("companies", company, "addresses", "MT3"), []byte("W_3\n"), 0o400))
	v.create(s, "W_4", keyfs.P256)
	if _, err := s.Bind(company, "W_4", "MT3"); !errors.Is(err, keyfs.ErrBound) {
		t.Errorf("got %v, want ErrBound", err)
	}
	rebind("W_4", "MT3")

	// A file whose wallet has another address holds it against nobody, and goes
	// when its wallet is corrected again.
	must(t, os.WriteFile(v.file("companies", company, "addresses", "MT5"), []byte("W_1\n"), 0o400))
	must(t, os.WriteFile(v.file("companies", company, "addresses", "MT6"), []byte("W_1\n"), 0o400))
	_, err := s.ByAddress(company, "MT5")
	want := "address acme/MT5, whose wallet has another: no such wallet or company (file does not exist)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = s.Bind(company, "W_3", "MT5")
	must(t, err)
	has("W_3", "MT5")
	rebind("W_1", "MT1")
	gone("MT6")
	has("W_3", "MT5")

	// One that names no wallet is damage.
	must(t, os.WriteFile(v.file("companies", company, "addresses", "MT7"), []byte("W_none\n"), 0o400))
	_, err = s.Rebind(company, "W_1", "MT7")
	wantDamaged(t, err, "companies/acme/addresses/MT7 names a wallet that does not exist: restore the folder of that wallet from the backup")
	has("W_1", "MT1")
	for _, c := range []struct {
		company, id, address string
		want                 error
	}{
		{company, "W_1", "", keyfs.ErrInvalid}, {company, "W_1", "../MT1", keyfs.ErrInvalid}, {company, "W_none", "MT8", keyfs.ErrUnknown},
		{"other", "W_1", "MT8", keyfs.ErrUnknown},
	} {
		if w, err := s.Rebind(c.company, c.id, c.address); w != nil || !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, %v", c, w, err)
		}
	}
}

// Whatever goes wrong while a wallet is disabled or gets another address: it is as
// it was or as it is to be, and doing it again finishes.
func TestChangeFaults(t *testing.T) {
	for _, from := range []string{"", "MTold"} {
		t.Run("rebind from "+from, func(t *testing.T) {
			everyFailure(t, func(t *testing.T, how failure, at int) bool {
				v, f := newFaulty(t)
				s := prepareRebind(t, v, from)
				f.start(at, how)
				w, err := s.Rebind(company, "W_1", "MT1")
				log := f.stop()

				st := survey(t, v.disk)
				if got := st.wallets["W_1"].address; got != from && got != "MT1" || err == nil && got != "MT1" {
					t.Errorf("the address is %q after %v", got, err)
				}
				if (w == nil) != (err != nil) {
					t.Errorf("got %v, %v", w, err)
				}
				if how == killed || errors.Is(err, keyfs.ErrRestart) {
					s = v.open(keyfs.Options{})
				}
				onlyOne(t, s, "W_1", st.wallets["W_1"].address, "MT1", from)
				_, err = s.Rebind(company, "W_1", "MT1")
				must(t, err)
				st = survey(t, v.disk)
				if len(st.temps) > 0 || st.wallets["W_1"].address != "MT1" || from != "" && st.claims[from] != "" {
					t.Errorf("after doing it again: %+v", st)
				}
				onlyOne(t, s, "W_1", "MT1", "MT1", from)
				return len(log) >= at
			})
		})
	}
	t.Run("disable", func(t *testing.T) {
		everyFailure(t, func(t *testing.T, how failure, at int) bool {
			v, f := newFaulty(t)
			s := prepareRebind(t, v, "MTold")
			f.start(at, how)
			w, err := s.SetStatus(company, "W_1", keyfs.StatusDisabled)
			log := f.stop()
			st := survey(t, v.disk)
			if err == nil && st.wallets["W_1"].active || (w == nil) != (err != nil) || st.wallets["W_1"].address != "MTold" {
				t.Errorf("got %v, %v, %+v", w, err, st)
			}
			if how == killed || errors.Is(err, keyfs.ErrRestart) {
				s = v.open(keyfs.Options{})
			}
			_, err = s.SetStatus(company, "W_1", keyfs.StatusDisabled)
			must(t, err)
			if st := survey(t, v.disk); len(st.temps) > 0 || st.wallets["W_1"].active {
				t.Errorf("after doing it again: %+v", st)
			}
			return len(log) >= at
		})
	})
}

// prepareRebind makes W_1 with an address, "" for none, and W_2 without.
func prepareRebind(t *testing.T, v *volume, from string) *keyfs.Store {
	t.Helper()
	s := v.open(keyfs.Options{})
	for _, id := range []string{"W_1", "W_2"} {
		v.create(s, id, keyfs.P256)
	}
	if from != "" {
		_, err := s.Bind(company, "W_1", from)
		must(t, err)
	}
	return v.open(keyfs.Options{})
}

// onlyOne checks that of the addresses only has finds the wallet.
func onlyOne(t *testing.T, s *keyfs.Store, id, has string, addresses ...string) {
	t.Helper()
	for _, a := range addresses {
		if a == "" {
			continue
		}
		w, err := s.ByAddress(company, a)
		if a == has && (err != nil || w.ID() != id) || a != has && !errors.Is(err, keyfs.ErrUnknown) {
			t.Errorf("wallet %s has address %q; %s finds %v, %v", id, has, a, w, err)
		}
	}
}

func TestPowerCutWhileChanging(t *testing.T) {
	prepare := func(v *modelfs.Volume) {
		s, err := openModel(v)
		must(t, err)
		_, err = s.Create(company, []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256}, {ID: "W_2", Curve: keyfs.P256}}, v)
		must(t, err)
		_, err = s.Bind(company, "W_1", "MTold")
		must(t, err)
	}
	one := func(w *keyfs.Wallet, err error) ([]*keyfs.Wallet, error) {
		if err != nil {
			return nil, err
		}
		return []*keyfs.Wallet{w}, nil
	}
	run := func(t *testing.T, do func(*keyfs.Store, *modelfs.Volume) ([]*keyfs.Wallet, error), check func(*testing.T, *modelfs.Volume, state)) {
		everyCrash(t, prepare, func(v *modelfs.Volume) (told, error) {
			a := newTold()
			s, err := openModel(v)
			if err != nil {
				return a, err
			}
			ws, err := do(s, v)
			a.note(t, ws...)
			return a, err
		}, func(v *modelfs.Volume, a told) {
			check(t, v, a.check(t, v))
			again(t, v, a, do)
		})
	}
	t.Run("rebind", func(t *testing.T) {
		run(t, func(s *keyfs.Store, _ *modelfs.Volume) ([]*keyfs.Wallet, error) {
			return one(s.Rebind(company, "W_1", "MT1"))
		},
			func(t *testing.T, v *modelfs.Volume, st state) {
				has := st.wallets["W_1"].address
				if has != "MTold" && has != "MT1" {
					t.Errorf("the address is %q", has)
				}
				s, err := openModel(v)
				must(t, err)
				onlyOne(t, s, "W_1", has, "MTold", "MT1")
				// The other address is free for anybody, the wallet's own is not.
				for _, a := range []string{"MTold", "MT1"} {
					rival := v.Clone()
					s, err := openModel(rival)
					must(t, err)
					_, err = s.Bind(company, "W_2", a)
					if a == has && !errors.Is(err, keyfs.ErrBound) || a != has && err != nil {
						t.Errorf("the wallet has %s, and another asks for %s: %v", has, a, err)
					}
					survey(t, rival)
				}
			})
	})
	t.Run("disable", func(t *testing.T) {
		run(t, func(s *keyfs.Store, _ *modelfs.Volume) ([]*keyfs.Wallet, error) {
			return one(s.SetStatus(company, "W_1", keyfs.StatusDisabled))
		}, func(t *testing.T, v *modelfs.Volume, st state) {
			if st.wallets["W_1"].address != "MTold" || !st.wallets["W_2"].active {
				t.Errorf("something else has changed: %+v", st)
			}
		})
	})
}

func TestList(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{})
	if list, err := s.List(company, "", 10); err != nil || len(list) != 0 {
		t.Errorf("no wallets: got %v, %v", list, err)
	}
	var specs []keyfs.Spec
	for i := range 25 {
		specs = append(specs, keyfs.Spec{ID: fmt.Sprintf("W_%02d", 24-i), Curve: keyfs.P256})
	}
	ws, err := s.Create(company, specs, v.fs)
	must(t, err)
	_, err = s.Bind(company, "W_03", "MT3")
	must(t, err)
	_, err = s.SetStatus(company, "W_04", keyfs.StatusDisabled)
	must(t, err)
	must(t, os.Mkdir(v.inWallet(".W_99.new", ""), 0o700)) // left by a crash
	must(t, os.Remove(v.inWallet("W_05", "wallet.json")))
	must(t, os.Remove(v.inWallet("W_06", "key.pem"))) // not looked at

	for _, max := range []int{1, 7, 25, 100} {
		var got []keyfs.Summary
		after := ""
		for {
			page, err := v.open(keyfs.Options{}).List(company, after, max)
			must(t, err)
			if len(page) == 0 {
				break
			}
			if len(page) > max {
				t.Fatalf("got %d, want at most %d", len(page), max)
			}
			got = append(got, page...)
			after = page[len(page)-1].ID
		}
		if len(got) != 25 {
			t.Fatalf("pages of %d: got %d wallets", max, len(got))
		}
		for i, w := range got {
			id := fmt.Sprintf("W_%02d", i)
			if i == 5 {
				if w.ID != id || w.Damage == nil || w.Damage.Problem != "is missing" {
					t.Errorf("got %+v", w)
				}
				continue
			}
			want := keyfs.Summary{ID: id, Curve: keyfs.P256, PublicPEM: ws[24-i].PublicPEM(), Active: i != 4}
			if i == 3 {
				want.Address = "MT3"
			}
			if w != want {
				t.Errorf("got %+v, want %+v", w, want)
			}
		}
	}
	for _, c := range []struct {
		company string
		max     int
		want    error
	}{{"..", 1, keyfs.ErrInvalid}, {company, 0, keyfs.ErrInvalid}, {"other", 1, keyfs.ErrUnknown}} {
		if list, err := s.List(c.company, "", c.max); list != nil || !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, %v", c, list, err)
		}
	}
}

// While a wallet's address and status change, whoever looks it up finds it as it is
// or was, never under an address that it does not have.
func TestChangeWhileLookingUp(t *testing.T) {
	v := newVolume(t)
	s := v.open(keyfs.Options{Cache: 1})
	v.create(s, "W_1", keyfs.P256)
	v.create(s, "W_2", keyfs.P256)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, a := range []string{"MT1", "MT2"} {
					w, err := s.ByAddress(company, a)
					if err == nil && (w.Address() != a || w.ID() != "W_1") || err != nil && !errors.Is(err, keyfs.ErrUnknown) {
						t.Errorf("address %s: got %v, %v", a, w, err)
					}
				}
				if _, err := s.Lookup(company, "W_2"); err != nil { // out of the cache with W_1
					t.Error(err)
				}
			}
		})
	}
	for i := range 50 {
		a, status := fmt.Sprintf("MT%d", 1+i%2), []string{keyfs.StatusDisabled, keyfs.StatusActive}[i/2%2]
		if _, err := s.Rebind(company, "W_1", a); err != nil {
			t.Error(err)
		}
		if _, err := s.SetStatus(company, "W_1", status); err != nil {
			t.Error(err)
		}
		w, err := s.ByAddress(company, a)
		if err != nil || w.ID() != "W_1" || w.Address() != a || w.Active() != (status == keyfs.StatusActive) {
			t.Errorf("address %s: got %v, %v", a, w, err)
		}
	}
	close(done)
	wg.Wait()
}
