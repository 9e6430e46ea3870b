package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"signdrop/appliance"
	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// status is an exit status that has been explained already.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// The exit statuses.
const (
	statusError   status = 1
	statusUsage   status = 2
	statusRefused status = 3
	statusWaiting status = 4
)

// options are the flags, which are the environment variables too.
type options struct {
	data           string
	plain          bool
	recheck        string
	admins         string // public keys, one a line
	adminThreshold int
	recipients     string // of backups, one a line
	logFormat      string
	logLevel       string
	watch          bool
	cfg            appliance.Config
	seal           sealOptions
	door           doorOptions
}

func command() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "signdropd",
		Short: "answer the requests that lie in the inboxes of a data volume",
		Long: `Signdropd signs the transaction files that partners drop into their inboxes on
a data volume, with the keys that lie there, and puts the answers into their
outboxes. "signdrop init" makes the data volume.

Every flag can be given as an environment variable: --sig-wait is
SIGNDROP_SIG_WAIT. A flag on the command line wins.

Exit status: 0 all is well; 1 an error, told by the last log line; 2 wrong usage;
once also: 3 something was refused; 4 something was left waiting in an inbox.`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(cmd, fmt.Errorf("no such command: %q", args[0]))
			}
			return cmd.Help()
		},
	}
	root.SetFlagErrorFunc(usage)
	serve := &cobra.Command{
		Use:   "serve",
		Short: "watch the inboxes and answer until stopped",
		Long: `Serve answers what comes until it gets SIGTERM or SIGINT; then it finishes what
it has begun and exits with 0. It may be killed at any moment: what it had begun
is finished at the next start.`,
		Example: "  signdropd serve --data /data\n  SIGNDROP_DATA=/data signdropd serve --recheck repeat",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd, true) },
	}
	once := &cobra.Command{
		Use:   "once",
		Short: "answer what is there now, then exit",
		Long: `Once answers the requests that lie in the inboxes and exits. Files that are not
complete are left there; the exit status tells of them.`,
		Example: "  signdropd once --data /media/stick/data --allow-plain-keys",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd, false) },
	}
	for _, c := range []*cobra.Command{serve, once} {
		o.flags(c.Flags())
		c.PreRunE = func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return usage(cmd, err)
			}
			return nil
		}
	}
	serve.Flags().StringVar(&o.door.listen, "sftp", "", "let partners in by SFTP at this address, \":10210\"; none if empty")
	o.door.flags(serve.Flags())
	root.AddCommand(serve, once, (&options{}).sealCommand(), (&options{}).doorCommand(), restoreCommand())
	return root
}

func usage(cmd *cobra.Command, err error) error {
	fmt.Fprintf(os.Stderr, "signdropd: %v (see %s --help)\n", err, cmd.CommandPath())
	return statusUsage
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, fmt.Errorf("%q is not expected here", args[0]))
	}
	return nil
}

func (o *options) flags(f *pflag.FlagSet) {
	c := &o.cfg
	f.StringVar(&o.data, "data", "/data", "the data volume")
	f.BoolVar(&o.plain, "allow-plain-keys", false, "keep keys in the clear although this machine is not under Secure Execution")
	o.seal.flags(f)
	f.StringVar(&o.recheck, "recheck", "verify", "check each signature before it leaves: verify, repeat or off")
	f.IntVar(&c.Workers, "workers", runtime.GOMAXPROCS(0), "requests decided on at once")
	f.DurationVar(&c.Still, "still", time.Minute, "refuse what is wrong when it has not changed for this long")
	f.DurationVar(&c.SigWait, "sig-wait", 15*time.Minute, "refuse a request whose signature has not come for this long")
	f.DurationVar(&c.Rescan, "rescan", 5*time.Second, "walk through the inboxes this often, whatever the kernel tells")
	f.BoolVar(&o.watch, "watch", true, "ask the kernel to tell what comes (inotify)")
	f.IntVar(&c.Group, "group", 128, "put at most this many files on record at once")
	f.Uint64Var(&c.Reserve, "reserve", 64<<20, "claim nothing when fewer bytes than this are free")
	f.DurationVar(&c.ApprovalWait, "approval-wait", 7*24*time.Hour, "refuse an administrators' command when too few have signed it and no signature has come for this long")
	f.StringVar(&o.admins, "admins", "", "set up the volume, if that was not done, with these administrators: public keys, one a line")
	f.IntVar(&o.adminThreshold, "admin-threshold", 0, "with --admins: how many of them a command takes (default 1)")
	f.StringVar(&o.recipients, "backup-recipients", "", "with --admins: whom backups are encrypted to: age recipients, one a line; they stay as they were fixed first")
	o.logFlags(f)
}

