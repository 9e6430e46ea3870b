package keyfs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"

	"signdrop/keyfs"
)

// BenchmarkSign compares a wallet's signature with that of the bare library,
// for each curve with the digest that goes with it, and for each recheck.
func BenchmarkSign(b *testing.B) {
	for _, c := range []struct {
		curve keyfs.Curve
		hash  string
		bare  func() func(digest []byte)
	}{
		{keyfs.P256, "SHA-256", bareNIST(elliptic.P256(), crypto.SHA256)},
		{keyfs.P384, "SHA-384", bareNIST(elliptic.P384(), crypto.SHA384)},
		{keyfs.P521, "SHA-512", bareNIST(elliptic.P521(), crypto.SHA512)},
		{keyfs.Secp256k1, "SHA-256", bareSecp},
	} {
		d := digest(b, c.hash, "benchmark")
		b.Run(string(c.curve)+"/bare", func(b *testing.B) {
			sign := c.bare()
			for b.Loop() {
				sign(d)
			}
		})
		for _, r := range []keyfs.Recheck{keyfs.RecheckOff, keyfs.RecheckRepeat, keyfs.RecheckVerify} {
			b.Run(string(c.curve)+"/"+r.String(), func(b *testing.B) {
				benchSign(b, c.curve, r, keyfs.ECDSA, d)
			})
		}
	}
	d := digest(b, "SHA-256", "benchmark")
	for _, r := range []keyfs.Recheck{keyfs.RecheckOff, keyfs.RecheckVerify} {
		b.Run("recoverable/"+r.String(), func(b *testing.B) {
			benchSign(b, keyfs.Secp256k1, r, keyfs.ECDSARecoverable, d)
		})
		b.Run("schnorr/"+r.String(), func(b *testing.B) {
			benchSign(b, keyfs.Secp256k1, r, keyfs.Schnorr, d)
		})
	}
}

func benchSign(b *testing.B, c keyfs.Curve, r keyfs.Recheck, scheme keyfs.Scheme, digest []byte) {
	v := newVolume(b)
	w := v.create(v.open(keyfs.Options{Recheck: r}), "W_1", c)
	for b.Loop() {
		if _, err := w.Sign(scheme, digest); err != nil {
			b.Fatal(err)
		}
	}
}

func bareNIST(c elliptic.Curve, h crypto.Hash) func() func([]byte) {
	return func() func([]byte) {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		return func(digest []byte) {
			if _, err := k.Sign(nil, digest, h); err != nil {
				panic(err)
			}
		}
	}
}

func bareSecp() func([]byte) {
	k, err := btcec.NewPrivateKey()
	if err != nil {
		panic(err)
	}
	return func(digest []byte) { secp.Sign(k, digest).Serialize() }
}

func BenchmarkLookup(b *testing.B) {
	v := newVolume(b)
	s := v.open(keyfs.Options{Cache: 1})
	v.create(s, "W_1", keyfs.P384)
	v.create(s, "W_2", keyfs.P384)
	lookup := func(b *testing.B, id string) {
		if _, err := s.Lookup(company, id); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("held", func(b *testing.B) {
		for b.Loop() {
			lookup(b, "W_1")
		}
	})
	b.Run("read", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			lookup(b, []string{"W_1", "W_2"}[i%2])
		}
	})
}

// BenchmarkCreate makes many wallets in one call: run it with -benchtime 1x.
func BenchmarkCreate(b *testing.B) {
	for _, c := range allCurves {
		for _, n := range []int{1, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", c, n), func(b *testing.B) {
				specs := make([]keyfs.Spec, n)
				for i := range specs {
					specs[i] = keyfs.Spec{ID: fmt.Sprintf("W_%06d", i), Curve: c}
				}
				for b.Loop() {
					b.StopTimer()
					v := newVolume(b)
					s := v.open(keyfs.Options{})
					b.StartTimer()
					if _, err := s.Create(company, specs, v.fs); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "wallets/s")
			})
		}
	}
}
