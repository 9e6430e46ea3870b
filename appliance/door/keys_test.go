package door

import (
	"crypto/rand"
	"crypto/rsa"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestParseKeys(t *testing.T) {
	acme := lineOf("acme")
	for _, c := range []struct {
		what, text string
		keys, cas  int
		wrong      string // of the first line that is refused
	}{
		{"nothing", "", 0, 0, ""},
		{"a key", acme, 1, 0, ""},
		{"comments and blank lines", "# x\n\n \t\n" + acme + " me@here\r\n", 1, 0, ""},
		{"two keys", acme + "\n" + lineOf("other") + "\n", 2, 0, ""},
		{"restrictions", `restrict,no-pty,no-port-forwarding,from="10.0.0.0/8,::1,192.0.2.1",expiry-time="20300101Z" ` + acme, 1, 0, ""},
		{"an authority", "cert-authority " + acme, 0, 1, ""},
		{"a command", `command="rm -rf /" ` + acme, 0, 0, "command"},
		{"a name", `from="example.com" ` + acme, 0, 0, "names"},
		{"a pattern", `from="10.*" ` + acme, 0, 0, "patterns"},
		{"a negation", `from="!10.0.0.1" ` + acme, 0, 0, "names"},
		{"no address", `from="" ` + acme, 0, 0, "names"},
		{"bits behind the prefix", `from="10.0.0.1/8" ` + acme, 0, 0, "behind"},
		{"IPv4 as IPv6", `from="::ffff:192.0.2.1" ` + acme, 0, 0, "as IPv4"},
		{"IPv4 as IPv6, a prefix", `from="::ffff:192.0.2.0/120" ` + acme, 0, 0, "as IPv4"},
		{"principals", `cert-authority,principals="root" ` + acme, 0, 0, "principals"},
		{"no such time", `expiry-time="20301301" ` + acme, 0, 0, "no such time"},
		{"time of another form", `expiry-time="+1d" ` + acme, 0, 0, "want a time as YYYY"},
		{"an environment", `environment="A=b" ` + acme, 0, 0, "environment"},
		{"a permission", "pty " + acme, 0, 0, "pty"},
		{"no-touch with a value", `no-touch-required="x" ` + acme, 0, 0, "no-touch"},
		{"no key", "ssh-ed25519 AAAA", 0, 0, "no public key"},
		{"a word", "hello", 0, 0, "no public key"},
		{"a control character", "ssh-ed25519\x01 " + acme, 0, 0, "control"},
		{"a bad line among good ones", "hello\n" + acme, 1, 0, "no public key"},
		{"a long line", strings.Repeat("x", maxKeysLine+1), 0, 0, "more than"},
		{"a large file", strings.Repeat(" \n", maxKeysFile), 0, 0, "more than"},
	} {
		r, wrong := parseKeys([]byte(c.text))
		if len(r.keys) != c.keys || len(r.authorities) != c.cas {
			t.Errorf("%s: %d keys and %d authorities, want %d and %d", c.what, len(r.keys), len(r.authorities), c.keys, c.cas)
		}
		switch {
		case c.wrong == "" && len(wrong) > 0:
			t.Errorf("%s: refused: %v", c.what, wrong)
		case c.wrong != "" && (len(wrong) != 1 || !strings.Contains(wrong[0].err.Error(), c.wrong)):
			t.Errorf("%s: refused lines %v, want one with %q", c.what, wrong, c.wrong)
		}
	}
}

func TestWeakKeys(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	pub, err := ssh.NewPublicKey(&key.PublicKey)
	check(t, err)
	if _, wrong := parseKeys(ssh.MarshalAuthorizedKey(pub)); len(wrong) != 1 {
		t.Error("RSA with 1024 bits was accepted")
	}
	if err := checkKey(certOf(t, nil)); err == nil {
		t.Error("a certificate was accepted as a key")
	}
}

func TestAllow(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	here, there := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.1")
	key := signerOf("acme").PublicKey()
	for _, c := range []struct {
		what, options string
		addr          netip.Addr
		now           time.Time
		want          bool
	}{
		{"plain", "", here, now, true},
		{"from here", `from="192.0.2.0/24" `, here, now, true},
		{"from elsewhere", `from="192.0.2.0/24" `, there, now, false},
		{"from a list", `from="10.0.0.0/8,198.51.100.1" `, there, now, true},
		{"before expiry", `expiry-time="20261122120001Z" `, here, now, true},
		{"at expiry", `expiry-time="20261122120000Z" `, here, now, false},
		{"as an authority's", "cert-authority ", here, now, false},
	} {
		r, wrong := parseKeys([]byte(c.options + lineOf("acme")))
		if len(wrong) > 0 {
			t.Fatalf("%s: %v", c.what, wrong)
		}
		if err := r.allow("acme", key, c.addr, c.now); (err == nil) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	// One of two lines for a key is enough.
	r, _ := parseKeys([]byte(`from="192.0.2.7" ` + lineOf("acme") + "\n" + `from="198.51.100.1" ` + lineOf("acme")))
	for _, a := range []netip.Addr{here, there} {
		check(t, r.allow("acme", key, a, now))
	}
}

// certOf makes a certificate by the key "ca" for the key "acme".
func certOf(t testing.TB, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: signerOf("acme").PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"acme"},
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	check(t, c.SignCert(rand.Reader, signerOf("ca")))
	return c
}

func TestCertificates(t *testing.T) {
	b := newBed(t, testSettings())
	b.srv.setCompany("acme", []byte("cert-authority "+lineOf("ca")))
	for _, c := range []struct {
		what   string
		change func(*ssh.Certificate)
		want   bool
	}{
		{"as it should be", nil, true},
		{"several principals", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"x", "acme"} }, true},
		{"from here", func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": "127.0.0.0/8,::1/128"}
		}, true},
		{"an extension", func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-pty": ""} }, true},
		{"from elsewhere", func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": "192.0.2.0/24"}
		}, false},
		{"from a name", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "localhost"} }, false},
		{"a command", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "x"} }, false},
		{"another principal", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"other"} }, false},
		{"no principal", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, false},
		{"for a host", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, false},
		{"expired", func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Unix()) - 1 }, false},
		{"not yet valid", func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Unix()) + 60 }, false},
	} {
		signer, err := ssh.NewCertSigner(certOf(t, c.change), signerOf("acme"))
		check(t, err)
		conn, err := b.dial("acme", signer)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", c.what, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	// The certificate's own key is not listed, nor the authority as a key.
	for _, k := range []string{"acme", "ca"} {
		if conn, err := b.dial("acme", signerOf(k)); err == nil {
			conn.Close()
			t.Errorf("the key %s itself was let in", k)
		}
	}
	b.srv.setCompany("acme", []byte(lineOf("ca")))
	signer, err := ssh.NewCertSigner(certOf(t, nil), signerOf("acme"))
	check(t, err)
	if conn, err := b.dial("acme", signer); err == nil {
		conn.Close()
		t.Error("a listed key that is no authority certified another")
	}
}

// FuzzKeys: whatever is in the file, a key that no line lists is not let in, and one
// that is let in has a line that OpenSSH's parser finds it in.
func FuzzKeys(f *testing.F) {
	f.Add([]byte(lineOf("acme")))
	f.Add([]byte(`from="10.0.0.0/8",no-pty,expiry-time="20300101" ` + lineOf("acme") + "\n# x\ncert-authority " + lineOf("ca")))
	f.Add([]byte("restrict,command=\"a b\\\" c\" " + lineOf("acme")))
	addr, now := netip.MustParseAddr("192.0.2.7"), time.Now()
	stranger := signerOf("stranger").PublicKey()
	f.Fuzz(func(t *testing.T, data []byte) {
		r, wrong := parseKeys(data)
		if err := r.allow("acme", stranger, addr, now); err == nil {
			t.Fatal("a stranger was let in")
		}
		if n := strings.Count(string(data), "\n") + 1; len(wrong) > n {
			t.Fatalf("%d lines were refused of %d", len(wrong), n)
		}
		for blob := range r.keys {
			if _, err := ssh.ParsePublicKey([]byte(blob)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
