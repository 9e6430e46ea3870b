//go:build guest

package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signdrop/appliance/answer"
	"signdrop/tools/guest"
	"signdrop/tools/guest/control"
)

var (
	cuts     = flag.Int("cuts", 20, "how often the power is cut")
	seedFlag = flag.Uint64("seed", 0, "repeat the requests and the moments of an earlier run")
)

// TestMain removes what the test has made also if it is interrupted. The guest ends
// with this process.
func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "guest-")
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-stop
		fmt.Fprintln(os.Stderr, "stopped by", s)
		os.RemoveAll(dir)
		os.Exit(1)
	}()
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// rig is a guest with a partner.
type rig struct {
	*partner
	m      *guest.Machine
	rng    *rand.Rand // when the power is cut, and what the disk loses
	admins string     // SIGNDROP_ADMINS
	noted  string     // hash of the journal's last line, as an auditor would note it

	boots []time.Duration // from power to a mounted, checked volume
	ready []time.Duration // from there to the first answer of the door
	torn  int             // boots after which the journal had a torn end
}

// TestPowerCuts sets up a volume in a guest and cuts its power again and again, at
// its founding, under load and while it starts. Whatever was acknowledged is
// answered once, and the disk needs no repair.
func TestPowerCuts(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to have the same requests and moments again: make guest-test GUEST='-cuts %d -seed %d'", *cuts, seed)
	began := time.Now()
	m := assemble(t)
	r := &rig{
		partner: &partner{t: t, dir: t.TempDir(), addr: m.Address, rng: rand.New(rand.NewPCG(seed, 1))},
		m:       m, rng: rand.New(rand.NewPCG(seed, 2)),
	}
	t.Logf("assembled in %v", time.Since(began).Round(time.Millisecond))

	r.found()
	build := exec.Command("go", "build", "-o", r.dir, "signdrop/tools/signdrop")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building signdrop: %v\n%s", err, out)
	}
	r.meet()
	for n := range *cuts {
		r.round(n)
		if t.Failed() {
			return
		}
	}
	r.finish()
	slices.Sort(r.boots)
	slices.Sort(r.ready)
	c := m.Disk.Counts()
	t.Logf("%d cuts in %v; boot %v to %v, median %v; then ready %v to %v, median %v", *cuts, time.Since(began).Round(time.Second),
		r.boots[0], r.boots[len(r.boots)-1], r.boots[len(r.boots)/2], r.ready[0], r.ready[len(r.ready)-1], r.ready[len(r.ready)/2])
	t.Logf("%d requests, each acknowledged and answered once; openssl verified %d signatures", len(r.sent), r.verified)
	t.Logf("disk: %d writes, %d flushes, %d blocks lost in cuts; %d replays by ext4, %d torn ends of the journal", c.Writes, c.Flushes, c.Lost,
		strings.Count(m.Console(), "recovery complete"), r.torn)
}

