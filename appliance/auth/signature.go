package auth

import (
	"bytes"
	"encoding/base64"
	"strings"

	"signdrop/appliance/reason"

	"github.com/hiddeco/sshsig"
)

// Signature is a parsed signature file: an SSHSIG, or the bare output of
// openssl dgst. It keeps nothing of the bytes it was parsed from, and it never
// changes.
type Signature struct {
	ssh  *sshsig.Signature // nil for a bare signature
	key  string            // with ssh: the blob of the key it carries
	bare *bareSignature    // nil for an SSHSIG
}

// The armour of PROTOCOL.sshsig, without line ends.
const (
	armourBegin = "-----BEGIN SSH SIGNATURE-----"
	armourEnd   = "-----END SSH SIGNATURE-----"
	// armourWidth is where ssh-keygen breaks its lines. (The protocol page says
	// 76; the program has always written 70.)
	armourWidth = 70
)

const hintSign = "sign the file with ssh-keygen -Y sign -n NAMESPACE -f KEY, or openssl dgst -sha384 -sign KEY.pem"

// ParseSignature reads a signature file. It is a *reason.Refusal that it
// returns:
//
//   - SignatureMalformed: neither of the two forms, or not whole yet.
//   - SignatureAlgorithm: an SSHSIG whose key type, key size, hash or signature
//     algorithm is not accepted.
//   - TooLarge: more than MaxSignature bytes.
//
// An RSA signature is bytes without structure, so any binary file of 256 to 1024
// bytes may be one; Verify then finds that no key fits.
func ParseSignature(data []byte) (*Signature, error) {
	switch {
	case len(data) == 0:
		return nil, malformed("the signature file is empty")
	case len(data) > MaxSignature:
		return nil, reason.New(reason.TooLarge, hintSign,
			"a signature file has at most %d bytes, this one has %d", MaxSignature, len(data))
	case bytes.HasPrefix(data, []byte("-----")):
		blob, err := dearmour(string(data))
		if err != nil {
			return nil, err
		}
		return parseBlob(blob)
	}
	if text, ok := decodeBase64(string(data)); ok {
		data = text
	}
	bare := parseBare(data)
	if bare == nil {
		return nil, malformed("the signature file is neither an SSHSIG nor the output of openssl dgst -sign")
	}
	return &Signature{bare: bare}, nil
}

// dearmour returns the blob between the armour's lines. Like OpenSSH it wants
// the first line to be the file's first and takes CRLF; unlike OpenSSH it
// refuses anything but white space after the last.
func dearmour(s string) ([]byte, error) {
	body, ok := strings.CutPrefix(s, armourBegin)
	if !ok {
		return nil, malformed("the signature file does not begin with %s", armourBegin)
	}
	if !strings.HasPrefix(body, "\n") && !strings.HasPrefix(body, "\r\n") {
		return nil, malformed("the armour's first line is not whole")
	}
	body, after, ok := strings.Cut(body, "\n"+armourEnd)
	if !ok {
		return nil, malformed("the armour's last line is missing")
	}
	if strings.TrimSpace(after) != "" {
		return nil, malformed("something follows the signature")
	}
	blob, ok := decodeBase64(body)
	if !ok {
		return nil, malformed("the armour does not hold base64")
	}
	return blob, nil
}

// armour writes a blob just as ssh-keygen does.
func armour(blob []byte) []byte {
	encoded := base64.StdEncoding.EncodeToString(blob)
	var b bytes.Buffer
	b.WriteString(armourBegin + "\n")
	for len(encoded) > 0 {
		n := min(armourWidth, len(encoded))
		b.WriteString(encoded[:n] + "\n")
		encoded = encoded[n:]
	}
	b.WriteString(armourEnd + "\n")
	return b.Bytes()
}

// decodeBase64 decodes s, in which white space may stand anywhere. It fails on
// anything that does not encode back to the same letters.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, " \t\r\n") {
		s = strings.Join(strings.Fields(s), "")
	}
	data, err := base64.StdEncoding.Strict().DecodeString(s)
	return data, err == nil
}

func malformed(format string, args ...any) error {
	return reason.New(reason.SignatureMalformed, hintSign, format, args...)
}
