// Package reason holds every reason for which the appliance refuses something,
// and the error type that carries one. It is a leaf: each part of the signing
// path imports it and it imports none of them.
//
// A reason code is a promise to programs: it never changes its meaning.
// docs/formats.md lists the same table, and a test compares the two.
package reason

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a reason code, lower-case words joined with hyphens.
type Code string

// The codes, in the order in which a file meets them on its way.
const (
	// What the spool sees before any byte is trusted.
	NameNotAllowed     Code = "name-not-allowed"
	NotAFile           Code = "not-a-file"
	HardLinked         Code = "hard-linked"
	Empty              Code = "empty"
	TooLarge           Code = "too-large"
	Unreadable         Code = "unreadable"
	SignatureMissing   Code = "signature-missing"
	SignatureAlone     Code = "signature-alone"
	NameTaken          Code = "name-taken"
	SignatureMalformed Code = "signature-malformed"
	SignatureInvalid   Code = "signature-invalid"
	SignatureNamespace Code = "signature-namespace"
	SignatureAlgorithm Code = "signature-algorithm"
	SignerUnknown      Code = "signer-unknown"
	SignerNotValid     Code = "signer-not-valid"
	ApprovalsMissing   Code = "approvals-missing"
	CompanyDisabled    Code = "company-disabled"
	AgeUnreadable      Code = "age-unreadable"
	RequestMalformed   Code = "request-malformed"
	FieldUnknown       Code = "field-unknown"
	FieldMissing       Code = "field-missing"
	FieldInvalid       Code = "field-invalid"
	TypeUnknown        Code = "type-unknown"
	BatchTooLong       Code = "batch-too-long"
	BatchCount         Code = "batch-count"
	ApplianceMismatch  Code = "appliance-mismatch"
	Expired            Code = "expired"
	OperationUnknown   Code = "operation-unknown"
	OperationDead      Code = "operation-dead"
	CompanyUnknown     Code = "company-unknown"
	CompanyExists      Code = "company-exists"
	WalletUnknown      Code = "wallet-unknown"
	WalletDisabled     Code = "wallet-disabled"
	WalletBound        Code = "wallet-bound"
	AddressMismatch    Code = "address-mismatch"
	CurveUnsuitable    Code = "curve-unsuitable"
	NonceUsed          Code = "nonce-used"
	NonceBusy          Code = "nonce-busy"
	PolicyForbids      Code = "policy-forbids"
	DataKeyUnknown     Code = "datakey-unknown"
	PassphraseWrong    Code = "passphrase-wrong"
	PassphraseWait     Code = "passphrase-wait"
	CiphertextInvalid  Code = "ciphertext-invalid"
	KeyUnusable        Code = "key-unusable"
	OperatorNeeded     Code = "operator-needed"
	AnswerLost         Code = "answer-lost"
	BackupImpossible   Code = "backup-impossible"
	NoRoom             Code = "no-room"
	SecretInTheClear   Code = "secret-in-the-clear"
	PSBTMalformed      Code = "psbt-malformed"
	KeyTwice           Code = "key-twice"
	TrailingBytes      Code = "trailing-bytes"
	InputTwice         Code = "input-twice"
	AmountUnproven     Code = "amount-unproven"
	AmountInvalid      Code = "amount-invalid"
	ScriptMismatch     Code = "script-mismatch"
	SighashForbidden   Code = "sighash-forbidden"
	OriginFalse        Code = "origin-false"
	ChangeFalse        Code = "change-false"
	NetworkMismatch    Code = "network-mismatch"
	FeeTooHigh         Code = "fee-too-high"
	CosignatureInvalid Code = "cosignature-invalid"
	NothingToSign      Code = "nothing-to-sign"
)

// Entry describes one code.
type Entry struct {
	Code Code
	// Final: the verdict on these bytes is remembered, and the same bytes get
	// the same refusal again. Otherwise nothing is remembered and the same
	// request may be dropped again once the cause is gone.
	Final   bool
	Meaning string // one sentence, for docs/formats.md
}

