package seal

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// tokenURI is a PKCS#11 URI (RFC 7512) that names a key.
type tokenURI struct {
	token, serial string // label and serial number of the token; at least one
	object, id    string // CKA_LABEL and CKA_ID of the key; at least one
	module        string // path of the token's library
	pin           string // where the PIN is, as ReadKEK has it; "" for none
}

// parseURI reads
//
//	pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/…/libsofthsm2.so&pin-source=credential:NAME
//
// with serial and id in place of the labels or beside them. Nothing else is accepted: an
// attribute that is not understood could be the one that tells two keys apart. There is
// no pin-value, since ps shows it to everybody.
func parseURI(uri string) (*tokenURI, error) {
	rest, ok := strings.CutPrefix(uri, "pkcs11:")
	if !ok {
		return nil, errors.New("not a PKCS#11 URI")
	}
	path, query, _ := strings.Cut(rest, "?")
	u := &tokenURI{}
	if err := u.read(path, ";", map[string]*string{"token": &u.token, "serial": &u.serial, "object": &u.object, "id": &u.id, "type": nil}); err != nil {
		return nil, err
	}
	if err := u.read(query, "&", map[string]*string{"module-path": &u.module, "pin-source": &u.pin}); err != nil {
		return nil, err
	}
	switch {
	case u.token == "" && u.serial == "":
		return nil, errors.New("the PKCS#11 URI names no token: add token=LABEL or serial=NUMBER")
	case u.object == "" && u.id == "":
		return nil, errors.New("the PKCS#11 URI names no key: add object=LABEL or id=%01")
	case !filepath.IsAbs(u.module):
		return nil, errors.New("the PKCS#11 URI does not say where the token's library is: add ?module-path=/usr/lib/…")
	}
	return u, nil
}

func (u *tokenURI) read(text, separator string, known map[string]*string) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, separator) {
		name, value, _ := strings.Cut(part, "=")
		to, ok := known[name]
		if name == "pin-value" {
			return errors.New("the PKCS#11 URI has the PIN in it, where others can see it: change the PIN, and use pin-source=file:PATH or pin-source=credential:NAME")
		}
		if !ok {
			return fmt.Errorf("the PKCS#11 URI has the attribute %q, which is not known here: leave it out", name)
		}
		plain, err := url.PathUnescape(value)
		switch {
		case err != nil || plain == "":
			return fmt.Errorf("the PKCS#11 URI has the attribute %q without a value", name)
		case to == nil:
			if plain != "secret-key" {
				return errors.New("the PKCS#11 URI asks for another type than secret-key")
			}
			continue
		case *to != "":
			return fmt.Errorf("the PKCS#11 URI has the attribute %q twice", name)
		}
		*to = plain
	}
	return nil
}
