// Package spool moves files: from a partner's inbox into the appliance's own
// work directory, and from there, once they are answered, into the archive or
// back to the partner as refused. It never looks into a file, but for a Peek at one
// that is going to be refused.
//
// # States
//
// The state of a request is the directory that holds it, and nothing else:
//
//	spool/<company>/inbox/NAME        waiting: may be incomplete, belongs to the partner
//	work/<company>/NAME               claimed: belongs to the appliance, not yet answered for good
//	archive/<company>/<day>/…-NAME    answered
//	spool/<company>/rejected/NAME     refused, beside NAME's reason
//	work/<company>/.forget-…          refused, being erased because it holds a secret
//
// A request's signatures, NAME.sig and where Config.Several allows them
// NAME.<label>.sig, go where it goes, after it.
//
// and the state of an answer likewise:
//
//	work/.made/<number>               made, not recorded: of no worth
//	spool/<company>/outbox/…          published
//
// An answer may have further files, such as NAME-signed.psbt beside NAME.result.json,
// which names them with their digests. They are laid first and the answer is
// published when they are durable: what lies there without it does not count, and
// what it names is there.
//
// outbox/NAME.status.json is no state: it is a courtesy that may be lost.
//
// A name moves from state to state by a rename that never replaces, so it is in
// one state only, and after a crash the listing of work/ says what is left to do:
// Recover returns it, to be treated as everything else. work/.made is emptied.
//
// # Order
//
// The caller brings the order that makes this safe, for a group of items at once:
//
//	Claim → Make → record → sync → Publish → sync → Retire
//	                          Lay → sync ↗            with further files
//
// Until the first sync nothing is visible. Publish makes answers visible; they
// are durable after the second sync, and only then may the request leave work/.
// A crash between any two steps repeats the steps from Make on, with the same
// bytes: Publish finds its own answer and is content.
package spool

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"signdrop/appliance/reason"
	"signdrop/spool/durable"
)

// Config is what a Spool needs to know.
type Config struct {
	// Still is how long a file that cannot be a request, or whose signature
	// does not verify, must have been unchanged before it is refused.
	// Default 60 s.
	Still time.Duration

	// SigWait is how long a request without its signature, or a signature
	// without its request, may wait. Default 15 min.
	SigWait time.Duration

	// Several says in which companies a request may have further signatures,
	// NAME.<label>.sig. Nil: in none. It is asked often, from several goroutines and
	// with locks held: it must not block, nor call the spool. Its answer may change.
	Several func(company string) bool

	// Now is the clock that is compared with the files' change times.
	// Default time.Now.
	Now func() time.Time

	// Wake is called when Next has something to do again although nothing new
	// came. It must not block.
	Wake func()

	// Warn is told of trouble that the spool survives by itself. Never nil
	// after Open.
	Warn func(company, what string, err error)
}

// ErrTaken: the outbox holds another answer under this name.
var ErrTaken = errors.New("another answer lies in the outbox under this name")

// Spool is the set of all companies' directories. Its methods may be called from
// several goroutines, Next from one.
type Spool struct {
	cfg  Config
	vol  durable.FS
	root durable.Dir // the data directory
	work durable.Dir
	made durable.Dir // work/.made
	gid  uint32      // of new files in work/.made

	walking []*company // in the middle of a walk, oldest first; owned by Next

	mu        sync.Mutex
	partners  durable.Dir // spool/, nil before there is a company
	companies map[string]*company
	order     []*company      // all
	turns     []*company      // those that are walked through: all but the quiet ones, whose place is nil
	live      int             // how many are not nil
	turn      int             // whose walk Next continues
	round     int             // how often all inboxes were to be looked at
	passing   bool            // a pass is under way
	found     bool            // another must follow it: it has found something, or began too early
	ended     int             // companies whose walk has ended in this pass
	open      *list.List      // companies with handles, the one used last first
	replaced  map[string]bool // companies whose inbox is another one than before
	busy      map[string]bool // company/name of items that are out; true if the name was hinted at meanwhile
	hints     []hint
	hinted    map[hint]bool
	soon      map[hint]bool
	held      []*Item    // claimed, and Returned for soon
	waiting   []*Item    // claimed, and Returned for the next SetCompanies
	ready     []*Item    // held, and to be looked at again
	opened    []*company // not yet recovered
	failed    []*company // could not be recovered; tried again after SetCompanies
	number    uint64     // last name given out in work/.made
}

type hint struct{ company, name string }

// maxHints bounds the names that wait to be looked at at once. Names beyond it
// are found by the walk.
const maxHints = 8192

