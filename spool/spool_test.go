package spool_test

import (
	"errors"
	"fmt"
	"io/fs"
	pathpkg "path"
	"slices"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/reason"
	"signdrop/spool"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// bench is a spool on the model file system with a clock that the test moves.
type bench struct {
	*testing.T
	vol *modelfs.Volume
	s   *spool.Spool
	now time.Time

	several bool // in all companies
	warned  []string
}

func newBench(t *testing.T, companies ...string) *bench {
	t.Helper()
	b := &bench{T: t, vol: modelfs.New(), now: epoch}
	b.vol.SetClock(func() int64 { return b.now.UnixNano() })
	for _, c := range companies {
		for _, d := range []string{"inbox", "outbox", "rejected"} {
			b.vol.MkdirAll("spool/"+c+"/"+d, 0o700)
		}
	}
	b.open(companies...)
	return b
}

func (b *bench) open(companies ...string) {
	b.Helper()
	root, err := b.vol.Root()
	b.ok(err)
	b.s, err = spool.Open(b.vol, root, spool.Config{
		Still: time.Minute, SigWait: time.Hour, Now: func() time.Time { return b.now },
		Several: func(string) bool { return b.several },
		Warn: func(company, what string, err error) {
			b.Logf("%s: %s: %v", company, what, err)
			b.warned = append(b.warned, what)
		},
	})
	b.ok(err)
	b.ok(b.s.SetCompanies(companies))
}

func (b *bench) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// put writes a file, making work/<company> where it lies there.
func (b *bench) put(path, data string) {
	if dir := pathpkg.Dir(path); strings.HasPrefix(dir, "work/") {
		b.vol.MkdirAll(dir, 0o700)
	}
	b.vol.WriteFile(path, []byte(data))
}

// next returns the names of the items that are ready, and the items.
func (b *bench) next() ([]string, []*spool.Item) {
	b.Helper()
	items, err := b.s.Next(100)
	b.ok(err)
	var names []string
	for _, it := range items {
		names = append(names, it.Company+"/"+it.Name)
	}
	slices.Sort(names)
	return names, items
}

func (b *bench) want(what string, got []string, want ...string) {
	b.Helper()
	if !slices.Equal(got, want) {
		b.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (b *bench) one() *spool.Item {
	b.Helper()
	names, items := b.next()
	if len(items) != 1 {
		b.Fatalf("%d items are ready: %q", len(items), names)
	}
	return items[0]
}

const in = "spool/acme/inbox/"

func TestNextWaitsForTheSignature(t *testing.T) {
	b := newBench(t, "acme")
	b.put(in+"pay.json", "{}")
	got, _ := b.next()
	b.want("without signature", got)
	b.now = b.now.Add(59 * time.Minute)
	got, _ = b.next()
	b.want("before the time is over", got)
	b.put(in+"pay.json.sig", "sig")
	it := b.one()
	if string(it.Data) != "{}" || string(it.Sig) != "sig" || it.Refusal != nil || it.Due {
		t.Errorf("item is %+v", it)
	}
	got, _ = b.next()
	b.want("while it is out", got)
	b.s.Return(it, false)
	got, _ = b.next()
	b.want("unchanged", got)
	b.put(in+"pay.json", "{} ")
	if it = b.one(); string(it.Data) != "{} " {
		t.Errorf("after a change data is %q", it.Data)
	}
	b.s.Return(it, false)
	b.now = b.now.Add(time.Minute)
	if it = b.one(); !it.Due {
		t.Error("after a minute it is not due")
	}
}

func TestNextRefusesWhatStays(t *testing.T) {
	cases := []struct {
		name  string
		plant func(b *bench)
		after time.Duration
		code  reason.Code
	}{
		{"no signature", func(b *bench) { b.put(in+"a.json", "{}") }, time.Hour, reason.SignatureMissing},
		{"signature alone", func(b *bench) { b.put(in+"a.json.sig", "s") }, time.Hour, reason.SignatureAlone},
		{"junk", func(b *bench) { b.put(in+"a.doc", "s") }, time.Minute, reason.NameNotAllowed},
		{"upper-case type", func(b *bench) { b.put(in+"A.JSON", "s") }, time.Minute, reason.NameNotAllowed},
		{"link", func(b *bench) { b.vol.Symlink("x", in+"a.json") }, time.Minute, reason.NotAFile},
		{"directory", func(b *bench) { b.vol.MkdirAll(in+"a", 0o700) }, time.Minute, reason.NotAFile},
		{"empty", func(b *bench) { b.put(in+"a.json", ""); b.put(in+"a.json.sig", "s") }, time.Minute, reason.Empty},
		{"large", func(b *bench) { b.vol.Sparse(in+"a.json", 1<<40); b.put(in+"a.json.sig", "s") }, time.Minute, reason.TooLarge},
		{"large signature", func(b *bench) { b.put(in+"a.json", "{}"); b.vol.Sparse(in+"a.json.sig", 1<<40) }, time.Minute, reason.TooLarge},
		{"two names", func(b *bench) {
			b.put("x", "{}")
			b.vol.Link("x", in+"a.json")
			b.put(in+"a.json.sig", "s")
		}, time.Minute, reason.HardLinked},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			c.plant(b)
			b.now = b.now.Add(c.after - 1)
			got, _ := b.next()
			b.want("too early", got)
			b.now = b.now.Add(1)
			it := b.one()
			if it.Refusal == nil || it.Refusal.Code != c.code || !it.Due {
				t.Fatalf("refusal is %v, due %t; want %s", it.Refusal, it.Due, c.code)
			}
			if changed, err := b.s.Claim(it); changed || err != nil {
				t.Fatal(changed, err)
			}
			b.ok(b.s.Make(it, true, [][]byte{[]byte("reason")}))
			b.ok(b.s.Publish(it))
			b.ok(b.s.Retire(it, ""))
			if n := len(b.vol.List("spool/acme/rejected")); n < 2 {
				t.Errorf("rejected/ holds %q", b.vol.List("spool/acme/rejected"))
			}
			for _, d := range []string{"spool/acme/inbox", "work/acme", "work/.made"} {
				if l := b.vol.List(d); len(l) > 0 {
					t.Errorf("%s holds %q", d, l)
				}
			}
		})
	}
}

func TestUnfinished(t *testing.T) {
	for name, want := range map[string]bool{
		"pay.json": false, "pay.json.sig": false, "a.tmpl": false,
		".pay.json": true, ".": true, "pay.json.part": true, "pay.json.PART": true, "pay.json~": true,
		"~$pay.json": true, "pay.json.filepart": true, "pay.json.swp": true, "x.camelLock": true,
	} {
		if got := spool.Unfinished(name); got != want {
			t.Errorf("Unfinished(%q) = %t", name, got)
		}
	}
}

func TestSafeName(t *testing.T) {
	for name, want := range map[string]string{
		"pay.json": "pay.json", "a b": "a%20b", "\xff": "%FF", "-x": "%2Dx", "..": "%2E.", "a%20b": "a%2520b", "é": "%C3%A9",
	} {
		if got := spool.SafeName(name, 200, "t"); got != want {
			t.Errorf("SafeName(%q) = %q, want %q", name, got, want)
		}
	}
	if got := spool.SafeName(strings.Repeat("ä", 120), 200, "77"); len(got) != 200 || !strings.HasSuffix(got, "~77") {
		t.Errorf("a long name becomes %q (%d bytes)", got, len(got))
	}
}

// TestClaimNoticesChanges: what happens to the files between the reading and the
// claim is noticed.
func TestClaimNoticesChanges(t *testing.T) {
	cases := []struct {
		name   string
		change func(b *bench)
		data   string // afterwards
		gone   bool
	}{
		{"nothing", func(*bench) {}, "{}", false},
		{"replaced", func(b *bench) { b.put(in+".new", "{2}"); b.vol.Rename(in+".new", in+"a.json") }, "{2}", false},
		{"appended", func(b *bench) { b.put(in+"a.json", "{}{}") }, "{}{}", false},
		{"replaced, same size", func(b *bench) { b.put(in+".new", "[]"); b.vol.Rename(in+".new", in+"a.json") }, "[]", false},
		{"removed", func(b *bench) { b.vol.Remove(in + "a.json") }, "", true},
		{"replaced by a link", func(b *bench) { b.vol.Remove(in + "a.json"); b.vol.Symlink("/etc/passwd", in+"a.json") }, "", false},
		{"signature removed", func(b *bench) { b.vol.Remove(in + "a.json.sig") }, "", false},
		{"signature replaced", func(b *bench) { b.put(in+".s", "other"); b.vol.Rename(in+".s", in+"a.json.sig") }, "{}", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			b.put(in+"a.json", "{}")
			b.put(in+"a.json.sig", "sig")
			it := b.one()
			b.now = b.now.Add(time.Second)
			c.change(b)
			changed, err := b.s.Claim(it)
			if c.gone {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("err = %v", err)
				}
				return
			}
			b.ok(err)
			if changed != (c.name != "nothing") {
				t.Errorf("changed = %t", changed)
			}
			if string(it.Data) != c.data {
				t.Errorf("data is %q, want %q", it.Data, c.data)
			}
			if b.vol.Exists(in + "a.json") {
				t.Error("it is still in the inbox")
			}
		})
	}
}

