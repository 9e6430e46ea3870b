package keyfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"signdrop/keyfs/hd"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// Wallet is a key that was loaded and checked. It never changes: Bind, Rebind
// and SetStatus return another Wallet. It is safe for concurrent use.
type Wallet struct {
	store  *Store
	id     walletID
	rec    record
	key    key
	public public // made anew from the public key, for the check of signatures
}

// ID returns the wallet's id, which is unique in its company.
func (w *Wallet) ID() string { return w.id.id }

// Curve returns the curve of the wallet's key.
func (w *Wallet) Curve() Curve { return w.rec.Curve }

// Address returns the ledger's address that the wallet is bound to, or "".
func (w *Wallet) Address() string { return w.rec.Address }

// Active reports whether the wallet may sign.
func (w *Wallet) Active() bool { return w.rec.Status == statusActive }

// NotAfter returns the time until which the wallet is meant to sign, in UTC and
// whole seconds, or the zero Time if it has no end. Sign does not look at it:
// whoever decides what may be signed does.
func (w *Wallet) NotAfter() time.Time { return w.rec.notAfter() }

// PublicPEM returns the public key as SubjectPublicKeyInfo in PEM.
func (w *Wallet) PublicPEM() string { return w.rec.PublicKey }

func (w *Wallet) addressID() walletID { return walletID{w.id.company, w.rec.Address} }

// record is the content of wallet.json.
type record struct {
	ID          string     `json:"id"`
	Kind        string     `json:"kind,omitempty"`    // "hd", or "" for a single key
	Network     hd.Network `json:"network,omitempty"` // of an HD wallet
	Curve       Curve      `json:"curve"`
	PublicKey   string     `json:"public_key"`            // PEM; only what equals the key's own is accepted
	Fingerprint string     `json:"fingerprint,omitempty"` // of an HD wallet's master key, and likewise
	XPub        string     `json:"xpub,omitempty"`        // its extended public key
	Status      string     `json:"status"`
	NotAfter    string     `json:"not_after,omitempty"`
	Address     string     `json:"address,omitempty"`
}

const (
	statusActive   = "active"
	statusDisabled = "disabled"
)

// notAfter is the zero Time if there is none.
func (r record) notAfter() time.Time {
	t, _ := parseNotAfter(r.NotAfter)
	return t
}

// timeForm is RFC 3339 in UTC, without fractions of a second: the one way in
// which not_after is written.
const timeForm = "2006-01-02T15:04:05Z"

// parseNotAfter reads what formatNotAfter wrote. ok is false for anything else.
func parseNotAfter(s string) (t time.Time, ok bool) {
	if s == "" {
		return time.Time{}, true
	}
	t, err := time.Parse(timeForm, s)
	if err != nil {
		return time.Time{}, false
	}
	again, err := formatNotAfter(t)
	return t, err == nil && again == s
}

// formatNotAfter writes a time as wallet.json holds it, "" for the zero Time.
func formatNotAfter(t time.Time) (string, error) {
	if t.IsZero() {
		return "", nil
	}
	t = t.UTC()
	// Four digits for the year, and no time that is a mistake.
	if t.Year() < 1970 || t.Year() > 9999 {
		return "", fmt.Errorf("not_after in the year %d: %w", t.Year(), ErrInvalid)
	}
	return t.Format(timeForm), nil
}

func (r record) encode() []byte {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic("internal error: encoding wallet.json: " + err.Error())
	}
	return append(b, '\n')
}

// parseRecord reads what encode wrote, byte for byte. The error completes a
// sentence that begins with the file's name.
func parseRecord(text []byte) (record, error) {
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("is not the JSON of a wallet (%s)", strings.TrimPrefix(err.Error(), "json: "))
	}
	switch {
	case !ValidID(r.ID):
		return record{}, errors.New("has an id that is not one")
	case !r.Curve.Known():
		return record{}, errors.New("has a curve that is not known")
	case r.Kind != "" && r.Kind != kindHD:
		return record{}, errors.New("has a kind that is not known")
	case r.Kind == "" && (r.Network != "" || r.Fingerprint != "" || r.XPub != ""),
		r.Kind == kindHD && (!r.Network.Known() || r.Curve != Secp256k1 || !validFingerprint(r.Fingerprint)):
		return record{}, errors.New("has a network or fingerprint that does not fit its kind")
	case r.Status != statusActive && r.Status != statusDisabled:
		return record{}, errors.New("has a status that is neither active nor disabled")
	case !validNotAfter(r.NotAfter):
		return record{}, errors.New("has a not_after that is not a time in UTC and whole seconds")
	case r.Address != "" && !ValidAddress(r.Address):
		return record{}, errors.New("has an address that is not one")
	}
	// A field twice, in another case or order, null, bytes after the end.
	if !bytes.Equal(r.encode(), text) {
		return record{}, errors.New("is not in the form in which it was written")
	}
	return r, nil
}