// Open prepares work/ and archive/ below root and empties work/.made, whose
// files no crash makes worth keeping.
func Open(vol durable.FS, root durable.Dir, cfg Config) (*Spool, error) {
	if cfg.Still <= 0 {
		cfg.Still = time.Minute
	}
	if cfg.SigWait <= 0 {
		cfg.SigWait = 15 * time.Minute
	}
	if cfg.Several == nil {
		cfg.Several = func(string) bool { return false }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string, string, error) {}
	}
	s := &Spool{
		cfg: cfg, vol: vol, root: root,
		open: list.New(), companies: map[string]*company{}, busy: map[string]bool{}, hinted: map[hint]bool{}, soon: map[hint]bool{},
	}
	archive, err := durable.SubMake(root, "archive", 0o700)
	if err != nil {
		return nil, fmt.Errorf("opening archive: %w", err)
	}
	archive.Close()
	if s.work, err = durable.SubMake(root, "work", 0o700); err != nil {
		return nil, fmt.Errorf("opening work: %w", err)
	}
	if err := s.openMade(); err != nil {
		s.work.Close()
		return nil, err
	}
	return s, nil
}

func (s *Spool) openMade() (err error) {
	if s.made, err = durable.SubMake(s.work, ".made", 0o700); err != nil {
		return fmt.Errorf("opening work/.made: %w", err)
	}
	err = durable.Walk(s.made, func(e durable.Entry) error { return s.made.Remove(e.Name) })
	if err == nil {
		var info durable.Info
		info, err = s.made.StatDir()
		s.gid = info.GID
	}
	if err != nil {
		s.made.Close()
		return fmt.Errorf("emptying work/.made: %w", err)
	}
	return nil
}

// Item is a file that the spool has found, with the bytes that it had then. What
// is signed is these bytes and no others: the file is never read again, unless
// Claim says that it has changed.
type Item struct {
	Company string
	Name    string // as in the inbox: any bytes but a slash
	Data    []byte
	Sig     []byte          // of NAME.sig, nil where there is none
	More    []Signature     // of NAME.<label>.sig, in order of label
	Refusal *reason.Refusal // what is wrong with the file itself, nil if nothing

	// Claimed: the item lies in work/.
	Claimed bool
	// Recovered: it was left there by a crash.
	Recovered bool
	// Due: the files have not changed for so long that what is wrong with them
	// is not going to mend itself.
	Due bool

	co      *company
	info    durable.Info // of the request, when it was read
	sigs    []sigFile    // its signatures, in order of label
	noFile  bool         // there is no request, only the signature
	key     string
	out     bool // not released
	product [][]byte
	further []*further
	refused bool
	forget  bool
	told    bool // Status was called for it
	hand    *handed
	made    string // name in work/.made, "" if none
	base    string // where a refused item goes in rejected/
}

// File is a further file of an answer.
type File struct {
	Ending string // one of its type's; see FurtherName
	Data   []byte
}

// further is a further file on its way.
type further struct {
	File
	made string // name in work/.made, "" if none
	laid bool   // moved to the outbox by this process
}

// Signature is a further signature of a request.
type Signature struct {
	Label string
	Data  []byte
}

// sigFile is a signature file as it was when it was looked at.
type sigFile struct {
	label string // "" for NAME.sig
	info  durable.Info
}

// SetCompanies tells the spool whose directories there are, and has Next look at all
// inboxes again. A company that it does not know yet must have its directories; they
// are opened when they are needed. One that is no longer named is let go.
func (s *Spool) SetCompanies(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if len(names) > 0 {
		if err := s.openPartners(); err != nil {
			errs = append(errs, err)
		}
	}
	want := make(map[string]bool, len(names))
	for _, n := range names {
		want[n] = true
		if s.companies[n] != nil || s.partners == nil {
			continue
		}
		c, err := s.openCompany(n)
		if err != nil {
			errs = append(errs, fmt.Errorf("opening the directories of company %s: %w", n, err))
			continue
		}
		s.companies[n] = c
		s.order = append(s.order, c)
		s.opened = append(s.opened, c)
	}
	s.opened = append(s.opened, s.failed...)
	s.failed = nil
	if len(want) < len(s.order) {
		s.dismiss(want)
	}
	s.enlistAll()
	s.ready = append(s.ready, s.waiting...)
	s.waiting = nil
	return errors.Join(errs...)
}

