package memory_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"signdrop/appliance/journal/memory"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

var errDisk = errors.New("injected failure")

// bench is an index on a model volume, and a map that knows better.
type bench struct {
	t       *testing.T
	vol     *modelfs.Volume
	dir     durable.Dir
	x       *memory.Index
	o       memory.Options
	reports []string
	want    map[memory.Key]uint64
	log     []memory.Entry // the journal
	at      uint64
}

func newBench(t *testing.T, o memory.Options) *bench {
	b := &bench{t: t, vol: modelfs.New(), o: o, want: map[memory.Key]uint64{}}
	b.vol.MkdirAll("index", 0o700)
	b.o.Report = func(err error) { b.reports = append(b.reports, err.Error()) }
	b.root()
	return b
}

func (b *bench) root() {
	b.t.Helper()
	root, err := b.vol.Root()
	if err != nil {
		b.t.Fatal(err)
	}
	if b.dir, err = root.Sub("index"); err != nil {
		b.t.Fatal(err)
	}
}

// mark is the chain hash that the journal has at a place.
func mark(at uint64) memory.Mark {
	if at == 0 {
		return memory.Mark{}
	}
	return memory.Mark{At: at, Hash: sha256.Sum256(binary.BigEndian.AppendUint64(nil, at))}
}

// open opens the index and replays what it does not cover.
func (b *bench) open() (replayed int) {
	b.t.Helper()
	x, err := memory.Open(b.dir, func(m memory.Mark) (bool, error) { return m == mark(m.At) && m.At <= b.at, nil }, b.o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.x = x
	from := x.Covered()
	if from != mark(from.At) {
		b.t.Fatalf("covered is %+v", from)
	}
	for _, e := range b.log {
		if e.At >= from.At {
			b.x.Add([]memory.Entry{e}, mark(e.At+1), 1)
			replayed++
		}
	}
	x.Start()
	return replayed
}

// add adds an entry under a new key, or one that is there.
func (b *bench) add(key memory.Key, latest bool) {
	e := memory.Entry{Key: key, At: b.at}
	b.at++
	b.log = append(b.log, e)
	if _, there := b.want[key]; latest || !there {
		b.want[key] = e.At
	}
	b.x.Add([]memory.Entry{e}, mark(b.at), 1)
}

func key(i int, latest bool) memory.Key {
	return memory.NewKey(sha256.Sum256(fmt.Append(nil, i)), latest)
}

// fill adds n entries, one in eight under a key that is there.
func (b *bench) fill(n int, r *rand.Rand) {
	for range n {
		i, latest := len(b.log), r.IntN(2) == 0
		if i > 0 && r.IntN(8) == 0 {
			i = r.IntN(i)
		}
		b.add(key(i, latest), latest)
	}
}

func (b *bench) check() {
	b.t.Helper()
	for k, want := range b.want {
		if got, ok, err := b.x.Lookup(k); err != nil || !ok || got != want {
			b.t.Fatalf("key %x: %d, %v, %v; want %d", k, got, ok, err, want)
		}
	}
	for i := range 50 {
		if got, ok, err := b.x.Lookup(key(-1-i, i%2 == 0)); err != nil || ok {
			b.t.Fatalf("unknown key: %d, %v, %v", got, ok, err)
		}
	}
}

func (b *bench) names() []string { return b.vol.List("index") }

func TestOracle(t *testing.T) {
	sizes, most := []int{1, 7, 170, 171, 1000}, 3000
	if testing.Short() {
		sizes, most = []int{1, 170, 171}, 1500
	}
	for _, flushAt := range sizes {
		for _, serial := range []bool{true, false} {
			b := newBench(t, memory.Options{FlushAt: flushAt, Serial: serial})
			r := rand.New(rand.NewPCG(uint64(flushAt), 1))
			b.open()
			for range 5 {
				b.fill(min(flushAt*30, most), r)
				b.check()
				b.x.Close()
				if n := b.open(); n != 0 {
					t.Errorf("%d entries are replayed after a close", n)
				}
				b.check()
			}
			b.x.Close()
			if n := len(b.names()); serial && n > 16+len(b.log)/flushAt/48 {
				t.Errorf("FlushAt %d: %d files for %d entries", flushAt, n, len(b.log))
			}
			if len(b.reports) > 0 {
				t.Errorf("reports: %v", b.reports)
			}
			if h := b.vol.OpenHandles(); len(h) > 12 { // directories, two for each open
				t.Errorf("open handles: %v", h)
			}
		}
	}
}

func TestSpan(t *testing.T) {
	b := newBench(t, memory.Options{FlushAt: 1000, Span: 10, Serial: true})
	b.open()
	for range 3 {
		b.x.Add(nil, mark(b.at+5), 5)
		b.at += 5
	}
	if n := b.x.Segments(); n != 1 {
		t.Errorf("%d segments after 15 bytes of journal", n)
	}
	b.add(key(1, true), true)
	b.check()
	b.x.Close()
	if n := b.open(); n != 0 {
		t.Errorf("%d entries are replayed", n)
	}
	b.check()
}

// many makes an index of several segments of different age.
func many(t *testing.T) *bench {
	b := newBench(t, memory.Options{FlushAt: 200, Serial: true})
	b.open()
	r := rand.New(rand.NewPCG(1, 2))
	for len(b.log) < 1500 || len(b.names()) < 5 {
		b.fill(100, r)
	}
	b.x.Close()
	return b
}

// copy continues on a copy of the volume, as another process.
func (b *bench) copy(t *testing.T) *bench {
	c := *b
	c.t, c.vol, c.reports = t, b.vol.Clone(), nil
	c.o.Report = func(err error) { c.reports = append(c.reports, err.Error()) }
	c.root()
	return &c
}

// TestMissing: whatever files are missing, what is behind the gap comes from the
// journal, and the answers are the same.
func TestMissing(t *testing.T) {
	b := many(t)
	names := b.names()
	for i := range 1 << len(names) {
		c := b.copy(t)
		first := len(names)
		for k, n := range names {
			if i>>k&1 == 1 {
				c.vol.Remove("index/" + n)
				first = min(first, k)
			}
		}
		replayed := c.open()
		if (replayed == 0) != (first == len(names)) {
			t.Errorf("%d entries are replayed with %b missing", replayed, i)
		}
		c.check()
		c.x.Close()
		c.open()
		c.check()
	}
}

// TestEveryByte: a damaged byte leads to a rebuild, or to ErrDamaged and a rebuild,
// never to a wrong answer.
func TestEveryByte(t *testing.T) {
	b := many(t)
	keys := make([]memory.Key, 0, len(b.want))
	for k := range b.want {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y memory.Key) int { return strings.Compare(string(x[:]), string(y[:])) })
	name := b.names()[1]
	content, err := b.vol.ReadFile("index/" + name)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	rebuilt, noticed := 0, 0
	step := 300
	if testing.Short() {
		step = 6000
	}
	for i := 0; i < len(content); i += 1 + r.IntN(step) {
		c := b.copy(t)
		damaged := slices.Clone(content)
		damaged[i] ^= byte(1 + r.IntN(255))
		c.vol.WriteFile("index/"+name, damaged)
		if c.open() > 0 {
			rebuilt++
		}
		for k := r.IntN(3); k < len(keys); k += 3 {
			got, ok, err := c.x.Lookup(keys[k])
			if errors.Is(err, memory.ErrDamaged) {
				noticed++
				if left := c.names(); len(left) != 0 {
					t.Errorf("byte %d: the damaged index still has %v", i, left)
				}
				if err := c.x.Room(); !errors.Is(err, memory.ErrDamaged) {
					t.Errorf("byte %d: there is room: %v", i, err)
				}
				c.x.Close()
				c.open()
				c.check()
				break
			}
			if err != nil || !ok || got != c.want[keys[k]] {
				t.Fatalf("byte %d: key %x: %d, %v, %v", i, keys[k], got, ok, err)
			}
		}
	}
	if rebuilt == 0 || noticed == 0 {
		t.Errorf("%d times rebuilt, %d times noticed", rebuilt, noticed)
	}
	for cut := 0; cut < len(content); cut += 4096 / 3 {
		c := b.copy(t)
		c.vol.WriteFile("index/"+name, content[:cut])
		if c.open() == 0 {
			t.Errorf("cut at %d: nothing is replayed", cut)
		}
		c.check()
	}
}

