package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// TestCut: what exists is opened for writing and cut; what is not a regular
// file is not opened, nor is what a link leads to.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for _, name := range []string{filepath.Join(dir, "file"), outside} {
		if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(
		os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink("file", filepath.Join(dir, "inner")),
		os.Mkdir(filepath.Join(dir, "dir"), 0o700), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	vol, err := durable.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	root, err := vol.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, want := range map[string]error{
		"none": fs.ErrNotExist, "link": durable.ErrNotRegular, "inner": durable.ErrNotRegular, "dir": durable.ErrNotRegular,
		"fifo": durable.ErrNotRegular, "": fs.ErrInvalid, "..": fs.ErrInvalid, "../x": fs.ErrInvalid, "dir/x": fs.ErrInvalid,
	} {
		f, err := root.OpenWrite(name)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
	f, err := root.OpenWrite("file")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.(durable.Cutter).Cut(3); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("tinue"), 3); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size != 8 {
		t.Errorf("%d bytes, %v", info.Size, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{filepath.Join(dir, "file"): "continue", outside: "content"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
}

// TestChmod: the mode is what was asked for, whatever the umask.
func TestChmod(t *testing.T) {
	dir := t.TempDir()
	vol, err := durable.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	root, err := vol.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err := root.Create("file", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.(durable.Cutter).Chmod(0o666); err != nil {
		t.Fatal(err)
	}
	if info, err := root.Stat("file"); err != nil || info.Mode != 0o666 {
		t.Errorf("the mode is %v, %v", info.Mode, err)
	}
}
