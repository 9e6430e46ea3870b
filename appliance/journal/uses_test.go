package journal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/journal"
	"signdrop/spool/durable/modelfs"
)

// use is a signature of a wallet.
func use(company, wallet string, i int) *journal.Event {
	ev := signed(company, i)
	ev.Wallet, ev.Request = wallet, digest("use", company, wallet, i)
	return ev
}

// useBatch is a batch of signatures, the n-th with the n-th wallet.
func useBatch(company string, i int, wallets ...string) []*journal.Event {
	d := digest("use batch", company, i)
	var es []*journal.Event
	for n, w := range wallets {
		ev := use(company, w, 1000*(i+1)+n)
		ev.Kind, ev.Line, ev.Request = "line", n+1, d
		es = append(es, ev)
	}
	return append(es, &journal.Event{Kind: "answered", Company: company, Request: d, Type: "batch"})
}

// numbers are the events' Uses.
func numbers(es []*journal.Event) (ns []uint64) {
	for _, ev := range es {
		ns = append(ns, ev.Uses)
	}
	return ns
}

func wantNumbers(t *testing.T, es []*journal.Event, want ...uint64) {
	t.Helper()
	if got := numbers(es); !slices.Equal(got, want) {
		t.Errorf("uses are %v, want %v", got, want)
	}
}

// TestUses: what counts, over groups, batches, companies, files, starts and a lost
// index.
func TestUses(t *testing.T) {
	for _, flushAt := range []int{1, 3, 1000} {
		t.Run(fmt.Sprint(flushAt), func(t *testing.T) {
			e := newEnv(t)
			e.o.FlushAt, e.o.MaxFile = flushAt, 4000
			j, _ := e.open()
			uses(t, j, "acme", "a", 0, time.Time{})

			one := []*journal.Event{use("acme", "a", 1), use("acme", "b", 1), use("other", "a", 1), use("acme", "a", 2)}
			if err := j.Write(one); err != nil {
				t.Fatal(err)
			}
			uses(t, j, "acme", "a", 0, time.Time{}) // not before it is synced
			j.Synced()
			wantNumbers(t, one, 1, 1, 1, 2)

			two := useBatch("acme", 1, "a", "b", "a", "c", "a")
			put(t, j, two...)
			wantNumbers(t, two, 3, 2, 4, 1, 5, 0)

			// Neither a refusal nor a wallet that is made is a signature. The number
			// is not the caller's.
			none := []*journal.Event{
				{Kind: "created", Company: "acme", Wallet: "a", Request: digest("made"), Uses: 7},
				{Kind: "refused", Company: "acme", Wallet: "a", Request: digest("no"), Final: true},
			}
			put(t, j, none...)
			wantNumbers(t, none, 0, 0)

			check := func() {
				t.Helper()
				uses(t, j, "acme", "a", 5, two[0].Time)
				uses(t, j, "acme", "b", 2, two[0].Time)
				uses(t, j, "acme", "c", 1, two[0].Time)
				uses(t, j, "other", "a", 1, one[0].Time)
				uses(t, j, "other", "b", 0, time.Time{})
				uses(t, j, "", "a", 0, time.Time{})
				uses(t, j, "acme", "", 0, time.Time{})
				uses(t, j, "acmea", "", 0, time.Time{})
			}
			check()
			closeJournal(t, j)
			j, _ = e.open()
			check()
			closeJournal(t, j)
			e.clearIndex()
			j, _ = e.open()
			check()

			three := []*journal.Event{use("other", "a", 2), use("acme", "a", 3), use("acme", "d", 1)}
			put(t, j, three...)
			wantNumbers(t, three, 2, 6, 1)
			uses(t, j, "acme", "a", 6, three[0].Time)
			closeJournal(t, j)
			verify(t, e)
		})
	}
}

// TestUsesAbandoned: the numbers of a group that does not count are given again,
// whether the wallet was known or new, and whatever of the group was written.
func TestUsesAbandoned(t *testing.T) {
	for k := range 4 { // calls of Write; 0: the sync after it fails
		for _, f := range []modelfs.Fault{modelfs.FailNotDone(errDisk), modelfs.FailDone(errDisk)} {
			e := newEnv(t)
			e.o.FlushAt = 2
			j, _ := e.open()
			first := use("acme", "a", 1)
			put(t, j, first)
			group := useBatch("acme", 1, "a", "new", "a")
			fired := e.fail(k, f)
			err := j.Write(group)
			e.model.SetFault(nil)
			if k > 0 && fired() && err == nil {
				t.Errorf("call %d: no error", k)
			}
			if err := j.Abandon(); err != nil {
				t.Fatal(err)
			}
			uses(t, j, "acme", "a", 1, first.Time)
			uses(t, j, "acme", "new", 0, time.Time{})
			put(t, j, group...) // once more, as the appliance does
			wantNumbers(t, group, 2, 1, 3, 0)
			uses(t, j, "acme", "a", 3, group[0].Time)
			closeJournal(t, j)
			e.clearIndex()
			j, _ = e.open()
			uses(t, j, "acme", "a", 3, group[0].Time)
			uses(t, j, "acme", "new", 1, group[0].Time)
			closeJournal(t, j)
			verify(t, e)
		}
	}
}

