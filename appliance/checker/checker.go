// Package checker verifies, from the bytes on a data volume alone, that the
// appliance has kept its promises. The crash tests call it after every fault, on
// the model file system and on the real one.
//
// What it holds the volume to:
//
//   - No request is lost: each that was dropped lies, unchanged, in the inbox, in
//     work/, in the archive or in rejected/, but for one that was refused because it
//     held a secret in the clear: that lies nowhere any more.
//   - No request is answered in two ways: one verdict on record for its bytes, and
//     every answer that is visible says what the record says, byte for byte.
//   - Nothing is visible that is not on record, and every signature that is visible
//     verifies with the public key beside it.
//   - An answer that names further files has them all beside it, byte for byte; none
//     of them is visible that no answer on record names.
//   - No wallet and nonce has two signed texts.
//   - The journal is whole.
//   - At rest: nothing is left in work/, and no temporary file anywhere.
package checker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"signdrop/appliance/answer"
	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/appliance/setup"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// Drop is a request that a partner has dropped, durably.
type Drop struct {
	Company string
	Name    string
	Data    []byte
}

// Report is what the checker saw.
type Report struct {
	Waiting  int // drops still in the inbox
	Claimed  int // in work/
	Answered int // with an answer in the outbox
	Refused  int // with a reason in rejected/
	Signed   int // signatures on record
}

type check struct {
	root    durable.Dir
	errs    []error
	report  Report
	verdict map[requestKey]*journal.Event
	result  map[[32]byte]bool   // digests of all answers on record
	at      map[place]bool      // what lies where
	further map[furtherKey]bool // the further files that answers on record name

	verify func(*answer.Answer) error
}

type requestKey struct {
	company string
	digest  [32]byte
}

// furtherKey is a further file by its ending and its bytes.
type furtherKey struct{ company, ending, digest string }

// place is a request's bytes in a state, under the name that the partner gave.
type place struct {
	requestKey
	state, name string
}

// The states of a place. Answered and refused are those of an answer and a reason
// that name the request.
const (
	inInbox    = "inbox"
	inWork     = "work"
	inArchive  = "archive"
	inRejected = "rejected"
	answered   = "answered"
	refused    = "refused"
	forgotten  = "forgotten" // refused as a secret in the clear
)

func (c *check) put(company, state, name string, digest [32]byte) {
	c.at[place{requestKey{company, digest}, state, name}] = true
}

