// Package offline has no code: its two scripts are Electrum's and ethers' part of
// demo-offline.sh, and this is the test that the round without a network works.
package offline

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDemo runs the whole demo with programs of its own.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	bin, demo := filepath.Join(dir, "bin"), filepath.Join(dir, "demo")
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "BIN="+bin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	run("go", "build", "-trimpath", "-o", bin+"/", "./appliance/signdropd", "./tools/signdrop")
	out := run("tools/demo-offline.sh", demo)
	for _, said := range []string{
		"Electrum: derives the same address bcrt1q",
		"ethers: derives the same address 0x",
		"0.01000000 BTC to bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080\n",
		`"name":"to","value":"0x3535353535353535353535353535353535353535"`,
		"Electrum: the signature of input 0 is good",
		"Electrum: finishing it makes the very bytes of pay-final.txn",
		"ethers: it pays 1.0 to 0x3535353535353535353535353535353535353535 on chain 1, nonce 0",
		`"code":"nonce-used"`,
	} {
		if !strings.Contains(out, said) {
			t.Errorf("the demo does not say %q", said)
		}
	}
	// What a person has written down before the stick left is what ethers has in the end.
	if m := regexp.MustCompile(`ethers: the transaction is (0x[0-9a-f]{64})`).FindStringSubmatch(out); m == nil ||
		!regexp.MustCompile(`(?m)^    hash +`+m[1]+`$`).MatchString(out) {
		t.Errorf("signdrop verify does not say the hash of the transaction, %q", m)
	}
	for _, never := range []string{"DO NOT TRUST", "PRIVATE KEY", "tprv", "vprv"} {
		if strings.Contains(out, never) {
			t.Errorf("the demo says %q", never)
		}
	}
	if list, err := filepath.Glob(filepath.Join(demo, "connected", "thief*result*")); err != nil || len(list) > 0 {
		t.Errorf("the second payment of a coin came back: %v, %v", list, err)
	}
}
