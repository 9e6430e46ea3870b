package harden_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"signdrop/appliance/harden"
)

// probeVariable makes this program the process that is hardened: it says what it still
// can do, as JSON. Its value is the data volume.
const probeVariable = "HARDEN_PROBE"

// findings are what a probe says.
type findings struct {
	Error    string
	Landlock int
	Locked   bool
	Why      string

	Dumpable   int
	NoNewPrivs int
	Core       uint64
	Status     string            // /proc/self/status, from before
	Opened     map[string]string // by path: "" or why not
	Moved      string            // a file between two directories of the volume
	Listened   string
	Started    string // this program, again
	Signalled  string // its parent
	Threads    int    // of the older threads, how many can open / still
}

func TestMain(m *testing.M) {
	switch data := os.Getenv(probeVariable); data {
	case "":
		os.Exit(m.Run())
	case "again":
		os.Exit(0)
	default:
		if err := json.NewEncoder(os.Stdout).Encode(probe(data)); err != nil {
			panic(err)
		}
	}
}

// threads is how many threads of a probe were there before it is shut in, at least.
const threads = 3

func said(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func probe(data string) *findings {
	f := &findings{Opened: map[string]string{}}
	if err := harden.Renounce(); err != nil {
		f.Error = err.Error()
		return f
	}
	f.Locked, f.Why = harden.LockMemory()
	status, err := os.Open("/proc/self/status")
	if err != nil {
		f.Error = err.Error()
		return f
	}
	confined, tried := make(chan bool), make(chan bool)
	var locked sync.WaitGroup
	older := threads
	if _, err := llsys.LandlockGetABIVersion(); err != nil {
		older = 0 // and qemu's fork hangs now and then in a program with many
	}
	for range older {
		locked.Add(1)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			locked.Done()
			<-confined
			file, err := os.Open("/")
			if err == nil {
				file.Close()
			}
			tried <- err == nil
		}()
	}
	locked.Wait()
	if f.Landlock, err = harden.Confine(harden.Needs{Data: data, Door: os.Getenv("HARDEN_DOOR") != ""}); err != nil {
		f.Error = err.Error()
		return f
	}
	close(confined)
	for range older {
		if <-tried {
			f.Threads++
		}
	}
	buf := make([]byte, 64<<10)
	n, err := status.Read(buf)
	f.Status = string(buf[:n])
	f.Error = said(err)
	f.Dumpable, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	f.Error += said(err)
	f.NoNewPrivs, err = unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	f.Error += said(err)
	var lim unix.Rlimit
	f.Error += said(unix.Getrlimit(unix.RLIMIT_CORE, &lim))
	f.Core = lim.Max
	for _, name := range []string{"/etc/passwd", "/", filepath.Dir(data), filepath.Join(filepath.Dir(data), "beside"), filepath.Join(data, "inside"), data, "/proc/self/environ"} {
		file, err := os.Open(name)
		if err == nil {
			file.Close()
		}
		f.Opened[strings.TrimPrefix(name, filepath.Dir(data))] = said(err)
	}
	f.Error += said(errors.Join(os.Mkdir(filepath.Join(data, "a"), 0o700), os.Mkdir(filepath.Join(data, "b"), 0o700),
		os.WriteFile(filepath.Join(data, "a", "x"), nil, 0o600), os.Symlink("nowhere", filepath.Join(data, "a", "link"))))
	f.Moved = said(errors.Join(os.Rename(filepath.Join(data, "a", "x"), filepath.Join(data, "b", "x")),
		os.Rename(filepath.Join(data, "a", "link"), filepath.Join(data, "b", "link")), os.Remove(filepath.Join(data, "b", "x"))))
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which Landlock does not look at
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err == nil {
		l.Close()
	}
	f.Listened = said(err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{probeVariable + "=again"}
	f.Started = said(cmd.Run())
	f.Signalled = said(unix.Kill(os.Getppid(), 0))
	return f
}

// TestHardened runs a process that hardens itself and tries what it should not be able
// to do any more.
func TestHardened(t *testing.T) {
	for _, door := range []bool{false, true} {
		t.Run(fmt.Sprintf("door %t", door), func(t *testing.T) {
			top := t.TempDir()
			data := filepath.Join(top, "data")
			if err := errors.Join(os.Mkdir(data, 0o700), os.WriteFile(filepath.Join(data, "inside"), nil, 0o600),
				os.WriteFile(filepath.Join(top, "beside"), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
			words := append(emulator(t), os.Args[0])
			cmd := exec.Command(words[0], words[1:]...)
			cmd.Env = append(os.Environ(), probeVariable+"="+data)
			if door {
				cmd.Env = append(cmd.Env, "HARDEN_DOOR=1")
			}
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var f findings
			if err := json.Unmarshal(out, &f); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
			if f.Error != "" {
				t.Error(f.Error)
			}
			if f.Dumpable != 0 || f.NoNewPrivs != 1 || f.Core != 0 {
				t.Errorf("dumpable %d, no_new_privs %d, most of a core file %d bytes", f.Dumpable, f.NoNewPrivs, f.Core)
			}
			if f.Locked == (f.Why != "") {
				t.Errorf("memory locked %t, and why not: %q", f.Locked, f.Why)
			}
			if os.Geteuid() == 0 && !f.Locked && len(words) == 1 {
				t.Errorf("root could not lock the memory: %s", f.Why)
			}
			for _, name := range []string{"/data", "/data/inside"} {
				if why := f.Opened[name]; why != "" {
					t.Errorf("%s: %s", name, why)
				}
			}
			if f.Moved != "" {
				t.Errorf("moving files within the volume: %s", f.Moved)
			}
			if f.Landlock == 0 {
				t.Log("the kernel, or the emulator, has no Landlock")
				return
			}
			for _, name := range []string{"/etc/passwd", "/", "", "/beside", "/proc/self/environ"} {
				if why, ok := f.Opened[name]; !ok || !strings.Contains(why, syscall.EACCES.Error()) {
					t.Errorf("%q: got %q, want that it cannot be opened", name, why)
				}
			}
			if f.Landlock >= 4 && (f.Listened == "") != door {
				t.Errorf("listening on a port: %q", f.Listened)
			}
			if f.Threads > 0 {
				t.Errorf("%d of %d older threads can still open /", f.Threads, threads)
			}
			if f.Landlock >= 6 && (f.Signalled == "") != door {
				t.Errorf("sending the parent a signal: %q", f.Signalled)
			}
			if (f.Started == "") != door {
				t.Errorf("starting a program: %q", f.Started)
			}
		})
	}
}

// emulator is the command that runs this test's program where the kernel cannot, none
// else: see signdropd's tests.
func emulator(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	real, err := os.Readlink("/proc/thread-self/exe")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if real == self || real == "" {
		return nil
	}
	return []string{real}
}
