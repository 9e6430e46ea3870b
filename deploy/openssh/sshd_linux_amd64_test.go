// Package openssh_test runs a real sshd with the configuration of this directory.
package openssh_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"signdrop/appliance/setup"
)

// The test plays a partner that has the name of a user whom every Debian machine
// has, since it makes no users.
const (
	partner = "nobody"
	group   = "nogroup"
	sshd    = "/usr/sbin/sshd"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// configure writes sshd_config for the volume data and returns its path and port.
func configure(t *testing.T, dir, data string) (file, port string) {
	t.Helper()
	text, err := os.ReadFile("sshd_config")
	check(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	_, port, err = net.SplitHostPort(l.Addr().String())
	check(t, err)
	check(t, l.Close())
	for _, r := range [][2]string{
		{"Port 10210", "ListenAddress 127.0.0.1:" + port}, {"/data/", data + "/"}, {"/run/signdrop-sshd.pid", filepath.Join(dir, "pid")},
		{"AllowGroups sftp-*", "AllowGroups " + group},
	} {
		if !bytes.Contains(text, []byte(r[0])) {
			t.Fatalf("sshd_config has no %q", r[0])
		}
		text = bytes.ReplaceAll(text, []byte(r[0]), []byte(r[1]))
	}
	file = filepath.Join(dir, "sshd_config")
	check(t, os.WriteFile(file, text, 0o600))
	return file, port
}

// listens starts sshd, until the test ends, and reports whether it got its port.
func listens(t *testing.T, file string) bool {
	t.Helper()
	cmd := exec.Command(sshd, "-D", "-e", "-f", file)
	errs, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	var log bytes.Buffer
	logged := make(chan struct{})
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-logged
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	lines := bufio.NewScanner(errs)
	up := false
	for !up && lines.Scan() {
		fmt.Fprintln(&log, lines.Text())
		up = strings.HasPrefix(lines.Text(), "Server listening on ")
	}
	go func() {
		defer close(logged)
		for lines.Scan() {
			fmt.Fprintln(&log, lines.Text())
		}
	}()
	return up
}

// volume makes a data volume with the partner's directories.
func volume(t *testing.T, data, key string) {
	t.Helper()
	line, err := os.ReadFile(key + ".pub")
	check(t, err)
	signer, err := setup.ReadSigner(line, partner)
	check(t, err)
	plan := setup.Plan{Company: partner, Signers: []setup.Signer{signer}}
	if os.Getuid() == 0 {
		g, err := user.LookupGroup(group)
		check(t, err)
		gid, err := strconv.Atoi(g.Gid)
		check(t, err)
		plan.Group = &gid
	}
	report, err := setup.MakeDisk(data, plan)
	check(t, err)
	if report.Wrong() {
		t.Fatalf("%+v", report)
	}
	check(t, os.Chmod(data, 0o755)) // the partner's user must get that far
	check(t, os.WriteFile(filepath.Join(data, "db/companies", partner, "authorized_keys"), line, 0o600))
	output(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(data, "db/appliance/ssh_host_ed25519_key"))
}

// TestSSHD: a partner that comes by OpenSSH sees its three directories, can do there
// what it needs, and nothing else. A test that is not root can only have sshd read
// the configuration.
func TestSSHD(t *testing.T) {
	// sshd wants all above a ChrootDirectory to be root's alone, which /tmp is not.
	where := "/var/lib"
	if os.Getuid() != 0 {
		where = os.TempDir()
	}
	dir, err := os.MkdirTemp(where, "signdrop-sshd-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755))
	key, data := filepath.Join(dir, "key"), filepath.Join(dir, "data")
	output(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	volume(t, data, key)
	file, port := configure(t, dir, data)
	if os.Getuid() == 0 {
		check(t, os.MkdirAll("/run/sshd", 0o755))
	}
	output(t, sshd, "-t", "-f", file)
	if os.Getuid() != 0 {
		return
	}
	for tries := 0; !listens(t, file); tries++ {
		if tries == 10 {
			t.Fatal("sshd does not listen")
		}
		file, port = configure(t, dir, data) // somebody has the port by now
	}
	request := filepath.Join(dir, "pay.json")
	check(t, os.WriteFile(request, []byte("{}\n"), 0o666))
	check(t, os.Chmod(request, 0o666)) // which sftp tells the server
	spool := filepath.Join(data, "spool", partner)
	check(t, os.WriteFile(filepath.Join(spool, "outbox", "old.result.json"), []byte("old\n"), 0o640))
	sftp := func(batch string, options ...string) (string, error) {
		args := append([]string{
			"-q", "-b", "-", "-F", "none", "-P", port, "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "hosts"),
		}, options...)
		cmd := exec.Command("sftp", append(args, partner+"@127.0.0.1")...)
		cmd.Stdin = strings.NewReader(batch)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := sftp("ls -1 /\nput pay.json inbox/.pay.json\nrename inbox/.pay.json inbox/pay.json\nls -l inbox\nget outbox/old.result.json got\nrm outbox/old.result.json\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, box := range []string{"inbox", "outbox", "rejected"} {
		if !strings.Contains(out, box) {
			t.Errorf("%s is not listed:\n%s", box, out)
		}
	}
	for name, want := range map[string]string{filepath.Join(spool, "inbox/pay.json"): "{}\n", filepath.Join(dir, "got"): "old\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	info, err := os.Stat(filepath.Join(spool, "inbox/pay.json"))
	check(t, err)
	if info.Mode().Perm() != 0o644 {
		t.Errorf("an upload has the mode %v", info.Mode())
	}
	for _, line := range []string{
		"put pay.json /", "mkdir inbox/d", "ln -s /etc/passwd inbox/l.json", "ln inbox/pay.json inbox/l.json", "get /etc/passwd", "ls /data",
		"get ../../db/companies/" + partner + "/company.json", "rm inbox",
	} {
		if out, err := sftp(line); err == nil {
			t.Errorf("%s was done:\n%s", line, out)
		}
	}
	es, err := os.ReadDir(filepath.Join(spool, "inbox"))
	check(t, err)
	if len(es) != 1 || es[0].Name() != "pay.json" {
		t.Errorf("the inbox holds %v", es)
	}
	// No shell, no password, no other user.
	for what, args := range map[string][]string{
		"a command":  {partner + "@127.0.0.1", "id"},
		"root":       {"root@127.0.0.1", "-s", "sftp"},
		"a password": {"-o", "PubkeyAuthentication=no", partner + "@127.0.0.1", "-s", "sftp"},
		"forwarding": {"-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", partner + "@127.0.0.1", "-s", "sftp"},
	} {
		all := append([]string{
			"-F", "none", "-p", port, "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=" + filepath.Join(dir, "hosts"),
		}, args...)
		out, err := exec.Command("ssh", all...).CombinedOutput()
		if strings.Contains(string(out), "uid=") || err == nil && what != "a command" {
			t.Errorf("%s was granted: %v\n%s", what, err, out)
		}
	}
}
