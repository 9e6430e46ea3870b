package keyfs

import (
	"crypto/sha256"
	"errors"

	"github.com/btcsuite/btcd/btcec/v2"
)

// Schnorr signatures on secp256k1 after BIP-340, on the arithmetic of btcec,
// with the names of the BIP. btcec's own package for it draws its nonce in
// another way unless told, computes the public key at each signature, and needs
// a module more.

// signSchnorr signs m with the key d' and its public key p. a is the auxiliary
// value of the BIP. The only errors are a nonce or a challenge that nobody will
// ever see.
func signSchnorr(priv *btcec.PrivateKey, p *btcec.PublicKey, a [32]byte, m []byte) ([]byte, error) {
	px := xOnly(p)

	// d is d' or n-d', whichever belongs to the point with the even y.
	d := priv.Key
	defer d.Zero()
	if p.Y().Bit(0) == 1 {
		d.Negate()
	}

	t := d.Bytes()
	defer clear(t[:])
	for i, x := range tagged(tagAux, a[:]) {
		t[i] ^= x
	}
	rand := tagged(tagNonce, t[:], px, m)
	defer clear(rand[:])
	var k btcec.ModNScalar
	defer k.Zero()
	k.SetBytes(&rand)
	if k.IsZero() {
		return nil, errors.New("the nonce is zero")
	}

	var r btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(&k, &r)
	r.ToAffine()
	if r.Y.IsOdd() {
		k.Negate()
	}

	sig := make([]byte, 64)
	r.X.PutBytesUnchecked(sig[:32])
	e := challenge(sig[:32], px, m)
	s := new(btcec.ModNScalar).Mul2(&e, &d).Add(&k)
	s.PutBytesUnchecked(sig[32:])
	return sig, nil
}

// verifySchnorr reports whether sig is a signature of m for the x coordinate of
// p, whichever y p has.
func verifySchnorr(p *btcec.PublicKey, m, sig []byte) bool {
	if len(sig) != 64 {
		return false
	}
	var x btcec.FieldVal
	var s btcec.ModNScalar
	if x.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) { // not below p, not below n
		return false
	}

	var even, sg, ep, r btcec.JacobianPoint
	p.AsJacobian(&even)
	if even.Y.IsOdd() {
		even.Y.Negate(1).Normalize()
	}
	e := challenge(sig[:32], xOnly(p), m)
	e.Negate()
	btcec.ScalarBaseMultNonConst(&s, &sg)
	btcec.ScalarMultNonConst(&e, &even, &ep)
	btcec.AddNonConst(&sg, &ep, &r)
	if r.Z.IsZero() || r.X.IsZero() && r.Y.IsZero() { // infinity
		return false
	}
	r.ToAffine()
	return !r.Y.IsOdd() && r.X.Equals(&x)
}

// challenge is e of the BIP: the hash of R, P and m, modulo n.
func challenge(rx, px, m []byte) btcec.ModNScalar {
	h := tagged(tagChallenge, rx, px, m)
	var e btcec.ModNScalar
	e.SetBytes(&h)
	return e
}

// xOnly is bytes(P) of the BIP.
func xOnly(p *btcec.PublicKey) []byte { return p.SerializeCompressed()[1:] }

// The hash functions of the BIP begin with the hash of their tag, twice.
var (
	tagAux       = sha256.Sum256([]byte("BIP0340/aux"))
	tagNonce     = sha256.Sum256([]byte("BIP0340/nonce"))
	tagChallenge = sha256.Sum256([]byte("BIP0340/challenge"))
)

func tagged(tag [32]byte, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write(tag[:])
	h.Write(tag[:])
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