func TestUnclaim(t *testing.T) {
	b := newBench(t, "acme")
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "sig")
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	b.ok(b.s.Unclaim(it))
	if !b.vol.Exists(in+"a.json") || !b.vol.Exists(in+"a.json.sig") || len(b.vol.List("work/acme")) > 0 {
		t.Errorf("after Unclaim:\n%s", b.vol.Tree())
	}
	// Its place is taken meanwhile.
	b.put(in+"a.json", "{} ")
	it = b.one()
	_, err = b.s.Claim(it)
	b.ok(err)
	b.put(in+"a.json", "{3}")
	if err := b.s.Unclaim(it); !errors.Is(err, fs.ErrExist) {
		t.Errorf("err = %v", err)
	}
	if !b.vol.Exists("work/acme/a.json") {
		t.Error("the claimed file is lost")
	}
}

// TestPublish: an answer never replaces anything, and the same answer is content.
func TestPublish(t *testing.T) {
	publish := func(b *bench, it *spool.Item, refused bool, text string) error {
		b.Helper()
		_, err := b.s.Claim(it)
		b.ok(err)
		b.ok(b.s.Make(it, refused, [][]byte{[]byte(text[:1]), []byte(text[1:])}))
		return b.s.Publish(it)
	}
	for _, c := range []struct {
		name, there string
		want        error
	}{{"free", "", nil}, {"same", "answer", nil}, {"other", "ANSWER", spool.ErrTaken}, {"longer", "answer and more", spool.ErrTaken}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			b.put(in+"a.json", "{}")
			b.put(in+"a.json.sig", "sig")
			if c.there != "" {
				b.put("spool/acme/outbox/a.result.json", c.there)
			}
			if err := publish(b, b.one(), false, "answer"); err != c.want {
				t.Fatalf("err = %v, want %v", err, c.want)
			}
			got, err := b.vol.ReadFile("spool/acme/outbox/a.result.json")
			b.ok(err)
			if want := c.there; want != "" && string(got) != want || want == "" && string(got) != "answer" {
				t.Errorf("outbox holds %q", got)
			}
		})
	}
	t.Run("reasons", func(t *testing.T) {
		b := newBench(t, "acme")
		for i, text := range []string{"reason 1", "reason 2", "reason 1"} {
			b.put(in+"a.json", fmt.Sprint("{", i))
			b.put(in+"a.json.sig", "sig")
			it := b.one()
			b.ok(publish(b, it, true, text))
			b.ok(b.s.Retire(it, ""))
		}
		b.want("rejected", b.vol.List("spool/acme/rejected"),
			"a.2.json", "a.2.json.sig", "a.2.reason.json", "a.json", "a.json.sig", "a.json.sig~2", "a.json~2", "a.reason.json")
	})
}

