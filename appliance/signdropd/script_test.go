package main_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
)

// TestScript runs the scripts of testdata/script, one for each way in which the
// program behaves. Beside what testscript knows they have
//
//	volume DIR             makes a data volume with the company acme
//	drop DIR NAME FILE     acme signs FILE and drops it as NAME
//	status N PROGRAM ARG…  runs a program that must exit with status N
//	await FILE…            waits until the files are there
//	awaitlog FILE REGEXP   waits until a file has a match
//	chop FILE N            takes the last N bytes off a file
//	replace FILE OLD NEW   replaces a text that is in a file once
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setupScript,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"volume": scriptVolume, "drop": scriptDrop, "status": scriptStatus,
			"await": scriptAwait, "awaitlog": scriptAwaitLog, "chop": scriptChop, "replace": scriptReplace,
		},
	})
}

// setupScript puts signdropd into the PATH.
func setupScript(env *testscript.Env) error {
	bin := filepath.Join(env.WorkDir, ".bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	var words []string
	for _, w := range program {
		words = append(words, "'"+w+"'")
	}
	text := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", strings.Join(words, " "))
	if err := os.WriteFile(filepath.Join(bin, "signdropd"), []byte(text), 0o700); err != nil {
		return err
	}
	env.Setenv("PATH", bin+":"+env.Getenv("PATH"))
	t := env.T().(testing.TB)
	env.Defer(func() {
		if t.Failed() {
			showScriptLogs(t, env.WorkDir)
		}
	})
	return nil
}

func showScriptLogs(t testing.TB, dir string) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Error(err)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		t.Logf("%s (%v):\n%s", filepath.Base(log), err, text)
	}
}

func arguments(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func scriptVolume(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "volume DIR")
	signer, err := setup.ReadSigner([]byte(testbed.NewPartner("acme").PublicKey()), "acme")
	ts.Check(err)
	_, err = setup.MakeDisk(ts.MkAbs(args[0]), setup.Plan{Company: "acme", Signers: []setup.Signer{signer}})
	ts.Check(err)
}

func scriptDrop(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 3, "drop DIR NAME FILE")
	data := []byte(ts.ReadFile(args[2]))
	inbox := filepath.Join(ts.MkAbs(args[0]), "spool", "acme", "inbox")
	for _, f := range []struct {
		name string
		data []byte
	}{{args[1] + ".sig", testbed.NewPartner("acme").Sign(data)}, {args[1], data}} {
		tmp := filepath.Join(inbox, "."+f.name)
		ts.Check(os.WriteFile(tmp, f.data, 0o600))
		ts.Check(os.Rename(tmp, filepath.Join(inbox, f.name)))
	}
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "status N PROGRAM ARG…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		ts.Fatalf("%v", err)
	}
	got := 0
	if ee != nil {
		got = ee.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d; standard error:\n%s", got, want, ts.ReadFile("stderr"))
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "await FILE…")
	for _, name := range args {
		awaitIn(ts, name+" is there", func() bool {
			_, err := os.Lstat(ts.MkAbs(name))
			return err == nil
		})
	}
}

func scriptAwaitLog(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "awaitlog FILE REGEXP")
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	awaitIn(ts, args[0]+" has "+args[1], func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			ts.Fatalf("%v", err)
		}
		return re.Match(text)
	})
}

func awaitIn(ts *testscript.TestScript, what string, cond func() bool) {
	for end := time.Now().Add(patience); !cond(); tick() {
		if time.Now().After(end) {
			ts.Fatalf("waited in vain: %s", what)
		}
	}
}

func scriptChop(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "chop FILE N")
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.Chmod(ts.MkAbs(args[0]), 0o600))
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}

func scriptReplace(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 3, "replace FILE OLD NEW")
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, args[1]); n != 1 {
		ts.Fatalf("%s has %q %d times", args[0], args[1], n)
	}
	ts.Check(os.Chmod(ts.MkAbs(args[0]), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
}
