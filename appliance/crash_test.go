package appliance_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"signdrop/appliance"
	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/checker"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/keyfs"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// The crash test runs one whole round of the appliance on the model file system:
// open, answer everything that lies in the inbox, close. Then it runs it again for
// every file-system call of that round, each time with a fault at that call, cuts
// the power, lets a new appliance recover, and has the checker look at the volume
// before and after.

// epoch is the time of the model's files; due is a time when everything that waits
// in the inbox is due, so that one round decides on everything.
var (
	epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	due   = epoch.Add(24 * time.Hour)
)

func modelConfig() appliance.Config {
	return appliance.Config{
		ID: "SD_0011223344556677", Serial: true, AllowNew: true, Recheck: keyfs.RecheckOff,
		Reserve: 1, Now: func() time.Time { return due }, Log: zerolog.Nop(),
	}
}

// round is one life of the appliance. An error is not a failed test: it is what a
// fault may lead to.
func round(vol durable.FS, fresh bool) error {
	cfg := modelConfig()
	cfg.AllowNew = fresh
	return live(vol, cfg)
}

func live(vol durable.FS, cfg appliance.Config) error {
	a, err := appliance.Open(vol, cfg)
	if err != nil {
		return err
	}
	// A round that finds no end is a fault too.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = a.Once(ctx)
	if ctx.Err() != nil {
		err = errEndless
	}
	return errors.Join(err, a.Close())
}

var errEndless = errors.New("the round found no end")

// scene is a volume with a past and an inbox full of everything.
type scene struct {
	vol   *modelfs.Volume
	drops []checker.Drop
}