// TestRecover has each state that a crash can leave in work/.
func TestRecover(t *testing.T) {
	cases := []struct {
		name  string
		files []string
		items []string
		after []string // where the files are then
	}{
		{"claimed", []string{"work/acme/a.json", "work/acme/a.json.sig"}, []string{"a.json"}, []string{"work/acme/a.json", "work/acme/a.json.sig"}},
		{"crash within claim", []string{"work/acme/a.json", in + "a.json.sig"}, []string{"a.json"}, []string{"work/acme/a.json", "work/acme/a.json.sig"}},
		{"request alone", []string{"work/acme/a.json"}, []string{"a.json"}, []string{"work/acme/a.json"}},
		{"crash within unclaim", []string{in + "a.json", "work/acme/a.json.sig"}, nil, []string{in + "a.json", in + "a.json.sig"}},
		{"crash within unclaim, new signature", []string{in + "a.json", in + "a.json.sig", "work/acme/a.json.sig"}, nil, []string{in + "a.json", in + "a.json.sig"}},
		{"crash within retire of a refused one", []string{"spool/acme/rejected/a.json", "work/acme/a.json.sig"}, nil, []string{"spool/acme/rejected/a.json", "spool/acme/rejected/a.json.sig"}},
		{"crash within retire", []string{"work/acme/a.json.sig"}, nil, []string{"archive/acme/2026-11-22/120000/signature-a.json.sig"}},
		{"signature without request", []string{"work/acme/.alone-a.json.sig"}, []string{"a.json.sig"}, []string{"work/acme/.alone-a.json.sig"}},
		{"junk", []string{"work/acme/j unk"}, []string{"j unk"}, []string{"work/acme/j unk"}},
		{"answers that were not published", []string{"work/.made/7"}, nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			for _, f := range c.files {
				b.put(f, f)
			}
			b.open("acme")
			items, err := b.s.Recover()
			b.ok(err)
			var names []string
			for _, it := range items {
				names = append(names, it.Name)
				if !it.Claimed || !it.Due {
					t.Errorf("%s: claimed %t, due %t", it.Name, it.Claimed, it.Due)
				}
			}
			b.want("items", names, c.items...)
			var files []string
			b.vol.Walk(func(path string, info durable.Info) {
				if info.Mode.IsRegular() {
					files = append(files, path)
				}
			})
			slices.Sort(c.after)
			b.want("files", files, c.after...)
			got, _ := b.next()
			if len(c.items) > 0 {
				b.want("next", got)
			}
		})
	}
}

