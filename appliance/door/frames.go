package door

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02) that we look at
// ourselves.
const (
	fxpInit     = 1
	fxpVersion  = 2
	fxpOpen     = 3
	fxpClose    = 4
	fxpOpendir  = 11
	fxpStatus   = 101
	fxpExtended = 200

	fxOK      = 0
	fxFailure = 4
)

// maxPacket bounds a packet from the client, in bytes. The draft asks for 34,000 at
// least; what clients send in one write is 32 KiB.
const maxPacket = 68 << 10

const fsyncExtension = "fsync@openssh.com"

// frames stands between a channel and pkg/sftp's server and adds what that does not
// do: a lower limit on packets, and fsync@openssh.com. A request for a sync waits
// until everything that was asked for before it has been answered. So does whatever
// comes after an open or a close: pkg/sftp works on several packets at once, and a
// client that guesses a handle before it has been told would have it read a request
// that is being written (a data race in v1.13.12, found by our fuzzing).
type frames struct {
	ch    io.ReadWriteCloser
	flush func() error // makes what was written so far durable
	heard func()       // called for each packet

	in     []byte // the rest of the packet that Read gives out
	buf    []byte
	inited bool
	alone  bool // what comes next waits for what went before

	mu      sync.Mutex
	idle    *sync.Cond // signalled when waiting changes
	waiting int        // requests that have not been answered yet
	closed  bool
	out     []byte // the packet that is being written to us
}

func newFrames(ch io.ReadWriteCloser, flush func() error, heard func()) *frames {
	f := &frames{ch: ch, flush: flush, heard: heard}
	f.idle = sync.NewCond(&f.mu)
	return f
}

// Read gives out the client's packets. Only pkg/sftp's loop calls it.
func (f *frames) Read(p []byte) (int, error) {
	for len(f.in) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.in)
	f.in = f.in[n:]
	return n, nil
}

// next reads one packet. One that we answer ourselves leaves f.in empty.
func (f *frames) next() error {
	var head [4]byte
	if _, err := io.ReadFull(f.ch, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > maxPacket {
		return fmt.Errorf("a packet of %d bytes", n)
	}
	if cap(f.buf) < int(n)+4 {
		f.buf = make([]byte, int(n)+4)
	}
	f.buf = f.buf[:int(n)+4]
	copy(f.buf, head[:])
	body := f.buf[4:]
	if _, err := io.ReadFull(f.ch, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if f.inited == (body[0] == fxpInit) {
		return errors.New("a session begins with one INIT")
	}
	f.inited = true
	f.heard()
	if id, ok := fsyncRequest(body); ok {
		if err := f.settle(); err != nil {
			return err
		}
		return f.answerSync(id)
	}
	if f.alone {
		if err := f.settle(); err != nil {
			return err
		}
	}
	f.alone = body[0] == fxpOpen || body[0] == fxpOpendir || body[0] == fxpClose
	f.mu.Lock()
	f.waiting++
	f.mu.Unlock()
	f.in = f.buf
	return nil
}

// fsyncRequest reads the id of a request for a sync.
func fsyncRequest(body []byte) (id uint32, ok bool) {
	if body[0] != fxpExtended || len(body) < 9 {
		return 0, false
	}
	n := binary.BigEndian.Uint32(body[5:])
	if uint64(n) != uint64(len(fsyncExtension)) || len(body) < 9+len(fsyncExtension) {
		return 0, false
	}
	return binary.BigEndian.Uint32(body[1:]), string(body[9:9+len(fsyncExtension)]) == fsyncExtension
}

// settle waits until everything that was passed on has been answered.
func (f *frames) settle() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.waiting > 0 && !f.closed {
		f.idle.Wait()
	}
	if f.closed {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// answerSync syncs all that this session has written: the handle in the request is
// pkg/sftp's, and syncing more than was asked for is no harm.
func (f *frames) answerSync(id uint32) error {
	code, text := uint32(fxOK), ""
	if err := f.flush(); err != nil {
		code, text = fxFailure, err.Error()
	}
	p := []byte{0, 0, 0, 0, fxpStatus}
	p = binary.BigEndian.AppendUint32(p, id)
	p = binary.BigEndian.AppendUint32(p, code)
	p = appendString(p, text)
	p = appendString(p, "")
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.ch.Write(p)
	return err
}

func appendString(p []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(p, uint32(len(s))), s...)
}

// Write takes pkg/sftp's answers, in whatever pieces, and passes on whole ones.
func (f *frames) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.out = append(f.out, p...)
	for len(f.out) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(f.out))
		if len(f.out) < n {
			break
		}
		packet := f.out[:n]
		if n > 4 && packet[4] == fxpVersion {
			packet = withFsync(packet)
		}
		if _, err := f.ch.Write(packet); err != nil {
			f.closed = true
			f.idle.Broadcast()
			return 0, err
		}
		f.out = append(f.out[:0], f.out[n:]...)
		f.waiting--
		f.idle.Broadcast()
	}
	return len(p), nil
}

// withFsync adds the extension to what the server says it can do.
func withFsync(version []byte) []byte {
	p := append([]byte(nil), version...)
	p = appendString(appendString(p, fsyncExtension), "1")
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// Close implements io.Closer. Whoever waits for an answer waits no longer.
func (f *frames) Close() error {
	f.mu.Lock()
	f.closed = true
	f.idle.Broadcast()
	f.mu.Unlock()
	return f.ch.Close()
}
