package spool_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/reason"
	"signdrop/spool"
)

func TestAnswerName(t *testing.T) {
	for name, want := range map[string]string{
		"x.json": "x.result.json", "x.jsonl": "x.result.jsonl",
		"x.json.age": "x.result.json", "x.jsonl.age": "x.result.jsonl",
		"x.json.json.age": "x.json.result.json", "x.age.json": "x.age.result.json",
	} {
		if got := spool.AnswerName(name); got != want {
			t.Errorf("AnswerName(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzNames: no answer has the name of a status, and a signature is of one request.
func FuzzNames(f *testing.F) {
	for _, name := range []string{
		"x.json", "x.status.json", "x.status.json.age", "x.json.alice.sig", "x.json.age.sig", "x.json.a.b.sig",
		"x.sig", ".json.sig", "x.json..sig", "x.json." + strings.Repeat("l", 65) + ".sig",
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, other := range []string{name, strings.TrimSuffix(name, ".json") + ".json"} {
			if answer := spool.AnswerName(name); answer == spool.StatusName(other) || strings.HasSuffix(answer, ".status.json") && spool.IsRequest(name) {
				t.Errorf("the answer to %q is called %q", name, answer)
			}
		}
		request, label, ok := spool.SigOf(name)
		if !ok {
			return
		}
		if !spool.IsRequest(request) {
			t.Errorf("%q is the signature of %q, which is no request", name, request)
		}
		if back := spool.SigName(request, label); back != name {
			t.Errorf("%q reads as %q, %q, which is %q", name, request, label, back)
		}
		if spool.IsRequest(name) {
			t.Errorf("%q is both signature and request", name)
		}
		if label != "" {
			if len(name) > 230 || strings.ContainsAny(label, "./") || spool.IsRequest(request+"."+label) {
				t.Errorf("%q is label %q of %q", name, label, request)
			}
		}
	})
}

func TestSigOf(t *testing.T) {
	long := strings.Repeat("n", 195) + ".json"
	for name, want := range map[string]string{
		"x.json.sig": "x.json|", "x.json.alice.sig": "x.json|alice", "x.jsonl.a-B_9.sig": "x.jsonl|a-B_9",
		"x.json.age.sig": "x.json.age|", "x.json.age.bob.sig": "x.json.age|bob",
		"x.json.jsonl.sig": "x.json.jsonl|", long + ".sig": long + "|", long + ".alice.sig": long + "|alice",
		"x.doc.sig": "no", "x.doc.alice.sig": "no", "x.json.a.b.sig": "no", "x.json..sig": "no", "x.json.é.sig": "no",
		"x.json.sig.sig": "x.json|sig", ".x.json.sig": "no", "x.json.alice": "no",
		"x.json." + strings.Repeat("l", 64) + ".sig":  "x.json|" + strings.Repeat("l", 64),
		"x.json." + strings.Repeat("l", 65) + ".sig":  "no",
		long + "." + strings.Repeat("l", 26) + ".sig": "no", // 231 bytes
	} {
		got := "no"
		if request, label, ok := spool.SigOf(name); ok {
			got = request + "|" + label
		}
		if got != want {
			t.Errorf("SigOf(%q) = %q, want %q", name, got, want)
		}
	}
}

// TestEncryptedTwin: a request and an encrypted one that share the name of their
// answer and of their reason never share what lies there.
func TestEncryptedTwin(t *testing.T) {
	const clear, age = "pay.json", "pay.json.age"
	for _, order := range [][]string{{clear, age}, {age, clear}} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s first, refused %t", order[0], refused), func(t *testing.T) {
				b := newBench(t, "acme")
				for _, name := range order {
					b.put(in+name, "bytes of "+name)
					b.put(in+name+".sig", "sig of "+name)
				}
				_, items := b.next()
				if len(items) != 2 {
					t.Fatalf("%d items", len(items))
				}
				byName := map[string]*spool.Item{}
				for _, it := range items {
					byName[it.Name] = it
					if string(it.Data) != "bytes of "+it.Name || string(it.Sig) != "sig of "+it.Name {
						t.Errorf("%s has data %q and signature %q", it.Name, it.Data, it.Sig)
					}
				}
				// Both are out at once, and both have found the name free.
				for _, name := range order {
					it := byName[name]
					if taken, err := b.s.Occupied(it); taken || err != nil {
						t.Fatal(taken, err)
					}
					_, err := b.s.Claim(it)
					b.ok(err)
					b.ok(b.s.Make(it, refused, [][]byte{[]byte("for " + name)}))
				}
				first, second := byName[order[0]], byName[order[1]]
				b.ok(b.s.Publish(first))
				err := b.s.Publish(second)
				if refused {
					b.ok(err)
					b.ok(b.s.Retire(first, ""))
					b.ok(b.s.Retire(second, ""))
					b.holds("spool/acme/rejected/pay.reason.json", "for "+order[0])
					b.holds("spool/acme/rejected/pay.2.reason.json", "for "+order[1])
					ending := strings.TrimPrefix(order[1], "pay")
					b.holds("spool/acme/rejected/"+order[0], "bytes of "+order[0])
					b.holds("spool/acme/rejected/pay.2"+ending, "bytes of "+order[1])
					b.holds("spool/acme/rejected/pay.2"+ending+".sig", "sig of "+order[1])
					return
				}
				if !errors.Is(err, spool.ErrTaken) {
					t.Fatalf("publishing the second: %v", err)
				}
				b.holds("spool/acme/outbox/pay.result.json", "for "+order[0])
				// The second is refused then, as the appliance does.
				b.s.Unmake(second)
				b.ok(b.s.Make(second, true, [][]byte{[]byte("taken")}))
				b.ok(b.s.Publish(second))
				b.ok(b.s.Retire(first, "tag"))
				b.ok(b.s.Retire(second, ""))
				b.holds("spool/acme/outbox/pay.result.json", "for "+order[0])
				b.holds("spool/acme/rejected/"+order[1], "bytes of "+order[1])
				b.holds("spool/acme/rejected/pay.reason.json", "taken")
				b.holds("archive/acme/2026-11-22/120000/tag-"+order[0], "bytes of "+order[0])
			})
		}
	}
}

