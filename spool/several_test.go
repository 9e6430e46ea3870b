package spool_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/reason"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// newSeveral is a bench whose companies may have several signatures.
func newSeveral(t *testing.T, companies ...string) *bench {
	t.Helper()
	b := newBench(t, companies...)
	b.several = true
	return b
}

// sigs writes an item's signatures as "data label=data …".
func sigs(it *spool.Item) string {
	parts := []string{string(it.Sig)}
	for _, m := range it.More {
		parts = append(parts, m.Label+"="+string(m.Data))
	}
	return strings.Join(parts, " ")
}

// files lists all regular files of the volume.
func (b *bench) files() []string {
	var list []string
	b.vol.Walk(func(path string, info durable.Info) {
		if info.Mode.IsRegular() {
			list = append(list, path)
		}
	})
	slices.Sort(list)
	return list
}

// finish answers a claimed item, or refuses it.
func (b *bench) finish(it *spool.Item, refused bool, product string) {
	b.Helper()
	b.ok(b.s.Make(it, refused, [][]byte{[]byte(product)}))
	b.ok(b.s.Publish(it))
	b.ok(b.s.Retire(it, "tag"))
}

func TestSeveralSignatures(t *testing.T) {
	all := []string{"a.json", "a.json.bob.sig", "a.json.sig", "a.json.Alice-1_x.sig"}
	for _, c := range []struct {
		name, want string
		files      []string
	}{
		{"all", "sig Alice-1_x=sig bob=sig", all},
		{"labels only", " bob=sig", []string{"a.json", "a.json.bob.sig"}},
		{"plain only", "sig", []string{"a.json", "a.json.sig"}},
	} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refused %t", c.name, refused), func(t *testing.T) {
				b := newSeveral(t, "acme")
				for _, f := range c.files {
					data := "sig"
					if f == "a.json" {
						data = "{}"
					}
					b.put(in+f, data)
				}
				it := b.one()
				if got := sigs(it); got != c.want || string(it.Data) != "{}" || it.Refusal != nil {
					t.Fatalf("data %q, signatures %q, refusal %v", it.Data, got, it.Refusal)
				}
				changed, err := b.s.Claim(it)
				if changed || err != nil {
					t.Fatal(changed, err)
				}
				b.want("inbox", b.vol.List("spool/acme/inbox"))
				b.ok(b.s.Unclaim(it))
				b.want("work", b.vol.List("work/acme"))
				got, _ := b.next()
				b.want("unchanged", got)
				b.now = b.now.Add(time.Hour)
				it = b.one()
				if got := sigs(it); got != c.want || !it.Due {
					t.Fatalf("signatures %q, due %t", got, it.Due)
				}
				_, err = b.s.Claim(it)
				b.ok(err)
				b.finish(it, refused, "product")
				dir, prefix := "archive/acme/2026-11-22/130000/", "tag-"
				want := []string{"spool/acme/outbox/a.result.json"}
				if refused {
					dir, prefix = "spool/acme/rejected/", ""
					want = []string{"spool/acme/rejected/a.reason.json"}
				}
				for _, f := range c.files {
					want = append(want, dir+prefix+f)
				}
				slices.Sort(want)
				b.want("files", b.files(), want...)
			})
		}
	}
}

