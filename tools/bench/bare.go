package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"golang.org/x/sys/unix"

	"signdrop/keyfs"
)

// The curves and rechecks of the table.
var (
	curves   = []keyfs.Curve{keyfs.P384, keyfs.P256, keyfs.Secp256k1}
	rechecks = []keyfs.Recheck{keyfs.RecheckVerify, keyfs.RecheckRepeat, keyfs.RecheckOff}
)

var errWrong = errors.New("the bare signer made a wrong signature")

// bareSigner is the library's signer with nothing around it: it signs a digest, and
// checks the signature as the recheck says.
func bareSigner(c keyfs.Curve, r keyfs.Recheck) (func() error, error) {
	var sign func() ([]byte, error)
	var verify func(sig []byte) bool
	switch c {
	case keyfs.Secp256k1:
		key, err := btcec.NewPrivateKey()
		if err != nil {
			return nil, err
		}
		digest := sha256.Sum256([]byte("bench"))
		sign = func() ([]byte, error) { return secp.Sign(key, digest[:]).Serialize(), nil }
		verify = func(sig []byte) bool {
			s, err := secp.ParseDERSignature(sig)
			return err == nil && s.Verify(digest[:], key.PubKey())
		}
	default:
		curve := map[keyfs.Curve]elliptic.Curve{keyfs.P256: elliptic.P256(), keyfs.P384: elliptic.P384()}[c]
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			return nil, err
		}
		digest := sha512.Sum384([]byte("bench")) // what Metacoin signs, on either curve
		sign = func() ([]byte, error) { return key.Sign(nil, digest[:], crypto.SHA384) }
		verify = func(sig []byte) bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) }
	}
	return func() error {
		sig, err := sign()
		good := err == nil
		switch {
		case !good:
		case r == keyfs.RecheckVerify:
			good = verify(sig)
		case r == keyfs.RecheckRepeat:
			again, err := sign()
			good = err == nil && bytes.Equal(again, sig)
		}
		if !good {
			return errors.Join(errWrong, err)
		}
		return nil
	}, nil
}

// used adds up processor time and what was done in it.
type used struct{ user, system, done float64 }

// each is the processor time for one, in microseconds, and of that in the kernel.
func (u *used) each() (all, system float64) {
	if u.done == 0 {
		return 0, 0
	}
	return (u.user + u.system) / u.done * 1e6, u.system / u.done * 1e6
}

// during adds what f, which says how much it did, uses of this process's time.
func (u *used) during(f sampler, done func() float64) sampler {
	return func() (float64, error) {
		user, system := processorTime()
		rate, err := f()
		userAfter, systemAfter := processorTime()
		u.user += userAfter - user
		u.system += systemAfter - system
		u.done += done()
		return rate, err
	}
}

// add adds what a measured process reports.
func (u *used) add(r report, done uint64) {
	u.user += r.User
	u.system += r.System
	u.done += float64(done)
}

// signer samples the bare signer on all processors.
func (b *bench) signer(c keyfs.Curve, r keyfs.Recheck) (sampler, *used, error) {
	sign, err := bareSigner(c, r)
	if err != nil {
		return nil, nil, err
	}
	sample, u := b.sampler(sign)
	return sample, u, nil
}

// sampler samples one signer on all processors.
func (b *bench) sampler(sign func() error) (sampler, *used) {
	last := 0.0
	u := &used{}
	return u.during(func() (float64, error) {
		var (
			wg   sync.WaitGroup
			done atomic.Int64
			bad  atomic.Bool
		)
		start := time.Now()
		end := start.Add(b.bareTime())
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				n := int64(0)
				for ; time.Now().Before(end); n++ {
					if err := sign(); err != nil {
						bad.Store(true)
						return
					}
				}
				done.Add(n)
			})
		}
		wg.Wait()
		if bad.Load() {
			return 0, errWrong
		}
		last = float64(done.Load())
		return last / time.Since(start).Seconds(), nil
	}, func() float64 { return last }), u
}

func (b *bench) bareTime() time.Duration { return time.Duration(b.sizes.bare) * time.Millisecond }

// The bare disk's files: as many as a group of the appliance has, and about as
// large as an answer.
const (
	groupSize = 64
	fileSize  = 2048
)

