// Package seal encrypts the key files of a data volume at rest, with keys that are
// not on that volume. docs/formats.md specifies what it writes ("Sealed key files").
//
// A Sealer encrypts and decrypts the bytes of single files under the volume key. The
// volume key is random and lies in db/appliance/seal.json, wrapped under a
// key-encryption key (KEK) that comes from elsewhere: see ReadKEK. So the KEK is
// needed once for each start, however slow its token is, and changing it changes one
// file.
//
// # What it promises
//
// A sealed file opens only under its volume key, at its path and beside its public
// key. What Create, Rotate and Convert have begun and not finished is finished by
// doing it again, after a crash at any point; until then either key opens the volume.
// No error holds a byte of a key.
//
// # What it must not be used for
//
// It protects a disk that is copied or taken away, and backups. It does not protect
// from whoever can read the memory of the process, or can write to the volume while
// it is in use: they may put back an older file of the same name, whole.
package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// keySize is the length of volume keys and of raw KEKs, in bytes.
const keySize = 32

// Label says which file sealed bytes belong to. It is authenticated and not secret.
type Label struct {
	Path   string // below db, slash-separated
	Public string // the public key that belongs to the file; "" for none
}

// What is wrong with a key file, to be read after its name.
var (
	errForm    = errors.New("begins like a sealed key and is not in the form of one: it is cut off or garbled")
	errOpen    = errors.New("does not open with the volume key: it was changed, or belongs to another key")
	errPlain   = errors.New("is in the clear, on a volume whose keys are sealed")
	errNoKey   = errors.New("is sealed, and the volume is opened without a key-encryption key (--seal)")
	errForeign = errors.New("is sealed with another volume key")
)

// The header of a sealed file.
const (
	magic     = "signdrop-sealed "
	header    = magic + "1 " + algorithm + " "
	algorithm = "XChaCha20-Poly1305"
	volumeKey = "VK_" // begins the id of a volume key
)

// overhead is by how much a nonce and a tag make a file longer, in bytes.
const overhead = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// MaxSize returns how long a file of at most n bytes can be when it is sealed.
func MaxSize(n int64) int64 {
	return int64(len(header)+len(volumeKey)+2*idBytes+2) + (n+overhead+2)/3*4
}

// Sealed reports whether a file's bytes begin as those of a sealed file do.
func Sealed(text []byte) bool { return bytes.HasPrefix(text, []byte(magic)) }

// box is a sealed file, parsed.
type box struct {
	key  string // id of the volume key
	data []byte // nonce, ciphertext, tag
}

func (b box) header() string { return header + b.key + "\n" }

func (b box) encode() []byte {
	return fmt.Appendf(nil, "%s%s\n", b.header(), base64.StdEncoding.EncodeToString(b.data))
}

// parse reads what encode wrote, byte for byte.
func parse(text []byte) (box, error) {
	rest, ok := bytes.CutPrefix(text, []byte(header))
	if !ok {
		return box{}, errForm
	}
	id, body, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || !isID(string(id), volumeKey) {
		return box{}, errForm
	}
	data, err := base64.StdEncoding.AppendDecode(nil, body)
	if err != nil || len(data) < overhead {
		return box{}, errForm
	}
	b := box{key: string(id), data: data}
	if !bytes.Equal(b.encode(), text) {
		return box{}, errForm // line breaks within the base64, loose bits at its end
	}
	return b, nil
}

// aad is what is authenticated with a file.
func (b box) aad(l Label) []byte {
	return []byte(b.header() + l.Path + "\n" + l.Public + "\n")
}

// Sealer seals and opens key files. It never changes and is safe for concurrent use.
//
// A nil Sealer is that of a volume whose keys lie in the clear: it hands bytes through
// and refuses sealed ones.
type Sealer struct {
	current string                 // id of the key that seals
	keys    map[string]cipher.AEAD // by id; those that open
	kek     string                 // id of the KEK that was given
}

// Seal encrypts the bytes of a file. A nil Sealer returns plain itself.
func (s *Sealer) Seal(plain []byte, l Label) ([]byte, error) {
	if s == nil {
		return plain, nil
	}
	b := box{key: s.current, data: make([]byte, chacha20poly1305.NonceSizeX, len(plain)+overhead)}
	rand.Read(b.data) // never fails
	b.data = s.keys[s.current].Seal(b.data, b.data, plain, b.aad(l))
	text := b.encode()
	// A key that cannot be opened any more would be lost: it is opened once, from the
	// bytes that are written.
	again, err := s.Open(text, l)
	defer clear(again)
	if err != nil || !bytes.Equal(again, plain) {
		return nil, errors.New("internal error: what was sealed does not open: the machine may be faulty")
	}
	return text, nil
}

// Open decrypts what Seal made for the same label. The error is to be read after the
// file's name. The caller wipes the result. A nil Sealer returns text itself.
func (s *Sealer) Open(text []byte, l Label) ([]byte, error) {
	sealed := Sealed(text)
	switch {
	case s == nil && sealed:
		return nil, errNoKey
	case s == nil:
		return text, nil
	case !sealed:
		return nil, errPlain
	}
	b, err := parse(text)
	if err != nil {
		return nil, err
	}
	key, ok := s.keys[b.key]
	if !ok {
		return nil, fmt.Errorf("%w (%s, this volume has %s)", errForeign, b.key, s.current)
	}
	nonce, data := b.data[:chacha20poly1305.NonceSizeX], b.data[chacha20poly1305.NonceSizeX:]
	plain, err := key.Open(nil, nonce, data, b.aad(l))
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}

// KEK returns the id of the key-encryption key that opened the volume.
func (s *Sealer) KEK() string {
	if s == nil {
		return ""
	}
	return s.kek
}

// VolumeKey returns the id of the volume key that seals.
func (s *Sealer) VolumeKey() string {
	if s == nil {
		return ""
	}
	return s.current
}

// Purposes of derived keys and ids.
const (
	infoFiles     = "signdrop key files 1"
	infoVolumeID  = "signdrop volume key id 1"
	infoMAC       = "signdrop seal.json 1"
	infoRawID     = "signdrop kek id 1"
	infoRawWrap   = "signdrop kek wrap 1"
	infoAge       = "signdrop kek age 1"
	infoVolumeKey = "signdrop volume key 1"
)

// derive is HKDF-SHA-256 without a salt, 32 bytes. The caller wipes the result.
func derive(secret []byte, info string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, info, keySize)
	if err != nil {
		panic("internal error: deriving a key: " + err.Error())
	}
	return key
}

// idBytes is how long ids are, before they are written in hexadecimal.
const idBytes = 8

// makeID makes an id of a digest or a derived key.
func makeID(prefix string, b []byte) string { return prefix + hex.EncodeToString(b[:idBytes]) }

func isID(s, prefix string) bool {
	digits, ok := strings.CutPrefix(s, prefix)
	return ok && len(digits) == 2*idBytes && strings.Trim(digits, "0123456789abcdef") == ""
}

// newAEAD makes a cipher of a derived key.
func newAEAD(secret []byte, info string) cipher.AEAD {
	key := derive(secret, info)
	defer clear(key)
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("internal error: making a cipher: " + err.Error())
	}
	return a
}
