package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"signdrop/spool/durable"
)

// A head file has two slots, at 0 and at 4096, of one line of text each:
//
//	signdrop-journal-head 00000003 0000000000000001234 HASH 0000000000000005678 HASH CHECK
//
// with the number of the journal file; the bytes of it that were durable when the
// last group was written, and the SHA-256 of the last line within them; the bytes
// with that group, and its last line's; and the first 8 bytes of the SHA-256 of the
// text before. The slots are written in turn, so that one is whole whenever the power
// is cut. The one that reaches further counts.
const (
	headWord   = "signdrop-journal-head"
	headForm   = headWord + " %08d %019d %x %019d %x "
	headSlot   = 4096 // offset of the second
	headLength = len(headWord) + 1 + 8 + 2*(1+19+1+64) + 1 + 16 + 1
)

// head is the content of a slot. Its tips have no seq and no time.
type head struct {
	durable tip // has survived a sync
	group   tip // the end of the last group, which may not have; or the same
}

func (h head) text() []byte {
	b := fmt.Appendf(nil, headForm, h.durable.file, h.durable.size, h.durable.hash, h.group.size, h.group.hash)
	sum := sha256.Sum256(b)
	return append(hex.AppendEncode(b, sum[:8]), '\n')
}

// newHead is the content of a new head file. It has both slots, so that writing one
// never changes the size of the file.
func newHead(t tip) []byte {
	b := make([]byte, headSlot+headLength)
	copy(b, head{t, t}.text())
	return b
}

// parseHead reads a slot.
func parseHead(slot []byte, file uint32) (head, bool) {
	var h head
	var hash, groupHash []byte
	n, err := fmt.Sscanf(string(slot), headForm, &h.durable.file, &h.durable.size, &hash, &h.group.size, &groupHash)
	if err != nil || n != 5 || len(hash) != 32 || len(groupHash) != 32 {
		return head{}, false
	}
	h.group.file = h.durable.file
	h.durable.hash, h.group.hash = [32]byte(hash), [32]byte(groupHash)
	ok := h.durable.file == file && h.durable.size > 0 && h.group.size >= h.durable.size
	return h, ok && bytes.Equal(h.text(), slot)
}

// readHead reads the head of a journal file under the given name.
func readHead(dir durable.Dir, name string, file uint32) (head, error) {
	b, err := durable.ReadFile(dir, name, 1<<16)
	if err != nil {
		return head{}, fmt.Errorf("reading the journal's head: %w", err)
	}
	var best head
	for _, off := range []int{0, headSlot} {
		if len(b) < off+headLength {
			continue
		}
		h, ok := parseHead(b[off:off+headLength], file)
		if !ok {
			continue
		}
		// Close notes the exact end without a group, so that both slots can
		// announce the same: then the one that knows more to be durable is newer.
		if h.group.size > best.group.size || h.group.size == best.group.size && h.durable.size >= best.durable.size {
			best = h
		}
	}
	if best.durable.size == 0 {
		return head{}, &Fault{File: name, What: "the head is damaged: neither of its slots can be read"}
	}
	return best, nil
}
