package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Source is a KEK and where it was found.
type Source struct {
	KEK

	// SameDisk says that it lies on the file system of the data volume, though not
	// below its directory: whoever has that disk has both.
	SameDisk bool
}

// ReadKEK reads a key-encryption key from where spec says:
//
//	file:PATH         a file
//	fd:N              a descriptor that whoever started us has opened, until its end
//	credential:NAME   a credential of the systemd unit, in $CREDENTIALS_DIRECTORY
//	pkcs11:…          an AES key in a token, see openToken
//
// See ParseKEK for what a file holds. data is the path of the data volume, on which a
// KEK must not lie. One that others may read, or that has a second name, is refused.
// The caller closes the KEK.
func ReadKEK(spec, data string) (Source, error) {
	if strings.HasPrefix(spec, "pkcs11:") {
		k, err := openToken(spec, data)
		return Source{KEK: k}, err
	}
	secret, same, err := readSecret(spec, data)
	if err != nil {
		return Source{}, fmt.Errorf("reading the key-encryption key: %w", err)
	}
	defer clear(secret)
	k, err := ParseKEK(secret)
	if err != nil {
		return Source{}, fmt.Errorf("reading %s: %w", spec, err)
	}
	return Source{k, same}, nil
}

// readSecret reads a secret of at most maxSecret bytes. The caller wipes it.
func readSecret(spec, data string) (secret []byte, sameDisk bool, err error) {
	f, deny, err := openSecret(spec)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if sameDisk, err = checkSecret(f, deny, data); err != nil {
		return nil, false, fmt.Errorf("%s: %w", spec, err)
	}
	buf := make([]byte, maxSecret+1)
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, false, fmt.Errorf("%s: %w", spec, err)
	}
	if n > maxSecret {
		clear(buf)
		return nil, false, fmt.Errorf("%s has more than %d bytes: this is no key", spec, maxSecret)
	}
	return buf[:n:n], sameDisk, nil
}

// othersMode are the permission bits that a secret's file must not have.
const othersMode = 0o077

// openSecret opens what spec names. deny are the mode bits that it must not have.
func openSecret(spec string) (f *os.File, deny fs.FileMode, err error) {
	kind, rest, _ := strings.Cut(spec, ":")
	// A FIFO must not keep us waiting before it is looked at.
	open := func(name string) (*os.File, error) { return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) }
	switch {
	case kind == "file" && rest != "":
		f, err = open(rest)
		return f, othersMode, err
	case kind == "fd":
		f, err = inherited(rest)
		return f, othersMode, err
	case kind == "credential" && validCredential(rest):
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if !filepath.IsAbs(dir) {
			return nil, 0, fmt.Errorf("%s: there are no credentials: CREDENTIALS_DIRECTORY is not set, so systemd did not start this with LoadCredential", spec)
		}
		f, err = open(filepath.Join(dir, rest))
		// systemd lets the unit's user read by an access control list, whose mask
		// shows as the group's bits.
		return f, othersMode &^ 0o040, err
	}
	return nil, 0, fmt.Errorf("%q is not a place for a key: use file:PATH, fd:N, credential:NAME or pkcs11:…", kind+":")
}

// validCredential reports whether systemd could have a credential of this name, and
// it cannot leave the directory (systemd.exec(5)).
func validCredential(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
}

// inherited returns a descriptor that was open when this program began.
func inherited(number string) (*os.File, error) {
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 1 || n == 2 {
		return nil, fmt.Errorf("fd:%s is not a descriptor to read from: open one, as in 3<FILE, and say fd:3", number)
	}
	// Ours are closed on exec, so one that is not came from outside.
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil, fmt.Errorf("descriptor %d is not open: open it, as in %d<FILE", n, n)
	}
	unix.CloseOnExec(int(n))
	return os.NewFile(uintptr(n), "fd:"+number), nil
}

// checkSecret refuses a file that others can read, or that lies on the data volume.
func checkSecret(f *os.File, deny fs.FileMode, data string) (sameDisk bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if m := info.Mode(); m&(fs.ModeNamedPipe|fs.ModeSocket) != 0 && strings.HasPrefix(f.Name(), "fd:") {
		return false, nil // nobody but whoever made it has it
	} else if !m.IsRegular() {
		return false, errors.New("it is not a regular file")
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false, errors.New("internal error: no owner in what stat tells")
	}
	if st.Nlink == 0 {
		return false, nil // it has no name by which others could open it (memfd_create(2))
	}
	switch {
	case info.Mode().Perm()&deny != 0:
		return false, fmt.Errorf("it is open to others (mode %04o): find out who could read it, make a new key if anybody could, then chmod 0400", info.Mode().Perm())
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return false, fmt.Errorf("it belongs to uid %d: chown it to uid %d, which this program runs as", st.Uid, os.Geteuid())
	case st.Nlink > 1:
		return false, errors.New("it has a second name, which may lie on the data volume: copy it to a file of its own and remove this one")
	}
	volume, err := os.Stat(data)
	if errors.Is(err, fs.ErrNotExist) {
		// It is about to be made.
		if volume, err = os.Stat(filepath.Dir(filepath.Clean(data))); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
	} else if err == nil {
		var on bool
		if on, err = below(f, volume); on {
			return false, errors.New("it lies on the data volume: whoever has the disk would have the key; keep it elsewhere")
		}
	}
	if err != nil {
		return false, err
	}
	vst, ok := volume.Sys().(*syscall.Stat_t)
	return ok && vst.Dev == st.Dev, nil
}

// below reports whether an open file lies below a directory, whatever links and mounts
// led to it.
func below(f *os.File, top fs.FileInfo) (bool, error) {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || !filepath.IsAbs(name) {
		return false, fmt.Errorf("finding out where it lies: %w", err)
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false, fmt.Errorf("finding out where it lies: %w", err)
		}
		if os.SameFile(info, top) {
			return true, nil
		}
		if dir == filepath.Dir(dir) {
			return false, nil
		}
	}
}