// TestSeveralElsewhere: in other companies such a name is no request's.
func TestSeveralElsewhere(t *testing.T) {
	b := newBench(t, "acme")
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "sig")
	b.put(in+"a.json.bob.sig", "sig")
	it := b.one()
	if it.Name != "a.json" || len(it.More) > 0 {
		t.Errorf("got %s with %d more", it.Name, len(it.More))
	}
	_, err := b.s.Claim(it)
	b.ok(err)
	b.now = b.now.Add(time.Minute)
	junk := b.one()
	if junk.Name != "a.json.bob.sig" || junk.Refusal == nil || junk.Refusal.Code != reason.NameNotAllowed {
		t.Fatalf("got %s, %v", junk.Name, junk.Refusal)
	}
	_, err = b.s.Claim(junk)
	b.ok(err)
	// Both lie in work/ now, and a crash does not make one thing of them.
	b.open("acme")
	items, err := b.s.Recover()
	b.ok(err)
	if len(items) != 2 {
		t.Fatalf("%d items are recovered", len(items))
	}
	for _, it := range items {
		if refused := it.Refusal != nil; refused != (it.Name == "a.json.bob.sig") || refused && it.Refusal.Code != reason.NameNotAllowed {
			t.Errorf("%s: %v", it.Name, it.Refusal)
		}
		b.finish(it, it.Refusal != nil, "product")
	}
	b.holds("spool/acme/rejected/a.json.bob.sig", "sig")
}

// TestSeveralChanges: any change of a signature makes a request worth another look.
func TestSeveralChanges(t *testing.T) {
	changes := []struct {
		name   string
		change func(b *bench)
		want   string
	}{
		{"replaced", func(b *bench) { b.put(in+".s", "new"); b.vol.Rename(in+".s", in+"a.json.bob.sig") }, "sig bob=new"},
		{"written", func(b *bench) { b.put(in+"a.json.bob.sig", "longer") }, "sig bob=longer"},
		{"removed", func(b *bench) { b.vol.Remove(in + "a.json.bob.sig") }, "sig"},
		{"added", func(b *bench) { b.put(in+"a.json.amy.sig", "sig2") }, "sig amy=sig2 bob=sig"},
		{"plain one removed", func(b *bench) { b.vol.Remove(in + "a.json.sig") }, " bob=sig"},
	}
	start := func(t *testing.T) (*bench, *spool.Item) {
		b := newSeveral(t, "acme")
		b.put(in+"a.json", "{}")
		b.put(in+"a.json.sig", "sig")
		b.put(in+"a.json.bob.sig", "sig")
		it := b.one()
		b.now = b.now.Add(time.Second)
		return b, it
	}
	for _, c := range changes {
		t.Run(c.name+" while it waits", func(t *testing.T) {
			b, it := start(t)
			b.s.Return(it, false)
			got, _ := b.next()
			b.want("unchanged", got)
			c.change(b)
			if it := b.one(); sigs(it) != c.want {
				t.Errorf("signatures are %q, want %q", sigs(it), c.want)
			}
		})
		t.Run(c.name+" before the claim", func(t *testing.T) {
			b, it := start(t)
			c.change(b)
			if c.name == "added" {
				b.s.Hint("acme", "a.json.amy.sig")
				got, _ := b.next()
				b.want("while it is out", got)
			}
			changed, err := b.s.Claim(it)
			b.ok(err)
			if !changed || sigs(it) != c.want {
				t.Errorf("changed %t, signatures %q, want %q", changed, sigs(it), c.want)
			}
			b.want("inbox", b.vol.List("spool/acme/inbox"))
		})
		if c.name == "removed" || c.name == "written" || c.name == "plain one removed" {
			continue // not possible once it is claimed
		}
		t.Run(c.name+" after the claim", func(t *testing.T) {
			b, it := start(t)
			_, err := b.s.Claim(it)
			b.ok(err)
			c.change(b)
			name := map[string]string{"replaced": "a.json.bob.sig", "added": "a.json.amy.sig"}[c.name]
			b.s.Hint("acme", name)
			got, _ := b.next()
			b.want("while it is out", got)
			b.ok(b.s.Unclaim(it))
			if it := b.one(); sigs(it) != c.want {
				t.Errorf("signatures are %q, want %q", sigs(it), c.want)
			}
		})
	}
}

