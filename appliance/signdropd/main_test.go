package main_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
)

// The tests run the real binary, which TestMain builds: for the architecture that
// they are run for, and with the race detector if they have it. Whatever else they
// need (ssh-keygen, openssl, mv, strace) must be there too; what is missing fails
// them.

var seedFlag = flag.Uint64("seed", 0, "seed of the kill rounds; 0 draws one")

// program is the command line that runs signdropd: the binary, behind the emulator
// that runs this test if one does.
var program []string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "signdropd-")
	if err == nil {
		program, err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "building signdropd:", err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir string) ([]string, error) {
	run, err := emulator()
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, "signdropd")
	args := []string{"build", "-o", bin}
	cgo := "0" // as it is shipped
	if raceEnabled() {
		args, cgo = append(args, "-race"), "1"
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return append(run, bin), nil
}

// emulator is the command that runs this test's program where the kernel cannot:
// qemu-user. The kernel may not know how to run a program for it, so what we start
// we start the same way. qemu shows a program its own name as /proc/self/exe and
// leaves /proc/thread-self as it is.
func emulator() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	real, err := os.Readlink("/proc/thread-self/exe")
	if err != nil {
		return nil, err
	}
	if real == self {
		return nil, nil
	}
	return []string{real}, nil
}

func raceEnabled() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}