func (c *check) fault(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// Check looks at a volume on which nothing runs. drops are all requests that were
// ever dropped; atRest says that the appliance had time to finish. verify checks
// the signature in an answer.
func Check(vol durable.FS, drops []Drop, atRest bool, verify func(*answer.Answer) error) (*Report, error) {
	root, err := vol.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	c := &check{
		root: root, verify: verify,
		verdict: map[requestKey]*journal.Event{}, result: map[[32]byte]bool{}, at: map[place]bool{},
		further: map[furtherKey]bool{},
	}
	c.journal()
	companies := map[string]bool{}
	for _, d := range drops {
		companies[d.Company] = true
	}
	for name := range companies {
		c.files(name, inInbox, "spool", name, "inbox")
		c.files(name, inWork, "work", name)
		c.kept(name)
		c.outbox(name, atRest)
		c.rejected(name)
	}
	c.archive()
	for _, d := range drops {
		c.drop(d, atRest)
	}
	if atRest {
		c.leftovers()
	}
	return &c.report, errors.Join(c.errs...)
}

func (c *check) journal() {
	d, err := c.root.Sub("journal")
	if err != nil {
		c.fault("opening the journal: %w", err)
		return
	}
	defer d.Close()
	if _, err := journal.Verify(d, nil); err != nil {
		c.fault("journal: %w", err)
	}
	type use struct{ company, wallet, ledger, nonce string }
	texts := map[use][32]byte{}
	err = journal.Each(d, func(_ journal.Place, ev *journal.Event) error {
		if ev.Signature != "" {
			c.report.Signed++
			if ev.Nonce != "" {
				u := use{ev.Company, ev.Holder(), ev.Ledger, ev.Nonce}
				if old, ok := texts[u]; ok && old != ev.Text {
					c.fault("two texts were signed for wallet %s and nonce %s", ev.Wallet, ev.Nonce)
				}
				texts[u] = ev.Text
			}
		}
		switch ev.Kind {
		case "start", "stop", "continue", "line":
			return nil
		}
		c.result[ev.Result] = true
		if ev.Request == [32]byte{} || ev.Kind == "refused" && !ev.Final {
			return nil
		}
		k := requestKey{ev.Company, ev.Request}
		if old := c.verdict[k]; old != nil {
			c.fault("request %x of %s has two verdicts on record: entries %d and %d", ev.Request[:8], ev.Company, old.Seq, ev.Seq)
		}
		c.verdict[k] = ev
		return nil
	})
	if err != nil {
		c.fault("reading the journal: %w", err)
	}
}

// maxFile bounds what is read, in bytes. Larger files are none of ours.
const maxFile = 1 << 28

// each calls f for every entry of a directory below root, with nil for one that is
// not a regular file or too large.
func (c *check) each(f func(name string, data []byte), path ...string) {
	d, err := durable.SubPath(c.root, path...)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.fault("opening %s: %w", strings.Join(path, "/"), err)
		return
	}
	defer d.Close()
	err = durable.Walk(d, func(e durable.Entry) error {
		info, err := d.Stat(e.Name)
		if err == nil && (!info.Mode.IsRegular() || info.Size > maxFile) {
			f(e.Name, nil)
			return nil
		}
		data, err := durable.ReadFile(d, e.Name, maxFile)
		if err != nil {
			return err
		}
		f(e.Name, data)
		return nil
	})
	if err != nil {
		c.fault("reading %s: %w", strings.Join(path, "/"), err)
	}
}

// files notes what lies in a directory.
func (c *check) files(company, state string, path ...string) {
	c.each(func(name string, data []byte) {
		if data != nil {
			c.put(company, state, name, sha256.Sum256(data))
		}
	}, path...)
}

// kept notes the further files of the answers that were kept and are on record.
func (c *check) kept(company string) {
	d, err := durable.SubPath(c.root, "kept", company)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.fault("opening kept/%s: %w", company, err)
		return
	}
	defer d.Close()
	err = durable.Walk(d, func(e durable.Entry) error {
		c.each(func(name string, data []byte) {
			if !c.result[sha256.Sum256(data)] {
				return
			}
			if a, err := answer.Parse(data); err == nil {
				for _, f := range a.Files {
					c.further[furtherKey{company, f.Ending, f.SHA256}] = true
				}
			}
		}, "kept", company, e.Name)
		return nil
	})
	if err != nil {
		c.fault("reading kept/%s: %w", company, err)
	}
}

