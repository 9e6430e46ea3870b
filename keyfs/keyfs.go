// Package keyfs keeps the keys of wallets as plain files: it makes them, finds
// them, binds them to a ledger's address and signs with them. It knows nothing
// of requests, transactions or the spool, and decides nothing about who may
// sign what: its caller does.
//
// # On disk
//
// Everything lies below one directory, whose handle the caller opens:
//
//	db/                                       0700, ours or root's
//	└── companies/<company>/                  made by the caller
//	    ├── wallets/<id>/                     0700, made on demand
//	    │   ├── wallet.json                   0400
//	    │   └── key.pem                       0400
//	    └── addresses/<address>               0400, the wallet's id and a newline
//
// key.pem is PKCS#8 (RFC 5958, version 0) in PEM, for secp256k1 too, which
// OpenSSL reads and Go's crypto/x509 does not; that of an HD wallet is the master key of
// a BIP-32 tree. wallet.json holds what is public:
//
//	{
//	  "id": "W_…",
//	  "kind": "hd",
//	  "network": "main",
//	  "curve": "P-384",
//	  "public_key": "-----BEGIN PUBLIC KEY-----\n…",
//	  "fingerprint": "73c5da0a",
//	  "xpub": "xpub661My…",
//	  "status": "active",
//	  "not_after": "2027-12-31T23:59:59Z",
//	  "address": "MT…"
//	}
//
// kind, network, fingerprint and xpub are those of an HD wallet, whose public_key is
// that of its master key; other wallets have none of them. status is "active" or
// "disabled"; not_after is left out of a wallet without an
// end, and address until the wallet is bound. Both files are read strictly: what is read would be written with the
// same bytes, and anything else is damage. The file under addresses finds a
// wallet by its address with one open. It counts only if the wallet says the same:
// where a crash left a file whose wallet has another address, it is as good as
// not there, and is replaced or removed when it is in the way.
//
// # What it promises
//
// Create, Import, Bind, Rebind and SetStatus return what they made only when it is
// durable. An id that exists already is never made a second time. What they did
// not finish, because a call failed or the machine stopped, is finished by doing
// it again. A wallet that has its final name is never changed but for its address
// and status, and never removed. No error holds a byte of a key.
//
// Signatures are deterministic (RFC 6979, and BIP-340 with a fixed auxiliary
// value), so that the same request gives the same bytes. See Wallet.Sign.
//
// # What it must not be used for
//
// Without Options.Sealer the key files are in the clear. Only the file system below
// protects them then: the memory and the disk of a protected guest (see
// ProtectedGuest). Keys in use are in memory in either case.
// The arithmetic on secp256k1 does not run in constant time.
//
// One process at a time may use a db directory; while it runs, nobody else
// changes files there.
package keyfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// Errors that callers test for with errors.Is. See also Damaged.
var (
	// ErrInvalid: an id, company, address or curve is not of its form.
	ErrInvalid = fmt.Errorf("not of its form (%w)", fs.ErrInvalid)

	// ErrUnknown: the company, or its wallet, does not exist.
	ErrUnknown = fmt.Errorf("no such wallet or company (%w)", fs.ErrNotExist)

	// ErrCurve: the wallet exists on another curve than the one asked for, or
	// the scheme cannot be used on its curve.
	ErrCurve = errors.New("the wallet is on another curve")

	// ErrDigest: the digest does not have a length that the scheme signs.
	ErrDigest = errors.New("the digest has the wrong length")

	// ErrOther: a wallet with this id exists, and is not the one that was asked
	// for: it has another key or another not_after.
	ErrOther = errors.New("the id belongs to another wallet")

	// ErrPrivateKey: what was to be imported is not a private key in a form that
	// ParsePrivateKey takes.
	ErrPrivateKey = errors.New("the private key cannot be imported")

	// ErrBound: the wallet has another address, or another wallet has the
	// address.
	ErrBound = errors.New("bound already")

	// ErrHD: the wallet is an HD wallet and signs inputs of transactions only, or it
	// is none and has no keys at paths.
	ErrHD = errors.New("what is asked for is not done with a wallet of this kind")

	// ErrDisabled: the wallet's status forbids signing.
	ErrDisabled = errors.New("the wallet is disabled")

	// ErrFault: a signature or a new key did not pass its check, so the
	// processor or the memory is at fault. The wallet is not used again by this
	// process.
	ErrFault = errors.New("a computation gave a wrong result: the machine may be faulty")

	// ErrRestart: a sync failed after names had changed, so nobody knows what
	// the disk holds. This Store makes and binds nothing more. The program has
	// to be started again; syncing again would prove nothing.
	ErrRestart = errors.New("what the disk holds is not known since a sync failed: start the program again")
)

// Damaged says that a file is not as this package left it. The operator must
// act; asking again does not help.
type Damaged struct {
	File    string // slash-separated, relative to the db directory; "db" for that directory itself
	Problem string // what is wrong with it, to be read after the name
	Remedy  string // what to do
}

func (d *Damaged) Error() string { return d.File + " " + d.Problem + ": " + d.Remedy }

// DefaultCache is the number of wallets held in memory unless Options say
// otherwise; a wallet takes about 2 KiB.
const DefaultCache = 4096

