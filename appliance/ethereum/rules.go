package ethereum

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// rules are what a company's policy says of Ethereum. The zero value is the careful
// one.
type rules struct {
	// Hash allows the operation hash: 32 bytes of which nobody here knows what they
	// mean, and which may be a transaction's.
	Hash bool `json:"hash"`

	// AnyChain allows an authorization for chain 0, which is good on every chain, and
	// typed data whose domain names no chain.
	AnyChain bool `json:"any_chain"`

	// Chains are the only chains that anything may be signed for, in decimal. Without
	// it, all.
	Chains []string `json:"chains"`

	// MaxFee is the most wei that a transaction may cost beside its value.
	MaxFee *string `json:"max_fee"`

	chains []uint64
	fee    *big.Int
}

func parseRules(raw []byte) (ledger.Rules, error) {
	r := &rules{}
	if raw == nil {
		return r, nil
	}
	if err := json.Unmarshal(raw, r, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	if r.Chains != nil && len(r.Chains) == 0 {
		return nil, errors.New("chains is empty: leave it out, or name the chains")
	}
	for _, s := range r.Chains {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < 1 || n > maxChain || strconv.FormatUint(n, 10) != s {
			return nil, fmt.Errorf("chains has %q: write the number of a chain, in quotes", s)
		}
		r.chains = append(r.chains, n)
	}
	if r.MaxFee != nil {
		n, ok := parseNumber(*r.MaxFee)
		if !ok {
			return nil, fmt.Errorf("max_fee is %q: write a number of wei, in quotes", *r.MaxFee)
		}
		r.fee = n
	}
	return r, nil
}

// Allow refuses what the rules do not allow.
func (r *rules) Allow(tx ledger.Tx) error {
	t := tx.(*Tx)
	forbidden := func(field, hint, message string) error {
		return reason.New(reason.PolicyForbids, hint, "%s", message).At("ethereum." + field)
	}
	switch t.op {
	case opHash:
		if !r.Hash {
			return forbidden("hash", `ask for what the hash is of, or for "ethereum": {"hash": true} in the policy`,
				"the policy does not allow a bare hash to be signed")
		}
		return nil
	case opMessage:
		return nil
	}
	field := "chain_id"
	if t.op == opTypedData {
		field = "typed_data.domain.chainId"
	}
	if t.chain == 0 && !r.AnyChain {
		return forbidden(field, `name the chain, or ask for "ethereum": {"any_chain": true} in the policy`,
			"it would be good on every chain")
	}
	if r.chains != nil && !slices.Contains(r.chains, t.chain) {
		return forbidden(field, "use a chain of the policy's", "the policy does not allow this chain")
	}
	if t.fee != nil && r.fee != nil && t.fee.Cmp(r.fee) > 0 {
		return forbidden("gas_limit", "lower gas_limit or the price of gas", "the transaction can cost more than the policy allows")
	}
	return nil
}
