package main_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/checker"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// The tests of this file have a partner that does the right things at the wrong
// time, or the wrong things at the right time.

// TestManyNames: the same bytes under 50 names at once are decided on once.
func TestManyNames(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-384")
	for _, data := range [][]byte{testbed.Transfer(w, "many"), walletCreate("P-256", "many"), []byte(`{"type":"nonsense"}`)} {
		sig := v.acme.Sign(data)
		tag := fmt.Sprintf("%x", sha256.Sum256(data))[:8]
		var drops []drop
		for i := range 50 {
			drops = append(drops, drop{fmt.Sprintf("%s-%d.json", tag, i), data, sig})
		}
		v.move(drops...)
		v.finished()
		answers := map[string]int{}
		for _, d := range drops {
			if got, err := os.ReadFile(v.outbox(answerName(d.name))); err == nil {
				answers[string(got)]++
			} else {
				a := v.reason(d.name)
				a.Name = ""
				answers[fmt.Sprint(*a)]++
			}
		}
		if len(answers) != 1 {
			t.Errorf("%s has %d different answers: %v", data, len(answers), answers)
		}
		if n := v.entries(data); n != 1 {
			t.Errorf("%s is on record %d times", data, n)
		}
	}
	if n := len(v.list(v.path("db", "companies", "acme", "wallets"))); n != 2 {
		t.Errorf("there are %d wallets, want 2", n)
	}
	r.stop()
	v.check(true)
}

// TestOneNonce: of two texts for one nonce that come at once exactly one is signed.
func TestOneNonce(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve("--workers=4")
	w := v.wallet("P-256")
	const n = 40
	var drops []drop
	for i := range n {
		for _, amount := range []string{"1", "2"} {
			name := fmt.Sprintf("n%d-%s.json", i, amount)
			data := transfer(w, name, fmt.Sprint(i), amount)
			drops = append(drops, drop{name, data, v.acme.Sign(data)})
		}
	}
	v.move(drops...)
	v.finished()
	r.stop()
	for i := range n {
		signed := 0
		for _, amount := range []string{"1", "2"} {
			name := fmt.Sprintf("n%d-%s.json", i, amount)
			if _, err := os.Stat(v.outbox(answerName(name))); err == nil {
				signed++
				continue
			}
			if a := v.reason(name); a.Code != string(reason.NonceUsed) && a.Code != string(reason.NonceBusy) {
				t.Errorf("%s is refused with %s", name, a.Code)
			}
		}
		if signed != 1 {
			t.Errorf("nonce %d: %d texts were signed", i, signed)
		}
	}
	v.check(true)
}

// TestReplaced: a partner moves one request after another over the same name while
// the first is being claimed. Whatever was claimed has one verdict, and the last,
// over which nothing was moved, has one of its own.
func TestReplaced(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	// Between the last signature and its request this test may take its time, and the
	// two that lie there then do not belong together.
	r := v.serve("--still=" + patience.String())
	w := v.wallet("P-256")
	v.finished()
	names, versions := 12, 40
	if testing.Short() {
		names = 4
	}
	data := func(name string, i int) []byte { return testbed.Transfer(w, fmt.Sprintf("%s %d", name, i)) }
	put := func(name string, data []byte) {
		v.ok(os.WriteFile(v.path("."+name), data, 0o600))
		v.ok(os.Rename(v.path("."+name), v.inbox(name)))
	}
	signed := map[string]bool{} // texts' digests by which a signature is known
	for n := range names {
		name := fmt.Sprintf("x%d.json", n)
		for i := range versions {
			d := data(name, i)
			signed[fmt.Sprintf("%x", sha256.Sum256(d))] = true
			put(name+".sig", v.acme.Sign(d))
			put(name, d)
		}
	}
	v.finished()
	r.stop()
	verdicts := map[string]string{} // by request
	for _, name := range v.list(v.outbox()) {
		content, err := os.ReadFile(v.outbox(name))
		v.ok(err)
		if a := v.parse(content); a.Operation == "transfer" {
			verdicts[a.Request] = "answered"
			if !signed[a.Request] {
				t.Errorf("%s answers a request that was never dropped", name)
			}
		}
	}
	for _, name := range v.list(v.rejected()) {
		if strings.HasSuffix(name, ".reason.json") {
			content, err := os.ReadFile(v.rejected(name))
			v.ok(err)
			a := v.parse(content)
			switch reason.Code(a.Code) {
			case reason.NameTaken, reason.SignatureInvalid, reason.SignatureAlone, reason.SignatureMissing:
			default:
				t.Errorf("%s gives %s", name, a.Code)
			}
			if verdicts[a.Request] == "answered" {
				t.Errorf("%s refuses with %s what is answered", name, a.Code)
			}
			verdicts[a.Request] = a.Code
		}
	}
	for n := range names {
		name := fmt.Sprintf("x%d.json", n)
		last := data(name, versions-1)
		sum := sha256.Sum256(last)
		switch got := verdicts[hex.EncodeToString(sum[:])]; got {
		case "answered", string(reason.NameTaken):
		default:
			t.Errorf("the last of %s is %q, want answered or name-taken", name, got)
		}
		v.drops = append(v.drops, checker.Drop{Company: "acme", Name: name, Data: last})
	}
	v.check(true)
}

