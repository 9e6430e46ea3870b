//go:build guest

package guest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/checker"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/spool"
)

// company is the partner's name.
const company = "acme"

// partner is a company on this side of the network. It has keys and the appliance's
// address, and remembers what it was promised.
type partner struct {
	t    *testing.T
	dir  string // keys, known hosts, files
	addr string // HOST:PORT of the door

	config  *ssh.ClientConfig
	signer  ssh.Signer
	wallets []string

	waits string // what is waited for, for people

	mu       sync.Mutex
	sent     []*upload
	rng      *rand.Rand // what is asked
	verified int        // signatures, by openssl
}

// upload is a request that the partner wants answered.
type upload struct {
	name      string
	data, sig []byte
	acked     bool    // OK came to both files
	refused   bool    // a refusal is what it has to get
	again     *upload // the same request under an earlier name
	answer    []byte  // nil: none has been seen yet
}

// where is the only place at which its answer may lie.
func (u *upload) where() string {
	if u.refused {
		return "/rejected/" + strings.TrimSuffix(u.name, ".json") + spool.ReasonSuffix
	}
	return "/outbox/" + spool.AnswerName(u.name)
}

func (p *partner) path(name string) string { return filepath.Join(p.dir, name) }

func (p *partner) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *partner) write(name string, data []byte) {
	p.t.Helper()
	p.must(os.WriteFile(p.path(name), data, 0o600))
}

func (p *partner) read(name string) []byte {
	p.t.Helper()
	data, err := os.ReadFile(p.path(name))
	p.must(err)
	return data
}

// tool runs a program of this machine where the keys lie.
func (p *partner) tool(args ...string) (string, error) {
	cmd := exec.CommandContext(p.t.Context(), args[0], args[1:]...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// key makes a key as people do and returns its public half.
func (p *partner) key(name string) string {
	p.t.Helper()
	_, err := p.tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name)
	p.must(err)
	return strings.TrimSpace(string(p.read(name + ".pub")))
}

// sftp is one session of OpenSSH's client.
func (p *partner) sftp(user, key string, lines ...string) error {
	host, port, err := net.SplitHostPort(p.addr)
	p.must(err)
	p.write("batch", []byte(strings.Join(lines, "\n")+"\n"))
	_, err = p.tool("sftp", "-q", "-b", "batch", "-F", "none", "-P", port, "-i", key, "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=hosts", user+"@"+host)
	return err
}

// until waits for a condition.
func (p *partner) until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-p.t.Context().Done():
			p.t.Fatal(p.t.Context().Err())
		}
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain until %s; %s", what, p.waits)
		}
	}
}

// login makes the session that the load goes through.
func (p *partner) login() {
	p.t.Helper()
	key, err := ssh.ParsePrivateKey(p.read(company))
	p.must(err)
	line := bytes.Fields(p.read("hosts"))
	host, _, _, _, err := ssh.ParseAuthorizedKey(bytes.Join(line[1:3], []byte(" ")))
	p.must(err)
	p.signer = key
	p.config = &ssh.ClientConfig{
		User: company, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.FixedHostKey(host), Timeout: time.Minute,
	}
}

// session is a connection to the door.
type session struct {
	*sftp.Client
	conn *ssh.Client
}

func (s *session) Close() { s.Client.Close(); s.conn.Close() }

