package spool_test

import (
	"errors"
	"strings"
	"testing"

	"signdrop/spool"
	"signdrop/spool/durable/modelfs"
)

const out = "spool/acme/outbox/"

func TestFurtherNames(t *testing.T) {
	if got := spool.AnswerName("pay.psbt"); got != "pay.result.json" {
		t.Errorf("pay.psbt is answered by %q", got)
	}
	if got := spool.FurtherName("a.b.psbt", "-final.txn"); got != "a.b-final.txn" {
		t.Errorf("the file beside is %q", got)
	}
	for _, c := range []struct{ answer, ending, want string }{
		{"pay.result.json", "-signed.psbt", "pay-signed.psbt"},
		{"pay.result.json", "-later.bin", "pay-later.bin"},
		{"pay.result.jsonl", "-signed.psbt", ""},
		{".result.json", "-signed.psbt", ""},
		{"pay.result.json", "", ""},
		{"pay.result.json", ".result.json", ""},
		{"pay.result.json", "-/../../x", ""},
		{"../pay.result.json", "-signed.psbt", ""},
		{"pay.result.json", "-" + strings.Repeat("x", 40), ""},
		{"pay.result.json", "-sig\x00ned", ""},
	} {
		got := spool.Beside(c.answer, c.ending)
		if got != c.want {
			t.Errorf("Beside(%q, %q) = %q, want %q", c.answer, c.ending, got, c.want)
		}
	}
	for name, want := range map[string]string{
		"pay-signed.psbt": "pay.result.json", "pay-part.psbt": "pay.result.json", "pay-final.txn": "pay.result.json",
		"pay.result.json": "", "-signed.psbt": "", "pay.psbt": "", "pay-signed.psbt.sig": "",
	} {
		if got := spool.FurtherOf(name); got != want {
			t.Errorf("FurtherOf(%q) = %q, want %q", name, got, want)
		}
	}
	for request, want := range map[string]string{
		"x.psbt.sig": "x.psbt|", "x.psbt.alice.sig": "x.psbt|alice", "x.json.psbt.sig": "x.json.psbt|",
	} {
		if got, label, _ := spool.SigOf(request); got+"|"+label != want {
			t.Errorf("SigOf(%q) = %q, %q", request, got, label)
		}
	}
}

// document puts a document into the inbox and claims it.
func (b *bench) document(name string) *spool.Item {
	b.Helper()
	b.put(in+name, "bytes of "+name)
	b.put(in+name+".sig", "sig")
	it := b.one()
	_, err := b.s.Claim(it)
	b.ok(err)
	return it
}

func (b *bench) lay(it *spool.Item) {
	b.Helper()
	if any, err := b.s.Lay(it); !any || err != nil {
		b.Fatal(any, err)
	}
}

var (
	signedFile = spool.File{Ending: "-signed.psbt", Data: []byte("signed")}
	finalFile  = spool.File{Ending: "-final.txn", Data: []byte("final")}
	answerText = [][]byte{[]byte("answer")}
)

// TestFurtherFiles: they are there before the answer, and a second go finds them.
func TestFurtherFiles(t *testing.T) {
	long := strings.Repeat("n", 195) + ".psbt" // as long as a name can be
	for _, name := range []string{"pay.psbt", long} {
		b := newBench(t, "acme")
		it := b.document(name)
		if taken, err := b.s.Occupied(it); taken || err != nil {
			t.Fatal(taken, err)
		}
		b.ok(b.s.Make(it, false, answerText, signedFile, finalFile))
		b.want("before", b.vol.List("spool/acme/outbox"))
		b.lay(it)
		stem := strings.TrimSuffix(name, ".psbt")
		b.want("laid", b.vol.List("spool/acme/outbox"), stem+"-final.txn", stem+"-signed.psbt")
		b.lay(it) // once more, after an error elsewhere
		b.ok(b.s.Publish(it))
		b.holds(out+stem+".result.json", "answer")
		// As after a crash.
		b.ok(b.s.Make(it, false, answerText, signedFile, finalFile))
		b.lay(it)
		b.ok(b.s.Publish(it))
		b.holds(out+stem+"-signed.psbt", "signed")
		b.holds(out+stem+"-final.txn", "final")
		b.want("work/.made", b.vol.List("work/.made"))
		b.ok(b.s.Retire(it, "0123456789abcdef"))
		b.want("work", b.vol.List("work/acme"))
	}
}

