// Package answer writes and reads the files that go back to a partner: results
// and reasons. An answer is a pure function of what it says, without a clock or a
// counter, so that the same answer can be made again byte for byte.
//
// docs/formats.md specifies the fields. The writers append JSON by hand, because
// a batch has 100,000 lines; a test compares them with Parse.
package answer

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"signdrop/appliance/reason"
)

// The answers' types.
const (
	TypeSign    = "sign.result"
	TypeCreate  = "wallet.create.result"
	TypeBind    = "wallet.bind.result"
	TypeBatch   = "batch.result"
	TypeRefusal = "refusal"
)

// Head is what all answers begin with.
type Head struct {
	Line      int // of a batch, 0 for a single request
	Reference string
	Request   [32]byte // SHA-256 of the request file
}

// Signed is the answer to a sign request.
type Signed struct {
	Head
	Wallet, Address, PublicKey string // Address "" where the wallet is not bound
	Algorithm, Operation       string // Operation "" for data
	Ledger                     string // where Own is there
	Own                        []byte // JSON object: what the ledger says in a member of its name
	Payload                    string // the exact text that was signed
	Signature                  string // base64
	NotCovered, AlsoMeans      []string
	Submit                     []byte // JSON object, nil for none
}

// Wallet is the answer to wallet.create and wallet.bind.
type Wallet struct {
	Head
	Wallet, Address, Curve, PublicKey string
	NotAfter                          string   // RFC 3339, "" for none
	Bitcoin                           []Member // what an HD wallet has beside these
	Submit                            []byte
}

func member(dst []byte, name, value string) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	dst, err := jsontext.AppendQuote(dst, value)
	if err != nil {
		panic("internal error: an answer's " + name + " is not valid UTF-8")
	}
	return dst
}

func optional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return member(dst, name, value)
}

func list(dst []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return dst
	}
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":[`...)
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst, _ = jsontext.AppendQuote(dst, v)
	}
	return append(dst, ']')
}

func (h *Head) append(dst []byte, typ, verdict string) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, typ...)
	dst = append(dst, '"')
	if h.Line > 0 {
		dst = append(dst, `,"line":`...)
		dst = strconv.AppendInt(dst, int64(h.Line), 10)
	}
	dst = append(dst, `,"verdict":"`...)
	dst = append(dst, verdict...)
	dst = append(dst, '"')
	dst = optional(dst, "reference", h.Reference)
	if h.Request != [32]byte{} {
		dst = append(dst, `,"request_sha256":"`...)
		dst = hex.AppendEncode(dst, h.Request[:])
		dst = append(dst, '"')
	}
	return dst
}

func end(dst, submit []byte) []byte {
	if submit != nil {
		dst = append(dst, `,"submit":`...)
		dst = append(dst, submit...)
	}
	return append(dst, "}\n"...)
}

// Append appends the answer and a line end.
func (s *Signed) Append(dst []byte) []byte {
	dst = s.Head.append(dst, TypeSign, "signed")
	dst = member(dst, "wallet", s.Wallet)
	dst = optional(dst, "address", s.Address)
	dst = member(dst, "public_key", s.PublicKey)
	dst = member(dst, "algorithm", s.Algorithm)
	dst = optional(dst, "operation", s.Operation)
	dst = member(dst, "payload", s.Payload)
	dst = member(dst, "signature", s.Signature)
	dst = list(dst, "not_covered", s.NotCovered)
	dst = list(dst, "also_means", s.AlsoMeans)
	if s.Own != nil {
		dst = member(dst, "ledger", s.Ledger)
		dst = append(dst, `,"`...)
		dst = append(dst, s.Ledger...)
		dst = append(dst, `":`...)
		dst = append(dst, s.Own...)
	}
	return end(dst, s.Submit)
}

// AppendCreated appends the answer to wallet.create.
func (w *Wallet) AppendCreated(dst []byte) []byte {
	return w.append(w.Head.append(dst, TypeCreate, "created"))
}

// AppendBound appends the answer to wallet.bind.
func (w *Wallet) AppendBound(dst []byte) []byte {
	return w.append(w.Head.append(dst, TypeBind, "bound"))
}

func (w *Wallet) append(dst []byte) []byte {
	dst = member(dst, "wallet", w.Wallet)
	dst = optional(dst, "address", w.Address)
	dst = member(dst, "curve", w.Curve)
	dst = member(dst, "public_key", w.PublicKey)
	dst = optional(dst, "not_after", w.NotAfter)
	dst = appendValues(dst, w.Bitcoin)
	return end(dst, w.Submit)
}

// AppendBatch appends the line that answers a batch's first line.
func AppendBatch(dst []byte, request [32]byte, count, refused int) []byte {
	h := Head{Line: 1, Request: request}
	dst = h.append(dst, TypeBatch, "answered")
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendInt(dst, int64(count), 10)
	dst = append(dst, `,"refused":`...)
	dst = strconv.AppendInt(dst, int64(refused), 10)
	return append(dst, "}\n"...)
}

