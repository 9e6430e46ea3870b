package harden

import (
	"errors"
	"io/fs"
	"testing"
	"unsafe"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// TestVersions: each version forbids what the one before does, and the one that moving
// files takes is where Confine wants it.
func TestVersions(t *testing.T) {
	for v := 1; v < len(versions); v++ {
		was, is := versions[v-1], versions[v]
		if was.HandledAccessFS&^is.HandledAccessFS != 0 || was.HandledAccessNet&^is.HandledAccessNet != 0 || was.Scoped&^is.Scoped != 0 {
			t.Errorf("version %d forbids less than the one before: %v", v, is)
		}
		if is.HandledAccessFS == 0 || (is.HandledAccessFS&llsys.AccessFSRefer != 0) != (v >= 2) {
			t.Errorf("version %d: %v", v, is)
		}
	}
}

// TestRuleLayout: the kernel reads 12 bytes, the descriptor as 32 bits in the order of
// the machine (include/uapi/linux/landlock.h). That it takes them on a big-endian one
// only a kernel of such a machine can tell: make guest-test.
func TestRuleLayout(t *testing.T) {
	var attr unix.LandlockPathBeneathAttr
	if at, size := unsafe.Offsetof(attr.Parent_fd), unsafe.Sizeof(attr.Parent_fd); at != 8 || size != 4 {
		t.Errorf("the descriptor is %d bytes at %d", size, at)
	}
}

// TestRuleMissing: only a path that may be missing is passed over. Nothing is
// restricted by a call that fails.
func TestRuleMissing(t *testing.T) {
	if abi, err := llsys.LandlockGetABIVersion(); err != nil || abi < 1 {
		t.Logf("the kernel, or the emulator, has no Landlock: %v", err)
		return
	}
	dir := t.TempDir()
	rules := []Rule{{dir + "/optional", readable, true}, {dir, readable, false}, {dir + "/missing", readable, false}}
	if v, err := Restrict(Limits{Rules: rules}); v != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got version %d, %v", v, err)
	}
	if fd, err := unix.Open("/", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Errorf("the failed call restricts: %v", err)
	} else {
		unix.Close(fd)
	}
}
