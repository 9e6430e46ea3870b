package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"filippo.io/age"

	"signdrop/spool/durable"
)

// Which files hold private keys, and beside which files, in whose public_key their
// public keys stand.
var (
	walletFiles  = []string{"key.pem"}
	dataKeyFiles = []string{"key.pem"}
)

const (
	walletRecord  = "wallet.json"
	dataKeyRecord = "datakey.json"

	identityFile = "identity.age"
	hostKeyFile  = "ssh_host_ed25519_key"
)

// Limits of files, in bytes.
const (
	maxRecord  = 64 << 10
	maxKeyFile = 64 << 10
)

// group is how many files are sealed with the same four syncs of the volume. Tests change
// it.
var group = 256

// keyFile is a file with a private key.
type keyFile struct {
	dir    []string // below db
	name   string
	record string // the file beside it that holds its public key; "" for none
}

func (f keyFile) path() string     { return path.Join(append(append([]string{}, f.dir...), f.name)...) }
func (f keyFile) fresh() string    { return "." + f.name + ".new" }
func (f keyFile) previous() string { return "." + f.name + ".old" }

// label reads what belongs to a file. d is its directory.
func (f keyFile) label(d durable.Dir) (Label, error) {
	l := Label{Path: f.path()}
	if f.record == "" {
		return l, nil
	}
	text, err := durable.ReadFile(d, f.record, maxRecord)
	if err != nil {
		return l, fmt.Errorf("reading the public key of %s: %w", l.Path, err)
	}
	if f.record == RecipientFile {
		l.Public = strings.TrimSuffix(string(text), "\n")
		return l, nil
	}
	var record struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal(text, &record); err != nil || record.PublicKey == "" {
		return l, fmt.Errorf("%s holds no public key: restore it from the backup, or move the folder out of db", path.Join(path.Dir(l.Path), f.record))
	}
	l.Public = record.PublicKey
	return l, nil
}

// files lists the files with private keys, and writes down the recipient of the
// appliance's identity where that is not done. It refuses a volume on which one of
// them is missing what belongs to it.
func (u *unlocking) files() ([]keyFile, error) {
	if u.list != nil {
		return u.list, nil
	}
	info, err := u.db.StatDir()
	if err == nil {
		err = checkOwner(info)
	}
	if err != nil {
		return nil, err
	}
	if err := u.noteRecipient(); err != nil {
		return nil, err
	}
	l := &lister{db: u.db}
	if err := l.add([]string{"appliance"}, []string{identityFile}, RecipientFile); err != nil {
		return nil, err
	}
	if err := l.add([]string{"appliance"}, []string{hostKeyFile}, ""); err != nil && !errors.Is(err, errNoFile) {
		return nil, err
	}
	companies, err := u.db.Sub("companies")
	if err != nil {
		return nil, fmt.Errorf("opening db/companies: %w", err)
	}
	defer companies.Close()
	err = durable.Walk(companies, func(e durable.Entry) error {
		if !e.Type.IsDir() || e.Name[0] == '.' {
			return nil
		}
		if err := l.addAll(companies, e.Name, "wallets", walletFiles, walletRecord); err != nil {
			return err
		}
		return l.addAll(companies, e.Name, "datakeys", dataKeyFiles, dataKeyRecord)
	})
	u.list = l.found
	return l.found, err
}

// CheckOwner refuses a volume whose keys belong to another user than the one that this
// runs as: the daemon could not read what would be sealed now.
func CheckOwner(root durable.Dir) error {
	info, err := root.Stat("db")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at db: %w (run signdrop init first)", err)
	}
	if err != nil {
		return fmt.Errorf("looking at db: %w", err)
	}
	return checkOwner(info)
}

func checkOwner(db durable.Info) error {
	if uid := uint32(os.Geteuid()); db.UID != uid {
		return fmt.Errorf("db belongs to uid %d and this runs as uid %d: run it as that user, or the daemon could not read what is sealed", db.UID, uid)
	}
	return nil
}

