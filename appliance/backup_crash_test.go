package appliance_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"filippo.io/age"

	"signdrop/appliance"
	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/backup"
	"signdrop/appliance/checker"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// The crash tests of backup and restore: a fault at each file-system call of a round
// in which a backup and an increment are made, and of a restore of both.

// backupScene is a volume with a wallet, a backup that was handed out, and a command
// for an increment in the inbox, beside a request.
func backupScene(t testing.TB) (s *scene, wallet string, full []byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v := modelfs.New()
	v.SetClock(func() int64 { return epoch.UnixNano() })
	root, err := v.Root()
	must(err)
	defer root.Close()
	acme := testbed.NewPartner("acme")
	must(testbed.Setup(root, acme))
	_, err = setup.Make(root, nil, setup.Plan{
		Admins: []setup.Signer{ann.Signer("ann")}, Threshold: 1, BackupRecipients: []string{keeper.Recipient().String()},
	})
	must(err)
	s = &scene{vol: v}
	drop := func(name string, data []byte) {
		t.Helper()
		must(acme.Drop(root, name, data))
		s.drops = append(s.drops, checker.Drop{Company: "acme", Name: name, Data: data})
	}
	command := func(name, text string) {
		v.WriteFile("spool/admin/inbox/"+name+".sig", ann.SignAs([]byte(text), auth.NamespaceAdmin))
		v.WriteFile("spool/admin/inbox/"+name, []byte(text))
		s.drops = append(s.drops, checker.Drop{Company: "admin", Name: name, Data: []byte(text)})
	}
	drop("w.json", []byte(`{"type":"wallet.create","curve":"P-256"}`))
	must(round(v, true))
	data, err := v.ReadFile("spool/acme/outbox/w.result.json")
	must(err)
	a, err := answer.Parse(data)
	must(err)
	wallet = a.Wallet
	drop("list.json", []byte(`{"type":"wallet.list"}`))
	command("full.json", `{"type":"backup"}`)
	must(round(v, false))
	data, err = v.ReadFile("spool/admin/outbox/full.result.json")
	must(err)
	a, err = answer.Parse(data)
	must(err)
	full, err = v.ReadFile("spool/admin/outbox/" + a.File)
	must(err)
	drop("pay.json", testbed.Transfer(wallet, "pay"))
	must(v.Sync())
	must(round(v, false))
	drop("later.json", testbed.DataRequest(wallet, "later"))
	command("inc.json", fmt.Sprintf(`{"type":"backup","since":%q}`, a.Backup))
	must(v.Sync())
	return s, wallet, full
}

// finishBackup recovers on a volume after a fault and verifies that the increment is
// there, once, as its answer says, or refused for the moment with nothing left.
func (s *scene) finishBackup(v *modelfs.Volume, full []byte) error {
	if _, err := checker.Check(v, s.drops, false, testbed.VerifyAnswer); err != nil {
		return fmt.Errorf("before recovery: %w", err)
	}
	if err := round(v, false); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	if _, err := checker.Check(v, s.drops, true, testbed.VerifyAnswer); err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	var files []string
	for _, name := range v.List("spool/admin/outbox") {
		if strings.HasSuffix(name, backup.Suffix) {
			files = append(files, name)
		}
	}
	data, err := v.ReadFile("spool/admin/outbox/inc.result.json")
	if err != nil {
		why, err := v.ReadFile("spool/admin/rejected/inc.reason.json")
		if err != nil || !strings.Contains(string(why), `"retry":true`) {
			return fmt.Errorf("the backup is neither made nor refused for the moment: %s, %v", why, err)
		}
		if len(files) != 1 || len(v.List("backups")) != 1 {
			return fmt.Errorf("it is refused, and the outbox holds %q and backups %q", files, v.List("backups"))
		}
		return nil
	}
	a, err := answer.Parse(data)
	if err != nil {
		return err
	}
	inc, err := v.ReadFile("spool/admin/outbox/" + a.File)
	if err != nil {
		return fmt.Errorf("the answer is there and its file is not: %w", err)
	}
	if sum := sha256.Sum256(inc); hex.EncodeToString(sum[:]) != a.SHA256 || len(files) != 2 {
		return fmt.Errorf("the answer tells of another file, or the outbox holds %q", files)
	}
	n := modelfs.New()
	rep, err := restoreInto(n, full, inc)
	if err != nil {
		return fmt.Errorf("restoring it: %w", err)
	}
	if rep.Wallets != 1 || len(rep.Damaged) > 0 {
		return fmt.Errorf("restored: %+v", rep)
	}
	if h := v.OpenHandles(); len(h) > 0 {
		return fmt.Errorf("handles are left open: %q", h)
	}
	return nil
}

