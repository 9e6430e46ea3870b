package journal_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"signdrop/appliance/journal"
)

// encode writes an event with a journal and reads its line back.
func encode(t testing.TB, ev *journal.Event) string {
	t.Helper()
	e := newEnv(t)
	j, _ := e.open()
	put(t, j, ev)
	return strings.Split(e.contents(e.dir)["00000001.jsonl"], "\n")[1]
}

func TestLineForm(t *testing.T) {
	ev := signed("acme", 7)
	ev.Uses = 99 // not the caller's
	ev.Name, ev.Final, ev.Line, ev.Code = "a\"b\\c%\xff\n\u0085é\u2028.json", true, 3, "nonce-used"
	line := encode(t, ev)
	want := `{"seq":2,"time":"` + ev.Time.Format("2006-01-02T15:04:05.000000Z") + `","event":"signed","company":"acme",` +
		`"name":"a\"b\\c%25%FF%0A%C2%85é` + "\u2028" + `.json","line":3,` +
		fmt.Sprintf(`"request":"%x","by":"batch@acme","key":"%s","type":"sign","wallet":"%s",`, ev.Request, ev.Key, ev.Wallet) +
		fmt.Sprintf(`"ledger":"metacoin","operation":"transfer","nonce":"nonce-7","text":"%x",`, ev.Text) +
		fmt.Sprintf(`"algorithm":"ecdsa-p384-sha384","signature":"%s","uses":1,"result":"%x","code":"nonce-used",`, ev.Signature, ev.Result) +
		fmt.Sprintf(`"final":true,"detail":"%s","prev":"%x"}`, ev.Detail, ev.Prev)
	if line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	if !json.Valid([]byte(line)) {
		t.Error("the line is not JSON")
	}
	got, err := journal.ParseLine([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if *got != *ev {
		t.Errorf("got  %+v\nwant %+v", got, ev)
	}
}

// TestEveryField makes sure that a field that is added to Event is also written.
func TestEveryField(t *testing.T) {
	v := reflect.ValueOf(&journal.Event{}).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		ev := &journal.Event{Kind: "signed"}
		f := reflect.ValueOf(ev).Elem().Field(i)
		switch f.Interface().(type) {
		case string:
			f.SetString("x")
		case int:
			f.SetInt(5)
		case bool:
			f.SetBool(true)
		case [32]byte:
			f.Set(reflect.ValueOf(digest(name)))
		case uint64, time.Time, *journal.Previous:
			continue // the journal's own, see TestLineForm and TestRotation
		default:
			t.Fatalf("field %s has a type that this test does not know", name)
		}
		line := encode(t, ev)
		got, err := journal.ParseLine([]byte(line))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if *got != *ev {
			t.Errorf("%s is lost in %s", name, line)
		}
	}
}

func TestTexts(t *testing.T) {
	var all strings.Builder
	for c := range 256 {
		all.WriteByte(byte(c))
	}
	for _, s := range []string{
		all.String(), "%", "%25", "%2", "%zz", `\u0000`, `"`, `\`, "\xc3\xa9", "\xc3", "\xa9", "\xed\xa0\x80", "\u0080", "\u009f", "\u00a0",
		"\U0010ffff", "\ufffd", "\ufeff", strings.Repeat("%", 1000), "../../etc", "\x00",
	} {
		ev := &journal.Event{Kind: "x", Company: s, Name: s, By: s, Key: s, Type: s, Wallet: s, Ledger: s, Operation: s, Nonce: s,
			Algorithm: s, Signature: s, Code: s, Detail: s}
		line := encode(t, ev)
		got, err := journal.ParseLine([]byte(line))
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if *got != *ev {
			t.Errorf("%q comes back as %q", s, got.Name)
		}
		if strings.ContainsAny(line, "\x00\n\x7f") {
			t.Errorf("%q leaves a control character in the line", s)
		}
	}
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func TestParseLineRefuses(t *testing.T) {
	good := `{"seq":1,"time":"2026-11-22T15:54:00.123456Z","event":"start","company":"a%25b","line":2,"prev":"` + zeros + `"}`
	if _, err := journal.ParseLine([]byte(good)); err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the line", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	if e, err := journal.ParseLine([]byte(swap(`"line":2`, `"line":2,"signature":"s","uses":18446744073709551615`))); err != nil || e.Uses != 1<<64-1 {
		t.Fatal(e, err)
	}
	one := strings.Replace(zeros, "0", "a", 1)
	for name, line := range map[string]string{
		"empty":               "",
		"not an object":       "[]",
		"null":                "null",
		"unknown member":      swap(`"line"`, `"lime"`),
		"other case":          swap(`"line"`, `"Line"`),
		"repeated member":     swap(`"line":2`, `"line":2,"line":2`),
		"space":               swap(`"line":2`, `"line": 2`),
		"space before":        " " + good,
		"behind":              good + " ",
		"newline":             good + "\n",
		"order":               swap(`"company":"a%25b","line":2`, `"line":2,"company":"a%25b"`),
		"empty text":          swap(`"a%25b"`, `""`),
		"zero line":           swap(`"line":2`, `"line":0`),
		"negative line":       swap(`"line":2`, `"line":-2`),
		"signature, no uses":  swap(`"line":2`, `"line":2,"signature":"s"`),
		"uses, no signature":  swap(`"line":2`, `"line":2,"uses":1`),
		"uses 0":              swap(`"line":2`, `"line":2,"signature":"s","uses":0`),
		"uses 0 alone":        swap(`"line":2`, `"line":2,"uses":0`),
		"uses before":         swap(`"line":2`, `"line":2,"uses":1,"signature":"s"`),
		"uses negative":       swap(`"line":2`, `"line":2,"signature":"s","uses":-1`),
		"uses with zero":      swap(`"line":2`, `"line":2,"signature":"s","uses":01`),
		"uses as a text":      swap(`"line":2`, `"line":2,"signature":"s","uses":"1"`),
		"uses too large":      swap(`"line":2`, `"line":2,"signature":"s","uses":18446744073709551616`),
		"number with zero":    swap(`"line":2`, `"line":2.0`),
		"exponent":            swap(`"line":2`, `"line":2e0`),
		"no seq":              swap(`"seq":1,`, ``),
		"seq 0":               swap(`"seq":1`, `"seq":0`),
		"no time":             swap(`"time":"2026-11-22T15:54:00.123456Z",`, ``),
		"short time":          swap(`.123456Z`, `.123Z`),
		"zone":                swap(`.123456Z`, `.123456+00:00`),
		"comma in time":       swap(`.123456Z`, `,123456Z`),
		"no event":            swap(`"event":"start",`, ``),
		"kind":                swap(`"start"`, `"Start"`),
		"kind with escape":    swap(`"start"`, `"st\u0061rt"`),
		"no prev":             swap(`,"prev":"`+zeros+`"`, ``),
		"short prev":          swap(zeros, zeros[1:]),
		"upper-case digits":   swap(zeros, strings.ToUpper(one)),
		"not digits":          swap(zeros, strings.Replace(zeros, "0", "g", 1)),
		"zero request":        swap(`"line":2`, `"line":2,"request":"`+zeros+`"`),
		"final false":         swap(`"line":2`, `"line":2,"final":false`),
		"JSON escape":         swap(`a%25b`, `\u0061`),
		"solidus":             swap(`a%25b`, `a\/b`),
		"raw percent":         swap(`a%25b`, `a%b`),
		"percent at the end":  swap(`a%25b`, `a%2`),
		"lower-case percent":  swap(`a%25b`, `a%ffb`),
		"percent of a letter": swap(`a%25b`, `a%41b`),
		"percent of UTF-8":    swap(`a%25b`, `a%C3%A9b`),
		"raw bytes":           swap(`a%25b`, "a\xffb"),
		"raw control":         swap(`a%25b`, "a\x7fb"),
		"previous":            swap(`"prev"`, `"previous":{"file":"x","size":1,"void":0},"prev"`),
		"previous size":       swap(`"prev"`, `"previous":{"file":"00000001.jsonl","size":0,"void":0},"prev"`),
		"previous void":       swap(`"prev"`, `"previous":{"file":"00000001.jsonl","size":1,"void":-1},"prev"`),
		"previous elsewhere":  strings.Replace(swap(`"prev"`, `"previous":{"file":"00000001.jsonl","size":1,"void":0},"prev"`), `"start"`, `"stop"`, 1),
		"too long":            swap(`a%25b`, strings.Repeat("a", journal.MaxLine)),
	} {
		if e, err := journal.ParseLine([]byte(line)); err == nil {
			t.Errorf("%s: accepted as %+v", name, e)
		}
	}
}

func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 5<<18)
	for name, c := range map[string]struct {
		ev *journal.Event
		ok bool
	}{
		"word":         {&journal.Event{Kind: "wallet-2"}, true},
		"longest":      {&journal.Event{Kind: "signed", Nonce: long[6:]}, true},
		"too long":     {&journal.Event{Kind: "signed", Nonce: long[5:]}, false},
		"no kind":      {&journal.Event{}, false},
		"upper case":   {&journal.Event{Kind: "Signed"}, false},
		"quote":        {&journal.Event{Kind: `a"b`}, false},
		"start":        {&journal.Event{Kind: "start"}, false},
		"continue":     {&journal.Event{Kind: "continue"}, false},
		"stop":         {&journal.Event{Kind: "stop"}, false},
		"negative":     {&journal.Event{Kind: "line", Line: -1}, false},
		"with its own": {&journal.Event{Kind: "signed", Previous: &journal.Previous{}}, false},
	} {
		if err := c.ev.Check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The longest event, with every byte written as three, still is a line.
	ev := &journal.Event{Kind: "signed", Name: strings.Repeat("\xff", 5<<18-6)}
	if line := encode(t, ev); len(line) > journal.MaxLine {
		t.Errorf("the longest line has %d bytes", len(line))
	}
}

// FuzzParseLine: what is accepted can be written and read again and is the same.
// ParseLine itself holds the line against what would be written, so that the
// interesting finding is a panic, or JSON that another reader takes otherwise.
func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-11-22T15:54:00.123456Z","event":"start","prev":"` + zeros + `"}`))
	f.Add([]byte(`{"seq":18446744073709551615,"time":"9999-12-31T23:59:59.999999Z","event":"continue","name":"\"\\%25%FFé","line":9223372036854775807,` +
		`"request":"` + strings.Repeat("ab", 32) + `","final":true,"previous":{"file":"00000002.jsonl","size":1234,"void":5},"prev":"` + zeros + `"}`))
	f.Add([]byte(encode(f, signed("acme", 1))))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := journal.ParseLine(line)
		if err != nil {
			return
		}
		var other struct {
			Seq     uint64
			Event   string
			Request string
			Line    int
			Uses    uint64
		}
		if err := json.Unmarshal(line, &other); err != nil {
			t.Fatalf("encoding/json does not read it: %v", err)
		}
		if other.Seq != e.Seq || other.Event != e.Kind || other.Line != e.Line || other.Uses != e.Uses ||
			other.Request != "" && other.Request != fmt.Sprintf("%x", e.Request) {
			t.Fatalf("encoding/json reads %+v, we %+v", other, e)
		}
	})
}

// FuzzText: any text comes back as it was.
func FuzzText(f *testing.F) {
	f.Add("pay.json", "%41\xff\"\\")
	e := newEnv(f)
	j, _ := e.open()
	n := 0
	f.Fuzz(func(t *testing.T, name, nonce string) {
		ev := signed("acme", n)
		n++
		ev.Name, ev.Nonce = name, fmt.Sprint(n, nonce)
		if ev.Check() != nil {
			return
		}
		put(t, j, ev)
		known(t, j, ev)
		got, err := j.Nonce(ev.Company, ev.Wallet, ev.Ledger, ev.Nonce)
		if err != nil || got == nil || *got != *ev {
			t.Fatalf("got %+v, %v; want %+v", got, err, ev)
		}
	})
}
