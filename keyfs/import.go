package keyfs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"signdrop/keyfs/hd"
	"signdrop/spool/durable"
)

// Imported is a private key that was made elsewhere, checked.
type Imported struct {
	key     key
	written hd.Network // that it was written for, "" if that is not told
}

// Network returns the network of the master key of an HD wallet, "" for a single key.
func (i Imported) Network() hd.Network {
	if h, ok := hdOf(i.key); ok {
		return h.network
	}
	return ""
}

// On says of which network the key is meant to be, "" for what it was written for. The
// error is ErrPrivateKey where it was written for another, or for none.
func (i Imported) On(n hd.Network) (Imported, error) {
	if n == "" {
		return i, nil
	}
	if i.written == "" || !i.written.Like(n) {
		return Imported{}, fmt.Errorf("%w: %w", ErrPrivateKey, errImportNetwork)
	}
	if h, ok := hdOf(i.key); ok {
		i.key = &hdKey{secpKey: h.secpKey, master: h.master, network: n}
	}
	return i, nil
}

// Curve returns the key's curve.
func (i Imported) Curve() Curve { return i.key.curve() }

// PublicPEM returns its public key as SubjectPublicKeyInfo in PEM, as
// Wallet.PublicPEM writes it.
func (i Imported) PublicPEM() string { return encodePublic(i.key) }

// ImportSpec says which wallet to make of a key that was made elsewhere.
type ImportSpec struct {
	ID            string
	PrivateKeyPEM []byte    // see ParsePrivateKey; the caller wipes it
	NotAfter      time.Time // see Spec

	// Network is that of an HD wallet, of which a key written for the test networks
	// does not tell; "" for what the key says.
	Network hd.Network
}

// Import is Create for keys that were made elsewhere. It keeps Create's promises:
// the same id with the same key finds the same wallet, and with another key it is
// ErrOther, which leaves everything as it is. Whoever made the key may still have
// it: nothing here can know.
//
// Errors: those of Create, and ErrPrivateKey.
func (s *Store) Import(company string, specs []ImportSpec, vol durable.FS) ([]*Wallet, error) {
	plans := make([]plan, len(specs))
	for i, spec := range specs {
		if err := checkID(company, spec.ID); err != nil {
			return nil, err
		}
		k, err := ParsePrivateKey(spec.PrivateKeyPEM)
		if err == nil {
			k, err = k.On(spec.Network)
		}
		if err != nil {
			return nil, fmt.Errorf("wallet %s: %w", spec.ID, err)
		}
		end, err := formatNotAfter(spec.NotAfter)
		if err != nil {
			return nil, fmt.Errorf("wallet %s: %w", spec.ID, err)
		}
		plans[i] = plan{id: spec.ID, curve: k.Curve(), network: k.Network(), notAfter: end, key: k.key}
	}
	return s.makeAll(company, plans, vol)
}

// PEM types of keys that were made elsewhere.
const (
	sec1Type      = "EC PRIVATE KEY"
	paramsType    = "EC PARAMETERS"
	encryptedType = "ENCRYPTED PRIVATE KEY"
)

// maxImport is more than a private key of any form takes, in bytes.
const maxImport = 4096

// What is wrong with a key that was made elsewhere. None of them holds a byte of
// it.
var (
	errImportPEM     = errors.New("it is not PEM as openssl writes it, with nothing beside the key")
	errImportType    = errors.New("it is neither an EC PRIVATE KEY nor a PRIVATE KEY in PEM")
	errImportCrypted = errors.New("it is encrypted: decrypt it first, as openssl pkey does")
	errImportForm    = errors.New("it is not an elliptic-curve key in DER")
	errImportCurve   = errors.New("it is not on P-256, P-384, P-521 or secp256k1, named by its name")
	errImportCurves  = errors.New("it names two different curves")

	errImportMaster  = errors.New("it is not the master key of its tree: its depth is not 0")
	errImportNetwork = errors.New("it is not written for this network")

	errImportVersion  = errors.New("it is not a PKCS#8 key of version 0")
	errImportTrailing = errors.New("it has bytes after the end of the key, or attributes")
	errImportScalar   = errors.New("its private number is not in the curve's range or not in its full size")
	errImportPublic   = errors.New("its public key is not that of its private key")
)

