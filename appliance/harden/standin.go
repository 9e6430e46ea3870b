package harden

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// StandIn makes standard input the directory dir until restore is called.
//
// The kernel reads the descriptor of a rule's directory as 32 bits (landlock(7),
// struct landlock_path_beneath_attr), and go-landlock 0.11.0 writes it as an int. On a
// big-endian machine of 64 bits, such as the s390x, the kernel therefore finds the
// upper half, which is 0: let descriptor 0 be the directory that is meant. Where the
// library is right, or the machine little-endian, nothing looks at it.
func StandIn(dir string) (restore func() error, err error) {
	old, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("copying standard input: %w (start the program with one, /dev/null will do)", err)
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

// bigEndian: only one directory can be allowed there, see StandIn.
func bigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }
