package main

import (
	"fmt"
	"os"
	"path/filepath"

	"signdrop/keyfs"
)

// What many companies may cost, beside what one does.
const (
	wantCompanies       = 0.95 // of the rate with one company
	wantCompaniesStart  = 2    // seconds
	wantCompaniesMemory = 256  // MiB
)

// companies compares the rate of one company with that of the same company among
// many, and measures the start with all of them.
func (b *bench) companies(string) error {
	one, err := b.station(keyfs.P256, keyfs.RecheckOff)
	if err != nil {
		return err
	}
	defer one.close()
	v, err := b.newVolume()
	if err != nil {
		return err
	}
	many := &station{v: v}
	defer many.close()
	b.say("companies: making %d", b.sizes.companies)
	if err := v.makeCompanies(b.sizes.companies); err != nil {
		return err
	}
	ids, err := v.makeWallets(keyfs.P256, b.sizes.wallets)
	if err != nil {
		return err
	}
	many.request = requestFor(keyfs.P256, ids[0])
	if err := v.fill(1, many.request); err != nil {
		return err
	}
	if many.p, err = b.serving(v, keyfs.RecheckOff); err != nil {
		return err
	}
	rep, err := many.p.once(1)
	if err != nil {
		return err
	}
	start := many.p.opened.Open + rep.Ready
	if err := many.warm(b); err != nil {
		return err
	}
	uOne, uMany := &used{}, &used{}
	m, err := b.interleave(b.sizes.rounds,
		func() (float64, error) { return b.sampleFiles(many, uMany) },
		func() (float64, error) { return b.sampleFiles(one, uOne) })
	if err != nil {
		return err
	}
	cpuOne, _ := uOne.each()
	row := &Row{Name: "companies", Rate: m.rate, Unit: "files", Other: m.ratios[0], Start: start, Memory: many.p.memory,
		Note: fmt.Sprintf("%d companies and %d wallets; first answer durable %.3f s after the start; rate (P-256, off) compared with one company: %s files/s, %.0f µs",
			b.sizes.companies, b.sizes.wallets, many.p.opened.Open+rep.Seconds, round(m.bare[0]), cpuOne)}
	row.CPU, row.System = uMany.each()
	row.atLeast("%v of one", wantCompanies, row.Other.Median)
	row.atMost("start %v s", wantCompaniesStart, start)
	row.atMost("%v MiB", wantCompaniesMemory, row.Memory)
	b.add(row)
	return nil
}

// makeCompanies registers n further companies, with the same signer. They are copies
// of the first one's files, not synced one by one, since that takes an hour for
// as many.
func (v *volume) makeCompanies(n int) error {
	home := filepath.Join(v.dir, "db", "companies")
	files, err := os.ReadDir(filepath.Join(home, company))
	if err != nil {
		return err
	}
	for i := range n {
		name := fmt.Sprintf("c%05d", i)
		if err := os.Mkdir(filepath.Join(home, name), 0o700); err != nil {
			return err
		}
		for _, f := range files {
			if f.IsDir() {
				continue
			}
			data, err := os.ReadFile(filepath.Join(home, company, f.Name()))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(home, name, f.Name()), data, 0o600); err != nil {
				return err
			}
		}
		for _, d := range []string{"inbox", "outbox", "rejected"} {
			if err := os.MkdirAll(filepath.Join(v.dir, "spool", name, d), 0o700); err != nil {
				return err
			}
		}
	}
	return v.disk.Sync()
}
