package main

import (
	"fmt"

	"signdrop/keyfs"
)

// wantWaiting is the most memory with many files waiting, in MiB.
const wantWaiting = 128

// bigMany is from how many files on the directory itself costs more.
const bigMany = 1_000_000

// waiting compares an inbox with many complete requests with one that has few. P-256
// without recheck, since there the rest of the work weighs most.
func (b *bench) waiting(string) error {
	few, err := b.station(keyfs.P256, keyfs.RecheckOff)
	if err != nil {
		return err
	}
	defer few.close()
	many, err := b.station(keyfs.P256, keyfs.RecheckOff)
	if err != nil {
		return err
	}
	defer many.close()
	b.say("waiting: dropping %d files", b.sizes.many)
	if err := many.v.fill(b.sizes.many, many.request); err != nil {
		return err
	}
	// Both run for as long as the few last, so that beginning and ending weigh
	// the same.
	last := 0.0
	uFew, uMany := &used{}, &used{}
	sampleFew := func() (float64, error) {
		if err := few.v.fill(b.sizes.few, few.request); err != nil {
			return 0, err
		}
		rep, err := few.p.once(b.sizes.few)
		last = rep.Seconds
		uFew.add(rep, rep.Answered)
		return float64(b.sizes.few) / rep.Seconds, err
	}
	sampleMany := func() (float64, error) {
		rep, err := many.p.onceFor(max(last, 0.06))
		if err != nil {
			return 0, err
		}
		uMany.add(rep, rep.Answered)
		// As many again for the next sample: a fast machine would run out of them.
		return float64(rep.Answered) / rep.Seconds, many.v.fill(int(rep.Answered), many.request)
	}
	m, err := b.interleave(3*b.sizes.rounds, sampleMany, sampleFew)
	if err != nil {
		return err
	}
	cpuFew, _ := uFew.each()
	row := &Row{Name: "waiting", Rate: m.rate, Unit: "files", Other: m.ratios[0], Memory: many.p.memory,
		Note: fmt.Sprintf("%d files waiting (P-256, off), compared with %d waiting: %s files/s, %.0f µs, %.0f MiB",
			b.sizes.many, b.sizes.few, round(m.bare[0]), cpuFew, few.p.memory)}
	row.CPU, row.System = uMany.each()
	want := wantSame
	if b.sizes.many >= bigMany {
		want = wantMany
	}
	row.atLeast("%v of few", want, row.Other.Median)
	row.atMost("%v MiB", wantWaiting, row.Memory)
	b.add(row)
	return nil
}
