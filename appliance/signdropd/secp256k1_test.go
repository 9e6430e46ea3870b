package main_test

import (
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/ecdsa"

	"signdrop/appliance/answer"
)

// publicKey reads a public key on secp256k1 from its PEM, which crypto/x509 does
// not do.
func publicKey(t testing.TB, a *answer.Answer) *btcec.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte(a.PublicKey))
	if block == nil {
		t.Fatalf("public_key is not PEM: %q", a.PublicKey)
	}
	var info struct {
		Algorithm struct{ Key, Curve asn1.ObjectIdentifier }
		Point     asn1.BitString
	}
	if _, err := asn1.Unmarshal(block.Bytes, &info); err != nil {
		t.Fatal(err)
	}
	if got := info.Algorithm.Curve.String(); got != "1.3.132.0.10" {
		t.Fatalf("the key's curve is %s", got)
	}
	key, err := btcec.ParsePubKey(info.Point.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signatureOf(t testing.TB, a *answer.Answer, algorithm string, size int) []byte {
	t.Helper()
	sig, err := base64.StdEncoding.DecodeString(a.Signature)
	if err != nil {
		t.Fatal(err)
	}
	if a.Algorithm != algorithm || len(sig) != size {
		t.Fatalf("algorithm %s and %d bytes, want %s and %d", a.Algorithm, len(sig), algorithm, size)
	}
	return sig
}

// checkRecoverable recovers the public key from r || s || v.
func checkRecoverable(t testing.TB, a *answer.Answer) {
	t.Helper()
	sig := signatureOf(t, a, "ecdsa-recoverable-secp256k1-sha256", 65)
	digest := sha256.Sum256([]byte(a.Payload))
	got, _, err := ecdsa.RecoverCompact(append([]byte{27 + sig[64]}, sig[:64]...), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if !got.IsEqual(publicKey(t, a)) {
		t.Error("the signature recovers another key")
	}
}

// checkSchnorr verifies as BIP-340 says: R = s·G - e·P has an even y and the x that
// the signature begins with.
func checkSchnorr(t testing.TB, a *answer.Answer) {
	t.Helper()
	sig := signatureOf(t, a, "schnorr-secp256k1-sha256", 64)
	message := sha256.Sum256([]byte(a.Payload))
	px := publicKey(t, a).SerializeCompressed()[1:]
	even, err := btcec.ParsePubKey(append([]byte{2}, px...))
	if err != nil {
		t.Fatal(err)
	}
	tag := sha256.Sum256([]byte("BIP0340/challenge"))
	h := sha256.New()
	for _, part := range [][]byte{tag[:], tag[:], sig[:32], px, message[:]} {
		h.Write(part)
	}
	var e, s btcec.ModNScalar
	e.SetByteSlice(h.Sum(nil))
	e.Negate()
	if s.SetByteSlice(sig[32:]) {
		t.Fatal("s is not below the order")
	}
	var p, sg, ep, r btcec.JacobianPoint
	even.AsJacobian(&p)
	btcec.ScalarBaseMultNonConst(&s, &sg)
	btcec.ScalarMultNonConst(&e, &p, &ep)
	btcec.AddNonConst(&sg, &ep, &r)
	r.ToAffine()
	if x := r.X.Bytes(); r.Y.IsOdd() || string(x[:]) != string(sig[:32]) {
		t.Error("the signature does not verify")
	}
}
