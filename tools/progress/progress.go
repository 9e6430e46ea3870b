// Package progress draws a bar on a terminal while something takes long. Where
// there is no terminal there is no bar: a pipe gets what the caller prints.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// IsTerminal reports whether w is one.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Bar is a bar on a terminal. A nil *Bar is none, and may be used.
type Bar struct {
	w     *os.File
	what  string // what is counted: "files"
	Total int64  // 0: not known, and no bar but a count
	shown bool
	last  time.Time
}

// New returns nil unless w is a terminal.
func New(w io.Writer, what string, total int64) *Bar {
	if !IsTerminal(w) {
		return nil
	}
	return &Bar{w: w.(*os.File), what: what, Total: total}
}

// redraw is how often the bar changes at most: oftener nobody can read, and a
// slow terminal would hold up the work.
const redraw = 100 * time.Millisecond

// Begin begins to count something else, up to the same number.
func (p *Bar) Begin(what string) {
	if p != nil {
		p.what, p.last = what, time.Time{}
	}
}

// Set shows that n are done, and a note such as "2 refused".
func (p *Bar) Set(n int64, note string) {
	if p == nil || n < p.Total && time.Since(p.last) < redraw {
		return
	}
	p.last = time.Now()
	count := fmt.Sprintf("%d %s", n, p.what)
	if p.Total > 0 {
		count = fmt.Sprintf("%d/%d %s", n, p.Total, p.what)
	}
	if note != "" {
		count += ", " + note
	}
	bar := ""
	if p.Total > 0 {
		const most = 40
		width, _, err := term.GetSize(int(p.w.Fd()))
		if err != nil || width == 0 {
			width = 80
		}
		if room := min(most, width-len(count)-5); room > 0 {
			full := int(int64(room) * min(n, p.Total) / p.Total)
			bar = "[" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "] "
		}
	}
	p.shown = true
	fmt.Fprintf(p.w, "\r%s%s\x1b[K", bar, count)
}

// Clear takes the bar away, so that something else can be printed.
func (p *Bar) Clear() {
	if p == nil || !p.shown {
		return
	}
	p.shown, p.last = false, time.Time{}
	fmt.Fprint(p.w, "\r\x1b[K")
}