// TestUsesTorn: a group that a power cut took does not count.
func TestUsesTorn(t *testing.T) {
	e := newEnv(t)
	j, _ := e.open()
	first := use("acme", "a", 1)
	if err := j.Write([]*journal.Event{first}); err != nil {
		t.Fatal(err)
	}
	if err := e.vol.Sync(); err != nil {
		t.Fatal(err)
	}
	j.Synced()
	if err := j.Write(useBatch("acme", 1, "a", "a")); err != nil {
		t.Fatal(err)
	}
	e.model.Kill()
	for _, c := range e.model.Choices(20, 1) {
		after := on(t, e.model.Clone().Crash(c))
		j, r := after.open()
		want := uint64(1)
		if r.Seq == 5 {
			want = 3
		}
		if n, _, err := j.Uses("acme", "a"); err != nil || n != want {
			t.Errorf("%v: %d signatures up to line %d, %v", c, n, r.Seq, err)
		}
		ev := use("acme", "a", 2)
		put(t, j, ev)
		wantNumbers(t, []*journal.Event{ev}, want+1)
		closeJournal(t, j)
		verify(t, after)
	}
}

// TestUsesRebuilt: the index that the journal rebuilds has the same entries.
func TestUsesRebuilt(t *testing.T) {
	e := newEnv(t)
	j, _ := e.open()
	put(t, j, useBatch("acme", 1, "a", "b", "a", "a")...)
	put(t, j, use("acme", "a", 1), use("other", "a", 1), use("acme", "a", 2))
	put(t, j, use("acme", "c", 1))
	closeJournal(t, j)
	page := func() string {
		t.Helper()
		names := e.names(e.index)
		if len(names) != 1 {
			t.Fatalf("segments are %v", names)
		}
		return e.contents(e.index)[names[0]][4096:8192] // all records, sorted
	}
	before := page()
	e.clearIndex()
	j, _ = e.open()
	if err := j.Close(nil); err != nil {
		t.Fatal(err)
	}
	if page() != before {
		t.Error("the records differ")
	}
}

// TestUsesEntries: a group has one entry for each wallet, whatever it signs.
func TestUsesEntries(t *testing.T) {
	e := newEnv(t)
	j, _ := e.open()
	wallets := slices.Repeat([]string{"a", "a", "b"}, 300)
	if err := j.Write(useBatch("acme", 1, wallets...)); err != nil {
		t.Fatal(err)
	}
	if got, want := j.Pending(), len(wallets)+1+2; got != want { // nonces, the verdict, two wallets
		t.Errorf("%d entries, want %d", got, want)
	}
	j.Synced()
	closeJournal(t, j)
}

// TestUsesManyWallets: more wallets than are kept in memory, within a group and over
// many.
func TestUsesManyWallets(t *testing.T) {
	e := newEnv(t)
	e.o.FlushAt = 5000
	j, _ := e.open()
	var wallets []string
	for i := range journal.MaxCounts + 10 {
		wallets = append(wallets, fmt.Sprint("W_", i))
	}
	for i, ws := range [][]string{wallets[:100], wallets, wallets[:journal.MaxCounts], wallets[journal.MaxCounts-10:], slices.Concat(wallets[:50], wallets[:50])} {
		put(t, j, useBatch("acme", i, ws...)...)
		if n := j.Counts(); n > journal.MaxCounts {
			t.Errorf("the counts of %d wallets are kept", n)
		}
	}
	check := func() {
		t.Helper()
		for i, want := range map[int]uint64{0: 5, 49: 5, 50: 3, 99: 3, 100: 2, 5000: 2, journal.MaxCounts - 10: 3, journal.MaxCounts - 1: 3, journal.MaxCounts: 2} {
			if n, _, err := j.Uses("acme", wallets[i]); err != nil || n != want {
				t.Errorf("wallet %d: %d, %v; want %d", i, n, err, want)
			}
		}
	}
	check()
	closeJournal(t, j)
	j, _ = e.open()
	check()
	closeJournal(t, j)
	verify(t, e)
}

// chain writes lines anew, so that the chain is in order, as one who can write all of
// the journal could, with their head.
func (e *env) chain(lines []string) {
	e.t.Helper()
	var hash [32]byte
	var b bytes.Buffer
	for i, l := range lines {
		const tail = 64 + len(`"}`)
		l = l[:len(l)-tail] + hex.EncodeToString(hash[:]) + `"}`
		_, rest, ok := strings.Cut(l, ",")
		if !ok {
			e.t.Fatalf("no line: %q", l)
		}
		l = fmt.Sprintf(`{"seq":%d,%s`, i+1, rest)
		hash = sha256.Sum256([]byte(l))
		b.WriteString(l + "\n")
	}
	e.write(e.dir, "00000001.jsonl", b.String())
	e.write(e.dir, "00000001.head", string(journal.NewHead(1, int64(b.Len()), hash)))
}

