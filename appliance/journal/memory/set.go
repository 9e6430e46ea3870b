package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"signdrop/spool/durable"
)

// openAll opens the segments that cover the journal from its beginning without a
// gap, as far as the journal agrees, and removes every other file of ours:
//
//	state of the directory                       came from
//	1  segments without gap or overlap           the normal state; also none at all
//	2  … and a segment that others lie within    crash after a merge, before the
//	                                             merged ones were removed
//	3  … and NUMBER.new                          crash while a segment was written
//	4  anything else of ours                     damage, or another journal's index:
//	                                             kept up to the first gap
//
// Files with other names are left alone.
func openAll(dir durable.Dir, valid func(Mark) (bool, error), report func(error)) ([]*segment, error) {
	var names, remove []string
	err := durable.Walk(dir, func(e durable.Entry) error {
		switch {
		case isSegment(e.Name):
			names = append(names, e.Name)
		case strings.HasSuffix(e.Name, newSuffix):
			remove = append(remove, e.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the index directory: %w", err)
	}
	// By where they begin, and of those that begin together the longest first.
	slices.SortFunc(names, func(a, b string) int {
		if c := strings.Compare(a[:16], b[:16]); c != 0 {
			return c
		}
		return strings.Compare(b, a)
	})
	var segs []*segment
	var end Mark
	for _, name := range names {
		s, err := openSegment(dir, name)
		if err == nil && s.from == end && s.to.At > end.At {
			segs, end = append(segs, s), s.to
			continue
		}
		if err == nil {
			s.close()
			if s.to.At > end.At {
				err = fmt.Errorf("index file %s does not follow those before it", name)
			}
		}
		if err != nil {
			report(fmt.Errorf("the index is rebuilt in part: %w", err))
		}
		remove = append(remove, name)
	}
	segs, dropped, err := dropInvalid(segs, valid)
	if err != nil {
		return nil, err
	}
	if len(dropped) > 0 {
		report(fmt.Errorf("the index is rebuilt in part: index file %s does not belong to this journal", dropped[0]))
	}
	removeAll(dir, append(remove, dropped...), report)
	return segs, nil
}

// removeAll removes files that the index does not need. One that stays does no
// harm: it is passed over, or replaced when its place is needed.
func removeAll(dir durable.Dir, names []string, report func(error)) {
	if len(names) == 0 {
		return
	}
	// The names that take the place of these may not be durable yet.
	err := dir.Sync()
	for _, name := range names {
		if err == nil {
			err = dir.Remove(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		report(fmt.Errorf("removing index files that are not needed: %w", err))
	}
}

// dropInvalid closes the segments behind the last one whose end the journal
// confirms. Since the hash is that of a chain, all before that one is confirmed too.
func dropInvalid(segs []*segment, valid func(Mark) (bool, error)) (kept []*segment, dropped []string, err error) {
	for n := len(segs); n > 0; n-- {
		s := segs[n-1]
		ok, err := valid(s.to)
		if err != nil {
			closeAll(segs[:n])
			return nil, nil, err
		}
		if ok {
			return segs[:n], dropped, nil
		}
		s.close()
		dropped = append(dropped, s.name)
	}
	return nil, dropped, nil
}

func closeAll(segs []*segment) {
	for _, s := range segs {
		s.close()
	}
}
