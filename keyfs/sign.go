package keyfs

import (
	"bytes"
	"fmt"
)

// Scheme is a kind of signature.
type Scheme int

const (
	// ECDSA makes a DER signature (SEQUENCE of r and s), on every curve, of a
	// digest of 32, 48 or 64 bytes. The nonce is that of RFC 6979 with the SHA-2
	// function of the digest's length. On secp256k1 s is the lower of the two,
	// and a digest of 48 or 64 bytes is cut to its first 32, with SHA-256 for
	// the nonce: the signature verifies anywhere, RFC 6979 would have drawn
	// another nonce.
	ECDSA Scheme = iota

	// ECDSARecoverable makes 65 bytes, r || s || v, each number big-endian, on
	// secp256k1 only, of a digest of 32 bytes. v is 0 or 1, the parity of the
	// nonce point's y (2 or 3 where its x is not below the order, which nobody
	// has seen). r and s are those of ECDSA.
	ECDSARecoverable

	// Schnorr makes the 64 bytes of BIP-340, on secp256k1 only, of a message of
	// 32 bytes, with the auxiliary value zero so that the same message gives the
	// same bytes.
	Schnorr
)

// Recheck is how a signature is checked before it leaves Sign. A deterministic
// signer that a fault disturbs once can give its key away, since the right and
// the wrong signature share a nonce (Poddebniak et al., "Attacking Deterministic
// Signature Schemes using Fault Attacks", EuroS&P 2018).
type Recheck int

const (
	// RecheckVerify verifies it with the public key. On P-384 in software that
	// costs as much as three signatures.
	RecheckVerify Recheck = iota

	// RecheckRepeat signs twice and compares. It does not see a fault that
	// lasts, such as a bit that flipped in the key, whose signatures are wrong
	// but alike.
	RecheckRepeat

	// RecheckOff does not check.
	RecheckOff
)

var recheckNames = []string{"verify", "repeat", "off"}

func (r Recheck) String() string {
	if r < 0 || int(r) >= len(recheckNames) {
		return fmt.Sprintf("Recheck(%d)", int(r))
	}
	return recheckNames[r]
}

// ParseRecheck reads "verify", "repeat" or "off". Any other text is ErrInvalid.
func ParseRecheck(s string) (Recheck, error) {
	for r, name := range recheckNames {
		if s == name {
			return Recheck(r), nil
		}
	}
	return 0, fmt.Errorf("recheck %q is none of verify, repeat, off: %w", s, ErrInvalid)
}

// Sign signs a digest. The same wallet, scheme and digest always give the same
// bytes. Errors: ErrCurve, ErrDigest, ErrHD, ErrDisabled, and ErrFault with no byte
// of the signature.
func (w *Wallet) Sign(scheme Scheme, digest []byte) ([]byte, error) {
	if err := fits(scheme, w.Curve(), len(digest)); err != nil {
		return nil, fmt.Errorf("signing with wallet %s: %w", w.id, err)
	}
	if w.HD() {
		return nil, fmt.Errorf("signing with wallet %s: %w", w.id, ErrHD)
	}
	if !w.Active() {
		return nil, fmt.Errorf("signing with wallet %s: %w", w.id, ErrDisabled)
	}
	if w.store.isFaulty(w.id) {
		return nil, fmt.Errorf("signing with wallet %s, which failed before: %w", w.id, ErrFault)
	}
	sig, ok := w.checked(w.key, w.public, scheme, digest)
	if !ok {
		return nil, fmt.Errorf("signing with wallet %s: %w", w.id, w.fault())
	}
	return sig, nil
}

// checked signs with a key of the wallet and checks the signature.
func (w *Wallet) checked(k key, p public, scheme Scheme, digest []byte) (sig []byte, good bool) {
	sig, err := k.sign(scheme, digest)
	// A key that was checked and a digest that fits leave no room for an error.
	if good = err == nil; good {
		switch w.store.recheck {
		case RecheckVerify:
			good = p.verify(scheme, digest, sig)
		case RecheckRepeat:
			again, err := k.sign(scheme, digest)
			good = err == nil && bytes.Equal(again, sig)
		}
	}
	if !good {
		clear(sig)
		return nil, false
	}
	return sig, true
}

// fault keeps the wallet from signing until the next start, and returns ErrFault.
func (w *Wallet) fault() error {
	w.store.markFaulty(w.id)
	return ErrFault
}

// fits checks a scheme against a curve and the length of a digest in bytes.
func fits(scheme Scheme, c Curve, length int) error {
	switch scheme {
	case ECDSA:
		if _, ok := hashes[length]; !ok {
			return fmt.Errorf("%w: it has %d bytes, want 32, 48 or 64", ErrDigest, length)
		}
		return nil
	case ECDSARecoverable, Schnorr:
		if c != Secp256k1 {
			return fmt.Errorf("%w: it is %s, and the scheme needs secp256k1", ErrCurve, c)
		}
		if length != 32 {
			return fmt.Errorf("%w: it has %d bytes, want 32", ErrDigest, length)
		}
		return nil
	}
	return fmt.Errorf("scheme %d: %w", int(scheme), ErrInvalid)
}

// isFaulty reports whether a signature of the wallet failed its check, through
// whichever Wallet value.
func (s *Store) isFaulty(id walletID) bool {
	if !s.anyFault.Load() {
		return false
	}
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	return s.faulty[id]
}

func (s *Store) markFaulty(id walletID) {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faulty[id] = true
	s.anyFault.Store(true)
}
