// Package checker verifies, from the bytes on a data volume alone, that the
// appliance has kept its promises. The crash tests call it after every fault, on
// the model file system and on the real one.
//
// What it holds the volume to:
//
//   - No request is lost: each that was dropped lies, unchanged, in the inbox, in
//     work/, in the archive or in rejected/.
//   - No request is answered in two ways: one verdict on record for its bytes, and
//     every answer that is visible says what the record says, byte for byte.
//   - Nothing is visible that is not on record, and every signature that is visible
//     verifies with the public key beside it.
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
	result  map[[32]byte]bool // digests of all answers on record
	verify  func(*answer.Answer) error
}

type requestKey struct {
	company string
	digest  [32]byte
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
		verdict: map[requestKey]*journal.Event{}, result: map[[32]byte]bool{},
	}
	c.journal()
	companies := map[string]bool{}
	for _, d := range drops {
		companies[d.Company] = true
	}
	for name := range companies {
		c.outbox(name)
		c.rejected(name)
	}
	inArchive := c.archive()
	for _, d := range drops {
		c.drop(d, inArchive, atRest)
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
	type use struct{ company, wallet, nonce string }
	texts := map[use][32]byte{}
	err = journal.Each(d, func(_ journal.Place, ev *journal.Event) error {
		if ev.Signature != "" {
			c.report.Signed++
			if ev.Nonce != "" {
				u := use{ev.Company, ev.Wallet, ev.Nonce}
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

// outbox checks every visible answer.
func (c *check) outbox(company string) {
	c.each(func(name string, data []byte) {
		where := company + "/outbox/" + name
		if !c.result[sha256.Sum256(data)] {
			c.fault("%s is visible and not on record", where)
		}
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
				if err := c.verify(a); err != nil {
					c.fault("%s: %w", where, err)
				}
			}
			digest, err := hex.DecodeString(a.Request)
			if err != nil || len(digest) != 32 {
				c.fault("%s: request_sha256 is %q", where, a.Request)
				return
			}
			ev := c.verdict[requestKey{company, [32]byte(digest)}]
			if ev == nil {
				c.fault("%s answers a request that is not on record", where)
			} else if ev.Kind == "refused" {
				c.fault("%s answers a request that was refused for good", where)
			}
		}
	}, "spool", company, "outbox")
}

// rejected checks every visible reason.
func (c *check) rejected(company string) {
	c.each(func(name string, data []byte) {
		if !strings.HasSuffix(name, spool.ReasonSuffix) {
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
		if c.result[sha256.Sum256(data)] {
			return
		}
		// The same refusal under another name differs by that name only; its
		// verdict is on record.
		digest, err := hex.DecodeString(a.Request)
		if err == nil && len(digest) == 32 && c.verdict[requestKey{company, [32]byte(digest)}] != nil {
			return
		}
		c.fault("%s is visible and not on record", where)
	}, "spool", company, "rejected")
}

// archived names a file in the archive: the same bytes may have been asked for
// under several names.
type archived struct {
	requestKey
	name string
}

// archive returns all archived files.
func (c *check) archive() map[archived]bool {
	found := map[archived]bool{}
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
					found[archived{requestKey{company, sha256.Sum256(data)}, name}] = true
				}, "archive", company, day, part)
			}
		}
	}
	return found
}

// drop checks what became of one request.
func (c *check) drop(d Drop, inArchive map[archived]bool, atRest bool) {
	digest := sha256.Sum256(d.Data)
	same := func(path ...string) bool {
		name := path[len(path)-1]
		dir, err := durable.SubPath(c.root, path[:len(path)-1]...)
		if err != nil {
			return false
		}
		defer dir.Close()
		data, err := durable.ReadFile(dir, name, maxFile)
		return err == nil && sha256.Sum256(data) == digest
	}
	what := d.Company + "/" + d.Name
	inbox := same("spool", d.Company, "inbox", d.Name)
	work := same("work", d.Company, d.Name)
	done := inArchive[archived{requestKey{d.Company, digest}, d.Name}]
	var refused bool
	c.each(func(name string, data []byte) {
		refused = refused || !strings.HasSuffix(name, spool.ReasonSuffix) && data != nil && sha256.Sum256(data) == digest
	}, "spool", d.Company, "rejected")
	if !inbox && !work && !done && !refused {
		c.fault("%s is lost: it is in neither inbox, work, archive nor rejected", what)
	}
	if inbox {
		c.report.Waiting++
	}
	if work {
		c.report.Claimed++
	}
	answered := false
	c.each(func(name string, data []byte) {
		if name != spool.AnswerName(d.Name) {
			return
		}
		for _, line := range strings.SplitAfter(string(data), "\n") {
			if a, err := answer.Parse([]byte(line)); err == nil && a.Request == hex.EncodeToString(digest[:]) {
				answered = true
			}
		}
	}, "spool", d.Company, "outbox")
	if answered {
		c.report.Answered++
	}
	if refused {
		c.report.Refused++
	}
	if done && !answered {
		c.fault("%s is archived, and no answer to it is in the outbox", what)
	}
	if atRest {
		if inbox || work {
			c.fault("%s is still waiting (inbox %t, work %t)", what, inbox, work)
		}
		if answered == refused {
			c.fault("%s must end in exactly one of outbox (%t) and rejected (%t)", what, answered, refused)
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