func (o *options) logFlags(f *pflag.FlagSet) {
	f.StringVar(&o.logFormat, "log-format", "auto", "json, pretty, or auto: pretty on a terminal")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
}

// fromEnvironment sets the flags that the command line does not.
func fromEnvironment(f *pflag.FlagSet) error {
	var errs []error
	f.VisitAll(func(fl *pflag.Flag) {
		name := "SIGNDROP_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !fl.Changed {
			if err := f.Set(fl.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	})
	return errors.Join(errs...)
}

func (o *options) run(cmd *cobra.Command, serve bool) error {
	log, err := o.logger()
	if err != nil {
		return usage(cmd, err)
	}
	if o.cfg.Recheck, err = keyfs.ParseRecheck(o.recheck); err != nil {
		return usage(cmd, err)
	}
	// None would mean what is usual.
	for name, d := range map[string]time.Duration{
		"still": o.cfg.Still, "sig-wait": o.cfg.SigWait, "approval-wait": o.cfg.ApprovalWait, "rescan": o.cfg.Rescan,
	} {
		if d <= 0 {
			return usage(cmd, fmt.Errorf("--%s %s: give a time above 0, such as 1s", name, d))
		}
	}
	if err := o.seal.check(); err != nil {
		return usage(cmd, err)
	}
	if serve && o.door.listen != "" {
		if o.door.keeper, err = o.keeper(log); err != nil {
			return usage(cmd, err)
		}
	}
	err = o.work(cmd.Context(), log, serve)
	if st := status(0); err == nil || errors.As(err, &st) {
		return err
	}
	log.Error().Err(err).Msg("stopped by an error")
	return statusError
}

// openVolume opens a data volume that is whole: one into which a restore was not
// finished is left alone.
func openVolume(data string) (vol *durable.Disk, root durable.Dir, done func(), err error) {
	if vol, err = durable.OpenDisk(data); err != nil {
		return nil, nil, nil, err
	}
	if root, err = vol.Root(); err != nil {
		vol.Close()
		return nil, nil, nil, err
	}
	done = func() {
		root.Close()
		vol.Close()
	}
	if err = setup.CheckWhole(root); err != nil {
		done()
		return nil, nil, nil, err
	}
	return vol, root, done, nil
}

// work runs the appliance.
func (o *options) work(ctx context.Context, log zerolog.Logger, serve bool) error {
	o.cfg.Log = log
	if err := o.checkPlace(); err != nil {
		return err
	}
	notify, err := dialNotify()
	if err != nil {
		return err
	}
	defer notify.close()
	defer o.seal.close()
	if err := o.seal.read(o.data, log); err != nil {
		return err
	}
	if err := o.found(log); err != nil {
		return err
	}
	vol, root, done, err := openVolume(o.data)
	if err != nil {
		return err
	}
	defer done()
	below, err := os.OpenRoot(o.data)
	if err != nil {
		return err
	}
	defer below.Close()
	o.cfg.Access = setup.OnDisk(below)
	unlock, err := lock(o.data)
	if err != nil {
		return err
	}
	defer unlock()
	if o.cfg.ID, err = setup.ReadAppliance(root); err != nil {
		return err
	}
	fresh, begun, err := setup.TakeNewJournal(root)
	if err != nil {
		return err
	}
	o.cfg.AllowNew = fresh
	if o.watch {
		o.cfg.Watch = o.data
	}
	// A volume that never was in use has no key worth asking before it is sealed.
	if o.cfg.Sealer, err = o.seal.unlock(vol, root, fresh, log); err != nil {
		return err
	}
	o.seal.close()
	if kek := o.cfg.Sealer.KEK(); kek != "" {
		o.cfg.Detail += "; keys sealed under " + kek
	} else if !keyfs.ProtectedGuest() {
		log.Warn().Msg("keys lie in the clear and this machine is not under Secure Execution: whoever can read the disk has the keys")
	}
	// From here on everything that is read may come from a partner.
	if err := o.confine(log, serve && o.door.listen != ""); err != nil {
		return err
	}
	a, err := appliance.Open(vol, o.cfg)
	if err != nil {
		return err
	}
	if fresh {
		if err := begun(); err != nil {
			return errors.Join(err, a.Close())
		}
	}
	log.Info().Str("data", o.data).Str("appliance", o.cfg.ID).Str("recheck", o.recheck).Msg("ready")
	work := a.Once
	if serve {
		work = a.Serve
		stopDoor := o.startDoor(ctx, log)
		defer stopDoor()
	}
	notify.say("READY=1\nSTATUS=answering requests", log)
	context.AfterFunc(ctx, func() { notify.say("STOPPING=1", log) })
	err = work(ctx)
	counts := a.Counts()
	named := 0
	waiting, ignored, lerr := a.Left(func(company, name string) {
		if named++; !serve && named <= mostNamed {
			log.Warn().Str("company", company).Str("name", name).Msg("left waiting in the inbox")
		}
	})
	if cerr := errors.Join(lerr, a.Close()); err == nil {
		err = cerr
	}
	log.Info().Uint64("answered", counts.Answered).Uint64("refused", counts.Refused).Uint64("signatures", counts.Signed).
		Uint64("syncs", counts.Syncs).Int("waiting", waiting).Int("unfinished", ignored).Msg("stopped")
	switch {
	case err != nil || serve:
		return err
	case counts.Stuck > 0:
		return errors.New("some answers could not be published: see the log; they are kept for the next time")
	case counts.Unserved:
		return errors.New("a company could not be served: see the log; what it asked for is kept for the next time")
	case counts.Refused > 0:
		return statusRefused
	case waiting > 0 || counts.Held:
		return statusWaiting
	}
	return nil
}

// mostNamed is how many of the files that it leaves waiting once names.
const mostNamed = 20

// found sets up the volume with the administrators that the command line or, in a
// container without a shell, the environment names. That happens once: others than
// those of the first time are refused, whatever the administrators have changed
// themselves since.
func (o *options) found(log zerolog.Logger) error {
	if o.admins == "" {
		if o.recipients != "" {
			return errors.New("--backup-recipients says nothing without --admins: give the administrators' public keys, or fix the recipients with signdrop init")
		}
		if o.adminThreshold != 0 {
			return errors.New("--admin-threshold says nothing without --admins: give the administrators' public keys")
		}
		return nil
	}
	plan := setup.Plan{Threshold: o.adminThreshold, BackupRecipients: setup.SplitRecipients(o.recipients), KEK: o.seal.kek}
	for line := range strings.Lines(o.admins) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := setup.ReadSigner([]byte(line), fmt.Sprintf("%s-%d", setup.Administrators, len(plan.Admins)+1))
		if err != nil {
			return fmt.Errorf("reading --admins: key %d: %w", len(plan.Admins)+1, err)
		}
		plan.Admins = append(plan.Admins, s)
	}
	if len(plan.Admins) == 0 {
		return errors.New("--admins names nobody: give public keys, one a line, or leave it out")
	}
	report, err := setup.MakeDisk(o.data, plan)
	if err != nil {
		return fmt.Errorf("setting up %s with --admins: %w", o.data, err)
	}
	for _, it := range report.Items {
		switch it.State {
		case setup.Wrong:
			log.Warn().Str("path", it.Path).Str("remedy", it.Note).Msg("the volume is not as it must be")
		case setup.Made, setup.Added:
			log.Info().Str("path", it.Path).Str("note", it.Note).Msg("made")
		}
	}
	return nil
}

