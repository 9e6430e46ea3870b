package modelfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"

	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// script runs operations on a volume, as the table below writes them.
type script struct {
	t     *testing.T
	v     *modelfs.Volume
	files map[string]durable.File // as created
}

func newScript(t *testing.T) *script {
	v := modelfs.New()
	v.MkdirAll("a", 0o700)
	v.MkdirAll("b", 0o700)
	v.WriteFile("a/old", []byte("old"))
	return &script{t, v, map[string]durable.File{}}
}

// dir opens the directory of p and returns the last name of p.
func (s *script) dir(p string) (durable.Dir, string) {
	s.t.Helper()
	root, err := s.v.Root()
	if err != nil {
		s.t.Fatal(err)
	}
	if path.Dir(p) == "." {
		return root, path.Base(p)
	}
	d, err := durable.SubPath(root, strings.Split(path.Dir(p), "/")...)
	if err != nil {
		s.t.Fatal(err)
	}
	return d, path.Base(p)
}

// run runs operations that are divided by semicolons. Those that begin with "fail"
// get EIO and are not done.
func (s *script) run(text string) {
	s.t.Helper()
	for op := range strings.SplitSeq(text, ";") {
		words := strings.Fields(op)
		want := error(nil)
		if words[0] == "fail" {
			words, want = words[1:], syscall.EIO
			s.v.SetFault(func(c modelfs.Call) modelfs.Fault {
				if string(c.Op) == words[0] {
					return modelfs.FailNotDone(syscall.EIO)
				}
				return modelfs.None
			})
		}
		if err := s.do(words[0], words[1:]); !errors.Is(err, want) {
			s.t.Fatalf("%s: got error %v, want %v", op, err, want)
		}
		s.v.SetFault(nil)
	}
}

func (s *script) do(verb string, args []string) error {
	s.t.Helper()
	switch verb {
	case "syncfs":
		return s.v.Sync()
	case "fsync":
		return s.files[args[0]].Sync()
	case "write":
		_, err := s.files[args[0]].Write([]byte(args[1]))
		return err
	case "overwrite":
		_, err := s.files[args[0]].WriteAt([]byte(args[1]), 0)
		return err
	case "chown":
		return s.files[args[0]].Chown(7)
	case "link":
		s.v.Link(args[0], args[1])
		return nil
	}
	d, name := s.dir(args[0])
	switch verb {
	case "create":
		f, err := d.Create(name, 0o600)
		if err != nil {
			return err
		}
		s.files[args[0]] = f
		_, err = f.Write([]byte(args[1]))
		return err
	case "fsyncdir":
		if args[0] == "." {
			return d.Sync()
		}
		sub, err := d.Sub(name)
		if err != nil {
			return err
		}
		return sub.Sync()
	case "mkdir":
		return d.Mkdir(name, 0o700)
	case "move":
		to, toName := s.dir(args[1])
		return d.Move(name, to, toName)
	case "replace":
		return d.Replace(name, path.Base(args[1]))
	case "remove":
		return d.Remove(name)
	case "rmdir":
		return d.RemoveDir(name)
	}
	s.t.Fatalf("no such operation: %s", verb)
	return nil
}

// state shows the files of a volume with their content, and the empty directories
// other than a and b, as the table below writes them: "-" is an empty file, "0" a
// zero byte, "?" garbage.
func state(v *modelfs.Volume) string {
	var list []string
	v.Walk(func(p string, info durable.Info) {
		data, err := v.ReadFile(p)
		switch {
		case info.Mode.IsDir():
			if len(p) > 1 && len(v.List(p)) == 0 {
				list = append(list, p+"/")
			}
		case err != nil:
			list = append(list, p+"="+err.Error())
		case len(data) == 0:
			list = append(list, p+"=-")
		default:
			list = append(list, p+"="+strings.NewReplacer("\x00", "0", "\xa5", "?").Replace(string(data)))
		}
	})
	return strings.Join(list, " ")
}