func (p *partner) dial(ctx context.Context) (*session, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	// A guest without power keeps its connections for as long as qemu lives.
	context.AfterFunc(ctx, func() { c.Close() })
	cc, chans, reqs, err := ssh.NewClientConn(c, p.addr, p.config)
	if err != nil {
		c.Close()
		return nil, err
	}
	conn := ssh.NewClient(cc, chans, reqs)
	s, err := sftp.NewClient(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &session{s, conn}, nil
}

// put uploads a file. No error is the door's promise that it is there for good.
func (s *session) put(name string, data []byte) error {
	f, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (s *session) get(name string) ([]byte, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// drop uploads a request and its signature, in either order.
func (p *partner) drop(s *session, u *upload, sigFirst bool) error {
	names, data := []string{u.name + ".sig", u.name}, [][]byte{u.sig, u.data}
	if !sigFirst {
		slices.Reverse(names)
		slices.Reverse(data)
	}
	for i := range names {
		if err := s.put("/inbox/"+names[i], data[i]); err != nil {
			return err
		}
	}
	p.mu.Lock()
	u.acked = true
	p.mu.Unlock()
	return nil
}

// takeBack removes what is left alone in the inbox. If a request waited and only its
// signature was in doubt, the signature that was uploaded again completed it, and the
// request that followed has none.
func (p *partner) takeBack(s *session) {
	p.t.Helper()
	entries, err := s.ReadDir("/inbox")
	p.must(err)
	for _, e := range entries {
		if err := s.Remove("/inbox/" + e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.t.Errorf("taking back %s: %v", e.Name(), err)
		}
	}
}

// next makes a request of some kind.
func (p *partner) next() *upload {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := fmt.Sprintf("r%05d.json", len(p.sent))
	u := &upload{name: name}
	wallet := p.wallets[p.rng.IntN(2)] // on curves that Metacoin takes
	switch p.rng.IntN(12) {
	default:
		u.data = testbed.Transfer(wallet, name)
	case 4:
		u.data = testbed.DataRequest(p.wallets[p.rng.IntN(3)], name)
	case 0:
		u.name += "l"
		for i := range 2 + p.rng.IntN(8) {
			u.data = append(u.data, testbed.Transfer(wallet, fmt.Sprintf("%s line %d", name, i))...)
		}
	case 1:
		u.data = fmt.Appendf(nil, `{"type":"wallet.create","curve":"P-384","reference":%q}`, name)
	case 2:
		u.refused = true
		u.data = fmt.Appendf(nil, `{"type":"wallet.create","curve":"P-384","reference":%q,"not_after":"2020-01-01T00:00:00Z"}`, name)
	case 3:
		old := p.sent[p.rng.IntN(len(p.sent))]
		if old.again == nil && !old.refused && strings.HasSuffix(old.name, ".json") {
			u.data, u.again = old.data, old
		} else {
			u.data = testbed.Transfer(wallet, name)
		}
	}
	u.sig = p.sign(u.data)
	p.sent = append(p.sent, u)
	return u
}

// sign signs a request as signdrop does.
func (p *partner) sign(data []byte) []byte {
	sig, err := auth.SignFile(data, p.signer, auth.NamespaceRequest)
	if err != nil {
		panic(err) // with this key it worked before
	}
	return sig
}

// load uploads requests over several connections and looks for answers until ctx is
// done, which is when the power fails.
func (p *partner) load(ctx context.Context, connections int) {
	var wg sync.WaitGroup
	seed := p.rng.Uint64()
	for i := range connections {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				s, err := p.dial(ctx)
				if err != nil {
					time.Sleep(20 * time.Millisecond) // the guest is on its way down
					continue
				}
				for ctx.Err() == nil && err == nil {
					if err = p.drop(s, p.next(), rng.IntN(4) > 0); err == nil && rng.IntN(2) == 0 {
						p.look(s, rng)
					}
				}
				s.Close()
			}
		})
	}
	wg.Wait()
}

// look reads an answer that may be there by now.
func (p *partner) look(s *session, rng *rand.Rand) {
	p.mu.Lock()
	u := p.sent[max(0, len(p.sent)-1-rng.IntN(20))]
	p.mu.Unlock()
	if data, err := s.get(u.where()); err == nil {
		p.saw(u, data)
	}
}

// saw notes an answer. It must be the one that was there before.
func (p *partner) saw(u *upload, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case u.answer == nil:
		u.answer = data
	case !bytes.Equal(u.answer, data):
		p.t.Errorf("%s has two answers:\n%s%s", u.name, u.answer, data)
	}
}

