// Package courier carries what the appliance has signed to a Metacoin node, and
// brings back what the appliance needs: the address of a new wallet.
//
// It promises that no call is sent twice where the node's answer is known, and that
// where it is not known the call is sent again only if a second copy can do nothing.
// It must not be run with two state directories for one outbox, and it does not
// decide who may read or write the outbox: whoever can write there can have another
// key registered for a new wallet, since nothing in that answer is signed.
//
// # Order
//
//	verify   the answer, as signdrop verify does         nothing is sent
//	note     "sending", synced                           nothing is sent
//	send     once                                        it may be carried out
//	record   the node's answer, synced                   settled
//	bind     drop the request that binds the address     for a new wallet
//	record   that it was dropped, synced                 done
//
// A crash before "note" leaves nothing. One between "note" and "record" leaves a
// call of which nobody knows what became (in doubt): see attempt. One after it
// leaves at most the dropping, which can be done again: it gives the same bytes
// under the same name.
package courier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

type unixStat = syscall.Stat_t

// Config says what to carry from where to where.
type Config struct {
	Outbox string
	State  string
	Done   string // where answers go for which nothing is left to do; "" to leave them
	Node   *Node

	// Bind drops a request into the appliance's inbox. Doing it again with the
	// same bytes must be harmless. nil: addresses are only recorded.
	Bind func(name string, request []byte) error

	Once     bool          // end when nothing is left to send
	Poll     time.Duration // how often the outbox is looked at
	RetryFor time.Duration // how long one call is tried in this run; 0 for ever
	Backoff  time.Duration // the first wait before trying again; it doubles up to 64 times that
	Settle   time.Duration // how long a registration that got no answer may still be carried out

	Tell     func(Event)           // what became of an answer
	Progress func(done, total int) // of the calls of this run; may be nil
}

// Verdict is what became of an answer.
type Verdict string

// The verdicts, as they are printed.
const (
	Sent       Verdict = "sent"       // Detail: the transaction's id
	Registered Verdict = "registered" // Detail: the new address
	Bound      Verdict = "bind"       // Detail: the request that was dropped
	Passed     Verdict = "passed"     // Detail: why there is nothing to send
	NodeSaysNo Verdict = "refused"    // Detail: what the node said
	Doubtful   Verdict = "uncertain"  // Detail: why, and what to do
	Left       Verdict = "waiting"    // given up in this run
	Trying     Verdict = "trying"     // it will be tried again; Detail: why, and when
	Forged     Verdict = "forged"     // it must not be trusted, and was not sent
	Failed     Verdict = "failed"     // it cannot be read, or what followed failed
)

// Event tells what became of one answer.
type Event struct {
	Verdict Verdict
	Name    string // pay.result.json, run.result.jsonl:3
	Detail  string
}

type courier struct {
	Config
	store *store

	seen, torn map[string]stamp // of the outbox, by name
	active     map[string]bool  // calls under way, by the path of their record
	open       []*task
	deferred   bool // a file waits for a call that is under way for another

	total, settled, before int

	failures int       // in a row, of whatever call
	pause    time.Time // nothing is sent before
}

// Run carries until ctx is done or, with Once, until nothing is left. A call that is
// under way when ctx ends is waited for: stopping must not make doubts.
func Run(ctx context.Context, cfg Config) (before int, err error) {
	st, err := openStore(cfg.State, cfg.Node.URL())
	if err != nil {
		return 0, err
	}
	defer st.close()
	c := &courier{
		Config: cfg, store: st, seen: map[string]stamp{}, torn: map[string]stamp{}, active: map[string]bool{},
	}
	for {
		c.deferred = false
		if err := c.scan(); err != nil {
			return c.before, err
		}
		for {
			if err := c.pass(ctx); err != nil {
				return c.before, err
			}
			if ctx.Err() != nil {
				return c.before, nil
			}
			if len(c.open) == 0 && (c.Once || c.deferred) {
				break
			}
			if !c.wait(ctx) {
				break
			}
		}
		switch {
		case ctx.Err() != nil:
			return c.before, nil
		case c.Once && len(c.open) == 0 && !c.deferred:
			return c.before, nil
		}
	}
}

// wait waits until something is due, and reports false if it is time to look at the
// outbox again, or ctx is done.
func (c *courier) wait(ctx context.Context) bool {
	now := time.Now()
	until, look := now.Add(c.Poll), true
	for _, t := range c.open {
		at := t.due
		if c.pause.After(at) {
			at = c.pause
		}
		if c.Once && look || at.Before(until) {
			until, look = at, false
		}
	}
	timer := time.NewTimer(until.Sub(now))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return !look
	}
}

