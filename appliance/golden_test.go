package appliance_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signdrop/keyfs"
)

var update = flag.Bool("update", false, "write testdata anew")

// moment is what no two runs have alike: the time, and the chain over it.
var moment = regexp.MustCompile(`"time":"[^"]*"|"prev":"[^"]*"`)

// TestGolden: answers and journal lines are the same bytes as ever, on every machine,
// and the same again when they are made again.
func TestGolden(t *testing.T) {
	r := newRig(t)
	stop := r.serve() // makes the journal
	stop()
	db, err := r.root.Sub("db")
	r.ok(err)
	defer db.Close()
	keys, err := keyfs.Open(db, keyfs.Options{})
	r.ok(err)
	pems, err := filepath.Glob("testdata/keys/W_*.pem")
	r.ok(err)
	for _, name := range pems {
		pem, err := os.ReadFile(name)
		r.ok(err)
		_, err = keys.Import("acme", []keyfs.ImportSpec{{ID: strings.TrimSuffix(filepath.Base(name), ".pem"), PrivateKeyPEM: pem}}, r.vol)
		r.ok(err)
	}
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "policy.json"), []byte(`{"replace":true}`), 0o600))
	stop = r.serve()

	requests, err := filepath.Glob("testdata/golden/*.json*")
	r.ok(err)
	var out bytes.Buffer
	ask := func(name string, data []byte) []byte {
		r.drop(r.acme, name, data)
		r.until(name+" is decided", func() bool {
			base, _, _ := strings.Cut(name, ".")
			return exists(r.path("spool", "acme", "outbox", answerName(name))) || exists(r.path("spool", "acme", "rejected", base+".reason.json"))
		})
		if got, err := os.ReadFile(r.path("spool", "acme", "outbox", answerName(name))); err == nil {
			return got
		}
		base, _, _ := strings.Cut(name, ".")
		return r.wait("spool", "acme", "rejected", base+".reason.json")
	}
	for _, name := range requests {
		data, err := os.ReadFile(name)
		r.ok(err)
		name = filepath.Base(name)
		fmt.Fprintf(&out, "%s\n", name)
		out.Write(ask(name, data))
	}
	stop()
	list, err := filepath.Glob(r.path("journal", "*.jsonl"))
	r.ok(err)
	for _, name := range list {
		data, err := os.ReadFile(name)
		r.ok(err)
		for line := range strings.Lines(string(data)) {
			// Its first and last line say how this machine keeps keys.
			if !strings.Contains(line, `"event":"st`) {
				out.WriteString(moment.ReplaceAllString(line, ""))
			}
		}
	}
	stop = r.serve()
	for _, name := range requests {
		data, err := os.ReadFile(name)
		r.ok(err)
		base := filepath.Base(name)
		again := ask("again-"+base, data)
		first := r.read("spool", "acme", "outbox", answerName(base))
		if !strings.Contains(base, "no-") && string(again) != first {
			t.Errorf("%s, made again:\n%s\nwas\n%s", base, again, first)
		}
	}
	stop()

	golden := "testdata/golden/answers.txt"
	if *update {
		r.ok(os.WriteFile(golden, out.Bytes(), 0o666))
	}
	want, err := os.ReadFile(golden)
	r.ok(err)
	if got := out.String(); got != string(want) {
		g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
		for i := range min(len(g), len(w)) {
			if g[i] != w[i] {
				t.Fatalf("line %d:\n%s\nwant\n%s", i+1, g[i], w[i])
			}
		}
		t.Errorf("%d lines, want %d", len(g), len(w))
	}
}