// outbox checks every visible answer.
func (c *check) outbox(company string, atRest bool) {
	there := map[string]string{} // digests of the further files, by name
	answers := map[string]bool{} // names of the answers
	named := map[string]string{} // the further files that they name, likewise
	contents := map[string][]byte{}
	var late []func() // checks of answers that have further files
	c.each(func(name string, data []byte) {
		if name == setup.NoticeFile || strings.HasSuffix(name, spool.StatusSuffix) {
			return // a courtesy, of which nothing is promised
		}
		if strings.HasSuffix(name, ".backup.age") {
			c.backup(name, data)
			return
		}
		where := company + "/outbox/" + name
		sum := sha256.Sum256(data)
		if of := spool.FurtherOf(name); of != "" {
			there[name], contents[name] = hex.EncodeToString(sum[:]), data
			ending := name[len(strings.TrimSuffix(of, ".result.json")):]
			if !c.further[furtherKey{company, ending, there[name]}] {
				c.fault("%s is visible, and no answer on record names it", where)
			}
			return
		}
		if !c.result[sum] {
			c.fault("%s is visible and not on record", where)
		}
		answers[name] = true
		for _, line := range strings.SplitAfter(string(data), "\n") {
			if line == "" {
				continue
			}
			a, err := answer.Parse([]byte(line))
			if err != nil {
				c.fault("%s: %w", where, err)
				return
			}
			if a.Type == answer.TypeSign {
				late = append(late, func() {
					for _, f := range a.Files {
						if data, ok := contents[spool.Beside(name, f.Ending)]; ok {
							if a.Beside == nil {
								a.Beside = map[string][]byte{}
							}
							a.Beside[f.Ending] = data
						} else {
							return // told below
						}
					}
					if err := c.verify(a); err != nil {
						c.fault("%s: %w", where, err)
					}
				})
			}
			for _, f := range a.Files {
				named[spool.Beside(name, f.Ending)] = f.SHA256
			}
			digest, err := hex.DecodeString(a.Request)
			if err != nil || len(digest) != 32 {
				c.fault("%s: request_sha256 is %q", where, a.Request)
				return
			}
			c.put(company, answered, name, [32]byte(digest))
			ev := c.verdict[requestKey{company, [32]byte(digest)}]
			if ev == nil {
				c.fault("%s answers a request that is not on record", where)
			} else if ev.Kind == "refused" {
				c.fault("%s answers a request that was refused for good", where)
			}
		}
	}, "spool", company, "outbox")
	for _, verify := range late {
		verify()
	}
	for name, digest := range named {
		if there[name] != digest {
			c.fault("%s/outbox/%s is named by an answer with digest %s, and what lies there has %q", company, name, digest, there[name])
		}
	}
	for name := range there {
		if of := spool.FurtherOf(name); atRest && !answers[of] || answers[of] && named[name] == "" {
			c.fault("%s/outbox/%s lies there, and %s does not name it", company, name, of)
		}
	}
}

// backup checks that a backup in the outbox is the one that an answer on record tells
// of. The answer itself may not be visible yet.
func (c *check) backup(name string, data []byte) {
	told := fmt.Sprintf(`"file":%q,"sha256":"%x","size":%d,`, name, sha256.Sum256(data), len(data))
	found := false
	d, err := durable.SubPath(c.root, "kept", setup.Administrators)
	if err == nil {
		defer d.Close()
		err = durable.Walk(d, func(e durable.Entry) error {
			c.each(func(_ string, kept []byte) {
				found = found || strings.Contains(string(kept), told) && c.result[sha256.Sum256(kept)]
			}, "kept", setup.Administrators, e.Name)
			return nil
		})
	}
	if err != nil {
		c.fault("looking for the answer that tells of %s: %w", name, err)
	} else if !found {
		c.fault("%s is visible, and no answer on record tells of these bytes", name)
	}
}

// rejected checks every visible reason.
func (c *check) rejected(company string) {
	c.each(func(name string, data []byte) {
		if !strings.HasSuffix(name, spool.ReasonSuffix) {
			if data != nil {
				c.put(company, inRejected, "", sha256.Sum256(data))
			}
			return
		}
		where := company + "/rejected/" + name
		a, err := answer.Parse(data)
		if err != nil {
			c.fault("%s: %w", where, err)
			return
		}
		if a.Code == "" || a.Message == "" {
			c.fault("%s gives no reason", where)
		}
		state := refused
		if a.Code == string(reason.SecretInTheClear) {
			state = forgotten
		}
		digest, err := hex.DecodeString(a.Request)
		if err == nil && len(digest) == 32 {
			c.put(company, state, a.Name, [32]byte(digest))
		} else {
			c.put(company, state, a.Name, [32]byte{})
		}
		if c.result[sha256.Sum256(data)] {
			return
		}
		// The same refusal under another name differs by that name only; its
		// verdict is on record.
		if err == nil && len(digest) == 32 && c.verdict[requestKey{company, [32]byte(digest)}] != nil {
			return
		}
		c.fault("%s is visible and not on record", where)
	}, "spool", company, "rejected")
}

