package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"

	"signdrop/spool/durable"
)

// server speaks SSH with partners.
type server struct {
	set   Settings
	vol   durable.FS // of which the root is spool/
	ssh   *ssh.ServerConfig
	gate  *gate
	space *space
	log   zerolog.Logger
	quiet zerolog.Logger // for what strangers can cause: only some of it is told
	now   func() time.Time
	ready chan struct{}
	done  chan struct{}
	once  sync.Once

	mu       sync.Mutex
	rings    map[string]*keyring
	rooms    map[string]*room
	sessions map[*session]bool
}

// The algorithms, best first. The hashes of the key exchanges have 32 or 48 bytes
// (see exchangeHash). Everything that is here is held to be secure today;
// hmac-sha2-256 without -etm is for libssh2 (curl), which has no other.
var (
	kexes = []string{
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519,
		ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384,
	}
	ciphers = []string{
		ssh.CipherAES256GCM, ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305,
		ssh.CipherAES256CTR, ssh.CipherAES192CTR, ssh.CipherAES128CTR,
	}
	macs = []string{
		ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512,
	}
	userAlgorithms = []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
)

// What a login leaves in ssh.Permissions. Who a connection is comes from there and
// from nowhere else: the callback also sees keys that are offered and never proven.
const (
	extCompany = "company"
	extKey     = "key" // the proven key in wire form
)

func newServer(set Settings, vol durable.FS, host ssh.Signer, log zerolog.Logger) *server {
	s := &server{
		set: set, vol: vol, log: log, now: time.Now,
		quiet: log.Sample(&zerolog.BurstSampler{Burst: 20, Period: 10 * time.Second}),
		ready: make(chan struct{}), done: make(chan struct{}),
		rings: map[string]*keyring{}, rooms: map[string]*room{}, sessions: map[*session]bool{},
	}
	s.gate = newGate(set, func() time.Time { return s.now() })
	s.space = &space{vol: vol, reserve: set.Reserve}
	s.ssh = &ssh.ServerConfig{
		Config:                  ssh.Config{KeyExchanges: kexes, Ciphers: ciphers, MACs: macs},
		PublicKeyAuthAlgorithms: userAlgorithms,
		PublicKeyCallback:       s.checkKey,
		MaxAuthTries:            6,
		ServerVersion:           "SSH-2.0-signdrop",
		AuthLogCallback: func(c ssh.ConnMetadata, method string, err error) {
			if err != nil && method != "none" {
				s.quiet.Info().Str("user", cut(c.User(), 40)).Str("address", c.RemoteAddr().String()).Err(err).Msg("SFTP login refused")
			}
		},
	}
	s.ssh.AddHostKey(host)
	return s
}

// checkKey says whether a key may log in as the user that is asked for.
func (s *server) checkKey(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if err := s.allowed(c.User(), key, addrOf(c.RemoteAddr())); err != nil {
		return nil, err
	}
	p := &ssh.Permissions{Extensions: map[string]string{extCompany: c.User(), extKey: string(key.Marshal())}}
	if cert, ok := key.(*ssh.Certificate); ok {
		p.CriticalOptions = cert.CriticalOptions // x/crypto looks at source-address once more
	}
	return p, nil
}

func (s *server) allowed(company string, key ssh.PublicKey, addr netip.Addr) error {
	s.mu.Lock()
	ring := s.rings[company]
	s.mu.Unlock()
	if ring == nil {
		return errors.New("no such company, or it is disabled")
	}
	return ring.allow(company, key, addr, s.now())
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// setCompany lets a company in with other keys than before, and closes the
// connections that the new ones do not allow.
func (s *server) setCompany(name string, keys []byte) {
	ring, wrong := parseKeys(keys)
	for _, w := range wrong {
		s.log.Error().Str("company", name).Int("line", w.line).Err(w.err).Msg("SFTP door: line of authorized_keys refused")
	}
	s.mu.Lock()
	s.rings[name] = ring
	s.mu.Unlock()
	s.recheck()
}

func (s *server) dropCompany(name string) {
	s.mu.Lock()
	delete(s.rings, name)
	s.mu.Unlock()
	s.recheck()
}

func (s *server) setReady() {
	s.once.Do(func() { close(s.ready) })
}

// recheck closes the connections whose key may not log in any more.
func (s *server) recheck() {
	for _, c := range s.open() {
		if err := s.allowed(c.company, c.key, c.addr); err != nil {
			c.log.Info().Err(err).Msg("SFTP connection closed: its key may not log in any more")
			c.conn.Close()
		}
	}
}

func (s *server) open() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*session, 0, len(s.sessions))
	for c := range s.sessions {
		list = append(list, c)
	}
	return list
}

