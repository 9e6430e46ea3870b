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

	"github.com/rogpeppe/go-internal/testscript"
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
