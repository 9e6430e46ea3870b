package door

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// These tests run the clients that partners use. A client that is missing fails
// them. They are for amd64 because the clients of an emulated machine are not there.

// client is what a client's command line needs to know of a door.
type client struct {
	host, port string
	key        string // private key file
	hosts      string // known_hosts file
	dir        string // to work in
	file       string // what is uploaded
	data       []byte
}

func newClient(t *testing.T, addr string) *client {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	check(t, err)
	c := &client{host: host, port: port, key: keyFile(t, "acme"), dir: t.TempDir(), data: bytesOf(300_000)}
	c.hosts = filepath.Join(c.dir, "known_hosts")
	line := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(signerOf("host").PublicKey()))
	check(t, os.WriteFile(c.hosts, []byte(line), 0o600))
	c.file = filepath.Join(c.dir, "pay.json")
	check(t, os.WriteFile(c.file, c.data, 0o600))
	return c
}

// run runs a client with text as its input.
func (c *client) run(text, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(text)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "SSH_AUTH_SOCK=", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *client) options() []string {
	return []string{
		"-F", "none", "-i", c.key, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=" + c.hosts,
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
	}
}

// openssh runs sftp -b with a batch.
func (c *client) openssh(batch string) (string, error) {
	args := append([]string{"-q", "-P", c.port, "-b", "-"}, c.options()...)
	return c.run(batch, "sftp", append(args, "acme@"+c.host)...)
}

// lftp runs a script of lftp, with or without names for unfinished files.
func (c *client) lftp(tempNames, script string) (string, error) {
	connect := "ssh -a -x " + strings.Join(c.options(), " ")
	text := fmt.Sprintf("set sftp:connect-program %q\nset cmd:fail-exit yes\nset net:max-retries 2\nset xfer:use-temp-file %s\n"+
		"open -u acme, -p %s sftp://%s\n%s\n", connect, tempNames, c.port, c.host, script)
	return c.run("", "lftp", "--norc", "-c", text)
}

func (c *client) rclone(args ...string) (string, error) {
	conf := filepath.Join(c.dir, "rclone.conf")
	text := fmt.Sprintf("[door]\ntype = sftp\nhost = %s\nport = %s\nuser = acme\nkey_file = %s\nknown_hosts_file = %s\nshell_type = none\n",
		c.host, c.port, c.key, c.hosts)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return "", err
	}
	return c.run("", "rclone", append([]string{"--config", conf, "--retries", "1", "--low-level-retries", "1"}, args...)...)
}

func (c *client) curl(args ...string) (string, error) {
	return c.run("", "curl", append([]string{"-sS", "--key", c.key, "--pubkey", c.key + ".pub", "-u", "acme:", "-k"}, args...)...)
}

func (c *client) url(path string) string {
	return fmt.Sprintf("sftp://%s:%s/%s", c.host, c.port, path)
}

const paramiko = `
import paramiko, sys
host, port, key, hosts, file = sys.argv[1:6]
c = paramiko.SSHClient()
c.load_host_keys(hosts)
c.connect(host, int(port), "acme", key_filename=key, allow_agent=False, look_for_keys=False)
s = c.open_sftp()
s.put(file, "/inbox/pay.json", confirm=True)
s.rename("/inbox/pay.json", "/inbox/two.json")
s.posix_rename("/inbox/two.json", "/inbox/pay.json")
s.chdir("inbox")
assert s.listdir() == ["pay.json"], s.listdir()
try:
    s.symlink("/etc/passwd", "l")
    sys.exit("a link was made")
except IOError:
    pass
c.close()
`

