package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"signdrop/appliance/auth"
	"signdrop/spool"
)

// address is what sftp://USER@HOST[:PORT][/PATH] says.
type address struct {
	user, host string // host is HOST:PORT
	dir        string // "" for where the login leads
}

// doorPort is where the appliance's own door listens unless told otherwise.
const doorPort = "10210"

// parseAddress reads the address of a site. An error does not repeat it: there may
// be a password in it.
func parseAddress(s string) (address, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "sftp" || u.Opaque != "" || u.Hostname() == "":
		return address{}, errors.New("--spool is not an address: write sftp://USER@HOST[:PORT][/PATH]")
	case u.User == nil || u.User.Username() == "":
		return address{}, errors.New("--spool does not say who logs in: write sftp://COMPANY@" + u.Host)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return address{}, errors.New("--spool has something after the path: take away what begins with ? or #")
	}
	if _, has := u.User.Password(); has {
		return address{}, errors.New("--spool has a password in it, which others can see: take it out; keys log in (--identity)")
	}
	port := u.Port()
	if port == "" {
		port = doorPort
	}
	a := address{user: u.User.Username(), host: net.JoinHostPort(u.Hostname(), port)}
	if p := path.Clean(u.Path); p != "." && p != "/" {
		a.dir = p
	}
	if strings.ContainsFunc(a.user+a.host+a.dir, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return address{}, errors.New("--spool has control characters in it")
	}
	return a, nil
}

func (a address) String() string { return "sftp://" + a.user + "@" + a.host + a.dir }

// remote is a site at the other end of SFTP. What is done there is done again when
// the connection was lost; each step is one that may be done twice.
type remote struct {
	address
	login *login
	say   func(text string) // for people, when a connection is lost

	mu      sync.Mutex
	ctx     context.Context
	forever bool // try again until ctx is done
	now     *link
	reached bool // there was a connection
	warned  bool // the loss of the connection was told
}

// link is one connection.
type link struct {
	ssh  *ssh.Client
	ftp  *sftp.Client
	door bool // the other end is the appliance's own door
	// dead is closed when the connection has ended.
	dead chan struct{}

	// waits is what lay in the inbox when the connection was made, with sizes.
	waits map[string]int64
}

// How the loss of a connection is met.
const (
	tryAgainFor = time.Minute // while dropping; waiting has a limit of its own
	firstPause  = 200 * time.Millisecond
	lastPause   = 30 * time.Second
)

// keepAlive is how often the other end has to show that it is there.
const keepAlive = 20 * time.Second

// openRemote connects.
func openRemote(ctx context.Context, a address, l *login, say func(string)) (*remote, error) {
	r := &remote{address: a, login: l, say: say, ctx: ctx}
	return r, r.do(func(l *link) error {
		for _, box := range []string{boxOutbox, boxRejected} {
			info, err := l.ftp.Stat(r.remotePath(box, ""))
			if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
				return noBox(r.String(), box, "sftp://acme@host/path")
			}
			if err != nil {
				return fmt.Errorf("looking at %s: %w", r.path(box, ""), err)
			}
		}
		return nil
	})
}

func (r *remote) remotePath(box, name string) string { return path.Join(r.dir, box, name) }

func (r *remote) path(box, name string) string {
	return "sftp://" + r.user + "@" + r.host + path.Join("/", r.dir, box, name)
}

func (r *remote) parallel() int { return 8 }
func (r *remote) events() bool  { return false }

func (r *remote) until(ctx context.Context) {
	r.mu.Lock()
	r.ctx, r.forever = ctx, true
	r.mu.Unlock()
	// What is under way when the time is over must not be waited for.
	context.AfterFunc(ctx, r.close)
}

func (r *remote) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != nil {
		r.now.ssh.Close()
	}
}

