package main_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/checker"
	"signdrop/appliance/journal"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/spool/durable"
)

// patience is how long a condition may take to come true before a test gives up.
// It is never waited for when all is well.
const patience = 3 * time.Minute

// volume is a data volume with the company acme, on the real disk, and the runs of
// signdropd on it.
type volume struct {
	t     testing.TB
	dir   string
	acme  *testbed.Partner
	drops []checker.Drop
	logs  string // directory
	runs  []*run
}

// newVolume makes a volume. Beside acme's usual signer it lets in the keys given,
// OpenSSH lines or PEM.
func newVolume(t testing.TB, keys ...[]byte) *volume {
	t.Helper()
	v := bareVolume(t)
	keys = append(keys, []byte(v.acme.PublicKey()))
	plan := setup.Plan{Company: "acme"}
	for i, k := range keys {
		s, err := setup.ReadSigner(k, fmt.Sprintf("signer%d", i))
		v.ok(err)
		plan.Signers = append(plan.Signers, s)
	}
	report, err := setup.MakeDisk(v.dir, plan)
	v.ok(err)
	if report.Wrong() {
		t.Fatalf("the new volume is not in order: %+v", report.Items)
	}
	v.ok(os.Remove(v.outbox(setup.NoticeFile))) // as partners do who have read it
	return v
}

// bareVolume is a volume whose directory the caller makes.
func bareVolume(t testing.TB) *volume {
	t.Helper()
	v := &volume{t: t, dir: filepath.Join(t.TempDir(), "data"), acme: testbed.NewPartner("acme"), logs: t.TempDir()}
	t.Cleanup(func() {
		for _, r := range v.runs {
			r.end()
			if !r.over && r.cmd.ProcessState.Exited() {
				r.logLines()
			}
		}
		if t.Failed() {
			v.showLogs()
		}
	})
	return v
}

func (v *volume) ok(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) path(elem ...string) string {
	return filepath.Join(append([]string{v.dir}, elem...)...)
}

func (v *volume) inbox(elem ...string) string {
	return v.path(append([]string{"spool", "acme", "inbox"}, elem...)...)
}

func (v *volume) outbox(elem ...string) string {
	return v.path(append([]string{"spool", "acme", "outbox"}, elem...)...)
}

func (v *volume) rejected(elem ...string) string {
	return v.path(append([]string{"spool", "acme", "rejected"}, elem...)...)
}

// run is one process of signdropd, or strace with one below it.
type run struct {
	v    *volume
	what string
	over bool // there is strace over it
	cmd  *exec.Cmd
	log  string // path of its standard error
	done chan struct{}
	err  error // of Wait; set when done is closed
}

// flags are what the tests run signdropd with, unless they say otherwise: a file
// that is wrong is refused soon. One whose signature is on its way is not, however
// slow this machine is.
var flags = []string{
	"--allow-plain-keys", "--log-format=json", "--log-level=debug", "--reserve=1",
	"--still=300ms", "--sig-wait=1m", "--rescan=200ms",
}

// begin starts signdropd with the words before it, of strace or another program that
// runs what follows.
func (v *volume) begin(before []string, command string, args ...string) *run {
	v.t.Helper()
	words := append(append(append([]string{}, before...), program...), command, "--data="+v.dir)
	r := v.beginWords(append(append(words, flags...), args...))
	r.over = len(before) > 0 && before[0] == "strace"
	r.what = strings.Join(append(append([]string{}, before...), append([]string{command}, args...)...), " ")
	return r
}

// beginWords starts a whole command line.
func (v *volume) beginWords(words []string) *run {
	v.t.Helper()
	r := &run{v: v, what: strings.Join(words, " ")}
	r.log = filepath.Join(v.logs, fmt.Sprintf("%03d.log", len(v.runs)))
	out, err := os.Create(r.log)
	v.ok(err)
	defer out.Close()
	r.cmd = exec.Command(words[0], words[1:]...)
	r.cmd.Stdout, r.cmd.Stderr = out, out
	r.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=1"}
	v.ok(r.cmd.Start())
	r.done = make(chan struct{})
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	v.runs = append(v.runs, r)
	return r
}

