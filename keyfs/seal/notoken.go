//go:build !pkcs11

package seal

import "errors"

// openToken is missing: PKCS#11 takes cgo, and the programs are static without it.
func openToken(uri, _ string) (KEK, error) {
	if _, err := parseURI(uri); err != nil {
		return nil, err
	}
	return nil, errors.New("this program was built without PKCS#11: build it with CGO_ENABLED=1 go build -tags pkcs11, or keep the key in a file or a systemd credential")
}
