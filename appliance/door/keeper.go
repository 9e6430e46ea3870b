package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"signdrop/appliance/door/notice"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// Descriptors that the keeper hands to the door, beside standard error.
const (
	fdSpool = 3 + iota
	fdListener
	fdKeeper
)

// Administrators log in under this name, with db/admins/authorized_keys.
const administrators = "admin"

// Keeper starts the door and tells it who may log in.
type Keeper struct {
	Data     string   // the data volume
	Listen   string   // address to listen on, ":10210"
	Program  []string // the command that runs Child
	Stderr   io.Writer
	Settings Settings
	User     *User // whom the door runs as; nil for the same user
	Log      zerolog.Logger
	Sealer   *seal.Sealer // of the host key; nil where keys lie in the clear

	// Every is how often the companies' files are looked at. Default 1 s, and
	// so the time for which a key that was removed may still log in.
	Every time.Duration

	// Listening is called with the address when the port is bound.
	Listening func(net.Addr)

	grace   time.Duration // for a door that is to end, before it is killed; default 2 s
	root    durable.Dir
	host    ssh.Signer
	groups  []int                // further groups that the door needs
	adopted map[string]time.Time // when directories were given to the door

	mu   sync.Mutex
	said map[string]string // by what it concerns, the last error that was logged
}

// complain logs an error that comes back at every look once for as long as it stays
// the same. A nil error means that all is well again.
func (k *Keeper) complain(company, what, message string, err error) {
	about := company + " " + what
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.said, about)
		return
	}
	if k.said[about] == err.Error() {
		return
	}
	k.said[about] = err.Error()
	k.Log.Error().Str("company", company).Str("what", what).Err(err).Msg(message)
}

// User is whom the door runs as.
type User struct{ UID, GID int }

// Backoff between two starts of a door that dies, and how long one has to live
// for the next to be started at once.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	settled    = time.Minute
)

// Run keeps a door running until ctx ends. An error means that there was none to
// begin with.
func (k *Keeper) Run(ctx context.Context) error {
	vol, err := durable.OpenDisk(k.Data)
	if err != nil {
		return err
	}
	defer vol.Close()
	if k.root, err = vol.Root(); err != nil {
		return err
	}
	defer k.root.Close()
	unlock, err := k.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := k.Settings.Check(); err != nil {
		return fmt.Errorf("settings of the SFTP door: %w", err)
	}
	var made bool
	if k.host, made, err = hostKey(k.root, k.Sealer); err != nil {
		return err
	}
	if k.Every <= 0 {
		k.Every = time.Second
	}
	if k.grace <= 0 {
		k.grace = 2 * time.Second
	}
	k.withdraw() // of a keeper that was killed
	k.adopted, k.said = map[string]time.Time{}, map[string]string{}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", k.Listen)
	if err != nil {
		return fmt.Errorf("listening for SFTP: %w (use another address, or stop what uses it)", err)
	}
	defer l.Close()
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return errors.New("internal error: not a TCP listener")
	}
	k.Log.Info().Str("address", l.Addr().String()).Str("fingerprint", ssh.FingerprintSHA256(k.host.PublicKey())).
		Bool("new", made).Msg("SFTP door: host key")
	if k.User == nil {
		k.Log.Warn().Int("uid", os.Getuid()).Msg("SFTP door runs as the same user as the signer: only Landlock keeps it out of the keys; start as root to give it a user of its own")
	}
	if k.Listening != nil {
		k.Listening(l.Addr())
	}
	k.again(ctx, tcp)
	return nil
}

