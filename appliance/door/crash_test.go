package door

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"signdrop/spool"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// The crash test uploads and renames on the model file system, with a fault at every
// call in turn, cuts the power, and looks at what the appliance would find: under a
// name that it looks at there is a whole file, and one that the client was told to
// be well is there.

// told is what a client knows: what each name must hold because it was told so, and
// what it may hold because it was tried.
type told struct {
	must map[string][]byte // nil: the name was renamed away
	may  map[string][][]byte
}

func (w *told) try(name string, data []byte) {
	delete(w.must, name)
	w.may[name] = append(w.may[name], data)
}

// life is one session on a volume. Errors are what a fault may lead to.
func life(vol durable.FS) *told {
	w := &told{map[string][]byte{}, map[string][][]byte{}}
	srv := newServer(testSettings(), vol, signerOf("host"), zerolog.Nop())
	sn := &session{srv: srv, room: srv.room("acme"), company: "acme", log: zerolog.Nop()}
	top, err := vol.Root()
	if err != nil {
		return w
	}
	defer top.Close()
	inbox, err := durable.SubPath(top, "acme", boxInbox)
	if err != nil {
		return w
	}
	defer inbox.Close()
	t := &tree{sn: sn, dirs: map[string]durable.Dir{boxInbox: inbox}}
	upload := func(name, text string, cut bool) {
		w.try(name, []byte(text))
		u, err := sn.room.begin(t, name, openFlags{create: true, trunc: true})
		if err != nil {
			return
		}
		u.released = func() {}
		for i := 0; i < len(text); i += 4 {
			u.WriteAt([]byte(text[i:min(i+4, len(text))]), int64(i)) // an error shows at the close
		}
		if cut {
			u.TransferError(errors.New("cut"))
		}
		if strings.Contains(text, "second") {
			u.flush() // as fsync@openssh.com does
		}
		if u.Close() == nil && !cut {
			w.must[name] = []byte(text)
		}
	}
	rename := func(from, to string, replace bool) {
		data := w.must[from]
		for _, d := range w.may[from] {
			w.try(to, d)
		}
		delete(w.must, from)
		if sn.room.rename(inbox, from, to, replace) == nil && data != nil {
			w.must[to] = data
		}
	}
	upload("a.json", "the first one", false)
	upload("a.json", "the second, in its place", false)
	upload(".in.b.json", "uploaded under another name", false)
	rename(".in.b.json", "b.json", false)
	upload("c.part", "another one that replaces", false)
	rename("c.part", "b.json", true)
	upload("d.json", "cut off", true)
	upload("d.json", "and once more", false)
	return w
}

// judge looks at a volume as the appliance would.
func (w *told) judge(vol *modelfs.Volume) error {
	top, err := vol.Root()
	if err != nil {
		return err
	}
	defer top.Close()
	inbox, err := durable.SubPath(top, "acme", boxInbox)
	if err != nil {
		return err
	}
	defer inbox.Close()
	there := map[string]bool{}
	err = durable.Walk(inbox, func(e durable.Entry) error {
		there[e.Name] = true
		if spool.Unfinished(e.Name) {
			return nil
		}
		got, err := durable.ReadFile(inbox, e.Name, 1<<20)
		if err != nil {
			return err
		}
		for _, d := range w.may[e.Name] {
			if bytes.Equal(got, d) {
				if m := w.must[e.Name]; m != nil && !bytes.Equal(got, m) {
					return fmt.Errorf("%s holds %q and the client was told that it is %q", e.Name, got, m)
				}
				return nil
			}
		}
		return fmt.Errorf("%s holds %q, which nobody uploaded", e.Name, got)
	})
	for name := range w.must {
		if err == nil && !there[name] {
			err = fmt.Errorf("%s is not there and the client was told that it is", name)
		}
	}
	return err
}

func model(t *testing.T) *modelfs.Volume {
	t.Helper()
	vol := modelfs.New()
	top, err := vol.Root()
	check(t, err)
	acme, err := durable.SubMake(top, "acme", 0o755)
	check(t, err)
	for _, box := range boxes {
		d, err := durable.SubMake(acme, box, 0o770)
		check(t, err)
		check(t, d.Close())
	}
	check(t, errors.Join(acme.Close(), top.Close(), vol.Sync()))
	return vol
}

func TestCrash(t *testing.T) {
	first := model(t)
	before := len(first.Calls())
	whole := life(first)
	if len(whole.must) != 3 {
		t.Fatalf("without a fault the client was told %q", whole.must)
	}
	check(t, whole.judge(first))
	if open := first.OpenHandles(); len(open) > 0 {
		t.Errorf("handles are left open: %s", strings.Join(open, ", "))
	}
	calls := first.Calls()[before:]
	random, states := 6, 0
	if testing.Short() {
		random = 1
	}
	for _, call := range calls {
		for what, fault := range map[string]modelfs.Fault{
			"crash before": modelfs.CrashBefore, "crash within": modelfs.CrashWithin, "crash after": modelfs.CrashAfter,
			"EIO": modelfs.FailNotDone(unix.EIO), "EIO although done": modelfs.FailDone(unix.EIO),
			"ENOSPC": modelfs.FailNotDone(fmt.Errorf("%w (%w)", durable.ErrNoSpace, unix.ENOSPC)),
		} {
			vol := model(t)
			vol.SetFault(func(c modelfs.Call) modelfs.Fault {
				if c.N == call.N {
					return fault
				}
				return modelfs.None
			})
			w := life(vol)
			vol.SetFault(nil)
			for _, c := range vol.Choices(random, uint64(call.N)) {
				states++
				if err := w.judge(vol.Clone().Crash(c)); err != nil {
					t.Fatalf("%s at %v, %v: %v", what, call, c, err)
				}
			}
			vol.Kill()
			if err := w.judge(vol); err != nil {
				t.Fatalf("%s at %v, killed: %v", what, call, err)
			}
		}
	}
	if states < 10*len(calls) {
		t.Errorf("only %d states for %d calls", states, len(calls))
	}
}
