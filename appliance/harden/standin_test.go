package harden

import (
	"errors"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStandIn: descriptor 0 is the directory while Landlock's rules are made, and what
// it was after that. That it helps on a big-endian machine only a kernel of one can
// tell: make guest-test.
func TestStandIn(t *testing.T) {
	dir := t.TempDir()
	is := func() (st unix.Stat_t) {
		t.Helper()
		if err := unix.Fstat(0, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	before := is()
	restore, err := StandIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	var want unix.Stat_t
	if err := unix.Stat(dir, &want); err != nil {
		t.Fatal(err)
	}
	during := is()
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if during.Ino != want.Ino || during.Dev != want.Dev {
		t.Error("descriptor 0 is not the directory")
	}
	if after := is(); after.Ino != before.Ino || after.Dev != before.Dev {
		t.Error("descriptor 0 is not what it was")
	}
	if _, err := StandIn(dir + "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if after := is(); after.Ino != before.Ino || after.Dev != before.Dev {
		t.Error("descriptor 0 is not what it was")
	}
}
