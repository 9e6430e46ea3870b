package courier

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"signdrop/appliance/answer"
	"signdrop/spool/durable"
	"signdrop/tools/signdrop/proof"
)

const (
	suffixSingle = ".result.json"
	suffixBatch  = ".result.jsonl"

	// maxAnswer bounds one line, as signdrop verify does.
	maxAnswer = 16 << 20
)

// stamp tells one version of a file from another.
type stamp struct {
	size  int64
	mod   time.Time
	inode uint64
}

// file is one answer in the outbox.
type file struct {
	name  string
	calls []*task // in the order of the lines
	left  int     // calls that are not settled in this run
	stays bool    // it is not to be moved away
}

// task is one call on its way.
type task struct {
	file *file
	rec  *Record
	call *call // nil where nothing has to be sent any more

	register string // the public key, "" for a transaction
	ref      string // the reference of the answer
	tries    int    // of this run, to tell how long to wait
	first    time.Time
	due      time.Time
}

func (t *task) name() string { return lineName(t.file.name, t.rec.Line) }

func lineName(name string, line int) string {
	if line == 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, line)
}

// errTorn: the file ends in the middle of a line.
var errTorn = errors.New("the file does not end with a line break: it is not whole, or not yet")

// scan looks for answers that are new or have changed.
func (c *courier) scan() error {
	entries, err := os.ReadDir(c.Outbox)
	if err != nil {
		return fmt.Errorf("looking for answers: %w", err)
	}
	there := map[string]bool{}
	for _, e := range entries { // sorted by name
		name := e.Name()
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, suffixSingle) && !strings.HasSuffix(name, suffixBatch) {
			continue
		}
		there[name] = true
		if err := c.look(name); err != nil {
			return err
		}
	}
	for name := range c.seen {
		if !there[name] {
			delete(c.seen, name)
		}
	}
	return nil
}

// look reads one answer unless it is as it was when last looked at. The error is one
// of ours; what is wrong with the file is reported and does not stop the others.
func (c *courier) look(name string) error {
	// No link is followed, and no pipe waited for: others may write here.
	r, err := os.OpenFile(filepath.Join(c.Outbox, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, unix.ELOOP) {
		err = errors.New("this is a symbolic link, which is not followed")
	}
	if err != nil {
		if unreadable := (stamp{size: -1}); c.seen[name] != unreadable {
			c.problem(name, unreadable, plainPath(err))
		}
		return nil
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return err
	}
	now := stamp{size: info.Size(), mod: info.ModTime()}
	if st, ok := info.Sys().(*unixStat); ok {
		now.inode = st.Ino
	}
	if c.seen[name] == now {
		return nil
	}
	if !info.Mode().IsRegular() {
		c.problem(name, now, errors.New("this is not a regular file"))
		return nil
	}
	f := &file{name: name}
	var mine *ownError
	tasks, notes, err := c.read(f, r)
	if errors.As(err, &mine) {
		return mine.err
	}
	if err != nil {
		if errors.Is(err, errTorn) && !c.Once && c.torn[name] != now {
			c.torn[name] = now // it may still be arriving: said if it stays as it is
			return nil
		}
		c.problem(name, now, err)
		return nil
	}
	if tasks == nil && notes == nil && f.stays && len(f.calls) == 0 {
		return nil // it waits for another file with the same request: see read
	}
	c.seen[name] = now
	for _, e := range notes {
		c.Tell(e)
	}
	for _, t := range tasks {
		c.active[c.store.callPath(t.rec.Request, t.rec.Line)] = true
	}
	f.left = len(tasks)
	c.total += len(tasks)
	c.open = append(c.open, tasks...)
	if f.left == 0 {
		return c.finish(f)
	}
	return nil
}

// problem tells of a file once in each version of it.
func (c *courier) problem(name string, now stamp, err error) {
	c.seen[name] = now
	c.Tell(Event{Verdict: Failed, Name: name, Detail: err.Error()})
}

// plainPath leaves what happened of an error whose path is said beside it.
func plainPath(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// ownError is an error of the state directory, which must end the run: without it
// nobody knows what was sent.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

// read makes the tasks of one answer. Nothing is sent of a file whose lines are not
// all there. If one of its calls is under way for another file with the same
// request, there are no tasks and no calls, and f stays: it is looked at again.
func (c *courier) read(f *file, r io.Reader) (tasks []*task, notes []Event, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxAnswer)
	lines.Split(wholeLines)
	single := strings.HasSuffix(f.name, suffixSingle)
	n, last, count := 0, 0, -1
	for lines.Scan() {
		n++
		a, err := answer.Parse(lines.Bytes())
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: this is not an answer: %w", n, err)
		}
		switch {
		case single && (n > 1 || a.Line != 0):
			return nil, nil, errors.New("this is more than one answer, and the name says one")
		case !single && n == 1 && a.Type == answer.TypeBatch:
			count, last = a.Count, a.Line
			continue
		case !single && (n == 1 && a.Line != 1 || n > 1 && a.Line != last+1):
			return nil, nil, fmt.Errorf("line %d is that of number %d: some are missing or out of order", n, a.Line)
		}
		last = a.Line
		t, note, err := c.take(f, a)
		switch {
		case err != nil:
			return nil, nil, err
		case note != nil:
			notes = append(notes, *note)
		case t == nil:
			f.calls, f.stays = nil, true
			c.deferred = true
			return nil, nil, nil
		default:
			f.calls = append(f.calls, t)
			if !t.rec.State.final() || c.bindLeft(t.rec) {
				tasks = append(tasks, t)
			}
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, nil, fmt.Errorf("line %d has more than %d bytes", n+1, maxAnswer)
	case err != nil:
		return nil, nil, err
	case n == 0:
		return nil, nil, errTorn
	case count >= 0 && n-1 != count:
		return nil, nil, fmt.Errorf("the first line announces %d answers and there are %d", count, n-1)
	}
	return tasks, notes, nil
}

// wholeLines is bufio.ScanLines that takes no last line without a line break.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errTorn
	}
	return 0, nil, nil
}