// TestDamageMetByMerge: a merge that reads a damaged page discards the index too.
func TestDamageMetByMerge(t *testing.T) {
	b := newBench(t, memory.Options{FlushAt: 200, Serial: true})
	b.open()
	r := rand.New(rand.NewPCG(5, 6))
	b.fill(700, r)
	name := b.names()[0]
	content, _ := b.vol.ReadFile("index/" + name)
	content[5000] ^= 1
	b.vol.WriteFile("index/"+name, content)
	b.fill(200, r) // the fourth segment
	if err := b.x.Room(); !errors.Is(err, memory.ErrDamaged) || len(b.names()) != 0 {
		t.Errorf("%v, files %v", err, b.names())
	}
	b.x.Close()
	b.open()
	b.check()
}

// TestLeftovers: what a crash or a stranger left does not disturb.
func TestLeftovers(t *testing.T) {
	b := newBench(t, memory.Options{FlushAt: 200, Serial: true})
	b.open()
	r := rand.New(rand.NewPCG(7, 8))
	b.fill(650, r)
	old := b.vol.Clone()
	b.fill(300, r)
	b.x.Close()
	for _, n := range old.List("index") {
		if slices.Contains(b.names(), n) {
			t.Fatalf("%s was not merged", n)
		}
		content, _ := old.ReadFile("index/" + n)
		b.vol.WriteFile("index/"+n, content)
	}
	want := len(b.names()) - 3
	b.vol.WriteFile("index/17.new", []byte("half"))
	b.vol.WriteFile("index/README", []byte("hello"))
	b.reports = nil
	if n := b.open(); n != 0 || len(b.reports) > 0 {
		t.Errorf("%d entries are replayed; %v", n, b.reports)
	}
	b.check()
	if got := b.names(); len(got) != want+1 || !slices.Contains(got, "README") {
		t.Errorf("files are %v", got)
	}
	b.x.Close()

	// A journal that is shorter, and one that is another: nothing of it is used.
	for name, valid := range map[string]func(memory.Mark) (bool, error){
		"shorter": func(m memory.Mark) (bool, error) { return m.At <= 1, nil },
		"another": func(m memory.Mark) (bool, error) { return false, nil },
	} {
		c := b.copy(t)
		x, err := memory.Open(c.dir, valid, c.o)
		if err != nil || x.Covered() != (memory.Mark{}) || len(c.reports) == 0 {
			t.Errorf("%s: covered %v, %v, %v", name, x.Covered(), err, c.reports)
		}
		if got := c.names(); len(got) != 1 {
			t.Errorf("%s: files are %v", name, got)
		}
	}
	c := b.copy(t)
	if _, err := memory.Open(c.dir, func(memory.Mark) (bool, error) { return false, errDisk }, c.o); !errors.Is(err, errDisk) {
		t.Errorf("a journal that cannot be read: %v", err)
	}
}

