package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signdrop/spool"
	"signdrop/spool/durable/modelfs"
)

// The crash tests here are of what the appliance's own do not use yet: several
// signatures, a status and a file that is forgotten.

// planted is what lies in the inbox of the crash tests.
var planted = map[string]string{
	"pay.json":           "{pay}",
	"pay.json.sig":       "plain",
	"pay.json.amy.sig":   "amy",
	"pay.json.bob.sig":   "bob",
	"bad.json":           "{bad}",
	"bad.json.amy.sig":   "bad amy",
	"bad.json.bob.sig":   "bad bob",
	"key.json":           secret + " 1",
	"key.json.sig":       "key",
	"my key.pem":         secret + " 2",
	"alone.json.amy.sig": "alone",
	"pay.json.age":       "{twin}",
	"pay.json.age.sig":   "twin",
}

func crashScene() *modelfs.Volume {
	v := modelfs.New()
	v.SetClock(func() int64 { return epoch.UnixNano() })
	for _, d := range []string{"inbox", "outbox", "rejected"} {
		v.MkdirAll("spool/acme/"+d, 0o700)
	}
	for name, data := range planted {
		v.WriteFile(in+name, []byte(data))
	}
	v.Sync()
	return v
}

// life answers all that lies there, as the appliance does: refusals of the first
// life stand in the later ones, since their reasons are found again.
func life(v *modelfs.Volume) (err error) {
	root, err := v.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := v.Sync(); err != nil { // what an earlier life has left unsynced
		return err
	}
	s, err := spool.Open(v, root, spool.Config{
		Now:     func() time.Time { return epoch.Add(24 * time.Hour) },
		Several: func(string) bool { return true },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.SetCompanies([]string{"acme"}); err != nil {
		return err
	}
	items, err := s.Recover()
	for err == nil {
		var group []*spool.Item
		for _, it := range items {
			if err := decide(s, it); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
				continue
			} else if err != nil {
				return err
			}
			group = append(group, it)
		}
		for todo := group; len(todo) > 0; {
			if err := v.Sync(); err != nil {
				return err
			}
			var again []*spool.Item
			for _, it := range todo {
				err := s.Publish(it)
				if errors.Is(err, spool.ErrTaken) {
					s.Unmake(it)
					again = append(again, it)
					err = s.Make(it, true, [][]byte{[]byte("name taken: " + it.Name)})
				}
				if err != nil {
					return err
				}
			}
			todo = again
		}
		if err := v.Sync(); err != nil {
			return err
		}
		for _, it := range group {
			if err := s.Retire(it, "tag"); err != nil {
				return err
			}
		}
		if items, err = s.Next(100); err == nil && len(items) == 0 {
			return nil
		}
	}
	return err
}

func decide(s *spool.Spool, it *spool.Item) error {
	if !it.Claimed {
		if _, err := s.Claim(it); err != nil {
			return err
		}
	}
	if data, err := s.Peek(it, 100); err != nil {
		return err
	} else if bytes.Contains(data, []byte("AKIA")) {
		s.Forget(it)
	}
	if strings.HasPrefix(it.Name, "pay.json") {
		if err := s.Status(it, []byte("status of "+it.Name)); err != nil {
			return err
		}
		if name := it.Name; it.Recovered {
			told, err := s.Reason(it, func(r []byte) bool { return string(r) == "name taken: "+name })
			if err != nil {
				return err
			}
			if told != nil {
				return s.Make(it, true, [][]byte{told})
			}
		}
		return s.Make(it, false, [][]byte{[]byte("answer to " + it.Name)})
	}
	return s.Make(it, true, [][]byte{[]byte("refused: " + it.Name)})
}

// verdicts checks what has to be so once everything is answered.
func verdicts(v *modelfs.Volume) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	where := map[string][]string{}
	read := func(dir string) {
		for _, name := range v.List(dir) {
			data, err := v.ReadFile(dir + "/" + name)
			if err != nil {
				continue // a directory
			}
			where[string(data)] = append(where[string(data)], dir+"/"+name)
		}
	}
	for _, d := range []string{"spool/acme/inbox", "spool/acme/outbox", "spool/acme/rejected", "work/acme", "work/.made"} {
		read(d)
	}
	for _, d := range v.List("archive/acme") {
		for _, p := range v.List("archive/acme/" + d) {
			read("archive/acme/" + d + "/" + p)
		}
	}
	for _, d := range []string{"spool/acme/inbox", "work/acme", "work/.made"} {
		if list := v.List(d); len(list) > 0 {
			fault("%s holds %q", d, list)
		}
	}
	for name, data := range planted {
		if strings.Contains(data, "AKIA") {
			continue
		}
		if n := len(where[data]); n != 1 {
			fault("%s lies in %d places: %q", name, n, where[data])
		} else if strings.Contains(where[data][0], "outbox") {
			fault("%s lies in %q", name, where[data])
		}
	}
	if list := secretsIn(v); len(list) > 0 {
		fault("the secret lies in %q", list)
	}
	for data, at := range where {
		known := strings.HasPrefix(data, "refused: ") || strings.HasPrefix(data, "name taken: ") || strings.HasPrefix(data, "answer to ")
		for _, p := range planted {
			known = known || p == data
		}
		if !known {
			fault("%q holds %q, which is nobody's", at, data)
		}
	}
	answered := len(where["answer to pay.json"]) + len(where["answer to pay.json.age"])
	taken := len(where["name taken: pay.json"]) + len(where["name taken: pay.json.age"])
	if out := v.List("spool/acme/outbox"); answered != 1 || taken != 1 || !slices.Equal(out, []string{"pay.result.json"}) {
		fault("pay: %d answers, %d refusals, outbox %q", answered, taken, out)
	}
	for _, name := range []string{"bad.json", "key.json", "my key.pem", "alone.json.amy.sig"} {
		if n := len(where["refused: "+name]); n != 1 {
			fault("%s: %d reasons", name, n)
		}
	}
	return errors.Join(errs...)
}

