package keyfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/keyfs/hd"
)

// HD wallets: one file holds the master key of a tree (BIP-32), and the wallet signs
// with the keys below it. To Sign and to everything that asks for a public key it is
// no wallet like the others: it signs inputs of Bitcoin transactions only, see
// SignInput.

// kindHD is the kind of such a wallet in wallet.json. The others have none.
const kindHD = "hd"

// hdType is the PEM type of a master key: the 78 bytes that BIP-32 serialises it to.
const hdType = "BIP32 " + privateType

// hdKey is a master key. As a key it is that of the root, which signs nothing.
type hdKey struct {
	*secpKey
	master  *hd.Key
	network hd.Network

	mu     sync.Mutex
	public map[string]*hd.Public // what PublicAt was asked for last, by path
}

func newHDKey(master *hd.Key, n hd.Network) *hdKey {
	priv := master.Private()
	return &hdKey{secpKey: &secpKey{priv, priv.PubKey()}, master: master, network: n}
}

func (k *hdKey) sign(Scheme, []byte) ([]byte, error) { return nil, ErrHD }

// drawMaster makes a new master key of a seed of 256 bits, as BIP-32 advises.
func drawMaster(n hd.Network, random io.Reader) (key, error) {
	seed := make([]byte, 32)
	defer clear(seed)
	for range maxDraws {
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, err
		}
		if m, err := hd.Master(seed); err == nil {
			return newHDKey(m, n), nil
		}
	}
	return nil, errors.New("the source of randomness is broken")
}

// encodeHD writes a master key. The caller wipes it.
func encodeHD(k *hdKey) []byte {
	raw := k.master.Bytes(k.network)
	defer clear(raw)
	return encodePEM(hdType, raw)
}

// parseHD reads what encodeHD wrote. Regtest's keys are written as Test's, so the
// caller knows the network.
func parseHD(raw []byte) (*hdKey, error) {
	m, n, err := hd.ParseBytes(raw)
	if err != nil || !m.IsMaster() {
		return nil, errMaster
	}
	return newHDKey(m, n), nil
}

var errMaster = errors.New("is not the master key of a BIP-32 tree")

// sameKey reports whether two keys are the same, chain code and network included.
func sameKey(a, b key) bool {
	if a.curve() != b.curve() || !bytes.Equal(a.point(), b.point()) {
		return false
	}
	x, isX := hdOf(a)
	y, isY := hdOf(b)
	if isX != isY || !isX {
		return isX == isY
	}
	return x.network == y.network && x.xpub() == y.xpub()
}

// xpub is the public half of the master key.
func (k *hdKey) xpub() string { return k.master.Public().String(k.network) }

func hdOf(k key) (*hdKey, bool) {
	h, ok := k.(*hdKey)
	return h, ok
}

// HD reports whether the wallet is an HD wallet.
func (w *Wallet) HD() bool { return w.rec.Kind == kindHD }

// Network returns the network of an HD wallet, "" for others.
func (w *Wallet) Network() hd.Network { return w.rec.Network }

// Fingerprint returns that of an HD wallet's master key, as transactions name it.
func (w *Wallet) Fingerprint() hd.Fingerprint {
	f, _ := hd.ParseFingerprint(w.rec.Fingerprint)
	return f
}

// PublicAt returns the extended public key at a path below an HD wallet's master key.
// Errors: ErrHD for another wallet, hd.ErrUnusable.
func (w *Wallet) PublicAt(path hd.Path) (*hd.Public, error) {
	k, ok := hdOf(w.key)
	if !ok {
		return nil, fmt.Errorf("wallet %s: %w", w.id, ErrHD)
	}
	pub, err := k.publicAt(path)
	if err != nil {
		return nil, fmt.Errorf("wallet %s: key %s: %w", w.id, path, err)
	}
	return pub, nil
}

// maxPublic bounds what is remembered of each tree: the branches that transactions have
// their keys on are few.
const maxPublic = 16

