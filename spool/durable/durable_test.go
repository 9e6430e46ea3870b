package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
	"signdrop/spool/durable/durabletest"
	"signdrop/spool/durable/modelfs"
)

func TestDiskConforms(t *testing.T) {
	durabletest.Run(t, os.Geteuid() == 0, func(t *testing.T) (durable.FS, durabletest.Planter) {
		disk := openDisk(t)
		return disk, &diskPlanter{t, disk.Path()}
	})
}

func openDisk(t *testing.T) *durable.Disk {
	t.Helper()
	disk, err := durable.OpenDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	return disk
}

// diskPlanter implements durabletest.Planter below a directory.
type diskPlanter struct {
	t   *testing.T
	top string
}

func (p *diskPlanter) in(path string) string { return filepath.Join(p.top, path) }

func (p *diskPlanter) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *diskPlanter) WriteFile(path string, data []byte) {
	p.must(os.WriteFile(p.in(path), data, 0o644))
}

func (p *diskPlanter) Sparse(path string, size int64) {
	p.WriteFile(path, nil)
	p.must(os.Truncate(p.in(path), size))
}

func (p *diskPlanter) MkdirAll(path string, perm fs.FileMode) {
	p.must(os.MkdirAll(p.in(path), perm))
}

func (p *diskPlanter) Symlink(target, path string) { p.must(os.Symlink(target, p.in(path))) }
func (p *diskPlanter) Link(path, newPath string)   { p.must(os.Link(p.in(path), p.in(newPath))) }
func (p *diskPlanter) Rename(path, newPath string) { p.must(os.Rename(p.in(path), p.in(newPath))) }

func (p *diskPlanter) Mknod(path string, kind fs.FileMode) {
	mode, dev := uint32(0o644), 0
	switch kind {
	case fs.ModeNamedPipe:
		mode |= unix.S_IFIFO
	case fs.ModeSocket:
		mode |= unix.S_IFSOCK
	case fs.ModeDevice | fs.ModeCharDevice:
		mode, dev = mode|unix.S_IFCHR, int(unix.Mkdev(1, 3)) // /dev/null
	case fs.ModeDevice:
		mode, dev = mode|unix.S_IFBLK, int(unix.Mkdev(7, 255)) // a loop device that nobody has
	default:
		p.t.Fatalf("no such kind of node: %v", kind)
	}
	p.must(unix.Mknod(p.in(path), mode, dev))
}

func (p *diskPlanter) Chmod(path string, mode fs.FileMode) { p.must(os.Chmod(p.in(path), mode)) }

func (p *diskPlanter) Chown(path string, uid, gid uint32) {
	p.must(os.Chown(p.in(path), int(uid), int(gid)))
}

func TestOpenDiskRefuses(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(top, "missing"): fs.ErrNotExist,
		file:                          syscall.ENOTDIR,
	} {
		if _, err := durable.OpenDisk(path); !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want %v", filepath.Base(path), err, want)
		}
	}
}

// sequence is an operation whose every crash and failure is tried.
type sequence struct {
	name  string
	run   func(root durable.Dir) error
	check func(v *modelfs.Volume, done bool) error // done: run returned nil
	tidy  func(root durable.Dir) error             // what the next start does; nil for nothing
}

