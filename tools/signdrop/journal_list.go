package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"signdrop/appliance/journal"
	"signdrop/spool/durable"
)

func newJournalList() *cobra.Command {
	var p place
	l := &list{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Search the journal: who asked for what, and what was signed",
		Long: `Print the lines of the journal that fit all flags given, oldest first. A line
of a batch is shown with the name and the asker of its file.

An auditor who has a signature finds who asked for it with --signature; one
who has a request file, with --request $(sha256sum FILE); one who has a signed
text, with --text $(printf %s TEXT | sha256sum).`,
		Example: `  signdrop journal list --data /data --company acme --since 2026-11-01
  signdrop journal list --signature MEUCIQDx --json | jq .by`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := l.prepare(); err != nil {
				return err
			}
			return p.open(func(dir durable.Dir) error { return l.run(cmd.OutOrStdout(), dir) })
		},
	}
	p.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&l.event, "event", "", "`kind` of event: signed, created, bound, answered, line, refused, start …")
	f.StringVar(&l.company, "company", "", "company's `name`")
	f.StringVar(&l.wallet, "wallet", "", "wallet's `id`")
	f.StringVar(&l.name, "name", "", "request file's `name`")
	f.StringVar(&l.by, "by", "", "`principal` that asked, or the fingerprint of its key")
	f.StringVar(&l.nonce, "nonce", "", "what was used up: the one-time `key` of Metacoin, CHAIN:NONCE of Ethereum, TXID:INDEX of an output of Bitcoin")
	f.StringVar(&l.signature, "signature", "", "beginning of the signature, in `base64`")
	f.StringVar(&l.request, "request", "", "beginning of the request's SHA-256, in `hex`")
	f.StringVar(&l.text, "text", "", "beginning of the signed text's SHA-256, in `hex`")
	f.StringVar(&l.code, "code", "", "reason `code` of a refusal")
	f.StringVar(&l.since, "since", "", "not before this `time`: 2026-11-22 or 2026-11-22T15:00:00Z")
	f.StringVar(&l.until, "until", "", "before this `time`")
	f.BoolVar(&l.json, "json", false, "print one JSON object for each line")
	return cmd
}

// list is one search.
type list struct {
	event, company, wallet, name, by, nonce string
	signature, request, text, code          string
	since, until                            string
	json                                    bool

	from, to time.Time
	out      *bufio.Writer
	batch    []*journal.Event // lines whose verdict has not come yet
}

func (l *list) prepare() (err error) {
	if l.from, err = parseTime("since", l.since); err != nil {
		return err
	}
	if l.to, err = parseTime("until", l.until); err != nil {
		return err
	}
	for _, h := range []struct {
		flag  string
		value *string
	}{{"request", &l.request}, {"text", &l.text}} {
		// What sha256sum prints may be pasted whole.
		*h.value, _, _ = strings.Cut(strings.ToLower(*h.value), " ")
		if strings.Trim(*h.value, "0123456789abcdef") != "" {
			return usagef("--%s takes hexadecimal digits", h.flag)
		}
	}
	return nil
}

// parseTime reads a time, or a date for the first moment of it in UTC.
func parseTime(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--%s %s is not a time: write 2026-11-22 or 2026-11-22T15:00:00Z", flag, s)
}

func (l *list) run(out io.Writer, dir durable.Dir) error {
	l.out = bufio.NewWriter(out)
	err := journal.Each(dir, func(_ journal.Place, e *journal.Event) error {
		if e.Kind == "line" {
			l.batch = append(l.batch, e)
			return nil
		}
		// Lines of a batch belong to the next event of another kind.
		for _, line := range l.batch {
			line.Name, line.By, line.Key = e.Name, e.By, e.Key
			if err := l.print(line); err != nil {
				return err
			}
		}
		l.batch = l.batch[:0]
		return l.print(e)
	})
	if ferr := l.out.Flush(); err == nil {
		err = ferr
	}
	return explainFault(err)
}

