package appliance_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/bitcoin"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
	"signdrop/keyfs/hd"
	"signdrop/spool"
)

// A private key on secp256k1 in WIF.
const paymentWIF = "L4rK1yDtCWekvXuE6oXD9jCYfFNV2cWRpVuPLBcCU2z8TrisoyY1"

// treasury is a rig with wallets that hold bitcoins.
type treasury struct {
	*rig
	beta  *testbed.Partner
	n     int
	serve func() (stop func())
}

// newTreasury begins one whose company acme has the policy, "" for none.
func newTreasury(t testing.TB, policy string) *treasury {
	r := newRig(t, "beta")
	if policy != "" {
		r.ok(os.WriteFile(r.path("db", "companies", "acme", "policy.json"), []byte(policy), 0o600))
	}
	return &treasury{rig: r, beta: testbed.NewPartner("beta"), serve: r.serve}
}

// ask drops a request under a name of its own and returns what becomes of it, and the
// name without its ending. Of a refusal nothing may lie in the outbox.
func (y *treasury) ask(p *testbed.Partner, ending string, data []byte) (*answer.Answer, string) {
	y.t.Helper()
	y.n++
	base := fmt.Sprintf("pay%d", y.n)
	y.drop(p, base+ending, data)
	result := y.path("spool", p.Company, "outbox", answerName(base+strings.TrimSuffix(ending, ".age")))
	if ending == ".psbt" {
		result = y.path("spool", p.Company, "outbox", base+".result.json")
	}
	refusal := y.path("spool", p.Company, "rejected", base+".reason.json")
	y.until(base+" is decided", func() bool { return exists(result) || exists(refusal) })
	if exists(refusal) {
		list, err := os.ReadDir(y.path("spool", p.Company, "outbox"))
		y.ok(err)
		for _, e := range list {
			if strings.HasPrefix(e.Name(), base+".") || strings.HasPrefix(e.Name(), base+"-") {
				y.t.Errorf("%s is visible, and the request is refused", e.Name())
			}
		}
		return y.parse([]byte(y.read("spool", p.Company, "rejected", base+".reason.json"))), base
	}
	text, err := os.ReadFile(result)
	y.ok(err)
	return y.parse(slices.Collect(bytes.Lines(text))[0]), base
}

// tree makes an HD wallet and returns its accounts and its id.
func (y *treasury) tree(p *testbed.Partner, network, name string) (map[hd.Script]*testbed.Account, string) {
	y.t.Helper()
	a, _ := y.ask(p, ".json", fmt.Appendf(nil, `{"type":"wallet.create","kind":"hd","network":%q,"reference":%q}`, network, name))
	accounts, err := testbed.Accounts(a)
	y.ok(err)
	return accounts, a.Wallet
}

// report is what an answer says of Bitcoin.
func (y *treasury) report(a *answer.Answer) *bitcoin.Report {
	y.t.Helper()
	r := &bitcoin.Report{}
	if a.Verdict != "signed" || a.Ledger != "bitcoin" || a.Operation != "payment" {
		y.t.Fatalf("it is %s: %s: %s at %s", a.Verdict, a.Code, a.Message, a.Field)
	}
	y.ok(json.Unmarshal(a.Own["bitcoin"], r))
	return r
}

// signed drops a PSBT of acme's and wants so many signatures.
func (y *treasury) signed(psbt []byte, signatures int, complete bool) *bitcoin.Report {
	y.t.Helper()
	a, base := y.ask(y.acme, ".psbt", psbt)
	r := y.report(a)
	if len(r.Signed) != signatures || r.Complete != complete {
		y.t.Errorf("%s: %d signatures, complete %t; want %d, %t", base, len(r.Signed), r.Complete, signatures, complete)
	}
	return r
}

// refused wants a refusal, and that nothing was signed.
func (y *treasury) refused(what string, ending string, data []byte, code reason.Code, field string) *answer.Answer {
	y.t.Helper()
	a, _ := y.ask(y.acme, ending, data)
	if a.Verdict != "refused" || a.Code != string(code) || a.Field != field {
		y.t.Errorf("%s: %s %s at %q (%s), want %s at %q", what, a.Verdict, a.Code, a.Field, a.Message, code, field)
	}
	return a
}

func inJSON(psbt []byte, more string) []byte {
	return fmt.Appendf(nil, `{"type":"sign","bitcoin":{"psbt":%q}%s}`, base64.StdEncoding.EncodeToString(psbt), more)
}

// payment spends a coin of the account's key 0/i, with the change in the same account.
func payment(a *testbed.Account, coin string, i uint32) *testbed.Payment {
	return testbed.NewPayment().Spend(coin, 100_000, a.Script, a.Key(0, i)).Pay(50_000, 7).Change(49_000, a.Script, a.Key(1, i))
}

// end stops the appliance and checks the volume, on which so many signatures are.
func (y *treasury) end(stop func(), signatures int) {
	y.t.Helper()
	stop()
	if rep := y.check(true); rep.Signed != signatures {
		y.t.Errorf("%d signatures are on record, want %d", rep.Signed, signatures)
	}
	y.empty("work", ".made")
}

