package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"
)

// KEK is a key-encryption key: it wraps volume keys.
type KEK interface {
	// ID names it, KEK_ and 16 hexadecimal digits. It is no secret.
	ID() string

	// Kind says how it wraps, as seal.json does.
	Kind() string

	// Wrap encrypts a volume key and authenticates context with it.
	Wrap(key []byte, context string) ([]byte, error)

	// Unwrap decrypts what Wrap made with the same context. The caller wipes the
	// result.
	Unwrap(data []byte, context string) ([]byte, error)

	// Close forgets the key, or lets go of the token.
	Close()
}

// kekPrefix begins the id of a KEK.
const kekPrefix = "KEK_"

// Kinds of KEKs.
const (
	kindRaw    = "raw"
	kindAge    = "age"
	kindPKCS11 = "pkcs11"
)

// errUnwrap says that a KEK of the right id does not open the volume key.
var errUnwrap = errors.New("the wrapped volume key was changed: restore db/appliance/seal.json from the backup")

// maxSecret is more than a KEK's file holds, in bytes: an age identity for post-quantum
// keys has 80, and comments beside it.
const maxSecret = 4096

// ParseKEK makes a KEK of the content of a file: 32 bytes, or an age identity as
// age-keygen writes it (X25519, or its post-quantum form), with comments. No error
// holds a byte of it. The caller wipes secret.
func ParseKEK(secret []byte) (KEK, error) {
	if len(secret) == keySize {
		return newRaw(secret), nil
	}
	if !bytes.Contains(secret, []byte("AGE-SECRET-KEY-")) || len(secret) > maxSecret {
		return nil, fmt.Errorf("a key-encryption key is %d bytes, as head -c %d /dev/urandom makes them, or an age identity, as age-keygen does; this has %d bytes and is neither",
			keySize, keySize, len(secret))
	}
	// age's own errors could quote the key.
	ids, err := age.ParseIdentities(bytes.NewReader(secret))
	if err != nil || len(ids) != 1 {
		return nil, errors.New("the key-encryption key is not one age identity with nothing but comments beside it")
	}
	switch id := ids[0].(type) {
	case *age.X25519Identity:
		return newAge(id, id.Recipient(), id.Recipient().String(), id.String()), nil
	case *age.HybridIdentity:
		return newAge(id, id.Recipient(), id.Recipient().String(), id.String()), nil
	}
	return nil, errors.New("the key-encryption key is an age identity of a kind that is not known here: use age-keygen's")
}

// raw is a KEK of 32 bytes.
type raw struct {
	id   string
	aead cipher.AEAD
}

func newRaw(key []byte) *raw {
	return &raw{makeID(kekPrefix, derive(key, infoRawID)), newAEAD(key, infoRawWrap)}
}

func (r *raw) ID() string   { return r.id }
func (r *raw) Kind() string { return kindRaw }
func (r *raw) Close()       {}

func (r *raw) Wrap(key []byte, context string) ([]byte, error) {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, overhead+len(key))
	rand.Read(nonce) // never fails
	return r.aead.Seal(nonce, nonce, key, []byte(context)), nil
}

func (r *raw) Unwrap(data []byte, context string) ([]byte, error) {
	if len(data) != keySize+overhead {
		return nil, errUnwrap
	}
	key, err := r.aead.Open(nil, data[:chacha20poly1305.NonceSizeX], data[chacha20poly1305.NonceSizeX:], []byte(context))
	if err != nil {
		return nil, errUnwrap
	}
	return key, nil
}

// ageKEK is an age identity. Whoever knows its recipient can encrypt to it, so a tag
// says that the wrapped key comes from somebody who has the identity.
type ageKEK struct {
	id        string
	identity  age.Identity
	recipient age.Recipient
	tagKey    []byte
}

func newAge(identity age.Identity, r age.Recipient, recipient, secret string) *ageKEK {
	sum := sha256.Sum256([]byte(infoAge + "\n" + recipient))
	return &ageKEK{makeID(kekPrefix, sum[:]), identity, r, derive([]byte(secret), infoAge)}
}

func (a *ageKEK) ID() string   { return a.id }
func (a *ageKEK) Kind() string { return kindAge }
func (a *ageKEK) Close()       { clear(a.tagKey) }

func (a *ageKEK) tag(key []byte, context string) []byte {
	m := hmac.New(sha256.New, a.tagKey)
	m.Write([]byte(context))
	m.Write(key)
	return m.Sum(nil)
}

func (a *ageKEK) Wrap(key []byte, context string) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, a.recipient)
	if err != nil {
		return nil, err
	}
	plain := slices.Concat(key, a.tag(key, context))
	defer clear(plain)
	_, err = w.Write(plain)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (a *ageKEK) Unwrap(data []byte, context string) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(data), a.identity)
	if err != nil {
		return nil, errUnwrap
	}
	plain, err := io.ReadAll(io.LimitReader(r, 2*keySize+1))
	if err != nil || len(plain) != 2*keySize || !hmac.Equal(plain[keySize:], a.tag(plain[:keySize], context)) {
		clear(plain)
		return nil, errUnwrap
	}
	return plain[:keySize:keySize], nil
}

// wrapContext is what is authenticated with a wrapped volume key.
func wrapContext(k KEK, volumeKeyID string) string {
	return strings.Join([]string{infoVolumeKey, k.Kind(), k.ID(), volumeKeyID}, " ")
}