// TestWriteFails: entries stay in memory while segments cannot be written, up to a
// bound, and are written when that is possible again.
func TestWriteFails(t *testing.T) {
	b := newBench(t, memory.Options{FlushAt: 10, Serial: true})
	b.open()
	r := rand.New(rand.NewPCG(9, 10))
	b.fill(25, r)
	writes := func(c modelfs.Call) modelfs.Fault {
		if c.Op == modelfs.OpWrite {
			return modelfs.FailNotDone(errDisk)
		}
		return modelfs.None
	}
	b.vol.SetFault(writes)
	b.fill(100, r)
	b.check()
	if err := b.x.Room(); err != nil {
		t.Errorf("there is no room: %v", err)
	}
	if len(b.reports) == 0 || !strings.Contains(b.reports[0], errDisk.Error()) {
		t.Errorf("reports are %v", b.reports)
	}
	b.fill(600, r)
	if err := b.x.Room(); !errors.Is(err, errDisk) {
		t.Errorf("there is room: %v", err)
	}
	b.check()
	b.vol.SetFault(nil)
	b.fill(20, r)
	if err := b.x.Room(); err != nil {
		t.Errorf("there is no room: %v", err)
	}
	b.check()
	b.x.Close()
	if n := b.open(); n != 0 {
		t.Errorf("%d entries are replayed", n)
	}
	b.check()
}

