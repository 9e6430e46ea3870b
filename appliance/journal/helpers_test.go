package journal_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"signdrop/appliance/journal"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// env is a data volume with a journal and an index.
type env struct {
	t          testing.TB
	vol        durable.FS
	model      *modelfs.Volume // nil on a real disk
	dir, index durable.Dir
	o          journal.Options
	reports    []string // of the index; only with Serial
}

// newEnv makes one in memory, newDisk on the disk.
func newEnv(t testing.TB) *env {
	t.Helper()
	v := modelfs.New()
	v.MkdirAll("journal", 0o700)
	v.MkdirAll("index", 0o700)
	return on(t, v)
}

func newDisk(t testing.TB) *env {
	t.Helper()
	path := t.TempDir()
	for _, d := range []string{"journal", "index"} {
		if err := os.Mkdir(filepath.Join(path, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	disk, err := durable.OpenDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	return on(t, disk)
}

// on makes one of a volume that has the directories.
func on(t testing.TB, v durable.FS) *env {
	t.Helper()
	e := &env{t: t, vol: v, o: journal.Options{AllowNew: true, Now: clock(), Serial: true}}
	e.o.Report = func(err error) { e.reports = append(e.reports, err.Error()) }
	e.model, _ = v.(*modelfs.Volume)
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	if e.dir, err = root.Sub("journal"); err != nil {
		t.Fatal(err)
	}
	if e.index, err = root.Sub("index"); err != nil {
		t.Fatal(err)
	}
	if e.model == nil {
		t.Cleanup(func() { e.dir.Close(); e.index.Close(); root.Close() })
	}
	return e
}

func (e *env) open() (*journal.Journal, *journal.Recovery) {
	e.t.Helper()
	j, r, err := journal.Open(e.vol, e.dir, e.index, e.o)
	if err != nil {
		e.t.Fatalf("opening: %v", err)
	}
	return j, r
}

// fail lets the k-th call from now on fail; 0 lets none fail. It returns a function
// that says whether that call was made.
func (e *env) fail(k int, f modelfs.Fault) (fired func() bool) {
	n := 0
	e.model.SetFault(func(modelfs.Call) modelfs.Fault {
		if n++; n == k {
			return f
		}
		return modelfs.None
	})
	return func() bool { return n >= k }
}

// errDisk is what an injected failure returns.
var errDisk = errors.New("injected failure")

// clock gives a clock that advances a millisecond with each look.
func clock() func() time.Time {
	start := time.Date(2026, 11, 22, 15, 54, 0, 123456000, time.UTC)
	var looks atomic.Int64
	return func() time.Time { return start.Add(time.Duration(looks.Add(1)) * time.Millisecond) }
}

func digest(parts ...any) [32]byte { return sha256.Sum256(fmt.Append(nil, parts...)) }

// signed makes a verdict with all that a transfer has.
func signed(company string, i int) *journal.Event {
	d, sig := digest("request", company, i), digest("signature", company, i)
	return &journal.Event{
		Kind: "signed", Company: company, Name: fmt.Sprintf("pay-%06d.json", i), Request: d,
		By: "batch@" + company, Key: "SHA256:lGmBdUvyMzHzdo6bBvLfhCkF0jGXLfRdmDTdk0pUmFE", Type: "sign",
		Wallet: "W_1f0e5a6d7c8b9a0f1e2d3c4b5a6978", Ledger: "metacoin", Operation: "transfer", Nonce: fmt.Sprintf("nonce-%d", i),
		Text: digest("text", company, i), Algorithm: "ecdsa-p384-sha384",
		Signature: base64.StdEncoding.EncodeToString(append(sig[:], append(sig[:], sig[:]...)...)),
		Result:    digest("result", company, i), Detail: "MTabcdefghijklmnopqrstuvwxyz0123456789abcdef",
	}
}

// batch makes a batch's events: lines and their verdict.
func batch(company string, i, lines int) []*journal.Event {
	d := digest("batch", company, i)
	var es []*journal.Event
	for l := 1; l <= lines; l++ {
		e := signed(company, 1_000_000*(i+1)+l)
		e.Kind, e.Name, e.Line, e.Request, e.Result = "line", "", l, d, [32]byte{}
		es = append(es, e)
	}
	return append(es, &journal.Event{Kind: "answered", Company: company, Name: "run.jsonl", Request: d, Type: "batch", Result: digest("r", i)})
}

// put writes a group and syncs it.
func put(t testing.TB, j *journal.Journal, es ...*journal.Event) {
	t.Helper()
	if err := j.Write(es); err != nil {
		t.Fatalf("writing: %v", err)
	}
	j.Synced()
}

func closeJournal(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Close(&journal.Event{}); err != nil {
		t.Fatalf("closing: %v", err)
	}
}

// known checks that the journal finds the event, and finds it as it was written.
func known(t testing.TB, j *journal.Journal, want *journal.Event) {
	t.Helper()
	if got := lookup(t, j, want); got == nil || got.Seq != want.Seq || !same(got, want) {
		t.Errorf("event %d is not found as it was written:\n got %+v\nwant %+v", want.Seq, got, want)
	}
}

func unknown(t testing.TB, j *journal.Journal, e *journal.Event) {
	t.Helper()
	if got := lookup(t, j, e); got != nil {
		t.Errorf("event %d should not be found", got.Seq)
	}
}

func lookup(t testing.TB, j *journal.Journal, e *journal.Event) *journal.Event {
	t.Helper()
	var got *journal.Event
	var err error
	if e.Kind == "line" {
		got, err = j.Nonce(e.Company, e.Wallet, e.Ledger, e.Nonce)
	} else {
		got, err = j.Request(e.Company, e.Request)
	}
	if err != nil {
		t.Fatalf("looking up: %v", err)
	}
	return got
}

// same compares what the caller has set.
func same(a, b *journal.Event) bool {
	x, y := *a, *b
	for _, e := range []*journal.Event{&x, &y} {
		e.Seq, e.Time, e.Uses, e.Prev = 0, time.Time{}, 0, [32]byte{}
	}
	return x == y
}

// uses checks how many signatures of a wallet the journal counts, and the time of the
// newest.
func uses(t testing.TB, j *journal.Journal, company, wallet string, want uint64, newest time.Time) {
	t.Helper()
	if n, at, err := j.Uses(company, wallet); err != nil || n != want || !at.Equal(newest) {
		t.Errorf("wallet %s of %s has %d signatures, the newest of %v, %v; want %d, %v", wallet, company, n, at, err, want, newest)
	}
}

func verify(t testing.TB, e *env) *journal.Report {
	t.Helper()
	r, err := journal.Verify(e.dir, nil)
	if err != nil {
		t.Fatalf("verifying: %v", err)
	}
	return r
}

// names lists one of the directories.
func (e *env) names(dir durable.Dir) []string {
	e.t.Helper()
	var names []string
	err := durable.Walk(dir, func(n durable.Entry) error {
		names = append(names, n.Name)
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// contents reads a directory, and restore puts it back.
func (e *env) contents(dir durable.Dir) map[string]string {
	e.t.Helper()
	m := map[string]string{}
	for _, n := range e.names(dir) {
		b, err := durable.ReadFile(dir, n, 1<<30)
		if err != nil {
			e.t.Fatal(err)
		}
		m[n] = string(b)
	}
	return m
}

func (e *env) restore(dir durable.Dir, want map[string]string) {
	e.t.Helper()
	for _, n := range e.names(dir) {
		e.remove(dir, n)
	}
	for n, c := range want {
		e.write(dir, n, c)
	}
}

func (e *env) write(dir durable.Dir, name, content string) {
	e.t.Helper()
	dir.Remove(name)
	if err := durable.WriteNew(dir, name, 0o600, []byte(content)); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) remove(dir durable.Dir, name string) {
	e.t.Helper()
	if err := dir.Remove(name); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) clearIndex() { e.restore(e.index, nil) }
