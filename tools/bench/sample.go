package main

import (
	"math"
	"slices"
)

// sampler takes one sample: how much was done in a second.
type sampler func() (float64, error)

// compared is what interleave measured.
type compared struct {
	rate   float64 // median
	ratios []Ratio // to each of what it was compared with
	bare   []float64
}

// interleave takes n samples, and before and after each one a sample of everything
// it is to be compared with. The ratio of a round is that to the mean of the two
// around it, so that a machine that slows down for a while slows down both.
func (b *bench) interleave(n int, sample sampler, bare ...sampler) (compared, error) {
	before, err := takeAll(bare)
	if err != nil {
		return compared{}, err
	}
	var rates []float64
	ratios := make([][]float64, len(bare))
	others := make([][]float64, len(bare))
	for range n {
		if err := b.ctx.Err(); err != nil {
			return compared{}, err
		}
		r, err := sample()
		if err != nil {
			return compared{}, err
		}
		after, err := takeAll(bare)
		if err != nil {
			return compared{}, err
		}
		rates = append(rates, r)
		for i := range bare {
			around := (before[i] + after[i]) / 2
			ratios[i] = append(ratios[i], r/around)
			others[i] = append(others[i], around)
		}
		before = after
	}
	c := compared{rate: median(rates)}
	for i := range bare {
		c.ratios = append(c.ratios, ratioOf(ratios[i]))
		c.bare = append(c.bare, median(others[i]))
	}
	return c, nil
}

func takeAll(samplers []sampler) ([]float64, error) {
	out := make([]float64, len(samplers))
	for i, s := range samplers {
		var err error
		if out[i], err = s(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func ratioOf(rs []float64) Ratio {
	return Ratio{Median: median(rs), Least: slices.Min(rs), Most: slices.Max(rs)}
}

func median(vs []float64) float64 { return quantile(vs, 0.5) }

// quantile is the smallest value that at least the share q of all values do not
// exceed; of an even number of values the median is the mean of the two in the
// middle.
func quantile(vs []float64, q float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(vs))
	if n := len(s); q == 0.5 && n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}