// TestFurtherTaken: where one of the names is taken none of the files stays, and
// nothing that lay there is touched.
func TestFurtherTaken(t *testing.T) {
	for _, taken := range []string{"pay-signed.psbt", "pay-final.txn", "pay-part.psbt", "pay.result.json"} {
		t.Run(taken, func(t *testing.T) {
			b := newBench(t, "acme")
			b.put(out+taken, "another's")
			it := b.document("pay.psbt")
			if found, err := b.s.Occupied(it); !found || err != nil {
				t.Errorf("the name is found free: %v", err)
			}
			if taken == "pay-part.psbt" {
				return // not a file of this answer
			}
			// It came since.
			b.ok(b.s.Make(it, false, answerText, signedFile, finalFile))
			if _, err := b.s.Lay(it); !errors.Is(err, spool.ErrTaken) {
				t.Errorf("laid: %v", err)
			}
			b.want("outbox", b.vol.List("spool/acme/outbox"), taken)
			b.holds(out+taken, "another's")
			b.s.Unmake(it)
			b.want("work/.made", b.vol.List("work/.made"))
			b.ok(b.s.Make(it, true, [][]byte{[]byte("taken")}))
			if any, err := b.s.Lay(it); any || err != nil {
				t.Error(any, err)
			}
			b.ok(b.s.Publish(it))
			b.ok(b.s.Retire(it, "0123456789abcdef"))
			b.want("rejected", b.vol.List("spool/acme/rejected"), "pay.psbt", "pay.psbt.sig", "pay.reason.json")
		})
	}
	t.Run("between", func(t *testing.T) {
		b := newBench(t, "acme")
		it := b.document("pay.psbt")
		b.ok(b.s.Make(it, false, answerText, signedFile, finalFile))
		b.lay(it)
		b.put(out+"pay.result.json", "another's")
		if err := b.s.Publish(it); !errors.Is(err, spool.ErrTaken) {
			t.Errorf("published: %v", err)
		}
		b.want("outbox", b.vol.List("spool/acme/outbox"), "pay.result.json")
		b.holds(out+"pay.result.json", "another's")
	})
}

// TestFurtherTwin: pay.json and pay.psbt are under way at once.
func TestFurtherTwin(t *testing.T) {
	b := newBench(t, "acme")
	psbt, json := b.document("pay.psbt"), b.document("pay.json")
	b.ok(b.s.Make(psbt, false, answerText, signedFile))
	b.ok(b.s.Make(json, false, [][]byte{[]byte("other")}))
	b.ok(b.s.Publish(json))
	if _, err := b.s.Lay(psbt); !errors.Is(err, spool.ErrTaken) {
		t.Errorf("laid: %v", err)
	}
	b.want("outbox", b.vol.List("spool/acme/outbox"), "pay.result.json")
}

// TestFurtherRefused: a request in JSON has no further files, and no request those of
// an ending that its type does not name.
func TestFurtherRefused(t *testing.T) {
	b := newBench(t, "acme")
	psbt, json := b.document("a.psbt"), b.document("b.json")
	for _, it := range []*spool.Item{json, psbt} {
		f := signedFile
		if it == psbt {
			f.Ending = "-other.psbt"
		}
		if err := b.s.Make(it, false, answerText, f); err == nil {
			t.Errorf("%s has a file %s", it.Name, f.Ending)
		}
	}
	if err := b.s.Make(psbt, true, answerText, signedFile); err == nil {
		t.Error("a refusal has a further file")
	}
	b.want("work/.made", b.vol.List("work/.made"))
}

// TestFurtherCosts: an answer of one file takes no system call more than before there
// were others: one to make its name, one to make it visible, none to lay.
func TestFurtherCosts(t *testing.T) {
	b := newBench(t, "acme")
	it := b.document("pay.json")
	calls := func(f func() error) (ops []modelfs.Op) {
		before := len(b.vol.Calls())
		b.ok(f())
		for _, c := range b.vol.Calls()[before:] {
			ops = append(ops, c.Op)
		}
		return ops
	}
	if got := calls(func() error { _, err := b.s.Lay(it); return err }); len(got) != 0 {
		t.Errorf("Lay takes %v", got)
	}
	b.ok(b.s.Make(it, false, answerText))
	if got := calls(func() error { return b.s.Publish(it) }); len(got) != 1 {
		t.Errorf("Publish takes %v", got)
	}
	other := b.document("other.json")
	if got := calls(func() error { _, err := b.s.Occupied(other); return err }); len(got) != 1 {
		t.Errorf("Occupied takes %v", got)
	}
}