// TestPaymentKinds: each kind of output is spent, alone and together, of trees and of
// single keys, and change is known as such.
func TestPaymentKinds(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	n := 0
	main, treeID := y.tree(y.acme, "main", "hot")
	all := testbed.NewPayment()
	for i, s := range hd.Scripts {
		r := y.signed(payment(main[s], "coin of "+string(s), 3).PSBT(), 1, true)
		n++
		if r.Paid != 50_000 || r.Change != 49_000 || r.Fee != 1000 || r.Network != "mainnet" || r.Signed[0].Wallet != treeID || r.Inputs[0].Type != string(s) {
			t.Errorf("%s: %+v", s, r.Description)
		}
		all.Spend(fmt.Sprint("another coin ", i), 50_000, s, main[s].Key(0, 999_999)).Change(49_900, s, main[s].Key(1, 0))
	}
	r := y.signed(all.PSBT(), 4, true)
	n += 4
	if r.Paid != 0 || r.Change != 4*49_900 {
		t.Errorf("all kinds together: %+v", r.Description)
	}

	// A wallet for a test network says so.
	test, _ := y.tree(y.acme, "test", "test")
	r = y.signed(payment(test[hd.P2TR], "test coin", 0).PSBT(), 1, true)
	n++
	if r.Network != "testnet" || !strings.HasPrefix(r.Inputs[0].Address, "tb1p") {
		t.Errorf("on the test network: %+v", r.Description)
	}

	// Single keys, found without an origin, and with somebody's.
	single := y.sealed("wif", fmt.Sprintf(`{"type":"wallet.import","private_key":%q}`, paymentWIF))
	k := testbed.KeyOf(single.PublicKey)
	foreign := testbed.Key{Public: k.Public, Origin: testbed.Stranger("watcher").Origin}
	for _, s := range hd.Scripts {
		for i, key := range []testbed.Key{k, foreign} {
			p := testbed.NewPayment().Spend(fmt.Sprint(s, " single coin ", i), 100_000, s, key).Pay(50_000, 7).Change(49_000, s, key)
			want := int64(49_000)
			if s == hd.P2TR && i == 0 {
				want = 0 // nothing says whose it is
			}
			r := y.signed(p.PSBT(), 1, true)
			n++
			if r.Signed[0].Wallet != single.Wallet || r.Change != want {
				t.Errorf("%s, single key %d: change %d, signed by %s", s, i, r.Change, r.Signed[0].Wallet)
			}
		}
	}

	// Two wallets of the company in one input, and in two.
	second, secondID := y.tree(y.acme, "main", "second")
	a, b := main[hd.P2WPKH].Key(0, 8), second[hd.P2WPKH].Key(0, 8)
	y.signed(testbed.NewPayment().SpendShared("shared", 100_000, 2, a, b).Pay(99_000, 7).PSBT(), 2, true)
	n += 2
	p := payment(main[hd.P2WPKH], "first of two", 9).Spend("second of two", 10_000, hd.P2PKH, second[hd.P2PKH].Key(0, 1)).Pay(9000, 8)
	r = y.signed(p.PSBT(), 2, true)
	n += 2
	if r.Signed[0].Wallet != treeID || r.Signed[1].Wallet != secondID {
		t.Errorf("signed by %+v", r.Signed)
	}
	y.end(stop, n)
}

// TestPaymentSameKeyTwice: a key that belongs to a tree and is a wallet of its own too
// signs whichever way it is named, and a coin is spent once all the same.
func TestPaymentSameKeyTwice(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	single := y.sealed("wif", fmt.Sprintf(`{"type":"wallet.import","private_key":%q}`, paymentWIF))
	twin := y.sealed("twin", fmt.Sprintf(`{"type":"wallet.import","private_key":%q,"reference":"again"}`, paymentWIF))
	if single.Wallet == twin.Wallet {
		t.Fatal("one wallet")
	}
	const words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
	tree := y.sealed("words", fmt.Sprintf(`{"type":"wallet.import","mnemonic":%q,"network":"main"}`, words))
	accounts, err := testbed.Accounts(tree)
	y.ok(err)
	key := accounts[hd.P2WPKH].Key(0, 0) // of BIP-84's example, whose private key is public
	child := y.sealed("child", `{"type":"wallet.import","private_key":"KyZpNDKnfs94vbrwhJneDi77V6jF64PWPF8x5cdJb8ifgg2DUc9d"}`)
	bare := testbed.Key{Public: key.Public}
	if !testbed.KeyOf(child.PublicKey).Public.IsEqual(key.Public) {
		t.Fatal("the key is not that of the tree")
	}
	// In one transaction by both names, and as change.
	p := testbed.NewPayment().Spend("named", 100_000, hd.P2WPKH, key).Spend("bare", 100_000, hd.P2WPKH, bare).
		Pay(150_000, 7).Change(24_000, hd.P2WPKH, key).Change(25_000, hd.P2WPKH, bare)
	r := y.signed(p.PSBT(), 2, true)
	if r.Signed[0].Wallet != tree.Wallet || r.Signed[1].Wallet != child.Wallet || r.Change != 49_000 {
		t.Errorf("%+v, change %d", r.Signed, r.Change)
	}
	// The same coin by the other name, to somebody else.
	for i, k := range []testbed.Key{bare, key} {
		coin := []string{"named", "bare"}[i]
		y.refused(coin, ".psbt", testbed.NewPayment().Spend(coin, 100_000, hd.P2WPKH, k).Pay(99_000, 9).PSBT(), reason.NonceUsed, "inputs[0]")
	}
	y.end(stop, 2)
}

// TestPaymentSameWords: wallets of the same words on two networks have the same
// fingerprint and the same master key. The keys' paths tell which is meant.
func TestPaymentSameWords(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	networks := []string{"main", "test"}
	var wallets []*answer.Answer
	for _, network := range networks {
		wallets = append(wallets, y.sealed(network, fmt.Sprintf(`{"type":"wallet.import","mnemonic":%q,"network":%q}`, vectorWords, network)))
	}
	for i, network := range networks {
		accounts, err := testbed.Accounts(wallets[i])
		y.ok(err)
		a := accounts[hd.P2WPKH]
		r := y.signed(payment(a, network, 1).PSBT(), 1, true)
		if r.Network != network+"net" || r.Signed[0].Wallet != wallets[i].Wallet {
			t.Errorf("%s: signed by %s for %s", network, r.Signed[0].Wallet, r.Network)
		}
		// Another refusal is not taken for that of a network.
		dear := testbed.NewPayment().Spend("dear "+network, 100_000, hd.P2WPKH, a.Key(0, 2)).Pay(50_000, 1).PSBT()
		y.refused("too high a fee, "+network, ".psbt", dear, reason.FeeTooHigh, "")
	}
	y.end(stop, 2)
}