func restoreInto(vol durable.FS, files ...[]byte) (*backup.Report, error) {
	var sources []backup.Source
	for i, f := range files {
		sources = append(sources, backup.Source{Name: fmt.Sprint("backup ", i), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(f)), nil
		}})
	}
	return backup.Restore(vol, sources, backup.RestoreOptions{Identities: []age.Identity{keeper}})
}

// TestCrashBackup: wherever a backup is interrupted, in the end it is in the outbox
// whole, with an answer that tells of it, and can be restored.
func TestCrashBackup(t *testing.T) {
	s, _, full := backupScene(t)
	plain := s.vol.Clone()
	if err := round(plain, false); err != nil {
		t.Fatal(err)
	}
	calls := plain.Calls()
	if err := s.finishBackup(plain, full); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	if !plain.Exists("spool/admin/outbox/inc.result.json") {
		t.Fatal("without a fault: no backup was made")
	}
	var tried atomic.Int64
	everyCall(t, calls, 2*(*every), 131, func(k int, fault modelfs.Fault) error {
		v := s.vol.Clone()
		v.SetFault(faultAt(k, fault))
		err := round(v, false)
		v.SetFault(nil)
		tried.Add(1)
		if ferr := s.finishBackup(v.Clone(), full); ferr != nil {
			return fmt.Errorf("restart after %v: %w", err, ferr)
		}
		for _, choice := range []modelfs.Choice{modelfs.KeepNothing, modelfs.NamesWithGarbage, modelfs.DataWithoutNames, modelfs.KeepRandom(uint64(k))} {
			tried.Add(1)
			if ferr := s.finishBackup(v.Clone().Crash(choice), full); ferr != nil {
				return fmt.Errorf("power cut (%v) after %v: %w", choice, err, ferr)
			}
		}
		return nil
	})
	t.Logf("%d calls a round, %d states recovered", len(calls), tried.Load())
}

// TestBackupDiskFull: a backup for which there is no room is refused and leaves
// nothing; one for which there is, is made.
func TestBackupDiskFull(t *testing.T) {
	s, _, full := backupScene(t)
	step := int64(1777)
	if testing.Short() {
		step = 9999
	}
	refused := 0
	for free := int64(0); ; free += step {
		v := s.vol.Clone()
		v.SetFree(free)
		err := round(v, false)
		v.SetFree(-1)
		why, _ := v.ReadFile("spool/admin/rejected/inc.reason.json")
		if strings.Contains(string(why), `"code":"no-room"`) {
			refused++
			if list := v.List("backups"); len(list) != 1 {
				t.Fatalf("%d bytes free: refused, and backups holds %q", free, list)
			}
		}
		if ferr := s.finishBackup(v, full); ferr != nil {
			t.Fatalf("%d bytes free, %v: %v", free, err, ferr)
		}
		if err == nil && len(why) == 0 {
			break
		}
	}
	if refused == 0 {
		t.Error("no room was never told")
	}
}

