package answer

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// Member is a member of an answer that has no type of its own here.
type Member struct {
	Name  string
	Value any // what JSON can say
}

// AppendResult appends the answer to a request of type typ: "TYPE.result", its
// verdict, and what else it says, in order. Members whose value is "" are left out.
func AppendResult(dst []byte, h Head, typ, verdict string, members ...Member) []byte {
	return appendMembers(h.append(dst, typ+".result", verdict), members)
}

// AppendStatus appends what a command that waits tells meanwhile.
func AppendStatus(dst []byte, h Head, members ...Member) []byte {
	return appendMembers(h.append(dst, "command.status", "waiting"), members)
}

// AppendWorking appends what a command that takes long tells meanwhile.
func AppendWorking(dst []byte, h Head, done, total int64) []byte {
	return appendMembers(h.append(dst, "command.status", "working"), []Member{{"done", done}, {"total", total}})
}

func appendMembers(dst []byte, members []Member) []byte {
	return append(appendValues(dst, members), "}\n"...)
}

func appendValues(dst []byte, members []Member) []byte {
	for _, m := range members {
		if m.Value == "" {
			continue
		}
		v, err := json.Marshal(m.Value, json.Deterministic(true))
		if err != nil {
			panic(fmt.Sprintf("internal error: an answer's %s cannot be written: %v", m.Name, err))
		}
		dst = append(dst, `,"`...)
		dst = append(dst, m.Name...)
		dst = append(dst, `":`...)
		dst = append(dst, v...)
	}
	return dst
}

// AccountEntry is an account of an HD wallet, or the one key of another.
type AccountEntry struct {
	Script     string `json:"script"`         // "p2pkh", "p2sh-p2wpkh", "p2wpkh" or "p2tr"
	Path       string `json:"path,omitempty"` // as m/84h/0h/0h
	XPub       string `json:"xpub,omitempty"` // BIP-32
	Descriptor string `json:"descriptor"`     // BIP-380, with its checksum
}

// AddressEntry is an address of a wallet.
type AddressEntry struct {
	Address   string `json:"address"`
	Path      string `json:"path,omitempty"`
	PublicKey string `json:"public_key"` // 33 bytes, hexadecimal
}

// FileEntry names a further file of an answer. Without the name of the request in it,
// since the same bytes under another name get the same answer: beside
// pay.result.json the file lies as pay-signed.psbt, see spool.Beside.
type FileEntry struct {
	Ending string `json:"ending"` // as "-signed.psbt"
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
}

// WalletEntry is a wallet in the answer to wallet.list.
type WalletEntry struct {
	Wallet    string `json:"wallet"`
	Address   string `json:"address,omitempty"`
	Curve     string `json:"curve,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Network   string `json:"network,omitempty"`
	Master    string `json:"fingerprint,omitempty"` // of an HD wallet
	PublicKey string `json:"public_key,omitempty"`  // PEM
	// Addresses are those that follow from the public key, by their ledgers' names.
	Addresses map[string]string `json:"addresses,omitempty"`
	Status    string            `json:"status"`              // "active", "disabled" or "damaged"
	NotAfter  string            `json:"not_after,omitempty"` // RFC 3339

	Signed     uint64 `json:"signed"`                // signatures that are on record
	LastSigned string `json:"last_signed,omitempty"` // time of the newest, RFC 3339
}

// CompanyEntry is a company in the answer to company.list.
type CompanyEntry struct {
	Company string `json:"company"`
	Name    string `json:"name,omitempty"`
	Status  string `json:"status"` // "active", "disabled" or "damaged"
	Signers int    `json:"signers"`
}

// Status is what a command that waits tells.
type Status struct {
	Type    string   `json:"type"` // "command.status"
	Verdict string   `json:"verdict"`
	Request string   `json:"request_sha256"`
	Admins  []string `json:"admins"`  // fingerprints of those whose signatures count
	Missing []string `json:"missing"` // for people
	Ignored []string `json:"ignored"` // signatures that do not count, and why
	Done    int64    `json:"done"`    // bytes, of a command that takes long
	Total   int64    `json:"total"`
}

// ParseStatus reads it strictly.
func ParseStatus(data []byte) (*Status, error) {
	s := &Status{}
	if err := json.Unmarshal(data, s, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	return s, nil
}
