package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"signdrop/spool/durable"
)

// MakeDisk is Make for the directory path on this machine's disk, which it makes
// first where it does not exist. The directory above it must.
func MakeDisk(path string, plan Plan) (*Report, error) {
	made, err := makeTop(path, plan)
	if err != nil {
		return nil, err
	}
	report, err := makeOn(path, plan)
	if err != nil && made {
		// A plan that is refused leaves nothing behind. Where more than the
		// empty directory is there, this fails and does no harm.
		os.Remove(path)
	}
	if err == nil && made {
		report.Items[0].State = Made
	}
	return report, err
}

func makeOn(path string, plan Plan) (*Report, error) {
	vol, err := durable.OpenDisk(path)
	if err != nil {
		return nil, err
	}
	defer vol.Close()
	root, err := vol.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	below, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer below.Close()
	return Make(root, OnDisk(below), plan)
}

// makeTop makes the volume's directory, durably.
func makeTop(path string, plan Plan) (made bool, err error) {
	// Another user than the directory's owner must be able to cross it.
	perm := fs.FileMode(0o700)
	if plan.User != nil && *plan.User != os.Getuid() {
		perm = 0o755
	}
	err = os.Mkdir(path, perm)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s does not exist: make it first", filepath.Dir(filepath.Clean(path)))
	}
	if err != nil {
		return false, err
	}
	if err := os.Chmod(path, perm); err != nil {
		return true, err
	}
	above, err := os.Open(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return true, err
	}
	defer above.Close()
	return true, above.Sync()
}

// OnDisk sets owner, group and mode below a directory. The umask does not touch
// what it sets.
func OnDisk(root *os.Root) Access {
	return func(path string, uid, gid int, mode fs.FileMode) error {
		f, err := root.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("internal error: no owner in what stat tells")
		}
		if uid == int(st.Uid) {
			uid = -1 // asking for what is so already needs a right that we may not have
		}
		if gid == int(st.Gid) {
			gid = -1
		}
		if uid != -1 || gid != -1 {
			if err := f.Chown(uid, gid); err != nil {
				return fmt.Errorf("%w (run it as root, or as a member of the group)", err)
			}
		}
		// After chown, which takes the set-group-id bit away.
		if err := f.Chmod(mode); err != nil {
			return err
		}
		return f.Sync()
	}
}
