package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"signdrop/appliance/setup"
	"signdrop/keyfs/seal"
)

// maxKeyFile bounds a public key file, in bytes.
const maxKeyFile = 16 << 10

func newInit() *cobra.Command {
	var (
		data, company, group, runAs string
		sealed                      string
		admins, signers             []string
		recipients                  []string
		threshold                   int
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a data volume, or add a company or a key to it",
		Long: `Make the tree of a data volume. Where it exists already, only what is missing
is made: nothing is ever changed, except that a signer's key which is not listed
yet is added to its list. So init also adds a company or a signer.

The administrators are set once, with the first --admin; after that only they
themselves change who they are, by a command. The recipient that is printed is
what requests with secrets (wallet.import, datakey.create, decrypt) are
encrypted to.

Backups are encrypted to the recipients that the first --backup-recipient names
("signdrop custodians" makes one whose key nobody has alone). They stay.

Keys are public keys: OpenSSH lines (the .pub file) or PEM. A key is named by
its comment, or else by its file; the journal names who asked by that.

A company's partner that comes by SFTP has a group of its own: with --group
its inbox, outbox and rejected are writable for that group, and spool/COMPANY
can be the ChrootDirectory of sshd (root must have made it).

Everything is on disk for good when the table is printed.`,
		Example: `  signdrop init --data /data --admin ann.pub --admin bob.pub --threshold 2
  signdrop init --data /data --company acme --signer acme.pub --group sftp-acme`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan := setup.Plan{Company: company, Threshold: threshold, BackupRecipients: recipients}
			if cmd.Flags().Changed("threshold") && threshold < 1 {
				return usagef("--threshold %d makes no sense: use 1 or more", threshold)
			}
			var err error
			if plan.Admins, err = readSigners(admins, setup.Administrators); err != nil {
				return err
			}
			if plan.Signers, err = readSigners(signers, company); err != nil {
				return err
			}
			if group != "" {
				if plan.Group, err = groupID(group); err != nil {
					return err
				}
			}
			if runAs != "" {
				if plan.User, err = userID(runAs); err != nil {
					return err
				}
			}
			if sealed != "" {
				kek, err := newVolumeKEK(cmd, sealed, data)
				if err != nil {
					return err
				}
				defer kek.Close()
				plan.KEK = kek
			}
			report, err := setup.MakeDisk(data, plan)
			if err != nil {
				return fmt.Errorf("setting up %s: %w", data, err)
			}
			return printReport(cmd.OutOrStdout(), data, sealed, plan, report)
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "/data", "the data volume's `directory`; made if it does not exist")
	f.StringArrayVar(&admins, "admin", nil, "public key `file` of an administrator; may be repeated")
	f.IntVar(&threshold, "threshold", 0, "how many (`K`) administrators a command takes (default 1)")
	f.StringArrayVar(&recipients, "backup-recipient", nil, "age `recipient` (age1…) that backups are encrypted to; may be repeated")
	f.StringVar(&company, "company", "", "`name` of the company to serve: a-z, 0-9 and -")
	f.StringArrayVar(&signers, "signer", nil, "public key `file` of a signer of the company; may be repeated")
	f.StringVar(&group, "group", "", "`group`, by name or id, that may write into the company's spool")
	f.StringVar(&runAs, "user", "", "`user`, by name or id, that signdropd runs as (default: who owns the volume)")
	f.StringVar(&sealed, "seal", "", "keep the keys of a new volume sealed under the key-encryption key at `SPEC`: file:PATH, fd:N, credential:NAME or pkcs11:URI")
	markDir(cmd, "data")
	markFile(cmd, "admin", "pub", "pem")
	markFile(cmd, "signer", "pub", "pem")
	return cmd
}

// newVolumeKEK reads the key-encryption key for a volume that is new, or that is sealed
// under it already.
func newVolumeKEK(cmd *cobra.Command, spec, data string) (seal.KEK, error) {
	kek, err := seal.ReadKEK(spec, data)
	if err != nil {
		return nil, err
	}
	if kek.SameDisk {
		fmt.Fprintln(cmd.ErrOrStderr(), "signdrop: note: the key-encryption key lies on the same file system as the data volume: whoever has that disk has both")
	}
	if _, err := os.Stat(filepath.Join(data, "db", "appliance")); errors.Is(err, fs.ErrNotExist) {
		return kek, nil
	}
	_, err = os.Stat(filepath.Join(data, "db", "appliance", seal.RingFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = hinted(errors.New("--seal is for a new volume, and the keys of this one lie in the clear"), "seal them with signdropd seal")
	}
	if err != nil {
		kek.Close()
		return nil, err
	}
	return kek, nil
}

// readSigners reads public key files. A key that has no comment is named by its
// file, or else by fallback.
func readSigners(files []string, fallback string) ([]setup.Signer, error) {
	var signers []setup.Signer
	for _, file := range files {
		data, err := readSmall(file, maxKeyFile)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".pem"), ".pub")
		s, err := setup.ReadSigner(data, name, fallback)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// readSmall reads a file that is given on the command line and small by its kind.
func readSmall(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes: this is not the file that is wanted here", file, most)
	}
	return data, nil
}

func groupID(name string) (*int, error) {
	id, err := strconv.Atoi(name)
	if err != nil {
		g, err := user.LookupGroup(name)
		if err != nil {
			return nil, fmt.Errorf("there is no group %s on this machine: make it (groupadd %s), or give its id", name, name)
		}
		if id, err = strconv.Atoi(g.Gid); err != nil {
			return nil, err
		}
	}
	return &id, checkID(id, "group")
}

func userID(name string) (*int, error) {
	id, err := strconv.Atoi(name)
	if err != nil {
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("there is no user %s on this machine: make it (useradd --system %s), or give its id", name, name)
		}
		if id, err = strconv.Atoi(u.Uid); err != nil {
			return nil, err
		}
	}
	return &id, checkID(id, "user")
}

func checkID(id int, what string) error {
	if id < 0 {
		return usagef("%d is not the id of a %s", id, what)
	}
	return nil
}

func printReport(w io.Writer, data, sealed string, plan setup.Plan, r *setup.Report) error {
	t := newTable(w, "PATH", "STATE", "")
	for _, it := range r.Items {
		t.row(filepath.Join(data, it.Path), string(it.State), it.Note)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if r.Wrong() {
		return errors.New("the volume is not as it must be: see the lines that say wrong")
	}
	// What sshd wants cannot be had without being root, and is not wanted by all.
	if info, err := os.Stat(filepath.Join(data, "spool")); plan.Group != nil && err == nil && ownerOf(info) != 0 {
		fmt.Fprintf(w, "\nnote: %s is not root's, so sshd will not take it as a ChrootDirectory\n",
			filepath.Join(data, "spool", plan.Company))
	}
	fmt.Fprintf(w, "\nrecipient: %s (encrypt requests with secrets to it: age -r RECIPIENT)\n", r.Recipient)
	next := "signdropd serve --data " + data
	if sealed != "" {
		next += " --seal " + sealed
	}
	if plan.Company == "" && !anyCompany(data) {
		next = "signdrop init --data " + data + " --company NAME --signer KEY.pub"
	}
	_, err := fmt.Fprintf(w, "\nnext: %s\n", next)
	return err
}

// anyCompany reports whether the volume serves a company already.
func anyCompany(data string) bool {
	list, err := fs.ReadDir(os.DirFS(data), "db/companies")
	return err == nil && len(list) > 0
}