func (l *list) fits(e *journal.Event) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	begins := func(want string, digest [32]byte) bool {
		return want == "" || strings.HasPrefix(hex.EncodeToString(digest[:]), want)
	}
	return is(l.event, e.Kind) && is(l.company, e.Company) && is(l.wallet, e.Wallet) && is(l.name, e.Name) &&
		(is(l.by, e.By) || is(l.by, e.Key)) && is(l.nonce, e.Nonce) && is(l.code, e.Code) &&
		(l.signature == "" || e.Signature != "" && strings.HasPrefix(e.Signature, l.signature)) &&
		begins(l.request, e.Request) && begins(l.text, e.Text) &&
		!e.Time.Before(l.from) && (l.to.IsZero() || e.Time.Before(l.to))
}

func (l *list) print(e *journal.Event) error {
	if !l.fits(e) {
		return nil
	}
	if l.json {
		return printJSON(l.out, entryOf(e))
	}
	words := []string{fmt.Sprintf("%d %s %-8s", e.Seq, e.Time.Format(timeForm), e.Kind)}
	add := func(format, value string) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	add("%s", e.Company)
	name := e.Name
	if e.Line > 0 {
		name = fmt.Sprintf("%s:%d", e.Name, e.Line)
	}
	add("%s", name)
	add("by %s", e.By)
	add("wallet %s", e.Wallet)
	add("%s", strings.TrimSpace(e.Ledger+" "+e.Operation))
	add("nonce %s", e.Nonce)
	add("code %s", e.Code)
	add("signature %s", e.Signature)
	_, err := fmt.Fprintln(l.out, printable(strings.TrimRight(strings.Join(words, " "), " ")))
	return err
}

// entry is what --json prints of a line. Its names are the journal's own, and do
// not change.
type entry struct {
	Seq       uint64 `json:"seq"`
	Time      string `json:"time"`
	Event     string `json:"event"`
	Company   string `json:"company,omitempty"`
	Name      string `json:"name,omitempty"`
	Line      int    `json:"line,omitzero"`
	Request   string `json:"request,omitempty"`
	By        string `json:"by,omitempty"`
	Key       string `json:"key,omitempty"`
	Type      string `json:"type,omitempty"`
	Wallet    string `json:"wallet,omitempty"`
	Ledger    string `json:"ledger,omitempty"`
	Operation string `json:"operation,omitempty"`
	Nonce     string `json:"nonce,omitempty"`
	Text      string `json:"text,omitempty"`
	Algorithm string `json:"algorithm,omitempty"`
	Signature string `json:"signature,omitempty"`
	Uses      uint64 `json:"uses,omitzero"`
	Result    string `json:"result,omitempty"`
	Code      string `json:"code,omitempty"`
	Final     bool   `json:"final,omitzero"`
	Detail    string `json:"detail,omitempty"`
	Prev      string `json:"prev"`
}

func entryOf(e *journal.Event) entry {
	digest := func(d [32]byte) string {
		if d == [32]byte{} {
			return ""
		}
		return hex.EncodeToString(d[:])
	}
	// A file's name and a principal may be any bytes; JSON is UTF-8.
	text := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
	return entry{
		Seq: e.Seq, Time: e.Time.Format(time.RFC3339Nano), Event: e.Kind, Company: text(e.Company), Name: text(e.Name), Line: e.Line,
		Request: digest(e.Request), By: text(e.By), Key: text(e.Key), Type: text(e.Type), Wallet: text(e.Wallet),
		Ledger: text(e.Ledger), Operation: text(e.Operation), Nonce: text(e.Nonce), Text: digest(e.Text),
		Algorithm: text(e.Algorithm), Signature: text(e.Signature), Uses: e.Uses, Result: digest(e.Result), Code: text(e.Code),
		Final: e.Final, Detail: text(e.Detail), Prev: hex.EncodeToString(e.Prev[:]),
	}
}
