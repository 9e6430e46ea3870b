package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestHardened looks at a running signer from outside.
func TestHardened(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	r := v.serve()
	if got := v.ask("make.json", walletCreate("P-256", "")); got.Wallet == "" {
		t.Errorf("got %+v", got)
	}
	proc := fmt.Sprintf("/proc/%d/", r.cmd.Process.Pid)
	limits, err := os.ReadFile(proc + "limits")
	v.ok(err)
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("a core file may be written:\n%s", limits)
	}
	threads, err := filepath.Glob(proc + "task/*/status")
	v.ok(err)
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if os.IsNotExist(err) {
			continue // it has ended
		}
		v.ok(err)
		if !strings.Contains(string(status), "NoNewPrivs:\t1") {
			t.Errorf("%s:\n%s", thread, status)
		}
	}
	enforced := regexp.MustCompile(`"core_dumps":false,"traceable":false,"no_new_privileges":true,"memory_locked":(true|false),"landlock":\d+.*"message":"what is enforced"`).FindStringSubmatch(r.text())
	if enforced == nil {
		t.Fatalf("it does not say what is enforced:\n%s", r.text())
	}
	status, err := os.ReadFile(proc + "status")
	v.ok(err)
	if locked := !strings.Contains(string(status), "VmLck:\t       0 kB"); locked != (enforced[1] == "true") {
		t.Errorf("memory_locked is %s:\n%s", enforced[1], status)
	}
	r.stop()
}

// TestNotify: whoever waits for READY finds an appliance that answers.
func TestNotify(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	socket := filepath.Join(v.logs, "notify")
	for _, name := range []string{socket, "@signdrop-" + filepath.Base(filepath.Dir(v.dir)) + fmt.Sprint(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		v.ok(err)
		defer l.Close()
		v.ok(l.SetReadDeadline(time.Now().Add(patience)))
		heard := func(want string) {
			t.Helper()
			buf := make([]byte, 4096)
			n, err := l.Read(buf)
			if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
				t.Fatalf("%s: got %q, %v, want %s; log:\n%s", name, buf[:n], err, want, v.runs[len(v.runs)-1].text())
			}
		}
		r := v.begin([]string{"env", "NOTIFY_SOCKET=" + name}, "serve")
		heard("READY=1\n")
		if !strings.Contains(r.text(), `"message":"ready"`) {
			t.Errorf("ready before it said so:\n%s", r.text())
		}
		r.signal(15)
		heard("STOPPING=1")
		if status := r.wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	}
	r := v.begin([]string{"env", "NOTIFY_SOCKET=relative"}, "once")
	if status := r.wait(); status != 1 || !strings.Contains(r.text(), "NOTIFY_SOCKET") {
		t.Errorf("exit status %d: %s", status, r.text())
	}
}

// TestDoorSealed: the host key is sealed with the others, and a door opens it, whoever
// runs it.
func TestDoorSealed(t *testing.T) {
	t.Parallel()
	v := newVolume(t)
	p := newPartner(t, v)
	kek := filepath.Join(v.logs, "kek")
	v.ok(os.WriteFile(kek, bytes.Repeat([]byte("k"), 32), 0o400))
	fingerprint := func(r *run) string {
		t.Helper()
		m := regexp.MustCompile(`"fingerprint":"(SHA256:[^"]+)"`).FindStringSubmatch(r.text())
		if m == nil {
			t.Fatalf("no fingerprint:\n%s", r.text())
		}
		return m[1]
	}
	r := v.serve("--sftp=127.0.0.1:0", "--seal=file:"+kek)
	p.door(r)
	first := fingerprint(r)
	if got := p.ask("one", walletCreate("P-256", "one")); !strings.Contains(string(got), `"created"`) {
		t.Errorf("got %s", got)
	}
	r.stop()
	text, err := os.ReadFile(v.path("db", "appliance", "ssh_host_ed25519_key"))
	v.ok(err)
	if !bytes.HasPrefix(text, []byte("signdrop-sealed 1 ")) {
		t.Errorf("the host key is not sealed: %.40q", text)
	}
	// By itself, beside a signer.
	signer := v.serve("--seal=file:" + kek)
	words := append([]string{}, program...)
	door := v.beginWords(append(words, "door", "--data="+v.dir, "--listen=127.0.0.1:0", "--log-format=json", "--seal=file:"+kek))
	p.door(door)
	if got := fingerprint(door); got != first {
		t.Errorf("the fingerprint is %s, and was %s", got, first)
	}
	door.stop()
	// Without the key, and nothing is made in its place.
	door = v.beginWords(append(words, "door", "--data="+v.dir, "--listen=127.0.0.1:0", "--log-format=json"))
	if status := door.wait(); status != 1 || !strings.Contains(door.text(), "--seal") {
		t.Errorf("exit status %d:\n%s", status, door.text())
	}
	signer.stop()
	again, err := os.ReadFile(v.path("db", "appliance", "ssh_host_ed25519_key"))
	v.ok(err)
	if !bytes.Equal(again, text) {
		t.Error("the host key was changed")
	}
}
