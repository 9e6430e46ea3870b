package datakey

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"

	"signdrop/keyfs"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// Spec says which data key to make.
type Spec struct {
	ID         string // see ValidID
	Name       string // see ValidName
	Passphrase []byte // see CheckPassphrase; the caller wipes it
}

// Create makes a data key, or finds the one that exists, which must have the same
// name and be opened by the passphrase. It returns when the key is durable. vol is
// the volume that db lies on. Making one takes seconds of processor; other calls
// go on meanwhile.
//
// Errors: keyfs.ErrInvalid, ErrUnknown (the company), ErrOther (the name), ErrFault,
// ErrRestart, ErrPassphrase (the key exists, and with another), *keyfs.Damaged; any
// other is the disk's.
func (s *Store) Create(company string, spec Spec, vol durable.FS) (*Key, error) {
	if err := checkNew(company, spec.ID, spec.Name); err != nil {
		return nil, err
	}
	if err := CheckPassphrase(spec.Passphrase); err != nil {
		return nil, err
	}
	same := func(k *Key) error {
		if k.rec.Name != spec.Name {
			return fmt.Errorf("data key %s has another name: %w", k, keyfs.ErrOther)
		}
		priv, err := k.unlock(spec.Passphrase)
		if err != nil {
			return err
		}
		wipe(priv)
		return nil
	}
	// Looked for before the work, and once more when nobody else may write.
	_, err := s.Lookup(company, spec.ID)
	if err == nil {
		return s.keep(company, spec.ID, nil, same, vol)
	}
	if !errors.Is(err, keyfs.ErrUnknown) {
		return nil, err
	}
	priv, err := s.generate()
	if err != nil {
		return nil, fmt.Errorf("making data key %s/%s: %w", company, spec.ID, err)
	}
	defer wipe(priv)
	text, err := lockKey(priv, spec.Passphrase, s.rounds)
	if err != nil {
		return nil, fmt.Errorf("making data key %s/%s: %w", company, spec.ID, err)
	}
	// What was encrypted with a key that nobody can open would be lost: it is
	// opened once, from the bytes that are written.
	again, err := unlockKey(text, spec.Passphrase)
	if err == nil && !again.PublicKey.Equal(&priv.PublicKey) {
		err = errors.New("it is another key")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the new data key %s/%s: %w: %w", company, spec.ID, keyfs.ErrFault, err)
	}
	wipe(again)
	f := &files{
		rec: record{ID: spec.ID, Name: spec.Name, PublicKey: encodePublic(&priv.PublicKey), Status: keyfs.StatusActive},
		key: text,
	}
	return s.keep(company, spec.ID, f, same, vol)
}

// ImportSpec says which data key to make of one that was made elsewhere.
type ImportSpec struct {
	ID, Name     string
	EncryptedPEM []byte // ENCRYPTED PRIVATE KEY: PBES2, AES-256-CBC, PBKDF2 with HMAC-SHA-1 or -SHA-256
	PublicPEM    []byte // its public key; known to be that only when the key is first opened
	Disabled     bool   // make it disabled
}

// Import takes a data key that was made elsewhere, under the passphrase that it
// has. The same id with the same key, name and encrypted bytes finds the key that
// exists, whatever its status is.
//
// Errors: those of Create, and ErrPrivateKey.
func (s *Store) Import(company string, spec ImportSpec, vol durable.FS) (*Key, error) {
	if err := checkNew(company, spec.ID, spec.Name); err != nil {
		return nil, err
	}
	text, pub, err := spec.parse()
	if err != nil {
		return nil, err
	}
	f := &files{
		rec: record{ID: spec.ID, Name: spec.Name, PublicKey: encodePublic(pub), Status: keyfs.StatusActive},
		key: text,
	}
	if spec.Disabled {
		f.rec.Status = keyfs.StatusDisabled
	}
	return s.keep(company, spec.ID, f, func(k *Key) error {
		old, err := k.sealed()
		if err != nil {
			return err
		}
		if k.rec.Name != f.rec.Name || k.rec.PublicKey != f.rec.PublicKey || !bytes.Equal(old, text) {
			return fmt.Errorf("data key %s is another one: %w", k, keyfs.ErrOther)
		}
		return nil
	}, vol)
}

// Check says why Import would not take the two keys: ErrPrivateKey, or nil.
func Check(spec ImportSpec) error {
	_, _, err := spec.parse()
	return err
}

func (spec ImportSpec) parse() (text []byte, pub *rsa.PublicKey, err error) {
	if text, err = canonical(spec.EncryptedPEM); err == nil {
		pub, err = parsePublic(spec.PublicPEM)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("data key %s: %w: %w", spec.ID, ErrPrivateKey, err)
	}
	return text, pub, nil
}

func checkNew(company, id, name string) error {
	if err := check(company, id); err != nil {
		return err
	}
	if !ValidName(name) {
		return fmt.Errorf("a name of up to %d bytes without control characters is wanted: %w", MaxName, keyfs.ErrInvalid)
	}
	return nil
}

// files is what a new key's directory holds.
type files struct {
	rec record
	key []byte
}

