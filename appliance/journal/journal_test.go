package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"signdrop/appliance/journal"
	"signdrop/spool/durable/modelfs"
)

func TestRemembers(t *testing.T) {
	e := newDisk(t)
	j, r := e.open()
	if !r.New || r.Files != 0 {
		t.Errorf("first start reports %+v", r)
	}
	a, b := signed("acme", 1), batch("acme", 0, 3)
	refused := &journal.Event{Kind: "refused", Company: "acme", Request: digest("no"), Code: "name-not-allowed"}
	final := &journal.Event{Kind: "refused", Company: "acme", Request: digest("never"), Code: "nonce-used", Final: true}
	noDigest := &journal.Event{Kind: "refused", Company: "acme", Code: "not-a-file", Final: true}
	group := append([]*journal.Event{a, refused, final, noDigest}, b...)

	if err := j.Write(group); err != nil {
		t.Fatal(err)
	}
	for _, ev := range group {
		unknown(t, j, ev) // not before it is synced
	}
	j.Synced()
	check := func() {
		t.Helper()
		known(t, j, a)
		known(t, j, final)
		unknown(t, j, refused)
		unknown(t, j, noDigest)
		for _, ev := range b {
			known(t, j, ev)
		}
		unknown(t, j, signed("other", 1))
		if ev, err := j.Nonce("acme", a.Wallet, "metacoin", "nonce-2"); ev != nil || err != nil {
			t.Errorf("an unknown nonce: %v, %v", ev, err)
		}
		if ev, err := j.Nonce("acme", a.Wallet, "metacoin", a.Nonce); err != nil || ev == nil || ev.Text != a.Text {
			t.Errorf("a known nonce: %v, %v", ev, err)
		}
		if ev, err := j.Nonce("other", a.Wallet, "metacoin", a.Nonce); ev != nil || err != nil {
			t.Errorf("another company's nonce: %v, %v", ev, err)
		}
	}
	check()
	closeJournal(t, j)
	j, r = e.open()
	if r.New || r.Files != 1 || r.Replayed != 0 || r.Void != nil || r.Seq != 10 {
		t.Errorf("second start reports %+v", r)
	}
	check()
	closeJournal(t, j)
	rep := verify(t, e)
	if rep.Files != 2 || rep.Lines != 12 || rep.Kinds["line"] != 3 || rep.Kinds["stop"] != 2 || len(rep.Void) != 0 || rep.Seq != 12 {
		t.Errorf("report is %+v", rep)
	}
}

func TestFirstRequestAndLatestNonceCount(t *testing.T) {
	for _, flushAt := range []int{1, 1000} {
		e := newEnv(t)
		e.o.FlushAt = flushAt
		j, _ := e.open()
		first, again, third := signed("acme", 1), signed("acme", 1), signed("acme", 1)
		again.Request, again.Text = digest("replacement"), digest("another text")
		third.Detail = "should not be there twice"
		third.Nonce = "elsewhere"
		for _, ev := range []*journal.Event{first, again, third} {
			put(t, j, ev)
		}
		check := func() {
			t.Helper()
			known(t, j, first)
			known(t, j, again)
			if ev, err := j.Nonce("acme", first.Wallet, "metacoin", first.Nonce); err != nil || ev.Text != again.Text {
				t.Errorf("the text for the nonce is that of event %v, %v", ev, err)
			}
		}
		check()
		closeJournal(t, j)
		e.clearIndex()
		j, _ = e.open()
		check()
		closeJournal(t, j)
	}
}

