package keyfs_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"signdrop/keyfs"
	"signdrop/spool/durable/modelfs"
)

// The tests of this file run on the model of a volume, which forgets what was
// not synced when the power is cut.

func newModel(t *testing.T) *modelfs.Volume {
	t.Helper()
	v := modelfs.New()
	v.MkdirAll("db", 0o700)
	v.MkdirAll("db/companies/"+company, 0o700)
	must(t, v.Sync())
	return v
}

// told is what callers were told, which no crash may take back.
type told struct {
	keys    map[string]string   // public key by id
	address map[string][]string // by id; several where a change failed, since it may have happened
	active  map[string][]bool   // the same
}

func newTold() told {
	return told{map[string]string{}, map[string][]string{}, map[string][]bool{}}
}

func (a told) clone() told {
	return told{maps.Clone(a.keys), maps.Clone(a.address), maps.Clone(a.active)}
}

// noteKeys adds the keys of wallets that a call has returned.
func (a told) noteKeys(t *testing.T, ws ...*keyfs.Wallet) {
	t.Helper()
	for _, w := range ws {
		if key, ok := a.keys[w.ID()]; ok && key != w.PublicPEM() {
			t.Errorf("wallet %s has another key", w.ID())
		}
		a.keys[w.ID()] = w.PublicPEM()
	}
}

// note adds what a call has returned.
func (a told) note(t *testing.T, ws ...*keyfs.Wallet) {
	t.Helper()
	a.noteKeys(t, ws...)
	for _, w := range ws {
		if w.Address() != "" {
			a.address[w.ID()] = []string{w.Address()}
		}
		a.active[w.ID()] = []bool{w.Active()}
	}
}

// check surveys a volume and finds everything that callers were told.
func (a told) check(t *testing.T, v *modelfs.Volume) state {
	t.Helper()
	st := survey(t, v)
	for id, key := range a.keys {
		if st.wallets[id].publicKey != key {
			t.Errorf("wallet %s, whose public key was shown, is lost", id)
		}
	}
	for id, addresses := range a.address {
		if got := st.wallets[id].address; !slices.Contains(addresses, got) || got != "" && st.claims[got] != id {
			t.Errorf("wallet %s was told to have address %q and has %q", id, addresses, got)
		}
	}
	for id, active := range a.active {
		if got := st.wallets[id].active; !slices.Contains(active, got) {
			t.Errorf("wallet %s was told to be active %v, and is %v", id, active, got)
		}
	}
	return st
}

// everyCrash stops do at each of its calls, before, within and after the call,
// and calls check with each volume that this may leave: that of a process that
// was killed, and those of a power cut. do returns what it was told.
func everyCrash(t *testing.T, prepare func(*modelfs.Volume), do func(v *modelfs.Volume) (told, error), check func(v *modelfs.Volume, a told)) {
	t.Helper()
	// With -short every third call: the whole is for the run without it.
	step := 1
	if testing.Short() {
		step = 3
	}
	for at, ended := 1, false; !ended; at += step {
		for _, fault := range []modelfs.Fault{modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter} {
			v := newModel(t)
			prepare(v)
			n := 0
			v.SetFault(func(modelfs.Call) modelfs.Fault {
				if n++; n == at {
					return fault
				}
				return modelfs.None
			})
			a, err := do(v)
			ended = n < at
			if ended {
				must(t, err)
			}
			v.SetFault(nil)
			for _, choice := range v.Choices(8, uint64(at)) {
				check(v.Clone().Crash(choice), a)
				if t.Failed() {
					t.Fatalf("after call %d and a crash by %s", at, choice)
				}
			}
			v.Kill()
			check(v, a)
			if t.Failed() {
				t.Fatalf("after call %d and kill -9", at)
			}
		}
	}
}

// again does a call once more after a crash, and cuts the power as soon as it
// has returned: what it told must be there then, whatever the first run left
// unsynced.
func again(t *testing.T, v *modelfs.Volume, before told, do func(s *keyfs.Store, v *modelfs.Volume) ([]*keyfs.Wallet, error)) {
	t.Helper()
	s, err := keyfs.Open(openDB(t, v), keyfs.Options{})
	must(t, err)
	ws, err := do(s, v)
	must(t, err)
	a := before.clone()
	a.note(t, ws...)
	if st := a.check(t, v); len(st.temps) > 0 {
		t.Errorf("%q are left", st.temps)
	}
	a.check(t, v.Crash(modelfs.KeepNothing))
}

func TestPowerCutWhileCreating(t *testing.T) {
	for name, maker := range makers(t) {
		olds := []bool{false, true}
		if name == "import" && testing.Short() {
			olds = olds[1:] // import shares create's code
		}
		t.Run(name, func(t *testing.T) { testPowerCutWhileCreating(t, maker.all, maker.old, olds) })
	}
}

func testPowerCutWhileCreating(t *testing.T, makeAll, makeOld makeFunc, olds []bool) {
	create := func(s *keyfs.Store, v *modelfs.Volume) ([]*keyfs.Wallet, error) { return makeAll(s, v) }
	for _, old := range olds {
		t.Run(fmt.Sprintf("a wallet exists %v", old), func(t *testing.T) {
			everyCrash(t, func(v *modelfs.Volume) {
				if old {
					s, err := keyfs.Open(openDB(t, v), keyfs.Options{})
					must(t, err)
					_, err = makeOld(s, v)
					must(t, err)
				}
			}, func(v *modelfs.Volume) (told, error) {
				a := newTold()
				for id, w := range survey(t, v.Clone()).wallets {
					a.keys[id] = w.publicKey
				}
				s, err := openModel(v)
				if err != nil {
					return a, err
				}
				ws, err := create(s, v)
				a.note(t, ws...)
				return a, err
			}, func(v *modelfs.Volume, a told) {
				a.check(t, v)
				again(t, v, a, create)
			})
		})
	}
}

