package auth

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// Signers is a parsed allowed_signers file. It never changes: a new file is a
// new Signers, and any number of goroutines may use one.
type Signers struct {
	keys map[string]*listedKey // by key blob: one look-up names an SSHSIG's key
	bare map[shape][]*listedKey
}

// listedKey is one key and every line that lists it, in the file's order.
type listedKey struct {
	key         ssh.PublicKey
	fingerprint string
	lines       []line
}

// line is what one line of allowed_signers grants to its key.
type line struct {
	principal string
	roles     role
	// The key may be used at and after the one, at and before the other, in
	// seconds since 1970. 0 is no limit.
	validAfter, validBefore int64
}

// shape is what a bare signature shows of its key, and so which of the listed
// keys are worth trying.
type shape struct {
	rsa  bool
	size int // EC: bits of the curve's order; RSA: bytes of the modulus
}

// ParseSigners reads an allowed_signers file. Every line must be understood: an
// error names the first that is not ("line 3: …").
//
//   - A line without namespaces="…" may sign for each namespace, as in OpenSSH.
//   - Times without Z are UTC. (OpenSSH takes the machine's time zone, which
//     would let a setting of the appliance change who may sign.)
//   - A principal is a name, not a pattern: "*@example.com" would leave the
//     journal without a name for who asked.
//   - cert-authority and certificates are refused.
//   - RSA keys have 2048 to 8192 bits.
//   - One key may be on several lines; each grants on its own. When more than
//     one allows a signature, the first names the asker.
//
// A file without keys is no error; then nobody may sign.
func ParseSigners(data []byte) (*Signers, error) {
	if len(data) > MaxSigners {
		return nil, fmt.Errorf("an allowed_signers file has at most %d bytes, this one has %d", MaxSigners, len(data))
	}
	s := &Signers{keys: map[string]*listedKey{}, bare: map[shape][]*listedKey{}}
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		key, granted, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if key != nil {
			s.add(key, granted)
		}
	}
	return s, nil
}

// Len returns the number of different keys.
func (s *Signers) Len() int { return len(s.keys) }

func (s *Signers) add(key ssh.PublicKey, granted line) {
	blob := string(key.Marshal())
	k := s.keys[blob]
	if k == nil {
		k = &listedKey{key: key, fingerprint: ssh.FingerprintSHA256(key)}
		s.keys[blob] = k
		if sh, ok := shapeOf(key); ok {
			s.bare[sh] = append(s.bare[sh], k)
		}
	}
	k.lines = append(k.lines, granted)
}

// shapeOf returns the shape of a key's bare signatures. Security keys make
// none, since they sign their flags and counter too, and `openssl dgst` makes
// none with Ed25519.
func shapeOf(key ssh.PublicKey) (shape, bool) {
	if isSecurityKey(key.Type()) {
		return shape{}, false
	}
	switch k := cryptoKey(key).(type) {
	case *ecdsa.PublicKey:
		return shape{size: k.Params().N.BitLen()}, true
	case *rsa.PublicKey:
		return shape{rsa: true, size: k.Size()}, true
	}
	return shape{}, false
}

// parseLine reads one line with or without its end. A blank line or a comment
// has no key.
func parseLine(s string) (ssh.PublicKey, line, error) {
	fail := func(err error) (ssh.PublicKey, line, error) { return nil, line{}, err }
	if len(s) > maxLine {
		return fail(fmt.Errorf("a line has at most %d bytes, this one has %d", maxLine, len(s)))
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	// A NUL ends the line for C programs and a lone CR begins a new one for
	// some editors: whoever reads the file must see the lines that we see.
	if i := strings.IndexFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }); i >= 0 {
		return fail(fmt.Errorf("control character at byte %d", i+1))
	}
	s = strings.Trim(s, " \t")
	if s == "" || s[0] == '#' {
		return nil, line{}, nil
	}
	principal, rest, err := cutPrincipals(s)
	if err != nil {
		return fail(err)
	}
	granted := line{principal: principal, roles: roleAny}
	// Options come before the key type, and the key type is the word before
	// the key.
	word, after := cutField(rest)
	if next, _ := cutField(after); !looksLikeKeyBlob(next) || strings.ContainsAny(word, `=",`) {
		if rest, err = granted.parseOptions(rest); err != nil {
			return fail(err)
		}
	}
	key, err := parseKeyFields(rest)
	if err != nil {
		return fail(err)
	}
	return key, granted, nil
}

