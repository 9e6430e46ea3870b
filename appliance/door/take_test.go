package door

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"signdrop/spool/durable"
)

// TestUntouched: a request that waits and is opened, and not written, stays where the
// appliance finds it.
func TestUntouched(t *testing.T) {
	set := testSettings()
	b := newBed(t, set)
	check(t, put(b.sftp("acme"), "/inbox/pay.json", []byte("accepted")))
	conn, err := b.dial("acme", signerOf("acme"))
	check(t, err)
	c, err := sftp.NewClient(conn)
	check(t, err)
	f, err := c.OpenFile("/inbox/pay.json", os.O_WRONLY)
	check(t, err)
	b.holds("inbox", "pay.json")
	// Refused writes do not take it back either.
	if _, err := f.WriteAt([]byte("x"), set.MaxFile); err == nil {
		t.Error("a file may be larger than MaxFile")
	}
	b.holds("inbox", "pay.json")
	conn.Close()
	await(t, "the file is closed", func() bool { return b.srv.room("acme").handles.Load() == 0 })
	b.holds("inbox", "pay.json")
	// Opened and closed: it is what it was.
	c = b.sftp("acme")
	f, err = c.OpenFile("/inbox/pay.json", os.O_WRONLY)
	check(t, err)
	check(t, f.Close())
	b.holds("inbox", "pay.json")
	b.content([]byte("accepted"), "inbox", "pay.json")
	// The appliance was quicker.
	f, err = c.OpenFile("/inbox/pay.json", os.O_WRONLY)
	check(t, err)
	check(t, os.Remove(b.path("inbox", "pay.json")))
	if _, err := f.WriteAt([]byte("more"), 8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing to what the appliance has taken: %v", err)
	}
	if f.Close() == nil {
		t.Error("closing it was told to be well")
	}
	b.holds("inbox")
	// Another file has come under the name.
	check(t, put(c, "/inbox/pay.json", []byte("accepted")))
	f, err = c.OpenFile("/inbox/pay.json", os.O_WRONLY)
	check(t, err)
	check(t, os.WriteFile(b.path("inbox", ".in.pay"), []byte("another"), 0o640))
	check(t, os.Rename(b.path("inbox", ".in.pay"), b.path("inbox", "pay.json")))
	if _, err := f.WriteAt([]byte("more"), 8); err == nil {
		t.Error("a file that was exchanged was written")
	}
	f.Close()
	b.holds("inbox", "pay.json")
	b.content([]byte("another"), "inbox", "pay.json")
}

// stubborn is an inbox in which nothing can be opened for writing, as with too many
// open files, or written.
type stubborn struct {
	durable.Dir
	open error
}

func (d stubborn) OpenWrite(name string) (durable.File, error) {
	if d.open != nil {
		return nil, d.open
	}
	f, err := d.Dir.OpenWrite(name)
	return full{f}, err
}

func (d stubborn) Move(name string, _ durable.Dir, to string) error {
	return d.Dir.Move(name, d.Dir, to)
}

func (d stubborn) MoveOver(name string, _ durable.Dir, to string) error {
	return d.Dir.MoveOver(name, d.Dir, to)
}

type full struct{ durable.File }

func (full) WriteAt([]byte, int64) (int, error) { return 0, durable.ErrNoSpace }

// TestTakeBackFails: whatever goes wrong, a request that was accepted stays visible.
func TestTakeBackFails(t *testing.T) {
	for _, open := range []error{fs.ErrPermission, nil} {
		t.Run(fmt.Sprint(open), func(t *testing.T) {
			b := newBed(t, testSettings())
			check(t, put(b.sftp("acme"), "/inbox/pay.json", []byte("accepted")))
			top, err := b.srv.vol.Root()
			check(t, err)
			defer top.Close()
			inbox, err := durable.SubPath(top, "acme", boxInbox)
			check(t, err)
			defer inbox.Close()
			sn := &session{srv: b.srv, room: b.srv.room("acme"), company: "acme", log: b.srv.log}
			tr := &tree{sn: sn, dirs: map[string]durable.Dir{boxInbox: stubborn{inbox, open}}}
			u, err := sn.room.begin(tr, "pay.json", openFlags{})
			if open != nil {
				if err == nil {
					t.Error("it was opened")
				}
			} else {
				check(t, err)
				u.released = func() {}
				if _, err := u.WriteAt([]byte("x"), 0); !errors.Is(err, errNoSpace) {
					t.Errorf("a write that failed: %v", err)
				}
				if u.Close() == nil {
					t.Error("closing it was told to be well")
				}
			}
			b.holds("inbox", "pay.json")
			b.content([]byte("accepted"), "inbox", "pay.json")
		})
	}
}

