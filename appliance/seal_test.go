package appliance_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"signdrop/appliance"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

func testKEK(t testing.TB, b byte) seal.KEK {
	t.Helper()
	k, err := seal.ParseKEK(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func unlock(vol durable.FS, req seal.Request) (*seal.Sealer, error) {
	root, err := vol.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s, _, err := seal.Unlock(vol, root, req)
	return s, err
}

// sealedRound is a round as signdropd lives it with these keys.
func sealedRound(req seal.Request) func(vol durable.FS, fresh bool) error {
	return func(vol durable.FS, fresh bool) error {
		cfg := modelConfig()
		cfg.AllowNew = fresh
		var err error
		if cfg.Sealer, err = unlock(vol, req); err != nil {
			return err
		}
		return live(vol, cfg)
	}
}

// inTheClear lists the key files of a volume that are not sealed.
func inTheClear(v *modelfs.Volume) (list []string) {
	v.Walk(func(file string, info durable.Info) {
		if !strings.HasPrefix(file, "db/") || !info.Mode.IsRegular() {
			return
		}
		text, err := v.ReadFile(file)
		if err != nil {
			panic(err)
		}
		if bytes.Contains(text, []byte("PRIVATE KEY")) || bytes.Contains(text, []byte("AGE-SECRET-KEY")) {
			list = append(list, file)
		}
	})
	return list
}

// TestCrashSealing is one life of a volume on which keys are sealed, the key-encryption
// key is changed, everything is sealed anew and the whole inbox is answered, with a
// fault at each call, or at a sample of them. Nothing is lost, no answer is another
// one, and in the end no key is in the clear.
func TestCrashSealing(t *testing.T) {
	s := newScene(t)
	s.vol.Chown("db", uint32(os.Geteuid()), 0) // the model's files belong to root
	a, b := testKEK(t, 'a'), testKEK(t, 'b')
	life := func(vol durable.FS, fresh bool) error {
		if err := sealedRound(seal.Request{KEK: a, Convert: true})(vol, fresh); err != nil && !errors.Is(err, seal.ErrKEK) {
			return err
		}
		return sealedRound(seal.Request{KEK: b, Previous: a, Convert: true, NewVolumeKey: true})(vol, false)
	}
	finish := func(v *modelfs.Volume) error {
		if err := s.finishWith(v, life); err != nil {
			return err
		}
		if list := inTheClear(v); len(list) > 0 {
			return fmt.Errorf("keys are in the clear: %q", list)
		}
		if err := sealedRound(seal.Request{KEK: b})(v, false); err != nil {
			return fmt.Errorf("with the new key: %w", err)
		}
		if err := sealedRound(seal.Request{KEK: a})(v, false); !errors.Is(err, seal.ErrKEK) {
			return fmt.Errorf("with the key before: %w", err)
		}
		return nil
	}
	plain := s.vol.Clone()
	if err := life(plain, false); err != nil {
		t.Fatal(err)
	}
	calls := plain.Calls()
	if err := finish(plain); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	var tried atomic.Int64
	everyCall(t, calls, 4*(*every), 601, func(k int, fault modelfs.Fault) error {
		v := s.vol.Clone()
		v.SetFault(faultAt(k, fault))
		err := life(v, false)
		v.SetFault(nil)
		for _, choice := range []modelfs.Choice{modelfs.KeepNothing, modelfs.NamesWithGarbage, modelfs.KeepRandom(uint64(k))} {
			tried.Add(1)
			if ferr := finish(v.Clone().Crash(choice)); ferr != nil {
				return fmt.Errorf("power cut (%v) after %v: %w", choice, err, ferr)
			}
		}
		tried.Add(1)
		if ferr := finish(v.Clone()); ferr != nil {
			return fmt.Errorf("restart after %v: %w", err, ferr)
		}
		return nil
	})
	t.Logf("%d calls, %d states recovered", len(calls), tried.Load())
}

// An appliance on a sealed volume works as on any other, and one without the key does
// not begin.
func TestSealedVolume(t *testing.T) {
	r := newRig(t)
	kek := testKEK(t, 'a')
	r.serve()()
	var err error
	r.cfg.Sealer, err = unlock(r.vol, seal.Request{KEK: kek, Convert: true})
	r.ok(err)
	stop := r.serve()
	w := r.wallet("P-384")
	if got := r.answer("pay.json", testbed.Transfer(w, "pay")); got.Verdict != "signed" || testbed.VerifyAnswer(got) != nil {
		t.Errorf("got %+v", got)
	}
	// A request with a secret, to the identity that is sealed.
	id, err := setup.ReadIdentity(r.root, r.cfg.Sealer)
	r.ok(err)
	r.drop(r.acme, "import.json.age", sealFor(id.Recipient(), importRequest(t, "imported")))
	imported := r.parse(r.wait("spool", "acme", "outbox", "import.result.json"))
	if got := r.answer("pay2.json", testbed.DataRequest(imported.Wallet, "pay2")); got.Verdict != "signed" {
		t.Errorf("with the imported wallet: %+v", got)
	}
	stop()
	r.check(true)
	for _, id := range []string{w, imported.Wallet} {
		text, err := os.ReadFile(r.path("db", "companies", "acme", "wallets", id, "key.pem"))
		r.ok(err)
		if !seal.Sealed(text) || bytes.Contains(text, []byte("PRIVATE")) {
			t.Errorf("the key of wallet %s is in the clear", id)
		}
	}
	plain := r.cfg
	plain.Sealer = nil
	if a, err := appliance.Open(r.vol, plain); err == nil {
		t.Error("opened without the key")
		r.ok(a.Close())
	}
}

// TestSealedBackup: a backup is for another machine with another key-encryption key, so
// keys are in the clear inside it, whatever kind they are of, and the volume that is
// restored signs without any.
func TestSealedBackup(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	kek := testKEK(t, 'a')
	r.serve()()
	var err error
	r.cfg.Sealer, err = unlock(r.vol, seal.Request{KEK: kek, Convert: true})
	r.ok(err)
	stop := r.serve()
	w := r.wallet("P-384")
	tree := r.answer("tree.json", []byte(`{"type":"wallet.create","kind":"hd","network":"test"}`))
	id, err := setup.ReadIdentity(r.root, r.cfg.Sealer)
	r.ok(err)
	r.drop(r.acme, "dk.json.age", sealFor(id.Recipient(), `{"type":"wallet.import","mnemonic":"`+vectorWords+`","network":"main"}`))
	words := r.parse(r.wait("spool", "acme", "outbox", "dk.result.json"))
	pay := r.ask("pay.json", testbed.Transfer(w, "pay"))
	ask := []byte(`{"type":"wallet.address","script":"p2tr","wallet":"` + tree.Wallet + `"}`)
	addresses := r.ask("addr.json", ask)
	_, full := r.backup("full", "")
	r.wallet("P-521")
	more, inc := r.backup("more", r.parse(r.wait("spool", "admin", "outbox", "full.result.json")).Backup)
	if more.Holds.New == more.Holds.Files {
		t.Error("the increment holds all there is")
	}
	stop()
	r.cfg.Sealer = nil
	n, rep := r.restored(full, inc)
	stop = n.serve()
	n.accept(rep)
	if got := n.ask("pay.json", testbed.Transfer(w, "pay")); !bytes.Equal(got, pay) {
		t.Errorf("the same request has another answer: %s", got)
	}
	if got := n.ask("addr.json", ask); !bytes.Equal(got, addresses) {
		t.Errorf("the tree has other addresses: %s", got)
	}
	if a := n.answer("list.json", []byte(`{"type":"wallet.list"}`)); len(a.Wallets) != 4 || words.Wallet == "" {
		t.Errorf("%d wallets, want 4: %+v", len(a.Wallets), a.Wallets)
	} else {
		for _, e := range a.Wallets {
			if e.Status != "active" {
				t.Errorf("wallet %s is %s", e.Wallet, e.Status)
			}
		}
	}
	stop()
	n.check(false)
}