// TestSeveralWithoutHints: what a watcher would have told, a walk finds.
func TestSeveralWithoutHints(t *testing.T) {
	b := newSeveral(t, "acme")
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.bob.sig", "sig")
	it := b.one()
	b.put(in+"a.json.amy.sig", "sig")
	got, _ := b.next()
	b.want("while it is out", got)
	b.s.Return(it, false)
	if it := b.one(); sigs(it) != " amy=sig bob=sig" {
		t.Errorf("signatures are %q", sigs(it))
	}
}

// TestHintBeforeTheFirstWalk: a request that is hinted at is read with the
// signatures that lay there before.
func TestHintBeforeTheFirstWalk(t *testing.T) {
	b := newSeveral(t, "acme")
	b.put(in+"a.json.bob.sig", "sig")
	b.put(in+"a.json.amy.sig", "sig")
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "sig")
	b.s.Hint("acme", "a.json")
	items, err := b.s.Next(1)
	b.ok(err)
	if len(items) != 1 || sigs(items[0]) != "sig amy=sig bob=sig" {
		t.Errorf("got %d items, %q", len(items), sigs(items[0]))
	}
}

// TestSeveralAlone: signatures that wait for their request in vain are refused, each
// for itself, and not when it comes.
func TestSeveralAlone(t *testing.T) {
	b := newSeveral(t, "acme")
	b.put(in+"a.json.bob.sig", "sig")
	b.put(in+"a.json.amy.sig", "sig")
	got, _ := b.next()
	b.want("too early", got)
	b.now = b.now.Add(time.Hour)
	names, items := b.next()
	b.want("due", names, "acme/a.json.amy.sig", "acme/a.json.bob.sig")
	for _, it := range items {
		if it.Refusal == nil || it.Refusal.Code != reason.SignatureAlone {
			t.Errorf("%s: %v", it.Name, it.Refusal)
		}
		b.s.Return(it, false)
	}
	b.put(in+"a.json", "{}")
	it := b.one()
	if it.Name != "a.json" || sigs(it) != " amy=sig bob=sig" {
		t.Errorf("got %s with %q", it.Name, sigs(it))
	}
	b.s.Return(it, false)
	b.vol.Remove(in + "a.json")
	b.now = b.now.Add(time.Hour)
	_, items = b.next()
	for _, it := range items {
		_, err := b.s.Claim(it)
		b.ok(err)
		b.finish(it, true, "alone "+it.Name)
	}
	b.want("rejected", b.vol.List("spool/acme/rejected"),
		"a.json.amy.sig", "a.json.amy.sig.reason.json", "a.json.bob.sig", "a.json.bob.sig.reason.json")
}

// TestSeveralTooMany: more than 32 are refused, and nothing of them is lost.
func TestSeveralTooMany(t *testing.T) {
	for n, code := range map[int]reason.Code{32: "", 33: reason.TooLarge, 40: reason.TooLarge} {
		b := newSeveral(t, "acme")
		b.put(in+"a.json", "{}")
		for i := range n {
			b.put(fmt.Sprintf("%sa.json.l%02d.sig", in, i), "sig")
		}
		if code != "" {
			b.now = b.now.Add(time.Minute)
		}
		it := b.one()
		if code == "" {
			if it.Refusal != nil || len(it.More) != n {
				t.Errorf("%d: %d signatures, %v", n, len(it.More), it.Refusal)
			}
			continue
		}
		if it.Refusal == nil || it.Refusal.Code != code || it.Data != nil {
			t.Errorf("%d: %v", n, it.Refusal)
		}
		_, err := b.s.Claim(it)
		b.ok(err)
		b.finish(it, true, "too many")
		b.now = b.now.Add(time.Hour)
		for {
			_, items := b.next()
			if len(items) == 0 {
				break
			}
			for _, it := range items {
				_, err := b.s.Claim(it)
				b.ok(err)
				b.finish(it, true, "alone "+it.Name)
			}
		}
		kept := 0
		for _, name := range b.vol.List("spool/acme/rejected") {
			if strings.HasSuffix(name, ".sig") {
				kept++
			}
		}
		if kept != n {
			t.Errorf("%d of %d signatures are in rejected/", kept, n)
		}
	}
}

