package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/testbed"
)

// TestKill kills signdropd with SIGKILL at random moments while requests of all
// kinds are dropped, and starts it again. After each kill the volume must be in
// order as it lies there; in the end, left alone, signdropd must have answered all.
func TestKill(t *testing.T) {
	t.Parallel()
	volumes, rounds := 10, 10
	if testing.Short() {
		volumes = 1
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to have the same moments and requests again: -seed=%d", seed)
	for i := range volumes {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			killRounds(t, rand.New(rand.NewPCG(seed, uint64(i))), rounds)
		})
	}
}

func killRounds(t *testing.T, rng *rand.Rand, rounds int) {
	v := newVolume(t)
	f := &feeder{v: v, rng: rng}
	for _, curve := range []string{"P-256", "P-384", "secp256k1", "P-521"} {
		data := walletCreate(curve, "")
		f.sent = append(f.sent, drop{"wallet-" + curve + ".json", data, v.acme.Sign(data)})
	}
	v.move(f.sent...)
	if status := v.once(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	for _, d := range f.sent {
		f.wallets = append(f.wallets, v.parse(v.await(v.outbox(answerName(d.name)))).Wallet)
	}
	w := watch(v)
	defer w.stop()

	// Without a kill first: it says how long the work takes, and so when to kill.
	began := time.Now()
	r := v.serve("--sig-wait=1s")
	f.waves(0, rounds)
	v.until("something is answered", func() bool { return len(v.list(v.outbox())) > 4 || len(v.list(v.rejected())) > 0 })
	span := 2 * time.Since(began)
	r.kill()
	v.check(false)

	for round := range rounds {
		command := "serve"
		if rng.IntN(3) == 0 {
			command = "once"
		}
		args := []string{"--sig-wait=1s", "--workers=" + fmt.Sprint(1+rng.IntN(4))}
		if rng.IntN(4) == 0 {
			args = append(args, "--watch=false", "--group=3")
		}
		r := v.begin(nil, command, args...)
		delay := time.Duration(rng.Int64N(int64(span)))
		timer := time.AfterFunc(delay, func() { r.signal(syscall.SIGKILL) })
		f.waves(round, rounds)
		<-r.done
		timer.Stop()
		status := r.cmd.ProcessState.ExitCode()
		if status != -1 && (command == "serve" || status != 0 && status != 3 && status != 4) {
			t.Errorf("%s ended by itself with exit status %d", command, status)
		}
		report := v.check(false)
		t.Logf("round %d: %s, %v, exit status %d: %+v", round, command, delay, status, *report)
		w.look()
		if t.Failed() {
			t.FailNow()
		}
	}
	r = v.serve("--sig-wait=1s")
	v.finished()
	r.stop()
	v.check(true)
	w.look()
}

// feeder drops requests of all kinds.
type feeder struct {
	v       *volume
	rng     *rand.Rand
	wallets []string // two to transfer from, one on secp256k1, one to bind
	sent    []drop   // what was answered or will be, as a rule
	wave    []drop
	n       int
}

// waves drops some requests, with one mv for each wave.
func (f *feeder) waves(round, rounds int) {
	f.v.t.Helper()
	for range 3 {
		f.wave = nil
		for range 2 + f.rng.IntN(3) {
			f.wave = append(f.wave, f.some(round < rounds/2)...)
		}
		if len(f.wave) > 0 {
			f.v.move(f.wave...)
		}
	}
}

// some makes one request, or a few that belong together. early allows what takes
// its time to be refused.
func (f *feeder) some(early bool) []drop {
	f.n++
	name := fmt.Sprintf("r%d.json", f.n)
	nist := f.wallets[f.rng.IntN(2)]
	signed := func(name string, data []byte) drop { return drop{name, data, f.v.acme.Sign(data)} }
	keep := func(ds ...drop) []drop {
		f.sent = append(f.sent, ds...)
		return ds
	}
	old := f.sent[f.rng.IntN(len(f.sent))]
	switch f.rng.IntN(16) {
	default:
		return keep(signed(name, testbed.Transfer(nist, name)))
	case 1:
		return keep(signed(name, testbed.DataRequest(f.wallets[f.rng.IntN(3)], name)))
	case 2, 3:
		name += "l"
		return keep(signed(name, f.batch(name, nist)))
	case 4:
		return keep(signed(name, walletCreate("P-521", name)))
	case 5:
		return keep(signed(name, fmt.Appendf(nil, `{"type":"wallet.bind","reference":%q,"wallet":%q,"address":%q}`, name, f.wallets[3], testbed.Address("bound"))))
	case 6: // refused for good
		return keep(signed(name, transfer(nist, name, name, "1", `"surprise":1`)))
	case 7:
		return keep(signed(name, transfer(nist, name, name, "1", `"not_after":"2020-01-01T00:00:00Z"`)))
	case 8, 9: // the same again, under another name
		return []drop{signed("again-"+name+strings.TrimPrefix(old.name, stem(old.name)+".json"), old.data)}
	case 10: // the same again, under the same name
		if f.free(old.name) {
			return []drop{old}
		}
	case 11: // another under a name that is taken
		if f.free(old.name) && strings.HasSuffix(old.name, ".json") {
			return []drop{signed(old.name, testbed.Transfer(nist, "impostor "+name))}
		}
	case 12: // two texts for one nonce
		return []drop{signed("a-"+name, transfer(nist, "a "+name, name, "1")), signed("b-"+name, transfer(nist, "b "+name, name, "2"))}
	case 13:
		data := testbed.Transfer(nist, name)
		return []drop{{name, data, f.v.acme.Sign([]byte("other bytes"))}}
	case 14:
		if early {
			return []drop{{name, testbed.Transfer(nist, name), nil}}
		}
	case 15:
		return []drop{{name + ".txt", []byte(name), nil}}
	}
	return nil
}

func (f *feeder) batch(name, wallet string) []byte {
	var b bytes.Buffer
	lines := 2 + f.rng.IntN(12)
	switch f.rng.IntN(3) {
	case 0:
		fmt.Fprintf(&b, `{"type":"batch","count":%d}`+"\n", lines)
	case 1:
		fmt.Fprintf(&b, `{"type":"batch","count":%d,"on_error":"abort"}`+"\n", lines)
	}
	for i := range lines {
		line := fmt.Sprintf("%s %d", name, i)
		switch f.rng.IntN(20) {
		case 0:
			b.Write(testbed.Transfer("W_none", line))
		case 1:
			b.Write(walletCreate("P-256", line))
		case 2:
			b.Write(transfer(wallet, line+" other", fmt.Sprintf("%s %d", name, 0), "3"))
		default:
			b.Write(testbed.Transfer(wallet, line))
		}
	}
	return b.Bytes()
}

// free says that another request may be dropped under a name that was used before:
// its answer is there, and we would not overwrite what waits.
func (f *feeder) free(name string) bool {
	for _, d := range f.wave {
		if d.name == name {
			return false
		}
	}
	_, err := os.Stat(f.v.outbox(answerName(name)))
	_, waits := os.Stat(f.v.inbox(name))
	return err == nil && errors.Is(waits, fs.ErrNotExist)
}

// watcher looks at what the partner can see, all the time, and remembers it: an
// answer that was seen must never change or vanish, and a request must never be
// answered in two ways, under whatever names.
type watcher struct {
	v    *volume
	done chan struct{}
	wg   sync.WaitGroup

	mu        sync.Mutex
	files     map[string][32]byte // by path
	byRequest map[string][32]byte
}

func watch(v *volume) *watcher {
	w := &watcher{v: v, done: make(chan struct{}), files: map[string][32]byte{}, byRequest: map[string][32]byte{}}
	w.wg.Go(func() {
		for {
			select {
			case <-w.done:
				return
			default:
				w.glance(false)
				tick()
			}
		}
	})
	return w
}

func (w *watcher) stop() {
	close(w.done)
	w.wg.Wait()
}

// look looks at everything, also what was seen before.
func (w *watcher) look() { w.glance(true) }

func (w *watcher) glance(all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dir := range []string{w.v.outbox(), w.v.rejected()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			w.v.t.Errorf("watching: %v", err)
		}
		for _, e := range entries {
			path := dir + "/" + e.Name()
			if _, known := w.files[path]; known && !all {
				continue
			}
			if dir == w.v.outbox() || strings.HasSuffix(path, ".reason.json") {
				w.read(path)
			}
		}
	}
	if !all {
		return
	}
	for path := range w.files {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			w.v.t.Errorf("%s was seen and has vanished", path)
		}
	}
}

func (w *watcher) read(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		w.v.t.Errorf("watching: %v", err)
		return
	}
	sum := sha256.Sum256(data)
	if old, known := w.files[path]; known && old != sum {
		w.v.t.Errorf("%s has changed; it is now:\n%s", path, data)
	}
	w.files[path] = sum
	if strings.HasSuffix(path, ".reason.json") {
		return
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	a, err := answer.Parse(line)
	if err != nil || a.Request == "" {
		w.v.t.Errorf("%s is half an answer (%v):\n%s", path, err, data)
		return
	}
	if old, known := w.byRequest[a.Request]; known && old != sum {
		w.v.t.Errorf("request %s has two answers, the second in %s:\n%s", a.Request, path, data)
	}
	w.byRequest[a.Request] = sum
}
