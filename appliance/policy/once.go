package policy

import (
	"crypto/sha256"
	"hash/maphash"
	"sync"

	"signdrop/appliance/reason"
)

// Memory knows what was signed before.
type Memory interface {
	// TextFor returns the SHA-256 of the newest text that was signed for the
	// wallet and nonce of a ledger, and whether there is one.
	TextFor(company, wallet, ledger, nonce string) (text [32]byte, known bool, err error)
}

// Once sees to it that only one text is signed for a wallet and nonce: what is on
// record is in the Memory, what is under way is here.
type Once struct {
	memory  Memory
	seed    maphash.Seed
	stripes [256]stripe
}

// use is what a text uses up.
type use struct{ company, wallet, ledger, nonce string }

// stripe guards the uses whose hash falls to it. Its lock is held while the
// memory is asked, so that two requests for one nonce cannot both find it free.
type stripe struct {
	mu   sync.Mutex
	held map[use]*holding
}

type holding struct {
	text  [32]byte
	owner any
	count int
}

// NewOnce returns a Once over the memory of the past.
func NewOnce(m Memory) *Once {
	return &Once{memory: m, seed: maphash.MakeSeed()}
}

// hold reserves the use for a text. The same text may be held several times, for
// requests that ask for the same; another text is refused.
func (o *Once) hold(u use, text string, replace bool, owner any) (release func(), err error) {
	sum := sha256.Sum256([]byte(text))
	s := &o.stripes[maphash.Comparable(o.seed, u)%uint64(len(o.stripes))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[u]; h != nil && h.text != sum {
		if h.owner == owner {
			return nil, used()
		}
		// What the other becomes is not known yet, so this is not for good.
		return nil, reason.New(reason.NonceBusy, "drop the request again",
			"another text for this wallet and nonce is being decided").At("metacoin.nonce")
	}
	old, known, err := o.memory.TextFor(u.company, u.wallet, u.ledger, u.nonce)
	if err != nil {
		return nil, err
	}
	if known && old != sum && !replace {
		return nil, used()
	}
	h := s.held[u]
	if h == nil {
		h = &holding{text: sum, owner: owner}
		if s.held == nil {
			s.held = map[use]*holding{}
		}
		s.held[u] = h
	}
	h.count++
	return func() { s.drop(u) }, nil
}

func (s *stripe) drop(u use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[u]
	if h.count--; h.count == 0 {
		delete(s.held, u)
	}
}

func used() error {
	return reason.New(reason.NonceUsed,
		`fetch the wallet's present nonce; to replace the signed text on purpose say "replace": true`,
		"another text was signed for this wallet and nonce").At("metacoin.nonce")
}