func TestCrashAnywhere(t *testing.T) {
	plain := crashScene()
	if err := errors.Join(life(plain), verdicts(plain)); err != nil {
		t.Fatalf("without a fault: %v\n%s", err, plain.Tree())
	}
	if open := plain.OpenHandles(); len(open) > 0 {
		t.Errorf("handles are left open: %q", open)
	}
	calls, states := plain.Calls(), 0
	stride, random := 1, 4
	if testing.Short() {
		stride, random = 13, 1
	}
	faults := map[string]modelfs.Fault{
		"crash before": modelfs.CrashBefore, "crash within": modelfs.CrashWithin, "crash after": modelfs.CrashAfter,
		"fails, not done": modelfs.FailNotDone(syscall.EIO), "fails, done": modelfs.FailDone(syscall.EIO),
	}
	finish := func(v *modelfs.Volume, call modelfs.Call, what string) {
		states++
		seen, _ := v.ReadFile("spool/acme/outbox/pay.result.json")
		before := v.Tree()
		if err := errors.Join(life(v), verdicts(v)); err != nil {
			t.Fatalf("%v, %s: %v\nbefore:\n%s\nafter:\n%s", call, what, err, before, v.Tree())
		}
		if now, _ := v.ReadFile("spool/acme/outbox/pay.result.json"); seen != nil && !bytes.Equal(seen, now) {
			t.Fatalf("%v, %s: the answer was %q and is %q", call, what, seen, now)
		}
	}
	for k := 1; k <= len(calls); k += stride {
		for name, fault := range faults {
			v := crashScene()
			v.SetFault(func(c modelfs.Call) modelfs.Fault {
				if c.N == k {
					return fault
				}
				return modelfs.None
			})
			life(v)
			v.SetFault(nil)
			for _, choice := range v.Choices(random, uint64(k)) {
				finish(v.Crash(choice), calls[k-1], fmt.Sprintf("%s, %v", name, choice))
			}
			v.Kill()
			finish(v, calls[k-1], name+", killed")
		}
	}
	t.Logf("%d calls, %d states recovered", len(calls), states)
}