// keep returns the key with this id if it exists and same agrees; otherwise it
// makes it of f, durably.
func (s *Store) keep(company, id string, f *files, same func(*Key) error, vol durable.FS) (*Key, error) {
	s.write.Lock()
	defer s.write.Unlock()
	if s.stopped != nil {
		return nil, fmt.Errorf("%w (%w)", keyfs.ErrRestart, s.stopped)
	}
	comp, err := s.company(company)
	if err != nil {
		return nil, err
	}
	defer comp.Close()
	dir, err := durable.SubMake(comp, dirName, 0o700)
	if err != nil {
		// It may be seen and not be durable; with something in it, it stays.
		comp.RemoveDir(dirName)
		return nil, fmt.Errorf("making directory %s: %w", dirName, err)
	}
	defer dir.Close()

	k, err := s.Lookup(company, id)
	switch {
	case err == nil:
		if err := same(k); err != nil {
			return nil, err
		}
	case errors.Is(err, keyfs.ErrUnknown) && f != nil:
		if k, err = s.parse(company, id, f.rec.encode()); err != nil {
			return nil, fmt.Errorf("making data key %s/%s: %w: %w", company, id, keyfs.ErrFault, err)
		}
		sealed := *f
		if sealed.key, err = s.sealer.Seal(f.key, label(company, f.rec)); err != nil {
			return nil, fmt.Errorf("sealing data key %s/%s: %w", company, id, err)
		}
		if err := makeNew(dir, &sealed, vol); err != nil {
			remove(dir, f.rec.ID)
			return nil, fmt.Errorf("writing data key %s/%s: %w", company, id, err)
		}
	default:
		return nil, err
	}
	// Crash here: the key has its final name, and a power cut may take it back.
	// Nobody was told of it. Synced where it was found, too: a predecessor may
	// have been killed here.
	if err := dir.Sync(); err != nil {
		return nil, s.stop(fmt.Errorf("syncing the name of data key %s/%s: %w", company, id, err))
	}
	return k, nil
}

// company opens a company's directory.
func (s *Store) company(company string) (durable.Dir, error) {
	dir, err := durable.SubPath(s.db, "companies", company)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("company %s: %w", company, keyfs.ErrUnknown)
	case err != nil:
		return nil, fmt.Errorf("opening company %s: %w", company, err)
	}
	return dir, nil
}

// temp is the name under which a file or directory is made.
func temp(name string) string { return "." + name + ".new" }

// makeNew makes a key's directory, durable but for its final name.
//
// Crash: a temporary directory, which nobody has seen. Doing it again removes it
// first.
func makeNew(dir durable.Dir, f *files, vol durable.FS) error {
	id := f.rec.ID
	err := dir.Mkdir(temp(id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		if err = remove(dir, id); err == nil {
			err = dir.Mkdir(temp(id), 0o700)
		}
	}
	if err != nil {
		return err
	}
	d, err := dir.Sub(temp(id))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := durable.WriteNew(d, keyFile, 0o400, f.key); err != nil {
		return err
	}
	if err := durable.WriteNew(d, recordFile, 0o400, f.rec.encode()); err != nil {
		return err
	}
	if err := vol.Sync(); err != nil {
		return err
	}
	return dir.Move(temp(id), dir, id)
}

// remove removes a key's temporary directory. It is no error if there is none.
func remove(dir durable.Dir, id string) error {
	d, err := dir.Sub(temp(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for _, name := range []string{keyFile, recordFile} {
		if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return dir.RemoveDir(temp(id))
}

// label says what key.pem belongs to.
func label(company string, rec record) seal.Label {
	return seal.Label{Path: filePath(company, rec.ID, keyFile), Public: rec.PublicKey}
}

// sealed reads key.pem, which is sealed by its passphrase, and opens it where keys are
// sealed otherwise too.
func (k *Key) sealed() ([]byte, error) {
	dir, err := k.store.open(k.company, k.rec.ID)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	text, err := k.store.read(dir, k.company, k.rec.ID, keyFile, 0o077)
	if err != nil {
		return nil, err
	}
	plain, err := k.store.sealer.Open(text, label(k.company, k.rec))
	if err != nil {
		return nil, &keyfs.Damaged{File: filePath(k.company, k.rec.ID, keyFile), Problem: err.Error(), Remedy: restore}
	}
	return plain, nil
}

// unlock opens the private key. The caller wipes it.
func (k *Key) unlock(passphrase []byte) (*rsa.PrivateKey, error) {
	text, err := k.sealed()
	if err != nil {
		return nil, err
	}
	at := filePath(k.company, k.rec.ID, keyFile)
	priv, err := unlockKey(text, passphrase)
	if errors.Is(err, ErrPassphrase) {
		return nil, fmt.Errorf("data key %s: %w", k, err)
	}
	if err != nil {
		return nil, &keyfs.Damaged{File: at, Problem: err.Error(), Remedy: restore}
	}
	if !priv.PublicKey.Equal(k.pub) {
		wipe(priv)
		return nil, &keyfs.Damaged{File: at, Problem: "is not the key whose public key datakey.json holds", Remedy: "restore both together from the backup"}
	}
	return priv, nil
}