// again starts doors, one after the other. The listener stays open in between: who
// connects meanwhile waits.
func (k *Keeper) again(ctx context.Context, l *net.TCPListener) {
	pause := firstPause
	for {
		begun := time.Now()
		err := k.once(ctx, l)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errGroups) {
			k.Log.Info().Msg("SFTP door: starting it again with the group of a new company")
			continue
		}
		if time.Since(begun) >= settled {
			pause = firstPause
		}
		k.Log.Error().Err(err).Dur("pause", pause).Msg("SFTP door died; it is started again")
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

var errGroups = errors.New("the door needs another group")

// once runs one door until it ends or ctx does.
func (k *Keeper) once(ctx context.Context, l *net.TCPListener) error {
	conn, cmd, err := k.start(l)
	if err != nil {
		return err
	}
	defer conn.Close()
	k.Log.Info().Int("pid", cmd.Process.Pid).Msg("SFTP door: started")
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	to := &sender{conn: conn}
	var wg sync.WaitGroup
	wg.Go(func() { stop(k.serves(conn, to, l.Addr(), cmd.Process.Pid)) })
	wg.Go(func() { stop(k.tells(ctx, to)) })
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	select {
	case err = <-died:
		if err == nil {
			err = errors.New("it ended by itself")
		}
		stop(err)
	case <-ctx.Done():
		err = context.Cause(ctx)
		// Closing the socket ends it. What it had accepted is durable; it waits a
		// little to leave of the rest what can be resumed.
		conn.Close()
		select {
		case exit := <-died:
			if exit != nil {
				err = fmt.Errorf("%w (%w)", exit, err)
			}
		case <-time.After(k.grace):
			// It leads a session, and so a group: whatever it may have started
			// goes too.
			if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil {
				cmd.Process.Kill()
			}
			<-died
		}
	}
	conn.Close()
	wg.Wait()
	k.withdraw()
	return err
}

// start starts the door with its three descriptors.
func (k *Keeper) start(l *net.TCPListener) (net.Conn, *exec.Cmd, error) {
	k.groups = k.directories(time.Now())
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "keeper"), os.NewFile(uintptr(pair[1]), "door")
	defer ours.Close()
	defer theirs.Close()
	listener, err := l.File()
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	spool, err := os.Open(filepath.Join(k.Data, "spool"))
	if err != nil {
		return nil, nil, err
	}
	defer spool.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(k.Program[0], k.Program[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{}
	for _, name := range passOn {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.Stderr = k.Stderr
	cmd.ExtraFiles = []*os.File{spool, listener, theirs}
	cmd.WaitDelay = time.Second // for standard error, should somebody else have it
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if k.User != nil {
		cred := &syscall.Credential{Uid: uint32(k.User.UID), Gid: uint32(k.User.GID)}
		for _, g := range k.groups {
			cred.Groups = append(cred.Groups, uint32(g))
		}
		cmd.SysProcAttr.Credential = cred
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("starting the SFTP door: %w (its user must be able to run %s)", err, k.Program[0])
	}
	return conn, cmd, nil
}

// passOn are the environment variables that the door gets.
var passOn = []string{"TZ", "GOMAXPROCS", "GODEBUG"}

// sender writes messages to a door, which must take them.
type sender struct {
	mu   sync.Mutex
	conn net.Conn
}

func (s *sender) send(m message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	return writeMessage(s.conn, m)
}

// signRate bounds, in signatures a second, what a door that has been taken over
// can make us compute.
const signRate = 500

// serves takes the door's report, when it is ready, and then signs for it.
func (k *Keeper) serves(conn net.Conn, to *sender, l net.Addr, pid int) error {
	data, err := readFrame(conn, maxReport)
	if err != nil {
		return fmt.Errorf("the door's socket: %w", err)
	}
	r, err := parseReport(data)
	if err != nil {
		return err
	}
	k.announce(l, pid, r)
	return k.signs(conn, to)
}

// signs answers the door's requests for signatures with the host key. Only what has
// may be an exchange hash is signed.
func (k *Keeper) signs(conn net.Conn, to *sender) error {
	for {
		data, err := readFrame(conn, maxToSign)
		if err != nil {
			return fmt.Errorf("the door's socket: %w", err)
		}
		if !exchangeHash(data) {
			return errors.New("the door asks for a signature over what is no exchange hash")
		}
		sig, err := k.host.Sign(nil, data)
		if err != nil {
			return err
		}
		if err := to.send(message{Signature: ssh.Marshal(sig)}); err != nil {
			return err
		}
		time.Sleep(time.Second / signRate)
	}
}

// directoriesEvery is how often the companies' directories are looked at, in times
// that their files are: new ones are rare, and looking costs more.
const directoriesEvery = 3

// tells sends the door who may log in, and again what changes.
func (k *Keeper) tells(ctx context.Context, to *sender) error {
	err := to.send(message{Hello: &hello{
		Settings: k.Settings, HostKey: k.host.PublicKey().Marshal(), Own: k.User == nil,
	}})
	if err != nil {
		return err
	}
	told := map[string]stamp{}
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	looked := time.Now()
	for ready := false; ; {
		if err := k.changes(to, told); err != nil {
			return err
		}
		if !ready {
			ready = true
			if err := to.send(message{Ready: true}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			if k.User == nil || now.Sub(looked) < directoriesEvery*k.Every {
				continue
			}
			looked = now
			if !slices.Equal(k.directories(now), k.groups) {
				return errGroups
			}
		}
	}
}

// stamp tells whether one of a company's files has changed.
type stamp [2]durable.Info

// changes sends what differs from what was told.
func (k *Keeper) changes(to *sender, told map[string]stamp) error {
	names, err := companies(k.root)
	if err != nil {
		// Nobody is let in whom we cannot ask about, and nobody is thrown out
		// because of a passing error either.
		k.complain("", "db/companies", "SFTP door: reading the companies", err)
		return nil
	}
	k.complain("", "db/companies", "", nil)
	gone := map[string]bool{}
	for name := range told {
		gone[name] = true
	}
	adopted := k.User == nil
	for _, name := range names {
		st, keys, err := readAllowed(k.root, name, told[name])
		k.complain(name, "files", "SFTP door: company cannot log in; mend its files", err)
		if err != nil {
			continue
		}
		if st == nil {
			continue // disabled, or without keys
		}
		delete(gone, name)
		old, known := told[name]
		if known && old == *st {
			continue
		}
		if !known && !adopted {
			// Whoever comes in at once must find its directories open.
			adopted = true
			if !slices.Equal(k.directories(time.Now()), k.groups) {
				return errGroups
			}
		}
		if err := to.send(message{Company: &allowed{Name: name, Keys: keys}}); err != nil {
			return err
		}
		told[name] = *st
	}
	for name := range gone {
		delete(told, name)
		if err := to.send(message{Gone: name}); err != nil {
			return err
		}
	}
	return nil
}

// companies lists who has directories of its own.
func companies(root durable.Dir) ([]string, error) {
	d, err := durable.SubPath(root, "db", "companies")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names := []string{administrators}
	err = durable.Walk(d, func(e durable.Entry) error {
		if e.Type.IsDir() && e.Name[0] != '.' && e.Name != administrators {
			names = append(names, e.Name)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// readAllowed reads who may log in as name. A nil stamp means that nobody may. The
// keys are nil if the files are as old says.
func readAllowed(root durable.Dir, name string, old stamp) (*stamp, []byte, error) {
	path := []string{"db", "companies", name}
	if name == administrators {
		path = []string{"db", "admins"}
	}
	d, err := durable.SubPath(root, path...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	var st stamp
	if st[0], err = d.Stat("authorized_keys"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if name != administrators {
		if st[1], err = d.Stat("company.json"); err != nil {
			return nil, nil, err
		}
	}
	if st == old {
		return &st, nil, nil
	}
	if name != administrators {
		if active, err := isActive(d); err != nil || !active {
			return nil, nil, err
		}
	}
	keys, err := durable.ReadFile(d, "authorized_keys", maxKeysFile)
	if err != nil {
		return nil, nil, err
	}
	return &st, keys, nil
}

func isActive(d durable.Dir) (bool, error) {
	data, err := durable.ReadFile(d, "company.json", 64<<10)
	if err != nil {
		return false, err
	}
	var c struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return false, fmt.Errorf("company.json: %w", err)
	}
	return c.Status == "active", nil
}

// lock makes sure that one keeper works on a volume.
func (k *Keeper) lock() (unlock func(), err error) {
	name := filepath.Join(k.Data, "db", "appliance", notice.LockFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the SFTP door: %w (run signdrop init first)", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: another SFTP door works on this volume: stop it first (%w)", name, err)
	}
	return func() { f.Close() }, nil
}
