package seal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"signdrop/keyfs/seal"
)

// desk is a data volume and, beside it, a directory for keys.
type desk struct {
	t          *testing.T
	data, keys string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	top := t.TempDir()
	d := &desk{t, filepath.Join(top, "data"), filepath.Join(top, "keys")}
	must(t, os.Mkdir(d.data, 0o700))
	must(t, os.Mkdir(d.keys, 0o700))
	return d
}

var kekBytes = []byte("KEKKEKKEKKEKKEKKEKKEKKEKKEKKEKKE")

// put writes a key file.
func (d *desk) put(dir, name string, mode os.FileMode, content []byte) string {
	d.t.Helper()
	file := filepath.Join(dir, name)
	must(d.t, os.WriteFile(file, content, 0o600))
	must(d.t, os.Chmod(file, mode))
	return file
}

// descriptor opens a file as whoever starts the program would, without close-on-exec.
func descriptor(t *testing.T, file string) string {
	t.Helper()
	fd, err := unix.Open(file, unix.O_RDONLY, 0)
	must(t, err)
	return fmt.Sprintf("fd:%d", fd)
}

func TestReadKEK(t *testing.T) {
	want := func() string {
		k, err := seal.ParseKEK(kekBytes)
		must(t, err)
		return k.ID()
	}()
	for name, spec := range map[string]func(t *testing.T, d *desk) string{
		"file": func(t *testing.T, d *desk) string {
			return "file:" + d.put(d.keys, "kek", 0o400, kekBytes)
		},
		"link to a file": func(t *testing.T, d *desk) string {
			link := filepath.Join(d.data, "link")
			must(t, os.Symlink(d.put(d.keys, "kek", 0o600, kekBytes), link))
			return "file:" + link
		},
		"descriptor of a file": func(t *testing.T, d *desk) string {
			return descriptor(t, d.put(d.keys, "kek", 0o400, kekBytes))
		},
		"descriptor of a pipe": func(t *testing.T, d *desk) string {
			var p [2]int
			must(t, unix.Pipe(p[:]))
			_, err := unix.Write(p[1], kekBytes)
			must(t, err)
			must(t, unix.Close(p[1]))
			return fmt.Sprintf("fd:%d", p[0])
		},
		"descriptor without a name": func(t *testing.T, d *desk) string {
			spec := descriptor(t, d.put(d.keys, "kek", 0o666, kekBytes))
			must(t, os.Remove(filepath.Join(d.keys, "kek")))
			return spec
		},
		"credential": func(t *testing.T, d *desk) string {
			// As systemd makes it where it uses an access control list.
			d.put(d.keys, "signdrop.kek", 0o440, kekBytes)
			t.Setenv("CREDENTIALS_DIRECTORY", d.keys)
			return "credential:signdrop.kek"
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			k, err := seal.ReadKEK(spec(t, d), d.data)
			must(t, err)
			defer k.Close()
			if k.ID() != want || k.Kind() != "raw" {
				t.Errorf("got %s (%s), want %s", k.ID(), k.Kind(), want)
			}
			if file := strings.HasPrefix(name, "file") || name == "link to a file" || name == "credential"; file && !k.SameDisk {
				t.Error("nothing tells that it lies on the same file system")
			}
		})
	}
	// A volume that is about to be made.
	d := newDesk(t)
	if k, err := seal.ReadKEK("file:"+d.put(d.keys, "kek", 0o400, kekBytes), filepath.Join(d.data, "new")); err != nil || k.ID() != want {
		t.Errorf("for a new volume: %v", err)
	}
}

