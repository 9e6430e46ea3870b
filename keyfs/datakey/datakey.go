// Package datakey keeps RSA keys with which a company encrypts data of its own, and
// decrypts it again with a passphrase that the appliance never stores.
//
// # On disk
//
//	db/companies/<company>/datakeys/<id>/     0700, made on demand
//	    ├── datakey.json                      0400
//	    └── key.pem                           0400
//
// datakey.json holds what is public:
//
//	{
//	  "id": "K_…",
//	  "name": "customers",
//	  "public_key": "-----BEGIN PUBLIC KEY-----\n…",
//	  "status": "active"
//	}
//
// key.pem is the private key, RSA of 4096 bits, as PKCS#8 under the passphrase (an
// "ENCRYPTED PRIVATE KEY", RFC 5958): PBES2 with AES-256-CBC and PBKDF2
// (RFC 8018). New ones use HMAC-SHA-256 and 600,000 rounds; those that walletKMS
// made, with fewer rounds or HMAC-SHA-1, are kept as they came. openssl pkcs8 and
// openssl rsa open both.
//
// # What it promises
//
// Create, Import and SetStatus return a key only when it is durable, and never make
// a second one under an id. What they did not finish is finished by doing it again. Whether
// a passphrase is right is known only by opening the key with it: a wrong one is
// ErrPassphrase, whatever it was. What does not decrypt is ErrCiphertext, without a
// reason. No error holds a byte of a key, a passphrase or a text.
//
// # What it must not be used for
//
// Opening a key costs a good part of a second of processor on purpose, and nothing
// here limits how often somebody tries: the caller asks a Guard first.
//
// The private key is wiped after use as far as Go allows: crypto/rsa keeps copies,
// a passphrase is copied into a string on the way through crypto/pbkdf2, and the
// collector may have moved neither. No swap, no core dumps.
//
// One process at a time may use a db directory.
package datakey

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"unicode/utf8"

	"signdrop/keyfs"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// Errors beside those of keyfs that this package uses for the same things:
// keyfs.ErrInvalid, ErrUnknown, ErrOther, ErrDisabled, ErrFault, ErrRestart, and
// *keyfs.Damaged.
var (
	// ErrPassphrase: the passphrase does not open the key.
	ErrPassphrase = errors.New("the passphrase does not open the data key")

	// ErrCiphertext: this is not a ciphertext of this key and algorithm.
	ErrCiphertext = errors.New("this cannot be decrypted with this data key")

	// ErrTooLong: the text does not fit into one block of RSA.
	ErrTooLong = fmt.Errorf("the text is longer than %d bytes: encrypt it as a JWE", MaxText)

	// ErrPrivateKey: what was to be imported is not an encrypted private key, and
	// a public key, in forms that this package takes.
	ErrPrivateKey = errors.New("the data key cannot be imported")
)

// Bits is the size of every data key.
const Bits = 4096

// MaxName is the length of a name, in bytes.
const MaxName = 200

// Limits of a passphrase, in characters.
const (
	MinPassphrase = 8
	MaxPassphrase = 128
)

// Store is the data keys below one db directory. Its methods may be called by
// several goroutines.
type Store struct {
	db     durable.Dir
	euid   uint32
	sealer *seal.Sealer // nil for key files without sealing

	// For tests: making a key takes seconds, and minutes under an emulator.
	generate func() (*rsa.PrivateKey, error)
	rounds   int

	write   sync.Mutex // held while files are made or changed
	stopped error      // the failed sync behind keyfs.ErrRestart; guarded by write
}

// Open takes a db directory, which keyfs.Open has checked. The caller keeps the
// handle open as long as it uses the Store. s seals key.pem, which is encrypted under
// its passphrase anyhow; nil where keys are not sealed.
func Open(db durable.Dir, s *seal.Sealer) *Store {
	return &Store{
		db:       db,
		sealer:   s,
		euid:     uint32(os.Geteuid()),
		generate: func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, Bits) },
		rounds:   newRounds,
	}
}

// ValidID reports whether id may name a data key: K_ and 30 hexadecimal digits in
// lower case.
func ValidID(id string) bool {
	digits, ok := strings.CutPrefix(id, "K_")
	if !ok || len(digits) != 30 {
		return false
	}
	return strings.Trim(digits, "0123456789abcdef") == ""
}

// ValidName reports whether name may be a key's name, which is for people: up to
// MaxName bytes of UTF-8 without control characters. It may be empty.
func ValidName(name string) bool {
	return len(name) <= MaxName && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 })
}

// CheckPassphrase refuses a passphrase that is too short or too long to be one, or
// not UTF-8. The error is keyfs.ErrInvalid.
func CheckPassphrase(passphrase []byte) error {
	if n := utf8.RuneCount(passphrase); n < MinPassphrase || n > MaxPassphrase || !utf8.Valid(passphrase) {
		return fmt.Errorf("the passphrase has to have %d to %d characters in UTF-8: %w", MinPassphrase, MaxPassphrase, keyfs.ErrInvalid)
	}
	return nil
}

// Key is a data key whose public half was loaded and checked. It never changes,
// and is safe for concurrent use.
type Key struct {
	store   *Store
	company string
	rec     record
	pub     *rsa.PublicKey
}

// ID returns the key's id, which is unique in its company.
func (k *Key) ID() string { return k.rec.ID }

// Name returns what the key was called when it was made.
func (k *Key) Name() string { return k.rec.Name }

