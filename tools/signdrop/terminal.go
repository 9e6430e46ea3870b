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
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	bar "signdrop/tools/progress"
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

// oneLine shows where a text has line breaks, of which printable makes one mark for all.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", `\n`) }

// inLine writes a value where others follow in the same line. What could be taken for one
// more stands in quotes.
func inLine(value string) string {
	if strings.ContainsAny(value, ` ="`) {
		return strconv.Quote(value)
	}
	return oneLine(value)
}

// isTerminal reports whether w is one.
func isTerminal(w any) bool { return bar.IsTerminal(w) }

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

// progress is the bar that both programs show. A nil one is none.
type progress bar.Bar

// newProgress returns nil unless w is a terminal.
func newProgress(w io.Writer, what string, total int64) *progress {
	return (*progress)(bar.New(w, what, total))
}

func (p *progress) begin(what string)        { (*bar.Bar)(p).Begin(what) }
func (p *progress) set(n int64, note string) { (*bar.Bar)(p).Set(n, note) }
func (p *progress) clear()                   { (*bar.Bar)(p).Clear() }
