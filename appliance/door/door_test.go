package door

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// TestUpload: nothing is visible before CLOSE, everything after it.
func TestUpload(t *testing.T) {
	b := newBed(t, testSettings())
	c := b.sftp("acme")
	data := bytesOf(200_000)
	f, err := c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.Write(data)
	check(t, err)
	b.holds("inbox", ".door-pay.json")
	if info, err := c.Stat("/inbox/pay.json"); err != nil || info.Size() != int64(len(data)) {
		t.Errorf("stat of an upload under way: %v, %v", info, err)
	}
	check(t, f.Close())
	b.holds("inbox", "pay.json")
	b.content(data, "inbox", "pay.json")
	info, err := os.Stat(b.path("inbox", "pay.json"))
	check(t, err)
	if info.Mode() != 0o640 {
		t.Errorf("mode %v, want 0640", info.Mode())
	}
	// Claimed: stat answers for a while, and nothing else does.
	check(t, os.Remove(b.path("inbox", "pay.json")))
	if info, err := c.Stat("/inbox/pay.json"); err != nil || info.Size() != int64(len(data)) {
		t.Errorf("stat of a claimed file: %v, %v", info, err)
	}
	check(t, c.Chtimes("/inbox/pay.json", time.Now(), time.Now()))
	if err := c.Remove("/inbox/pay.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removing a claimed file: %v", err)
	}
	if list, err := c.ReadDir("/inbox"); err != nil || len(list) != 0 {
		t.Errorf("the inbox lists %v, %v", list, err)
	}
	b.skew.Store(int64(b.srv.set.Recent))
	if _, err := c.Stat("/inbox/pay.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of a file that was claimed long ago: %v", err)
	}
	c.Close()
}

// TestExitStatus: a session that ends in order says so (scp looks).
func TestExitStatus(t *testing.T) {
	b := newBed(t, testSettings())
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	ch, requests, err := conn.OpenChannel("session", nil)
	check(t, err)
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	_, err = ch.Write(packet(fxpInit, 3))
	check(t, err)
	check(t, ch.CloseWrite())
	r := <-requests
	if r == nil || r.Type != "exit-status" || !bytes.Equal(r.Payload, make([]byte, 4)) {
		t.Errorf("the session ended with %+v", r)
	}
}

// TestReplace: a second upload of a name that waits takes its place in one step, and
// until then the first one stands.
func TestReplace(t *testing.T) {
	b := newBed(t, testSettings())
	c := b.sftp("acme")
	check(t, put(c, "/inbox/pay.json", []byte("one")))
	f, err := c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.Write([]byte("second"))
	check(t, err)
	b.content([]byte("one"), "inbox", "pay.json")
	check(t, f.Close())
	b.content([]byte("second"), "inbox", "pay.json")
	if _, err := c.OpenFile("/inbox/pay.json", os.O_WRONLY|os.O_CREATE|os.O_EXCL); err == nil {
		t.Error("an exclusive upload of a name that waits was begun")
	}
	b.holds("inbox", "pay.json")
}

// TestResume: a cut leaves what came, hidden; it can be gone on with, and only the
// end makes it visible.
func TestResume(t *testing.T) {
	b := newBed(t, testSettings())
	data := bytesOf(100_000)
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	c, err := sftp.NewClient(conn)
	check(t, err)
	f, err := c.Create("/inbox/run.jsonl")
	check(t, err)
	_, err = f.Write(data[:60_000])
	check(t, err)
	conn.Close()
	b.idle()
	b.holds("inbox", ".door-run.jsonl")
	c = b.sftp("acme")
	info, err := c.Stat("/inbox/run.jsonl")
	check(t, err)
	if info.Size() != 60_000 {
		t.Fatalf("%d bytes are left, want 60000", info.Size())
	}
	if list, err := c.ReadDir("/inbox"); err != nil || len(list) != 1 || list[0].Name() != "run.jsonl" {
		t.Errorf("the inbox lists %v, %v", list, err)
	}
	for what, err := range map[string]error{
		"rename":       c.Rename("/inbox/run.jsonl", "/inbox/x.jsonl"),
		"posix-rename": c.PosixRename("/inbox/run.jsonl", "/inbox/x.jsonl"),
	} {
		if err == nil {
			t.Errorf("%s made an unfinished upload visible", what)
		}
	}
	f, err = c.OpenFile("/inbox/run.jsonl", os.O_WRONLY)
	check(t, err)
	_, err = f.WriteAt(data[60_000:], 60_000)
	check(t, err)
	b.holds("inbox", ".door-run.jsonl")
	check(t, f.Close())
	b.holds("inbox", "run.jsonl")
	b.content(data, "inbox", "run.jsonl")

	// What waits can be gone on with too, and is hidden from the first write on.
	f, err = c.OpenFile("/inbox/run.jsonl", os.O_WRONLY)
	check(t, err)
	b.holds("inbox", "run.jsonl")
	_, err = f.WriteAt([]byte("more"), 100_000)
	check(t, err)
	b.holds("inbox", ".door-run.jsonl")
	check(t, f.Close())
	b.content(append(data, "more"...), "inbox", "run.jsonl")
}