// TestPaymentGuessedNetwork: whoever writes a PSBT can name an HD wallet of a test network
// in it. What single keys spend, which may be worth money, is not passed off as a test.
func TestPaymentGuessedNetwork(t *testing.T) {
	for policy, code := range map[string]reason.Code{"": reason.NetworkMismatch, `{"bitcoin":{"network":"testnet"}}`: ""} {
		y := newTreasury(t, policy)
		stop := y.serve()
		tree, _ := y.tree(y.acme, "test", "test")
		key := testbed.KeyOf(y.sealed("single", `{"type":"wallet.create","curve":"secp256k1"}`).PublicKey)
		both := payment(tree[hd.P2WPKH], "dust", 0).Spend("money", 100_000, hd.P2WPKH, key).Pay(99_000, 7).PSBT()
		signed := 1
		if code == "" {
			y.signed(both, 2, true)
			signed = 3
		} else {
			y.refused("a single key beside a tree of a test network", ".psbt", both, code, "inputs[1]")
		}
		r := y.signed(payment(tree[hd.P2WPKH], "tests", 0).PSBT(), 1, true)
		if r.Network != "testnet" {
			t.Errorf("the tree alone signs for %s", r.Network)
		}
		y.end(stop, signed)
	}
}

// TestPaymentStrangers: what belongs to another company, or to nobody, is not signed,
// and nobody is told which.
func TestPaymentStrangers(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	theirs, _ := y.tree(y.beta, "main", "theirs")
	y.drop(y.beta, "single.json", []byte(`{"type":"wallet.create","curve":"secp256k1"}`))
	single := testbed.KeyOf(y.parse(y.wait("spool", "beta", "outbox", "single.result.json")).PublicKey)
	ours, _ := y.tree(y.acme, "main", "ours")
	stranger := testbed.Stranger("nobody")
	var told []*answer.Answer
	for i, k := range []testbed.Key{stranger, theirs[hd.P2WPKH].Key(0, 1), single} {
		told = append(told, y.refused(fmt.Sprint("stranger ", i), ".psbt",
			testbed.NewPayment().Spend("theirs", 100_000, hd.P2WPKH, k).Pay(99_000, 7).PSBT(), reason.NothingToSign, ""))
	}
	for _, a := range told[1:] {
		if a.Message != told[0].Message || a.Hint != told[0].Hint {
			t.Errorf("%q and %q tell whose it is", a.Message, told[0].Message)
		}
	}
	n := 0
	// Beside ours they are others'.
	r := y.signed(payment(ours[hd.P2WPKH], "ours", 0).Spend("theirs", 9000, hd.P2WPKH, theirs[hd.P2WPKH].Key(0, 1)).Pay(8900, 9).PSBT(), 1, false)
	n++
	if r.Inputs[1].Ours || r.Paid != 58_900 {
		t.Errorf("%+v", r.Description)
	}
	// Two companies, one after the other, in either order; and what is complete is not
	// signed once more.
	shared := testbed.NewPayment().SpendShared("shared", 100_000, 2, ours[hd.P2WPKH].Key(0, 5), theirs[hd.P2WPKH].Key(0, 5)).Pay(99_000, 7).PSBT()
	first := y.signed(shared, 1, false)
	n++
	if first.Missing[0].Signatures != 1 {
		t.Errorf("%+v", first.Missing)
	}
	a, base := y.ask(y.beta, ".psbt", shared)
	y.report(a)
	n++
	part := []byte(y.read("spool", "beta", "outbox", base+"-part.psbt"))
	last := y.signed(part, 1, true)
	n++
	if first.Signed[0].Signature != last.Signed[0].Signature {
		t.Error("another signature for the same input")
	}
	whole := []byte(y.read("spool", "acme", "outbox", fmt.Sprintf("pay%d-signed.psbt", y.n)))
	y.refused("complete", ".psbt", whole, reason.NothingToSign, "")
	y.end(stop, n)
}

