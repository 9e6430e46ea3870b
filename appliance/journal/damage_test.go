package journal_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/journal"
	"signdrop/spool/durable/modelfs"
)

// damaged is a small journal with all that there is: several files, a batch, void
// bytes in the middle, and an end that a crash left.
type damaged struct {
	*env
	files   map[string]string // the journal
	index   map[string]string // that covers all of it
	counted map[string]int    // bytes of each file that count
	head    int               // bytes of the newest that its head knows
	events  []*journal.Event  // that count
}

func small(i int) *journal.Event {
	return &journal.Event{Kind: "signed", Company: "a", Request: digest("small", i), Wallet: "w", Ledger: "m", Nonce: fmt.Sprint(i), Text: digest(i), Signature: "s"}
}

func smallBatch(i int) []*journal.Event {
	l := small(100 + i)
	l.Kind, l.Line, l.Request = "line", 1, digest("b", i)
	return []*journal.Event{l, {Kind: "answered", Company: "a", Request: digest("b", i)}}
}

func newDamaged(t *testing.T) *damaged {
	t.Helper()
	d := &damaged{env: newEnv(t), counted: map[string]int{}}
	add := func(j *journal.Journal, es ...*journal.Event) {
		put(t, j, es...)
		d.events = append(d.events, es...)
	}
	j, _ := d.open()
	add(j, small(1))
	closeJournal(t, j)

	j, _ = d.open()
	add(j, small(2))
	if err := j.Write(smallBatch(3)); err != nil {
		t.Fatal(err)
	}
	if err := j.Abandon(); err != nil {
		t.Fatal(err)
	}
	add(j, smallBatch(4)...)
	add(j, small(5)) // makes the head know the batch
	add(j, small(6)) // the head does not know it
	if err := j.Close(nil); err != nil {
		t.Fatal(err)
	}
	d.files, d.index = d.contents(d.dir), d.contents(d.env.index)

	for name, c := range d.files {
		d.counted[name] = len(c)
	}
	for _, v := range verify(t, d.env).Void {
		d.counted[v.File] = int(v.Offset)
	}
	lines := strings.SplitAfter(d.files["00000003.jsonl"], "\n")
	d.head = len(strings.Join(lines[:4], "")) // continue, line, answered, small(5)
	if got := slices.Sorted(maps.Keys(d.files)); !slices.Equal(got, []string{"00000001.jsonl", "00000002.jsonl", "00000003.head", "00000003.jsonl"}) {
		t.Fatalf("files are %v", got)
	}
	if d.counted["00000002.jsonl"] == len(d.files["00000002.jsonl"]) {
		t.Fatal("nothing is void")
	}
	return d
}

// outcome opens and verifies a journal, with the index and without it. accepted is the number of events of the original that all three find,
// -1 if one of them refuses. What is accepted must be a whole beginning of the
// events: nothing altered, nothing left out, nothing more.
func (d *damaged) outcome(t *testing.T, what string, files map[string]string) (accepted int, withIndex error) {
	t.Helper()
	d.restore(d.dir, files)
	rep, err := journal.Verify(d.dir, nil)
	var f *journal.Fault
	if err != nil && !errors.As(err, &f) {
		t.Errorf("%s: the error of Verify is none about the journal: %v", what, err)
	}
	d.restore(d.env.index, d.index)
	j, _, withIndex := journal.Open(d.vol, d.dir, d.env.index, d.o)
	if withIndex == nil {
		j.Close(nil)
		d.restore(d.dir, files)
	}
	d.clearIndex()
	j, r, openErr := journal.Open(d.vol, d.dir, d.env.index, d.o)
	if (err == nil) != (openErr == nil) {
		t.Errorf("%s: Verify says %v, Open without an index says %v", what, err, openErr)
	}
	if openErr != nil {
		return -1, withIndex
	}
	defer j.Close(nil)
	if withIndex != nil {
		t.Errorf("%s: refused with the index, but not without: %v", what, withIndex)
	}
	for i, ev := range d.events {
		got := lookup(t, j, ev)
		switch {
		case got == nil && accepted == 0:
			accepted = i + 1 // the first that is missing
		case got != nil && accepted > 0:
			t.Errorf("%s: event %d is found, event %d is not", what, i, accepted-1)
		case got != nil && !same(got, ev):
			t.Errorf("%s: event %d is altered to %+v", what, i, got)
		}
	}
	if accepted > 0 {
		accepted--
	} else {
		accepted = len(d.events)
	}
	var signed uint64
	for _, ev := range d.events[:accepted] {
		if ev.Signature != "" {
			signed++
		}
	}
	if n, _, err := j.Uses("a", "w"); err != nil || n != signed {
		t.Errorf("%s: %d signatures are counted, %v; want %d", what, n, err, signed)
	}
	if accepted < len(d.events) && r.Void == nil && len(rep.Void) < 2 {
		// Cut exactly at the end of a unit: nothing is left to note.
		if b := files["00000003.jsonl"]; !strings.HasSuffix(b, "\n") {
			t.Errorf("%s: %d events are accepted, and nothing is noted as void", what, accepted)
		}
	}
	return accepted, nil
}

