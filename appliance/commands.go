package appliance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// Commands are the requests of administrators. They take as many of them as the
// threshold says, and company.update takes a signer of the company too.
//
// A command may change who the administrators are, or a company's signers, and a
// crash may come when that is half done: then those who have signed it may not be
// asked again. So it is noted as approved, durably, before it has any effect:
//
//	db/admins/approved/<request_sha256>    who has approved it
//
// and the note goes when the command is on record.

// approved is who has approved a command, and who is missing.
type approved struct {
	asker   auth.Asker // all of them, joined
	missing []string   // for people; empty: nobody
	have    []string   // fingerprints of those who count
	ignored []string   // signatures that do not count, and why

	none  bool            // no administrator's is among them
	first *reason.Refusal // of the first that does not count
}

// verifyCommand says who has signed a command. The refusal is for signatures none
// of which is an administrator's.
//
// The note of an approved command counts only for what a crash has left in work/:
// it was verified when it was claimed, and those who signed it may not be asked
// again. In an inbox it is worth nothing.
func (a *Appliance) verifyCommand(c *company, t *task) (*approved, *reason.Refusal, error) {
	note, err := a.approvedBefore(t.digest)
	if err != nil {
		return nil, nil, err
	}
	t.noted = note != nil
	if note != nil && t.it.Recovered {
		t.redo = true
		return note, nil, nil
	}
	type signature struct {
		label string
		sig   *auth.Signature
	}
	var sigs []signature
	var first *reason.Refusal
	ap := &approved{}
	ignore := func(label string, err error) error {
		ref, ok := reason.As(err)
		if !ok {
			return err
		}
		if first == nil {
			first = ref
		}
		ap.ignored = append(ap.ignored, label+": "+string(ref.Code)+": "+ref.Message)
		return nil
	}
	read := func(label string, data []byte) error {
		sig, err := auth.ParseSignature(data)
		if err != nil {
			return ignore(label, err)
		}
		sigs = append(sigs, signature{label, sig})
		return nil
	}
	it := t.it
	if it.Sig != nil {
		if err := read(it.Name+spoolSigSuffix, it.Sig); err != nil {
			return nil, nil, err
		}
	}
	for _, m := range it.More {
		if err := read(it.Name+"."+m.Label+spoolSigSuffix, m.Data); err != nil {
			return nil, nil, err
		}
	}
	// One key counts once, and so does one person.
	keys, people := map[string]bool{}, map[string]bool{}
	var by, fingerprints []string
	count := func(asker *auth.Asker) bool {
		if keys[asker.Fingerprint] || people[asker.Principal] {
			return false
		}
		keys[asker.Fingerprint], people[asker.Principal] = true, true
		by, fingerprints = append(by, asker.Principal), append(fingerprints, asker.Fingerprint)
		return true
	}
	var others []signature
	n := 0
	for _, s := range sigs {
		asker, err := c.signers.Verify(it.Data, s.sig, auth.NamespaceAdmin, a.now())
		if ref, ok := reason.As(err); ok && (ref.Code == reason.SignatureNamespace || ref.Code == reason.SignerUnknown) {
			others = append(others, s) // perhaps the company's
		}
		if err != nil {
			if err := ignore(s.label, err); err != nil {
				return nil, nil, err
			}
			continue
		}
		if count(asker) {
			n++
		}
	}
	ap.first = first
	if n < c.threshold {
		ap.missing = append(ap.missing, fmt.Sprintf("%d of %d administrators", c.threshold-n, c.threshold))
	}
	ap.none = n == 0
	if n == 0 {
		// An administrator's may still come, beside what is here.
		return ap, nil, nil
	}
	// Only what administrators have signed is opened and read.
	if a.unseal(t) == nil {
		for _, company := range consentsNeeded(t) {
			target, err := a.companies.get(company)
			if errors.Is(err, fs.ErrNotExist) {
				continue // the command is refused for that
			}
			if err != nil {
				a.log.Error().Err(err).Str("company", company).Msg("company is not served; mend its files")
				ap.missing = append(ap.missing, "the files of company "+company+", which are in disorder")
				continue
			}
			if err := a.consent(ap, t, target, count, func(yield func(label string, sig *auth.Signature) bool) {
				for _, s := range others {
					if !yield(s.label, s.sig) {
						return
					}
				}
			}); err != nil {
				return nil, nil, err
			}
		}
	}
	ap.have = fingerprints
	ap.asker = auth.Asker{Principal: strings.Join(by, ","), Fingerprint: strings.Join(fingerprints, ",")}
	return ap, nil, nil
}

