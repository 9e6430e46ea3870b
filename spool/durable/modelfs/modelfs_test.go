package modelfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

func open(t testing.TB, v *modelfs.Volume) durable.Dir {
	t.Helper()
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// at lets fault happen to the first call of the kind op.
func at(op modelfs.Op, fault modelfs.Fault) func(modelfs.Call) modelfs.Fault {
	done := false
	return func(c modelfs.Call) modelfs.Fault {
		if c.Op != op || done {
			return modelfs.None
		}
		done = true
		return fault
	}
}

func TestFaults(t *testing.T) {
	write := func(root durable.Dir) error { return durable.WriteNew(root, "x", 0o600, []byte("data")) }
	for _, test := range []struct {
		name  string
		fault modelfs.Fault
		op    modelfs.Op
		want  error
		state string // while the volume is as the fault left it
	}{
		{"no fault", modelfs.None, modelfs.OpWrite, nil, "x=data"},
		{"create fails", modelfs.FailNotDone(syscall.EIO), modelfs.OpCreate, syscall.EIO, ""},
		{"create fails and is done", modelfs.FailDone(syscall.EIO), modelfs.OpCreate, syscall.EIO, "x=-"},
		{"write fails", modelfs.FailNotDone(durable.ErrNoSpace), modelfs.OpWrite, durable.ErrNoSpace, ""},
		{"close fails", modelfs.FailNotDone(syscall.EIO), modelfs.OpClose, syscall.EIO, ""},
		{"crash before create", modelfs.CrashBefore, modelfs.OpCreate, modelfs.ErrCrashed, ""},
		{"crash after create", modelfs.CrashAfter, modelfs.OpCreate, modelfs.ErrCrashed, "x=-"},
		{"crash before write", modelfs.CrashBefore, modelfs.OpWrite, modelfs.ErrCrashed, "x=-"},
		{"crash within write", modelfs.CrashWithin, modelfs.OpWrite, modelfs.ErrCrashed, "x=da"},
		{"crash within create", modelfs.CrashWithin, modelfs.OpCreate, modelfs.ErrCrashed, ""},
		{"crash after write", modelfs.CrashAfter, modelfs.OpWrite, modelfs.ErrCrashed, "x=data"},
	} {
		v := modelfs.New()
		root := open(t, v)
		v.SetFault(at(test.op, test.fault))
		if err := write(root); !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v, want %v", test.name, err, test.want)
		}
		if got := state(v); got != test.state {
			t.Errorf("%s: got state %q, want %q", test.name, got, test.state)
		}
		if handles := v.OpenHandles(); test.want != modelfs.ErrCrashed && !slices.Equal(handles, []string{""}) {
			t.Errorf("%s: open handles: %q", test.name, handles)
		}
	}
}

