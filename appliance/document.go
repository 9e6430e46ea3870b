package appliance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/spool"
)

// Documents are requests that are not JSON: the whole file is what is asked for, and
// the ending of its name says what it is. An answer may have further files beside
// NAME.result.json.

// document decides on a document and fills in the outcome: a refusal, or event,
// answer and files, with filesMember among the answer's members. It has what it needs
// of keys locked and durable when it returns. An error is a fault: the appliance must
// stop.
//
// The answer and its files are kept, so that the same bytes get the same answer.
type document func(a *Appliance, c *company, t *task, asker *auth.Asker, o *outcome) error

// documents are the kinds of documents there are, by ending.
var documents = map[string]document{}

// notJSON are the endings of documents.
var notJSON = []string{".psbt"}

// document is the ending of the task's name if it is a document's, otherwise "".
func (t *task) document() string {
	for _, ending := range notJSON {
		if strings.HasSuffix(t.it.Name, ending) {
			return ending
		}
	}
	return ""
}

func (a *Appliance) answerDocument(c *company, t *task, asker *auth.Asker, ending string) error {
	decide := documents[ending]
	if decide == nil || c.role() != request.Partner {
		// Not remembered: a later version may know it.
		t.refuse(asker, "", reason.New(reason.NameNotAllowed, "write a request in JSON, as NAME.json or NAME.jsonl",
			"no request here may end in %s", ending))
		return nil
	}
	o := &outcome{head: answer.Head{Request: t.digest}}
	if err := decide(a, c, t, asker, o); err != nil {
		return err
	}
	if o.approval != nil {
		t.approvals = append(t.approvals, o.approval)
	}
	if o.refusal != nil {
		t.refuse(asker, "", o.refusal)
		return nil
	}
	t.kept, t.files = true, o.files
	t.settle(o.event.Kind, asker, o.event, o.answer)
	return nil
}

// filesMember is what an answer says of its further files.
func filesMember(files []spool.File) answer.Member {
	list := make([]answer.FileEntry, len(files))
	for i, f := range files {
		list[i] = fileEntry(f)
	}
	return answer.Member{Name: "files", Value: list}
}

func fileEntry(f spool.File) answer.FileEntry {
	sum := sha256.Sum256(f.Data)
	return answer.FileEntry{Ending: f.Ending, Size: int64(len(f.Data)), SHA256: hex.EncodeToString(sum[:])}
}

// filesOf returns what an answer says of its further files. Only a single answer has
// some.
func filesOf(product []byte) ([]answer.FileEntry, error) {
	if !bytes.Contains(product, []byte(`,"files":[`)) {
		return nil, nil
	}
	line, rest, _ := bytes.Cut(product, []byte("\n"))
	if len(rest) > 0 {
		return nil, nil // a batch; the words stand in a text
	}
	a, err := answer.Parse(line)
	if err != nil {
		return nil, err
	}
	return a.Files, nil
}