// noteRecipient writes the public half of an identity that lies in the clear.
//
// Crash: it is there whole or not at all, and nothing asks for it yet.
func (u *unlocking) noteRecipient() error {
	text, err := durable.ReadFile(u.appliance, identityFile, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) || Sealed(text) {
		return nil // then it was done before
	}
	if err != nil {
		return fmt.Errorf("reading db/appliance/%s: %w", identityFile, err)
	}
	defer clear(text)
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		// The error could quote the key.
		return fmt.Errorf("db/appliance/%s does not hold an age identity: restore it from the backup", identityFile)
	}
	want := []byte(id.Recipient().String() + "\n")
	if have, err := durable.ReadFile(u.appliance, RecipientFile, maxRecord); err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err := durable.ReplaceFile(u.appliance, RecipientFile, 0o400, want); err != nil {
		return fmt.Errorf("writing db/appliance/%s: %w", RecipientFile, err)
	}
	return nil
}

// errNoFile says that none of the files is there.
var errNoFile = errors.New("is missing: restore it from the backup, or move the folder out of db")

// lister finds files with private keys.
type lister struct {
	db    durable.Dir
	found []keyFile
}

// addAll adds the files in all directories below companies/company/kind, and removes
// directories that were never finished: a key in there was never shown to anybody.
func (l *lister) addAll(companies durable.Dir, company, kind string, names []string, record string) error {
	at := []string{"companies", company, kind}
	d, err := durable.SubPath(companies, company, kind)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has none yet
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", path.Join(at...), err)
	}
	defer d.Close()
	var ids, unfinished []string
	err = durable.Walk(d, func(e durable.Entry) error {
		switch {
		case !e.Type.IsDir():
		case e.Name[0] == '.':
			unfinished = append(unfinished, e.Name)
		default:
			ids = append(ids, e.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", path.Join(at...), err)
	}
	for _, name := range unfinished {
		if err := discard(d, name); err != nil {
			return fmt.Errorf("removing %s: %w", path.Join(append(at, name)...), err)
		}
	}
	for _, id := range ids {
		if err := l.add(append(at[:len(at):len(at)], id), names, record); err != nil {
			return err
		}
	}
	return nil
}

// add adds those of the files that are there, under whatever name a crash has left
// them. None is errNoFile.
func (l *lister) add(dir, names []string, record string) error {
	d, err := durable.SubPath(l.db, dir...)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path.Join(dir...), err)
	}
	defer d.Close()
	some := false
	for _, name := range names {
		f := keyFile{dir, name, record}
		there := false
		for _, n := range []string{f.name, f.previous()} {
			_, err := d.Stat(n)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("looking at %s: %w", f.path(), err)
			}
			there = there || err == nil
		}
		if !there {
			continue
		}
		if _, err := f.label(d); err != nil {
			return err
		}
		l.found, some = append(l.found, f), true
	}
	if !some {
		return fmt.Errorf("%s %w", path.Join(path.Join(dir...), names[0]), errNoFile)
	}
	return nil
}

// sealAll seals every file under the current volume key.
func (u *unlocking) sealAll() error {
	list, err := u.files()
	if err != nil {
		return err
	}
	u.result.Files = len(list)
	s := u.ring.sealer(u.keys, u.req.KEK)
	for done := 0; done < len(list); {
		part := list[done:min(done+group, len(list))]
		if err := u.sealSome(s, part); err != nil {
			return err
		}
		done += len(part)
		if u.req.Progress != nil {
			u.req.Progress(done, len(list))
		}
	}
	return nil
}

