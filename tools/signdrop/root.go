package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	groupPartner  = "partner"
	groupOperator = "operator"
)

// newRoot makes the whole tree of commands. started becomes true when a command
// begins to run: what fails before is an error of usage.
func newRoot() (root *cobra.Command, started *bool) {
	started = new(bool)
	root = &cobra.Command{
		Use:   "signdrop",
		Short: "Ask a signing appliance, run one, audit one",
		Long: `Signdrop is a signing appliance whose only interface is files: a request and
its signature go into an inbox, the answer appears in an outbox. This command
makes that pleasant for partners, operators and auditors.`,
		Example: `  signdrop request sign --wallet W_… --operation transfer \
      --set from=MT… --set to=MT… --set token=0 --set amount=100 \
      --set nonce=… -o pay.json
  signdrop submit --spool ~/acme --key ~/.ssh/id_ed25519 --wait pay.json
  signdrop verify --request pay.json ~/acme/outbox/pay.result.json`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return noCommand(cmd)
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := flagsFromEnvironment(cmd); err != nil {
				return err
			}
			*started = true
			return nil
		},
	}
	root.AddGroup(
		&cobra.Group{ID: groupPartner, Title: "For partners:"},
		&cobra.Group{ID: groupOperator, Title: "For operators and auditors:"},
	)
	for _, c := range []*cobra.Command{newRequest(), newPreview(), newSubmit(), newVerify(), newCourier()} {
		c.GroupID = groupPartner
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		newInit(), newApprove(), newCustodians(), newStatus(), newJournal(), newImportWalletKMS(), newContract(), newAttest(),
	} {
		c.GroupID = groupOperator
		root.AddCommand(c)
	}
	root.AddCommand(
		&cobra.Command{Use: "exit-codes", Short: "The exit codes, for scripts", Long: exitCodesHelp},
		&cobra.Command{Use: "environment", Short: "Flags from environment variables", Long: environmentHelp},
	)
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	return root, started
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]) {
			v += " " + s.Value
		}
	}
	return v + " " + info.GoVersion
}

// parent is a command that only has others below it.
func parent(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return noCommand(cmd) }
	cmd.AddCommand(below...)
	return cmd
}

// noCommand shows the help where it cannot be taken for a result.
func noCommand(cmd *cobra.Command) error {
	cmd.SetOut(cmd.ErrOrStderr())
	if err := cmd.Help(); err != nil {
		return err
	}
	return &failure{code: exitUsage, err: errors.New("no command was given"), hint: "take one from the list above"}
}

const environmentHelp = `Every flag can be given as an environment variable: SIGNDROP_ and the flag's
name in capitals, with _ for each hyphen. A flag that may be given several
times takes one value a line.

  SIGNDROP_DATA=/srv/signdrop signdrop status
  SIGNDROP_NOT_AFTER=1h signdrop request …

A flag on the command line wins; an empty variable counts as none.`

// flagsFromEnvironment sets the flags that were not given and whose variable is.
func flagsFromEnvironment(cmd *cobra.Command) (err error) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "SIGNDROP_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := os.Getenv(name)
		if f.Changed || value == "" || f.Name == "help" || f.Name == "version" || err != nil {
			return
		}
		values := []string{value}
		if _, several := f.Value.(pflag.SliceValue); several {
			values = strings.Split(strings.TrimRight(value, "\n"), "\n")
		}
		for _, v := range values {
			if e := cmd.Flags().Set(f.Name, v); e != nil {
				err = fmt.Errorf("environment variable %s: %w", name, e)
				return
			}
		}
	})
	return err
}

// usageTemplate is cobra's, shorter: a page of help should fit a terminal.
const usageTemplate = `Usage:{{if .Annotations.runs}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{else}}
  {{.UseLine}}{{end}}{{if .HasExample}}

Example:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if .AllChildCommandsHaveGroup}}{{else}}

{{if .Groups}}More:{{else}}Commands:{{end}}{{range $cmds}}{{if and (eq .GroupID "") (or .IsAvailableCommand .IsAdditionalHelpTopicCommand)}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} COMMAND --help" says more of a command.{{end}}
`
