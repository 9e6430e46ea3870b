package appliance

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/bitcoin"
	"signdrop/appliance/journal"
	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/metacoin"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/keyfs/hd"
	"signdrop/spool"
)

// task is an item on its way through the appliance: what was decided, what is to
// be recorded and what is to be published.
type task struct {
	it     *spool.Item
	digest [32]byte // SHA-256 of the request
	held   bool     // the digest is reserved for this task
	size   int      // bytes it counts for in the pipeline

	made       bool   // the product is written where nobody sees it
	generation uint64 // how many syncs had failed before that

	text   []byte // the request, opened if it came encrypted
	sealed bool   // it came encrypted
	wipe   bool   // the request must not remain

	payments atomic.Int64 // bytes of a batch's lines that are payments, see tooMuch

	// Of commands.
	waiting  *approved       // not enough have signed it yet
	noted    bool            // it was noted as approved
	redo     bool            // it was approved before a crash, and is done again
	consents map[string]bool // companies that agree to their change
	kept     bool            // the answer is kept, since it cannot be made again
	handsOut bool            // a file goes out with it

	refused   bool
	product   [][]byte     // the answer, or the reason
	files     []spool.File // further files, which the answer names
	events    []*journal.Event
	approvals []*policy.Approval
}

// take decides on an item: it authenticates, claims, and answers. It returns nil
// when there is nothing to do for now: the item is back in the inbox or gone. An
// error is not the asker's: the appliance must stop, and after a restart the
// claim is found again.
func (a *Appliance) take(it *spool.Item) (*task, error) {
	for {
		t := &task{it: it, digest: sha256.Sum256(it.Data)}
		c, err := a.companies.get(it.Company)
		if err != nil {
			// Our own files are in disorder. Nothing is refused for that: the
			// request waits until they are mended.
			a.log.Error().Err(err).Str("company", it.Company).Msg("company is not served; mend its files")
			if err := a.putBack(it); !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			a.spool.Return(it, false) // it stays claimed
			return nil, nil
		}
		asker, known, refusal, err := a.examine(c, t)
		if err != nil {
			return nil, err
		}
		if refusal != nil && !it.Due && auth.StillArriving(refusal) {
			err := a.putBack(it)
			if !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			// The partner has put another file there, so nothing more can come for
			// this one.
			it.Due = true
		}
		if t.waiting != nil && it.Quiet(a.cfg.Now()) < a.patience(t.waiting) {
			if err := a.spool.Status(it, statusOf(t, t.waiting)); err != nil {
				a.log.Warn().Err(err).Str("name", it.SafeName()).Msg("who is missing cannot be told")
			}
			if err := a.putBack(it); !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		if refusal == nil && known == nil {
			if !a.digests.hold(t) {
				// The same bytes are being answered at this moment: after that it
				// is known what to say.
				a.spool.Return(it, true)
				return nil, nil
			}
			// They may have been answered since examine has looked.
			if known, err = a.journal.Request(it.Company, t.digest); err != nil {
				return nil, err
			}
			if known != nil {
				a.digests.release(t)
			}
		}
		if !it.Claimed {
			changed, err := a.spool.Claim(it)
			if changed || err != nil {
				a.digests.release(t)
			}
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
				return nil, nil // taken back, or its predecessor is not put away yet
			case !it.Claimed && errors.Is(err, fs.ErrPermission):
				// Somebody else's directory, which its owner alone may move. That
				// is this partner's trouble and nobody else's.
				a.log.Warn().Err(err).Str("company", it.Company).Str("name", it.SafeName()).Msg("a file cannot be taken from the inbox")
				a.spool.Return(it, false)
				return nil, nil
			case err != nil:
				return nil, err
			case changed:
				it.Due = false // what was read first is void; look afresh
				continue
			}
		}
		if err := a.answer(c, t, asker, known, refusal); err != nil {
			a.digests.release(t)
			if errors.Is(err, errPutOff) {
				return nil, nil // it stays in work/, and the next start does it
			}
			return nil, err
		}
		if t.sealed {
			clear(t.text)
		}
		if t.wipe {
			a.spool.Forget(it)
		}
		if a.make(t) != nil {
			return t, nil // recording tries again, and says what is wrong
		}
		return t, nil
	}
}

