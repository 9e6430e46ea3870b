package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"signdrop/appliance"
	"signdrop/spool/durable"
	"signdrop/tools/signdrop/courier/nodetest"
)

// journey is an appliance, a node, and signdrop as a program of its own between them.
type journey struct {
	*testing.T
	dir  string
	node *nodetest.Node
	bin  []string // what runs signdrop
	url  string
}

func newJourney(t *testing.T) *journey {
	t.Helper()
	j := &journey{T: t, dir: t.TempDir(), node: nodetest.New()}
	t.Cleanup(j.node.Close)
	j.url = j.node.URL
	self, err := os.Executable()
	j.ok(err)
	// testscript makes this test signdrop where that is its name.
	j.bin = []string{j.path("signdrop")}
	j.ok(os.Symlink(self, j.bin[0]))
	if emulator, err := os.Readlink("/proc/thread-self/exe"); err == nil && emulator != self {
		j.bin = []string{emulator, "-0", "signdrop", self}
	}
	j.tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice@acme", "-f", j.path("key"))
	j.program(0, "init", "--data", j.path("data"), "--company", "acme", "--signer", j.path("key.pub"))
	return j
}

func (j *journey) ok(err error) {
	j.Helper()
	if err != nil {
		j.Fatal(err)
	}
}

func (j *journey) path(elem ...string) string {
	return filepath.Join(append([]string{j.dir}, elem...)...)
}
func (j *journey) spool(elem ...string) string {
	return j.path(append([]string{"data", "spool", "acme"}, elem...)...)
}

func (j *journey) tool(name string, args ...string) {
	j.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		j.Fatalf("%s: %v: %s", name, err, out)
	}
}

func (j *journey) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(j.Context(), j.bin[0], append(slices.Clone(j.bin[1:]), args...)...)
	cmd.Dir = j.dir
	cmd.Env = j.env()
	return cmd
}

// env keeps the race detector, where it is in, from waiting a second at each exit.
func (j *journey) env() []string {
	return append(os.Environ(), "HOME="+j.dir, "GORACE=atexit_sleep_ms=0")
}

// program runs signdrop, wants an exit code (-1: killed) and returns what it says.
func (j *journey) program(code int, args ...string) string {
	j.Helper()
	return j.wait(code, j.command(args...))
}

func (j *journey) wait(code int, cmd *exec.Cmd) string {
	j.Helper()
	out, err := cmd.CombinedOutput()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		j.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		j.Fatalf("%v: exit code %d, want %d: %s", cmd.Args, got, code, out)
	}
	return string(out)
}

func (j *journey) courierArgs(args ...string) []string {
	return append([]string{"courier", "--outbox", j.spool("outbox"), "--state", j.path("state"), "--node", j.url,
		"--inbox", j.spool("inbox"), "--key", j.path("key"), "--once", "--backoff=1ms", "--settle=1ms"}, args...)
}

func (j *journey) courier(code int, args ...string) string {
	j.Helper()
	return j.program(code, j.courierArgs(args...)...)
}

// appliance lets the appliance answer what lies in the inbox.
func (j *journey) appliance() {
	j.Helper()
	disk, err := durable.OpenDisk(j.path("data"))
	j.ok(err)
	defer disk.Close()
	a, err := appliance.Open(disk, appliance.Config{ID: "SD_0000000000000000", AllowNew: true, Log: zerolog.Nop()})
	j.ok(err)
	j.ok(a.Once(context.Background()))
	j.ok(a.Close())
}

func (j *journey) ask(name, request string) {
	j.Helper()
	j.ok(os.WriteFile(j.path(name), []byte(request), 0o600))
	j.program(0, "submit", "--spool", j.spool(), "--key", j.path("key"), j.path(name))
	j.appliance()
}

func (j *journey) answer(name string) (a struct{ Wallet, Address, Code string }) {
	j.Helper()
	data, err := os.ReadFile(j.spool("outbox", name))
	j.ok(err)
	j.ok(json.Unmarshal(data, &a))
	return a
}

// wallet makes a wallet and, by the courier, its address.
func (j *journey) wallet() (id, address string) {
	j.Helper()
	j.ask("wallet.json", `{"type":"wallet.create","curve":"P-256"}`)
	id = j.answer("wallet.result.json").Wallet
	out := j.courier(0)
	if !strings.Contains(out, "registered\twallet.result.json\tMT") || !strings.Contains(out, "bind\twallet.result.json\tbind-"+id+".json\n") {
		j.Fatalf("the courier says %s", out)
	}
	j.appliance()
	bound := j.answer("bind-" + id + ".result.json")
	if bound.Wallet != id || bound.Address != j.node.Order[0] {
		j.Fatalf("the binding is %+v", bound)
	}
	return id, bound.Address
}

