package main

// What is printed where:
//
//   - Standard output has results only: tables, JSON, one line for each file. A
//     pipe gets the same text on every machine: no colours, no widths.
//   - Standard error has everything else: errors, hints, progress.
//   - An error is "signdrop: " and a sentence that begins with a small letter and
//     has no full stop. What to do next stands on a line of its own, "hint: …".
//   - A progress bar is shown only where standard error is a terminal, and is gone
//     when the command ends.
//   - What a file says is printed with its control characters replaced: a partner
//     must not be able to repaint an operator's terminal.

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

func complain(w io.Writer, text, hint string) {
	fmt.Fprintf(w, "signdrop: %s\n", printable(text))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(hint))
	}
}

// printable replaces what a terminal would take for a command.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// isTerminal reports whether w is one.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// table writes rows in columns that are as wide as they need to be.
type table struct {
	w    io.Writer
	wrap bool // break the last column between words, for a page of 80 columns
	rows [][]string
}

func newTable(w io.Writer, heads ...string) *table {
	t := &table{w: w}
	if len(heads) > 0 {
		t.row(heads...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	t.rows = append(t.rows, cells)
}

func (t *table) flush() error {
	var widths []int // of all columns but the last
	for _, r := range t.rows {
		for i, c := range r[:len(r)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, r := range t.rows {
		last := []string{r[len(r)-1]}
		if t.wrap {
			last = wrapped(last[0], pageWidth-sum(widths)-2*len(widths))
		}
		for n, text := range last {
			var line strings.Builder
			for i, width := range widths {
				cell := ""
				if n == 0 && i < len(r)-1 {
					cell = r[i]
				}
				line.WriteString(cell + strings.Repeat(" ", width-utf8.RuneCountInString(cell)+2))
			}
			line.WriteString(text)
			b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		}
	}
	t.rows = nil
	_, err := io.WriteString(t.w, b.String())
	return err
}

// pageWidth is the width of a page, in columns.
const pageWidth = 80

// wrapped breaks a text between words into lines of at most width columns. A word
// that is longer has a line of its own.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func sum(ns []int) (n int) {
	for _, m := range ns {
		n += m
	}
	return n
}

// plural counts things in words.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// progress is a bar on a terminal. A nil *progress is none, and may be used.
type progress struct {
	w     *os.File
	what  string // what is counted: "files"
	total int64  // 0: not known, and no bar but a count
	shown bool
	last  time.Time
}

// newProgress returns nil unless w is a terminal.
func newProgress(w io.Writer, what string, total int64) *progress {
	if !isTerminal(w) {
		return nil
	}
	return &progress{w: w.(*os.File), what: what, total: total}
}

// redraw is how often the bar changes at most: oftener nobody can read, and a
// slow terminal would hold up the work.
const redraw = 100 * time.Millisecond

// begin begins to count something else, up to the same number.
func (p *progress) begin(what string) {
	if p != nil {
		p.what, p.last = what, time.Time{}
	}
}

// set shows that n are done, and a note such as "2 refused".
func (p *progress) set(n int64, note string) {
	if p == nil || n < p.total && time.Since(p.last) < redraw {
		return
	}
	p.last = time.Now()
	count := fmt.Sprintf("%d %s", n, p.what)
	if p.total > 0 {
		count = fmt.Sprintf("%d/%d %s", n, p.total, p.what)
	}
	if note != "" {
		count += ", " + note
	}
	bar := ""
	if p.total > 0 {
		const most = 40
		width, _, err := term.GetSize(int(p.w.Fd()))
		if err != nil || width == 0 {
			width = pageWidth
		}
		if room := min(most, width-len(count)-5); room > 0 {
			full := int(int64(room) * min(n, p.total) / p.total)
			bar = "[" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "] "
		}
	}
	p.shown = true
	fmt.Fprintf(p.w, "\r%s%s\x1b[K", bar, count)
}

// clear takes the bar away, so that something else can be printed.
func (p *progress) clear() {
	if p == nil || !p.shown {
		return
	}
	p.shown, p.last = false, time.Time{}
	fmt.Fprint(p.w, "\r\x1b[K")
}
