package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"signdrop/appliance/backup"
	"signdrop/appliance/backup/custody"
	"signdrop/appliance/request"
	"signdrop/spool/durable"
)

func newRequestBackup() *cobra.Command {
	var f form
	var since string
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Have a backup made (administrators)",
		Long: `Write the administrators' command for a backup of the whole volume or, with
--since, of what has changed since another backup. Sign it with "signdrop
approve". The backup comes into the administrators' outbox, encrypted to the
recipients that were fixed with "signdrop init --backup-recipient".

The same bytes get the same answer and no second backup: without --reference
the command has a time in it.`,
		Example: `  signdrop request backup -o full.json
  signdrop request backup --since B_… -o more.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since != "" && !backup.ValidID(since) {
				return usagef("--since %s is not the id of a backup: B_ and 30 hexadecimal digits, as its answer says", since)
			}
			if f.reference == "" {
				f.reference = time.Now().UTC().Format(time.RFC3339)
			}
			if err := f.begin(request.Backup); err != nil {
				return err
			}
			f.add("since", since)
			return f.write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "`id` of the backup that this one continues, B_…")
	f.flags(cmd)
	return cmd
}

func newRequestRestoreAccept() *cobra.Command {
	var f form
	var restore string
	cmd := &cobra.Command{
		Use:   "restore-accept --restore R_…",
		Short: "Let companies be served after a restore (administrators)",
		Long: `Write the administrators' command by which companies are served again after
"signdropd restore", which prints the id; the appliance's log tells it too. What
to look at before stands in docs/operations.md.`,
		Example: `  signdrop request restore-accept --restore R_… -o accept.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needed(cmd, "restore"); err != nil {
				return err
			}
			if err := f.begin(request.RestoreAccept); err != nil {
				return err
			}
			f.add("restore", restore)
			return f.write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&restore, "restore", "", "`id` of the restore")
	f.flags(cmd)
	return cmd
}

func newCustodians() *cobra.Command {
	var (
		custodians []string
		needed     int
		output     string
	)
	cmd := &cobra.Command{
		Use:   "custodians --needed K --custodian age1… --custodian age1… -o DIR",
		Short: "Share the key of the backups among custodians",
		Long: `Make a key that opens backups and share it among custodians, so that any K of
them open a backup together and fewer can do nothing. Each custodian gives an age
recipient (age-keygen prints one) and gets the file share-N.age of DIR, in order.
The recipient is printed, for "signdrop init --backup-recipient".

The key itself is written nowhere. Run this on a machine that you trust for a
moment, without a network if you can, and have the custodians try their files
(age -d -i KEY share-1.age) before the recipient is used.`,
		Example: `  signdrop custodians --needed 2 --custodian age1… --custodian age1… \
      --custodian age1… -o shares`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if needed < 2 || len(custodians) < needed {
				return usagef("%d of %d custodians make no sense: need 2 or more, and not more than there are", needed, len(custodians))
			}
			if output == "" {
				return usagef("give a new directory for the shares with -o")
			}
			var to []age.Recipient
			seen := map[string]bool{}
			for i, text := range custodians {
				list, err := age.ParseRecipients(strings.NewReader(text + "\n"))
				if err != nil || len(list) != 1 { // not quoted: it may be a secret key
					return usagef("custodian %d is not an age recipient: give what age-keygen prints as public key, age1…", i+1)
				}
				if seen[text] {
					return usagef("custodian %d is given twice: each needs a key of their own", i+1)
				}
				seen[text] = true
				to = append(to, list[0])
			}
			recipient, files, err := custody.Make(needed, to)
			if err != nil {
				return err
			}
			if err := os.Mkdir(output, 0o700); errors.Is(err, fs.ErrExist) {
				return hinted(fmt.Errorf("%s exists", output), "give a new directory: shares of two splits must not be mixed")
			} else if err != nil {
				return err
			}
			for i, data := range files {
				name := filepath.Join(output, fmt.Sprintf("share-%d.age", i+1))
				if err := durable.WriteFileNew(name, data, 0o600); err != nil {
					return fmt.Errorf("writing the shares: %w (remove %s, the shares that were written are of no use)", err, output)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s\tfor %s\n", name, custodians[i])
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), recipient)
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&needed, "needed", 2, "how many (`K`) custodians open a backup")
	f.StringArrayVar(&custodians, "custodian", nil, "age `recipient` of a custodian; repeated")
	f.StringVarP(&output, "output", "o", "", "new `directory` for the shares")
	markDir(cmd, "output")
	return cmd
}
