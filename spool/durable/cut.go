package durable

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Cutter is what a File on Linux can do beside File, for the SFTP door: the
// appliance itself never changes a file in place.
type Cutter interface {
	// Cut leaves the first size bytes of the file.
	Cut(size int64) error
	// Chmod sets the permission bits (fchmod(2)), whatever the umask.
	Chmod(perm fs.FileMode) error
}

// Cut implements Cutter.
func (f *file) Cut(size int64) error {
	f.fresh = false
	return wrap("truncate", f.path(), retry(func() error { return unix.Ftruncate(f.fd, size) }))
}

// Chmod implements Cutter.
func (f *file) Chmod(perm fs.FileMode) error {
	return wrap("chmod", f.path(), retry(func() error { return unix.Fchmod(f.fd, uint32(perm.Perm())) }))
}
