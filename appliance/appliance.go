// Package appliance is the signing path: from a file that the spool has found to
// a verdict that is on record and published. Data flows one way:
//
//	spool → request → auth → policy → keyfs → journal → spool
//
// # Order
//
// For each group of requests, whatever their number:
//
//	take    authenticate, claim, decide, sign      nothing is visible
//	record  make the answers, write the journal    nothing is visible
//	sync    one syncfs for both                    decided for good
//	publish link the answers into place            visible
//	sync    (the next group's, or one when idle)   visible for good
//	retire  archive the requests                   done
//
// A crash at any point leaves the requests in work/, and doing it all again gives
// the same bytes: what is on record is taken from the journal, what is not is
// decided anew, and nobody has seen it.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/rs/zerolog"

	"signdrop/appliance/journal"
	"signdrop/appliance/policy"
	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/keyfs/seal"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// Config is what an Appliance needs to know. The zero value of a field is its
// default.
type Config struct {
	ID      string        // this appliance's id, as requests may name it
	Recheck keyfs.Recheck // how each signature is checked before it leaves
	Sealer  *seal.Sealer  // opens and seals key files; nil where keys lie in the clear
	Workers int           // requests decided on at once; default: the number of processors

	Still   time.Duration // see spool.Config
	SigWait time.Duration // see spool.Config
	// ApprovalWait is how long a command waits for further signatures after the
	// last has come. Default 7 days.
	ApprovalWait time.Duration

	Rescan time.Duration // how often the inboxes are walked through; default 5 s

	// Group and Wait bound a group commit: it is closed when it has Group
	// items, when its first item has waited for Wait, or when nothing more is
	// under way. Defaults 128 and 2 ms.
	Group int
	Wait  time.Duration

	// Reserve is the free space below which nothing more is claimed, so that
	// what was claimed can be answered, in bytes. Default 64 MiB.
	Reserve uint64

	// Watch is the path of the data volume, where the kernel is asked to tell
	// what happens in the inboxes. Empty: the inboxes are walked through every
	// Rescan and nothing else.
	Watch string

	// Serial does everything on the calling goroutine, in an order that is the
	// same each time. Only Once honours it.
	Serial bool

	// AllowNew allows a data volume that has no journal yet.
	AllowNew bool

	// Access sets owners and modes of what commands make; nil where a volume knows
	// neither, as in tests.
	Access setup.Access

	Journal journal.Options // MaxFile, FlushAt; the rest is set here
	Detail  string          // goes into the journal's start entry
	Now     func() time.Time
	Log     zerolog.Logger
}

// Appliance answers what lies in the inboxes of one data volume.
type Appliance struct {
	cfg       Config
	log       zerolog.Logger
	vol       *volume
	root      durable.Dir
	dirs      []durable.Dir
	backups   durable.Dir
	identity  *age.X25519Identity // opens requests with secrets
	companies *companies
	keys      *keyfs.Store
	dataKeys  *datakey.Store
	guard     datakey.Guard
	journal   *journal.Journal
	once      *policy.Once
	spool     *spool.Spool
	digests   *digests
	locks     locks // held while something of a company in db/ is changed

	wake    chan struct{}  // something may have come
	watcher *spool.Watcher // nil without; owned by the dispatcher

	// Owned by the committer, and by the publisher while the committer gathers.
	published []*task // visible, not known to be durable
	stuck     []*task // recorded and not to be published for now

	restored *setup.Restored // nil if the volume did not come from a backup
	held     atomic.Bool     // that was not accepted: only administrators are served
	freed    atomic.Bool     // it was accepted just now: the companies are to be served
	seed     string          // what ids of keys follow from, beside the request
	stop     context.Context // of the present run

	counts   Counts // likewise
	unserved bool   // owned by the dispatcher

	mu  sync.Mutex
	err error // why the appliance must stop
	cut context.CancelFunc
}