// Table lists every code once.
var Table = []Entry{
	{NameNotAllowed, false, "the file name is not one that a request may have"},
	{NotAFile, false, "the entry is a symbolic link, directory, FIFO, socket or device"},
	{HardLinked, false, "the file has a second name, so it could change after it was checked"},
	{Empty, false, "the file has no bytes"},
	{TooLarge, false, "the file is larger than the limit for its type"},
	{Unreadable, false, "the file could not be opened or read"},
	{SignatureMissing, false, "no signature file came within the waiting time"},
	{SignatureAlone, false, "a signature file came without the file that it signs"},
	{NameTaken, false, "the answer to another request still lies in the outbox under this name"},
	{SignatureMalformed, false, "the signature file is neither an SSHSIG nor a DER signature"},
	{SignatureInvalid, false, "the signature does not verify over the bytes of the file"},
	{SignatureNamespace, false, "the signature was made for another purpose"},
	{SignatureAlgorithm, false, "the signature's algorithm or key type is not accepted"},
	{SignerUnknown, false, "the signature is good but its key is not among the company's allowed signers"},
	{SignerNotValid, false, "the signer's key is not valid at this time"},
	{ApprovalsMissing, false, "too few administrators, or no signer of the company, signed the command within the waiting time"},
	{CompanyDisabled, false, "the company may not ask at present"},
	{AgeUnreadable, true, "the file is not encrypted to this appliance, or it is damaged"},
	{RequestMalformed, true, "the request is not strict JSON"},
	{FieldUnknown, true, "the request has a field that its type does not know"},
	{FieldMissing, true, "the request lacks a field that its type needs"},
	{FieldInvalid, true, "a field's value is not of its form"},
	{TypeUnknown, true, "no request of this type exists"},
	{BatchTooLong, true, "the batch has more lines than the limit"},
	{BatchCount, true, "the batch's first line announces another number of lines"},
	{ApplianceMismatch, true, "the request is meant for another appliance"},
	{Expired, true, "the request's not_after has passed"},
	{OperationUnknown, true, "the ledger has no such operation"},
	{OperationDead, true, "the ledger does not dispatch this operation"},
	{CompanyUnknown, true, "there is no such company"},
	{CompanyExists, true, "there is a company of this name already"},
	{WalletUnknown, true, "the company has no such wallet"},
	{WalletDisabled, true, "the wallet may not sign at present"},
	{WalletBound, true, "the wallet is bound to another address already, or the address to another wallet"},
	{AddressMismatch, true, "the transaction's signer is not the address that the wallet is bound to"},
	{CurveUnsuitable, true, "the wallet's curve cannot be used for this"},
	{NonceUsed, true, "another text was signed already for this wallet and nonce, or another transaction that spends this output"},
	{NonceBusy, false, "another request for this wallet and nonce, or this output, is being decided at this moment"},
	{PolicyForbids, true, "the company's policy does not allow this"},
	{DataKeyUnknown, true, "the company has no such data key"},
	{PassphraseWrong, true, "the passphrase does not open the data key"},
	{PassphraseWait, false, "too many wrong passphrases came for this data key"},
	{CiphertextInvalid, true, "the ciphertext was not made with this key, or in another way, or it is damaged"},
	{KeyUnusable, false, "the wallet's key file is damaged, swapped or readable by others; the operator must act"},
	{OperatorNeeded, false, "the appliance lacks a right on its own data volume; the operator must act"},
	{AnswerLost, false, "the request was answered before, and the same answer can no longer be made"},
	{BackupImpossible, false, "no recipients of backups were fixed, or the backup that was named is not one that can be continued"},
	{NoRoom, false, "the data volume has too little room for this"},
	{SecretInTheClear, false, "the file holds a private key or passphrase that must come encrypted; consider it exposed"},
	{PSBTMalformed, true, "the file is no PSBT of version 0 or 2, or breaks the rules of its BIPs"},
	{KeyTwice, true, "a map of the PSBT has the same key twice, or a script the same public key"},
	{TrailingBytes, true, "bytes follow the end of the PSBT"},
	{InputTwice, true, "the transaction spends the same output twice, or one that cannot exist"},
	{AmountUnproven, true, "the amount of an input is not proven by the transaction that made it"},
	{AmountInvalid, true, "the outputs pay more than the inputs bring, or more than there can be"},
	{ScriptMismatch, true, "a script, internal key or merkle root is not the one that the output commits to"},
	{SighashForbidden, true, "a signature of this sighash type is not allowed, or would cover less than it says"},
	{OriginFalse, true, "an input names one of the company's keys, but the key is another or is not in its script"},
	{ChangeFalse, true, "an output claims to come back to the company's wallets and does not"},
	{NetworkMismatch, true, "the keys belong to another network than the one that the wallets are for"},
	{FeeTooHigh, true, "the fee is above the limit of the company's policy"},
	{CosignatureInvalid, true, "a signature or a finished input in the PSBT does not verify"},
	{NothingToSign, true, "no input waits for a signature by one of the company's keys"},
}

// Final says whether a refusal with this code is remembered.
// An unlisted code is not.
func Final(c Code) bool {
	for _, e := range Table {
		if e.Code == c {
			return e.Final
		}
	}
	return false
}

// Refusal is the error for everything that is the asker's to mend. It never
// holds a secret: no key, no passphrase, no value of a field.
type Refusal struct {
	Code    Code
	Line    int    // 1-based line of a batch, 0 where there is none
	Field   string // dotted path of the field, "" where there is none
	Message string // what is wrong: lower case, no period
	Hint    string // what to do next
}

// New makes a refusal. The message says what is wrong, the hint what to do.
func New(code Code, hint, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)}
}

// At returns a copy that names the field.
func (r *Refusal) At(field string) *Refusal {
	c := *r
	c.Field = field
	return &c
}

// Under returns a copy whose field lies below parent.
func (r *Refusal) Under(parent string) *Refusal {
	c := *r
	switch {
	case c.Field == "":
		c.Field = parent
	default:
		c.Field = parent + "." + c.Field
	}
	return &c
}

// OnLine returns a copy that names the line of a batch.
func (r *Refusal) OnLine(n int) *Refusal {
	c := *r
	c.Line = n
	return &c
}

func (r *Refusal) Error() string {
	var b strings.Builder
	b.WriteString(string(r.Code))
	if r.Line > 0 {
		fmt.Fprintf(&b, ": line %d", r.Line)
	}
	if r.Field != "" {
		b.WriteString(": field " + r.Field)
	}
	b.WriteString(": " + r.Message)
	if r.Hint != "" {
		b.WriteString(" (" + r.Hint + ")")
	}
	return b.String()
}

// As returns the refusal in err's chain, if there is one.
func As(err error) (*Refusal, bool) {
	var r *Refusal
	ok := errors.As(err, &r)
	return r, ok
}