// janitor closes idle connections and removes uploads that nobody resumes.
func (s *server) janitor() {
	every := min(s.set.Idle/4, 15*time.Second)
	tick := time.NewTicker(max(every, 10*time.Millisecond))
	defer tick.Stop()
	swept := time.Time{}
	for {
		now := s.now()
		if now.Sub(swept) >= min(s.set.Keep/8, 10*time.Minute) {
			swept = now
			s.sweep(now)
		}
		s.closeIdle(now)
		s.recheck()
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
	}
}

// closeIdle closes the connections that have asked for nothing for too long.
func (s *server) closeIdle(now time.Time) {
	for _, c := range s.open() {
		if c.idle(now) {
			c.log.Info().Msg("SFTP connection closed: idle")
			c.conn.Close()
		}
	}
}

func (s *server) close() {
	close(s.done)
	for _, c := range s.open() {
		c.conn.Close()
	}
}

// wait waits until all sessions have ended, for max at most.
func (s *server) wait(max time.Duration) {
	for end := time.Now().Add(max); len(s.open()) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// room is the state of a company that its connections share.
func (s *server) room(company string) *room {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[company]
	if r == nil {
		r = newRoom(s, company)
		s.rooms[company] = r
	}
	return r
}

// serve accepts connections until the listener closes.
func (s *server) serve(l net.Listener) {
	go s.janitor()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Too many open files, most likely: that passes.
			s.quiet.Error().Err(err).Msg("SFTP door: accepting a connection")
			select {
			case <-s.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		v, err := s.gate.enter(conn, addrOf(conn.RemoteAddr()))
		if err != nil {
			s.quiet.Info().Str("address", conn.RemoteAddr().String()).Err(err).Msg("SFTP connection refused")
			conn.Close()
			continue
		}
		go s.handle(v)
	}
}

// session is one connection that has logged in.
type session struct {
	srv     *server
	conn    ssh.Conn
	room    *room
	company string
	key     ssh.PublicKey
	addr    netip.Addr
	log     zerolog.Logger
	active  atomic.Int64 // when it last asked for something, nanoseconds since 1970
	handles atomic.Int64

	mu    sync.Mutex
	lines map[*line]bool // the channels that are open
}

// line is one channel of a connection. A client that opens no window, and so leaves
// an answer unsent for as long as Stall, loses its connection.
type line struct {
	ssh.Channel
	sn     *session
	active atomic.Int64
}

func (sn *session) newLine(ch ssh.Channel) *line {
	l := &line{Channel: ch, sn: sn}
	l.touch()
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if sn.lines == nil {
		sn.lines = map[*line]bool{}
	}
	sn.lines[l] = true
	return l
}

func (sn *session) dropLine(l *line) {
	sn.mu.Lock()
	delete(sn.lines, l)
	sn.mu.Unlock()
}

func (l *line) touch() {
	l.active.Store(l.sn.srv.now().UnixNano())
	l.sn.touch()
}

// Write implements io.Writer.
func (l *line) Write(p []byte) (int, error) {
	t := time.AfterFunc(l.sn.srv.set.Stall, func() {
		l.sn.log.Info().Msg("SFTP connection closed: the client does not read")
		l.sn.conn.Close()
	})
	defer t.Stop()
	return l.Channel.Write(p)
}

// idle closes the channels that have asked for nothing for as long as Idle, and
// reports whether the connection has to go: because nothing came at all, or because
// a channel that was closed is still there.
func (sn *session) idle(now time.Time) bool {
	set := &sn.srv.set
	for l := range sn.openLines() {
		since := now.UnixNano() - l.active.Load()
		if since > int64(set.Idle+set.Stall) {
			return true
		}
		if since > int64(set.Idle) {
			l.Close()
		}
	}
	return now.UnixNano()-sn.active.Load() > int64(set.Idle)
}

func (sn *session) openLines() map[*line]bool {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	return maps.Clone(sn.lines)
}

func (s *server) handle(v *visitor) {
	defer v.conn.Close()
	defer s.gate.leave(v)
	c := &stallConn{Conn: v.conn, stall: s.set.Stall}
	if err := v.conn.SetDeadline(time.Now().Add(s.set.Login)); err != nil {
		return
	}
	conn, channels, requests, err := ssh.NewServerConn(c, s.ssh)
	if err != nil {
		s.quiet.Debug().Str("address", v.conn.RemoteAddr().String()).Err(err).Msg("SFTP handshake failed")
		return
	}
	defer conn.Close()
	company := conn.Permissions.Extensions[extCompany]
	key, err := ssh.ParsePublicKey([]byte(conn.Permissions.Extensions[extKey]))
	if err != nil || company == "" {
		s.log.Error().Err(err).Msg("SFTP door: internal error: a login without a key")
		return
	}
	log := s.log.With().Str("company", company).Str("address", v.conn.RemoteAddr().String()).Logger()
	if err := s.gate.login(v, company); err != nil {
		log.Warn().Err(err).Msg("SFTP connection refused")
		return
	}
	if err := v.conn.SetDeadline(time.Time{}); err != nil {
		return
	}
	c.open.Store(true)
	sn := &session{
		srv: s, conn: conn, room: s.room(company), company: company, key: key,
		addr: addrOf(v.conn.RemoteAddr()), log: log,
	}
	sn.touch()
	s.mu.Lock()
	s.sessions[sn] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sessions, sn)
		s.mu.Unlock()
	}()
	// Who was thrown out since the key was asked about was not among the sessions.
	if err := s.allowed(company, key, sn.addr); err != nil {
		log.Info().Err(err).Msg("SFTP connection closed: its key may not log in any more")
		return
	}
	select {
	case <-s.done: // as above
		return
	default:
	}
	log.Info().Str("key", fingerprint(key)).Str("client", cut(string(conn.ClientVersion()), 80)).Msg("SFTP login")
	go ssh.DiscardRequests(requests)
	sn.channels(channels)
	log.Debug().Msg("SFTP connection ended")
}

