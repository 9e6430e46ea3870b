package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
)

// TestBackupScript runs the scripts of testdata/backup, which need signdrop beside
// signdropd. Beside what TestScript has they have
//
//	value NAME FILE REGEXP  sets NAME to the first group of the match in a file
//	flip FILE N             changes the byte at N, from the end if below 0
func TestBackupScript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin := filepath.Join(dir, "signdrop")
	args := []string{"build", "-o", bin}
	if raceEnabled() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "signdrop/tools/signdrop")...)
	cmd.Env = append(os.Environ(), "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building signdrop: %v\n%s", err, out)
	}
	words := append(append([]string{}, program[:len(program)-1]...), bin)
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "backup"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			if err := setupScript(env); err != nil {
				return err
			}
			data, err := filepath.Abs("../testdata/backup")
			if err != nil {
				return err
			}
			env.Setenv("MADE", data)
			env.Setenv("HOME", env.WorkDir)
			text := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\"\n", strings.Join(words, "' '"))
			return os.WriteFile(filepath.Join(env.WorkDir, ".bin", "signdrop"), []byte(text), 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"volume": scriptVolume, "drop": scriptDrop, "status": scriptStatus,
			"await": scriptAwait, "awaitlog": scriptAwaitLog, "chop": scriptChop, "replace": scriptReplace,
			"value": scriptValue, "flip": scriptFlip,
		},
	})
}

func scriptValue(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 3, "value NAME FILE REGEXP")
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(m) != 2 {
		ts.Fatalf("%s has no %s:\n%s", args[1], args[2], ts.ReadFile(args[1]))
	}
	ts.Setenv(args[0], m[1])
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "flip FILE N")
	data := []byte(ts.ReadFile(args[0]))
	var n int
	_, err := fmt.Sscan(args[1], &n)
	ts.Check(err)
	if n < 0 {
		n += len(data)
	}
	data[n] ^= 1
	ts.Check(os.Chmod(ts.MkAbs(args[0]), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// TestKilledRestore kills restores when they have written more and more files. What
// is left is refused by all but another restore, which comes to its end.
func TestKilledRestore(t *testing.T) {
	t.Parallel()
	v := bareVolume(t)
	ann := testbed.Named("admin", "ann")
	signer := v.acme.Signer("acme")
	id, err := age.GenerateX25519Identity()
	v.ok(err)
	_, err = setup.MakeDisk(v.dir, setup.Plan{
		Admins: []setup.Signer{ann.Signer("ann")}, BackupRecipients: []string{id.Recipient().String()},
		Company: "acme", Signers: []setup.Signer{signer},
	})
	v.ok(err)
	var lines []byte
	for i := range 200 {
		lines = fmt.Appendf(lines, `{"type":"wallet.create","curve":"P-256","reference":"%d"}`+"\n", i)
	}
	v.drop("wallets.jsonl", lines)
	r := v.serve()
	v.await(v.outbox("wallets.result.jsonl"))
	command := []byte(`{"type":"backup"}`)
	v.put(v.path("spool", "admin", "inbox", "all.json.sig"), ann.SignAs(command, auth.NamespaceAdmin))
	v.put(v.path("spool", "admin", "inbox", "all.json"), command)
	a, err := answer.Parse(v.await(v.path("spool", "admin", "outbox", "all.result.json")))
	v.ok(err)
	r.stop()
	file := v.path("spool", "admin", "outbox", a.File)
	key := filepath.Join(t.TempDir(), "key.txt")
	v.ok(os.WriteFile(key, []byte(id.String()+"\n"), 0o600))

	top := t.TempDir()
	dir := filepath.Join(top, "new")
	restore := func() *exec.Cmd {
		words := append(append([]string{}, program...), "restore", "--data="+dir, "--identity="+key, file)
		return exec.Command(words[0], words[1:]...)
	}
	// written are the wallets that are there.
	written := func() int {
		list, _ := os.ReadDir(filepath.Join(dir, "db", "companies", "acme", "wallets"))
		return len(list)
	}
	unfinished := func() bool {
		_, err := os.Lstat(filepath.Join(dir, "restoring"))
		return err == nil
	}
	steps := []int{0, 1, 40, 120, 199}
	killed := 0
	for try := 0; len(steps) > 0 && try < 12; try++ {
		n, before := steps[0], written()
		cmd := restore()
		v.ok(cmd.Start())
		// What an earlier one has left goes first.
		under := func() bool { return unfinished() && written() >= n && (before == 0 || written() != before) }
		for end := time.Now().Add(patience); !under() && (unfinished() || written() < 200); tick() {
			if time.Now().After(end) {
				t.Fatal("waited in vain for a restore")
			}
		}
		v.ok(cmd.Process.Kill())
		cmd.Wait()
		if !unfinished() {
			// It was quicker than this test. What was to be killed is tried with
			// another, from the beginning.
			dir = filepath.Join(top, fmt.Sprint("new", try))
			continue
		}
		steps = steps[1:]
		killed++
		words := append(append([]string{}, program...), "once", "--allow-plain-keys", "--data="+dir)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "was not finished") {
			t.Errorf("%d wallets are there, and once says: %v\n%s", written(), err, out)
		}
	}
	if killed == 0 {
		t.Error("no restore was killed before its end")
	}
	if unfinished() || written() == 0 {
		if out, err := restore().CombinedOutput(); err != nil || !strings.Contains(string(out), "200 wallets") {
			t.Errorf("restoring in the end: %v\n%s", err, out)
		}
	}
	if unfinished() || written() != 200 {
		t.Errorf("%d wallets are there", written())
	}
}