func TestClients(t *testing.T) {
	b := newBed(t, testSettings())
	c := newClient(t, b.addr)
	answer := []byte("the answer\n")
	for _, tc := range []struct {
		what string
		run  func() (string, error)
	}{
		{"OpenSSH put", func() (string, error) { return c.openssh("put pay.json inbox/\nls -l inbox") }},
		{"OpenSSH put -f", func() (string, error) { return c.openssh("put -f pay.json inbox/pay.json") }},
		{"OpenSSH put -p", func() (string, error) { return c.openssh("put -p pay.json inbox/pay.json") }},
		{"OpenSSH reput of nothing", func() (string, error) {
			return c.openssh("put pay.json inbox/x.part\nrename inbox/x.part inbox/pay.json")
		}},
		{"OpenSSH rename", func() (string, error) { return c.openssh("put pay.json inbox/.x\nrename inbox/.x inbox/pay.json") }},
		{"OpenSSH rename -l", func() (string, error) {
			return c.openssh("put pay.json inbox/pay.json.tmp\nrename -l inbox/pay.json.tmp inbox/pay.json")
		}},
		{"OpenSSH cd, df, chmod", func() (string, error) {
			return c.openssh("cd inbox\nput pay.json\ndf\nchmod 600 pay.json\nls -la\npwd")
		}},
		{"OpenSSH get", func() (string, error) {
			return c.openssh("put pay.json inbox/\nget outbox/pay.result.json\nrm outbox/pay.result.json")
		}},
		{"scp", func() (string, error) {
			args := append([]string{"-s", "-q", "-P", c.port}, c.options()...)
			return c.run("", "scp", append(args, "pay.json", "acme@"+c.host+":/inbox/")...)
		}},
		{"lftp", func() (string, error) { return c.lftp("off", "put -O inbox pay.json; cls -l inbox") }},
		{"lftp with names for unfinished files", func() (string, error) { return c.lftp("on", "put -O inbox pay.json") }},
		{"lftp mirror", func() (string, error) {
			if err := errors.Join(os.Mkdir(filepath.Join(c.dir, "out"), 0o700), os.Link(c.file, filepath.Join(c.dir, "out", "pay.json"))); err != nil {
				return "", err
			}
			return c.lftp("on", "mirror -R out inbox; mirror outbox got; cat outbox/pay.result.json")
		}},
		{"rclone copy", func() (string, error) { return c.rclone("copy", "pay.json", "door:inbox") }},
		{"rclone copyto", func() (string, error) { return c.rclone("copyto", "pay.json", "door:/inbox/pay.json") }},
		{"rclone moveto", func() (string, error) {
			out, err := c.rclone("copyto", "pay.json", "door:inbox/pay.json.partial")
			if err != nil {
				return out, err
			}
			return c.rclone("moveto", "door:inbox/pay.json.partial", "door:inbox/pay.json")
		}},
		{"curl", func() (string, error) { return c.curl("-T", "pay.json", c.url("inbox/pay.json")) }},
		{"curl with a rename", func() (string, error) {
			return c.curl("-T", "pay.json", "-Q", "-rename /inbox/.tmp.pay /inbox/pay.json", c.url("inbox/.tmp.pay"))
		}},
		{"paramiko", func() (string, error) {
			return c.run("", "/usr/bin/python3", "-c", paramiko, c.host, c.port, c.key, c.hosts, c.file)
		}},
		{"psftp", func() (string, error) {
			if out, err := c.run("", "puttygen", c.key, "-o", "key.ppk", "-O", "private"); err != nil {
				return out, err
			}
			batch := filepath.Join(c.dir, "batch")
			if err := os.WriteFile(batch, []byte("cd inbox\nput pay.json pay.tmp\nmv pay.tmp pay.json\nls\nquit\n"), 0o600); err != nil {
				return "", err
			}
			return c.run("", "psftp", "-batch", "-P", c.port, "-i", "key.ppk", "-hostkey",
				ssh.FingerprintSHA256(signerOf("host").PublicKey()), "-b", batch, "acme@"+c.host)
		}},
	} {
		check(t, os.WriteFile(b.path("outbox", "pay.result.json"), answer, 0o600))
		out, err := tc.run()
		if err != nil {
			t.Errorf("%s: %v\n%s", tc.what, err, out)
			for _, n := range b.onDisk("inbox") {
				check(t, os.Remove(b.path("inbox", n)))
			}
			continue
		}
		b.holds("inbox", "pay.json")
		b.content(c.data, "inbox", "pay.json")
		if t.Failed() {
			t.Logf("after %s:\n%s", tc.what, out)
		}
		check(t, os.Remove(b.path("inbox", "pay.json")))
		b.forget()
	}
	b.idle()
	if t.Failed() {
		t.Log(b.log.String())
	}
}