// Counts says what was done since Open.
type Counts struct {
	Answered uint64 // files
	Refused  uint64 // files
	Signed   uint64 // signatures
	Syncs    uint64 // calls of syncfs
	Groups   uint64
	Stuck    int // answered files that could not be published

	Held     bool // companies wait until a restore is accepted
	Unserved bool // a company's directories could not be opened when last looked at
}

// reserve is the default of Config.Reserve.
const reserve = 64 << 20

// Open checks and opens the data volume. It refuses what is not in order: a
// journal that is broken, missing or shortened above all.
func Open(vol durable.FS, cfg Config) (*Appliance, error) {
	a := &Appliance{
		cfg: cfg.withDefaults(), vol: &volume{FS: vol}, log: cfg.Log,
		wake:    make(chan struct{}, 1),
		digests: newDigests(),
	}
	if err := a.open(); err != nil {
		a.closeDirs()
		return nil, err
	}
	return a, nil
}

func (c Config) withDefaults() Config {
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Still <= 0 {
		c.Still = time.Minute
	}
	if c.Rescan <= 0 {
		c.Rescan = 5 * time.Second
	}
	if c.ApprovalWait <= 0 {
		c.ApprovalWait = 7 * 24 * time.Hour
	}
	if c.Group <= 0 {
		c.Group = 128
	}
	if c.Wait <= 0 {
		c.Wait = 2 * time.Millisecond
	}
	if c.Reserve == 0 {
		c.Reserve = reserve
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (a *Appliance) open() error {
	root, err := a.vol.Root()
	if err != nil {
		return err
	}
	a.dirs = append(a.dirs, root)
	if err := setup.CheckWhole(root); err != nil {
		return err
	}
	sub := func(name string) (durable.Dir, error) {
		d, err := root.Sub(name)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w (run signdrop init first)", name, err)
		}
		a.dirs = append(a.dirs, d)
		return d, nil
	}
	db, err := sub("db")
	if err != nil {
		return err
	}
	log, err := sub("journal")
	if err != nil {
		return err
	}
	a.root = root
	kept, err := durable.SubMake(root, "kept", 0o700)
	if err != nil {
		return fmt.Errorf("opening kept: %w", err)
	}
	kept.Close()
	if a.backups, err = durable.SubMake(root, "backups", 0o700); err != nil {
		return fmt.Errorf("opening backups: %w", err)
	}
	a.dirs = append(a.dirs, a.backups)
	if a.identity, err = setup.ReadIdentity(root, a.cfg.Sealer); err != nil {
		return err
	}
	index, err := durable.SubMake(root, "index", 0o700)
	if err != nil {
		return fmt.Errorf("opening index: %w", err)
	}
	a.dirs = append(a.dirs, index)

	o := a.cfg.Journal
	o.Now, o.AllowNew, o.Serial, o.Start.Detail = a.cfg.Now, a.cfg.AllowNew, a.cfg.Serial, a.cfg.Detail
	o.Report = func(err error) { a.log.Warn().Err(err).Msg("index of the journal") }
	j, recovery, err := journal.Open(a.vol, log, index, o)
	if err != nil {
		return fmt.Errorf("opening the journal: %w", err)
	}
	a.journal = j
	a.logRecovery(recovery)
	a.once = policy.NewOnce(memory{j})
	if err := a.openRestored(); err != nil {
		return err
	}
	if err := a.tidyBackups(); err != nil {
		return fmt.Errorf("tidying backups: %w", err)
	}
	if err := a.tidyNotes(); err != nil {
		return fmt.Errorf("tidying the notes of approved commands: %w", err)
	}

	if a.keys, err = keyfs.Open(db, keyfs.Options{Recheck: a.cfg.Recheck, Sealer: a.cfg.Sealer}); err != nil {
		return fmt.Errorf("opening the keys: %w", err)
	}
	a.dataKeys = datakey.Open(db, a.cfg.Sealer)
	if a.companies, err = openCompanies(root, db, a.cfg.Now); err != nil {
		return err
	}
	a.spool, err = spool.Open(a.vol, root, spool.Config{
		Still: a.cfg.Still, SigWait: a.cfg.SigWait, Now: a.cfg.Now,
		Wake:    a.Wake,
		Several: func(company string) bool { return company == setup.Administrators },
		Warn: func(company, what string, err error) {
			a.log.Warn().Err(err).Str("company", company).Msg(what)
		},
	})
	if err != nil {
		return fmt.Errorf("opening the spool: %w", err)
	}
	return a.refresh()
}

// refresh looks which companies there are, and has their inboxes watched.
func (a *Appliance) refresh() error {
	names, err := a.companies.names()
	if err != nil {
		return fmt.Errorf("listing the companies: %w", err)
	}
	if a.held.Load() {
		names = []string{setup.Administrators}
	}
	if a.watcher != nil {
		if err := a.watcher.Cover(names); err != nil {
			a.log.Warn().Err(err).Dur("rescan", a.cfg.Rescan).Msg("inbox is not watched, only walked through")
		}
	}
	err = a.spool.SetCompanies(names)
	a.unserved = err != nil
	if err != nil {
		// The others are served nevertheless.
		a.log.Error().Err(err).Msg("company cannot be served; mend its directories (signdrop init --company)")
	}
	return nil
}

// memory is the journal as policy sees it.
type memory struct{ j *journal.Journal }

func (m memory) TextFor(company, wallet, ledger, nonce string) (text, pays [32]byte, known bool, err error) {
	ev, err := m.j.Nonce(company, wallet, ledger, nonce)
	if ev == nil || err != nil {
		return text, pays, false, err
	}
	return ev.Text, paysOf(ev), true, nil
}

// now is the time for decisions. It never goes back behind what is on record.
func (a *Appliance) now() time.Time { return a.journal.Now() }

// Wake tells the appliance that something may have come. It does not block.
func (a *Appliance) Wake() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// fail stops the appliance. The first error is the one that Serve and Once report.
func (a *Appliance) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
	if a.cut != nil {
		a.cut()
	}
}