// ParsePrivateKey reads a private key that was made elsewhere: one PEM block of
// the type
//
//	EC PRIVATE KEY   SEC1 (RFC 5915), with its curve; a block EC PARAMETERS may
//	                 precede it, as openssl ecparam writes, and must name the same
//	PRIVATE KEY      PKCS#8 version 0 (RFC 5958)
//
//	BIP32 PRIVATE KEY   the master key of an HD wallet, as key.pem has it
//
// on P-256, P-384, P-521 or secp256k1, with LF or CRLF; the last line break may be
// missing. Or it is one line of base58: a key on secp256k1 in WIF, for a compressed
// public key, or an extended private key of BIP-32 that is a master key (xprv, tprv).
// In PEM The private number has the curve's full size. If the file holds the
// public key too, in any of the forms of SEC 1, it must be that of the number.
// Nothing else may be in the file. The error is ErrPrivateKey and never holds a
// byte of it. The caller wipes text.
func ParsePrivateKey(text []byte) (Imported, error) {
	i, err := parseBase58(bytes.TrimSpace(text))
	if err == nil && i.key == nil {
		i.key, err = parseImport(text)
		i.written = i.Network()
	}
	if err != nil {
		return Imported{}, fmt.Errorf("%w: %w", ErrPrivateKey, err)
	}
	return i, nil
}

// parseBase58 reads a key as Bitcoin's wallets write it. What is not meant as one gives
// none.
func parseBase58(text []byte) (Imported, error) {
	if len(text) < 40 || len(text) > 120 || bytes.ContainsAny(text, " -\r\n") {
		return Imported{}, nil
	}
	if hd.IsExtended(string(text)) {
		m, n, err := hd.Parse(string(text))
		switch {
		case err != nil:
			return Imported{}, err
		case !m.IsMaster():
			return Imported{}, errImportMaster
		}
		return Imported{newHDKey(m, n), n}, nil
	}
	number, n, err := hd.ParseWIF(string(text))
	if err != nil {
		return Imported{}, err
	}
	defer clear(number)
	k, ok := newKey(Secp256k1, number)
	if !ok {
		return Imported{}, errImportScalar
	}
	return Imported{k, n}, nil
}

// KeyOfWords returns the master key that words of BIP-39 and a passphrase stand for, as
// text for ParsePrivateKey. The caller wipes all three. The error is ErrPrivateKey.
func KeyOfWords(words, passphrase []byte, n hd.Network) ([]byte, error) {
	if !n.Known() {
		return nil, fmt.Errorf("%w: %w", ErrPrivateKey, errImportNetwork)
	}
	seed, err := hd.SeedOfWords(words, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPrivateKey, err)
	}
	defer clear(seed)
	m, err := hd.Master(seed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPrivateKey, err)
	}
	return encodeHD(newHDKey(m, n)), nil
}

func parseImport(text []byte) (key, error) {
	if len(text) > maxImport {
		return nil, errImportPEM
	}
	// Room for one more byte, the last line break: no copy is left behind.
	buf := make([]byte, len(text), len(text)+1)
	copy(buf, text)
	defer clear(buf[:cap(buf)])
	plain := buf
	if n := bytes.Count(buf, []byte("\n")); n > 0 && n == bytes.Count(buf, []byte("\r\n")) {
		plain = buf[:0]
		for _, c := range buf {
			if c != '\r' {
				plain = append(plain, c)
			}
		}
	}
	if !bytes.HasSuffix(plain, []byte("\n")) {
		plain = append(plain, '\n')
	}

	block, rest, err := nextBlock(plain)
	if err != nil {
		return nil, err
	}
	var named []byte // OID of the block EC PARAMETERS
	if block.Type == paramsType {
		named = block.Bytes
		if block, rest, err = nextBlock(rest); err != nil {
			return nil, err
		}
	}
	defer clear(block.Bytes)
	if named != nil && block.Type != sec1Type {
		return nil, errImportType
	}
	if len(rest) > 0 {
		return nil, errImportPEM
	}
	switch block.Type {
	case sec1Type:
		return parseSEC1(block.Bytes, "", named)
	case privateType:
		return parseForeignPKCS8(block.Bytes)
	case hdType:
		h, err := parseHD(block.Bytes)
		if err != nil {
			return nil, errImportMaster
		}
		return h, nil
	case encryptedType:
		return nil, errImportCrypted
	}
	return nil, errImportType
}