// TestTakeover: a second upload of the same name ends the first, whose connection
// may be dead without anybody knowing.
func TestTakeover(t *testing.T) {
	b := newBed(t, testSettings())
	one, two := b.sftp("acme"), b.sftp("acme")
	f, err := one.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.Write([]byte("the first upload"))
	check(t, err)
	check(t, put(two, "/inbox/pay.json", []byte("the second")))
	if _, err := f.Write([]byte("more")); err == nil || !strings.Contains(err.Error(), "newer upload") {
		t.Errorf("writing to the first: %v", err)
	}
	if err := f.Close(); err == nil {
		t.Error("closing the first was told to be well")
	}
	b.holds("inbox", "pay.json")
	b.content([]byte("the second"), "inbox", "pay.json")
}

// TestHoles: a file of which a part never came is not taken for whole.
func TestHoles(t *testing.T) {
	b := newBed(t, testSettings())
	c := b.sftp("acme")
	f, err := c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.WriteAt([]byte("begin"), 0)
	check(t, err)
	_, err = f.WriteAt([]byte("end"), 10)
	check(t, err)
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "from 5 on") {
		t.Errorf("closing a file with a hole: %v", err)
	}
	b.holds("inbox", ".door-pay.json")
	b.content([]byte("begin"), "inbox", ".door-pay.json")
	// Out of order, and whole in the end.
	f, err = c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.WriteAt([]byte("end"), 5)
	check(t, err)
	_, err = f.WriteAt([]byte("begin"), 0)
	check(t, err)
	check(t, f.Close())
	b.content([]byte("beginend"), "inbox", "pay.json")
}