// TestForgets is the model's contract, case by case. Each starts with the empty
// directories a and b and the file a/old, all durable.
func TestForgets(t *testing.T) {
	const everyChoice = "every choice"
	for _, test := range []struct {
		name string
		ops  string
		want map[string]string // by choice
	}{
		{"nothing is synced", "create a/x data", map[string]string{
			"KeepNothing":      "a/old=old",
			"KeepAll":          "a/old=old a/x=data",
			"NamesWithoutData": "a/old=old a/x=-",
			"NamesWithZeros":   "a/old=old a/x=0000",
			"NamesWithGarbage": "a/old=old a/x=????",
			"DataWithoutNames": "a/old=old",
		}},
		{"the data is synced, the name is not", "create a/x data; fsync a/x", map[string]string{
			"KeepNothing":      "a/old=old",
			"NamesWithoutData": "a/old=old a/x=data",
			"DataWithoutNames": "a/old=old",
		}},
		{"the name is synced, the data is not", "create a/x data; fsyncdir a", map[string]string{
			"KeepNothing":      "a/old=old a/x=-",
			"KeepAll":          "a/old=old a/x=data",
			"NamesWithZeros":   "a/old=old a/x=0000",
			"DataWithoutNames": "a/old=old a/x=data",
		}},
		{"data and name are synced", "create a/x data; fsync a/x; fsyncdir a", map[string]string{
			everyChoice: "a/old=old a/x=data",
		}},
		{"everything is synced at once", "create a/x data; mkdir b/d; create b/d/y more; syncfs", map[string]string{
			everyChoice: "a/old=old a/x=data b/d/y=more",
		}},
		{"another directory is synced", "create a/x data; fsync a/x; fsyncdir b; fsyncdir .", map[string]string{
			"KeepNothing": "a/old=old",
		}},
		{"more is written after the sync", "create a/x one; syncfs; write a/x two", map[string]string{
			"KeepNothing":      "a/old=old a/x=one",
			"KeepAll":          "a/old=old a/x=onetwo",
			"NamesWithZeros":   "a/old=old a/x=one000",
			"NamesWithGarbage": "a/old=old a/x=one???",
		}},
		{"the beginning is written anew", "create a/x one+two; syncfs; overwrite a/x ONE", map[string]string{
			"KeepNothing":    "a/old=old a/x=one+two",
			"KeepAll":        "a/old=old a/x=ONE+two",
			"NamesWithZeros": "a/old=old a/x=000+two",
		}},

		{"a move", "move a/old b/new", map[string]string{
			"KeepNothing":      "a/old=old",
			"KeepAll":          "b/new=old",
			"NamesWithoutData": "b/new=old",
		}},
		{"a move, its target synced", "move a/old b/new; fsyncdir b", map[string]string{everyChoice: "b/new=old"}},
		{"a move, its source synced", "move a/old b/new; fsyncdir a", map[string]string{everyChoice: "b/new=old"}},
		{"a move, neither synced", "move a/old b/new; fsyncdir .", map[string]string{"KeepNothing": "a/old=old"}},
		{"moves to and fro", "move a/old b/x; move b/x a/y; move a/y b/z", map[string]string{
			"KeepNothing":   "a/old=old",
			"KeepPrefix(1)": "b/x=old",
			"KeepPrefix(2)": "a/y=old",
			"KeepAll":       "b/z=old",
		}},
		{"a move of a file without its data", "create a/x data; move a/x b/x; fsyncdir b", map[string]string{
			"KeepNothing": "a/old=old b/x=-",
			"KeepAll":     "a/old=old b/x=data",
		}},
		{"a move into a new directory, its source synced", "mkdir b/d; move a/old b/d/x; fsyncdir a", map[string]string{
			everyChoice: "b/d/x=old",
		}},
		{"a directory is moved with its content", "mkdir a/d; create a/d/x data; fsync a/d/x; fsyncdir a/d; fsyncdir a; move a/d b/d", map[string]string{
			"KeepNothing": "a/d/x=data a/old=old",
			"KeepAll":     "a/old=old b/d/x=data",
		}},
		{"a file in a moved directory is synced, the move is not", "mkdir a/d; syncfs; move a/d b/d; create b/d/x data; fsync b/d/x; fsyncdir b/d", map[string]string{
			"KeepNothing": "a/d/x=data a/old=old",
			"KeepAll":     "a/old=old b/d/x=data",
		}},

		{"a replacement", "create a/new new; fsync a/new; replace a/new a/old", map[string]string{
			"KeepNothing":      "a/old=old",
			"KeepPrefix(1)":    "a/new=new a/old=old",
			"NamesWithoutData": "a/old=new",
		}},
		{"a replacement without its data", "create a/new new; replace a/new a/old; fsyncdir a", map[string]string{
			"KeepNothing":    "a/old=-",
			"NamesWithZeros": "a/old=000",
			"KeepAll":        "a/old=new",
		}},

		{"a removal", "remove a/old", map[string]string{"KeepNothing": "a/old=old", "KeepAll": ""}},
		{"a removal, synced", "remove a/old; fsyncdir a", map[string]string{everyChoice: ""}},
		{"a creation and its removal", "create a/x data; remove a/x", map[string]string{
			"KeepNothing":   "a/old=old",
			"KeepPrefix(1)": "a/old=old a/x=-",
			"KeepAll":       "a/old=old",
		}},
		{"a name is removed and made again", "remove a/old; create a/old new; fsync a/old", map[string]string{
			"KeepNothing":      "a/old=old",
			"KeepPrefix(1)":    "",
			"NamesWithoutData": "a/old=new",
		}},
		{"a directory is emptied and removed, the one above synced", "remove a/old; rmdir a; fsyncdir .", map[string]string{everyChoice: ""}},

		{"a new directory is synced, its own name is not", "mkdir a/d; create a/d/x data; fsync a/d/x; fsyncdir a/d", map[string]string{
			"KeepNothing":      "a/old=old",
			"KeepPrefix(1)":    "a/d/x=data a/old=old",
			"NamesWithoutData": "a/d/x=data a/old=old",
		}},
		{"a new directory's name is synced, those in it are not", "mkdir a/d; create a/d/x data; fsync a/d/x; fsyncdir a", map[string]string{
			"KeepNothing": "a/d/ a/old=old",
		}},
		{"a new directory is synced, then its name", "mkdir a/d; create a/d/x data; fsync a/d/x; fsyncdir a/d; fsyncdir a", map[string]string{
			everyChoice: "a/d/x=data a/old=old",
		}},
		{"a file leaves a new directory", "mkdir a/d; create a/d/x data; fsync a/d/x; move a/d/x b/x; fsyncdir b", map[string]string{
			everyChoice: "a/d/ a/old=old b/x=data",
		}},

		{"a sync of the data fails, the next succeeds", "create a/x data; fail fsync a/x; fsync a/x; fsyncdir a; syncfs", map[string]string{
			everyChoice: "a/old=old a/x=-",
		}},
		{"a sync of the data fails, then more is written", "create a/x data; fail fsync a/x; write a/x more; fsync a/x; fsyncdir a", map[string]string{
			everyChoice: "a/old=old a/x=0000more",
		}},
		{"a sync of the data fails after one that did not", "create a/x one; fsync a/x; fsyncdir a; write a/x two; fail fsync a/x; fsync a/x", map[string]string{
			everyChoice: "a/old=old a/x=one",
		}},
		{"a sync of the data fails for one file", "create a/x data; create a/y data; fail fsync a/x; syncfs", map[string]string{
			everyChoice: "a/old=old a/x=- a/y=data",
		}},
		{"a sync of everything fails, the next succeeds", "create a/x data; create b/y data; fail syncfs; syncfs", map[string]string{
			everyChoice: "a/old=old a/x=- b/y=-",
		}},
		{"a sync of everything fails", "create a/x data; fail syncfs", map[string]string{
			"KeepNothing": "a/old=old",
			"KeepAll":     "a/old=old a/x=-",
		}},
		{"a sync of a directory fails", "create a/x data; fsync a/x; fail fsyncdir a", map[string]string{
			"KeepNothing": "a/old=old",
			"KeepAll":     "a/old=old a/x=data",
		}},
		{"a sync of a directory fails, the next succeeds", "create a/x data; fsync a/x; fail fsyncdir a; fsyncdir a", map[string]string{
			everyChoice: "a/old=old a/x=data",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t)
			s.run(test.ops)
			tried := map[string]bool{}
			for _, choice := range append(s.v.Choices(30, 1), modelfs.KeepAll) {
				want, ok := test.want[choice.String()]
				if !ok {
					want, ok = test.want[everyChoice]
				}
				tried[choice.String()] = true
				after := s.v.Crash(choice)
				if got := state(after); ok && got != want {
					t.Errorf("%v: got %q, want %q", choice, got, want)
				}
				if again := after.Crash(modelfs.KeepNothing); again.Tree() != after.Tree() {
					t.Errorf("%v: a second crash changes\n%sto\n%s", choice, after.Tree(), again.Tree())
				}
			}
			for choice := range test.want {
				if choice != everyChoice && !tried[choice] {
					t.Errorf("%s was not tried", choice)
				}
			}
		})
	}
}

