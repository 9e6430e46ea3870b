package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"signdrop/appliance/bitcoin"
	"signdrop/appliance/ledger"
	"signdrop/appliance/ledgers"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/spool"
)

func newPreview() *cobra.Command {
	v := &preview{}
	cmd := &cobra.Command{
		Use:   "preview [flags] REQUEST…",
		Short: "Say what requests ask for, before they are signed",
		Long: `Say in words what requests ask to have signed, before they are dropped: on
the machine of the appliance, or on any other. It takes the files that can be
dropped, NAME.json, NAME.jsonl and NAME.psbt, and needs no keys, no data volume
and no network. What is encrypted (.age) only the appliance can read.

Nothing here knows whose a key is. What a PSBT says of itself is said to be its
word: which outputs are change, and an amount without the transaction that
proves it. Compare whom it pays, the amount and the fee with what you know from
elsewhere.

The network of a PSBT is taken from the paths of its keys; it makes the
addresses. The rules are the careful ones of a company whose policy says
nothing, unless --policy gives the company's.

The exit code is 3 if a request would be refused as it is seen here. Code 0 is
no promise: wallets, the requests' signature and what was signed before only the
appliance knows.`,
		Example: `  signdrop preview /media/stick/pay.psbt
  signdrop preview --policy /data/db/companies/acme/policy.json pay.json
  signdrop preview --network regtest pay.psbt
  signdrop preview --json run.jsonl | jq -r '.fields[]?.value'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return v.run(cmd, args) },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"json", "jsonl", "psbt"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	f := cmd.Flags()
	f.StringVar(&v.network, "network", "", "Bitcoin's `network`: "+strings.Join(bitcoin.Networks, ", "))
	f.StringVar(&v.policyFile, "policy", "", "the company's policy.json: the `file` whose rules hold")
	f.BoolVar(&v.json, "json", false, "print one JSON object for each request, for programs")
	complete(cmd, "network", func(*cobra.Command) []string { return bitcoin.Networks })
	markFile(cmd, "policy", "json")
	return cmd
}

// preview is one run of the command.
type preview struct {
	network, policyFile string
	json                bool

	out    io.Writer
	policy *policy.Policy
	now    time.Time

	read, refused int  // requests
	byPolicy      bool // a policy could allow what is refused
}

func (v *preview) run(cmd *cobra.Command, files []string) error {
	v.now = time.Now()
	if v.network != "" && !slices.Contains(bitcoin.Networks, v.network) {
		return usagef("--network is %q: use one of %s", v.network, strings.Join(bitcoin.Networks, ", "))
	}
	for _, file := range files {
		if err := previewable(filepath.Base(file)); err != nil {
			return err
		}
	}
	v.policy = &policy.Policy{}
	if v.policyFile != "" {
		data, err := readSmall(v.policyFile, maxPolicy)
		if err != nil {
			return err
		}
		if v.policy, err = policy.Parse(data); err != nil {
			return fmt.Errorf("%s: %w", v.policyFile, err)
		}
	}
	w := bufio.NewWriter(cmd.OutOrStdout())
	v.out = w
	for _, file := range files {
		if err := v.file(file); err != nil {
			w.Flush()
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if v.refused == 0 {
		return nil
	}
	hint := ""
	if v.policyFile == "" && v.byPolicy {
		hint = "this is by a policy that says nothing; --policy FILE takes the company's"
	}
	return &failure{exitRefused, fmt.Errorf("%d of %s would be refused", v.refused, plural(v.read, "request")), hint}
}

const maxPolicy = 1 << 20 // bytes of policy.json, far more than it has

// previewable says why a file of this name cannot be read here.
func previewable(name string) error {
	for _, end := range []string{".result.json", ".result.jsonl"} {
		if strings.HasSuffix(name, end) {
			return &failure{exitUsage, fmt.Errorf("%s is an answer, not a request", name), "signdrop verify reads answers"}
		}
	}
	if _, typed := typeOf(name); !typed {
		return usagef("%s is no file that can be dropped: the name of one ends in .json, .jsonl or .psbt", name)
	}
	if strings.HasSuffix(name, ".age") {
		return &failure{exitFailed, fmt.Errorf("%s is encrypted and cannot be read here: only the appliance has the key", name),
			"have the request shown before it is encrypted"}
	}
	return nil
}

// file tells of one file of requests. What is wrong with a request is in what it tells;
// the error is that of reading or writing.
func (v *preview) file(file string) error {
	name := filepath.Base(file)
	typed, _ := typeOf(name)
	data, err := readUpTo(file, typed.Max)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	all := &foreseen{File: file, Request: hex.EncodeToString(sum[:])}
	if _, err := os.Lstat(file + spool.SigSuffix); err == nil {
		all.Signature = file + spool.SigSuffix
	}
	if err := checkName(name); err != nil {
		all.refuse(reason.New(reason.NameNotAllowed, "give it another name", "%v", err))
	}
	switch {
	case len(data) == 0:
		all.refuse(reason.New(reason.Empty, "write the file whole", "the file is empty"))
		return v.tell(all)
	case int64(len(data)) > typed.Max:
		all.Request = "" // it was not read to its end
		all.refuse(reason.New(reason.TooLarge, fmt.Sprintf("the limit is %d bytes; split the file", typed.Max), "the file is larger than the limit"))
		return v.tell(all)
	}
	if typed.Suffix == ".jsonl" {
		return v.batch(all, data)
	}
	if l := ledgers.Document(name); l != nil {
		r, err := request.ParseDocument(l, data)
		v.foresee(all, r, err, nil)
	} else {
		r, err := request.Parse(data)
		v.foresee(all, r, err, data)
	}
	return v.tell(all)
}

// readUpTo reads a file, and one byte more of one that is longer.
func readUpTo(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

// batch tells of the file and then of each line.
func (v *preview) batch(all *foreseen, data []byte) error {
	all.Type = "batch"
	b, err := request.ParseBatch(data)
	if err != nil {
		all.refuse(err)
		return v.tell(all)
	}
	all.Count, all.Abort = len(b.Lines), b.Abort
	if err := v.tell(all); err != nil {
		return err
	}
	for i, line := range b.Lines {
		one := &foreseen{File: all.File, Line: b.First + i}
		r, err := request.Parse(line)
		v.foresee(one, r, err, line)
		if err := v.tell(one); err != nil {
			return err
		}
	}
	return nil
}

// foreseen is what there is to say of one request; it is what --json prints. Its names
// do not change.
type foreseen struct {
	File      string `json:"file"`
	Line      int    `json:"line,omitzero"`
	Type      string `json:"type,omitempty"`
	Refused   bool   `json:"refused"`                  // by what is seen here
	Request   string `json:"request_sha256,omitempty"` // of the file
	Signature string `json:"signature,omitempty"`      // the file that lies beside it

	Count int  `json:"count,omitzero"` // batch: requests
	Abort bool `json:"abort,omitzero"` // batch: one refused line refuses all

	Reference  string         `json:"reference,omitempty"`
	Appliance  string         `json:"appliance,omitempty"`
	NotAfter   string         `json:"not_after,omitempty"`
	Wallet     string         `json:"wallet,omitempty"`
	Replace    bool           `json:"replace,omitzero"`
	Ledger     string         `json:"ledger,omitempty"`
	Operation  string         `json:"operation,omitempty"`
	Fields     []ledger.Field `json:"fields,omitempty"`
	Payload    string         `json:"payload,omitempty"`
	NotCovered []string       `json:"not_covered,omitempty"`
	AlsoMeans  []string       `json:"also_means,omitempty"`

	Refusals []expected `json:"refusals,omitempty"`

	ofSecret bool // the type is one of a request that holds a secret
}

// expected is a refusal that the appliance would answer with.
type expected struct {
	Code    reason.Code `json:"code"`
	Line    int         `json:"line,omitzero"` // of a batch that is refused as a whole
	Field   string      `json:"field,omitempty"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
}

func (f *foreseen) refuse(err error) {
	f.Refused = true
	r, ok := reason.As(err)
	if !ok {
		r = reason.New(reason.RequestMalformed, "make it anew", "%v", err)
	}
	e := expected{r.Code, r.Line, r.Field, r.Message, r.Hint}
	if !slices.Contains(f.Refusals, e) {
		f.Refusals = append(f.Refusals, e)
	}
}

func (f *foreseen) add(name, value string) {
	f.Fields = append(f.Fields, ledger.Field{Name: name, Value: value})
}

// foresee fills in what a request asks for. err is what is wrong with it; raw is its
// JSON, nil for a document.
func (v *preview) foresee(f *foreseen, r *request.Request, err error, raw []byte) {
	if err != nil {
		f.refuse(err)
		return
	}
	f.Type, f.Reference, f.Appliance, f.Wallet, f.Replace = r.Type, r.Reference, r.Appliance, r.Wallet, r.Replace
	if !r.NotAfter.IsZero() {
		f.NotAfter = r.NotAfter.UTC().Format(time.RFC3339)
	}
	company := v.policy
	if r.For(request.Partner) != nil {
		company = &policy.Policy{}
	}
	// Whether it is meant for this appliance is not known here.
	if err := company.Fresh(r, r.Appliance, v.now); err != nil {
		f.refuse(err)
	}
	if r.Type != request.Sign {
		v.command(f, r, raw)
		return
	}
	curves, err := v.policy.Foresee(r)
	if err != nil {
		f.refuse(err)
	}
	if r.Tx != nil {
		v.transaction(f, r.Tx)
		return
	}
	f.Payload = r.Data.Text
	f.add("hash", r.Data.Hash)
	f.add("scheme", r.Data.Scheme)
	if len(curves) > 0 && len(curves) < 4 {
		f.add("wallet's curve", strings.Join(curves, ", ")+"; refused on others")
	}
}

// transaction has the ledger say what would be signed.
func (v *preview) transaction(f *foreseen, tx ledger.Tx) {
	f.Ledger, f.Operation, f.Payload = tx.Ledger(), tx.Operation(), tx.Payload()
	l := ledgers.Find(f.Ledger)
	rules := v.policy.Rules(f.Ledger)
	if r, ok := rules.(*bitcoin.Rules); ok && v.network != "" {
		said := *r
		said.Network = v.network
		rules = &said
	}
	p := l.Preview(tx, rules)
	f.Fields, f.NotCovered, f.AlsoMeans = p.Fields, p.NotCovered, p.AlsoMeans
	for _, err := range p.Refusals {
		f.refuse(err)
	}
}

// command tells the fields of a request that asks for no signature. Those of one that
// holds a secret it keeps to itself: it may not come in the clear.
func (v *preview) command(f *foreseen, r *request.Request, raw []byte) {
	defer r.Wipe()
	if r.Secret() {
		f.ofSecret = true
		f.refuse(reason.New(reason.SecretInTheClear,
			"consider the secret exposed and use another; encrypt the request with age to the appliance's recipient and drop it as NAME.json.age",
			"the file holds a secret in the clear"))
		return
	}
	if r.For(request.Partner) != nil {
		f.add("inbox", "that of the administrators, who sign it")
	}
	var members map[string]jsontext.Value
	if json.Unmarshal(raw, &members) != nil {
		return // it was parsed before
	}
	names := []string{}
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch name {
		case "type", "reference", "appliance", "not_after", "wallet":
			continue
		}
		value := members[name]
		var s string
		if value.Kind() != '"' || json.Unmarshal(value, &s) != nil {
			if value.Compact() != nil {
				continue
			}
			s = string(value)
		}
		f.add(name, s)
	}
}

