package journal

import (
	"errors"
	"fmt"
	"time"
)

// Event is one line of the journal. Fields that are empty are not written; a
// digest of 32 zero bytes is an empty one.
//
// The text fields hold any bytes. A line shows them as encode.go says.
type Event struct {
	// Kind is a lower-case word. The journal itself knows these, and a caller may
	// use any other:
	//
	//	start     the appliance started; first line of a file; written by Open
	//	continue  first line of any other file; written by the journal
	//	stop      the appliance stopped in order; last line; written by Close
	//	line      one line of a batch, part of the next event that is not a line
	//	refused   a file was refused; remembered if Final
	//	signed    with Ledger, Nonce and Text it is found by Nonce, as line is
	Kind string

	Seq  uint64    // from 1, without a gap across files; set by the journal
	Time time.Time // UTC, whole microseconds, never goes back; set by the journal

	Company string
	Name    string   // of the file, as it was claimed
	Line    int      // of a batch, from 1; 0: none
	Request [32]byte // SHA-256 of the request file

	By  string // principal that asked
	Key string // fingerprint of the key that signed the request

	Type string // of the request

	Wallet, Ledger, Operation, Nonce string

	Text      [32]byte // SHA-256 of the text that was signed
	Algorithm string
	Signature string   // base64
	Uses      uint64   // how many signatures of the wallet there are, with this one; set by the journal
	Result    [32]byte // SHA-256 of the answer file

	Code   string // why it was refused
	Final  bool   // the refusal is remembered
	Detail string

	Previous *Previous // on the first line of each file but the first
	Prev     [32]byte  // SHA-256 of the line before; set by the journal
}

// Previous says, on the first line of a file, what counts of the file before.
type Previous struct {
	File string // its name
	Size int64  // its first Size bytes count
	Void int64  // so many bytes follow there and do not count
}

// Kinds that the journal itself writes or looks at.
const (
	kindStart    = "start"
	kindContinue = "continue"
	kindStop     = "stop"
	kindLine     = "line"
	kindRefused  = "refused"
	kindSigned   = "signed"
)

// MaxLine is the longest line, in bytes. A request of 1 MiB whose every byte is
// written as three fits.
const MaxLine = 4 << 20

// maxText is what the text fields of an event may have together, in bytes.
const maxText = 5 << 18

// opens says whether the event is the first line of a file.
func (e *Event) opens() bool { return e.Kind == kindStart || e.Kind == kindContinue }

// remembered says whether the event is found by Request.
func (e *Event) remembered() bool {
	switch e.Kind {
	case kindStart, kindContinue, kindStop, kindLine:
		return false
	case kindRefused:
		return e.Final && e.Request != [32]byte{}
	}
	return e.Request != [32]byte{}
}

// holdsNonce says whether the event is found by Nonce.
func (e *Event) holdsNonce() bool {
	return (e.Kind == kindSigned || e.Kind == kindLine) && e.Ledger != "" && e.Nonce != "" && e.Text != [32]byte{}
}

// Holder says whose use of Nonce it is: the wallet's, or "" where the ledger's things
// can be used up once by all wallets of the company together. An output of Bitcoin's is
// one coin, whichever of the wallets signs.
func (e *Event) Holder() string { return HolderOf(e.Wallet, e.Ledger) }

// HolderOf is Event.Holder for a wallet and a ledger.
func HolderOf(wallet, ledger string) string {
	if ledger == "bitcoin" {
		return ""
	}
	return wallet
}

// Check says whether Write will take the event. One event that Write does not take
// keeps its whole group from being written.
func (e *Event) Check() error {
	if !isWord(e.Kind) {
		return fmt.Errorf("event kind %q is not a lower-case word", e.Kind)
	}
	if e.opens() || e.Kind == kindStop || e.Previous != nil {
		return fmt.Errorf("events of kind %q are the journal's own", e.Kind)
	}
	if e.Line < 0 {
		return errors.New("event has a negative line number")
	}
	return e.checkLength()
}

func (e *Event) checkLength() error {
	n := 0
	for _, s := range e.texts() {
		n += len(s)
	}
	if n > maxText {
		return fmt.Errorf("event has %d bytes of text, which is more than the journal's lines hold (%d)", n, maxText)
	}
	return nil
}

func (e *Event) texts() [14]string {
	return [...]string{e.Kind, e.Company, e.Name, e.By, e.Key, e.Type, e.Wallet, e.Ledger, e.Operation, e.Nonce,
		e.Algorithm, e.Signature, e.Code, e.Detail}
}

// isWord accepts 1 to 32 lower-case letters, digits and hyphens, a letter first.
func isWord(s string) bool {
	if s == "" || len(s) > 32 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
