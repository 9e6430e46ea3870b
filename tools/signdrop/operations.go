package main

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signdrop/appliance/metacoin"
)

func newOperations() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "operations [NAME]",
		Short: "List the operations of Metacoin, or the fields of one",
		Long: `List the operations that can be signed, with their fields. With a name, say
all of one: what each field must be, what the signature covers and what it
does not.

A * marks a field that must be there, + one that the signature covers.`,
		Example: `  signdrop request operations
  signdrop request operations token_increase`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return operationNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ops := metacoin.Operations()
			if len(args) == 1 {
				ops = slices.DeleteFunc(ops, func(op metacoin.Operation) bool { return op.Name != args[0] })
				if len(ops) == 0 {
					return usagef("Metacoin has no operation %s: signdrop request operations lists them", args[0])
				}
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				for _, op := range ops {
					if err := printJSON(out, op); err != nil {
						return err
					}
				}
				return nil
			case len(args) == 1:
				for _, op := range ops {
					if err := describe(out, op); err != nil {
						return err
					}
				}
				return nil
			}
			return listOperations(out, ops)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each operation")
	return cmd
}

func listOperations(out io.Writer, ops []metacoin.Operation) error {
	t := newTable(out, "OPERATION", "FAMILY", "LEDGER", "FIELDS")
	t.wrap = true
	for _, op := range ops {
		if !op.Dispatched {
			continue // none can be signed
		}
		var fields []string
		for _, f := range op.Fields {
			fields = append(fields, marked(f))
		}
		t.row(op.Name, op.Standard, or(op.Ledger, "both"), strings.Join(fields, " "))
	}
	return t.flush()
}

func marked(f metacoin.OperationField) string {
	name := f.Name
	if f.Required {
		name += "*"
	}
	if f.Signed {
		name += "+"
	}
	return name
}

func describe(out io.Writer, op metacoin.Operation) error {
	t := newTable(out)
	t.wrap = true
	t.row(op.Name, strings.TrimSpace(op.Standard+" "+op.Ledger))
	row := func(head, text string) {
		if text != "" {
			t.row("  "+head, text)
		}
	}
	if !op.Dispatched {
		row("refused", op.Note)
		return t.flush()
	}
	for _, f := range op.Fields {
		row(marked(f), or(f.Limits, f.Kind))
	}
	row("signed by", op.Signer)
	row("text", op.Text)
	row("not covered", strings.Join(op.NotCovered, ", "))
	row("also means", strings.Join(op.AlsoMeans, ", "))
	row("submitted to", strings.TrimSpace(op.Method+" "+op.Path))
	row("broken", op.Broken)
	row("note", op.Note)
	return t.flush()
}

// operationNames lists what can be signed, each once.
func operationNames() []string {
	var names []string
	for _, op := range metacoin.Operations() {
		if op.Dispatched && !slices.Contains(names, op.Name) {
			names = append(names, op.Name)
		}
	}
	return names
}

// fieldNames lists the fields of an operation as --set takes them, with what they
// must be for the shells that show that.
func fieldNames(operation string) []string {
	var names []string
	for _, op := range metacoin.Operations() {
		if op.Name != operation {
			continue
		}
		if op.Ledger != "" {
			names = append(names, "ledger=\tmainnet or testnet")
		}
		for _, f := range op.Fields {
			names = append(names, f.Name+"=\t"+f.Limits)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