// settle is what a partner does after a power cut: it drops again what was not
// acknowledged, and waits for all answers. Every answer that was ever seen must still
// be there; each new one is checked by openssl; there must be no others. With all,
// every answer is read again, else some.
func (p *partner) settle(all bool) {
	p.t.Helper()
	var s *session
	p.until("the door opens", func() bool {
		var err error
		s, err = p.dial(p.t.Context())
		return err == nil
	})
	defer s.Close()
	for _, u := range p.sent {
		if !u.acked {
			p.must(p.drop(s, u, true))
		}
	}
	want := map[string]*upload{}
	for _, u := range p.sent {
		want[u.where()] = u
	}
	var names, missing []string
	p.until("all is answered", func() bool {
		names, missing = p.list(s), nil
		for name := range want {
			if !slices.Contains(names, name) {
				missing = append(missing, name)
			}
		}
		p.waits = fmt.Sprint("missing: ", missing)
		return len(missing) == 0
	})
	p.takeBack(s)
	for _, name := range names {
		if want[name] == nil {
			p.t.Errorf("%s lies there and answers nothing that was asked", name)
		}
	}
	for _, u := range p.sent {
		fresh := u.answer == nil
		if !fresh && !all && rand.IntN(20) > 0 {
			continue
		}
		data, err := s.get(u.where())
		p.must(err)
		p.saw(u, data)
		if fresh {
			p.check(u)
		}
		if u.again != nil && u.again.answer != nil && !bytes.Equal(u.answer, u.again.answer) {
			p.t.Errorf("%s and %s are the same request and have two answers:\n%s%s", u.name, u.again.name, u.answer, u.again.answer)
		}
	}
}

// list returns all answers that lie there.
func (p *partner) list(s *session) (names []string) {
	p.t.Helper()
	for _, dir := range []string{"/outbox/", "/rejected/"} {
		entries, err := s.ReadDir(dir)
		p.must(err)
		for _, e := range entries {
			switch name := e.Name(); {
			case strings.HasSuffix(name, spool.StatusSuffix), name == setup.NoticeFile:
			case dir == "/rejected/" && !strings.HasSuffix(name, spool.ReasonSuffix):
			default:
				names = append(names, dir+name)
			}
		}
	}
	return names
}

// check verifies a new answer: it is one to this request, and openssl accepts each
// signature.
func (p *partner) check(u *upload) {
	p.t.Helper()
	digest := sha256.Sum256(u.data)
	for line := range bytes.Lines(u.answer) {
		a, err := answer.Parse(line)
		if err != nil {
			p.t.Fatalf("%s: %v\n%s", u.where(), err, line)
		}
		if a.Request != hex.EncodeToString(digest[:]) {
			p.t.Errorf("%s answers the request %s", u.where(), a.Request)
		}
		switch {
		case u.refused:
			if a.Code != "expired" {
				p.t.Errorf("%s was refused for another reason:\n%s", u.name, line)
			}
		case a.Code != "":
			p.t.Errorf("%s was refused:\n%s", u.name, line)
		case a.Type == answer.TypeSign:
			p.openssl(a)
		}
	}
}

// openssl verifies a signature with nothing of ours.
func (p *partner) openssl(a *answer.Answer) {
	p.t.Helper()
	sig, err := base64.StdEncoding.DecodeString(a.Signature)
	p.must(err)
	p.write("key.pem", []byte(a.PublicKey))
	p.write("signature", sig)
	p.write("payload", []byte(a.Payload))
	hash := a.Algorithm[strings.LastIndexByte(a.Algorithm, '-')+1:]
	_, err = p.tool("openssl", "dgst", "-"+hash, "-verify", "key.pem", "-signature", "signature", "payload")
	p.must(err)
	p.verified++
}

// repeat takes some answers away and drops their requests again: the same bytes must
// come.
func (p *partner) repeat(n int) {
	p.t.Helper()
	s, err := p.dial(p.t.Context())
	p.must(err)
	defer s.Close()
	for range n {
		u := p.sent[p.rng.IntN(len(p.sent))]
		if u.refused {
			continue
		}
		p.must(s.Remove(u.where()))
		p.must(p.drop(s, u, true))
		var data []byte
		p.until(u.name+" is answered again", func() bool {
			data, err = s.get(u.where())
			return err == nil
		})
		p.saw(u, data)
	}
}

// drops is what was promised to be kept.
func (p *partner) drops() []byte {
	p.t.Helper()
	list := []checker.Drop{}
	for _, u := range p.sent {
		if u.acked {
			list = append(list, checker.Drop{Company: company, Name: u.name, Data: u.data})
		}
	}
	data, err := json.Marshal(list)
	p.must(err)
	return data
}
