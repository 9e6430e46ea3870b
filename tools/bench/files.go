package main

import (
	"fmt"

	"signdrop/keyfs"
)

// Targets, as ratios: docs/decisions/0056 says where they come from.
const (
	wantVerify = 0.7  // of the bare signer that verifies, P-384
	wantOff    = 0.43 // of the processor time is the bare signer's, P-384
	wantDisk   = 0.3  // of the bare disk, P-256
	wantBatch  = 0.85 // of the processor time is the signer's that verifies
	wantBeside = 25   // microseconds a line beside the signature, with less recheck
	wantSame   = 0.9  // of the rate in the small, for what must not depend on size
	wantMany   = 0.6  // the same, for so many files in one directory
)

// files measures one request a file: a Metacoin transfer, or on secp256k1 a text.
func (b *bench) files(only string) error {
	return b.eachKind("files", only, b.filesRow)
}

// eachKind adds a row for each curve and recheck whose name is wanted.
func (b *bench) eachKind(prefix, only string, measure func(string, keyfs.Curve, keyfs.Recheck) (*Row, error)) error {
	for _, c := range curves {
		for _, r := range rechecks {
			name := fmt.Sprintf("%s/%s/%s", prefix, c, r)
			if !wanted(name, only) {
				continue
			}
			row, err := measure(name, c, r)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.add(row)
		}
	}
	return nil
}

func (b *bench) filesRow(name string, c keyfs.Curve, r keyfs.Recheck) (*Row, error) {
	signer, bare, err := b.signer(c, r)
	if err != nil {
		return nil, err
	}
	s, err := b.station(c, r)
	if err != nil {
		return nil, err
	}
	defer s.close()
	syncs := 0.0
	u := &used{}
	m, err := b.interleave(b.sizes.rounds, func() (float64, error) {
		if err := s.v.fill(b.sizes.files, s.request); err != nil {
			return 0, err
		}
		rep, err := s.p.once(b.sizes.files)
		syncs += float64(rep.Syncs)
		u.add(rep, rep.Answered)
		return float64(rep.Answered) / rep.Seconds, err
	}, signer, b.bareDisk)
	if err != nil {
		return nil, err
	}
	row := &Row{Name: name, Rate: m.rate, Unit: "files", Signer: m.ratios[0], Disk: m.ratios[1], Syncs: syncs / u.done, Memory: s.p.memory}
	row.compareCPU(u, bare)
	switch {
	case c == keyfs.P384 && r == keyfs.RecheckVerify:
		row.atLeast("%v of signer", wantVerify, row.Signer.Median)
	case c == keyfs.P384 && r == keyfs.RecheckOff:
		row.atLeast("%v of its time the signer's", wantOff, row.SignerCPU)
	case c == keyfs.P256:
		row.atLeast("%v of disk", wantDisk, row.Disk.Median)
	}
	return row, s.p.close()
}

// compareCPU fills in the processor time of a row, and the bare signer's share of it.
func (r *Row) compareCPU(u, bare *used) {
	r.CPU, r.System = u.each()
	if signer, _ := bare.each(); r.CPU > 0 {
		r.SignerCPU = signer / r.CPU
	}
}

// station is a volume with one wallet and an open appliance that has answered a few
// requests, so that keys are loaded and memory has its usual size.
type station struct {
	v       *volume
	p       *process
	request maker
}

func (b *bench) station(c keyfs.Curve, r keyfs.Recheck) (*station, error) {
	v, err := b.newVolume()
	if err != nil {
		return nil, err
	}
	s := &station{v: v}
	if err := b.man(s, c, r); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (b *bench) man(s *station, c keyfs.Curve, r keyfs.Recheck) error {
	wallets, err := s.v.makeWallets(c, 1)
	if err != nil {
		return err
	}
	s.request = requestFor(c, wallets[0])
	if s.p, err = b.serving(s.v, r); err != nil {
		return err
	}
	return s.warm(b)
}

func (s *station) warm(b *bench) error {
	n := max(1, b.sizes.files/10)
	if err := s.v.fill(n, s.request); err != nil {
		return err
	}
	_, err := s.p.once(n)
	return err
}

// close ends what is still open, after an error too.
func (s *station) close() {
	if s.p != nil {
		s.p.end()
	}
	s.v.close()
}
