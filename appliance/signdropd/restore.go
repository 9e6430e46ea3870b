package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"signdrop/appliance/backup"
	"signdrop/appliance/backup/custody"
	"signdrop/appliance/setup"
	"signdrop/spool/durable"
	"signdrop/tools/progress"
)

// restoreOptions are the flags of "signdropd restore".
type restoreOptions struct {
	data       string
	identities []string
	shares     []string
}

// restoreCommand is "signdropd restore".
func restoreCommand() *cobra.Command {
	o := &restoreOptions{}
	c := &cobra.Command{
		Use:   "restore [flags] BACKUP.age [INCREMENT.age…]",
		Short: "restore backups into an empty data volume",
		Long: `Restore puts a backup of everything and the increments that follow it, in order,
into an empty directory, and checks all of it: each file's digest, each private
key against its public key, the journal's chain. After an error nothing is left.

The backups are opened by the identity (age) of a recipient, or by the shares of
enough custodians: --share FILE for each, opened by the custodian or still
encrypted with the custodian's own --identity.

An appliance that is restored serves nobody but its administrators until they
accept it: docs/operations.md says what to look at before. Make sure that the old
one never runs again.

Exit status: 0 restored; 1 an error; 2 wrong usage; 3 restored, and some keys are
damaged as they were when the backup was made.`,
		Example: `  signdropd restore --data /data --identity key.txt B_….backup.age
  signdropd restore --data /data --share ann.json --share bob.json B_….backup.age B_….backup.age`,
		Args: cobra.ArbitraryArgs,
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return usage(cmd, err)
			}
			if len(args) == 0 {
				return usage(cmd, errors.New("name the backup, and after it its increments"))
			}
			if len(o.identities)+len(o.shares) == 0 {
				return usage(cmd, errors.New("say with --identity or --share what opens the backup"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "/data", "the empty directory that becomes the data volume; made if it does not exist")
	f.StringArrayVar(&o.identities, "identity", nil, "`file` with an age identity, - for standard input; may be repeated")
	f.StringArrayVar(&o.shares, "share", nil, "`file` with a custodian's share; may be repeated")
	return c
}

func (o *restoreOptions) run(cmd *cobra.Command, args []string) error {
	ids, err := o.open(cmd.InOrStdin())
	if err != nil {
		return err
	}
	var sources []backup.Source
	for _, name := range args {
		sources = append(sources, backup.Source{Name: name, Open: func() (io.ReadCloser, error) { return os.Open(name) }})
	}
	err = os.Mkdir(o.data, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	made := err == nil
	report, err := o.restore(cmd, sources, ids)
	if err != nil {
		if made {
			os.Remove(o.data) // it fails where something is left, which is told
		}
		return fmt.Errorf("restoring into %s: %w", o.data, err)
	}
	o.tell(cmd.OutOrStdout(), args, report)
	if len(report.Damaged) > 0 {
		for _, d := range report.Damaged {
			fmt.Fprintln(cmd.ErrOrStderr(), "signdropd: damaged when the backup was made:", d)
		}
		return statusRefused
	}
	return nil
}

func (o *restoreOptions) restore(cmd *cobra.Command, sources []backup.Source, ids []age.Identity) (*backup.Report, error) {
	vol, err := durable.OpenDisk(o.data)
	if err != nil {
		return nil, err
	}
	defer vol.Close()
	top, err := os.Open(o.data)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	if err := unix.Flock(int(top.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another restore works on this directory: wait for its end (%w)", err)
	}
	below, err := os.OpenRoot(o.data)
	if err != nil {
		return nil, err
	}
	defer below.Close()
	show := newShow(cmd.ErrOrStderr())
	defer show.bar.Clear()
	return backup.Restore(vol, sources, backup.RestoreOptions{
		Identities: ids, Access: setup.OnDisk(below), Progress: show.progress,
	})
}

// open gathers the identities that open the backups.
func (o *restoreOptions) open(stdin io.Reader) ([]age.Identity, error) {
	var ids []age.Identity
	for _, name := range o.identities {
		in := stdin
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			in = f
		}
		list, err := age.ParseIdentities(io.LimitReader(in, 1<<20))
		if err != nil {
			// Its text could quote the key.
			return nil, fmt.Errorf("%s does not hold an age identity: give the file that age-keygen wrote", name)
		}
		ids = append(ids, list...)
	}
	if len(o.shares) == 0 {
		return ids, nil
	}
	var shares []*custody.Share
	for _, name := range o.shares {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(io.LimitReader(f, custody.MaxShare))
		f.Close()
		if err != nil {
			return nil, err
		}
		s, err := custody.Read(data, ids)
		clear(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		shares = append(shares, s)
	}
	id, err := custody.Combine(shares)
	if err != nil {
		return nil, fmt.Errorf("putting the shares together: %w", err)
	}
	return append(ids, id), nil
}

func (o *restoreOptions) tell(w io.Writer, names []string, r *backup.Report) {
	for i, name := range names {
		fmt.Fprintf(w, "%s  %s\n", r.Digests[i], name)
	}
	h := r.Newest
	fmt.Fprintf(w, "appliance %s, as of %s: journal up to entry %d, %s\n", h.Appliance, h.Time, h.Journal.Seq, h.Journal.SHA256)
	fmt.Fprintf(w, "%d files, %d wallets, %d data keys\n", r.Files, r.Wallets, r.DataKeys)
	fmt.Fprintf(w, "companies are served when the administrators accept it: {\"type\":\"restore.accept\",\"restore\":%q}\n", r.Restore)
}

// show tells how far a restore is: a bar on a terminal, a line now and then elsewhere.
type show struct {
	w    io.Writer
	bar  *progress.Bar
	what string
	last time.Time
}

func newShow(w io.Writer) *show { return &show{w: w, bar: progress.New(w, "bytes", 0)} }

func (s *show) progress(what string, done int64) {
	if s.bar != nil {
		if what != s.what {
			s.bar.Begin(unit(what))
		}
		s.what = what
		s.bar.Set(done, "")
		return
	}
	const every = 5 * time.Second
	if what != s.what {
		s.what, s.last = what, time.Now()
		fmt.Fprintf(s.w, "%s …\n", what)
	} else if time.Since(s.last) >= every {
		s.last = time.Now()
		fmt.Fprintf(s.w, "%d %s\n", done, unit(what))
	}
}

func unit(what string) string {
	if what == "keys checked" {
		return what
	}
	return "bytes " + what
}