// with gives the files without some and with others.
func (d *damaged) with(remove []string, add map[string]string) map[string]string {
	files := maps.Clone(d.files)
	for _, n := range remove {
		delete(files, n)
	}
	maps.Copy(files, add)
	return files
}

// TestEveryByte flips, deletes and cuts off at every byte of every file.
func TestEveryByte(t *testing.T) {
	d := newDamaged(t)
	if n, _ := d.outcome(t, "undamaged", d.files); n != len(d.events) {
		t.Fatalf("only %d events are found", n)
	}
	all, step := len(d.events), 1
	if testing.Short() {
		step = 7
	}
	for _, name := range []string{"00000001.jsonl", "00000002.jsonl", "00000003.jsonl"} {
		c := d.files[name]
		newest := name == "00000003.jsonl"
		for i := 0; i < len(c); i += step {
			for _, k := range []struct {
				how, content string
			}{
				{"flipped", c[:i] + string(c[i]^1) + c[i+1:]},
				{"deleted", c[:i] + c[i+1:]},
				{"cut off", c[:i]},
			} {
				what := fmt.Sprintf("byte %d of %s %s", i, name, k.how)
				n, withIndex := d.outcome(t, what, d.with(nil, map[string]string{name: k.content}))
				switch {
				case newest && i >= d.head:
					if n != all-1 {
						t.Errorf("%s, behind the head: %d events of %d are found", what, n, all)
					}
				case i >= d.counted[name]:
					if n != all {
						t.Errorf("%s, in a void part: %d events of %d are found", what, n, all)
					}
				case n >= 0:
					t.Errorf("%s: accepted, with %d events", what, n)
				case newest && withIndex == nil:
					t.Errorf("%s: accepted with the index", what)
				}
			}
		}
	}
}

// TestMore: bytes where none should be.
func TestMore(t *testing.T) {
	d := newDamaged(t)
	for name, c := range map[string]struct {
		file, more string
		want       int
	}{
		"behind a closed file":         {"00000001.jsonl", "\n", -1},
		"behind a closed file's void":  {"00000002.jsonl", "x", -1},
		"garbage behind the newest":    {"00000003.jsonl", "\x00\x00\x00\n", len(d.events)},
		"a line from elsewhere behind": {"00000003.jsonl", strings.SplitAfter(d.files["00000001.jsonl"], "\n")[1], len(d.events)},
		"an endless line behind":       {"00000003.jsonl", strings.Repeat("a", journal.MaxLine+2), len(d.events)},
		"a second start behind":        {"00000003.jsonl", strings.SplitAfter(d.files["00000001.jsonl"], "\n")[0], len(d.events)},
	} {
		if n, _ := d.outcome(t, name, d.with(nil, map[string]string{c.file: d.files[c.file] + c.more})); n != c.want {
			t.Errorf("%s: %d events, want %d", name, n, c.want)
		}
	}
}

