package journal_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/journal"
	"signdrop/spool/durable/modelfs"
)

// story is what a process did with a journal, and what must be true afterwards.
type story struct {
	known   []*journal.Event   // Synced has confirmed them
	unknown []*journal.Event   // Abandon has voided them
	open    [][]*journal.Event // groups that were on their way: all of one or nothing
	n       int
}

// group makes the next group, with a batch now and then.
func (s *story) group() []*journal.Event {
	s.n++
	if s.n%3 == 0 {
		return batch("acme", s.n, 2)
	}
	return []*journal.Event{signed("acme", s.n)}
}

// live is a process: it opens the journal, records some groups, looks things up,
// and closes. Groups that fail are abandoned and followed by others.
func (s *story) live(e *env, groups int) error {
	j, _, err := journal.Open(e.vol, e.dir, e.index, e.o)
	if err != nil {
		return err
	}
	for range groups {
		if err := s.record(e, j); err != nil {
			return err
		}
		// A lookup that fails is no answer; one that succeeds is the right one.
		for _, ev := range []*journal.Event{s.known[0], s.known[len(s.known)-1]} {
			got, err := j.Request(ev.Company, ev.Request)
			if ev.Kind == "line" {
				got, err = j.Nonce(ev.Company, ev.Wallet, ev.Ledger, ev.Nonce)
			}
			if err == nil && (got == nil || !same(got, ev)) {
				e.t.Errorf("event %d: got %+v", ev.Seq, got)
			}
			if errors.Is(err, journal.ErrIndex) {
				return err
			}
		}
	}
	return j.Close(&journal.Event{})
}

func (s *story) record(e *env, j *journal.Journal) error {
	g := s.group()
	s.open = append(s.open, g)
	err := j.Write(g)
	if err == nil {
		err = e.vol.Sync()
	}
	if err == nil {
		j.Synced()
		s.known = append(s.known, g...)
	} else if err := j.Abandon(); err != nil {
		return err
	} else {
		s.unknown = append(s.unknown, g...)
	}
	s.open = s.open[:len(s.open)-1]
	return nil
}

// check opens what was left behind and holds it against the story.
func (s *story) check(e *env) error {
	e.clearReports()
	if _, err := journal.Verify(e.dir, nil); err != nil && !strings.Contains(err.Error(), "00000001.jsonl: the file is missing") {
		return err
	}
	j, _, err := journal.Open(e.vol, e.dir, e.index, e.o)
	if err != nil {
		return err
	}
	find := func(ev *journal.Event) (*journal.Event, error) {
		if ev.Kind == "line" {
			return j.Nonce(ev.Company, ev.Wallet, ev.Ledger, ev.Nonce)
		}
		return j.Request(ev.Company, ev.Request)
	}
	for _, ev := range s.known {
		if got, err := find(ev); err != nil || got == nil || got.Seq != ev.Seq || !same(got, ev) {
			return fmt.Errorf("event %d: %+v, %v", ev.Seq, got, err)
		}
	}
	for _, ev := range s.unknown {
		if got, err := find(ev); err != nil || got != nil {
			return fmt.Errorf("void event: %+v, %v", got, err)
		}
	}
	for _, g := range s.open {
		n := 0
		for _, ev := range g {
			got, err := find(ev)
			if err != nil || got != nil && !same(got, ev) {
				return fmt.Errorf("open event: %+v, %v", got, err)
			}
			if got != nil {
				n++
			}
		}
		if n != 0 && n != len(g) {
			return fmt.Errorf("%d events of a group of %d", n, len(g))
		}
	}
	if err := sameUses(e, j); err != nil {
		return err
	}
	more := s.group()
	if err := j.Write(more); err != nil {
		return err
	}
	if err := e.vol.Sync(); err != nil {
		return err
	}
	j.Synced()
	for _, ev := range more {
		if got, err := find(ev); err != nil || got == nil {
			return fmt.Errorf("new event: %v, %v", got, err)
		}
	}
	if err := sameUses(e, j); err != nil {
		return err
	}
	if err := j.Close(&journal.Event{}); err != nil {
		return err
	}
	heads := 0
	for _, n := range e.names(e.dir) {
		if strings.HasSuffix(n, ".new") {
			return fmt.Errorf("%s is left", n)
		}
		if strings.HasSuffix(n, ".head") {
			heads++
		}
	}
	if heads != 1 {
		return fmt.Errorf("there are %d heads", heads)
	}
	if slices.ContainsFunc(e.names(e.index), func(n string) bool { return strings.HasSuffix(n, ".new") }) {
		return errors.New("a half index file is left")
	}
	if left := e.model.OpenHandles(); len(left) > 2+1 { // the env's own, see on
		return fmt.Errorf("handles are left open: %v", left)
	}
	_, err = journal.Verify(e.dir, nil)
	return err
}