// TestRandomReachesAll: KeepRandom comes to every state that is possible, among
// them those that no journal in order would leave.
func TestRandomReachesAll(t *testing.T) {
	for ops, want := range map[string][]string{
		"create a/x 12; fsync a/x; create a/y 34; fsync a/y": {
			"a/old=old", "a/old=old a/x=12", "a/old=old a/y=34", "a/old=old a/x=12 a/y=34",
		},
		"create a/x 12; fsyncdir a": {
			"a/old=old a/x=-", "a/old=old a/x=1", "a/old=old a/x=12", "a/old=old a/x=00", "a/old=old a/x=10",
			"a/old=old a/x=??", "a/old=old a/x=1?",
		},
		"move a/old b/old; create a/x 1; fsync a/x": {"a/old=old", "a/old=old a/x=1", "b/old=old", "a/x=1 b/old=old"},

		// In order, since both count the links of one file.
		"link a/old b/link; remove a/old; remove b/link": {"a/old=old b/link=old", "b/link=old", ""},

		// In order, since the second alone would put a below itself.
		"mkdir a/d; mkdir a/d/c; syncfs; move a/d b/d; move a b/d/c/a": {
			"a/d/c/ a/old=old", "a/old=old b/d/c/", "b/d/c/a/old=old",
		},
	} {
		s := newScript(t)
		s.run(ops)
		seen := map[string]bool{}
		for seed := range uint64(500) {
			seen[state(s.v.Crash(modelfs.KeepRandom(seed)))] = true
		}
		for _, w := range want {
			if !seen[w] {
				t.Errorf("%s: %q never happens", ops, w)
			}
			delete(seen, w)
		}
		if len(seen) > 0 {
			t.Errorf("%s: unexpected %v", ops, seen)
		}
	}
}

