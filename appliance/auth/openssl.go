package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha512"
	"fmt"
	"math/big"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// bareSignature is what `openssl dgst -sha384 -sign` writes, and which listed
// keys can have made it.
type bareSignature struct {
	shape shape
	data  []byte
}

// parseBare returns nil if data is neither a DER ECDSA signature nor as long as
// an RSA one. Text is never the latter: 256 random bytes are not valid UTF-8.
func parseBare(data []byte) *bareSignature {
	if size, ok := ecdsaSize(data); ok {
		return &bareSignature{shape{size: size}, bytes.Clone(data)}
	}
	if len(data) >= minRSABits/8 && len(data) <= maxRSABits/8 && !utf8.Valid(data) {
		return &bareSignature{shape{rsa: true, size: len(data)}, bytes.Clone(data)}
	}
	return nil
}

// ecdsaSize reads a DER ECDSA signature and returns the size of its curve's
// order in bits, judged by its larger number. An honest one is more than 64
// bits shorter than the order with a chance of 2^-128, so no signature is ever
// tried against keys of two curves.
func ecdsaSize(data []byte) (bits int, ok bool) {
	input := cryptobyte.String(data)
	var body cryptobyte.String
	r, s := new(big.Int), new(big.Int)
	if !input.ReadASN1(&body, asn1.SEQUENCE) || !input.Empty() ||
		!body.ReadASN1Integer(r) || !body.ReadASN1Integer(s) || !body.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 {
		return 0, false
	}
	found := max(r.BitLen(), s.BitLen())
	for _, order := range []int{256, 384, 521} {
		if found <= order && found > order-64 {
			return order, true
		}
	}
	return 0, false
}

// findBare returns the listed key that made sig over message, nil if none did.
// It costs one verification for each listed key of the signature's shape.
func (s *Signers) findBare(message []byte, sig *bareSignature) *listedKey {
	candidates := s.bare[sig.shape]
	if len(candidates) == 0 {
		return nil
	}
	digest := sha512.Sum384(message)
	for _, k := range candidates {
		if sig.verify(digest[:], cryptoKey(k.key)) {
			return k
		}
	}
	return nil
}

func (sig *bareSignature) verify(digest []byte, key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, sig.data)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA384, digest, sig.data) == nil
	}
	return false
}

func (sig *bareSignature) algorithm() string {
	if sig.shape.rsa {
		return "rsa-pkcs1-sha384"
	}
	return fmt.Sprintf("ecdsa-p%d-sha384", sig.shape.size)
}
