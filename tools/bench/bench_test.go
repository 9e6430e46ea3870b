package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// tiny is enough to see that every row is measured.
var tiny = sizes{rounds: 2, batches: 2, bare: 5, files: 40, lines: 300, drops: 6,
	few: 20, many: 3500, wallets: 30, companies: 20, past: 3000, shell: 3}

// TestSuite measures everything in the small, in this process. How fast it was is not
// looked at.
func TestSuite(t *testing.T) {
	b := &bench{ctx: context.Background(), dir: t.TempDir(), sizes: tiny, inside: true, log: testLog{t}}
	if err := b.suite(""); err != nil {
		t.Fatal(err)
	}
	// Three curves with three rechecks, or one of them; three sizes of PSBTs; each other
	// name is one row.
	if got, want := len(b.rows), 3*9+3+3+len(suite)-5; got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	for _, r := range b.rows {
		if r.Rate == 0 && r.P50 == 0 && r.Note == "" {
			t.Errorf("%s: nothing was measured", r.Name)
		}
	}
	left, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if e.Name() != "lock" {
			t.Errorf("%s is left", e.Name())
		}
	}
	report := Report{Machine: thisMachine(b.dir), Rows: b.rows}
	var table bytes.Buffer
	if err := report.print(&table); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.rows {
		if !strings.Contains(table.String(), "| "+r.Name+" ") {
			t.Errorf("the table has no row %s", r.Name)
		}
	}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		vs   []float64
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{4, 1, 3, 2}, 0.75, 3},
		{[]float64{4, 1, 3, 2}, 0.99, 4},
	} {
		if got := quantile(c.vs, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.vs, c.q, got, c.want)
		}
	}
}

// TestInterleave: a round is compared with what was measured on both sides of it.
func TestInterleave(t *testing.T) {
	b := &bench{ctx: context.Background()}
	n := 0.0
	next := func() (float64, error) { n++; return n, nil }
	// before 1, sample 2, after 3, sample 4, after 5
	m, err := b.interleave(2, next, next)
	if err != nil {
		t.Fatal(err)
	}
	if m.rate != 3 || m.ratios[0] != (Ratio{1, 1, 1}) || m.bare[0] != 3 {
		t.Errorf("got %+v", m)
	}
}

// TestUsage: what cannot be measured is said so.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-only", "nothing", "-dir", t.TempDir()}, "no row's name begins with"},
		{[]string{"files"}, "is not expected here"},
	} {
		err := run(context.Background(), c.args, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("run(%v) = %v, want %q", c.args, err, c.want)
		}
	}
}

// TestLock: two runs would disturb each other.
func TestLock(t *testing.T) {
	b := &bench{dir: t.TempDir()}
	unlock, err := b.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.lock(); err == nil {
		t.Error("a second run was let in")
	}
	unlock()
	if unlock, err = b.lock(); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
}
