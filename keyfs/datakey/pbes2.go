package datakey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"hash"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// An encrypted private key is (RFC 5958, section 3; RFC 8018, appendix A)
//
//	SEQUENCE {                            EncryptedPrivateKeyInfo
//	  SEQUENCE {
//	    OID PBES2
//	    SEQUENCE {
//	      SEQUENCE {
//	        OID PBKDF2
//	        SEQUENCE {
//	          OCTET STRING                salt
//	          INTEGER                     rounds
//	          INTEGER 32                  optional: the length of the key
//	          SEQUENCE { OID, NULL }      HMAC; without it SHA-1
//	        }
//	      }
//	      SEQUENCE { OID AES-256-CBC, OCTET STRING iv }
//	    }
//	  }
//	  OCTET STRING                        AES-256-CBC of the PKCS#8 key, padded
//	}

// newRounds is how many rounds of PBKDF2 a new key takes, and maxRounds how many
// are accepted: a file that asks for more is to keep us busy.
const (
	newRounds = 600_000
	maxRounds = 10_000_000
)

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

const (
	encryptedType = "ENCRYPTED PRIVATE KEY"
	publicType    = "PUBLIC KEY"
)

// What is wrong with a key, to be read after a file's name or by itself. None of
// them holds a byte of it.
var (
	errNotSealed = errors.New("is not an ENCRYPTED PRIVATE KEY in PEM with nothing beside it")
	errForm      = errors.New("is not a key under PBES2 with AES-256-CBC and PBKDF2 with HMAC-SHA-1 or -SHA-256")
	errPublic    = errors.New("is not beside the PUBLIC KEY in PEM of an RSA key of 4096 bits")
	errSize      = errors.New("holds a key that is not RSA of 4096 bits")
)

// box is an encrypted private key, parsed.
type box struct {
	salt, iv, data []byte
	rounds         int
	prf            func() hash.Hash
}

// lockKey encrypts a private key.
func lockKey(priv *rsa.PrivateKey, passphrase []byte, rounds int) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	b := box{salt: make([]byte, 16), iv: make([]byte, aes.BlockSize), rounds: rounds, prf: sha256.New}
	rand.Read(b.salt) // never fails
	rand.Read(b.iv)
	block, err := b.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	// RFC 8018, section 6.1.1, step 4: as many bytes as are missing, each of which
	// says how many.
	n := aes.BlockSize - len(plain)%aes.BlockSize
	padded := make([]byte, len(plain)+n)
	copy(padded, plain)
	copy(padded[len(plain):], bytes.Repeat([]byte{byte(n)}, n))
	cipher.NewCBCEncrypter(block, b.iv).CryptBlocks(padded, padded)
	b.data = padded
	return b.encode(), nil
}

// cipher derives the key of a passphrase.
func (b *box) cipher(passphrase []byte) (cipher.Block, error) {
	key, err := pbkdf2.Key(b.prf, string(passphrase), b.salt, b.rounds, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return aes.NewCipher(key)
}

func (b *box) encode() []byte {
	var out cryptobyte.Builder
	out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
		out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
			out.AddASN1ObjectIdentifier(oidPBES2)
			out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
				out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
					out.AddASN1ObjectIdentifier(oidPBKDF2)
					out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
						out.AddASN1OctetString(b.salt)
						out.AddASN1Int64(int64(b.rounds))
						out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
							out.AddASN1ObjectIdentifier(oidHMACSHA256)
							out.AddASN1NULL()
						})
					})
				})
				out.AddASN1(der.SEQUENCE, func(out *cryptobyte.Builder) {
					out.AddASN1ObjectIdentifier(oidAES256CBC)
					out.AddASN1OctetString(b.iv)
				})
			})
		})
		out.AddASN1OctetString(b.data)
	})
	return pem.EncodeToMemory(&pem.Block{Type: encryptedType, Bytes: out.BytesOrPanic()})
}

// unlockKey decrypts a private key. The error is ErrPassphrase, or says what is wrong
// with the text. The caller wipes the key.
//
// A passphrase that is wrong shows in the padding, or in what is no key. Damage of
// the encrypted bytes cannot be told from it.
func unlockKey(text, passphrase []byte) (*rsa.PrivateKey, error) {
	raw, err := onePEM(text, encryptedType)
	if err != nil {
		return nil, errNotSealed
	}
	b, err := parseBox(raw)
	if err != nil {
		return nil, err
	}
	block, err := b.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(b.data))
	defer clear(plain)
	cipher.NewCBCDecrypter(block, b.iv).CryptBlocks(plain, b.data)
	n := int(plain[len(plain)-1])
	if n < 1 || n > aes.BlockSize ||
		subtle.ConstantTimeCompare(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) != 1 {
		return nil, ErrPassphrase
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain[:len(plain)-n])
	if err != nil {
		return nil, ErrPassphrase
	}
	priv, ok := parsed.(*rsa.PrivateKey)
	if !ok || !fits(&priv.PublicKey) {
		return nil, errSize
	}
	return priv, nil
}

