package main_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// The tests of this file let system calls of the real program fail, or kill it
// there, with strace. They are for one architecture: under an emulator strace would
// see the emulator's calls.
//
// strace counts the calls of each thread for itself, and Go moves its work between
// threads: which call it is that fails differs from run to run.

// template is a volume with requests of all kinds in its inbox, to be copied. With
// again the same bytes come more than once.
func template(t *testing.T, again bool) *volume {
	t.Helper()
	v := newVolume(t)
	v.drop("w.json", walletCreate("P-256", ""))
	v.drop("other.json", walletCreate("P-384", ""))
	if status := v.once(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	w := v.parse(v.await(v.outbox("w.result.json"))).Wallet
	other := v.parse(v.await(v.outbox("other.result.json"))).Wallet
	if again {
		v.drop("w.json", walletCreate("P-256", ""))
		v.drop("w-again.json", walletCreate("P-256", ""))
		v.drop("same.json", testbed.Transfer(w, "0"))
	}
	v.drop("make.json", walletCreate("P-521", ""))
	v.drop("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, other, testbed.Address("bound")))
	for i := range 4 {
		v.drop(fmt.Sprintf("pay%d.json", i), testbed.Transfer(w, fmt.Sprint(i)))
	}
	v.drop("clash1.json", transfer(w, "clash1", "clash", "1"))
	v.drop("clash2.json", transfer(w, "clash2", "clash", "2"))
	var b bytes.Buffer
	for i := range 5 {
		b.Write(testbed.Transfer(w, fmt.Sprintf("line %d", i)))
	}
	b.Write(walletCreate("P-256", "line"))
	b.WriteString(`{"type":"nonsense"}`)
	v.drop("run.jsonl", b.Bytes())
	v.drop("bad.json", transfer(w, "bad", "bad", "1", `"surprise":true`))
	v.drop("other.json", testbed.Transfer(w, "impostor"))
	return v
}

// copyOf copies a volume on which nothing runs.
func copyOf(t *testing.T, from *volume) *volume {
	t.Helper()
	v := bareVolume(t)
	tool(t, "cp", "-a", from.dir, v.dir)
	v.drops = append(v.drops, from.drops...)
	return v
}

// fault is what strace does to one system call.
type fault struct{ call, what, when string }

func (f fault) String() string { return f.call + ":" + f.what + ":when=" + f.when }

// broken runs signdropd once with a fault, and returns its exit status and the calls
// that were hit.
func (v *volume) broken(f fault, args ...string) (status int, hit []string) {
	v.t.Helper()
	status = v.begin(v.strace(f), "once", args...).wait()
	return status, v.hit()
}

// strace is the command that runs a program with a fault.
func (v *volume) strace(f fault) []string {
	words := []string{"strace", "-f", "-qq", "-o", filepath.Join(v.logs, "strace"),
		"-e", "trace=" + f.call, "-e", "inject=" + f.String()}
	if !strings.HasPrefix(f.what, "signal=") {
		words = append(words, "--seccomp-bpf") // quicker; strace 6.1 then sends no signal but the first
	}
	return append(words, "--")
}

// hit returns the calls that strace has hit.
func (v *volume) hit() (lines []string) {
	v.t.Helper()
	text, err := os.ReadFile(filepath.Join(v.logs, "strace"))
	v.ok(err)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "(INJECTED)") || strings.Contains(line, "killed by SIGKILL") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// exited fails the test unless the exit status is one of those that are documented,
// or the Go runtime gave up: it talks to itself through a file descriptor, and
// cannot do without. What it says of that may have been hit too.
func (r *run) exited(f fault) {
	r.v.t.Helper()
	switch status := r.wait(); {
	case status == 0 || status == 1 || status == 3 || status == 4:
	case status == 2 && f.call == "write" && strings.Contains(r.text()+strings.Join(r.v.hit(), ""), "netpollBreak"):
	default:
		r.v.t.Errorf("exit status %d", status)
	}
}

// visible is what the partner can see: the digest of each file by its name.
func (v *volume) visible() map[string][32]byte {
	v.t.Helper()
	seen := map[string][32]byte{}
	for _, dir := range []string{v.outbox(), v.rejected()} {
		for _, name := range v.list(dir) {
			data, err := os.ReadFile(filepath.Join(dir, name))
			v.ok(err)
			seen[filepath.Join(dir, name)] = sha256.Sum256(data)
		}
	}
	return seen
}

// recovers lets a volume that a fault has left be finished without one, and holds it
// to everything that was promised.
func (v *volume) recovers() {
	v.t.Helper()
	if _, err := os.Stat(v.path("journal", "00000001.jsonl")); err == nil { // or it was not begun
		v.check(false)
	}
	seen := v.visible()
	if status := v.once(); status != 3 && status != 0 {
		v.t.Errorf("exit status %d after the fault was gone", status)
	}
	v.check(true)
	now := v.visible()
	for name, sum := range seen {
		if now[name] != sum {
			v.t.Errorf("%s was visible after the fault and is gone or different now", name)
		}
	}
	for _, d := range v.drops {
		switch stem(d.Name) {
		case "run":
			if got := v.lines(v.await(v.outbox("run.result.jsonl"))); len(got) != 7 {
				v.t.Errorf("the batch has %d answers, want 7", len(got))
			}
			continue
		case "bad", "other", "clash1", "clash2":
			continue
		}
		// A key file that cannot be read at the time is the operator's trouble,
		// and the partner is asked to come again.
		if _, err := os.Stat(v.outbox(answerName(d.Name))); err != nil {
			if a := v.reason(d.Name); a.Code != string(reason.KeyUnusable) || !a.Retry {
				v.t.Errorf("%s is refused with %s", d.Name, a.Code)
			}
		}
	}
	v.none(v.path("work", "acme"))
	v.none(v.path("work", ".made"))
	v.none(v.inbox())
}

// TestFaults lets each system call that changes the disk fail, once and for good.
func TestFaults(t *testing.T) {
	t.Parallel()
	from, once := template(t, true), template(t, false)
	faults := map[string][]string{
		"fsync":     {"1", "2", "3", "1+", "2+"},
		"syncfs":    {"1", "2", "3", "4", "1+", "2+"},
		"renameat2": {"1", "2", "4", "8", "12", "1+", "3+", "10+"},
		"renameat":  {"1", "1+"},
		"write":     {"1", "2", "4", "8", "12", "1+", "3+", "10+"},
		"pwrite64":  {"1", "2", "1+"},
		"openat2":   {"1", "4", "8", "16", "30", "1+", "10+", "40+"},
		"mkdirat":   {"1", "2", "3", "1+", "2+"},
		"unlinkat":  {"1", "2", "1+"},
	}
	for call, whens := range faults {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			hits := 0
			for i, when := range whens {
				for j, errno := range []string{"EIO", "ENOSPC"} {
					// In short, the first, which some thread comes to, and the last, which
					// stays.
					if testing.Short() && !(i == 0 && j == 0 || i == len(whens)-1 && j == 1) {
						continue
					}
					t.Run(errno+" "+when, func(t *testing.T) {
						v := copyOf(t, from)
						if call == "openat2" {
							// One of two requests with the same bytes may be refused, and
							// the checker cannot tell which.
							v = copyOf(t, once)
						}
						f := fault{call, "error=" + errno, when}
						_, hit := v.broken(f)
						hits += len(hit)
						v.runs[0].exited(f)
						v.recovers()
						if t.Failed() {
							t.Logf("hit:\n%s", strings.Join(hit[:min(20, len(hit))], "\n"))
						}
					})
				}
			}
			if hits == 0 {
				t.Errorf("%s was never hit: what was that test good for?", call)
			}
		})
	}
}

