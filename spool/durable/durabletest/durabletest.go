// Package durabletest is what every implementation of durable.FS must do: one
// table of behaviours, which runs on a real disk and on the model of the crash
// tests, so that what is proved on the model is true of the disk.
//
// What a power cut leaves is no part of it, since nothing here can cut the power.
package durabletest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// Planter puts on the volume what durable itself cannot make, as another process
// would. Paths start at the top of the volume. It fails the test where it cannot.
type Planter interface {
	WriteFile(path string, data []byte)
	Sparse(path string, size int64)
	MkdirAll(path string, perm fs.FileMode)
	Symlink(target, path string)
	Mknod(path string, kind fs.FileMode) // a FIFO, socket or device
	Link(path, newPath string)
	Rename(path, newPath string)
	Chmod(path string, mode fs.FileMode)
	Chown(path string, uid, gid uint32)
}

// Open makes an empty volume for one test.
type Open func(t *testing.T) (durable.FS, Planter)

// Run runs the table. Where asRoot is false, it skips what needs a Planter that can
// make devices and give files to any group.
func Run(t *testing.T, asRoot bool, open Open) {
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			fsys, plant := open(t)
			root, err := fsys.Root()
			if err != nil {
				t.Fatalf("opening the top directory: %v", err)
			}
			defer root.Close()
			b.check(&volume{T: t, fs: fsys, root: root, plant: plant, asRoot: asRoot})
		})
	}
}

// volume is what one behaviour is tested on.
type volume struct {
	*testing.T
	fs    durable.FS
	root  durable.Dir
	plant Planter

	asRoot bool
}

var behaviours = []struct {
	name  string
	check func(v *volume)
}{
	{"a new file reads as it was written", newFile},
	{"create does not touch what is there", createExclusive},
	{"open refuses what is not a regular file", openRefuses},
	{"sub refuses what is not a directory", subRefuses},
	{"a name is one component", oneComponent},
	{"names of all kinds of bytes", oddNames},
	{"a name has at most 255 bytes", longNames},
	{"a missing name is ErrNotExist", missing},
	{"reading and writing at offsets", offsets},
	{"a file opened for reading cannot be written", readOnly},
	{"stat tells of a file", statFile},
	{"stat does not follow a link", statLink},
	{"stat in a directory below", statIn},
	{"times advance with every change", times},
	{"an open file that is stat'ed after reading shows what is there now", statAfterRead},
	{"hard links are counted", hardLinks},
	{"a removed file can still be read", removedWhileOpen},
	{"move takes a name to another directory", move},
	{"move never replaces", moveNoReplace},
	{"move takes everything that has a name", moveAnything},
	{"move keeps a directory out of itself", moveBelowItself},
	{"replace takes the place of a file", replace},
	{"replace of one kind by the other fails", replaceKinds},
	{"move over takes the place of a file", moveOver},
	{"move over of one kind by the other fails", moveOverKinds},
	{"a file opened for writing is written over", openWrite},
	{"open for writing refuses what is not a regular file", openWriteRefuses},
	{"remove does not remove a directory", removeKinds},
	{"rmdir removes only an empty directory", removeDir},
	{"a handle holds its directory, not its name", handleHoldsDirectory},
	{"a removed directory takes nothing in", removedDirectory},
	{"a setgid directory gives its group", setgid},
	{"chown gives the group", chown},
	{"entries come in portions", entriesInPortions},
	{"entries that are removed during the walk", entriesRemoved},
	{"walks do not disturb each other", twoWalks},
	{"walk stops at an error", walkStops},
	{"syncs succeed", syncs},
	{"space is told", space},
	{"ReadFile reads no more than max", readFileMax},
	{"ReadAll tells growth and shrinking", readAll},
	{"WriteNew and WriteSynced never replace", writeNew},
	{"ReplaceFile replaces and cleans up", replaceFile},
	{"SubMake makes what is missing", subMake},
	{"SubPath goes down", subPath},
	{"many goroutines use one directory", concurrent},
	{"after close nothing works", closed},
}

func (v *volume) needsRoot() {
	v.Helper()
	if !v.asRoot {
		v.Skip("only root can plant this")
	}
}

// must ends the test on an error.
func (v *volume) must(err error) {
	v.Helper()
	if err != nil {
		v.Fatal(err)
	}
}

// want tests for a class of error.
func (v *volume) want(err, class error, doing string) {
	v.Helper()
	if !errors.Is(err, class) {
		v.Errorf("%s: got error %v, want %v", doing, err, class)
	}
}

// write makes a file by way of the interface.
func (v *volume) write(d durable.Dir, name, data string) {
	v.Helper()
	v.must(durable.WriteNew(d, name, 0o600, []byte(data)))
}

// content tests what a file holds.
func (v *volume) content(d durable.Dir, name, want string) {
	v.Helper()
	got, err := durable.ReadFile(d, name, 1<<20)
	if err != nil || string(got) != want {
		v.Errorf("content of %q: got %q, %v, want %q", name, got, err, want)
	}
}

// names tests what a directory holds.
func (v *volume) names(d durable.Dir, want ...string) {
	v.Helper()
	var got []string
	v.must(durable.Walk(d, func(e durable.Entry) error {
		got = append(got, e.Name)
		return nil
	}))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		v.Errorf("names in the directory: got %q, want %q", got, want)
	}
}

func (v *volume) mkdir(d durable.Dir, name string) durable.Dir {
	v.Helper()
	v.must(d.Mkdir(name, 0o700))
	sub, err := d.Sub(name)
	v.must(err)
	v.Cleanup(func() { sub.Close() })
	return sub
}