var sequences = []sequence{
	{
		name: "ReplaceFile",
		run: func(root durable.Dir) error {
			return durable.ReplaceFile(root, "state", 0o600, []byte("new content"))
		},
		check: func(v *modelfs.Volume, done bool) error {
			got, err := v.ReadFile("state")
			if err != nil {
				return err
			}
			if old := string(got) == "old content"; string(got) != "new content" && (done || !old) {
				return fmt.Errorf("state holds %q", got)
			}
			return nil
		},
	},
	{
		name: "SubMake and a file in it",
		run: func(root durable.Dir) error {
			d, err := durable.SubMake(root, "dir", 0o700)
			if err != nil {
				return err
			}
			defer d.Close()
			if err := d.Remove("file"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := durable.WriteSynced(d, "file", 0o600, []byte("data")); err != nil {
				return err
			}
			return d.Sync()
		},
		check: func(v *modelfs.Volume, done bool) error {
			got, err := v.ReadFile("dir/file")
			if done && (err != nil || string(got) != "data") {
				return fmt.Errorf("dir/file holds %q, %v", got, err)
			}
			return nil
		},
	},
	{
		name: "WriteNew, group commit and Move",
		run: func(root durable.Dir) error {
			work, err := root.Sub("work")
			if err != nil {
				return err
			}
			defer work.Close()
			outbox, err := root.Sub("outbox")
			if err != nil {
				return err
			}
			defer outbox.Close()
			if err := durable.WriteSynced(work, "answer", 0o600, []byte("answer")); err != nil {
				return err
			}
			if err := work.Move("answer", outbox, "answer"); err != nil {
				return err
			}
			return outbox.Sync()
		},
		check: func(v *modelfs.Volume, done bool) error {
			got, err := v.ReadFile("outbox/answer")
			switch {
			case err == nil && string(got) != "answer":
				return fmt.Errorf("the answer in the outbox is %q", got)
			case err != nil && done:
				return err
			case err == nil && v.Exists("work/answer"):
				return errors.New("the answer has two names")
			}
			return nil
		},
		tidy: func(root durable.Dir) error {
			for _, name := range []string{"work", "outbox"} {
				d, err := root.Sub(name)
				if err != nil {
					return err
				}
				defer d.Close()
				if err := d.Remove("answer"); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			return nil
		},
	},
}

// start makes the state that every sequence begins with.
func start() *modelfs.Volume {
	v := modelfs.New()
	v.MkdirAll("work", 0o700)
	v.MkdirAll("outbox", 0o700)
	v.WriteFile("state", []byte("old content"))
	return v
}

// again is what a new process does: it syncs what the last one left, tidies, and
// runs the sequence. The result is then safe from any power cut.
func (s sequence) again(v *modelfs.Volume) error {
	root, err := v.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := v.Sync(); err != nil {
		return err
	}
	if s.tidy != nil {
		if err := s.tidy(root); err != nil {
			return err
		}
	}
	if err := s.run(root); err != nil {
		return err
	}
	return s.check(v.Crash(modelfs.KeepNothing), true)
}

// calls counts the calls of a run without faults.
func (s sequence) calls(t *testing.T) []modelfs.Call {
	t.Helper()
	v := start()
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.run(root); err != nil {
		t.Fatal(err)
	}
	root.Close()
	if open := v.OpenHandles(); len(open) > 0 {
		t.Errorf("%s leaves open: %q", s.name, open)
	}
	if err := s.check(v.Crash(modelfs.KeepNothing), true); err != nil {
		t.Errorf("%s is not durable when it returns: %v", s.name, err)
	}
	return v.Calls()
}

// withFault runs the sequence and lets fault happen at its k-th call.
func (s sequence) withFault(k int, fault modelfs.Fault) (*modelfs.Volume, error) {
	v := start()
	v.SetFault(func(c modelfs.Call) modelfs.Fault {
		if c.N == k {
			return fault
		}
		return modelfs.None
	})
	root, err := v.Root()
	if err != nil {
		return v, err
	}
	defer root.Close()
	return v, s.run(root)
}

// TestCrashAnywhere cuts the power and kills the process at every call.
func TestCrashAnywhere(t *testing.T) {
	for _, s := range sequences {
		t.Run(s.name, func(t *testing.T) {
			for _, call := range s.calls(t) {
				for _, fault := range []modelfs.Fault{modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter} {
					v, err := s.withFault(call.N, fault)
					for _, choice := range v.Choices(50, 1) {
						after := v.Crash(choice)
						if err := s.check(after, err == nil); err != nil {
							t.Errorf("crash at %v, %v: %v\n%s", call, choice, err, after.Tree())
						}
						if err := s.again(after); err != nil {
							t.Errorf("after the crash at %v, %v: %v", call, choice, err)
						}
					}
					v.Kill()
					if err := s.again(v); err != nil {
						t.Errorf("after kill at %v: %v", call, err)
					}
				}
			}
		})
	}
}

// TestFailAnywhere lets every call fail, done and not done. No temporary file may
// be left, unless the call that failed would have removed it or made it.
func TestFailAnywhere(t *testing.T) {
	for _, s := range sequences {
		t.Run(s.name, func(t *testing.T) {
			for _, call := range s.calls(t) {
				for _, fault := range []modelfs.Fault{modelfs.FailNotDone(syscall.EIO), modelfs.FailDone(syscall.EIO)} {
					v, err := s.withFault(call.N, fault)
					if err != nil && !errors.Is(err, syscall.EIO) {
						t.Errorf("%v fails: got error %v, want EIO", call, err)
					}
					if cerr := s.check(v, err == nil); cerr != nil {
						t.Errorf("%v fails: %v\n%s", call, cerr, v.Tree())
					}
					created := call.Op == modelfs.OpCreate && v.Exists(call.Path)
					if v.Exists(".state.new") && !created {
						t.Errorf("%v fails: the temporary file is left\n%s", call, v.Tree())
					}
					if open := v.OpenHandles(); len(open) > 0 {
						t.Errorf("%v fails: left open: %q", call, open)
					}
					for _, choice := range v.Choices(20, 1) {
						after := v.Crash(choice)
						if err := s.check(after, err == nil); err != nil {
							t.Errorf("%v fails, then %v: %v\n%s", call, choice, err, after.Tree())
						}
					}
				}
			}
		})
	}
}

// TestFullDisk gives the writers one byte less than they need, and every amount
// below that.
func TestFullDisk(t *testing.T) {
	data := []byte(strings.Repeat("x", 40))
	for name, write := range map[string]func(d durable.Dir) error{
		"WriteNew":    func(d durable.Dir) error { return durable.WriteNew(d, "new", 0o600, data) },
		"WriteSynced": func(d durable.Dir) error { return durable.WriteSynced(d, "new", 0o600, data) },
		"ReplaceFile": func(d durable.Dir) error { return durable.ReplaceFile(d, "state", 0o600, data) },
	} {
		for free := range int64(len(data)) {
			v := start()
			before := v.Tree()
			v.SetFree(free)
			root, err := v.Root()
			if err != nil {
				t.Fatal(err)
			}
			if err := write(root); !errors.Is(err, durable.ErrNoSpace) {
				t.Errorf("%s with %d bytes free: got error %v, want ErrNoSpace", name, free, err)
			}
			if after := v.Tree(); after != before {
				t.Errorf("%s with %d bytes free leaves:\n%s", name, free, after)
			}
		}
	}
}

// TestSmallVolume is TestFullDisk on a real file system, and shows that room is
// given back.
func TestSmallVolume(t *testing.T) {
	onMount(t, "size=256k", func(disk *durable.Disk) error {
		root, err := disk.Root()
		if err != nil {
			return err
		}
		defer root.Close()
		big := make([]byte, 1<<20)
		for name, err := range map[string]error{
			"WriteNew":    durable.WriteNew(root, "new", 0o600, big),
			"WriteSynced": durable.WriteSynced(root, "new", 0o600, big),
			"ReplaceFile": durable.ReplaceFile(root, "state", 0o600, big),
		} {
			if !errors.Is(err, durable.ErrNoSpace) {
				return fmt.Errorf("%s: got error %v, want ErrNoSpace", name, err)
			}
		}
		if names := listDir(disk.Path()); len(names) > 0 {
			return fmt.Errorf("left behind: %q", names)
		}
		space, err := disk.Space()
		if err != nil || space.Total != 256<<10 || space.Free != space.Total {
			return fmt.Errorf("space: got %+v, %v", space, err)
		}
		return nil
	})
}

func listDir(path string) []string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return []string{err.Error()}
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return slices.Sorted(slices.Values(names))
}