// archive notes all archived files.
func (c *check) archive() {
	names := func(path ...string) (list []string) {
		d, err := durable.SubPath(c.root, path...)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				c.fault("opening %s: %w", strings.Join(path, "/"), err)
			}
			return nil
		}
		defer d.Close()
		if err := durable.Walk(d, func(e durable.Entry) error { list = append(list, e.Name); return nil }); err != nil {
			c.fault("reading %s: %w", strings.Join(path, "/"), err)
		}
		return list
	}
	for _, company := range names("archive") {
		for _, day := range names("archive", company) {
			for _, part := range names("archive", company, day) {
				c.each(func(name string, data []byte) {
					_, name, _ = strings.Cut(name, "-") // the tag
					name, _, _ = strings.Cut(name, "~") // the number of a further copy
					c.put(company, inArchive, name, sha256.Sum256(data))
				}, "archive", company, day, part)
			}
		}
	}
}

// drop checks what became of one request.
func (c *check) drop(d Drop, atRest bool) {
	digest := sha256.Sum256(d.Data)
	is := func(state, name string) bool { return c.at[place{requestKey{d.Company, digest}, state, name}] }
	what := d.Company + "/" + d.Name
	inbox, work, done := is(inInbox, d.Name), is(inWork, d.Name), is(inArchive, d.Name)
	// In rejected/ it may have any name, but a reason beside it tells its own. The
	// reason for a file that was not read does not know its bytes.
	told := func(state string) bool {
		return is(state, d.Name) || c.at[place{requestKey{d.Company, [32]byte{}}, state, d.Name}]
	}
	secret := told(forgotten) && !told(refused)
	back := is(inRejected, "") && told(refused) || secret && !work
	// An encrypted request may hold a secret, and is then wiped once it is answered.
	wiped := is(answered, spool.AnswerName(d.Name)) && strings.HasSuffix(d.Name, ".age")
	if !inbox && !work && !done && !back && !wiped {
		c.fault("%s is lost: it is in neither inbox, work, archive nor rejected", what)
	}
	has := is(answered, spool.AnswerName(d.Name))
	for in, count := range map[*int]bool{
		&c.report.Waiting: inbox, &c.report.Claimed: work, &c.report.Answered: has, &c.report.Refused: back,
	} {
		if count {
			*in++
		}
	}
	if secret && (done || is(inRejected, "")) {
		c.fault("%s holds a secret, was to be forgotten, and is kept (archive %t)", what, done)
	}
	if done && !has {
		c.fault("%s is archived, and no answer to it is in the outbox", what)
	}
	if atRest {
		if inbox || work {
			c.fault("%s is still waiting (inbox %t, work %t)", what, inbox, work)
		}
		if has == back {
			c.fault("%s must end in exactly one of outbox (%t) and rejected (%t)", what, has, back)
		}
	}
}

// leftovers looks for files that a finished appliance must not leave.
func (c *check) leftovers() {
	work, err := c.root.Sub("work")
	if err != nil {
		c.fault("opening work: %w", err)
		return
	}
	defer work.Close()
	err = durable.Walk(work, func(e durable.Entry) error {
		c.each(func(name string, _ []byte) { c.fault("work/%s/%s is left", e.Name, name) }, "work", e.Name)
		return nil
	})
	if err != nil {
		c.fault("reading work: %w", err)
	}
	c.temporary("db", "companies")
	c.each(func(name string, _ []byte) {
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".manifest") {
			c.fault("backups/%s is left", name)
		}
	}, "backups")
}

// temporary looks for names that begin with a dot, in a whole tree.
func (c *check) temporary(path ...string) {
	d, err := durable.SubPath(c.root, path...)
	if err != nil {
		c.fault("opening %s: %w", strings.Join(path, "/"), err)
		return
	}
	defer d.Close()
	err = durable.Walk(d, func(e durable.Entry) error {
		if strings.HasPrefix(e.Name, ".") {
			c.fault("%s/%s is left", strings.Join(path, "/"), e.Name)
		}
		if e.Type.IsDir() {
			c.temporary(append(append([]string(nil), path...), e.Name)...)
		}
		return nil
	})
	if err != nil {
		c.fault("reading %s: %w", strings.Join(path, "/"), err)
	}
}
