package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"signdrop/spool"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

const secret = "-----BEGIN PRIVATE KEY-----\nAKIA"

// secretsIn lists the files that hold the secret.
func secretsIn(v *modelfs.Volume) (list []string) {
	v.Walk(func(path string, info durable.Info) {
		if info.Mode.IsRegular() && info.Size < 1<<20 {
			if data, err := v.ReadFile(path); err == nil && bytes.Contains(data, []byte("AKIA")) {
				list = append(list, path)
			}
		}
	})
	return list
}

func TestPeek(t *testing.T) {
	long := strings.Repeat("n", 250)
	cases := []struct {
		name  string
		plant func(b *bench)
		want  string
	}{
		{"unsigned", func(b *bench) { b.put(in+"a.json", secret) }, secret[:20]},
		{"short", func(b *bench) { b.put(in+"a.json", "short") }, "short"},
		{"empty", func(b *bench) { b.put(in+"a.json", "") }, ""},
		{"wrong name", func(b *bench) { b.put(in+"key.pem", secret) }, secret[:20]},
		{"long name", func(b *bench) { b.put(in+long, secret) }, secret[:20]},
		{"too large", func(b *bench) { b.vol.Sparse(in+"a.json", 1<<40); b.put(in+"a.json.sig", "s") }, strings.Repeat("\x00", 20)},
		{"signature alone", func(b *bench) { b.put(in+"a.json.sig", secret) }, secret[:20]},
		{"two names", func(b *bench) { b.put("x", secret); b.vol.Link("x", in+"a.json") }, secret[:20]},
		{"link", func(b *bench) { b.put("x", secret); b.vol.Symlink("/x", in+"a.json") }, ""},
		{"directory", func(b *bench) { b.vol.MkdirAll(in+"a.json", 0o700) }, ""},
		{"FIFO", func(b *bench) { b.vol.Mknod(in+"a.json", fs.ModeNamedPipe) }, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			c.plant(b)
			b.now = b.now.Add(time.Hour)
			it := b.one()
			for _, where := range []string{"waiting", "claimed"} {
				got, err := b.s.Peek(it, 20)
				if err != nil || string(got) != c.want {
					t.Errorf("%s: got %q, %v, want %q", where, got, err, c.want)
				}
				if !it.Claimed {
					_, err := b.s.Claim(it)
					b.ok(err)
				}
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		b := newBench(t, "acme")
		b.put(in+"key.pem", secret)
		b.now = b.now.Add(time.Hour)
		it := b.one()
		b.vol.Remove(in + "key.pem")
		if got, err := b.s.Peek(it, 20); got != nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	for _, refuses := range []error{fs.ErrPermission, durable.ErrNotRegular} {
		b := newBench(t, "acme")
		b.put(in+"key.pem", secret)
		b.now = b.now.Add(time.Hour)
		it := b.one()
		b.vol.SetFault(func(c modelfs.Call) modelfs.Fault {
			if c.Op == modelfs.OpOpen {
				return modelfs.FailNotDone(refuses)
			}
			return modelfs.None
		})
		if got, err := b.s.Peek(it, 20); got != nil || err != nil {
			t.Errorf("%v: got %q, %v", refuses, got, err)
		}
	}
}

func TestForget(t *testing.T) {
	cases := []struct {
		name, file string
		sig        bool
	}{
		{"unsigned", "a.json", false}, {"signed", "a.json", true}, {"wrong name", "my key.pem", false},
		{"long name", strings.Repeat("n", 255), false}, {"signature alone", "a.json.sig", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, "acme")
			b.put(in+c.file, secret)
			if c.sig {
				b.put(in+c.file+".sig", "sig")
			}
			b.now = b.now.Add(time.Hour)
			it := b.one()
			_, err := b.s.Claim(it)
			b.ok(err)
			b.s.Forget(it)
			var wrote []string
			b.vol.SetFault(func(c modelfs.Call) modelfs.Fault {
				switch c.Op {
				case modelfs.OpWrite, modelfs.OpSync, modelfs.OpTruncate, modelfs.OpRemove, modelfs.OpSyncDir:
					if !strings.HasPrefix(c.Path, "work/.made") {
						wrote = append(wrote, string(c.Op))
					}
				}
				return modelfs.None
			})
			b.finish(it, true, "secret in the clear")
			b.want("steps", wrote, "fsyncdir", "write", "fsync", "truncate", "remove")
			if found := secretsIn(b.vol); len(found) > 0 {
				t.Errorf("the secret lies in %q", found)
			}
			b.want("work", b.vol.List("work/acme"))
			b.want("warnings", b.warned)
			list := b.vol.List("spool/acme/rejected")
			want := 1
			if c.sig {
				want = 2
				b.holds("spool/acme/rejected/a.json.sig", "sig")
			}
			if len(list) != want {
				t.Errorf("rejected/ holds %q", list)
			}
		})
	}
}

// TestForgetSpares: what would destroy more than the file itself is not done.
func TestForgetSpares(t *testing.T) {
	forget := func(b *bench) {
		b.Helper()
		b.now = b.now.Add(time.Hour)
		it := b.one()
		_, err := b.s.Claim(it)
		b.ok(err)
		b.s.Forget(it)
		b.finish(it, true, "refused")
		b.want("work", b.vol.List("work/acme"))
	}
	t.Run("a file with another name", func(t *testing.T) {
		b := newBench(t, "acme")
		b.put("elsewhere", "somebody else's")
		b.vol.Link("elsewhere", in+"a.json")
		forget(b)
		b.holds("elsewhere", "somebody else's")
		b.lacks("spool/acme/rejected/a.json")
		if len(b.warned) != 1 {
			t.Errorf("warned of %q", b.warned)
		}
	})
	t.Run("a link", func(t *testing.T) {
		b := newBench(t, "acme")
		b.put("elsewhere", "somebody else's")
		b.vol.Symlink("/elsewhere", in+"a.json")
		forget(b)
		b.holds("elsewhere", "somebody else's")
		if !b.vol.Exists("spool/acme/rejected/a.json") {
			t.Error("the link is not kept")
		}
	})
	t.Run("a sparse terabyte", func(t *testing.T) {
		b := newBench(t, "acme")
		b.vol.Sparse(in+"a.json", 1<<40)
		b.vol.SetFree(1 << 20)
		forget(b)
		b.lacks("spool/acme/rejected/a.json")
		if len(b.warned) != 1 {
			t.Errorf("warned of %q", b.warned)
		}
	})
	t.Run("what cannot be written", func(t *testing.T) {
		b := newBench(t, "acme")
		b.put(in+"a.json", secret)
		b.vol.SetFault(func(c modelfs.Call) modelfs.Fault {
			if c.Op == modelfs.OpOpen && strings.Contains(c.Path, ".forget-") {
				return modelfs.FailNotDone(fs.ErrPermission)
			}
			return modelfs.None
		})
		forget(b)
		if found := secretsIn(b.vol); len(found) > 0 {
			t.Errorf("the secret lies in %q", found)
		}
		if len(b.warned) != 1 {
			t.Errorf("warned of %q", b.warned)
		}
	})
	t.Run("two names in the inbox", func(t *testing.T) {
		b := newBench(t, "acme")
		b.put(in+"a.json", secret)
		b.vol.Link(in+"a.json", in+"b.json")
		b.now = b.now.Add(time.Hour)
		_, items := b.next()
		for _, it := range items {
			_, err := b.s.Claim(it)
			b.ok(err)
			b.s.Forget(it)
			b.finish(it, true, fmt.Sprint("refused ", it.Name))
		}
		if found := secretsIn(b.vol); len(found) > 0 || len(items) != 2 {
			t.Errorf("%d items, the secret lies in %q", len(items), found)
		}
	})
}

// TestForgetInBetween: a second look at a file that was to be forgotten, and was put
// back instead, keeps nothing of the mark.
func TestForgetInBetween(t *testing.T) {
	b := newBench(t, "acme")
	b.put(in+"a.json", secret)
	b.now = b.now.Add(time.Hour)
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	b.s.Forget(it)
	b.ok(b.s.Unclaim(it))
	b.now = b.now.Add(time.Hour)
	it = b.one()
	_, err = b.s.Claim(it)
	b.ok(err)
	b.finish(it, true, "refused")
	b.holds("spool/acme/rejected/a.json", secret)
}

// TestForgetOnDisk: who has the file open, as its partner may, sees that its bytes
// were overwritten in place, and the file has no name any more.
func TestForgetOnDisk(t *testing.T) {
	vol, dir := disk(t, []string{"acme"})
	path := filepath.Join(dir, "spool", "acme", "inbox", "key.pem")
	if err := os.WriteFile(path, []byte(strings.Repeat(secret, 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	root, err := vol.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s, err := spool.Open(vol, root, spool.Config{
		Now:  func() time.Time { return time.Now().Add(time.Hour) },
		Warn: func(_, what string, err error) { t.Errorf("%s: %v", what, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetCompanies([]string{"acme"}); err != nil {
		t.Fatal(err)
	}
	items, err := s.Next(1)
	if err != nil || len(items) != 1 {
		t.Fatalf("%d items, %v", len(items), err)
	}
	it := items[0]
	_, err = s.Claim(it)
	if err == nil {
		s.Forget(it)
		err = s.Make(it, true, [][]byte{[]byte("reason")})
	}
	if err == nil {
		err = s.Publish(it)
	}
	if err == nil {
		err = s.Retire(it, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	info, err := held.Stat()
	if err != nil || info.Size() != 0 || info.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Errorf("it has %d bytes, %+v, %v", info.Size(), info.Sys(), err)
	}
	for _, d := range []string{"spool/acme/inbox", "work/acme", "work/.made"} {
		if list, err := os.ReadDir(filepath.Join(dir, d)); err != nil || len(list) > 0 {
			t.Errorf("%s holds %v, %v", d, list, err)
		}
	}
}