// ofPolicy are the codes of what a policy can allow.
var ofPolicy = []reason.Code{reason.PolicyForbids, reason.FeeTooHigh, reason.SighashForbidden, reason.AmountUnproven}

// tell counts and prints.
func (v *preview) tell(f *foreseen) error {
	if f.Type != "batch" || f.Refused {
		v.read++
	}
	if f.Refused {
		v.refused++
	}
	for _, e := range f.Refusals {
		v.byPolicy = v.byPolicy || slices.Contains(ofPolicy, e.Code)
	}
	if v.json {
		return printJSON(v.out, f)
	}
	f.print(v.out)
	return nil
}

// pays: it has more to say than fits a line.
func (f *foreseen) pays() bool {
	l := ledgers.Find(f.Ledger)
	return l != nil && l.Finds
}

// print says it in words. A line of a batch takes one line, unless it is a payment or
// would be refused.
func (f *foreseen) print(w io.Writer) {
	where := f.File
	if f.Line > 0 {
		where = fmt.Sprintf("%s: line %d", f.File, f.Line)
	}
	head := f.headline()
	if f.Refused {
		head = "WOULD BE REFUSED"
	} else if f.Line > 0 && !f.pays() {
		head = f.short()
	}
	fmt.Fprintf(w, "%s: %s\n", printable(where), printable(head))
	for _, e := range f.Refusals {
		at := ""
		if e.Line > 0 {
			at = fmt.Sprintf("line %d: ", e.Line)
		}
		if e.Field != "" {
			at += "field " + e.Field + ": "
		}
		fmt.Fprintf(w, "  %s: %s\n", e.Code, printable(at+e.Message))
		if e.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", printable(e.Hint))
		}
	}
	if f.Line == 0 || f.Refused || f.pays() {
		f.details(w)
	}
}