func TestReadKEKRefuses(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	for _, tt := range []struct {
		name string
		spec func(t *testing.T, d *desk) string
		want string
	}{
		{"nothing", func(*testing.T, *desk) string { return "" }, "use file:PATH, fd:N, credential:NAME or pkcs11:"},
		{"a path alone", func(t *testing.T, d *desk) string { return d.put(d.keys, "kek", 0o400, kekBytes) }, "use file:PATH"},
		{"no path", func(*testing.T, *desk) string { return "file:" }, "use file:PATH"},
		{"no file", func(_ *testing.T, d *desk) string { return "file:" + d.keys + "/none" }, "no such file"},
		{"a directory", func(_ *testing.T, d *desk) string { return "file:" + d.keys }, "not a regular file"},
		{"a device", func(*testing.T, *desk) string { return "file:/dev/zero" }, "not a regular file"},
		{"a FIFO", func(t *testing.T, d *desk) string {
			must(t, syscall.Mkfifo(d.keys+"/fifo", 0o600))
			return "file:" + d.keys + "/fifo"
		}, "not a regular file"},
		{"readable by its group", func(t *testing.T, d *desk) string { return "file:" + d.put(d.keys, "kek", 0o440, kekBytes) }, "open to others (mode 0440)"},
		{"readable by all", func(t *testing.T, d *desk) string { return "file:" + d.put(d.keys, "kek", 0o404, kekBytes) }, "open to others (mode 0404)"},
		{"a descriptor of a file readable by all", func(t *testing.T, d *desk) string {
			return descriptor(t, d.put(d.keys, "kek", 0o404, kekBytes))
		}, "open to others"},
		{"on the data volume", func(t *testing.T, d *desk) string {
			return "file:" + d.put(d.data, "kek", 0o400, kekBytes)
		}, "lies on the data volume"},
		{"below the data volume", func(t *testing.T, d *desk) string {
			must(t, os.MkdirAll(d.data+"/db/appliance", 0o700))
			return "file:" + d.put(d.data+"/db/appliance", "kek", 0o400, kekBytes)
		}, "lies on the data volume"},
		{"a link to the data volume", func(t *testing.T, d *desk) string {
			must(t, os.Symlink(d.put(d.data, "kek", 0o400, kekBytes), d.keys+"/kek"))
			return "file:" + d.keys + "/kek"
		}, "lies on the data volume"},
		{"a descriptor on the data volume", func(t *testing.T, d *desk) string {
			return descriptor(t, d.put(d.data, "kek", 0o400, kekBytes))
		}, "lies on the data volume"},
		{"a hard link", func(t *testing.T, d *desk) string {
			must(t, os.Link(d.put(d.data, "kek", 0o400, kekBytes), d.keys+"/kek"))
			return "file:" + d.keys + "/kek"
		}, "second name"},
		{"no number", func(*testing.T, *desk) string { return "fd:three" }, "not a descriptor"},
		{"standard error", func(*testing.T, *desk) string { return "fd:2" }, "not a descriptor"},
		{"not open", func(*testing.T, *desk) string { return "fd:999" }, "not open"},
		{"one of the program's own", func(t *testing.T, d *desk) string {
			f, err := os.Open(d.put(d.keys, "kek", 0o400, kekBytes))
			must(t, err)
			t.Cleanup(func() { f.Close() })
			return fmt.Sprintf("fd:%d", f.Fd())
		}, "not open"},
		{"no credentials", func(*testing.T, *desk) string { return "credential:kek" }, "CREDENTIALS_DIRECTORY"},
		{"a credential elsewhere", func(t *testing.T, d *desk) string {
			d.put(filepath.Dir(d.keys), "kek", 0o400, kekBytes)
			t.Setenv("CREDENTIALS_DIRECTORY", d.keys)
			return "credential:../kek"
		}, "use file:PATH"},
		{"a credential for all", func(t *testing.T, d *desk) string {
			d.put(d.keys, "kek", 0o444, kekBytes)
			t.Setenv("CREDENTIALS_DIRECTORY", d.keys)
			return "credential:kek"
		}, "open to others"},
		{"too short", func(t *testing.T, d *desk) string { return "file:" + d.put(d.keys, "kek", 0o400, kekBytes[:31]) }, "31 bytes"},
		{"too long", func(t *testing.T, d *desk) string {
			return "file:" + d.put(d.keys, "kek", 0o400, bytes.Repeat(kekBytes, 200))
		}, "more than 4096 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			k, err := seal.ReadKEK(tt.spec(t, d), d.data)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if k.KEK != nil {
				t.Error("a key was returned with the error")
			}
			if err != nil && strings.Contains(err.Error(), "KEKKEK") {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}
