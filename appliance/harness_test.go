package appliance_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"signdrop/appliance"
	"signdrop/appliance/answer"
	"signdrop/appliance/checker"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/spool/durable"
)

// patience is how long a condition may take to come true before a test gives up.
const patience = 5 * time.Minute

// soon is how long a file waits, for its signature or for whatever it lacks, in tests of
// what becomes of it then. It may be over between any two steps of a test, so that what
// is to be answered lies there whole before the appliance starts.
const soon = 50 * time.Millisecond

// rig is a data volume on the real disk with partners, and an appliance on it.
type rig struct {
	t     testing.TB
	dir   string
	vol   *durable.Disk
	root  durable.Dir
	acme  *testbed.Partner
	cfg   appliance.Config
	a     *appliance.Appliance
	stop  func() // ends what serve started last; nil before
	drops []checker.Drop
	log   logged // everything that was logged
}

// logged keeps what is written to it.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newRig makes a volume with the companies acme and others. A file waits for its
// signature, a signature for its file, and what does not verify for what does, longer
// than any test: a busy machine may take its time between two files of one request.
func newRig(t testing.TB, others ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), acme: testbed.NewPartner("acme")}
	r.ok(os.Chmod(r.dir, 0o700))
	var err error
	r.vol, err = durable.OpenDisk(r.dir)
	r.ok(err)
	r.root, err = r.vol.Root()
	r.ok(err)
	t.Cleanup(func() { r.root.Close(); r.vol.Close() })
	partners := []*testbed.Partner{r.acme}
	for _, name := range others {
		partners = append(partners, testbed.NewPartner(name))
	}
	r.ok(testbed.Setup(r.root, partners...))
	for _, p := range partners {
		r.ok(os.Remove(r.path("spool", p.Company, "outbox", setup.NoticeFile))) // read, and taken away
	}
	r.cfg = appliance.Config{
		ID: "SD_0011223344556677", AllowNew: true, Watch: r.dir, Log: zerolog.New(io.MultiWriter(zerolog.NewTestWriter(t), &r.log)),
		Still: patience, SigWait: patience, Rescan: 20 * time.Millisecond,
		Reserve: 1,
	}
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// serve starts the appliance; stop ends it and fails the test if it had trouble.
func (r *rig) serve() (stop func()) {
	r.t.Helper()
	var err error
	r.a, err = appliance.Open(r.vol, r.cfg)
	r.ok(err)
	r.cfg.AllowNew = false
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.a.Serve(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("serve: %v", err)
		}
		if err := r.a.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	}
	r.t.Cleanup(stop)
	r.stop = stop
	return stop
}

func (r *rig) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

// wait returns the file once it is there.
func (r *rig) wait(elem ...string) []byte {
	r.t.Helper()
	var data []byte
	r.until(strings.Join(elem, "/")+" is there", func() bool {
		var err error
		data, err = os.ReadFile(r.path(elem...))
		return err == nil
	})
	return data
}

func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain: %s", what)
		}
		tick()
	}
}

// clock is the time of day, until it is stopped.
type clock struct{ stood atomic.Pointer[time.Time] }

func (c *clock) now() time.Time {
	if t := c.stood.Load(); t != nil {
		return *t
	}
	return time.Now()
}

func (c *clock) stop() {
	t := time.Now()
	c.stood.Store(&t)
}

// tick gives the other side of a condition time to run.
func tick() { time.Sleep(time.Millisecond) }

// drop drops a signed request and remembers it for the checker.
func (r *rig) drop(p *testbed.Partner, name string, data []byte) {
	r.t.Helper()
	r.ok(p.Drop(r.root, name, data))
	r.drops = append(r.drops, checker.Drop{Company: p.Company, Name: name, Data: data})
}

// answer drops a request of acme and returns its answer, parsed.
func (r *rig) answer(name string, data []byte) *answer.Answer {
	r.t.Helper()
	r.drop(r.acme, name, data)
	return r.parse(r.wait("spool", "acme", "outbox", answerName(name)))
}

// reason returns why something was refused.
func (r *rig) reason(base string) *answer.Answer {
	r.t.Helper()
	return r.parse(r.wait("spool", "acme", "rejected", base+".reason.json"))
}

func (r *rig) parse(data []byte) *answer.Answer {
	r.t.Helper()
	a, err := answer.Parse(data)
	if err != nil {
		r.t.Fatalf("%v in %s", err, data)
	}
	return a
}

// wallet makes a wallet and returns its id.
func (r *rig) wallet(curve string) string {
	r.t.Helper()
	return r.answer("wallet-"+curve+".json", []byte(`{"type":"wallet.create","curve":"`+curve+`"}`)).Wallet
}

// empty fails the test unless the directory has no entries.
func (r *rig) empty(elem ...string) {
	r.t.Helper()
	list, err := os.ReadDir(r.path(elem...))
	r.ok(err)
	if len(list) > 0 {
		r.t.Errorf("%s is not empty: %v", strings.Join(elem, "/"), list)
	}
}

// check holds the volume to everything that was promised. It stops the appliance
// first: of a volume that is at work one cannot say which of its files there are.
func (r *rig) check(atRest bool) *checker.Report {
	r.t.Helper()
	if r.stop != nil {
		r.stop()
	}
	rep, err := checker.Check(r.vol, r.drops, atRest, testbed.VerifyAnswer)
	if err != nil {
		r.t.Error(err)
	}
	return rep
}

func answerName(name string) string {
	ext := filepath.Ext(name)
	return strings.TrimSuffix(name, ext) + ".result" + ext
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || !os.IsNotExist(err) && err != fs.ErrNotExist
}
