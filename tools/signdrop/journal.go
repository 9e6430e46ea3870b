package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"signdrop/appliance/journal"
	"signdrop/spool/durable"
)

func newJournal() *cobra.Command {
	return parent(&cobra.Command{
		Use:   "journal",
		Short: "Check the record of everything that was signed, or search it",
		Long: `The journal has a line for everything that the appliance decided, each with
the SHA-256 of the line before. Both commands read it from its first byte and
check all of it; they change nothing, and work on a copy as well.`,
		Example: `  signdrop journal verify --data /data
  signdrop journal list --journal /media/audit/journal --wallet W_…`,
	}, newJournalVerify(), newJournalList())
}

// place is where a journal lies: in a data volume, or apart.
type place struct{ data, journal string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.data, "data", "/data", "the data volume's `directory`")
	cmd.Flags().StringVar(&p.journal, "journal", "", "`directory` of a journal, or of a copy, without a data volume")
	markDir(cmd, "data")
	markDir(cmd, "journal")
}

// open opens the journal's directory.
func (p *place) open(do func(durable.Dir) error) error {
	path := p.journal
	if path == "" {
		path = filepath.Join(p.data, "journal")
	}
	vol, err := durable.OpenDisk(path)
	if err != nil {
		return err
	}
	defer vol.Close()
	dir, err := vol.Root()
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(dir)
}

func newJournalVerify() *cobra.Command {
	var p place
	var noted string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that the journal is whole: every line, the chain, the end",
		Long: `Check every line of a journal, the chain from the first to the last, and the
head that says how far it must reach. The first fault is told with its file,
line and byte, and the exit code is 1.

Whoever can write the whole journal can write another history. Against that,
note the last hash somewhere else from time to time, and give it with --noted
later: a journal that was rewritten since does not have it.

A copy that is taken while the appliance is at work must have the .head files
copied before the .jsonl files.`,
		Example: `  signdrop journal verify --data /data
  signdrop journal verify --journal /media/audit/journal --noted 5f70bf18…`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			noted = strings.ToLower(noted)
			if noted != "" && (len(noted) != 64 || strings.Trim(noted, "0123456789abcdef") != "") {
				return usagef("--noted takes a hash of 64 hexadecimal digits, as this command prints it")
			}
			return p.open(func(dir durable.Dir) error {
				bar := newProgress(cmd.ErrOrStderr(), "bytes", 0)
				report, err := journal.Verify(dir, func(done, total int64) {
					if bar != nil {
						bar.Total = total
					}
					bar.set(done, "")
				})
				bar.clear()
				if err != nil {
					return explainFault(err)
				}
				if noted != "" && noted != report.Last {
					if err := findNoted(dir, noted); err != nil {
						return err
					}
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), report)
				}
				return printJournal(cmd.OutOrStdout(), report, noted)
			})
		},
	}
	p.flags(cmd)
	cmd.Flags().StringVar(&noted, "noted", "", "`hash` that was noted earlier and must be there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// explainFault says what a fault calls for.
func explainFault(err error) error {
	var f *journal.Fault
	if !errors.As(err, &f) {
		return err
	}
	return hinted(f, "keep this journal as it is, stop the appliance, and compare with the last good copy")
}

// findNoted looks for a line by its hash. Each line but the last is named by the
// one that follows.
func findNoted(dir durable.Dir, noted string) error {
	err := journal.Each(dir, func(_ journal.Place, e *journal.Event) error {
		if e.Seq > 1 && fmt.Sprintf("%x", e.Prev) == noted { // the first follows none
			return io.EOF
		}
		return nil
	})
	switch {
	case err == io.EOF:
		return nil
	case err != nil:
		return explainFault(err)
	}
	return hinted(fmt.Errorf("no line of the journal has the hash %s", noted),
		"it is the journal of another appliance, an older copy, or was rewritten since the hash was noted")
}

func printJournal(out io.Writer, r *journal.Report, noted string) error {
	t := newTable(out)
	t.row("journal", "in order")
	t.row("files", fmt.Sprint(r.Files))
	t.row("lines", fmt.Sprint(r.Lines))
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		t.row("  "+kind, fmt.Sprint(r.Kinds[kind]))
	}
	t.row("first", r.First.Format(timeForm))
	t.row("last", r.Until.Format(timeForm))
	for _, v := range r.Void {
		t.row("void", fmt.Sprintf("%s in %s from byte %d: %s", plural(int(v.Bytes), "byte"), v.File, v.Offset, v.Reason))
	}
	for _, name := range r.Strange {
		t.row("strange", name+" is no file of a journal")
	}
	if noted != "" {
		t.row("noted", "the hash that was noted is there")
	}
	t.row("seq", fmt.Sprint(r.Seq))
	t.row("hash", r.Last)
	return t.flush()
}

// timeForm shows a time, which is always UTC.
const timeForm = "2006-01-02 15:04:05Z"
