package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"signdrop/spool/durable"
)

// access is what a directory's mode and owner must be.
type access struct {
	mode   fs.FileMode // when it is made
	never  fs.FileMode // bits that it must not have
	always fs.FileMode // bits that it must have
	group  int         // whose group it must have, -1 for any
	ours   bool        // belongs to the appliance's user; otherwise to the top's owner
}

var (
	// private is for the appliance alone.
	private = access{mode: 0o700, never: 0o077, group: -1, ours: true}
	// door is one of a partner's directories while it has no group of its own; one
	// that was given to a group by hand is as good.
	door = access{mode: 0o700, never: 0o002, group: -1, ours: true}
	// top is the volume's own directory: users below may need to cross it.
	top = access{never: 0o022, group: -1}
	// crossed is walked through by partners on their way to their own directory.
	// It can be listed, since the appliance's user, who opens it, may not own it.
	crossed = access{mode: 0o755, never: 0o022, group: -1}
	// chroot is what sshd wants of a ChrootDirectory and of all above it: owned
	// by root and not writable by anybody else.
	chroot = access{mode: 0o755, never: 0o022, group: -1}
)

// shared is for the appliance and a partner's group. With the set-group-id bit
// the partner's files belong to the group whoever's primary group it is.
func shared(group int) access {
	return access{
		mode: fs.ModeSetgid | 0o770, never: 0o002, always: fs.ModeSetgid | 0o770, group: group, ours: true,
	}
}

// dir opens the directory at path, the last element of which is its name in
// parent. Where it is missing it is made, and filled by fill, before it gets its
// name.
//
// Crash: the directory is there whole, or a ".NAME.new" is, which is used next time.
func (m *maker) dir(parent durable.Dir, p string, want access, fill func(d durable.Dir, path string) error) (durable.Dir, error) {
	name := path.Base(p)
	d, err := parent.Sub(name)
	if err == nil {
		if err := m.checkDir(d, p, want); err != nil {
			d.Close()
			return nil, err
		}
		return d, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tmp := "." + name + ".new"
	if err := m.build(parent, path.Join(path.Dir(p), tmp), want, fill); err != nil {
		return nil, fmt.Errorf("making %s: %w", p, err)
	}
	if err := parent.Move(tmp, parent, name); err != nil {
		return nil, fmt.Errorf("making %s: %w", p, err)
	}
	if err := parent.Sync(); err != nil {
		return nil, fmt.Errorf("making %s: %w", p, err)
	}
	m.say(p, Made, "")
	return parent.Sub(name)
}

// build makes the directory under its temporary name and what belongs into it, all
// durable but for that name.
func (m *maker) build(parent durable.Dir, tmp string, want access, fill func(d durable.Dir, path string) error) error {
	name := path.Base(tmp)
	if err := parent.Mkdir(name, want.mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if fill != nil {
		d, err := parent.Sub(name)
		if err != nil {
			return err
		}
		defer d.Close()
		// What a crash left behind may be half of what was wanted then.
		if err := durable.Walk(d, func(e durable.Entry) error { return d.Remove(e.Name) }); err != nil {
			return err
		}
		if err := fill(d, tmp); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return err
		}
	}
	uid := -1
	if want.ours {
		uid = m.user
	}
	return m.give(tmp, uid, want.group, want.mode)
}

// file writes a new file into a directory that is being built.
func (m *maker) file(d durable.Dir, dir, name string, perm fs.FileMode, data []byte) error {
	if err := durable.WriteSynced(d, name, perm, data); err != nil {
		return err
	}
	return m.give(path.Join(dir, name), m.user, -1, perm)
}

// addLines puts a list with new lines in the place of the old one. Of the file
// only its content changes.
//
// Crash: the old list is there or the new one, whole.
func (m *maker) addLines(d durable.Dir, dir string, l *list) error {
	if l.new || l.added == 0 {
		return nil
	}
	r := replacer{d, m.access, dir}
	if err := r.put(signersFile, l.text); err != nil {
		return err
	}
	m.say(path.Join(dir, signersFile), Added, count(l.added, "key"))
	return nil
}

func (m *maker) give(p string, uid, gid int, mode fs.FileMode) error {
	if m.access == nil {
		return nil
	}
	return m.access(p, uid, gid, mode)
}

// checkDir reports on a directory that was there before.
func (m *maker) checkDir(d durable.Dir, p string, want access) error {
	info, err := d.StatDir()
	if err != nil {
		return err
	}
	mode := info.Mode & (fs.ModePerm | fs.ModeSetgid)
	fit := mode&^want.never | want.always
	switch {
	case mode != fit:
		m.say(p, Wrong, fmt.Sprintf("its mode is %s: chmod %s", octal(mode), octal(fit)))
	case want.group >= 0 && int(info.GID) != want.group && m.access != nil:
		m.say(p, Wrong, fmt.Sprintf("its group is %d: chgrp %d, then chmod %s", info.GID, want.group, octal(fit)))
	case want.ours && m.user >= 0 && int(info.UID) != m.user:
		m.say(p, Wrong, fmt.Sprintf("its owner is %d: chown %d", info.UID, m.user))
	default:
		m.say(p, There, "")
	}
	return nil
}

// checkFiles reports on files that must be there and that nobody else may write.
func (m *maker) checkFiles(d durable.Dir, dir string, names ...string) error {
	for _, name := range names {
		info, err := d.Stat(name)
		p := path.Join(dir, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			m.say(p, Wrong, "it is missing: restore it from the backup")
		case err != nil:
			return err
		case info.Mode&0o022 != 0:
			m.say(p, Wrong, fmt.Sprintf("others may write it: chmod %s, and look who has written it", octal(info.Mode&^0o022)))
		}
	}
	return nil
}

// octal writes a mode as chmod takes it.
func octal(mode fs.FileMode) string {
	n := uint32(mode.Perm())
	if mode&fs.ModeSetgid != 0 {
		n |= 0o2000
	}
	return fmt.Sprintf("%04o", n)
}

func (m *maker) say(p string, s State, note string) {
	m.report.Items = append(m.report.Items, Item{p, s, note})
}

// note adds to what was said last.
func (m *maker) note(text string) {
	it := &m.report.Items[len(m.report.Items)-1]
	if it.State == Wrong {
		return // the remedy is what matters
	}
	if it.Note != "" {
		text = it.Note + ", now " + text
	}
	it.Note = text
}

// missing reports that a directory does not exist.
func missing(root durable.Dir, names ...string) (bool, error) {
	d, err := durable.SubPath(root, names...)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, d.Close()
}
