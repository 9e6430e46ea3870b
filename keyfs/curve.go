package keyfs

import (
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Curve is an elliptic curve by the name that requests and wallet.json use.
type Curve string

// The curves.
const (
	P256      Curve = "P-256"
	P384      Curve = "P-384"
	P521      Curve = "P-521"
	Secp256k1 Curve = "secp256k1"
)

// Known reports whether c is one of the curves.
func (c Curve) Known() bool {
	_, ok := curves[c]
	return ok
}

// params are the facts about a curve.
type params struct {
	std       elliptic.Curve // nil for secp256k1, which the standard library does not have
	size      int            // bytes of a private number and of a coordinate
	topMask   byte           // the bits of the first byte that a private number may have
	oid       []byte         // the curve's OBJECT IDENTIFIER in DER
	algorithm []byte         // AlgorithmIdentifier in DER (RFC 5480, section 2.1.1)
}

var curves = map[Curve]params{
	P256:      named(elliptic.P256(), 32, 0xff, 1, 2, 840, 10045, 3, 1, 7),
	P384:      named(elliptic.P384(), 48, 0xff, 1, 3, 132, 0, 34),
	P521:      named(elliptic.P521(), 66, 0x01, 1, 3, 132, 0, 35),
	Secp256k1: named(nil, 32, 0xff, 1, 3, 132, 0, 10),
}

// named encodes the object identifier, and what says "an elliptic-curve key on
// the named curve".
func named(std elliptic.Curve, size int, topMask byte, curve ...int) params {
	var oid, alg cryptobyte.Builder
	oid.AddASN1ObjectIdentifier(curve)
	alg.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}) // id-ecPublicKey
		b.AddASN1ObjectIdentifier(curve)
	})
	return params{std, size, topMask, oid.BytesOrPanic(), alg.BytesOrPanic()}
}

func checkCurve(c Curve) error {
	if !c.Known() {
		names := []string{string(P256), string(P384), string(P521), string(Secp256k1)}
		return fmt.Errorf("curve %q is none of %s: %w", string(c), strings.Join(names, ", "), ErrInvalid)
	}
	return nil
}
