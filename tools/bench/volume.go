package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"signdrop/appliance/testbed"
	"signdrop/keyfs"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// company is the partner of all measurements.
const company = "acme"

// volume is a data volume with one partner, and the partner's side of it.
type volume struct {
	dir     string
	disk    *durable.Disk
	root    durable.Dir
	partner *testbed.Partner
	sealer  *seal.Sealer // nil for keys in the clear
	dropped int          // requests so far, which numbers them
}

// newVolume makes a data volume. The caller closes it; clean removes it.
func (b *bench) newVolume() (*volume, error) {
	b.volumes++
	v := &volume{dir: filepath.Join(b.dir, fmt.Sprintf("volume-%d", b.volumes)), partner: testbed.NewPartner(company)}
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if v.disk, err = durable.OpenDisk(v.dir); err != nil {
		return nil, err
	}
	if v.root, err = v.disk.Root(); err != nil {
		v.disk.Close()
		return nil, err
	}
	if err := testbed.Setup(v.root, v.partner); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *volume) close() {
	v.root.Close()
	v.disk.Close()
}

// makeWallets makes n wallets and returns their ids.
func (v *volume) makeWallets(c keyfs.Curve, n int) ([]string, error) {
	db, err := v.root.Sub("db")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	store, err := keyfs.Open(db, keyfs.Options{Sealer: v.sealer})
	if err != nil {
		return nil, err
	}
	specs := make([]keyfs.Spec, n)
	ids := make([]string, n)
	for i := range specs {
		ids[i] = fmt.Sprintf("W_%030x", i)
		specs[i] = keyfs.Spec{ID: ids[i], Curve: c}
	}
	_, err = store.Create(company, specs, v.disk)
	return ids, err
}

// maker writes the request with a reference that no other has.
type maker func(reference string) []byte

// requestFor makes one request that a wallet on the curve can sign.
func requestFor(c keyfs.Curve, wallet string) maker {
	if c == keyfs.Secp256k1 {
		// Metacoin takes no such keys.
		return func(reference string) []byte { return testbed.DataRequest(wallet, reference) }
	}
	return func(reference string) []byte { return testbed.Transfer(wallet, reference) }
}

// fill drops n signed requests, each a file, and makes them durable, so that their
// writing is not the appliance's work.
func (v *volume) fill(n int, request maker) error {
	inbox, err := v.inbox()
	if err != nil {
		return err
	}
	defer inbox.Close()
	first := v.dropped
	v.dropped += n
	var (
		wg   sync.WaitGroup
		next atomic.Int64
		mu   sync.Mutex
		errs []error
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				name := fmt.Sprintf("pay-%08d", first+int(i))
				if err := v.drop(inbox, name+".json", request(name)); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errors.Join(errs...), v.disk.Sync())
}

// drop writes a request and its signature into the inbox of an appliance that does
// not look at present.
func (v *volume) drop(inbox durable.Dir, name string, data []byte) error {
	if err := durable.WriteNew(inbox, name+".sig", 0o600, v.partner.Sign(data)); err != nil {
		return err
	}
	return durable.WriteNew(inbox, name, 0o600, data)
}

// fillBatch drops one batch of n requests.
func (v *volume) fillBatch(n int, request maker) error {
	inbox, err := v.inbox()
	if err != nil {
		return err
	}
	defer inbox.Close()
	var data []byte
	for i := range n {
		data = append(data, request(fmt.Sprintf("run-%08d-%05d", v.dropped, i))...)
	}
	v.dropped++
	if err := v.drop(inbox, fmt.Sprintf("run-%08d.jsonl", v.dropped), data); err != nil {
		return err
	}
	return v.disk.Sync()
}

func (v *volume) inbox() (durable.Dir, error) {
	return durable.SubPath(v.root, "spool", company, "inbox")
}

// chill makes the kernel forget what it has in memory of the files in a directory,
// so that they are read as after a restart of the machine.
func (v *volume) chill(dir string) error {
	names, err := filepath.Glob(filepath.Join(v.dir, dir, "*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