// assemble makes a machine for a test, and shows what it said if the test fails.
func assemble(t *testing.T) *guest.Machine {
	t.Helper()
	m, err := guest.New(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guest's console:\n%s", tail(m.Console()))
			t.Logf("the appliance's log:\n%s", tail(m.Log()))
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 12000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// boot turns the guest on and mounts the volume, whose file system must need no
// repair.
func (r *rig) boot() {
	r.t.Helper()
	began := time.Now()
	r.must(r.m.Boot(r.t.Context()))
	r.must(r.m.Mount(r.t.Context()))
	r.boots = append(r.boots, time.Since(began).Round(10*time.Millisecond))
}

// serve starts the appliance.
func (r *rig) serve() {
	r.t.Helper()
	r.must(r.m.Serve(r.t.Context(), "SIGNDROP_ADMINS="+r.admins, "SIGNDROP_ADMIN_THRESHOLD=2", "SIGNDROP_ALLOW_PLAIN_KEYS=true"))
}

// startAndFail starts the appliance and cuts the power after n more writes, or when
// the door is open because there was less to write.
func (r *rig) startAndFail(n int) {
	r.t.Helper()
	open := func() int { return strings.Count(r.m.Log(), `"message":"SFTP door: ready"`) }
	before := open()
	power := r.m.Disk.FailAfter(n)
	r.serve()
	r.until("the power fails or the door opens", func() bool {
		select {
		case <-power:
			return true
		default:
			return open() > before
		}
	})
	r.m.Kill()
	r.m.Disk.Cut(r.rng)
}

// found makes the volume. Without the flag for keys in the clear nothing is made,
// and power cuts while it is made leave something that the next start completes.
func (r *rig) found() {
	r.t.Helper()
	ctx := r.t.Context()
	r.admins = r.key("ann") + "\n" + r.key("bob")
	r.must(r.m.Boot(ctx))
	r.must(r.m.Format(ctx))
	r.must(r.m.Mount(ctx))

	env := []string{"SIGNDROP_ADMINS=" + r.admins, "SIGNDROP_ADMIN_THRESHOLD=2"}
	_, err := r.m.Image(ctx, env, r.m.Entrypoint()...)
	if ee := new(guest.ExitError); !errors.As(err, &ee) || ee.Status != 1 || !strings.Contains(ee.Stderr, "not under IBM Secure Execution") {
		r.t.Fatalf("outside Secure Execution, without --allow-plain-keys: %v", err)
	}
	list, err := r.m.Run(ctx, nil, "/bin/busybox", "ls", control.Data)
	r.must(err)
	if got := strings.TrimSpace(string(list)); got != "lost+found" {
		r.t.Fatalf("it left on the volume:\n%s", got)
	}

	for range 3 {
		before := r.m.Disk.Counts()
		r.startAndFail(r.rng.IntN(100))
		after := r.m.Disk.Counts()
		r.t.Logf("founding, cut after %d writes and %d flushes", after.Writes-before.Writes, after.Flushes-before.Flushes)
		r.boot()
	}
	r.serve()
}

// meet: the partner gets the host key, the administrators make the company, and the
// partner makes wallets, all by the programs that people have.
func (r *rig) meet() {
	r.t.Helper()
	fingerprint := regexp.MustCompile(`"fingerprint":"(SHA256:[^"]+)"[^\n]*"message":"SFTP door: host key"`)
	r.until("the door tells its host key", func() bool { return fingerprint.MatchString(r.m.Log()) })
	host, port, _ := strings.Cut(r.addr, ":")
	var scan error
	for range 10 {
		var out string
		if out, scan = r.tool("ssh-keyscan", "-T", "20", "-t", "ed25519", "-p", port, host); scan == nil {
			lines := slices.DeleteFunc(strings.SplitAfter(out, "\n"), func(l string) bool { return strings.HasPrefix(l, "#") })
			r.write("hosts", []byte(strings.Join(lines, "")))
			break
		}
	}
	r.must(scan)
	shown, err := r.tool("ssh-keygen", "-l", "-f", "hosts")
	r.must(err)
	if logged := fingerprint.FindStringSubmatch(r.m.Log())[1]; !strings.Contains(shown, logged) {
		r.t.Fatalf("the log says %s, the door shows %s", logged, shown)
	}

	confined := regexp.MustCompile(`"landlock":[1-9][^\n]*"keys_closed":true[^\n]*"message":"SFTP door: what is enforced"`)
	if !confined.MatchString(r.m.Log()) || !strings.Contains(r.m.Log(), `"own_user":true`) {
		r.t.Error("the door is not confined as it should be")
	}
	// With landlock above 0 it has tried to open files outside, in vain.
	shut := regexp.MustCompile(`"landlock":([1-9]\d*)[^\n]*"message":"what is enforced"`).FindStringSubmatch(r.m.Log())
	if shut == nil {
		r.t.Fatal("the signer has a door and is not shut in")
	}
	r.t.Logf("Landlock %s shuts the signer and its door in", shut[1])

	acme := r.key(company)
	command, err := json.Marshal(map[string]any{"type": "company.create", "company": company, "signers": []string{acme}, "authorized_keys": []string{acme}})
	r.must(err)
	r.write("company.json", command)
	lines := []string{}
	for _, who := range []string{"ann", "bob"} {
		_, err := r.tool("ssh-keygen", "-q", "-Y", "sign", "-n", "admin@signdrop", "-f", who, "company.json")
		r.must(err)
		r.must(os.Rename(r.path("company.json.sig"), r.path("company.json."+who+".sig")))
		lines = append(lines, "put company.json."+who+".sig inbox/")
	}
	r.must(r.sftp("admin", "ann", append(lines, "put company.json inbox/")...))
	r.until("the company is made", func() bool { return r.sftp("admin", "bob", "get outbox/company.result.json") == nil })
	r.login()
	r.opens() // who may log in holds a second later

	for _, curve := range []string{"P-256", "P-384", "secp256k1"} {
		u := &upload{name: "wallet-" + curve + ".json", data: fmt.Appendf(nil, `{"type":"wallet.create","curve":%q}`, curve)}
		r.write(u.name, u.data)
		out, err := r.submit(r.t.Context(), u.name)
		r.must(err)
		if !strings.HasPrefix(out, "answered\t"+u.name+"\t") {
			r.t.Fatalf("signdrop submit says:\n%s", out)
		}
		r.must(r.sftp(company, company, "get outbox/wallet-"+curve+".result.json answer"))
		a, err := answer.Parse(bytes.TrimSpace(r.read("answer")))
		r.must(err)
		r.wallets = append(r.wallets, a.Wallet)
		u.acked, u.answer = true, r.read("answer")
		u.sig = r.sign(u.data)
		r.sent = append(r.sent, u)
	}
}

// opens waits until the partner can log in.
func (r *rig) opens() {
	r.t.Helper()
	r.until("the door opens", func() bool {
		s, err := r.dial(r.t.Context())
		if err == nil {
			s.Close()
		}
		return err == nil
	})
}

// submit is what the manual tells partners to use.
func (r *rig) submit(ctx context.Context, file string) (string, error) {
	cmd := exec.CommandContext(ctx, "./signdrop", "submit", "--spool", "sftp://"+company+"@"+r.addr, "--key", company,
		"--known-hosts", "hosts", "--wait", "--timeout", "5m", file)
	cmd.Dir = r.dir
	cmd.Env = []string{"HOME=" + r.dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("signdrop submit: %w\n%s", err, out)
	}
	return string(out), err
}

// round is one power cut and what comes after it.
func (r *rig) round(n int) {
	r.t.Helper()
	began := time.Now()
	// A program of the partner's that goes on waiting through the cut.
	patient := r.patient(n)

	// The power fails at some moment, or after some write of the disk's.
	load, fail := context.WithCancel(r.t.Context())
	writes := -1
	span := time.Second + time.Duration(r.rng.Int64N(int64(4*time.Second))) // the login takes half a second
	var power <-chan struct{}
	if r.rng.IntN(2) == 0 {
		writes = r.rng.IntN(1000)
		power, span = r.m.Disk.FailAfter(writes), 30*time.Second
	}
	before := len(r.sent)
	timer := time.NewTimer(span)
	go func() {
		select {
		case <-power:
		case <-timer.C:
		}
		r.m.Kill()
		fail()
	}()
	r.load(load, 3)
	<-load.Done()
	loaded := time.Since(began)
	r.m.Disk.Cut(r.rng)

	// Now and then the power fails again while the appliance starts.
	again := ""
	for r.rng.IntN(3) == 0 {
		r.boot()
		r.judge(false)
		after := r.rng.IntN(40)
		again += fmt.Sprintf(", and %d writes after the start", after)
		r.startAndFail(after)
	}

	r.boot()
	report := r.judge(false)
	start := time.Now()
	r.serve()
	r.opens()
	r.ready = append(r.ready, time.Since(start).Round(10*time.Millisecond))
	patient()
	r.settle(false)
	r.repeat(2)
	when := fmt.Sprintf("%v after the load began", loaded.Round(time.Millisecond))
	if writes >= 0 {
		when = fmt.Sprintf("after %d writes", writes)
	}
	r.t.Logf("cut %d: %s%s; %d requests, the disk had %s; boot %v, ready %v, all %v", n+1, when, again, len(r.sent)-before, report,
		r.boots[len(r.boots)-1], r.ready[len(r.ready)-1], time.Since(began).Round(10*time.Millisecond))
}

// patient starts "signdrop submit --wait" and returns what waits for its end. If it
// was stopped before its first connection, it is run again, as its user would.
func (r *rig) patient(n int) func() {
	u := &upload{name: fmt.Sprintf("patient-%d.json", n), data: fmt.Appendf(nil, `{"type":"wallet.create","curve":"P-256","reference":"patient %d"}`, n)}
	r.write(u.name, u.data)
	done := make(chan error, 1)
	go func() {
		_, err := r.submit(r.t.Context(), u.name)
		done <- err
	}()
	return func() {
		r.t.Helper()
		if err := <-done; err != nil {
			r.t.Logf("again: %v", err)
			_, err = r.submit(r.t.Context(), u.name)
			r.must(err)
		}
		u.sig, u.acked = r.sign(u.data), true
		r.sent = append(r.sent, u)
	}
}

// judge holds the volume, on which nothing runs, to all promises, and returns what
// there was.
func (r *rig) judge(atRest bool) string {
	r.t.Helper()
	ctx := r.t.Context()
	args := []string{"/usr/bin/signdrop", "journal", "verify", "--json"}
	if r.noted != "" {
		args = append(args, "--noted", r.noted)
	}
	out, err := r.m.Image(ctx, nil, args...)
	r.must(err)
	var journal struct {
		Lines int               `json:"lines"`
		Last  string            `json:"last"`
		Void  []json.RawMessage `json:"void"`
	}
	r.must(json.Unmarshal(out, &journal))
	r.noted = journal.Last
	if len(journal.Void) > 0 {
		r.torn++
	}
	args = []string{"/bin/judge", control.Data}
	if atRest {
		args = []string{"/bin/judge", "-at-rest", control.Data}
	}
	report, err := r.m.Run(ctx, r.drops(), args...)
	r.must(err)
	return fmt.Sprintf("%d lines, %s", journal.Lines, bytes.TrimSpace(report))
}

// finish stops the appliance as a runtime does and looks at everything once more.
func (r *rig) finish() {
	r.t.Helper()
	r.settle(true)
	status, err := r.m.Stop(r.t.Context())
	r.must(err)
	if status != 0 {
		r.t.Errorf("signdropd ended with exit status %d", status)
	}
	r.t.Logf("at rest: %s", r.judge(true))
	r.must(r.m.Unmount(r.t.Context()))
}
