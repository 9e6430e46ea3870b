package appliance

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/appliance/journal"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/keyfs/datakey"
)

// repeat answers a request that was answered before, from the request and the
// journal: the same bytes, with nothing decided, signed or recorded anew. It is
// also how an answer that was on record, but not published when a crash came, is
// made again.
//
// An error is the journal's: the appliance must stop.
func (a *Appliance) repeat(c *company, t *task, known *journal.Event) error {
	err := a.rebuild(c, t, known)
	if unread := (*unreadable)(nil); errors.As(err, &unread) {
		return err
	}
	if err == nil && digestOf(t.product) != known.Result && !t.refused {
		err = errors.New("what was made again differs from what is on record")
	}
	if err == nil {
		return nil
	}
	a.log.Error().Err(err).Str("company", c.name).Str("name", t.it.SafeName()).Time("answered", known.Time).
		Msg("an answer cannot be made again")
	t.events, t.refused = nil, false
	t.refuse(nil, "", reason.New(reason.AnswerLost, "look for the answer where you keep the earlier ones, or ask the operator, whose log names the cause",
		"this request was answered before, and its answer cannot be made again now"))
	return nil
}

// unreadable: what is on record could not be read. Whether it can be made again is
// not known then.
type unreadable struct{ err error }

func (u *unreadable) Error() string { return "reading what is on record: " + u.err.Error() }
func (u *unreadable) Unwrap() error { return u.err }

func (a *Appliance) rebuild(c *company, t *task, known *journal.Event) error {
	switch known.Kind {
	case "refused":
		r, reference, err := readRefusal(known)
		if err != nil {
			return err
		}
		t.refused = true
		h := answer.Head{Reference: reference, Request: t.digest}
		t.product = [][]byte{answer.AppendRefusal(nil, h, t.it.SafeName(), r)}
		return nil
	}
	kept, files, err := a.keptAnswer(c.name, t.digest, known.Result)
	if err != nil {
		return &unreadable{err}
	}
	if kept != nil {
		t.product, t.files = [][]byte{kept}, files
		return nil
	}
	if known.Kind == "answered" {
		return a.rebuildBatch(c, t, known)
	}
	if ledgers.Document(t.it.Name) != nil {
		return errors.New("the answer that was kept is missing")
	}
	events := []*journal.Event{known}
	if known.Kind == "signed" && known.Signature == "" {
		// It has several, which are on record before it.
		events = nil
		collect := func(ev *journal.Event) error { events = append(events, ev); return nil }
		if err := a.journal.Lines(known, collect); err != nil {
			return &unreadable{err}
		}
	}
	o, err := a.rebuildOne(c, t.text, answer.Head{Request: t.digest}, events)
	if err != nil {
		return err
	}
	t.product = [][]byte{o}
	return nil
}

func (a *Appliance) rebuildBatch(c *company, t *task, known *journal.Event) error {
	b, err := request.ParseBatch(t.text)
	if err != nil {
		return err
	}
	var parts [][]byte
	if b.Header {
		parts = append(parts, nil)
	}
	i, refused := 0, 0
	var unfit error // as opposed to an error of the journal's own
	var events []*journal.Event
	// line makes the answer to the line whose events were collected.
	line := func() error {
		if len(events) == 0 {
			return nil
		}
		ev := events[0]
		if i >= len(b.Lines) || ev.Line != b.First+i {
			return fmt.Errorf("the record of line %d does not fit the batch", ev.Line)
		}
		h := answer.Head{Request: t.digest, Line: ev.Line}
		var line []byte
		if ev.Code != "" {
			r, reference, err := readRefusal(ev)
			if err != nil {
				return err
			}
			refused++
			h.Reference = reference
			line = answer.AppendRefusal(nil, h, "", r)
		} else if line, err = a.rebuildOne(c, b.Lines[i], h, events); err != nil {
			return err
		}
		parts = append(parts, line)
		i++
		events = events[:0]
		return nil
	}
	err = a.journal.Lines(known, func(ev *journal.Event) error {
		// A line with several signatures has an event for each.
		if len(events) > 0 && events[0].Line != ev.Line {
			if unfit = line(); unfit != nil {
				return unfit
			}
		}
		events = append(events, ev)
		return nil
	})
	if err == nil {
		unfit = line()
	}
	if unfit != nil {
		return unfit
	}
	if err != nil {
		return &unreadable{err}
	}
	if i != len(b.Lines) {
		return fmt.Errorf("%d of %d lines are on record", i, len(b.Lines))
	}
	if b.Header {
		parts[0] = answer.AppendBatch(nil, t.digest, len(b.Lines), refused)
	}
	t.product = join(parts)
	return nil
}

// rebuildOne writes the answer to one request once more. events are those on record:
// one, or one for each signature.
func (a *Appliance) rebuildOne(c *company, data []byte, h answer.Head, events []*journal.Event) ([]byte, error) {
	if len(events) == 0 {
		return nil, errors.New("nothing is on record of it")
	}
	ev := events[0]
	req, err := request.Parse(data)
	if err != nil {
		return nil, err
	}
	h.Reference = req.Reference
	if req.Type == request.Decrypt && req.Clear {
		return a.decryptAgain(c, req, h)
	}
	if ev.Wallet == "" {
		return nil, errors.New("the answer that was kept is missing")
	}
	w, err := a.keys.Lookup(c.name, ev.Wallet)
	if err != nil {
		return nil, err
	}
	o := &outcome{head: h, req: req, wallet: w}
	switch req.Type {
	case request.Sign:
		view := walletView(c, w)
		view.Address = ev.Detail
		if o.plan, err = policy.NewPlan(req, view); err != nil {
			return nil, err
		}
		if n := len(o.plan.Signings()); n != len(events) {
			return nil, fmt.Errorf("%d of %d signatures are on record", len(events), n)
		}
		sigs := make([]string, len(events))
		for i, ev := range events {
			sigs[i] = ev.Signature
		}
		a.signed(o, sigs)
	case request.WalletCreate:
		if err := a.created(o); err != nil {
			return nil, err
		}
	case request.WalletAddress:
		if err := a.addressed(o); err != nil {
			return nil, err
		}
	case request.WalletBind:
		a.bound(o)
	default:
		return nil, errors.New("the answer that was kept is missing")
	}
	return o.answer, nil
}

// decryptAgain is for a text that went out in the clear, which is not kept.
func (a *Appliance) decryptAgain(c *company, req *request.Request, h answer.Head) ([]byte, error) {
	defer req.Wipe()
	o := &outcome{head: h, req: req, format: datakey.Algorithm(req.Format)}
	var err error
	if o.key, err = a.dataKeys.Lookup(c.name, req.Key); err != nil {
		return nil, err
	}
	plain, refusal, err := a.opened(c, o)
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		return nil, refusal
	}
	defer clear(plain)
	o.done("decrypted", a.inClear(o, plain)...)
	return o.answer, nil
}

func readRefusal(ev *journal.Event) (*reason.Refusal, string, error) {
	var d detail
	if err := json.Unmarshal([]byte(ev.Detail), &d); err != nil {
		return nil, "", fmt.Errorf("reading the record of a refusal: %w", err)
	}
	return &reason.Refusal{
		Code: reason.Code(ev.Code), Line: d.Line, Field: d.Field, Message: d.Message, Hint: d.Hint,
	}, d.Reference, nil
}
