package keyfs

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"signdrop/keyfs/hd"
	"signdrop/spool/durable"
)

// Spec says which wallet to make.
type Spec struct {
	ID    string
	Curve Curve

	// Network makes it an HD wallet of this network. Curve may be left out then.
	Network hd.Network

	// NotAfter is the time until which the wallet is meant to sign, the zero
	// Time for ever. It is kept in whole seconds, cut off, and only kept: Sign
	// does not look at it.
	NotAfter time.Time
}

// Create makes the wallets that do not exist yet, loads those that do, and
// returns one for each spec, in order. It returns when all of them are durable,
// and returns none if anything failed. vol is the volume that db lies on.
//
// Doing it again is always right: it makes the same wallets, never a second
// one under an id. After a failure some of the new wallets may exist already,
// each of them whole. However many there are, Create syncs the volume once and
// the directory of the wallets once.
//
// Errors: ErrInvalid, ErrUnknown (the company), ErrCurve (a wallet exists on
// another curve, or an id comes twice with different ones), ErrOther (the same
// of NotAfter), *Damaged, ErrFault, ErrRestart; any other is the disk's.
func (s *Store) Create(company string, specs []Spec, vol durable.FS) ([]*Wallet, error) {
	plans := make([]plan, len(specs))
	for i, spec := range specs {
		if spec.Network != "" {
			if !spec.Network.Known() || spec.Curve != "" && spec.Curve != Secp256k1 {
				return nil, fmt.Errorf("wallet %s: an HD wallet of network %q on curve %q: %w", spec.ID, spec.Network, spec.Curve, ErrInvalid)
			}
			spec.Curve = Secp256k1
		}
		if err := checkCurve(spec.Curve); err != nil {
			return nil, err
		}
		end, err := formatNotAfter(spec.NotAfter)
		if err != nil {
			return nil, fmt.Errorf("wallet %s: %w", spec.ID, err)
		}
		plans[i] = plan{id: spec.ID, curve: spec.Curve, network: spec.Network, notAfter: end}
	}
	return s.makeAll(company, plans, vol)
}

// plan is a wallet that is to be there: a new one unless it exists.
type plan struct {
	id       string
	curve    Curve
	network  hd.Network // of an HD wallet
	notAfter string     // as in wallet.json
	key      key        // nil to draw one
}

// makeAll is Create and Import.
func (s *Store) makeAll(company string, plans []plan, vol durable.FS) ([]*Wallet, error) {
	if err := checkPlans(company, plans); err != nil {
		return nil, err
	}
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.ready(); err != nil {
		return nil, err
	}
	comp, err := s.company(company)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	dir, err := subMake(comp, "wallets")
	if err != nil {
		return nil, err
	}
	defer dir.Close()

	b := &batch{store: s, company: company, dir: dir, wallets: map[string]*Wallet{}}
	if err := b.run(plans, vol); err != nil {
		b.cleanUp()
		return nil, fmt.Errorf("making wallets of company %s: %w", company, err)
	}
	for _, w := range b.wallets {
		s.bitcoin.add(w.id, w.rec)
	}
	read := s.cache.now()
	wallets := make([]*Wallet, len(plans))
	for i, p := range plans {
		wallets[i] = s.cache.add(b.wallets[p.id], read)
	}
	return wallets, nil
}

func checkPlans(company string, plans []plan) error {
	if !ValidCompany(company) {
		return fmt.Errorf("company %q: %w", company, ErrInvalid)
	}
	first := make(map[string]plan, len(plans))
	for _, p := range plans {
		if err := checkID(company, p.id); err != nil {
			return err
		}
		f, ok := first[p.id]
		switch {
		case !ok:
			first[p.id] = p
		case f.curve != p.curve:
			return fmt.Errorf("wallet %s is asked for on %s and on %s: %w", p.id, f.curve, p.curve, ErrCurve)
		case f.network != p.network:
			return fmt.Errorf("wallet %s is asked for with two kinds or networks: %w", p.id, ErrOther)
		case f.notAfter != p.notAfter:
			return fmt.Errorf("wallet %s is asked for with two times of not_after: %w", p.id, ErrOther)
		case p.key != nil && !sameKey(f.key, p.key):
			return fmt.Errorf("wallet %s is to have two keys: %w", p.id, ErrOther)
		}
	}
	return nil
}

// batch is the work of one Create or Import.
type batch struct {
	store   *Store
	company string
	dir     durable.Dir        // the company's wallets
	fresh   []plan             // those that do not exist, each once
	wallets map[string]*Wallet // by id; nil as long as a fresh one is not made
}

// temp is the name under which a file or directory is made.
func temp(name string) string { return "." + name + ".new" }

func (b *batch) run(plans []plan, vol durable.FS) error {
	for _, p := range plans {
		if err := b.find(p); err != nil {
			return err
		}
	}
	if err := b.makeFresh(); err != nil {
		return err
	}
	// Crash here: keys that nobody has seen lie in temporary directories, whole
	// or not, durable or not. Doing it again removes them first.

	if len(b.fresh) > 0 {
		if err := vol.Sync(); err != nil {
			return fmt.Errorf("syncing new keys: %w", err)
		}
	}
	// Crash here: as above, but whole and durable.

	for _, p := range b.fresh {
		if err := b.dir.Move(temp(p.id), b.dir, p.id); err != nil {
			return fmt.Errorf("naming wallet %s: %w", p.id, err)
		}
	}
	// Crash here: each wallet has its final name or its temporary one, and a
	// power cut may take a final name back. Nobody was told of it. Doing it
	// again takes those that have theirs and makes the others anew.

	// Needed without new wallets too: a predecessor that was killed a line
	// above left names that are seen and not durable.
	if err := b.dir.Sync(); err != nil {
		// The wallets stay: another goroutine may have looked one up and shown
		// its public key. But a Create that finds them now could not make them
		// durable, and would tell of them.
		return b.store.stop(fmt.Errorf("syncing the names of new wallets: %w", err))
	}
	return nil
}

