//go:build pkcs11

package seal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"signdrop/keyfs/seal"
)

// softHSM is a SoftHSM 2 with two tokens, and an AES key in each.
type softHSM struct {
	module, dir string
}

// pin is that of both tokens.
const pin = "4711-PIN"

func newSoftHSM(t *testing.T) *softHSM {
	t.Helper()
	var h softHSM
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/*/libsofthsm2.so"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			h.module = found[0]
			break
		}
	}
	if h.module == "" {
		t.Fatal("libsofthsm2.so is not there: apt-get install softhsm2")
	}
	h.dir = t.TempDir()
	must(t, os.Mkdir(filepath.Join(h.dir, "tokens"), 0o700))
	conf := filepath.Join(h.dir, "softhsm2.conf")
	must(t, os.WriteFile(conf, []byte("directories.tokendir = "+h.dir+"/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600))
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, label := range []string{"one", "two"} {
		h.tool(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "so-pin-123", "--pin", pin)
		h.tool(t, "pkcs11-tool", "--module", h.module, "--token-label", label, "--login", "--pin", pin,
			"--keygen", "--key-type", "AES:32", "--label", "kek", "--id", "01", "--private", "--sensitive")
	}
	must(t, os.WriteFile(filepath.Join(h.dir, "pin"), []byte(pin+"\n"), 0o400))
	return &h
}

func (h *softHSM) tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (h *softHSM) uri(token, object, pinFile string) string {
	return "pkcs11:token=" + token + ";object=" + object + "?module-path=" + h.module + "&pin-source=file:" + filepath.Join(h.dir, pinFile)
}

// TestToken seals a volume under a key that never leaves its token.
func TestToken(t *testing.T) {
	h := newSoftHSM(t)
	open := func(token string) seal.Source {
		t.Helper()
		k, err := seal.ReadKEK(h.uri(token, "kek", "pin"), "/nonexistent/data")
		must(t, err)
		return k
	}
	v := plainVolume(t)
	one := open("one")
	id := one.ID()
	s, _, err := unlock(t, v, seal.Request{KEK: one, Convert: true})
	must(t, err)
	whole(t, v, s)
	one.Close()

	// Another process.
	one = open("one")
	if one.ID() != id || one.Kind() != "pkcs11" {
		t.Errorf("got %s (%s), want %s", one.ID(), one.Kind(), id)
	}
	s, _, err = unlock(t, v, seal.Request{KEK: one})
	must(t, err)
	whole(t, v, s)
	// From the token to a file.
	s, res, err := unlock(t, v, seal.Request{KEK: rawKEK(t, 'a'), Previous: one})
	must(t, err)
	whole(t, v, s)
	if !res.Rotated {
		t.Error("the key was not changed")
	}
	one.Close()

	// And to another token, whose key has the same names.
	two := open("two")
	defer two.Close()
	if two.ID() == id {
		t.Error("keys of two tokens have one id")
	}
	s, _, err = unlock(t, v, seal.Request{KEK: two, Previous: rawKEK(t, 'a')})
	must(t, err)
	whole(t, v, s)
	if data, err := two.Wrap([]byte(strings.Repeat("k", 32)), "context"); err != nil {
		t.Error(err)
	} else if got, err := two.Unwrap(data, "another"); err == nil || got != nil {
		t.Errorf("unwrapped with another context: %q", got)
	}
}

func TestTokenRefuses(t *testing.T) {
	h := newSoftHSM(t)
	must(t, os.WriteFile(filepath.Join(h.dir, "wrong"), []byte("1234-PIN"), 0o400))
	must(t, os.WriteFile(filepath.Join(h.dir, "open"), []byte(pin), 0o444))
	must(t, os.Chmod(filepath.Join(h.dir, "open"), 0o444))
	for name, tt := range map[string]struct{ uri, want string }{
		"no such token":  {h.uri("three", "kek", "pin"), "0 tokens have this name"},
		"no such key":    {h.uri("one", "other", "pin"), "not one AES key"},
		"no PIN":         {strings.Split(h.uri("one", "kek", "pin"), "&")[0], "none without the PIN"},
		"wrong PIN":      {h.uri("one", "kek", "wrong"), "logging in"},
		"PIN open":       {h.uri("one", "kek", "open"), "open to others"},
		"no PIN file":    {h.uri("one", "kek", "none"), "no such file"},
		"no such module": {"pkcs11:token=one;object=kek?module-path=/etc/passwd", "no PKCS#11 library"},
		"pin-value":      {h.uri("one", "kek", "pin") + "&pin-value=" + pin, "use pin-source"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := seal.ReadKEK(tt.uri, "/nonexistent/data")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if k.KEK != nil {
				t.Error("a key was returned with the error")
			}
			if err != nil && (strings.Contains(err.Error(), pin) || strings.Contains(err.Error(), "1234-PIN")) {
				t.Errorf("the error holds the PIN: %v", err)
			}
		})
	}
	// After all that the token still works.
	k, err := seal.ReadKEK(h.uri("one", "kek", "pin"), "/nonexistent/data")
	must(t, err)
	k.Close()
}
