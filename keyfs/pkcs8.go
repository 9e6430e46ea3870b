package keyfs

import (
	"bytes"
	"encoding/pem"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Keys are written by one encoder and read by one parser for all curves, since
// crypto/x509 does not know secp256k1 and lets bytes after a PKCS#8 key pass.
// A private key is (RFC 5958, RFC 5915; OpenSSL writes the same bytes)
//
//	SEQUENCE {                         PrivateKeyInfo
//	  INTEGER 0                        version
//	  SEQUENCE { OID, OID }            elliptic-curve key, curve
//	  OCTET STRING {
//	    SEQUENCE {                     ECPrivateKey
//	      INTEGER 1                    version
//	      OCTET STRING                 the private number in the curve's size
//	      [1] { BIT STRING }           the public key, 4 || x || y
//	    }
//	  }
//	}
//
// Wiping what held a private number is best effort: Go may have copied a stack
// while it grew, the buffers inside encoding/pem and the registers are out of
// reach, and the parsed key stays in memory by design. The machine must keep
// its memory to itself: no swap, no core dump.

const (
	privateType = "PRIVATE KEY"
	publicType  = "PUBLIC KEY"
)

// What is wrong with a key file, to be read after its name. None of them holds
// a byte of the file.
var (
	errNotPEM     = errors.New("is not PEM: it is empty, cut off or garbled")
	errPEMType    = errors.New("is not a PEM of the type PRIVATE KEY")
	errPEMBeside  = errors.New("holds something beside the key")
	errNotPKCS8   = errors.New("is not a PKCS#8 key")
	errVersion    = errors.New("is not a PKCS#8 key of version 0")
	errAlgorithm  = errors.New("is not a key on P-256, P-384, P-521 or secp256k1")
	errTrailing   = errors.New("has bytes after the end of the key")
	errScalar     = errors.New("holds a private number that is not in the curve's range")
	errPublicHalf = errors.New("holds a public key that is not that of its private key")
)

// encodeKey writes a private key as PKCS#8 in PEM, and a master key in the form of
// encodeHD. The caller wipes it.
func encodeKey(k key) []byte {
	if h, ok := hdOf(k); ok {
		return encodeHD(h)
	}
	scalar := k.scalar()
	defer clear(scalar)
	// Neither buffer grows, so that none leaves a copy behind: a P-521 key
	// takes 241 bytes, and 384 in PEM.
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, 256))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddBytes(curves[k.curve()].algorithm)
		b.AddASN1(der.OCTET_STRING, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1OctetString(scalar)
				b.AddASN1(der.Tag(1).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
					b.AddASN1BitString(k.point())
				})
			})
		})
	})
	raw := b.BytesOrPanic()
	defer clear(raw)
	return encodePEM(privateType, raw)
}

// encodePublic writes a key's public half as SubjectPublicKeyInfo in PEM
// (RFC 5480), the point uncompressed.
func encodePublic(k key) string {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(curves[k.curve()].algorithm)
		b.AddASN1BitString(k.point())
	})
	return string(encodePEM(publicType, b.BytesOrPanic()))
}

func encodePEM(kind string, raw []byte) []byte {
	buf := bytes.NewBuffer(make([]byte, 0, 512))
	if err := pem.Encode(buf, &pem.Block{Type: kind, Bytes: raw}); err != nil {
		panic("internal error: encoding PEM into memory: " + err.Error())
	}
	return buf.Bytes()
}

// parseKey reads what encodeKey wrote, byte for byte, and computes the public
// key anew. The error completes a sentence that begins with the file's name.
func parseKey(text []byte) (key, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errNotPEM
	case block.Type != privateType && block.Type != hdType:
		clear(block.Bytes)
		return nil, errPEMType
	}
	defer clear(block.Bytes)
	// Text before or after the block, headers, other line lengths.
	again := encodePEM(block.Type, block.Bytes)
	defer clear(again)
	if !bytes.Equal(again, text) {
		return nil, errPEMBeside
	}
	if block.Type == hdType {
		h, err := parseHD(block.Bytes)
		if err != nil {
			return nil, err
		}
		return h, nil
	}
	return parsePKCS8(block.Bytes)
}

func parsePKCS8(raw []byte) (key, error) {
	var info, alg, wrapped, private, scalar, outer cryptobyte.String
	var point []byte
	var version int

	in := cryptobyte.String(raw)
	if !in.ReadASN1(&info, der.SEQUENCE) {
		return nil, errNotPKCS8
	}
	if !in.Empty() {
		return nil, errTrailing
	}
	if !info.ReadASN1Integer(&version) || version != 0 {
		return nil, errVersion
	}
	if !info.ReadASN1Element(&alg, der.SEQUENCE) {
		return nil, errNotPKCS8
	}
	curve, ok := curveOf(alg)
	if !ok {
		return nil, errAlgorithm
	}
	if !info.ReadASN1(&wrapped, der.OCTET_STRING) || !wrapped.ReadASN1(&private, der.SEQUENCE) {
		return nil, errNotPKCS8
	}
	if !info.Empty() || !wrapped.Empty() {
		return nil, errTrailing
	}
	if !private.ReadASN1Integer(&version) || version != 1 ||
		!private.ReadASN1(&scalar, der.OCTET_STRING) ||
		!private.ReadASN1(&outer, der.Tag(1).Constructed().ContextSpecific()) ||
		!outer.ReadASN1BitStringAsBytes(&point) {
		return nil, errNotPKCS8
	}
	if !private.Empty() || !outer.Empty() {
		return nil, errTrailing
	}
	k, ok := newKey(curve, scalar)
	if !ok {
		return nil, errScalar
	}
	if !bytes.Equal(k.point(), point) {
		return nil, errPublicHalf
	}
	return k, nil
}

func curveOf(algorithm []byte) (Curve, bool) {
	for c, p := range curves {
		if bytes.Equal(p.algorithm, algorithm) {
			return c, true
		}
	}
	return "", false
}
