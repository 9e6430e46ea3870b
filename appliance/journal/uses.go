package journal

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"signdrop/appliance/journal/memory"
	"signdrop/spool/durable"
)

// maxCounts is for how many wallets the counts stay in memory from group to group:
// about 2 MB. Those of others come from the journal again.
const maxCounts = 1 << 14

// wallet is a wallet of a company. Those of two companies may have the same id.
type wallet struct{ company, id string }

// count is how often a wallet was used, the group that is not synced yet included.
type count struct {
	wallet
	uses    uint64
	changed bool   // by that group
	at      uint64 // place of its newest line, if changed
}

// counts has every wallet of the group that is not synced yet, and others. The
// committer owns it.
type counts struct {
	of      map[wallet]*count
	changed []*count
}

// number sets the event's Uses. Its line is going to stand at the place at.
func (j *Journal) number(e *Event, at uint64) error {
	e.Uses = 0
	if e.Signature == "" {
		return nil
	}
	c := j.counts.of[wallet{e.Company, e.Wallet}]
	if c == nil {
		// The group has no line of this wallet yet: what counts is all that there is.
		uses, _, err := j.Uses(e.Company, e.Wallet)
		if err != nil {
			return fmt.Errorf("counting the signatures of wallet %q: %w", e.Wallet, err)
		}
		// Copies, since the event's texts may be parts of a large file.
		c = &count{wallet: wallet{strings.Clone(e.Company), strings.Clone(e.Wallet)}, uses: uses}
		j.counts.of[c.wallet] = c
	}
	if !c.changed {
		c.changed = true
		j.counts.changed = append(j.counts.changed, c)
	}
	c.uses++
	c.at = at
	e.Uses = c.uses
	return nil
}

// appendEntries appends an index entry for each wallet that the group has used: for
// its newest line, as that is the only one that is looked for.
func (c *counts) appendEntries(es []memory.Entry) []memory.Entry {
	for _, n := range c.changed {
		es = append(es, memory.Entry{Key: walletKey(n.company, n.id), At: n.at})
	}
	return es
}

// keep says that the group counts.
func (c *counts) keep() {
	if len(c.of) > maxCounts {
		c.forget()
		return
	}
	for _, n := range c.changed {
		n.changed = false
	}
	clear(c.changed)
	c.changed = c.changed[:0]
}

// forget says that the group does not count, or that there are too many: all come
// from the journal again.
func (c *counts) forget() { *c = counts{of: map[wallet]*count{}} }

// Uses returns how many signatures of the company's wallet are on record, and the time
// of the newest; 0 and the zero time if there is none. The journal's line itself is
// read and compared; an error that is ErrIndex means that the appliance must stop.
func (j *Journal) Uses(company, wallet string) (uint64, time.Time, error) {
	at, found, err := j.index.Lookup(walletKey(company, wallet))
	if err != nil || !found {
		return 0, time.Time{}, err
	}
	e, err := j.at(at)
	if err == nil && (e.Signature == "" || e.Company != company || e.Wallet != wallet) {
		err = errors.New("the line is not the signature that was looked for")
	}
	if err != nil {
		return 0, time.Time{}, j.mismatch(at, err)
	}
	return e.Uses, e.Time, nil
}

// walkAll is walk from the first line on, and checks that the signatures of each
// wallet are counted without a gap. Memory: about 50 bytes for each wallet.
func (s *survey) walkAll(dir durable.Dir, do func(e *Event, off int64, line int, t tip) error) error {
	uses := map[memory.Key]uint64{}
	return s.walk(dir, tip{}, func(e *Event, off int64, line int, t tip) error {
		if e.Signature != "" {
			k := walletKey(e.Company, e.Wallet)
			if e.Uses != uses[k]+1 {
				return fault(t.file, line, off, fmt.Errorf("uses is %d after %d of this wallet", e.Uses, uses[k]))
			}
			uses[k] = e.Uses
		}
		return do(e, off, line, t)
	})
}