// pay asks for a transfer with the present nonce.
func (j *journey) pay(name, wallet, from, to string) {
	j.Helper()
	nonce := strings.TrimSpace(j.program(0, "courier", "nonce", "--node", j.url, from))
	j.ask(name, fmt.Sprintf(`{"type":"sign","wallet":%q,"metacoin":{"operation":"transfer","from":%q,"to":%q,"token":"0","amount":"7","memo":"a+b","nonce":%q}}`, wallet, from, to, nonce))
}

// other is an address that is not ours.
func (j *journey) other() string {
	j.Helper()
	j.tool("openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", j.path("other.pem"))
	j.tool("openssl", "pkey", "-in", j.path("other.pem"), "-pubout", "-out", j.path("other.pub"))
	key, err := os.ReadFile(j.path("other.pub"))
	j.ok(err)
	return j.node.Add(string(key))
}

// TestJourney goes the whole way: a wallet, its address, a payment, once.
func TestJourney(t *testing.T) {
	j := newJourney(t)
	id, from := j.wallet()
	to := j.other()
	j.pay("pay.json", id, from, to)
	if out := j.courier(0); !strings.Contains(out, "sent\tpay.result.json\t") {
		t.Fatalf("the courier says %s", out)
	}
	j.carried(1)
	if out := j.courier(0); strings.Contains(out, "\tpay.result.json\t") {
		t.Fatalf("the courier says %s", out)
	}
	// Another state directory knows nothing: the ledger's nonce refuses the second.
	j.courier(3, "--state", j.path("other-state"))
	j.carried(1)
	if n := j.node.Addresses(); n != 2 {
		t.Errorf("there are %d addresses", n)
	}
	if out := j.program(0, "courier", "nonce", "--json", "--node", j.url, from); !strings.Contains(out, `"nonce":"`+j.node.Nonce(from)+`"`) {
		t.Errorf("the nonce is printed as %s", out)
	}
	j.program(2, "courier", "nonce", "--node", j.url, "MTnobody")
}

func (j *journey) carried(n int) {
	j.Helper()
	if got := j.node.Done(); got != n {
		j.Fatalf("the ledger carried out %d transactions, want %d", got, n)
	}
}

// TestCourierKilledByNode kills the courier while the node has its call: before it is
// carried out, and after, before the answer.
func TestCourierKilledByNode(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprint("after=", after), func(t *testing.T) {
			j := newJourney(t)
			j.ask("wallet.json", `{"type":"wallet.create","curve":"P-256"}`)
			j.killed("POST /address", after)
			if n, want := j.node.Addresses(), map[bool]int{false: 0, true: 1}[after]; n != want {
				t.Fatalf("there are %d addresses, want %d", n, want)
			}
			id, from := j.wallet()
			to := j.other()
			if n := j.node.Addresses(); n != 2 {
				t.Fatalf("there are %d addresses, want 2", n)
			}
			j.pay("pay.json", id, from, to)
			j.killed("POST /transfer", after)
			if after {
				// Nobody knows that it was the first that has used up the nonce.
				if out := j.courier(1); !strings.Contains(out, "uncertain\tpay.result.json\t") {
					t.Fatalf("the courier says %s", out)
				}
			} else {
				j.courier(0)
			}
			j.carried(1)
			j.courier(0)
			j.carried(1)
		})
	}
}

// killed runs the courier and kills it when its call to a route is with the node.
func (j *journey) killed(route string, after bool) {
	j.Helper()
	var cmd *exec.Cmd
	started := make(chan struct{})
	kill := func() {
		<-started
		cmd.Process.Kill()
		cmd.Process.Wait()
	}
	j.fault(func(r string, _ int) nodetest.Fault {
		switch {
		case r != route:
			return nodetest.Fault{}
		case after:
			return nodetest.Fault{After: kill, CutAfter: true}
		}
		return nodetest.Fault{Before: kill, CutBefore: true}
	})
	cmd = j.command(j.courierArgs()...)
	j.ok(cmd.Start())
	close(started)
	cmd.Wait()
	if cmd.ProcessState != nil && cmd.ProcessState.Exited() {
		j.Fatalf("the courier was not killed: %v", cmd.ProcessState)
	}
	j.fault(nil)
}

func (j *journey) fault(f func(string, int) nodetest.Fault) {
	j.node.Lock()
	defer j.node.Unlock()
	j.node.Fault = f
}

// TestTwoCouriers: the second is refused while the first works, and only then.
func TestTwoCouriers(t *testing.T) {
	j := newJourney(t)
	j.ask("wallet.json", `{"type":"wallet.create","curve":"P-256"}`)
	j.fault(func(r string, _ int) nodetest.Fault {
		if r != "POST /address" {
			return nodetest.Fault{}
		}
		return nodetest.Fault{Before: func() {
			out, err := j.command(j.courierArgs()...).CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte("another courier works with")) {
				t.Errorf("the second courier: %v: %s", err, out)
			}
		}}
	})
	j.courier(0)
	if n := j.node.Addresses(); n != 1 {
		t.Errorf("there are %d addresses", n)
	}
}