// TestCrashRestore: wherever a restore is interrupted, the volume is refused, or whole.
// Run again it becomes whole.
func TestCrashRestore(t *testing.T) {
	s, wallet, full := backupScene(t)
	made := s.vol.Clone()
	if err := round(made, false); err != nil {
		t.Fatal(err)
	}
	data, err := made.ReadFile("spool/admin/outbox/inc.result.json")
	if err != nil {
		t.Fatal(err)
	}
	a, err := answer.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	inc, err := made.ReadFile("spool/admin/outbox/" + a.File)
	if err != nil {
		t.Fatal(err)
	}
	plain := modelfs.New()
	if _, err := restoreInto(plain, full, inc); err != nil {
		t.Fatal(err)
	}
	calls := plain.Calls()
	// whole: it opens, and signs as the old one.
	whole := func(v *modelfs.Volume) error {
		r, accepted, err := readRestored(v)
		if err != nil || r == nil || accepted {
			return fmt.Errorf("restored.json: %+v, %t, %v", r, accepted, err)
		}
		text := fmt.Sprintf(`{"type":"restore.accept","restore":%q}`, r.Restore)
		v.WriteFile("spool/admin/inbox/accept.json.sig", ann.SignAs([]byte(text), auth.NamespaceAdmin))
		v.WriteFile("spool/admin/inbox/accept.json", []byte(text))
		root, err := v.Root()
		if err != nil {
			return err
		}
		defer root.Close()
		acme := testbed.NewPartner("acme")
		if err := acme.Drop(root, "pay.json", testbed.Transfer(wallet, "pay")); err != nil {
			return err
		}
		if err := round(v, false); err != nil {
			return err
		}
		was, err := made.ReadFile("spool/acme/outbox/pay.result.json")
		if err != nil {
			return err
		}
		is, err := v.ReadFile("spool/acme/outbox/pay.result.json")
		if err != nil || !bytes.Equal(was, is) {
			return fmt.Errorf("it answers %s, %v, and the old one %s", is, err, was)
		}
		return nil
	}
	if err := whole(plain.Clone()); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	var refused, complete atomic.Int64
	check := func(v *modelfs.Volume) error {
		cfg := modelConfig()
		cfg.AllowNew = false
		opened, err := appliance.Open(v.Clone(), cfg)
		switch {
		case err == nil:
			opened.Close()
			complete.Add(1)
			return whole(v)
		case errors.Is(err, setup.ErrRestoring):
			refused.Add(1)
		case len(v.List("")) > 0:
			return fmt.Errorf("the volume holds %q, and is refused for another reason: %w", v.List(""), err)
		}
		if _, err := restoreInto(v, full, inc); err != nil {
			return fmt.Errorf("restoring again: %w", err)
		}
		return whole(v)
	}
	everyCall(t, calls, 2*(*every), 131, func(k int, fault modelfs.Fault) error {
		v := modelfs.New()
		v.SetFault(faultAt(k, fault))
		_, err := restoreInto(v, full, inc)
		v.SetFault(nil)
		if ferr := check(v.Clone()); ferr != nil {
			return fmt.Errorf("after %v: %w", err, ferr)
		}
		for _, choice := range []modelfs.Choice{modelfs.KeepNothing, modelfs.NamesWithGarbage, modelfs.DataWithoutNames, modelfs.KeepRandom(uint64(k))} {
			if ferr := check(v.Clone().Crash(choice)); ferr != nil {
				return fmt.Errorf("power cut (%v) after %v: %w", choice, err, ferr)
			}
		}
		return nil
	})
	t.Logf("%d calls, %d states refused and restored again, %d whole", len(calls), refused.Load(), complete.Load())
	if refused.Load() == 0 || complete.Load() == 0 {
		t.Error("not both were seen")
	}
}

func readRestored(v *modelfs.Volume) (*setup.Restored, bool, error) {
	root, err := v.Root()
	if err != nil {
		return nil, false, err
	}
	defer root.Close()
	return setup.ReadRestored(root)
}
