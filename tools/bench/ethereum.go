package main

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/btcsuite/btcd/btcec/v2"
	secp "github.com/btcsuite/btcd/btcec/v2/ecdsa"

	"signdrop/appliance/testbed"
	"signdrop/keyfs"
)

// wantEthereum is the target for batches of Ethereum's transfers, as a ratio of the bare
// signer with the same recheck: beside the signature each line has hashes of its own to
// compute, of the transaction and of the sender's address. It is for the careful
// recheck: without one a signature takes little longer than these.
const wantEthereum = 0.8

// ethereumLines is how long the batches are.
const ethereumLines = 1000

// ethereum measures batches of Ethereum's transfers.
func (b *bench) ethereum(only string) error {
	for _, r := range rechecks {
		name := fmt.Sprintf("ethereum/%s", r)
		if !wanted(name, only) {
			continue
		}
		row, err := b.ethereumRow(name, r)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.add(row)
	}
	return nil
}

func (b *bench) ethereumRow(name string, r keyfs.Recheck) (*Row, error) {
	sign, err := bareRecoverable(r)
	if err != nil {
		return nil, err
	}
	signer, bare := b.sampler(sign)
	s, err := b.station(keyfs.Secp256k1, r)
	if err != nil {
		return nil, err
	}
	defer s.close()
	lines := min(ethereumLines, b.sizes.lines)
	files := max(1, b.sizes.lines/lines)
	const wallet = "W_000000000000000000000000000000" // the station's first
	nonce := uint64(0)
	request := func(reference string) []byte {
		nonce++
		return testbed.EthereumTransfer(wallet, reference, nonce)
	}
	u := &used{}
	m, err := b.interleave(b.sizes.batches, func() (float64, error) {
		for range files {
			if err := s.v.fillBatch(lines, request); err != nil {
				return 0, err
			}
		}
		rep, err := s.p.once(files)
		if err == nil && rep.Signed != uint64(files*lines) {
			err = fmt.Errorf("%d lines were signed, of %d", rep.Signed, files*lines)
		}
		u.add(rep, rep.Signed)
		return float64(rep.Signed) / rep.Seconds, err
	}, signer)
	if err != nil {
		return nil, err
	}
	row := &Row{Name: name, Rate: m.rate, Unit: "lines", Signer: m.ratios[0], Memory: s.p.memory,
		Note: fmt.Sprintf("batches of %d transfers (EIP-1559)", lines)}
	row.compareCPU(u, bare)
	if r == keyfs.RecheckVerify {
		row.atLeast("%v of signer", wantEthereum, row.Signer.Median)
	}
	return row, s.p.close()
}

// bareRecoverable is bareSigner for the signatures that Ethereum takes: checked by
// recovering the key.
func bareRecoverable(r keyfs.Recheck) (func() error, error) {
	key, err := btcec.NewPrivateKey()
	if err != nil {
		return nil, err
	}
	pub := key.PubKey()
	digest := sha256.Sum256([]byte("bench"))
	return func() error {
		sig := secp.SignCompact(key, digest[:], false)
		switch r {
		case keyfs.RecheckVerify:
			if got, _, err := secp.RecoverCompact(sig, digest[:]); err != nil || !got.IsEqual(pub) {
				return errors.Join(errWrong, err)
			}
		case keyfs.RecheckRepeat:
			if string(secp.SignCompact(key, digest[:], false)) != string(sig) {
				return errWrong
			}
		}
		return nil
	}, nil
}
