// Package hd derives keys as Bitcoin's wallets do: master keys from seeds and words,
// child keys by paths, and from public keys the addresses and descriptors that people
// and other programs know them by. It knows no files and draws no randomness.
//
//	BIP-32   extended keys, their derivation and serialisation
//	BIP-39   words (English) and the seed that they stand for
//	BIP-44, 49, 84, 86   the path of an account for each form of address
//	BIP-341  the tweak of a taproot key
//	BIP-380 to 386, 389   descriptors
//
// # What it must not be used for
//
// The arithmetic on secp256k1 does not run in constant time, and what held a private
// key is wiped as far as Go allows, see package keyfs. No error holds a byte of what
// was parsed.
package hd

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/address/v2/base58"
	"github.com/btcsuite/btcd/btcec/v2"
)

// Network is one of Bitcoin's networks by the name that requests and wallet.json use.
type Network string

// The networks. Test is any of the public test networks: they share all that is here.
const (
	Main    Network = "main"
	Test    Network = "test"
	Regtest Network = "regtest"
)

// params are what differs between the networks: versions of BIP-32, prefixes of
// addresses and of WIF, the human-readable part of bech32 and the coin type of
// SLIP-44.
type params struct {
	public, private uint32
	pkh, sh, wif    byte
	hrp             string
	coin            uint32
}

var networks = map[Network]params{
	Main:    {0x0488b21e, 0x0488ade4, 0x00, 0x05, 0x80, "bc", 0},
	Test:    {0x043587cf, 0x04358394, 0x6f, 0xc4, 0xef, "tb", 1},
	Regtest: {0x043587cf, 0x04358394, 0x6f, 0xc4, 0xef, "bcrt", 1},
}

// Known reports whether n is one of the networks.
func (n Network) Known() bool {
	_, ok := networks[n]
	return ok
}

// Like reports whether keys of the two networks are written alike, which Test and
// Regtest are.
func (n Network) Like(m Network) bool { return networks[n].private == networks[m].private }

// Fingerprint is the first four bytes of the HASH160 of a compressed public key.
type Fingerprint [4]byte

// String is the fingerprint in hexadecimal, as descriptors have it.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// ParseFingerprint reads eight lower-case hexadecimal digits.
func ParseFingerprint(s string) (f Fingerprint, ok bool) {
	n, err := hex.Decode(f[:], []byte(s[:min(len(s), 8)]))
	return f, err == nil && n == 4 && f.String() == s
}

// place says where in its tree an extended key is.
type place struct {
	chain  [32]byte
	depth  byte
	parent Fingerprint
	index  uint32
}

// Key is an extended private key. It never changes but by Wipe.
type Key struct {
	place
	d   btcec.ModNScalar
	pub *btcec.PublicKey
}

// Public is an extended public key. It never changes.
type Public struct {
	place
	pub *btcec.PublicKey
}

// ErrUnusable: the tree has no key at this place, which BIP-32 allows for with a
// probability below 2^-127, or the seed gives no master key.
var ErrUnusable = errors.New("there is no key at this place of the tree")

// What is wrong with what was parsed.
var (
	errForm     = errors.New("it is not an extended key in base58 with a good checksum")
	errVersion  = errors.New("it is not an extended key of a network that is known")
	errPublic   = errors.New("it is an extended public key")
	errPrivate  = errors.New("it is an extended private key")
	errPlace    = errors.New("its depth, parent and index contradict each other")
	errNumber   = errors.New("its private number is not in the curve's range")
	errPoint    = errors.New("its public key is not a point of the curve")
	errHardened = errors.New("a hardened child needs the private key")
	errDeep     = errors.New("the path is longer than 255 steps")
)

// Master makes the master key of a seed of 16 to 64 bytes.
func Master(seed []byte) (*Key, error) {
	if len(seed) < 16 || len(seed) > 64 {
		return nil, errors.New("a seed has 16 to 64 bytes")
	}
	h := hmac.New(sha512.New, []byte("Bitcoin seed"))
	h.Write(seed)
	i := h.Sum(nil)
	defer clear(i)
	return newKey(i[:32], place{chain: [32]byte(i[32:])})
}

// newKey makes a key of a private number of 32 bytes.
func newKey(number []byte, at place) (*Key, error) {
	k := &Key{place: at}
	if over := k.d.SetByteSlice(number); over || k.d.IsZero() {
		return nil, ErrUnusable
	}
	k.pub = publicOf(&k.d)
	return k, nil
}

func publicOf(d *btcec.ModNScalar) *btcec.PublicKey {
	var p btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(d, &p)
	p.ToAffine()
	return btcec.NewPublicKey(&p.X, &p.Y)
}

// Derive returns the key at a path below this one. The error is ErrUnusable, but for
// a path that is too long.
func (k *Key) Derive(path Path) (*Key, error) {
	now := *k
	for n, i := range path {
		next, err := now.child(i)
		now.Wipe()
		if err != nil {
			return nil, err
		}
		if now.pub != nil {
			next.parent = fingerprint(now.pub)
		}
		now = *next
		next.Wipe()
		// The public half costs more than all the rest. It is the result's, names
		// the result's parent, and makes children that are not hardened.
		if n+2 >= len(path) || path[n+1] < Hardened {
			now.pub = publicOf(&now.d)
		}
	}
	return &now, nil
}

