package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"signdrop/appliance/answer"
	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/request"
	"signdrop/spool"
	"signdrop/tools/signdrop/proof"
)

func newVerify() *cobra.Command {
	v := &verify{}
	cmd := &cobra.Command{
		Use:   "verify [flags] RESULT…",
		Short: "Check answers offline: signature, key, text",
		Long: `Check answers of the appliance, on any machine, and say in words what was
signed: that the signature verifies over the text with the public key, what
the text says, what it leaves open and what else it could be used for.

An answer brings its public key with it. Whose key that is only you can know:
give with --key the one that you have from the wallet's creation. With
--request the answer must be for that very request, and the text what it asked
for.

A payment of Bitcoin has its PSBT, and when it is complete the transaction,
beside the answer or in it. Every input of the transaction is run. Read what is
printed before you broadcast it: whom it pays, and the fee. Which outputs are
change is the appliance's word.

A file that lies beside an answer, NAME-signed.psbt or NAME-final.txn, stands
for the answer NAME.result.json, which says what it must be.

openssl comes to the same verdict, see docs/formats.md. The exit code is 3 if
a signature does not verify, and also if an answer is a refusal.`,
		Example: `  signdrop verify outbox/pay.result.json
  signdrop verify --key wallet.pem --request pay.json outbox/pay.result.json
  signdrop verify --request pay.psbt outbox/pay.result.json
  signdrop verify --request pay.psbt pay-final.txn
  signdrop verify --json run.result.jsonl | jq -r .verdict | sort | uniq -c`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return v.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringVar(&v.keyFile, "key", "", "public key `file` (PEM) that must have signed")
	f.StringVar(&v.requestFile, "request", "", "request `file` that the answer must be for")
	f.BoolVar(&v.json, "json", false, "print one JSON object for each answer, for programs")
	f.BoolVarP(&v.quiet, "quiet", "q", false, "print problems only")
	markFile(cmd, "key", "pem")
	markFile(cmd, "request", "json", "jsonl", "psbt")
	return cmd
}

// verify is one run of the command.
type verify struct {
	keyFile, requestFile string
	json, quiet          bool

	out, errs io.Writer
	pinned    *proof.Key // nil if none was given
	asked     *asked     // nil if no request was given
	beside    string     // the file that was given and lies beside the answer that is read

	checked, bad, refused int // answers
}

func (v *verify) run(cmd *cobra.Command, files []string) (err error) {
	v.out, v.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if v.keyFile != "" {
		data, err := readSmall(v.keyFile, maxKeyFile)
		if err != nil {
			return err
		}
		if v.pinned, err = proof.ParseKey(data); err != nil {
			return fmt.Errorf("%s: %w", v.keyFile, err)
		}
	}
	if v.requestFile != "" {
		if v.asked, err = readAsked(v.requestFile); err != nil {
			return err
		}
	}
	w := bufio.NewWriter(v.out)
	v.out = w
	unread := 0
	for _, file := range files {
		err := v.file(file)
		if err == nil {
			continue
		}
		if err = fmt.Errorf("%s: %w", file, err); len(files) == 1 {
			w.Flush()
			return err
		}
		// One that is no answer, such as the outbox's appliance.json, hides no other.
		hint := ""
		if f := (*failure)(nil); errors.As(err, &f) {
			hint = f.hint
		}
		complain(v.errs, err.Error(), hint)
		unread++
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if unread > 0 && v.bad > 0 {
		complain(v.errs, fmt.Sprintf("%d of %s must not be trusted", v.bad, plural(v.checked, "answer")), "")
	}
	switch {
	case unread > 0:
		return codedf(exitFailed, "%d of %s could not be checked", unread, plural(len(files), "file"))
	case v.bad > 0:
		return codedf(exitRefused, "%d of %s must not be trusted", v.bad, plural(v.checked, "answer"))
	case v.refused > 0:
		return codedf(exitRefused, "%d of %s refused", v.refused, plural(v.checked, "answer"))
	}
	return nil
}

// asked is what a request file asked for.
type asked struct {
	digest string
	single *request.Request
	batch  *request.Batch
}

func readAsked(file string) (*asked, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	a := &asked{digest: hex.EncodeToString(sum[:])}
	if l := ledgers.Document(file); l != nil {
		a.single, _ = request.ParseDocument(l, data)
	} else if strings.HasSuffix(file, ".jsonl") {
		// A batch that cannot be read was refused as a whole; its digest still
		// tells whether the refusal is for it.
		a.batch, _ = request.ParseBatch(data)
	} else {
		a.single, _ = request.Parse(data)
	}
	return a, nil
}

// line is the request that an answer's line is for, nil where there is none that
// can be read.
func (a *asked) line(n int) *request.Request {
	if a.batch == nil {
		return a.single
	}
	i := n - a.batch.First
	if i < 0 || i >= len(a.batch.Lines) {
		return nil
	}
	r, err := request.Parse(a.batch.Lines[i])
	if err != nil {
		return nil
	}
	return r
}

// check adds to a finding what contradicts the request.
func (a *asked) check(f *proof.Finding) {
	ans := f.Answer
	if ans.Request != a.digest {
		f.Problems = append(f.Problems, "it is not the answer to the request that was given to compare with")
		return
	}
	if ans.Type != answer.TypeSign {
		return
	}
	r := a.line(ans.Line)
	switch {
	case r == nil || r.Type != request.Sign:
		f.Problems = append(f.Problems, "the request did not ask for a signature")
	case !answeredBy(r.Tx, ans):
		f.Problems = append(f.Problems, "the transaction is not that of the request")
	case r.Data != nil && r.Data.Text != ans.Payload, r.Tx != nil && r.Tx.Payload() != ans.Payload:
		f.Problems = append(f.Problems, "the signed text is not what the request asked for")
	case strings.HasPrefix(r.Wallet, "W_") && r.Wallet != ans.Wallet:
		f.Problems = append(f.Problems, "the wallet is not that of the request")
	case r.Reference != ans.Reference:
		f.Problems = append(f.Problems, "the reference is not the request's")
	}
}

// answeredBy asks a transaction whose payload is not all that there is to compare whether an
// answer is about it.
func answeredBy(tx ledger.Tx, a *answer.Answer) bool {
	t, ok := tx.(interface{ AnsweredBy(*answer.Answer) bool })
	return !ok || t.AnsweredBy(a)
}

// maxAnswer bounds one line of an answer: a request has at most 1 MiB, and an
// answer repeats it at most twice, escaped.
const maxAnswer = 16 << 20

// portion is how many lines are checked at once, on all processors.
const portion = 1024

// file checks one file of answers, a line each, or the answer that a file lies beside.
func (v *verify) file(name string) error {
	v.beside = ""
	if of := spool.FurtherOf(filepath.Base(name)); of != "" {
		v.beside = filepath.Base(name)
		name = filepath.Join(filepath.Dir(name), of)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var bar *progress
	if !v.quiet {
		bar = newProgress(v.errs, "bytes", info.Size())
		defer bar.clear()
	}
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), maxAnswer)
	seq := sequence{}
	var done int64
	for more := true; more; {
		var lines [][]byte
		for len(lines) < portion {
			if more = s.Scan(); !more {
				break
			}
			lines = append(lines, bytes.Clone(s.Bytes()))
			done += int64(len(s.Bytes())) + 1
		}
		for _, c := range v.checkAll(name, lines) {
			if c.err != nil {
				err := fmt.Errorf("line %d: this is not an answer: %w", seq.n+1, c.err)
				if seq.n == 0 && previewable(filepath.Base(name)) == nil {
					return hinted(err, "if it is a request, signdrop preview says what it asks for")
				}
				return err
			}
			seq.next(c.finding)
			if v.asked != nil {
				v.asked.check(c.finding)
			}
			if err := v.count(bar, name, c.finding); err != nil {
				return err
			}
		}
		bar.set(done, "")
	}
	if err := s.Err(); err != nil {
		return err
	}
	bar.clear()
	if err := seq.end(v.asked); err != nil {
		v.bad++
		complain(v.errs, name+": "+err.Error(), "")
	}
	if seq.n > 1 && !v.json && !v.quiet {
		fmt.Fprintf(v.out, "%s: %s checked\n", name, plural(seq.n, "line"))
	}
	return nil
}

// readBeside reads the files that the answer names, which lie beside it. It tells what
// is wrong with them.
func readBeside(path string, a *answer.Answer) (problems []string) {
	dir, name := filepath.Split(path)
	for _, e := range a.Files {
		beside := spool.Beside(name, e.Ending)
		if beside == "" {
			problems = append(problems, "it names a file that cannot lie beside it: the answer must be called NAME.result.json")
			continue
		}
		data, err := readSmall(dir+beside, maxBeside)
		if err != nil {
			problems = append(problems, "the file that it names cannot be read: "+err.Error())
			continue
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != e.SHA256 {
			problems = append(problems, beside+" is not the file that it names")
			continue
		}
		if a.Beside == nil {
			a.Beside = map[string][]byte{}
		}
		a.Beside[e.Ending] = data
	}
	return problems
}

// maxBeside is more than such a file has, in bytes.
const maxBeside = 16 << 20

type checked struct {
	finding *proof.Finding
	err     error
}

// checkAll checks lines on all processors.
func (v *verify) checkAll(name string, lines [][]byte) []checked {
	out := make([]checked, len(lines))
	var wg sync.WaitGroup
	n := runtime.GOMAXPROCS(0)
	for first := range n {
		wg.Go(func() {
			for i := first; i < len(lines); i += n {
				a, err := answer.Parse(lines[i])
				if err != nil {
					out[i].err = err
					continue
				}
				problems := readBeside(name, a)
				if v.beside != "" && !slices.ContainsFunc(a.Files, func(e answer.FileEntry) bool {
					return spool.Beside(filepath.Base(name), e.Ending) == v.beside
				}) {
					problems = append(problems, v.beside+" is not of this answer, which does not name it")
				}
				out[i].finding = proof.Check(a, v.pinned)
				out[i].finding.Problems = append(out[i].finding.Problems, problems...)
			}
		})
	}
	wg.Wait()
	return out
}

// count notes and prints one finding.
func (v *verify) count(bar *progress, name string, f *proof.Finding) error {
	v.checked++
	switch {
	case len(f.Problems) > 0:
		v.bad++
	case f.Answer.Verdict == "refused":
		v.refused++
	}
	if v.json {
		return v.printJSON(name, f)
	}
	if v.quiet && len(f.Problems) == 0 && f.Answer.Verdict != "refused" {
		return nil
	}
	bar.clear()
	v.print(name, f)
	return nil
}

// sequence checks that a batch's answer has all its lines.
type sequence struct {
	n     int  // lines read
	last  int  // the last line's number
	count int  // lines that the first one announces, -1 for none
	whole bool // it is the reason why a file was refused as a whole
	lost  string
}

func (s *sequence) next(f *proof.Finding) {
	a := f.Answer
	s.n++
	if s.n == 1 {
		s.count = -1
		if a.Type == answer.TypeBatch {
			s.count = a.Count
		}
		s.whole = a.Name != ""
	} else if a.Line != s.last+1 && s.lost == "" {
		s.lost = fmt.Sprintf("line %d follows line %d: some are missing or out of order", a.Line, s.last)
	}
	s.last = a.Line
}

func (s *sequence) end(asked *asked) error {
	switch {
	case s.n == 0:
		return fmt.Errorf("the file is empty")
	case s.lost != "":
		return fmt.Errorf("%s", s.lost)
	case s.count >= 0 && s.n-1 != s.count:
		return fmt.Errorf("the first line announces %d answers and there are %d", s.count, s.n-1)
	case asked != nil && asked.batch != nil && !s.whole && s.last != asked.batch.First+len(asked.batch.Lines)-1:
		return fmt.Errorf("the request's last line is %d and the last answer is for line %d",
			asked.batch.First+len(asked.batch.Lines)-1, s.last)
	}
	return nil
}