func TestLines(t *testing.T) {
	e := newEnv(t)
	j, _ := e.open()
	one, big := batch("acme", 0, 2), batch("acme", 1, 500)
	single := signed("acme", 1)
	put(t, j, slices.Concat(one, []*journal.Event{single}, big)...)
	check := func(unit []*journal.Event) {
		t.Helper()
		v := lookup(t, j, unit[len(unit)-1])
		var got []*journal.Event
		err := j.Lines(v, func(ev *journal.Event) error {
			got = append(got, ev)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, unit[:len(unit)-1], func(a, b *journal.Event) bool { return *a == *b }) {
			t.Errorf("got %d lines, want %d", len(got), len(unit)-1)
		}
	}
	check(one)
	check(big)
	check([]*journal.Event{single})
	closeJournal(t, j)
	j, _ = e.open()
	check(one)
	check(big)
	stop := errors.New("stop")
	if err := j.Lines(big[500], func(*journal.Event) error { return stop }); err != stop {
		t.Errorf("Lines does not stop: %v", err)
	}
	if err := j.Lines(signed("acme", 5), nil); err == nil {
		t.Error("Lines of an unknown verdict")
	}
	closeJournal(t, j)
}

func TestRotation(t *testing.T) {
	e := newEnv(t)
	e.o.MaxFile = 2000
	j, _ := e.open()
	var all []*journal.Event
	for i := range 20 {
		ev := signed("acme", i)
		put(t, j, ev)
		all = append(all, ev)
	}
	if got := e.names(e.dir); len(got) != 8 || got[6] != "00000007.head" || got[7] != "00000007.jsonl" {
		t.Errorf("files are %v", got)
	}
	for _, ev := range all {
		known(t, j, ev)
	}
	closeJournal(t, j)
	rep := verify(t, e)
	if rep.Lines != 1+20+6+1 || rep.Kinds["continue"] != 6 || len(rep.Void) != 0 {
		t.Errorf("report is %+v", rep)
	}
	n, last := 0, journal.Place{}
	err := journal.Each(e.dir, func(p journal.Place, ev *journal.Event) error {
		if ev.Kind == "signed" {
			if !same(ev, all[n]) {
				t.Errorf("%+v: event %d is another", p, n)
			}
			n++
		}
		if (ev.Kind == "continue") != (ev.Previous != nil) {
			t.Errorf("%+v: previous is %v", p, ev.Previous)
		}
		last = p
		return nil
	})
	if err != nil || n != 20 || last.File != "00000007.jsonl" {
		t.Errorf("Each: %v, %d events, the last at %+v", err, n, last)
	}
}

func TestReopenManyTimes(t *testing.T) {
	e := newEnv(t)
	e.o.FlushAt = 3
	var all []*journal.Event
	for i := range 60 {
		j, _ := e.open()
		for _, ev := range all {
			known(t, j, ev)
		}
		ev := signed("acme", i)
		put(t, j, ev)
		all = append(all, ev)
		if i%3 > 0 { // else the process is killed
			closeJournal(t, j)
		}
	}
	if rep := verify(t, e); rep.Files != 60 || rep.Kinds["signed"] != 60 || rep.Kinds["start"] != 60 || rep.Kinds["stop"] != 40 {
		t.Errorf("report is %+v", rep)
	}
	if heads := len(e.names(e.dir)) - 60; heads != 1 {
		t.Errorf("there are %d heads", heads)
	}
}

func TestTimeDoesNotGoBack(t *testing.T) {
	e := newEnv(t)
	now := time.Date(2030, 1, 1, 0, 0, 0, 999, time.UTC)
	e.o.Now = func() time.Time { return now }
	j, _ := e.open()
	ev := signed("acme", 1)
	put(t, j, ev)
	now = now.Add(-time.Hour)
	if got := j.Now(); !got.Equal(ev.Time) {
		t.Errorf("the clock went back to %v", got)
	}
	put(t, j, signed("acme", 2))
	closeJournal(t, j)
	j, _ = e.open()
	if got := j.Now(); got.Before(ev.Time) {
		t.Errorf("the clock went back to %v", got)
	}
	now = now.Add(2 * time.Hour)
	if got := j.Now(); !got.Equal(now.Truncate(time.Microsecond)) {
		t.Errorf("the clock stands still at %v", got)
	}
	closeJournal(t, j)
	verify(t, e)

	now = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, _, err := journal.Open(e.vol, e.dir, e.index, e.o); err == nil || !strings.Contains(err.Error(), "12026") {
		t.Errorf("a year of five digits: %v", err)
	}
}

func TestMisuse(t *testing.T) {
	line := batch("acme", 0, 1)[0]
	bad := &journal.Event{Kind: "Bad"}
	for name, use := range map[string]func(*journal.Journal) error{
		"two groups without a sync": func(j *journal.Journal) error {
			j.Write([]*journal.Event{signed("acme", 1)})
			return j.Write([]*journal.Event{signed("acme", 2)})
		},
		"a line without a verdict": func(j *journal.Journal) error { return j.Write([]*journal.Event{line}) },
		"an event that is none":    func(j *journal.Journal) error { return j.Write([]*journal.Event{signed("acme", 1), bad}) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			j, _ := e.open()
			if err := use(j); err == nil {
				t.Fatal("accepted")
			}
			j.Synced() // has no effect
			if err := j.Write([]*journal.Event{signed("acme", 3)}); err == nil {
				t.Fatal("a write after a failed one is accepted")
			}
			if err := j.Abandon(); err != nil {
				t.Fatal(err)
			}
			unknown(t, j, signed("acme", 1))
			ev := signed("acme", 4)
			put(t, j, ev)
			known(t, j, ev)
			closeJournal(t, j)
			rep := verify(t, e)
			if rep.Kinds["signed"] != 1 || rep.Files != 2 {
				t.Errorf("report is %+v", rep)
			}
			if err := j.Write([]*journal.Event{ev}); err == nil {
				t.Error("a closed journal is written")
			}
		})
	}
	e := newEnv(t)
	j, _ := e.open()
	j.Synced() // nothing was written: no effect
	put(t, j)  // no events: no effect
	if err := j.Write([]*journal.Event{signed("acme", 1)}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(&journal.Event{}); err == nil {
		t.Error("a journal with an unsynced group is closed in order")
	}
}

func TestEmptyNeedsPermission(t *testing.T) {
	e := newEnv(t)
	e.o.AllowNew = false
	if _, _, err := journal.Open(e.vol, e.dir, e.index, e.o); err == nil || !strings.Contains(err.Error(), "run signdrop init") {
		t.Errorf("an empty directory: %v", err)
	}
	if got := e.names(e.dir); len(got) != 0 {
		t.Errorf("it was given %v", got)
	}
	if _, err := journal.Verify(e.dir, nil); err == nil {
		t.Error("an empty directory verifies")
	}
}

// TestAbandon: the group that could not be synced does not count, whatever of it is
// on the disk, and the events after it do.
func TestAbandon(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, e *env, j *journal.Journal, group []*journal.Event){
		"sync failed": func(t *testing.T, e *env, j *journal.Journal, group []*journal.Event) {
			if err := j.Write(group); err != nil {
				t.Fatal(err)
			}
		},
		"nothing written": func(t *testing.T, e *env, j *journal.Journal, group []*journal.Event) {},
		"head failed": func(t *testing.T, e *env, j *journal.Journal, group []*journal.Event) {
			e.fail(2, modelfs.FailNotDone(errDisk))
			if err := j.Write(group); !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
		},
		"write failed": func(t *testing.T, e *env, j *journal.Journal, group []*journal.Event) {
			e.fail(1, modelfs.FailNotDone(errDisk))
			if err := j.Write(group); !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
		},
		"write reported to have failed": func(t *testing.T, e *env, j *journal.Journal, group []*journal.Event) {
			e.fail(1, modelfs.FailDone(errDisk))
			if err := j.Write(group); !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			j, _ := e.open()
			before, lost, after := signed("acme", 1), batch("acme", 1, 2), signed("acme", 2)
			put(t, j, before)
			fail(t, e, j, lost)
			e.model.SetFault(nil)
			if err := j.Abandon(); err != nil {
				t.Fatal(err)
			}
			put(t, j, after)
			check := func() {
				t.Helper()
				known(t, j, before)
				known(t, j, after)
				for _, ev := range lost {
					unknown(t, j, ev)
				}
			}
			check()
			closeJournal(t, j)
			e.clearIndex()
			j, _ = e.open()
			check()
			put(t, j, lost...) // the same once more is nothing special
			for _, ev := range lost {
				known(t, j, ev)
			}
			closeJournal(t, j)
			rep := verify(t, e)
			void := int64(0)
			for _, v := range rep.Void {
				void += v.Bytes
			}
			if wrote := name != "nothing written" && name != "write failed"; (void > 0) != wrote {
				t.Errorf("%d bytes are void", void)
			}
		})
	}
}

