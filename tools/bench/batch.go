package main

import (
	"fmt"

	"signdrop/keyfs"
)

// batches measures one batch, from its claim until its answer is durable.
func (b *bench) batches(only string) error {
	for _, c := range curves {
		for _, r := range rechecks {
			name := fmt.Sprintf("batch/%s/%s", c, r)
			if !wanted(name, only) {
				continue
			}
			row, err := b.batchRow(name, c, r)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.add(row)
		}
	}
	return nil
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
	row.atLeast("%v of signer", wantBatch, row.Signer.Median)
	return row, s.p.close()
}