// consent looks for a signature by which a company agrees to its own change: by one
// of its signers who has not signed as administrator.
func (a *Appliance) consent(ap *approved, t *task, target *company, count func(*auth.Asker) bool, sigs iter.Seq2[string, *auth.Signature]) error {
	if !target.active {
		ap.missing = append(ap.missing, "company "+target.name+" being enabled, since a disabled one cannot agree")
		return nil
	}
	for _, sig := range sigs {
		asker, err := target.signers.Verify(t.it.Data, sig, auth.NamespaceApprove, a.now())
		if err == nil && count(asker) {
			t.consents[target.name] = true
			return nil
		}
		if _, ok := reason.As(err); err != nil && !ok {
			return err
		}
	}
	ap.missing = append(ap.missing, "a signer of company "+target.name+" (ssh-keygen -Y sign -n "+auth.NamespaceApprove+")")
	return nil
}

// consentsNeeded are the companies that a file of commands needs the consent of.
func consentsNeeded(t *task) []string {
	lines := [][]byte{t.text}
	if t.batch() {
		b, err := request.ParseBatch(t.text)
		if err != nil {
			return nil
		}
		lines = b.Lines
	}
	var names []string
	t.consents = map[string]bool{}
	seen := map[string]bool{}
	for _, line := range lines {
		req, err := request.Parse(line)
		if err == nil && req.Type == request.CompanyUpdate && !seen[req.Company] {
			seen[req.Company] = true
			names = append(names, req.Company)
		}
	}
	return names
}

// statusOf is what NAME.status.json says while a command waits.
func statusOf(t *task, ap *approved) []byte {
	return answer.AppendStatus(nil, answer.Head{Request: t.digest},
		answer.Member{Name: "admins", Value: ap.have},
		answer.Member{Name: "missing", Value: ap.missing},
		answer.Member{Name: "ignored", Value: orNone(ap.ignored)})
}

func orNone(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// The notes of approved commands.

func (a *Appliance) approvedDir() (durable.Dir, error) {
	admins, err := durable.SubPath(a.root, "db", "admins")
	if err != nil {
		return nil, err
	}
	defer admins.Close()
	return durable.SubMake(admins, "approved", 0o700)
}

// note makes it known that a command is approved, durably.
func (a *Appliance) note(t *task, asker *auth.Asker) error {
	d, err := a.approvedDir()
	if err != nil {
		return fmt.Errorf("noting an approved command: %w", err)
	}
	defer d.Close()
	name := hex.EncodeToString(t.digest[:])
	t.noted = true
	if _, err := d.Stat(name); err == nil {
		return d.Sync() // from before a crash
	}
	text := asker.Principal + "\n" + asker.Fingerprint + "\n"
	tmp := "." + name
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("noting an approved command: %w", err)
	}
	if err := durable.WriteSynced(d, tmp, 0o600, []byte(text)); err != nil {
		return fmt.Errorf("noting an approved command: %w", err)
	}
	if err := d.Move(tmp, d, name); err != nil {
		return fmt.Errorf("noting an approved command: %w", err)
	}
	return d.Sync()
}

// approvedBefore returns who approved a command before a crash, nil if it was not.
func (a *Appliance) approvedBefore(digest [32]byte) (*approved, error) {
	d, err := durable.SubPath(a.root, "db", "admins", "approved")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, hex.EncodeToString(digest[:]), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	by, rest, _ := strings.Cut(string(data), "\n")
	keys, _, ok := strings.Cut(rest, "\n")
	if !ok {
		return nil, fmt.Errorf("db/admins/approved/%x is not as it was written: remove it", digest)
	}
	return &approved{asker: auth.Asker{Principal: by, Fingerprint: keys}, have: strings.Split(keys, ",")}, nil
}

