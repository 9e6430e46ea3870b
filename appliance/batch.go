package appliance

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
)

// chunk is how many lines of a batch one goroutine takes at a time.
const chunk = 128

func (t *task) batch() bool {
	return strings.HasSuffix(strings.TrimSuffix(t.it.Name, ageSuffix), ".jsonl")
}

// answerBatch decides on all lines of a batch. Judging and signing run on several
// goroutines, the rest in the order of the lines.
func (a *Appliance) answerBatch(c *company, t *task, asker *auth.Asker) error {
	b, err := request.ParseBatch(t.text)
	if ref, ok := reason.As(err); ok {
		t.refuse(asker, "", ref)
		return nil
	}
	if err != nil {
		return err
	}
	os := a.judgeAll(c, t, b)
	defer func() {
		for _, o := range os {
			o.wipe()
		}
	}()
	if t.abort(os, asker, func(o *outcome) bool { return o.passing || o.exposed() }) {
		return nil
	}
	for _, o := range os {
		a.approve(c, o, t)
	}
	if t.tooMuch(os, asker) {
		return nil
	}
	if b.Abort {
		refuseContradictions(os)
	}
	// All or nothing: the first line that is refused refuses the file, before
	// anything is done.
	refused := func(o *outcome) bool { return o.refusal != nil && (b.Abort || o.passing) }
	if t.abort(os, asker, refused) {
		return nil
	}
	a.inChunks(len(os), func(from, to int) { a.sign(c, os[from:to]) })
	// A processor's fault shows only now. The signatures that were made are
	// dropped here and never leave.
	if t.abort(os, asker, refused) {
		return nil
	}
	if err := a.keep(c, t, asker, os, b.Abort); err != nil {
		return err
	}
	if t.abort(os, asker, refused) {
		return nil
	}
	t.settleBatch(b, os, asker)
	return nil
}

// What one batch may ask for of what takes long, or says much: the other companies
// wait for it.
const (
	maxSlow    = 16   // data keys, decryptions and lists
	maxEffects = 1000 // imports and commands

	// Of transactions that say themselves which keys sign. Reading them takes memory and
	// time for each field, many times what a line of another ledger takes.
	maxPayments     = 16 << 20 // bytes of the lines
	maxPaymentSigns = request.MaxLines
)

// tooMuch refuses a batch that asks for too much of that.
func (t *task) tooMuch(os []*outcome, asker *auth.Asker) bool {
	slow, effects, signs := 0, 0, 0
	for _, o := range os {
		if o.req == nil {
			continue
		}
		if o.plan != nil && o.req.Tx != nil {
			signs += len(o.plan.Signings())
		}
		switch o.req.Type {
		case request.DataKeyCreate, request.Decrypt, request.WalletList, request.WalletAddress, request.CompanyList:
			slow++
		case request.Sign, request.WalletCreate, request.WalletBind, request.Encrypt:
		default:
			effects++
		}
	}
	what := ""
	switch {
	case t.payments.Load() > maxPayments || signs > maxPaymentSigns:
		what = fmt.Sprintf("put at most %d MiB of Bitcoin transactions into a batch, and let a batch's transactions take at most %d signatures", maxPayments>>20, maxPaymentSigns)
	case slow > maxSlow || effects > maxEffects:
		what = fmt.Sprintf("put at most %d lists, decryptions and new data keys into a batch, and %d imports and commands", maxSlow, maxEffects)
	default:
		return false
	}
	for _, o := range os {
		if o.approval != nil {
			o.approval.Release()
		}
	}
	t.refuse(asker, "", reason.New(reason.BatchTooLong, what, "the batch asks for too much at once"))
	return true
}

// exposed: the line holds a secret that came in the clear.
func (o *outcome) exposed() bool {
	return o.refusal != nil && o.refusal.Code == reason.SecretInTheClear
}

// refuseContradictions refuses a line that binds what an earlier line binds
// otherwise.
func refuseContradictions(os []*outcome) {
	address, wallet := map[string]string{}, map[string]string{}
	for _, o := range os {
		if o.refusal != nil {
			continue
		}
		switch o.req.Type {
		case request.Sign, request.WalletCreate:
			continue
		case request.WalletBind:
			if o.target == nil {
				break
			}
			fallthrough
		default:
			// Done one after the other, they could not all be taken back.
			o.refuseWith(reason.New(reason.FieldInvalid, "leave on_error out, or put it into a file of its own",
				"an all-or-nothing batch signs, creates and binds, and nothing else").At("type"))
			continue
		}
		w, a := o.wallet.ID(), o.req.Address
		if old, ok := address[w]; ok && old != a {
			o.refuseWith(walletBound())
			continue
		}
		if old, ok := wallet[a]; ok && old != w {
			o.refuseWith(walletBound())
			continue
		}
		address[w], wallet[a] = a, w
	}
}

// abort refuses the file if there is such a line, for the reason of the first.
func (t *task) abort(os []*outcome, asker *auth.Asker, is func(*outcome) bool) bool {
	for _, bad := range os {
		if !is(bad) {
			continue
		}
		for _, o := range os {
			if o.approval != nil {
				o.approval.Release()
			}
		}
		t.refuse(asker, "", bad.refusal.OnLine(bad.head.Line))
		return true
	}
	return false
}

func (a *Appliance) judgeAll(c *company, t *task, b *request.Batch) []*outcome {
	os := make([]*outcome, len(b.Lines))
	a.inChunks(len(os), func(from, to int) {
		for i := from; i < to; i++ {
			os[i] = a.judge(c, t, b.Lines[i], answer.Head{Request: t.digest, Line: b.First + i})
		}
	})
	return os
}

// settleBatch puts the lines together.
func (t *task) settleBatch(b *request.Batch, os []*outcome, asker *auth.Asker) {
	refused := 0
	parts := make([][]byte, 0, len(os)+1)
	if b.Header {
		parts = append(parts, nil) // filled in below
	}
	for _, o := range os {
		if o.refusal != nil {
			refused++
			o.answer = answer.AppendRefusal(nil, o.head, "", o.refusal)
			o.event = journal.Event{Code: string(o.refusal.Code), Detail: refusalDetail(o.head.Reference, o.refusal)}
			o.more = nil
		}
		t.lines(o)
		parts = append(parts, o.answer)
		t.kept = t.kept || o.kept
		t.wipe = t.wipe || o.req != nil && o.req.Secret()
		if o.approval != nil {
			t.approvals = append(t.approvals, o.approval)
		}
	}
	if b.Header {
		parts[0] = answer.AppendBatch(nil, t.digest, len(os), refused)
	}
	t.settle("answered", asker, journal.Event{Type: "batch"}, join(parts)...)
}

// join puts small parts together, so that a batch is written in a few large
// pieces.
func join(parts [][]byte) [][]byte {
	const piece = 1 << 20
	var out [][]byte
	for len(parts) > 0 {
		n, size := 0, 0
		for n < len(parts) && size < piece {
			size += len(parts[n])
			n++
		}
		out = append(out, bytes.Join(parts[:n], nil))
		clear(parts[:n])
		parts = parts[n:]
	}
	return out
}

// inChunks calls f for all of [0,n) in chunks, on as many goroutines as the
// appliance has workers.
func (a *Appliance) inChunks(n int, f func(from, to int)) {
	if a.cfg.Serial || n <= chunk {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(a.cfg.Workers, (n+chunk-1)/chunk) {
		wg.Go(func() {
			for {
				from := int(next.Add(chunk)) - chunk
				if from >= n {
					return
				}
				f(from, min(from+chunk, n))
			}
		})
	}
	wg.Wait()
}
