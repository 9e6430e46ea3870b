package spool_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/spool"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("c%05d", i)
	}
	return list
}

// rescan does what the appliance does every few seconds, and returns what is ready.
func (b *bench) rescan(companies ...string) []*spool.Item {
	b.Helper()
	b.ok(b.s.SetCompanies(companies))
	var all []*spool.Item
	for {
		_, items := b.next()
		if len(items) == 0 {
			return all
		}
		all = append(all, items...)
	}
}

// calls counts the calls on the volume while f runs, by kind.
func (b *bench) calls(f func()) map[modelfs.Op]int {
	before := len(b.vol.Calls())
	f()
	n := map[modelfs.Op]int{}
	for _, c := range b.vol.Calls()[before:] {
		n[c.Op]++
	}
	return n
}

// TestQuietInboxes: an inbox in which nothing waits costs one stat a rescan and no
// handle, and nothing between rescans.
func TestQuietInboxes(t *testing.T) {
	companies := names(1000)
	b := newBench(t, companies...)
	b.now = b.now.Add(time.Hour)
	b.rescan(companies...)
	got := b.calls(func() { b.rescan(companies...) })
	if got[modelfs.OpStat] != len(companies) || len(got) != 3 || got[modelfs.OpSub] != 1 || got[modelfs.OpClose] != 1 {
		t.Errorf("a rescan costs %v", got)
	}
	if got := b.calls(func() { b.next() }); len(got) > 0 {
		t.Errorf("Next costs %v", got)
	}
	if n := len(b.vol.OpenHandles()); n > 256*3+5 {
		t.Errorf("%d handles are open", n)
	}
	if b.vol.Exists("work/c00000") || b.vol.Exists("archive/c00000") {
		t.Error("directories are made before they are needed")
	}
}

// TestQuietEnds: whatever comes into a quiet inbox is found.
func TestQuietEnds(t *testing.T) {
	put := func(b *bench) {
		b.put(in+"a.json", "{}")
		b.put(in+"a.json.sig", "sig")
	}
	cases := []struct {
		name    string
		prepare func(b *bench)
		change  func(b *bench)
		hint    bool
	}{
		{"a file", nil, put, false},
		{"a file, hinted at", nil, put, true},
		{"a file, at the time of the walk", func(b *bench) { b.now = b.vol_mtime(in) }, put, false},
		{"a file, a second after the last change", func(b *bench) { b.now = b.vol_mtime(in).Add(time.Second) }, put, false},
		{"another inbox", nil, func(b *bench) {
			b.vol.Rename("spool/acme/inbox", "spool/acme/old")
			b.vol.MkdirAll("spool/acme/inbox", 0o700)
			put(b)
		}, false},
		{"another inbox and no file, then one", nil, func(b *bench) {
			b.vol.Rename("spool/acme/inbox", "spool/acme/old")
			b.vol.MkdirAll("spool/acme/inbox", 0o700)
			b.rescan("acme")
			put(b)
		}, false},
		{"another company's directory", nil, func(b *bench) {
			b.vol.Rename("spool/acme", "spool/old")
			for _, d := range []string{"inbox", "outbox", "rejected"} {
				b.vol.MkdirAll("spool/acme/"+d, 0o700)
			}
			put(b)
		}, false},
		{"the signature of what waited", func(b *bench) { b.put(in+"a.json", "{}") },
			func(b *bench) { b.put(in+"a.json.sig", "sig") }, false},
		{"a rename of what was unfinished", func(b *bench) { b.put(in+"a.json.part", "{}"); b.put(in+"a.json.sig.part", "sig") },
			func(b *bench) {
				b.vol.Rename(in+"a.json.part", in+"a.json")
				b.vol.Rename(in+"a.json.sig.part", in+"a.json.sig")
			}, false},
		{"written in place", func(b *bench) { b.put(in+"a.json", ""); b.put(in+"a.json.sig", "") }, put, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			if c.prepare != nil {
				c.prepare(b)
			}
			if !strings.Contains(c.name, "time of") && !strings.Contains(c.name, "a second") {
				b.now = b.now.Add(30 * time.Second)
			}
			for range 3 {
				if items := b.rescan("acme"); len(items) > 0 {
					t.Fatalf("%d items", len(items))
				}
			}
			c.change(b)
			var items []*spool.Item
			if c.hint {
				b.s.Hint("acme", "a.json")
				_, items = b.next()
			} else {
				items = b.rescan("acme")
			}
			if len(items) != 1 || string(items[0].Data) != "{}" {
				t.Fatalf("%d items", len(items))
			}
			_, err := b.s.Claim(items[0])
			b.ok(err)
			b.finish(items[0], false, "answer")
			b.holds("spool/acme/outbox/a.result.json", "answer")
		})
	}
}