// tidyNotes removes the notes that are of no use any more: of commands that are on
// record, and of those that do not lie in work/.
func (a *Appliance) tidyNotes() error {
	d, err := durable.SubPath(a.root, "db", "admins", "approved")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	claimed, err := a.claimedCommands()
	if err != nil {
		return err
	}
	return durable.Walk(d, func(e durable.Entry) error {
		if !claimed[e.Name] {
			return d.Remove(e.Name)
		}
		digest, err := hex.DecodeString(e.Name)
		if err != nil || len(digest) != 32 {
			return d.Remove(e.Name) // half written: it says nothing
		}
		known, err := a.journal.Request(setup.Administrators, [32]byte(digest))
		if err != nil || known == nil {
			return err
		}
		return d.Remove(e.Name)
	})
}

// claimedCommands are the digests of what lies in work/admin.
func (a *Appliance) claimedCommands() (map[string]bool, error) {
	claimed := map[string]bool{}
	d, err := durable.SubPath(a.root, "work", setup.Administrators)
	if errors.Is(err, fs.ErrNotExist) {
		return claimed, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	err = durable.Walk(d, func(e durable.Entry) error {
		info, err := d.Stat(e.Name)
		if err != nil || !info.Mode.IsRegular() {
			return err
		}
		data, err := durable.ReadFile(d, e.Name, info.Size)
		if err == nil {
			claimed[fmt.Sprintf("%x", sha256.Sum256(data))] = true
		}
		return err
	})
	return claimed, err
}

// forgetNote removes the note of a command that is on record. If it stays it does
// no harm: the record counts first.
func (a *Appliance) forgetNote(t *task) {
	d, err := a.approvedDir()
	if err == nil {
		defer d.Close()
		err = d.Remove(hex.EncodeToString(t.digest[:]))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn().Err(err).Msg("the note of an approved command cannot be removed")
	}
}

// judgeCommand checks what is the administrators' alone.
func (a *Appliance) judgeCommand(t *task, o *outcome) error {
	req := o.req
	if req.Type == request.CompanyCreate {
		if req.Company == setup.Administrators || !keyfs.ValidCompany(req.Company) {
			return reason.New(reason.FieldInvalid, "use 1 to 32 of a-z, 0-9 and -, not beginning with -, and not admin",
				"this cannot be a company's name").At("company")
		}
		if c, err := a.companies.get(req.Company); err == nil && c.created != created(o.head) {
			return companyExists()
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return a.disorder(o, err)
		}
	} else if req.Company != "" {
		c, err := a.companies.get(req.Company)
		if errors.Is(err, fs.ErrNotExist) || req.Company == setup.Administrators {
			return reason.New(reason.CompanyUnknown, "check the name; company.list shows all", "there is no such company").At("company")
		}
		if err != nil {
			return a.disorder(o, err)
		}
		o.target = c
	}
	if req.Type == request.CompanyUpdate && !t.redo && !t.consents[req.Company] {
		o.passing = true
		return reason.New(reason.ApprovalsMissing, "have it signed with ssh-keygen -Y sign -n "+auth.NamespaceApprove,
			"no signer of the company has agreed").At("company")
	}
	if req.Type == request.WalletBind && !strings.HasPrefix(req.Wallet, idPrefix) {
		return reason.New(reason.FieldInvalid, "give the wallet's id, which does not change", "a correction names the wallet by its id").At("wallet")
	}
	switch req.Type {
	case request.Backup:
		return a.judgeBackup(t, o)
	case request.RestoreAccept:
		if a.restored == nil || a.restored.Restore != req.Restore {
			return reason.New(reason.FieldInvalid, "give the id that signdropd restore has printed and the log tells, R_…",
				"the volume does not come from this restore").At("restore")
		}
		return nil
	}
	var err error
	if o.signers, err = readSigners("signers", req.Signers, req.Company); err != nil {
		return err
	}
	if o.admins, err = readSigners("admins", req.Admins, setup.Administrators); err != nil {
		return err
	}
	if (req.Type == request.CompanyCreate || req.Signers != nil) && len(o.signers) == 0 && req.Type != request.AdminsSet {
		return reason.New(reason.FieldInvalid, "give at least one public key", "nobody could sign for the company").At("signers")
	}
	if req.Type == request.AdminsSet {
		if len(o.admins) == 0 {
			return reason.New(reason.FieldInvalid, "give at least one public key", "there would be no administrator left").At("admins")
		}
		names := map[string]bool{}
		for i, s := range o.admins {
			if names[s.Name] {
				return reason.New(reason.FieldInvalid, "give each key a comment of its own: those of one name count as one person",
					"two administrators have the same name").At(fmt.Sprintf("admins[%d]", i))
			}
			names[s.Name] = true
		}
		if req.Threshold > len(o.admins) {
			return reason.New(reason.FieldInvalid, "give more keys or a lower threshold",
				"the threshold is above the number of administrators").At("threshold")
		}
	}
	for i, line := range req.AuthorizedKeys {
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil || len(rest) > 0 || strings.ContainsAny(line, "\r\n") {
			return reason.New(reason.FieldInvalid, "give one line as in OpenSSH's authorized_keys",
				"this is not an OpenSSH public key line").At(fmt.Sprintf("authorized_keys[%d]", i))
		}
	}
	if req.Policy != nil {
		if _, err := policy.Parse(req.Policy); err != nil {
			where := "policy"
			if fault := (*policy.FieldError)(nil); errors.As(err, &fault) {
				where += "." + fault.Field
			}
			return reason.New(reason.FieldInvalid, "see docs/formats.md for what a policy may say; signdrop preview --policy FILE tells what is wrong", "this is not what a policy may say").At(where)
		}
	}
	return nil
}

// minRSA is what a key that a command lists must have, in bits. Keys that are
// listed by hand may be older.
const minRSA = 3072

// readSigners reads public keys, as OpenSSH lines or PEM.
func readSigners(field string, keys []string, name string) ([]setup.Signer, error) {
	var signers []setup.Signer
	seen := map[string]bool{}
	for i, text := range keys {
		at := fmt.Sprintf("%s[%d]", field, i)
		s, err := setup.ReadSigner([]byte(text), fmt.Sprintf("%s-%d", name, i+1))
		if err != nil {
			return nil, reason.New(reason.FieldInvalid, "give an OpenSSH public key line, or PEM (EC, Ed25519, RSA from 3072 bits)",
				"this is not a public key that can be listed").At(at)
		}
		if auth.RSABits(s.Key) != 0 && auth.RSABits(s.Key) < minRSA {
			return nil, reason.New(reason.FieldInvalid, "use 3072 bits or more, or another kind of key", "the RSA key is too short").At(at)
		}
		if blob := string(s.Key.Marshal()); seen[blob] {
			return nil, reason.New(reason.FieldInvalid, "give each key once", "the key stands in the list twice").At(at)
		} else {
			seen[blob] = true
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// command carries out what an administrator's command asks for. Doing it again
// after a crash comes to the same.
func (a *Appliance) command(o *outcome) error {
	req := o.req
	defer a.companies.forget(req.Company)
	switch req.Type {
	case request.CompanyCreate:
		return a.createCompany(o)
	case request.CompanyUpdate:
		change := setup.Change{Signers: o.signers}
		if req.Name != "" {
			change.Title = &req.Name
		}
		if req.Has["authorized_keys"] {
			keys := keyLines(req.AuthorizedKeys)
			change.AuthorizedKeys = &keys
		}
		if err := setup.Update(a.root, a.cfg.Access, req.Company, change); err != nil {
			return a.lacksRight(o, err)
		}
		o.done("updated", named(req))
	case request.CompanyDisable, request.CompanyEnable:
		status, verdict := setup.Disabled, "disabled"
		if req.Type == request.CompanyEnable {
			status, verdict = setup.Active, "enabled"
		}
		if err := setup.Update(a.root, a.cfg.Access, req.Company, setup.Change{Status: &status}); err != nil {
			return a.lacksRight(o, err)
		}
		o.done(verdict, named(req))
	case request.PolicySet:
		if err := setup.Update(a.root, a.cfg.Access, req.Company, setup.Change{Policy: req.Policy}); err != nil {
			return a.lacksRight(o, err)
		}
		o.done("set", named(req))
	case request.AdminsSet:
		if err := setup.SetAdmins(a.root, a.cfg.Access, o.admins, req.Threshold); err != nil {
			return a.lacksRight(o, err)
		}
		a.companies.forget(setup.Administrators)
		var prints []string
		for _, s := range o.admins {
			prints = append(prints, ssh.FingerprintSHA256(s.Key))
		}
		o.done("set", answer.Member{Name: "admins", Value: prints}, answer.Member{Name: "threshold", Value: req.Threshold})
	case request.CompanyList:
		return a.listCompanies(o)
	case request.RestoreAccept:
		return a.acceptRestore(o)
	}
	return nil
}

func named(req *request.Request) answer.Member {
	return answer.Member{Name: "company", Value: req.Company}
}

// createCompany makes a company whole: when it is answered its directories are
// there, with their owners and modes, and durable.
func (a *Appliance) createCompany(o *outcome) error {
	// It was looked for when it was judged; another command may have been quicker.
	c, err := a.companies.get(o.req.Company)
	if err == nil && c.created != created(o.head) {
		o.refusal = companyExists()
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o.refuseWith(a.disorder(o, err))
	}
	_, err = setup.Make(a.root, a.cfg.Access, setup.Plan{
		Company: o.req.Company, Title: o.req.Name, Created: created(o.head), Signers: o.signers,
		AuthorizedKeys: keyLines(o.req.AuthorizedKeys), Policy: o.req.Policy,
	})
	if err != nil {
		return a.lacksRight(o, err)
	}
	a.Wake() // its inbox is to be watched
	o.done("created", named(o.req), answer.Member{Name: "title", Value: o.req.Name})
	return nil
}

// created says which command made a company: doing it again finds it, and another
// command of the same name is refused.
func created(h answer.Head) string {
	digest := hex.EncodeToString(h.Request[:])
	if h.Line > 0 {
		digest += fmt.Sprintf(":%d", h.Line)
	}
	return digest
}

func companyExists() *reason.Refusal {
	return reason.New(reason.CompanyExists, "take another name, or use company.update", "there is a company of this name already").At("company")
}

// disorder refuses for now what is about a company whose files cannot be read.
func (a *Appliance) disorder(o *outcome, err error) error {
	a.log.Error().Err(err).Str("company", o.req.Company).Msg("company is not served; mend its files")
	o.passing = true
	return reason.New(reason.OperatorNeeded, "tell the appliance's operator, whose log names the cause; then drop it again",
		"the company's files are in disorder").At("company")
}

func keyLines(lines []string) []byte {
	var b []byte
	for _, l := range lines {
		b = append(append(b, strings.TrimSpace(l)...), '\n')
	}
	return b
}

// lacksRight refuses what the appliance's user may not do on its own volume, since
// somebody else has made part of it. Other errors are faults.
func (a *Appliance) lacksRight(o *outcome, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	a.log.Error().Err(err).Str("type", o.req.Type).Msg("a command cannot be carried out: give the appliance's user this right, or do it with signdrop init")
	o.refusal = reason.New(reason.OperatorNeeded, "tell the appliance's operator, whose log names the cause; then drop it again",
		"the appliance lacks a right on its data volume")
	o.passing = true
	return nil
}

func (a *Appliance) listCompanies(o *outcome) error {
	names, err := a.companies.names()
	if err != nil {
		return err
	}
	limit := o.req.Limit
	if limit == 0 {
		limit = request.MaxPage
	}
	list := []answer.CompanyEntry{}
	next := ""
	for _, name := range names {
		if name == setup.Administrators || name <= o.req.After {
			continue
		}
		if len(list) == limit {
			next = list[limit-1].Company
			break
		}
		e := answer.CompanyEntry{Company: name, Status: "damaged"}
		if c, err := a.companies.get(name); err == nil {
			e.Name, e.Status, e.Signers = c.title, setup.Active, c.signers.Len()
			if !c.active {
				e.Status = setup.Disabled
			}
		}
		list = append(list, e)
	}
	o.done("listed", answer.Member{Name: "companies", Value: list}, answer.Member{Name: "next", Value: next})
	return nil
}

// done writes the answer of a request that has no more to say than a few members.
func (o *outcome) done(verdict string, members ...answer.Member) {
	o.kept = true
	o.event.Kind, o.event.Type = "done", o.req.Type
	if o.wallet != nil {
		o.event.Wallet = o.wallet.ID()
	}
	o.event.Detail = o.req.Company
	o.answer = answer.AppendResult(nil, o.head, o.req.Type, verdict, members...)
}

// zulu writes a time of ours for an answer, "" for none.
func zulu(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