func (k *hdKey) publicAt(path hd.Path) (*hd.Public, error) {
	name := path.String()
	k.mu.Lock()
	pub := k.public[name]
	k.mu.Unlock()
	if pub != nil {
		return pub, nil
	}
	d, err := k.master.Derive(path)
	if err != nil {
		return nil, err
	}
	defer d.Wipe()
	pub = d.Public()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.public == nil || len(k.public) >= maxPublic {
		k.public = map[string]*hd.Public{}
	}
	k.public[name] = pub
	return pub, nil
}

// Secp256k1Key returns the public key of a wallet with a single key on secp256k1.
// Errors: ErrHD, ErrCurve.
func (w *Wallet) Secp256k1Key() (*btcec.PublicKey, error) {
	if w.HD() {
		return nil, fmt.Errorf("wallet %s: %w", w.id, ErrHD)
	}
	if w.Curve() != Secp256k1 {
		return nil, fmt.Errorf("wallet %s is on %s: %w", w.id, w.Curve(), ErrCurve)
	}
	return btcec.ParsePubKey(w.key.point())
}

// InputScheme says how an input of a Bitcoin transaction is signed.
type InputScheme int

const (
	// InputECDSA makes a DER signature with the low s, without the byte of the
	// sighash type (BIP-62, BIP-143).
	InputECDSA InputScheme = iota

	// InputTapKey makes a Schnorr signature of 64 bytes with the output key: the
	// key that is named is the internal key, tweaked with Root (BIP-341).
	InputTapKey

	// InputTapScript makes a Schnorr signature with the key itself (BIP-342).
	InputTapScript
)

// Input says with which key of a wallet an input is signed.
type Input struct {
	Scheme InputScheme

	// Path leads from an HD wallet's master key to the key. A wallet with a single
	// key has none.
	Path hd.Path

	// Public is the key's public half as the transaction names it: 33 bytes, or 32
	// for taproot. With another key nothing is signed.
	Public []byte

	// Point is Public as a point, where somebody has made it of that already. It is
	// ErrInvalid if it is another.
	Point *btcec.PublicKey

	// Root is the root of the tree of scripts for InputTapKey, 32 bytes, nil for
	// none.
	Root []byte
}

// An InputSigner signs the inputs of one transaction with a wallet's keys. Those above
// them are held until Wipe. It is not for several goroutines at once.
type InputSigner struct {
	w       *Wallet
	parents map[string]*hd.Key // by path, without the last step
}

// maxParents bounds what an InputSigner holds: 100 branches are more than a
// transaction's keys lie on.
const maxParents = 100

// InputSigner returns a signer of inputs. The caller wipes it.
func (w *Wallet) InputSigner() *InputSigner {
	return &InputSigner{w: w, parents: map[string]*hd.Key{}}
}

// Wipe clears the keys that are held. The InputSigner can be used again.
func (s *InputSigner) Wipe() {
	for _, k := range s.parents {
		k.Wipe()
	}
	clear(s.parents)
}

// Sign signs the digest of an input, 32 bytes. The same wallet, input and digest
// always give the same bytes. It is checked as Wallet.Sign checks its own, against the
// public key that the transaction names.
//
// Errors: ErrCurve (not on secp256k1), ErrHD (a path and a single key, or none and a
// tree), ErrOther (Public is not the key's), ErrInvalid (Public or Root), ErrDisabled,
// hd.ErrUnusable, and ErrFault with no byte of the signature.
func (s *InputSigner) Sign(in Input, digest [32]byte) ([]byte, error) {
	sig, err := s.sign(in, digest)
	if err != nil {
		return nil, fmt.Errorf("signing with wallet %s: %w", s.w.id, err)
	}
	return sig, nil
}

