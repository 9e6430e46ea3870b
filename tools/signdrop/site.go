package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The directories of a company.
const (
	boxInbox    = "inbox"
	boxOutbox   = "outbox"
	boxRejected = "rejected"
)

// site is where a company's own directory is: here, or at the other end of SFTP.
// Its methods may be called by several goroutines.
type site interface {
	// path is what people call a file.
	path(box, name string) string
	// each calls f for each name in a box.
	each(box string, f func(name string) error) error
	// read gives f the content of a file. Where a connection is lost meanwhile,
	// f is called again and gets it from the beginning. The error is
	// fs.ErrNotExist where there is no such file.
	read(box, name string, f func(io.Reader) error) error
	// put puts a request and its signature into the inbox, never in the place of
	// another request. It reports whether anything had to be put.
	put(name string, data []byte, signer *signer) (bool, error)
	// parallel is how many files are put at the same time.
	parallel() int
	// events tells whether the file system tells of new names.
	events() bool
	// until makes what is tried again be tried until ctx is done.
	until(ctx context.Context)
	close()
}

// directory is a site on this machine.
type directory string

// openDirectory tells early what a hundred failed files would tell late.
func openDirectory(dir string) (directory, error) {
	for _, name := range []string{boxInbox, boxOutbox, boxRejected} {
		info, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
			return "", noBox(dir, name, "/data/spool/acme")
		}
		if err != nil {
			return "", err
		}
	}
	return directory(dir), nil
}

func (d directory) path(box, name string) string { return filepath.Join(string(d), box, name) }

func (d directory) each(box string, f func(name string) error) error {
	return eachName(d.path(box, ""), f)
}

func (d directory) read(box, name string, f func(io.Reader) error) error {
	file, err := os.Open(d.path(box, name))
	if err != nil {
		return err
	}
	defer file.Close()
	return f(file)
}

func (d directory) put(name string, data []byte, signer *signer) (bool, error) {
	return put(d.path(boxInbox, ""), name, data, signer)
}

// Each waits for the disk most of the time, and the file system syncs what waits
// together.
func (d directory) parallel() int { return 16 }

func (d directory) events() bool          { return true }
func (d directory) until(context.Context) {}
func (d directory) close()                {}