// Active reports whether the key may be used.
func (k *Key) Active() bool { return k.rec.Status == keyfs.StatusActive }

// PublicPEM returns the public key as SubjectPublicKeyInfo in PEM.
func (k *Key) PublicPEM() string { return k.rec.PublicKey }

// String names the key, for messages.
func (k *Key) String() string { return k.company + "/" + k.rec.ID }

// record is the content of datakey.json.
type record struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	PublicKey string `json:"public_key"` // PEM, as encodePublic writes it
	Status    string `json:"status"`
}

func (r record) encode() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic("internal error: encoding datakey.json: " + err.Error())
	}
	return append(b, '\n')
}

// parseRecord reads what encode wrote, byte for byte. The error completes a
// sentence that begins with the file's name.
func parseRecord(text []byte) (record, *rsa.PublicKey, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, nil, fmt.Errorf("is not the JSON of a data key (%s)", strings.TrimPrefix(err.Error(), "json: "))
	}
	switch {
	case !ValidID(r.ID):
		return record{}, nil, errors.New("has an id that is not one")
	case !ValidName(r.Name):
		return record{}, nil, errors.New("has a name that is not one")
	case r.Status != keyfs.StatusActive && r.Status != keyfs.StatusDisabled:
		return record{}, nil, errors.New("has a status that is neither active nor disabled")
	}
	pub, err := parsePublic([]byte(r.PublicKey))
	if err != nil {
		return record{}, nil, errors.New("has a public key that is not one")
	}
	if !bytes.Equal(r.encode(), text) || encodePublic(pub) != r.PublicKey {
		return record{}, nil, errors.New("is not in the form in which it was written")
	}
	return r, pub, nil
}

// Names of files in db.
const (
	dirName    = "datakeys"
	recordFile = "datakey.json"
	keyFile    = "key.pem"
)

// maxFile is more than any file of this package holds before it is sealed, in bytes.
const maxFile = 16 << 10

const restore = "restore it from the backup"

func filePath(company, id string, file ...string) string {
	return path.Join(append([]string{"companies", company, dirName, id}, file...)...)
}

func check(company, id string) error {
	if !keyfs.ValidCompany(company) {
		return fmt.Errorf("company %q: %w", company, keyfs.ErrInvalid)
	}
	if !ValidID(id) {
		return fmt.Errorf("data key id %q: %w", id, keyfs.ErrInvalid)
	}
	return nil
}

// Lookup returns the data key with this id. Errors: keyfs.ErrInvalid, ErrUnknown,
// *keyfs.Damaged; any other is the disk's.
func (s *Store) Lookup(company, id string) (*Key, error) {
	if err := check(company, id); err != nil {
		return nil, err
	}
	dir, err := s.open(company, id)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	text, err := s.read(dir, company, id, recordFile, 0o022)
	if err != nil {
		return nil, err
	}
	return s.parse(company, id, text)
}

func (s *Store) parse(company, id string, text []byte) (*Key, error) {
	at := filePath(company, id, recordFile)
	rec, pub, err := parseRecord(text)
	if err != nil {
		return nil, &keyfs.Damaged{File: at, Problem: err.Error(), Remedy: restore}
	}
	if rec.ID != id {
		return nil, &keyfs.Damaged{File: at, Problem: "belongs to the data key " + rec.ID, Remedy: restore}
	}
	return &Key{s, company, rec, pub}, nil
}

// open opens a key's directory.
func (s *Store) open(company, id string) (durable.Dir, error) {
	dir, err := durable.SubPath(s.db, "companies", company, dirName, id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("data key %s/%s: %w", company, id, keyfs.ErrUnknown)
	case errors.Is(err, durable.ErrNotRegular):
		return nil, &keyfs.Damaged{File: filePath(company, id), Problem: "or a folder above it is not a plain folder", Remedy: "restore the folder from the backup"}
	case err != nil:
		return nil, fmt.Errorf("opening data key %s/%s: %w", company, id, err)
	}
	return dir, nil
}

// read reads a key's file: a regular file of ours or root's, with none of the mode
// bits in deny.
func (s *Store) read(dir durable.Dir, company, id, file string, deny fs.FileMode) ([]byte, error) {
	at := filePath(company, id, file)
	damaged := func(problem, remedy string) error {
		return &keyfs.Damaged{File: at, Problem: problem, Remedy: remedy}
	}
	f, err := dir.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, damaged("is missing", restore)
	case errors.Is(err, durable.ErrNotRegular):
		return nil, damaged("is not a regular file", restore)
	case errors.Is(err, fs.ErrPermission):
		return nil, damaged("may not be read by this program", fmt.Sprintf("chown it to uid %d and chmod 0400", s.euid))
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w", at, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking at %s: %w", at, err)
	case info.Mode.Perm()&deny != 0:
		return nil, damaged(fmt.Sprintf("is open to others (mode %04o)", info.Mode.Perm()), "find out who could use it, then chmod 0400")
	case info.UID != s.euid && info.UID != 0:
		return nil, damaged(fmt.Sprintf("belongs to uid %d", info.UID), fmt.Sprintf("chown it to uid %d, which this program runs as", s.euid))
	case info.Size > seal.MaxSize(maxFile):
		return nil, damaged("is larger than it can be", restore)
	}
	b, err := durable.ReadAll(f, info.Size)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", at, err)
	}
	return b, nil
}