// vol_mtime is when a directory changed last.
func (b *bench) vol_mtime(path string) time.Time {
	b.Helper()
	info, err := b.vol.Stat(strings.TrimSuffix(path, "/"))
	b.ok(err)
	return time.Unix(0, max(info.MTime, info.CTime))
}

// TestQuietAndPutBack: a request that is put back into a quiet inbox is looked at
// again, although the times are those of the last walk.
func TestQuietAndPutBack(t *testing.T) {
	b := newBench(t, "acme")
	b.vol.SetClock(func() int64 { return epoch.UnixNano() }) // a clock that stands
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "sig")
	b.now = b.now.Add(time.Hour)
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	if items := b.rescan("acme"); len(items) > 0 {
		t.Fatal("it is there twice")
	}
	b.ok(b.s.Unclaim(it))
	b.now = b.now.Add(time.Hour)
	if items := b.rescan("acme"); len(items) != 1 {
		t.Errorf("%d items", len(items))
	}
}

// TestReplacedOutbox: an answer goes to the partner's outbox of this moment, also if
// nothing but a hint led to its request.
func TestReplacedOutbox(t *testing.T) {
	b := newBench(t, "acme")
	b.now = b.now.Add(time.Hour)
	b.rescan("acme")
	b.vol.Rename("spool/acme/outbox", "spool/acme/old")
	b.vol.MkdirAll("spool/acme/outbox", 0o700)
	b.now = b.now.Add(time.Hour)
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "sig")
	b.s.Hint("acme", "a.json")
	items, err := b.s.Next(1)
	b.ok(err)
	_, err = b.s.Claim(items[0])
	b.ok(err)
	b.finish(items[0], false, "answer")
	b.holds("spool/acme/outbox/a.result.json", "answer")
}

// TestHandlesAreBounded: a thousand companies ask at once, and again one by one.
func TestHandlesAreBounded(t *testing.T) {
	companies := names(600)
	b := newBench(t, companies...)
	ask := func(c string) {
		b.put("spool/"+c+"/inbox/a.json", c)
		b.put("spool/"+c+"/inbox/a.json.sig", "sig")
	}
	for _, c := range companies {
		ask(c)
	}
	items := b.rescan(companies...)
	if len(items) != len(companies) {
		t.Fatalf("%d items", len(items))
	}
	for _, it := range items {
		_, err := b.s.Claim(it)
		b.ok(err)
	}
	for _, it := range items {
		b.finish(it, false, "answer to "+it.Company)
	}
	b.ok(b.vol.Sync())
	if n := len(b.vol.OpenHandles()); n > 256*6+10 {
		t.Errorf("%d handles are open", n)
	}
	for _, c := range companies {
		b.holds("spool/"+c+"/outbox/a.result.json", "answer to "+c)
		b.vol.Remove("spool/" + c + "/outbox/a.result.json")
		ask(c)
		b.s.Hint(c, "a.json")
		it := b.one()
		_, err := b.s.Claim(it)
		b.ok(err)
		b.finish(it, true, "refused")
		b.ok(b.vol.Sync())
		if n := len(b.vol.OpenHandles()); n > 256*6+10 {
			t.Fatalf("%d handles are open", n)
		}
	}
	b.ok(b.s.Close())
	if list := b.vol.OpenHandles(); len(list) > 1 { // the test's own of the top
		t.Errorf("handles are left open: %q", list[:min(len(list), 10)])
	}
}

// TestManyWalks: no more than some inboxes are in the middle of a walk, and all are
// walked through in the end.
func TestManyWalks(t *testing.T) {
	companies := names(70)
	b := newBench(t, companies...)
	for _, c := range companies {
		for i := range 130 { // 260 names are two portions
			b.put(fmt.Sprintf("spool/%s/inbox/%d.json", c, i), "{}")
			b.put(fmt.Sprintf("spool/%s/inbox/%d.json.sig", c, i), "sig")
		}
	}
	n := 0
	for {
		items, err := b.s.Next(64)
		b.ok(err)
		if len(items) == 0 {
			break
		}
		for _, it := range items {
			_, err := b.s.Claim(it)
			b.ok(err)
			b.finish(it, false, "answer")
			n++
		}
		b.ok(b.vol.Sync())
	}
	if n != 130*len(companies) {
		t.Errorf("%d answers", n)
	}
	if h := len(b.vol.OpenHandles()); h > len(companies)*7 {
		t.Errorf("%d handles are open", h)
	}
}