// patience is how long a command may wait for its signatures. One that has none of
// an administrator waits as any file that does not verify.
func (a *Appliance) patience(ap *approved) time.Duration {
	if ap.none {
		return a.cfg.Still
	}
	return a.cfg.ApprovalWait
}

// putBack returns an item to the inbox, to be looked at when it changes or is due.
// The error is fs.ErrExist where the partner has put another file there: the item
// then stays claimed.
func (a *Appliance) putBack(it *spool.Item) error {
	if !it.Claimed {
		a.spool.Return(it, false)
		return nil
	}
	err := a.spool.Unclaim(it)
	if errors.Is(err, fs.ErrExist) {
		a.log.Warn().Str("company", it.Company).Str("name", it.SafeName()).Msg("a claimed file cannot go back to the inbox: its name is taken")
	}
	return err
}

// examine says who asks, or why nobody can have asked. known is set if the very
// same request was answered before.
func (a *Appliance) examine(c *company, t *task) (asker *auth.Asker, known *journal.Event, refusal *reason.Refusal, err error) {
	it := t.it
	recorded := func() error {
		known, err = a.journal.Request(it.Company, t.digest)
		return err
	}
	if it.Recovered && it.Data != nil && it.Refusal == nil {
		// What is on record was asked for by somebody who could, whatever has
		// become of them since: it has one verdict.
		if err := recorded(); err != nil || known != nil {
			return nil, known, nil, err
		}
	}
	if it.Refusal != nil {
		// A crash while a request was put away can leave it without its
		// signature. That it is on record proves who asked.
		if it.Claimed && it.Refusal.Code == reason.SignatureMissing && it.Data != nil {
			if err := recorded(); err != nil || known != nil {
				return nil, known, nil, err
			}
			// It is not, so its signature is missing as it would be in the inbox,
			// where such a file is not read: the reason must say the same.
			it.Data, it.Due = nil, false
		}
		return nil, nil, it.Refusal, nil
	}
	if c.role() == request.Administrator {
		ap, refusal, err := a.verifyCommand(c, t)
		if err != nil || refusal != nil {
			return nil, nil, refusal, err
		}
		if len(ap.missing) > 0 {
			t.waiting = ap
			if ap.none && it.Due {
				return nil, nil, ap.first, nil
			}
			return &ap.asker, nil, reason.New(reason.ApprovalsMissing, "have it signed, put the signatures beside it as NAME.json.ANYTHING.sig, and drop all again",
				"the command lacks %s", strings.Join(ap.missing, " and ")), nil
		}
		return &ap.asker, known, nil, recorded()
	}
	sig, err := auth.ParseSignature(it.Sig)
	if err == nil {
		asker, err = c.signers.Verify(it.Data, sig, auth.NamespaceRequest, a.now())
	}
	if err != nil {
		ref, ok := reason.As(err)
		if !ok {
			return nil, nil, nil, err
		}
		return nil, nil, ref, nil
	}
	if !c.active {
		return asker, nil, reason.New(reason.CompanyDisabled, "ask the appliance's administrators", "the company is disabled"), nil
	}
	return asker, known, nil, recorded()
}