// TestFaultsWhileServing lets calls fail for good at some time of a daemon's life.
// It may stop, or go on without what fails; it must end when it is told to.
func TestFaultsWhileServing(t *testing.T) {
	t.Parallel()
	from := template(t, false)
	faults := []fault{
		{"syncfs", "error=EIO", "3+"}, {"renameat2", "error=EIO", "4+"}, {"openat2", "error=EIO", "30+"},
		{"write", "error=ENOSPC", "8+"}, {"unlinkat", "error=EIO", "1+"}, {"mkdirat", "error=ENOSPC", "2+"},
		{"renameat2", "error=ENOSPC", "12..20"}, {"getdents64", "error=EIO", "8+"}, {"newfstatat", "error=EIO", "20+"},
	}
	if testing.Short() {
		faults = faults[:2]
	}
	for _, f := range faults {
		t.Run(f.String(), func(t *testing.T) {
			v := copyOf(t, from)
			r := v.begin(v.strace(f), "serve")
			for end := time.Now().Add(patience); !r.ended() && time.Now().Before(end); tick() {
				if len(v.list(v.inbox()))+len(v.list(v.path("work", "acme"))) == 0 || strings.Contains(r.text(), `"level":"error"`) {
					break
				}
				// What only warns is not going to be done.
				if strings.Count(r.text(), `"level":"warn"`) > 20 {
					break
				}
			}
			r.signal(syscall.SIGTERM)
			r.exited(f)
			v.recovers()
		})
	}
}