func validFingerprint(s string) bool {
	_, ok := hd.ParseFingerprint(s)
	return ok
}

func validNotAfter(s string) bool {
	_, ok := parseNotAfter(s)
	return ok
}

// Lookup returns the wallet with this id. Its files are read if it is not in
// memory. Errors: ErrInvalid, ErrUnknown, *Damaged; any other is the disk's.
func (s *Store) Lookup(company, id string) (*Wallet, error) {
	name := walletID{company, id}
	if w, ok := s.cache.get(name); ok {
		return w, nil
	}
	if err := checkID(company, id); err != nil {
		return nil, err
	}
	read := s.cache.now()
	w, err := s.load(name)
	if err != nil {
		return nil, err
	}
	return s.cache.add(w, read), nil
}

// ByAddress returns the wallet that is bound to this address. Errors as Lookup.
func (s *Store) ByAddress(company, address string) (*Wallet, error) {
	if w, ok := s.cache.byAddress(walletID{company, address}); ok {
		return w, nil
	}
	if err := checkAddress(company, address); err != nil {
		return nil, err
	}
	dir, err := durable.SubPath(s.db, "companies", company, "addresses")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("address %s/%s: %w", company, address, ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the addresses of company %s: %w", company, err)
	}
	defer dir.Close()
	id, err := s.readClaim(dir, company, address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("address %s/%s: %w", company, address, ErrUnknown)
	}
	if err != nil {
		return nil, err
	}
	w, err := s.Lookup(company, id)
	if errors.Is(err, ErrUnknown) {
		return nil, &Damaged{addressPath(company, address), "names a wallet that does not exist", restoreFolder}
	}
	if err != nil {
		return nil, err
	}
	switch w.Address() {
	case address:
	case "":
		return nil, fmt.Errorf("address %s/%s, whose binding was begun and not finished: %w", company, address, ErrUnknown)
	default:
		return nil, fmt.Errorf("address %s/%s, whose wallet has another: %w", company, address, ErrUnknown)
	}
	s.cache.bind(w)
	return w, nil
}

func checkID(company, id string) error {
	if !ValidCompany(company) {
		return fmt.Errorf("company %q: %w", company, ErrInvalid)
	}
	if !ValidID(id) {
		return fmt.Errorf("wallet id %q: %w", id, ErrInvalid)
	}
	return nil
}

func checkAddress(company, address string) error {
	if !ValidCompany(company) {
		return fmt.Errorf("company %q: %w", company, ErrInvalid)
	}
	if !ValidAddress(address) {
		return fmt.Errorf("address %q: %w", address, ErrInvalid)
	}
	return nil
}

// What to do about damage.
const (
	restoreKey    = "restore it from the backup; a key cannot be made again"
	restoreWallet = "restore it from the backup"
	restoreBoth   = "restore wallet.json and key.pem together from the backup"
	restoreFolder = "restore the folder of that wallet from the backup"
)

// load reads and checks a wallet's two files.
func (s *Store) load(name walletID) (*Wallet, error) {
	at := walletPath(name.company, name.id)
	dir, err := openWallet(s.db, name, "companies", name.company, "wallets", name.id)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	wallet, err := s.read(dir, walletFile, at+"/"+walletFile, 0o022, restoreWallet)
	if err != nil {
		return nil, err
	}
	key, err := s.readKey(dir, name, keyFile, wallet)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return s.parse(name, wallet, key)
}

// readKey reads a file of a wallet that holds a secret, and opens it where keys are
// sealed. wallet is the content of the wallet's wallet.json. The caller wipes the
// result.
func (s *Store) readKey(dir durable.Dir, name walletID, file string, wallet []byte) ([]byte, error) {
	at := walletPath(name.company, name.id, file)
	text, err := s.read(dir, file, at, 0o077, restoreKey)
	if err != nil {
		return nil, err
	}
	label := seal.Label{Path: at}
	if s.sealer != nil {
		rec, err := parseRecordOf(name, wallet)
		if err != nil {
			return nil, err
		}
		label.Public = rec.PublicKey
	}
	plain, err := s.sealer.Open(text, label)
	if err != nil {
		return nil, &Damaged{at, err.Error(), restoreKey}
	}
	return plain, nil
}