// TestDismissedCompany: the handles of a company that is no longer named close with
// its last item, which can be finished before.
func TestDismissedCompany(t *testing.T) {
	b := newBench(t, "acme", "beta")
	it := b.claimed("a.json")
	b.ok(b.s.SetCompanies([]string{"beta"}))
	b.finish(it, false, "answer")
	b.holds("spool/acme/outbox/a.result.json", "answer")
	b.next() // its walk ends here
	for _, h := range b.vol.OpenHandles() {
		if strings.Contains(h, "acme") {
			t.Errorf("%s is still open", h)
		}
	}
	// Named again, while an item is out.
	b.ok(b.s.SetCompanies([]string{"acme", "beta"}))
	b.vol.Remove("spool/acme/outbox/a.result.json")
	it = b.claimed("a.json")
	b.ok(b.s.SetCompanies([]string{"beta"}))
	b.ok(b.s.SetCompanies([]string{"acme", "beta"}))
	items, err := b.s.Recover()
	b.ok(err)
	if len(items) > 0 {
		t.Errorf("%d items are out twice", len(items))
	}
	b.finish(it, false, "answer")
	b.holds("spool/acme/outbox/a.result.json", "answer")
}

// TestRecoverLooksOnce: of a thousand companies only those are opened that have
// something in work/.
func TestRecoverLooksOnce(t *testing.T) {
	companies := names(1000)
	b := newBench(t, companies...)
	b.put("work/c00007/a.json", "{}")
	b.put("work/c00007/a.json.sig", "sig")
	b.put("work/nobody/a.json", "{}")
	got := b.calls(func() {
		items, err := b.s.Recover()
		b.ok(err)
		if len(items) != 1 || items[0].Company != "c00007" {
			t.Errorf("%d items", len(items))
		}
		b.finish(items[0], false, "answer")
	})
	total := 0
	for _, n := range got {
		total += n
	}
	if total > 60 {
		t.Errorf("it costs %v", got)
	}
	if got := b.calls(func() { b.s.Recover() }); len(got) > 0 {
		t.Errorf("a second time costs %v", got)
	}
}

// TestRecoverPassesOver: a company whose directories cannot be opened does not keep
// the others from being recovered, and is recovered when it is in order.
func TestRecoverPassesOver(t *testing.T) {
	b := newBench(t, "acme", "beta")
	for _, c := range []string{"acme", "beta"} {
		b.put("work/"+c+"/a.json", "{}")
		b.put("work/"+c+"/a.json.sig", "sig")
	}
	b.open("acme", "beta")
	b.vol.Rename("spool/acme/outbox", "spool/acme/away")
	items, err := b.s.Recover()
	b.ok(err)
	if len(items) != 1 || items[0].Company != "beta" || len(b.warned) != 1 {
		t.Fatalf("%d items, warned of %q", len(items), b.warned)
	}
	b.vol.Rename("spool/acme/away", "spool/acme/outbox")
	b.ok(b.s.SetCompanies([]string{"acme", "beta"}))
	if items, err = b.s.Recover(); err != nil || len(items) != 1 || items[0].Company != "acme" {
		t.Errorf("%d items, %v", len(items), err)
	}
}

// TestNotInOrder: a company that lacks a directory is told, and served once it has it.
func TestNotInOrder(t *testing.T) {
	for _, dir := range []string{"inbox", "outbox", "rejected"} {
		b := newBench(t, "acme", "beta")
		b.vol.Rename("spool/beta/"+dir, "spool/away")
		b.open("acme")
		err := b.s.SetCompanies([]string{"acme", "beta"})
		if err == nil || !strings.Contains(err.Error(), "beta") {
			t.Errorf("without its %s: %v", dir, err)
		}
		b.vol.Symlink("../away", "spool/beta/"+dir)
		if b.s.SetCompanies([]string{"acme", "beta"}) == nil {
			t.Errorf("a link in place of its %s is followed", dir)
		}
		b.vol.Remove("spool/beta/" + dir)
		b.vol.Rename("spool/away", "spool/beta/"+dir)
		b.put("spool/beta/inbox/a.json", "{}")
		b.put("spool/beta/inbox/a.json.sig", "sig")
		if items := b.rescan("acme", "beta"); len(items) != 1 {
			t.Errorf("%d items", len(items))
		}
	}
}