// promptly fails the test where f waits for somebody.
func (v *volume) promptly(doing string, f func()) {
	v.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		v.Fatalf("%s blocks", doing)
	}
}

// eachSpecial plants "x", one after the other, as each kind that is neither file
// nor directory, and runs check as a test of its own, which is told the type.
func (v *volume) eachSpecial(check func(v *volume, kind fs.FileMode)) {
	toFile := func() { v.plant.WriteFile("file", nil); v.plant.Symlink("file", "x") }
	toDir := func() { v.plant.MkdirAll("dir", 0o700); v.plant.Symlink("dir", "x") }
	link := func(target string) func() { return func() { v.plant.Symlink(target, "x") } }
	node := func(kind fs.FileMode) func() { return func() { v.plant.Mknod("x", kind) } }
	for _, special := range []struct {
		name  string
		kind  fs.FileMode
		plant func()
	}{
		{"symlink to a file", fs.ModeSymlink, toFile},
		{"symlink to a directory", fs.ModeSymlink, toDir},
		{"dangling symlink", fs.ModeSymlink, link("nowhere")},
		{"symlink to itself", fs.ModeSymlink, link("x")},
		{"FIFO", fs.ModeNamedPipe, node(fs.ModeNamedPipe)},
		{"socket", fs.ModeSocket, node(fs.ModeSocket)},
		{"character device", fs.ModeDevice | fs.ModeCharDevice, node(fs.ModeDevice | fs.ModeCharDevice)},
		{"block device", fs.ModeDevice, node(fs.ModeDevice)},
	} {
		v.Run(special.name, func(t *testing.T) {
			sub := *v
			sub.T = t
			if special.kind&fs.ModeDevice != 0 {
				sub.needsRoot()
			}
			special.plant()
			check(&sub, special.kind)
			sub.must(v.root.Remove("x"))
			v.root.Remove("file")
			v.root.RemoveDir("dir")
		})
	}
}

func newFile(v *volume) {
	f, err := v.root.Create("a", 0o640)
	v.must(err)
	for _, part := range []string{"one ", "", "two"} {
		if n, err := f.Write([]byte(part)); n != len(part) || err != nil {
			v.Errorf("writing %q: got %d, %v", part, n, err)
		}
	}
	v.must(f.Sync())
	v.must(f.Close())

	r, err := v.root.Open("a")
	v.must(err)
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != "one two" || err != nil {
		v.Errorf("reading: got %q, %v", got, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		v.Errorf("reading at the end: got %d, %v, want 0, EOF", n, err)
	}
}

func createExclusive(v *volume) {
	v.write(v.root, "a", "old")
	_, err := v.root.Create("a", 0o600)
	v.want(err, fs.ErrExist, "creating a file that exists")
	v.want(v.root.Mkdir("a", 0o700), fs.ErrExist, "making a directory where a file is")
	v.content(v.root, "a", "old")

	v.must(v.root.Mkdir("d", 0o700))
	v.want(v.root.Mkdir("d", 0o700), fs.ErrExist, "making a directory that exists")
	_, err = v.root.Create("d", 0o600)
	v.want(err, fs.ErrExist, "creating a file where a directory is")

	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.promptly("create", func() {
			_, err := v.root.Create("x", 0o600)
			v.want(err, fs.ErrExist, "creating a file")
		})
		v.want(v.root.Mkdir("x", 0o700), fs.ErrExist, "making a directory")
	})
	if _, err := v.root.Stat("nowhere"); !errors.Is(err, fs.ErrNotExist) {
		v.Errorf("creating through a dangling link made its target: %v", err)
	}
}

func openRefuses(v *volume) {
	v.must(v.root.Mkdir("d", 0o700))
	_, err := v.root.Open("d")
	v.want(err, durable.ErrNotRegular, "opening a directory")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.promptly("open", func() {
			_, err := v.root.Open("x")
			v.want(err, durable.ErrNotRegular, "opening")
		})
		_, err := durable.ReadFile(v.root, "x", 100)
		v.want(err, durable.ErrNotRegular, "reading")
	})
}

func subRefuses(v *volume) {
	v.write(v.root, "a", "")
	_, err := v.root.Sub("a")
	v.want(err, durable.ErrNotRegular, "opening a file as a directory")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.promptly("sub", func() {
			_, err := v.root.Sub("x")
			v.want(err, durable.ErrNotRegular, "opening as a directory")
		})
		_, err := durable.SubMake(v.root, "x", 0o700)
		v.want(err, durable.ErrNotRegular, "SubMake")
	})
}

// withName lists every call that takes a name.
func withName(d durable.Dir) map[string]func(name string) error {
	return map[string]func(name string) error{
		"open":    func(n string) error { _, err := d.Open(n); return err },
		"create":  func(n string) error { _, err := d.Create(n, 0o600); return err },
		"mkdir":   func(n string) error { return d.Mkdir(n, 0o700) },
		"sub":     func(n string) error { _, err := d.Sub(n); return err },
		"stat":    func(n string) error { _, err := d.Stat(n); return err },
		"stat in": func(n string) error { _, err := d.StatIn(n, "name"); return err },
		"stat in it": func(n string) error {
			d.Mkdir("dir", 0o700)
			defer d.RemoveDir("dir")
			_, err := d.StatIn("dir", n)
			return err
		},
		"move":          func(n string) error { return d.Move(n, d, "free") },
		"move to":       func(n string) error { return d.Move("a", d, n) },
		"replace":       func(n string) error { return d.Replace(n, "free") },
		"open to write": func(n string) error { _, err := d.OpenWrite(n); return err },
		"move over":     func(n string) error { return d.MoveOver(n, d, "free") },
		"move over to":  func(n string) error { return d.MoveOver("a", d, n) },
		"replace to":    func(n string) error { return d.Replace("a", n) },
		"remove":        func(n string) error { return d.Remove(n) },
		"rmdir":         func(n string) error { return d.RemoveDir(n) },
		"read file":     func(n string) error { _, err := durable.ReadFile(d, n, 10); return err },
		"write new":     func(n string) error { return durable.WriteNew(d, n, 0o600, nil) },
		"write synced":  func(n string) error { return durable.WriteSynced(d, n, 0o600, nil) },
		"sub, making":   func(n string) error { _, err := durable.SubMake(d, n, 0o700); return err },
		"sub, by parts": func(n string) error { _, err := durable.SubPath(d, n); return err },
	}
}

