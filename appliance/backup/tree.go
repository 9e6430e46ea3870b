package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"signdrop/spool/durable"
)

// left are what is in no backup: locks, and what is under way. So are names that
// begin with a dot.
var left = map[string]bool{
	"db/admins/approved":       true,
	"db/appliance/lock":        true,
	"db/appliance/door.lock":   true,
	"db/appliance/door.json":   true,
	"db/appliance/new-journal": true,
}

// names lists a directory in descending order, without what is in no backup. It holds
// the names of one directory in memory.
func names(d durable.Dir, at string) ([]durable.Entry, error) {
	var list []durable.Entry
	err := durable.Walk(d, func(e durable.Entry) error {
		if e.Name[0] != '.' && !left[at+"/"+e.Name] {
			list = append(list, e)
		}
		return nil
	})
	slices.SortFunc(list, func(a, b durable.Entry) int {
		if a.Name > b.Name {
			return -1
		}
		return 1
	})
	return list, err
}

// walk calls do for each file below d, which lies at the path at, in the order of a
// manifest. What goes away meanwhile is passed over; what is neither file nor
// directory is an error.
func walk(d durable.Dir, at string, do func(d durable.Dir, name, at string) error) error {
	list, err := names(d, at)
	if err != nil {
		return fmt.Errorf("listing %s: %w", at, err)
	}
	for _, e := range list {
		p := path.Join(at, e.Name)
		kind := e.Type
		if kind == fs.ModeIrregular {
			info, err := d.Stat(e.Name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("looking at %s: %w", p, err)
			}
			kind = info.Mode.Type()
		}
		switch {
		case kind.IsDir():
			sub, err := d.Sub(e.Name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("opening %s: %w", p, err)
			}
			err = walk(sub, p, do)
			sub.Close()
			if err != nil {
				return err
			}
		case kind.IsRegular():
			if err := do(d, e.Name, p); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a file nor a directory: remove it", p)
		}
	}
	return nil
}

// walkParts calls do for each file of a volume that is in a backup.
func walkParts(root durable.Dir, do func(d durable.Dir, name, at string) error) error {
	for _, part := range parts {
		d, err := root.Sub(part)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("opening %s: %w", part, err)
		}
		err = walk(d, part, do)
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes what lies in a directory, whatever it is.
func removeAll(d durable.Dir) error {
	return durable.Walk(d, func(e durable.Entry) error { return remove(d, e.Name) })
}

// remove removes a name and what is below it. It is no error if there is none.
func remove(d durable.Dir, name string) error {
	sub, err := d.Sub(name)
	if err == nil {
		err = removeAll(sub)
		sub.Close()
		if err == nil {
			err = d.RemoveDir(name)
		}
	} else if errors.Is(err, durable.ErrNotRegular) {
		err = d.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
