package guest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
)

// BlockSize is the smallest piece of a Disk that is written whole or not at all, in
// bytes. The guest is told so.
const BlockSize = 4096

// Disk is a disk with a volatile write cache, as real ones have: what was written
// may be lost in a power cut, in any order, until a flush was answered. Qemu's own
// disks lie in files of this machine, and lose nothing when qemu is killed; they
// would not find a program that forgets to sync.
//
// It is served by NBD (the protocol of the nbd project, doc/proto.md), at a Unix
// socket.
type Disk struct {
	file     *os.File // what was flushed
	size     int64
	listener net.Listener
	gone     chan struct{} // closed by serve

	mu      sync.Mutex
	cache   map[int64][][]byte // by block: what was written since the last flush, oldest first
	conn    net.Conn
	left    int           // writes until the power fails, if failing is not nil
	failing chan struct{} // closed when it does
	idle    *sync.Cond    // conn became nil
	counts  Counts
}

// Counts is what a Disk has seen.
type Counts struct {
	Writes, Flushes int
	Lost            int // blocks of which Cut dropped something
}

// NewDisk makes an empty disk of size bytes in a file, and serves it at a socket.
func NewDisk(file, socket string, size int64) (*Disk, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &Disk{file: f, size: size, listener: l, cache: map[int64][][]byte{}, gone: make(chan struct{})}
	d.idle = sync.NewCond(&d.mu)
	go d.serve()
	return d, nil
}

// Close ends the service.
func (d *Disk) Close() error {
	err := d.listener.Close()
	<-d.gone
	return errors.Join(err, d.file.Close())
}

// Counts tells what was done so far.
func (d *Disk) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// FailAfter makes the power fail after n more writes and flushes: nothing is
// answered from then on, and the channel that is returned is closed.
func (d *Disk) FailAfter(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.failing = n, make(chan struct{})
	return d.failing
}

// Cut is what a power cut does to the disk, when the machine is dead: each block
// keeps what was flushed, or anything that was written to it since.
func (d *Disk) Cut(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.conn != nil {
		d.idle.Wait()
	}
	d.failing = nil
	// Some disks lose all they may, others nearly nothing.
	share := []int{0, 2, 2, 10}[rng.IntN(4)] // in tenths
	blocks := make([]int64, 0, len(d.cache))
	for b := range d.cache {
		blocks = append(blocks, b)
	}
	slices.Sort(blocks) // so that a seed gives the same again
	for _, b := range blocks {
		versions := d.cache[b]
		keep := len(versions)
		if rng.IntN(10) >= share {
			keep = rng.IntN(len(versions))
			d.counts.Lost++
		}
		if keep > 0 {
			d.store(b, versions[keep-1])
		}
	}
	clear(d.cache)
}

// store makes a block durable.
func (d *Disk) store(block int64, data []byte) {
	if _, err := d.file.WriteAt(data, block*BlockSize); err != nil {
		panic(fmt.Sprintf("the disk's file cannot be written: %v", err))
	}
}

func (d *Disk) read(p []byte, off int64) error {
	if _, err := d.file.ReadAt(p, off); err != nil {
		return err
	}
	for b := off / BlockSize; b*BlockSize < off+int64(len(p)); b++ {
		versions := d.cache[b]
		if len(versions) == 0 {
			continue
		}
		data, at := versions[len(versions)-1], b*BlockSize-off
		if at < 0 {
			copy(p, data[-at:])
		} else {
			copy(p[at:], data)
		}
	}
	return nil
}

func (d *Disk) write(p []byte, off int64) error {
	if off%BlockSize != 0 || len(p)%BlockSize != 0 {
		return fmt.Errorf("%d bytes at %d are not whole blocks", len(p), off)
	}
	for i := 0; i < len(p); i += BlockSize {
		b := (off + int64(i)) / BlockSize
		d.cache[b] = append(d.cache[b], slices.Clone(p[i:i+BlockSize]))
	}
	d.counts.Writes++
	return nil
}

func (d *Disk) flush() {
	for b, versions := range d.cache {
		d.store(b, versions[len(versions)-1])
	}
	clear(d.cache)
	d.counts.Flushes++
}

