package guest

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

// ask is a request to the disk, as qemu makes it.
func ask(t *testing.T, d *Disk, kind uint16, data []byte, off int64) {
	t.Helper()
	var code uint32
	if !d.carryOut(kind, data, off, &code) || code != 0 {
		t.Fatalf("request %d at %d: code %d", kind, off, code)
	}
}

func block(b byte) []byte { return bytes.Repeat([]byte{b}, BlockSize) }

// TestDiskCut: what was flushed stays; what was not is there in any of its versions,
// each block for itself, and all of that happens.
func TestDiskCut(t *testing.T) {
	d, err := NewDisk(filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "s"), 8*BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	seen := map[string]bool{}
	for seed := range uint64(200) {
		ask(t, d, nbdWrite, append(block('a'), block('a')...), 2*BlockSize)
		ask(t, d, nbdFlush, nil, 0)
		ask(t, d, nbdWrite, block('b'), 2*BlockSize)
		ask(t, d, nbdWrite, append(block('c'), block('c')...), 2*BlockSize)
		got := make([]byte, 2*BlockSize)
		ask(t, d, nbdRead, got, 2*BlockSize)
		if !bytes.Equal(got, append(block('c'), block('c')...)) {
			t.Fatal("what was written is not what is read")
		}
		// Across blocks, and one that was never written.
		ask(t, d, nbdRead, got[:10], 4*BlockSize-5)
		if string(got[:10]) != "ccccc\x00\x00\x00\x00\x00" {
			t.Fatalf("read %q", got[:10])
		}
		d.Cut(rand.New(rand.NewPCG(seed, 0)))
		ask(t, d, nbdRead, got, 2*BlockSize)
		if !bytes.Equal(got[:BlockSize], block(got[0])) || !bytes.Equal(got[BlockSize:], block(got[BlockSize])) {
			t.Fatal("a block was torn")
		}
		seen[string(got[0])+string(got[BlockSize])] = true
		ask(t, d, nbdFlush, nil, 0)
	}
	for _, want := range []string{"aa", "ac", "ba", "bc", "ca", "cc"} {
		if !seen[want] {
			t.Errorf("it never happened that %s was left", want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("it happened that %v was left", seen)
	}
}

// TestDiskFails: nothing is answered after the power has failed, until the cut.
func TestDiskFails(t *testing.T) {
	d, err := NewDisk(filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "s"), 8*BlockSize)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	failing := d.FailAfter(2)
	ask(t, d, nbdWrite, block('a'), 0)
	ask(t, d, nbdRead, make([]byte, 1), 0)
	ask(t, d, nbdFlush, nil, 0)
	select {
	case <-failing:
		t.Fatal("it failed too early")
	default:
	}
	var code uint32
	for _, kind := range []uint16{nbdWrite, nbdFlush, nbdRead} {
		if d.carryOut(kind, block('b'), 0, &code) {
			t.Errorf("request %d was answered without power", kind)
		}
	}
	<-failing
	d.Cut(rand.New(rand.NewPCG(1, 1)))
	got := make([]byte, BlockSize)
	ask(t, d, nbdRead, got, 0)
	if !bytes.Equal(got, block('a')) {
		t.Error("what was written without power is there")
	}
	ask(t, d, nbdFlush, nil, 0)
}
