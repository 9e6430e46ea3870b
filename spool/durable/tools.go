package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// The functions of this file are for the command-line tools, which are given
// paths by the person who runs them. The appliance itself never resolves a path.

// WriteFile gives the file at path new content and the mode perm, whatever the
// umask, in one durable step. When it returns nil the new content survives a power
// cut; after a crash before that, or an error, path has the old or the new content,
// whole. A symbolic link at path is replaced, not followed.
//
// It is renameio with the sync of the directory that renameio leaves out, and
// without its search for a temporary directory, which puts probe files beside
// path.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return inDir(path, func(dir string) error {
		f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir))
		if err != nil {
			return err
		}
		defer f.Cleanup()
		// Not WithStaticPermissions: where its chmod fails the file is left behind.
		if err := f.Chmod(perm); err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.CloseAtomicallyReplace()
	})
}

// WriteFileNew is WriteFile for a path where nothing is yet: it fails with
// fs.ErrExist where something is, and never replaces it. If only the last step
// fails, the sync of the directory, the file is there in spite of the error.
func WriteFileNew(path string, data []byte, perm os.FileMode) error {
	return inDir(path, func(dir string) error {
		f, err := os.CreateTemp(dir, ".new-*")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name()) // after the rename there is no such name
		err = f.Chmod(perm)
		if err == nil {
			_, err = f.Write(data)
		}
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		return moveNew(f.Name(), path)
	})
}

// inDir runs write with the directory of path and then syncs that directory. It is
// opened before, so that the sync reports also what went wrong in between.
func inDir(path string, write func(dir string) error) error {
	dir := filepath.Dir(path)
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer d.Close()
	if err := write(dir); err != nil {
		return fmt.Errorf("writing %s: %w", path, errno(err))
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing %s: syncing its directory: %w", path, err)
	}
	return nil
}

// moveNew renames without replacing. The rename serves FAT on a stick, which has
// no links, and the link serves NFS, which has no such rename.
func moveNew(path, newPath string) error {
	err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, newPath, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return os.Link(path, newPath)
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: newPath, Err: err}
	}
	return nil
}
