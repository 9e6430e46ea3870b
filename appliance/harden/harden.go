// Package harden makes this process give up what it does not need, so that little can
// be taken from it and little can be done by whoever takes it over: no core dump, no
// tracing by others of the same user, no new privileges, no swapping of its memory, and
// no file outside the data volume.
package harden

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Renounce sees to it that the process's memory is in no core file and open to no
// debugger of the same user, and that neither it nor what it starts can gain rights by
// running a program. It cannot be taken back.
func Renounce() error {
	return errors.Join(
		// A flag of each thread. Landlock's library sets it for all too, and is
		// not asked where the kernel has none.
		llsys.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		// No core file, and no ptrace by others of the same user. A program that is
		// started from here begins dumpable; hence the limit too.
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
	)
}

// onFault is MCL_ONFAULT of mlockall(2) (Linux, include/uapi/asm-generic/mman.h): pages
// are locked when they are first touched. Otherwise all that Go reserves would be made
// real.
const onFault = 4

// LockMemory keeps all memory of the process, now and later, out of the swap. It does
// nothing and says why where only a part could be locked: with a limit, the first
// allocation beyond it would end the process.
func LockMemory() (locked bool, why string) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		return false, err.Error()
	}
	if lim.Cur != unix.RLIM_INFINITY && !mayLock() {
		// A process may raise its limit up to the hard one.
		if lim.Max != unix.RLIM_INFINITY {
			return false, fmt.Sprintf("the limit is %d KiB: set LimitMEMLOCK=infinity, or turn swap off", lim.Cur>>10)
		}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: lim.Max, Max: lim.Max}); err != nil {
			return false, err.Error()
		}
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | onFault); err != nil {
		return false, "mlockall: " + err.Error()
	}
	return true, ""
}

// mayLock reports whether the process has CAP_IPC_LOCK, for which there is no limit.
func mayLock() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

// Needs says what a process goes on needing after Confine.
type Needs struct {
	Data string // the data volume: everything below it but running programs

	// Door: it starts the program that it is itself, and listens on TCP ports.
	Door bool
}

// Sets of rights.
const (
	readable = llsys.AccessFSReadDir | llsys.AccessFSReadFile
	runnable = llsys.AccessFSExecute | readable
	// Without the rights to make devices: there is nothing to make here but files,
	// directories, and the sockets, FIFOs and links that partners make are theirs.
	volume = readable | llsys.AccessFSWriteFile | llsys.AccessFSTruncate |
		llsys.AccessFSRemoveFile | llsys.AccessFSRemoveDir | llsys.AccessFSMakeReg | llsys.AccessFSMakeDir | llsys.AccessFSRefer
	// A rename needs the right to make what is renamed: links, FIFOs and sockets that
	// lie in an inbox are put into rejected/ as they are.
	moved = llsys.AccessFSMakeSym | llsys.AccessFSMakeFifo | llsys.AccessFSMakeSock | llsys.AccessFSMakeChar | llsys.AccessFSMakeBlock
)

// doorRules are what starting this program takes: itself, the loader and libraries of
// one that is not static, the time zone, and what Go's net looks at.
var doorRules = []Rule{
	{"/proc/self/exe", llsys.AccessFSExecute | llsys.AccessFSReadFile, false},
	{"/lib", runnable, true},
	{"/lib64", runnable, true},
	{"/usr/lib", runnable, true},
	{"/usr/lib64", runnable, true},
	{"/etc/ld.so.cache", llsys.AccessFSReadFile, true},
	{"/etc/localtime", llsys.AccessFSReadFile, true},
	{"/usr/share/zoneinfo", readable, true},
	{"/proc/sys/net/core/somaxconn", llsys.AccessFSReadFile, true},
	{os.DevNull, llsys.AccessFSReadFile | llsys.AccessFSWriteFile | llsys.AccessFSTruncate, true}, // its standard input
	// The door lists its threads as Restrict does. Names only: the files of other
	// processes stay closed.
	{"/proc", llsys.AccessFSReadDir, true},
}

// Confine shuts the process, on all its threads, out of every file that it does not
// need, and returns the version of the kernel's Landlock that enforces that, 0 for none:
// an old kernel, or one without it. It needs version 2 (Linux 5.19), which allows files
// to be moved between directories. Without a door no TCP port can be bound and no
// connection be made, as far as the kernel goes; it does not look at Multipath TCP.
func Confine(n Needs) (version int, err error) {
	_, _ = time.Now().Local().Zone() // reads /etc/localtime while that can be opened
	rules := []Rule{{n.Data, volume | moved, false}}
	if n.Door {
		rules = append(rules, doorRules...)
	}
	version, err = Restrict(Limits{Least: 2, FilesOnly: n.Door, Rules: rules})
	if err != nil || version == 0 {
		return 0, err
	}
	return version, closed()
}

// closed tries what must not work any more.
func closed() error {
	for _, name := range []string{"/", "/etc/passwd"} {
		f, err := os.Open(name)
		if err == nil {
			f.Close()
			return fmt.Errorf("landlock is in force and %s can be opened: this kernel is not to be trusted with it", name)
		}
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("trying what landlock forbids: %w", err)
		}
	}
	return nil
}
