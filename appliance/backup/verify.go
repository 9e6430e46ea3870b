package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"sync"

	"signdrop/appliance/journal"
	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/spool/durable"
)

// verify holds what is on the disk against the newest manifest, removes what an
// increment no longer has, and checks journal and keys.
func (r *restorer) verify(h *Header) error {
	f, err := r.marker.Open(manifestName(len(r.headers) - 1))
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := newManifestReader(f)
	if err != nil {
		return err
	}
	v := &verifier{r: r, m: m, dropped: map[string]bool{}}
	if err := v.advance(); err != nil {
		return err
	}
	if err := walkParts(r.root, v.file); err != nil {
		return err
	}
	if v.ahead != nil {
		return missingFile(v.ahead)
	}
	for dir := range v.dropped {
		if err := r.removeEmpty(dir); err != nil {
			return err
		}
	}
	if err := r.verifyJournal(h); err != nil {
		return err
	}
	return r.verifyKeys()
}

func missingFile(f *File) error {
	return fmt.Errorf("%s is in the manifest and not in the backup", f.Path)
}

// verifier compares files with a manifest, both in its order.
type verifier struct {
	r       *restorer
	m       *manifestReader
	ahead   *File // the next of the manifest, nil at its end
	dropped map[string]bool
}

func (v *verifier) advance() (err error) {
	if v.ahead, err = v.m.next(); err == io.EOF {
		return nil
	}
	return err
}

func (v *verifier) file(d durable.Dir, name, at string) error {
	if _, ok := journal.FileNumber(name); path.Dir(at) == "journal" && !ok {
		return nil // the head
	}
	if v.ahead == nil || v.ahead.Path != at {
		if v.ahead != nil && before(v.ahead.Path, at) {
			return missingFile(v.ahead)
		}
		if len(v.r.headers) == 1 {
			return fmt.Errorf("%s is in the backup and not in its manifest", at)
		}
		v.dropped[path.Dir(at)] = true
		return d.Remove(name) // it was gone when the increment was made
	}
	f, err := d.Open(name)
	if err != nil {
		return fmt.Errorf("reading %s again: %w", at, err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return fmt.Errorf("reading %s again: %w", at, err)
	}
	if n != v.ahead.Size || hex.EncodeToString(sum.Sum(nil)) != v.ahead.SHA256 {
		return fmt.Errorf("%s is not as its manifest says: the backup is damaged, or this disk is", at)
	}
	v.r.report.Files++
	v.r.report.Bytes += n
	v.r.o.Progress("verified", v.r.report.Bytes)
	return v.advance()
}

// removeEmpty removes a directory from which files were dropped, if it is empty, and
// those above.
func (r *restorer) removeEmpty(p string) error {
	for ; path.Dir(p) != "."; p = path.Dir(p) {
		d, err := r.dir(path.Dir(p))
		if err != nil {
			return err
		}
		sub, err := d.Sub(path.Base(p))
		empty := true
		if err == nil {
			err = durable.Walk(sub, func(durable.Entry) error { empty = false; return nil })
			sub.Close()
			if err == nil && empty {
				err = d.RemoveDir(path.Base(p))
			}
		}
		d.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !empty {
			return nil
		}
	}
	return nil
}

func (r *restorer) verifyJournal(h *Header) error {
	d, err := r.root.Sub("journal")
	if err != nil {
		return err
	}
	defer d.Close()
	rep, err := journal.Verify(d, func(done, _ int64) { r.o.Progress("of the journal verified", done) })
	if err != nil {
		return fmt.Errorf("verifying the journal: %w", err)
	}
	if rep.Seq != h.Journal.Seq || rep.Last != h.Journal.SHA256 {
		return errors.New("the journal does not end where the backup says")
	}
	return nil
}

// verifyKeys loads each wallet and each data key, which compares the private key with
// the public one (of a data key, what can be seen without its passphrase). What is
// damaged was so when the backup was made, since its digest is right: it is told, and
// keeps nobody from the others.
func (r *restorer) verifyKeys() error {
	db, err := r.root.Sub("db")
	if err != nil {
		return err
	}
	defer db.Close()
	keys, err := keyfs.Open(db, keyfs.Options{Cache: 1})
	if err != nil {
		return fmt.Errorf("opening the keys: %w", err)
	}
	companies, err := r.companies()
	if err != nil {
		return err
	}
	dataKeys := datakey.Open(db, nil)
	for _, c := range companies {
		for _, kind := range []struct {
			dir   string
			count *int64
			load  func(id string) error
		}{
			{"wallets", &r.report.Wallets, func(id string) error {
				w, err := keys.Lookup(c, id)
				if err == nil && w.Address() != "" {
					var other *keyfs.Wallet
					if other, err = keys.ByAddress(c, w.Address()); err == nil && other.ID() != id {
						err = fmt.Errorf("wallet %s/%s: %w: %s", c, id, errAddress, w.Address())
					}
				}
				return err
			}},
			{"datakeys", &r.report.DataKeys, func(id string) error {
				_, err := dataKeys.Lookup(c, id)
				return err
			}},
		} {
			if err := r.loadAll(db, c, kind.dir, kind.count, kind.load); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadAll calls load for each name in a directory of a company, several at once.
func (r *restorer) loadAll(db durable.Dir, company, kind string, count *int64, load func(id string) error) error {
	d, err := durable.SubPath(db, "companies", company, kind)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	list, err := names(d, "db/companies/"+company+"/"+kind)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var fault error // the disk's
	ids := make(chan string)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for id := range ids {
				err := load(id)
				mu.Lock()
				*count++
				damaged := (*keyfs.Damaged)(nil)
				switch {
				case err == nil:
				case errors.As(err, &damaged), errors.Is(err, keyfs.ErrUnknown), errors.Is(err, keyfs.ErrInvalid), errors.Is(err, errAddress):
					r.report.Damaged = append(r.report.Damaged, err)
				default:
					fault = errors.Join(fault, err)
				}
				r.o.Progress("keys checked", r.report.Wallets+r.report.DataKeys)
				mu.Unlock()
			}
		})
	}
	for _, e := range list {
		ids <- e.Name
	}
	close(ids)
	wg.Wait()
	return fault
}

// errAddress: two wallets say that they have an address.
var errAddress = errors.New("its address is another wallet's")
