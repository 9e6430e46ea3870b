package bitcoin

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"
)

// Key is a public key with its origin, as a PSBT states it (BIP-32). Nobody has
// checked that the one belongs to the other.
type Key struct {
	Public      []byte   // 33 bytes; 32 (the x coordinate) in Taproot; 65 is possible for others' keys
	Fingerprint [4]byte  // of the master key
	Path        []uint32 // from the master key; hardened steps have the top bit

	// Point is Public as a point. Keys that were asked for have it: a key is written
	// as half a point, and the other half takes a square root.
	Point *btcec.PublicKey
}

const hardened = 1 << 31

// Origin writes the origin as descriptors do: d34db33f/84h/0h/0h/0/5.
func (k Key) Origin() string {
	var b strings.Builder
	b.WriteString(hex.EncodeToString(k.Fingerprint[:]))
	for _, step := range k.Path {
		fmt.Fprintf(&b, "/%d", step&^hardened)
		if step&hardened != 0 {
			b.WriteByte('h')
		}
	}
	return b.String()
}

// Limits of a path: coins on others would be hard to find again, so nobody may say
// that they are ours.
const (
	maxSteps = 10
	MaxIndex = 1_000_000 // the last step is below
)

// Near reports whether the path of a key is within the limits.
func (k Key) Near() bool {
	n := len(k.Path)
	return n > 0 && n <= maxSteps && k.Path[n-1] < MaxIndex
}

// owns asks for a key and gives it its point. What is no point, or written with both of
// its halves, is none of ours.
func owns(keys Keys, k *Key) bool {
	if k.Point == nil {
		k.Point = pointOf(k.Public)
	}
	return k.Point != nil && keys.Owns(*k)
}

// pointOf makes a point of a key of 33 bytes or 32, nil if there is none.
func pointOf(key []byte) *btcec.PublicKey {
	if len(key) == 32 {
		key = append([]byte{2}, key...)
	}
	if len(key) != btcec.PubKeyBytesLenCompressed {
		return nil
	}
	p, err := btcec.ParsePubKey(key)
	if err != nil {
		return nil
	}
	return p
}

// readKey joins a key with its origin out of a PSBT, which has been checked.
func readKey(public, origin []byte) Key {
	k := Key{Public: public, Fingerprint: [4]byte(origin)}
	for b := origin[4:]; len(b) > 0; b = b[4:] {
		k.Path = append(k.Path, u32(b))
	}
	return k
}

// Keys tells which keys are the asker's to sign with.
type Keys interface {
	// Knows reports whether one of the asker's wallets has a master key with the
	// fingerprint.
	Knows(fingerprint [4]byte) bool

	// Owns reports whether the path leads from one of the asker's master keys to
	// this very public key (of which 32 bytes are the x coordinate), and whether
	// the wallet uses that path. It is asked only for what Knows knows, and has a
	// Point.
	Owns(Key) bool
}

// Singles is what Keys may have in addition for wallets that have one key, which
// PSBTs often name without an origin. It tells which keys of 33 bytes, or 32 of
// Taproot, are theirs, and whose key an output's script pays to by its hash (P2PKH,
// P2WPKH, P2SH of P2WPKH; nil for none).
type Singles interface {
	OwnsSingle(public []byte) bool
	SingleOf(script []byte) (public []byte)
}

// Scheme is a kind of signature.
type Scheme int

// The schemes.
const (
	ECDSA   Scheme = iota // DER, RFC 6979, low S
	Schnorr               // 64 bytes, BIP-340, auxiliary value zero
)

// Want is a signature that the transaction wants of one of our keys.
//
// In a Taproot key path (Tweaked) the signing key is not the private key d of
// Key itself. With P = d·G it is d', or n - d' if d'·G has an odd y, where
//
//	t  = hash_TapTweak(bytes(P) || MerkleRoot)
//	d' = (d if P has an even y, else n - d) + t
//
// (taproot_tweak_seckey of BIP-341; MerkleRoot is empty without a script tree.)
type Want struct {
	Input  int
	Key    Key
	Scheme Scheme
	Digest [32]byte // what is signed, computed after every check

	Tweaked    bool
	MerkleRoot []byte // 32 bytes, or none
	LeafHash   []byte // 32 bytes in a Taproot script path, else none; the digest holds it

	Use string // the output that is spent, "txid:index"

	index int    // in Tx.wants
	field []byte // the key of the PSBT's field for the signature
}

// Rules are what policy says. The zero value is the careful one, for mainnet.
type Rules struct {
	// Network is "mainnet" (or ""), "testnet", "signet" or "regtest".
	Network string `json:"network"`

	// MaxFeePercent limits the fee to so many percent of what is paid to others,
	// or of all outputs if nothing is. 0 means 10, and less than 0 no limit.
	MaxFeePercent int `json:"max_fee_percent"`

	// MaxFee limits it to so many satoshi. 0: no limit.
	MaxFee int64 `json:"max_fee"`

	// Sighashes are the sighash types that may be signed besides ALL and
	// Taproot's DEFAULT, by their names in Bitcoin Core: "ALL|ANYONECANPAY".
	Sighashes []string `json:"sighashes"`

	// WitnessAmounts takes the amounts of inputs with segregated witness from
	// the PSBT without the transactions that prove them.
	WitnessAmounts bool `json:"witness_amounts"`
}

// sighashNames are the names of the sighash types.
var sighashNames = map[uint32]string{
	0x00: "DEFAULT", 0x01: "ALL", 0x02: "NONE", 0x03: "SINGLE",
	0x81: "ALL|ANYONECANPAY", 0x82: "NONE|ANYONECANPAY", 0x83: "SINGLE|ANYONECANPAY",
}

const (
	sighashDefault = 0x00
	sighashAll     = 0x01
	sighashNone    = 0x02
	sighashSingle  = 0x03
	anyoneCanPay   = 0x80
)

// KnownSighash reports whether the name is that of a sighash type, for whoever
// reads a policy.
func KnownSighash(name string) bool {
	for _, n := range sighashNames {
		if n == name {
			return true
		}
	}
	return false
}
