package journal_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/journal"
)

// indexed is a journal with several index segments.
func indexed(t *testing.T, company string) (*env, []*journal.Event) {
	t.Helper()
	e := newEnv(t)
	e.o.FlushAt = 10
	var all []*journal.Event
	for range 3 {
		j, _ := e.open()
		for range 30 {
			ev := signed(company, len(all))
			put(t, j, ev)
			all = append(all, ev)
		}
		closeJournal(t, j)
	}
	if n := len(e.names(e.index)); n < 3 {
		t.Fatalf("only %d segments", n)
	}
	return e, all
}

// TestIndex: whatever becomes of the index, the answers are the same.
func TestIndex(t *testing.T) {
	e, all := indexed(t, "acme")
	other, _ := indexed(t, "other")
	good, foreign := e.contents(e.index), other.contents(other.index)
	names := slices.Sorted(maps.Keys(good))
	log := e.contents(e.dir)

	without := func(names ...string) map[string]string {
		m := maps.Clone(good)
		for _, n := range names {
			delete(m, n)
		}
		return m
	}
	with := func(name, content string) map[string]string {
		m := maps.Clone(good)
		m[name] = content
		return m
	}
	flip := func(name string, at int) map[string]string {
		c := good[name]
		return with(name, c[:at]+string(c[at]^1)+c[at+1:])
	}
	for name, c := range map[string]struct {
		index   map[string]string
		rebuilt bool
	}{
		"as it was":        {good, false},
		"deleted":          {nil, true},
		"foreign":          {foreign, true},
		"first missing":    {without(names[0]), true},
		"last missing":     {without(names[len(names)-1]), true},
		"one missing":      {without(names[1]), true},
		"damaged header":   {flip(names[0], 100), true},
		"damaged footer":   {flip(names[1], len(good[names[1]])-1), true},
		"cut":              {with(names[0], good[names[0]][:5000]), true},
		"empty":            {with(names[1], ""), true},
		"renamed":          {with("0000000000000000-ffffffffffffffff.segment", good[names[0]]), false},
		"half file":        {with("3.new", "half"), false},
		"of both journals": {with(slices.Sorted(maps.Keys(foreign))[2], foreign[slices.Sorted(maps.Keys(foreign))[2]]), false},
	} {
		t.Run(name, func(t *testing.T) {
			e.t = t
			e.restore(e.dir, log)
			e.restore(e.index, c.index)
			e.reports = nil
			for range 2 {
				j, r := e.open()
				if (r.Replayed > 0) != c.rebuilt {
					t.Errorf("%d lines were replayed; %v", r.Replayed, e.reports)
				}
				for _, ev := range all {
					known(t, j, ev)
				}
				unknown(t, j, signed("other", 1))
				closeJournal(t, j)
				c.rebuilt = false // the second time it is in order
			}
		})
	}
}

// TestIndexAheadOfJournal: an index that knows lines which a restored copy of the
// journal does not have.
func TestIndexAheadOfJournal(t *testing.T) {
	e, all := indexed(t, "acme")
	log := e.contents(e.dir)
	j, _ := e.open()
	lost := signed("acme", len(all))
	put(t, j, lost)
	closeJournal(t, j)

	e.restore(e.dir, log)
	j, r := e.open()
	if r.Replayed == 0 {
		t.Error("nothing is replayed")
	}
	for _, ev := range all {
		known(t, j, ev)
	}
	unknown(t, j, lost)
	closeJournal(t, j)
}

// TestIndexContradicts: an index that leads to a line that is not the one looked for
// gives an error, and is rebuilt by the next start.
func TestIndexContradicts(t *testing.T) {
	for name, alter := range map[string]func(line string) string{
		"another request":  func(l string) string { return strings.Replace(l, `"request":"`, `"request":"0`, 1) },
		"another company":  func(l string) string { return strings.Replace(l, `"acme"`, `"acne"`, 1) },
		"another nonce":    func(l string) string { return strings.Replace(l, `"nonce-`, `"nonze-`, 1) },
		"not remembered":   func(l string) string { return strings.Replace(l, `"signed"`, `"refuse"`, 1) },
		"another position": func(l string) string { return "\n" + l[:len(l)-1] },
		"no line":          func(l string) string { return strings.Repeat("\x00", len(l)) },
	} {
		t.Run(name, func(t *testing.T) {
			e, all := indexed(t, "acme")
			j, _ := e.open()
			log := e.contents(e.dir)
			lines := strings.SplitAfter(log["00000001.jsonl"], "\n")
			ev := all[4] // line 6
			if got := alter(lines[5]); got == lines[5] {
				t.Fatal("nothing is altered")
			}
			lines[5] = alter(lines[5])
			e.write(e.dir, "00000001.jsonl", strings.Join(lines, ""))

			_, err1 := j.Request(ev.Company, ev.Request)
			_, err2 := j.Nonce(ev.Company, ev.Wallet, ev.Ledger, ev.Nonce)
			err := errors.Join(err1, err2)
			if !errors.Is(err, journal.ErrIndex) || !strings.Contains(err.Error(), "00000001.jsonl, byte") {
				t.Errorf("errors are %v", err)
			}
			if left := e.names(e.index); len(left) != 0 {
				t.Errorf("the index still has %v", left)
			}
			if err := j.Write([]*journal.Event{signed("acme", 1000)}); !errors.Is(err, journal.ErrIndex) {
				t.Errorf("writing goes on: %v", err)
			}
			j.Close(nil)
			// The journal was in order, after all: the index is rebuilt.
			e.restore(e.dir, log)
			j, _ = e.open()
			for _, ev := range all {
				known(t, j, ev)
			}
			closeJournal(t, j)
		})
	}
}