// TestChownIsVolatile: the group goes with the data of its file.
func TestChownIsVolatile(t *testing.T) {
	s := newScript(t)
	s.run("create a/x data; syncfs; chown a/x")
	group := func(choice modelfs.Choice, want uint32) {
		t.Helper()
		if info, err := s.v.Clone().Crash(choice).Stat("a/x"); info.GID != want || err != nil {
			t.Errorf("%v: group %d, %v, want %d", choice, info.GID, err, want)
		}
	}
	group(modelfs.KeepNothing, 0)
	group(modelfs.KeepAll, 7)
	s.run("fsync a/x")
	group(modelfs.KeepNothing, 7)
}

// walker makes random operations on a volume of a few directories and names.
type walker struct {
	t    *testing.T
	v    *modelfs.Volume
	root durable.Dir
	r    *rand.Rand
}

// anyDir opens a directory that may be anywhere.
func (w *walker) anyDir() durable.Dir {
	d := w.root
	for w.r.IntN(3) > 0 {
		sub, err := d.Sub(w.anyName())
		if err != nil {
			break
		}
		d = sub
	}
	return d
}

func (w *walker) anyName() string { return string(rune('a' + w.r.IntN(5))) }

// step makes one operation. Many fail, which is part of the test.
func (w *walker) step(mayRemove bool) {
	d, name := w.anyDir(), w.anyName()
	switch w.r.IntN(12) {
	case 0, 1:
		durable.WriteNew(d, name, 0o600, []byte("data of "+name))
	case 2:
		durable.WriteSynced(d, name, 0o600, []byte("synced data of "+name))
	case 3, 4:
		d.Mkdir(name, 0o700)
	case 5, 6, 7:
		d.Move(name, w.anyDir(), w.anyName())
	case 8:
		if mayRemove {
			d.Replace(name, w.anyName())
		}
	case 9:
		if mayRemove {
			d.Remove(name)
		}
	case 10:
		if mayRemove {
			d.RemoveDir(name)
		}
	case 11:
		if w.r.IntN(4) == 0 {
			w.must(w.v.Sync())
		} else {
			w.must(d.Sync())
		}
	}
}

func (w *walker) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// consistent tests what holds of every volume: the link counts and the space.
func consistent(v *modelfs.Volume) error {
	names, links, sizes := map[uint64]uint64{}, map[uint64]uint64{}, map[uint64]int64{}
	v.Walk(func(p string, info durable.Info) {
		names[info.Ino]++
		links[info.Ino] = info.Nlink
		if info.Mode.IsRegular() {
			sizes[info.Ino] = info.Size
		}
	})
	used := int64(0)
	for ino := range names {
		if names[ino] != links[ino] {
			return fmt.Errorf("inode %d has %d names and counts %d links", ino, names[ino], links[ino])
		}
		used += sizes[ino]
	}
	space, err := v.Space()
	if err != nil {
		return err
	}
	if got := int64(space.Total - space.Free); got != used {
		return fmt.Errorf("%d bytes are used, and %d counted", used, got)
	}
	return nil
}

