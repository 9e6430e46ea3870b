package hd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/btcsuite/btcd/address/v2"
	"github.com/btcsuite/btcd/address/v2/bech32"
	"github.com/btcsuite/btcd/btcec/v2"
)

// Output returns the script of an output of this form for a key.
func (s Script) Output(pub *btcec.PublicKey) []byte {
	hash := address.Hash160(pub.SerializeCompressed())
	switch s {
	case P2PKH:
		return append(append([]byte{0x76, 0xa9, 20}, hash...), 0x88, 0xac)
	case P2SHP2WPKH:
		inner := address.Hash160(append([]byte{0, 20}, hash...))
		return append(append([]byte{0xa9, 20}, inner...), 0x87)
	case P2WPKH:
		return append([]byte{0, 20}, hash...)
	case P2TR:
		return append([]byte{0x51, 32}, XOnly(TapOutput(pub, nil))...)
	}
	panic("internal error: no form of output is called " + string(s))
}

// Address returns the address of that output.
func (s Script) Address(pub *btcec.PublicKey, n Network) string {
	out, p := s.Output(pub), networks[n]
	switch s {
	case P2PKH:
		return check58(append([]byte{p.pkh}, out[3:23]...))
	case P2SHP2WPKH:
		return check58(append([]byte{p.sh}, out[2:22]...))
	}
	return segwit(p.hrp, out[0]&0x0f, out[2:])
}

// segwit is the address of a witness program (BIP-173, BIP-350).
func segwit(hrp string, version byte, program []byte) string {
	groups, err := bech32.ConvertBits(program, 8, 5, true)
	if err == nil {
		groups = append([]byte{version}, groups...)
		var text string
		if version == 0 {
			text, err = bech32.Encode(hrp, groups)
		} else {
			text, err = bech32.EncodeM(hrp, groups)
		}
		if err == nil {
			return text
		}
	}
	panic("internal error: encoding an address: " + err.Error())
}

// XOnly is a public key as taproot writes it, its x coordinate (BIP-340).
func XOnly(pub *btcec.PublicKey) []byte { return pub.SerializeCompressed()[1:] }

var tagTweak = sha256.Sum256([]byte("TapTweak"))

// tapTweak is the number t of BIP-341 for an internal key and the root of its tree of
// scripts, nil for none.
func tapTweak(pub *btcec.PublicKey, root []byte) btcec.ModNScalar {
	h := sha256.New()
	h.Write(tagTweak[:])
	h.Write(tagTweak[:])
	h.Write(XOnly(pub))
	h.Write(root)
	var t btcec.ModNScalar
	// A number that is not below the order has a probability below 2^-127; BIP-341
	// fails there, and reducing it gives a key that nobody pays to.
	t.SetByteSlice(h.Sum(nil))
	return t
}

// TapOutput is the output key of an internal key: Q = P + tG, P with the even y. root
// is the root of the tree of scripts, 32 bytes, or nil for none.
func TapOutput(pub *btcec.PublicKey, root []byte) *btcec.PublicKey {
	t := tapTweak(pub, root)
	var p, tg, q btcec.JacobianPoint
	pub.AsJacobian(&p)
	if p.Y.IsOdd() {
		p.Y.Negate(1).Normalize()
	}
	btcec.ScalarBaseMultNonConst(&t, &tg)
	btcec.AddNonConst(&p, &tg, &q)
	q.ToAffine()
	return btcec.NewPublicKey(&q.X, &q.Y)
}

// TapPrivate is the private key of TapOutput for the private key of an internal key.
// The caller wipes it.
func TapPrivate(priv *btcec.PrivateKey, root []byte) *btcec.PrivateKey {
	pub := priv.PubKey()
	d := priv.Key
	defer d.Zero()
	if pub.SerializeCompressed()[0] == 3 {
		d.Negate()
	}
	t := tapTweak(pub, root)
	d.Add(&t)
	return btcec.PrivKeyFromScalar(&d)
}

// Descriptor describes all addresses of an account, of both chains: receiving and
// change (BIP-380 to 386, BIP-389).
func Descriptor(s Script, master Fingerprint, path Path, account *Public, n Network) string {
	key := "[" + master.String() + string(path.append(nil)) + "]" + account.String(n) + "/<0;1>/*"
	return describe(s, key)
}

// KeyDescriptor describes the address of a single key.
func KeyDescriptor(s Script, pub *btcec.PublicKey) string {
	key := pub.SerializeCompressed()
	if s == P2TR {
		key = key[1:]
	}
	return describe(s, hex.EncodeToString(key))
}

func describe(s Script, key string) string {
	text := map[Script]string{P2PKH: "pkh(" + key + ")", P2SHP2WPKH: "sh(wpkh(" + key + "))", P2WPKH: "wpkh(" + key + ")", P2TR: "tr(" + key + ")"}[s]
	sum, err := descriptorSum(text)
	if err != nil {
		panic("internal error: a descriptor cannot be written")
	}
	return text + "#" + sum
}

// The alphabets of descriptors and of their checksums (BIP-380).
const (
	descriptorAlphabet = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
	sumAlphabet        = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
)

// descriptorSum is the checksum of a descriptor, eight characters: a BCH code over
// the places of the characters in their groups of 32 and the numbers of the groups.
func descriptorSum(text string) (string, error) {
	c := uint64(1)
	add := func(v uint64) {
		top := c >> 35
		c = (c&0x7ffffffff)<<5 ^ v
		for i, g := range [5]uint64{0xf5dee51989, 0xa9fdca3312, 0x1bab10e32d, 0x3706b1677a, 0x644d626ffd} {
			if top>>i&1 == 1 {
				c ^= g
			}
		}
	}
	groups, n := uint64(0), 0
	for _, r := range text {
		v := strings.IndexRune(descriptorAlphabet, r)
		if v < 0 {
			return "", errors.New("a descriptor has no such character")
		}
		add(uint64(v & 31))
		groups = groups*3 + uint64(v>>5)
		if n++; n == 3 {
			add(groups)
			groups, n = 0, 0
		}
	}
	if n > 0 {
		add(groups)
	}
	for range 8 {
		add(0)
	}
	c ^= 1
	var b strings.Builder
	for i := range 8 {
		b.WriteByte(sumAlphabet[c>>(5*(7-i))&31])
	}
	return b.String(), nil
}