// serve starts signdropd serve and waits until it is ready.
func (v *volume) serve(args ...string) *run {
	v.t.Helper()
	r := v.begin(nil, "serve", args...)
	r.logged(`"message":"ready"`)
	return r
}

// once runs signdropd once and returns its exit status.
func (v *volume) once(args ...string) int {
	v.t.Helper()
	r := v.begin(nil, "once", args...)
	return r.wait()
}

// wait returns the exit status of a run that ends by itself, -1 if a signal ended it.
func (r *run) wait() int {
	r.v.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.signal(syscall.SIGQUIT) // for its goroutines
		r.v.t.Fatalf("%s does not end", r.what)
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// signal sends a signal to signdropd, if it runs still. strace blocks what is sent to
// itself, and does not take signdropd along when it is killed.
func (r *run) signal(sig syscall.Signal) {
	pid := r.cmd.Process.Pid
	if r.over {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil || len(text) == 0 {
			return // ended
		}
		child, err := strconv.Atoi(strings.Fields(string(text))[0])
		r.v.ok(err)
		pid = child
	}
	if !r.ended() {
		syscall.Kill(pid, sig)
	}
}

// stop ends a run with SIGTERM; it must exit with 0.
func (r *run) stop() {
	r.v.t.Helper()
	r.signal(syscall.SIGTERM)
	if status := r.wait(); status != 0 {
		r.v.t.Fatalf("%s: exit status %d after SIGTERM", r.what, status)
	}
}

// kill ends a run with SIGKILL.
func (r *run) kill() {
	r.signal(syscall.SIGKILL)
	<-r.done
}

// end is for cleaning up.
func (r *run) end() {
	if !r.ended() {
		r.kill()
	}
}

func (r *run) text() string {
	b, err := os.ReadFile(r.log)
	r.v.ok(err)
	return string(b)
}

// logged waits until the log has the text.
func (r *run) logged(text string) {
	r.v.t.Helper()
	r.v.until("the log has "+text, func() bool { return strings.Contains(r.text(), text) })
}

// showLogs shows the last runs' logs.
func (v *volume) showLogs() {
	const runs, most = 4, 24 << 10
	for _, r := range v.runs[max(0, len(v.runs)-runs):] {
		text, _ := os.ReadFile(r.log)
		if cut := len(text) - most; cut > 0 {
			text = append([]byte("…"), text[cut:]...)
		}
		v.t.Logf("log of %s:\n%s", r.what, text)
	}
}

func (v *volume) until(what string, cond func() bool) {
	v.t.Helper()
	for end := time.Now().Add(patience); !cond(); tick() {
		if n := len(v.runs); n > 0 && v.runs[n-1].ended() && !cond() {
			v.t.Fatalf("%s has ended (%v), and it is not so that %s", v.runs[n-1].what, v.runs[n-1].err, what)
		}
		if time.Now().After(end) {
			v.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// tick gives the other side of a condition time to run.
func tick() { time.Sleep(2 * time.Millisecond) }

// await returns a file's content once it is there.
func (v *volume) await(path string) []byte {
	v.t.Helper()
	var data []byte
	v.until(strings.TrimPrefix(path, v.dir+"/")+" is there", func() bool {
		var err error
		data, err = os.ReadFile(path)
		return err == nil
	})
	return data
}

// tool runs a program that must succeed, and returns what it prints.
func tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// drop moves a request that acme signed into the inbox, the signature first, and
// remembers it for the checker.
func (v *volume) drop(name string, data []byte) {
	v.t.Helper()
	v.dropSigned(name, data, v.acme.Sign(data))
}

func (v *volume) dropSigned(name string, data, sig []byte) {
	v.t.Helper()
	v.move(drop{name, data, sig})
}

// drop is a request with its signature, nil for none.
type drop struct {
	name      string
	data, sig []byte
}

// move moves requests into the inbox with one mv, each after its signature.
func (v *volume) move(drops ...drop) {
	v.t.Helper()
	desk, err := os.MkdirTemp(filepath.Dir(v.dir), "desk")
	v.ok(err)
	args := []string{"-t", v.inbox()}
	put := func(name string, data []byte) {
		args = append(args, filepath.Join(desk, name))
		v.ok(os.WriteFile(filepath.Join(desk, name), data, 0o600))
	}
	for _, d := range drops {
		if d.sig != nil {
			put(d.name+".sig", d.sig)
		}
		put(d.name, d.data)
		v.drops = append(v.drops, checker.Drop{Company: "acme", Name: d.name, Data: d.data})
	}
	out, err := exec.Command("mv", args...).CombinedOutput()
	// GNU mv 9 looks at each file but the last after it has moved it, and
	// complains if we were quicker.
	if left := v.list(desk); err != nil && len(left) > 0 {
		v.t.Fatalf("mv: %v\n%s", err, out)
	}
	v.ok(os.Remove(desk))
}

// ask drops a request and returns its answer.
func (v *volume) ask(name string, data []byte) *answer.Answer {
	v.t.Helper()
	v.drop(name, data)
	return v.parse(v.await(v.outbox(answerName(name))))
}

// put gives a file its name in one step: a file that is half written can be refused
// before the other half comes.
func (v *volume) put(path string, data []byte) {
	v.t.Helper()
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	v.ok(os.WriteFile(hidden, data, 0o600))
	v.ok(os.Rename(hidden, path))
}

// refused drops a request and returns the reason why it is refused.
func (v *volume) refused(name string, data []byte) *answer.Answer {
	v.t.Helper()
	v.drop(name, data)
	return v.reason(name)
}

// reason returns the reason that was given for a name, and fails unless it is
// complete.
func (v *volume) reason(name string) *answer.Answer {
	v.t.Helper()
	a := v.parse(v.await(v.rejected(stem(name) + ".reason.json")))
	if a.Verdict != "refused" || a.Code == "" || a.Message == "" || a.Hint == "" {
		v.t.Errorf("the reason for %s is not complete: %+v", name, a)
	}
	return a
}

func (v *volume) parse(data []byte) *answer.Answer {
	v.t.Helper()
	a, err := answer.Parse(data)
	if err != nil {
		v.t.Fatalf("%v in %s", err, data)
	}
	return a
}

// lines parses the answer to a batch.
func (v *volume) lines(data []byte) (as []*answer.Answer) {
	v.t.Helper()
	for line := range bytes.Lines(data) {
		as = append(as, v.parse(line))
	}
	return as
}

// wallet makes a wallet and returns its id.
func (v *volume) wallet(curve string) string {
	v.t.Helper()
	return v.ask("wallet-"+curve+".json", walletCreate(curve, "")).Wallet
}

func walletCreate(curve, reference string) []byte {
	if reference != "" {
		reference = fmt.Sprintf(`,"reference":%q`, reference)
	}
	return fmt.Appendf(nil, `{"type":"wallet.create","curve":%q%s}`+"\n", curve, reference)
}

func stem(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, ".jsonl"), ".json")
}

func answerName(name string) string {
	return stem(name) + ".result" + strings.TrimPrefix(name, stem(name))
}

// list returns the names in a directory, none if it is not there.
func (v *volume) list(path string) []string {
	v.t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

// none fails the test unless the directory is empty.
func (v *volume) none(path string) {
	v.t.Helper()
	if names := v.list(path); len(names) > 0 {
		v.t.Errorf("%s is not empty: %q", strings.TrimPrefix(path, v.dir+"/"), names)
	}
}

// finished waits until nothing is left in the inbox and in work/.
func (v *volume) finished() {
	v.t.Helper()
	v.until("inbox and work are empty", func() bool {
		return len(v.list(v.inbox())) == 0 && len(v.list(v.path("work", "acme"))) == 0
	})
}

// check holds the volume, on which nothing runs, to the appliance's promises.
func (v *volume) check(atRest bool) *checker.Report {
	v.t.Helper()
	for _, r := range v.runs {
		if !r.ended() {
			v.t.Errorf("%s is at work while its volume is checked", r.what)
		}
	}
	disk, err := durable.OpenDisk(v.dir)
	v.ok(err)
	defer disk.Close()
	rep, err := checker.Check(disk, v.drops, atRest, verifyAnswer)
	if err != nil {
		v.t.Errorf("the volume is not in order:\n%v", err)
	}
	if atRest {
		v.checkNames()
		v.checkVerdicts()
	}
	return rep
}

// checkNames looks for temporary names on the whole volume.
func (v *volume) checkNames() {
	v.t.Helper()
	v.ok(filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, rel := d.Name(), strings.TrimPrefix(path, v.dir+"/")
		if rel == "work/.made" || strings.HasPrefix(rel, "spool/acme/inbox/") {
			return nil
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".new") || strings.HasSuffix(name, ".tmp") {
			v.t.Errorf("a temporary name is left: %s", rel)
		}
		return nil
	}))
}

// checkVerdicts sees to it that no request has both an answer and a reason under
// the same name, however it came to them.
func (v *volume) checkVerdicts() {
	v.t.Helper()
	type verdict struct{ name, request string }
	refused := map[verdict]string{}
	for _, name := range v.list(v.rejected()) {
		if strings.HasSuffix(name, ".reason.json") {
			data, err := os.ReadFile(v.rejected(name))
			v.ok(err)
			a := v.parse(data)
			refused[verdict{a.Name, a.Request}] = a.Code
		}
	}
	for _, d := range v.drops {
		data, err := os.ReadFile(v.outbox(answerName(d.Name)))
		if err != nil {
			continue
		}
		request := fmt.Sprintf("%x", sha256.Sum256(d.Data))
		code, both := refused[verdict{d.Name, request}]
		if both && bytes.Contains(data, []byte(request)) {
			v.t.Errorf("%s (%.16s) was refused with %s and answered too", d.Name, request, code)
		}
	}
}

// verifyAnswer checks a signature made with a key on a NIST curve. Those on
// secp256k1 have a test of their own.
func verifyAnswer(a *answer.Answer) error {
	if strings.Contains(a.Algorithm, "secp256k1") {
		return nil
	}
	return testbed.VerifyAnswer(a)
}

// events returns what the journal says, but for starts and stops.
func (v *volume) events() (evs []*journal.Event) {
	v.t.Helper()
	disk, err := durable.OpenDisk(v.dir)
	v.ok(err)
	defer disk.Close()
	root, err := disk.Root()
	v.ok(err)
	defer root.Close()
	dir, err := root.Sub("journal")
	v.ok(err)
	defer dir.Close()
	v.ok(journal.Each(dir, func(_ journal.Place, ev *journal.Event) error {
		switch ev.Kind {
		case "start", "stop", "continue":
		default:
			evs = append(evs, ev)
		}
		return nil
	}))
	return evs
}

// entries counts the journal's entries about a request, those of its lines left
// out.
func (v *volume) entries(data []byte) (n int) {
	v.t.Helper()
	for _, ev := range v.events() {
		if ev.Request == sha256.Sum256(data) && ev.Kind != "line" {
			n++
		}
	}
	return n
}

// logLines parses a log, every line of which must be a JSON object with a level, a
// time and a message.
func (r *run) logLines() (lines []map[string]any) {
	r.v.t.Helper()
	sc := bufio.NewScanner(strings.NewReader(r.text()))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var m map[string]any
		if err := json.Unmarshal(sc.Bytes(), &m); err != nil {
			r.v.t.Errorf("%s: log line is not JSON: %v: %s", r.what, err, sc.Text())
			continue
		}
		for _, field := range []string{"level", "time", "message"} {
			if s, _ := m[field].(string); s == "" {
				r.v.t.Errorf("%s: log line has no %s: %s", r.what, field, sc.Text())
			}
		}
		lines = append(lines, m)
	}
	r.v.ok(sc.Err())
	return lines
}