// TestPaymentFalse: what is not as it says is refused, with nothing signed.
func TestPaymentFalse(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	main, mainID := y.tree(y.acme, "main", "main")
	test, _ := y.tree(y.acme, "test", "test")
	wpkh := main[hd.P2WPKH]
	odd := func(a *testbed.Account, k testbed.Key, path ...uint32) testbed.Key {
		return testbed.Key{Public: k.Public, Origin: testbed.Origin(a.Fingerprint, path)}
	}
	long := make([]uint32, 8)
	for name, c := range map[string]struct {
		p     *testbed.Payment
		code  reason.Code
		field string
	}{
		"change of somebody": {payment(wpkh, "a", 1).Claim(400, hd.P2WPKH, testbed.Stranger("x"), wpkh.Key(1, 1)), reason.ChangeFalse, "outputs[2]"},
		"change at another path": {payment(wpkh, "a", 1).Claim(400, hd.P2WPKH, wpkh.Key(1, 1), odd(wpkh, wpkh.Key(1, 1), wpkh.Path.Below(1, 2)...)),
			reason.ChangeFalse, "outputs[2]"},
		"change of Taproot": {payment(wpkh, "a", 1).Claim(400, hd.P2TR, testbed.Stranger("x"), main[hd.P2TR].Key(1, 1)), reason.ChangeFalse, "outputs[2]"},
		"origin at another path": {testbed.NewPayment().Spend("a", 100_000, hd.P2WPKH, odd(wpkh, wpkh.Key(0, 1), wpkh.Path.Below(0, 2)...)).Pay(99_000, 1),
			reason.OriginFalse, "inputs[0]"},
		"far index":           {payment(wpkh, "a", 1_000_000), reason.OriginFalse, "inputs[0]"},
		"far change":          {payment(wpkh, "a", 1).Change(100, hd.P2WPKH, wpkh.Key(1, 1_000_000)), reason.ChangeFalse, "outputs[2]"},
		"long path":           {testbed.NewPayment().Spend("a", 100_000, hd.P2WPKH, wpkh.Key(long...)).Pay(99_000, 1), reason.OriginFalse, "inputs[0]"},
		"two networks":        {payment(wpkh, "a", 1).Spend("b", 100_000, hd.P2WPKH, test[hd.P2WPKH].Key(0, 1)).Pay(99_000, 1), reason.NetworkMismatch, ""},
		"change of a network": {payment(wpkh, "a", 1).Change(100, hd.P2WPKH, test[hd.P2WPKH].Key(0, 1)), reason.NetworkMismatch, ""},
		"too high a fee":      {testbed.NewPayment().Spend("a", 100_000, hd.P2WPKH, wpkh.Key(0, 1)).Pay(50_000, 1).Change(44_999, hd.P2WPKH, wpkh.Key(1, 1)), reason.FeeTooHigh, ""},
		"no proof":            {payment(wpkh, "a", 1).Spend("b", 100_000, hd.P2WPKH, wpkh.Key(0, 2)).Pay(99_000, 1).Unproven(1, 99_900), reason.AmountUnproven, "inputs[1]"},
		"another amount":      {payment(main[hd.P2PKH], "a", 1).In(0, 1, []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00")), reason.AmountUnproven, "inputs[0]"},
		"SINGLE":              {payment(wpkh, "a", 1).In(0, 3, []byte{3, 0, 0, 0}), reason.SighashForbidden, "inputs[0]"},
		"the same coin twice": {payment(wpkh, "a", 1).Spend("a", 100_000, hd.P2WPKH, wpkh.Key(0, 1)), reason.InputTwice, "inputs[1]"},
	} {
		data := c.p.PSBT()
		y.refused(name, ".psbt", data, c.code, c.field)
		y.refused(name+" in JSON", ".json", inJSON(data, `,"reference":"r"`), c.code, c.field)
	}
	// An address that is told is one that is signed for.
	last := y.answer("last.json", fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,"script":"p2wpkh","index":999999}`, mainID))
	if got := last.Addresses[0].PublicKey; got != hex.EncodeToString(wpkh.Key(0, 999_999).Public.SerializeCompressed()) {
		t.Errorf("the last address has the key %s", got)
	}
	y.signed(payment(wpkh, "last", 999_999).PSBT(), 1, true)
	y.drop(y.acme, "behind.json", fmt.Appendf(nil, `{"type":"wallet.address","wallet":%q,"script":"p2wpkh","index":1000000}`, mainID))
	if a := y.reason("behind"); a.Code != string(reason.FieldInvalid) || a.Field != "index" || !strings.Contains(a.Hint, "999999") {
		t.Errorf("an address that nothing is signed for: %+v", a)
	}
	if got := y.refused("far", ".psbt", payment(wpkh, "far", 1_000_000).PSBT(), reason.OriginFalse, "inputs[0]"); !strings.Contains(got.Hint, "below 1000000") {
		t.Errorf("the hint is %q", got.Hint)
	}
	// Ten steps are not too many.
	y.signed(testbed.NewPayment().Spend("deep", 100_000, hd.P2WPKH, wpkh.Key(long[:7]...)).Pay(99_000, 1).PSBT(), 1, true)
	y.end(stop, 2)
}

// TestPaymentCodes: each thing that is wrong with a PSBT as such has its code, in a file
// of any form and, where it fits, in JSON.
func TestPaymentCodes(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	main, _ := y.tree(y.acme, "main", "main")
	wpkh := main[hd.P2WPKH]
	pay := func() *testbed.Payment { return payment(wpkh, "coin", 1) }
	good := pay().PSBT()
	many := testbed.NewPayment()
	for i := range 2001 {
		many.Spend(fmt.Sprint("coin ", i), 1000, hd.P2WPKH, wpkh.Key(0, 1))
	}
	bare := wpkh.Key(0, 1)
	bare.Origin = nil
	// A signature that is none, of somebody else's input.
	stranger := testbed.Stranger("bob")
	forged := pay().Spend("theirs", 1000, hd.P2TR, stranger).In(1, 0x13, make([]byte, 64)).Pay(900, 1)
	for name, c := range map[string]struct {
		data  []byte
		code  reason.Code
		field string
	}{
		"outputs above inputs":      {pay().Pay(2000, 1).PSBT(), reason.AmountInvalid, ""},
		"an output of less than 0":  {pay().Pay(-1, 1).PSBT(), reason.AmountInvalid, "outputs[2]"},
		"a script of another":       {pay().In(0, 4, []byte{0, 20}).PSBT(), reason.ScriptMismatch, "inputs[0]"},
		"a forged signature":        {forged.PSBT(), reason.CosignatureInvalid, "inputs[1]"},
		"a key twice":               {pay().In(0, 3, []byte{1, 0, 0, 0}).In(0, 3, []byte{1, 0, 0, 0}).PSBT(), reason.KeyTwice, ""},
		"a key twice in a script":   {testbed.NewPayment().SpendShared("both", 100_000, 2, wpkh.Key(0, 1), bare).Pay(99_000, 1).PSBT(), reason.KeyTwice, "inputs[0]"},
		"bytes after it":            {append(bytes.Clone(good), 0), reason.TrailingBytes, ""},
		"cut off":                   {good[:len(good)-1], reason.PSBTMalformed, ""},
		"a sighash type of 3 bytes": {pay().In(0, 3, []byte{1, 0, 0}).PSBT(), reason.PSBTMalformed, ""},
		"2,001 inputs":              {many.Pay(2_000_000, 1).PSBT(), reason.TooLarge, ""},
		"more than 2 MiB":           {pay().In(0, 0xf0, make([]byte, 2<<20)).PSBT(), reason.TooLarge, ""},
	} {
		if len(c.data) < 700_000 {
			field := c.field
			if field == "" && c.code != reason.AmountInvalid {
				field = "bitcoin"
			}
			y.refused(name+" in JSON", ".json", inJSON(c.data, ""), c.code, field)
		}
		y.refused(name, ".psbt", c.data, c.code, c.field)
		y.refused(name+" in base64", ".psbt", []byte(base64.StdEncoding.EncodeToString(c.data)), c.code, c.field)
		y.refused(name+" in hex", ".psbt", []byte(hex.EncodeToString(c.data)), c.code, c.field)
	}
	// What is as large as can be is signed in every form.
	full := pay()
	full.In(0, 0xf0, make([]byte, 2<<20-len(full.PSBT())-7))
	if n := len(full.PSBT()); n != 2<<20 {
		t.Fatalf("it has %d bytes", n)
	}
	y.signed(full.PSBT(), 1, true)
	y.signed([]byte(base64.StdEncoding.EncodeToString(full.PSBT())), 1, true)
	y.signed([]byte(hex.EncodeToString(full.PSBT())), 1, true)
	y.end(stop, 3)
}

// TestPaymentOnce: an output is spent by one transaction, however it is written, and
// after a start too. Another needs a policy, JSON and the same payees.
func TestPaymentOnce(t *testing.T) {
	for _, policy := range []string{"", `{"replace":true}`} {
		y := newTreasury(t, policy)
		stop := y.serve()
		main, _ := y.tree(y.acme, "main", "main")
		two, _ := y.tree(y.acme, "main", "two")
		key := main[hd.P2WPKH].Key(0, 1)
		shared := func(n byte, origins ...bool) []byte {
			ks := []testbed.Key{main[hd.P2WPKH].Key(0, 2), two[hd.P2WPKH].Key(0, 2), testbed.Stranger("third")}
			for i := range origins {
				if !origins[i] {
					ks[i].Origin = nil
				}
			}
			return testbed.NewPayment().SpendShared("shared", 100_000, 2, ks...).Pay(99_000, n).PSBT()
		}
		pay := func(change int64, n byte) []byte {
			return testbed.NewPayment().Spend("coin", 100_000, hd.P2WPKH, key).Pay(50_000, n).Change(change, hd.P2WPKH, main[hd.P2WPKH].Key(1, 1)).PSBT()
		}
		data := pay(49_000, 7)
		first := y.signed(data, 1, true)
		files := func() string {
			return y.read("spool", "acme", "outbox", fmt.Sprintf("pay%d-signed.psbt", y.n)) + y.read("spool", "acme", "outbox", fmt.Sprintf("pay%d-final.txn", y.n))
		}
		were := files()
		y.signed(shared(7, true, false), 1, false)
		n := 2
		for range 2 {
			// The same, in every form.
			if r := y.signed(data, 1, true); r.Signed[0] != first.Signed[0] || files() != were {
				t.Error("the same bytes have another answer")
			}
			for _, again := range [][]byte{
				[]byte(base64.StdEncoding.EncodeToString(data)), []byte(hex.EncodeToString(data) + "\n"),
			} {
				if r := y.signed(again, 1, true); r.Signed[0] != first.Signed[0] {
					t.Error("the same transaction has another signature")
				}
			}
			a, _ := y.ask(y.acme, ".json", inJSON(data, `,"reference":"again"`))
			if r := y.report(a); r.Signed[0] != first.Signed[0] || r.PSBT == "" || r.Transaction+"\n" != y.read("spool", "acme", "outbox", fmt.Sprintf("pay%d-final.txn", y.n-1)) || len(a.Files) != 0 {
				t.Errorf("in JSON: %+v, %v", r, a.Files)
			}
			// Another.
			got := y.refused("another", ".psbt", pay(48_000, 7), reason.NonceUsed, "inputs[0]")
			if !strings.Contains(got.Hint, "JSON") || strings.Contains(got.Message+got.Hint, "text") || strings.Contains(got.Message, "wallet") {
				t.Errorf("it says %q: %q", got.Message, got.Hint)
			}
			y.refused("another in JSON", ".json", inJSON(pay(48_000, 7), ""), reason.NonceUsed, "inputs[0]")
			// By another wallet's part in the same output.
			y.refused("another part", ".psbt", shared(9, false, true), reason.NonceUsed, "inputs[0]")
			stop()
			stop = y.serve()
		}
		// The two forms of text and the JSON are requests of their own, which are
		// answered from what is on record when they come again.
		n += 3
		y.signed(shared(7, true, true), 2, true) // the other wallet's part of the same
		n += 2
		more := `,"replace":true`
		if policy == "" {
			y.refused("replace without a policy", ".json", inJSON(pay(48_000, 7), more), reason.PolicyForbids, "replace")
			y.end(stop, n)
			continue
		}
		y.refused("replace, another payee", ".json", inJSON(pay(48_000, 8), more), reason.NonceUsed, "inputs[0]")
		// With fewer outputs than the replaced one it could be paid beside another.
		wide := testbed.NewPayment().Spend("wide", 100_000, hd.P2WPKH, key).Spend("wider", 100_000, hd.P2WPKH, key).Pay(50_000, 7).Change(149_000, hd.P2WPKH, key).PSBT()
		y.signed(wide, 2, true)
		for _, coin := range []string{"wide", "wider"} {
			narrow := testbed.NewPayment().Spend(coin, 100_000, hd.P2WPKH, key).Pay(50_000, 7).Change(48_000, hd.P2WPKH, key).PSBT()
			y.refused("replace, fewer outputs", ".json", inJSON(narrow, more), reason.NonceUsed, "inputs[0]")
		}
		a, _ := y.ask(y.acme, ".json", inJSON(pay(48_000, 7), more))
		if r := y.report(a); r.Fee != 2000 {
			t.Errorf("the fee is %d", r.Fee)
		}
		// Back to the first is another again.
		y.refused("back", ".json", inJSON(data, `,"reference":"back"`), reason.NonceUsed, "inputs[0]")
		stop()
		y.empty("work", ".made")
	}
}

// TestPaymentPolicy: the policy's member "bitcoin".
func TestPaymentPolicy(t *testing.T) {
	y := newTreasury(t, "")
	y.admins(1)
	stop := y.serve()
	set := func(policy string) {
		t.Helper()
		y.n++
		name := fmt.Sprintf("set%d.json", y.n)
		y.command(name, fmt.Sprintf(`{"type":"policy.set","company":"acme","policy":%s}`, policy), ann)
		y.done(name)
	}
	for i, bad := range []string{
		`{"max_fees":1}`, `{"network":"main"}`, `{"max_fee":-1}`, `{"max_fee":0}`, `{"max_fee_percent":101}`, `{"max_fee_percent":0}`, `{"network":""}`, `{"sighashes":[]}`, `{"sighashes":[""]}`, `{"sighashes":["all"]}`, `{"witness_amounts":"yes"}`, `[]`, `{"max_fee":1,"max_fee":2}`,
	} {
		name := fmt.Sprintf("bad%d.json", i)
		y.command(name, fmt.Sprintf(`{"type":"policy.set","company":"acme","policy":{"bitcoin":%s}}`, bad), ann)
		y.until(name+" is refused", func() bool { return exists(y.path("spool", "admin", "rejected", fmt.Sprintf("bad%d.reason.json", i))) })
	}
	main, _ := y.tree(y.acme, "main", "main")
	test, _ := y.tree(y.acme, "test", "test")
	wpkh := main[hd.P2WPKH]
	dear := testbed.NewPayment().Spend("dear", 100_000, hd.P2WPKH, wpkh.Key(0, 1)).Pay(50_000, 1).Change(30_000, hd.P2WPKH, wpkh.Key(1, 1)).PSBT()
	cheap := payment(wpkh, "cheap", 1).PSBT()
	open := payment(wpkh, "open", 1).In(0, 3, []byte{0x81, 0, 0, 0}).PSBT()
	stated := payment(wpkh, "stated", 1).Spend("b", 100_000, hd.P2WPKH, wpkh.Key(0, 2)).Pay(99_000, 1).Unproven(1, 0).PSBT()
	onTest := payment(test[hd.P2WPKH], "test", 1).PSBT()
	// A refusal for good stays one, so that each is asked in another form.
	form := func(data []byte, n int) []byte { return inJSON(data, strings.Repeat(" ", n)) }
	for i, c := range []struct {
		policy                           string
		dear, cheap, open, stated, onTst reason.Code
	}{
		{`{}`, reason.FeeTooHigh, "", reason.SighashForbidden, reason.AmountUnproven, ""},
		{`{"bitcoin":{}}`, reason.FeeTooHigh, "", reason.SighashForbidden, reason.AmountUnproven, ""},
		{`{"bitcoin":{"max_fee":999}}`, reason.FeeTooHigh, reason.FeeTooHigh, reason.FeeTooHigh, reason.FeeTooHigh, reason.FeeTooHigh},
		{`{"bitcoin":{"max_fee_percent":40,"network":"mainnet"}}`, "", "", reason.SighashForbidden, reason.AmountUnproven, reason.NetworkMismatch},
		{`{"bitcoin":{"max_fee_percent":-1,"max_fee":19999}}`, reason.FeeTooHigh, "", reason.SighashForbidden, reason.AmountUnproven, ""},
		{`{"bitcoin":{"network":"signet"}}`, reason.NetworkMismatch, reason.NetworkMismatch, reason.NetworkMismatch, reason.NetworkMismatch, ""},
		{`{"bitcoin":{"network":"regtest"}}`, reason.NetworkMismatch, reason.NetworkMismatch, reason.NetworkMismatch, reason.NetworkMismatch, reason.NetworkMismatch},
		{`{"bitcoin":{"sighashes":["ALL|ANYONECANPAY"],"witness_amounts":true}}`, reason.FeeTooHigh, "", "", "", ""},
	} {
		set(c.policy)
		for j, q := range []struct {
			data []byte
			want reason.Code
		}{{dear, c.dear}, {cheap, c.cheap}, {open, c.open}, {stated, c.stated}, {onTest, c.onTst}} {
			a, _ := y.ask(y.acme, ".json", form(q.data, i))
			if a.Code != string(q.want) {
				t.Errorf("%s: payment %d: %s (%s), want %q", c.policy, j, a.Code, a.Message, q.want)
			}
		}
	}
	stop()
	y.check(true)
}

// TestPaymentFields: what a request says beside its PSBT.
func TestPaymentFields(t *testing.T) {
	y := newTreasury(t, `{"max_age":"24h"}`)
	y.admins(1)
	stop := y.serve()
	soon := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	fresh := fmt.Sprintf(`,"not_after":%q`, soon(time.Hour))
	a, _ := y.ask(y.acme, ".json", fmt.Appendf(nil, `{"type":"wallet.create","kind":"hd","network":"main"%s}`, fresh))
	accounts, err := testbed.Accounts(a)
	y.ok(err)
	wallet := a.Wallet
	data := payment(accounts[hd.P2TR], "coin", 1).PSBT()
	got := y.refused("a file that is no JSON", ".psbt", data, reason.FieldMissing, "not_after")
	if !strings.Contains(got.Hint, "JSON") {
		t.Errorf("the hint is %q", got.Hint)
	}
	y.refused("no time", ".json", inJSON(data, ""), reason.FieldMissing, "not_after")
	y.refused("over", ".json", inJSON(data, `,"not_after":"2020-01-01T00:00:00Z"`), reason.Expired, "not_after")
	y.refused("too late", ".json", inJSON(data, fmt.Sprintf(`,"not_after":%q`, soon(48*time.Hour))), reason.PolicyForbids, "not_after")
	y.refused("elsewhere", ".json", inJSON(data, fresh+`,"appliance":"SD_elsewhere"`), reason.ApplianceMismatch, "appliance")
	y.refused("a wallet", ".json", inJSON(data, fresh+fmt.Sprintf(`,"wallet":%q`, wallet)), reason.FieldUnknown, "wallet")
	y.refused("data too", ".json", inJSON(data, fresh+`,"data":{"text":"x","hash":"sha256"}`), reason.FieldInvalid, "data")
	for name, field := range map[string]string{
		`{"psbt":"cHNidP8="}`: "", `{"psbt":"!"}`: "bitcoin.psbt", `{"psbt":""}`: "bitcoin.psbt", `{}`: "bitcoin.psbt", `{"psbt":1}`: "bitcoin", `{"psbt":"","x":1}`: "bitcoin", `"cHNidP8="`: "bitcoin",
	} {
		a, _ := y.ask(y.acme, ".json", fmt.Appendf(nil, `{"type":"sign","bitcoin":%s%s}`, name, fresh))
		if a.Verdict != "refused" || field != "" && a.Field != field {
			t.Errorf("%s: %s %s at %s", name, a.Verdict, a.Code, a.Field)
		}
	}
	for name, text := range map[string]string{
		"lines":                 strings.Replace(string(inJSON(data, fresh)), `"cHNidP`, `"cHNi\ndP`, 1),
		"base64 of hexadecimal": string(inJSON([]byte(hex.EncodeToString(data)), fresh)),
		"base64 of base64":      string(inJSON([]byte(base64.StdEncoding.EncodeToString(data)), fresh)),
	} {
		y.refused(name, ".json", []byte(text), reason.FieldInvalid, "bitcoin.psbt")
	}
	y.command("admin.json", string(inJSON(data, fresh)), ann)
	y.refusedCommand("admin.json", reason.TypeUnknown)
	y.put("admin", "raw.psbt.sig", ann.SignAs(data, auth.NamespaceAdmin))
	y.put("admin", "raw.psbt", data)
	y.wait("spool", "admin", "rejected", "raw.reason.json")

	signed, _ := y.ask(y.acme, ".json", inJSON(data, fresh+fmt.Sprintf(`,"reference":"r 1","appliance":%q`, y.cfg.ID)))
	if y.report(signed); signed.Reference != "r 1" || signed.Wallet != "" || signed.PublicKey != "" {
		t.Errorf("%+v", signed)
	}
	// Encrypted.
	other := payment(accounts[hd.P2TR], "sealed coin", 1).PSBT()
	sealed, _ := y.ask(y.acme, ".json.age", y.seal(string(inJSON(other, fresh))))
	y.report(sealed)

	y.n++
	y.command("off.json", fmt.Sprintf(`{"type":"wallet.disable","company":"acme","wallet":%q}`, wallet), ann)
	y.done("off.json")
	y.refused("disabled", ".json", inJSON(payment(accounts[hd.P2TR], "late", 1).PSBT(), fresh), reason.WalletDisabled, "wallet")
	y.end(stop, 2)
}

// TestPaymentWalletTime: a wallet past its time signs nothing, also beside others.
func TestPaymentWalletTime(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	a, _ := y.ask(y.acme, ".json", []byte(`{"type":"wallet.create","kind":"hd","network":"main","wallet_not_after":"2020-01-01T00:00:00Z"}`))
	if a.NotAfter != "2020-01-01T00:00:00Z" {
		t.Errorf("the answer says that the wallet ends at %q", a.NotAfter)
	}
	old, err := testbed.Accounts(a)
	y.ok(err)
	main, _ := y.tree(y.acme, "main", "main")
	both := payment(main[hd.P2WPKH], "main", 1).Spend("old", 100_000, hd.P2WPKH, old[hd.P2WPKH].Key(0, 1)).Pay(99_000, 1).PSBT()
	y.refused("its time is over", ".psbt", both, reason.WalletDisabled, "wallet")
	y.end(stop, 0)
}

// TestPaymentBatch: lines hold PSBTs, and their answers all.
func TestPaymentBatch(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	main, _ := y.tree(y.acme, "main", "main")
	line := func(coin string, n byte) string {
		p := testbed.NewPayment().Spend(coin, 100_000, hd.P2WPKH, main[hd.P2WPKH].Key(0, 1)).Spend(coin+" too", 100_000, hd.P2TR, main[hd.P2TR].Key(0, 1)).Pay(199_000, n)
		return string(inJSON(p.PSBT(), fmt.Sprintf(`,"reference":%q`, coin))) + "\n"
	}
	bad := string(inJSON(testbed.NewPayment().Spend("x", 1000, hd.P2WPKH, testbed.Stranger("x")).Pay(999, 1).PSBT(), "")) + "\n"

	// All or nothing.
	head := `{"type":"batch","on_error":"abort"}` + "\n"
	for name, c := range map[string]struct {
		last string
		code reason.Code
	}{"stranger": {bad, reason.NothingToSign}, "the same coin": {line("a", 2), reason.NonceUsed}, "no request": {"{}\n", reason.FieldMissing}} {
		got := y.refused(name, ".jsonl", []byte(head+line("a", 1)+line("b", 1)+c.last), c.code, map[reason.Code]string{reason.NonceUsed: "inputs[0]", reason.FieldMissing: "type"}[c.code])
		if got.Line != 4 {
			t.Errorf("%s: line %d", name, got.Line)
		}
	}
	// What was refused has used nothing up.
	var text strings.Builder
	const lines = 130 // more than one goroutine takes
	for i := range lines {
		text.WriteString(line(fmt.Sprint("coin ", i), 1))
	}
	text.WriteString(line("coin 0", 2) + line("coin 0", 1) + bad)
	batch := []byte(`{"type":"batch"}` + "\n" + text.String())
	y.ask(y.acme, ".jsonl", batch)
	first := y.read("spool", "acme", "outbox", fmt.Sprintf("pay%d.result.jsonl", y.n))
	got := strings.SplitAfter(strings.TrimSuffix(first, "\n"), "\n")
	if len(got) != lines+4 {
		t.Fatalf("%d lines", len(got))
	}
	for i, want := range map[int]reason.Code{lines + 1: reason.NonceUsed, lines + 3: reason.NothingToSign} {
		if a := y.parse([]byte(got[i])); a.Code != string(want) {
			t.Errorf("line %d: %s, want %s", i, a.Code, want)
		}
	}
	for _, i := range []int{1, lines, lines + 2} {
		if r := y.report(y.parse([]byte(got[i]))); len(r.Signed) != 2 || r.Transaction == "" {
			t.Errorf("line %d: %+v", i, r)
		}
	}
	stop()
	stop = y.serve()
	y.ask(y.acme, ".jsonl", batch)
	if again := y.read("spool", "acme", "outbox", fmt.Sprintf("pay%d.result.jsonl", y.n)); again != first {
		t.Error("the same batch has another answer")
	}
	y.end(stop, 2*(lines+1))
}

// TestPaymentBatchTooLarge: a batch's transactions have a limit of their own.
func TestPaymentBatchTooLarge(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	main, _ := y.tree(y.acme, "main", "main")
	p := payment(main[hd.P2WPKH], "coin", 1)
	small := string(inJSON(p.PSBT(), "")) + "\n"
	large := string(inJSON(p.In(0, 0xf0, make([]byte, 740_000)).PSBT(), "")) + "\n"
	n := 16<<20/len(large) + 1
	y.refused("17 MiB", ".jsonl", []byte(small+strings.Repeat(large, n)), reason.BatchTooLong, "")
	y.end(stop, 0)
}

// TestPaymentKeyTrouble: a wallet that cannot be used makes no other sign alone, and
// the verdict passes when it is mended.
func TestPaymentKeyTrouble(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	one, _ := y.tree(y.acme, "main", "one")
	two, id := y.tree(y.acme, "main", "two")
	both := testbed.NewPayment().Spend("one", 100_000, hd.P2WPKH, one[hd.P2WPKH].Key(0, 1)).Spend("two", 100_000, hd.P2WPKH, two[hd.P2WPKH].Key(0, 1)).Pay(199_000, 1).PSBT()
	stop()
	alone := testbed.NewPayment().Spend("two", 100_000, hd.P2WPKH, two[hd.P2WPKH].Key(0, 1)).Pay(99_000, 1).PSBT()
	for _, c := range []struct {
		file  string
		known bool // the wallets are known before it is damaged
		data  []byte
	}{{"key.pem", false, both}, {"key.pem", false, alone}, {"wallet.json", true, both}, {"wallet.json", true, alone}, {"wallet.json", false, alone}} {
		path := y.path("db", "companies", "acme", "wallets", id, c.file)
		good, err := os.ReadFile(path)
		y.ok(err)
		spoil := func() {
			y.ok(os.Remove(path))
			y.ok(os.WriteFile(path, good[:len(good)/2], 0o400))
		}
		if !c.known {
			spoil()
		}
		stop = y.serve()
		if c.known {
			a, _ := y.ask(y.acme, ".psbt", testbed.NewPayment().Spend("x", 1000, hd.P2WPKH, testbed.Stranger(fmt.Sprint(y.n))).Pay(999, 1).PSBT())
			if a.Code != string(reason.NothingToSign) {
				t.Errorf("a stranger's: %s", a.Code)
			}
			spoil()
		}
		got := y.refused(c.file, ".psbt", c.data, reason.KeyUnusable, "wallet")
		if !got.Retry {
			t.Errorf("%s: the refusal is for good", c.file)
		}
		y.ok(os.Remove(path))
		y.ok(os.WriteFile(path, good, 0o400))
		stop()
	}
	// Mended while it runs.
	path := y.path("db", "companies", "acme", "wallets", id, "wallet.json")
	good, err := os.ReadFile(path)
	y.ok(err)
	y.ok(os.Remove(path))
	stop = y.serve()
	y.refused("gone", ".psbt", alone, reason.KeyUnusable, "wallet")
	y.ok(os.WriteFile(path, good, 0o400))
	y.signed(both, 2, true)
	y.end(stop, 2)
}

// TestPaymentBranches: the work that a PSBT's paths make is bounded, and a wallet of
// many accounts is not near it.
func TestPaymentBranches(t *testing.T) {
	y := newTreasury(t, "")
	defer y.serve()()
	accounts, _ := y.tree(y.acme, "main", "tree")
	a := accounts[hd.P2WPKH]
	for _, c := range []struct {
		branches uint32
		code     reason.Code
	}{{100, ""}, {101, reason.TooLarge}} {
		p := testbed.NewPayment()
		for chain := range c.branches {
			p.Spend(fmt.Sprint(c.branches, chain), 100_000, hd.P2WPKH, a.Key(chain, 0))
		}
		p.Pay(int64(c.branches)*99_000, 1)
		if c.code == "" {
			y.signed(p.PSBT(), int(c.branches), true)
			continue
		}
		y.refused("too many branches", ".psbt", p.PSBT(), c.code, "")
	}
}

// TestPaymentLeavesOthersAlone: an HD wallet signs transactions of Bitcoin and nothing
// else, and has no addresses of another ledger.
func TestPaymentLeavesOthersAlone(t *testing.T) {
	y := newTreasury(t, "")
	stop := y.serve()
	_, id := y.tree(y.acme, "main", "main")
	y.refused("data", ".json", testbed.DataRequest(id, "x"), reason.FieldInvalid, "wallet")
	y.refused("Ethereum", ".json", testbed.EthereumTransfer(id, "x", 1), reason.FieldInvalid, "wallet")
	list, _ := y.ask(y.acme, ".json", []byte(`{"type":"wallet.list"}`))
	if w := list.Wallets[0]; w.Kind != "hd" || w.Addresses != nil {
		t.Errorf("listed as %+v", w)
	}
	// A text that could be what stands for a transaction.
	single := y.rig.wallet("secp256k1")
	for _, scheme := range []string{"ecdsa", "ecdsa-recoverable", "schnorr"} {
		ask := func(text, hash string) []byte {
			return fmt.Appendf(nil, `{"type":"sign","wallet":%q,"data":{"text":%q,"hash":%q,"scheme":%q}}`, single, text, hash, scheme)
		}
		y.refused(scheme, ".json", ask(strings.Repeat("é", 16), "sha256"), reason.PolicyForbids, "data.text")
		if a, _ := y.ask(y.acme, ".json", ask(strings.Repeat("e", 33), "sha256")); a.Verdict != "signed" {
			t.Errorf("33 bytes: %s", a.Message)
		}
	}
	for _, e := range outboxOf(y.rig) {
		if spool.FurtherOf(e) != "" {
			t.Errorf("%s is visible", e)
		}
	}
	stop()
}
