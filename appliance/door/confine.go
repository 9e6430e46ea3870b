package door

import (
	"fmt"
	"os"
	"time"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"signdrop/appliance/harden"
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
	if err := harden.Renounce(); err != nil {
		return c, fmt.Errorf("giving up rights: %w", err)
	}
	c.Landlock, err = harden.Restrict(harden.Limits{Rules: []harden.Rule{{Path: spool, Rights: rights}}})
	return c, err
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