// TestAppended: a partner goes on writing, through a handle from before, to a
// request that was claimed. What was signed is what was there when it was whole.
func TestAppended(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-256")
	v.finished()
	n := 60
	if testing.Short() {
		n = 15
	}
	var files []*os.File
	requests := map[string]string{} // name by digest
	for i := range n {
		name := fmt.Sprintf("x%d.json", i)
		data := testbed.Transfer(w, name)
		requests[fmt.Sprintf("%x", sha256.Sum256(data))] = name
		v.put(v.inbox(name+".sig"), v.acme.Sign(data))
		// It comes whole: half of it, still for long enough, is refused for that.
		f, err := os.Create(v.inbox("." + name))
		v.ok(err)
		defer f.Close()
		_, err = f.Write(data)
		v.ok(err)
		v.ok(os.Rename(v.inbox("."+name), v.inbox(name)))
		files = append(files, f)
		// To all that came before, at whatever stage they are.
		for _, f := range files[max(0, len(files)-8):] {
			_, err := f.WriteString(`{"type":"sign","wallet":"evil"}` + "\n")
			v.ok(err)
		}
	}
	v.finished()
	r.stop()
	answered := 0
	for _, name := range v.list(v.outbox()) {
		content, err := os.ReadFile(v.outbox(name))
		v.ok(err)
		if bytes.Contains(content, []byte("evil")) {
			t.Errorf("%s: %s", name, content)
		}
		a := v.parse(content)
		if a.Operation != "transfer" {
			continue
		}
		answered++
		if want := requests[a.Request]; name != answerName(want) {
			t.Errorf("%s answers %q", name, want)
		}
		v.ok(verifyAnswer(a))
	}
	for _, name := range v.list(v.rejected()) {
		if strings.HasSuffix(name, ".reason.json") {
			answered++
			if a := v.reason(strings.TrimSuffix(name, ".reason.json") + ".json"); a.Code != string(reason.SignatureInvalid) {
				t.Errorf("%s: refused with %s", name, a.Code)
			}
		}
	}
	if answered != n {
		t.Errorf("%d answers and reasons for %d requests", answered, n)
	}
	v.check(true)
}

// TestTakenBack: a partner takes back, renames or touches what it has just dropped.
// The daemon goes on, and what is left gets a verdict.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve("--sig-wait=1s")
	w := v.wallet("P-256")
	v.finished()
	n := 80
	if testing.Short() {
		n = 24
	}
	may := func(err error) {
		t.Helper()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for i := range n {
		name := fmt.Sprintf("x%d.json", i)
		data := testbed.Transfer(w, name)
		v.ok(os.WriteFile(v.inbox(name+".sig"), v.acme.Sign(data), 0o600))
		v.ok(os.WriteFile(v.inbox(name), data, 0o600))
		switch i % 8 {
		case 0:
			may(os.Remove(v.inbox(name)))
		case 1:
			may(os.Remove(v.inbox(name + ".sig")))
		case 2:
			may(os.Rename(v.inbox(name), v.inbox("y"+name)))
		case 3:
			may(os.Chtimes(v.inbox(name), time.Now(), time.Unix(1, 0)))
		case 4:
			may(os.Truncate(v.inbox(name), 10))
		case 5:
			may(os.Link(v.inbox(name), v.inbox("z"+name)))
		case 6:
			may(os.Remove(v.inbox(name)))
			may(os.Symlink("/etc/passwd", v.inbox(name)))
		case 7:
			may(os.Chmod(v.inbox(name), 0))
		}
	}
	v.finished()
	// A request and its signature may be a second apart here, and then neither waits
	// for the other.
	tries := 0
	v.until("the daemon answers", func() bool {
		tries++
		name := fmt.Sprintf("good%d.json", tries)
		v.drop(name, testbed.Transfer(w, name))
		v.finished()
		return v.refusedWith(name) == ""
	})
	r.stop()
	for _, name := range v.list(v.outbox()) {
		data, err := os.ReadFile(v.outbox(name))
		v.ok(err)
		if a := v.parse(data); a.Operation == "transfer" && answerName(a.Reference) != name {
			t.Errorf("%s answers %s", name, a.Reference)
		}
	}
	for _, name := range v.list(v.rejected()) {
		if info, err := os.Lstat(v.rejected(name)); err == nil && info.Mode() == 0 {
			v.ok(os.Chmod(v.rejected(name), 0o600)) // or the checker cannot read it
		}
	}
	v.check(true)
}

