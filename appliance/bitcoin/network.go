package bitcoin

import (
	"slices"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcd/txscript/v2"
)

// Networks are the names that Rules.Network may have.
var Networks = []string{"mainnet", "testnet", "signet", "regtest"}

// A network is what differs between them for us. Testnets share everything but
// regtest's address prefix.
type network struct {
	params *chaincfg.Params
	coin   uint32  // coin type of BIP-44
	xpub   [4]byte // version of extended public keys
}

var (
	mainXpub = [4]byte{0x04, 0x88, 0xb2, 0x1e}
	testXpub = [4]byte{0x04, 0x35, 0x87, 0xcf}

	networks = map[string]network{
		"mainnet": {&chaincfg.MainNetParams, 0, mainXpub},
		"testnet": {&chaincfg.TestNet3Params, 1, testXpub},
		"signet":  {&chaincfg.SigNetParams, 1, testXpub},
		"regtest": {&chaincfg.RegressionNetParams, 1, testXpub},
	}

	// purposes are the first steps of the paths whose second is the coin type:
	// BIP-44, BIP-48, BIP-49, BIP-84, BIP-86.
	purposes = []uint32{44, 48, 49, 84, 86}
)

// fits reports whether a path may belong to the network: paths of no known
// standard may.
func (n network) fits(path []uint32) bool {
	if len(path) < 2 || path[0]&hardened == 0 || path[1]&hardened == 0 ||
		!slices.Contains(purposes, path[0]&^hardened) {
		return true
	}
	return path[1]&^hardened == n.coin
}

// fitsXpub is fits for the version of an extended public key.
func (n network) fitsXpub(version [4]byte) bool {
	return version == n.xpub || version != mainXpub && version != testXpub
}

// address writes the address that pays to the script, "" if it has none.
func (n network) address(script []byte) string {
	class, addresses, _, err := txscript.ExtractPkScriptAddrs(script, n.params)
	if err != nil || len(addresses) != 1 || class == txscript.PubKeyTy || class == txscript.MultiSigTy {
		return ""
	}
	return addresses[0].EncodeAddress()
}