// TestNames goes through the table of states, and through what is none of them.
func TestNames(t *testing.T) {
	d := newDamaged(t)
	all := len(d.events)
	head, garbage := d.files["00000003.head"], "\x00\x01"
	slot := head[4096:]
	for name, c := range map[string]struct {
		remove []string
		add    map[string]string
		want   int
		hint   string // in the error
	}{
		"3, head not moved":               {[]string{"00000003.head"}, map[string]string{"00000003.head.new": head}, all, ""},
		"4, file begun":                   {nil, map[string]string{"00000004.jsonl.new": garbage}, all, ""},
		"4, head begun":                   {nil, map[string]string{"00000004.head.new": ""}, all, ""},
		"4, both begun":                   {nil, map[string]string{"00000004.head.new": garbage, "00000004.jsonl.new": ""}, all, ""},
		"5":                               {nil, map[string]string{"00000004.head": head, "00000004.jsonl.new": garbage}, all, ""},
		"3 and 5":                         {[]string{"00000003.head"}, map[string]string{"00000003.head.new": head, "00000004.head": "", "00000004.jsonl.new": ""}, all, ""},
		"6":                               {nil, map[string]string{"00000002.head": garbage, "00000001.head.new": ""}, all, ""},
		"first file missing":              {[]string{"00000001.jsonl"}, nil, -1, "00000001.jsonl: the file is missing"},
		"middle file missing":             {[]string{"00000002.jsonl"}, nil, -1, "00000002.jsonl: the file is missing"},
		"newest file missing":             {[]string{"00000003.jsonl"}, nil, -1, "00000003.jsonl: the file is missing"},
		"newest and its head missing":     {[]string{"00000003.jsonl", "00000003.head"}, nil, -1, "00000002.head: the file is missing"},
		"all files missing":               {[]string{"00000001.jsonl", "00000002.jsonl", "00000003.jsonl"}, nil, -1, "is missing"},
		"head missing":                    {[]string{"00000003.head"}, nil, -1, "00000003.head: the file is missing"},
		"only the next head":              {nil, map[string]string{"00000004.head": head}, -1, "00000004.jsonl: the file is missing"},
		"head of the far future":          {nil, map[string]string{"00000009.head.new": head}, -1, "00000008.jsonl: the file is missing"},
		"file begun with a low number":    {nil, map[string]string{"00000003.jsonl.new": ""}, -1, "00000003.jsonl.new: a file that is being begun"},
		"head under two names":            {nil, map[string]string{"00000003.head.new": head}, -1, "two names"},
		"head empty":                      {nil, map[string]string{"00000003.head": ""}, -1, "the head is damaged"},
		"head of another file":            {nil, map[string]string{"00000003.head": strings.ReplaceAll(head, "00000003", "00000002")}, -1, "the head is damaged"},
		"one slot torn":                   {nil, map[string]string{"00000003.head": garbage + head[2:]}, all, ""},
		"other slot torn":                 {nil, map[string]string{"00000003.head": head[:4096] + garbage + slot[2:]}, all - 1, ""}, // as if torn in the last sync
		"both slots torn":                 {nil, map[string]string{"00000003.head": garbage + head[2:4096] + garbage + slot[2:]}, -1, "the head is damaged"},
		"slots in the other order":        {nil, map[string]string{"00000003.head": slot + head[len(slot):4096] + head[:len(slot)]}, all, ""},
		"files swapped":                   {nil, map[string]string{"00000001.jsonl": d.files["00000002.jsonl"], "00000002.jsonl": d.files["00000001.jsonl"]}, -1, "00000001.jsonl, line 1"},
		"newest is a copy of the one":     {nil, map[string]string{"00000003.jsonl": d.files["00000002.jsonl"]}, -1, "00000003.jsonl, line 1"},
		"newest twice":                    {nil, map[string]string{"00000004.jsonl": d.files["00000003.jsonl"], "00000004.head": head}, -1, "00000004.jsonl, line 1"},
		"newest empty":                    {nil, map[string]string{"00000003.jsonl": ""}, -1, "00000003.jsonl, line 1"},
		"older file empty":                {nil, map[string]string{"00000001.jsonl": ""}, -1, "00000001.jsonl, line 1"},
		"number 0":                        {nil, map[string]string{"00000000.jsonl": ""}, -2, "not a name of the journal's"},
		"another file":                    {nil, map[string]string{"README": "hello"}, -2, "README: this is not a name of the journal's"},
		"a file that is called otherwise": {nil, map[string]string{"00000004.jsonl.bak": ""}, -2, "not a name of the journal's"},
	} {
		t.Run(name, func(t *testing.T) {
			files := d.with(c.remove, c.add)
			if c.want == -2 { // Open refuses, Verify tells
				d.restore(d.dir, files)
				if r := verify(t, d.env); len(r.Strange) != 1 {
					t.Errorf("strange names are %v", r.Strange)
				}
			} else if n, _ := d.outcome(t, name, files); n != c.want {
				t.Fatalf("%d events, want %d", n, c.want)
			}
			if c.want < 0 {
				_, _, err := journal.Open(d.vol, d.dir, d.env.index, d.o)
				if err == nil || !strings.Contains(err.Error(), c.hint) {
					t.Errorf("error is %v, want %q in it", err, c.hint)
				}
				if !maps.Equal(d.contents(d.dir), files) {
					t.Error("a journal that is refused was changed")
				}
				return
			}
			// What a crash left is gone, and only the one head is there.
			if got := d.names(d.dir); slices.ContainsFunc(got, func(n string) bool { return strings.HasSuffix(n, ".new") }) || len(got) != 5 {
				t.Errorf("names are %v", got)
			}
		})
	}
}