// TestReserveInside: what is written into a hole takes up room too.
func TestReserveInside(t *testing.T) {
	b := newBed(t, testSettings())
	f, err := b.sftp("acme").Create("/inbox/pay.json")
	check(t, err)
	_, err = f.WriteAt([]byte("end"), 1<<20)
	check(t, err)
	b.srv.space.mu.Lock()
	b.srv.space.reserve = 1 << 62
	b.srv.space.mu.Unlock()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the reserve was written to")
	}
	f.Close()
	b.holds("inbox")
}

// TestKilled: what a door that was killed left may have holes, and is not resumed.
func TestKilled(t *testing.T) {
	b := newBed(t, testSettings())
	left := b.path("inbox", ".door-pay.json")
	check(t, os.WriteFile(left, []byte("one half\x00\x00\x00"), written))
	c := b.sftp("acme")
	if _, err := c.Stat("/inbox/pay.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	if list, err := c.ReadDir("/inbox"); err != nil || len(list) != 0 {
		t.Errorf("the inbox lists %v, %v", list, err)
	}
	if _, err := c.OpenFile("/inbox/pay.json", os.O_WRONLY); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is resumed: %v", err)
	}
	// A client that believes that it is there leaves a hole, and is told.
	f, err := c.OpenFile("/inbox/pay.json", os.O_WRONLY|os.O_CREATE)
	check(t, err)
	_, err = f.WriteAt([]byte("the other"), 11)
	check(t, err)
	if f.Close() == nil {
		t.Error("a file with a hole was told to be well")
	}
	b.holds("inbox")
	// While it is written the mode says so, and of what is whole too.
	f, err = c.Create("/inbox/pay.json")
	check(t, err)
	mode := func(name string) fs.FileMode {
		t.Helper()
		info, err := os.Stat(b.path("inbox", name))
		check(t, err)
		return info.Mode().Perm()
	}
	if m := mode(".door-pay.json"); m != written {
		t.Errorf("an upload has the mode %o", m)
	}
	_, err = f.Write([]byte("whole"))
	check(t, err)
	check(t, f.Close())
	if m := mode("pay.json"); m != finished {
		t.Errorf("what waits has the mode %o", m)
	}
	f, err = c.OpenFile("/inbox/pay.json", os.O_WRONLY)
	check(t, err)
	_, err = f.WriteAt([]byte("more"), 100)
	check(t, err)
	if m := mode(".door-pay.json"); m != written {
		t.Errorf("what was taken back has the mode %o", m)
	}
}

// TestSyncOfRemoved: a sync is not told to be well when the upload is gone.
func TestSyncOfRemoved(t *testing.T) {
	b := newBed(t, testSettings())
	one, two := b.sftp("acme"), b.sftp("acme")
	f, err := one.Create("/inbox/pay.json")
	check(t, err)
	_, err = f.Write([]byte("first"))
	check(t, err)
	check(t, f.Sync())
	check(t, two.Remove("/inbox/pay.json"))
	if f.Sync() == nil {
		t.Error("the sync of a file that was removed was told to be well")
	}
	f.Close()
	f, err = one.Create("/inbox/next.json")
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
	b.holds("inbox", "next.json")
}

// TestSweepDisabled: also what a company left that may not log in any more goes.
func TestSweepDisabled(t *testing.T) {
	b := newBed(t, testSettings())
	for _, n := range []string{".door-old.json", "old.json"} {
		check(t, os.WriteFile(b.path("inbox", n), []byte("x"), 0o600))
	}
	b.srv.dropCompany("acme")
	b.srv.sweep(time.Now().Add(b.srv.set.Keep + time.Hour))
	b.holds("inbox", "old.json")
}

// TestFullKeeps: an upload that is refused leaves what an earlier one left.
func TestFullKeeps(t *testing.T) {
	set := testSettings()
	set.MaxBytes = 10
	b := newBed(t, set)
	check(t, os.WriteFile(b.path("inbox", ".door-pay.json"), []byte("one half"), finished))
	check(t, os.WriteFile(b.path("inbox", "other.json"), []byte("waits"), finished))
	if _, err := b.sftp("acme").Create("/inbox/pay.json"); err == nil {
		t.Error("the quota is no limit")
	}
	b.holds("inbox", ".door-pay.json", "other.json")
}