// TestClaimedAtOnce: the clients that look after they have put are content although
// the appliance has taken the file already.
func TestClaimedAtOnce(t *testing.T) {
	b := newBed(t, testSettings())
	c := newClient(t, b.addr)
	work := t.TempDir()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			os.Rename(b.path("inbox", "pay.json"), filepath.Join(work, "pay.json"))
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for what, run := range map[string]func() (string, error){
		"OpenSSH": func() (string, error) { return c.openssh("put -p pay.json inbox/pay.json") },
		"lftp":    func() (string, error) { return c.lftp("on", "put -O inbox pay.json") },
		"rclone":  func() (string, error) { return c.rclone("copyto", "pay.json", "door:/inbox/pay.json") },
		"curl":    func() (string, error) { return c.curl("-T", "pay.json", c.url("inbox/pay.json")) },
		"paramiko": func() (string, error) {
			script, _, _ := strings.Cut(paramiko, "s.rename")
			return c.run("", "/usr/bin/python3", "-c", script, c.host, c.port, c.key, c.hosts, c.file)
		},
	} {
		out, err := run()
		if err != nil {
			t.Errorf("%s: %v\n%s", what, err, out)
			continue
		}
		name := filepath.Join(work, "pay.json")
		await(t, what+"'s file is taken", func() bool { _, err := os.Stat(name); return err == nil })
		got, err := os.ReadFile(name)
		check(t, err)
		if !bytes.Equal(got, c.data) {
			t.Errorf("%s: %d bytes were taken", what, len(got))
		}
		check(t, os.Remove(name))
		b.forget()
	}
	close(stop)
	<-done
}

// TestCableCut cuts the connection at every tenth of an upload: nothing is visible,
// what is left is a beginning of the file, and the client can go on with it.
func TestCableCut(t *testing.T) {
	b := newBed(t, testSettings())
	whole := bytesOf(1 << 20)
	for tenth := range 10 {
		r := newRelay(t, b.addr, int64(tenth)*int64(len(whole))/10+5000)
		c := newClient(t, r.addr())
		check(t, os.WriteFile(c.file, whole, 0o600))
		if out, err := c.openssh("put pay.json inbox/pay.json"); err == nil {
			t.Fatalf("cut after %d tenths: told to be well:\n%s", tenth, out)
		}
		b.idle()
		if _, err := os.Stat(b.path("inbox", "pay.json")); err == nil {
			t.Fatalf("cut after %d tenths: the file is visible", tenth)
		}
		part, err := os.ReadFile(b.path("inbox", ".door-pay.json"))
		if err != nil && (!os.IsNotExist(err) || tenth > 1) {
			t.Fatalf("cut after %d tenths: %v", tenth, err)
		}
		if !bytes.HasPrefix(whole, part) || tenth > 1 && len(part) == 0 {
			t.Fatalf("cut after %d tenths: what is left is no beginning: %d bytes", tenth, len(part))
		}
		c = newClient(t, b.addr)
		check(t, os.WriteFile(c.file, whole, 0o600))
		verb := "reput"
		if len(part) == 0 {
			verb = "put"
		}
		if out, err := c.openssh(verb + " pay.json inbox/pay.json"); err != nil {
			t.Fatalf("going on after %d tenths: %v\n%s", tenth, err, out)
		}
		b.holds("inbox", "pay.json")
		b.content(whole, "inbox", "pay.json")
		check(t, os.Remove(b.path("inbox", "pay.json")))
		b.forget()
	}
}

// TestOpenSSHIsRefused: what OpenSSH's sftp is refused it says, and fails.
func TestOpenSSHIsRefused(t *testing.T) {
	b := newBed(t, testSettings())
	c := newClient(t, b.addr)
	for _, line := range []string{
		"put pay.json outbox/", "put pay.json /", "put pay.json ../pay.json", "mkdir inbox/d", "ln -s inbox/pay.json inbox/l",
		"ln inbox/pay.json inbox/l.json", "get inbox/pay.json", "get /etc/passwd", "rm outbox/none.json", "cd /etc", "rmdir inbox",
	} {
		if out, err := c.openssh("put pay.json inbox/pay.json\n" + line); err == nil {
			t.Errorf("%s was done:\n%s", line, out)
		}
	}
	b.holds("inbox", "pay.json")
	b.holds("outbox")
	b.holds("rejected")
	if _, err := os.Lstat(filepath.Join(c.dir, "passwd")); !os.IsNotExist(err) {
		t.Errorf("a file came back: %v", err)
	}
}

// forget makes the door forget what it accepted, so that the next client begins
// anew.
func (b *bed) forget() {
	room := b.srv.room("acme")
	room.mu.Lock()
	defer room.mu.Unlock()
	clear(room.recent)
}