func TestCalls(t *testing.T) {
	v := modelfs.New()
	root := open(t, v)
	root.Mkdir("d", 0o700)
	d, err := root.Sub("d")
	if err != nil {
		t.Fatal(err)
	}
	durable.WriteSynced(d, "x", 0o600, []byte("data"))
	d.Move("x", root, "y")
	d.Open("../y")  // refused before it would be a call
	d.Open("gone")  // fails
	root.Remove("") // refused
	v.Sync()

	var got []string
	for _, c := range v.Calls() {
		got = append(got, c.String())
	}
	want := []string{
		`1 root ""`, `2 mkdir "d"`, `3 opendir "d"`,
		`4 create "d/x"`, `5 write "d/x"`, `6 fsync "d/x"`, `7 close "d/x"`,
		`8 move "d/x to y"`, `9 open "d/gone"`, `10 syncfs ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// everyCall makes each call that needs a handle.
func everyCall(root durable.Dir, f durable.File, es durable.Entries) map[string]error {
	errs := map[string]error{}
	buf := make([]byte, 1)
	_, errs["open"] = root.Open("x")
	_, errs["create"] = root.Create("y", 0o600)
	errs["mkdir"] = root.Mkdir("y", 0o700)
	_, errs["sub"] = root.Sub("d")
	_, errs["stat"] = root.Stat("x")
	_, errs["stat dir"] = root.StatDir()
	errs["move"] = root.Move("x", root, "y")
	errs["replace"] = root.Replace("x", "y")
	errs["remove"] = root.Remove("x")
	errs["rmdir"] = root.RemoveDir("d")
	_, errs["entries"] = root.Entries()
	_, errs["next"] = es.Next(1)
	errs["sync dir"] = root.Sync()
	_, errs["read"] = f.Read(buf)
	_, errs["read at"] = f.ReadAt(buf, 0)
	_, errs["write"] = f.Write(buf)
	_, errs["write at"] = f.WriteAt(buf, 0)
	_, errs["fstat"] = f.Stat()
	errs["sync"] = f.Sync()
	errs["chown"] = f.Chown(1)
	for name, h := range map[string]interface{ Close() error }{"close file": f, "close entries": es, "close dir": root} {
		errs[name] = h.Close()
	}
	return errs
}

// TestDeadHandles: after a crash every call fails and changes nothing, and after
// Kill every call on a handle of the dead process.
func TestDeadHandles(t *testing.T) {
	prepare := func() (*modelfs.Volume, durable.Dir, durable.File, durable.Entries) {
		v := modelfs.New()
		v.MkdirAll("d", 0o700)
		root := open(t, v)
		f, err := root.Create("x", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		es, err := root.Entries()
		if err != nil {
			t.Fatal(err)
		}
		return v, root, f, es
	}
	check := func(how string, v *modelfs.Volume, before string, calls int, errs map[string]error) {
		for call, err := range errs {
			if !errors.Is(err, modelfs.ErrCrashed) {
				t.Errorf("after %s, %s: got error %v, want ErrCrashed", how, call, err)
			}
		}
		if got := v.Tree(); got != before {
			t.Errorf("after %s, dead calls changed\n%sto\n%s", how, before, got)
		}
		if len(v.Calls()) != calls {
			t.Errorf("after %s, dead calls are counted", how)
		}
	}

	v, root, f, es := prepare()
	before, calls := v.Tree(), len(v.Calls())
	after := v.Crash(modelfs.KeepAll)
	check("a crash", v, before, calls, everyCall(root, f, es))
	_, rootErr := v.Root()
	_, spaceErr := v.Space()
	check("a crash", v, before, calls, map[string]error{"root": rootErr, "syncfs": v.Sync(), "space": spaceErr})
	if got := after.Tree(); got != before {
		t.Errorf("the new volume: got\n%swant\n%s", got, before)
	}

	v, root, f, es = prepare()
	before = v.Tree()
	v.SetFault(at(modelfs.OpSyncAll, modelfs.CrashBefore))
	if err := v.Sync(); !errors.Is(err, modelfs.ErrCrashed) {
		t.Errorf("the call of the crash: got error %v", err)
	}
	calls = len(v.Calls())
	check("a crash by a fault", v, before, calls, everyCall(root, f, es))

	v.Kill()
	check("kill", v, before, calls, everyCall(root, f, es))
	if left := v.OpenHandles(); len(left) > 0 {
		t.Errorf("open handles after kill: %q", left)
	}
	root = open(t, v)
	if err := root.Remove("x"); err != nil {
		t.Errorf("a new process: %v", err)
	}
	// What the dead process wrote is still unsynced.
	if got := v.Crash(modelfs.KeepNothing); got.Exists("x") {
		t.Error("kill made a name durable")
	}
}

func TestFree(t *testing.T) {
	v := modelfs.New()
	v.WriteFile("old", []byte("12345"))
	root := open(t, v)
	v.SetFree(3)
	f, err := root.Create("x", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write([]byte("abcd")); n != 3 || !errors.Is(err, durable.ErrNoSpace) {
		t.Errorf("a write that does not fit: got %d, %v", n, err)
	}
	if n, err := f.Write([]byte("d")); n != 0 || !errors.Is(err, durable.ErrNoSpace) {
		t.Errorf("a write on a full disk: got %d, %v", n, err)
	}
	if n, err := f.WriteAt([]byte("d"), 10); n != 0 || !errors.Is(err, durable.ErrNoSpace) {
		t.Errorf("a write past the end on a full disk: got %d, %v", n, err)
	}
	if n, err := f.WriteAt([]byte("ABC"), 0); n != 3 || err != nil {
		t.Errorf("overwriting on a full disk: got %d, %v", n, err)
	}
	if _, err := root.Create("y", 0o600); !errors.Is(err, durable.ErrNoSpace) {
		t.Errorf("creating on a full disk: got %v", err)
	}
	if err := root.Mkdir("y", 0o700); !errors.Is(err, durable.ErrNoSpace) {
		t.Errorf("mkdir on a full disk: got %v", err)
	}
	if err := root.Move("x", root, "z"); err != nil {
		t.Errorf("moving on a full disk: %v", err)
	}
	if err := root.Remove("old"); err != nil {
		t.Errorf("removing on a full disk: %v", err)
	}
	if s, err := v.Space(); err != nil || s.Free != 5 || s.Total != 8 {
		t.Errorf("space: got %+v, %v", s, err)
	}
	if n, err := f.Write([]byte("defg")); n != 4 || err != nil {
		t.Errorf("a write after the removal: got %d, %v", n, err)
	}
	// The removal is not durable, so the crash takes its room back.
	if s, err := v.Clone().Crash(modelfs.KeepNothing).Space(); err != nil || s.Free != 3 {
		t.Errorf("space after a crash: got %+v, %v", s, err)
	}
	v.SetFree(-1)
	if err := durable.WriteNew(root, "big", 0o600, make([]byte, 1000)); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestClock(t *testing.T) {
	v := modelfs.New()
	root := open(t, v)
	durable.WriteNew(root, "x", 0o600, nil)
	first, _ := root.Stat("x")
	durable.WriteNew(root, "y", 0o600, nil)
	second, _ := root.Stat("y")
	if first.MTime >= second.MTime || first.CTime >= second.CTime {
		t.Errorf("times do not advance: %+v, %+v", first, second)
	}
	now := time.Unix(1e9, 0)
	v.SetClock(func() int64 { return now.UnixNano() })
	durable.WriteNew(root, "z", 0o600, []byte("data"))
	if info, _ := root.Stat("z"); info.MTime != 1e18 || info.CTime != 1e18 {
		t.Errorf("times by the clock: %+v", info)
	}
}

// TestPlanting shows what the other process plants, and that it stays.
func TestPlanting(t *testing.T) {
	v := modelfs.New()
	v.MkdirAll("a/b", 0o750)
	v.WriteFile("a/file", []byte("first content"))
	v.WriteFile("a/file", []byte("data"))
	v.WriteFile("a/long", []byte(strings.Repeat("x", 100)))
	v.Link("a/file", "a/b/link")
	v.Symlink("../file", "a/b/symlink")
	v.Mkfifo("fifo")
	v.Mknod("socket", fs.ModeSocket)
	v.Sparse("huge", 1<<40)
	v.WriteFile("gone", nil)
	v.MkdirAll("tree/x/y", 0o700)
	v.Remove("gone")
	v.Remove("tree")
	v.WriteFile("from", []byte("new"))
	v.WriteFile("to", []byte("old"))
	v.Rename("from", "to")
	v.Chmod("to", 0o600)
	v.Chown("to", 1, 2)

	want := strings.Join([]string{
		`drwxr-x--- 0:0 "a"`,
		`drwxr-x--- 0:0 "a/b"`,
		`-rw-r--r-- 0:0 "a/b/link" "data"`,
		`Lrwxrwxrwx 0:0 "a/b/symlink" -> "../file"`,
		`-rw-r--r-- 0:0 "a/file" "data"`,
		fmt.Sprintf(`-rw-r--r-- 0:0 "a/long" 100 bytes, crc 5e0e5d8f, "%s"…`, strings.Repeat("x", 60)),
		`prw-r--r-- 0:0 "fifo"`,
		`-rw-r--r-- 0:0 "huge" 1099511627776 bytes, crc 00000000, ""…`,
		`Srw-r--r-- 0:0 "socket"`,
		`-rw------- 1:2 "to" "new"`,
	}, "\n") + "\n"
	for _, v := range []*modelfs.Volume{v, v.Crash(modelfs.KeepNothing)} {
		if got := v.Tree(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	if got := v.List("a"); !slices.Equal(got, []string{"b", "file", "long"}) {
		t.Errorf("list: got %q", got)
	}
	if len(v.Calls()) > 0 {
		t.Errorf("planting is counted: %v", v.Calls())
	}
}

// TestPlantUnsynced plants as an uploader does that does not sync.
func TestPlantUnsynced(t *testing.T) {
	v := modelfs.New()
	v.WriteFile("old", []byte("old content"))
	v.WriteUnsynced("old", []byte("new"))
	v.WriteUnsynced("x", []byte("data"))
	for _, test := range []struct {
		choice modelfs.Choice
		want   string
	}{
		{modelfs.KeepNothing, "old=old content"},
		{modelfs.KeepAll, "old=new x=data"},
		{modelfs.NamesWithoutData, "old=old content x=-"},
		{modelfs.NamesWithZeros, "old=000 x=0000"},
	} {
		if got := state(v.Crash(test.choice)); got != test.want {
			t.Errorf("%v: got %q, want %q", test.choice, got, test.want)
		}
	}
	if got, want := v.Unsynced(), []string{"plant x", "data of old", "data of x"}; !slices.Equal(got, want) {
		t.Errorf("unsynced: got %q, want %q", got, want)
	}
}

// TestPlantBelowPending: what is planted is durable, and so is what it needs.
func TestPlantBelowPending(t *testing.T) {
	v := modelfs.New()
	root := open(t, v)
	if err := root.Mkdir("inbox", 0o700); err != nil {
		t.Fatal(err)
	}
	v.WriteFile("inbox/x", []byte("data"))
	if got := state(v.Crash(modelfs.KeepNothing)); got != "inbox/x=data" {
		t.Errorf("got %q", got)
	}
}

// TestHookPlants: another process acts between two calls of ours.
func TestHookPlants(t *testing.T) {
	v := modelfs.New()
	v.WriteFile("x", []byte("data"))
	root := open(t, v)
	v.SetFault(func(c modelfs.Call) modelfs.Fault {
		if c.Op == modelfs.OpOpen {
			v.Remove("x")
			v.Symlink("elsewhere", "x")
		}
		return modelfs.None
	})
	if info, err := root.Stat("x"); !info.Mode.IsRegular() || err != nil {
		t.Errorf("stat: got %v, %v", info.Mode, err)
	}
	if _, err := root.Open("x"); !errors.Is(err, durable.ErrNotRegular) {
		t.Errorf("open: got %v", err)
	}
}

// group does what a group commit does for 64 requests, about 700 calls.
func group(t testing.TB, v *modelfs.Volume, n int) {
	root := open(t, v)
	defer root.Close()
	dirs := map[string]durable.Dir{}
	for _, name := range []string{"inbox", "work", "outbox"} {
		d, err := root.Sub(name)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		dirs[name] = d
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 64 {
		name := fmt.Sprintf("%d-%d", n, i)
		must(durable.WriteNew(dirs["inbox"], name, 0o600, make([]byte, 1000)))
		must(dirs["inbox"].Move(name, dirs["work"], name))
		_, err := durable.ReadFile(dirs["work"], name, 1<<20)
		must(err)
		must(durable.WriteNew(dirs["work"], name+".result", 0o600, make([]byte, 1000)))
	}
	must(v.Sync())
	for i := range 64 {
		name := fmt.Sprintf("%d-%d", n, i)
		must(dirs["work"].Move(name+".result", dirs["outbox"], name))
	}
	must(dirs["outbox"].Sync())
}

// BenchmarkRun makes about 2,000 calls on a fresh clone of a prepared volume, as a
// crash test does for every call at which it crashes, and then crashes.
func BenchmarkRun(b *testing.B) {
	prepared := modelfs.New()
	for _, d := range []string{"inbox", "work", "outbox"} {
		prepared.MkdirAll(d, 0o700)
	}
	calls := 0
	for b.Loop() {
		v := prepared.Clone()
		for n := range 3 {
			group(b, v, n)
		}
		calls = len(v.Calls())
		v.Crash(modelfs.KeepRandom(1))
	}
	b.ReportMetric(float64(calls), "calls")
}

// BenchmarkUnsynced makes 2,000 creations and moves and syncs nothing, which is
// the worst for the records.
func BenchmarkUnsynced(b *testing.B) {
	for b.Loop() {
		v := modelfs.New()
		root := open(b, v)
		root.Mkdir("d", 0o700)
		d, err := root.Sub("d")
		if err != nil {
			b.Fatal(err)
		}
		for i := range 660 {
			name := fmt.Sprint(i)
			f, err := root.Create(name, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
			root.Move(name, d, name)
		}
		v.Crash(modelfs.KeepRandom(1))
	}
}