// answer fills in what the task publishes and records.
func (a *Appliance) answer(c *company, t *task, asker *auth.Asker, known *journal.Event, refusal *reason.Refusal) error {
	if known == nil && t.it.Recovered {
		if told, err := a.told(t); told || err != nil {
			return err
		}
	}
	if known == nil {
		if exposed, err := a.exposed(t, refusal == nil); err != nil {
			return err
		} else if exposed {
			refusal = exposure()
		}
	}
	if refusal == nil && t.text == nil {
		refusal = a.unseal(t)
	}
	if refusal != nil {
		t.refuse(asker, "", refusal)
		return nil
	}
	if known != nil {
		if known.Type == request.Backup {
			a.handOver(t)
		}
		return a.repeat(c, t, known)
	}
	taken, err := a.spool.Occupied(t.it)
	if err != nil {
		return fmt.Errorf("looking for the answer's name: %w", err)
	}
	if taken {
		t.refuse(asker, "", nameTaken())
		return nil
	}
	if t.batch() {
		return a.answerBatch(c, t, asker)
	}
	o := a.judge(c, t, t.text, answer.Head{Request: t.digest})
	defer o.wipe()
	a.approve(c, o, t)
	os := []*outcome{o}
	a.sign(c, os)
	if err := a.keep(c, t, asker, os, false); err != nil {
		return err
	}
	if o.refusal != nil {
		t.refuse(asker, o.reference(), o.refusal)
		return nil
	}
	t.kept, t.files, t.wipe = o.kept, o.files, o.req.Secret()
	if o.req.Type == request.Backup {
		a.handOver(t)
	}
	t.settleOne(asker, o)
	if o.approval != nil {
		t.approvals = append(t.approvals, o.approval)
	}
	return nil
}

// told reports that the partner was told already, before a crash, why the request is
// refused. That stands, although the cause may be gone by now: it is on record, and a
// request has one verdict.
func (a *Appliance) told(t *task) (bool, error) {
	request := ""
	if t.it.Data != nil {
		request = hex.EncodeToString(t.digest[:])
	}
	told, err := a.spool.Reason(t.it, func(data []byte) bool {
		r, err := answer.Parse(data)
		if err != nil || r.Type != answer.TypeRefusal || r.Name != t.it.SafeName() {
			return false
		}
		t.wipe = r.Code == string(reason.SecretInTheClear)
		return r.Request == request
	})
	if told != nil {
		t.refused, t.product = true, [][]byte{told}
	}
	t.wipe = t.wipe && told != nil
	return told != nil, err
}

func nameTaken() *reason.Refusal {
	return reason.New(reason.NameTaken, "take the answer out of the outbox, or use another name",
		"another answer lies in the outbox under this name")
}

// refuse makes the task a refusal. Codes that are final are remembered, with all
// that the reason said, so that the same bytes get the same reason.
func (t *task) refuse(asker *auth.Asker, reference string, r *reason.Refusal) {
	t.refused, t.wipe, t.files, t.kept = true, r.Code == reason.SecretInTheClear, nil, false
	h := answer.Head{Reference: reference}
	if t.it.Data != nil {
		h.Request = t.digest
	}
	t.product = [][]byte{answer.AppendRefusal(nil, h, t.it.SafeName(), r)}
	ev := &journal.Event{Kind: "refused", Final: reason.Final(r.Code)}
	ev.Code, ev.Detail = string(r.Code), refusalDetail(reference, r)
	t.record(ev, asker)
}

// settle makes the task an answer.
func (t *task) settle(kind string, asker *auth.Asker, ev journal.Event, parts ...[]byte) {
	t.product = parts
	ev.Kind = kind
	t.record(&ev, asker)
}

// settleOne is settle for a single request. Several signatures are events of their
// own before the answer's, as those of a batch are.
func (t *task) settleOne(asker *auth.Asker, o *outcome) {
	if len(o.more) == 0 {
		t.settle(o.event.Kind, asker, o.event, o.answer)
		return
	}
	kind := o.event.Kind
	t.lines(o)
	verdict := journal.Event{Type: o.event.Type, Wallet: o.event.Wallet, Ledger: o.event.Ledger, Operation: o.event.Operation}
	t.settle(kind, asker, verdict, o.answer)
}

