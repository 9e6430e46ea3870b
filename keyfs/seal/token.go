//go:build pkcs11

package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// token is an AES key in a PKCS#11 token, which never leaves it.
type token struct {
	id      string
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
	key     pkcs11.ObjectHandle
}

// Lengths for AES-GCM, in bytes.
const (
	gcmIV  = 12
	gcmTag = 16
)

// openToken opens the key that a PKCS#11 URI names, see parseURI. The token's library
// becomes part of this process: it is trusted with everything.
func openToken(uri, data string) (KEK, error) {
	u, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	t := &token{ctx: pkcs11.New(u.module)}
	if t.ctx == nil {
		return nil, fmt.Errorf("loading the token's library %s: it is no PKCS#11 library, or cannot be read", u.module)
	}
	if err := t.open(u, data); err != nil {
		t.Close()
		return nil, fmt.Errorf("opening the token: %w", err)
	}
	return t, nil
}

func (t *token) open(u *tokenURI, data string) error {
	if err := t.ctx.Initialize(); err != nil {
		return fmt.Errorf("beginning with its library: %w", err)
	}
	slot, err := t.find(u)
	if err != nil {
		return err
	}
	if t.session, err = t.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		return fmt.Errorf("opening a session: %w", err)
	}
	if u.pin != "" {
		pin, err := readPIN(u.pin, data)
		if err != nil {
			return err
		}
		err = t.ctx.Login(t.session, pkcs11.CKU_USER, string(pin))
		clear(pin)
		if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
			return fmt.Errorf("logging in: %w (a token locks itself after a few wrong PINs)", err)
		}
	}
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
	}
	if u.object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, u.object))
	}
	if u.id != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(u.id)))
	}
	if err := t.ctx.FindObjectsInit(t.session, template); err != nil {
		return fmt.Errorf("looking for the key: %w", err)
	}
	found, _, err := t.ctx.FindObjects(t.session, 2)
	if err = errors.Join(err, t.ctx.FindObjectsFinal(t.session)); err != nil {
		return fmt.Errorf("looking for the key: %w", err)
	}
	if len(found) != 1 {
		return fmt.Errorf("it has not one AES key that the URI names (more than one, or none without the PIN)")
	}
	t.key = found[0]
	attrs, err := t.ctx.GetAttributeValue(t.session, t.key, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, nil), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil),
		pkcs11.NewAttribute(pkcs11.CKA_CHECK_VALUE, nil),
	})
	if err != nil {
		return fmt.Errorf("looking at the key: %w", err)
	}
	if !slices.Contains(attrs[1].Value, keySize) { // a number in the machine's byte order
		return errors.New("its key is not one of 256 bits")
	}
	// The check value is three bytes of a block of zeros, encrypted: it tells keys apart
	// that have the same name, and is the same for the copy of a key in another token.
	sum := sha256.Sum256(slices.Concat([]byte("signdrop kek pkcs11 1\n"), attrs[2].Value, []byte("\n"), attrs[0].Value))
	t.id = makeID(kekPrefix, sum[:])
	return nil
}

// find returns the slot of the one token that the URI names.
func (t *token) find(u *tokenURI) (slot uint, err error) {
	slots, err := t.ctx.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("listing the tokens: %w", err)
	}
	n := 0
	for _, s := range slots {
		info, err := t.ctx.GetTokenInfo(s)
		if err != nil {
			continue // none is in it
		}
		label, number := strings.TrimRight(info.Label, " \x00"), strings.TrimRight(info.SerialNumber, " \x00")
		if (u.token == "" || u.token == label) && (u.serial == "" || u.serial == number) {
			slot, n = s, n+1
		}
	}
	if n != 1 {
		return 0, fmt.Errorf("%d tokens have this name: name one by its serial number", n)
	}
	return slot, nil
}

func (t *token) ID() string   { return t.id }
func (t *token) Kind() string { return kindPKCS11 }

// Close ends what openToken began, as far as that got.
func (t *token) Close() {
	if t.ctx == nil {
		return
	}
	// What fails here is over anyhow.
	_ = t.ctx.Logout(t.session)
	_ = t.ctx.CloseSession(t.session)
	_ = t.ctx.Finalize()
	t.ctx.Destroy()
	t.ctx = nil
}

func (t *token) Wrap(key []byte, context string) ([]byte, error) {
	iv := make([]byte, gcmIV)
	rand.Read(iv) // never fails
	params := pkcs11.NewGCMParams(iv, []byte(context), 8*gcmTag)
	defer params.Free()
	if err := t.ctx.EncryptInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, t.key); err != nil {
		return nil, fmt.Errorf("the token does not encrypt with AES-GCM: %w", err)
	}
	data, err := t.ctx.Encrypt(t.session, key)
	if err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	if used := params.IV(); len(used) == gcmIV {
		iv = used // a token may draw its own
	}
	return append(slices.Clone(iv), data...), nil
}

func (t *token) Unwrap(data []byte, context string) ([]byte, error) {
	if len(data) != gcmIV+keySize+gcmTag {
		return nil, errUnwrap
	}
	params := pkcs11.NewGCMParams(data[:gcmIV], []byte(context), 8*gcmTag)
	defer params.Free()
	if err := t.ctx.DecryptInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, t.key); err != nil {
		return nil, fmt.Errorf("the token does not decrypt with AES-GCM: %w", err)
	}
	key, err := t.ctx.Decrypt(t.session, data[gcmIV:])
	if err != nil || len(key) != keySize {
		return nil, errUnwrap // an HSM says little more
	}
	return key, nil
}

// readPIN reads a token's PIN from where spec says, as a KEK's bytes are read. A line
// break at its end is none of it.
func readPIN(spec, data string) ([]byte, error) {
	pin, _, err := readSecret(spec, data)
	if err != nil {
		return nil, fmt.Errorf("reading the token's PIN: %w", err)
	}
	pin = bytes.TrimRight(pin, "\r\n")
	if len(pin) == 0 {
		return nil, fmt.Errorf("reading the token's PIN: %s is empty", spec)
	}
	return pin, nil
}
