// Bench measures the appliance and prints the table of docs/performance.md.
//
//	go run ./tools/bench                    the default, about five minutes
//	go run ./tools/bench -full              1,000,000 files waiting, 10,000,000 past requests
//	go run ./tools/bench -only files/P-384  the rows whose names begin so
//	go run ./tools/bench -json              the same as JSON
//
// # What a number means
//
// Machines are shared and noisy, so nothing is judged by how long it took. Each
// sample of the appliance is taken between two samples of what the machine can do
// at that moment, the bare signer on all processors and the bare disk, and the
// row gives the median of the ratios. Nothing here fails because it was slow.
//
// The appliance runs in a process of its own, on a data volume below ./bench, so
// that the row's memory is the appliance's. What it answers was dropped and synced
// before its clock started; the clock stops when the last answer is durable. A run
// in which anything was refused or left is an error, not a row.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == childArgument {
		if err := child(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench: measured process:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the program.
type bench struct {
	ctx     context.Context
	dir     string // below which everything temporary lies
	sizes   sizes
	profile string // where the measured processes write their CPU profiles, "" for nowhere
	inside  bool   // measure in this process; for the test
	log     io.Writer

	volumes  int
	profiles int
	rows     []*Row
}

// sizes are how much is measured.
type sizes struct {
	rounds    int // samples of a row
	batches   int // samples of a batch, which are larger
	bare      int // milliseconds of one sample of the bare signer or disk
	files     int // one sample of one request a file
	lines     int // of a batch
	drops     int // one after the other on an idle machine
	few       int // files waiting
	many      int // files waiting
	wallets   int
	companies int
	past      int // requests that were answered before
	shell     int // files for the shell loop
}

var (
	normal = sizes{rounds: 5, batches: 3, bare: 250, files: 3000, lines: 10_000, drops: 300,
		few: 1000, many: 100_000, wallets: 100_000, companies: 10_000, past: 1_000_000, shell: 200}
	full = sizes{rounds: 5, batches: 3, bare: 250, files: 3000, lines: 10_000, drops: 300,
		few: 1000, many: 1_000_000, wallets: 100_000, companies: 10_000, past: 10_000_000, shell: 200}
)

// The room that a run needs, in bytes. Everything is removed at its end only, see
// bareDisk. A full run has a million requests with their signatures, and ten million
// lines of journal with their index.
const (
	normalSpace = 12 << 30
	fullSpace   = 40 << 30
)

// suite is all there is to measure, in the order of the table. A name may stand for
// several rows, which all begin with it.
var suite = []struct {
	name    string
	measure func(*bench, string) error
}{
	{"signer", (*bench).signers},
	{"disk", (*bench).disk},
	{"fsync", (*bench).fsync},
	{"files", (*bench).files},
	{"batch", (*bench).batches},
	{"ethereum", (*bench).ethereum},
	{"psbt", (*bench).psbts},
	{"latency", (*bench).latency},
	{"waiting", (*bench).waiting},
	{"wallets", (*bench).wallets},
	{"sealed", (*bench).sealed},
	{"companies", (*bench).companies},
	{"past", (*bench).past},
	{"shell", (*bench).shell},
}

func run(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	dir := f.String("dir", "bench", "where the data volumes are made, and removed again")
	only := f.String("only", "", "measure the rows whose names begin so: signer, disk, fsync, files, batch, ethereum, psbt, latency, waiting, wallets, sealed, past, shell, or further, as in files/P-384/off")
	long := f.Bool("full", false, "1,000,000 files waiting and 10,000,000 past requests; takes half an hour and 40 GB")
	asJSON := f.Bool("json", false, "print JSON instead of the table")
	profile := f.String("cpuprofile", "", "write the CPU profile of each measured process to this file with .1, .2, … after its name; go tool pprof adds them up")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%q is not expected here (see -help)", f.Arg(0))
	}
	b := &bench{ctx: ctx, sizes: normal, log: os.Stderr}
	if *long {
		b.sizes = full
	}
	var err error
	if b.dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	if *profile != "" {
		if b.profile, err = filepath.Abs(*profile); err != nil {
			return err
		}
	}
	if err := b.suite(*only); err != nil {
		return err
	}
	if len(b.rows) == 0 {
		return fmt.Errorf("no row's name begins with %q", *only)
	}
	report := Report{Machine: thisMachine(b.dir), Full: *long, Rows: b.rows}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	return report.print(out)
}

// suite measures the rows whose names begin with only, and leaves nothing behind.
func (b *bench) suite(only string) (err error) {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	unlock, err := b.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// What a run left that was killed.
	if err := b.clean(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clean()) }()
	if only == "" {
		if err := b.checkSpace(); err != nil {
			return err
		}
	}
	for _, s := range suite {
		if !strings.HasPrefix(s.name, only) && !strings.HasPrefix(only, s.name+"/") {
			continue
		}
		if err := s.measure(b, only); err != nil {
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
	}
	return nil
}

// wanted says whether a row of a name is to be measured.
func wanted(name, only string) bool {
	return strings.HasPrefix(name, only)
}

// lock keeps a second run from disturbing this one and from removing its volumes.
func (b *bench) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(b.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another benchmark runs in %s: wait for it or give another -dir", b.dir)
	}
	return func() { f.Close() }, nil
}

func (b *bench) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.dir, &st); err != nil {
		return err
	}
	need := uint64(normalSpace)
	if b.sizes == full {
		need = fullSpace
	}
	if free := st.Bavail * uint64(st.Bsize); free < need {
		return fmt.Errorf("%s has %d GiB free and this run needs %d: make room, give another -dir, or measure with -only", b.dir, free>>30, need>>30)
	}
	return nil
}

// say tells on the error output how far the run is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, format+"\n", args...)
}

// add adds a row and tells about it.
func (b *bench) add(r *Row) {
	b.rows = append(b.rows, r)
	b.say("%s", r.line())
}
