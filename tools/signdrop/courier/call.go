package courier

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"signdrop/appliance/answer"
	"signdrop/appliance/metacoin"
	"signdrop/tools/signdrop/proof"
)

// call is what is sent to the node for one answer.
type call struct {
	method, path, form string

	// again says that sending it twice does no more than sending it once.
	again bool
}

func (c *call) digest() string {
	sum := sha256.Sum256([]byte(c.method + " " + c.path + "\n" + c.form))
	return hex.EncodeToString(sum[:])
}

// renewing are the operations after which the ledger draws a new nonce for the
// signer. A second copy of such a call is refused by the ledger, so it can be sent
// again when nobody knows what became of the first.
//
// The others are once: the ledger leaves the nonce as it is, or there is none, and
// would carry out a second copy too. mrc401_melt renews it only where the item has
// a reserve, mrc401_createtrade_creator only where the creator takes part in the
// payment.
var (
	renewing = set(`transfer multitransfer token_burn token_increase
		mrc010_sell mrc010_reqsell mrc010_unsell mrc010_unreqsell mrc010_buy mrc010_acceptreqsell
		mrc100_payment mrc100_reward mrc400_create mrc400_update
		mrc401_create mrc401_update mrc401_transfer mrc401_sell mrc401_unsell mrc401_buy
		mrc401_auction mrc401_unauction mrc401_bid mrc401_createtrade_buyer
		mrc402_create mrc402_update mrc402_burn mrc402_mint mrc402_transfer mrc402_melt
		mrc402_sell mrc402_unsell mrc402_buy mrc402_auction mrc402_unauction mrc402_bid`)
	once = set(`token_register token_update mrc020_set mrc030_create mrc030_join_voter
		mrc030_join_creator mrc100_log mrc401_melt mrc401_createtrade_creator`)
)

func set(names string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(names) {
		m[n] = true
	}
	return m
}

var (
	walletForm = regexp.MustCompile(`^W_[0-9a-f]{30}$`)
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	pathForm   = regexp.MustCompile(`^(/[A-Za-z0-9_-]+)+$`)
)

// maxLine is the highest number of a line: a header and 100,000 requests.
const maxLine = 100_001

// pass is why an answer is passed over although nothing is wrong with it.
type pass string

func (p pass) Error() string { return string(p) }

// callOf makes the call for an answer. The error is a pass where there is nothing
// to send, and tells otherwise why the answer must not be trusted. pinned is the
// wallet's key as it is known from before, nil if it is not.
func callOf(a *answer.Answer, pinned *proof.Key) (*call, error) {
	switch a.Type {
	case answer.TypeSign, answer.TypeCreate, answer.TypeBind, answer.TypeBatch, answer.TypeRefusal:
	default:
		if a.Submit == nil {
			return nil, pass("a " + a.Type + ": there is nothing to send")
		}
	}
	if a.Ledger != "" && a.Submit == nil {
		// Its further files would be needed to check it, and they may be elsewhere.
		return nil, pass("an answer for " + a.Ledger + ": there is nothing to send to a node of Metacoin")
	}
	f := proof.Check(a, pinned)
	if len(f.Problems) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(f.Problems, "; "))
	}
	switch {
	case a.Verdict == "refused":
		return nil, pass("the appliance refused it: " + a.Code)
	case a.Submit == nil:
		return nil, pass("a " + a.Type + " without submit: there is nothing to send")
	case len(a.Submit.Missing) > 0:
		return nil, pass("another party has still to give " + strings.Join(a.Submit.Missing, ", ") + ": complete the form and send it by hand")
	case !digestForm.MatchString(a.Request) || a.Line < 0 || a.Line > maxLine:
		return nil, fmt.Errorf("request_sha256 or line is not what an appliance writes")
	case !walletForm.MatchString(a.Wallet):
		return nil, fmt.Errorf("wallet is not what an appliance writes")
	}
	c := &call{method: a.Submit.Method, path: a.Submit.Path}
	form := url.Values{}
	for name, value := range a.Submit.Form {
		form.Set(name, value)
	}
	c.form = form.Encode() // a blank is +, and + is %2B
	if !pathForm.MatchString(c.path) || c.form == "" {
		return nil, fmt.Errorf("submit is not what an appliance writes")
	}
	switch a.Type {
	case answer.TypeCreate:
		// Nothing of such an answer is signed: what could be altered without
		// contradicting itself is the key, and docs/operations.md says so.
		if a.Verdict != "created" || c.method != "POST" || c.path != "/address" || len(form) != 1 || form.Get("publickey") != a.PublicKey {
			return nil, fmt.Errorf("submit does not register the wallet's public key")
		}
		return c, nil
	case answer.TypeSign:
		return c, c.check(a)
	}
	return nil, fmt.Errorf("a %s cannot have a submit", a.Type)
}

// check holds the call of a signed operation to the operation's route.
func (c *call) check(a *answer.Answer) error {
	for _, op := range operations()[a.Operation] {
		if op.Method != c.method || !onRoute(c.path, op.Path) {
			continue
		}
		given := a.Submit.Form
		if plainName(op.Signature) && given[op.Signature] != a.Signature {
			return fmt.Errorf("submit has another signature than the answer")
		}
		nonce, there := given[op.Nonce]
		if plainName(op.Nonce) && there && !strings.HasSuffix("|"+a.Payload, "|"+nonce) {
			return fmt.Errorf("submit has another nonce than the signed text")
		}
		c.again = renewing[a.Operation]
		return nil
	}
	return fmt.Errorf("submit is not the call of a %s", a.Operation)
}

// plainName tells a form's field from one inside a list.
func plainName(name string) bool { return name != "" && !strings.Contains(name, "[") }

// onRoute reports whether a path is one of a route such as /token/burn/{tkey}.
func onRoute(path, route string) bool {
	have, want := strings.Split(path, "/"), strings.Split(route, "/")
	if len(have) != len(want) {
		return false
	}
	for i := range want {
		if want[i] != have[i] && !strings.HasPrefix(want[i], "{") {
			return false
		}
	}
	return true
}

// operations are the rows of the ledger's table by name.
var operations = sync.OnceValue(func() map[string][]metacoin.Operation {
	byName := map[string][]metacoin.Operation{}
	for _, op := range metacoin.Operations() {
		if op.Dispatched && op.Method != "" {
			byName[op.Name] = append(byName[op.Name], op)
		}
	}
	return byName
})