// checkPlace sees to it that keys lie in the clear only where nobody can read the
// disk, or where somebody has said that it shall be so.
func (o *options) checkPlace() error {
	protected := keyfs.ProtectedGuest()
	o.cfg.Detail = fmt.Sprintf("secure execution: %t; plain keys allowed by flag: %t", protected, o.plain)
	if protected || o.seal.spec != "" {
		return nil
	}
	if !o.plain {
		return errors.New("this machine is not under IBM Secure Execution, so whoever can read its disk can read the keys: " +
			"run it there, seal the keys (--seal), or accept that with --allow-plain-keys")
	}
	return nil
}

// lock makes sure that no other daemon works on the same volume. The lock ends
// with the process, however that ends.
func lock(data string) (unlock func(), err error) {
	name := filepath.Join(data, "db", "appliance", "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data volume: %w (run signdrop init first)", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: another signdropd works on this volume: stop it first (%w)", name, err)
	}
	return func() { f.Close() }, nil
}

func (o *options) logger() (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(o.logLevel)
	if err != nil || level < zerolog.DebugLevel || level > zerolog.ErrorLevel {
		return zerolog.Logger{}, fmt.Errorf("log level %q: use debug, info, warn or error", o.logLevel)
	}
	zerolog.TimeFieldFormat = time.RFC3339Nano
	var out io.Writer = os.Stderr
	switch o.logFormat {
	case "json":
	case "pretty":
		out = pretty()
	case "auto":
		if term.IsTerminal(int(os.Stderr.Fd())) {
			out = pretty()
		}
	default:
		return zerolog.Logger{}, fmt.Errorf("log format %q: use json, pretty or auto", o.logFormat)
	}
	return zerolog.New(out).Level(level).With().Timestamp().Logger(), nil
}

func pretty() io.Writer {
	return zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly}
}