func TestPowerCutWhileBinding(t *testing.T) {
	bind := func(id string) func(*keyfs.Store, *modelfs.Volume) ([]*keyfs.Wallet, error) {
		return func(s *keyfs.Store, _ *modelfs.Volume) ([]*keyfs.Wallet, error) {
			w, err := s.Bind(company, id, "MT1")
			if err != nil {
				return nil, err
			}
			return []*keyfs.Wallet{w}, nil
		}
	}
	everyCrash(t, func(v *modelfs.Volume) {
		s, err := openModel(v)
		must(t, err)
		_, err = s.Create(company, []keyfs.Spec{{ID: "W_1", Curve: keyfs.P256}, {ID: "W_2", Curve: keyfs.P256}}, v)
		must(t, err)
	}, func(v *modelfs.Volume) (told, error) {
		a := newTold()
		s, err := openModel(v)
		if err != nil {
			return a, err
		}
		ws, err := bind("W_1")(s, v)
		a.note(t, ws...)
		return a, err
	}, func(v *modelfs.Volume, a told) {
		st := a.check(t, v)
		// Another wallet comes first. It gets the address only if it is free.
		rival := v.Clone()
		s, err := openModel(rival)
		must(t, err)
		if _, err = s.Bind(company, "W_2", "MT1"); (err == nil) != (st.claims["MT1"] == "") {
			t.Errorf("the address belongs to %q; W_2 asks for it: %v", st.claims["MT1"], err)
		}
		survey(t, rival)
		again(t, v, a, bind("W_1"))
	})
}

func openModel(v *modelfs.Volume) (*keyfs.Store, error) {
	root, err := v.Root()
	if err != nil {
		return nil, err
	}
	db, err := root.Sub("db")
	if err != nil {
		return nil, err
	}
	return keyfs.Open(db, keyfs.Options{Cache: 2})
}

// TestPowerCutsAtRandom makes, imports and changes wallets while calls fail, the process is
// killed and the power is cut, again and again on the same volume.
func TestPowerCutsAtRandom(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var imports []keyfs.ImportSpec
			for i := range 4 {
				imports = append(imports, keyfs.ImportSpec{ID: fmt.Sprintf("W_imported_%d", i), PrivateKeyPEM: newKey(t, keyfs.P256)})
			}
			v, a := newModel(t), newTold()
			s, err := openModel(v)
			must(t, err)
			done, crashes := 0, 0
			for round := 0; round < rounds && !t.Failed(); round++ {
				fault := []modelfs.Fault{modelfs.None, modelfs.None, modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter,
					modelfs.FailDone(errInjected), modelfs.FailNotDone(errInjected)}[r.IntN(7)]
				n, at := 0, 1+r.IntN(50)
				v.SetFault(func(modelfs.Call) modelfs.Fault {
					if n++; n == at {
						return fault
					}
					return modelfs.None
				})
				id := func() string { return fmt.Sprintf("W_%d", r.IntN(40)) }
				var ws []*keyfs.Wallet
				var w *keyfs.Wallet
				one, address := id(), fmt.Sprintf("MT%d", r.IntN(40))
				status := []string{keyfs.StatusDisabled, keyfs.StatusActive}[r.IntN(2)]
				what := r.IntN(6)
				switch what {
				case 0:
					specs := []keyfs.Spec{{ID: one, Curve: keyfs.P256}, {ID: id(), Curve: keyfs.P256}}
					ws, err = s.Create(company, specs, v)
				case 1:
					// Some ids are always imported, with a key of their own.
					i := r.IntN(len(imports))
					ws, err = s.Import(company, imports[i:i+1], v)
				case 2, 3:
					w, err = s.Bind(company, one, address)
				case 4:
					w, err = s.Rebind(company, one, address)
				case 5:
					w, err = s.SetStatus(company, one, status)
				}
				v.SetFault(nil)
				if w != nil {
					ws = []*keyfs.Wallet{w}
				}
				switch {
				case err == nil && what < 2:
					// Of a wallet that was there, address and status may be seen and
					// not yet durable (see Open).
					a.noteKeys(t, ws...)
					done++
				case err == nil:
					a.note(t, ws...)
					done++
				case errors.Is(err, keyfs.ErrBound):
					// Nothing has happened.
				case what == 4 && len(a.address[one]) > 0: // Bind changes no address that is there
					a.address[one] = append(slices.Clone(a.address[one]), address)
				case what == 5:
					if len(a.active[one]) > 0 {
						a.active[one] = append(slices.Clone(a.active[one]), status == keyfs.StatusActive)
					}
				}
				switch {
				case errors.Is(err, modelfs.ErrCrashed) && r.IntN(2) == 0:
					v = v.Crash(modelfs.KeepRandom(r.Uint64()))
				case errors.Is(err, modelfs.ErrCrashed), errors.Is(err, keyfs.ErrRestart):
					v.Kill()
				default:
					continue
				}
				crashes++
				a.check(t, v)
				s, err = openModel(v)
				must(t, err)
			}
			if done < rounds/10 || crashes < rounds/20 {
				t.Errorf("%d calls succeeded and %d crashed: too few of %d", done, crashes, rounds)
			}
			t.Logf("%d calls succeeded, %d crashed; %d wallets, %d bound", done, crashes, len(a.keys), len(a.address))
			a.check(t, v.Crash(modelfs.KeepNothing))
		})
	}
}
