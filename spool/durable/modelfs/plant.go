package modelfs

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// The methods below are for the test itself and for what it plants on the volume
// as another process would. They take paths from the top, with slashes; "" is the
// top. They are no calls: nothing counts them or lets them fail, and they work on a
// crashed volume too. What they plant is durable at once, as if it had been there
// long ago, together with whatever pending records it needs; only WriteUnsynced
// leaves all as volatile as the appliance's own files.
//
// Those that change something panic where that is impossible, for that is a
// mistake in the test.

// find returns the inode at path.
func (v *Volume) find(path string) (*node, error) {
	n := v.nodes[v.root]
	if path == "" {
		return n, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := v.lookup(n, name)
		if err != nil {
			return nil, &fs.PathError{Op: "find", Path: path, Err: err}
		}
		n = next
	}
	return n, nil
}

// must returns the inode at path, which has to be there.
func (v *Volume) must(path string) *node {
	n, err := v.find(path)
	if err != nil {
		panic(fmt.Sprintf("modelfs: %v", err))
	}
	return n
}

// split returns the directory of path and the name in it.
func (v *Volume) split(path string) (*node, string) {
	above, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		above, name = path[:i], path[i+1:]
	}
	d := v.must(above)
	if !d.mode.IsDir() || checkName("plant", name) != nil || len(name) > nameMax {
		panic(fmt.Sprintf("modelfs: %q is no place for a name", path))
	}
	return d, name
}

// plant makes a new inode at path, durably.
func (v *Volume) plant(path string, mode fs.FileMode) *node {
	n, r := v.volatile(path, mode)
	v.syncNames([]*record{r})
	return n
}

func (v *Volume) volatile(path string, mode fs.FileMode) (*node, *record) {
	d, name := v.split(path)
	if d.names[name] != 0 {
		panic(fmt.Sprintf("modelfs: %q exists", path))
	}
	return v.create("plant "+path, d, name, mode)
}

// WriteFile writes a file. One that is there keeps its inode and loses its
// content, as with cp; a new one has mode 0644.
func (v *Volume) WriteFile(path string, data []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.syncNames(v.writeFile(path, data))
	n := v.must(path)
	n.lossy = false
	v.flush(n)
}

// WriteUnsynced is WriteFile by somebody who does not sync.
func (v *Volume) WriteUnsynced(path string, data []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writeFile(path, data)
}

// writeFile returns the records that path now needs to be there.
func (v *Volume) writeFile(path string, data []byte) []*record {
	n, err := v.find(path)
	if errors.Is(err, unix.ENOENT) {
		n, _ = v.volatile(path, 0o644)
	} else if err != nil || !n.mode.IsRegular() {
		panic(fmt.Sprintf("modelfs: %q is not a regular file", path))
	}
	if n.size() > 0 {
		v.truncate(n)
	}
	if v.write(n, data, 0) < len(data) {
		panic(fmt.Sprintf("modelfs: no space to plant %q", path))
	}
	if r, ok := isPending(v.pending, n.last); ok {
		return []*record{r}
	}
	return nil
}

// Sparse makes a file of size bytes, all zeros, that takes no room.
func (v *Volume) Sparse(path string, size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.plant(path, 0o644).hole = size
}

// MkdirAll makes a directory, and those above it that are missing.
func (v *Volume) MkdirAll(path string, perm fs.FileMode) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range len(path) + 1 {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if _, err := v.find(path[:i]); err != nil {
			v.plant(path[:i], fs.ModeDir|perm)
		}
	}
}

// Symlink makes a symbolic link to target.
func (v *Volume) Symlink(target, path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.plant(path, fs.ModeSymlink|0o777).target = target
}

// Mkfifo makes a FIFO.
func (v *Volume) Mkfifo(path string) { v.Mknod(path, fs.ModeNamedPipe) }

// Mknod makes a FIFO, socket or device, as the type bits say.
func (v *Volume) Mknod(path string, kind fs.FileMode) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.plant(path, kind.Type()|0o644)
}

// Link gives a file a second name.
func (v *Volume) Link(path, newPath string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.must(path)
	d, name := v.split(newPath)
	if n.mode.IsDir() || d.names[name] != 0 {
		panic(fmt.Sprintf("modelfs: cannot link %q to %q", path, newPath))
	}
	v.syncNames([]*record{v.record("plant "+newPath, change{dir: d.ino, name: name, after: n.ino})})
}

