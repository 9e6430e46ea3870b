package door

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"signdrop/spool/durable"
)

// dropping is a client's key that is revoked after the door has been asked about it
// and before it is proven.
type dropping struct {
	ssh.Signer
	srv *server
}

func (d dropping) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	d.srv.dropCompany("acme")
	return d.Signer.Sign(r, data)
}

// TestDroppedMeanwhile: who is dropped while logging in does not get in.
func TestDroppedMeanwhile(t *testing.T) {
	b := newBed(t, testSettings())
	conn, err := b.dial("acme", dropping{signerOf("acme"), b.srv})
	if err == nil {
		defer conn.Close()
		if _, err := sftp.NewClient(conn); err == nil {
			t.Error("a company that was dropped got in")
		}
	}
	b.idle()
	if text := b.log.String(); strings.Contains(text, "SFTP login\"") || !strings.Contains(text, "may not log in any more") {
		t.Error(text)
	}
}

// unread asks for more than its window lets through, and never reads.
func unread(t *testing.T, conn *ssh.Client) {
	t.Helper()
	ch, requests, err := conn.OpenChannel("session", nil)
	check(t, err)
	go ssh.DiscardRequests(requests)
	_, err = ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	check(t, err)
	out := []byte{0, 0, 0, 5, fxpInit, 0, 0, 0, 3}
	out = append(out, packet(fxpOpen, 1, "/outbox/large", 1, 0)...)
	for range 80 {
		out = append(out, packet(5, 2, "1", uint64(0), 32<<10)...)
	}
	_, err = ch.Write(out)
	check(t, err)
}

// TestUnreadChannel: a client that does not open the window of one channel loses the
// connection, however busy it is in another.
func TestUnreadChannel(t *testing.T) {
	set := testSettings()
	set.Stall = 3 * time.Second // in which what goes before is written
	b := newBed(t, set)
	check(t, os.WriteFile(b.path("outbox", "large"), bytesOf(64<<10), 0o640))
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	busy, err := sftp.NewClient(conn)
	check(t, err)
	unread(t, conn)
	await(t, "the connection is closed", func() bool {
		_, err := busy.Stat("/inbox")
		return err != nil
	})
	b.idle()
	if !strings.Contains(b.log.String(), "does not read") {
		t.Error("the log does not say why")
	}
}

// TestIdleChannel: a channel that asks for nothing is closed, its busy neighbour not.
func TestIdleChannel(t *testing.T) {
	b := newBed(t, testSettings())
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	idle, err := sftp.NewClient(conn)
	check(t, err)
	busy, err := sftp.NewClient(conn)
	check(t, err)
	ended := make(chan error, 1)
	go func() { ended <- idle.Wait() }()
	_, err = busy.Stat("/inbox")
	check(t, err)
	// The moment at which the busy one has not been idle for too long, and the other has.
	sn := b.srv.open()[0]
	var newest int64
	for l := range sn.openLines() {
		newest = max(newest, l.active.Load())
	}
	if sn.idle(time.Unix(0, newest).Add(b.srv.set.Idle)) {
		t.Error("the connection has to go too")
	}
	<-ended
	if _, err := busy.Stat("/inbox"); err != nil {
		t.Error(err)
	}
}

// TestNextChannel: a channel that both sides have closed makes room for the next.
func TestNextChannel(t *testing.T) {
	set := testSettings()
	set.MaxChannels = 1
	b := newBed(t, set)
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	defer conn.Close()
	for range 3 {
		c, err := sftp.NewClient(conn)
		check(t, err)
		check(t, c.Close())
		sn := b.srv.open()[0]
		await(t, "the channel has gone", func() bool { return len(sn.openLines()) == 0 })
	}
}

// TestExchangeHash: the host key signs what may be an exchange hash and no SSHSIG.
func TestExchangeHash(t *testing.T) {
	sum := sha256.Sum256([]byte("text"))
	sshsig := []byte("SSHSIG")
	for _, s := range []string{"f", "", "sha256", string(sum[:])} {
		sshsig = append(binary.BigEndian.AppendUint32(sshsig, uint32(len(s))), s...)
	}
	for _, c := range []struct {
		what string
		data []byte
		want bool
	}{
		{"SHA-256", sum[:], true},
		{"SHA-384", make([]byte, 48), true},
		{"SHA-512", make([]byte, 64), false},
		{"nothing", nil, false},
		{"the shortest SSHSIG", sshsig, false},
		{"what begins like one", append([]byte("SSHSIG"), make([]byte, 42)...), false},
		{"a text", bytes.Repeat([]byte("x"), 33), false},
	} {
		if got := exchangeHash(c.data); got != c.want {
			t.Errorf("%s: %t", c.what, got)
		}
		k := &Keeper{host: signerOf("host")}
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- k.signs(ours, &sender{conn: ours})
			ours.Close()
		}()
		writeFrame(theirs, c.data)
		if m, err := readMessage(theirs); (err == nil && m.Signature != nil) != c.want {
			t.Errorf("%s: answer %v, %v", c.what, m, err)
		}
		theirs.Close()
		<-done
	}
	for _, name := range kexes {
		if strings.Contains(name, "521") || strings.Contains(name, "sha512") {
			t.Errorf("%s has a hash that is not signed", name)
		}
	}
}

// TestNotGiven: a directory that others may use is not taken from them.
func TestNotGiven(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "spool", "acme", "outbox")
	check(t, os.MkdirAll(path, 0o700))
	vol, err := durable.OpenDisk(dir)
	check(t, err)
	defer vol.Close()
	root, err := vol.Root()
	check(t, err)
	defer root.Close()
	k := &Keeper{
		Data: dir, User: &User{os.Getuid() + 4242, os.Getgid() + 4242}, Log: zerolog.Nop(), root: root,
		adopted: map[string]time.Time{}, said: map[string]string{},
	}
	for _, mode := range []fs.FileMode{0o755, fs.ModeSetgid | 0o750, 0o701} {
		check(t, os.Chmod(path, mode))
		if _, err := k.directory("acme", "outbox", time.Now()); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("mode %o: %v", mode, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeDir|mode {
			t.Errorf("mode %o was changed: %v, %v", mode, info.Mode(), err)
		}
	}
}
