// Package ledger says what a ledger has to tell the appliance, so that one can be
// added without touching anything but its own package and the list in package
// ledgers.
//
// A ledger parses what is asked for strictly, says exactly what is to be signed with
// which wallet and what that uses up, and writes what the answer says beside the
// signature. It knows no files, no private keys and no clock, and asks no network.
// All that it says follows from the request and the wallets alone, so that an answer
// can be made again byte for byte.
package ledger

import (
	"encoding/base64"
	"strings"

	"github.com/btcsuite/btcd/btcec/v2"

	"signdrop/appliance/answer"
)

// Ledger is one ledger. What may be nil is so for a ledger that has no use for it.
type Ledger struct {
	// Name is the ledger's name in requests, where it is the field that holds what
	// is to be signed, in policies, answers and the journal: lower-case letters.
	Name string

	// Parse reads that field's value, one JSON value that is well formed: valid
	// UTF-8 and no name twice. It is called for several requests at once, and what
	// it returns has nothing of raw's memory. The error is a *reason.Refusal whose
	// Field is relative to the value.
	Parse func(raw []byte) (Tx, error)

	// Finds: what is to be signed says itself which keys it wants, and a request for
	// it names no wallet.
	Finds bool

	// Document is set where a whole file can be what is to be signed.
	Document *Document

	// Rules reads the ledger's member of a company's policy.json, strictly: an
	// unknown field is an error, since a misspelt restriction would be none. nil
	// stands for a policy without it, and never fails: the careful rules. The
	// field may be nil, and then a policy has no such member.
	Rules func(raw []byte) (Rules, error)

	// Addresses names the addresses that the ledger has for a wallet of the wallet's
	// key alone, nil for none. The field may be nil.
	Addresses func(w Wallet) []Address

	// Explain checks an answer of this ledger offline: the signature, and that
	// everything else that it says follows from what was signed. It should share as
	// little as it can with the code that wrote it. nil for Metacoin alone, whose
	// answers are older than this.
	Explain func(a *answer.Answer) *Finding

	// Preview says in words what a Tx that Parse has returned asks to have signed, to
	// somebody who has neither keys nor wallets and wants to know before it is dropped.
	// rules are the company's or the careful ones, nil for a ledger that has none. The
	// Tx can be a stranger's, who wants to mislead: what nothing proves is said to be
	// his word.
	Preview func(tx Tx, rules Rules) *Preview
}

// Document is a kind of file that is no JSON and is signed as it is.
type Document struct {
	Ending string                        // of the file's name: ".psbt"
	Parse  func(data []byte) (Tx, error) // as Ledger.Parse, for the file's bytes
}

// Tx is a transaction, or whatever else a ledger has signed. It does not change.
type Tx interface {
	// Ledger returns the ledger's Name.
	Ledger() string

	// Operation returns what is done, as one word: "transfer". The answer and the
	// journal name it.
	Operation() string

	// Payload returns what is signed as the answer shows it, and is valid UTF-8. It
	// depends on the request alone.
	Payload() string

	// Signings returns everything that has to be signed, in a fixed order, at least
	// one, or a *reason.Refusal with the whole path of the field if the wallets do
	// not suit. ws are the wallets that the request names, at least one.
	Signings(ws []Wallet) ([]Signing, error)

	// Answer fills in what the answer says beside its head, its wallet and public
	// key, its algorithm, operation and payload: at least Signature. sigs are the
	// signatures in base64, one for each Signing.
	Answer(a *answer.Signed, ws []Wallet, sigs []string)
}

// Rules are a ledger's part of a company's policy.
type Rules interface {
	// Allow returns a *reason.Refusal, with the whole path of the field, for a Tx
	// that the company may not have signed.
	Allow(tx Tx) error
}

// Wallet is what is known of a wallet.
type Wallet struct {
	ID        string
	Curve     string // "P-256", "P-384", "P-521" or "secp256k1"
	PublicPEM string // SubjectPublicKeyInfo
	Address   string // of Metacoin, that the wallet is bound to, "" for none
}

// Point returns the public key of a secp256k1 wallet as 65 bytes, 4 || x || y (SEC 1,
// section 2.3.3), nil for any other.
func (w Wallet) Point() []byte {
	body, ok := strings.CutPrefix(w.PublicPEM, "-----BEGIN PUBLIC KEY-----\n")
	if !ok || w.Curve != "secp256k1" {
		return nil
	}
	body, _, _ = strings.Cut(body, "-")
	der, err := base64.StdEncoding.DecodeString(body) // it passes over line breaks
	// Before the point stand 23 bytes that name the curve.
	if err != nil || len(der) != 23+65 || der[23] != 4 {
		return nil
	}
	return der[23:]
}

// Address is an address of a wallet, with a name for its kind.
type Address struct {
	Name  string // "ethereum"
	Value string
}

// Scheme is how a digest is signed.
type Scheme int

// The schemes; keyfs says what bytes they make.
const (
	ECDSA Scheme = iota
	ECDSARecoverable
	Schnorr
)

// Signing is one signature that a Tx needs.
type Signing struct {
	Wallet    int      // which of the wallets signs, from 0
	Text      [32]byte // SHA-256 of what is signed: what the journal keeps of it
	Digest    []byte   // what goes to the signer
	Scheme    Scheme
	Algorithm string // scheme, curve and hash, such as "ecdsa-p384-sha384"
	Use       Use
	Input     *Input // instead of Scheme, for an input of a Bitcoin transaction
}

// Input says with which key of a wallet an input of a Bitcoin transaction is signed,
// and how.
type Input struct {
	Schnorr bool             // BIP-340, otherwise ECDSA as DER
	Tweaked bool             // with Schnorr: with the key of the output (BIP-341)
	Path    []uint32         // from the master key (BIP-32); nil for a wallet with a single key
	Public  []byte           // the key, 33 bytes, or 32 of Taproot
	Point   *btcec.PublicKey // the same as a point, nil if nobody has made one of it
	Root    []byte           // with Tweaked: of the tree of scripts, nil for none
}

// Use is what a signature uses up of its wallet, so that only one text is ever
// signed for it. The zero value uses nothing up.
type Use struct {
	// Key names it among all that the wallet can use up on this ledger, at most 200
	// bytes: Metacoin's nonce, "chain:nonce", "txid:vout". "" for nothing.
	Key string

	// Shared: the company's wallets can use it up once together, as several may have
	// a part in it. The journal knows by the ledger's name which those are.
	Shared bool

	// Pays is a digest of who gets what, where the ledger can tell: another text for
	// the same Key then has to pay the same, also where replacing is allowed. Zero
	// where it cannot.
	Pays [32]byte

	Field string // where the request says it: "metacoin.nonce"
	Name  string // what it is called, for people: "nonce"
	Hint  string // what to do when it is used up: "fetch the wallet's present nonce"
}

// Finding is what Explain has found.
type Finding struct {
	Signed   bool     // the answer's signature verifies over its payload with its public key
	Problems []string // why the answer must not be trusted; none if it is sound
	Fields   []Field  // what was signed, in words
}

// Preview is what there is to say of a Tx before it is signed.
type Preview struct {
	Fields     []Field  // what would be signed, in words
	NotCovered []string // what the signature would not hold, as an answer says it
	AlsoMeans  []string // what else the signature could be used for, likewise

	// Refusals are why it would be refused with these rules, whatever the wallets: each a
	// *reason.Refusal with the whole path of the field. There are others that only the
	// appliance can know.
	Refusals []error
}

// Field is one thing that was signed, with its name in a request.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
