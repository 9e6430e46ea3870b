package modelfs

import (
	"cmp"
	"slices"
)

// record is one change of names, in force wholly or not at all.
type record struct {
	id      uint64
	what    string // for messages
	changes []change
	needs   []uint64 // earlier records that were pending when it was made
	synced  bool     // in force after a crash if all that it needs is
}

// change says that a name, which stood for one inode, stands for another; 0 is
// no inode.
type change struct {
	dir           uint64
	name          string
	before, after uint64
}

type nameKey struct {
	dir  uint64
	name string
}

// record makes the changes and notes them as one pending record. Where there are
// two, the second gives a name to the inode that the first took one from.
func (v *Volume) record(what string, changes ...change) *record {
	v.lastRecord++
	r := &record{id: v.lastRecord, what: what, changes: changes, needs: v.needs(changes)}
	now := v.now()
	for _, c := range changes {
		v.set(c.dir, c.name, c.after)
		d := v.nodes[c.dir]
		d.mtime, d.ctime = now, now
		v.touched[nameKey{c.dir, c.name}] = r.id
		for _, n := range v.concerned(c) {
			n.ctime, n.last = now, r.id
		}
	}
	v.pending = append(v.pending, r)
	return r
}

// set lets a name stand for an inode.
func (v *Volume) set(dirIno uint64, name string, ino uint64) {
	d := v.nodes[dirIno]
	if before := v.nodes[d.names[name]]; before != nil {
		before.nlink--
		if before.nlink == 0 {
			v.used -= int64(len(before.data))
		}
	}
	if ino == 0 {
		delete(d.names, name)
		return
	}
	d.names[name] = ino
	n := v.nodes[ino]
	n.nlink++
	if n.nlink == 1 {
		v.used += int64(len(n.data))
	}
	if n.mode.IsDir() {
		n.parent = dirIno
	}
}

// concerned lists the inodes that a change takes a name from or gives one to, as
// far as they still exist.
func (v *Volume) concerned(c change) []*node {
	var list []*node
	for _, ino := range []uint64{c.before, c.after} {
		if n := v.nodes[ino]; n != nil {
			list = append(list, n)
		}
	}
	return list
}

// needs lists the pending records without which the changes would make no sense;
// the package comment gives the rules.
func (v *Volume) needs(changes []change) []uint64 {
	var ids []uint64
	need := func(id uint64) {
		if id != 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, c := range changes {
		need(v.touched[nameKey{c.dir, c.name}])
		need(v.nodes[c.dir].made)
		for _, n := range v.concerned(c) {
			need(n.last)
		}
	}
	last := changes[len(changes)-1]
	if gone := v.nodes[last.before]; gone != nil && gone.mode.IsDir() {
		for _, r := range v.pending {
			if r.concerns(gone.ino) {
				need(r.id)
			}
		}
	}
	if len(changes) == 2 && v.nodes[last.after].mode.IsDir() {
		for _, d := range v.above(last.dir) {
			need(d.last)
		}
	}
	return ids
}

func (r *record) concerns(dirIno uint64) bool {
	return slices.ContainsFunc(r.changes, func(c change) bool { return c.dir == dirIno })
}

// above lists a directory and those above it, as far as they still exist.
func (v *Volume) above(dirIno uint64) []*node {
	var list []*node
	for d := v.nodes[dirIno]; d != nil; d = v.nodes[d.parent] {
		list = append(list, d)
	}
	return list
}

// isPending finds a record in a list that is sorted by id.
func isPending(list []*record, id uint64) (*record, bool) {
	i, found := slices.BinarySearchFunc(list, id, func(r *record, id uint64) int {
		return cmp.Compare(r.id, id)
	})
	if !found {
		return nil, false
	}
	return list[i], true
}

// syncDir makes the names in a directory durable, and everything they need,
// except the names of the directory itself and of those above it.
func (v *Volume) syncDir(d *node) {
	var own []uint64
	for _, up := range v.above(d.ino) {
		own = append(own, up.made)
	}
	var mine []*record
	for _, r := range v.pending {
		if r.concerns(d.ino) {
			mine = append(mine, r)
		}
	}
	v.syncNames(mine, own...)
}

// syncNames marks records as synced together with everything they need, but looks
// no further at the records in except. Then those that need nothing more leave the
// pending ones.
func (v *Volume) syncNames(records []*record, except ...uint64) {
	seen := map[uint64]bool{}
	for _, id := range except {
		seen[id] = true
	}
	for todo := slices.Clone(records); len(todo) > 0; {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[r.id] {
			continue
		}
		seen[r.id] = true
		r.synced = true
		for _, id := range r.needs {
			if need, ok := isPending(v.pending, id); ok {
				todo = append(todo, need)
			}
		}
	}

	var rest, done []*record
	for _, r := range v.pending {
		if !r.synced || slices.ContainsFunc(r.needs, func(id uint64) bool {
			_, waits := isPending(rest, id)
			return waits
		}) {
			rest = append(rest, r)
		} else {
			done = append(done, r)
		}
	}
	v.pending = rest
	for _, r := range done {
		v.settle(r)
	}
}

// settle forgets a record that nothing can undo any more, and with it the inodes
// that have lost their last name.
func (v *Volume) settle(r *record) {
	for _, c := range r.changes {
		if key := (nameKey{c.dir, c.name}); v.touched[key] == r.id {
			delete(v.touched, key)
		}
		for _, n := range v.concerned(c) {
			if n.made == r.id {
				n.made = 0
			}
			if n.last == r.id {
				n.last = 0
			}
			v.forget(n)
		}
	}
}

// forget drops an inode that has no name and will not get one back.
func (v *Volume) forget(n *node) {
	if n.nlink == 0 && n.last == 0 {
		delete(v.nodes, n.ino)
		delete(v.dirty, n.ino)
	}
}
