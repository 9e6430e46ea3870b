package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// Child is the door itself: the process that a Keeper starts. It serves until the
// keeper's socket closes.
func Child(ctx context.Context, log zerolog.Logger) error {
	for fd := fdSpool; fd <= fdKeeper; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return errors.New("this is started by signdropd serve --sftp and by signdropd door, not by hand")
		}
		unix.CloseOnExec(fd)
	}
	// The door's own limits bound its memory; this makes the collector work
	// harder before the machine has to. The signer's settings are not for us.
	debug.SetGCPercent(100)
	debug.SetMemoryLimit(512 << 20)
	spool := fmt.Sprintf("/proc/self/fd/%d", fdSpool)
	vol, err := durable.OpenDisk(spool)
	if err != nil {
		return err
	}
	defer vol.Close()
	c, err := Confine(spool)
	if err != nil {
		return err
	}
	l, err := fileListener()
	if err != nil {
		return err
	}
	keeper, err := fileConn()
	if err != nil {
		return err
	}
	m, err := readMessage(keeper)
	if err != nil || m.Hello == nil {
		return errors.Join(errors.New("internal error: no greeting from the keeper"), err)
	}
	r, err := tellConfinement(log, c, m.Hello.Own)
	if err != nil {
		return err
	}
	first, err := json.Marshal(r)
	if err != nil {
		return err
	}
	host, err := newRemoteSigner(keeper, m.Hello.HostKey)
	if err != nil {
		return err
	}
	srv := newServer(m.Hello.Settings, vol, host, log)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { stop(listen(keeper, srv, host)) }()
	select {
	case <-srv.ready:
		// Before anybody can make us ask for a signature.
		if err := writeFrame(keeper, first); err != nil {
			return nil // the keeper has gone
		}
		log.Info().Str("address", l.Addr().String()).Msg("SFTP door: ready")
		go srv.serve(l)
		<-ctx.Done()
	case <-ctx.Done():
	}
	l.Close()
	srv.close()
	srv.wait(parting)
	return nil // the keeper has gone, or wants us to
}

// parting is for how long a door that ends waits for its sessions to leave what came
// in order. It is less than what the keeper waits for the door.
var parting = 1500 * time.Millisecond // a variable for tests

// tellConfinement logs what is enforced and refuses to serve with less than was
// meant.
func tellConfinement(log zerolog.Logger, c Confinement, own bool) (report, error) {
	err := checkClosed(fdSpool)
	if err != nil && (!own || c.Landlock > 0) {
		return report{}, fmt.Errorf("%w: chmod 0700 db, work and journal, and chown them to the signer's user", err)
	}
	log.Info().Int("uid", c.UID).Int("gid", c.GID).Ints("groups", c.Groups).Bool("own_user", !own).
		Int("landlock", c.Landlock).Bool("keys_closed", err == nil).Msg("SFTP door: what is enforced")
	if err != nil {
		log.Warn().Msg("SFTP door: it has the signer's user and the kernel has no Landlock, so nothing keeps it out of the keys: start as root, or use a newer kernel")
	}
	return report{c.Landlock, err == nil}, nil
}

func fileListener() (net.Listener, error) {
	f := os.NewFile(fdListener, "listener")
	defer f.Close()
	return net.FileListener(f)
}

func fileConn() (net.Conn, error) {
	f := os.NewFile(fdKeeper, "keeper")
	defer f.Close()
	return net.FileConn(f)
}

// listen takes the keeper's messages until its socket closes.
func listen(keeper net.Conn, srv *server, host *remoteSigner) error {
	for {
		m, err := readMessage(keeper)
		if err != nil {
			return err
		}
		switch {
		case m.Company != nil:
			srv.setCompany(m.Company.Name, m.Company.Keys)
		case m.Gone != "":
			srv.dropCompany(m.Gone)
		case m.Ready:
			srv.setReady()
		case m.Signature != nil:
			select {
			case host.answers <- m.Signature:
			default:
				return errors.New("internal error: a signature that nobody asked for")
			}
		}
	}
}

// remoteSigner is the host key, which stays with the keeper: whoever takes the door
// over can use it for as long as that lasts, and cannot take it away.
type remoteSigner struct {
	pub     ssh.PublicKey
	mu      sync.Mutex // one request is out at a time
	keeper  net.Conn
	answers chan []byte
}

func newRemoteSigner(keeper net.Conn, pub []byte) (*remoteSigner, error) {
	key, err := ssh.ParsePublicKey(pub)
	if err != nil {
		return nil, err
	}
	return &remoteSigner{pub: key, keeper: keeper, answers: make(chan []byte, 1)}, nil
}

func (s *remoteSigner) PublicKey() ssh.PublicKey { return s.pub }

// Sign asks the keeper. A keeper that does not answer has gone, and then the door
// ends too.
func (s *remoteSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeFrame(s.keeper, data); err != nil {
		return nil, err
	}
	select {
	case b := <-s.answers:
		sig := new(ssh.Signature)
		return sig, ssh.Unmarshal(b, sig)
	case <-time.After(10 * time.Second):
		// A late answer would be taken for the next one's.
		s.keeper.Close()
		return nil, errors.New("the keeper does not sign")
	}
}
