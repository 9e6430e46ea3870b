package journal

import (
	"bytes"
	"errors"
	"fmt"

	"signdrop/spool/durable"
)

// Request returns the verdict on the company's request with the given SHA-256, nil if
// there is none that is remembered. The journal's line itself is read and compared;
// an error that is ErrIndex means that the appliance must stop.
func (j *Journal) Request(company string, digest [32]byte) (*Event, error) {
	e, _, err := j.verdict(company, digest)
	return e, err
}

// verdict is Request, with the place of the line.
func (j *Journal) verdict(company string, digest [32]byte) (*Event, uint64, error) {
	at, found, err := j.index.Lookup(requestKey(company, &digest))
	if err != nil || !found {
		return nil, 0, err
	}
	e, err := j.at(at)
	if err == nil && (!e.remembered() || e.Company != company || e.Request != digest) {
		err = errors.New("the line is not the verdict that was looked for")
	}
	if err != nil {
		return nil, 0, j.mismatch(at, err)
	}
	return e, at, nil
}

// Nonce returns the event with which a text was last signed for a nonce of the wallet,
// or of all wallets together (see HolderOf), nil if there is none. The journal's line
// itself is read and compared; an error that is ErrIndex means that the appliance must
// stop.
func (j *Journal) Nonce(company, wallet, ledger, nonce string) (*Event, error) {
	holder := HolderOf(wallet, ledger)
	at, found, err := j.index.Lookup(nonceKey(company, holder, ledger, nonce))
	if err != nil || !found {
		return nil, err
	}
	e, err := j.at(at)
	if err == nil && (!e.holdsNonce() || e.Company != company || e.Holder() != holder || e.Ledger != ledger || e.Nonce != nonce) {
		err = errors.New("the line is not the signature that was looked for")
	}
	if err != nil {
		return nil, j.mismatch(at, err)
	}
	return e, nil
}

// at reads the event at a place of the index.
func (j *Journal) at(at uint64) (*Event, error) {
	n, off := placeOf(at)
	f, size, err := open(j.dir, n)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line, err := lineAt(f, off, size)
	if err != nil {
		return nil, err
	}
	return ParseLine(line)
}

// mismatch is the error for an index that leads to a wrong line. It is discarded.
func (j *Journal) mismatch(at uint64, err error) error {
	n, off := placeOf(at)
	err = fmt.Errorf("journal file %s, byte %d, where the index leads: %w", nameOf(n, fileSuffix), off, err)
	if re := (*readError)(nil); errors.As(err, &re) {
		return err
	}
	j.index.Discard(err)
	return fmt.Errorf("%w (%w)", ErrIndex, err)
}

// Lines calls do for the events of the lines of a batch, in order. verdict is the
// batch's event, as Request gave it. It stops with the first error, which may be
// do's.
func (j *Journal) Lines(verdict *Event, do func(*Event) error) error {
	e, at, err := j.verdict(verdict.Company, verdict.Request)
	if err != nil {
		return err
	}
	if e == nil || e.Seq != verdict.Seq {
		return errors.New("internal error: not an event that is on record")
	}
	n, end := placeOf(at)
	f, _, err := open(j.dir, n)
	if err != nil {
		return err
	}
	defer f.Close()
	start, err := unitStart(f, end)
	if err != nil {
		return fault(n, 0, end, err)
	}
	l := newLines(f, start, end, chunk)
	for l.off < end {
		line, err := l.next()
		if err != nil {
			return fault(n, 0, l.off, err)
		}
		e, err := ParseLine(line)
		if err != nil {
			return fault(n, 0, l.start, err)
		}
		if err := do(e); err != nil {
			return err
		}
	}
	return nil
}

// unitStart finds where the line events begin that end at the given offset.
func unitStart(f durable.File, end int64) (int64, error) {
	for end > 0 {
		line, start, err := lineBefore(f, end)
		if err != nil {
			return 0, err
		}
		if !isLine(line) {
			break
		}
		end = start
	}
	return end, nil
}

// isLine says whether a line of the journal is an event of kind line, by the two
// members before its kind, which have no variable part but the digits of seq.
func isLine(line []byte) bool {
	_, rest, _ := bytes.Cut(line, []byte(`,"time":"`))
	return len(rest) > len(timeForm) && bytes.HasPrefix(rest[len(timeForm):], []byte(`","event":"line"`))
}