// bareDisk samples how many small files a second the disk makes durable with one
// thread that does nothing else: 64 files written, one syncfs, 64 renames, one fsync
// of the directory.
func (b *bench) bareDisk() (float64, error) {
	dir, err := b.scratch()
	if err != nil {
		return 0, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	fd := int(d.Fd())
	content := bytes.Repeat([]byte("x"), fileSize)
	start := time.Now()
	n := 0
	for time.Since(start) < b.bareTime() {
		for i := range groupSize {
			if err := writeAt(fd, fmt.Sprintf("t%d", i), content); err != nil {
				return 0, err
			}
		}
		if err := unix.Syncfs(fd); err != nil {
			return 0, err
		}
		for i := range groupSize {
			if err := unix.Renameat(fd, fmt.Sprintf("t%d", i), fd, fmt.Sprintf("f%d", n+i)); err != nil {
				return 0, err
			}
		}
		if err := unix.Fsync(fd); err != nil {
			return 0, err
		}
		n += groupSize
	}
	// Nothing is removed before the end of the run: an ext4 without a journal passes
	// over inodes that were freed in the last minutes, one by one, at each creation.
	return float64(n) / time.Since(start).Seconds(), nil
}

func writeAt(dir int, name string, content []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if n, err := unix.Write(fd, content); err != nil || n != len(content) {
		unix.Close(fd)
		return errors.Join(err, errors.New("short write"))
	}
	return unix.Close(fd)
}

// bareAnswer is how long the disk alone takes to make one answer visible, in
// milliseconds: a file written, one syncfs, one rename.
func (b *bench) bareAnswer(n int) ([]float64, error) {
	return b.timed(n, func(fd, i int, content []byte) error {
		if err := writeAt(fd, "t", content); err != nil {
			return err
		}
		if err := unix.Syncfs(fd); err != nil {
			return err
		}
		return unix.Renameat(fd, "t", fd, fmt.Sprintf("f%d", i))
	})
}

// timed times n calls of step on an empty directory, in milliseconds.
func (b *bench) timed(n int, step func(fd, i int, content []byte) error) ([]float64, error) {
	dir, err := b.scratch()
	if err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	content := bytes.Repeat([]byte("x"), fileSize)
	out := make([]float64, 0, n)
	for i := range n {
		start := time.Now()
		if err := step(int(d.Fd()), i, content); err != nil {
			return nil, err
		}
		out = append(out, milliseconds(time.Since(start)))
	}
	return out, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// scratch makes an empty directory.
func (b *bench) scratch() (string, error) {
	return os.MkdirTemp(b.dir, "scratch-")
}

// clean removes everything temporary. It is called before the first measurement and
// after the last.
func (b *bench) clean() error {
	for _, pattern := range []string{"scratch-*", "volume-*"} {
		names, err := filepath.Glob(filepath.Join(b.dir, pattern))
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := os.RemoveAll(n); err != nil {
				return err
			}
		}
	}
	return nil
}

func signerRow(c keyfs.Curve, r keyfs.Recheck) string { return fmt.Sprintf("signer/%s/%s", c, r) }

// signers measures the bare signers.
func (b *bench) signers(only string) error {
	for _, c := range curves {
		for _, r := range rechecks {
			name := signerRow(c, r)
			if !wanted(name, only) {
				continue
			}
			sample, u, err := b.signer(c, r)
			if err != nil {
				return err
			}
			m, err := b.interleave(b.sizes.rounds, sample)
			if err != nil {
				return err
			}
			row := &Row{Name: name, Rate: m.rate, Unit: "signatures"}
			row.CPU, row.System = u.each()
			b.add(row)
		}
	}
	return nil
}

// disk measures the bare disk.
func (b *bench) disk(string) error {
	m, err := b.interleave(b.sizes.rounds, b.bareDisk)
	if err != nil {
		return err
	}
	b.add(&Row{Name: "disk", Rate: m.rate, Unit: "files", Syncs: 1.0 / groupSize,
		Note: "groups of 64 files of 2 KiB: write, one syncfs, rename, one fsync of the directory"})
	return nil
}

// fsync measures how long the disk takes for one small durable write.
func (b *bench) fsync(string) error {
	ms, err := b.timed(b.sizes.drops, func(fd, i int, content []byte) error {
		if i == 0 {
			if err := writeAt(fd, "f", nil); err != nil {
				return err
			}
		}
		f, err := unix.Openat(fd, "f", unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(f)
		if _, err := unix.Write(f, content); err != nil {
			return err
		}
		return unix.Fsync(f)
	})
	if err != nil {
		return err
	}
	b.add(&Row{Name: "fsync", P50: median(ms), P99: quantile(ms, 0.99), Note: "2 KiB appended to a file and synced"})
	return nil
}