// TestEncryptedLimits: the encrypted types have limits of their own.
func TestEncryptedLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
		ok   bool
	}{
		{"a.json", 1 << 20, true}, {"a.json", 1<<20 + 1, false}, {"a.json.age", 2 << 20, true}, {"a.json.age", 2<<20 + 1, false},
		{"a.jsonl", 64 << 20, true}, {"a.jsonl", 64<<20 + 1, false}, {"a.jsonl.age", 68 << 20, true}, {"a.jsonl.age", 68<<20 + 1, false},
	} {
		b := newBench(t, "acme")
		b.vol.Sparse(in+c.name, c.size)
		b.put(in+c.name+".sig", "sig")
		if !c.ok {
			b.now = b.now.Add(time.Minute)
		}
		it := b.one()
		if ok := it.Refusal == nil; ok != c.ok || !ok && it.Refusal.Code != reason.TooLarge {
			t.Errorf("%s of %d bytes: %v", c.name, c.size, it.Refusal)
		}
	}
}

// holds fails the test unless the file has this content.
func (b *bench) holds(path, want string) {
	b.Helper()
	got, err := b.vol.ReadFile(path)
	if err != nil || string(got) != want {
		b.Errorf("%s holds %q, %v; want %q\n%s", path, got, err, want, b.vol.Tree())
	}
}

// lacks fails the test if the name is taken.
func (b *bench) lacks(path string) {
	b.Helper()
	if b.vol.Exists(path) {
		b.Errorf("%s is there", path)
	}
}