func oneComponent(v *volume) {
	d := v.mkdir(v.root, "d")
	v.write(d, "a", "")
	v.write(v.root, "outside", "")
	for _, name := range []string{"", ".", "..", "/", "/a", "a/", "./a", "../outside", "d/../a", "a\x00", "\x00"} {
		for call, f := range withName(d) {
			v.want(f(name), fs.ErrInvalid, fmt.Sprintf("%s %q", call, name))
		}
	}
	v.names(d, "a")
	v.names(v.root, "d", "outside")
}

func oddNames(v *volume) {
	names := []string{
		"\xff\xfe", "a\nb", " ", "-rf", "...", "*", "\\", "a\\b", "\x01\x7f", "\u202egpj.exe", "é", "e\u0301",
		strings.Repeat("n", 255), strings.Repeat("\xff", 255),
	}
	d := v.mkdir(v.root, "d")
	for _, name := range names {
		v.write(v.root, name, name)
		v.must(v.root.Move(name, d, name))
		v.content(d, name, name)
		info, err := d.Stat(name)
		v.must(err)
		if info.Size != int64(len(name)) {
			v.Errorf("size of %q: got %d", name, info.Size)
		}
	}
	v.names(d, names...)
	for _, name := range names {
		v.must(d.Remove(name))
		v.must(v.mkdir(d, name).Sync())
		v.must(d.RemoveDir(name))
	}
	v.names(d)
}

func longNames(v *volume) {
	v.write(v.root, "a", "")
	for call, f := range withName(v.root) {
		v.want(f(strings.Repeat("n", 256)), unix.ENAMETOOLONG, call)
	}
	v.names(v.root, "a")
}

func missing(v *volume) {
	calls := withName(v.root)
	for _, call := range []string{"open", "open to write", "move over", "sub", "stat", "move", "replace", "remove", "rmdir", "read file", "sub, by parts"} {
		v.want(calls[call]("missing"), fs.ErrNotExist, call)
	}
	// A name is missing also where the target of the move is taken.
	v.write(v.root, "a", "")
	v.want(v.root.Move("missing", v.root, "a"), fs.ErrNotExist, "moving a missing name to one that is taken")
	v.names(v.root, "a")
}

func offsets(v *volume) {
	f, err := v.root.Create("a", 0o600)
	v.must(err)
	defer f.Close()
	for _, w := range []struct {
		data string
		off  int64
	}{{"cdef", 2}, {"ab", 0}, {"EFGH", 4}, {"z", 10}} {
		if n, err := f.WriteAt([]byte(w.data), w.off); n != len(w.data) || err != nil {
			v.Errorf("writing %q at %d: got %d, %v", w.data, w.off, n, err)
		}
	}
	v.content(v.root, "a", "abcdEFGH\x00\x00z")

	// Write goes on where Write stopped, which here is the beginning.
	_, err = f.Write([]byte("AB"))
	v.must(err)
	_, err = f.Write([]byte("C"))
	v.must(err)
	v.content(v.root, "a", "ABCdEFGH\x00\x00z")

	for _, r := range []struct {
		off  int64
		size int
		want string
		err  error
	}{{0, 3, "ABC", nil}, {3, 5, "dEFGH", nil}, {7, 10, "H\x00\x00z", io.EOF}, {11, 1, "", io.EOF}, {99, 1, "", io.EOF}, {11, 0, "", nil}} {
		buf := make([]byte, r.size)
		n, err := f.ReadAt(buf, r.off)
		if string(buf[:n]) != r.want || err != r.err {
			v.Errorf("reading %d at %d: got %q, %v, want %q, %v", r.size, r.off, buf[:n], err, r.want, r.err)
		}
	}
	_, err = f.ReadAt(make([]byte, 1), -1)
	v.want(err, unix.EINVAL, "reading before the beginning")
	_, err = f.WriteAt([]byte("x"), -1)
	v.want(err, unix.EINVAL, "writing before the beginning")
}

func readOnly(v *volume) {
	v.write(v.root, "a", "old")
	f, err := v.root.Open("a")
	v.must(err)
	defer f.Close()
	_, err = f.Write([]byte("new"))
	v.want(err, unix.EBADF, "writing")
	_, err = f.WriteAt([]byte("new"), 1)
	v.want(err, unix.EBADF, "writing at an offset")
	v.must(f.Sync())
	v.content(v.root, "a", "old")
}