// TestSeveralUnclaimTaken: a request whose place in the inbox is taken keeps no
// signature that may belong to what took it.
func TestSeveralUnclaimTaken(t *testing.T) {
	b := newSeveral(t, "acme")
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "old")
	b.put(in+"a.json.bob.sig", "old")
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	b.put(in+"a.json", "{2}")
	b.put(in+"a.json.bob.sig", "new")
	if err := b.s.Unclaim(it); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("err = %v", err)
	}
	b.finish(it, true, "taken")
	b.holds("spool/acme/rejected/a.json", "{}")
	b.holds("spool/acme/rejected/a.json.bob.sig", "old")
	b.holds(in+"a.json.bob.sig", "new")
	b.holds(in+"a.json.sig", "old")
	if it := b.one(); string(it.Data) != "{2}" || sigs(it) != "old bob=new" {
		t.Errorf("got %q, %q", it.Data, sigs(it))
	}
}

// TestRecoverSeveral has each state that a crash can leave of several signatures.
func TestRecoverSeveral(t *testing.T) {
	const work = "work/acme/"
	const day = "archive/acme/2026-11-22/120000/"
	cases := []struct {
		name  string
		files []string
		items []string // name, then signatures
		after []string
	}{
		{"claimed", []string{work + "a.json", work + "a.json.sig", work + "a.json.bob.sig"},
			[]string{"a.json s bob=s"}, []string{work + "a.json", work + "a.json.sig", work + "a.json.bob.sig"}},
		{"within claim, none moved", []string{work + "a.json", in + "a.json.sig", in + "a.json.bob.sig"},
			[]string{"a.json s bob=s"}, []string{work + "a.json", work + "a.json.sig", work + "a.json.bob.sig"}},
		{"within claim, one moved", []string{work + "a.json", work + "a.json.amy.sig", in + "a.json.bob.sig"},
			[]string{"a.json  amy=s bob=s"}, []string{work + "a.json", work + "a.json.amy.sig", work + "a.json.bob.sig"}},
		{"claimed, a newer one in the inbox", []string{work + "a.json", work + "a.json.bob.sig", in + "a.json.bob.sig"},
			[]string{"a.json  bob=s"}, []string{work + "a.json", work + "a.json.bob.sig", in + "a.json.bob.sig"}},
		{"within unclaim", []string{in + "a.json", in + "a.json.sig", work + "a.json.bob.sig"},
			nil, []string{in + "a.json", in + "a.json.sig", in + "a.json.bob.sig"}},
		{"within unclaim, a newer one", []string{in + "a.json", in + "a.json.bob.sig", work + "a.json.bob.sig"},
			nil, []string{in + "a.json", in + "a.json.bob.sig"}},
		{"within retire", []string{work + "a.json.amy.sig", work + "a.json.bob.sig"},
			nil, []string{day + "signature-a.json.amy.sig", day + "signature-a.json.bob.sig"}},
		{"within retire of a refused one", []string{"spool/acme/rejected/a.json", work + "a.json.bob.sig"},
			nil, []string{"spool/acme/rejected/a.json", "spool/acme/rejected/a.json.bob.sig"}},
		{"request alone", []string{work + "a.json"}, []string{"a.json "}, []string{work + "a.json"}},
		{"signature without request", []string{work + ".alone-a.json.bob.sig"}, []string{"a.json.bob.sig "}, []string{work + ".alone-a.json.bob.sig"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newSeveral(t, "acme")
			for _, f := range c.files {
				b.put(f, "s")
			}
			b.open("acme")
			items, err := b.s.Recover()
			b.ok(err)
			var names []string
			for _, it := range items {
				names = append(names, it.Name+" "+sigs(it))
			}
			b.want("items", names, c.items...)
			slices.Sort(c.after)
			b.want("files", b.files(), c.after...)
		})
	}
}
