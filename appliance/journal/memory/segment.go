package memory

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"
	"sync"

	"signdrop/spool/durable"
)

// A segment file, all numbers big-endian:
//
//	offset            bytes
//	0                 4096     header page
//	4096              4096·P   record pages
//	4096·(P+1)        16·P     fence: the first key of each page
//	4096·(P+1)+16·P   F        filter, whole blocks of 64
//
//	header page                     record page
//	0     16  "signdrop index 1"    0     24·n  records: key 16, place 8; n = 170,
//	16     8  from: place                       fewer on the last page
//	24    32  from: chain hash      …           zeros
//	56     8  to: place             4080     8  number of the page, from 0
//	64    32  to: chain hash        4092     4  CRC-32C of what is before it
//	96     8  records
//	104    8  P
//	112    8  F
//	120    4  CRC-32C of fence and filter
//	…         zeros
//	4092   4  CRC-32C of what is before it
//
// The records are sorted by key, and no key is there twice. The header is written
// last. The name is FROM-TO.segment, both places in 16 hexadecimal digits.
const (
	magic      = "signdrop index 1"
	pageSize   = 4096
	recordSize = 24
	perPage    = 170
	keySize    = 16

	suffix    = ".segment"
	newSuffix = ".new"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errClosed says that the segment has been replaced by a merge.
var errClosed = errors.New("segment is closed")

func segmentName(from, to uint64) string { return fmt.Sprintf("%016x-%016x%s", from, to, suffix) }

// isSegment says whether name has the form of a segment's name.
func isSegment(name string) bool {
	if len(name) != 33+len(suffix) || name[16] != '-' || name[33:] != suffix {
		return false
	}
	_, err1 := hex.DecodeString(name[:16])
	_, err2 := hex.DecodeString(name[17:33])
	return err1 == nil && err2 == nil
}

// segment is an open segment file. The fence and the filter are in memory.
type segment struct {
	name     string
	from, to Mark
	count    int64
	fence    []byte
	filter   filter

	mu   sync.Mutex   // a durable.File is for one goroutine at a time
	file durable.File // nil when closed
	page [pageSize]byte
}

// openSegment opens a segment and checks all but its record pages, which are
// checked when they are read.
func openSegment(dir durable.Dir, name string) (*segment, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	s := &segment{name: name, file: f}
	if err := s.load(); err != nil {
		f.Close()
		return nil, fmt.Errorf("index file %s: %w", name, err)
	}
	return s, nil
}

func (s *segment) load() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	h := &s.page
	if info.Size < pageSize {
		return errors.New("it is too short")
	}
	if _, err := s.file.ReadAt(h[:], 0); err != nil {
		return err
	}
	if string(h[:16]) != magic || !sealed(h) {
		return errors.New("its header is damaged or of another version")
	}
	be := binary.BigEndian
	s.from = Mark{be.Uint64(h[16:]), [32]byte(h[24:56])}
	s.to = Mark{be.Uint64(h[56:]), [32]byte(h[64:96])}
	count, pages, filter := be.Uint64(h[96:]), be.Uint64(h[104:]), be.Uint64(h[112:])
	const most = 1 << 40 // keeps the sums below from overflowing
	if count > most || pages != (count+perPage-1)/perPage || filter > most || filter == 0 || filter%blockSize != 0 ||
		uint64(info.Size) != pageSize*(1+pages)+keySize*pages+filter {
		return errors.New("its size is not what its header says")
	}
	if s.name != segmentName(s.from.At, s.to.At) {
		return errors.New("its name is not what its header says")
	}
	footer := make([]byte, keySize*pages+filter)
	if _, err := s.file.ReadAt(footer, int64(pageSize*(1+pages))); err != nil {
		return err
	}
	if crc32.Checksum(footer, castagnoli) != be.Uint32(h[120:]) {
		return errors.New("its footer is damaged")
	}
	s.count = int64(count)
	s.fence, s.filter = footer[:keySize*pages:keySize*pages], footer[keySize*pages:]
	return nil
}

// seal writes the checksum of a page into it.
func seal(page *[pageSize]byte) {
	binary.BigEndian.PutUint32(page[pageSize-4:], crc32.Checksum(page[:pageSize-4], castagnoli))
}

func sealed(page *[pageSize]byte) bool {
	return crc32.Checksum(page[:pageSize-4], castagnoli) == binary.BigEndian.Uint32(page[pageSize-4:])
}

func (s *segment) pages() int { return len(s.fence) / keySize }

// records is how many records page n has.
func (s *segment) records(n int) int {
	return int(min(perPage, s.count-int64(n)*perPage))
}

// checkPage says whether the page is page n of the segment, undamaged.
func (s *segment) checkPage(page *[pageSize]byte, n int) error {
	if !sealed(page) || binary.BigEndian.Uint64(page[4080:]) != uint64(n) || !bytes.Equal(page[:keySize], s.fence[n*keySize:][:keySize]) {
		return fmt.Errorf("index file %s: page %d is damaged", s.name, n)
	}
	return nil
}

// get looks a key up. It reads at most one page.
func (s *segment) get(k Key) (at uint64, found bool, err error) {
	if !s.filter.has(k) {
		return 0, false, nil
	}
	// The last page whose first key is not above k.
	n := sort.Search(s.pages(), func(i int) bool { return bytes.Compare(s.fence[i*keySize:][:keySize], k[:]) > 0 }) - 1
	if n < 0 {
		return 0, false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return 0, false, errClosed
	}
	if _, err := s.file.ReadAt(s.page[:], pageSize*int64(1+n)); err != nil {
		return 0, false, err
	}
	if err := s.checkPage(&s.page, n); err != nil {
		return 0, false, err
	}
	count := s.records(n)
	i := sort.Search(count, func(i int) bool { return bytes.Compare(s.page[i*recordSize:][:keySize], k[:]) >= 0 })
	if i == count || !bytes.Equal(s.page[i*recordSize:][:keySize], k[:]) {
		return 0, false, nil
	}
	return binary.BigEndian.Uint64(s.page[i*recordSize+keySize:]), true, nil
}

func (s *segment) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close() // it was only read
		s.file = nil
	}
}