func fingerprint(key ssh.PublicKey) string {
	if c, ok := key.(*ssh.Certificate); ok {
		return fmt.Sprintf("%s certified by %s", ssh.FingerprintSHA256(c.Key), ssh.FingerprintSHA256(c.SignatureKey))
	}
	return ssh.FingerprintSHA256(key)
}

func (sn *session) touch() { sn.active.Store(sn.srv.now().UnixNano()) }

// channels serves the channels of a connection until it ends, and waits for them.
func (sn *session) channels(channels <-chan ssh.NewChannel) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var open atomic.Int64
	for nc := range channels {
		if nc.ChannelType() != "session" {
			nc.Reject(ssh.UnknownChannelType, "only sftp is served")
			continue
		}
		if open.Load() >= int64(sn.srv.set.MaxChannels) {
			nc.Reject(ssh.ResourceShortage, "too many channels on one connection")
			continue
		}
		ch, requests, err := nc.Accept()
		if err != nil {
			continue
		}
		open.Add(1)
		wg.Go(func() {
			l := sn.newLine(ch)
			defer sn.dropLine(l)
			// A client that does not close its side keeps a buffer here, and so
			// has the channel still.
			defer open.Add(-1)
			sn.channel(l, requests)
			ch.Close()
			ssh.DiscardRequests(requests)
		})
	}
}

// channel waits for the client to ask for sftp, and serves it. Nothing else is
// granted: no shell, no command, no forwarding, no environment.
func (sn *session) channel(ch *line, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), sn.srv.set.Login)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return
		case r, ok := <-requests:
			if !ok {
				return
			}
			var sub struct{ Name string }
			wanted := r.Type == "subsystem" && ssh.Unmarshal(r.Payload, &sub) == nil && sub.Name == "sftp"
			if r.WantReply {
				r.Reply(wanted, nil)
			}
			if !wanted {
				continue
			}
			go ssh.DiscardRequests(requests)
			code := uint32(0)
			if err := sn.sftp(ch, ch.touch); err != nil && !errors.Is(err, io.EOF) {
				sn.log.Debug().Err(err).Msg("SFTP session ended")
				code = 1
			}
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{code}))
			return
		}
	}
}

// stallConn bounds how long a client that has logged in may leave unread what is
// written to it. Until then the deadline of the login holds.
type stallConn struct {
	net.Conn
	stall time.Duration
	open  atomic.Bool
}

func (c *stallConn) Write(p []byte) (int, error) {
	if c.open.Load() {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}
