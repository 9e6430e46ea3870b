package journal_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/journal"
)

// groupSize is the appliance's group commit.
const groupSize = 64

// events makes n events once and sets their requests and nonces anew for each group,
// so that a benchmark does not measure their making.
type events struct {
	list []*journal.Event
	n    int
}

func newEvents(n int) *events {
	g := &events{}
	for i := range n {
		g.list = append(g.list, signed("acme", i))
	}
	return g
}

func (g *events) next() []*journal.Event {
	for _, ev := range g.list {
		ev.Request, ev.Nonce = number(g.n), fmt.Sprintf("nonce-%d", g.n)
		g.n++
	}
	return g.list
}

// number is a digest that is cheap to make.
func number(i int) (d [32]byte) {
	copy(d[:], fmt.Sprintf("%032d", i))
	return d
}

// BenchmarkWrite writes groups of 64 without a sync: an event a turn.
func BenchmarkWrite(b *testing.B) {
	e := newDisk(b)
	e.o.Serial = false
	j, _ := e.open()
	g := newEvents(groupSize)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += groupSize {
		if err := j.Write(g.next()); err != nil {
			b.Fatal(err)
		}
		j.Synced()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	closeJournal(b, j)
	b.ReportMetric(float64(verify(b, e).Bytes)/1e6/b.Elapsed().Seconds(), "MB/s")
}

// BenchmarkWriteWallets is BenchmarkWrite with a hundred thousand wallets in turn, more
// than are kept in memory: each count is read from the journal.
func BenchmarkWriteWallets(b *testing.B) {
	e := newDisk(b)
	e.o.Serial = false
	j, _ := e.open()
	g := newEvents(groupSize)
	for n := 0; n < b.N; n += groupSize {
		es := g.next()
		for i, ev := range es {
			ev.Wallet = fmt.Sprintf("W_%030d", (n+i)%100_000)
		}
		if err := j.Write(es); err != nil {
			b.Fatal(err)
		}
		j.Synced()
	}
	closeJournal(b, j)
}

// filled is a journal with n events, made once for all turns of a benchmark.
func filled(b *testing.B, n int) *env {
	b.Helper()
	e := newDisk(b)
	e.o.Serial = false
	j, _ := e.open()
	g := newEvents(groupSize)
	for g.n < n {
		put(b, j, g.next()...)
	}
	closeJournal(b, j)
	return e
}

func BenchmarkLookup(b *testing.B) {
	e := filled(b, 1_000_000)
	j, _ := e.open()
	b.Run("miss", func(b *testing.B) {
		for i := range b.N {
			if ev, err := j.Request("acme", number(-1-i)); ev != nil || err != nil {
				b.Fatal(ev, err)
			}
		}
	})
	b.Run("hit", func(b *testing.B) {
		r := rand.New(rand.NewPCG(1, 2))
		for range b.N {
			if ev, err := j.Request("acme", number(r.IntN(1_000_000))); ev == nil || err != nil {
				b.Fatal(ev, err)
			}
		}
	})
	closeJournal(b, j)
}

func BenchmarkOpen(b *testing.B) {
	e := filled(b, 1_000_000)
	b.ResetTimer()
	for range b.N {
		j, _ := e.open()
		b.StopTimer()
		closeJournal(b, j)
		b.StartTimer()
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	ev := signed("acme", 1)
	ev.Time = time.Date(2026, 11, 22, 15, 54, 0, 123456000, time.UTC)
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = journal.AppendEvent(line[:0], ev)
	}
	b.SetBytes(int64(len(line)))
}

func BenchmarkParseLine(b *testing.B) {
	line := []byte(encode(b, signed("acme", 1)))
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := journal.ParseLine(line); err != nil {
			b.Fatal(err)
		}
	}
}

var (
	large = flag.Int("large", 0, "number of requests of TestLarge")
	rate  = flag.Int("rate", 6000, "requests a second in the second part of TestLarge")
	flush = flag.Int("flush", 0, "FlushAt of TestLarge; a billion writes no index, for comparison")
)