// TestVerifyUses: a signature that was left out, put in or counted otherwise is found
// although the chain is in order.
func TestVerifyUses(t *testing.T) {
	e := newEnv(t)
	j, _ := e.open()
	put(t, j, use("acme", "a", 1), use("acme", "b", 1), use("other", "a", 1))
	put(t, j, useBatch("acme", 1, "a", "b")...)
	closeJournal(t, j)
	// start, a 1, b 1, other's a 1, a 2, b 2, answered, stop
	lines := strings.Split(strings.TrimSuffix(e.contents(e.dir)["00000001.jsonl"], "\n"), "\n")
	if len(lines) != 8 {
		t.Fatalf("%d lines", len(lines))
	}
	set := func(i int, uses string) []string {
		ls := slices.Clone(lines)
		before, after, ok := strings.Cut(ls[i], `,"uses":`)
		_, after, ok2 := strings.Cut(after, ",")
		if !ok || !ok2 {
			t.Fatalf("line %d has no number", i)
		}
		ls[i] = before + `,"uses":` + uses + "," + after
		return ls
	}
	for name, c := range map[string]struct {
		lines []string
		fault string // "": none
	}{
		"as it was":            {lines, ""},
		"newest left out":      {slices.Delete(slices.Clone(lines), 5, 6), ""}, // the last hash tells, or a number that was noted
		"first left out":       {slices.Delete(slices.Clone(lines), 1, 2), "line 4, "},
		"put in twice":         {slices.Insert(slices.Clone(lines), 1, lines[1]), "line 3, "},
		"a gap":                {set(4, "3"), "uses is 3 after 1 of this wallet"},
		"a number twice":       {set(4, "1"), "uses is 1 after 1 of this wallet"},
		"not from 1":           {set(2, "2"), "uses is 2 after 0 of this wallet"},
		"the largest":          {set(5, "18446744073709551615"), "uses is 18446744073709551615 after 1"},
		"0":                    {set(1, "0"), "line 2, "},
		"of another company's": {set(3, "2"), "line 4, "},
	} {
		e.restore(e.dir, nil)
		e.chain(c.lines)
		_, err := journal.Verify(e.dir, nil)
		eachErr := journal.Each(e.dir, func(journal.Place, *journal.Event) error { return nil })
		if fmt.Sprint(err) != fmt.Sprint(eachErr) {
			t.Errorf("%s: Verify says %v, Each %v", name, err, eachErr)
		}
		if c.fault == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if f := (*journal.Fault)(nil); !errors.As(err, &f) || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: error is %v, want %q in it", name, err, c.fault)
		}
	}
}

// TestUsesContradicts: a line that is not the wallet's, where the index leads, stops
// the journal, and nothing is numbered by it.
func TestUsesContradicts(t *testing.T) {
	for name, alter := range map[string]func(line string) string{
		"another company": func(l string) string { return strings.Replace(l, `"acme"`, `"acne"`, 1) },
		"another wallet":  func(l string) string { return strings.Replace(l, `"W_`, `"V_`, 1) },
		"no number":       func(l string) string { return strings.Replace(l, `"uses":1`, `"usez":1`, 1) },
		"no line":         func(l string) string { return strings.Repeat("\x00", len(l)) },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			j, _ := e.open()
			ev := signed("acme", 1)
			put(t, j, ev)
			closeJournal(t, j)
			j, _ = e.open()
			log := e.contents(e.dir)["00000001.jsonl"]
			lines := strings.SplitAfter(log, "\n")
			if lines[1] = alter(lines[1]); strings.Join(lines, "") == log {
				t.Fatal("nothing is altered")
			}
			e.write(e.dir, "00000001.jsonl", strings.Join(lines, ""))
			next := signed("acme", 2)
			if err := j.Write([]*journal.Event{next}); !errors.Is(err, journal.ErrIndex) {
				t.Errorf("writing: %v", err)
			}
			if n, _, err := j.Uses("acme", ev.Wallet); n != 0 || !errors.Is(err, journal.ErrIndex) {
				t.Errorf("%d signatures, %v", n, err)
			}
			j.Synced() // has no effect
			if next.Uses != 0 {
				t.Errorf("the signature is numbered %d", next.Uses)
			}
			if err := j.Abandon(); err != nil {
				t.Fatal(err)
			}
			if err := j.Write([]*journal.Event{next}); !errors.Is(err, journal.ErrIndex) {
				t.Errorf("writing goes on: %v", err)
			}
			j.Close(nil)
		})
	}
}

// TestStartHoldsNoSignature, which nobody would count.
func TestStartHoldsNoSignature(t *testing.T) {
	e := newEnv(t)
	e.o.Start.Signature = "s"
	if _, _, err := journal.Open(e.vol, e.dir, e.index, e.o); err == nil {
		t.Error("accepted")
	}
	if got := e.names(e.dir); len(got) != 0 {
		t.Errorf("files are %v", got)
	}
}
