package bitcoin

import (
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
)

// electrum runs testdata/wallet.py. .ci/run installs what it needs.
func electrum(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{"-B", "testdata/wallet.py"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("electrum: %v\n%s", err, stderr.String())
	}
	return string(out)
}

// TestElectrum: a PSBT that Electrum makes is signed, and from the answer
// Electrum makes the transaction that is in NAME-final.txn. Of a part it says
// that it is none yet.
func TestElectrum(t *testing.T) {
	var made map[string]struct {
		PSBT string
		Keys []struct {
			Root, Key string
			Path      []uint32
		}
	}
	if err := json.Unmarshal([]byte(electrum(t, "", "make")), &made); err != nil {
		t.Fatal(err)
	}
	var psbts, want []string
	for _, name := range []string{"single", "multisig"} {
		m := made[name]
		rings := map[string]*ring{}
		var order []*ring
		for _, k := range m.Keys {
			r := rings[k.Root]
			if r == nil {
				r = newRing(k.Root)
				r.fingerprint = [4]byte(unhex(t, k.Root))
				rings[k.Root] = r
				order = append(order, r)
			}
			priv, _ := btcec.PrivKeyFromBytes(unhex(t, k.Key))
			r.add(priv, k.Path)
		}
		data := m.PSBT
		for i, r := range order {
			a := answered(t, []byte(data), Rules{}, r)
			last := i == len(order)-1
			if a.Complete != last {
				t.Fatalf("%s: %+v", name, a.Description)
			}
			data = string(a.Files[0].Data)
			psbts = append(psbts, data)
			if last {
				want = append(want, strings.TrimSpace(string(a.Files[1].Data)))
				if raw, err := hex.DecodeString(want[len(want)-1]); err != nil || len(raw) == 0 {
					t.Errorf("%s: no hexadecimal: %v", name, err)
				}
			} else {
				want = append(want, "incomplete")
			}
		}
	}
	if len(want) != 3 {
		t.Fatalf("%d answers, want 3", len(want))
	}
	got := strings.Fields(electrum(t, strings.Join(psbts, "\n"), "finish"))
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("Electrum makes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