// find loads a wallet that exists and takes down one that does not.
func (b *batch) find(p plan) error {
	if _, ok := b.wallets[p.id]; ok {
		return nil
	}
	_, err := b.dir.Stat(p.id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.wallets[p.id] = nil
		b.fresh = append(b.fresh, p)
		return nil
	case err != nil:
		return fmt.Errorf("looking for wallet %s: %w", p.id, err)
	}
	w, err := b.store.Lookup(b.company, p.id)
	if err != nil {
		return err
	}
	switch {
	case p.key != nil && !sameKey(w.key, p.key):
		return fmt.Errorf("wallet %s has another key: %w", w.id, ErrOther)
	case w.Curve() != p.curve:
		return fmt.Errorf("wallet %s is on %s, not on %s: %w", w.id, w.Curve(), p.curve, ErrCurve)
	case w.rec.Network != p.network:
		return fmt.Errorf("wallet %s is of another kind or network: %w", w.id, ErrOther)
	case w.rec.NotAfter != p.notAfter:
		return fmt.Errorf("wallet %s has another not_after: %w", w.id, ErrOther)
	}
	b.wallets[p.id] = w
	return nil
}

// perWorker is how many new wallets are worth one more goroutine.
const perWorker = 64

// makeFresh writes each fresh wallet to its temporary directory. A key costs as
// much processor as its files cost the kernel, hence the goroutines.
func (b *batch) makeFresh() error {
	var (
		made  = make([]*Wallet, len(b.fresh))
		next  atomic.Int64 // index of the next one to make
		once  sync.Once
		first error // set by once
		wg    sync.WaitGroup
	)
	for range min(runtime.GOMAXPROCS(0), 1+len(b.fresh)/perWorker) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(made)); i = next.Add(1) - 1 {
				w, err := b.make(b.fresh[i])
				if err != nil {
					once.Do(func() { first = err })
					next.Store(int64(len(made))) // the others end, too
					return
				}
				made[i] = w
			}
		})
	}
	wg.Wait()
	for i, p := range b.fresh {
		b.wallets[p.id] = made[i]
	}
	return first
}

func (b *batch) make(p plan) (*Wallet, error) {
	w, keyText, err := b.prepare(p)
	if err != nil {
		return nil, fmt.Errorf("making the key of wallet %s: %w", p.id, err)
	}
	defer clear(keyText)
	sealed, err := b.store.sealKey(w.id, keyFile, w.rec.PublicKey, keyText)
	if err != nil {
		return nil, fmt.Errorf("sealing the key of wallet %s: %w", p.id, err)
	}
	if err := b.write(p.id, w.rec.encode(), sealed); err != nil {
		return nil, fmt.Errorf("writing wallet %s: %w", p.id, err)
	}
	return w, nil
}

// prepare takes the plan's key or makes a new one, and returns its wallet and
// the content of its key.pem, which the caller wipes. The wallet is parsed from
// the bytes that are written, by the code that will read them, which computes
// the public key a second time: the address of a wrong public key would swallow
// what is sent to it.
func (b *batch) prepare(p plan) (*Wallet, []byte, error) {
	k := p.key
	if k == nil {
		var err error
		if p.network != "" {
			k, err = drawMaster(p.network, b.store.random)
		} else {
			k, err = drawKey(p.curve, b.store.random)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	rec := newRecord(p.id, k, p.notAfter)
	keyText := encodeKey(k)
	w, err := b.store.parse(walletID{b.company, p.id}, rec.encode(), keyText)
	if err != nil {
		clear(keyText)
		return nil, nil, fmt.Errorf("%w: %w", ErrFault, err)
	}
	return w, keyText, nil
}

// newRecord is the wallet.json of an active wallet with a key.
func newRecord(id string, k key, notAfter string) record {
	rec := record{ID: id, Curve: k.curve(), PublicKey: encodePublic(k), Status: statusActive, NotAfter: notAfter}
	if h, ok := hdOf(k); ok {
		rec.Kind, rec.Network = kindHD, h.network
		rec.Fingerprint, rec.XPub = h.master.Fingerprint().String(), h.xpub()
	}
	return rec
}

func (b *batch) write(id string, wallet, keyText []byte) error {
	err := b.dir.Mkdir(temp(id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		// A crash left it. Its key was never shown to anybody.
		if err = b.remove(id); err == nil {
			err = b.dir.Mkdir(temp(id), 0o700)
		}
	}
	if err != nil {
		return err
	}
	dir, err := b.dir.Sub(temp(id))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := durable.WriteNew(dir, keyFile, 0o400, keyText); err != nil {
		return err
	}
	return durable.WriteNew(dir, walletFile, 0o400, wallet)
}

// remove removes a wallet's temporary directory, the key in it first. It is no
// error if there is none.
func (b *batch) remove(id string) error {
	dir, err := b.dir.Sub(temp(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range []string{keyFile, walletFile} {
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return b.dir.RemoveDir(temp(id))
}

// cleanUp removes the temporary directories after a failure. What it cannot
// remove, the next Create of that id does. It never touches a final name.
func (b *batch) cleanUp() {
	for _, p := range b.fresh {
		b.remove(p.id)
	}
}