// openPartners opens spool/, anew each time: it may have been replaced.
func (s *Spool) openPartners() error {
	d, err := s.root.Sub("spool")
	if err != nil {
		return fmt.Errorf("opening the directories of the companies: %w", err)
	}
	if s.partners != nil {
		s.partners.Close()
	}
	s.partners = d
	return nil
}

// dismiss lets go of companies that are not wanted. Items of them may be out: their
// handles stay open until the last one is released.
func (s *Spool) dismiss(want map[string]bool) {
	away := func(c *company) bool { return !want[c.name] }
	for _, c := range s.order {
		if away(c) {
			delete(s.companies, c.name)
			c.gone, c.listed = true, false
			if c.pins == 0 {
				s.shut(c)
			}
		}
	}
	s.order = slices.DeleteFunc(s.order, away)
	s.compact()
	s.turns = slices.DeleteFunc(s.turns, away)
	s.live = len(s.turns)
	s.opened = slices.DeleteFunc(s.opened, away)
	s.turn, s.ended, s.found = 0, 0, false
}

// Hint says that something happened to a name of an inbox, so that Next looks
// there first.
func (s *Spool) Hint(company, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := hint{company, name}
	if len(s.hints) < maxHints && !s.hinted[h] {
		s.hints = append(s.hints, h)
		s.hinted[h] = true
	}
	if c := s.companies[company]; c != nil {
		s.enlistLocked(c)
	}
}

// portion is how many entries of one inbox are looked at before the next company
// has its turn.
const portion = 256

// maxTurns is how many companies have their turn while something that was found
// waits to be returned.
const maxTurns = 64

// Next returns items that are ready to be looked at, at most max and a few more,
// or none when every inbox has been walked through and nothing was found. Files
// that wait for their signature are passed over.
//
// An inbox in which a walk has found nothing at all is left alone until something is
// hinted at there or SetCompanies is called, and is not walked through then either
// if its times say that nothing has come.
func (s *Spool) Next(max int) ([]*Item, error) {
	s.mu.Lock()
	items := s.ready
	s.ready = nil
	s.mu.Unlock()
	s.endWalksOfGone()
	for turns := 0; ; turns++ {
		for len(items) < max {
			h, ok := s.nextHint()
			if !ok {
				break
			}
			c := s.company(h.company)
			if c == nil {
				continue
			}
			if it := s.look(c, h.name, nil); it != nil {
				items = append(items, it)
			}
		}
		if len(items) >= max || len(items) > 0 && turns >= maxTurns {
			return items, nil
		}
		c := s.nextTurn()
		if c == nil {
			return items, nil
		}
		part, end, quiet, err := c.next(s)
		if err != nil {
			// One partner's broken directory must not stop the others.
			s.cfg.Warn(c.name, "reading the inbox", err)
			end = true
		}
		before := len(items)
		tried := map[string]bool{}
		for _, e := range part {
			if it := s.look(c, e.Name, tried); it != nil {
				items = append(items, it)
			}
		}
		s.turnDone(c, end, quiet, len(items) > before)
		if len(items) > 0 && !end {
			return items, nil
		}
	}
}

func (s *Spool) nextHint() (hint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.hints) == 0 {
		return hint{}, false
	}
	h := s.hints[0]
	s.hints = s.hints[1:]
	delete(s.hinted, h)
	return h, true
}

func (s *Spool) company(name string) *company {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.companies[name]
}

// nextTurn is the company whose walk goes on, or nil when a whole pass over all
// companies has found nothing.
func (s *Spool) nextTurn() *company {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended >= s.live {
		s.compact()
		s.ended = 0
		again := s.found
		s.found = false
		if !again || s.live == 0 {
			s.passing = false
			return nil
		}
	}
	s.passing = true
	for {
		s.turn %= len(s.turns)
		if c := s.turns[s.turn]; c != nil {
			return c
		}
		s.turn++
	}
}

func (s *Spool) turnDone(c *company, end, quiet, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = s.found || found
	if s.turn >= len(s.turns) || s.turns[s.turn] != c {
		return // the list has changed meanwhile
	}
	switch {
	case end && quiet:
		s.turns[s.turn], c.listed = nil, false
		s.live--
		s.turn++
	case end:
		s.ended++
		s.turn++
		s.found = s.found || c.round < s.round
	case found:
		s.turn++ // fairness: the next portion is another company's
	}
}

