package main_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// partner is a partner at its own machine, with OpenSSH's sftp.
type partner struct {
	v    *volume
	d    *desk
	port string
}

var (
	doorReady = regexp.MustCompile(`"address":"127\.0\.0\.1:(\d+)"[^\n]*"message":"SFTP door: ready"`)
	doorPID   = regexp.MustCompile(`"pid":(\d+)[^\n]*"message":"SFTP door: started"`)
)

// sftp runs a batch, each line of which must succeed.
func (p *partner) sftp(batch ...string) (string, error) {
	cmd := exec.Command("sftp", "-q", "-b", "-", "-F", "none", "-P", p.port, "-i", p.d.path("login"), "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile="+p.d.path("hosts"), "acme@127.0.0.1")
	cmd.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	cmd.Dir = p.d.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *partner) must(batch ...string) string {
	p.v.t.Helper()
	out, err := p.sftp(batch...)
	if err != nil {
		p.v.t.Fatalf("sftp: %v\n%s", err, out)
	}
	return out
}

// ask uploads a request and fetches the answer.
func (p *partner) ask(name string, data []byte) []byte {
	p.v.t.Helper()
	p.d.write(name+".json", data)
	p.d.write(name+".json.sig", p.v.acme.Sign(data))
	p.must("put "+name+".json.sig inbox/", "put "+name+".json inbox/")
	p.v.until("there is an answer", func() bool {
		out, err := p.sftp("get outbox/" + name + ".result.json")
		if err != nil && !strings.Contains(out, "not found") {
			p.v.t.Fatalf("sftp: %v\n%s", err, out)
		}
		return err == nil
	})
	p.must("rm outbox/" + name + ".result.json")
	return p.d.read(name + ".result.json")
}

func newPartner(t *testing.T, v *volume) *partner {
	t.Helper()
	p := &partner{v: v, d: newDesk(t)}
	v.ok(os.WriteFile(v.path("db", "companies", "acme", "authorized_keys"), p.d.sshKey("login", "-t", "ed25519"), 0o600))
	return p
}

// door waits until the door of a run is ready and returns its process.
func (p *partner) door(r *run) int {
	p.v.t.Helper()
	p.v.until("the door is ready", func() bool { return doorReady.MatchString(r.text()) })
	all := doorReady.FindAllStringSubmatch(r.text(), -1)
	p.port = all[len(all)-1][1]
	pid, err := strconv.Atoi(doorPID.FindStringSubmatch(r.text())[1])
	p.v.ok(err)
	return pid
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// TestDoor: a whole round by SFTP, with the door as a process of its own. The door
// dies and the signer does not notice; the signer ends and takes the door along.
func TestDoor(t *testing.T) {
	v := newVolume(t)
	p := newPartner(t, v)
	r := v.serve("--sftp=127.0.0.1:0")
	pid := p.door(r)
	if got := p.ask("one", walletCreate("P-384", "one")); !strings.Contains(string(got), `"created"`) {
		t.Errorf("the answer is %s", got)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	v.ok(err)
	if os.Getuid() == 0 && !strings.Contains(string(status), "Uid:\t10210\t10210\t10210\t10210") {
		t.Errorf("the door's process is\n%s", status)
	}
	v.ok(syscall.Kill(pid, syscall.SIGKILL))
	v.drop("two.json", walletCreate("P-256", "two"))
	v.await(v.outbox("two.result.json"))
	r.logged("SFTP door died")
	v.until("another door is ready", func() bool { return strings.Count(r.text(), "SFTP door: ready") == 2 })
	p.ask("three", walletCreate("P-521", "three"))
	all := doorPID.FindAllStringSubmatch(r.text(), -1)
	last, err := strconv.Atoi(all[len(all)-1][1])
	v.ok(err)
	r.stop()
	v.until("the door has gone too", func() bool { return gone(last) })
	if names := v.list(v.inbox()); len(names) != 0 {
		t.Errorf("the inbox holds %v", names)
	}
}

// TestDoorAlone: the door beside a signer that is another program, which is killed
// and comes back, and what it does with wrong flags.
func TestDoorAlone(t *testing.T) {
	v := newVolume(t)
	p := newPartner(t, v)
	words := append(append([]string{}, program...), "door", "--data="+v.dir, "--listen=127.0.0.1:0", "--log-format=json")
	log := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(log)
	v.ok(err)
	defer out.Close()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stderr = out
	v.ok(cmd.Start())
	r := &run{v: v, what: "door", cmd: cmd, log: log, done: make(chan struct{})}
	go func() { r.err = cmd.Wait(); close(r.done) }()
	v.runs = append(v.runs, r)
	pid := p.door(r)
	signer := v.serve()
	p.ask("one", walletCreate("P-384", "one"))
	signer.kill()
	p.must("ls outbox") // the door does not notice
	signer = v.serve()
	p.ask("two", walletCreate("P-384", "two"))
	signer.stop()
	r.stop()
	v.until("the door's process has gone too", func() bool { return gone(pid) })

	for want, args := range map[string][]string{
		"must not run as root": {"--sftp-user=root"}, "no such user": {"--sftp-user=no-such-user-here"}, "is not expected": {"x"},
		"quota": {"--sftp-quota=0"}, "rate": {"--sftp-rate=0"}, "times": {"--sftp-idle=0s"},
	} {
		if os.Getuid() != 0 && strings.HasPrefix(args[0], "--sftp-user") {
			continue // nobody is asked
		}
		for _, command := range [][]string{{"door", "--listen=127.0.0.1:0"}, {"serve", "--sftp=127.0.0.1:0", "--allow-plain-keys"}} {
			all := append(append(append([]string{}, program[1:]...), command...), "--data="+v.dir)
			out, err := exec.Command(program[0], append(all, args...)...).CombinedOutput()
			if ee := new(exec.ExitError); !errors.As(err, &ee) || ee.ExitCode() != 2 || !strings.Contains(string(out), want) {
				t.Errorf("%s %v: %v\n%s", command[0], args, err, out)
			}
		}
	}
	for _, args := range [][]string{{"door", "--child"}, {"door", "--data=" + v.path("none"), "--listen=127.0.0.1:0"}} {
		out, err := exec.Command(program[0], append(program[1:], args...)...).CombinedOutput()
		if ee := new(exec.ExitError); !errors.As(err, &ee) || ee.ExitCode() != 1 {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