// disk makes companies on the real disk.
func disk(t testing.TB, companies []string) (*durable.Disk, string) {
	t.Helper()
	dir := t.TempDir()
	for _, c := range companies {
		for _, d := range []string{"inbox", "outbox", "rejected"} {
			if err := os.MkdirAll(filepath.Join(dir, "spool", c, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	vol, err := durable.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vol.Close() })
	return vol, dir
}

func openDisk(t testing.TB, vol durable.FS) *spool.Spool {
	t.Helper()
	root, err := vol.Root()
	if err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(vol, root, spool.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); root.Close() })
	return s
}

// TestCover: only new watches are asked for, dead ones are renewed, and the kernel's
// limit is told once.
func TestCover(t *testing.T) {
	companies := names(20)
	vol, dir := disk(t, companies)
	s := openDisk(t, vol)
	if err := s.SetCompanies(companies); err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{}, 1)
	w, err := spool.Watch(s, dir, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	added, limit := 0, 12
	w.OnAdd(func(string) error {
		if added >= limit {
			return unix.ENOSPC
		}
		added++
		return nil
	})
	tried := 0
	w.OnAdd2(&tried)
	for i, want := range []struct{ tried, added int }{{13, 12}, {14, 12}, {15, 12}} {
		err := w.Cover(companies)
		if (err != nil) != (i == 0) || i == 0 && !strings.Contains(err.Error(), "max_user_watches") {
			t.Errorf("call %d: %v", i, err)
		}
		if tried != want.tried || added != want.added {
			t.Errorf("call %d: %d tried, %d added", i, tried, added)
		}
	}
	limit = 100
	if err := w.Cover(companies); err != nil || added != 20 {
		t.Errorf("with room again: %d added, %v", added, err)
	}
	if err := w.Cover(companies); err != nil || added != 20 || tried != 23 {
		t.Errorf("once more: %d added, %d tried, %v", added, tried, err)
	}
	// Two inboxes are replaced, one with all around it, which no event tells.
	old := func(c string) string { return filepath.Join(dir, "spool", c) }
	for _, err := range []error{
		os.Rename(old("c00001")+"/inbox", old("c00001")+"/old"), os.Mkdir(old("c00001")+"/inbox", 0o700),
		os.Rename(old("c00002"), filepath.Join(dir, "away")),
		os.MkdirAll(old("c00002")+"/inbox", 0o700), os.Mkdir(old("c00002")+"/outbox", 0o700), os.Mkdir(old("c00002")+"/rejected", 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); added < 22; {
		if time.Now().After(end) {
			t.Fatalf("%d watches were added", added)
		}
		if err := s.SetCompanies(companies); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(10); err != nil {
			t.Fatal(err)
		}
		if err := w.Cover(companies); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []string{"c00001", "c00002", "c00019"} {
		for len(woken) > 0 {
			<-woken
		}
		if err := os.WriteFile(old(c)+"/inbox/a.json", []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case <-woken:
		case <-time.After(time.Minute):
			t.Errorf("nothing is told of %s", c)
		}
	}
	// Fewer companies: their watches go, and the others stay.
	if err := w.Cover(companies[:5]); err != nil || added != 22 {
		t.Errorf("%d added, %v", added, err)
	}
}

// BenchmarkRescan10000 is what ten thousand companies cost the appliance every few
// seconds. "idle" is when nobody asks for anything, "active" when ten of them have a
// file that waits. "start" is from nothing to the end of the first walk.
func BenchmarkRescan10000(b *testing.B) {
	companies := names(10_000)
	vol, dir := disk(b, companies)
	rescan := func(b *testing.B, s *spool.Spool) {
		if err := s.SetCompanies(companies); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Recover(); err != nil {
			b.Fatal(err)
		}
		if items, err := s.Next(64); err != nil || len(items) > 0 {
			b.Fatalf("%d items, %v", len(items), err)
		}
	}
	time.Sleep(1100 * time.Millisecond) // the directories are older than the clock's grain then
	b.Run("start", func(b *testing.B) {
		var set, walk time.Duration
		for range b.N {
			b.StopTimer()
			s := openDisk(b, vol)
			b.StartTimer()
			begin := time.Now()
			if err := s.SetCompanies(companies); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Recover(); err != nil {
				b.Fatal(err)
			}
			set += time.Since(begin)
			begin = time.Now()
			if _, err := s.Next(64); err != nil {
				b.Fatal(err)
			}
			walk += time.Since(begin)
			b.StopTimer()
			s.Close()
			b.StartTimer()
		}
		b.ReportMetric(float64(set.Microseconds())/1000/float64(b.N), "ms/open")
		b.ReportMetric(float64(walk.Microseconds())/1000/float64(b.N), "ms/walk")
	})
	s := openDisk(b, vol)
	rescan(b, s)
	b.Run("idle", func(b *testing.B) {
		for range b.N {
			rescan(b, s)
		}
		list, _ := os.ReadDir("/proc/self/fd")
		b.ReportMetric(float64(len(list)), "descriptors")
	})
	for i := range 10 {
		name := filepath.Join(dir, "spool", companies[i*997], "inbox", "waits.json")
		if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	rescan(b, s)
	b.Run("active", func(b *testing.B) {
		for range b.N {
			rescan(b, s)
		}
	})
	b.Run("hint", func(b *testing.B) {
		for range b.N {
			s.Hint(companies[997], "waits.json")
			if _, err := s.Next(64); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestEachRescanFindsAll drops requests without a hint, some of them in the middle of
// a pass, in companies of all sorts: the next rescan finds each.
func TestEachRescanFindsAll(t *testing.T) {
	companies := names(20)
	b := newBench(t, companies...)
	r := rand.New(rand.NewPCG(1, 2))
	for i, c := range companies {
		if i%3 == 0 {
			b.put("spool/"+c+"/inbox/waits.json", "{}")
		}
		if i%7 == 0 {
			for j := range 300 {
				b.put(fmt.Sprintf("spool/%s/inbox/w%d.json", c, j), "{}")
			}
		}
	}
	b.rescan(companies...)
	dropped := map[string]bool{}
	drop := func(n int) {
		c := companies[r.IntN(len(companies))]
		name := fmt.Sprintf("r%d.json", n)
		b.put("spool/"+c+"/inbox/"+name, "{}")
		b.put("spool/"+c+"/inbox/"+name+".sig", "sig")
		dropped[c+"/"+name] = true
	}
	finish := func(items []*spool.Item) {
		for _, it := range items {
			if it.Refusal != nil {
				b.s.Return(it, false)
				continue
			}
			if !dropped[it.Company+"/"+it.Name] {
				t.Fatalf("%s/%s comes twice", it.Company, it.Name)
			}
			delete(dropped, it.Company+"/"+it.Name)
			_, err := b.s.Claim(it)
			b.ok(err)
			if r.IntN(4) == 0 {
				b.ok(b.s.Unclaim(it))
				b.vol.Remove("spool/" + it.Company + "/inbox/" + it.Name)
				b.vol.Remove("spool/" + it.Company + "/inbox/" + it.Name + ".sig")
				continue
			}
			b.finish(it, false, "answer")
		}
	}
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for n := range rounds {
		b.now = b.now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		drop(n)
		if r.IntN(3) == 0 { // in the middle of a pass
			items, err := b.s.Next(1)
			b.ok(err)
			finish(items)
			drop(1000 + n)
		}
		b.ok(b.s.SetCompanies(companies))
		for {
			items, err := b.s.Next(1 + r.IntN(10))
			b.ok(err)
			if len(items) == 0 {
				break
			}
			finish(items)
		}
		if len(dropped) > 0 {
			t.Fatalf("rescan %d has not found %v", n, dropped)
		}
		b.ok(b.vol.Sync())
	}
}

// TestBrokenInbox: a company that has lost its inbox is told of, and the others are
// served.
func TestBrokenInbox(t *testing.T) {
	b := newBench(t, "acme", "beta")
	b.rescan("acme", "beta")
	b.vol.Rename("spool/acme/inbox", "spool/acme/away")
	b.put("spool/beta/inbox/a.json", "{}")
	b.put("spool/beta/inbox/a.json.sig", "sig")
	b.now = b.now.Add(time.Minute)
	if items := b.rescan("acme", "beta"); len(items) != 1 || len(b.warned) == 0 {
		t.Errorf("%d items, warned of %q", len(items), b.warned)
	}
	if waiting, _, err := b.s.Left(func(string, string) {}); err != nil || waiting != 2 {
		t.Errorf("%d files wait, %v", waiting, err)
	}
	b.vol.Rename("spool/acme/away", "spool/acme/inbox")
	b.put(in+"a.json", "{}")
	b.put(in+"a.json.sig", "sig")
	if items := b.rescan("acme", "beta"); len(items) != 1 {
		t.Errorf("%d items", len(items))
	}
}