// look decides what a name of an inbox is, and reads it if it is ready.
func (s *Spool) look(c *company, name string, tried map[string]bool) *Item {
	if Unfinished(name) {
		return nil
	}
	if err := s.hold(c); err != nil {
		s.cfg.Warn(c.name, "looking at a file in the inbox", err)
		return nil
	}
	defer s.letGo(c)
	if tried == nil {
		// Without a walk nobody has looked whether these are still the partner's
		// directories.
		c.mu.RLock()
		since := s.cfg.Now().Sub(c.looked)
		c.mu.RUnlock()
		if since < 0 || since >= again {
			if err := c.refresh(); err != nil {
				s.cfg.Warn(c.name, "looking at a file in the inbox", err)
				return nil
			}
		}
	}
	target := c.target(name)
	if tried != nil {
		if tried[target] {
			return nil
		}
		tried[target] = true
	}
	key := c.name + "/" + target
	s.mu.Lock()
	_, out := s.busy[key]
	if out && tried == nil {
		s.busy[key] = true
	}
	s.mu.Unlock()
	if out {
		return nil
	}
	it, soon, err := c.read(s, target)
	if err != nil {
		s.cfg.Warn(c.name, "looking at a file in the inbox", err)
		return nil
	}
	if soon {
		s.later(hint{c.name, name})
	}
	if it == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(it, key)
	return it
}

// send notes that the item is out, which keeps its company's handles. s.mu is held.
func (s *Spool) send(it *Item, key string) {
	it.key, it.out = key, true
	s.busy[key] = false
	s.pin(it.co)
}

// out reports whether the item with this key is out.
func (s *Spool) out(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, out := s.busy[key]
	return out
}

// Return gives back an item for a later look: after the next Retry if soon is set,
// otherwise when it changes or is due. One that is claimed stays so, and comes
// again after the next Retry or, unless soon is set, after the next SetCompanies.
func (s *Spool) Return(it *Item, soon bool) {
	if it.Claimed {
		s.mu.Lock()
		if soon {
			s.held = append(s.held, it)
		} else {
			s.waiting = append(s.waiting, it)
		}
		s.mu.Unlock()
		return
	}
	if soon {
		s.later(hint{it.Company, it.Name})
	} else {
		it.co.remember(it, s.cfg.Now())
	}
	s.release(it)
}

// later notes a name that is worth another look in a moment.
func (s *Spool) later(h hint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.soon) < maxHints {
		s.soon[h] = true
	}
}

// Retry makes Next look again at the names that were about to be ready when it
// saw them last: files with two names, as during a rename by link and unlink,
// files that changed while they were read, and items that were Returned for soon.
// It reports whether there are any.
func (s *Spool) Retry() bool {
	s.mu.Lock()
	soon, held := s.soon, s.held
	s.soon, s.held = map[hint]bool{}, nil
	s.ready = append(s.ready, held...)
	s.mu.Unlock()
	for h := range soon {
		s.Hint(h.company, h.name)
	}
	return len(soon)+len(held) > 0
}

// Unsettled reports whether Retry has something to do.
func (s *Spool) Unsettled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.soon)+len(s.held)+len(s.ready) > 0
}

// release ends an item's time outside, once. If something came under its name
// meanwhile, that is looked at next. No lock of the company is held.
func (s *Spool) release(it *Item) {
	s.mu.Lock()
	if !it.out {
		s.mu.Unlock()
		return
	}
	it.out = false
	again := s.busy[it.key]
	delete(s.busy, it.key)
	s.unpin(it.co)
	s.mu.Unlock()
	if again {
		s.Hint(it.Company, it.Name)
		s.cfg.Wake()
	}
}

// Claim moves the item from the inbox into work/. It reports changed when the
// files are not, or are no longer, those that were read: the item's Data, Sig and
// More have then been read again from work/ and everything that was concluded from
// the old ones is void.
//
// An error that is fs.ErrNotExist says that the partner has taken the file back;
// the item is released. If we crash between the renames the request and its
// signatures are split between inbox and work; Recover completes it.
func (s *Spool) Claim(it *Item) (changed bool, err error) {
	changed, gone, err := s.claim(it)
	if gone {
		s.release(it)
	}
	return changed, err
}

