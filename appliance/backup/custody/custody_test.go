package custody

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

func TestField(t *testing.T) {
	// One step of the generator past the top: x⁸ = x⁴+x³+x²+1.
	if got := mul(0x80, 2); got != 0x1d {
		t.Errorf("80·2 = %02x, want 1d", got)
	}
	for a := range 256 {
		if got := mul(byte(a), 1); got != byte(a) {
			t.Errorf("%02x·1 = %02x", a, got)
		}
		if got := mul(byte(a), inverse(byte(a))); a != 0 && got != 1 {
			t.Errorf("%02x times its inverse is %02x", a, got)
		}
		for b := range 256 {
			if mul(byte(a), byte(b)) != mul(byte(b), byte(a)) {
				t.Fatalf("%02x·%02x depends on the order", a, b)
			}
			if c := byte(0x5a); mul(byte(a), byte(b)^c) != mul(byte(a), byte(b))^mul(byte(a), c) {
				t.Fatalf("%02x·%02x is not distributive", a, b)
			}
		}
	}
}

func TestSplitEverySubset(t *testing.T) {
	secret := []byte("the secret of five")
	for needed := 2; needed <= 5; needed++ {
		points, err := split(secret, needed, 5, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for set := range 1 << 5 {
			var some []point
			for i, p := range points {
				if set>>i&1 == 1 {
					some = append(some, p)
				}
			}
			if len(some) < needed {
				continue
			}
			got, err := combine(some, needed)
			if err != nil || !bytes.Equal(got, secret) {
				t.Fatalf("%d needed, set %05b: %q, %v", needed, set, got, err)
			}
		}
	}
}

// TestFewerSayNothing: with one share too few, every secret is as likely.
func TestFewerSayNothing(t *testing.T) {
	points, err := split([]byte{42}, 3, 3, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[byte]bool{}
	for y := range 256 {
		guess := append(append([]point(nil), points[:2]...), point{3, []byte{byte(y)}})
		seen[at(guess, 0)[0]] = true
	}
	if len(seen) != 256 {
		t.Errorf("two of three shares leave %d secrets possible, want 256", len(seen))
	}
}

func TestSplitRefuses(t *testing.T) {
	for _, c := range [][2]int{{0, 3}, {1, 3}, {4, 3}, {2, 256}, {-1, -1}} {
		if _, err := split([]byte("x"), c[0], c[1], rand.Reader); err == nil {
			t.Errorf("%d of %d was split", c[0], c[1])
		}
	}
}

// made is a split among custodians with their identities and open shares.
func made(t testing.TB, needed, n int) (recipient string, ids []age.Identity, files [][]byte, shares []*Share) {
	t.Helper()
	var to []age.Recipient
	for range n {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		ids, to = append(ids, id), append(to, id.Recipient())
	}
	recipient, files, err := Make(needed, to)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		s, err := Read(f, ids)
		if err != nil {
			t.Fatal(err)
		}
		if s.Number != i+1 || s.Recipient != recipient {
			t.Errorf("file %d holds share %d of %s", i+1, s.Number, s.Recipient)
		}
		shares = append(shares, s)
	}
	return recipient, ids, files, shares
}

func TestCombine(t *testing.T) {
	recipient, ids, files, shares := made(t, 2, 3)
	_, _, _, others := made(t, 2, 3)
	for _, some := range [][]*Share{shares[:2], shares[1:], {shares[2], shares[0]}, shares} {
		id, err := Combine(some)
		if err != nil || id.Recipient().String() != recipient {
			t.Errorf("%d shares: %v", len(some), err)
		}
	}
	altered := *shares[1]
	altered.Data = bytes.Clone(altered.Data)
	altered.Data[20] ^= 1
	altered.Check = altered.check() // by somebody who knows how
	again, err := Combine(shares[:2])
	if err != nil {
		t.Fatal(err)
	}
	resplit, err := splitKey(again, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		shares []*Share
		want   string
	}{
		"none":          {nil, "no share"},
		"too few":       {shares[:1], "1 of 3 shares are here and 2 are needed: 1 more"},
		"twice":         {[]*Share{shares[0], shares[0]}, "share 1 was given twice"},
		"another key":   {[]*Share{shares[0], others[1]}, "give shares of one key"},
		"another split": {[]*Share{shares[0], resplit[1]}, "made together"},
		"altered":       {[]*Share{shares[0], &altered}, "do not give the key"},
		"one of three":  {[]*Share{shares[0], &altered, shares[2]}, "contradict each other"},
	} {
		id, err := Combine(c.shares)
		if err == nil || !strings.Contains(err.Error(), c.want) || id != nil {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error holds a key", name)
		}
	}
	if _, err := Read(files[0], ids[1:]); err == nil || !strings.Contains(err.Error(), "custodian's --identity") {
		t.Errorf("a share was read by another custodian: %v", err)
	}
	if _, err := Read(files[0], nil); err == nil {
		t.Error("a share was read without an identity")
	}
	if _, err := Read(files[0][:len(files[0])-3], ids); err == nil {
		t.Error("half a share was read")
	}
	text := shares[0].encode()
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1
		if s, err := Parse(bad); err == nil && !bytes.Equal(s.encode(), text) {
			t.Fatalf("byte %d changed, and the share was read", i)
		}
	}
}

// TestGfcombine: another program puts the key together too, and age opens with it.
func TestGfcombine(t *testing.T) {
	recipient, _, _, shares := made(t, 3, 5)
	dir := t.TempDir()
	args := []string{"-o", filepath.Join(dir, "key")}
	for _, i := range []int{4, 0, 2} {
		name := filepath.Join(dir, fmt.Sprintf("key.%03d", shares[i].Number))
		if err := os.WriteFile(name, shares[i].Data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	if out, err := exec.Command("gfcombine", args...).CombinedOutput(); err != nil {
		t.Fatalf("gfcombine: %v\n%s", err, out)
	}
	out, err := exec.Command("age-keygen", "-y", filepath.Join(dir, "key")).Output()
	if err != nil || strings.TrimSpace(string(out)) != recipient {
		t.Errorf("age-keygen says %q, %v; want %s", out, err, recipient)
	}
}

func FuzzParse(f *testing.F) {
	_, _, _, shares := made(f, 2, 2)
	f.Add(shares[0].encode())
	f.Add([]byte(`{"type":"backup.share"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(s.encode())
		if err != nil || again.Check != s.Check {
			t.Errorf("%v: %q", err, data)
		}
		Combine([]*Share{s, again})
	})
}
