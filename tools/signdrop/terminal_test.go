package main

import (
	"slices"
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ümlaut, 漢字":    "plain, ümlaut, 漢字",
		"a\x1b[2Jb\r\n\tc\x7f": "a?[2Jb???c?",
		"bad \xff utf":         "bad ? utf",
		"turn \u202e around":   "turn ? around",
		"next \u0085 line":     "next ? line",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	table := newTable(&b, "NAME", "STATE", "")
	table.wrap = true
	table.row("ünï", "made", strings.Repeat("word ", 20))
	table.row("x", "there", "")
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	want := "NAME  STATE\n" +
		"ünï   made   " + strings.TrimSuffix(strings.Repeat("word ", 13), " ") + "\n" +
		"             " + strings.TrimSuffix(strings.Repeat("word ", 7), " ") + "\n" +
		"x     there\n"
	if got := b.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWrapped(t *testing.T) {
	got := wrapped("a bb  ccc muchtoolong d", 4)
	if want := []string{"a bb", "ccc", "muchtoolong", "d"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 3 << 40: "3.0 TiB", 1 << 60: "1048576.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %s, want %s", n, got, want)
		}
	}
}