// TestFirstStartCutShort: a crash in the very first begin is no journal yet.
func TestFirstStartCutShort(t *testing.T) {
	for _, left := range [][]string{
		{"00000001.jsonl.new"}, {"00000001.head.new"}, {"00000001.jsonl.new", "00000001.head.new"}, {"00000001.jsonl.new", "00000001.head"},
	} {
		e := newEnv(t)
		for _, n := range left {
			e.write(e.dir, n, "x")
		}
		j, r := e.open()
		if !r.New {
			t.Errorf("%v: not a new journal", left)
		}
		closeJournal(t, j)
		verify(t, e)
		if got := e.names(e.dir); !slices.Equal(got, []string{"00000001.head", "00000001.jsonl"}) {
			t.Errorf("%v: names are %v", left, got)
		}
	}
	e := newEnv(t)
	e.write(e.dir, "00000001.head", "x")
	if _, _, err := journal.Open(e.vol, e.dir, e.index, e.o); err == nil {
		t.Error("a head alone is accepted")
	}
}

// TestFaultsArePlain: an error says where.
func TestFaultsArePlain(t *testing.T) {
	d := newDamaged(t)
	c := d.files["00000001.jsonl"]
	line2 := strings.Index(c, "\n") + 1
	d.write(d.dir, "00000001.jsonl", c[:line2+10]+"X"+c[line2+11:])
	_, err := journal.Verify(d.dir, nil)
	var f *journal.Fault
	if !errors.As(err, &f) || f.File != "00000001.jsonl" || f.Line != 2 || f.Offset != int64(line2) {
		t.Errorf("error is %v", err)
	}
	if want := fmt.Sprintf("journal file 00000001.jsonl, line 2, byte %d: ", line2); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error is %v, want it to begin with %s", err, want)
	}
}

// TestTornTail: of the last group all counts or nothing.
func TestTornTail(t *testing.T) {
	e := newEnv(t)
	j, _ := e.open()
	a, b := small(1), smallBatch(2)
	put(t, j, a)
	put(t, j, b...)
	if err := j.Close(nil); err != nil {
		t.Fatal(err)
	}
	c := e.contents(e.dir)
	lines := strings.SplitAfter(c["00000001.jsonl"], "\n")
	verdict := len(lines[3])
	for name, tail := range map[string]string{
		"lines without a verdict": "",
		"half a verdict":          lines[3][:verdict/2],
		"no newline":              lines[3][:verdict-1],
		"zeros":                   strings.Repeat("\x00", 4096),
		"an altered verdict":      strings.Replace(lines[3], "answered", "answerer", 1),
		"verdict of another":      lines[1],
	} {
		e.restore(e.dir, c)
		content := strings.Join(lines[:3], "") + tail
		e.write(e.dir, "00000001.jsonl", content)
		e.clearIndex()
		start := len(lines[0]) + len(lines[1])
		j, r := e.open()
		if r.Void == nil || r.Void.File != "00000001.jsonl" || r.Void.Offset != int64(start) || r.Void.Bytes != int64(len(content)-start) || r.Void.Reason == "" {
			t.Errorf("%s: recovery is %+v, void %+v; want void from %d to %d", name, r, r.Void, start, len(content))
		}
		known(t, j, a)
		for _, ev := range b {
			unknown(t, j, ev)
		}
		closeJournal(t, j)
		rep := verify(t, e)
		if len(rep.Void) != 1 || rep.Void[0].Bytes != int64(len(content)-start) {
			t.Errorf("%s: report says %+v", name, rep.Void)
		}
		if e.contents(e.dir)["00000001.jsonl"] != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// TestClosedIsExact: after a stop in order the last group is as safe as all others,
// whichever slot of the head knows it.
func TestClosedIsExact(t *testing.T) {
	for groups := range 4 {
		e := newEnv(t)
		j, _ := e.open()
		for i := range groups {
			put(t, j, small(i))
		}
		closeJournal(t, j)
		c := e.contents(e.dir)["00000001.jsonl"]
		for name, altered := range map[string]string{
			"cut off": c[:strings.LastIndex(c[:len(c)-1], "\n")+1], "altered": strings.Replace(c, `"stop"`, `"stow"`, 1),
		} {
			e.write(e.dir, "00000001.jsonl", altered)
			if _, err := journal.Verify(e.dir, nil); err == nil {
				t.Errorf("%d groups: the stop event is %s, and nothing is said", groups, name)
			}
		}
	}
}

// TestUnreadable: an error of the disk is not taken for a torn tail.
func TestUnreadable(t *testing.T) {
	d := newDamaged(t)
	for k := 1; ; k++ {
		d.clearIndex()
		fired := d.fail(k, modelfs.FailNotDone(errDisk))
		_, err := journal.Verify(d.dir, nil)
		if !fired() {
			if k < 20 {
				t.Errorf("Verify makes only %d calls", k)
			}
			break
		}
		var f *journal.Fault
		if err != nil && (!errors.Is(err, errDisk) || errors.As(err, &f)) {
			t.Errorf("call %d: %v", k, err)
		}
	}
}