func newScene(t testing.TB) *scene {
	t.Helper()
	v := modelfs.New()
	v.SetClock(func() int64 { return epoch.UnixNano() })
	acme := testbed.NewPartner("acme")
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(testbed.Setup(root, acme))
	_, err = setup.Make(root, nil, setup.Plan{Admins: []setup.Signer{ann.Signer("ann"), bob.Signer("bob")}, Threshold: 2})
	must(err)
	s := &scene{vol: v}
	drop := func(name string, data []byte) {
		t.Helper()
		must(acme.Drop(root, name, data))
		s.drops = append(s.drops, checker.Drop{Company: "acme", Name: name, Data: data})
	}
	// The past: three wallets, and an answer that was not taken out of the outbox.
	drop("first.json", []byte(`{"type":"wallet.create","curve":"P-256"}`))
	drop("second.json", []byte(`{"type":"wallet.create","curve":"P-256"}`+"\n"))
	drop("third.json", []byte(`{"type":"wallet.create","curve":"secp256k1"}`))
	must(round(v, true))
	told := func(name string) *answer.Answer {
		data, err := v.ReadFile("spool/acme/outbox/" + name)
		must(err)
		a, err := answer.Parse(data)
		must(err)
		return a
	}
	wallet := func(name string) string { return told(name).Wallet }
	coins := told("third.result.json").PublicKey
	w, w2, w3 := wallet("first.result.json"), wallet("second.result.json"), wallet("third.result.json")
	drop("old.json", testbed.Transfer(w, "old"))
	drop("past.json", []byte(`{"type":"wallet.create","kind":"hd","network":"main"}`))
	must(round(v, false))
	tree := wallet("past.result.json")

	// The inbox.
	pay := testbed.Transfer(w, "pay")
	drop("pay.json", pay)
	drop("twice.json", pay)                                                                   // the same bytes: the same answer
	drop("rival.json", []byte(strings.Replace(string(pay), `"amount":"1`, `"amount":"2`, 1))) // another text for the nonce
	drop("old.json", testbed.Transfer(w, "other"))                                            // the name is taken
	ether := testbed.EthereumTransfer(w3, "ether", 7)
	drop("ether.json", ether)
	drop("etheragain.json", ether)
	drop("etherrival.json", []byte(strings.Replace(string(ether), `"value":"1`, `"value":"2`, 1)))
	drop("ether.jsonl", append(testbed.EthereumTransfer(w3, "line 1", 8), testbed.EthereumTransfer(w3, "line 2", 9)...))
	drop("several.json", []byte(pairRequest(w, "several", "a", "b")))
	drop("several.jsonl", []byte(pairRequest(w, "1", "c", "d")+pairRequest(w, "2", "e")))
	drop("new.json", []byte(`{"type":"wallet.create","curve":"P-256","reference":"new"}`)) //
	drop("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, w2, testbed.Address("bound")))
	drop("bad.json", []byte(`{"type":"sign","wallet":"W_nobody","data":{"text":"x","hash":"sha256"}}`))
	drop("run.jsonl", []byte(`{"type":"batch","count":3}`+"\n"+string(testbed.DataRequest(w, "1"))+`{"type":"no"}`+"\n"+string(testbed.Transfer(w, "2"))))
	drop("all.jsonl", []byte(`{"type":"batch","count":2,"on_error":"abort"}`+"\n"+string(testbed.DataRequest(w, "3"))+`{"type":"no"}`+"\n"))
	drop("off.json", fmt.Appendf(nil, `{"type":"wallet.disable","wallet":%q}`, w2))
	drop("list.json", []byte(`{"type":"wallet.list"}`))
	id, err := setup.ReadIdentity(root, nil)
	must(err)
	drop("import.json.age", sealFor(id.Recipient(), importRequest(t, "imported")))
	drop("clear.json", []byte(importRequest(t, "exposed")))
	drop("tree.json", []byte(`{"type":"wallet.create","kind":"hd","network":"test"}`))
	drop("words.json.age", sealFor(id.Recipient(), `{"type":"wallet.import","mnemonic":"`+vectorWords+`","network":"main"}`))
	drop("addr.json", fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,"script":"p2tr","number":2}`, tree))
	document := func(how, coin string) []byte { return testbed.PSBT(coins, how == "whole", coin, 1000) }
	drop("coin.psbt", document("whole", "coin"))
	drop("half.psbt", document("half", "half"))
	drop("again.psbt", document("whole", "coin")) // the same bytes: the same answer and files
	drop("old.psbt", document("whole", "old"))    // the name is taken
	drop("no.psbt", []byte("no document"))
	command := func(name, text string, signers ...*testbed.Partner) {
		for i, p := range signers {
			ns := auth.NamespaceAdmin
			if p.Company != "admin" {
				ns = auth.NamespaceApprove
			}
			v.WriteFile(fmt.Sprintf("spool/admin/inbox/%s.s%d.sig", name, i), p.SignAs([]byte(text), ns))
		}
		v.WriteFile("spool/admin/inbox/"+name, []byte(text))
		s.drops = append(s.drops, checker.Drop{Company: "admin", Name: name, Data: []byte(text)})
	}
	command("beta.json", create("beta", testbed.NewPartner("beta")), ann, bob)
	command("update.json", fmt.Sprintf(`{"type":"company.update","company":"acme","name":"Acme Ltd","signers":[%q,%q]}`,
		acme.PublicKey(), testbed.Named("acme", "zoe").PublicKey()), ann, bob, acme)
	command("bad.json", `{"type":"policy.set","company":"nobody","policy":{}}`, ann, bob)
	command("set.json", fmt.Sprintf(`{"type":"admins.set","admins":[%q,%q,%q],"threshold":1}`,
		carl.PublicKey(), ann.PublicKey(), bob.PublicKey()), ann, bob)
	unsigned := testbed.DataRequest(w, "unsigned")
	must(acme.DropSigned(root, "unsigned.json", unsigned, nil))
	s.drops = append(s.drops, checker.Drop{Company: "acme", Name: "unsigned.json", Data: unsigned})
	v.WriteFile("spool/acme/inbox/alone.json.sig", acme.Sign(unsigned))
	v.WriteFile("spool/acme/inbox/j unk", []byte("junk"))
	v.Symlink("/etc/passwd", "spool/acme/inbox/link.json")
	// What a partner drops counts when it has been synced.
	must(v.Sync())
	must(root.Close())
	return s
}

// answers returns what is visible in the outbox.
func answers(v *modelfs.Volume) map[string]string {
	m := map[string]string{}
	for _, name := range v.List("spool/acme/outbox") {
		data, err := v.ReadFile("spool/acme/outbox/" + name)
		if err != nil {
			panic(err)
		}
		m[name] = string(data)
	}
	return m
}

// finish recovers on a volume after a fault and verifies that everything has come
// to its end.
func (s *scene) finish(v *modelfs.Volume) error { return s.finishWith(v, round) }

// finishWith is finish with another way to live one round.
func (s *scene) finishWith(v *modelfs.Volume, round func(vol durable.FS, fresh bool) error) error {
	if _, err := checker.Check(v, s.drops, false, testbed.VerifyAnswer); err != nil {
		return fmt.Errorf("before recovery: %w", err)
	}
	before := answers(v)
	if err := round(v, false); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	rep, err := checker.Check(v, s.drops, true, testbed.VerifyAnswer)
	if err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	// Either pay or its rival has the nonce, and either ether or its own.
	if rep.Answered+rep.Refused != len(s.drops) {
		return fmt.Errorf("after recovery: %d answered and %d refused of %d", rep.Answered, rep.Refused, len(s.drops))
	}
	after := answers(v)
	for name, data := range before {
		if after[name] != data {
			return fmt.Errorf("the answer %s was visible, and differs after recovery:\n%s\n%s", name, data, after[name])
		}
	}
	for name, data := range after {
		if strings.Contains(data, "key-unusable") {
			return fmt.Errorf("a fault that has passed became the verdict on a line of %s:\n%s", name, data)
		}
	}
	if list := v.List("spool/acme/inbox"); len(list) > 0 {
		return fmt.Errorf("after recovery the inbox holds %q", list)
	}
	if v.Exists("spool/acme/rejected/clear.json") {
		return errors.New("a secret in the clear was not wiped")
	}
	// A read error may have refused it for the moment, to be dropped again.
	later, _ := v.ReadFile("spool/admin/rejected/beta.reason.json")
	for _, path := range []string{"db/companies/beta/company.json", "spool/beta/inbox"} {
		if !v.Exists(path) && !strings.Contains(string(later), `"retry":true`) {
			return fmt.Errorf("after recovery %s is missing\n%s", path, v.Tree())
		}
	}
	if text, _ := v.ReadFile("db/admins/threshold"); string(text) != "1\n" {
		return fmt.Errorf("after recovery the threshold is %q", text)
	}
	if list := v.List("db/admins/approved"); len(list) > 0 {
		return fmt.Errorf("notes of commands are left: %q", list)
	}
	if list := v.List("spool/admin/inbox"); len(list) > 0 {
		return fmt.Errorf("after recovery the administrators' inbox holds %q", list)
	}
	signed, _ := v.ReadFile("spool/acme/outbox/coin-signed.psbt")
	if again, _ := v.ReadFile("spool/acme/outbox/again-signed.psbt"); len(signed) > 0 && len(again) > 0 && !bytes.Equal(signed, again) {
		return errors.New("the same document got two answers")
	}
	for _, name := range []string{"j%20unk", "link.json", "alone.json.sig", "unsigned.json"} {
		if !v.Exists("spool/acme/rejected/" + name) {
			return fmt.Errorf("after recovery rejected/ lacks %s: %q", name, v.List("spool/acme/rejected"))
		}
	}
	if h := v.OpenHandles(); len(h) > 0 {
		return fmt.Errorf("handles are left open: %q", h)
	}
	return nil
}

var errFault = fmt.Errorf("injected: %w", syscall.EIO)

// faults are what can happen at a call.
var faults = []struct {
	name  string
	fault modelfs.Fault
}{
	{"fails, not done", modelfs.FailNotDone(errFault)},
	{"fails, done", modelfs.FailDone(errFault)},
	{"crash before", modelfs.CrashBefore},
	{"crash within", modelfs.CrashWithin},
	{"crash after", modelfs.CrashAfter},
}

// every is how many calls lie between two that fail, and the first is another each
// time, so that runs together make all of them fail. Each state takes a whole recovery,
// and with 1 there are 70,000 of them: ten minutes and more.
var every = flag.Int("every", 12, "make a fault at every so-manieth call; 1 for all")

// TestCrashEverywhere is the whole round with a fault at each call, or at a sample
// of them.
func TestCrashEverywhere(t *testing.T) {
	s := newScene(t)
	plain := s.vol.Clone()
	if err := round(plain, false); err != nil {
		t.Fatal(err)
	}
	calls := plain.Calls()
	if err := s.finish(plain); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	var tried atomic.Int64
	everyCall(t, calls, *every, 251, func(k int, fault modelfs.Fault) error { return s.crashAt(k, fault, &tried) })
	t.Logf("%d calls a round, %d states recovered", len(calls), tried.Load())
}

// everyCall calls try for each fault at a sample of the calls of a round, several at
// once. full is how many calls lie between two of the sample, and short with -short: the
// race detector and the emulator take ten times as long and find nothing here that is
// theirs to find.
func everyCall(t *testing.T, calls []modelfs.Call, full, short int, try func(k int, fault modelfs.Fault) error) {
	t.Helper()
	stride := full
	if testing.Short() {
		stride = short
	}
	ks := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for k := range ks {
				for _, f := range faults {
					if t.Failed() {
						break
					}
					if err := try(k, f.fault); err != nil {
						t.Errorf("call %d (%v) %s: %v", k, calls[k-1], f.name, err)
					}
				}
			}
		})
	}
	first := 1 + rand.IntN(stride)
	for k := first; k <= len(calls) && !t.Failed(); k += stride {
		ks <- k
	}
	close(ks)
	wg.Wait()
	t.Logf("a fault at every %d of the calls, from the %d", stride, first)
}

// faultAt makes the k-th call meet the fault.
func faultAt(k int, fault modelfs.Fault) func(modelfs.Call) modelfs.Fault {
	return func(c modelfs.Call) modelfs.Fault {
		if c.N == k {
			return fault
		}
		return modelfs.None
	}
}

// crashAt runs a round with a fault at its k-th call and recovers from each state
// that the disk could be in.
func (s *scene) crashAt(k int, fault modelfs.Fault, tried *atomic.Int64) error {
	v := s.vol.Clone()
	v.SetFault(faultAt(k, fault))
	err := round(v, false)
	v.SetFault(nil)
	if errors.Is(err, errEndless) {
		calls := v.Calls()
		return fmt.Errorf("%w; its last calls: %v", err, calls[len(calls)-20:])
	}

	// The process has ended, in whatever way, and the machine goes on.
	same := v.Clone()
	tried.Add(1)
	if ferr := s.finish(same); ferr != nil {
		return fmt.Errorf("restart after %v: %w", err, ferr)
	}
	// The power was cut.
	for _, choice := range []modelfs.Choice{
		modelfs.KeepNothing, modelfs.NamesWithoutData, modelfs.NamesWithGarbage, modelfs.DataWithoutNames,
		modelfs.KeepPrefix(k % 7), modelfs.KeepRandom(uint64(k)), modelfs.KeepRandom(uint64(k) << 32),
	} {
		tried.Add(1)
		if ferr := s.finish(v.Clone().Crash(choice)); ferr != nil {
			return fmt.Errorf("power cut (%v) after %v: %w", choice, err, ferr)
		}
	}
	return nil
}

// TestCrashPipelined is the round with its stages side by side, as Serve has them:
// which call a fault meets differs from run to run, what must come of it does not.
func TestCrashPipelined(t *testing.T) {
	s := newScene(t)
	cfg := modelConfig()
	cfg.Serial, cfg.AllowNew, cfg.Group, cfg.Workers = false, false, 3, 3
	plain := s.vol.Clone()
	if err := live(plain, cfg); err != nil {
		t.Fatal(err)
	}
	calls := len(plain.Calls())
	if err := s.finish(plain); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	samples := 200
	if testing.Short() {
		samples = 20
	}
	for i := range samples {
		k, f := 1+i*calls/samples, faults[i%len(faults)]
		v := s.vol.Clone()
		v.SetFault(faultAt(k, f.fault))
		err := live(v, cfg)
		v.SetFault(nil)
		if errors.Is(err, errEndless) {
			t.Fatalf("call %d %s: %v", k, f.name, err)
		}
		for _, choice := range []modelfs.Choice{modelfs.KeepNothing, modelfs.NamesWithGarbage, modelfs.KeepRandom(uint64(k))} {
			if ferr := s.finish(v.Clone().Crash(choice)); ferr != nil {
				t.Fatalf("call %d %s, power cut (%v) after %v: %v", k, f.name, choice, err, ferr)
			}
		}
		if ferr := s.finish(v.Clone()); ferr != nil {
			t.Fatalf("call %d %s, restart after %v: %v", k, f.name, err, ferr)
		}
	}
}

// TestSyncNeverWorks: when every syncfs from some point on fails, the appliance
// stops, and nothing becomes visible that was not on record before.
func TestSyncNeverWorks(t *testing.T) {
	s := newScene(t)
	for _, fault := range []modelfs.Fault{modelfs.FailNotDone(errFault), modelfs.FailDone(errFault)} {
		for from := 1; from < 12; from++ {
			v := s.vol.Clone()
			n := 0
			v.SetFault(func(c modelfs.Call) modelfs.Fault {
				if c.Op == modelfs.OpSyncAll {
					if n++; n >= from {
						return fault
					}
				}
				return modelfs.None
			})
			err := round(v, false)
			if n >= from && err == nil {
				t.Errorf("from the %d. sync on: the round ended well", from)
			}
			v.SetFault(nil)
			if err := s.finish(v.Clone().Crash(modelfs.KeepNothing)); err != nil {
				t.Errorf("from the %d. sync on: %v", from, err)
			}
			if err := s.finish(v); err != nil {
				t.Errorf("from the %d. sync on, no power cut: %v", from, err)
			}
		}
	}
}

// TestDiskFull: the disk fills up at any point of the round. Nothing is lost, and
// when there is room again everything is answered.
func TestDiskFull(t *testing.T) {
	s := newScene(t)
	step := int64(97)
	if testing.Short() {
		step = 1999
	}
	for free := int64(0); ; free += step {
		v := s.vol.Clone()
		v.SetFree(free)
		err := round(v, false)
		v.SetFree(-1)
		cut := v.Clone().Crash(modelfs.KeepRandom(uint64(free)))
		if ferr := s.finish(v); ferr != nil {
			t.Fatalf("%d bytes free, %v: %v", free, err, ferr)
		}
		if ferr := s.finish(cut); ferr != nil {
			t.Fatalf("%d bytes free, %v, power cut: %v", free, err, ferr)
		}
		if err == nil {
			return // all of it fitted
		}
	}
}
