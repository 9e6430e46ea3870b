package seal

// Reencode parses a sealed file and returns what this package would write for it.
func Reencode(text []byte) ([]byte, error) {
	b, err := parse(text)
	if err != nil {
		return nil, err
	}
	return b.encode(), nil
}

// ReencodeRing is Reencode for seal.json.
func ReencodeRing(text []byte) ([]byte, error) {
	r, err := parseRing(text)
	if err != nil {
		return nil, err
	}
	return r.encode(), nil
}

// SetGroup makes groups of so many files.
func SetGroup(n int) { group = n }

// ParseURI says how a PKCS#11 URI is understood.
func ParseURI(uri string) (token, serial, object, id, module, pin string, err error) {
	u, err := parseURI(uri)
	if err != nil {
		return "", "", "", "", "", "", err
	}
	return u.token, u.serial, u.object, u.id, u.module, u.pin, nil
}