// canonical returns an encrypted private key as it is kept: with LF. It does not
// open it.
func canonical(text []byte) ([]byte, error) {
	raw, err := onePEM(text, encryptedType)
	if err != nil {
		return nil, errNotSealed
	}
	if _, err := parseBox(raw); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: encryptedType, Bytes: raw}), nil
}

// onePEM returns what the one PEM block of a text holds. The text is the block as
// RFC 7468 writes it, with LF or CRLF; the last line break may be missing.
func onePEM(text []byte, kind string) ([]byte, error) {
	if len(text) > maxFile {
		return nil, errNotSealed
	}
	if n := bytes.Count(text, []byte("\n")); n > 0 && n == bytes.Count(text, []byte("\r\n")) {
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(rest) > 0 {
		return nil, errNotSealed
	}
	again := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: block.Bytes})
	if !bytes.Equal(bytes.TrimSuffix(again, []byte("\n")), bytes.TrimSuffix(text, []byte("\n"))) {
		return nil, errNotSealed
	}
	return block.Bytes, nil
}

func parseBox(raw []byte) (*box, error) {
	b := &box{prf: sha1.New}
	var outer, alg, params, kdf, kdfParams, enc, salt, iv, data cryptobyte.String
	var pbes2, pbkdf, aescbc asn1.ObjectIdentifier
	in := cryptobyte.String(raw)
	if !in.ReadASN1(&outer, der.SEQUENCE) || !in.Empty() ||
		!outer.ReadASN1(&alg, der.SEQUENCE) || !outer.ReadASN1(&data, der.OCTET_STRING) || !outer.Empty() ||
		!alg.ReadASN1ObjectIdentifier(&pbes2) || !pbes2.Equal(oidPBES2) ||
		!alg.ReadASN1(&params, der.SEQUENCE) || !alg.Empty() ||
		!params.ReadASN1(&kdf, der.SEQUENCE) || !params.ReadASN1(&enc, der.SEQUENCE) || !params.Empty() ||
		!kdf.ReadASN1ObjectIdentifier(&pbkdf) || !pbkdf.Equal(oidPBKDF2) ||
		!kdf.ReadASN1(&kdfParams, der.SEQUENCE) || !kdf.Empty() ||
		!enc.ReadASN1ObjectIdentifier(&aescbc) || !aescbc.Equal(oidAES256CBC) ||
		!enc.ReadASN1(&iv, der.OCTET_STRING) || !enc.Empty() ||
		!kdfParams.ReadASN1(&salt, der.OCTET_STRING) || !kdfParams.ReadASN1Integer(&b.rounds) {
		return nil, errForm
	}
	if kdfParams.PeekASN1Tag(der.INTEGER) {
		var length int
		if !kdfParams.ReadASN1Integer(&length) || length != 32 {
			return nil, errForm
		}
	}
	if !kdfParams.Empty() {
		var prf, null cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !kdfParams.ReadASN1(&prf, der.SEQUENCE) || !kdfParams.Empty() ||
			!prf.ReadASN1ObjectIdentifier(&oid) || !prf.ReadASN1(&null, der.NULL) || !null.Empty() || !prf.Empty() {
			return nil, errForm
		}
		switch {
		case oid.Equal(oidHMACSHA256):
			b.prf = sha256.New
		case !oid.Equal(oidHMACSHA1):
			return nil, errForm
		}
	}
	if len(salt) < 8 || len(salt) > 64 || b.rounds < 1 || b.rounds > maxRounds ||
		len(iv) != aes.BlockSize || len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, errForm
	}
	b.salt, b.iv, b.data = salt, iv, data
	return b, nil
}

// fits reports whether a public key is one of ours.
func fits(pub *rsa.PublicKey) bool { return pub.N.BitLen() == Bits && pub.E == 65537 }

func parsePublic(text []byte) (*rsa.PublicKey, error) {
	raw, err := onePEM(text, publicType)
	if err != nil {
		return nil, errPublic
	}
	parsed, err := x509.ParsePKIXPublicKey(raw)
	if err != nil {
		return nil, errPublic
	}
	pub, ok := parsed.(*rsa.PublicKey)
	if !ok || !fits(pub) {
		return nil, errPublic
	}
	if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, raw) {
		return nil, errPublic
	}
	return pub, nil
}

func encodePublic(pub *rsa.PublicKey) string {
	raw, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic("internal error: encoding an RSA public key: " + err.Error())
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: raw}))
}

// wipe overwrites what can be reached of a private key, which cannot be used any
// more then.
func wipe(priv *rsa.PrivateKey) {
	clear(priv.D.Bits())
	for _, p := range priv.Primes {
		clear(p.Bits())
	}
	if priv.Precomputed.Dp != nil {
		clear(priv.Precomputed.Dp.Bits())
		clear(priv.Precomputed.Dq.Bits())
		clear(priv.Precomputed.Qinv.Bits())
	}
}
