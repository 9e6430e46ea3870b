package keyfs_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"os"
	"path/filepath"
	"testing"

	"signdrop/keyfs"
	"signdrop/spool/durable"
)

const company = "acme"

var allCurves = []keyfs.Curve{keyfs.P256, keyfs.P384, keyfs.P521, keyfs.Secp256k1}

// volume is a data volume with a db directory and one company, on the disk of
// the test's temporary directory.
type volume struct {
	t    testing.TB
	path string // of db
	fs   durable.FS
	disk durable.FS // fs, or what lies below it and never fails
}

func newVolume(t testing.TB) *volume {
	t.Helper()
	top := t.TempDir()
	must(t, os.Mkdir(filepath.Join(top, "db"), 0o700))
	must(t, os.MkdirAll(filepath.Join(top, "db/companies", company), 0o700))
	disk, err := durable.OpenDisk(top)
	must(t, err)
	t.Cleanup(func() { disk.Close() })
	return &volume{t, filepath.Join(top, "db"), disk, disk}
}

// newFaulty is newVolume on a file system that can be made to fail.
func newFaulty(t testing.TB) (*volume, *faultyFS) {
	v := newVolume(t)
	f := &faultyFS{FS: v.fs, uid: map[string]uint32{}}
	v.fs = f
	return v, f
}

func (v *volume) db() durable.Dir { v.t.Helper(); return openDB(v.t, v.fs) }

// openDB opens the db directory of a volume.
func openDB(t testing.TB, vol durable.FS) durable.Dir {
	t.Helper()
	root, err := vol.Root()
	must(t, err)
	defer root.Close()
	db, err := root.Sub("db")
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func (v *volume) open(o keyfs.Options) *keyfs.Store {
	v.t.Helper()
	s, err := keyfs.Open(v.db(), o)
	must(v.t, err)
	return s
}

// file returns the path of a file below db.
func (v *volume) file(elem ...string) string {
	return filepath.Join(append([]string{v.path}, elem...)...)
}

// inWallet returns the path of a wallet's file.
func (v *volume) inWallet(id, name string) string {
	return v.file("companies", company, "wallets", id, name)
}

// create makes one wallet.
func (v *volume) create(s *keyfs.Store, id string, c keyfs.Curve) *keyfs.Wallet {
	v.t.Helper()
	ws, err := s.Create(company, []keyfs.Spec{{ID: id, Curve: c}}, v.fs)
	must(v.t, err)
	return ws[0]
}

// put makes a wallet of given files, with the modes that they have on disk.
func (v *volume) put(id string, wallet, key []byte) {
	v.t.Helper()
	must(v.t, os.MkdirAll(v.inWallet(id, ""), 0o700))
	must(v.t, os.WriteFile(v.inWallet(id, "wallet.json"), wallet, 0o400))
	must(v.t, os.WriteFile(v.inWallet(id, "key.pem"), key, 0o400))
}

// rewrite changes the content of a file that is 0400.
func rewrite(t testing.TB, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, change(b), 0o400))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// digest hashes a message by the name of the hash function.
func digest(t testing.TB, hash, message string) []byte {
	t.Helper()
	switch hash {
	case "SHA-256":
		d := sha256.Sum256([]byte(message))
		return d[:]
	case "SHA-384":
		d := sha512.Sum384([]byte(message))
		return d[:]
	case "SHA-512":
		d := sha512.Sum512([]byte(message))
		return d[:]
	}
	t.Fatalf("no hash function %q", hash)
	return nil
}
