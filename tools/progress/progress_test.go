package progress

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal: what is written to tty is read from screen.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}

func TestBar(t *testing.T) {
	screen, tty := terminal(t)
	b := New(tty, "bytes", 4)
	b.Set(4, "done soon")
	b.Clear()
	var text []byte
	for buf := make([]byte, 1024); !bytes.HasSuffix(text, []byte("\r\x1b[K")); {
		n, err := screen.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, buf[:n]...)
	}
	for _, want := range []string{"[####", "4/4 bytes, done soon"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the terminal shows %q, without %q", text, want)
		}
	}
}

// TestNoTerminal: a pipe gets nothing, and a bar that is none may be used.
func TestNoTerminal(t *testing.T) {
	var out bytes.Buffer
	b := New(&out, "bytes", 4)
	b.Begin("files")
	b.Set(1, "")
	b.Clear()
	if b != nil || out.Len() > 0 {
		t.Errorf("a buffer got a bar: %q", out.String())
	}
}
