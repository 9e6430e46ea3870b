package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"signdrop": main})
}

func TestScripts(t *testing.T) {
	const dir = "testdata/script"
	if list, err := filepath.Glob(filepath.Join(dir, "*.txt")); err != nil || len(list) == 0 {
		t.Fatalf("no script in %s, %v", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup:               prepare,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":    cmdCode,
			"appears": cmdAppears,
			"fake":    cmdFake,
			"compose": cmdCompose,
			"journal": cmdJournal,

			"kms":          cmdKMS,
			"signtransfer": cmdSignTransfer,
		},
	})
}

// prepare gives the scripts what they share: a signer's key, the user's group, and
// addresses.
func prepare(env *testscript.Env) error {
	env.Setenv("GID", strconv.Itoa(os.Getgid()))
	env.Setenv("FROM", "MT75857a45899985be4c4d941e90b6b3852a83f1")
	env.Setenv("TO", "MT663ea1bfffe5038f3f0cf667f14c42b381fc59")
	env.Setenv("NONCE", "0123456789abcdef0123456789abcdef01234567")
	env.Setenv("TWO_KEYS", "key.pub\nbob.pub") // a script cannot write a line end
	datakeys, err := filepath.Abs("../../keyfs/datakey/testdata")
	if err != nil {
		return err
	}
	env.Setenv("DATAKEYS", datakeys)
	env.Setenv("HOME", env.WorkDir) // no agent, no configuration of whoever runs this
	if err := wrap(env); err != nil {
		return err
	}
	key := filepath.Join(env.WorkDir, "key")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice@acme", "-f", key).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ssh-keygen: %w: %s", err, out)
	}
	for _, d := range []string{"inbox", "outbox", "rejected"} {
		if err := os.MkdirAll(filepath.Join(env.WorkDir, "spool", d), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// wrap makes signdrop run where this test runs under an emulator, which the kernel
// may not know to start by itself. qemu shows a program its own name as
// /proc/self/exe and leaves /proc/thread-self as it is.
func wrap(env *testscript.Env) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	emulator, err := os.Readlink("/proc/thread-self/exe")
	if err != nil || emulator == self {
		return err
	}
	bin := filepath.Join(env.WorkDir, ".bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
	script := fmt.Sprintf("#!/bin/sh\nexec %s -0 signdrop %s \"$@\"\n", emulator, self)
	return os.WriteFile(filepath.Join(bin, "signdrop"), []byte(script), 0o700)
}

// cmdCode runs a command and wants this exit code: code 3 signdrop verify …
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdAppears waits until a file is there.
func cmdAppears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: appears FILE")
	}
	until(ts, func() bool {
		_, err := os.Lstat(ts.MkAbs(args[0]))
		return err == nil
	}, args[0]+" does not appear")
}

// until waits for a condition. It is looked at often; the limit is for a test that
// would never end.
func until(ts *testscript.TestScript, done func() bool, what string) {
	limit := time.After(2 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			ts.Fatalf("%s", what)
		}
	}
}