// claim does what Claim says, except that the item is still to be released if it is
// gone.
func (s *Spool) claim(it *Item) (changed, gone bool, err error) {
	c := it.co
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.makeWork(); err != nil {
		return false, true, fmt.Errorf("claiming: %w", err)
	}
	if err := c.inbox.Move(it.Name, c.work, it.workName()); err != nil {
		return false, true, fmt.Errorf("claiming: %w", err)
	}
	it.Claimed = true
	if it.noFile {
		return false, false, nil
	}
	now, err := c.work.Stat(it.Name)
	if err != nil {
		return false, false, fmt.Errorf("claiming: %w", err)
	}
	same := now.Same(it.info) && now.Mode.Type() == it.info.Mode.Type()
	sigs, sameSigs, err := s.claimSigs(it)
	if errors.Is(err, fs.ErrPermission) {
		// What stands for the signature is a directory that only its owner may
		// move. Everything goes back: that is this partner's trouble alone.
		it.sigs = sigs
		if berr := s.unclaim(it); berr == nil {
			return false, false, err
		}
	}
	if err != nil {
		return false, false, err
	}
	if same && sameSigs {
		return false, false, nil
	}
	fresh, err := c.readIn(c.work, it.Name, labelsOf(sigs))
	if err != nil && err != errChanging {
		return true, false, fmt.Errorf("reading the claimed file: %w", err)
	}
	if fresh == nil {
		// Somebody writes to it at this moment.
		it.sigs = sigs
		err := s.unclaim(it)
		if err == nil {
			return true, true, fs.ErrNotExist
		}
		if errors.Is(err, fs.ErrExist) {
			it.Data, it.Sig, it.More, err = nil, nil, nil, nil
			it.Refusal = reason.New(reason.Unreadable, "drop a file when it is written, and another when that is answered",
				"the file was being written to, and another came under its name")
		}
		return true, false, err
	}
	it.Data, it.Sig, it.More, it.Refusal = fresh.Data, fresh.Sig, fresh.More, fresh.Refusal
	it.info, it.sigs = fresh.info, fresh.sigs
	return true, false, nil
}

