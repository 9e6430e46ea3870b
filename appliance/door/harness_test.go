package door

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"signdrop/spool/durable"
)

// patience bounds every wait for a condition.
const patience = 2 * time.Minute

// await waits until cond holds.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keyOf makes an Ed25519 key that follows from a name.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("signdrop door " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signerOf(name string) ssh.Signer {
	s, err := ssh.NewSignerFromKey(keyOf(name))
	if err != nil {
		panic(err)
	}
	return s
}

func lineOf(name string) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signerOf(name).PublicKey())))
}

// bed is a door in this process, with the companies acme and other.
type bed struct {
	t    testing.TB
	srv  *server
	dir  string // spool/
	addr string
	log  *lockedBuffer
	skew atomic.Int64 // what the door's clock is ahead, nanoseconds
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	ch chan []byte // holds the content, and so is the lock
}

func newLockedBuffer() *lockedBuffer {
	b := &lockedBuffer{make(chan []byte, 1)}
	b.ch <- nil
	return b
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.ch <- append(<-b.ch, p...)
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	s := <-b.ch
	b.ch <- s
	return string(s)
}

func testSettings() Settings {
	set := DefaultSettings()
	set.Reserve = 0
	set.SourceBurst, set.SourceRate = 1e6, 1e6
	return set
}

func newBed(t testing.TB, set Settings) *bed {
	t.Helper()
	b := &bed{t: t, dir: t.TempDir(), log: newLockedBuffer()}
	for _, company := range []string{"acme", "other"} {
		for _, box := range boxes {
			check(t, os.MkdirAll(filepath.Join(b.dir, company, box), 0o770))
		}
	}
	vol, err := durable.OpenDisk(b.dir)
	check(t, err)
	t.Cleanup(func() { vol.Close() })
	b.srv = newServer(set, vol, signerOf("host"), zerolog.New(b.log))
	t.Cleanup(b.srv.close)
	b.srv.now = func() time.Time { return time.Now().Add(time.Duration(b.skew.Load())) }
	b.srv.setCompany("acme", []byte(lineOf("acme")+"\n"))
	b.srv.setCompany("other", []byte(lineOf("other")+"\n"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	b.addr = l.Addr().String()
	go b.srv.serve(l)
	return b
}

// dial logs in over conn's address.
func (b *bed) dial(user string, signer ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", b.addr, clientConfig(user, signer))
}

func clientConfig(user string, signer ssh.Signer) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: ssh.FixedHostKey(signerOf("host").PublicKey()), Timeout: patience,
	}
}

// sftp logs in as a company.
func (b *bed) sftp(company string) *sftp.Client {
	b.t.Helper()
	conn, err := b.dial(company, signerOf(company))
	check(b.t, err)
	b.t.Cleanup(func() { conn.Close() })
	c, err := sftp.NewClient(conn)
	check(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

// put uploads and closes.
func put(c *sftp.Client, path string, data []byte) error {
	f, err := c.Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// onDisk lists a directory of acme's, hidden names and all.
func (b *bed) onDisk(box string) []string {
	b.t.Helper()
	es, err := os.ReadDir(filepath.Join(b.dir, "acme", box))
	check(b.t, err)
	names := []string{}
	for _, e := range es {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	return names
}

func (b *bed) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir, "acme"}, parts...)...)
}

// holds asserts the names in a box.
func (b *bed) holds(box string, want ...string) {
	b.t.Helper()
	if got := b.onDisk(box); fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s holds %q, want %q", box, got, want)
	}
}

func (b *bed) content(want []byte, parts ...string) {
	b.t.Helper()
	got, err := os.ReadFile(b.path(parts...))
	check(b.t, err)
	if !bytes.Equal(got, want) {
		b.t.Errorf("%v has %d other bytes than the %d that were uploaded", parts, len(got), len(want))
	}
}

// idle asserts that nothing stays open after all sessions have ended.
func (b *bed) idle() {
	b.t.Helper()
	r := b.srv.room("acme")
	await(b.t, "all connections are closed", func() bool { return len(b.srv.open()) == 0 })
	await(b.t, "all handles are given back", func() bool { return r.handles.Load() == 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.uploads) != 0 {
		b.t.Errorf("%d uploads are still open", len(r.uploads))
	}
}

// bytesOf makes content that differs everywhere.
func bytesOf(n int) []byte {
	out := make([]byte, 0, n+32)
	sum := sha256.Sum256(nil)
	for len(out) < n {
		sum = sha256.Sum256(sum[:])
		out = append(out, sum[:]...)
	}
	return out[:n]
}

// keyFile writes a private key as OpenSSH has it.
func keyFile(t testing.TB, name string) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(keyOf(name), name)
	check(t, err)
	path := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	check(t, os.WriteFile(path+".pub", []byte(lineOf(name)+"\n"), 0o600))
	return path
}

// relay passes connections on to a door and cuts each after limit bytes from the
// client, a negative one never.
type relay struct {
	l     net.Listener
	to    string
	limit int64
}

func newRelay(t testing.TB, to string, limit int64) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	r := &relay{l: l, to: to, limit: limit}
	t.Cleanup(func() { l.Close() })
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

func (r *relay) pass(client net.Conn) {
	defer client.Close()
	door, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer door.Close()
	go func() {
		io.Copy(client, door)
		client.Close()
	}()
	if r.limit < 0 {
		io.Copy(door, client)
		return
	}
	io.CopyN(door, client, r.limit)
}

func (r *relay) addr() string { return r.l.Addr().String() }
