// Package proof checks what the appliance answered, offline and without trusting
// the appliance: from the public key, the text and the signature alone, with code
// that the appliance does not share.
//
// It promises the verdict that openssl would give. It must not be used to find out
// whether a key belongs to a wallet: an answer brings its key with it, and only
// the comparison with a key that is known from elsewhere says whose it is.
package proof

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384 and crypto.SHA512
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrSignature: the signature does not verify over the text with the key.
var ErrSignature = errors.New("the signature does not verify")

// Key is a public key on a curve that wallets are on.
type Key struct {
	Curve string // "P-256", "P-384", "P-521" or "secp256k1"
	nist  *ecdsa.PublicKey
	secp  *btcec.PublicKey
}

// Equal reports whether both are the same key.
func (k *Key) Equal(o *Key) bool {
	switch {
	case k.Curve != o.Curve:
		return false
	case k.secp != nil:
		return k.secp.IsEqual(o.secp)
	}
	return k.nist.Equal(o.nist)
}

var secp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}

// ParseKey reads a public key as SubjectPublicKeyInfo in PEM ("PUBLIC KEY").
func ParseKey(text []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("this is not a public key in PEM (-----BEGIN PUBLIC KEY-----)")
	}
	if pub, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
		if k, ok := pub.(*ecdsa.PublicKey); ok && k.Curve != elliptic.P224() {
			return &Key{Curve: k.Params().Name, nist: k}, nil
		}
		return nil, errors.New("the key is not on one of the curves P-256, P-384, P-521, secp256k1")
	}
	// The standard library does not know secp256k1.
	var info, alg cryptobyte.String
	var kind, curve asn1.ObjectIdentifier
	var point []byte
	in := cryptobyte.String(block.Bytes)
	if !in.ReadASN1(&info, der.SEQUENCE) || !in.Empty() ||
		!info.ReadASN1(&alg, der.SEQUENCE) || !info.ReadASN1BitStringAsBytes(&point) || !info.Empty() ||
		!alg.ReadASN1ObjectIdentifier(&kind) || !alg.ReadASN1ObjectIdentifier(&curve) || !alg.Empty() ||
		!curve.Equal(secp256k1) {
		return nil, errors.New("the public key is damaged, or not on one of the curves P-256, P-384, P-521, secp256k1")
	}
	pub, err := btcec.ParsePubKey(point)
	if err != nil {
		return nil, errors.New("the public key is not a point of secp256k1")
	}
	return &Key{Curve: "secp256k1", secp: pub}, nil
}

var (
	algorithmForm = regexp.MustCompile(`^(ecdsa|ecdsa-recoverable|schnorr)-(p256|p384|p521|secp256k1)-(sha256|sha384|sha512)$`)

	curves = map[string]string{"p256": "P-256", "p384": "P-384", "p521": "P-521", "secp256k1": "secp256k1"}
	hashes = map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}
)

// Verify checks a signature, given in base64, over a text by the algorithm of an
// answer, such as ecdsa-p384-sha384. The error is ErrSignature if all is well
// formed and the signature is not one of this key over this text.
func Verify(key *Key, algorithm, text, signature string) error {
	m := algorithmForm.FindStringSubmatch(algorithm)
	if m == nil || m[1] != "ecdsa" && (m[2] != "secp256k1" || m[3] != "sha256") {
		return fmt.Errorf("the algorithm %q is not known: a newer signdrop may know it", algorithm)
	}
	if curves[m[2]] != key.Curve {
		return fmt.Errorf("the algorithm is %s and the key is on %s", algorithm, key.Curve)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil || strings.ContainsAny(signature, "\r\n") { // which Go passes over
		return errors.New("the signature is not base64")
	}
	h := hashes[m[3]].New()
	h.Write([]byte(text))
	digest := h.Sum(nil)

	good := false
	switch {
	case m[1] == "schnorr":
		good = verifySchnorr(key.secp.SerializeCompressed()[1:], digest, sig)
	case m[1] == "ecdsa-recoverable":
		good = recovers(key.secp, digest, sig)
	case key.secp != nil:
		good = verifySecp(key.secp, digest, sig)
	default:
		good = ecdsa.VerifyASN1(key.nist, digest, sig)
	}
	if !good {
		return ErrSignature
	}
	return nil
}

// verifySecp is ecdsa.VerifyASN1 for secp256k1.
func verifySecp(pub *btcec.PublicKey, digest, sig []byte) bool {
	var body cryptobyte.String
	var rBytes, sBytes []byte
	in := cryptobyte.String(sig)
	if !in.ReadASN1(&body, der.SEQUENCE) || !in.Empty() ||
		!body.ReadASN1Integer(&rBytes) || !body.ReadASN1Integer(&sBytes) || !body.Empty() {
		return false
	}
	var r, s btcec.ModNScalar
	if !scalar(&r, rBytes) || !scalar(&s, sBytes) {
		return false
	}
	// ECDSA uses of a longer digest as many bits as the curve's order has
	// (SEC 1, section 4.1.4).
	return secp.NewSignature(&r, &s).Verify(digest[:32], pub)
}

// recovers reports whether r || s || v gives the key back, which also proves the
// signature.
func recovers(pub *btcec.PublicKey, digest, sig []byte) bool {
	if len(sig) != 65 || sig[64] > 3 {
		return false
	}
	// btcec takes 27+v || r || s.
	found, _, err := secp.RecoverCompact(append([]byte{27 + sig[64]}, sig[:64]...), digest)
	return err == nil && found.IsEqual(pub)
}

// scalar reads a number from 1 to the order less one.
func scalar(n *btcec.ModNScalar, b []byte) bool {
	if len(b) > 32 {
		return false
	}
	over := n.SetByteSlice(b)
	return !over && !n.IsZero()
}