// TestRandomOperations tests on random histories that every crash leaves a whole
// tree, that KeepAll loses nothing, that a clone is like its origin, and that a
// volume that is synced forgets nothing.
func TestRandomOperations(t *testing.T) {
	for seed := range uint64(300) {
		v := modelfs.New()
		root, err := v.Root()
		if err != nil {
			t.Fatal(err)
		}
		w := &walker{t, v, root, rand.New(rand.NewPCG(seed, 1))}
		for range 40 {
			w.step(true)
		}
		if err := consistent(v); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, v.Tree())
		}
		clone, tree := v.Clone(), v.Tree()
		for range 40 { // must not show in the clone
			w.step(true)
		}
		if clone.Tree() != tree {
			t.Fatalf("seed %d: the clone changed from\n%sto\n%s", seed, tree, clone.Tree())
		}
		if got := clone.Clone().Crash(modelfs.KeepAll).Tree(); got != tree {
			t.Fatalf("seed %d: KeepAll makes of\n%sthis:\n%s", seed, tree, got)
		}
		for _, choice := range clone.Choices(20, seed) {
			one, two := clone.Crash(choice), clone.Crash(choice)
			if err := consistent(one); err != nil {
				t.Fatalf("seed %d, %v: %v\n%s", seed, choice, err, one.Tree())
			}
			if one.Tree() != two.Tree() {
				t.Fatalf("seed %d: %v comes to two states", seed, choice)
			}
		}

		if err := v.Sync(); err != nil {
			t.Fatal(err)
		}
		tree = v.Tree()
		named := map[uint64]bool{1: true} // the top
		v.Walk(func(p string, info durable.Info) { named[info.Ino] = true })
		if got := v.Inodes(); got != len(named) {
			t.Fatalf("seed %d: %d inodes in memory, and %d have names", seed, got, len(named))
		}
		if left := v.Unsynced(); len(left) > 0 {
			t.Fatalf("seed %d: unsynced after a sync: %q", seed, left)
		}
		if got := v.Crash(modelfs.KeepNothing).Tree(); got != tree {
			t.Fatalf("seed %d: a crash makes of a synced volume\n%sthis:\n%s", seed, tree, got)
		}
	}
}

// TestMovesLoseNothing moves durable files and directories about: whatever a crash
// keeps of that, each is there once.
func TestMovesLoseNothing(t *testing.T) {
	inodes := func(v *modelfs.Volume) map[uint64]int {
		seen := map[uint64]int{}
		v.Walk(func(p string, info durable.Info) { seen[info.Ino]++ })
		return seen
	}
	for seed := range uint64(300) {
		v := modelfs.New()
		root, err := v.Root()
		if err != nil {
			t.Fatal(err)
		}
		w := &walker{t, v, root, rand.New(rand.NewPCG(seed, 2))}
		for range 30 {
			w.step(true)
		}
		w.must(v.Sync())
		durableOnes := inodes(v)
		for range 40 {
			w.step(false)
		}
		for _, choice := range v.Choices(30, seed) {
			after := v.Crash(choice)
			seen := inodes(after)
			for ino := range durableOnes {
				if seen[ino] != 1 {
					t.Fatalf("seed %d, %v: inode %d is there %d times\n%s", seed, choice, ino, seen[ino], after.Tree())
				}
			}
		}
	}
}

// TestSyncedNamesStay: what a sync of a directory covered is in that directory
// after every crash that leaves the directory.
func TestSyncedNamesStay(t *testing.T) {
	for seed := range uint64(500) {
		v := modelfs.New()
		root, err := v.Root()
		if err != nil {
			t.Fatal(err)
		}
		w := &walker{t, v, root, rand.New(rand.NewPCG(seed, 3))}
		for range 40 {
			w.step(true)
		}
		d := w.anyDir()
		w.must(d.Sync())
		self, err := d.StatDir()
		w.must(err)
		names := map[string]fs.FileMode{}
		w.must(durable.Walk(d, func(e durable.Entry) error { names[e.Name] = e.Type; return nil }))

		for _, choice := range v.Choices(30, seed) {
			after := v.Crash(choice)
			here, there := "", self.Ino == 1
			after.Walk(func(p string, info durable.Info) {
				if info.Ino == self.Ino {
					here, there = p+"/", true
				}
			})
			for name := range names {
				if there && !after.Exists(here+name) {
					t.Fatalf("seed %d, %v: %q is not in the directory that was synced\n%s", seed, choice, name, after.Tree())
				}
			}
		}
	}
}