// Rename does what rename(2) does, replacing included.
func (v *Volume) Rename(path, newPath string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.must(path)
	from, name := v.split(path)
	to, toName := v.split(newPath)
	if slices.Contains(v.above(to.ino), n) {
		panic(fmt.Sprintf("modelfs: cannot move %q below itself", path))
	}
	r, err := v.rename("plant "+newPath, from, name, n, to, toName)
	if err != nil {
		panic(fmt.Sprintf("modelfs: renaming %q to %q: %v", path, newPath, err))
	}
	if r != nil {
		v.syncNames([]*record{r})
	}
}

// Remove removes a name and all that is below it.
func (v *Volume) Remove(path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.must(path)
	v.removeAll(path)
}

func (v *Volume) removeAll(path string) {
	d, name := v.split(path)
	n := v.nodes[d.names[name]]
	for below := range maps.Clone(n.names) {
		v.removeAll(path + "/" + below)
	}
	v.syncNames([]*record{v.record("plant removal of "+path, change{dir: d.ino, name: name, before: n.ino})})
}

// Chmod sets the permission bits and, for a directory, the setgid bit.
func (v *Volume) Chmod(path string, mode fs.FileMode) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.must(path)
	n.mode = n.mode.Type() | mode&(fs.ModePerm|fs.ModeSetgid)
	n.ctime = v.now()
}

// Chown sets the owner and the group.
func (v *Volume) Chown(path string, uid, gid uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.must(path)
	n.uid, n.gid, n.ctime = uid, gid, v.now()
	if n.onDisk != nil {
		n.onDisk.gid = gid
	}
}

// ReadFile returns what reading a file gives.
func (v *Volume) ReadFile(path string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.find(path)
	switch {
	case err != nil:
		return nil, err
	case !n.mode.IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: durable.ErrNotRegular}
	}
	return append(slices.Clone(n.data), make([]byte, n.hole)...), nil
}

// Stat describes a name.
func (v *Volume) Stat(path string) (durable.Info, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.find(path)
	if err != nil {
		return durable.Info{}, err
	}
	return n.info(), nil
}

// Exists reports whether a name is there.
func (v *Volume) Exists(path string) bool {
	_, err := v.Stat(path)
	return err == nil
}

// List returns the names in a directory, sorted; none where there is no such
// directory.
func (v *Volume) List(path string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.find(path)
	if err != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(n.names))
}

// Walk calls f for everything below the top, each directory before what is in it,
// names sorted, as it is when Walk begins.
func (v *Volume) Walk(f func(path string, info durable.Info)) {
	type named struct {
		path string
		info durable.Info
	}
	var all []named
	v.mu.Lock()
	v.walk(v.nodes[v.root], "", func(path string, n *node) { all = append(all, named{path, n.info()}) })
	v.mu.Unlock()
	for _, n := range all {
		f(n.path, n.info)
	}
}

func (v *Volume) walk(d *node, above string, f func(path string, n *node)) {
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		n := v.nodes[d.names[name]]
		f(above+name, n)
		v.walk(n, above+name+"/", f)
	}
}

// Tree shows the volume as text, one line for each name, sorted. Two volumes with
// the same names, types, modes, groups and contents have the same Tree.
func (v *Volume) Tree() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var b strings.Builder
	v.walk(v.nodes[v.root], "", func(path string, n *node) {
		fmt.Fprintf(&b, "%v %d:%d %q%s\n", n.mode, n.uid, n.gid, path, n.describe())
	})
	return b.String()
}

// shown is how many bytes of a file Tree shows.
const shown = 60

func (n *node) describe() string {
	switch {
	case n.mode.Type() == fs.ModeSymlink:
		return fmt.Sprintf(" -> %q", n.target)
	case !n.mode.IsRegular():
		return ""
	case n.size() > shown:
		return fmt.Sprintf(" %d bytes, crc %08x, %q…", n.size(), crc32.ChecksumIEEE(n.data), n.data[:min(shown, len(n.data))])
	}
	return fmt.Sprintf(" %q", n.data)
}
