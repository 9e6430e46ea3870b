package journal

import (
	"crypto/sha256"
	"encoding/binary"

	"signdrop/appliance/journal/memory"
)

// The keys of the index are truncated SHA-256 of a tag and the fields, each with
// its length in four bytes before it.

// requestKey finds the verdict on a request; there should be one, and if there are
// more the first counts.
func requestKey(company string, digest *[32]byte) memory.Key {
	return newKey(false, "request", company, string(digest[:]))
}

// nonceKey finds the text that was signed for a nonce; the latest counts, which is
// a replacement that policy allowed.
func nonceKey(company, wallet, ledger, nonce string) memory.Key {
	return newKey(true, "nonce", company, wallet, ledger, nonce)
}

// walletKey finds the newest signature of a wallet, whose line says how many there are.
func walletKey(company, wallet string) memory.Key {
	return newKey(true, "wallet", company, wallet)
}

func newKey(latest bool, fields ...string) memory.Key {
	b := make([]byte, 0, 256)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return memory.NewKey(sha256.Sum256(b), latest)
}

// appendEntries appends the index entries of an event that stands at the place at,
// without the one of its wallet: of those a group needs the newest only.
func appendEntries(es []memory.Entry, e *Event, at uint64) []memory.Entry {
	if e.remembered() {
		es = append(es, memory.Entry{Key: requestKey(e.Company, &e.Request), At: at})
	}
	if e.holdsNonce() {
		es = append(es, memory.Entry{Key: nonceKey(e.Company, e.Holder(), e.Ledger, e.Nonce), At: at})
	}
	return es
}

// offsetBits of a place are the offset, the others the number of the file: 64 GiB a
// file, 268 million files.
const offsetBits = 36

func place(file uint32, offset int64) uint64 { return uint64(file)<<offsetBits | uint64(offset) }

func placeOf(at uint64) (file uint32, offset int64) {
	return uint32(at >> offsetBits), int64(at & (1<<offsetBits - 1))
}
