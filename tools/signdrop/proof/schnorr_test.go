package proof

import (
	"encoding/csv"
	"encoding/hex"
	"os"
	"testing"
)

// The vectors of BIP-340.
func TestSchnorrVectors(t *testing.T) {
	f, err := os.Open("testdata/bip340.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) < 16 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	decode := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, r := range rows[1:] {
		got := verifySchnorr(decode(r[2]), decode(r[4]), decode(r[5]))
		if want := r[6] == "TRUE"; got != want {
			t.Errorf("vector %s: got %v, want %v (%s)", r[0], got, want, r[7])
		}
	}
}
