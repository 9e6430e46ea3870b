package door

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Confinement is what keeps a door in its place.
type Confinement struct {
	UID, GID int
	Groups   []int
	// Landlock is the version of the kernel's Landlock that is in force, 0 for
	// none.
	Landlock int
}

// rights are what the door may do below spool/: list, read and remove files, and
// make regular ones. No directory, link, FIFO, socket or device.
const rights = llsys.AccessFSReadDir | llsys.AccessFSReadFile | llsys.AccessFSWriteFile | llsys.AccessFSTruncate |
	llsys.AccessFSRemoveFile | llsys.AccessFSMakeReg

// Confine gives up, for good, what this process does not need. spool is the path of
// the one directory below which it may work from now on. No file outside can be
// opened after this, no port be bound and no TCP connection be made, as far as the
// kernel's Landlock goes.
func Confine(spool string) (Confinement, error) {
	_, _ = time.Now().Local().Zone() // reads /etc/localtime while that can be opened
	c := Confinement{UID: os.Getuid(), GID: os.Getgid()}
	var err error
	if c.Groups, err = os.Getgroups(); err != nil {
		return c, err
	}
	if err := renounce(); err != nil {
		return c, fmt.Errorf("giving up rights: %w", err)
	}
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return c, nil // an old kernel, or one without it
	}
	restore, err := standIn(spool)
	if err != nil {
		return c, fmt.Errorf("landlock: %w", err)
	}
	err = landlock.V10.BestEffort().Restrict(landlock.PathAccess(rights, spool))
	if err := errors.Join(err, restore()); err != nil {
		return c, fmt.Errorf("landlock: %w", err)
	}
	c.Landlock = min(abi, 10)
	return c, nil
}

// standIn makes standard input the directory dir until restore is called.
//
// The kernel reads the descriptor of a rule's directory as 32 bits (landlock(7),
// struct landlock_path_beneath_attr), and go-landlock 0.11.0 writes it as an int. On a
// big-endian machine of 64 bits, such as the s390x, the kernel therefore finds the
// upper half, which is 0: let descriptor 0 be the directory that is meant. Where the
// library is right, or the machine little-endian, nothing looks at it.
func standIn(dir string) (restore func() error, err error) {
	old, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("copying standard input: %w (start the door with one, /dev/null will do)", err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Dup3(fd, 0, 0), unix.Close(fd))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", dir, err), unix.Close(old))
	}
	return func() error { return errors.Join(unix.Dup3(old, 0, 0), unix.Close(old)) }, nil
}

// renounce is what needs no Landlock.
func renounce() error {
	return errors.Join(
		// A flag of each thread. Landlock's library sets it for all too, and is
		// not asked where the kernel has none.
		llsys.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		// No core file, and no ptrace by others of the same user.
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
	)
}

// checkClosed tries what must not work: to open db/, which lies beside the spool.
func checkClosed(spool int) error {
	for _, name := range []string{"../db", "../work", "../journal"} {
		fd, err := unix.Openat(spool, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
			return fmt.Errorf("the door can open %s", name[3:])
		}
	}
	return nil
}