// TestKilledAt kills the program at the n-th call that makes something durable,
// visible or written.
func TestKilledAt(t *testing.T) {
	t.Parallel()
	from := template(t, true)
	last := map[string]int{"syncfs": 5, "renameat2": 36, "renameat": 1, "write": 20, "pwrite64": 3, "fsync": 8, "mkdirat": 3, "openat2": 20, "unlinkat": 3}
	for call, n := range last {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			hits := 0
			for i := 1; i <= n; i++ {
				if testing.Short() && i%5 != 1 {
					continue
				}
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					v := copyOf(t, from)
					status, hit := v.broken(fault{call, "signal=SIGKILL", fmt.Sprint(i)}, "--workers=1")
					if len(hit) > 0 {
						hits++ // each thread has a line of its own
					}
					if (status == -1) != (len(hit) > 0) {
						t.Errorf("exit status %d", status)
					}
					v.recovers()
				})
			}
			if hits == 0 {
				t.Errorf("%s was never hit: what was that test good for?", call)
			}
			t.Logf("%d of %d kills", hits, n)
		})
	}
}

// TestFirstStart kills the program, and lets calls fail, when it starts on a volume for
// the first time: the journal is begun once, and must not be taken for one that was
// erased.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	from := newVolume(t)
	from.drop("w.json", walletCreate("P-256", ""))
	for call, n := range map[string]int{"syncfs": 2, "renameat2": 4, "fsync": 8, "mkdirat": 3, "pwrite64": 1, "unlinkat": 2} {
		for i := 1; i <= n; i++ {
			for _, what := range []string{"signal=SIGKILL", "error=EIO"} {
				if testing.Short() && (i+len(what))%2 == 0 {
					continue
				}
				f := fault{call, what, fmt.Sprint(i)}
				t.Run(f.String(), func(t *testing.T) {
					v := copyOf(t, from)
					v.broken(f, "--workers=1")
					v.recovers()
				})
			}
		}
	}
}

// TestReasonStands: the reason for a refusal that is not for good has been published,
// and the program dies before the request is put away. Meanwhile what was wrong has
// been mended. The partner has been told that the request is refused, and that is
// what it stays: it is not answered behind his back.
func TestReasonStands(t *testing.T) {
	t.Parallel()
	from := newVolume(t)
	from.drop("w.json", walletCreate("P-256", ""))
	if status := from.once(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	from.drop("w.json", walletCreate("P-384", ""))
	var v *volume
	for seconds := 1; ; seconds *= 4 {
		v = copyOf(t, from)
		r := v.begin(v.strace(fault{"syncfs", fmt.Sprintf("delay_enter=%d", seconds*1_000_000), "1+"}), "once")
		v.reason("w.json")
		r.kill()
		if len(v.list(v.path("work", "acme"))) > 0 {
			break
		}
		if seconds > 10 {
			t.Fatal("the program was too quick for this test")
		}
	}
	v.ok(os.Remove(v.outbox("w.result.json")))
	v.drops = v.drops[1:] // whose answer that was
	if status := v.once(); status != 3 {
		t.Errorf("exit status %d, want 3 for the refusal", status)
	}
	v.check(true)
	v.none(v.outbox())
	if got := v.list(v.rejected()); len(got) != 3 {
		t.Errorf("rejected/ holds %q, want the request, its signature and one reason", got)
	}
}
