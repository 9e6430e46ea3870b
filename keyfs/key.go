package keyfs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	_ "crypto/sha256" // crypto.SHA256, which the deterministic signer asks for by name
	_ "crypto/sha512" // crypto.SHA384 and crypto.SHA512
	"errors"
	"io"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"
)

// key is a private key. It never changes and is safe for concurrent use.
type key interface {
	curve() Curve

	// scalar returns the private number, big-endian, in the curve's full size.
	// The caller wipes it.
	scalar() []byte

	// point returns the public key, computed from the private number when the
	// key was made: 4 || x || y (SEC 1, section 2.3.3).
	point() []byte

	// sign signs a digest of a length that fits the scheme.
	sign(scheme Scheme, digest []byte) ([]byte, error)
}

// public is a public key. It is made from a point alone and shares no memory
// with the private key, so that a fault in one does not hide in the other.
type public interface {
	verify(scheme Scheme, digest, sig []byte) bool
}

// newKey makes a key from its private number, big-endian, in the curve's full
// size, and computes the public key from it. ok is false for a number that is
// not from 1 to the curve's order less 1. It keeps no reference to scalar.
func newKey(c Curve, scalar []byte) (k key, ok bool) {
	p := curves[c]
	if len(scalar) != p.size {
		return nil, false
	}
	if p.std == nil {
		var d btcec.ModNScalar
		if overflow := d.SetByteSlice(scalar); overflow || d.IsZero() {
			return nil, false
		}
		priv := btcec.PrivKeyFromScalar(&d)
		return &secpKey{priv, priv.PubKey()}, true
	}
	priv, err := ecdsa.ParseRawPrivateKey(p.std, scalar)
	if err != nil {
		return nil, false
	}
	q, err := priv.PublicKey.Bytes()
	if err != nil {
		panic("internal error: encoding the public key of a valid key: " + err.Error())
	}
	return &nistKey{c, priv, q}, true
}

// maxDraws bounds how often a private number is drawn. A draw misses the range
// once in 2^32 times or less (NIST SP 800-186), so that this many misses in a
// row come from a broken source only.
const maxDraws = 16

// drawKey makes a new key: numbers are drawn until one is in the range, all of
// which are equally likely then (FIPS 186-5, A.2.2). It does not use
// ecdsa.GenerateKey, which ignores the source that it is given.
func drawKey(c Curve, random io.Reader) (key, error) {
	p := curves[c]
	buf := make([]byte, p.size)
	defer clear(buf)
	for range maxDraws {
		if _, err := io.ReadFull(random, buf); err != nil {
			return nil, err
		}
		buf[0] &= p.topMask
		if k, ok := newKey(c, buf); ok {
			return k, nil
		}
	}
	return nil, errors.New("the source of randomness is broken")
}

var errPoint = errors.New("the public key is not a point of the curve")

// newPublic makes a public key from a point as key.point returns it. The only
// error is errPoint.
func newPublic(c Curve, point []byte) (public, error) {
	if c == Secp256k1 {
		pub, err := btcec.ParsePubKey(point)
		if err != nil {
			return nil, errPoint
		}
		return &secpPublic{pub}, nil
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curves[c].std, point)
	if err != nil {
		return nil, errPoint
	}
	return &nistPublic{pub}, nil
}

// nistKey is a key on a curve of the standard library.
type nistKey struct {
	name Curve
	priv *ecdsa.PrivateKey
	q    []byte
}

func (k *nistKey) curve() Curve  { return k.name }
func (k *nistKey) point() []byte { return k.q }

func (k *nistKey) scalar() []byte {
	b, err := k.priv.Bytes()
	if err != nil {
		panic("internal error: encoding a valid key: " + err.Error())
	}
	return b
}

// sign makes a DER signature with the nonce of RFC 6979, which the standard
// library computes where it is given no source of randomness.
func (k *nistKey) sign(_ Scheme, digest []byte) ([]byte, error) {
	return k.priv.Sign(nil, digest, hashes[len(digest)])
}

// hashes names the hash function of a digest by its length in bytes. RFC 6979
// computes the nonce with the same function as the digest.
var hashes = map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384, 64: crypto.SHA512}

type nistPublic struct{ pub *ecdsa.PublicKey }

func (p *nistPublic) verify(_ Scheme, digest, sig []byte) bool {
	return ecdsa.VerifyASN1(p.pub, digest, sig)
}

// secpKey is a key on secp256k1.
type secpKey struct {
	priv *btcec.PrivateKey
	pub  *btcec.PublicKey
}

func (k *secpKey) curve() Curve   { return Secp256k1 }
func (k *secpKey) point() []byte  { return k.pub.SerializeUncompressed() }
func (k *secpKey) scalar() []byte { return k.priv.Serialize() }

func (k *secpKey) sign(scheme Scheme, digest []byte) ([]byte, error) {
	switch scheme {
	case Schnorr:
		return signSchnorr(k.priv, k.pub, [32]byte{}, digest)
	case ECDSARecoverable:
		// btcec writes 27+v || r || s.
		c := secp.SignCompact(k.priv, digest, false)
		return append(c[1:], c[0]-27), nil
	}
	return secp.Sign(k.priv, leftmost(digest)).Serialize(), nil
}

// leftmost cuts a digest to the bits of secp256k1's order, as ECDSA does with a
// longer one (SEC 1, section 4.1.3, step 5).
func leftmost(digest []byte) []byte { return digest[:32] }

type secpPublic struct{ pub *btcec.PublicKey }

func (p *secpPublic) verify(scheme Scheme, digest, sig []byte) bool {
	switch scheme {
	case Schnorr:
		return verifySchnorr(p.pub, digest, sig)
	case ECDSARecoverable:
		if len(sig) != 65 || sig[64] > 3 {
			return false
		}
		// The key for which a signature verifies is what recovery computes, so
		// getting our own proves the signature and v both.
		got, _, err := secp.RecoverCompact(append([]byte{27 + sig[64]}, sig[:64]...), digest)
		return err == nil && got.IsEqual(p.pub)
	}
	parsed, err := secp.ParseDERSignature(sig)
	if err != nil {
		return false
	}
	// The parser lets bytes after the signature pass. Serialize writes the one
	// encoding there is, with the low S.
	return bytes.Equal(parsed.Serialize(), sig) && parsed.Verify(leftmost(digest), p.pub)
}