// Numbers of the protocol.
const (
	nbdMagic         = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOption        = 0x49484156454f5054 // "IHAVEOPT"
	nbdOptionReply   = 0x3e889045565a9
	nbdRequest       = 0x25609513
	nbdReply         = 0x67446698
	nbdFixedNewstyle = 1 << 0 // of the handshake
	nbdHasFlags      = 1 << 0 // of the export
	nbdSendFlush     = 1 << 2
	nbdOptGo         = 7
	nbdAck           = 1
	nbdInfo          = 3
	nbdUnsupported   = 1<<31 + 1
	nbdRead          = 0
	nbdWrite         = 1
	nbdDisconnect    = 2
	nbdFlush         = 3
	nbdInvalid       = 22 // EINVAL

	nbdLongest = 32 << 20 // bytes of a request
)

func (d *Disk) serve() {
	defer close(d.gone)
	for {
		c, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conn = c
		d.mu.Unlock()
		// An error is the end of the connection, by which the guest's kernel learns.
		if d.greet(c) == nil {
			_ = d.answer(c)
		}
		c.Close()
		d.mu.Lock()
		d.conn = nil
		d.idle.Broadcast()
		d.mu.Unlock()
	}
}

// greet is the handshake. Only the option GO is understood, which is enough for qemu.
func (d *Disk) greet(c io.ReadWriter) error {
	be := binary.BigEndian
	hello := be.AppendUint64(be.AppendUint64(nil, nbdMagic), nbdOption)
	if _, err := c.Write(be.AppendUint16(hello, nbdFixedNewstyle)); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil { // the client's flags
		return err
	}
	for {
		var head struct {
			Magic       uint64
			Option, Len uint32
		}
		if err := binary.Read(c, be, &head); err != nil {
			return err
		}
		if head.Magic != nbdOption || head.Len > 4096 {
			return errors.New("this is not NBD")
		}
		if _, err := io.CopyN(io.Discard, c, int64(head.Len)); err != nil {
			return err
		}
		reply := func(kind uint32, data []byte) error {
			b := be.AppendUint32(be.AppendUint64(nil, nbdOptionReply), head.Option)
			b = be.AppendUint32(be.AppendUint32(b, kind), uint32(len(data)))
			_, err := c.Write(append(b, data...))
			return err
		}
		if head.Option != nbdOptGo {
			if err := reply(nbdUnsupported, nil); err != nil {
				return err
			}
			continue
		}
		info := be.AppendUint16(nil, 0) // NBD_INFO_EXPORT
		info = be.AppendUint16(be.AppendUint64(info, uint64(d.size)), nbdHasFlags|nbdSendFlush)
		return errors.Join(reply(nbdInfo, info), reply(nbdAck, nil))
	}
}

// answer carries out what is asked, in order.
func (d *Disk) answer(c io.ReadWriter) error {
	be, in := binary.BigEndian, bufio.NewReaderSize(c, 1<<20)
	for {
		var req struct {
			Magic       uint32
			Flags, Kind uint16
			Handle      uint64
			Offset      uint64
			Len         uint32
		}
		if err := binary.Read(in, be, &req); err != nil {
			return err
		}
		if req.Magic != nbdRequest || req.Len > nbdLongest {
			return errors.New("this is not NBD")
		}
		var data []byte
		switch req.Kind {
		case nbdDisconnect:
			return nil
		case nbdRead, nbdWrite:
			data = make([]byte, req.Len)
		}
		if req.Kind == nbdWrite {
			if _, err := io.ReadFull(in, data); err != nil {
				return err
			}
		}
		code := uint32(0)
		if !d.carryOut(req.Kind, data, int64(req.Offset), &code) {
			_, err := io.Copy(io.Discard, in) // the power is off: nobody hears
			return err
		}
		b := be.AppendUint64(be.AppendUint32(be.AppendUint32(nil, nbdReply), code), req.Handle)
		if req.Kind == nbdRead && code == 0 {
			b = append(b, data...)
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

// carryOut is one request. It reports whether there is still power.
func (d *Disk) carryOut(kind uint16, data []byte, off int64, code *uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failing != nil && kind != nbdRead {
		if d.left == 0 {
			close(d.failing)
		}
		d.left--
	}
	if d.failing != nil && d.left < 0 {
		return false
	}
	var err error
	switch {
	case off < 0 || off+int64(len(data)) > d.size:
		err = io.ErrUnexpectedEOF
	case kind == nbdRead:
		err = d.read(data, off)
	case kind == nbdWrite:
		err = d.write(data, off)
	case kind == nbdFlush:
		d.flush()
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		*code = nbdInvalid
	}
	return true
}