func statFile(v *volume) {
	f, err := v.root.Create("a", 0o640)
	v.must(err)
	defer f.Close()
	_, err = f.Write([]byte("12345"))
	v.must(err)
	byName, err := v.root.Stat("a")
	v.must(err)
	byHandle, err := f.Stat()
	v.must(err)
	if byName != byHandle {
		v.Errorf("stat by name and by handle differ: %+v, %+v", byName, byHandle)
	}
	if byName.Mode != 0o640 || byName.Size != 5 || byName.Nlink != 1 || byName.Ino == 0 {
		v.Errorf("stat: got %+v", byName)
	}
	if !byName.Same(byHandle) {
		v.Error("Same is false of one file")
	}

	v.write(v.root, "b", "12345")
	other, err := v.root.Stat("b")
	v.must(err)
	if byName.Same(other) {
		v.Error("Same is true of two files")
	}

	d := v.mkdir(v.root, "d")
	byName, err = v.root.Stat("d")
	v.must(err)
	byHandle, err = d.StatDir()
	v.must(err)
	if byName != byHandle || byName.Mode != fs.ModeDir|0o700 {
		v.Errorf("stat of a directory by name and by handle: %+v, %+v", byName, byHandle)
	}
}

func statIn(v *volume) {
	d := v.mkdir(v.root, "dir")
	v.write(d, "a", "12345")
	v.plant.Symlink("a", "dir/link")
	for _, name := range []string{"a", "link"} {
		want, err := d.Stat(name)
		v.must(err)
		if got, err := v.root.StatIn("dir", name); err != nil || got != want {
			v.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	v.write(v.root, "file", "")
	for _, c := range []struct {
		sub, name string
		want      error
	}{{"dir", "missing", fs.ErrNotExist}, {"missing", "a", fs.ErrNotExist}, {"file", "a", unix.ENOTDIR}} {
		_, err := v.root.StatIn(c.sub, c.name)
		v.want(err, c.want, c.sub+"/"+c.name)
	}
}

func statLink(v *volume) {
	v.eachSpecial(func(v *volume, want fs.FileMode) {
		info, err := v.root.Stat("x")
		v.must(err)
		if info.Mode.Type() != want {
			v.Errorf("type: got %v, want %v", info.Mode.Type(), want)
		}
		v.must(durable.Walk(v.root, func(e durable.Entry) error {
			if e.Name == "x" && e.Type != want && e.Type != fs.ModeIrregular {
				v.Errorf("type in a walk: got %v, want %v", e.Type, want)
			}
			return nil
		}))
	})
}

// until repeats a change until its mark on the times is seen: the clock of a
// kernel may stand still for some milliseconds.
func (v *volume) until(doing string, change func(), seen func() bool) {
	v.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		change()
		if seen() {
			return
		}
		if time.Now().After(end) {
			v.Fatalf("%s leaves no mark on the times", doing)
		}
	}
}

func times(v *volume) {
	d := v.mkdir(v.root, "d")
	f, err := d.Create("a", 0o600)
	v.must(err)
	defer f.Close()
	stat := func() durable.Info {
		info, err := f.Stat()
		v.must(err)
		return info
	}
	statDir := func() durable.Info {
		info, err := d.StatDir()
		v.must(err)
		return info
	}

	before := stat()
	v.until("a write", func() { _, err := f.WriteAt([]byte("x"), 0); v.must(err) },
		func() bool { now := stat(); return now.MTime > before.MTime && now.CTime > before.CTime })

	before, beforeDir := stat(), statDir()
	v.until("a rename", func() { v.must(d.Move("a", d, "b")); v.must(d.Move("b", d, "a")) },
		func() bool {
			now, nowDir := stat(), statDir()
			return now.CTime > before.CTime && nowDir.MTime > beforeDir.MTime && nowDir.CTime > beforeDir.CTime
		})
	if now := stat(); now.MTime != before.MTime {
		v.Error("a rename changes the time of the last write")
	}

	beforeDir = statDir()
	v.until("a creation", func() { v.write(d, "c", ""); v.must(d.Remove("c")) },
		func() bool { return statDir().MTime > beforeDir.MTime })

	beforeDir = statDir()
	_, err = f.WriteAt([]byte("x"), 0)
	v.must(err)
	if statDir() != beforeDir {
		v.Error("a write to a file changes the directory")
	}
}

func statAfterRead(v *volume) {
	f, err := v.root.Create("a", 0o600)
	v.must(err)
	defer f.Close()
	_, err = f.Write([]byte("short"))
	v.must(err)
	for name, read := range map[string]func(durable.File) error{
		"Read":   func(r durable.File) error { _, err := r.Read(make([]byte, 1)); return err },
		"ReadAt": func(r durable.File) error { _, err := r.ReadAt(make([]byte, 1), 0); return err },
	} {
		r, err := v.root.Open("a")
		v.must(err)
		defer r.Close()
		v.must(read(r))
		_, err = f.Write([]byte(" and longer"))
		v.must(err)
		want, err := f.Stat()
		v.must(err)
		if got, err := r.Stat(); got.Size != want.Size || err != nil {
			v.Errorf("size after %s: got %d, %v, want %d", name, got.Size, err, want.Size)
		}
	}
}

func hardLinks(v *volume) {
	v.write(v.root, "a", "data")
	v.plant.Link("a", "b")
	nlink := func(want uint64) {
		v.Helper()
		if info, err := v.root.Stat("a"); info.Nlink != want || err != nil {
			v.Errorf("links: got %d, %v, want %d", info.Nlink, err, want)
		}
	}
	nlink(2)
	v.content(v.root, "b", "data")
	v.want(v.root.Move("a", v.root, "b"), fs.ErrExist, "moving a file to its other name")
	v.must(v.root.Replace("a", "b"))
	nlink(2) // rename(2) does nothing where both names are one file
	v.must(v.root.Remove("b"))
	nlink(1)
	v.content(v.root, "a", "data")
}

func removedWhileOpen(v *volume) {
	v.write(v.root, "a", "data")
	f, err := v.root.Open("a")
	v.must(err)
	defer f.Close()
	v.must(v.root.Remove("a"))
	if got, err := durable.ReadAll(f, 4); string(got) != "data" || err != nil {
		v.Errorf("reading: got %q, %v", got, err)
	}
	if info, err := f.Stat(); info.Nlink != 0 || err != nil {
		v.Errorf("links: got %d, %v, want 0", info.Nlink, err)
	}
}

func move(v *volume) {
	from, to := v.mkdir(v.root, "from"), v.mkdir(v.root, "to")
	v.write(from, "a", "data")
	before, err := from.Stat("a")
	v.must(err)
	v.must(from.Move("a", to, "b"))
	v.names(from)
	v.names(to, "b")
	v.content(to, "b", "data")
	after, err := to.Stat("b")
	v.must(err)
	if !before.Same(after) {
		v.Errorf("a moved file is another one: %+v, %+v", before, after)
	}
	v.must(to.Move("b", to, "c"))
	v.names(to, "c")
}

func moveNoReplace(v *volume) {
	from, to := v.mkdir(v.root, "from"), v.mkdir(v.root, "to")
	v.write(from, "a", "new")
	v.write(to, "a", "old")
	v.want(from.Move("a", to, "a"), fs.ErrExist, "moving to a name that is taken")
	v.want(from.Move("a", from, "a"), fs.ErrExist, "moving a name to itself")
	v.must(to.Mkdir("d", 0o700))
	v.want(from.Move("a", to, "d"), fs.ErrExist, "moving a file to an empty directory's name")
	v.must(from.Mkdir("d", 0o700))
	v.want(from.Move("d", to, "d"), fs.ErrExist, "moving a directory to an empty directory's name")
	v.content(from, "a", "new")
	v.content(to, "a", "old")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.want(from.Move("a", v.root, "x"), fs.ErrExist, "moving")
	})
	v.content(from, "a", "new")
}