// TestSees: three directories, the company's own, and nothing that leads elsewhere.
func TestSees(t *testing.T) {
	b := newBed(t, testSettings())
	secret := filepath.Join(b.dir, "other", "outbox", "pay.result.json")
	check(t, os.WriteFile(secret, []byte("secret"), 0o600))
	check(t, os.WriteFile(b.path("outbox", "pay.result.json"), []byte("answer"), 0o600))
	check(t, os.WriteFile(b.path("rejected", "bad.reason.json"), []byte("reason"), 0o600))
	check(t, os.Symlink(secret, b.path("outbox", "link.json")))
	check(t, os.Symlink(filepath.Dir(secret), b.path("outbox", "dir")))
	check(t, os.Mkdir(b.path("inbox", "sub"), 0o700))
	c := b.sftp("acme")
	for dir, want := range map[string]string{
		"/": "[inbox outbox rejected]", "/inbox": "[]", "/outbox": "[pay.result.json]", "/rejected": "[bad.reason.json]",
		"outbox": "[pay.result.json]", "/inbox/../outbox/": "[pay.result.json]", "../../outbox": "[pay.result.json]",
	} {
		list, err := c.ReadDir(dir)
		check(t, err)
		names := []string{}
		for _, i := range list {
			names = append(names, i.Name())
		}
		if fmt.Sprint(names) != want {
			t.Errorf("%s lists %v, want %s", dir, names, want)
		}
	}
	f, err := c.Open("/outbox/pay.result.json")
	check(t, err)
	got, err := io.ReadAll(f)
	check(t, err)
	check(t, f.Close())
	if string(got) != "answer" {
		t.Errorf("the answer reads %q", got)
	}
	long := strings.Repeat("x", 4096)
	for _, p := range []string{
		secret, "/etc/passwd", "/../etc/passwd", "/outbox/../../other/outbox/pay.result.json", "//outbox//link.json", "/outbox/dir/pay.result.json",
		"/outbox/link.json", "/outbox/dir", "/outbox/.", "/inbox/sub/x", "/inbox/pay.json\x00", "/outbox/pay.result.json\x00.png", "/inbox/" + long,
		"/outbox/" + long, "/" + long, "/INBOX", "/inbox\u200b", "/ou\u0442box/pay.result.json", "/other", "/acme/outbox/pay.result.json", "/outbox/pay.result.json/x",
		"\x00", "/outbox/%2e%2e/x", `\outbox\pay.result.json`, "/outbox/..\\..\\x", "/inbox/.door-pay.json",
	} {
		if f, err := c.Open(p); err == nil {
			f.Close()
			if p != "/outbox/." && p != "/outbox/dir" {
				t.Errorf("%.60q was opened", p)
			}
		}
		if p != "/outbox/." {
			if i, err := c.Stat(p); err == nil {
				t.Errorf("%.60q has %v", p, i.Mode())
			}
			if err := c.Remove(p); err == nil {
				t.Errorf("%.60q was removed", p)
			}
		}
		if err := put(c, p, []byte("x")); err == nil {
			t.Errorf("%.60q was written", p)
		}
	}
	for what, err := range map[string]error{
		"symlink":              c.Symlink("/outbox/pay.result.json", "/inbox/l.json"),
		"symlink out":          c.Symlink(secret, "/inbox/l.json"),
		"hard link":            c.Link("/outbox/pay.result.json", "/inbox/l.json"),
		"mkdir":                c.Mkdir("/inbox/d"),
		"mkdir at the top":     c.Mkdir("/d"),
		"rmdir":                c.RemoveDirectory("/inbox/sub"),
		"rmdir of the inbox":   c.RemoveDirectory("/inbox"),
		"write to the outbox":  put(c, "/outbox/x.json", nil),
		"overwrite an answer":  put(c, "/outbox/pay.result.json", nil),
		"write to rejected":    put(c, "/rejected/x.json", nil),
		"write to the top":     put(c, "/x.json", nil),
		"rename to the outbox": c.Rename("/inbox/sub", "/outbox/x"),
		"rename an answer":     c.PosixRename("/outbox/pay.result.json", "/outbox/x.json"),
		"answer to the inbox":  c.PosixRename("/outbox/pay.result.json", "/inbox/x.json"),
		"rename the inbox":     c.Rename("/inbox", "/x"),
		"truncate":             c.Truncate("/outbox/pay.result.json", 0),
		"look-alike name":      put(c, "/inbox/p\u0430y.json", nil),
		"space in a name":      put(c, "/inbox/p y.json", nil),
		"file of a directory":  put(c, "/inbox/sub", nil),
	} {
		if err == nil {
			t.Errorf("%s was done", what)
		}
	}
	if _, err := c.ReadLink("/outbox/link.json"); err == nil {
		t.Error("a link was read")
	}
	check(t, c.Chmod("/outbox/pay.result.json", 0o777))
	check(t, c.Chown("/outbox/pay.result.json", 1, 1))
	if i, err := os.Stat(b.path("outbox", "pay.result.json")); err != nil || i.Mode() != 0o600 {
		t.Errorf("chmod or chown had an effect: %v, %v", i.Mode(), err)
	}
	check(t, c.Remove("/outbox/pay.result.json"))
	check(t, c.Remove("/rejected/bad.reason.json"))
	b.holds("outbox", "dir", "link.json")
	b.holds("inbox", "sub")
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("the other company's answer: %q, %v", got, err)
	}
	if strings.Contains(errText(c.Remove("/inbox/none.json")), b.dir) {
		t.Error("a status shows a path of ours")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestRename: within the inbox, without replacing and with.
func TestRename(t *testing.T) {
	b := newBed(t, testSettings())
	c := b.sftp("acme")
	check(t, put(c, "/inbox/.in.pay.json", []byte("one")))
	check(t, c.Rename("/inbox/.in.pay.json", "/inbox/pay.json"))
	b.holds("inbox", "pay.json")
	// The client that lost the answer asks again.
	check(t, c.Rename("/inbox/.in.pay.json", "/inbox/pay.json"))
	check(t, put(c, "/inbox/pay.json.part", []byte("two")))
	if err := c.Rename("/inbox/pay.json.part", "/inbox/pay.json"); err == nil {
		t.Error("a plain rename replaced a file")
	}
	b.content([]byte("one"), "inbox", "pay.json")
	check(t, c.PosixRename("/inbox/pay.json.part", "/inbox/pay.json"))
	b.content([]byte("two"), "inbox", "pay.json")
	b.holds("inbox", "pay.json")
	if err := c.Rename("/inbox/none", "/inbox/x.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("renaming what is not there: %v", err)
	}
	check(t, os.Remove(b.path("inbox", "pay.json")))
	if _, err := c.Stat("/inbox/pay.json"); err != nil {
		t.Errorf("stat after rename and claim: %v", err)
	}
	f, err := c.Create("/inbox/a.tmp")
	check(t, err)
	if err := c.Rename("/inbox/a.tmp", "/inbox/a.json"); err == nil {
		t.Error("a file that is being uploaded was renamed")
	}
	check(t, f.Close())
}

// TestQuota: bytes, files and the disk. What does not fit is refused with a clear
// status and is not visible.
func TestQuota(t *testing.T) {
	set := testSettings()
	set.MaxBytes, set.MaxFiles, set.MaxFile = 1000, 3, 900
	b := newBed(t, set)
	c := b.sftp("acme")
	st, err := c.StatVFS("/inbox")
	check(t, err)
	if st.Files != 3 || st.Ffree != 3 || st.Blocks != 1 {
		t.Errorf("statvfs says %+v", st)
	}
	refused := func(what, want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	refused("too large", "larger than 900", put(c, "/inbox/large.json", make([]byte, 901)))
	b.holds("inbox")
	check(t, put(c, "/inbox/a.json", make([]byte, 600)))
	refused("more bytes than the quota", "quota", put(c, "/inbox/b.json", make([]byte, 500)))
	b.holds("inbox", "a.json")
	check(t, put(c, "/inbox/b.json", make([]byte, 300)))
	check(t, put(c, "/inbox/c.json", nil))
	refused("more files than the quota", "quota", put(c, "/inbox/d.json", nil))
	b.holds("inbox", "a.json", "b.json", "c.json")
	if st, err = c.StatVFS("/"); err != nil || st.Ffree != 0 {
		t.Errorf("statvfs says %+v, %v", st, err)
	}
	// The appliance takes a file, and there is room again.
	check(t, os.Remove(b.path("inbox", "a.json")))
	await(t, "there is room again", func() bool { return put(c, "/inbox/d.json", make([]byte, 500)) == nil })
	// A client that does not look at what its writes are answered.
	check(t, c.Remove("/inbox/c.json"))
	f, err := c.Create("/inbox/c.json")
	check(t, err)
	_, err = f.Write(make([]byte, 100))
	check(t, err)
	f.WriteAt(make([]byte, 500), 100)
	refused("closing after a refused write", "quota", f.Close())
	b.holds("inbox", ".door-c.json", "b.json", "d.json")

	full := testSettings()
	full.Reserve = 1 << 62
	b = newBed(t, full)
	c = b.sftp("acme")
	refused("a full disk", "nearly full", put(c, "/inbox/a.json", nil))
	b.holds("inbox")
	if st, err := c.StatVFS("/"); err != nil || st.Bavail != 0 {
		t.Errorf("statvfs says %+v, %v", st, err)
	}
}

// TestSweep: what nobody resumes is removed in the end, and nothing else is.
func TestSweep(t *testing.T) {
	b := newBed(t, testSettings())
	for _, n := range []string{".door-old.json", "old.json", ".in.old.json"} {
		check(t, os.WriteFile(b.path("inbox", n), []byte("x"), 0o600))
	}
	c := b.sftp("acme")
	f, err := c.Create("/inbox/now.json")
	check(t, err)
	b.srv.sweep(time.Now().Add(b.srv.set.Keep / 2))
	b.holds("inbox", ".door-now.json", ".door-old.json", ".in.old.json", "old.json")
	b.srv.sweep(time.Now().Add(b.srv.set.Keep + time.Hour))
	b.holds("inbox", ".door-now.json", ".in.old.json", "old.json")
	check(t, f.Close())
}

// TestLogin: who may and who may not.
func TestLogin(t *testing.T) {
	b := newBed(t, testSettings())
	refused := func(what, user string, s ssh.Signer) {
		t.Helper()
		if c, err := b.dial(user, s); err == nil {
			c.Close()
			t.Errorf("%s was let in", what)
		}
	}
	refused("another company's key", "acme", signerOf("other"))
	refused("an unknown company", "nobody", signerOf("acme"))
	refused("the administrators' name", "admin", signerOf("acme"))
	refused("a path as a name", "../acme", signerOf("acme"))
	refused("no name", "", signerOf("acme"))
	cfg := clientConfig("acme", signerOf("acme"))
	cfg.Auth = []ssh.AuthMethod{ssh.Password(""), ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })}
	if c, err := ssh.Dial("tcp", b.addr, cfg); err == nil {
		c.Close()
		t.Error("a password was accepted")
	}
	// CVE-2024-45337: the key that is offered last need not be the one that is
	// proven.
	cfg = clientConfig("other", signerOf("other"))
	cfg.Auth = []ssh.AuthMethod{ssh.PublicKeys(signerOf("acme"), signerOf("other"))}
	conn, err := ssh.Dial("tcp", b.addr, cfg)
	check(t, err)
	defer conn.Close()
	c, err := sftp.NewClient(conn)
	check(t, err)
	check(t, put(c, "/inbox/x.json", nil))
	b.holds("inbox")

	// A key that is removed ends its connections, and lets nobody in.
	b.srv.setCompany("other", nil)
	await(t, "the connection is closed", func() bool { _, err := c.Stat("/"); return err != nil })
	refused("a removed key", "other", signerOf("other"))
	b.srv.setCompany("admin", []byte(lineOf("acme")))
	conn, err = b.dial("admin", signerOf("acme"))
	check(t, err)
	if _, err := sftp.NewClient(conn); err == nil {
		t.Error("a company without directories got a session")
	}
	conn.Close()
	b.srv.dropCompany("acme")
	refused("a company that is gone", "acme", signerOf("acme"))
	if strings.Contains(b.log.String(), "internal error") {
		t.Error(b.log.String())
	}
}