// nextBlock takes a PEM block from the beginning of text. It must be written as
// RFC 7468 says, in lines of 64. What the block holds is wiped by the caller,
// unless there is an error.
func nextBlock(text []byte) (*pem.Block, []byte, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, nil, errImportPEM
	}
	if _, ok := block.Headers["DEK-Info"]; ok {
		clear(block.Bytes)
		return nil, nil, errImportCrypted
	}
	again := encodePEM(block.Type, block.Bytes)
	defer clear(again)
	if !bytes.Equal(again, text[:len(text)-len(rest)]) {
		clear(block.Bytes)
		return nil, nil, errImportPEM
	}
	return block, rest, nil
}

// parseForeignPKCS8 reads a PKCS#8 key. Unlike parsePKCS8 it takes what others
// write: a public key may be missing or compressed, and the curve be named twice.
func parseForeignPKCS8(raw []byte) (key, error) {
	var info, alg, wrapped cryptobyte.String
	var version int
	in := cryptobyte.String(raw)
	if !in.ReadASN1(&info, der.SEQUENCE) || !info.ReadASN1Integer(&version) {
		return nil, errImportForm
	}
	if version != 0 {
		return nil, errImportVersion
	}
	if !info.ReadASN1Element(&alg, der.SEQUENCE) || !info.ReadASN1(&wrapped, der.OCTET_STRING) {
		return nil, errImportForm
	}
	if !in.Empty() || !info.Empty() {
		return nil, errImportTrailing
	}
	curve, ok := curveOf(alg)
	if !ok {
		return nil, errImportCurve
	}
	return parseSEC1(wrapped, curve, nil)
}

// parseSEC1 reads
//
//	SEQUENCE {               ECPrivateKey (RFC 5915)
//	  INTEGER 1              version
//	  OCTET STRING           the private number in the curve's size
//	  [0] { OID }            curve
//	  [1] { BIT STRING }     public key, optional
//	}
//
// curve is that of the PKCS#8 key around it, where [0] is optional, or "". named is
// the OID that a block EC PARAMETERS held, or nil.
func parseSEC1(raw []byte, curve Curve, named []byte) (key, error) {
	var private, scalar, outer, oid cryptobyte.String
	var version int
	var has bool

	in := cryptobyte.String(raw)
	if !in.ReadASN1(&private, der.SEQUENCE) ||
		!private.ReadASN1Integer(&version) || version != 1 ||
		!private.ReadASN1(&scalar, der.OCTET_STRING) ||
		!private.ReadOptionalASN1(&outer, &has, der.Tag(0).Constructed().ContextSpecific()) {
		return nil, errImportForm
	}
	if !in.Empty() {
		return nil, errImportTrailing
	}
	if has {
		if !outer.ReadASN1Element(&oid, der.OBJECT_IDENTIFIER) || !outer.Empty() {
			return nil, errImportCurve // explicit parameters
		}
		c, ok := curveOfOID(oid)
		switch {
		case !ok:
			return nil, errImportCurve
		case curve != "" && curve != c:
			return nil, errImportCurves
		}
		curve = c
	}
	if curve == "" {
		return nil, errImportCurve
	}
	if named != nil && !bytes.Equal(named, curves[curve].oid) {
		return nil, errImportCurves
	}
	var point []byte
	if !private.ReadOptionalASN1(&outer, &has, der.Tag(1).Constructed().ContextSpecific()) {
		return nil, errImportForm
	}
	if has && (!outer.ReadASN1BitStringAsBytes(&point) || !outer.Empty()) {
		return nil, errImportForm
	}
	if !private.Empty() {
		return nil, errImportTrailing
	}
	k, ok := newKey(curve, scalar)
	if !ok {
		return nil, errImportScalar
	}
	if has && !samePoint(k.point(), point) {
		return nil, errImportPublic
	}
	return k, nil
}

func curveOfOID(oid []byte) (Curve, bool) {
	for c, p := range curves {
		if bytes.Equal(p.oid, oid) {
			return c, true
		}
	}
	return "", false
}

// samePoint reports whether b is the point full, 4 || x || y, in one of the three
// forms of SEC 1 (section 2.3.3), the hybrid one of X9.62 included.
func samePoint(full, b []byte) bool {
	if len(b) == 0 {
		return false
	}
	odd := full[len(full)-1] & 1
	switch b[0] {
	case 4:
		return bytes.Equal(full, b)
	case 2 | odd:
		return bytes.Equal(full[1:1+len(full)/2], b[1:])
	case 6 | odd:
		return bytes.Equal(full[1:], b[1:])
	}
	return false
}
