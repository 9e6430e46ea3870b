package durable

import "golang.org/x/sys/unix"

// Resumer is what a Dir on Linux can do beside Dir: go on with a file that an
// earlier process began. The appliance itself never does; the SFTP door does, for
// uploads that were cut off.
type Resumer interface {
	// OpenWrite opens an existing regular file for reading and writing, under
	// the rules of Open.
	OpenWrite(name string) (File, error)
}

// Truncater is what a File on Linux can do beside File.
type Truncater interface {
	// Truncate cuts the file to size bytes, or lengthens it with zeros.
	Truncate(size int64) error
}

// OpenWrite implements Resumer.
func (d *dir) OpenWrite(name string) (File, error) {
	if err := checkName("open", name); err != nil {
		return nil, err
	}
	fd, err := openat2(d.fd, name, unix.O_RDWR, 0)
	if err != nil {
		return nil, wrap("open", d.in(name), err)
	}
	f := &file{fd: fd, dir: d, name: name}
	info, err := f.Stat()
	if err == nil && !info.Mode.IsRegular() {
		err = wrap("open", d.in(name), ErrNotRegular)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return f, nil
}

// Truncate implements Truncater.
func (f *file) Truncate(size int64) error {
	f.fresh = false
	return wrap("truncate", f.path(), retry(func() error { return unix.Ftruncate(f.fd, size) }))
}
