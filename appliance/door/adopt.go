package door

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// settling is for how long after a directory was given to the door the files in it
// are looked after too: the appliance may still have published one for the old
// group.
const settling = 15 * time.Second

// directories sees to it that the door's user can work in every company's three
// directories, and returns the groups that it needs beside its own. A directory
// that is its owner's alone is given to the door's group; one that a group may
// write to already stays that group's; any other is left as it is: those who may
// read it would lose it.
func (k *Keeper) directories(now time.Time) []int {
	if k.User == nil || k.User.UID == os.Getuid() {
		return nil
	}
	names, err := companies(k.root)
	if err != nil {
		k.complain("", "db/companies", "SFTP door: reading the companies", err)
		return k.groups
	}
	var groups []int
	for _, name := range names {
		for _, what := range boxes {
			g, err := k.directory(name, what, now)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the session says so to who asks
			}
			k.complain(name, what, "SFTP door: a directory cannot be given to the door", err)
			if err != nil {
				continue
			}
			if g != k.User.GID && !slices.Contains(groups, g) {
				groups = append(groups, g)
			}
		}
	}
	slices.Sort(groups)
	return groups
}

// directory gives one directory to the door if need be and returns its group.
func (k *Keeper) directory(company, what string, now time.Time) (gid int, err error) {
	d, err := durable.SubPath(k.root, "spool", company, what)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	info, err := d.StatDir()
	if err != nil {
		return 0, err
	}
	path := fmt.Sprintf("%s/spool/%s/%s", k.Data, company, what)
	if perm := info.Mode.Perm(); int(info.GID) != k.User.GID || perm&0o070 != 0o070 {
		if perm&0o020 != 0 && info.GID != 0 {
			return int(info.GID), nil
		}
		if perm&0o077 != 0 && int(info.GID) != k.User.GID {
			return 0, fmt.Errorf("group %d or others may use it already (mode %04o): chmod 0700 %s to give it to the door, or chmod 2770 to let that group and the door work in it", info.GID, perm, path)
		}
		if err := give(path, info, k.User.GID); err != nil {
			return 0, err
		}
		k.adopted[path] = now
		k.Log.Info().Str("company", company).Str("directory", what).Int("group", k.User.GID).Msg("SFTP door: directory given to the door's group")
	}
	since, known := k.adopted[path]
	if known && now.Sub(since) > settling || what == "inbox" {
		return k.User.GID, nil
	}
	if !known {
		k.adopted[path] = now
	}
	return k.User.GID, giveFiles(d, k.User.GID)
}

// give is chgrp and chmod 2770, of the directory that info describes and no other.
func give(path string, info durable.Info, gid int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Ino != info.Ino {
		return errors.New("it was exchanged at this moment")
	}
	if err := unix.Fchown(fd, -1, gid); err != nil {
		return err
	}
	return errors.Join(unix.Fchmod(fd, 0o2770), unix.Fsync(fd))
}

// giveFiles gives the files that lie in d already to the group gid.
func giveFiles(d durable.Dir, gid int) error {
	return durable.Walk(d, func(e durable.Entry) error {
		info, err := d.Stat(e.Name)
		if err != nil || !info.Mode.IsRegular() || info.Nlink > 1 || int(info.GID) == gid {
			return nil
		}
		f, err := d.Open(e.Name)
		if err != nil {
			return nil // the partner removed it
		}
		defer f.Close()
		return f.Chown(uint32(gid))
	})
}