func moveAnything(v *volume) {
	d := v.mkdir(v.root, "to")
	v.write(v.mkdir(v.root, "sub"), "a", "data")
	v.must(v.root.Move("sub", d, "moved"))
	sub, err := durable.SubPath(v.root, "to", "moved")
	v.must(err)
	defer sub.Close()
	v.content(sub, "a", "data")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.must(v.root.Move("x", d, "x"))
		v.must(d.Move("x", v.root, "x"))
	})
}

func moveBelowItself(v *volume) {
	a := v.mkdir(v.root, "a")
	b := v.mkdir(a, "b")
	v.want(v.root.Move("a", a, "x"), unix.EINVAL, "moving a directory into itself")
	v.want(v.root.Move("a", b, "x"), unix.EINVAL, "moving a directory below itself")
	v.must(a.Move("b", v.root, "b"))
	v.must(v.root.Move("a", b, "a"))
	v.names(v.root, "b")
	v.names(b, "a")
}

func replace(v *volume) {
	v.write(v.root, "old", "old")
	v.write(v.root, "new", "new")
	reader, err := v.root.Open("old")
	v.must(err)
	defer reader.Close()
	v.must(v.root.Replace("new", "old"))
	v.names(v.root, "old")
	v.content(v.root, "old", "new")
	if got, err := durable.ReadAll(reader, 3); string(got) != "old" || err != nil {
		v.Errorf("who had the old file open reads %q, %v", got, err)
	}
	v.must(v.root.Replace("old", "fresh"))
	v.names(v.root, "fresh")
	v.must(v.root.Replace("fresh", "fresh"))
	v.content(v.root, "fresh", "new")
}

func replaceKinds(v *volume) {
	v.write(v.root, "a", "data")
	d := v.mkdir(v.root, "d")
	v.want(v.root.Replace("a", "d"), durable.ErrNotRegular, "replacing a directory by a file")
	v.want(v.root.Replace("d", "a"), durable.ErrNotRegular, "replacing a file by a directory")
	v.write(d, "inside", "")
	v.mkdir(v.root, "e")
	v.want(v.root.Replace("e", "d"), unix.ENOTEMPTY, "replacing a directory that is not empty")
	v.must(v.root.Replace("d", "e"))
	v.names(d, "inside")
	v.names(v.root, "a", "e")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.write(v.root, "b", "new")
		v.must(v.root.Replace("b", "x"))
		v.content(v.root, "x", "new")
	})
}

func moveOver(v *volume) {
	from, to := v.mkdir(v.root, "from"), v.mkdir(v.root, "to")
	v.write(from, "new", "new")
	v.write(to, "old", "old")
	reader, err := to.Open("old")
	v.must(err)
	defer reader.Close()
	v.must(from.MoveOver("new", to, "old"))
	v.names(from)
	v.names(to, "old")
	v.content(to, "old", "new")
	if got, err := durable.ReadAll(reader, 3); string(got) != "old" || err != nil {
		v.Errorf("who had the old file open reads %q, %v", got, err)
	}
	v.must(to.MoveOver("old", from, "free"))
	v.names(to)
	v.content(from, "free", "new")
}

func moveOverKinds(v *volume) {
	from := v.mkdir(v.root, "from")
	d := v.mkdir(v.root, "d")
	v.write(from, "a", "data")
	v.want(from.MoveOver("a", v.root, "d"), durable.ErrNotRegular, "moving a file over a directory")
	v.want(v.root.MoveOver("d", from, "a"), durable.ErrNotRegular, "moving a directory over a file")
	v.want(v.root.MoveOver("d", d, "below"), unix.EINVAL, "moving a directory into itself")
	v.names(from, "a")
}

