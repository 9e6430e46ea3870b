package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/answer"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// readReplies calls f for each line of an answer: the one of a result or a reason,
// the many of a batch's. It reads leniently, since a newer appliance may say more;
// verify is the strict one. f ends the reading with io.EOF.
func readReplies(file io.Reader, path string, f func(*answer.Answer) error) error {
	r := bufio.NewReaderSize(file, 64<<10)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		var a answer.Answer
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("%s, line %d: this is not an answer: %w", path, n, err)
		}
		if err := f(&a); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// readReason reads the one answer that a reason file is.
func readReason(in site, box, name string) (a *answer.Answer, err error) {
	path := in.path(box, name)
	err = in.read(box, name, func(r io.Reader) error {
		a = nil
		return readReplies(r, path, func(first *answer.Answer) error {
			a = first
			return io.EOF
		})
	})
	if err == nil && a == nil {
		err = fmt.Errorf("%s is empty", path)
	}
	return a, err
}

// digestIn returns the digest of the request that an answer is for.
func digestIn(in site, box, name string) (string, error) {
	a, err := readReason(in, box, name)
	if err != nil {
		return "", err
	}
	return a.Request, nil
}

// shownRefusals is how many refused lines of one batch are printed. The others
// can be read in the answer.
const shownRefusals = 10

// read reads the file that has a parcel's verdict, prints what it refuses, and
// settles the parcel.
func (s *submit) read(p *parcel, v verdict, box, name string) {
	path := s.site.path(box, name)
	refused, err := readRefusals(s.site, box, name)
	if err == nil && v == answered {
		if err = s.fetch(box, name, refused.files); err == nil && s.get != "" {
			path = filepath.Join(s.get, name)
		}
	}
	p.refusals = refused.count
	for _, t := range refused.texts {
		s.complain(p.name, t.text, t.hint)
	}
	if err != nil {
		hint := ""
		if f := new(failure); errors.As(err, &f) {
			hint = f.hint
		}
		s.complain(p.name, err.Error(), hint)
		s.settle(p, failed, path)
		return
	}
	if more := p.refusals - shownRefusals; more > 0 {
		s.complain(p.name, fmt.Sprintf("%d more lines are refused: see %s", more, path), "")
	}
	s.settle(p, v, path)
}

// refusals are what an answer refuses.
type refusals struct {
	count int
	texts []struct{ text, hint string } // the first of them
	files []answer.FileEntry            // what it names beside it
}

// maxFurther is more than a further file of an answer has, in bytes.
const maxFurther = 64 << 20

// fetch reads the files that an answer names and compares them with it. They were
// there before it was: one that is missing was taken away. With --get it saves them,
// and then the answer, so that what lies there with its answer is whole.
func (s *submit) fetch(box, name string, files []answer.FileEntry) error {
	for _, f := range files {
		beside := spool.Beside(name, f.Ending)
		if beside == "" || f.Size < 0 || f.Size > maxFurther {
			return fmt.Errorf("the answer names a file with the ending %q, which no answer has", f.Ending)
		}
		path := s.site.path(box, beside)
		data, err := readFile(s.site, box, beside, f.Size+1)
		switch sum := sha256.Sum256(data); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("the answer names %s, which was taken away", path)
		case err != nil:
			return err
		case hex.EncodeToString(sum[:]) != f.SHA256:
			return fmt.Errorf("%s is not the file that the answer names: do not use it", path)
		}
		if err := s.save(beside, data); err != nil {
			return err
		}
	}
	if s.get == "" {
		return nil
	}
	data, err := readFile(s.site, box, name, math.MaxInt64)
	if err != nil {
		return err
	}
	return s.save(name, data)
}

// save writes a file that was fetched, never in the place of another.
func (s *submit) save(name string, data []byte) error {
	if s.get == "" {
		return nil
	}
	path := filepath.Join(s.get, name)
	err := durable.WriteFileNew(path, data, 0o644)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(there, data) {
		err = hinted(fmt.Errorf("%s is another file and is not overwritten", path), "take it away, or give another directory with --get")
	}
	return err
}

