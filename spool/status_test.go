package spool_test

import (
	"errors"
	"fmt"
	"testing"

	"signdrop/spool"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

func (b *bench) claimed(name string) *spool.Item {
	b.Helper()
	b.put(in+name, "bytes")
	b.put(in+name+".sig", "sig")
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	return it
}

func TestStatus(t *testing.T) {
	const status = "spool/acme/outbox/x.status.json"
	for _, name := range []string{"x.json", "x.jsonl", "x.json.age", "x.jsonl.age"} {
		for _, refused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, refused %t", name, refused), func(t *testing.T) {
				b := newBench(t, "acme")
				it := b.claimed(name)
				b.ok(b.s.Status(it, []byte("one")))
				b.holds(status, "one")
				before, _ := b.vol.Stat(status)
				b.ok(b.s.Status(it, []byte("one")))
				if after, _ := b.vol.Stat(status); after != before {
					t.Error("the same status was written again")
				}
				b.ok(b.s.Status(it, []byte("two, longer")))
				b.holds(status, "two, longer")
				b.want("made", b.vol.List("work/.made"))
				b.finish(it, refused, "product")
				b.lacks(status)
				b.want("made", b.vol.List("work/.made"))
				if !refused {
					b.want("outbox", b.vol.List("spool/acme/outbox"), spool.AnswerName(name))
				}
			})
		}
	}
}

// TestStatusKeeps: what is not a regular file is neither replaced nor removed.
func TestStatusKeeps(t *testing.T) {
	const status = "spool/acme/outbox/x.status.json"
	for name, plant := range map[string]func(b *bench){
		"directory": func(b *bench) { b.vol.MkdirAll(status, 0o700) },
		"link":      func(b *bench) { b.put("target", "target"); b.vol.Symlink("/target", status) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "acme")
			plant(b)
			it := b.claimed("x.json")
			before, err := b.vol.Stat(status)
			b.ok(err)
			if err := b.s.Status(it, []byte("one")); !errors.Is(err, durable.ErrNotRegular) {
				t.Errorf("err = %v", err)
			}
			b.finish(it, false, "answer")
			if after, err := b.vol.Stat(status); err != nil || after != before {
				t.Errorf("it is %+v, %v", after, err)
			}
			b.holds("spool/acme/outbox/x.result.json", "answer")
			b.want("made", b.vol.List("work/.made"))
		})
	}
	t.Run("no request", func(t *testing.T) {
		b := newBench(t, "acme")
		b.put(in+"x.doc", "junk")
		b.now = b.now.Add(60e9)
		if err := b.s.Status(b.one(), []byte("one")); err == nil {
			t.Error("a file that is no request has a status")
		}
		b.want("outbox", b.vol.List("spool/acme/outbox"))
	})
}

// TestStatusFails: trouble with the status is told and leaves nothing; trouble with
// its removal does not touch the answer.
func TestStatusFails(t *testing.T) {
	for _, op := range []modelfs.Op{modelfs.OpCreate, modelfs.OpWrite, modelfs.OpReplace} {
		b := newBench(t, "acme")
		it := b.claimed("x.json")
		b.vol.SetFault(func(c modelfs.Call) modelfs.Fault {
			if c.Op == op {
				return modelfs.FailNotDone(errors.New("injected"))
			}
			return modelfs.None
		})
		if b.s.Status(it, []byte("one")) == nil {
			t.Errorf("%s fails, and Status does not", op)
		}
		b.lacks("spool/acme/outbox/x.status.json")
		b.want("made", b.vol.List("work/.made"))
	}
	b := newBench(t, "acme")
	it := b.claimed("x.json")
	b.ok(b.s.Status(it, []byte("one")))
	b.vol.SetFault(func(c modelfs.Call) modelfs.Fault {
		if c.Op == modelfs.OpRemove {
			return modelfs.FailNotDone(errors.New("injected"))
		}
		return modelfs.None
	})
	b.finish(it, false, "answer")
	b.holds("spool/acme/outbox/x.result.json", "answer")
	if len(b.warned) != 1 {
		t.Errorf("warned of %q", b.warned)
	}
}