// TestAlgorithms: the post-quantum exchange is what a client that knows it gets, and
// old algorithms get none.
func TestAlgorithms(t *testing.T) {
	b := newBed(t, testSettings())
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	meta, ok := conn.Conn.(ssh.AlgorithmsConnMetadata)
	if !ok || meta.Algorithms().KeyExchange != ssh.KeyExchangeMLKEM768X25519 {
		t.Errorf("key exchange is %+v", meta.Algorithms())
	}
	if v := string(conn.ServerVersion()); v != "SSH-2.0-signdrop" {
		t.Errorf("version is %q", v)
	}
	for _, cfg := range []ssh.Config{
		{KeyExchanges: []string{ssh.InsecureKeyExchangeDH14SHA1}}, {Ciphers: []string{ssh.InsecureCipherAES128CBC}}, {MACs: []string{ssh.HMACSHA1}, Ciphers: []string{ssh.CipherAES128CTR}},
	} {
		cc := clientConfig("acme", signerOf("acme"))
		cc.Config = cfg
		if c, err := ssh.Dial("tcp", b.addr, cc); err == nil {
			c.Close()
			t.Errorf("%+v was agreed on", cfg)
		}
	}
}

// TestNothingElse: no shell, no command, no forwarding.
func TestNothingElse(t *testing.T) {
	b := newBed(t, testSettings())
	for what, f := range map[string]func(s *ssh.Session) error{
		"exec":      func(s *ssh.Session) error { return s.Run("id") },
		"shell":     (*ssh.Session).Shell,
		"pty":       func(s *ssh.Session) error { return s.RequestPty("xterm", 1, 1, nil) },
		"env":       func(s *ssh.Session) error { return s.Setenv("A", "b") },
		"subsystem": func(s *ssh.Session) error { return s.RequestSubsystem("netconf") },
	} {
		// A connection each: the last one's channel may still count.
		conn, err := b.dial("acme", signerOf("acme"))
		check(t, err)
		s, err := conn.NewSession()
		check(t, err)
		if f(s) == nil {
			t.Errorf("%s was granted", what)
		}
		conn.Close()
	}
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	if _, err := conn.Dial("tcp", b.addr); err == nil {
		t.Error("a connection was forwarded")
	}
	if _, err := conn.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a port was forwarded")
	}
}

// TestConcurrentWrites: a client that sends parts of a file at once.
func TestConcurrentWrites(t *testing.T) {
	b := newBed(t, testSettings())
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	c, err := sftp.NewClient(conn, sftp.UseConcurrentWrites(true))
	check(t, err)
	data := bytesOf(1 << 20)
	f, err := c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.ReadFromWithConcurrency(bytes.NewReader(data), 16)
	check(t, err)
	check(t, f.Close())
	b.content(data, "inbox", "pay.json")
}