// TestFairness: a partner with a flood does not keep the others from their turn.
func TestFairness(t *testing.T) {
	b := newBench(t, "acme", "beta")
	for i := range 2000 {
		b.put(fmt.Sprintf("%sp%d.json", in, i), "{}")
		b.put(fmt.Sprintf("%sp%d.json.sig", in, i), "s")
	}
	b.put("spool/beta/inbox/b.json", "{}")
	b.put("spool/beta/inbox/b.json.sig", "s")
	seen := 0
	for range 3 {
		items, err := b.s.Next(64)
		b.ok(err)
		for _, it := range items {
			seen++
			if it.Company == "beta" {
				if seen > 600 {
					t.Errorf("beta came after %d others", seen-1)
				}
				return
			}
		}
	}
	t.Errorf("beta has not come among %d", seen)
}

// TestFairnessInterrupted: that the companies are listed again and again does not
// give the first one its turn again and again.
func TestFairnessInterrupted(t *testing.T) {
	b := newBench(t, "acme", "beta")
	for i := range 2000 {
		b.put(fmt.Sprintf("%s%04d.json", in, i), "{}")
		b.put(fmt.Sprintf("%s%04d.json.sig", in, i), "sig")
	}
	b.put("spool/beta/inbox/pay.json", "{}")
	b.put("spool/beta/inbox/pay.json.sig", "sig")
	for range 4 {
		b.ok(b.s.SetCompanies([]string{"acme", "beta"}))
		if got, _ := b.next(); slices.Contains(got, "beta/pay.json") {
			return
		}
	}
	t.Error("beta did not have its turn")
}

// TestClaimedWaits: an item that cannot go back comes again with the next list of
// companies, and not before.
func TestClaimedWaits(t *testing.T) {
	b := newBench(t, "acme")
	b.put(in+"pay.json", "{}")
	b.put(in+"pay.json.sig", "sig")
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	b.s.Return(it, false)
	b.s.Retry()
	got, _ := b.next()
	b.want("before", got)
	b.ok(b.s.SetCompanies([]string{"acme"}))
	if again := b.one(); again != it || !again.Claimed {
		t.Errorf("got %+v", again)
	}
}
