package door

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"signdrop/appliance/door/notice"
	"signdrop/appliance/harden"
)

// The tests of this file start doors as processes: this test's own program. They are
// for amd64 because an emulated program cannot start itself.

var (
	childFlag = flag.Bool("door.child", false, "be the door that a test has started")
	probeFlag = flag.String("door.probe", "", "be confined, then try to open these files, separated by colons")
	bareFlag  = flag.Bool("door.bare", false, "probe without Landlock: only owners and modes keep files closed")
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case *childFlag:
		parting = patience // a test's machine may be slow
		log := zerolog.New(os.Stderr)
		if err := Child(context.Background(), log); err != nil {
			log.Error().Err(err).Msg("the door has failed")
			os.Exit(1)
		}
		os.Exit(0)
	case *probeFlag != "":
		probe(strings.Split(*probeFlag, ":"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// probe is what somebody would do who has taken the door over.
func probe(paths []string) {
	if !*bareFlag {
		c, err := Confine(fmt.Sprintf("/proc/self/fd/%d", fdSpool))
		fmt.Fprintf(os.Stderr, "landlock %d %v\n", c.Landlock, err)
	} else if err := harden.Renounce(); err != nil {
		fmt.Fprintf(os.Stderr, "renounce: %v\n", err)
	}
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	without := len(threads)
	for _, name := range threads {
		if text, _ := os.ReadFile(name); strings.Contains(string(text), "NoNewPrivs:\t1") {
			without--
		}
	}
	fmt.Fprintf(os.Stderr, "%t: all threads have no_new_privs\n", len(threads) > 1 && without == 0)
	for _, p := range paths {
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_PATH} {
			fd, err := unix.Openat(fdSpool, p, flags, 0)
			if flags == unix.O_PATH {
				// Landlock lets a path be named; whether it can be read through
				// that is what matters.
				if err == nil {
					fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
				}
			}
			fmt.Fprintf(os.Stderr, "open %s %x: %v\n", p, flags, err)
			if err == nil {
				unix.Close(fd)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "mkdir: %v\n", unix.Mkdirat(fdSpool, "../stray", 0o700))
	fmt.Fprintf(os.Stderr, "symlink: %v\n", unix.Symlinkat("/etc/passwd", fdSpool, "acme/inbox/link"))
	_, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	fmt.Fprintf(os.Stderr, "connect: %v\n", err)
	fmt.Fprintf(os.Stderr, "probed\n")
}

// doorUID is the user that doors of these tests run as, if the test is root.
const doorUID = 10210

// volume makes a data volume with a company and a wallet's key.
func volume(t *testing.T) (dir, key string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"db/appliance", "db/admins", "db/companies/acme/wallets/W_1", "work/acme", "journal", "spool/acme/inbox", "spool/acme/outbox", "spool/acme/rejected"} {
		check(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
	}
	for _, d := range []string{"spool", "spool/acme"} {
		check(t, os.Chmod(filepath.Join(dir, d), 0o755))
	}
	key = filepath.Join(dir, "db/companies/acme/wallets/W_1/key.pem")
	for name, text := range map[string]string{
		key:                                 "the key",
		"work/acme/pay.json":                "a request",
		"journal/1.jsonl":                   "an entry",
		"db/companies/acme/company.json":    `{"name":"acme","status":"active"}`,
		"db/companies/acme/authorized_keys": "# keys\n" + lineOf("acme") + "\n",
	} {
		if name != key {
			name = filepath.Join(dir, name)
		}
		check(t, os.WriteFile(name, []byte(text), 0o400))
		check(t, os.Chmod(name, 0o600))
	}
	return dir, key
}

// keeperOf makes a keeper whose door is this test's program with args, and another
// user if the test is root.
func keeperOf(dir string, log *lockedBuffer, args ...string) *Keeper {
	k := &Keeper{
		Data: dir, Listen: "127.0.0.1:0", Program: append([]string{"/proc/self/exe"}, args...), Stderr: log,
		Settings: testSettings(), Log: zerolog.New(log), Every: 20 * time.Millisecond, grace: patience,
	}
	if os.Getuid() == 0 {
		k.User = &User{doorUID, doorUID}
	}
	return k
}

// keep runs a keeper until the test ends, and returns where its door listens.
func keep(t *testing.T, dir string, args ...string) (addr string, log *lockedBuffer) {
	t.Helper()
	log = newLockedBuffer()
	listening := make(chan string, 1)
	k := keeperOf(dir, log, args...)
	k.Listening = func(a net.Addr) { listening <- a.String() }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	select {
	case addr = <-listening:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return addr, log
}

// fingerprintIn waits for the host key's fingerprint in the log.
func fingerprintIn(t *testing.T, log *lockedBuffer) string {
	t.Helper()
	re := regexp.MustCompile(`"fingerprint":"(SHA256:[^"]+)"`)
	await(t, "the fingerprint is in the log", func() bool { return re.MatchString(log.String()) })
	return re.FindStringSubmatch(log.String())[1]
}

func dialKeeper(addr, fingerprint, user string) (*ssh.Client, error) {
	cfg := clientConfig(user, signerOf("acme"))
	cfg.HostKeyCallback = func(_ string, _ net.Addr, key ssh.PublicKey) error {
		if got := ssh.FingerprintSHA256(key); got != fingerprint {
			return fmt.Errorf("host key %s, want %s", got, fingerprint)
		}
		return nil
	}
	return ssh.Dial("tcp", addr, cfg)
}

// TestClosed: a process that is started and confined as the door is opens no key,
// no request and no journal, neither by its path nor by way of the spool. Owners and
// modes alone see to that if the test is root, and Landlock alone if the kernel has
// it, even for the same user.
func TestClosed(t *testing.T) {
	dir, key := volume(t)
	claimed := filepath.Join("work", "acme", "pay.json")
	tries := []string{
		key, "../db/companies/acme/wallets/W_1/key.pem", filepath.Join(dir, claimed), filepath.Join("..", claimed),
		filepath.Join(dir, "journal/1.jsonl"), "../journal/1.jsonl", "../db/appliance/" + hostKeyFile, "acme/../../db/companies/acme/authorized_keys",
		"/etc/shadow",
	}
	for _, c := range []struct {
		what      string
		own, bare bool
	}{{"owners and Landlock", false, false}, {"owners", false, true}, {"Landlock", true, false}} {
		if c.own {
			tries = tries[:len(tries)-1] // for root the kernel has more than that
		}
		log := newLockedBuffer()
		k := keeperOf(dir, log, "-door.probe="+strings.Join(tries, ":"), fmt.Sprintf("-door.bare=%t", c.bare))
		if k.User == nil && !c.own {
			t.Log("not run as root: the door has the test's own user, and Landlock must do")
			c.own, c.bare, k.Program = true, false, k.Program[:2]
		}
		if c.own {
			k.User = nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		await(t, c.what+": the probe has ended", func() bool { return strings.Contains(log.String(), "probed\n") })
		cancel()
		check(t, <-done)
		text, _, _ := strings.Cut(log.String(), "probed\n")
		landlock := !c.bare && !strings.Contains(text, "landlock 0")
		if c.own && !landlock {
			// Nothing keeps it out then, which is what the log must say.
			if !strings.Contains(log.String(), "only Landlock keeps it out") {
				t.Errorf("%s: the log does not warn", c.what)
			}
			continue
		}
		if n := strings.Count(text, "\nopen "); n < 3*len(tries)-1 {
			t.Fatalf("%s: only %d tries:\n%s", c.what, n, text)
		}
		if c.bare && !strings.Contains(text, "true: all threads have no_new_privs") {
			t.Errorf("%s: a thread may get new rights:\n%s", c.what, text)
		}
		forbidden := "open|mkdir"
		if landlock {
			// Without it, a link in its own inbox is the door's own affair: nobody
			// follows it.
			forbidden += "|symlink|connect"
		}
		if m := regexp.MustCompile(`(?m)^(`+forbidden+`).*(<nil>|refused)$`).FindAllString(text, -1); m != nil {
			t.Errorf("%s: this could be done: %q", c.what, m)
		}
		if _, err := os.Lstat(filepath.Join(dir, "stray")); err == nil {
			t.Errorf("%s: a directory was made on the volume", c.what)
		}
		os.Remove(filepath.Join(dir, "spool/acme/inbox/link"))
	}
}

var pidForm = regexp.MustCompile(`"pid":(\d+)`)

// pids are the doors that were started, in order.
func pids(log *lockedBuffer) (out []int) {
	for _, m := range pidForm.FindAllStringSubmatch(log.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		out = append(out, n)
	}
	return out
}

// TestKeeper: the door as a process of its own, from its host key to its death.
func TestKeeper(t *testing.T) {
	dir, _ := volume(t)
	check(t, os.WriteFile(filepath.Join(dir, "spool/acme/outbox/old.result.json"), []byte("old"), 0o640))
	addr, log := keep(t, dir, "-door.child")
	print := fingerprintIn(t, log)
	out, err := exec.Command("ssh-keygen", "-lf", filepath.Join(dir, "db/appliance", hostKeyFile)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), print) {
		t.Errorf("ssh-keygen shows %s, %v; the log %s", out, err, print)
	}
	conn, err := dialKeeper(addr, print, "acme")
	check(t, err)
	c, err := sftp.NewClient(conn)
	check(t, err)
	check(t, put(c, "/inbox/pay.json", []byte("x")))
	info, err := os.Stat(filepath.Join(dir, "spool/acme/inbox/pay.json"))
	check(t, err)
	f, err := c.Open("/outbox/old.result.json")
	check(t, err)
	check(t, f.Close())
	check(t, c.Remove("/outbox/old.result.json"))

	pid := pids(log)[0]
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	want := []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000000"}
	if os.Getuid() == 0 {
		want = append(want, fmt.Sprintf("Uid:\t%d\t%[1]d\t%[1]d\t%[1]d", doorUID), fmt.Sprintf("Gid:\t%d\t%[1]d\t%[1]d\t%[1]d", doorUID))
		if st := info.Sys().(*syscall.Stat_t); st.Uid != doorUID || st.Gid != doorUID {
			t.Errorf("the upload belongs to %d:%d", st.Uid, st.Gid)
		}
	}
	for _, w := range want {
		if !strings.Contains(string(status), w) {
			t.Errorf("the door's status lacks %q:\n%s", w, status)
		}
	}
	// Its own user cannot look at it (it is not dumpable); root can.
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if (err == nil) != (os.Getuid() == 0) {
		t.Errorf("looking at the door's descriptors: %v", err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err == nil && strings.HasPrefix(target, dir) && !strings.HasPrefix(target, filepath.Join(dir, "spool")) {
			t.Errorf("the door has %s open", target)
		}
	}
	for _, w := range []string{`"message":"SFTP door: what is enforced"`, `"keys_closed":true`, `"landlock":`} {
		if !strings.Contains(log.String(), w) {
			t.Errorf("the log lacks %s", w)
		}
	}

	// The company is disabled: its connection ends, and it is not let in again.
	file := filepath.Join(dir, "db/companies/acme/company.json")
	check(t, os.WriteFile(file, []byte(`{"name":"acme","status":"disabled"}`), 0o600))
	await(t, "the connection is closed", func() bool { _, err := c.Stat("/"); return err != nil })
	if conn, err := dialKeeper(addr, print, "acme"); err == nil {
		conn.Close()
		t.Error("a disabled company was let in")
	}
	check(t, os.WriteFile(file, []byte(`{"name":"acme","status":"active"}`), 0o600))
	await(t, "the company is let in again", func() bool {
		conn, err := dialKeeper(addr, print, "acme")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	// Administrators come with a file of their own, and need directories too.
	check(t, os.WriteFile(filepath.Join(dir, "db/admins/authorized_keys"), []byte(lineOf("acme")), 0o600))
	await(t, "an administrator is let in", func() bool {
		conn, err := dialKeeper(addr, print, "admin")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	// It dies in the middle of an upload, and another one takes its place: same
	// port, same key. Nobody knows what of the upload came, so it begins anew.
	half := func(name string) string { return filepath.Join(dir, "spool/acme/inbox", name) }
	begun, err := dialKeeper(addr, print, "acme")
	check(t, err)
	defer begun.Close()
	c, err = sftp.NewClient(begun)
	check(t, err)
	f, err = c.Create("/inbox/half.json")
	check(t, err)
	_, err = f.Write([]byte("one half, "))
	check(t, err)
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	await(t, "there is another door", func() bool { return len(pids(log)) > 1 })
	if _, err := os.Stat(half("half.json")); !os.IsNotExist(err) {
		t.Errorf("half a file is visible: %v", err)
	}
	conn, err = dialKeeper(addr, print, "acme")
	check(t, err)
	defer conn.Close()
	c, err = sftp.NewClient(conn)
	check(t, err)
	if _, err = c.OpenFile("/inbox/half.json", os.O_WRONLY); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a killed door left can be resumed: %v", err)
	}
	check(t, put(c, "/inbox/half.json", []byte("one half, the other")))
	if got, err := os.ReadFile(half("half.json")); err != nil || string(got) != "one half, the other" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if !strings.Contains(log.String(), "SFTP door died") {
		t.Error("the log does not say that it died")
	}
	if conn, err := net.Dial("tcp", addr); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

// TestKeeperRefuses: two keepers do not work on one volume, and a host key that others
// can read is not used.
func TestKeeperRefuses(t *testing.T) {
	dir, _ := volume(t)
	_, log := keep(t, dir, "-door.child")
	await(t, "the door is ready", func() bool { return strings.Contains(log.String(), "SFTP door: ready") })
	second := &Keeper{Data: dir, Listen: "127.0.0.1:0", Settings: testSettings(), Log: zerolog.Nop()}
	if err := second.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "another SFTP door") {
		t.Errorf("a second keeper: %v", err)
	}
	dir, _ = volume(t)
	name := filepath.Join(dir, "db/appliance", hostKeyFile)
	check(t, os.WriteFile(name, []byte("x"), 0o644))
	third := &Keeper{Data: dir, Listen: "127.0.0.1:0", Settings: testSettings(), Log: zerolog.Nop()}
	if err := third.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("an open host key: %v", err)
	}
	check(t, os.Chmod(name, 0o400))
	if err := third.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a damaged host key: %v", err)
	}
}

// TestGroups: a company that comes while the door runs is let in, also one whose
// directories belong to a group of its own, which stays. Nothing but the three
// directories changes its group.
func TestGroups(t *testing.T) {
	dir, _ := volume(t)
	addr, log := keep(t, dir, "-door.child")
	print := fingerprintIn(t, log)
	const group = 23456
	for _, d := range []string{"db/companies/beta", "spool/beta/inbox", "spool/beta/outbox", "spool/beta/rejected"} {
		check(t, os.MkdirAll(filepath.Join(dir, d), 0o700))
	}
	check(t, os.Chmod(filepath.Join(dir, "spool/beta"), 0o755))
	for _, box := range boxes {
		path := filepath.Join(dir, "spool/beta", box)
		if os.Getuid() == 0 {
			check(t, os.Chown(path, 0, group))
		}
		check(t, os.Chmod(path, fs.ModeSetgid|0o770))
	}
	check(t, os.WriteFile(filepath.Join(dir, "db/companies/beta/company.json"), []byte(`{"name":"beta","status":"active"}`), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "db/companies/beta/authorized_keys"), []byte(lineOf("acme")), 0o600))
	await(t, "the new company can upload", func() bool {
		conn, err := dialKeeper(addr, print, "beta")
		if err != nil {
			return false
		}
		defer conn.Close()
		c, err := sftp.NewClient(conn)
		return err == nil && put(c, "/inbox/pay.json", []byte("x")) == nil
	})
	if os.Getuid() != 0 {
		return
	}
	if strings.Contains(log.String(), "SFTP door died") {
		t.Error("the door died of it")
	}
	gid := func(path string) uint32 {
		info, err := os.Stat(filepath.Join(dir, path))
		check(t, err)
		return info.Sys().(*syscall.Stat_t).Gid
	}
	for path, want := range map[string]uint32{
		"spool/beta/inbox": group, "spool/beta/outbox": group, "spool/beta/inbox/pay.json": group, "spool/acme/inbox": doorUID, "spool/acme/rejected": doorUID,
		"spool": 0, "spool/acme": 0, "db": 0, "db/companies/acme": 0, "work": 0, "journal": 0, "": 0,
	} {
		if got := gid(path); got != want {
			t.Errorf("%s has the group %d, want %d", path, got, want)
		}
	}
}

// TestNotice: db/appliance/door.json tells of the door while it is served, is gone
// while it is dead and after the keeper, and a killed keeper's is removed.
func TestNotice(t *testing.T) {
	dir, _ := volume(t)
	path := filepath.Join(dir, "db/appliance", notice.File)
	check(t, os.WriteFile(path, []byte("of a keeper that was killed"), 0o600))
	log := newLockedBuffer()
	k := keeperOf(dir, log, "-door.child")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	read := func() (n notice.Notice, ok bool) {
		data, err := os.ReadFile(path)
		return n, err == nil && json.Unmarshal(data, &n) == nil
	}
	var n notice.Notice
	await(t, "the notice is there", func() (ok bool) { n, ok = read(); return ok })
	if n.Fingerprint != fingerprintIn(t, log) || !n.KeysClosed || n.OwnUser != (k.User != nil) || n.Address == "" {
		t.Errorf("the notice says %+v", n)
	}
	c, err := dialKeeper(n.Address, n.Fingerprint, "acme")
	check(t, err)
	c.Close()
	check(t, syscall.Kill(n.PID, syscall.SIGKILL))
	await(t, "the notice of the dead door is gone", func() bool {
		m, ok := read()
		return !ok || m.PID != n.PID
	})
	await(t, "another door is served", func() bool {
		m, ok := read()
		return ok && m.PID != n.PID
	})
	cancel()
	check(t, <-done)
	if _, err := os.Stat(path); err == nil {
		t.Error("the notice has stayed")
	}
}

// TestOrderlyStop: a door that is told to end leaves what came without a gap, to be
// resumed.
func TestOrderlyStop(t *testing.T) {
	dir, _ := volume(t)
	log := newLockedBuffer()
	k := keeperOf(dir, log, "-door.child")
	listening := make(chan string, 1)
	k.Listening = func(a net.Addr) { listening <- a.String() }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	conn, err := dialKeeper(<-listening, fingerprintIn(t, log), "acme")
	check(t, err)
	defer conn.Close()
	c, err := sftp.NewClient(conn)
	check(t, err)
	f, err := c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.Write([]byte("one half"))
	check(t, err)
	_, err = f.WriteAt([]byte("end"), 100)
	check(t, err)
	cancel()
	check(t, <-done)
	left := filepath.Join(dir, "spool/acme/inbox", hidden+"pay.json")
	info, err := os.Stat(left)
	check(t, err)
	if text, err := os.ReadFile(left); err != nil || string(text) != "one half" || info.Mode().Perm() != finished {
		t.Errorf("left are %q with the mode %o, %v", text, info.Mode().Perm(), err)
	}
}

// TestGroupIsKilled: a door that does not end is killed, and what it has started too.
func TestGroupIsKilled(t *testing.T) {
	dir, _ := volume(t)
	log := newLockedBuffer()
	k := keeperOf(dir, log)
	k.Program = []string{"/bin/sh", "-c", "sleep 300 & echo started $! >&2; wait; exit"}
	k.grace = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	re := regexp.MustCompile(`started (\d+)\n`)
	await(t, "the program has started another", func() bool { return re.MatchString(log.String()) })
	stat := "/proc/" + re.FindStringSubmatch(log.String())[1] + "/stat"
	if _, err := os.Stat(stat); err != nil {
		t.Fatal(err)
	}
	cancel()
	check(t, <-done)
	await(t, "it has gone", func() bool {
		text, err := os.ReadFile(stat)
		return err != nil || strings.Contains(string(text), ") Z ")
	})
}
