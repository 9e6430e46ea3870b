package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// Targets of the design, in milliseconds.
const (
	wantP50 = 3
	wantP99 = 15
)

// patience is how long an answer may take before the run is given up.
const patience = 30 * time.Second

// latency measures the way of one request through an idle appliance: from the rename
// that completes it in the inbox until its answer has its name in the outbox.
func (b *bench) latency(string) error {
	v, err := b.newVolume()
	if err != nil {
		return err
	}
	s := &station{v: v}
	defer s.close()
	if err := b.man(s, keyfs.P384, keyfs.RecheckVerify); err != nil {
		return err
	}
	before, err := b.bareAnswer(b.sizes.drops / 2)
	if err != nil {
		return err
	}
	ms, err := b.dropEach(s)
	if err != nil {
		return err
	}
	after, err := b.bareAnswer(b.sizes.drops / 2)
	if err != nil {
		return err
	}
	bare := append(before, after...)
	row := &Row{Name: "latency", P50: median(ms), P99: quantile(ms, 0.99), Memory: s.p.memory,
		Note: fmt.Sprintf("P-384, verify; a file of 2 KiB written, synced with one syncfs and renamed, without the appliance: p50 %.2f ms, p99 %.2f ms",
			median(bare), quantile(bare, 0.99))}
	row.atMost("p50 %v ms", wantP50, row.P50)
	row.atMost("p99 %v ms", wantP99, row.P99)
	b.add(row)
	return s.p.close()
}

// dropEach drops requests one after the other, and gives the time until each was
// answered, in milliseconds.
func (b *bench) dropEach(s *station) ([]float64, error) {
	inbox, err := s.v.inbox()
	if err != nil {
		return nil, err
	}
	defer inbox.Close()
	w, err := watch(filepath.Join(s.v.dir, "spool", company, "outbox"))
	if err != nil {
		return nil, err
	}
	defer w.close()
	if _, err := s.p.do(order{Do: "serve"}); err != nil {
		return nil, err
	}
	var out []float64
	for i := range b.sizes.drops {
		if err := b.ctx.Err(); err != nil {
			return nil, err
		}
		// Long enough that the appliance has nothing left to do, and never in
		// step with anything.
		time.Sleep(10*time.Millisecond + rand.N(10*time.Millisecond))
		took, err := dropOne(inbox, w, s, fmt.Sprintf("idle-%04d", i))
		if err != nil {
			return nil, err
		}
		out = append(out, milliseconds(took))
	}
	rep, err := s.p.do(order{Do: "stop"})
	if err == nil && rep.Refused > 0 {
		err = fmt.Errorf("%d requests were refused", rep.Refused)
	}
	return out, err
}

func dropOne(inbox durable.Dir, w *watcher, s *station, name string) (time.Duration, error) {
	data := s.request(name)
	if err := durable.WriteNew(inbox, name+".json.sig", 0o600, s.v.partner.Sign(data)); err != nil {
		return 0, err
	}
	if err := durable.WriteNew(inbox, "."+name+".part", 0o600, data); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := inbox.Move("."+name+".part", inbox, name+".json"); err != nil {
		return 0, err
	}
	if err := w.wait(name + ".result.json"); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// watcher waits for names in a directory.
type watcher struct {
	fd  int
	buf [64 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte
}

func watch(dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &watcher{fd: fd}, nil
}

func (w *watcher) close() { unix.Close(w.fd) }

// wait waits until a name appears.
func (w *watcher) wait(name string) error {
	for end := time.Now().Add(patience); ; {
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("waited in vain for %s", name)
		}
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(left.Milliseconds())+1); errors.Is(err, unix.EINTR) || n == 0 {
			continue
		} else if err != nil {
			return err
		}
		n, err := unix.Read(w.fd, w.buf[:])
		if err != nil {
			return err
		}
		for at := 0; at < n; {
			ev := (*unix.InotifyEvent)(unsafe.Pointer(&w.buf[at]))
			at += unix.SizeofInotifyEvent
			if unix.ByteSliceToString(w.buf[at:at+int(ev.Len)]) == name {
				return nil
			}
			at += int(ev.Len)
		}
	}
}
