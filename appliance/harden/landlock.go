package harden

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Rule allows Rights (llsys.AccessFS…) on a file, or on a directory and all below it.
// Rights that are for directories only cannot be given for a file.
type Rule struct {
	Path     string
	Rights   uint64
	Optional bool // there may be no such path
}

// Limits are what Restrict leaves.
type Limits struct {
	Least     int // the lowest version of Landlock to make use of
	FilesOnly bool
	Rules     []Rule
}

// versions are what each version of Landlock can forbid.
var versions = []landlock.Config{1: landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6,
	landlock.V7, landlock.V8, landlock.V9, landlock.V10}

// Restrict forbids this process, for good, on all its threads and with all that it
// starts, whatever the kernel's Landlock can forbid and no rule allows (landlock(7)):
// with files, and unless FilesOnly with ports, abstract sockets and signals too. It
// comes after Renounce, without which the kernel refuses (EPERM). It returns the
// version that is in force, 0 for none: an old kernel, or one without Landlock. After
// an error nothing, or not every thread, is restricted: the process must end.
//
// The rules are made here and not by go-landlock 0.11.0, which passes them wrongly on
// big-endian machines: docs/decisions/0057-landlock-rules.md.
func Restrict(l Limits) (version int, err error) {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < max(l.Least, 1) {
		return 0, nil
	}
	version = min(abi, len(versions)-1)
	can := versions[version]
	attr := llsys.RulesetAttr{HandledAccessFS: uint64(can.HandledAccessFS)}
	if !l.FilesOnly {
		attr.HandledAccessNet, attr.Scoped = uint64(can.HandledAccessNet), uint64(can.Scoped)
	}
	ruleset, err := llsys.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", err)
	}
	defer unix.Close(ruleset)
	// In a program with C in it, whoever does something on all threads lists them.
	rules := append([]Rule{{"/proc/self/task", llsys.AccessFSReadDir, true}}, l.Rules...)
	for _, r := range rules {
		r.Rights &= attr.HandledAccessFS
		if err := r.add(ruleset); err != nil && !(r.Optional && errors.Is(err, fs.ErrNotExist)) {
			return 0, fmt.Errorf("landlock: allowing %s: %w", r.Path, err)
		}
	}
	if abi >= 8 {
		// The kernel does it for all threads, also for those that no runtime knows.
		err = llsys.LandlockRestrictSelf(ruleset, llsys.FlagRestrictSelfTSync)
	} else {
		err = llsys.AllThreadsLandlockRestrictSelf(ruleset, 0)
	}
	if err != nil {
		return 0, fmt.Errorf("landlock_restrict_self: %w", err)
	}
	return version, nil
}

func (r Rule) add(ruleset int) error {
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The descriptor is 32 bits wide, which llsys.PathBeneathAttr gets wrong.
	attr := unix.LandlockPathBeneathAttr{Allowed_access: r.Rights, Parent_fd: int32(fd)}
	return llsys.LandlockAddRule(ruleset, llsys.RuleTypePathBeneath, unsafe.Pointer(&attr), 0)
}