// TestFaults lets each call fail, with its effect and without, and each be the
// last, and cuts the power.
func TestFaults(t *testing.T) {
	base := newBench(t, memory.Options{FlushAt: 10, Serial: true})
	base.open()
	r := rand.New(rand.NewPCG(11, 12))
	base.fill(75, r)
	base.x.Close()
	base.vol.Kill()
	step := 1
	if testing.Short() {
		step = 7
	}
	for name, f := range map[string]modelfs.Fault{
		"not done": modelfs.FailNotDone(errDisk), "done": modelfs.FailDone(errDisk),
		"killed before": modelfs.CrashBefore, "killed within": modelfs.CrashWithin, "killed after": modelfs.CrashAfter,
	} {
		for k := 1; ; k += step {
			b := base.copy(t)
			b.want = map[memory.Key]uint64{}
			for key, at := range base.want {
				b.want[key] = at
			}
			n := 0
			b.vol.SetFault(func(modelfs.Call) modelfs.Fault {
				if n++; n == k {
					return f
				}
				return modelfs.None
			})
			x, err := memory.Open(b.dir, func(m memory.Mark) (bool, error) { return m == mark(m.At) && m.At <= b.at, nil }, b.o)
			if err == nil {
				b.x = x
				for _, e := range b.log {
					if e.At >= x.Covered().At {
						x.Add([]memory.Entry{e}, mark(e.At+1), 1)
					}
				}
				b.fill(35, rand.New(rand.NewPCG(13, 14)))
				if name == "not done" || name == "done" {
					for key, want := range b.want {
						got, ok, err := x.Lookup(key)
						if err == nil && (!ok || got != want) {
							t.Fatalf("%s, call %d: key %x: %d, %v; want %d", name, k, key, got, ok, want)
						}
					}
				}
				x.Close()
				// One failure is one report, or two where its cleaning up finds it too.
				if b.vol.SetFault(nil); len(b.reports) > 2 && strings.Contains(name, "done") {
					t.Errorf("%s, call %d: %v", name, k, b.reports)
				}
			}
			if n < k {
				if k < 40 {
					t.Errorf("only %d calls", k)
				}
				break
			}
			b.vol.SetFault(nil)
			b.vol.Kill()
			left := b.vol.Clone()
			ends := []*modelfs.Volume{left.Clone()} // of the process alone
			for _, c := range []modelfs.Choice{modelfs.KeepNothing, modelfs.NamesWithoutData, modelfs.NamesWithGarbage, modelfs.KeepRandom(uint64(k))} {
				ends = append(ends, left.Clone().Crash(c))
			}
			for _, v := range ends {
				d := *b
				d.vol, d.reports = v, nil
				d.root()
				d.open()
				d.check()
				d.x.Close()
				if names := d.names(); slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".new") }) {
					t.Errorf("%s, call %d: left are %v", name, k, names)
				}
			}
		}
	}
}

// TestConcurrent reads while segments are written and merged. Run with -race.
func TestConcurrent(t *testing.T) {
	b := newBench(t, memory.Options{FlushAt: 40})
	b.open()
	const total = 8000
	var mu sync.Mutex
	added := 0
	var done sync.WaitGroup
	for g := range 3 {
		done.Go(func() {
			for i := g; ; i = (i*29 + 11) % total {
				mu.Lock()
				n := added
				mu.Unlock()
				if n == total {
					return
				}
				at, ok, err := b.x.Lookup(key(i, i%2 == 0))
				if err != nil || i < n && (!ok || at != uint64(i)) {
					t.Errorf("key %d of %d: %d, %v, %v", i, n, at, ok, err)
					return
				}
			}
		})
	}
	for i := range total {
		if err := b.x.Room(); err != nil {
			t.Fatal(err)
		}
		b.add(key(i, i%2 == 0), i%2 == 0)
		mu.Lock()
		added = i + 1
		mu.Unlock()
	}
	done.Wait()
	b.check()
	b.x.Close()
	b.open()
	b.check()
	b.x.Close()
}