// sealSome seals a group of files.
//
// Crash: each file is as it was or sealed. Its bytes have their name or previous(), so
// that nothing but an unfinished sealing has lost them out of sight, and settle finds
// them. The bytes from before are wiped now or by settle.
func (u *unlocking) sealSome(s *Sealer, list []keyFile) error {
	each := func(list []keyFile, step string, do func(d durable.Dir, f keyFile) error) error {
		for _, f := range list {
			d, err := durable.SubPath(u.db, f.dir...)
			if err == nil {
				err = do(d, f)
				d.Close()
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", step, f.path(), err)
			}
		}
		if len(list) == 0 {
			return nil
		}
		if err := u.vol.Sync(); err != nil {
			return fmt.Errorf("syncing after %s %d key files: %w: start again", step, len(list), err)
		}
		return nil
	}
	var todo, wipe []keyFile
	err := each(list, "sealing", func(d durable.Dir, f keyFile) error {
		old, err := settle(s, d, f)
		if err != nil {
			return err
		}
		if old {
			wipe = append(wipe, f)
			return nil
		}
		again, err := u.sealOne(s, d, f)
		if again {
			todo = append(todo, f)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = each(todo, "renaming", func(d durable.Dir, f keyFile) error {
		if err := d.Move(f.name, d, f.previous()); err != nil {
			return err
		}
		return d.Move(f.fresh(), d, f.name)
	})
	if err != nil {
		return err
	}
	u.result.Sealed += len(todo)
	wipe = append(wipe, todo...)
	if err := each(wipe, "wiping", func(d durable.Dir, f keyFile) error { return wipeFile(d, f.previous()) }); err != nil {
		return err
	}
	return each(wipe, "removing what was before", func(d durable.Dir, f keyFile) error { return d.Remove(f.previous()) })
}

// settle puts right what a crash has left of an earlier sealing of the file. old says
// that the file is sealed and its previous bytes have to be wiped.
func settle(s *Sealer, d durable.Dir, f keyFile) (old bool, err error) {
	// What lacks its name is made anew.
	if err := d.Remove(f.fresh()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if _, err := d.Stat(f.previous()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	_, err = d.Stat(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, d.Move(f.previous(), d, f.name)
	}
	if err != nil {
		return false, err
	}
	// Before the previous bytes go, the others have to open.
	l, err := f.label(d)
	if err != nil {
		return false, err
	}
	text, err := durable.ReadFile(d, f.name, maxKeyFile)
	if err != nil {
		return false, err
	}
	plain, err := s.Open(text, l)
	clear(plain)
	if err != nil {
		return false, fmt.Errorf("it %w; %s beside it holds it as it was: rename that to %s", err, f.previous(), f.name)
	}
	return true, nil
}

// sealOne writes a file's sealed bytes as fresh(), unless they are sealed under the
// current volume key already.
func (u *unlocking) sealOne(s *Sealer, d durable.Dir, f keyFile) (todo bool, err error) {
	text, err := durable.ReadFile(d, f.name, maxKeyFile)
	if err != nil {
		return false, err
	}
	defer clear(text)
	l, err := f.label(d)
	if err != nil {
		return false, err
	}
	plain := text
	if Sealed(text) {
		if plain, err = s.Open(text, l); err != nil {
			return false, fmt.Errorf("it %w: restore it from the backup, or move the folder out of db", err)
		}
		defer clear(plain)
		if b, err := parse(text); err == nil && b.key == s.current {
			return false, nil
		}
	}
	sealed, err := s.Seal(plain, l)
	if err != nil {
		return false, err
	}
	return true, durable.WriteNew(d, f.fresh(), 0o400, sealed)
}

// discard removes a directory that was never finished, and wipes what is in it.
func discard(parent durable.Dir, name string) error {
	d, err := parent.Sub(name)
	if err != nil {
		return err
	}
	defer d.Close()
	var names []string
	err = durable.Walk(d, func(e durable.Entry) error {
		names = append(names, e.Name)
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := wipeFile(d, n); err != nil {
			return err
		}
		if err := d.Remove(n); err != nil {
			return err
		}
	}
	return parent.RemoveDir(name)
}

// wipeFile overwrites a file with zeros. It does not sync.
//
// Overwriting is the best that can be done through a file system. One that copies on
// write, a journal of data, a snapshot or the cells of an SSD may keep the old bytes.
func wipeFile(d durable.Dir, name string) error {
	f, err := openToWipe(d, name)
	if err != nil {
		return err
	}
	err = zero(f)
	return errors.Join(err, f.Close())
}

// openToWipe opens a file to be overwritten, whose mode may forbid that to its owner.
func openToWipe(d durable.Dir, name string) (durable.File, error) {
	f, err := d.OpenWrite(name)
	if !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	r, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if c, ok := r.(durable.Cutter); ok {
		if err := c.Chmod(0o600); err != nil {
			return nil, err
		}
	}
	return d.OpenWrite(name)
}

// zero overwrites a file's bytes.
func zero(f durable.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Nlink > 1 {
		return errors.New("it has another name elsewhere, by which it would stay readable: remove that name")
	}
	zeros := make([]byte, min(max(info.Size, 0), maxKeyFile))
	for off := int64(0); off < info.Size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), info.Size-off)], off); err != nil {
			return err
		}
	}
	return nil
}