// readFile reads up to max bytes of a file.
func readFile(in site, box, name string, max int64) (data []byte, err error) {
	err = in.read(box, name, func(r io.Reader) (err error) {
		data, err = io.ReadAll(io.LimitReader(r, max))
		return err
	})
	return data, err
}

func readRefusals(in site, box, name string) (refused refusals, err error) {
	err = in.read(box, name, func(r io.Reader) error {
		refused = refusals{}
		return readReplies(r, in.path(box, name), func(a *answer.Answer) error {
			if a.Verdict != "refused" {
				refused.files = append(refused.files, a.Files...)
				return nil
			}
			if refused.count++; refused.count > shownRefusals {
				return nil
			}
			text := a.Code + ": " + a.Message
			if a.Field != "" {
				text = a.Code + ": field " + a.Field + ": " + a.Message
			}
			if a.Line > 0 {
				text = fmt.Sprintf("line %d: %s", a.Line, text)
			}
			refused.texts = append(refused.texts, struct{ text, hint string }{text, a.Hint})
			return nil
		})
	})
	return refused, err
}

// rejectedNames is what lies in rejected/ under the parcels' names before they are
// dropped. An old reason must not be taken for a new one; but if the appliance
// refuses the same bytes for the same reason again, it leaves the old one as it is.
type rejectedNames struct {
	site   site
	byStem map[string][]*parcel
	before map[string]bool      // names that were there
	mine   map[*parcel][]string // the reasons among them
}

// A request that was refused lies beside its reason under the same stem, which is
// its own or, from the second on, has a number: pay.2.json beside pay.2.reason.json.
// Where the same reason serves for several, so does its stem: pay.json~2.
var (
	copyForm = regexp.MustCompile(`^(.+)(\.jsonl?(?:\.age)?|\.psbt)(~[0-9]+)?$`)
	numbered = regexp.MustCompile(`^(.+)\.[0-9]+$`)
)

// snapshot lists the directory rejected.
func snapshot(in site, parcels []*parcel) (*rejectedNames, error) {
	r := &rejectedNames{
		site: in, byStem: map[string][]*parcel{}, before: map[string]bool{}, mine: map[*parcel][]string{},
	}
	for _, p := range parcels {
		r.byStem[stem(p.name)] = append(r.byStem[stem(p.name)], p)
	}
	err := in.each(boxRejected, func(name string) error {
		_, isCopy, of := r.about(name)
		for _, p := range of {
			r.before[name] = true
			if !isCopy {
				r.mine[p] = append(r.mine[p], name)
			}
		}
		return nil
	})
	return r, err
}

func stem(name string) string {
	t, _ := typeOf(name)
	return strings.TrimSuffix(name, t.Suffix)
}

// about says what a name in rejected/ may tell of parcels: it is a reason itself, or
// the copy of a request and tells that a reason is meant.
func (r *rejectedNames) about(name string) (reason string, isCopy bool, of []*parcel) {
	base, isReason := strings.CutSuffix(name, spool.ReasonSuffix)
	if !isReason {
		m := copyForm.FindStringSubmatch(name)
		if m == nil {
			return "", false, nil
		}
		base = m[1]
	}
	of = r.byStem[base]
	if m := numbered.FindStringSubmatch(base); m != nil {
		of = slices.Concat(of, r.byStem[m[1]])
	}
	return base + spool.ReasonSuffix, !isReason, of
}

// verdict returns the name of the reason that lay there for the very same request if it is for
// good: what the appliance would say again.
func (r *rejectedNames) verdict(p *parcel) string {
	for _, name := range r.mine[p] {
		// One that cannot be read says nothing about this request.
		if a, err := r.read(p, name); err == nil && a != nil && a.Request != "" && !a.Retry {
			return name
		}
	}
	return ""
}

// read returns what a reason says if it is one for the parcel, nil otherwise.
func (r *rejectedNames) read(p *parcel, name string) (*answer.Answer, error) {
	a, err := readReason(r.site, boxRejected, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if a.Name != p.name || a.Request != "" && a.Request != p.digest {
		return nil, nil
	}
	return a, nil
}

// eachName calls f for each name of a directory, however many there are.
func eachName(dir string, f func(name string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
	}
}
