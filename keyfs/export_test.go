package keyfs

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Reencode parses a private key and returns what this package would write for
// it.
func Reencode(keyPEM []byte) ([]byte, error) {
	k, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return encodeKey(k), nil
}

// KeyFiles returns the files of an active wallet with a given private number.
func KeyFiles(id string, c Curve, scalar []byte) (wallet, keyPEM []byte, err error) {
	k, ok := newKey(c, scalar)
	if !ok {
		return nil, nil, errScalar
	}
	r := record{ID: id, Curve: c, PublicKey: encodePublic(k), Status: statusActive}
	return r.encode(), encodeKey(k), nil
}

// ReencodeWallet parses a wallet.json and returns what this package would write
// for it.
func ReencodeWallet(text []byte) ([]byte, error) {
	r, err := parseRecord(text)
	if err != nil {
		return nil, err
	}
	return r.encode(), nil
}

// Verify is the check that Sign makes, with the public key 4 || x || y.
func Verify(c Curve, point []byte, scheme Scheme, digest, sig []byte) (bool, error) {
	p, err := newPublic(c, point)
	if err != nil {
		return false, err
	}
	return p.verify(scheme, digest, sig), nil
}

// SignSchnorr signs with a private number and an auxiliary value.
func SignSchnorr(scalar []byte, aux [32]byte, m []byte) ([]byte, error) {
	priv, pub := btcec.PrivKeyFromBytes(scalar)
	return signSchnorr(priv, pub, aux, m)
}

// VerifySchnorr verifies with the x coordinate of the public key. It reports
// false for one that has no point.
func VerifySchnorr(px, m, sig []byte) bool {
	p, err := btcec.ParsePubKey(append([]byte{2}, px...))
	return err == nil && verifySchnorr(p, m, sig)
}

// DisturbedKey makes every signature that w makes pass through f first.
func DisturbedKey(w *Wallet, f func(sig []byte)) { w.key = disturbed{w.key, f} }

type disturbed struct {
	key
	f func([]byte)
}

func (d disturbed) sign(s Scheme, digest []byte) ([]byte, error) {
	sig, err := d.key.sign(s, digest)
	d.f(sig)
	return sig, err
}

// ProtectedGuestAt is ProtectedGuest with another file, which must be sysfs' own if
// genuine.
var ProtectedGuestAt = protectedGuest

// EncodeImported returns what this package would write for an imported key.
func EncodeImported(i Imported) []byte { return encodeKey(i.key) }

// SEC1 writes a key of our own form as SEC1 in DER.
func SEC1(keyPEM []byte, public bool) ([]byte, error) {
	k, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1OctetString(k.scalar())
		b.AddASN1(der.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddBytes(curves[k.curve()].oid)
		})
		if public {
			b.AddASN1(der.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
				b.AddASN1BitString(k.point())
			})
		}
	})
	return b.Bytes()
}