func openWrite(v *volume) {
	v.write(v.root, "a", "secret bytes")
	before, err := v.root.Stat("a")
	v.must(err)
	f, err := v.root.OpenWrite("a")
	v.must(err)
	defer f.Close()
	if got, err := durable.ReadAll(f, before.Size); string(got) != "secret bytes" || err != nil {
		v.Errorf("reading: got %q, %v", got, err)
	}
	_, err = f.WriteAt(make([]byte, 6), 0)
	v.must(err)
	v.must(f.Sync())
	v.content(v.root, "a", "\x00\x00\x00\x00\x00\x00 bytes")
	v.must(f.Truncate())
	v.content(v.root, "a", "")
	after, err := f.Stat()
	v.must(err)
	if after.Ino != before.Ino || after.Size != 0 {
		v.Errorf("it is another file: %+v, %+v", before, after)
	}
	v.must(f.Truncate()) // of nothing
	_, err = f.WriteAt([]byte("x"), 0)
	v.must(err)
	v.content(v.root, "a", "x")

	r, err := v.root.Open("a")
	v.must(err)
	defer r.Close()
	v.want(r.Truncate(), unix.EINVAL, "truncating a file that is open for reading")
	v.content(v.root, "a", "x")
}

func openWriteRefuses(v *volume) {
	v.must(v.root.Mkdir("d", 0o700))
	_, err := v.root.OpenWrite("d")
	v.want(err, durable.ErrNotRegular, "opening a directory for writing")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.promptly("open for writing", func() {
			_, err := v.root.OpenWrite("x")
			v.want(err, durable.ErrNotRegular, "opening for writing")
		})
	})
}

func removeKinds(v *volume) {
	v.must(v.root.Mkdir("d", 0o700))
	v.want(v.root.Remove("d"), durable.ErrNotRegular, "removing a directory")
	v.names(v.root, "d")
	v.write(v.root, "a", "")
	v.must(v.root.Remove("a"))
	v.names(v.root, "d")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.must(v.root.Remove("x"))
		v.plant.WriteFile("x", nil)
	})
	v.names(v.root, "d")
}

func removeDir(v *volume) {
	d := v.mkdir(v.root, "d")
	v.write(d, "a", "")
	v.want(v.root.RemoveDir("d"), unix.ENOTEMPTY, "removing a directory that is not empty")
	v.must(d.Remove("a"))
	v.must(v.root.RemoveDir("d"))
	v.names(v.root)
	v.write(v.root, "a", "")
	v.want(v.root.RemoveDir("a"), durable.ErrNotRegular, "removing a file as a directory")
	v.eachSpecial(func(v *volume, _ fs.FileMode) {
		v.want(v.root.RemoveDir("x"), durable.ErrNotRegular, "removing as a directory")
	})
	v.names(v.root, "a")
}

func handleHoldsDirectory(v *volume) {
	inbox := v.mkdir(v.root, "inbox")
	v.write(inbox, "a", "true")
	before, err := inbox.StatDir()
	v.must(err)

	v.plant.Rename("inbox", "elsewhere")
	v.plant.MkdirAll("inbox", 0o700)
	v.plant.WriteFile("inbox/a", []byte("false"))

	v.content(inbox, "a", "true")
	v.names(inbox, "a")
	after, err := inbox.StatDir()
	v.must(err)
	if after.Ino != before.Ino {
		v.Errorf("the handle changed its directory: inode %d, before %d", after.Ino, before.Ino)
	}
	v.write(inbox, "b", "")
	v.must(inbox.Sync())
	other, err := v.root.Sub("inbox")
	v.must(err)
	defer other.Close()
	v.names(other, "a")
	v.content(other, "a", "false")

	// Nor does it come to follow a link that takes the place of the name.
	v.plant.Rename("inbox", "other")
	v.plant.Symlink("other", "inbox")
	v.content(inbox, "a", "true")
	_, err = v.root.Sub("inbox")
	v.want(err, durable.ErrNotRegular, "opening the link")
}

func removedDirectory(v *volume) {
	d := v.mkdir(v.root, "d")
	v.write(v.root, "a", "")
	v.must(v.root.RemoveDir("d"))
	_, err := d.Create("a", 0o600)
	v.want(err, fs.ErrNotExist, "creating a file")
	v.want(d.Mkdir("a", 0o700), fs.ErrNotExist, "making a directory")
	v.want(v.root.Move("a", d, "a"), fs.ErrNotExist, "moving a file in")
	_, err = d.Stat("a")
	v.want(err, fs.ErrNotExist, "stat")
	v.want(durable.Walk(d, func(durable.Entry) error { return nil }), fs.ErrNotExist, "a walk")
	if _, err := d.StatDir(); err != nil {
		v.Errorf("stat of the directory: %v", err)
	}
	v.must(d.Sync())
	v.names(v.root, "a")
}

// someGroup is a group that the tests need not be in.
const someGroup = 4242

func setgid(v *volume) {
	v.needsRoot()
	d := v.mkdir(v.root, "d")
	v.plant.Chown("d", 0, someGroup)
	v.plant.Chmod("d", fs.ModeSetgid|0o770)
	v.write(d, "a", "")
	sub, err := v.mkdir(d, "sub").StatDir()
	v.must(err)
	file, err := d.Stat("a")
	v.must(err)
	if file.GID != someGroup || sub.GID != someGroup {
		v.Errorf("groups of file and directory: got %d and %d, want %d", file.GID, sub.GID, someGroup)
	}
	if file.Mode != 0o600 || sub.Mode != fs.ModeDir|fs.ModeSetgid|0o700 {
		v.Errorf("modes of file and directory: got %v and %v", file.Mode, sub.Mode)
	}
}

