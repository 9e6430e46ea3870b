package datakey_test

import (
	"errors"
	"strings"
	"testing"

	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// newModel is a volume that forgets what was not synced when the power is cut.
func newModel(t *testing.T) *modelfs.Volume {
	t.Helper()
	v := modelfs.New()
	v.MkdirAll("db", 0o700)
	v.MkdirAll("db/companies/"+company, 0o700)
	must(t, v.Sync())
	return v
}

var errInjected = errors.New("injected failure")

// Whatever stops a key from being made: it is there whole or not at all, one that
// was told of stays, and doing it again finishes. Each call fails in turn, done or
// not done, or is where the machine stops.
func TestCrashes(t *testing.T) {
	create := func(s *datakey.Store, vol durable.FS) (*datakey.Key, error) {
		return s.Create(company, datakey.Spec{ID: id, Name: "customers", Passphrase: passphrase}, vol)
	}
	imported := func(s *datakey.Store, vol durable.FS) (*datakey.Key, error) {
		return s.Import(company, nodeSpec(t), vol)
	}
	for name, do := range map[string]func(*datakey.Store, durable.FS) (*datakey.Key, error){"create": create, "import": imported} {
		if name == "create" && testing.Short() {
			continue // the same code below, behind the work of a passphrase
		}
		t.Run(name, func(t *testing.T) {
			calls := 0
			for at, ended := 1, false; !ended; at++ {
				for i, fault := range []modelfs.Fault{modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter,
					modelfs.FailDone(errInjected), modelfs.FailNotDone(errInjected)} {
					v := newModel(t)
					s := openStore(t, v)
					n := 0
					v.SetFault(func(modelfs.Call) modelfs.Fault {
						if n++; n == at {
							return fault
						}
						return modelfs.None
					})
					k, err := do(s, v)
					ended = n < at
					calls = n
					if ended {
						must(t, err)
					}
					if (k == nil) != (err != nil) {
						t.Errorf("call %d, %v: got %v, %v", at, fault, k, err)
					}
					v.SetFault(nil)
					for _, choice := range v.Choices(4, uint64(at)) {
						after := v.Clone().Crash(choice)
						whole(t, after, k != nil)
						finish(t, after, do)
					}
					if crashed := i < 3 && !ended; !crashed {
						// The same Store goes on, unless it says that it cannot.
						if again, err2 := do(s, v); errors.Is(err, keyfs.ErrRestart) {
							if again != nil || !errors.Is(err2, keyfs.ErrRestart) {
								t.Errorf("call %d: after a failed sync: got %v, %v", at, again, err2)
							}
						} else {
							must(t, err2)
						}
					}
					v.Kill()
					whole(t, v, k != nil)
					finish(t, v, do)
					if t.Failed() {
						t.Fatalf("at call %d, fault %v", at, fault)
					}
				}
			}
			t.Logf("%d calls", calls)
			if calls < 15 {
				t.Errorf("only %d calls", calls)
			}
		})
	}
}

// whole checks that the key is there with both its files, or not at all, which must
// not be if somebody was told of it.
func whole(t *testing.T, v *modelfs.Volume, told bool) {
	t.Helper()
	k, err := openStore(t, v).Lookup(company, id)
	if errors.Is(err, keyfs.ErrUnknown) && !told {
		return
	}
	must(t, err)
	dir := subPath(t, v, "db", "companies", company, "datakeys", k.ID())
	defer dir.Close()
	text, err := durable.ReadFile(dir, "key.pem", 1<<16)
	must(t, err)
	if _, err := datakey.Canonical(text); err != nil {
		t.Errorf("key.pem %v", err)
	}
}

// finish does it again after a crash, and cuts the power when it has returned.
func finish(t *testing.T, v *modelfs.Volume, do func(*datakey.Store, durable.FS) (*datakey.Key, error)) {
	t.Helper()
	k, err := do(openStore(t, v), v)
	must(t, err)
	v = v.Crash(modelfs.KeepNothing)
	found, err := openStore(t, v).Lookup(company, id)
	must(t, err)
	if found.PublicPEM() != k.PublicPEM() {
		t.Error("it is another key")
	}
	dir := subPath(t, v, "db", "companies", company, "datakeys")
	defer dir.Close()
	must(t, durable.Walk(dir, func(e durable.Entry) error {
		if strings.HasPrefix(e.Name, ".") {
			t.Errorf("%s is left", e.Name)
		}
		return nil
	}))
}

func subPath(t *testing.T, v *modelfs.Volume, names ...string) durable.Dir {
	t.Helper()
	root, err := v.Root()
	must(t, err)
	defer root.Close()
	dir, err := durable.SubPath(root, names...)
	must(t, err)
	return dir
}

// After a crash while its status changes, the key has the old or the new one, and the
// new one if somebody was told so.
func TestCrashesOfStatus(t *testing.T) {
	disable := func(s *datakey.Store) (*datakey.Key, error) {
		return s.SetStatus(company, id, keyfs.StatusDisabled)
	}
	for at, ended := 1, false; !ended; at++ {
		for i, fault := range []modelfs.Fault{modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter,
			modelfs.FailDone(errInjected), modelfs.FailNotDone(errInjected)} {
			v := newModel(t)
			s := openStore(t, v)
			_, err := s.Import(company, nodeSpec(t), v)
			must(t, err)
			n := 0
			v.SetFault(func(modelfs.Call) modelfs.Fault {
				if n++; n == at {
					return fault
				}
				return modelfs.None
			})
			k, err := disable(s)
			ended = n < at
			if ended {
				must(t, err)
			}
			if (k == nil) != (err != nil) || k != nil && k.Active() {
				t.Errorf("call %d, %v: got %v, %v", at, fault, k, err)
			}
			v.SetFault(nil)
			look := func(v *modelfs.Volume) {
				t.Helper()
				found, err := openStore(t, v).Lookup(company, id)
				must(t, err)
				if k != nil && found.Active() {
					t.Errorf("call %d, %v: the key is active", at, fault)
				}
				_, err = disable(openStore(t, v))
				must(t, err)
				found, err = openStore(t, v.Crash(modelfs.KeepNothing)).Lookup(company, id)
				must(t, err)
				if found.Active() {
					t.Errorf("call %d, %v: doing it again is not durable", at, fault)
				}
			}
			for _, choice := range v.Choices(4, uint64(at)) {
				look(v.Clone().Crash(choice))
			}
			if crashed := i < 3 && !ended; !crashed {
				if _, err2 := disable(s); errors.Is(err2, keyfs.ErrRestart) != errors.Is(err, keyfs.ErrRestart) {
					t.Errorf("call %d, %v: got %v, and then %v", at, fault, err, err2)
				}
			}
			v.Kill()
			look(v)
			if t.Failed() {
				t.Fatalf("at call %d, fault %v", at, fault)
			}
		}
	}
}
