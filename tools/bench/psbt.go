package main

import (
	"fmt"

	"signdrop/appliance/testbed"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
)

// psbtInputs are how many inputs the transactions have.
var psbtInputs = []int{1, 10, 250}

// wantPSBT are the targets by the number of inputs: the part of the processor time that
// the bare signer with the same recheck takes (decision 58).
var wantPSBT = map[int]float64{10: 0.5, 250: 0.7}

// psbts measures PSBTs, each a file, that an HD wallet signs.
func (b *bench) psbts(only string) error {
	for _, n := range psbtInputs {
		name := fmt.Sprintf("psbt/%d", n)
		if !wanted(name, only) {
			continue
		}
		row, err := b.psbtRow(name, n)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.add(row)
	}
	return nil
}

func (b *bench) psbtRow(name string, inputs int) (*Row, error) {
	signer, bare, err := b.signer(keyfs.Secp256k1, keyfs.RecheckVerify)
	if err != nil {
		return nil, err
	}
	v, err := b.newVolume()
	if err != nil {
		return nil, err
	}
	s := &station{v: v}
	defer s.close()
	account, err := v.makeTree()
	if err != nil {
		return nil, err
	}
	if s.p, err = b.serving(v, keyfs.RecheckVerify); err != nil {
		return nil, err
	}
	files := max(2, b.sizes.files/inputs)
	u := &used{}
	sample := func(n int) (float64, error) {
		if err := v.fillPSBT(n, inputs, account); err != nil {
			return 0, err
		}
		rep, err := s.p.once(n)
		if err == nil && rep.Signed != uint64(n*inputs) {
			err = fmt.Errorf("%d inputs were signed, of %d", rep.Signed, n*inputs)
		}
		u.add(rep, rep.Signed)
		return float64(rep.Signed) / rep.Seconds, err
	}
	if _, err := sample(1); err != nil { // warms it up
		return nil, err
	}
	u = &used{}
	m, err := b.interleave(b.sizes.rounds, func() (float64, error) { return sample(files) }, signer)
	if err != nil {
		return nil, err
	}
	row := &Row{Name: name, Rate: m.rate, Unit: "signatures", Signer: m.ratios[0], Memory: s.p.memory,
		Note: fmt.Sprintf("files of one PSBT with %d inputs (P2WPKH of an HD wallet, verify)", inputs)}
	row.compareCPU(u, bare)
	if want, ok := wantPSBT[inputs]; ok {
		row.atLeast("%v of its time the signer's", want, row.SignerCPU)
	}
	return row, s.p.close()
}

// makeTree makes an HD wallet and returns its account of P2WPKH.
func (v *volume) makeTree() (*testbed.Account, error) {
	db, err := v.root.Sub("db")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	store, err := keyfs.Open(db, keyfs.Options{})
	if err != nil {
		return nil, err
	}
	ws, err := store.Create(company, []keyfs.Spec{{ID: "W_tree", Network: hd.Main}}, v.disk)
	if err != nil {
		return nil, err
	}
	return testbed.AccountOf(ws[0], hd.P2WPKH)
}

// fillPSBT drops n PSBTs, which spend so many coins each that no other spends.
func (v *volume) fillPSBT(n, inputs int, account *testbed.Account) error {
	inbox, err := v.inbox()
	if err != nil {
		return err
	}
	defer inbox.Close()
	const amount = 100_000
	for range n {
		p := testbed.NewPayment()
		for i := range inputs {
			p.Spend(fmt.Sprintf("%d %d", v.dropped, i), amount, account.Script, account.Key(0, uint32(i)))
		}
		paid := int64(inputs) * amount / 2
		p.Pay(paid, 7).Change(paid-int64(inputs)*1000, account.Script, account.Key(1, 0))
		if err := v.drop(inbox, fmt.Sprintf("coins-%08d.psbt", v.dropped), p.PSBT()); err != nil {
			return err
		}
		v.dropped++
	}
	return v.disk.Sync()
}