// child is CKDpriv of BIP-32, without the public half and the parent's fingerprint.
func (k *Key) child(i uint32) (*Key, error) {
	var data [37]byte
	defer clear(data[:])
	if i >= Hardened {
		b := k.d.Bytes()
		copy(data[1:], b[:])
		clear(b[:])
	} else {
		copy(data[:], k.pub.SerializeCompressed())
	}
	at, left, err := below(k.place, data[:], i)
	if err != nil {
		return nil, err
	}
	defer left.Zero()
	next := &Key{place: at}
	next.d.Add2(&left, &k.d)
	if next.d.IsZero() {
		return nil, ErrUnusable
	}
	return next, nil
}

// Child returns the private key of child i alone, which the caller wipes with Zero.
// The errors are those of Derive.
func (k *Key) Child(i uint32) (*btcec.PrivateKey, error) {
	c, err := k.child(i)
	if err != nil {
		return nil, err
	}
	defer c.Wipe()
	return c.Private(), nil
}

// Derive returns the public key at a path without hardened steps.
func (p *Public) Derive(path Path) (*Public, error) {
	for _, i := range path {
		at, sum, err := p.child(i)
		if err != nil {
			return nil, err
		}
		at.parent = fingerprint(p.pub)
		sum.ToAffine()
		p = &Public{at, btcec.NewPublicKey(&sum.X, &sum.Y)}
	}
	return p, nil
}

// child is CKDpub of BIP-32, without the parent's fingerprint and the inversion that
// makes coordinates of the point.
func (p *Public) child(i uint32) (at place, sum btcec.JacobianPoint, err error) {
	if i >= Hardened {
		return at, sum, errHardened
	}
	var data [37]byte
	copy(data[:], p.pub.SerializeCompressed())
	at, left, err := below(p.place, data[:], i)
	if err != nil {
		return at, sum, err
	}
	// point(left) + P
	var a, b btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(&left, &a)
	p.pub.AsJacobian(&b)
	btcec.AddNonConst(&a, &b, &sum)
	if sum.Z.IsZero() || sum.X.IsZero() && sum.Y.IsZero() {
		return at, sum, ErrUnusable
	}
	return at, sum, nil
}

// HasChild reports whether pub is the public key of child i, in a quarter less time than
// to derive that. With anyY the x coordinate tells, as in taproot.
func (p *Public) HasChild(i uint32, pub *btcec.PublicKey, anyY bool) bool {
	_, sum, err := p.child(i)
	if err != nil {
		return false
	}
	// The child is at (X/Z², Y/Z³).
	var want btcec.JacobianPoint
	var z btcec.FieldVal
	pub.AsJacobian(&want)
	z.SquareVal(&sum.Z)
	if !want.X.Mul(&z).Normalize().Equals(sum.X.Normalize()) {
		return false
	}
	z.Mul(&sum.Z)
	return anyY || want.Y.Mul(&z).Normalize().Equals(sum.Y.Normalize())
}

// below computes what CKDpriv and CKDpub share: the place of child i and the number
// that is added. data are the 33 bytes of the parent; i is appended here. The place
// does not name its parent yet.
func below(parent place, data []byte, i uint32) (at place, left btcec.ModNScalar, err error) {
	if parent.depth == 255 {
		return at, left, errDeep
	}
	binary.BigEndian.PutUint32(data[33:], i)
	h := hmac.New(sha512.New, parent.chain[:])
	h.Write(data)
	sum := h.Sum(nil)
	defer clear(sum)
	if over := left.SetByteSlice(sum[:32]); over {
		return at, left, ErrUnusable
	}
	return place{chain: [32]byte(sum[32:]), depth: parent.depth + 1, index: i}, left, nil
}

// Wipe clears the private number. The key must not be used any more.
func (k *Key) Wipe() { k.d.Zero() }

// Public returns the public half.
func (k *Key) Public() *Public { return &Public{k.place, k.pub} }

// Private returns the private key alone. The caller wipes it with Zero.
func (k *Key) Private() *btcec.PrivateKey { return btcec.PrivKeyFromScalar(&k.d) }

// Fingerprint is that of the key's public half.
func (k *Key) Fingerprint() Fingerprint { return fingerprint(k.pub) }

// IsMaster reports whether the key is the root of its tree.
func (k *Key) IsMaster() bool { return k.depth == 0 }

// Key is the public key alone.
func (p *Public) Key() *btcec.PublicKey { return p.pub }

// Fingerprint is that of the public key.
func (p *Public) Fingerprint() Fingerprint { return fingerprint(p.pub) }

func fingerprint(pub *btcec.PublicKey) Fingerprint {
	return Fingerprint(address.Hash160(pub.SerializeCompressed())[:4])
}

// size is the length of a serialised extended key without its checksum, in bytes.
const size = 78