// do calls f with a connection, and again with another one where it was lost.
func (r *remote) do(f func(*link) error) error {
	pause := firstPause
	begun := time.Now()
	for {
		l, err := r.connected()
		if err == nil {
			if err = f(l); err == nil || !l.lost(err) {
				r.recovered(err)
				return err
			}
			l.ssh.Close()
		}
		again, ctx := r.again(err, begun)
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// connected returns the connection, and makes it where there is none.
func (r *remote) connected() (*link, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != nil {
		select {
		case <-r.now.dead:
			r.now = nil
		default:
			return r.now, nil
		}
	}
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	l, err := r.dial()
	if err != nil {
		return nil, err
	}
	r.now, r.reached = l, true
	return l, nil
}

// again says whether to try again after an error, and tells of it once.
func (r *remote) again(err error, begun time.Time) (bool, context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil || !r.reached || isFinal(err) {
		return false, nil
	}
	if !r.forever && time.Since(begun) > tryAgainFor {
		return false, nil
	}
	if !r.warned {
		r.warned = true
		r.say("the connection to " + r.host + " was lost; trying again")
	}
	return true, r.ctx
}

func (r *remote) recovered(err error) {
	if err == nil {
		r.mu.Lock()
		r.warned = false
		r.mu.Unlock()
	}
}

// dial makes a connection and looks into the inbox.
func (r *remote) dial() (*link, error) {
	conn, err := r.login.connect(r.ctx, r.address)
	if err != nil {
		return nil, err
	}
	l := &link{
		ssh: conn, dead: make(chan struct{}), waits: map[string]int64{},
		door: string(conn.ServerVersion()) == "SSH-2.0-signdrop",
	}
	go func() {
		conn.Wait()
		close(l.dead)
	}()
	go l.watch(keepAlive)
	if l.ftp, err = sftp.NewClient(conn, sftp.UseConcurrentWrites(true)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("starting SFTP with %s: %w", r.host, err)
	}
	list, err := l.ftp.ReadDir(r.remotePath(boxInbox, ""))
	if err != nil {
		conn.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noBox(r.String(), boxInbox, "sftp://acme@host/path")
		}
		err = fmt.Errorf("listing %s: %w", r.path(boxInbox, ""), err)
		if !l.lost(err) {
			err = final(err)
		}
		return nil, err
	}
	for _, info := range list {
		l.waits[info.Name()] = info.Size()
	}
	return l, nil
}

// watch closes a connection of which nothing is heard any more: a machine that was
// switched off says nothing.
func (l *link) watch(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-l.dead:
			return
		case <-tick.C:
		}
		heard := make(chan struct{})
		go func() {
			l.ssh.SendRequest("keepalive@openssh.com", true, nil)
			close(heard)
		}()
		select {
		case <-heard:
		case <-time.After(every):
			l.ssh.Close()
			return
		}
	}
}

// lost says whether an error means that the connection is gone, and not that the
// other end has refused.
func (l *link) lost(err error) bool {
	if errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, sftp.ErrSSHFxNoConnection) {
		return true
	}
	var status *sftp.StatusError
	if errors.As(err, &status) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false
	}
	var network net.Error
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.As(err, &network) {
		return true
	}
	return false
}