func chown(v *volume) {
	v.needsRoot()
	f, err := v.root.Create("a", 0o640)
	v.must(err)
	defer f.Close()
	before, err := f.Stat()
	v.must(err)
	v.must(f.Chown(someGroup))
	after, err := f.Stat()
	v.must(err)
	if after.GID != someGroup || after.UID != before.UID || after.Mode != before.Mode {
		v.Errorf("got %+v, before %+v", after, before)
	}

	r, err := v.root.Open("a")
	v.must(err)
	defer r.Close()
	v.must(r.Chown(someGroup + 1))
	if info, err := r.Stat(); info.GID != someGroup+1 || err != nil {
		v.Errorf("group of a file opened for reading: got %d, %v", info.GID, err)
	}
}

// many makes so many files and returns their names.
func (v *volume) many(d durable.Dir, n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("file-%04d", i))
		v.write(d, names[i], "")
	}
	return names
}

func entriesInPortions(v *volume) {
	names := v.many(v.root, 1000)
	v.must(v.root.Mkdir("dir", 0o700))
	es, err := v.root.Entries()
	v.must(err)
	defer es.Close()
	_, err = es.Next(0)
	v.want(err, fs.ErrInvalid, "asking for no entries")
	seen := map[string]int{}
	for n := 1; ; n = n%7 + 1 {
		part, err := es.Next(n)
		if err == io.EOF {
			if len(part) > 0 {
				v.Errorf("%d entries together with EOF", len(part))
			}
			break
		}
		v.must(err)
		if len(part) == 0 || len(part) > n {
			v.Fatalf("asked for %d entries, got %d", n, len(part))
		}
		for _, e := range part {
			seen[e.Name]++
			if isDir := e.Name == "dir"; e.Type.IsDir() != isDir || !isDir && e.Type != 0 {
				v.Errorf("type of %q: %v", e.Name, e.Type)
			}
		}
	}
	for _, name := range append(names, "dir") {
		if seen[name] != 1 {
			v.Errorf("%q was seen %d times", name, seen[name])
		}
		delete(seen, name)
	}
	if len(seen) > 0 {
		v.Errorf("names that are not there: %v", seen)
	}
	if part, err := es.Next(1); err != io.EOF || len(part) > 0 {
		v.Errorf("after the end: got %v, %v", part, err)
	}
}

// entriesRemoved does what a dispatcher does: it removes what it is shown.
func entriesRemoved(v *volume) {
	names := v.many(v.root, 2000)
	kept := v.mkdir(v.root, "kept")
	seen := map[string]int{}
	es, err := v.root.Entries()
	v.must(err)
	defer es.Close()
	for i := 0; ; i++ {
		part, err := es.Next(16)
		if err == io.EOF {
			break
		}
		v.must(err)
		for _, e := range part {
			seen[e.Name]++
			if e.Type.IsDir() {
				continue
			}
			if err := v.root.Move(e.Name, kept, e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				v.Error(err)
			}
		}
		v.write(v.root, fmt.Sprintf("new-%04d", i), "")
	}
	for _, name := range append(names, "kept") {
		if seen[name] != 1 {
			v.Errorf("%q was seen %d times", name, seen[name])
		}
	}
}

func twoWalks(v *volume) {
	names := v.many(v.root, 100)
	one, err := v.root.Entries()
	v.must(err)
	defer one.Close()
	first, err := one.Next(10)
	v.must(err)
	v.names(v.root, names...)
	count := len(first)
	for {
		part, err := one.Next(10)
		if err == io.EOF {
			break
		}
		v.must(err)
		count += len(part)
	}
	if count != len(names) {
		v.Errorf("the first walk saw %d names, want %d", count, len(names))
	}
}

func walkStops(v *volume) {
	v.many(v.root, 3)
	stop := errors.New("enough")
	calls := 0
	err := durable.Walk(v.root, func(durable.Entry) error { calls++; return stop })
	if err != stop || calls != 1 {
		v.Errorf("got error %v after %d calls", err, calls)
	}
}

func syncs(v *volume) {
	d := v.mkdir(v.root, "d")
	f, err := d.Create("a", 0o600)
	v.must(err)
	defer f.Close()
	_, err = f.Write([]byte("data"))
	v.must(err)
	v.must(f.Sync())
	v.must(d.Sync())
	v.must(v.root.Sync())
	v.must(v.fs.Sync())
	v.must(d.Remove("a"))
	v.must(f.Sync())
	v.must(v.fs.Sync())
}

func space(v *volume) {
	s, err := v.fs.Space()
	v.must(err)
	if s.Total == 0 || s.Free > s.Total {
		v.Errorf("got %+v", s)
	}
}

func readFileMax(v *volume) {
	v.write(v.root, "a", "12345")
	v.write(v.root, "empty", "")
	for _, max := range []int64{5, 6, 1 << 40} {
		if got, err := durable.ReadFile(v.root, "a", max); string(got) != "12345" || err != nil {
			v.Errorf("max %d: got %q, %v", max, got, err)
		}
	}
	if got, err := durable.ReadFile(v.root, "a", 4); got != nil || err == nil {
		v.Errorf("max 4: got %q, %v", got, err)
	}
	if got, err := durable.ReadFile(v.root, "empty", 0); len(got) != 0 || err != nil {
		v.Errorf("empty file: got %q, %v", got, err)
	}
	v.plant.Sparse("huge", 1<<40)
	if got, err := durable.ReadFile(v.root, "huge", 1<<20); got != nil || err == nil {
		v.Errorf("a file of a terabyte: got %d bytes, %v", len(got), err)
	}
	v.plant.Sparse("zeros", 1000)
	v.content(v.root, "zeros", strings.Repeat("\x00", 1000))
}