// lines adds the events of a request as those of a line.
func (t *task) lines(o *outcome) {
	add := func(ev *journal.Event) {
		ev.Kind, ev.Line = "line", o.head.Line
		ev.Company, ev.Request = t.it.Company, t.digest
		t.events = append(t.events, ev)
	}
	add(&o.event)
	for i := range o.more {
		add(&o.more[i])
	}
}

func (t *task) record(ev *journal.Event, asker *auth.Asker) {
	ev.Company, ev.Name = t.it.Company, t.it.Name
	if t.it.Data != nil {
		ev.Request = t.digest
	}
	if asker != nil {
		ev.By, ev.Key = asker.Principal, asker.Fingerprint
	}
	ev.Result = digestOf(t.product)
	t.events = append(t.events, ev)
}

func digestOf(parts [][]byte) (sum [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// detail is what the journal keeps of a refusal beside its code.
type detail struct {
	Reference string `json:"reference,omitempty"`
	Line      int    `json:"line,omitzero"`
	Field     string `json:"field,omitempty"`
	Message   string `json:"message"`
	Hint      string `json:"hint,omitempty"`
}

func refusalDetail(reference string, r *reason.Refusal) string {
	b, err := json.Marshal(detail{reference, r.Line, r.Field, r.Message, r.Hint})
	if err != nil {
		panic("internal error: a refusal cannot be written: " + err.Error())
	}
	return string(b)
}

// outcome is one request, of a file or of a line, and what becomes of it.
type outcome struct {
	head     answer.Head
	req      *request.Request
	refusal  *reason.Refusal
	wallet   *keyfs.Wallet
	others   []*keyfs.Wallet // further ones that sign with it
	target   *company        // whom a command is about
	signers  []setup.Signer
	admins   []setup.Signer
	plan     *policy.Plan // of a sign request
	approval *policy.Approval

	key       *datakey.Key
	format    datakey.Algorithm
	recipient *age.X25519Recipient

	recipients []age.Recipient // of a backup

	// passing: the refusal is for something of the moment, such as a read error on
	// our disk. It must not become a line's verdict: the whole file is refused.
	passing bool

	event  journal.Event
	more   []journal.Event // of a request that has several signatures, the others'
	answer []byte
	files  []spool.File // further ones, which the answer names; see filesMember
	kept   bool         // the answer cannot be made again
}

// signer returns the wallet with this number in the plan.
func (o *outcome) signer(i int) *keyfs.Wallet {
	if i == 0 {
		return o.wallet
	}
	return o.others[i-1]
}

func (o *outcome) wipe() {
	if o.req != nil {
		o.req.Wipe()
	}
}

func (o *outcome) reference() string {
	if o.req == nil {
		return ""
	}
	return o.req.Reference
}

// parse reads a request of the task: a document whole, anything else as JSON.
func (t *task) parse(data []byte) (*request.Request, error) {
	if l := ledgers.Document(t.it.Name); l != nil {
		return request.ParseDocument(l, data)
	}
	return request.Parse(data)
}

// refuseWith notes a refusal; any other error is reported as fault.
func (o *outcome) refuseWith(err error) (fault error) {
	if ref, ok := reason.As(err); ok {
		o.refusal = ref
		return nil
	}
	return err
}

// judge reads one request of a task and finds its wallet. It has no effect and may
// run for many lines at once.
func (a *Appliance) judge(c *company, t *task, data []byte, head answer.Head) *outcome {
	o := &outcome{head: head}
	err := a.judgeRequest(c, t, o, data)
	if fault := o.refuseWith(err); fault != nil {
		a.keyTrouble(c, o, fault)
	}
	return o
}

func (a *Appliance) judgeRequest(c *company, t *task, o *outcome, data []byte) error {
	req, err := t.parse(data)
	if err != nil {
		return err
	}
	o.req = req
	o.head.Reference = req.Reference
	if err := req.For(c.role()); err != nil {
		return err
	}
	if req.Secret() && !t.sealed {
		return exposure()
	}
	// What was begun before a crash is finished, however late it is.
	if err := c.policy.Fresh(req, a.cfg.ID, a.now()); err != nil && !t.redo {
		return err
	}
	owner := c
	if c.role() == request.Administrator {
		if err := a.judgeCommand(t, o); err != nil {
			return err
		}
		if o.target != nil {
			owner = o.target
		}
	}
	if p, ok := req.Tx.(*bitcoin.PSBT); ok {
		if t.payments.Add(int64(len(data))) > maxPayments {
			req.Tx = nil // tooMuch refuses the batch
			return reason.New(reason.BatchTooLong, "split the batch", "the batch has too many transactions")
		}
		return a.judgePayment(c, o, p)
	}
	switch req.Type {
	case request.Sign, request.WalletBind, request.WalletDisable, request.WalletEnable, request.WalletAddress:
		if o.wallet, err = a.findWallet(owner, req.Wallet); err != nil {
			return err
		}
	}
	switch req.Type {
	case request.Sign, request.WalletBind:
		if err := refuseHD(o.wallet); err != nil {
			return err
		}
	}
	switch req.Type {
	case request.Sign:
		o.plan, err = policy.NewPlan(req, walletView(c, o.wallet))
		return err
	case request.WalletCreate:
		if req.Kind != "" {
			return nil
		}
		return checkCurve(req.Curve)
	case request.WalletAddress:
		return checkAddresses(o)
	case request.WalletImport:
		return a.judgeImport(c, o)
	case request.DataKeyCreate, request.Encrypt, request.Decrypt:
		return a.judgeDataKey(c, t, o)
	case request.WalletBind:
		if o.target == nil {
			return a.checkBind(c, o.wallet, req.Address)
		}
		return checkAddress(req.Address)
	}
	return nil
}

func checkAddress(address string) error {
	if !metacoin.ValidAddress(address) {
		return reason.New(reason.FieldInvalid, "copy the address that Metacoin gave", "this is not a Metacoin address").At("address")
	}
	return nil
}

// checkBind refuses what Bind would refuse, before anything is done.
func (a *Appliance) checkBind(c *company, w *keyfs.Wallet, address string) error {
	if err := checkAddress(address); err != nil {
		return err
	}
	other, err := a.keys.ByAddress(c.name, address)
	if err != nil && !errors.Is(err, keyfs.ErrUnknown) {
		return err
	}
	w, werr := a.keys.Lookup(c.name, w.ID()) // as it is now
	if werr != nil {
		return werr
	}
	if w.Address() != "" && w.Address() != address || err == nil && other.ID() != w.ID() {
		return walletBound()
	}
	return nil
}

func walletBound() error {
	return reason.New(reason.WalletBound, "check the address; a correction needs the administrators",
		"the wallet has another address, or the address belongs to another wallet").At("address")
}

func checkCurve(curve string) error {
	if !keyfs.Curve(curve).Known() {
		return reason.New(reason.FieldInvalid, "use P-256, P-384, P-521 or secp256k1", "no such curve").At("curve")
	}
	return nil
}

func (a *Appliance) findWallet(c *company, name string) (*keyfs.Wallet, error) {
	find := a.keys.ByAddress
	if strings.HasPrefix(name, idPrefix) {
		find = a.keys.Lookup
	}
	w, err := find(c.name, name)
	if noSuch(err) {
		return nil, reason.New(reason.WalletUnknown, "check the id, or bind the address first",
			"the company has no wallet of this id or address").At("wallet")
	}
	return w, err
}

// noSuch reports that a name is not that of a wallet. What is not of an id's form
// may still be an address, and no id with an underscore can be one.
func noSuch(err error) bool {
	return errors.Is(err, keyfs.ErrUnknown) || errors.Is(err, keyfs.ErrInvalid)
}

// keyTrouble refuses for trouble with a key file. The partner is told nothing about
// our disk; the log tells the operator all.
func (a *Appliance) keyTrouble(c *company, o *outcome, err error) {
	a.log.Error().Err(err).Str("company", c.name).Msg("wallet cannot be used")
	o.refusal = reason.New(reason.KeyUnusable, "tell the appliance's operator, whose log names the cause; then drop it again",
		"the wallet's key cannot be used").At("wallet")
	damaged := (*keyfs.Damaged)(nil)
	o.passing = !errors.As(err, &damaged) && !errors.Is(err, keyfs.ErrFault)
}

// approve asks the policy, in the order of the lines, so that of two lines that
// want the same nonce the first has it.
func (a *Appliance) approve(c *company, o *outcome, owner any) {
	if o.refusal != nil || o.req.Type != request.Sign {
		return
	}
	ap, err := c.policy.Sign(o.plan, a.once, a.now(), owner)
	if fault := o.refuseWith(err); fault != nil {
		// The memory could not be asked. Nothing is signed without it.
		a.fail(fault)
		o.refusal = reason.New(reason.NonceBusy, "drop the request again", "the appliance's memory could not be asked")
	}
	o.approval = ap
	o.passing = o.refusal != nil && o.refusal.Code == reason.NonceBusy
}

func walletView(c *company, w *keyfs.Wallet) policy.Wallet {
	return policy.Wallet{
		Company: c.name, ID: w.ID(), Curve: string(w.Curve()), PublicPEM: w.PublicPEM(), Address: w.Address(),
		Active: w.Active(), NotAfter: w.NotAfter(),
	}
}

// schemes are keyfs's names of the ledgers' schemes.
var schemes = map[ledger.Scheme]keyfs.Scheme{
	ledger.ECDSA: keyfs.ECDSA, ledger.ECDSARecoverable: keyfs.ECDSARecoverable, ledger.Schnorr: keyfs.Schnorr,
}

// sign makes the signatures that were approved, one for each signing, and writes
// the answers. Nothing else comes of it: it may run for parts of a batch at once.
func (a *Appliance) sign(c *company, os []*outcome) {
	for _, o := range os {
		if o.refusal != nil || o.req.Type != request.Sign {
			continue
		}
		signings, ok := o.approval.Take()
		if !ok {
			panic("internal error: an approval was used twice")
		}
		sigs, err := o.signatures(signings)
		if err != nil {
			// Those that were made are dropped here and never leave.
			o.approval.Release()
			o.approval = nil
			a.keyTrouble(c, o, err)
			continue
		}
		if p, ok := o.req.Tx.(*bitcoin.Payment); ok {
			a.paid(c, o, p, sigs)
		} else {
			a.signed(o, sigs)
		}
		o.plan = nil // what is left of it is in the answer and the events
	}
}

// signatures makes all signatures of a request, base64.
func (o *outcome) signatures(signings []ledger.Signing) ([]string, error) {
	inputs := inputSigners{}
	defer inputs.wipe()
	sigs := make([]string, 0, len(signings))
	for i := range signings {
		s := &signings[i]
		w := o.signer(s.Wallet)
		var sig []byte
		var err error
		if s.Input != nil {
			sig, err = inputs.sign(w, s.Input, s.Digest)
		} else {
			sig, err = w.Sign(schemes[s.Scheme], s.Digest)
		}
		if err != nil {
			return nil, err
		}
		sigs = append(sigs, base64.StdEncoding.EncodeToString(sig))
	}
	return sigs, nil
}

// keep does what lasts in db/, in the order of the lines, and writes the answers.
// With whole set, nothing is bound if one of the bindings has become impossible
// since it was judged.
//
// Crash: doing it again finds what was done. Wallets that a refused file has left
// are known to nobody.
func (a *Appliance) keep(c *company, t *task, asker *auth.Asker, os []*outcome, whole bool) error {
	if err := a.create(c, os, t.digest); err != nil {
		return err
	}
	var todo []*outcome
	for _, o := range os {
		if o.refusal != nil {
			continue
		}
		switch o.req.Type {
		case request.Sign, request.WalletCreate:
		case request.WalletAddress:
			a.addresses(c, o)
		case request.DataKeyCreate, request.Encrypt, request.Decrypt:
			// These take long and change nothing that the others look at.
			if err := a.dataKeyEffect(c, t, o); err != nil {
				return err
			}
		default:
			todo = append(todo, o)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if c.role() == request.Administrator {
		if err := a.note(t, asker); err != nil {
			return err
		}
	}
	if whole {
		unlock := a.locks.lock(c.name)
		defer unlock()
		for _, o := range todo {
			if o.req.Type != request.WalletBind || o.target != nil {
				continue
			}
			err := a.checkBind(c, o.wallet, o.req.Address)
			if err = o.refuseWith(err); err != nil {
				a.keyTrouble(c, o, err)
			}
			if o.refusal != nil {
				return nil
			}
		}
	}
	for _, o := range todo {
		if err := a.effect(c, t, o, whole); err != nil {
			return err
		}
	}
	return nil
}

// effect does what one request asks for.
func (a *Appliance) effect(c *company, t *task, o *outcome, locked bool) error {
	owner, about := c, c.name
	if o.target != nil {
		owner = o.target
	}
	if c.role() == request.Administrator {
		about = o.req.Company
	}
	switch o.req.Type {
	case request.WalletList, request.CompanyList, request.Backup: // these change nothing
	default:
		if !locked {
			defer a.locks.lock(about)()
		}
	}
	switch o.req.Type {
	case request.WalletBind:
		if o.target != nil {
			return a.rebind(owner, o)
		}
		return a.bind(c, o)
	case request.WalletImport:
		return a.importWallet(c, o, t.digest)
	case request.WalletDisable, request.WalletEnable:
		return a.setStatus(owner, o)
	case request.WalletList:
		return a.listWallets(c, o)
	case request.Backup:
		return a.backup(t, o)
	}
	return a.command(o)
}

// signed writes the answer and the events of the signatures that a request asked for:
// in sigs, one for each signing of the plan, in base64.
func (a *Appliance) signed(o *outcome, sigs []string) {
	ans := answer.Signed{Head: o.head, Wallet: o.wallet.ID(), PublicKey: o.wallet.PublicPEM()}
	o.plan.Answer(&ans, sigs)
	o.answer = ans.Append(make([]byte, 0, 1536))
	a.signatures(o, sigs)
}

// signatures writes the events of a request's signatures.
func (a *Appliance) signatures(o *outcome, sigs []string) {
	signings := o.plan.Signings()
	if len(signings) > 1 {
		o.more = make([]journal.Event, len(signings)-1)
	}
	for i := range signings {
		s, ev := &signings[i], &o.event
		if i > 0 {
			ev = &o.more[i-1]
		}
		ev.Kind, ev.Type, ev.Wallet = "signed", request.Sign, o.signer(s.Wallet).ID()
		ev.Algorithm, ev.Signature, ev.Text = s.Algorithm, sigs[i], s.Text
		if tx := o.req.Tx; tx != nil {
			ev.Ledger, ev.Operation, ev.Nonce = tx.Ledger(), tx.Operation(), s.Use.Key
		}
		// The address is part of the answer, and a wallet may be bound after it
		// signed: an answer that is made again must show what it showed then.
		ev.Detail = o.plan.Address()
		if s.Use.Pays != [32]byte{} {
			ev.Detail = hex.EncodeToString(s.Use.Pays[:])
		}
	}
}

// paysOf returns the digest of whom a signed text pays, zero where the event of the
// signature does not say it.
func paysOf(ev *journal.Event) (pays [32]byte) {
	if len(ev.Detail) != 2*len(pays) {
		return pays
	}
	if _, err := hex.Decode(pays[:], []byte(ev.Detail)); err != nil {
		return [32]byte{}
	}
	return pays
}

// create makes the wallets that the outcomes ask for, all with the same syncs. A
// wallet's id follows from the request, so that doing it again after a crash
// finds the same wallet and never makes a second one.
func (a *Appliance) create(c *company, os []*outcome, file [32]byte) error {
	var specs []keyfs.Spec
	var which []*outcome
	for _, o := range os {
		if o.refusal == nil && o.req.Type == request.WalletCreate {
			specs = append(specs, keyfs.Spec{ID: walletID(a.seed, c.name, file, o.head.Line), Curve: keyfs.Curve(o.req.Curve), Network: hd.Network(o.req.Network), NotAfter: o.req.WalletNotAfter})
			which = append(which, o)
		}
	}
	if len(specs) == 0 {
		return nil
	}
	wallets, err := a.keys.Create(c.name, specs, a.vol)
	if err != nil {
		for _, o := range which {
			if fault := a.keyFault(c, o, err); fault != nil {
				return fault
			}
		}
		return nil
	}
	for i, o := range which {
		o.wallet = wallets[i]
		if err := a.created(o); err != nil {
			a.keyTrouble(c, o, err)
		}
	}
	return nil
}

// idPrefix begins every wallet's id, and no address.
const idPrefix = "W_"

// walletID derives a wallet's id from the request that creates it: idPrefix and 30
// hexadecimal digits, 120 bits. The appliance has part in it, so that the same
// request at two of them does not give two keys one id, and so has the last restore:
// a wallet that was made after the backup is gone, and its id must not come back with
// another key.
func walletID(appliance, company string, file [32]byte, line int) string {
	h := sha256.New()
	fmt.Fprintf(h, "signdrop wallet\x00%s\x00%s\x00%x\x00%d", appliance, company, file, line)
	return idPrefix + hex.EncodeToString(h.Sum(nil))[:30]
}

func (a *Appliance) created(o *outcome) (err error) {
	o.event.Kind, o.event.Type, o.event.Wallet = "created", request.WalletCreate, o.wallet.ID()
	ans := walletAnswer(o)
	ans.Address = "" // it has none when it is created, whatever it has now
	ans.NotAfter = zulu(o.wallet.NotAfter())
	if o.wallet.HD() {
		if ans.Bitcoin, err = treeMembers(o.wallet); err != nil {
			return err
		}
	}
	o.answer = ans.AppendCreated(nil)
	return nil
}

func (a *Appliance) bind(c *company, o *outcome) error {
	w, err := a.keys.Bind(c.name, o.wallet.ID(), o.req.Address)
	if errors.Is(err, keyfs.ErrBound) {
		return o.refuseWith(walletBound()) // bound by another request since judge looked
	}
	if damaged := (*keyfs.Damaged)(nil); errors.As(err, &damaged) {
		a.keyTrouble(c, o, err) // its files have changed since they were read
		return nil
	}
	if err != nil {
		return fmt.Errorf("binding a wallet: %w", err)
	}
	o.wallet = w
	a.bound(o)
	return nil
}

func (a *Appliance) bound(o *outcome) {
	o.event.Kind, o.event.Type, o.event.Wallet = "bound", request.WalletBind, o.wallet.ID()
	o.event.Detail = o.req.Address
	ans := walletAnswer(o)
	ans.Address, ans.Submit = o.req.Address, nil
	o.answer = ans.AppendBound(nil)
}

// walletAnswer describes a wallet and, where Metacoin takes its curve, how to
// register its public key there.
func walletAnswer(o *outcome) answer.Wallet {
	w := o.wallet
	ans := answer.Wallet{Head: o.head, Wallet: w.ID(), Address: w.Address(), Curve: string(w.Curve()), PublicKey: w.PublicPEM()}
	if w.Curve() != keyfs.Secp256k1 {
		form, err := json.Marshal(map[string]string{"publickey": w.PublicPEM()})
		if err != nil {
			panic("internal error: a public key cannot be written: " + err.Error())
		}
		ans.Submit = fmt.Appendf(nil, `{"method":"POST","path":"/address","form":%s}`, form)
	}
	return ans
}
