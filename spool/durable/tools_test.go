package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// writers are the two functions for tools.
var writers = map[string]func(string, []byte, os.FileMode) error{
	"WriteFile":    durable.WriteFile,
	"WriteFileNew": durable.WriteFileNew,
}

func TestToolWritesNewFile(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	for name, write := range writers {
		for _, perm := range []os.FileMode{0o400, 0o600, 0o644, 0o666} {
			path := filepath.Join(t.TempDir(), "file")
			if err := write(path, []byte("data"), perm); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got, err := os.ReadFile(path); string(got) != "data" || err != nil {
				t.Errorf("%s: content: got %q, %v", name, got, err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != perm {
				t.Errorf("%s: mode: got %v, %v, want %v", name, info.Mode(), err, perm)
			}
			if names := listDir(filepath.Dir(path)); !slices.Equal(names, []string{"file"}) {
				t.Errorf("%s leaves %q", name, names)
			}
		}
	}
}

func TestToolReplaces(t *testing.T) {
	top := t.TempDir()
	path, link, target := filepath.Join(top, "file"), filepath.Join(top, "link"), filepath.Join(top, "target")
	for _, err := range []error{
		os.WriteFile(path, []byte("old"), 0o640),
		os.WriteFile(target, []byte("target"), 0o600),
		os.Symlink("target", link),
		durable.WriteFile(path, []byte("new"), 0o600),
		durable.WriteFile(link, []byte("new"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{path: "new", link: "new", target: "target"} {
		got, err := os.ReadFile(path)
		info, serr := os.Lstat(path)
		if string(got) != want || err != nil || serr != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got %q, %v, %v", filepath.Base(path), got, info.Mode(), errors.Join(err, serr))
		}
	}
	if names := listDir(top); !slices.Equal(names, []string{"file", "link", "target"}) {
		t.Errorf("left behind: %q", names)
	}
}

func TestToolNeverReplaces(t *testing.T) {
	top := t.TempDir()
	in := func(name string) string { return filepath.Join(top, name) }
	for _, err := range []error{
		os.WriteFile(in("file"), []byte("old"), 0o600),
		os.Mkdir(in("dir"), 0o700),
		os.Symlink("nowhere", in("link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := listDir(top)
	for _, name := range before {
		if err := durable.WriteFileNew(in(name), []byte("new"), 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: got error %v, want ErrExist", name, err)
		}
	}
	if names := listDir(top); !slices.Equal(names, before) {
		t.Errorf("names: got %q, want %q", names, before)
	}
	if got, err := os.ReadFile(in("file")); string(got) != "old" || err != nil {
		t.Errorf("content: got %q, %v", got, err)
	}
}

// TestToolLongName: the temporary name of WriteFileNew does not grow with the
// name; that of renameio does.
func TestToolLongName(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, strings.Repeat("n", 255))
	if err := durable.WriteFileNew(path, []byte("data"), 0o600); err != nil {
		t.Error(err)
	}
	if err := durable.WriteFile(path, []byte("new"), 0o600); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("WriteFile: got error %v, want ENAMETOOLONG", err)
	}
	if names := listDir(top); !slices.Equal(names, []string{filepath.Base(path)}) {
		t.Errorf("left behind: %q", names)
	}
}

// TestToolFailure lets the writers fail at each step that a test can reach, and
// looks for what they leave.
func TestToolFailure(t *testing.T) {
	for name, write := range writers {
		missing := filepath.Join(t.TempDir(), "missing", "file")
		if err := write(missing, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s in a directory that is not there: got error %v", name, err)
		}

		// The temporary file can be made and written, and not renamed.
		top := t.TempDir()
		if err := os.Mkdir(filepath.Join(top, "dir"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := write(filepath.Join(top, "dir"), nil, 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s over a directory: got error %v, want ErrExist", name, err)
		}
		if names := listDir(top); !slices.Equal(names, []string{"dir"}) {
			t.Errorf("%s over a directory leaves %q", name, names)
		}

	}
}

// TestToolFullDisk lets the data not fit.
func TestToolFullDisk(t *testing.T) {
	for name, write := range writers {
		onMount(t, "size=64k", func(disk *durable.Disk) error {
			path := filepath.Join(disk.Path(), "file")
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				return err
			}
			if name == "WriteFileNew" {
				path += "2"
			}
			if err := write(path, make([]byte, 1<<20), 0o600); !errors.Is(err, durable.ErrNoSpace) {
				t.Errorf("%s on a full disk: got error %v, want ErrNoSpace", name, err)
			}
			if names := listDir(disk.Path()); !slices.Equal(names, []string{"file"}) {
				t.Errorf("%s on a full disk leaves %q", name, names)
			}
			if got, err := os.ReadFile(filepath.Join(disk.Path(), "file")); string(got) != "old" || err != nil {
				t.Errorf("%s on a full disk: content: got %q, %v", name, got, err)
			}
			return nil
		})
	}
}
