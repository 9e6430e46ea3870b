package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"signdrop/appliance"
	"signdrop/keyfs"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// childArgument, with a plan as JSON after it, makes this program the measured
// process. It takes orders on its input and ends with it.
const childArgument = "measured-process"

// plan says what the measured process is to do.
type plan struct {
	Data    string
	Recheck string
	New     bool   // the volume has no journal yet
	KEK     []byte // what its keys are sealed under; nil if they are not
	Profile string // file for the CPU profile

	// Past is for another process: write so many requests into the journal, as if
	// they had been answered, and wait to be killed.
	Past int
}

// order is one line of its input.
type order struct {
	Do    string  // "once", "serve", "stop", "close"
	Limit float64 // once: stop so many seconds after the first sync; 0: when nothing is left
}

// report answers an order.
type report struct {
	Error string

	Open     float64 // seconds that appliance.Open took
	Ready    float64 // seconds of once until the inboxes were looked at first
	Seconds  float64 // until the last sync that made answers durable
	Answered uint64
	Refused  uint64
	Signed   uint64
	Syncs    uint64
	Groups   uint64
	Syncing  float64 // seconds that were spent in syncfs
	User     float64 // seconds of processor time, all of the process
	System   float64 // the same, in the kernel
	Memory   float64 // MiB, VmHWM
}

// child is the measured process.
func child(text string, in io.Reader, out io.Writer) error {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	if p.Past > 0 {
		return writePast(p, in, out)
	}
	m := &measured{plan: p, out: json.NewEncoder(out)}
	if err := m.open(); err != nil {
		return m.out.Encode(report{Error: err.Error()})
	}
	defer m.disk.Close()
	if p.Profile != "" {
		f, err := os.Create(p.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := m.out.Encode(report{Open: m.opened.Seconds(), Memory: peakMemory()}); err != nil {
		return err
	}
	return m.obey(json.NewDecoder(in))
}

// measured is the appliance in the measured process.
type measured struct {
	plan   plan
	out    *json.Encoder
	disk   *durable.Disk
	vol    *meter
	a      *appliance.Appliance
	opened time.Duration

	stop   context.CancelFunc // of serve
	served chan error
}

func (m *measured) open() error {
	recheck, err := keyfs.ParseRecheck(m.plan.Recheck)
	if err != nil {
		return err
	}
	start := time.Now()
	if m.disk, err = durable.OpenDisk(m.plan.Data); err != nil {
		return err
	}
	m.vol = &meter{FS: m.disk}
	appliance.SetMemory()
	sealer, err := m.unlock()
	if err != nil {
		return err
	}
	m.a, err = appliance.Open(m.vol, appliance.Config{
		Sealer: sealer,
		ID:     "SD_0000000000000000", Recheck: recheck, Watch: m.plan.Data, AllowNew: m.plan.New,
		Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel),
	})
	m.opened = time.Since(start)
	return err
}

// unlock opens the keys of a volume on which they are sealed.
func (m *measured) unlock() (*seal.Sealer, error) {
	if m.plan.KEK == nil {
		return nil, nil
	}
	kek, err := seal.ParseKEK(m.plan.KEK)
	if err != nil {
		return nil, err
	}
	root, err := m.disk.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s, _, err := seal.Unlock(m.disk, root, seal.Request{KEK: kek})
	return s, err
}

func (m *measured) obey(in *json.Decoder) error {
	for {
		var o order
		err := in.Decode(&o)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		r, err := m.do(o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := m.out.Encode(r); err != nil {
			return err
		}
	}
}

func (m *measured) do(o order) (report, error) {
	switch o.Do {
	case "once":
		return m.once(time.Duration(o.Limit * float64(time.Second)))
	case "serve":
		ctx, stop := context.WithCancel(context.Background())
		m.stop, m.served = stop, make(chan error, 1)
		go func() { m.served <- m.a.Serve(ctx) }()
		return report{}, nil
	case "stop":
		m.stop()
		if err := <-m.served; err != nil {
			return report{}, err
		}
		c := m.a.Counts()
		return report{Answered: c.Answered, Refused: c.Refused, Signed: c.Signed, Memory: peakMemory()}, nil
	case "close":
		return report{Memory: peakMemory()}, m.a.Close()
	}
	return report{}, fmt.Errorf("unknown order %q", o.Do)
}

// once answers what is there.
func (m *measured) once(limit time.Duration) (report, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	before := m.a.Counts()
	m.vol.reset()
	if limit > 0 {
		// From the first sync on: on a busy machine the first look into a full inbox
		// alone can last longer than the limit, and nothing would be answered.
		m.vol.limit(limit, cancel)
	}
	user, system := processorTime()
	start := time.Now()
	if err := m.a.Once(ctx); err != nil {
		return report{}, err
	}
	userAfter, systemAfter := processorTime()
	c := m.a.Counts()
	m.vol.mu.Lock()
	defer m.vol.mu.Unlock()
	return report{
		Ready:    m.vol.asked.Sub(start).Seconds(),
		Seconds:  m.vol.last.Sub(start).Seconds(),
		Answered: c.Answered - before.Answered, Refused: c.Refused - before.Refused, Signed: c.Signed - before.Signed,
		Syncs: uint64(m.vol.syncs), Groups: c.Groups - before.Groups,
		Syncing: m.vol.syncing.Seconds(), User: userAfter - user, System: systemAfter - system, Memory: peakMemory(),
	}, nil
}

// processorTime is what this process has used so far, in seconds.
func processorTime() (user, system float64) {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) != nil {
		return 0, 0
	}
	return time.Duration(ru.Utime.Nano()).Seconds(), time.Duration(ru.Stime.Nano()).Seconds()
}

// meter is a volume that notes when and how often it is synced, and when it is first
// asked for its space, which the appliance does before each look into the inboxes.
type meter struct {
	durable.FS

	mu      sync.Mutex
	syncs   int
	syncing time.Duration
	last    time.Time // end of the last sync
	asked   time.Time // first call of Space
	first   func()    // called at the end of the next sync, unless nil
}

// limit calls cancel when so much time has passed since the next sync.
func (m *meter) limit(d time.Duration, cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.first = func() { time.AfterFunc(d, cancel) }
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs, m.syncing, m.last, m.asked, m.first = 0, 0, time.Time{}, time.Time{}, nil
}

func (m *meter) Sync() error {
	start := time.Now()
	err := m.FS.Sync()
	end := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	m.syncing += end.Sub(start)
	m.last = end
	if m.first != nil {
		m.first()
		m.first = nil
	}
	return err
}

func (m *meter) Space() (durable.Space, error) {
	m.mu.Lock()
	if m.asked.IsZero() {
		m.asked = time.Now()
	}
	m.mu.Unlock()
	return m.FS.Space()
}

// peakMemory is the most memory of this process that was resident, in MiB.
func peakMemory() float64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(l, "VmHWM:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
		if err == nil {
			return kib / 1024
		}
	}
	return 0
}

var errProcess = errors.New("the measured process reports")
