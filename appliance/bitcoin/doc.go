// Package bitcoin knows one ledger: it parses a PSBT strictly, checks what a
// careful signer checks, gives the exact digests to sign, puts the signatures
// in their places and, when none is missing, makes the transaction for the
// network. It knows no files, no private keys and no clock, and asks no network.
//
// The order of calls is the order of the work:
//
//	p, err := bitcoin.Parse(data)       // the format
//	tx, err := p.Check(rules, keys)     // the meaning; only it makes a Tx
//	tx.Describe()                       // what it pays, for policy and answer
//	for _, w := range tx.Wants() {      // only keys that keys.Owns said are ours
//		tx.Add(w, sign(w))
//	}
//	answer, err := tx.Finish()          // the files
//
// Errors of Parse, Check and Finish that are the asker's to mend are
// *reason.Refusal; they name no address, key or amount.
//
// The formats are those of BIP-174 (PSBT version 0), BIP-370 (version 2) and
// BIP-371 (Taproot). Signatures follow the rules of the original protocol,
// BIP-143 (segregated witness), BIP-341 and BIP-342 (Taproot). The same PSBT,
// rules and keys give the same bytes at any time.
package bitcoin