func (f *foreseen) headline() string {
	switch {
	case f.Type == "batch":
		text := "a batch of " + plural(f.Count, "request")
		if f.Abort {
			text += "; one that is refused refuses all"
		}
		return text
	case f.Type != request.Sign:
		return "asks for " + f.Type + ": nothing is signed"
	case f.Ledger == "":
		return "asks for a signature of a text"
	}
	return "asks for a signature: " + f.Operation + " of " + strings.ToUpper(f.Ledger[:1]) + f.Ledger[1:]
}

// short is headline and fields in one line. What could be taken for a field more stands
// in quotes.
func (f *foreseen) short() string {
	text := f.headline()
	add := func(name, value string) {
		text += " " + name + "=" + inLine(value)
	}
	if f.Wallet != "" {
		add("wallet", f.Wallet)
	}
	if f.Replace {
		add("replace", "true")
	}
	for _, x := range f.Fields {
		add(x.Name, x.Value)
	}
	if f.Type == request.Sign && f.Ledger == "" {
		add("text", f.Payload)
	}
	return text
}

func (f *foreseen) details(w io.Writer) {
	t := newTable(w)
	row := func(head, text string) {
		if text != "" {
			t.row("  "+head, text)
		}
	}
	row("reference", f.Reference)
	row("appliance", f.Appliance)
	row("not after", f.NotAfter)
	row("wallet", f.Wallet)
	if f.Replace {
		row("replace", "also if another text was signed for the same nonce or coin")
	}
	row("operation", f.Operation)
	if f.Type == request.Sign && f.Ledger == "" {
		row("operation", "none: the text is signed as data")
	}
	indent := ""
	if f.Type == request.Sign {
		indent = "  "
	}
	for _, x := range f.Fields {
		row(indent+x.Name, or(oneLine(x.Value), "(empty)"))
	}
	if f.ofSecret {
		row("fields", "not shown")
	}
	row("text", f.Payload)
	rowOpen(row, f.NotCovered, f.AlsoMeans)
	row("request", f.Request)
	if f.Signature != "" {
		row("signature", f.Signature+" lies beside it, and was not looked at")
	} else if f.Line == 0 {
		row("signature", "none lies beside it")
	}
	t.flush()
}
