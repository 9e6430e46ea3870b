package keyfs

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"

	"signdrop/spool/durable"
)

// Spec says which wallet to make.
type Spec struct {
	ID    string
	Curve Curve
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
// another curve, or an id comes twice with different ones), *Damaged, ErrFault,
// ErrRestart; any other is the disk's.
func (s *Store) Create(company string, specs []Spec, vol durable.FS) ([]*Wallet, error) {
	if err := checkSpecs(company, specs); err != nil {
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
	if err := b.run(specs, vol); err != nil {
		b.cleanUp()
		return nil, fmt.Errorf("making wallets of company %s: %w", company, err)
	}
	read := s.cache.now()
	wallets := make([]*Wallet, len(specs))
	for i, spec := range specs {
		wallets[i] = s.cache.add(b.wallets[spec.ID], read)
	}
	return wallets, nil
}

func checkSpecs(company string, specs []Spec) error {
	if !ValidCompany(company) {
		return fmt.Errorf("company %q: %w", company, ErrInvalid)
	}
	curve := make(map[string]Curve, len(specs))
	for _, spec := range specs {
		if err := checkID(company, spec.ID); err != nil {
			return err
		}
		if err := checkCurve(spec.Curve); err != nil {
			return err
		}
		if c, ok := curve[spec.ID]; ok && c != spec.Curve {
			return fmt.Errorf("wallet %s is asked for on %s and on %s: %w", spec.ID, c, spec.Curve, ErrCurve)
		}
		curve[spec.ID] = spec.Curve
	}
	return nil
}

// batch is the work of one Create.
type batch struct {
	store   *Store
	company string
	dir     durable.Dir        // the company's wallets
	fresh   []Spec             // those that do not exist, each once
	wallets map[string]*Wallet // by id; nil as long as a fresh one is not made
}

// temp is the name under which a file or directory is made.
func temp(name string) string { return "." + name + ".new" }

func (b *batch) run(specs []Spec, vol durable.FS) error {
	for _, spec := range specs {
		if err := b.find(spec); err != nil {
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

	for _, spec := range b.fresh {
		if err := b.dir.Move(temp(spec.ID), b.dir, spec.ID); err != nil {
			return fmt.Errorf("naming wallet %s: %w", spec.ID, err)
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
func (b *batch) find(spec Spec) error {
	if _, ok := b.wallets[spec.ID]; ok {
		return nil
	}
	_, err := b.dir.Stat(spec.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.wallets[spec.ID] = nil
		b.fresh = append(b.fresh, spec)
		return nil
	case err != nil:
		return fmt.Errorf("looking for wallet %s: %w", spec.ID, err)
	}
	w, err := b.store.Lookup(b.company, spec.ID)
	if err != nil {
		return err
	}
	if w.Curve() != spec.Curve {
		return fmt.Errorf("wallet %s is on %s, not on %s: %w", w.id, w.Curve(), spec.Curve, ErrCurve)
	}
	b.wallets[spec.ID] = w
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
	for i, spec := range b.fresh {
		b.wallets[spec.ID] = made[i]
	}
	return first
}

func (b *batch) make(spec Spec) (*Wallet, error) {
	w, keyText, err := b.draw(spec)
	if err != nil {
		return nil, fmt.Errorf("making the key of wallet %s: %w", spec.ID, err)
	}
	defer clear(keyText)
	if err := b.write(spec.ID, w.rec.encode(), keyText); err != nil {
		return nil, fmt.Errorf("writing wallet %s: %w", spec.ID, err)
	}
	return w, nil
}

// draw makes a new key and returns its wallet and the content of its key.pem,
// which the caller wipes. The wallet is parsed from the bytes that are written,
// by the code that will read them, which computes the public key a second time:
// the address of a wrong public key would swallow what is sent to it.
func (b *batch) draw(spec Spec) (*Wallet, []byte, error) {
	k, err := drawKey(spec.Curve, b.store.random)
	if err != nil {
		return nil, nil, err
	}
	rec := record{ID: spec.ID, Curve: spec.Curve, PublicKey: encodePublic(k), Status: statusActive}
	keyText := encodeKey(k)
	w, err := b.store.parse(walletID{b.company, spec.ID}, rec.encode(), keyText)
	if err != nil {
		clear(keyText)
		return nil, nil, fmt.Errorf("%w: %w", ErrFault, err)
	}
	return w, keyText, nil
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
	for _, spec := range b.fresh {
		b.remove(spec.ID)
	}
}
