package door

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestManyConnections: a flood of connections that never log in holds a bounded
// number of places and little memory, and who has a key gets in meanwhile.
func TestManyConnections(t *testing.T) {
	// As many as this process may have open, which are two for each.
	var limit unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	n := int(min(10_000, limit.Cur/2-100))
	if testing.Short() {
		n = 200
	}
	b := newBed(t, testSettings())
	before, goroutines := heap(), runtime.NumGoroutine()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	c, err := sftp.NewClient(conn)
	check(t, err)
	check(t, put(c, "/inbox/pay.json", []byte("x")))
	b.holds("inbox", "pay.json")
	await(t, "the flood has been closed but for a few", func() bool {
		b.srv.gate.mu.Lock()
		defer b.srv.gate.mu.Unlock()
		return len(b.srv.gate.waiting) <= b.srv.set.MaxSourceWaiting
	})
	await(t, "their goroutines have ended", func() bool { return runtime.NumGoroutine() < goroutines+10*b.srv.set.MaxSourceWaiting })
	if used := int64(heap()) - int64(before); used > 32<<20 {
		t.Errorf("%d connections hold %d bytes", n, used)
	}
	conn.Close()
	b.idle()
}

// TestSlowLogin: who says nothing, or one byte now and then, is closed in the end.
func TestSlowLogin(t *testing.T) {
	set := testSettings()
	set.Login = 200 * time.Millisecond
	b := newBed(t, set)
	for _, text := range []string{"", "SSH-2.0-x", "SSH-2.0-x\r\n", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 10_000)} {
		c, err := net.Dial("tcp", b.addr)
		check(t, err)
		io.WriteString(c, text)
		check(t, c.SetDeadline(time.Now().Add(patience)))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.10q: still open", text)
		}
		c.Close()
	}
	// Logged in, and no subsystem asked for. A slow machine needs more time to log in.
	for {
		conn, err := b.dial("acme", signerOf("acme"))
		if err != nil && set.Login < patience {
			set.Login *= 4
			b = newBed(t, set)
			continue
		}
		check(t, err)
		defer conn.Close()
		s, err := conn.NewSession()
		check(t, err)
		await(t, "the channel is closed", func() bool { return s.Setenv("A", "b") == io.EOF })
		return
	}
}

// TestIdle: a connection that asks for nothing is closed, and its upload is kept.
func TestIdle(t *testing.T) {
	b := newBed(t, testSettings())
	c := b.sftp("acme")
	f, err := c.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.Write([]byte("half"))
	check(t, err)
	// It asks for nothing more; the time passes for who looks.
	b.srv.closeIdle(time.Now().Add(b.srv.set.Idle))
	await(t, "the connection is closed", func() bool { return len(b.srv.open()) == 0 })
	b.idle()
	b.holds("inbox", ".door-pay.json")
	if !strings.Contains(b.log.String(), "idle") {
		t.Error("the log does not say why")
	}
}

// TestLimits: connections, channels and handles.
func TestLimits(t *testing.T) {
	set := testSettings()
	set.MaxCompanyConns, set.MaxConns, set.MaxChannels, set.MaxHandles, set.MaxCompanyHandles = 3, 4, 2, 5, 8
	b := newBed(t, set)
	var conns []*ssh.Client
	login := func(company string) bool {
		conn, err := b.dial(company, signerOf(company))
		if err != nil {
			return false
		}
		if _, _, err := conn.SendRequest("x", true, nil); err != nil {
			return false
		}
		conns = append(conns, conn)
		t.Cleanup(func() { conn.Close() })
		return true
	}
	for i, c := range []struct {
		company string
		want    bool
	}{{"acme", true}, {"acme", true}, {"acme", true}, {"acme", false}, {"other", true}, {"other", false}} {
		if got := login(c.company); got != c.want {
			t.Errorf("login %d, of %s: %t", i, c.company, got)
		}
	}
	c, err := sftp.NewClient(conns[0])
	check(t, err)
	_, err = sftp.NewClient(conns[0])
	check(t, err)
	if _, err := sftp.NewClient(conns[0]); err == nil {
		t.Error("a connection has more than 2 channels")
	}
	open := func(c *sftp.Client, n int) (opened int) {
		for i := range n {
			if _, err := c.Create(fmt.Sprintf("/inbox/%p-%d.tmp", c, i)); err == nil {
				opened++
			}
		}
		return opened
	}
	if n := open(c, 10); n != 5 {
		t.Errorf("a connection has %d handles, want 5", n)
	}
	second, err := sftp.NewClient(conns[1])
	check(t, err)
	if n := open(second, 10); n != 3 {
		t.Errorf("the company's second connection has %d handles, want 3", n)
	}
	if _, err := second.ReadDir("/outbox"); err == nil {
		t.Error("a list needs no handle")
	}
	for _, c := range conns {
		c.Close()
	}
	b.idle()
	// A connection's place is given back after the connection is closed.
	await(t, "somebody gets in after the others have gone", func() bool { return login("acme") })
}