// sealKey returns what is written to a file of a wallet that holds a secret. Where
// keys are not sealed that is the secret itself.
func (s *Store) sealKey(name walletID, file, publicKey string, secret []byte) ([]byte, error) {
	return s.sealer.Seal(secret, seal.Label{Path: walletPath(name.company, name.id, file), Public: publicKey})
}

// openWallet opens a wallet's directory, which lies at path below d.
func openWallet(d durable.Dir, name walletID, path ...string) (durable.Dir, error) {
	dir, err := durable.SubPath(d, path...)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("wallet %s: %w", name, ErrUnknown)
	case errors.Is(err, durable.ErrNotRegular):
		return nil, &Damaged{walletPath(name.company, name.id), "or a folder above it is not a plain folder",
			"restore the folder from the backup"}
	case err != nil:
		return nil, fmt.Errorf("opening wallet %s: %w", name, err)
	}
	return dir, nil
}

// readRecord reads a wallet's wallet.json alone, below the company's directory.
func (s *Store) readRecord(comp durable.Dir, name walletID) (record, error) {
	dir, err := openWallet(comp, name, "wallets", name.id)
	if err != nil {
		return record{}, err
	}
	defer dir.Close()
	at := walletPath(name.company, name.id, walletFile)
	text, err := s.read(dir, walletFile, at, 0o022, restoreWallet)
	if err != nil {
		return record{}, err
	}
	return parseRecordOf(name, text)
}

// parseRecordOf reads the wallet.json of the wallet with this name.
func parseRecordOf(name walletID, text []byte) (record, error) {
	at := walletPath(name.company, name.id, walletFile)
	rec, err := parseRecord(text)
	if err != nil {
		return record{}, &Damaged{at, err.Error(), restoreWallet}
	}
	if rec.ID != name.id {
		return record{}, &Damaged{at, "belongs to the wallet " + rec.ID, restoreWallet}
	}
	return rec, nil
}

// read reads a file of db, which at names in messages. It must be a regular
// file of ours or root's, with none of the mode bits in deny.
func (s *Store) read(dir durable.Dir, file, at string, deny fs.FileMode, restore string) ([]byte, error) {
	f, err := dir.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Damaged{at, "is missing", restore}
	case errors.Is(err, durable.ErrNotRegular):
		return nil, &Damaged{at, "is not a regular file", restore}
	case errors.Is(err, fs.ErrPermission):
		return nil, &Damaged{at, "may not be read by this program",
			fmt.Sprintf("chown it to uid %d and chmod 0400", s.euid)}
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w", at, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", at, err)
	}
	if d := s.checkAccess(at, info, deny, "0400"); d != nil {
		return nil, d
	}
	if info.Size > maxFile {
		return nil, &Damaged{at, "is larger than it can be", restore}
	}
	b, err := durable.ReadAll(f, info.Size)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", at, err)
	}
	return b, nil
}

// parse makes a wallet of the bytes of its two files, and refuses them unless
// they belong together and to this name.
func (s *Store) parse(name walletID, wallet, keyText []byte) (*Wallet, error) {
	keyAt := walletPath(name.company, name.id, keyFile)
	rec, err := parseRecordOf(name, wallet)
	if err != nil {
		return nil, err
	}
	k, err := parseKey(keyText)
	if err != nil {
		return nil, &Damaged{keyAt, err.Error(), restoreKey}
	}
	h, isHD := hdOf(k)
	if isHD != (rec.Kind == kindHD) {
		return nil, &Damaged{keyAt, "is a key of another kind than wallet.json says", restoreBoth}
	}
	if k.curve() != rec.Curve {
		return nil, &Damaged{keyAt, fmt.Sprintf("is a key on %s, and wallet.json says %s", k.curve(), rec.Curve), restoreBoth}
	}
	if encodePublic(k) != rec.PublicKey {
		return nil, &Damaged{keyAt, "is not the key whose public key wallet.json holds", restoreBoth}
	}
	if isHD {
		if !h.network.Like(rec.Network) {
			return nil, &Damaged{keyAt, "is a key of another network than wallet.json says", restoreBoth}
		}
		h.network = rec.Network // nobody else has this key yet
		if h.xpub() != rec.XPub || h.master.Fingerprint().String() != rec.Fingerprint {
			return nil, &Damaged{keyAt, "is not the key whose xpub and fingerprint wallet.json holds", restoreBoth}
		}
	}
	public, err := newPublic(k.curve(), k.point())
	if err != nil {
		return nil, fmt.Errorf("wallet %s: %w: %w", name, ErrFault, err)
	}
	return &Wallet{s, name, rec, k, public}, nil
}
