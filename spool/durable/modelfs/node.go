package modelfs

import (
	"io"
	"io/fs"
	"maps"

	"signdrop/spool/durable"
)

// node is an inode. Bytes that are once in data are never changed, only appended
// to or copied, so that what is on disk, the pending writes and clones can share
// them.
type node struct {
	ino          uint64
	mode         fs.FileMode
	uid, gid     uint32
	nlink        int
	mtime, ctime int64

	names  map[string]uint64 // of a directory
	parent uint64            // of a directory: the one above
	target string            // of a symbolic link

	data []byte
	hole int64 // zeros that follow data, in a file planted by Sparse

	onDisk *stored // what the disk has, where that is not what reading gives
	writes []write // unsynced, in order
	lossy  bool    // a sync failed: onDisk and writes do not add up to data

	made uint64 // the pending record that made this directory, or 0
	last uint64 // the last pending record about this inode, or 0
}

// stored is the part of an inode that becomes durable with its data.
type stored struct {
	data         []byte
	hole         int64
	gid          uint32
	mtime, ctime int64
}

type write struct {
	truncate bool // the file is cut to nothing first
	off      int64
	data     []byte
}

func (v *Volume) newNode(mode fs.FileMode, in *node) *node {
	v.lastIno++
	now := v.now()
	n := &node{ino: v.lastIno, mode: mode, mtime: now, ctime: now}
	if mode.IsDir() {
		n.names = map[string]uint64{}
	}
	if in != nil && in.mode&fs.ModeSetgid != 0 {
		n.gid = in.gid
		if mode.IsDir() {
			n.mode |= fs.ModeSetgid
		}
	}
	v.nodes[n.ino] = n
	return n
}

func (n *node) clone() *node {
	c := *n
	c.names = maps.Clone(n.names)
	c.data = clip(n.data)
	c.writes = n.writes[:len(n.writes):len(n.writes)]
	if n.onDisk != nil {
		copied := *n.onDisk
		c.onDisk = &copied
	}
	return &c
}

// clip keeps an append to the result from writing into the array of b.
func clip(b []byte) []byte { return b[:len(b):len(b)] }

func (n *node) size() int64 { return int64(len(n.data)) + n.hole }

func (n *node) info() durable.Info {
	info := durable.Info{
		Mode: n.mode, Size: n.size(), Ino: n.ino, Nlink: uint64(n.nlink),
		MTime: n.mtime, CTime: n.ctime, UID: n.uid, GID: n.gid,
	}
	switch n.mode.Type() {
	case fs.ModeDir:
		info.Size = 4096
	case fs.ModeSymlink:
		info.Size = int64(len(n.target))
	}
	return info
}

func (n *node) readAt(p []byte, off int64) (int, error) {
	if off >= n.size() {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.size()-off)]
	copied := 0
	if off < int64(len(n.data)) {
		copied = copy(p, n.data[off:])
	}
	clear(p[copied:])
	return len(p), nil
}

// unsynced notes what the disk has before n is changed.
func (v *Volume) unsynced(n *node) {
	if n.onDisk != nil {
		return
	}
	n.onDisk = &stored{clip(n.data), n.hole, n.gid, n.mtime, n.ctime}
	if v.nodes[n.ino] == n { // not one that was removed while open
		v.dirty[n.ino] = n
	}
}

// write puts p at off and returns how much fitted.
func (v *Volume) write(n *node, p []byte, off int64) int {
	size := int64(len(n.data))
	if end := off + int64(len(p)); end > size {
		over := end - size - v.free()
		p = p[:int64(len(p))-min(max(0, over), int64(len(p)))]
	}
	if len(p) == 0 {
		return 0
	}
	v.unsynced(n)
	n.data = place(n.data, p, off)
	end := off + int64(len(p))
	n.writes = append(n.writes, write{off: off, data: n.data[off:end:end]})
	if n.nlink > 0 {
		v.used += int64(len(n.data)) - size
	}
	n.mtime = v.now()
	n.ctime = n.mtime
	return len(p)
}

// truncate takes all bytes from the file.
func (v *Volume) truncate(n *node) {
	v.unsynced(n)
	if n.nlink > 0 {
		v.used -= int64(len(n.data))
	}
	n.data, n.hole = nil, 0
	n.writes = append(n.writes, write{truncate: true})
	n.mtime = v.now()
	n.ctime = n.mtime
}

// place returns data with p at off, and zeros between where there is a gap. What
// it overwrites it copies first.
func place(data, p []byte, off int64) []byte {
	if gap := off - int64(len(data)); gap >= 0 {
		return append(append(data, make([]byte, gap)...), p...)
	}
	over := min(int64(len(p)), int64(len(data))-off)
	fresh := append([]byte(nil), data...)
	copy(fresh[off:], p[:over])
	return append(fresh, p[over:]...)
}

// flush makes the data of n durable, as far as no failed sync lost it.
func (v *Volume) flush(n *node) {
	if !n.lossy {
		n.onDisk, n.writes = nil, nil
		delete(v.dirty, n.ino)
		return
	}
	n.onDisk = &stored{overlay(n.onDisk.data, n.writes), n.hole, n.gid, n.mtime, n.ctime}
	n.writes = nil
}

// loseWrites is what a failed sync does to the data.
func (n *node) loseWrites() {
	if len(n.writes) > 0 {
		n.lossy, n.writes = true, nil
	}
}

// overlay returns what data becomes by the writes.
func overlay(data []byte, writes []write) []byte {
	data = clip(data)
	for _, w := range writes {
		if w.truncate {
			data = nil
		}
		data = place(data, w.data, w.off)
	}
	return data
}