// TestOutboxGone: the directory where answers go, which is the partner's, is not where
// it was. Nothing is lost, and when it is back the answers are there.
func TestOutboxGone(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name       string
		away, back func(v *volume, dir string)
	}{
		{"renamed and renamed back",
			func(v *volume, dir string) { v.ok(os.Rename(dir, dir+".away")) },
			func(v *volume, dir string) { v.ok(os.Rename(dir+".away", dir)) }},
		{"deleted and made anew",
			func(v *volume, dir string) { tool(v.t, "rm", "-rf", dir) },
			func(v *volume, dir string) { v.ok(os.Mkdir(dir, 0o700)) }},
		{"a file in its place",
			func(v *volume, dir string) {
				v.ok(os.Rename(dir, dir+".away"))
				v.ok(os.WriteFile(dir, nil, 0o600))
			},
			func(v *volume, dir string) { v.ok(os.Remove(dir)); v.ok(os.Rename(dir+".away", dir)) }},
	}
	for _, c := range cases {
		for _, what := range []string{"outbox", "rejected", "outbox, restart"} {
			t.Run(c.name+", "+what, func(t *testing.T) {
				t.Parallel()
				what, _, restart := strings.Cut(what, ",")
				v := newVolume(t)
				r := v.serve()
				w := v.wallet("P-256")
				v.finished()
				v.drops = nil // that answer goes with the outbox
				dir := v.path("spool", "acme", what)
				names := []string{}
				send := func(n int) {
					var drops []drop
					for range n {
						name := fmt.Sprintf("p%d.json", len(names))
						names = append(names, name)
						data := testbed.Transfer(w, name)
						if what == "rejected" {
							data = fmt.Appendf(nil, `{"type":"nonsense","reference":%q}`, name)
						}
						drops = append(drops, drop{name, data, v.acme.Sign(data)})
					}
					v.move(drops...)
				}
				c.away(v, dir)
				send(20)
				// Until it has seen some of them, wherever it can put the answers.
				v.until("requests are decided on", func() bool {
					return strings.Count(r.text(), `"message":"file done"`) > 10 || strings.Contains(r.text(), "reading the inbox")
				})
				if restart {
					r.stop()
					if status := v.once(); status != 1 {
						t.Errorf("exit status %d of once for a company that cannot be served, want 1", status)
					}
					r = v.serve()
				}
				c.back(v, dir)
				send(5)
				for _, name := range names {
					if what == "rejected" {
						v.reason(name)
						continue
					}
					v.ok(verifyAnswer(v.parse(v.await(v.outbox(answerName(name))))))
				}
				v.finished()
				r.stop()
				v.check(true)
			})
		}
	}
}

// TestClaimedAgain: a job dropped the same request under two names, the machine
// stopped when both were claimed, and the job was run again. Each has its answer.
func TestClaimedAgain(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	w := v.wallet("P-256")
	v.finished()
	r.stop()
	data := testbed.Transfer(w, "again")
	sig := v.acme.Sign(data)
	for _, name := range []string{"one.json", "two.json", "three.json"} {
		v.ok(os.WriteFile(v.path("work", "acme", name), data, 0o600))
		v.ok(os.WriteFile(v.path("work", "acme", name+".sig"), sig, 0o600))
		v.move(drop{name, data, sig})
	}
	r = v.serve()
	v.finished()
	r.stop()
	v.none(v.rejected())
	if n := v.entries(data); n != 1 {
		t.Errorf("it is on record %d times", n)
	}
	v.check(true)
}