// claimSigs moves the signatures of a claimed request after it: those that were
// read, and those that have come since. It returns what it moved, and whether that
// is what was read.
func (s *Spool) claimSigs(it *Item) (moved []sigFile, same bool, err error) {
	c := it.co
	list := labelsOf(it.sigs)
	if _, typed := typeOf(DefaultTypes, it.Name); typed && s.cfg.Several(c.name) {
		list = union(append(list, ""), c.labels.get(it.Name, maxMore+1))
	}
	for _, label := range list {
		name := sigName(it.Name, label)
		err := c.inbox.Move(name, c.work, name)
		if errors.Is(err, fs.ErrExist) {
			// A signature was left there when its request was put away.
			if err = s.archive(c, name, "signature-"+name); err == nil {
				err = c.inbox.Move(name, c.work, name)
			}
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			c.labels.remove(it.Name, label)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var info durable.Info
		if err == nil {
			info, err = c.work.Stat(name)
		}
		if err != nil {
			return moved, false, fmt.Errorf("claiming the signature: %w", err)
		}
		moved = append(moved, sigFile{label, info})
	}
	return moved, slices.EqualFunc(moved, it.sigs, func(a, b sigFile) bool {
		return a.label == b.label && a.info.Same(b.info)
	}), nil
}

// Unclaim puts a claimed item back into the inbox, to be looked at again when it
// changes or is due. It fails with fs.ErrExist where the partner has put another
// file under that name by now; the signatures, which may be that one's, have then
// gone back if they could.
func (s *Spool) Unclaim(it *Item) error {
	it.co.mu.RLock()
	err := s.unclaim(it)
	it.co.mu.RUnlock()
	if err == nil {
		s.release(it)
	}
	return err
}

// unclaim is Unclaim without the release.
func (s *Spool) unclaim(it *Item) error {
	c := it.co
	// The request goes first: while it is back and a signature is not, a crash
	// leaves a signature alone in work/, which Recover puts back.
	if err := c.work.Move(it.workName(), c.inbox, it.Name); err != nil {
		if errors.Is(err, fs.ErrExist) && !it.noFile {
			var left []sigFile
			for _, f := range it.sigs {
				if c.sigBack(it.Name, f.label) != nil {
					left = append(left, f)
				}
			}
			it.sigs = left
		}
		return fmt.Errorf("putting back: %w", err)
	}
	for _, f := range it.sigs {
		err := c.sigBack(it.Name, f.label)
		if errors.Is(err, fs.ErrExist) {
			// The partner has brought a new signature meanwhile: that one counts.
			err = c.work.Remove(sigName(it.Name, f.label))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("putting the signature back: %w", err)
		}
	}
	it.Claimed = false
	c.remember(it, s.cfg.Now())
	c.stir()
	return nil
}

// sigBack moves a signature from work/ to the inbox.
func (c *company) sigBack(request, label string) error {
	name := sigName(request, label)
	err := c.work.Move(name, c.inbox, name)
	if err == nil && label != "" {
		c.labels.add(request, label)
	}
	return err
}

// Occupied reports whether something lies in the outbox under the name that the
// item's answer would have, or under one that a further file of it could have.
func (s *Spool) Occupied(it *Item) (bool, error) {
	c := it.co
	c.mu.RLock()
	defer c.mu.RUnlock()
	taken, err := lies(c.outbox, AnswerName(it.Name))
	t, _ := typeOf(DefaultTypes, it.Name)
	for i := 0; !taken && err == nil && i < len(t.Further); i++ {
		taken, err = lies(c.outbox, FurtherName(it.Name, t.Further[i]))
	}
	return taken, err
}

func lies(d durable.Dir, name string) (bool, error) {
	_, err := d.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Reason returns the reason that lies in rejected/ for a recovered item, nil if there
// is none: the crash came after it was published and before the request was put away
// beside it. match says whether a reason is the item's.
//
// Beside the reason for a file that was forgotten nothing ever lies, so a file of the
// same name that comes later, and like it is not read, can be told the same after a
// crash. Whether it is forgotten too must follow from a Peek at it, not from that.
func (s *Spool) Reason(it *Item, match func(reason []byte) bool) ([]byte, error) {
	c := it.co
	c.mu.RLock()
	defer c.mu.RUnlock()
	base, suffix := it.rejectedName()
	for i := 1; i < maxCopies; i++ {
		name := copyName(base, i)
		data, err := durable.ReadFile(c.rejected, name+ReasonSuffix, maxReason)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil || !match(data) {
			continue // the partner's, or another's
		}
		_, err = c.rejected.Stat(name + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			return data, nil
		}
		if err != nil {
			return nil, fmt.Errorf("looking for an earlier refusal: %w", err)
		}
	}
	return nil, nil
}

// maxReason is more than any reason has, in bytes.
const maxReason = 64 << 10

// copyName is the i-th name, from 1, that is tried in rejected/.
func copyName(base string, i int) string {
	if i == 1 {
		return base
	}
	return fmt.Sprintf("%s.%d", base, i)
}

// Make writes the item's answer with its further files, or the reason why it was
// refused, where nobody sees it. Nothing is durable yet.
func (s *Spool) Make(it *Item, refused bool, product [][]byte, files ...File) (err error) {
	it.product, it.refused, it.further = product, refused, nil
	defer func() {
		if err != nil {
			s.Unmake(it)
			err = fmt.Errorf("making the answer: %w", err)
		}
	}()
	for _, f := range files {
		if t, _ := typeOf(DefaultTypes, it.Name); refused || !slices.Contains(t.Further, f.Ending) {
			return fmt.Errorf("%s cannot have a file %s", it.SafeName(), f.Ending)
		}
		made, err := s.write(it.co, [][]byte{f.Data})
		if err != nil {
			return err
		}
		it.further = append(it.further, &further{File: f, made: made})
	}
	it.made, err = s.write(it.co, product)
	return err
}

// write writes a file for a company's outbox into work/.made.
func (s *Spool) write(c *company, parts [][]byte) (name string, err error) {
	s.mu.Lock()
	s.number++
	name = fmt.Sprintf("%d", s.number)
	s.mu.Unlock()
	f, err := s.made.Create(name, 0o640)
	if err != nil {
		return "", err
	}
	for _, b := range parts {
		if _, err = f.Write(b); err != nil {
			break
		}
	}
	c.mu.RLock()
	gid, foreign := c.gid, c.foreign
	c.mu.RUnlock()
	if err == nil && foreign {
		if cerr := f.Chown(gid); errors.Is(cerr, fs.ErrPermission) {
			// Of no use to stop for: the operator can still hand the answer over.
			s.cfg.Warn(c.name, "giving the answer to the group of the outbox; add the appliance's user to that group", cerr)
		} else {
			err = cerr
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.unwrite(c, name)
		return "", err
	}
	return name, nil
}

// unwrite removes a file from work/.made, if it is still there.
func (s *Spool) unwrite(c *company, name string) {
	if err := s.made.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// Open removes it at the next start.
		s.cfg.Warn(c.name, "removing an answer that was not published", err)
	}
}

// Unmake removes what Make made, if it is still there.
func (s *Spool) Unmake(it *Item) {
	if it.made != "" {
		s.unwrite(it.co, it.made)
		it.made = ""
	}
	for _, f := range it.further {
		if f.made != "" {
			s.unwrite(it.co, f.made)
			f.made = ""
		}
	}
}

// Lay gives the answer's further files their names in the outbox. It reports whether
// there are any: they must be durable before Publish. Like Publish it never replaces
// and is content with what it finds done; if one of the names is taken by other
// bytes, or that of the answer, it is ErrTaken, and none of the files stays that it
// has laid. It may be called again after any other error.
//
// Crash: some are visible and some are not, and the answer that names them is not.
// The request is still in work/.
func (s *Spool) Lay(it *Item) (any bool, err error) {
	if len(it.further) == 0 {
		return false, nil
	}
	c := it.co
	c.mu.RLock()
	defer c.mu.RUnlock()
	same, err := equal(c.outbox, AnswerName(it.Name), it.product)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("looking for the answer's name: %w", err)
	}
	if err == nil && !same {
		return false, ErrTaken
	}
	for _, f := range it.further {
		if f.made == "" {
			continue // laid by an earlier call
		}
		moved, same, err := s.place(it, &f.made, [][]byte{f.Data}, c.outbox, FurtherName(it.Name, f.Ending))
		f.laid = moved
		if err == nil && !same {
			s.lift(it)
			err = ErrTaken
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// lift takes back the further files that this process has laid, since the answer
// that was to name them is not going to be published.
func (s *Spool) lift(it *Item) {
	for _, f := range it.further {
		if !f.laid {
			continue
		}
		f.laid = false
		if err := it.co.outbox.Remove(FurtherName(it.Name, f.Ending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Warn(it.Company, "taking back a file whose answer is not published", err)
		}
	}
}

// Publish gives the answer its name in the outbox, or the reason its name in
// rejected/. It never replaces: if the name is taken by the same bytes the work
// was done before, and it is content; if by others, it is ErrTaken, and a
// refused item takes the next free name instead.
//
// What Status has told of the item is taken away then.
//
// Crash: the answer is visible or not; the request is still in work/.
func (s *Spool) Publish(it *Item) error {
	it.co.mu.RLock()
	defer it.co.mu.RUnlock()
	err := s.publish(it)
	if err == nil && (it.told || s.cfg.Several(it.Company)) {
		s.unstatus(it)
	}
	return err
}

func (s *Spool) publish(it *Item) error {
	c := it.co
	if !it.refused {
		if err := s.handOver(it); err != nil {
			return err
		}
		_, same, err := s.place(it, &it.made, it.product, c.outbox, AnswerName(it.Name))
		if err == nil && !same {
			err = ErrTaken
			s.lift(it)
		}
		return err
	}
	base, suffix := it.rejectedName()
	for i := 1; i < maxCopies; i++ {
		it.base = copyName(base, i)
		_, same, err := s.place(it, &it.made, it.product, c.rejected, it.base+ReasonSuffix)
		if err != nil {
			return err
		}
		if same {
			it.base += suffix
			return nil
		}
	}
	return fmt.Errorf("publishing the reason: %d reasons lie in rejected/ under this name: remove some", maxCopies)
}

// maxCopies bounds how many refusals under one name can lie in rejected/.
const maxCopies = 100_000

// ReasonSuffix ends the name of the file that says why something was refused.
const ReasonSuffix = ".reason.json"

// alone begins the name in work/ of a signature that came without its request, so
// that it cannot be taken for one whose request has just been put away.
const alone = ".alone-"

func (it *Item) workName() string {
	if it.noFile {
		return alone + it.Name
	}
	return it.Name
}

// rejectedName is where a refused item goes: stem and ending.
func (it *Item) rejectedName() (base, suffix string) {
	if _, ok := typeOf(DefaultTypes, it.Name); ok {
		return stem(DefaultTypes, it.Name)
	}
	return SafeName(it.Name, maxName, fmt.Sprintf("%x", it.info.Ino)), ""
}

// SafeName is the item's name as it can be shown and written anywhere: the name
// itself where it is plain, otherwise with %XX for each other byte.
func (it *Item) SafeName() string {
	if plain(it.Name, maxName+len(SigSuffix)) {
		return it.Name
	}
	return SafeName(it.Name, maxName, fmt.Sprintf("%x", it.info.Ino))
}

// place moves what was made of parts, and is called *made in work/.made, to d/name.
// It reports same if it lies there now, and moved if this call has put it there.
func (s *Spool) place(it *Item, made *string, parts [][]byte, d durable.Dir, name string) (moved, same bool, err error) {
	err = s.made.Move(*made, d, name)
	if err == nil {
		*made = ""
		return true, true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, false, fmt.Errorf("publishing: %w", err)
	}
	same, err = equal(d, name, parts)
	if err != nil {
		return false, false, fmt.Errorf("comparing with what lies there: %w", err)
	}
	if same {
		s.unwrite(it.co, *made)
		*made = ""
	}
	return false, same, nil
}

// equal reports whether the file holds exactly the bytes of parts.
func equal(d durable.Dir, name string, parts [][]byte) (bool, error) {
	f, err := d.Open(name)
	if errors.Is(err, durable.ErrNotRegular) || errors.Is(err, fs.ErrPermission) {
		return false, nil // nothing of ours
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	var size int64
	for _, p := range parts {
		size += int64(len(p))
	}
	if info.Size != size {
		return false, nil
	}
	var off int64
	buf := make([]byte, 64<<10)
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), len(buf))
			if _, err := f.ReadAt(buf[:n], off); err != nil {
				if err == io.EOF {
					return false, nil
				}
				return false, err
			}
			if !bytes.Equal(buf[:n], p[:n]) {
				return false, nil
			}
			p, off = p[n:], off+int64(n)
		}
	}
	return true, nil
}

// Retire moves a request whose answer is published and durable out of work/: to
// the archive, under the first 16 hexadecimal digits of its digest (tag), or to
// rejected/. A request that is to be forgotten is erased instead. The item is done
// with.
//
// Crash: the request is gone from work/, or signatures of it are left there, which
// Recover sends after it, or nothing happened and the item is answered once more
// with the same bytes. No sync is needed for any of these.
func (s *Spool) Retire(it *Item, tag string) error {
	err := s.retire(it, tag)
	s.release(it)
	return err
}

func (s *Spool) retire(it *Item, tag string) error {
	c := it.co
	c.mu.RLock()
	defer c.mu.RUnlock()
	if it.forget {
		clear(it.Data)
	}
	it.product, it.further, it.Data, it.Sig, it.More = nil, nil, nil, nil, nil
	away := func(name, suffix string) error {
		if it.refused {
			return s.putAway(c.work, name, c.rejected, it.base+suffix)
		}
		return s.archive(c, name, tag+"-"+it.Name+suffix)
	}
	var err error
	if it.forget {
		err = s.forget(it, away)
	} else {
		err = away(it.workName(), "")
	}
	if err != nil {
		return err
	}
	for _, f := range it.sigs {
		if err := away(sigName(it.Name, f.label), sigEnding(f.label)); err != nil {
			return err
		}
	}
	return nil
}

// archive moves a file from work/ to the company's archive.
func (s *Spool) archive(c *company, name, toName string) error {
	c.archiveMu.Lock()
	defer c.archiveMu.Unlock()
	for anew := false; ; anew = true {
		day, err := c.archiveDir(s.cfg.Now(), anew)
		if err != nil {
			return fmt.Errorf("opening the archive: %w", err)
		}
		err = s.putAway(c.work, name, day, toName)
		if anew || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Somebody has removed the directory of the archive.
	}
}

// putAway moves a file that is no longer needed. Where its place is taken, the
// same request has been put away before: nothing of worth is in the second copy,
// except in rejected/, where it gets a name beside.
func (s *Spool) putAway(from durable.Dir, name string, to durable.Dir, toName string) error {
	err := from.Move(name, to, toName)
	for i := 2; errors.Is(err, fs.ErrExist) && i < maxCopies; i++ {
		err = from.Move(name, to, fmt.Sprintf("%s~%d", toName, i))
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := from.Stat(name); errors.Is(serr, fs.ErrNotExist) {
			return nil // put away before a crash
		}
	}
	if err != nil {
		return fmt.Errorf("putting away: %w", err)
	}
	return nil
}

// Close lets go of all directories, also of those whose items are out.
func (s *Spool) Close() error {
	err := s.SetCompanies(nil)
	s.endWalksOfGone()
	s.mu.Lock()
	var open []*company
	for e := s.open.Front(); e != nil; e = e.Next() {
		open = append(open, e.Value.(*company))
	}
	partners := s.partners
	s.partners = nil
	s.mu.Unlock()
	for _, c := range open {
		c.close()
	}
	if partners != nil {
		err = errors.Join(err, partners.Close())
	}
	return errors.Join(err, s.made.Close(), s.work.Close())
}

// Quiet is for how long none of the item's files has changed.
func (it *Item) Quiet(now time.Time) time.Duration {
	last := it.info.CTime
	for _, s := range it.sigs {
		last = max(last, s.info.CTime)
	}
	return time.Duration(now.UnixNano() - last)
}
