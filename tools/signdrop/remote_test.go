package main

import (
	"crypto/ed25519"
	"io"
	"net"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]address{
		"sftp://acme@host":             {"acme", "host:10210", ""},
		"sftp://acme@host/":            {"acme", "host:10210", ""},
		"sftp://acme@host:22":          {"acme", "host:22", ""},
		"sftp://acme@[::1]:22/srv//a/": {"acme", "[::1]:22", "/srv/a"},
		"sftp://acme@[fe80::1%25eth0]": {"acme", "[fe80::1%eth0]:10210", ""},
		"sftp://acme@host/../../etc":   {"acme", "host:10210", "/etc"},
	} {
		if got, err := parseAddress(in); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"sftp:", "sftp://", "sftp:///x", "sftp://host", "sftp://@host", "sftp:acme@host", "sftp://acme@host:x", "http://acme@host",
		"sftp://acme:secret@host", "sftp://acme:secret@host:x", "sftp://acme:@host", "sftp://acme@host?secret", "sftp://acme@host#secret",
		"sftp://ac%0ame@host", "sftp://acme@host/a%00b",
	} {
		got, err := parseAddress(in)
		if err == nil || got != (address{}) {
			t.Errorf("%s is accepted as %+v", in, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats it: %v", in, err)
		}
	}
}

// FuzzAddress: what is accepted has all parts, and no control character that a
// terminal or a server might be led by.
func FuzzAddress(f *testing.F) {
	f.Add("sftp://acme@host:22/a/b")
	f.Add("sftp://a:b@[::1]/?")
	f.Fuzz(func(t *testing.T, in string) {
		a, err := parseAddress(in)
		if err != nil {
			if a != (address{}) {
				t.Errorf("an error, and %+v", a)
			}
			return
		}
		host, port, err := net.SplitHostPort(a.host)
		if err != nil || host == "" || port == "" || a.user == "" || a.dir != "" && (a.dir != path.Clean(a.dir) || a.dir[0] != '/') {
			t.Errorf("%q is %+v, %v", in, a, err)
		}
		if strings.ContainsAny(a.user+a.host+a.dir, "\x00\n\r\x1b") {
			t.Errorf("%q keeps control characters: %+v", in, a)
		}
	})
}

// TestWatch: a connection of which nothing is heard any more is closed, and one that
// answers is not.
func TestWatch(t *testing.T) {
	watched := func(every time.Duration) (*link, <-chan *ssh.Request) {
		t.Helper()
		client, requests := sshPair(t)
		l := &link{ssh: client, dead: make(chan struct{})}
		go func() {
			client.Wait()
			close(l.dead)
		}()
		go l.watch(every)
		return l, requests
	}
	ends := func(l *link) {
		t.Helper()
		select {
		case <-l.dead:
		case <-time.After(2 * time.Minute):
			t.Fatal("the connection stays open")
		}
	}
	silent, _ := watched(20 * time.Millisecond)
	ends(silent)
	// This test answers as soon as it can, which a slow machine may find too late.
	for every := 200 * time.Millisecond; ; every *= 5 {
		l, requests := watched(every)
		answered := 0
		for answered < 2 {
			r, open := <-requests
			if !open {
				break
			}
			r.Reply(false, nil)
			answered++
		}
		if answered == 2 {
			l.ssh.Close()
			ends(l)
			return
		}
		if every > 10*time.Second {
			t.Fatal("a connection that answers was closed")
		}
	}
}

// sshPair is a client, and what it asks its server.
func sshPair(t *testing.T) (*ssh.Client, <-chan *ssh.Request) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan (<-chan *ssh.Request), 1)
	go func() {
		defer close(asked)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(key)
		if _, _, requests, err := ssh.NewServerConn(conn, config); err == nil {
			asked <- requests
		}
	}()
	client, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(key.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	requests, ok := <-asked
	if !ok {
		t.Fatal("the server has failed")
	}
	return client, requests
}

// TestExactReader: an answer that ends before its size was cut off. Taken for whole,
// its refusals could be missed.
func TestExactReader(t *testing.T) {
	const text = "one\ntwo\n"
	for cut := range len(text) + 1 {
		got, err := io.ReadAll(&exactReader{strings.NewReader(text[:cut]), int64(len(text))})
		lost := err != nil && (&link{}).lost(err)
		if lost != (cut < len(text)) || string(got) != text[:cut] {
			t.Errorf("cut after %d: %q, %v", cut, got, err)
		}
	}
	if (&link{}).lost(&sftp.StatusError{Code: 4}) {
		t.Error("a refusal is taken for a lost connection")
	}
}