// take makes the task for one answer, or says why there is none. Both are nil if the
// same call is under way for another file.
func (c *courier) take(f *file, a *answer.Answer) (*task, *Event, error) {
	note := func(v Verdict, detail string) (*task, *Event, error) {
		return nil, &Event{Verdict: v, Name: lineName(f.name, a.Line), Detail: detail}, nil
	}
	known, err := c.store.wallet(a.Wallet)
	if err != nil {
		return nil, nil, &ownError{err}
	}
	// What was decided stays decided, whatever the answer says by now.
	if a.Submit != nil && digestForm.MatchString(a.Request) && a.Line >= 0 && a.Line <= maxLine {
		if c.active[c.store.callPath(a.Request, a.Line)] {
			return nil, nil, nil
		}
		rec, err := c.store.load(a.Request, a.Line)
		if err != nil {
			return nil, nil, &ownError{err}
		}
		if rec != nil && rec.State.final() {
			c.before++
			f.stays = f.stays || rec.State == Uncertain
			return &task{file: f, rec: rec, ref: a.Reference}, nil, nil
		}
	}
	var pinned *proof.Key
	if known != nil {
		if pinned, err = proof.ParseKey([]byte(known.PublicKey)); err != nil {
			return nil, nil, &ownError{fmt.Errorf("%s: %w", c.store.walletPath(known.Wallet), err)}
		}
	}
	cl, err := callOf(a, pinned)
	if p, ok := errors.AsType[pass](err); ok {
		if a.Type == answer.TypeBind && known != nil && known.Address != "" && a.Address != known.Address {
			return note(Forged, fmt.Sprintf("the wallet %s was bound to %s, and the node gave %s for its key: find out why before anything is sent there", a.Wallet, a.Address, known.Address))
		}
		f.stays = f.stays || a.Submit != nil
		return note(Passed, string(p))
	}
	if err != nil {
		f.stays = true
		if a.Type == answer.TypeBind && known != nil && known.Address != "" {
			err = fmt.Errorf("%w; this answer or the one to wallet.create was altered: send nothing to %s before you know which", err, known.Address)
		}
		return note(Forged, err.Error())
	}
	rec, err := c.store.load(a.Request, a.Line)
	if err != nil {
		return nil, nil, &ownError{err}
	}
	t := &task{file: f, rec: rec, call: cl, ref: a.Reference}
	if a.Type == answer.TypeCreate {
		t.register = a.PublicKey
	}
	switch {
	case rec == nil:
		t.rec = &Record{
			Format: recordFormat, Name: f.name, Line: a.Line, Request: a.Request, Wallet: a.Wallet,
			Operation: a.Operation, Call: cl.digest(), State: Waiting,
		}
	case rec.Call != cl.digest():
		f.stays = true
		return note(Forged, "for the same request another call was begun before: this answer or that one was altered")
	case rec.State == Sending:
		// We were stopped between sending and noting what came of it.
		rec.InDoubt = true
	}
	return t, nil, nil
}

// finish writes for people what the node said to an answer, and moves the answer
// away if that is wanted and nothing is left to do for it.
func (c *courier) finish(f *file) error {
	if len(f.calls) == 0 {
		return nil
	}
	var text []byte
	for _, t := range f.calls {
		line, err := t.rec.append()
		if err != nil {
			return err
		}
		text = append(text, line...)
		f.stays = f.stays || !t.rec.State.final() || t.rec.State == Uncertain || c.bindLeft(t.rec)
	}
	path := filepath.Join(c.State, nodeName(f.name))
	if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, text) {
		if err := durable.WriteFile(path, text, stateMode); err != nil {
			return err
		}
	}
	if c.Done == "" || f.stays {
		return nil
	}
	from, to := filepath.Join(c.Outbox, f.name), filepath.Join(c.Done, f.name)
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		err = fmt.Errorf("something lies at %s: take it away", to)
	case errors.Is(err, unix.EXDEV):
		err = fmt.Errorf("%s is on another file system than the outbox: take a directory beside it", c.Done)
	}
	if err != nil {
		c.Tell(Event{Verdict: Failed, Name: f.name, Detail: "all is sent, and the answer cannot be moved away: " + err.Error()})
	}
	return nil
}

// nodeName is pay.node.json for pay.result.json.
func nodeName(name string) string {
	i := strings.LastIndex(name, ".result.")
	return name[:i] + ".node" + name[i+len(".result"):]
}