// sameUses holds what the index says of each wallet against all lines.
func sameUses(e *env, j *journal.Journal) error {
	type wallet struct{ company, id string }
	newest := map[wallet]*journal.Event{}
	if err := journal.Each(e.dir, func(_ journal.Place, ev *journal.Event) error {
		if ev.Signature != "" {
			newest[wallet{ev.Company, ev.Wallet}] = ev
		}
		return nil
	}); err != nil {
		return err
	}
	for w, ev := range newest {
		if n, at, err := j.Uses(w.company, w.id); err != nil || n != ev.Uses || !at.Equal(ev.Time) {
			return fmt.Errorf("wallet %s: %d signatures, the newest of %v, %v; its newest line is %+v", w.id, n, at, err, ev)
		}
	}
	return nil
}

func (e *env) clearReports() { e.reports = nil }

// beginning is a volume on which a first process has lived.
func beginning(t *testing.T) (*modelfs.Volume, *story) {
	t.Helper()
	e := newEnv(t)
	e.o.FlushAt, e.o.MaxFile = 3, 2500
	s := &story{}
	if err := s.live(e, 4); err != nil {
		t.Fatal(err)
	}
	e.model.Kill()
	return e.model, s
}

// clone copies the story, for another continuation.
func (s *story) clone() *story {
	return &story{slices.Clone(s.known), slices.Clone(s.unknown), slices.Clone(s.open), s.n}
}

// second lets a second process live on a copy of the volume, with a fault at its
// k-th call. It returns nil when there is no such call.
func second(t *testing.T, base *modelfs.Volume, s *story, k int, f modelfs.Fault) (*env, *story) {
	e := on(t, base.Clone())
	e.o.FlushAt, e.o.MaxFile = 3, 2500
	s = s.clone()
	fired := e.fail(k, f)
	err := s.live(e, 4)
	if !fired() {
		if err != nil {
			t.Fatalf("without a fault: %v", err)
		}
		return nil, nil
	}
	e.model.SetFault(nil)
	e.model.Kill()
	return e, s
}

// TestFaults lets each call of a process fail, both without its effect and with it,
// and each be the last, and holds what is left against what was promised: after the
// end of the process, and after a power cut that takes what was not synced.
func TestFaults(t *testing.T) {
	base, s := beginning(t)
	step := 1
	if testing.Short() {
		step = 5
	}
	for name, f := range map[string]modelfs.Fault{
		"not done": modelfs.FailNotDone(errDisk), "done": modelfs.FailDone(errDisk),
		"killed before": modelfs.CrashBefore, "killed within": modelfs.CrashWithin, "killed after": modelfs.CrashAfter,
	} {
		t.Run(name, func(t *testing.T) {
			cuts := 0
			for k := 1; ; k += step {
				e, after := second(t, base, s, k, f)
				if e == nil {
					t.Logf("%d calls, %d power cuts", k-step, cuts)
					if k < 80 {
						t.Error("that is too few")
					}
					return
				}
				left := e.model.Clone()
				for _, c := range left.Choices(2, uint64(k)) {
					cuts++
					d := on(t, left.Clone().Crash(c))
					d.o = e.o
					if err := after.clone().check(d); err != nil {
						t.Errorf("call %d, power cut %v: %v\n%s", k, c, err, d.model.Tree())
					}
				}
				d := on(t, left)
				d.o = e.o
				if err := after.check(d); err != nil {
					t.Errorf("call %d: %v", k, err)
				}
			}
		})
	}
}

