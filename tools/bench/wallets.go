package main

import (
	"fmt"
	"math/rand/v2"

	"signdrop/keyfs"
)

// wantReady is the most that 100,000 wallets may take to be ready, in seconds.
const wantReady = 1

// wallets measures a start with many wallets, the first signature after it, and the
// rate when each request names another wallet.
func (b *bench) wallets(string) error {
	v, err := b.newVolume()
	if err != nil {
		return err
	}
	s := &station{v: v}
	defer s.close()
	b.say("wallets: making %d", b.sizes.wallets)
	ids, err := v.makeWallets(keyfs.P256, b.sizes.wallets)
	if err != nil {
		return err
	}
	if err := v.fill(1, requestFor(keyfs.P256, ids[len(ids)/2])); err != nil {
		return err
	}
	if s.p, err = b.serving(v, keyfs.RecheckVerify); err != nil {
		return err
	}
	rep, err := s.p.once(1)
	if err != nil {
		return err
	}
	ready, first := s.p.opened.Open+rep.Ready, s.p.opened.Open+rep.Seconds

	s.request = requestFor(keyfs.P256, ids[0])
	uSame, uEach := &used{}, &used{}
	same := func() (float64, error) { return b.sampleFiles(s, uSame) }
	each := func() (float64, error) {
		one := s.request
		defer func() { s.request = one }()
		s.request = func(reference string) []byte {
			return requestFor(keyfs.P256, ids[rand.IntN(len(ids))])(reference)
		}
		return b.sampleFiles(s, uEach)
	}
	if err := s.warm(b); err != nil {
		return err
	}
	m, err := b.interleave(b.sizes.rounds, each, same)
	if err != nil {
		return err
	}
	cpuSame, _ := uSame.each()
	row := &Row{Name: "wallets", Rate: m.rate, Unit: "files", Other: m.ratios[0], Start: ready, Memory: s.p.memory,
		Note: fmt.Sprintf("%d wallets; first answer durable %.3f s after the start; the rate is that of requests (P-256, verify) that each name another wallet, compared with one wallet for all: %s files/s, %.0f µs",
			b.sizes.wallets, first, round(m.bare[0]), cpuSame)}
	row.CPU, row.System = uEach.each()
	row.atMost("start %v s", wantReady, ready)
	b.add(row)
	return s.p.close()
}

// sampleFiles drops one sample's files and has them answered.
func (b *bench) sampleFiles(s *station, u *used) (float64, error) {
	if err := s.v.fill(b.sizes.files, s.request); err != nil {
		return 0, err
	}
	rep, err := s.p.once(b.sizes.files)
	u.add(rep, rep.Answered)
	return float64(b.sizes.files) / rep.Seconds, err
}