// TestForgedAnswer: an answer that was altered on its way is not sent.
func TestForgedAnswer(t *testing.T) {
	j := newJourney(t)
	id, from := j.wallet()
	j.pay("pay.json", id, from, j.other())
	path := j.spool("outbox", "pay.result.json")
	good, err := os.ReadFile(path)
	j.ok(err)
	j.ok(os.WriteFile(path, bytes.ReplaceAll(good, []byte("|7|"), []byte("|9|")), 0o600))
	if out := j.courier(3); !strings.Contains(out, "forged\tpay.result.json\tthe signature does not verify") {
		t.Errorf("the courier says %s", out)
	}
	j.carried(0)
	j.ok(os.WriteFile(path, good, 0o600))
	j.ok(os.Mkdir(j.path("done"), 0o700))
	j.courier(0, "--done", j.path("done"))
	j.carried(1)
	if _, err := os.Stat(path); err == nil {
		t.Error("the answer was not moved")
	}
	moved, err := os.ReadFile(j.path("done", "pay.result.json"))
	j.ok(err)
	if !bytes.Equal(moved, good) {
		t.Error("the moved answer is another")
	}
}

// TestCertificate: a node with a certificate of an unknown issuer gets nothing, with
// --ca it does.
func TestCertificate(t *testing.T) {
	j := newJourney(t)
	plain := j.node
	defer plain.Close()
	j.node = nodetest.NewTLS()
	t.Cleanup(j.node.Close)
	j.url = j.node.URL
	j.ask("wallet.json", `{"type":"wallet.create","curve":"P-256"}`)
	if out := j.courier(4, "--retry-for=1ms"); !strings.Contains(out, "certificate") {
		t.Errorf("the courier says %s", out)
	}
	if len(j.node.Requests) != 0 {
		t.Errorf("requests came: %v", j.node.Requests)
	}
	j.ok(os.WriteFile(j.path("ca.pem"), j.node.CertificatePEM(), 0o600))
	j.courier(0, "--ca", j.path("ca.pem"))
	if n := j.node.Addresses(); n != 1 {
		t.Errorf("there are %d addresses", n)
	}
}

// TestProxy: what is sent goes through the proxy, its password is in no output, and
// the environment's proxy is not asked.
func TestProxy(t *testing.T) {
	j := newJourney(t)
	target, err := url.Parse(j.url)
	j.ok(err)
	seen := 0
	forward := httputil.NewSingleHostReverseProxy(target)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); user != "u" || password != "hush" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		seen++
		forward.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	j.ask("wallet.json", `{"type":"wallet.create","curve":"P-256"}`)
	at := strings.TrimPrefix(proxy.URL, "http://")
	j.courier(1, "--proxy", "http://u:wrong@"+at)
	if out := j.courier(0, "--proxy", "http://u:hush@"+at); strings.Contains(out, "hush") || seen == 0 {
		t.Errorf("%d requests went through the proxy: %s", seen, out)
	}
	if n := j.node.Addresses(); n != 1 {
		t.Errorf("there are %d addresses", n)
	}
	filepath.WalkDir(j.path("state"), func(path string, _ os.DirEntry, err error) error {
		if data, err := os.ReadFile(path); err == nil && (bytes.Contains(data, []byte("hush")) || bytes.Contains(data, []byte("wrong"))) {
			t.Errorf("%s has the password", path)
		}
		return err
	})
	// A proxy that is not there: the password stays hidden in the error too.
	j.ask("second.json", `{"type":"wallet.create","curve":"P-256","reference":"2"}`)
	if out := j.courier(4, "--retry-for=1ms", "--proxy", "http://u:hush@127.0.0.1:1"); strings.Contains(out, "hush") {
		t.Errorf("the output has the password: %s", out)
	}
	cmd := j.command(j.courierArgs("--timeout=1m")...)
	cmd.Env = append(cmd.Env, "HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1")
	j.wait(0, cmd)
}

// TestCourierSignal: SIGTERM ends it in order.
func TestCourierSignal(t *testing.T) {
	j := newJourney(t)
	j.ask("wallet.json", `{"type":"wallet.create","curve":"P-256"}`)
	var cmd *exec.Cmd
	started := make(chan struct{})
	j.fault(func(r string, _ int) nodetest.Fault {
		if r != "POST /address" {
			return nodetest.Fault{}
		}
		return nodetest.Fault{After: func() {
			<-started
			cmd.Process.Signal(syscall.SIGTERM)
		}}
	})
	args := slices.DeleteFunc(j.courierArgs(), func(s string) bool { return s == "--once" })
	cmd = j.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	j.ok(cmd.Start())
	close(started)
	j.ok(cmd.Wait())
	if !strings.Contains(out.String(), "registered\twallet.result.json\t") {
		t.Errorf("the courier says %s", out.String())
	}
}
