package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"signdrop/appliance/ledgers"
	"signdrop/appliance/metacoin"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
	"signdrop/spool/durable"
)

func newRequest() *cobra.Command {
	return parent(&cobra.Command{
		Use:   "request",
		Short: "Write a request file from flags",
		Long: `Write a request, checked as the appliance will check it, to standard output or
with -o to a new file. Each is one line of JSON, so that several can be put
together to a batch:

  for n in 1 2 3; do signdrop request …; done > run.jsonl`,
		Example: `  signdrop request wallet-create --curve P-384 -o wallet.json
  signdrop request operations transfer`,
	}, newRequestSign(), newRequestData(), newRequestCreate(), newRequestBind(), newRequestAddress(), newOperations(),
		newRequestBackup(), newRequestRestoreAccept())
}

// form is a request that is being written: its members in order.
type form struct {
	reference, appliance, notAfter, output string

	members []member
}

type member struct {
	name  string
	value any // string, bool, int, jsontext.Value or []member
}

// add adds a member unless it is empty.
func (f *form) add(name, value string) {
	if value != "" {
		f.members = append(f.members, member{name, value})
	}
}

// flags adds the flags that every request has.
func (f *form) flags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.reference, "reference", "", "your own `text`, which the answer repeats")
	fs.StringVar(&f.appliance, "appliance", "", "`id` of the only appliance that may answer, SD_…")
	fs.StringVar(&f.notAfter, "not-after", "", "`time` after which it is refused: 2026-11-22T15:00:00Z, or 2h from now")
	fs.StringVarP(&f.output, "output", "o", "", "new `file` to write (default: standard output)")
	markFile(cmd, "output", "json")
}

// begin starts the request with what every request has.
func (f *form) begin(kind string) error {
	f.members = nil
	f.add("type", kind)
	f.add("reference", f.reference)
	f.add("appliance", f.appliance)
	if f.notAfter == "" {
		return nil
	}
	if d, err := time.ParseDuration(f.notAfter); err == nil {
		f.notAfter = time.Now().Add(d).UTC().Format(time.RFC3339)
	} else if _, err := time.Parse(time.RFC3339, f.notAfter); err != nil {
		return usagef("--not-after %s is neither a time like 2026-11-22T15:00:00Z nor a duration like 2h", f.notAfter)
	}
	f.add("not_after", f.notAfter)
	return nil
}

// write checks the request as the appliance will, and only then writes it.
func (f *form) write(out io.Writer) error {
	data, err := encode(f.members)
	if err != nil {
		return err
	}
	if _, err := request.Parse(data); err != nil {
		return err
	}
	if f.output == "" {
		_, err := out.Write(data)
		return err
	}
	err = durable.WriteFileNew(f.output, data, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return hinted(fmt.Errorf("%s exists and is not overwritten", f.output), "give another name with -o")
	}
	return err
}

// encode writes one line of JSON.
func encode(members []member) ([]byte, error) {
	var b strings.Builder
	e := jsontext.NewEncoder(&b)
	if err := encodeObject(e, members); err != nil {
		return nil, fmt.Errorf("a value is not valid UTF-8: %w", err)
	}
	return []byte(b.String()), nil
}

