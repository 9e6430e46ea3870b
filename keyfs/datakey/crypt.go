package datakey

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"signdrop/keyfs"
)

// Algorithm says how something is encrypted. The caller names it; it is never
// guessed from the ciphertext.
type Algorithm string

// The algorithms.
const (
	// OAEPSHA256 is RSAES-OAEP (RFC 8017, section 7.1) with SHA-256 for the hash
	// and for MGF1, without a label: 512 bytes.
	OAEPSHA256 Algorithm = "rsa-oaep-sha256"

	// OAEPSHA1 is the same with SHA-1, as walletKMS encrypted. Nothing new is
	// encrypted so.
	OAEPSHA1 Algorithm = "rsa-oaep-sha1"

	// JWE is a JSON Web Encryption in its compact form (RFC 7516), with
	// RSA-OAEP-256 and A256GCM (RFC 7518).
	JWE Algorithm = "jwe"
)

// Known reports whether a is one of the algorithms.
func (a Algorithm) Known() bool { return a == OAEPSHA256 || a == OAEPSHA1 || a == JWE }

// MaxText is how many bytes EncryptText takes: the 512 of the key less twice the 32
// of SHA-256 and 2.
const MaxText = Bits/8 - 2*sha256.Size - 2

// EncryptText encrypts up to MaxText bytes by OAEPSHA256 and returns 512 bytes,
// each time others. Errors: ErrTooLong, keyfs.ErrDisabled.
func (k *Key) EncryptText(text []byte) ([]byte, error) {
	if !k.Active() {
		return nil, fmt.Errorf("encrypting with data key %s: %w", k, keyfs.ErrDisabled)
	}
	if len(text) > MaxText {
		return nil, fmt.Errorf("encrypting with data key %s: %w", k, ErrTooLong)
	}
	out, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, k.pub, text, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypting with data key %s: %w", k, err)
	}
	return out, nil
}

// EncryptJWE encrypts any number of bytes, as JWE. Error: keyfs.ErrDisabled.
func (k *Key) EncryptJWE(plain []byte) (string, error) {
	if !k.Active() {
		return "", fmt.Errorf("encrypting with data key %s: %w", k, keyfs.ErrDisabled)
	}
	e, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: k.pub}, nil)
	if err != nil {
		return "", fmt.Errorf("encrypting with data key %s: %w", k, err)
	}
	obj, err := e.Encrypt(plain)
	if err != nil {
		return "", fmt.Errorf("encrypting with data key %s: %w", k, err)
	}
	text, err := obj.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("encrypting with data key %s: %w", k, err)
	}
	return text, nil
}

// Decrypt decrypts what was encrypted for the key by the given algorithm: the bytes
// themselves, not their base64, and for JWE its text. The caller wipes passphrase
// and result.
//
// Errors: keyfs.ErrInvalid (the algorithm, or what cannot be a passphrase),
// keyfs.ErrDisabled, ErrPassphrase, ErrCiphertext, *keyfs.Damaged; any other is the
// disk's. With ErrCiphertext the passphrase may have been right or not been tried.
func (k *Key) Decrypt(a Algorithm, ciphertext, passphrase []byte) ([]byte, error) {
	if !a.Known() {
		return nil, fmt.Errorf("algorithm %q is none of %s, %s, %s: %w", string(a), OAEPSHA256, OAEPSHA1, JWE, keyfs.ErrInvalid)
	}
	if err := CheckPassphrase(passphrase); err != nil {
		return nil, err
	}
	if !k.Active() {
		return nil, fmt.Errorf("decrypting with data key %s: %w", k, keyfs.ErrDisabled)
	}
	// What cannot be a ciphertext is refused before the work that a passphrase
	// costs.
	var obj *jose.JSONWebEncryption
	if a == JWE {
		var err error
		if obj, err = parseJWE(ciphertext); err != nil {
			return nil, err
		}
	} else if len(ciphertext) != Bits/8 {
		return nil, ErrCiphertext
	}
	priv, err := k.unlock(passphrase)
	if err != nil {
		return nil, err
	}
	defer wipe(priv)
	var plain []byte
	switch a {
	case JWE:
		plain, err = obj.Decrypt(priv)
	case OAEPSHA256:
		plain, err = oaep(sha256.New(), priv, ciphertext)
	case OAEPSHA1:
		plain, err = oaep(sha1.New(), priv, ciphertext)
	}
	if err != nil {
		return nil, ErrCiphertext // and no word of what was wrong
	}
	return plain, nil
}

func oaep(h hash.Hash, priv *rsa.PrivateKey, ciphertext []byte) ([]byte, error) {
	return rsa.DecryptOAEP(h, nil, priv, ciphertext, nil)
}

// jweHeader is what the header of a JWE may hold. There is no zip: what was
// compressed before it was encrypted tells of itself by its length, and may be a
// bomb.
type jweHeader struct {
	Algorithm   string `json:"alg"`
	Encryption  string `json:"enc"`
	KeyID       string `json:"kid"`
	Type        string `json:"typ"`
	ContentType string `json:"cty"`
}

// parseJWE reads a JWE of the one kind that is taken.
func parseJWE(text []byte) (*jose.JSONWebEncryption, error) {
	// base64 decoders pass over line breaks.
	if bytes.ContainsFunc(text, func(r rune) bool {
		return !('A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
	}) {
		return nil, ErrCiphertext
	}
	first, _, _ := bytes.Cut(text, []byte("."))
	raw, err := base64.RawURLEncoding.Strict().DecodeString(string(first))
	if err != nil {
		return nil, ErrCiphertext
	}
	var h jweHeader
	if err := json.Unmarshal(raw, &h, json.RejectUnknownMembers(true)); err != nil {
		return nil, ErrCiphertext
	}
	if h.Algorithm != string(jose.RSA_OAEP_256) || h.Encryption != string(jose.A256GCM) {
		return nil, ErrCiphertext
	}
	obj, err := jose.ParseEncryptedCompact(string(text), []jose.KeyAlgorithm{jose.RSA_OAEP_256}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return nil, ErrCiphertext
	}
	return obj, nil
}
