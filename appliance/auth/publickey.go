package auth

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ParseAnyPublicKey reads one public key, either an OpenSSH line
// ("ssh-ed25519 AAAA… comment", as in a .pub file) or PEM ("PUBLIC KEY", or
// "RSA PUBLIC KEY"). A private key, a certificate, options before the key, a
// second key, and any key that a signer may not have are errors.
func ParseAnyPublicKey(data []byte) (ssh.PublicKey, error) {
	if len(data) > maxLine {
		return nil, fmt.Errorf("a public key file has at most %d bytes, this one has %d", maxLine, len(data))
	}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return parsePEM(data)
	}
	var key ssh.PublicKey
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if key != nil {
			return nil, errors.New("more than one public key")
		}
		var err error
		if key, err = parseKeyFields(line); err != nil {
			return nil, err
		}
	}
	if key == nil {
		return nil, errors.New("no public key: give an OpenSSH line (the .pub file) or PEM")
	}
	return key, nil
}

// LineFromPEM turns a PEM public key (EC, RSA, Ed25519) into a line: see Line.
func LineFromPEM(pem []byte, principal string) (string, error) {
	key, err := parsePEM(pem)
	if err != nil {
		return "", err
	}
	return Line(key, principal)
}

// Line writes a line of allowed_signers, "PRINCIPAL KEYTYPE BASE64" without a
// line end, that lets key sign in every namespace. With an empty principal the
// key stands alone, which is a line of authorized_keys.
func Line(key ssh.PublicKey, principal string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
	if principal == "" {
		return line, nil
	}
	if err := checkPrincipal(principal); err != nil {
		return "", err
	}
	if strings.ContainsAny(principal, " #") {
		principal = `"` + principal + `"`
	}
	return principal + " " + line, nil
}

// parsePEM reads the one PEM block that data must be.
func parsePEM(data []byte) (ssh.PublicKey, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("not a complete PEM block")
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("more than one PEM block: give the public key alone")
	}
	var parsed crypto.PublicKey
	var err error
	switch {
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key: give its public half (openssl pkey -in KEY -pubout, or the .pub file)")
	case block.Type == "PUBLIC KEY":
		parsed, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		parsed, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM of type %s, want PUBLIC KEY", shown(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("reading the PEM public key: %w", err)
	}
	key, err := ssh.NewPublicKey(parsed)
	if err != nil {
		return nil, fmt.Errorf("reading the PEM public key: %w", err)
	}
	// Through the wire form, so that what PEM can express and SSH refuses (an
	// odd RSA exponent, say) is refused here and not when the line is read.
	return parseKeyBlob(key.Marshal())
}

// parseKeyFields reads "KEYTYPE BASE64 [COMMENT]". Fields are split at spaces
// and tabs.
func parseKeyFields(s string) (ssh.PublicKey, error) {
	keyType, rest := cutField(s)
	encoded, _ := cutField(rest)
	if !looksLikeKeyBlob(encoded) {
		return nil, errors.New("want a key type and a base64 key")
	}
	if err := checkKeyType(keyType); err != nil {
		return nil, err
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the key is not whole base64")
	}
	key, err := parseKeyBlob(blob)
	if err != nil {
		return nil, err
	}
	if key.Type() != keyType {
		return nil, fmt.Errorf("the line says %s, its key is %s", keyType, key.Type())
	}
	return key, nil
}

// looksLikeKeyBlob tells a base64 key from other words: each begins with the
// 32-bit length of its type's name, whose upper 24 bits are zero.
func looksLikeKeyBlob(s string) bool { return strings.HasPrefix(s, "AAAA") }

// parseKeyBlob reads a key in SSH wire format and applies all rules for keys:
// its type and size are accepted, and it re-encodes to the same bytes. The last
// makes the blob fit to be the key's identity: one key has one blob.
func parseKeyBlob(blob []byte) (ssh.PublicKey, error) {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if !bytes.Equal(key.Marshal(), blob) {
		return nil, errors.New("the key is not in its canonical form")
	}
	return key, nil
}

// errKeyNotAccepted is in the chain of an error for a key that is well formed
// but of a type or size that no signer may have.
var errKeyNotAccepted = errors.New("not accepted")

// checkKeyType refuses every type but the seven we know how to judge:
// certificates say more than one line can, and DSA is broken.
func checkKeyType(keyType string) error {
	switch keyType {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoRSA:
		return nil
	}
	if strings.Contains(keyType, "-cert-v0") {
		return fmt.Errorf("certificates are %w (%s): list the key itself", errKeyNotAccepted, shown(keyType))
	}
	return fmt.Errorf("key type %s is %w", shown(keyType), errKeyNotAccepted)
}

// checkKey refuses a key of a type or size that is not accepted.
func checkKey(key ssh.PublicKey) error {
	if err := checkKeyType(key.Type()); err != nil {
		return err
	}
	if k, ok := cryptoKey(key).(*rsa.PublicKey); ok {
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("an RSA key of %d bits is %w: from %d to %d", bits, errKeyNotAccepted, minRSABits, maxRSABits)
		}
	}
	return nil
}

// cryptoKey returns the standard library's form of key, nil if it has none.
func cryptoKey(key ssh.PublicKey) crypto.PublicKey {
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		return k.CryptoPublicKey()
	}
	return nil
}

// isSecurityKey reports whether keyType is a FIDO key's: it signs with flags
// and a counter.
func isSecurityKey(keyType string) bool {
	return keyType == ssh.KeyAlgoSKED25519 || keyType == ssh.KeyAlgoSKECDSA256
}

// cutField splits s at its first run of spaces and tabs.
func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// RSABits returns the size of an RSA key in bits, 0 for another kind of key.
func RSABits(key ssh.PublicKey) int {
	if k, ok := cryptoKey(key).(*rsa.PublicKey); ok {
		return k.N.BitLen()
	}
	return 0
}
