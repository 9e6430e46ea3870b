package journal

// AppendEvent is appendEvent, for a benchmark.
var AppendEvent = appendEvent

// NewHead is the head of a file that ends after size bytes with a line of that hash.
func NewHead(file uint32, size int64, hash [32]byte) []byte {
	return newHead(tip{file: file, size: size, hash: hash})
}

// MaxCounts is for how many wallets counts are kept.
const MaxCounts = maxCounts

// Counts is how many are kept at present.
func (j *Journal) Counts() int { return len(j.counts.of) }

// Pending is how many index entries wait for the group to be synced.
func (j *Journal) Pending() int { return len(j.pending) }
