package policy

import (
	"hash/maphash"
	"sync"

	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// Memory knows what was signed before.
type Memory interface {
	// TextFor returns the SHA-256 of the newest text that was signed for the
	// wallet and nonce of a ledger, whether there is one, and the digest of whom it
	// pays, zero where that is not known.
	TextFor(company, wallet, ledger, nonce string) (text, pays [32]byte, known bool, err error)
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

// hold is one use that is held.
type hold struct {
	stripe *stripe
	use    use
}

// hold reserves the use for a text. The same text may be held several times, for
// requests that ask for the same; another text is refused.
func (o *Once) hold(u use, want *ledger.Signing, replace bool, owner any) (hold, error) {
	sum := want.Text
	s := &o.stripes[maphash.Comparable(o.seed, u)%uint64(len(o.stripes))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[u]; h != nil && h.text != sum {
		if h.owner == owner && replace {
			return hold{}, reason.New(reason.NonceUsed, "leave one of the two out, and drop the replacement when the batch is answered",
				"%s", rival(&want.Use, "is wanted by another line")).At(want.Use.Field)
		}
		if h.owner == owner {
			return hold{}, used(&want.Use)
		}
		// What the other becomes is not known yet, so this is not for good.
		return hold{}, reason.New(reason.NonceBusy, "drop the request again",
			"%s", rival(&want.Use, "is being decided")).At(want.Use.Field)
	}
	old, pays, known, err := o.memory.TextFor(u.company, u.wallet, u.ledger, u.nonce)
	if err != nil {
		return hold{}, err
	}
	if known && old != sum {
		if !replace {
			return hold{}, used(&want.Use)
		}
		// pays is zero too where this version cannot tell what an earlier one knew.
		if want.Use.Pays != [32]byte{} && want.Use.Pays != pays {
			return hold{}, reason.New(reason.NonceUsed, want.Use.Hint+"; a replacement has to pay the same to the same",
				"%s, and it pays otherwise", rival(&want.Use, "was signed")).At(want.Use.Field)
		}
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
	return hold{s, u}, nil
}

func (h hold) drop() {
	s := h.stripe
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.held[h.use]
	if held.count--; held.count == 0 {
		delete(s.held, h.use)
	}
}

func used(u *ledger.Use) error {
	hint := u.Hint + `; to replace the signed text on purpose say "replace": true`
	if u.Shared {
		hint = u.Hint + `; to replace the signed transaction on purpose say "replace": true`
	}
	return reason.New(reason.NonceUsed, hint, "%s", rival(u, "was signed")).At(u.Field)
}

// rival says what has used something up, or may. What a company's wallets use up together
// is spent by a transaction, whichever of them signs it.
func rival(u *ledger.Use, is string) string {
	if u.Shared {
		return "another transaction that spends this " + u.Name + " " + is
	}
	return "another text " + is + " for this wallet and " + u.Name
}