// TestRate: one address that connects too often is turned away, others are not.
func TestRate(t *testing.T) {
	set := testSettings()
	set.SourceBurst, set.SourceRate = 3, 1
	now := time.Now()
	g := newGate(set, func() time.Time { return now })
	enter := func(addr string) error {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		v, err := g.enter(a, addrOf(&net.TCPAddr{IP: net.ParseIP(addr)}))
		if err == nil {
			g.leave(v)
			g.leave(v)
		}
		return err
	}
	for range 3 {
		check(t, enter("192.0.2.1"))
		check(t, enter("2001:db8::1"))
	}
	if enter("192.0.2.1") == nil || enter("2001:db8::2") == nil {
		t.Error("the rate is not kept")
	}
	check(t, enter("192.0.2.2"))
	check(t, enter("2001:db8:0:1::1"))
	now = now.Add(time.Second)
	check(t, enter("192.0.2.1"))
	for i := range 2 * maxSources {
		enter(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	if len(g.sources) > maxSources {
		t.Errorf("%d sources are remembered", len(g.sources))
	}
}

// packet makes an SFTP packet.
func packet(kind byte, parts ...any) []byte {
	p := []byte{0, 0, 0, 0, kind}
	for _, x := range parts {
		switch x := x.(type) {
		case string:
			p = appendString(p, x)
		case int:
			p = binary.BigEndian.AppendUint32(p, uint32(x))
		case uint64:
			p = binary.BigEndian.AppendUint64(p, x)
		}
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// raw opens a channel for packets made by hand.
func (b *bed) raw() (io.Writer, io.Reader) {
	b.t.Helper()
	conn, err := b.dial("acme", signerOf("acme"))
	check(b.t, err)
	b.t.Cleanup(func() { conn.Close() })
	s, err := conn.NewSession()
	check(b.t, err)
	in, err := s.StdinPipe()
	check(b.t, err)
	out, err := s.StdoutPipe()
	check(b.t, err)
	check(b.t, s.RequestSubsystem("sftp"))
	return in, out
}

func reply(t testing.TB, r io.Reader) []byte {
	t.Helper()
	var head [4]byte
	_, err := io.ReadFull(r, head[:])
	check(t, err)
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err = io.ReadFull(r, body)
	check(t, err)
	return body
}

func TestPackets(t *testing.T) {
	b := newBed(t, testSettings())
	for what, p := range map[string][]byte{
		"a huge packet":          {0xff, 0xff, 0xff, 0xff, 1},
		"a large packet":         binary.BigEndian.AppendUint32(nil, maxPacket+1),
		"an empty packet":        {0, 0, 0, 0},
		"no INIT":                packet(16, 1, "/"),
		"INIT twice":             append(packet(fxpInit, 3), packet(fxpInit, 3)...),
		"a string without end":   append(packet(fxpInit, 3), 0, 0, 0, 9, 16, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff),
		"an unknown packet":      append(packet(fxpInit, 3), packet(99, 1)...),
		"attributes without end": append(packet(fxpInit, 3), packet(9, 1, "/inbox", 0x80000000, -1)...),
	} {
		w, r := b.raw()
		_, err := w.Write(p)
		check(t, err)
		if what == "an unknown packet" || what == "attributes without end" {
			continue // refused in one way or the other
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// fsync@openssh.com is told of, waits for the write before it, and is answered.
	w, r := b.raw()
	_, err := w.Write(packet(fxpInit, 3))
	check(t, err)
	if v := reply(t, r); !bytes.Contains(v, []byte(fsyncExtension)) || !bytes.Contains(v, []byte("posix-rename@openssh.com")) {
		t.Errorf("extensions: %q", v)
	}
	_, err = w.Write(packet(3, 7, "/inbox/a.json", 0x1a, 0))
	check(t, err)
	handle := string(reply(t, r)[9:])
	_, err = w.Write(append(packet(6, 8, handle, uint64(0), "data"), packet(fxpExtended, 9, fsyncExtension, handle)...))
	check(t, err)
	for _, id := range []byte{8, 9} {
		if s := reply(t, r); s[0] != fxpStatus || s[4] != id || binary.BigEndian.Uint32(s[5:]) != fxOK {
			t.Errorf("answer to %d: %q", id, s)
		}
	}
	b.holds("inbox", ".door-a.json")
	_, err = w.Write(packet(4, 10, handle))
	check(t, err)
	if s := reply(t, r); s[4] != 10 || binary.BigEndian.Uint32(s[5:]) != fxOK {
		t.Errorf("answer to the close: %q", s)
	}
	b.holds("inbox", "a.json")
	// Writes at the ends of the world.
	for _, off := range []uint64{1 << 40, 1 << 62, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		_, err = w.Write(packet(3, 11, "/inbox/b.json", 0x1a, 0))
		check(t, err)
		h := string(reply(t, r)[9:])
		_, err = w.Write(append(packet(6, 12, h, off, "x"), packet(4, 13, h)...))
		check(t, err)
		for range 2 {
			if s := reply(t, r); binary.BigEndian.Uint32(s[5:]) == fxOK {
				t.Errorf("a write at %d: %q", off, s)
			}
		}
		b.holds("inbox", "a.json")
	}
}

// TestRenameStorm: many renames and uploads of the same names while the appliance
// takes files away. Whatever a client was told to be well is in the inbox or was
// taken, whole.
func TestRenameStorm(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	b := newBed(t, testSettings())
	work := t.TempDir()
	stop := make(chan struct{})
	taken := make(chan int)
	go func() {
		n := 0
		for {
			for i := range 4 {
				name := fmt.Sprintf("pay%d.json", i)
				if os.Rename(b.path("inbox", name), filepath.Join(work, fmt.Sprintf("%d-%s", n, name))) == nil {
					n++
				}
			}
			select {
			case <-stop:
				taken <- n
				return
			default:
			}
		}
	}()
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := map[string]bool{}
	for worker := range 4 {
		c := b.sftp("acme")
		wg.Go(func() {
			for i := range rounds {
				text := fmt.Sprintf("%d %d ", worker, i)
				data := []byte(text + strings.Repeat("x", 5000))
				tmp := fmt.Sprintf("/inbox/w%d.part", worker)
				if err := put(c, tmp, data); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				err := c.Rename(tmp, fmt.Sprintf("/inbox/pay%d.json", i%4))
				if err == nil {
					mu.Lock()
					accepted[text] = true
					mu.Unlock()
				}
			}
			c.Close()
		})
	}
	wg.Wait()
	close(stop)
	n := <-taken
	found := map[string]int{}
	for _, dir := range []string{work, b.path("inbox")} {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		check(t, err)
		for _, f := range files {
			data, err := os.ReadFile(f)
			check(t, err)
			text, rest, _ := strings.Cut(string(data), "x")
			if len(rest) != 4999 {
				t.Errorf("%s has %d bytes", f, len(data))
			}
			found[text]++
		}
	}
	for text := range accepted {
		if found[text] != 1 {
			t.Errorf("%q was accepted and is there %d times", text, found[text])
		}
	}
	if n == 0 || len(accepted) == 0 {
		t.Errorf("%d taken, %d accepted: nothing was tried", n, len(accepted))
	}
}

// FuzzSession throws bytes at a session, after its beginning, and looks at what is
// left of it: no name but those of the inbox, nothing open, nothing elsewhere.
func FuzzSession(f *testing.F) {
	f.Add(packet(3, 7, "/inbox/a.json", 0x1a, 0))
	f.Add(bytes.Join([][]byte{packet(3, 7, "/inbox/a.json", 0x1a, 0), packet(6, 8, "1", uint64(3), "data"), packet(4, 9, "1")}, nil))
	f.Add(bytes.Join([][]byte{packet(11, 1, "/inbox"), packet(12, 2, "1"), packet(17, 3, "/outbox/x.json"), packet(10, 4, "1", 1, uint64(4))}, nil))
	f.Add(bytes.Join([][]byte{packet(18, 1, "/inbox/a.json", "/inbox/../../b"), packet(20, 2, "../../x", "/inbox/l"), packet(13, 3, "/outbox/answer.json")}, nil))
	f.Add(bytes.Join([][]byte{packet(200, 1, "posix-rename@openssh.com", "/inbox/a", "/outbox/b"), packet(200, 1, fsyncExtension, "1"), packet(200, 2, "hardlink@openssh.com", "/outbox/answer.json", "/inbox/b")}, nil))
	dir := f.TempDir()
	for _, box := range boxes {
		check(f, os.MkdirAll(filepath.Join(dir, "acme", box), 0o770))
	}
	outside := filepath.Join(dir, "outside")
	check(f, os.WriteFile(outside, []byte("outside"), 0o600))
	vol, err := durable.OpenDisk(dir)
	check(f, err)
	set := testSettings()
	set.MaxFile, set.MaxBytes = 1<<20, 4<<20
	srv := newServer(set, vol, signerOf("host"), zerolog.Nop())
	f.Cleanup(func() { srv.close(); vol.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		sn := &session{srv: srv, room: srv.room("acme"), company: "acme", log: zerolog.Nop()}
		ours, theirs := net.Pipe()
		done := make(chan error)
		go func() {
			err := sn.sftp(ours, sn.touch)
			ours.Close() // as channel does
			done <- err
		}()
		go io.Copy(io.Discard, theirs)
		theirs.Write(packet(fxpInit, 3))
		theirs.Write(data)
		theirs.Close()
		<-done
		if n := sn.handles.Load(); n != 0 {
			t.Fatalf("%d handles are open", n)
		}
		if n := len(sn.room.uploads); n != 0 {
			t.Fatalf("%d uploads are open", n)
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(dir, path)
			switch {
			case e.IsDir() || path == outside:
			case filepath.Dir(rel) != "acme/inbox" || !e.Type().IsRegular():
				return fmt.Errorf("%s has been made", rel)
			default:
				return os.Remove(path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(outside); err != nil || string(got) != "outside" {
			t.Fatal("a file outside was touched")
		}
		srv.room("acme").usage.stale()
	})
}