func (r *remote) each(box string, f func(name string) error) error {
	var list []os.FileInfo
	err := r.do(func(l *link) (err error) {
		list, err = l.ftp.ReadDir(r.remotePath(box, ""))
		return err
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", r.path(box, ""), err)
	}
	for _, info := range list {
		if err := f(info.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (r *remote) read(box, name string, f func(io.Reader) error) error {
	return r.do(func(l *link) error {
		file, err := l.ftp.Open(r.remotePath(box, name))
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		return f(&exactReader{file, info.Size()})
	})
}

// exactReader reads a file that does not change. One that seems to end before its
// size was cut off with the connection.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = sftp.ErrSSHFxConnectionLost
	}
	return n, err
}

func (r *remote) put(name string, data []byte, signer *signer) (put bool, err error) {
	// Signed once: what is signed with a FIDO key has to be touched for.
	sig := sync.OnceValues(func() ([]byte, error) { return signer.sign(data) })
	err = r.do(func(l *link) (err error) {
		put, err = r.putOver(l, name, data, sig)
		return err
	})
	return put, err
}

// putOver puts a request and its signature into the inbox. Each is uploaded under a
// name that the appliance ignores and then renamed, which does not replace: of two
// requests of the same name one stays, whole. That holds for the door and for other
// servers. The signature goes before the request, for the reason that put tells.
//
// Cut off before the last rename: the request does not lie there, and doing it again
// completes it. After it, with the answer lost: it lies there and is found, or the
// appliance has taken it; then its answer is found, or it is dropped once more and,
// being the same bytes, gets the same answer.
func (r *remote) putOver(l *link, name string, data []byte, sig func() ([]byte, error)) (bool, error) {
	if size, there := l.waits[name]; there {
		if err := r.compare(l, name, size, data); err != nil {
			return false, err
		}
		if _, signed := l.waits[name+spool.SigSuffix]; signed {
			return false, nil
		}
		return r.putSignature(l, name, data, sig)
	}
	tmp, err := r.upload(l, name, data, data)
	if err != nil {
		return false, err
	}
	sigPut, err := r.putSignature(l, name, data, sig)
	if err == nil {
		if err = l.ftp.Rename(tmp, r.remotePath(boxInbox, name)); err == nil {
			return true, nil
		}
	}
	if l.lost(err) {
		return false, err
	}
	l.ftp.Remove(tmp)
	if info, serr := l.ftp.Stat(r.remotePath(boxInbox, name)); serr == nil {
		// Somebody was quicker. With the same request our signature is as good
		// as theirs.
		if err = r.compare(l, name, info.Size(), data); err == nil {
			return false, nil
		}
	} else {
		err = fmt.Errorf("uploading it: %w", err)
	}
	if sigPut {
		l.ftp.Remove(r.remotePath(boxInbox, name+spool.SigSuffix))
	}
	return false, err
}

// errOther is told where another request has the name.
var errOther = errors.New("another request waits in the inbox under this name: wait for its answer, or use another name (--name)")

// compare tells whether what waits under a name is the same request. The door lets
// nobody read what waits, so that there only the length tells. The answer names the
// request that it is for: one of the same length is not taken for it.
func (r *remote) compare(l *link, name string, size int64, data []byte) error {
	if size != int64(len(data)) {
		return errOther
	}
	there, err := r.readBack(l, name, size)
	switch {
	case err == nil && !bytes.Equal(there, data):
		return errOther
	case err == nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// readBack reads what lies in the inbox, up to max bytes and one.
func (r *remote) readBack(l *link, name string, max int64) ([]byte, error) {
	f, err := l.ftp.Open(r.remotePath(boxInbox, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max+1))
}

// maxSignature is the limit of a signature file, in bytes.
const maxSignature = 16 << 10

// putSignature puts the signature of a request there, unless a good one is. What
// lies there alone and cannot be read is replaced: it is ours from before, or
// belongs to an upload at the same moment, of which only one can win.
func (r *remote) putSignature(l *link, name string, data []byte, sig func() ([]byte, error)) (bool, error) {
	content, err := sig()
	if err != nil {
		return false, fmt.Errorf("signing: %w", err)
	}
	name += spool.SigSuffix
	target := r.remotePath(boxInbox, name)
	tmp, err := r.upload(l, name, data, content)
	if err != nil {
		return false, err
	}
	if err = l.ftp.Rename(tmp, target); err == nil {
		return true, nil
	}
	if l.lost(err) {
		return false, err
	}
	there, rerr := r.readBack(l, name, maxSignature)
	switch {
	case rerr == nil:
		l.ftp.Remove(tmp)
		if s, err := auth.ParseSignature(there); err == nil && s.Whole(data) {
			return false, nil
		}
		return false, fmt.Errorf("%s lies in the inbox and is not a signature of this file: remove it", name)
	case !errors.Is(rerr, fs.ErrPermission):
		l.ftp.Remove(tmp)
		return false, fmt.Errorf("uploading the signature: %w", err)
	}
	if err := l.ftp.PosixRename(tmp, target); err != nil {
		return false, fmt.Errorf("uploading the signature: %w", err)
	}
	return true, nil
}

// upload uploads content under a name that the appliance ignores, and returns its
// path. The name follows from the request, so that doing it again leaves nothing
// behind and two requests do not meet.
func (r *remote) upload(l *link, name string, request, content []byte) (tmp string, err error) {
	sum := sha256.Sum256(request)
	tmp = r.remotePath(boxInbox, "."+name+"."+hex.EncodeToString(sum[:6])+".part")
	f, err := l.ftp.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return "", fmt.Errorf("uploading: %w", err)
	}
	n, err := f.ReadFrom(bytes.NewReader(content))
	if err == nil && n != int64(len(content)) {
		err = io.ErrUnexpectedEOF
	}
	if _, has := l.ftp.HasExtension("fsync@openssh.com"); err == nil && has && !l.door {
		err = f.Sync() // the door syncs when it closes
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("uploading: %w", err)
	}
	return tmp, nil
}

// noBox is told where a company's directory is not one.
func noBox(dir, box, like string) error {
	return hinted(fmt.Errorf("%s has no directory %s", dir, box),
		"--spool is the company's own directory, such as "+like)
}