// pass makes one attempt with each call that is due.
func (c *courier) pass(ctx context.Context) error {
	left := c.open[:0:0]
	for i, t := range c.open {
		now := time.Now()
		if ctx.Err() != nil || now.Before(c.pause) {
			left = append(left, c.open[i:]...)
			break
		}
		if now.Before(t.due) {
			left = append(left, t)
			continue
		}
		if t.first.IsZero() {
			t.first = now
		}
		done, err := c.step(ctx, t)
		if err != nil {
			return err
		}
		if !done {
			left = append(left, t)
			continue
		}
		delete(c.active, c.store.callPath(t.rec.Request, t.rec.Line))
		c.settled++
		if c.Progress != nil {
			c.Progress(c.settled, c.total)
		}
		if t.file.left--; t.file.left == 0 {
			if err := c.finish(t.file); err != nil {
				return err
			}
		}
	}
	c.open = left
	return nil
}

func (c *courier) event(t *task, v Verdict, detail string) {
	c.Tell(Event{Verdict: v, Name: t.name(), Detail: detail})
}

// step does what is to be done next with a call, and reports whether that was all in
// this run. The error is one that must end the run.
func (c *courier) step(ctx context.Context, t *task) (done bool, err error) {
	if !t.rec.State.final() {
		// Not ended by the signal that ends us: see Run.
		if done, err = c.attempt(context.WithoutCancel(ctx), t); !done || err != nil {
			return done, err
		}
	}
	if !c.bindLeft(t.rec) {
		return true, nil
	}
	return c.bind(t)
}

// attempt sends a call, unless it must not be sent.
func (c *courier) attempt(ctx context.Context, t *task) (done bool, err error) {
	rec := t.rec
	switch {
	case t.register != "":
		if err := c.remember(t, ""); err != nil {
			return false, err
		}
		if sent, done, err := c.registered(ctx, t); sent || done || err != nil {
			return done, err
		}
	case rec.InDoubt && !t.call.again:
		return true, c.uncertain(t, "an earlier sending got no answer, and the ledger would carry out a second one too: look whether it was carried out")
	}

	now := time.Now().UTC()
	doubt := rec.InDoubt
	if rec.Since.IsZero() {
		rec.Since = now
	}
	rec.State, rec.Attempts, rec.Time = Sending, rec.Attempts+1, now
	rec.Status, rec.Body = 0, ""
	if err := c.store.save(rec); err != nil {
		return false, err // nothing was sent
	}
	r := c.Node.call(ctx, t.call.method, t.call.path, t.call.form)
	rec.Time = time.Now().UTC()
	rec.Status, rec.Body = r.status, record(r.body)

	if r.err != nil && !r.reached {
		return c.later(t, Waiting, r)
	}
	switch r.class() {
	case classAway:
		// Whoever this is, it is not the node, and it has seen the call.
		rec.State, rec.InDoubt = Sending, true
		if err := c.store.save(rec); err != nil {
			return false, err
		}
		return false, fmt.Errorf("%s answers with %d, which is not followed: give the node's own URL with --node, and check --proxy", c.Node.URL(), r.status)
	case classBusy:
		return c.later(t, Waiting, r)
	case classUnknown:
		return c.unknown(t, r)
	case classRefused:
		c.failures = 0
		if doubt && t.register == "" {
			return true, c.uncertain(t, fmt.Sprintf("an earlier sending got no answer, and the second was refused (%s): the first may have been carried out; look at the ledger", r))
		}
		rec.State, rec.InDoubt = Refused, false
		if err := c.store.save(rec); err != nil {
			return false, err
		}
		c.event(t, NodeSaysNo, r.String())
		return true, nil
	}
	c.failures = 0
	if t.register != "" {
		address, ok := parseAddress(r.body)
		if !ok {
			r.err = fmt.Errorf("%s is no address", excerpt(r.body))
			return c.unknown(t, r)
		}
		return true, c.accept(t, address)
	}
	txid, ok := parseTxID(r.body)
	if !ok {
		return true, c.uncertain(t, fmt.Sprintf("the node's answer has no transaction id (%s): look at the ledger", r))
	}
	rec.State, rec.InDoubt, rec.TxID = Accepted, false, txid
	if err := c.store.save(rec); err != nil {
		return false, err
	}
	c.event(t, Sent, txid)
	return true, nil
}

// maxRecorded bounds what is kept of a node's answer.
const maxRecorded = 64 << 10

func record(body string) string {
	if len(body) > maxRecorded {
		body = body[:maxRecorded]
	}
	return strings.ToValidUTF8(body, "\uFFFD")
}