func (s *InputSigner) sign(in Input, digest [32]byte) ([]byte, error) {
	w := s.w
	if !w.Active() {
		return nil, ErrDisabled
	}
	if w.store.isFaulty(w.id) {
		return nil, fmt.Errorf("it failed before: %w", ErrFault)
	}
	priv, err := s.private(in)
	if err != nil {
		return nil, err
	}
	defer priv.Zero()
	named, err := in.named()
	if err != nil {
		return nil, err
	}
	// A signature that verifies with the named key shows that the key is the one, so
	// that ECDSA, which needs no public key, does without computing it.
	var pub *btcec.PublicKey
	known := in.Scheme != InputECDSA || w.store.recheck != RecheckVerify
	if known {
		if pub = priv.PubKey(); !in.names(pub) {
			return nil, errNamed
		}
	}
	scheme := Schnorr
	switch in.Scheme {
	case InputECDSA:
		scheme = ECDSA
	case InputTapKey:
		priv = hd.TapPrivate(priv, in.Root)
		defer priv.Zero()
		pub, named = priv.PubKey(), hd.TapOutput(named, in.Root)
	}
	sig, ok := w.checked(&secpKey{priv, pub}, &secpPublic{named}, scheme, digest[:])
	if !ok && !known && !in.names(priv.PubKey()) {
		return nil, errNamed
	}
	if !ok {
		return nil, w.fault()
	}
	return sig, nil
}

var errNamed = fmt.Errorf("the key that the transaction names is another: %w", ErrOther)

// private is the private key of an input. The caller wipes it.
func (s *InputSigner) private(in Input) (*btcec.PrivateKey, error) {
	w := s.w
	if w.Curve() != Secp256k1 {
		return nil, fmt.Errorf("%w: it is %s, and Bitcoin needs secp256k1", ErrCurve, w.Curve())
	}
	k, isHD := hdOf(w.key)
	if isHD != (len(in.Path) > 0) {
		return nil, ErrHD
	}
	if !isHD {
		scalar := w.key.scalar()
		defer clear(scalar)
		priv, _ := btcec.PrivKeyFromBytes(scalar)
		return priv, nil
	}
	last := len(in.Path) - 1
	name := in.Path[:last].String()
	parent := s.parents[name]
	if parent == nil {
		var err error
		if parent, err = k.master.Derive(in.Path[:last]); err != nil {
			return nil, fmt.Errorf("key %s: %w", in.Path, err)
		}
		if len(s.parents) >= maxParents {
			s.Wipe()
		}
		s.parents[name] = parent
	}
	priv, err := parent.Child(in.Path[last])
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", in.Path, err)
	}
	return priv, nil
}

// named is the public key that the transaction names, of its bytes, or what has the same.
func (in *Input) named() (*btcec.PublicKey, error) {
	full := in.Public
	switch {
	case in.Scheme < InputECDSA || in.Scheme > InputTapScript:
		return nil, fmt.Errorf("scheme %d of an input: %w", in.Scheme, ErrInvalid)
	case in.Root != nil && (in.Scheme != InputTapKey || len(in.Root) != 32):
		return nil, fmt.Errorf("a root of %d bytes: %w", len(in.Root), ErrInvalid)
	case len(full) == 32 && in.Scheme != InputECDSA:
		full = append([]byte{2}, full...)
	case len(full) != 33:
		return nil, fmt.Errorf("a public key of %d bytes: %w", len(full), ErrInvalid)
	}
	if in.Point != nil {
		// Only numbers that are reduced are written as what they are.
		var p btcec.JacobianPoint
		in.Point.AsJacobian(&p)
		point := btcec.NewPublicKey(p.X.Normalize(), p.Y.Normalize())
		if !in.names(point) || !point.IsOnCurve() {
			return nil, fmt.Errorf("another point than the public key: %w", ErrInvalid)
		}
		return point, nil
	}
	named, err := btcec.ParsePubKey(full)
	if err != nil {
		return nil, fmt.Errorf("the key that the transaction names: %w", ErrInvalid)
	}
	return named, nil
}

// names reports whether pub is the key that the transaction names. Its y does not matter
// where the key is named by its x.
func (in *Input) names(pub *btcec.PublicKey) bool {
	got := pub.SerializeCompressed()
	return bytes.Equal(got[33-len(in.Public):], in.Public)
}