// cutPrincipals takes the first field, in quotes or not, and returns the first
// of the principals in it.
func cutPrincipals(s string) (first, rest string, err error) {
	field, rest := cutField(s)
	if strings.HasPrefix(s, `"`) {
		var closed bool
		field, rest, closed = strings.Cut(s[1:], `"`)
		if !closed || strings.TrimLeft(rest, " \t") == rest {
			return "", "", errors.New("the principals' quote is not closed before a space")
		}
		rest = strings.TrimLeft(rest, " \t")
	}
	if looksLikeKeyBlob(rest) && checkKeyType(field) == nil {
		return "", "", errors.New("the principal is missing: put the signer's name before the key type")
	}
	if rest == "" {
		return "", "", errors.New("the key is missing")
	}
	for i, p := range strings.Split(field, ",") {
		if err := checkPrincipal(p); err != nil {
			return "", "", err
		}
		if i == 0 {
			first = p
		}
	}
	return first, rest, nil
}

// checkPrincipal refuses what is not one plain name.
func checkPrincipal(p string) error {
	switch {
	case p == "":
		return errors.New("a principal is empty")
	case len(p) > maxPrincipal:
		return fmt.Errorf("a principal has at most %d bytes", maxPrincipal)
	case strings.ContainsAny(p, "*?!"):
		return errors.New("a principal is a pattern: give the signer's own name")
	case strings.ContainsAny(p, `",\`):
		return errors.New("a principal has a quote, comma or backslash in it")
	case !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("a principal has a character that cannot be printed")
	case strings.TrimSpace(p) != p:
		return errors.New("a principal begins or ends with a space")
	}
	return nil
}

// parseOptions reads the options at the beginning of s into l and returns what
// follows them. Their names may be in either case; each comes at most once.
func (l *line) parseOptions(s string) (rest string, err error) {
	seen := map[string]bool{}
	for {
		end := strings.IndexAny(s, "=, \t")
		if end < 0 {
			end = len(s)
		}
		name := strings.ToLower(s[:end])
		s = s[end:]
		if seen[name] {
			return "", fmt.Errorf("option %s twice", shown(name))
		}
		seen[name] = true
		value := ""
		if strings.HasPrefix(s, "=") {
			if value, s, err = cutQuoted(s[1:]); err != nil {
				return "", fmt.Errorf("option %s: %w", shown(name), err)
			}
		}
		if err := l.set(name, value); err != nil {
			return "", err
		}
		if !strings.HasPrefix(s, ",") {
			break
		}
		s = s[1:]
	}
	rest = strings.TrimLeft(s, " \t")
	if rest == s || rest == "" {
		return "", errors.New("a space and the key must follow the options")
	}
	if l.validAfter != 0 && l.validBefore != 0 && l.validBefore <= l.validAfter {
		return "", errors.New("valid-before is not after valid-after")
	}
	return rest, nil
}

// set applies one option.
func (l *line) set(name, value string) (err error) {
	switch name {
	case "namespaces":
		if value == "" {
			return errors.New("option namespaces is empty, so the key could never sign")
		}
		l.roles = 0
		for _, ns := range []string{NamespaceRequest, NamespaceApprove, NamespaceAdmin} {
			if matchList(value, ns) {
				l.roles |= roleOf(ns)
			}
		}
	case "valid-after":
		l.validAfter, err = ParseTime(value)
	case "valid-before":
		l.validBefore, err = ParseTime(value)
	case "cert-authority":
		return errors.New("option cert-authority is not supported: list the key of each signer")
	default:
		return fmt.Errorf("unknown option %s", shown(name))
	}
	if err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

// cutQuoted takes a value in double quotes. OpenSSH knows \" in a value; no
// value of ours can need one.
func cutQuoted(s string) (value, rest string, err error) {
	body, ok := strings.CutPrefix(s, `"`)
	if !ok {
		return "", "", errors.New("its value must be in double quotes")
	}
	value, rest, ok = strings.Cut(body, `"`)
	if !ok {
		return "", "", errors.New("the quote is not closed")
	}
	if strings.Contains(value, `\`) {
		return "", "", errors.New("backslash in the value")
	}
	return value, rest, nil
}

// ParseTime reads a time as OpenSSH writes it in its files of keys: YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with or without Z,
// as UTC, and returns seconds since 1970, always more than 0.
func ParseTime(s string) (int64, error) {
	digits := strings.TrimSuffix(s, "Z")
	layout := "20060102150405"
	switch len(digits) {
	case 8, 12, 14:
		layout = layout[:len(digits)]
	default:
		return 0, errors.New("want a time as YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]")
	}
	t, err := time.Parse(layout, digits)
	if err != nil || t.Unix() <= 0 {
		return 0, errors.New("no such time: want YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z], after 1970")
	}
	return t.Unix(), nil
}