// registered asks the node for the addresses of a key before the key is sent there:
// each sending would make another address. sent says that there is nothing to send
// now, be it for ever or for the moment.
//
// The node learns of a new address from a block, so that a call that got no answer
// may show only later; until Settle has passed it is asked again.
func (c *courier) registered(ctx context.Context, t *task) (sent, done bool, err error) {
	list, none, r := c.Node.addresses(ctx, t.register)
	switch {
	case len(list) > 0:
		c.failures = 0
		t.rec.Note = "the node had the key already"
		if len(list) > 1 {
			t.rec.Note = fmt.Sprintf("the node has %d addresses of the key; this is the first of its list", len(list))
		}
		return true, true, c.accept(t, list[0])
	case none:
		if ready := t.rec.Time.Add(c.Settle); t.rec.InDoubt && time.Now().Before(ready) {
			t.tries++
			t.due = earlier(time.Now().Add(c.backoff(t.tries)), ready)
			return true, false, nil
		}
		return false, false, nil
	case r.err == nil && r.class() == classAway:
		return true, false, fmt.Errorf("%s answers with %d, which is not followed: give the node's own URL with --node, and check --proxy", c.Node.URL(), r.status)
	}
	// The record stays as it is, with the time from which Settle counts.
	done, err = c.again(t, r)
	return true, done, err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// accept records the address of a new wallet.
func (c *courier) accept(t *task, address string) error {
	now := time.Now().UTC()
	rec := t.rec
	if rec.Since.IsZero() {
		rec.Since = now
	}
	rec.State, rec.InDoubt, rec.Address, rec.Time = Accepted, false, address, now
	if err := c.remember(t, address); err != nil {
		return err
	}
	if err := c.store.save(rec); err != nil {
		return err
	}
	c.event(t, Registered, address)
	return nil
}

// remember notes a wallet's key before it is sent, and its address once it is known:
// what comes later under the wallet's id is held to them.
func (c *courier) remember(t *task, address string) error {
	known, err := c.store.wallet(t.rec.Wallet)
	if err != nil || known != nil && known.Address == address {
		return err
	}
	if known != nil && address == "" {
		return nil
	}
	return c.store.saveWallet(&knownWallet{Wallet: t.rec.Wallet, PublicKey: t.register, Address: address})
}

// unknown is for a call that may have been carried out.
func (c *courier) unknown(t *task, r *reply) (done bool, err error) {
	t.rec.InDoubt = true
	if t.register == "" && !t.call.again {
		c.failures++
		return true, c.uncertain(t, fmt.Sprintf("no answer that tells (%s), and the ledger would carry out a second sending too: look whether it was carried out", r))
	}
	return c.later(t, Sending, r)
}

// uncertain settles a call of which nobody knows what became.
func (c *courier) uncertain(t *task, why string) error {
	t.rec.State, t.rec.InDoubt, t.rec.Note = Uncertain, true, why
	t.rec.Time = time.Now().UTC()
	if err := c.store.save(t.rec); err != nil {
		return err
	}
	c.event(t, Doubtful, why)
	return nil
}

// later records what an attempt has left and says when to make the next.
func (c *courier) later(t *task, s State, r *reply) (done bool, err error) {
	if s == Waiting && t.rec.InDoubt {
		s = Sending // this attempt did nothing, but an earlier one may have
	}
	t.rec.State = s
	if err := c.store.save(t.rec); err != nil {
		return false, err
	}
	return c.again(t, r)
}

// again says when to make the next attempt, or gives up.
func (c *courier) again(t *task, r *reply) (done bool, err error) {
	t.tries++
	c.failures++
	now := time.Now()
	// A node that is down fails all calls. They take turns then, and together
	// they wait ever longer; one that answers to others only keeps its own waiting.
	t.due = now.Add(max(c.backoff(t.tries), r.wait))
	if c.failures > 1 || r.wait > 0 {
		c.pause = now.Add(max(c.backoff(c.failures-1), r.wait))
	}
	if c.RetryFor > 0 && t.due.Sub(t.first) > c.RetryFor {
		c.event(t, Left, r.String())
		return true, nil
	}
	c.event(t, Trying, fmt.Sprintf("%s; again in %s", r, t.due.Sub(now).Round(time.Millisecond)))
	return false, nil
}

// backoff is how long to wait after the nth failure: twice as long each time, up to
// 64 times, of which the second half is drawn at random so that couriers that failed
// together do not come back together.
func (c *courier) backoff(n int) time.Duration {
	d := c.Backoff << min(max(n-1, 0), 6)
	return d/2 + rand.N(d/2+1)
}

// bindLeft reports whether an address is known and its binding not yet asked for.
func (c *courier) bindLeft(r *Record) bool {
	return c.Bind != nil && r.State == Accepted && r.Address != "" && r.Bind == ""
}

// bind drops the request that binds a wallet to its address. If we are stopped
// before that is recorded, the same bytes are dropped again under the same name, and
// the appliance gives the same answer.
func (c *courier) bind(t *task) (done bool, err error) {
	name := "bind-" + t.rec.Wallet + ".json"
	request, err := bindRequest(t.rec.Wallet, t.rec.Address)
	if err != nil {
		return false, err
	}
	if err := c.Bind(name, request); err != nil {
		c.event(t, Failed, "the request "+name+" cannot be dropped: "+err.Error())
		if c.Once {
			return true, nil
		}
		t.tries++
		t.due = time.Now().Add(c.backoff(t.tries))
		return false, nil
	}
	t.rec.Bind = name
	if err := c.store.save(t.rec); err != nil {
		return false, err
	}
	c.event(t, Bound, name)
	return true, nil
}

// bindRequest follows from wallet and address alone, so that it is the same each
// time.
func bindRequest(wallet, address string) ([]byte, error) {
	if !walletForm.MatchString(wallet) {
		return nil, errors.New("internal error: the wallet's id is not one")
	}
	return fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`+"\n", wallet, address), nil
}