func (at *place) bytes(version uint32, key []byte) []byte {
	b := make([]byte, 0, size+4) // room for the checksum: no copy is left behind
	b = binary.BigEndian.AppendUint32(b, version)
	b = append(b, at.depth)
	b = append(b, at.parent[:]...)
	b = binary.BigEndian.AppendUint32(b, at.index)
	b = append(b, at.chain[:]...)
	return append(b, key...)
}

// Bytes is the key as BIP-32 serialises it, 78 bytes, without a checksum. The caller
// wipes it.
func (k *Key) Bytes(n Network) []byte {
	var key [33]byte
	defer clear(key[:])
	d := k.d.Bytes()
	defer clear(d[:])
	copy(key[1:], d[:])
	return k.place.bytes(networks[n].private, key[:])
}

// String is the public key in base58, xpub… or tpub….
func (p *Public) String(n Network) string {
	return check58(p.place.bytes(networks[n].public, p.pub.SerializeCompressed()))
}

// check58 is base58 with a checksum.
func check58(b []byte) string {
	sum := doubleSum(b)
	return base58.Encode(append(b, sum[:]...))
}

func doubleSum(b []byte) [4]byte {
	h := sha256.Sum256(b)
	h = sha256.Sum256(h[:])
	return [4]byte(h[:4])
}

// decode58 reads what check58 writes, in the one form there is.
func decode58(s string) ([]byte, bool) {
	if len(s) > 120 {
		return nil, false
	}
	b := base58.Decode(s)
	if len(b) < 5 || base58.Encode(b) != s {
		clear(b)
		return nil, false
	}
	n := len(b) - 4
	if doubleSum(b[:n]) != [4]byte(b[n:]) {
		clear(b)
		return nil, false
	}
	return b[:n], true
}

// Parse reads an extended private key in base58, xprv… or tprv…. The network is Main
// or Test; Regtest's are written like Test's.
func Parse(text string) (*Key, Network, error) {
	b, ok := decode58(text)
	if !ok || len(b) != size {
		clear(b)
		return nil, "", errForm
	}
	defer clear(b)
	return ParseBytes(b)
}

// ParseBytes reads what Bytes wrote.
func ParseBytes(b []byte) (*Key, Network, error) {
	at, n, private, err := parsePlace(b)
	if err != nil {
		return nil, "", err
	}
	if !private {
		return nil, "", errPublic
	}
	if b[45] != 0 {
		return nil, "", errNumber
	}
	k, err := newKey(b[46:], at)
	if err != nil {
		return nil, "", errNumber
	}
	return k, n, nil
}

// ParsePublic reads an extended public key in base58.
func ParsePublic(text string) (*Public, Network, error) {
	b, ok := decode58(text)
	if !ok || len(b) != size {
		clear(b)
		return nil, "", errForm
	}
	at, n, private, err := parsePlace(b)
	if err != nil {
		return nil, "", err
	}
	if private {
		clear(b)
		return nil, "", errPrivate
	}
	if b[45] != 2 && b[45] != 3 {
		return nil, "", errPoint
	}
	pub, err := btcec.ParsePubKey(b[45:])
	if err != nil {
		return nil, "", errPoint
	}
	return &Public{at, pub}, n, nil
}

func parsePlace(b []byte) (at place, n Network, private bool, err error) {
	if len(b) != size {
		return at, "", false, errForm
	}
	switch binary.BigEndian.Uint32(b) {
	case networks[Main].private:
		n, private = Main, true
	case networks[Main].public:
		n = Main
	case networks[Test].private:
		n, private = Test, true
	case networks[Test].public:
		n = Test
	default:
		return at, "", false, errVersion
	}
	at = place{chain: [32]byte(b[13:45]), depth: b[4], parent: Fingerprint(b[5:9]), index: binary.BigEndian.Uint32(b[9:])}
	if at.depth == 0 && (at.parent != Fingerprint{} || at.index != 0) {
		return at, "", false, errPlace
	}
	return at, n, private, nil
}

// ParseWIF reads a private key in the wallet import format, for a compressed public
// key. It returns the private number, 32 bytes, which the caller wipes. The network is
// Main or Test.
func ParseWIF(text string) (number []byte, n Network, err error) {
	b, ok := decode58(text)
	if !ok || len(b) != 33 && len(b) != 34 {
		clear(b)
		return nil, "", errors.New("it is not a private key in WIF with a good checksum")
	}
	defer clear(b)
	switch b[0] {
	case networks[Main].wif:
		n = Main
	case networks[Test].wif:
		n = Test
	default:
		return nil, "", errVersion
	}
	if len(b) == 33 {
		return nil, "", errors.New("it is the key of an uncompressed public key, which is not supported")
	}
	if b[33] != 1 {
		return nil, "", errors.New("it is not a private key in WIF")
	}
	var d btcec.ModNScalar
	defer d.Zero()
	if over := d.SetByteSlice(b[1:33]); over || d.IsZero() {
		return nil, "", errNumber
	}
	return bytes.Clone(b[1:33]), n, nil
}

// IsExtended reports whether a text is meant as an extended key.
func IsExtended(text string) bool {
	return len(text) > 4 && strings.Contains("xprv tprv yprv zprv uprv vprv xpub tpub ypub zpub upub vpub", text[:4])
}
