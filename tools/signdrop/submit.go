package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

func newSubmit() *cobra.Command {
	s := &submit{}
	cmd := &cobra.Command{
		Use:   "submit --spool PLACE --key KEY [flags] FILE…",
		Short: "Sign requests, drop them into the inbox, wait for answers",
		Long: `Sign each request file and drop it, with its signature, into the inbox. PLACE is
the company's own directory, which has inbox, outbox and rejected in it, or
where SFTP leads to it: sftp://COMPANY@HOST[:PORT][/PATH], with port 10210
unless another is given.

KEY is an OpenSSH or PEM private key; its passphrase is asked for. With a .pub
file for KEY the ssh-agent signs, which is also the way for a FIDO key.

Doing it again is safe: a request that waits is not dropped a second time, and
one that was answered or refused for good gets the verdict that it has.
Nothing is dropped if a name among the files cannot be a request's.

With --wait the command ends when all are answered. Where the output is not a
terminal there is a line for each file: its verdict, its name and the file
that says so, with tabs between. Reasons go to standard error. Files that an
answer has beside it are read and compared with it. With --get the answers are
saved to a directory, an answer after its files; nothing is overwritten.

By SFTP the key that signs logs in too, or one of the ssh-agent, unless
--identity names another. The host's key must be in --known-hosts; one that is
not is refused and its fingerprint shown. Compare that with what the operators
have told you, then add --accept-new-host once. A connection that is lost is
made again, and what was being uploaded is uploaded again.`,
		Example: `  signdrop submit --spool ~/acme --key ~/.ssh/id_ed25519 --wait pay.json
  signdrop submit --spool sftp://acme@signer.example --key acme --wait pay.json
  signdrop submit --spool . --key acme.pub --wait --timeout 10m 'run/*.json'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return s.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringVar(&s.dir, "spool", "", "the company's `place`: a directory with inbox, outbox and rejected, or sftp://…")
	f.StringVar(&s.key, "key", "", "private key `file`, or .pub file for a key in the ssh-agent")
	f.StringVar(&s.name, "name", "", "the file's `name` in the inbox (default: its own); for one file")
	f.BoolVar(&s.wait, "wait", false, "wait for the answers")
	f.DurationVar(&s.timeout, "timeout", time.Minute, "how long to wait, such as 90s or 2h; 0 for ever")
	f.StringVar(&s.get, "get", "", "with --wait: save the answers to a `directory`")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "print errors and refusals only")
	f.StringVar(&s.identity, "identity", "", "SFTP: key `file` to log in with, as for --key (default: that key, or the ssh-agent's)")
	f.StringVar(&s.hosts, "known-hosts", "", "SFTP: `file` of the hosts' keys (default ~/.ssh/known_hosts)")
	f.BoolVar(&s.acceptNew, "accept-new-host", false, "SFTP: store the key of a host that is not known")
	markDir(cmd, "spool")
	markDir(cmd, "get")
	markFile(cmd, "key")
	markFile(cmd, "identity")
	markFile(cmd, "known-hosts")
	return cmd
}

// submit is one run of the command.
type submit struct {
	dir, key, name string
	get            string
	wait, quiet    bool
	timeout        time.Duration

	identity, hosts string // for SFTP
	acceptNew       bool

	site      site
	out, errs *os.File
	lines     bool // print a line for each file
	bar       *progress

	parcels                           []*parcel
	answered, refused, failed, parted int // of the parcels; parted: dropped, and not waited for
}

// verdict is what became of a parcel.
type verdict string

// The verdicts, as they are printed.
const (
	pending  verdict = "" // not known yet
	dropped  verdict = "dropped"
	answered verdict = "answered"
	refused  verdict = "refused"
	waiting  verdict = "waiting"
	failed   verdict = "failed"
)

// fewFiles is how many files may have a line each on a terminal.
const fewFiles = 20

func (s *submit) run(cmd *cobra.Command, args []string) error {
	switch {
	case s.dir == "":
		return usagef("say with --spool where the inbox is")
	case s.key == "":
		return usagef("say with --key who signs")
	case s.get != "" && !s.wait:
		return usagef("--get goes with --wait")
	case s.timeout < 0:
		return usagef("--timeout cannot be negative")
	}
	if s.get != "" {
		if info, err := os.Stat(s.get); errors.Is(err, fs.ErrNotExist) {
			return hinted(fmt.Errorf("--get %s: there is no such directory", s.get), "make it first; nothing was dropped")
		} else if err != nil {
			return err
		} else if !info.IsDir() {
			return usagef("--get %s: this is not a directory", s.get)
		}
	}
	s.out, s.errs = os.Stdout, os.Stderr
	sftp := strings.HasPrefix(s.dir, "sftp:")
	var to address
	if sftp {
		var err error
		if to, err = parseAddress(s.dir); err != nil {
			return &failure{code: exitUsage, err: err}
		}
	} else if s.identity != "" || s.hosts != "" || s.acceptNew {
		return usagef("--identity, --known-hosts and --accept-new-host are for --spool sftp://…")
	}
	if err := s.collect(args); err != nil {
		return err
	}
	if !sftp {
		var err error
		if s.site, err = openDirectory(s.dir); err != nil {
			return err
		}
	}
	signer, err := loadSigner(cmd.Context(), s.key)
	if err != nil {
		return err
	}
	defer signer.close()
	if sftp {
		who := signer
		if s.identity != "" {
			if who, err = loadSigner(cmd.Context(), s.identity); err != nil {
				return err
			}
			defer who.close()
		}
		if s.site, err = s.connect(cmd.Context(), to, who.key); err != nil {
			return err
		}
	}
	defer s.site.close()
	rejected, err := snapshot(s.site, s.parcels)
	if err != nil {
		return err
	}

	s.lines = !s.quiet && (!isTerminal(s.out) || len(s.parcels) <= fewFiles)
	if !s.quiet {
		s.bar = newProgress(s.errs, "files dropped", int64(len(s.parcels)))
		defer s.bar.clear()
	}
	ctx := cmd.Context()
	s.dropAll(ctx, signer, rejected)
	if s.wait {
		if s.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, s.timeout)
			defer cancel()
		}
		if err := s.await(ctx, rejected); err != nil {
			return err
		}
	}
	s.bar.clear()
	return s.sum()
}

// collect makes the parcels, and refuses what could never be accepted.
func (s *submit) collect(args []string) error {
	files, err := expand(args)
	if err != nil {
		return err
	}
	if s.name != "" && len(files) != 1 {
		return usagef("--name is for one file and there are %d", len(files))
	}
	taken := map[string]string{}
	for _, file := range files {
		p := &parcel{file: file, name: filepath.Base(file)}
		if s.name != "" {
			p.name = s.name
		}
		if err := checkName(p.name); err != nil {
			return fmt.Errorf("%s: %w; nothing was dropped", file, err)
		}
		if other, twice := taken[p.name]; twice {
			return fmt.Errorf("%s and %s would have the same name in the inbox; nothing was dropped", other, file)
		}
		taken[p.name] = file
		s.parcels = append(s.parcels, p)
	}
	return nil
}

// expand resolves patterns, for shells that do not and for more files than fit on
// a command line. A file that exists is itself, whatever its name.
func expand(args []string) ([]string, error) {
	var files []string
	for _, a := range args {
		if _, err := os.Lstat(a); err == nil || !strings.ContainsAny(a, "*?[") {
			files = append(files, a)
			continue
		}
		list, err := filepath.Glob(a)
		if err != nil {
			return nil, usagef("%s is not a pattern: %v", a, err)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("no file matches %s", a)
		}
		files = append(files, list...)
	}
	return files, nil
}

// connect opens the site at an address.
func (s *submit) connect(ctx context.Context, to address, key ssh.Signer) (site, error) {
	hosts := s.hosts
	if hosts == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, hinted(fmt.Errorf("looking for the known hosts: %w", err), "say with --known-hosts where they are")
		}
		hosts = filepath.Join(home, ".ssh", "known_hosts")
	}
	say := func(text string) {
		if !s.quiet {
			complain(s.errs, text, "")
		}
	}
	return openRemote(ctx, to, &login{key: key, agent: s.identity == "", hosts: hosts, acceptNew: s.acceptNew, say: say}, say)
}

// settle notes and prints what became of a parcel.
func (s *submit) settle(p *parcel, v verdict, path string) {
	p.verdict = v
	switch v {
	case answered:
		s.answered++
		if p.refusals > 0 {
			s.refused++
		}
	case refused:
		s.refused++
	case failed:
		s.failed++
	case dropped, waiting:
		s.parted++
	}
	if s.lines {
		s.bar.clear()
		line := string(v) + "\t" + p.name
		if path != "" {
			line += "\t" + path
		}
		fmt.Fprintln(s.out, line)
	}
}

// complain prints what concerns one file.
func (s *submit) complain(name, text, hint string) {
	s.bar.clear()
	complain(s.errs, name+": "+text, hint)
}

// sum says how it went on the whole.
func (s *submit) sum() error {
	n := len(s.parcels)
	switch {
	case s.failed > 0:
		return codedf(exitFailed, "%d of %s could not be dropped", s.failed, plural(n, "file"))
	case s.refused > 0:
		return codedf(exitRefused, "%d of %s refused, in whole or in part", s.refused, plural(n, "file"))
	case s.wait && s.parted > 0:
		return &failure{code: exitWaiting, err: fmt.Errorf("%d of %s not answered yet", s.parted, plural(n, "file")),
			hint: "run the same command again to go on waiting; nothing is dropped twice"}
	}
	if !s.quiet && !s.lines {
		what := "answered"
		if !s.wait {
			what = "dropped"
		}
		fmt.Fprintf(s.errs, "%s %s\n", plural(n, "file"), what)
	}
	return nil
}