func encodeObject(e *jsontext.Encoder, members []member) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, m := range members {
		if err := e.WriteToken(jsontext.String(m.name)); err != nil {
			return err
		}
		var err error
		switch v := m.value.(type) {
		case string:
			err = e.WriteToken(jsontext.String(v))
		case bool:
			err = e.WriteToken(jsontext.Bool(v))
		case int:
			err = e.WriteToken(jsontext.Int(int64(v)))
		case jsontext.Value:
			err = e.WriteValue(v)
		case []member:
			err = encodeObject(e, v)
		}
		if err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

func newRequestSign() *cobra.Command {
	var (
		f                 form
		wallet, operation string
		ledger            string
		set, setJSON      []string
		replace           bool
	)
	cmd := &cobra.Command{
		Use:   "sign --wallet W --operation OP --set FIELD=VALUE…",
		Short: "Ask for the signature of a ledger's operation",
		Long: `Write a request to sign an operation of a ledger.

Of Metacoin "signdrop request operations" lists the operations, and with a name
the fields of one. The one-time key is called nonce in every operation, whatever
the ledger calls it. A value that the ledger reads as JSON, such as a
transferlist, is given as it is and signed byte for byte.

Of Ethereum (--ledger ethereum) the operations are eip1559, legacy, eip2930,
eip7702, authorization, message, typed_data and hash; docs/formats.md has their
fields. Amounts are in wei. What is no string, such as typed_data, is given with
--set-json.`,
		Example: `  signdrop request sign --wallet W_… --operation transfer \
      --set from=MT… --set to=MT… --set token=0 --set amount=100000000 \
      --set nonce=… --reference payout-0001 -o pay.json
  signdrop request sign --ledger ethereum --wallet W_… --operation eip1559 \
      --set chain_id=1 --set nonce=9 --set to=0x… --set value=5000000 \
      --set gas_limit=21000 --set max_fee_per_gas=30000000000 \
      --set max_priority_fee_per_gas=1000000000 -o pay.json
  signdrop request sign --ledger ethereum --wallet W_… --operation typed_data \
      --set-json typed_data="$(cat order.json)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "wallet", "operation"); err != nil {
				return err
			}
			fields := []member{{"operation", operation}}
			for _, s := range set {
				name, value, ok := strings.Cut(s, "=")
				if !ok || name == "" {
					return usagef("--set %s: write FIELD=VALUE", s)
				}
				if name == "operation" {
					return usagef("give the operation with --operation")
				}
				fields = append(fields, member{name, value})
			}
			for _, s := range setJSON {
				name, value, ok := strings.Cut(s, "=")
				if v := jsontext.Value(value); !ok || name == "" || !v.IsValid() {
					return usagef("--set-json %s: write FIELD=JSON", s)
				}
				fields = append(fields, member{name, jsontext.Value(value)})
			}
			if ledgers.Find(ledger) == nil {
				return usagef("--ledger %s: there is no such ledger", ledger)
			}
			if err := twice(fields); err != nil {
				return err
			}
			if err := f.begin(request.Sign); err != nil {
				return err
			}
			f.add("wallet", wallet)
			if replace {
				f.members = append(f.members, member{"replace", true})
			}
			f.members = append(f.members, member{ledger, fields})
			return f.write(cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&wallet, "wallet", "", "`id` of the wallet, or the address that it is bound to")
	fs.StringVar(&ledger, "ledger", ledgers.All[0].Name, "`name` of the ledger: "+ledgerNames())
	fs.StringVar(&operation, "operation", "", "`name` of the operation")
	fs.StringArrayVar(&set, "set", nil, "`FIELD=VALUE` of the operation; may be repeated")
	fs.StringArrayVar(&setJSON, "set-json", nil, "`FIELD=JSON` of the operation, for a value that is no string")
	fs.BoolVar(&replace, "replace", false, "sign although another text was signed for this nonce; the policy must allow it")
	f.flags(cmd)
	complete(cmd, "operation", func(*cobra.Command) []string { return operationNames() })
	complete(cmd, "set", func(cmd *cobra.Command) []string { return fieldNames(operation) })
	return cmd
}

func ledgerNames() string {
	var names []string
	for _, l := range ledgers.All {
		names = append(names, l.Name)
	}
	return strings.Join(names, " or ")
}

// twice refuses a field that is given two times: JSON would have to choose.
func twice(fields []member) error {
	seen := map[string]bool{}
	for _, m := range fields {
		if seen[m.name] {
			return usagef("the field %s is given twice", m.name)
		}
		seen[m.name] = true
	}
	return nil
}

func newRequestData() *cobra.Command {
	var f form
	var wallet, text, hash, scheme string
	cmd := &cobra.Command{
		Use:   "data --wallet W --text TEXT",
		Short: "Ask for the signature of a text as it is",
		Long: `Write a request to sign a text as it is. The company's policy decides which
texts may be signed so: by default none with a | in it under a curve that
Metacoin accepts, since that could be a transaction.`,
		Example: `  signdrop request data --wallet W_… --text hello --hash sha256
  signdrop request data --wallet W_… --text "$(cat note)" --scheme schnorr`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "wallet", "text"); err != nil {
				return err
			}
			if err := f.begin(request.Sign); err != nil {
				return err
			}
			f.add("wallet", wallet)
			data := []member{{"text", text}, {"hash", hash}}
			if scheme != "ecdsa" {
				data = append(data, member{"scheme", scheme})
			}
			f.members = append(f.members, member{"data", data})
			return f.write(cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&wallet, "wallet", "", "`id` of the wallet, or the address that it is bound to")
	fs.StringVar(&text, "text", "", "the `text`, signed byte for byte")
	fs.StringVar(&hash, "hash", "sha256", "sha256, sha384 or sha512")
	fs.StringVar(&scheme, "scheme", "ecdsa", "ecdsa, or on secp256k1 also ecdsa-recoverable or schnorr")
	f.flags(cmd)
	complete(cmd, "hash", words("sha256", "sha384", "sha512"))
	complete(cmd, "scheme", words("ecdsa", "ecdsa-recoverable", "schnorr"))
	return cmd
}

func newRequestCreate() *cobra.Command {
	var f form
	var curve, network string
	cmd := &cobra.Command{
		Use:   "wallet-create",
		Short: "Ask for a new wallet",
		Long: `Write a request for a new wallet: a key that the appliance makes and keeps.
The answer has its id and public key, and how to register it with Metacoin.

Metacoin takes P-256, P-384 and P-521; its usual curve is P-384. secp256k1 is
for other ledgers.

With --hd it is a wallet of keys that all follow from one (BIP-32), for Bitcoin.
The answer has the descriptors that a watching wallet takes.`,
		Example: `  signdrop request wallet-create --curve P-384 --reference payouts -o w.json
  signdrop request wallet-create --hd main --reference cold -o hd.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if network != "" {
				if cmd.Flags().Changed("curve") {
					return usagef("give --curve or --hd, not both")
				}
				if err := f.begin(request.WalletCreate); err != nil {
					return err
				}
				f.add("kind", request.KindHD)
				f.add("network", network)
				return f.write(cmd.OutOrStdout())
			}
			// The appliance leaves this to its key store.
			if !keyfs.Curve(curve).Known() {
				return reason.New(reason.FieldInvalid, "use P-256, P-384, P-521 or secp256k1", "no such curve").At("curve")
			}
			if err := f.begin(request.WalletCreate); err != nil {
				return err
			}
			f.add("curve", curve)
			return f.write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&curve, "curve", "P-384", "P-256, P-384, P-521 or secp256k1")
	f.flags(cmd)
	cmd.Flags().StringVar(&network, "hd", "", "make an HD wallet of this `network`: main, test or regtest")
	complete(cmd, "curve", words("P-256", "P-384", "P-521", "secp256k1"))
	complete(cmd, "hd", words("main", "test", "regtest"))
	return cmd
}

func newRequestAddress() *cobra.Command {
	var f form
	var wallet, script, network string
	var account, index, number int
	var change bool
	cmd := &cobra.Command{
		Use:   "wallet-address --wallet W --script FORM",
		Short: "Ask for addresses of a wallet that holds bitcoins",
		Long: `Write a request for addresses of an HD wallet, or for that of a single key on
secp256k1. FORM is p2pkh, p2sh-p2wpkh, p2wpkh or p2tr; an HD wallet has keys of
their own for each (BIP-44, 49, 84, 86).`,
		Example: `  signdrop request wallet-address --wallet W_… --script p2tr --index 20 --number 20`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "wallet", "script"); err != nil {
				return err
			}
			// The appliance looks at this only when it knows the wallet.
			if !hd.Script(script).Known() {
				return reason.New(reason.FieldInvalid, "use p2pkh, p2sh-p2wpkh, p2wpkh or p2tr", "there is no such form of address").At("script")
			}
			if err := f.begin(request.WalletAddress); err != nil {
				return err
			}
			f.add("wallet", wallet)
			f.add("script", script)
			f.add("network", network)
			for _, n := range []struct {
				name  string
				value int
			}{{"account", account}, {"index", index}, {"number", number}} {
				if cmd.Flags().Changed(n.name) {
					f.members = append(f.members, member{n.name, n.value})
				}
			}
			if change {
				f.members = append(f.members, member{"change", true})
			}
			return f.write(cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&wallet, "wallet", "", "`id` of the wallet")
	fs.StringVar(&script, "script", "", "`form` of the addresses: p2pkh, p2sh-p2wpkh, p2wpkh or p2tr")
	fs.StringVar(&network, "network", "", "`network` for a single key: main, test or regtest (default main)")
	fs.IntVar(&account, "account", 0, "`number` of the account")
	fs.IntVar(&index, "index", 0, "the first address, 999999 at most")
	fs.IntVar(&number, "number", 1, "how many addresses, 1 to 100")
	fs.BoolVar(&change, "change", false, "addresses for change")
	f.flags(cmd)
	complete(cmd, "script", words("p2pkh", "p2sh-p2wpkh", "p2wpkh", "p2tr"))
	complete(cmd, "network", words("main", "test", "regtest"))
	return cmd
}

func newRequestBind() *cobra.Command {
	var f form
	var wallet, address string
	cmd := &cobra.Command{
		Use:   "wallet-bind --wallet W --address MT…",
		Short: "Tell the appliance the address that the ledger gave a wallet",
		Long: `Write a request that binds a wallet to the address which Metacoin gave it.
From then on the wallet signs only for that address, and can be named by it.`,
		Example: `  signdrop request wallet-bind --wallet W_… --address MT… -o bind.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "wallet", "address"); err != nil {
				return err
			}
			// The appliance looks at this only when it knows the wallet.
			if r := metacoin.CheckAddress(address); r != nil {
				return r.At("address")
			}
			if err := f.begin(request.WalletBind); err != nil {
				return err
			}
			f.add("wallet", wallet)
			f.add("address", address)
			return f.write(cmd.OutOrStdout())
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&wallet, "wallet", "", "`id` of the wallet")
	fs.StringVar(&address, "address", "", "the `address`, MT…")
	f.flags(cmd)
	return cmd
}

// needed refuses a command that lacks flags.
func needed(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if cmd.Flags().Lookup(name).Value.String() == "" {
			return usagef("give --%s", name)
		}
	}
	return nil
}

// complete makes the shell complete a flag with what list returns.
func complete(cmd *cobra.Command, flag string, list func(*cobra.Command) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		directive := cobra.ShellCompDirectiveNoFileComp
		if flag == "set" {
			directive |= cobra.ShellCompDirectiveNoSpace // the value follows
		}
		return list(cmd), directive
	})
	if err != nil {
		panic("internal error: " + err.Error())
	}
}

func words(list ...string) func(*cobra.Command) []string {
	return func(*cobra.Command) []string { return list }
}
