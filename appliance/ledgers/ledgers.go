// Package ledgers lists the ledgers that the appliance knows. A new one is a package
// of its own and a line here.
package ledgers

import (
	"strings"

	"signdrop/appliance/bitcoin"
	"signdrop/appliance/ethereum"
	"signdrop/appliance/ledger"
	"signdrop/appliance/metacoin"
)

// All are the ledgers, in the order in which they are named to people.
var All = []*ledger.Ledger{
	&metacoin.Ledger,
	&ethereum.Ledger,
	&bitcoin.Ledger,
}

// Find returns the ledger of this name, nil for none.
func Find(name string) *ledger.Ledger {
	for _, l := range All {
		if l.Name == name {
			return l
		}
	}
	return nil
}

// Document returns the ledger whose documents have a name with this ending, nil for
// none.
func Document(name string) *ledger.Ledger {
	for _, l := range All {
		if l.Document != nil && strings.HasSuffix(name, l.Document.Ending) {
			return l
		}
	}
	return nil
}