// TestLarge measures a journal of the given size, with real syncs, first as fast as
// it goes and then for a minute at a given rate:
//
//	go test -run TestLarge -large 10000000 -timeout 1h -v ./appliance/journal
func TestLarge(t *testing.T) {
	if *large == 0 {
		return // a measurement, taken by hand
	}
	e := newDisk(t)
	e.o.Serial, e.o.Now, e.o.FlushAt, e.o.Report = false, nil, *flush, func(err error) { t.Error(err) }
	j, _ := e.open()
	g := newEvents(groupSize)
	begin := time.Now()
	for n := 0; g.n < *large; n++ {
		if err := j.Write(g.next()); err != nil {
			t.Fatal(err)
		}
		if n%16 == 0 { // in between, the disk would be all that is measured
			if err := e.vol.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		j.Synced()
	}
	took := time.Since(begin)
	t.Logf("%d requests in %v, %.0f a second; %s", g.n, took, float64(g.n)/took.Seconds(), memoryUse())
	timed(t, "Close", func() { closeJournal(t, j) })
	t.Logf("%d index files", len(e.names(e.index)))

	debug.FreeOSMemory()
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // VmHWM begins anew
	var r *journal.Recovery
	timed(t, "Open", func() { j, r = e.open() })
	t.Logf("%+v; %s", *r, memoryUse())

	t.Logf("a minute at %d requests a second:", *rate)
	var writes, syncs []time.Duration
	tick := time.NewTicker(time.Second * groupSize / time.Duration(*rate))
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < time.Minute; <-tick.C {
		es := g.next()
		start := time.Now()
		if err := j.Write(es); err != nil {
			t.Fatal(err)
		}
		wrote := time.Now()
		if err := e.vol.Sync(); err != nil {
			t.Fatal(err)
		}
		synced := time.Now()
		j.Synced()
		writes = append(writes, wrote.Sub(start)+time.Since(synced))
		syncs = append(syncs, synced.Sub(wrote))
	}
	t.Logf("%d groups; Write and Synced: %s", len(writes), spread(writes))
	t.Logf("sync: %s", spread(syncs))

	var misses, hits []time.Duration
	for i := range 200_000 {
		start := time.Now()
		if ev, err := j.Request("acme", number(-1-i)); ev != nil || err != nil {
			t.Fatal(ev, err)
		}
		misses = append(misses, time.Since(start))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		nonce := fmt.Sprintf("nonce-%d", random.IntN(g.n))
		start := time.Now()
		if ev, err := j.Nonce("acme", g.list[0].Wallet, "metacoin", nonce); ev == nil || err != nil {
			t.Fatal(ev, err)
		}
		hits = append(hits, time.Since(start))
	}
	t.Logf("looking up what is not there: %s", spread(misses))
	t.Logf("looking up what is there: %s; %s", spread(hits), memoryUse())
	j.Close(nil)

	timed(t, "Open without an index", func() {
		e.clearIndex()
		j, r = e.open()
	})
	t.Logf("%+v; %s", *r, memoryUse())
	closeJournal(t, j)
	timed(t, "Verify", func() { verify(t, e) })
}

func timed(t *testing.T, what string, do func()) {
	start := time.Now()
	do()
	t.Logf("%s: %v", what, time.Since(start))
}

func spread(ds []time.Duration) string {
	ds = slices.Sorted(slices.Values(ds))
	at := func(share float64) time.Duration { return ds[int(share*float64(len(ds)-1))] }
	return fmt.Sprintf("p50 %v, p99 %v, p99.9 %v, max %v", at(0.5), at(0.99), at(0.999), at(1))
}

// memoryUse is what the kernel says of the process, in words.
func memoryUse() string {
	b, _ := os.ReadFile("/proc/self/status")
	var out []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}