// TestCrashInRecovery ends the process at each call of a start that finds one of the
// states which an earlier crash left, and cuts the power.
func TestCrashInRecovery(t *testing.T) {
	d := newDamaged(t)
	head := d.files["00000003.head"]
	for name, c := range map[string]struct {
		remove []string
		add    map[string]string
	}{
		"2": {nil, nil},
		"3": {[]string{"00000003.head"}, map[string]string{"00000003.head.new": head}},
		"4": {nil, map[string]string{"00000004.head.new": head, "00000004.jsonl.new": "x"}},
		"5": {nil, map[string]string{"00000004.head": head, "00000004.jsonl.new": "x"}},
		"6": {nil, map[string]string{"00000004.head": head, "00000004.jsonl.new": "x", "00000002.head": head, "00000001.head.new": ""}},
	} {
		d.restore(d.dir, d.with(c.remove, c.add))
		if err := d.vol.Sync(); err != nil {
			t.Fatal(err)
		}
		for k := 1; ; k++ {
			e := on(t, d.model.Clone())
			e.o = d.o
			fired := e.fail(k, modelfs.CrashBefore)
			s := &story{known: d.events, n: 1000}
			if err := s.live(e, 1); err == nil && !fired() {
				break
			}
			s.unknown, s.open = nil, nil
			s.known = d.events
			e.model.SetFault(nil)
			e.model.Kill()
			for _, c := range e.model.Choices(4, uint64(k)) {
				after := on(t, e.model.Clone().Crash(c))
				after.o = e.o
				if err := s.clone().check(after); err != nil {
					t.Errorf("state %s, call %d, power cut %v: %v\n%s", name, k, c, err, after.model.Tree())
				}
			}
		}
	}
}

// TestBeginIsDurable: when a file has been begun, no power cut takes it back.
func TestBeginIsDurable(t *testing.T) {
	e := newEnv(t)
	e.o.MaxFile = 2500
	var all []*journal.Event
	cut := func(what string, files int) {
		t.Helper()
		for seed := range uint64(100) {
			d := on(t, e.model.Clone().Crash(modelfs.KeepRandom(seed)))
			r, err := journal.Verify(d.dir, nil)
			if err != nil {
				t.Fatalf("%s, seed %d: %v\n%s", what, seed, err, d.model.Tree())
			}
			if r.Files != files || r.Kinds["signed"] < uint64(len(all)) {
				t.Fatalf("%s, seed %d: %+v", what, seed, r)
			}
		}
	}
	open := func() *journal.Journal {
		j, _ := e.open()
		return j
	}
	add := func(j *journal.Journal) {
		ev := signed("acme", len(all))
		if err := j.Write([]*journal.Event{ev}); err != nil {
			t.Fatal(err)
		}
		if err := e.vol.Sync(); err != nil {
			t.Fatal(err)
		}
		j.Synced()
		all = append(all, ev)
	}
	j := open()
	cut("first start", 1)
	add(j)
	e.model.Kill()
	e = on(t, e.model)
	e.o.MaxFile = 2500
	j = open()
	cut("second start", 2)
	add(j)
	if err := j.Write([]*journal.Event{signed("lost", 1)}); err != nil {
		t.Fatal(err)
	}
	if err := j.Abandon(); err != nil {
		t.Fatal(err)
	}
	cut("Abandon", 3)
	for range 3 {
		add(j)
	}
	if err := j.Write([]*journal.Event{signed("acme", 99)}); err != nil {
		t.Fatal(err)
	}
	cut("rotation", 4)
	j.Synced()
	closeJournal(t, j)
	all = append(all, signed("acme", 99))
	cut("Close", 4)
}
