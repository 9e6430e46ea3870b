package bitcoin

import (
	"crypto/sha256"
	"encoding/base64"
	bigendian "encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/reason"
)

// Ledger is Bitcoin, as the appliance knows it. A request for it holds a PSBT, or is
// one:
//
//	{"type": "sign", "bitcoin": {"psbt": "cHNidP8B…"}}
//
// What Parse returns is a PSBT. It is a ledger.Tx in name only: only NewPayment makes
// one that can be signed, when the PSBT was checked with the company's keys.
var Ledger = ledger.Ledger{
	Name: "bitcoin", Finds: true, Parse: parseField, Rules: parseRules, Explain: explain, Preview: preview,
	Document: &ledger.Document{Ending: ".psbt", Parse: func(data []byte) (ledger.Tx, error) { return asTx(Parse(data)) }},
}

// asTx keeps a nil *PSBT from becoming a Tx.
func asTx(p *PSBT, err error) (ledger.Tx, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

func parseField(raw []byte) (ledger.Tx, error) {
	var v struct {
		PSBT string `json:"psbt"`
	}
	if err := json.Unmarshal(raw, &v, json.RejectUnknownMembers(true)); err != nil {
		return nil, reason.New(reason.FieldInvalid, `write {"psbt":"…"} with the PSBT in base64`, "this is not what is asked for a PSBT")
	}
	data, err := base64.StdEncoding.Strict().DecodeString(v.PSBT)
	if err != nil || len(data) == 0 || strings.ContainsAny(v.PSBT, "\r\n") {
		return nil, reason.New(reason.FieldInvalid, "write the PSBT in base64, on one line", "this is not base64, or it is empty").At("psbt")
	}
	p, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if p.form.text != binary {
		return nil, reason.New(reason.FieldInvalid, "write the binary form of the PSBT in base64", "this is base64 of a text").At("psbt")
	}
	p.inline = true
	return p, nil
}

// Inline reports whether the PSBT came inside a JSON request, whose answer then holds
// what else would be files of its own.
func (p *PSBT) Inline() bool { return p.inline }

// Fingerprints are those of the master keys that the inputs name, each once, in their
// order.
func (p *PSBT) Fingerprints() (list [][4]byte) {
	seen := map[[4]byte]bool{} // a hostile PSBT names tens of thousands
	for _, in := range p.inputs {
		named, _ := in.origins(inDerivation, inTapDerivation)
		for _, k := range named {
			if !seen[k.Fingerprint] {
				seen[k.Fingerprint] = true
				list = append(list, k.Fingerprint)
			}
		}
	}
	return list
}

// Fits reports whether the PSBT can be for one of the Networks: none of its inputs' keys
// is, by its path, for another, and no extended public key.
func (p *PSBT) Fits(name string) bool {
	net := networks[name]
	for _, in := range p.inputs {
		named, _ := in.origins(inDerivation, inTapDerivation)
		if slices.ContainsFunc(named, func(k Key) bool { return !net.fits(k.Path) }) {
			return false
		}
	}
	return !slices.ContainsFunc(p.global.pairs, func(x pair) bool { return x.kind() == globalXpub && !net.fitsXpub([4]byte(x.data())) })
}

// The methods that make a PSBT a ledger.Tx, see Ledger.

// Ledger returns "bitcoin".
func (p *PSBT) Ledger() string { return "bitcoin" }

// Operation returns "payment".
func (p *PSBT) Operation() string { return "payment" }

// Payload returns "": what is signed is in the answer's description.
func (p *PSBT) Payload() string { return "" }

// Signings refuses: nothing was checked yet.
func (p *PSBT) Signings([]ledger.Wallet) ([]ledger.Signing, error) {
	return nil, reason.New(reason.NothingToSign, "make it anew", "the PSBT was not checked")
}

// Answer does nothing.
func (p *PSBT) Answer(*answer.Signed, []ledger.Wallet, []string) {}

// Payment is a checked PSBT with the wallets that its keys belong to.
type Payment struct {
	*PSBT
	tx      *Tx
	wallets []int // of each want
}

// NewPayment says which of the wallets each of tx's wants is for.
func NewPayment(p *PSBT, tx *Tx, wallets []int) *Payment {
	return &Payment{p, tx, wallets}
}

// Signings returns one for each want.
func (p *Payment) Signings([]ledger.Wallet) ([]ledger.Signing, error) {
	text, pays := p.tx.identity(), p.tx.pays()
	hint := "spend another output, or what was signed before; a replacement spends all that it did, and nothing else"
	if !p.inline {
		hint = "spend another output, or what was signed before, or put the PSBT into a JSON request"
	}
	ss := make([]ledger.Signing, len(p.tx.wants))
	for i := range p.tx.wants {
		w := &p.tx.wants[i]
		in := &ledger.Input{Schnorr: w.Scheme == Schnorr, Tweaked: w.Tweaked, Path: w.Key.Path, Public: w.Key.Public, Point: w.Key.Point, Root: w.MerkleRoot}
		algorithm := "ecdsa-secp256k1-sha256d"
		if in.Schnorr {
			algorithm = "schnorr-secp256k1"
		}
		ss[i] = ledger.Signing{Wallet: p.wallets[i], Text: text, Digest: w.Digest[:], Algorithm: algorithm, Input: in, Use: ledger.Use{
			Key: w.Use, Shared: true, Pays: pays, Field: fmt.Sprintf("inputs[%d]", w.Input), Name: "output", Hint: hint,
		}}
	}
	return ss, nil
}

// identity is the SHA-256 of the transaction without any signature: two that differ in
// nothing else are the same payment.
func (t *Tx) identity() [32]byte {
	id := t.tx.TxHash()
	return sha256.Sum256(id[:])
}

// pays is a digest of what others get, whatever comes back as change, and of the outputs
// that it is paid with. A replacement of a transaction has to spend the very same: if it
// spent fewer, another one could spend the others, and both could get into a block and
// pay twice.
func (t *Tx) pays() [32]byte {
	var ins []string
	for _, in := range t.tx.TxIn {
		ins = append(ins, in.PreviousOutPoint.String())
	}
	var outs []string
	for i, o := range t.tx.TxOut {
		if !t.outs[i].change {
			outs = append(outs, string(bigendian.BigEndian.AppendUint64(nil, uint64(o.Value)))+string(o.PkScript))
		}
	}
	slices.Sort(ins)
	slices.Sort(outs)
	h := sha256.New()
	for _, o := range append(ins, outs...) {
		h.Write(bigendian.BigEndian.AppendUint64(nil, uint64(len(o))))
		h.Write([]byte(o))
	}
	return [32]byte(h.Sum(nil))
}

// Signed is the signature of an input in an answer.
type Signed struct {
	Input     int    `json:"input"`
	Wallet    string `json:"wallet"`
	Key       string `json:"key"` // public key, hexadecimal
	Signature string `json:"signature"`
}

// Report is what an answer says of a payment, in its member "bitcoin".
type Report struct {
	*Description `json:",inline"`
	Signed       []Signed `json:"signed"`
	PSBT         string   `json:"psbt,omitempty"`        // base64, where it came so inside JSON
	Transaction  string   `json:"transaction,omitempty"` // hexadecimal, likewise, when complete
}

// Finish puts the signatures in, base64, one for each signing, and makes the answer.
// With verified set they are not verified again, see Tx.Add. The refusal is that of Tx.Finish; any other error is a fault of ours. ids are the
// ids of the wallets.
func (p *Payment) Finish(ids, sigs []string, verified bool) (*Report, []File, error) {
	r := &Report{}
	for i, w := range p.tx.wants {
		sig, err := base64.StdEncoding.DecodeString(sigs[i])
		if err != nil {
			return nil, nil, fmt.Errorf("adding a signature to input %d: %w", w.Input, err)
		}
		if err := p.tx.Add(w, sig, verified); err != nil {
			return nil, nil, err
		}
		r.Signed = append(r.Signed, Signed{w.Input, ids[p.wallets[i]], fmt.Sprintf("%x", w.Key.Public), sigs[i]})
	}
	a, err := p.tx.Finish()
	if err != nil {
		return nil, nil, err
	}
	r.Description = a.Description
	if !p.inline {
		return r, a.Files, nil
	}
	for _, f := range a.Files {
		if f.Suffix == "-final.txn" {
			r.Transaction = string(f.Data[:len(f.Data)-1])
			continue
		}
		r.PSBT = base64.StdEncoding.EncodeToString(f.Data)
	}
	return r, nil, nil
}

// Allow refuses nothing more: Check was told the rules, and nothing else makes a
// payment.
func (r *Rules) Allow(ledger.Tx) error { return nil }

// parseRules reads policy.json's member "bitcoin".
func parseRules(raw []byte) (ledger.Rules, error) {
	r := &Rules{}
	if raw == nil {
		return r, nil
	}
	if err := json.Unmarshal(raw, r, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	// A restriction of nothing would be none.
	var said map[string]jsontext.Value
	if err := json.Unmarshal(raw, &said); err != nil {
		return nil, err
	}
	if said["network"] != nil && !slices.Contains(Networks, r.Network) {
		return nil, fmt.Errorf("network is %q: use one of %v", r.Network, Networks)
	}
	if said["max_fee"] != nil && r.MaxFee <= 0 || said["max_fee_percent"] != nil && (r.MaxFeePercent == 0 || r.MaxFeePercent > 100) {
		return nil, fmt.Errorf("max_fee is in satoshi and above 0, and max_fee_percent from 1 to 100, or less than 0 for no limit")
	}
	if said["sighashes"] != nil && len(r.Sighashes) == 0 {
		return nil, fmt.Errorf("sighashes is empty: leave it out, or name the types that may be signed")
	}
	for _, s := range r.Sighashes {
		if !KnownSighash(s) {
			return nil, fmt.Errorf("sighashes has %q: write names such as ALL|ANYONECANPAY", s)
		}
	}
	return r, nil
}