func TestBigGroup(t *testing.T) {
	e := newEnv(t)
	e.o.FlushAt = 500
	j, _ := e.open()
	group := batch("acme", 0, 20_000)
	put(t, j, group...)
	for i := 0; i < len(group); i += 97 {
		known(t, j, group[i])
	}
	closeJournal(t, j)
	if rep := verify(t, e); rep.Kinds["line"] != 20_000 {
		t.Errorf("report is %+v", rep)
	}
}

// TestOracle holds a journal with a small index against a map.
func TestOracle(t *testing.T) {
	total, group := 100_000, 100 // two entries each
	if testing.Short() {
		total = 10_000
	}
	e := newDisk(t)
	e.o.FlushAt, e.o.MaxFile, e.o.Serial, e.o.Report = 4000, 16<<20, false, func(err error) { t.Error(err) }
	last := map[string]uint64{} // nonce: seq
	j, _ := e.open()
	for i := 0; i < total; i += group {
		var es []*journal.Event
		for k := i; k < i+group; k++ {
			ev := signed("acme", k)
			ev.Nonce = fmt.Sprint((k * 7919) % (total / 2)) // each comes twice
			es = append(es, ev)
		}
		put(t, j, es...)
		for _, ev := range es {
			last[ev.Nonce] = ev.Seq
		}
		if i%(total/10) == 0 && i > 0 {
			closeJournal(t, j)
			j, _ = e.open()
		}
	}
	check := func() {
		t.Helper()
		for i := 0; i < total; i += 23 {
			want := signed("acme", i)
			if ev, err := j.Request("acme", want.Request); err != nil || ev == nil || ev.Result != want.Result {
				t.Fatalf("request %d: %v, %v", i, ev, err)
			}
			n := fmt.Sprint(i % (total / 2))
			if ev, err := j.Nonce("acme", want.Wallet, "metacoin", n); err != nil || ev == nil || ev.Seq != last[n] {
				t.Fatalf("nonce %s: %v, %v; want event %d", n, ev, err, last[n])
			}
			unknown(t, j, signed("acme", total+i))
		}
	}
	check()
	closeJournal(t, j)
	if n := len(e.names(e.index)); n > 30 {
		t.Errorf("there are %d segments", n)
	}
	e.clearIndex()
	j, r := e.open()
	if r.Replayed < uint64(total) {
		t.Errorf("only %d lines were replayed", r.Replayed)
	}
	check()
	closeJournal(t, j)
}