func (a *Appliance) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Close ends the journal with a stop entry, if nothing has gone wrong, and lets go
// of the volume.
func (a *Appliance) Close() error {
	var stop *journal.Event
	if a.failed() == nil {
		stop = &journal.Event{Kind: "stop"}
	}
	err := errors.Join(a.journal.Close(stop), a.spool.Close())
	if a.watcher != nil {
		err = errors.Join(err, a.watcher.Close())
	}
	a.closeDirs()
	return err
}

func (a *Appliance) closeDirs() {
	if a.companies != nil {
		a.companies.dir.Close()
	}
	for _, d := range a.dirs {
		d.Close()
	}
	a.dirs = nil
}

// locks are mutexes by name.
type locks struct{ m sync.Map }

// lock returns the unlocking.
func (l *locks) lock(name string) func() {
	m, _ := l.m.LoadOrStore(name, &sync.Mutex{})
	mu := m.(*sync.Mutex)
	mu.Lock()
	return mu.Unlock
}

// digests holds the requests that are being answered, so that the same bytes
// under two names are decided on one after the other.
type digests struct {
	mu   sync.Mutex
	held map[digestKey]bool
}

type digestKey struct {
	company string
	digest  [32]byte
}

func newDigests() *digests { return &digests{held: map[digestKey]bool{}} }

func (ds *digests) hold(t *task) bool {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	k := digestKey{t.it.Company, t.digest}
	if ds.held[k] {
		return false
	}
	ds.held[k] = true
	t.held = true
	return true
}

func (ds *digests) release(t *task) {
	if !t.held {
		return
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	delete(ds.held, digestKey{t.it.Company, t.digest})
	t.held = false
}
