package main

import (
	"fmt"

	"signdrop/keyfs"
)

// batches measures one batch, from its claim until its answer is durable.
func (b *bench) batches(only string) error {
	return b.eachKind("batch", only, b.batchRow)
}

func (b *bench) batchRow(name string, c keyfs.Curve, r keyfs.Recheck) (*Row, error) {
	signer, bare, err := b.signer(c, r)
	if err != nil {
		return nil, err
	}
	s, err := b.station(c, r)
	if err != nil {
		return nil, err
	}
	defer s.close()
	u := &used{}
	m, err := b.interleave(b.sizes.batches, func() (float64, error) {
		if err := s.v.fillBatch(b.sizes.lines, s.request); err != nil {
			return 0, err
		}
		rep, err := s.p.once(1)
		if err == nil && rep.Signed != uint64(b.sizes.lines) {
			err = fmt.Errorf("%d lines were signed, of %d", rep.Signed, b.sizes.lines)
		}
		u.add(rep, rep.Signed)
		return float64(rep.Signed) / rep.Seconds, err
	}, signer)
	if err != nil {
		return nil, err
	}
	row := &Row{Name: name, Rate: m.rate, Unit: "lines", Signer: m.ratios[0], Memory: s.p.memory}
	row.compareCPU(u, bare)
	if r == keyfs.RecheckVerify {
		row.atLeast("%v of its time the signer's", wantBatch, row.SignerCPU)
	} else {
		row.atMost("%v µs beside the signature", wantBeside, row.CPU*(1-row.SignerCPU))
	}
	return row, s.p.close()
}