// AppendRefusal appends a refusal: the whole of a reason file, whose name is then
// the refused file's, or a line of a batch's answer, with name "".
func AppendRefusal(dst []byte, h Head, name string, r *reason.Refusal) []byte {
	if h.Line == 0 {
		h.Line = r.Line
	}
	dst = h.append(dst, TypeRefusal, "refused")
	dst = optional(dst, "name", name)
	dst = member(dst, "code", string(r.Code))
	dst = optional(dst, "field", r.Field)
	dst = member(dst, "message", r.Message)
	dst = optional(dst, "hint", r.Hint)
	dst = append(dst, `,"retry":`...)
	dst = strconv.AppendBool(dst, !reason.Final(r.Code))
	return append(dst, "}\n"...)
}

// Answer is any answer, read back. What a type does not have is zero.
type Answer struct {
	Type       string   `json:"type"`
	Line       int      `json:"line"`
	Verdict    string   `json:"verdict"`
	Reference  string   `json:"reference"`
	Request    string   `json:"request_sha256"` // hexadecimal
	Name       string   `json:"name"`
	Wallet     string   `json:"wallet"`
	Address    string   `json:"address"`
	Curve      string   `json:"curve"`
	PublicKey  string   `json:"public_key"` // PEM
	Algorithm  string   `json:"algorithm"`
	Operation  string   `json:"operation"`
	Payload    string   `json:"payload"`
	Signature  string   `json:"signature"` // base64
	NotCovered []string `json:"not_covered"`
	AlsoMeans  []string `json:"also_means"`
	Ledger     string   `json:"ledger"`
	Submit     *Submit  `json:"submit"`
	Count      int      `json:"count"`
	Refused    int      `json:"refused"`
	Code       string   `json:"code"`
	Field      string   `json:"field"`
	Message    string   `json:"message"`
	Hint       string   `json:"hint"`
	Retry      bool     `json:"retry"`

	Company    string         `json:"company"`
	Title      string         `json:"title"`
	Status     string         `json:"status"`
	NotAfter   string         `json:"not_after"`
	Wallets    []WalletEntry  `json:"wallets"`
	Companies  []CompanyEntry `json:"companies"`
	Next       string         `json:"next"`
	Key        string         `json:"key"`
	Format     string         `json:"format"`
	Ciphertext string         `json:"ciphertext"`
	Text       string         `json:"text"`
	Bytes      string         `json:"bytes"`     // base64
	Encrypted  string         `json:"encrypted"` // age, armoured
	Files      []FileEntry    `json:"files"`

	Kind        string         `json:"kind"`
	Network     string         `json:"network"`
	Fingerprint string         `json:"fingerprint"` // of a master key, hexadecimal
	Accounts    []AccountEntry `json:"accounts"`
	Addresses   []AddressEntry `json:"addresses"`

	Threshold int      `json:"threshold"`
	Admins    []string `json:"admins"` // fingerprints

	Backup  string `json:"backup"`
	File    string `json:"file"` // in the outbox
	SHA256  string `json:"sha256"`
	Size    int64  `json:"size"`
	Since   string `json:"since"`
	Time    string `json:"time"`
	Holds   *Holds `json:"holds"`
	Head    *End   `json:"head"`
	Restore string `json:"restore"`

	// Beside are the contents of Files by their endings, for a reader that has them.
	Beside map[string][]byte `json:"-"`

	// Own is what a ledger says in a member that is called as Ledger says, and nil
	// where it says nothing.
	Own map[string]jsontext.Value `json:",embed"`
}

// Holds is what a backup holds.
type Holds struct {
	Files   int64 `json:"files"` // that the volume has
	New     int64 `json:"new"`   // of these, those that are in this file
	Wallets int64 `json:"wallets"`
}

// End is the journal's end in a backup.
type End struct {
	File   string `json:"file"`
	Size   int64  `json:"size"`
	Seq    uint64 `json:"seq"`
	SHA256 string `json:"sha256"`
	Time   string `json:"time"`
}

// Submit is what the ledger's node takes.
type Submit struct {
	Method string            `json:"method"`
	Path   string            `json:"path"`
	Form   map[string]string `json:"form"`
	// Missing names what the form lacks, because another party has to give it.
	Missing []string `json:"missing"`
}

// Parse reads one answer strictly. Unknown fields are refused, so that nobody is
// shown less than a file says.
func Parse(data []byte) (*Answer, error) {
	a := &Answer{}
	if err := json.Unmarshal(data, a, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	for name := range a.Own {
		if name != a.Ledger || a.Type != TypeSign {
			return nil, fmt.Errorf("an answer has no member %q", name)
		}
	}
	return a, nil
}
