package door

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/auth"
)

// Limits of an authorized_keys file, in bytes.
const (
	maxKeysFile = 1 << 20
	maxKeysLine = 16 << 10
)

// keyring is one company's authorized_keys. It never changes.
type keyring struct {
	keys        map[string][]grant // by the key's wire form
	authorities map[string][]grant // keys that certify others
}

// grant is what one line says of its key.
type grant struct {
	from    []netip.Prefix // any address if empty
	expires int64          // seconds since 1970, 0 for never
}

// lineError says why a line was refused.
type lineError struct {
	line int
	err  error
}

// parseKeys reads an authorized_keys file (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
// A line that is not understood grants nothing and is returned among the errors;
// the other lines stand.
//
// These options are known: from="…" with addresses and CIDR prefixes (no names and
// no patterns), expiry-time="…" (without Z it is UTC; OpenSSH takes the machine's
// time zone), cert-authority, restrict and no-…, which the door does anyway.
func parseKeys(data []byte) (*keyring, []lineError) {
	r := &keyring{keys: map[string][]grant{}, authorities: map[string][]grant{}}
	if len(data) > maxKeysFile {
		return r, []lineError{{0, fmt.Errorf("the file has more than %d bytes", maxKeysFile)}}
	}
	var wrong []lineError
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		text = strings.Trim(text, " \t\r\n")
		if text == "" || text[0] == '#' {
			continue
		}
		if err := r.add(text); err != nil {
			wrong = append(wrong, lineError{n, err})
		}
	}
	return r, wrong
}

func (r *keyring) add(text string) error {
	if len(text) > maxKeysLine {
		return fmt.Errorf("the line has more than %d bytes", maxKeysLine)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\t' }) {
		return errors.New("control character in the line")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		return errors.New("no public key in the line")
	}
	if err := checkKey(key); err != nil {
		return err
	}
	var g grant
	into := r.keys
	for _, o := range options {
		name, value, valued := strings.Cut(o, "=")
		name = strings.ToLower(name)
		switch {
		case name == "from" && valued:
			if g.from != nil {
				return errors.New("option from twice")
			}
			if g.from, err = parseFrom(unquote(value)); err != nil {
				return err
			}
		case name == "expiry-time" && valued:
			if g.expires != 0 {
				return errors.New("option expiry-time twice")
			}
			if g.expires, err = parseExpiry(unquote(value)); err != nil {
				return err
			}
		case name == "cert-authority" && !valued:
			into = r.authorities
		case !valued && (name == "restrict" || strings.HasPrefix(name, "no-")):
		default:
			return fmt.Errorf("option %q is not one that the door knows", cut(name, 40))
		}
	}
	blob := string(key.Marshal())
	into[blob] = append(into[blob], g)
	return nil
}

// unquote takes the double quotes off. No value that is accepted has one inside.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

func cut(s string, max int) string {
	if len(s) > max {
		return s[:max]
	}
	return s
}

// parseFrom reads a list of addresses and prefixes. Names would let whoever
// answers for them in the DNS decide.
func parseFrom(list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for p := range strings.SplitSeq(list, ",") {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			addr, aerr := netip.ParseAddr(p)
			if aerr != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%q is neither an address nor a CIDR prefix: names and patterns are not accepted", cut(p, 60))
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if prefix.Addr().Is4In6() {
			return nil, fmt.Errorf("%s is an IPv4 address written as IPv6, which no client has: write it as IPv4", prefix)
		}
		if prefix.Masked() != prefix {
			return nil, fmt.Errorf("%s has bits behind its prefix", prefix)
		}
		out = append(out, prefix)
	}
	return out, nil
}

// parseExpiry reads the value of expiry-time.
func parseExpiry(s string) (int64, error) {
	t, err := auth.ParseTime(s)
	if err != nil {
		return 0, fmt.Errorf("option expiry-time: %w", err)
	}
	return t, nil
}

// keyTypes are the keys that may log in.
var keyTypes = map[string]bool{
	ssh.KeyAlgoED25519: true, ssh.KeyAlgoSKED25519: true,
	ssh.KeyAlgoECDSA256: true, ssh.KeyAlgoECDSA384: true, ssh.KeyAlgoECDSA521: true, ssh.KeyAlgoSKECDSA256: true,
	ssh.KeyAlgoRSA: true,
}

func checkKey(key ssh.PublicKey) error {
	if !keyTypes[key.Type()] {
		return fmt.Errorf("keys of the type %s are not accepted", cut(key.Type(), 60))
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok {
			if bits := k.N.BitLen(); bits < 2048 || bits > 8192 {
				return fmt.Errorf("an RSA key has 2048 to 8192 bits, this one has %d", bits)
			}
		}
	}
	return nil
}

var errUnknownKey = errors.New("the key is not listed")

// allow says whether the key, proven or not, may log in as user from addr at now.
func (r *keyring) allow(user string, key ssh.PublicKey, addr netip.Addr, now time.Time) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		return r.allowCert(user, cert, addr, now)
	}
	return anyGrant(r.keys[string(key.Marshal())], addr, now)
}

func anyGrant(grants []grant, addr netip.Addr, now time.Time) error {
	err := errUnknownKey
	for _, g := range grants {
		if err = g.check(addr, now); err == nil {
			return nil
		}
	}
	return err
}

func (g grant) check(addr netip.Addr, now time.Time) error {
	if g.expires != 0 && now.Unix() >= g.expires {
		return errors.New("the key's expiry-time has passed")
	}
	if g.from != nil && !within(g.from, addr) {
		return errors.New("the key may not be used from this address")
	}
	return nil
}

func within(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

const sourceAddress = "source-address"

// allowCert checks a user certificate (PROTOCOL.certkeys of OpenSSH): whose
// authority is listed, that names the user among its principals, that is valid now,
// and that has no critical option but source-address.
func (r *keyring) allowCert(user string, cert *ssh.Certificate, addr netip.Addr, now time.Time) error {
	if cert.SignatureKey == nil || cert.Signature == nil || cert.Key == nil {
		return errors.New("the certificate is not complete")
	}
	if err := anyGrant(r.authorities[string(cert.SignatureKey.Marshal())], addr, now); err != nil {
		if err == errUnknownKey {
			err = errors.New("the certificate's authority is not listed")
		}
		return err
	}
	if cert.CertType != ssh.UserCert {
		return errors.New("the certificate is not for users")
	}
	// One without principals would be good for every user.
	if len(cert.ValidPrincipals) == 0 {
		return errors.New("the certificate names no principal")
	}
	if cert.Signature.Format == ssh.KeyAlgoRSA {
		return errors.New("the certificate is signed with SHA-1")
	}
	if err := checkKey(cert.Key); err != nil {
		return err
	}
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{sourceAddress}, Clock: func() time.Time { return now }}
	if err := checker.CheckCert(user, cert); err != nil {
		return err
	}
	if list, ok := cert.CriticalOptions[sourceAddress]; ok {
		from, err := parseFrom(list)
		if err != nil {
			return err
		}
		if !within(from, addr) {
			return errors.New("the certificate may not be used from this address")
		}
	}
	return nil
}