// TestConcurrentLookups: what is synced is found at once and for good while segments
// are written and merged. Run with -race.
func TestConcurrentLookups(t *testing.T) {
	e := newDisk(t)
	e.o.FlushAt, e.o.MaxFile, e.o.Serial, e.o.Report = 50, 1<<20, false, func(err error) { t.Error(err) }
	j, _ := e.open()
	const total = 3000
	var done sync.WaitGroup
	var mu sync.Mutex
	synced := 0
	for g := range 4 {
		done.Go(func() {
			most := uint64(0)
			for i := g; ; i = (i*31 + 7) % total {
				mu.Lock()
				n := synced
				mu.Unlock()
				if n == total {
					return
				}
				ev := signed("acme", i)
				got, err := j.Request("acme", ev.Request)
				if err != nil || i < n && (got == nil || !same(got, ev)) {
					t.Errorf("event %d of %d: %v, %v", i, n, got, err)
					return
				}
				if n, err := j.Nonce("acme", ev.Wallet, "metacoin", ev.Nonce); err != nil || got != nil && n == nil {
					t.Errorf("nonce of event %d: %v, %v", i, n, err)
					return
				}
				if used, _, err := j.Uses("acme", ev.Wallet); err != nil || used < uint64(n) || used < most {
					t.Errorf("%d signatures are counted, %v, after %d; %d are synced", used, err, most, n)
					return
				} else {
					most = used
				}
				j.Now()
			}
		})
	}
	for i := 0; i < total; i += 10 {
		var es []*journal.Event
		for k := i; k < i+10; k++ {
			es = append(es, signed("acme", k))
		}
		if i%500 == 250 { // a sync that fails
			if err := j.Write(batch("lost", i, 3)); err != nil {
				t.Error(err)
			}
			if err := j.Abandon(); err != nil {
				t.Error(err)
			}
		}
		put(t, j, es...)
		mu.Lock()
		synced = i + 10
		mu.Unlock()
	}
	done.Wait()
	closeJournal(t, j)
	verify(t, e)
}

// TestModes: what is written can be read by its owner alone.
func TestModes(t *testing.T) {
	e := newDisk(t)
	j, _ := e.open()
	defer j.Close(nil)
	for _, n := range e.names(e.dir) {
		info, err := e.dir.Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode.Perm() != 0o400 {
			t.Errorf("%s has mode %v", n, info.Mode)
		}
	}
}
