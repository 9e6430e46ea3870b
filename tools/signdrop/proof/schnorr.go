package proof

import (
	"crypto/sha256"

	"github.com/btcsuite/btcd/btcec/v2"
)

// verifySchnorr is Verify of BIP-340, with its names: it reports whether sig is a
// signature of m by the key whose x coordinate is pk.
func verifySchnorr(pk, m, sig []byte) bool {
	if len(pk) != 32 || len(sig) != 64 {
		return false
	}
	// lift_x: the point with this x and the even y, which is what the prefix 2
	// means.
	P, err := btcec.ParsePubKey(append([]byte{2}, pk...))
	if err != nil {
		return false
	}
	var r btcec.FieldVal
	var s, e btcec.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) {
		return false // not below the field's prime, not below the order
	}
	hash := taggedHash("BIP0340/challenge", sig[:32], pk, m)
	e.SetBytes(&hash)

	// R = s⋅G - e⋅P
	var p, sG, eP, R btcec.JacobianPoint
	P.AsJacobian(&p)
	btcec.ScalarBaseMultNonConst(&s, &sG)
	btcec.ScalarMultNonConst(e.Negate(), &p, &eP)
	btcec.AddNonConst(&sG, &eP, &R)
	if R.X.IsZero() && R.Y.IsZero() || R.Z.IsZero() {
		return false // the point at infinity
	}
	R.ToAffine()
	return !R.Y.IsOdd() && R.X.Equals(&r)
}

func taggedHash(tag string, parts ...[]byte) [32]byte {
	t := sha256.Sum256([]byte(tag))
	h := sha256.New()
	h.Write(t[:])
	h.Write(t[:])
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}
