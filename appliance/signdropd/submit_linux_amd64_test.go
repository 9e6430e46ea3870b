package main_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// These tests run "signdrop submit --spool sftp://…" against the real door, and
// against OpenSSH's server.

// client is a partner that has nothing but signdrop and a network.
type client struct {
	*desk
	v    *volume
	addr string // HOST:PORT

	socket string // of an ssh-agent, "" for none
}

// agent starts an ssh-agent with keys.
func (c *client) agent(keys ...string) {
	c.t.Helper()
	c.socket = c.path("agent.sock")
	agent := exec.Command("ssh-agent", "-D", "-a", c.socket)
	c.v.ok(agent.Start())
	c.t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	c.v.until("the agent listens", func() bool {
		conn, err := net.Dial("unix", c.socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	for _, k := range keys {
		add := exec.Command("ssh-add", "-q", c.path(k))
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+c.socket)
		if out, err := add.CombinedOutput(); err != nil {
			c.t.Fatalf("ssh-add: %v\n%s", err, out)
		}
	}
}

var (
	signdropOnce sync.Once
	signdropDir  string
	signdropErr  error
)

// signdrop builds the client's program, once.
func signdrop(t testing.TB) string {
	t.Helper()
	signdropOnce.Do(func() {
		if signdropDir, signdropErr = os.MkdirTemp(filepath.Dir(program[len(program)-1]), "client"); signdropErr != nil {
			return
		}
		args := []string{"build", "-o", signdropDir + "/signdrop"}
		if raceEnabled() {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "signdrop/tools/signdrop")...).CombinedOutput(); err != nil {
			signdropErr = fmt.Errorf("building signdrop: %w\n%s", err, out)
		}
	})
	if signdropErr != nil {
		t.Fatal(signdropErr)
	}
	return signdropDir + "/signdrop"
}

// newClient makes a volume that lets the client's key sign and log in.
func newClient(t *testing.T) *client {
	t.Helper()
	c := &client{desk: newDesk(t)}
	key := c.sshKey("key", "-t", "ed25519")
	c.v = newVolume(t, key)
	c.v.ok(os.WriteFile(c.v.path("db", "companies", "acme", "authorized_keys"), key, 0o600))
	return c
}

// door starts the appliance with its door.
func (c *client) door(args ...string) *run {
	c.v.t.Helper()
	r := c.v.serve(append([]string{"--sftp=127.0.0.1:0"}, args...)...)
	p := &partner{v: c.v}
	p.door(r)
	c.addr = "127.0.0.1:" + p.port
	return r
}

// doorAlone starts a door without a signer, so that requests wait.
func (c *client) doorAlone() *run {
	c.t.Helper()
	words := append(append([]string{}, program...), "door", "--data="+c.v.dir, "--listen=127.0.0.1:0", "--log-format=json")
	log, err := os.CreateTemp(c.dir, "door")
	c.v.ok(err)
	defer log.Close()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stderr = log
	c.v.ok(cmd.Start())
	r := &run{v: c.v, what: "door", cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go func() { r.err = cmd.Wait(); close(r.done) }()
	c.v.runs = append(c.v.runs, r)
	p := &partner{v: c.v}
	p.door(r)
	c.addr = "127.0.0.1:" + p.port
	return r
}

// hostKey writes the known_hosts file for an address.
func (c *client) hostKey(addr string) {
	c.v.t.Helper()
	data, err := os.ReadFile(c.v.path("db", "appliance", "ssh_host_ed25519_key"))
	c.v.ok(err)
	key, err := ssh.ParsePrivateKey(data)
	c.v.ok(err)
	host, port, err := net.SplitHostPort(addr)
	c.v.ok(err)
	c.write("hosts", fmt.Appendf(nil, "[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(key.PublicKey())))
}

// command is a submit of files to an address.
func (c *client) command(addr string, args ...string) *exec.Cmd {
	all := append([]string{"submit", "--spool", "sftp://acme@" + addr, "--key", "key", "--known-hosts", "hosts"}, args...)
	cmd := exec.Command(signdrop(c.t), all...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "GORACE=halt_on_error=1", "SSH_AUTH_SOCK=" + c.socket}
	return cmd
}

// submit wants an exit code and returns both outputs.
func (c *client) submit(want int, addr string, args ...string) string {
	c.t.Helper()
	out, err := c.command(addr, args...).CombinedOutput()
	c.code(want, err, string(out))
	return string(out)
}

func (c *client) code(want int, err error, out string) {
	c.t.Helper()
	got := 0
	if ee := new(exec.ExitError); errors.As(err, &ee) {
		got = ee.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	if got != want {
		c.t.Fatalf("exit code %d, want %d\n%s", got, want, out)
	}
}

// request writes a request that makes a wallet.
func (c *client) request(name string) string {
	c.write(name+".json", walletCreate("P-256", name))
	return name + ".json"
}

func (c *client) has(out string, want ...string) {
	c.t.Helper()
	for _, w := range want {
		if !regexp.MustCompile(`(?m)` + w).MatchString(out) {
			c.t.Errorf("it does not say %q:\n%s", w, out)
		}
	}
}

// inbox asserts what lies there, hidden names and all.
func (c *client) inbox(want ...string) {
	c.t.Helper()
	if got := c.v.list(c.v.inbox()); fmt.Sprint(got) != fmt.Sprint(want) {
		c.t.Errorf("the inbox holds %q, want %q", got, want)
	}
}

// TestSubmitSFTP: upload, wait, verdicts; the same again; who is not let in.
func TestSubmitSFTP(t *testing.T) {
	c := newClient(t)
	r := c.door()
	c.request("one")
	c.write("bad.json", []byte(`{"type":"no.such.thing"}`))

	// A host that is not known gets nothing, and is not remembered.
	out := c.submit(1, c.addr, "one.json")
	c.has(out, `the host key of 127\.0\.0\.1:\d+ is not known: it is SHA256:`, `^hint: compare it .* --accept-new-host$`)
	finger := regexp.MustCompile(`"fingerprint":"(SHA256:[^"]+)"`).FindStringSubmatch(r.text())[1]
	c.has(out, regexp.QuoteMeta(finger))
	c.inbox()
	if _, err := os.Stat(c.path("hosts")); err == nil {
		t.Error("the host was stored")
	}

	out = c.submit(3, c.addr, "--accept-new-host", "--wait", "one.json", "bad.json")
	c.has(out, `^answered\tone\.json\tsftp://acme@127.0.0.1:\d+/outbox/one\.result\.json$`,
		`^refused\tbad\.json\tsftp://acme@127.0.0.1:\d+/rejected/bad\.reason\.json$`, `was stored: SHA256:`, `1 of 2 files refused`)
	before := c.read("hosts")
	answer := c.v.await(c.v.outbox("one.result.json"))

	// The same again: nothing is dropped, the verdicts are the same.
	out = c.submit(3, c.addr, "--wait", "one.json", "bad.json")
	c.has(out, `^answered\tone\.json\t`, `^refused\tbad\.json\t`)
	c.inbox()
	if !bytes.Equal(before, c.read("hosts")) {
		t.Error("the known hosts were changed")
	}
	// Its answer taken away, it is dropped again and gets the same one.
	c.v.ok(os.Remove(c.v.outbox("one.result.json")))
	c.submit(0, c.addr, "--wait", "one.json")
	if again := c.v.await(c.v.outbox("one.result.json")); !bytes.Equal(answer, again) {
		t.Errorf("the same request has two answers:\n%s%s", answer, again)
	}
	// Another request under this name is not dropped.
	c.request("other")
	out = c.submit(1, c.addr, "--name", "one.json", "other.json")
	c.has(out, "the answer to another request lies in the outbox")
	c.inbox()

	// A wrong key, for the login and for the signature.
	c.sshKey("stranger", "-t", "ed25519")
	out = c.submit(1, c.addr, "--identity", "stranger", "other.json")
	c.has(out, `does not let acme in with the key SHA256:`, `^hint: have its \.pub file`)
	c.inbox()
	out = c.submit(3, c.addr, "--identity", "key", "--key", "stranger", "--wait", "other.json")
	c.has(out, `^refused\tother\.json\t`)

	// The ssh-agent's keys log in where that key does not. Ours is not the first.
	c.sshKey("signs", "-t", "ecdsa")
	c.agent("stranger", "key")
	c.request("agent")
	out = c.submit(3, c.addr, "--key", "signs", "--wait", "agent.json")
	c.has(out, `^refused\tagent\.json\t`, "signer-unknown|not.*signer|unknown")
	out = c.submit(1, c.addr, "--identity", "stranger", "--key", "key", "other.json")
	c.has(out, `does not let acme in`)

	// A host key that has changed is refused, whatever the flags.
	line := bytes.Fields(c.read("stranger.pub"))
	c.write("hosts", fmt.Appendf(nil, "[127.0.0.1]:%s %s %s\n", strings.TrimPrefix(c.addr, "127.0.0.1:"), line[0], line[1]))
	c.request("third")
	before = c.read("hosts")
	out = c.submit(1, c.addr, "--accept-new-host", "third.json")
	c.has(out, `the host key of .* has changed: it is SHA256:.* nothing was sent`, `^hint: ask the appliance's operators`)
	c.inbox()
	if !bytes.Equal(before, c.read("hosts")) {
		t.Error("the known hosts were changed")
	}
}

// TestSubmitSFTPFiles: the further files of an answer are fetched and compared.
func TestSubmitSFTPFiles(t *testing.T) {
	c := newClient(t)
	c.door()
	c.hostKey(c.addr)
	request, signed := []byte("a transaction"), bytes.Repeat([]byte("signed"), 100_000)
	c.write("coin.psbt", request)
	result := fmt.Appendf(nil, `{"type":"sign.result","verdict":"signed","request_sha256":"%x","files":[{"ending":"-signed.psbt","size":%d,"sha256":"%x"}]}`+"\n",
		sha256.Sum256(request), len(signed), sha256.Sum256(signed))
	c.v.ok(os.WriteFile(c.v.outbox("coin-signed.psbt"), signed, 0o640))
	c.v.ok(os.WriteFile(c.v.outbox("coin.result.json"), result, 0o640))
	out := c.submit(0, c.addr, "--wait", "coin.psbt")
	c.has(out, `^answered\tcoin\.psbt\t.*/outbox/coin\.result\.json$`)
	c.v.ok(os.Mkdir(c.path("got"), 0o700))
	out = c.submit(0, c.addr, "--wait", "--get", "got", "coin.psbt")
	c.has(out, `^answered\tcoin\.psbt\tgot/coin\.result\.json$`)
	if !bytes.Equal(c.read("got/coin-signed.psbt"), signed) || !bytes.Equal(c.read("got/coin.result.json"), result) {
		t.Error("other files were saved than lie there")
	}
	signed[0]++
	c.v.ok(os.WriteFile(c.v.outbox("coin-signed.psbt"), signed, 0o640))
	out = c.submit(1, c.addr, "--wait", "coin.psbt")
	c.has(out, `^failed\tcoin\.psbt\t`, `coin-signed\.psbt is not the file that the answer names`)
	c.v.ok(os.Remove(c.v.outbox("coin-signed.psbt")))
	out = c.submit(1, c.addr, "--wait", "coin.psbt")
	c.has(out, `^failed\tcoin\.psbt\t`, `coin-signed\.psbt, which was taken away`)
	c.inbox()
}

// TestSubmitSFTPWaiting: what waits in an inbox that nobody serves is found there,
// and no other request takes its place.
func TestSubmitSFTPWaiting(t *testing.T) {
	c := newClient(t)
	r := c.doorAlone()
	c.hostKey(c.addr)
	c.request("pay")
	c.has(c.submit(0, c.addr, "pay.json"), `^dropped\tpay\.json$`)
	c.inbox("pay.json", "pay.json.sig")
	sent, sig := c.v.await(c.v.inbox("pay.json")), c.v.await(c.v.inbox("pay.json.sig"))
	if !bytes.Equal(sent, c.read("pay.json")) {
		t.Error("what was dropped is not the file")
	}
	c.has(c.submit(0, c.addr, "pay.json"), `^waiting\tpay\.json$`)
	c.has(c.submit(4, c.addr, "--wait", "--timeout=50ms", "pay.json"), `^waiting\tpay\.json$`, "not answered yet")
	c.write("longer.json", append(walletCreate("P-256", "pay"), ' '))
	c.has(c.submit(1, c.addr, "--name=pay.json", "longer.json"), "another request waits in the inbox under this name")
	// One that was cut off between the two is completed.
	c.v.ok(os.Remove(c.v.inbox("pay.json")))
	c.has(c.submit(0, c.addr, "pay.json"), `^dropped\tpay\.json$`)
	c.v.ok(os.Remove(c.v.inbox("pay.json.sig")))
	c.has(c.submit(0, c.addr, "pay.json"), `^dropped\tpay\.json$`)
	c.inbox("pay.json", "pay.json.sig")
	if !bytes.Equal(sent, c.v.await(c.v.inbox("pay.json"))) || !bytes.Equal(sig, c.v.await(c.v.inbox("pay.json.sig"))) {
		t.Error("the request or its signature is another")
	}
	c.has(c.submit(1, c.addr+"/deeper", "pay.json"), "has no directory")

	// A long one that is cut off in the middle, twice, is there whole and alone.
	long := bytes.Repeat(append(walletCreate("P-256", "long"), '\n'), 40_000)
	c.write("long.jsonl", long)
	relay := newRelay(t, c.addr)
	c.hostKey(relay.addr())
	relay.limits(1_000_000, 600_000)
	c.has(c.submit(0, relay.addr(), "long.jsonl"), `^dropped\tlong\.jsonl$`, "was lost; trying again")
	if n := relay.cut.Load(); n != 2 {
		t.Errorf("%d connections were cut", n)
	}
	c.inbox("long.jsonl", "long.jsonl.sig", "pay.json", "pay.json.sig")
	if !bytes.Equal(long, c.v.await(c.v.inbox("long.jsonl"))) {
		t.Error("what was dropped is not the file")
	}
	r.stop()
}

// TestSubmitSFTPMany: fifty files in parallel, over connections that are cut while
// files are uploaded. Each is answered, once.
func TestSubmitSFTPMany(t *testing.T) {
	c := newClient(t)
	c.door("--sftp-rate=1000")
	relay := newRelay(t, c.addr)
	c.hostKey(relay.addr())
	var files []string
	for i := range 50 {
		files = append(files, c.request(fmt.Sprintf("w%02d", i)))
	}
	// Each of the first connections ends somewhere else; the last ones hold.
	relay.limits(9000, 20000, 30000, 45000)
	out := c.submit(0, relay.addr(), append([]string{"--wait"}, files...)...)
	c.has(out, "the connection to .* was lost; trying again")
	if n := strings.Count(out, "answered\t"); n != 50 {
		t.Errorf("%d of 50 are answered:\n%s", n, out)
	}
	if n := relay.cut.Load(); n < 3 {
		t.Errorf("%d connections were cut", n)
	}
	c.inbox()
	if n := len(c.v.list(c.v.path("db", "companies", "acme", "wallets"))); n != 50 {
		t.Errorf("there are %d wallets", n)
	}
}

// TestSubmitSFTPCutAnywhere cuts the first connection after each so many bytes: the
// request is answered, once, wherever that was.
func TestSubmitSFTPCutAnywhere(t *testing.T) {
	c := newClient(t)
	c.door("--sftp-rate=1000")
	relay := newRelay(t, c.addr)
	c.hostKey(relay.addr())
	step := int64(97)
	if testing.Short() {
		step = 2503
	}
	n := 0
	for limit := int64(3600); ; limit += step {
		name := c.request(fmt.Sprintf("c%03d", n))
		n++
		was := relay.cut.Load()
		relay.limits(limit)
		// Before there was a connection, its loss is an error.
		cmd := c.command(relay.addr(), "--wait", "--timeout="+patience.String(), name)
		out, err := cmd.CombinedOutput()
		if err != nil && strings.Contains(string(out), "was lost") {
			t.Fatalf("cut after %d: %v\n%s", limit, err, out)
		}
		if err != nil {
			c.submit(0, relay.addr(), "--wait", name)
		}
		if relay.cut.Load() == was {
			break // it was through before
		}
		if limit > 60000 {
			t.Fatal("it never gets through")
		}
	}
	relay.limits()
	c.inbox()
	if got := len(c.v.list(c.v.path("db", "companies", "acme", "wallets"))); got != n {
		t.Errorf("there are %d wallets of %d requests", got, n)
	}
}

// TestSubmitSFTPWaitCut: the connection is lost while waiting, and the door and the
// signer come back later.
func TestSubmitSFTPWaitCut(t *testing.T) {
	c := newClient(t)
	r := c.door()
	relay := newRelay(t, c.addr)
	c.hostKey(relay.addr())
	c.submit(0, relay.addr(), "--wait", c.request("first"))
	// Without a signer the second request has to wait.
	r.stop()
	// Each door has a port of its own: the one before's may be somebody else's by now.
	alone := c.doorAlone()
	relay.lead(c.addr)
	c.request("second")
	var out bytes.Buffer
	cmd := c.command(relay.addr(), "--wait", "--timeout=1m", "second.json")
	cmd.Stdout, cmd.Stderr = &out, &out
	c.v.ok(cmd.Start())
	c.v.until("the request is there", func() bool {
		_, err := os.Stat(c.v.inbox("second.json"))
		return err == nil
	})
	relay.sever()
	alone.stop()
	c.doorAlone()
	relay.lead(c.addr)
	c.v.serve()
	c.code(0, cmd.Wait(), out.String())
	c.has(out.String(), `^answered\tsecond\.json\t`)
	if n := relay.seen.Load(); n < 3 {
		t.Errorf("there were %d connections: the second command has not come back", n)
	}
	c.inbox()
}

// TestSubmitOpenSSH: the same by OpenSSH's server, where the inbox can be read.
func TestSubmitOpenSSH(t *testing.T) {
	c := newClient(t)
	c.sshKey("host_rsa", "-t", "rsa", "-b", "3072")
	c.sshKey("host_ed", "-t", "ed25519")
	c.write("authorized", c.read("key.pub"))
	user := strings.TrimSpace(string(tool(t, "id", "-un")))
	c.v.ok(os.MkdirAll("/run/sshd", 0o755))
	c.sshd(fmt.Sprintf("HostKey %s\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nPidFile none\nPermitRootLogin yes\nUsePAM no\nSubsystem sftp internal-sftp\n",
		c.path("host_rsa"), c.path("host_ed"), c.path("authorized")))
	// Only the RSA key is known; the server would show the other first.
	line := bytes.Fields(c.read("host_rsa.pub"))
	c.write("hosts", fmt.Appendf(nil, "[127.0.0.1]:%s %s %s\n", strings.TrimPrefix(c.addr, "127.0.0.1:"), line[0], line[1]))
	do := func(want int, args ...string) string {
		t.Helper()
		cmd := c.command("", args...)
		cmd.Args[3] = "sftp://" + user + "@" + c.addr + c.v.path("spool", "acme")
		out, err := cmd.CombinedOutput()
		c.code(want, err, string(out))
		return string(out)
	}
	c.request("pay")
	c.has(do(0, "pay.json"), `^dropped\tpay\.json$`)
	c.inbox("pay.json", "pay.json.sig")
	c.has(do(0, "pay.json"), `^waiting\tpay\.json$`)
	// Another one of the same length is told apart here.
	c.write("same.json", bytes.ReplaceAll(c.read("pay.json"), []byte("pay"), []byte("pax")))
	c.has(do(1, "--name=pay.json", "same.json"), "another request waits")
	c.v.serve()
	c.has(do(0, "--wait", "pay.json"), `^answered\tpay\.json\t.*/spool/acme/outbox/pay\.result\.json$`)
	c.inbox()
}

// sshd starts OpenSSH's server with a configuration, at an address that it adds. sshd
// takes no port that the kernel chooses, and one that was free a moment ago may be
// somebody's when it starts: then another is tried.
func (c *client) sshd(config string) {
	c.t.Helper()
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		c.v.ok(err)
		c.addr = l.Addr().String()
		l.Close()
		c.write("sshd_config", []byte("ListenAddress "+c.addr+"\n"+config))
		cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", c.path("sshd_config"))
		errs, err := cmd.StderrPipe()
		c.v.ok(err)
		c.v.ok(cmd.Start())
		c.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		log := bufio.NewReader(errs)
		for line := ""; err == nil; {
			if line, err = log.ReadString('\n'); strings.HasPrefix(line, "Server listening on ") {
				go io.Copy(io.Discard, log)
				return
			}
		}
	}
	c.t.Fatal("sshd does not listen")
}

// relay passes connections on and cuts them.
type relay struct {
	l   net.Listener
	cut atomic.Int32 // how many were cut

	seen atomic.Int32 // how many came and reached the door

	mu    sync.Mutex
	to    string
	next  []int64 // after how many bytes from the client the next ones are cut
	conns map[net.Conn]bool
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, to: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { l.Close(); r.sever() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c)
		}
	}()
	return r
}

func (r *relay) addr() string { return r.l.Addr().String() }

func (r *relay) limits(n ...int64) {
	r.mu.Lock()
	r.next = n
	r.mu.Unlock()
}

// lead passes what comes from now on to another address.
func (r *relay) lead(to string) {
	r.mu.Lock()
	r.to = to
	r.mu.Unlock()
}

// sever cuts what is open.
func (r *relay) sever() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

func (r *relay) pass(client net.Conn) {
	defer client.Close()
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	door, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer door.Close()
	r.seen.Add(1)
	limit := int64(-1)
	r.mu.Lock()
	if len(r.next) > 0 {
		limit, r.next = r.next[0], r.next[1:]
	}
	r.conns[client] = true
	r.mu.Unlock()
	go func() {
		io.Copy(client, door)
		client.Close()
	}()
	if limit < 0 {
		io.Copy(door, client)
		return
	}
	if n, _ := io.CopyN(door, client, limit); n == limit {
		r.cut.Add(1)
	}
}
