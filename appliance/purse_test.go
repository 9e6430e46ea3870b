package appliance

import (
	"testing"

	"signdrop/appliance/bitcoin"
	"signdrop/appliance/reason"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
)

// TestPurseTries: a PSBT names tens of thousands of keys, and any number of wallets can
// have the same fingerprint. There is an end of asking whose a key is, and from then on
// none is ours.
func TestPurseTries(t *testing.T) {
	master, err := hd.Master(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	branch := master.Public()
	child, err := branch.Derive(hd.Path{1})
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func(p *hd.Public) bitcoin.Key {
		return bitcoin.Key{Public: p.Key().SerializeCompressed(), Point: p.Key(), Path: []uint32{1}}
	}
	three := []*keyfs.Wallet{{}, {}, {}}
	k := &purse{
		known: map[[4]byte][]*keyfs.Wallet{{}: three}, branches: map[string]*hd.Public{three[0].ID() + "m": branch},
		trees: map[string]*keyfs.Wallet{}, tries: maxTries - 4,
	}
	if k.Owns(keyOf(branch)) || k.err != nil { // three tries
		t.Fatalf("another key is ours, or %v", k.err)
	}
	if !k.Owns(keyOf(child)) || k.err != nil { // the last
		t.Fatalf("our key is not ours: %v", k.err)
	}
	if k.Owns(keyOf(child)) {
		t.Error("a key is ours after the last try")
	}
	if ref, ok := reason.As(k.err); !ok || ref.Code != reason.TooLarge {
		t.Errorf("refused with %v", k.err)
	}
	if k.tries = 0; k.Owns(keyOf(child)) || k.OwnsSingle(keyOf(child).Public) || k.SingleOf(nil) != nil {
		t.Error("a key is ours after a refusal")
	}
}