// Options are what a caller may choose.
type Options struct {
	// Cache is how many wallets are held in memory, those used last. 0 means
	// DefaultCache.
	Cache int

	// Recheck is how a signature is checked before it leaves Sign.
	Recheck Recheck

	// Rand is where new keys come from; nil means crypto/rand. It must be as
	// good: whoever can predict it has the keys. One goroutine at a time reads
	// from it.
	Rand io.Reader

	// Sealer seals the key files; nil keeps them in the clear.
	Sealer *seal.Sealer
}

// Store is the wallets below one db directory. All its methods may be called by
// several goroutines.
type Store struct {
	db      durable.Dir
	recheck Recheck
	random  io.Reader
	euid    uint32
	cache   *cache
	bitcoin bitcoinIndexes
	sealer  *seal.Sealer // nil for keys in the clear

	write   sync.Mutex // held by whatever changes files, from beginning to end
	stopped error      // the failed sync behind ErrRestart; guarded by write

	// Wallets of which a signature failed its check. anyFault spares the
	// signing path the lock as long as there is none.
	anyFault atomic.Bool
	faultMu  sync.Mutex
	faulty   map[walletID]bool
}

// walletID names a wallet, or with an address in place of the id what is bound
// to it.
type walletID struct{ company, id string }

func (i walletID) String() string { return i.company + "/" + i.id }

// Open takes the db directory as its own and checks that nobody else may enter
// it. It reads no wallet, so that it costs the same for none and for 100,000.
// The caller keeps the handle open as long as it uses the Store.
//
// A predecessor that was killed may have left names that can be seen, and that a
// power cut would still take back; a Create in another goroutine does for a
// moment. The caller calls durable.FS.Sync between looking a wallet up and
// showing anything that was made with it, as it does to record each answer.
func Open(db durable.Dir, o Options) (*Store, error) {
	if o.Cache < 0 {
		return nil, fmt.Errorf("cache of %d wallets: %w", o.Cache, ErrInvalid)
	}
	if o.Cache == 0 {
		o.Cache = DefaultCache
	}
	if o.Recheck < RecheckVerify || o.Recheck > RecheckOff {
		return nil, fmt.Errorf("recheck %d: %w", o.Recheck, ErrInvalid)
	}
	random := rand.Reader
	if o.Rand != nil {
		random = &oneAtATime{r: o.Rand}
	}
	s := &Store{
		db:      db,
		recheck: o.Recheck,
		random:  random,
		euid:    uint32(os.Geteuid()),
		cache:   newCache(o.Cache),
		sealer:  o.Sealer,
		faulty:  map[walletID]bool{},
	}
	info, err := db.StatDir()
	if err != nil {
		return nil, fmt.Errorf("looking at the key directory: %w", err)
	}
	if d := s.checkAccess("db", info, 0o077, "0700"); d != nil {
		return nil, d
	}
	if err := seal.CheckPlain(db, s.sealer); err != nil {
		return nil, err
	}
	return s, nil
}

// oneAtATime is a reader for several goroutines.
type oneAtATime struct {
	mu sync.Mutex
	r  io.Reader
}

func (o *oneAtATime) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.r.Read(p)
}

// checkAccess reports a file that others may use in a way that deny forbids, or
// that is not ours. want is the mode to give it, for the remedy.
func (s *Store) checkAccess(file string, info durable.Info, deny fs.FileMode, want string) *Damaged {
	switch {
	case info.Mode.Perm()&deny != 0:
		return &Damaged{file, fmt.Sprintf("is open to others (mode %04o)", info.Mode.Perm()),
			"find out who could use it, then chmod " + want}
	case info.UID != s.euid && info.UID != 0:
		return &Damaged{file, fmt.Sprintf("belongs to uid %d", info.UID),
			fmt.Sprintf("chown it to uid %d, which this program runs as", s.euid)}
	}
	return nil
}

// stop makes err the reason for ErrRestart. The caller holds s.write.
func (s *Store) stop(err error) error {
	s.stopped = err
	return fmt.Errorf("%w (%w)", ErrRestart, err)
}

// ready returns ErrRestart after a failed sync. The caller holds s.write.
func (s *Store) ready() error {
	if s.stopped != nil {
		return fmt.Errorf("%w (%w)", ErrRestart, s.stopped)
	}
	return nil
}

// company opens a company's directory.
func (s *Store) company(company string) (durable.Dir, error) {
	dir, err := durable.SubPath(s.db, "companies", company)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("company %s: %w", company, ErrUnknown)
	case err != nil:
		return nil, fmt.Errorf("opening company %s: %w", company, err)
	}
	return dir, nil
}

// subMake opens a directory below a company's and makes it where it is missing.
// If that fails halfway, a directory could stay that is visible but not
// durable, and the next call would take it for a good one: so it is removed
// again, which the kernel refuses if anything lies in it.
func subMake(parent durable.Dir, name string) (durable.Dir, error) {
	dir, err := durable.SubMake(parent, name, 0o700)
	if err != nil {
		parent.RemoveDir(name)
		return nil, fmt.Errorf("making directory %s: %w", name, err)
	}
	return dir, nil
}

// Names of files in db.
const (
	walletFile = "wallet.json"
	keyFile    = "key.pem"
)

// maxFile is more than any file of this package holds, in bytes.
const maxFile = 4096

func walletPath(company, id string, file ...string) string {
	return path.Join(append([]string{"companies", company, "wallets", id}, file...)...)
}

func addressPath(company, address string) string {
	return path.Join("companies", company, "addresses", address)
}
