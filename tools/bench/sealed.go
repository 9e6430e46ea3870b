package main

import (
	"bytes"
	"fmt"

	"signdrop/keyfs"
	"signdrop/keyfs/seal"
)

// wantSealed is the most that 100,000 sealed wallets may take to be ready, in seconds.
const wantSealed = 2

// sealed measures a start with many sealed wallets, and the first signature after it.
func (b *bench) sealed(string) error {
	v, err := b.newVolume()
	if err != nil {
		return err
	}
	s := &station{v: v}
	defer s.close()
	secret := bytes.Repeat([]byte{'k'}, 32) // nothing that it protects is worth anything
	kek, err := seal.ParseKEK(secret)
	if err != nil {
		return err
	}
	if v.sealer, _, err = seal.Unlock(v.disk, v.root, seal.Request{KEK: kek, Convert: true}); err != nil {
		return err
	}
	b.say("sealed: making %d", b.sizes.wallets)
	ids, err := v.makeWallets(keyfs.P256, b.sizes.wallets)
	if err != nil {
		return err
	}
	if err := v.fill(1, requestFor(keyfs.P256, ids[len(ids)/2])); err != nil {
		return err
	}
	if s.p, err = b.start(plan{Data: v.dir, Recheck: keyfs.RecheckVerify.String(), New: true, KEK: secret}); err != nil {
		return err
	}
	rep, err := s.p.once(1)
	if err != nil {
		return err
	}
	ready, first := s.p.opened.Open+rep.Ready, s.p.opened.Open+rep.Seconds
	row := &Row{Name: "sealed", Start: ready, Memory: s.p.memory,
		Note: fmt.Sprintf("%d sealed wallets; first answer durable %.3f s after the start", b.sizes.wallets, first)}
	row.atMost("start %v s", wantSealed, ready)
	b.add(row)
	return s.p.close()
}
