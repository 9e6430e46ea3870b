package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"signdrop/appliance/auth"

	"golang.org/x/crypto/ssh"
)

// Each benchmark has sub-benchmarks: "bare" is the standard library alone, over
// the same inner signature with the same key (how long it takes depends on
// both); "verify" is Signers.Verify; "parse+verify" is all that a file costs.

var request = []byte(strings.Repeat(`{"type": "sign", "reference": "payout-0001"}`, 9)) // about 400 bytes

func BenchmarkVerifyEd25519(b *testing.B) {
	key, inner, signed, file := dissect(b, "ed25519")
	public := key.(ed25519.PublicKey)
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if !ed25519.Verify(public, signed, inner) {
				b.Fatal("bad signature")
			}
		}
	})
	benchmarkSSHSIG(b, "ed25519", file)
}

func BenchmarkVerifyP256(b *testing.B) {
	key, inner, signed, file := dissect(b, "ecdsa-256")
	public := key.(*ecdsa.PublicKey)
	var numbers struct{ R, S *big.Int }
	if err := ssh.Unmarshal(inner, &numbers); err != nil {
		b.Fatal(err)
	}
	der, err := asn1.Marshal(numbers)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			digest := sha256.Sum256(signed)
			if !ecdsa.VerifyASN1(public, digest[:], der) {
				b.Fatal("bad signature")
			}
		}
	})
	benchmarkSSHSIG(b, "ecdsa-256", file)
	b.Run("openssl", func(b *testing.B) {
		benchmarkFile(b, opensslLine(b, "P-256", "alice"), opensslSign(b, "P-256", "sha384", request))
	})
}

// dissect signs the request and returns the signature file with what is in it:
// the key, the inner signature and the bytes that it is over.
func dissect(b *testing.B, kind string) (key crypto.PublicKey, inner, signed, file []byte) {
	b.Helper()
	file = sshSign(b, kind, auth.NamespaceRequest, request)
	var w wire
	if err := ssh.Unmarshal(unarmour(b, file), &w); err != nil {
		b.Fatal(err)
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(w.Signature, &signature); err != nil {
		b.Fatal(err)
	}
	public, err := ssh.ParsePublicKey(w.PublicKey)
	if err != nil {
		b.Fatal(err)
	}
	return public.(ssh.CryptoPublicKey).CryptoPublicKey(), signature.Blob, signedBytes(&w, request), file
}

// BenchmarkVerifyOpenSSLAmong shows what each further listed key of the same
// shape adds to a bare signature.
func BenchmarkVerifyOpenSSLAmong(b *testing.B) {
	file := opensslSign(b, "P-384", "sha384", request)
	lines := []string{}
	for i := range 8 {
		lines = append(lines, opensslLine(b, fmt.Sprintf("P-384/%d", i), "other"))
	}
	lines = append(lines, opensslLine(b, "P-384", "alice"))
	for _, n := range []int{1, 9} {
		b.Run(fmt.Sprintf("%d keys", n), func(b *testing.B) {
			benchmarkFile(b, strings.Join(lines[len(lines)-n:], "\n"), file)
		})
	}
}

func benchmarkSSHSIG(b *testing.B, kind string, file []byte) {
	line := "alice " + publicLine(b, kind)
	signers, sig := parseSigners(b, line), parseSignature(b, file)
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := signers.Verify(request, sig, auth.NamespaceRequest, noon); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse+verify", func(b *testing.B) { benchmarkFile(b, line, file) })
}

func benchmarkFile(b *testing.B, signersFile string, file []byte) {
	signers := parseSigners(b, signersFile)
	b.ReportAllocs()
	for b.Loop() {
		sig, err := auth.ParseSignature(file)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := signers.Verify(request, sig, auth.NamespaceRequest, noon); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseSigners(b *testing.B) {
	file := []byte(strings.Repeat("alice "+publicLine(b, "ed25519")+"\n", 100))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := auth.ParseSigners(file); err != nil {
			b.Fatal(err)
		}
	}
}
