package courier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// State is how far a call has come.
type State string

// The states. The last three are for good: such a call is never sent again.
const (
	Waiting   State = "waiting"   // not sent, or surely not looked at by the node
	Sending   State = "sending"   // written before it is sent: from now on it may have been carried out
	Accepted  State = "accepted"  // the node says that it was carried out
	Refused   State = "refused"   // the node says that it was not
	Uncertain State = "uncertain" // it may have been carried out, and is not sent again; a person has to look
)

func (s State) final() bool { return s == Accepted || s == Refused || s == Uncertain }

// Record is what the state directory has of one call. docs/formats.md specifies it.
type Record struct {
	Format    int       `json:"format"` // 1
	Name      string    `json:"name"`   // the answer's file
	Line      int       `json:"line,omitzero"`
	Request   string    `json:"request_sha256"`
	Wallet    string    `json:"wallet"`
	Operation string    `json:"operation,omitzero"` // "" for the registration of a key
	Call      string    `json:"call_sha256"`        // of method, path and form
	State     State     `json:"state"`
	InDoubt   bool      `json:"in_doubt,omitzero"` // an earlier sending may have been carried out
	Attempts  int       `json:"attempts"`
	Since     time.Time `json:"since"` // of the first attempt
	Time      time.Time `json:"time"`  // of this state
	Status    int       `json:"status,omitzero"`
	Body      string    `json:"body,omitzero"`
	TxID      string    `json:"txid,omitzero"`
	Address   string    `json:"address,omitzero"`
	Bind      string    `json:"bind,omitzero"` // the request that was dropped to bind it
	Note      string    `json:"note,omitzero"`
}

const recordFormat = 1

func (r *Record) append() ([]byte, error) {
	data, err := json.Marshal(r)
	return append(data, '\n'), err
}

// parseRecord reads a record strictly. A damaged one must stop everything: taken
// for none it would let the call be sent again.
func parseRecord(data []byte) (*Record, error) {
	r := &Record{}
	if err := json.Unmarshal(data, r, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	switch {
	case r.Format != recordFormat:
		return nil, fmt.Errorf("its format is %d and this version knows %d", r.Format, recordFormat)
	case r.State != Waiting && r.State != Sending && !r.State.final():
		return nil, fmt.Errorf("its state %q is not known", r.State)
	case !digestForm.MatchString(r.Request) || r.Line < 0 || r.Line > maxLine:
		return nil, errors.New("it does not say which request it is for")
	}
	return r, nil
}

// knownWallet is what is remembered of a wallet whose key was sent to the node.
type knownWallet struct {
	Wallet    string `json:"wallet"`
	PublicKey string `json:"public_key"`
	Address   string `json:"address,omitzero"`
}

// store is a state directory:
//
//	lock                    locked with flock(2) while a courier runs
//	courier.json            the node that all of it is about
//	calls/DIGEST[-LINE].json    a Record each
//	wallets/W_….json        a knownWallet each
//	NAME.node.json[l]       for people: the records of one answer
//
// Every file is replaced in one step and synced, so it is old or new after a crash.
type store struct {
	dir  string
	lock *os.File
}

const stateMode = 0o600

// openStore makes what is missing and takes the lock.
func openStore(dir, node string) (*store, error) {
	for _, d := range []string{dir, filepath.Join(dir, "calls"), filepath.Join(dir, "wallets")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("making the state directory: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, stateMode)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, lock: f}
	// The lock ends with the process, so there is never a stale one.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another courier works with %s: stop it first", dir)
		}
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	if err := s.ofNode(node); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) close() { s.lock.Close() }

// ofNode refuses a directory that is about another node: what the main ledger has
// carried out says nothing about the test ledger.
func (s *store) ofNode(node string) error {
	type about struct {
		Format int    `json:"format"`
		Node   string `json:"node"`
	}
	path := filepath.Join(s.dir, "courier.json")
	var a about
	there, err := s.read(path, &a)
	if err != nil {
		return err
	}
	if !there {
		return s.write(path, &about{recordFormat, node})
	}
	if a.Format != recordFormat {
		return fmt.Errorf("%s: its format is %d and this version knows %d", path, a.Format, recordFormat)
	}
	if a.Node != node {
		return fmt.Errorf("%s is about the node %s: take another --state for %s, or change courier.json if both are nodes of one ledger", s.dir, a.Node, node)
	}
	return nil
}

func (s *store) read(path string, v any) (there bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
		return false, fmt.Errorf("%s cannot be read; restore it, or find out from the ledger what was carried out before removing it: %w", path, err)
	}
	return true, nil
}

func (s *store) write(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), stateMode)
}

func (s *store) callPath(request string, line int) string {
	name := request
	if line > 0 {
		name += fmt.Sprintf("-%d", line)
	}
	return filepath.Join(s.dir, "calls", name+".json")
}

// load returns the record of a call, nil if it was never sent.
func (s *store) load(request string, line int) (*Record, error) {
	path := s.callPath(request, line)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := parseRecord(data)
	if err == nil && (r.Request != request || r.Line != line) {
		err = errors.New("it is for another request")
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read; restore it, or find out from the ledger what was carried out before removing it: %w", path, err)
	}
	return r, nil
}

// save writes a record. When it returns nil the record survives a power cut.
func (s *store) save(r *Record) error {
	data, err := r.append()
	if err != nil {
		return err
	}
	return durable.WriteFile(s.callPath(r.Request, r.Line), data, stateMode)
}

func (s *store) walletPath(id string) string { return filepath.Join(s.dir, "wallets", id+".json") }

// wallet returns what is known of a wallet, nil for nothing.
func (s *store) wallet(id string) (*knownWallet, error) {
	if !walletForm.MatchString(id) {
		return nil, nil
	}
	w := &knownWallet{}
	there, err := s.read(s.walletPath(id), w)
	if err != nil || !there {
		return nil, err
	}
	return w, nil
}

func (s *store) saveWallet(w *knownWallet) error { return s.write(s.walletPath(w.Wallet), w) }