func readAll(v *volume) {
	v.write(v.root, "a", "12345")
	for size, want := range map[int64]string{3: "1234", 5: "12345", 9: "12345"} {
		f, err := v.root.Open("a")
		v.must(err)
		if got, err := durable.ReadAll(f, size); string(got) != want || err != nil {
			v.Errorf("size %d: got %q, %v, want %q", size, got, err, want)
		}
		f.Close()
	}
}

func writeNew(v *volume) {
	for name, write := range map[string]func(durable.Dir, string, fs.FileMode, []byte) error{
		"WriteNew": durable.WriteNew, "WriteSynced": durable.WriteSynced,
	} {
		v.must(write(v.root, name, 0o640, []byte("data")))
		v.want(write(v.root, name, 0o640, []byte("other")), fs.ErrExist, name)
		v.content(v.root, name, "data")
		if info, err := v.root.Stat(name); info.Mode != 0o640 || err != nil {
			v.Errorf("mode: got %v, %v", info.Mode, err)
		}
	}
	v.names(v.root, "WriteNew", "WriteSynced")
}

func replaceFile(v *volume) {
	v.must(durable.ReplaceFile(v.root, "state", 0o600, []byte("first")))
	v.content(v.root, "state", "first")
	v.write(v.root, ".state.new", "left behind by a crash")
	v.must(durable.ReplaceFile(v.root, "state", 0o600, []byte("second")))
	v.content(v.root, "state", "second")
	v.names(v.root, "state")

	v.must(v.root.Mkdir("d", 0o700))
	v.want(durable.ReplaceFile(v.root, "d", 0o600, nil), durable.ErrNotRegular, "replacing a directory")
	v.names(v.root, "state", "d")
	v.want(durable.ReplaceFile(v.root, strings.Repeat("n", 255), 0o600, nil), unix.ENAMETOOLONG, "a name with no room for the temporary one")
	v.names(v.root, "state", "d")
}

func subMake(v *volume) {
	for range 2 {
		d, err := durable.SubMake(v.root, "d", 0o750)
		v.must(err)
		v.must(d.Close())
	}
	if info, err := v.root.Stat("d"); info.Mode != fs.ModeDir|0o750 || err != nil {
		v.Errorf("mode: got %v, %v", info.Mode, err)
	}
	v.write(v.root, "a", "")
	_, err := durable.SubMake(v.root, "a", 0o700)
	v.want(err, durable.ErrNotRegular, "where a file is")
}

func subPath(v *volume) {
	v.plant.MkdirAll("a/b/c", 0o700)
	v.plant.WriteFile("a/b/c/file", []byte("data"))
	d, err := durable.SubPath(v.root, "a", "b", "c")
	v.must(err)
	defer d.Close()
	v.content(d, "file", "data")
	_, err = durable.SubPath(v.root, "a", "missing", "c")
	v.want(err, fs.ErrNotExist, "a missing one")
	_, err = durable.SubPath(v.root, "a", "..", "a")
	v.want(err, fs.ErrInvalid, "one that goes up")
	v.plant.Symlink("b", "a/link")
	_, err = durable.SubPath(v.root, "a", "link", "c")
	v.want(err, durable.ErrNotRegular, "one that is a link")
}

// concurrent lets goroutines race for the same names: each name has one winner.
func concurrent(v *volume) {
	const racers, names = 4, 50
	to := v.mkdir(v.root, "to")
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		won = map[string]int{}
	)
	for r := range racers {
		wg.Go(func() {
			for i := range names {
				name, mine := fmt.Sprint("n", i), fmt.Sprint("r", r, "-", i)
				if err := durable.WriteNew(v.root, mine, 0o600, []byte(mine)); err != nil {
					v.Error(err)
				}
				err := v.root.Move(mine, to, name)
				if err == nil {
					mu.Lock()
					won[name]++
					mu.Unlock()
					continue
				}
				v.want(err, fs.ErrExist, "moving to a name that another has taken")
				if err := v.root.Remove(mine); err != nil {
					v.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range names {
		name := fmt.Sprint("n", i)
		data, err := durable.ReadFile(to, name, 100)
		v.must(err)
		if won[name] != 1 || !bytes.HasSuffix(data, fmt.Appendf(nil, "-%d", i)) {
			v.Errorf("%s: %d winners, content %q", name, won[name], data)
		}
	}
	v.names(v.root, "to")
}

func closed(v *volume) {
	v.write(v.root, "a", "data")
	f, err := v.root.Open("a")
	v.must(err)
	v.must(f.Close())
	d := v.mkdir(v.root, "d")
	v.must(d.Close())
	_, err = f.Read(make([]byte, 1))
	errs := []error{err, f.Close(), f.Sync(), d.Close(), d.Sync(), d.Mkdir("a", 0o700)}
	for i, err := range errs {
		if err == nil {
			v.Errorf("call %d on a closed handle succeeds", i)
		}
	}

	// The next file gets the descriptor of the closed one, which must not reach it.
	v.write(v.root, "b", "other")
	other, err := v.root.Open("b")
	v.must(err)
	defer other.Close()
	if n, err := f.ReadAt(make([]byte, 5), 0); n > 0 || err == nil {
		v.Errorf("reading a closed file: got %d bytes, %v", n, err)
	}
	if f.Close() == nil {
		v.Error("closing twice succeeds")
	}
	if got, err := durable.ReadAll(other, 5); string(got) != "other" || err != nil {
		v.Errorf("after closing a file twice another one reads %q, %v", got, err)
	}
}
