package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"signdrop/tools/signdrop/contract"
)

func newContract() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "contract SETTINGS",
		Short: "Make the contract of an IBM confidential machine",
		Long: `Make the contract by which IBM's Confidential Computing Container Runtime (or
Hyper Protect Virtual Servers 2.x) starts a machine with the appliance in it:
both sections, encrypted for that machine and signed, as the files user-data,
meta-data and vendor-data of a cloud-init ISO.

SETTINGS is a YAML or JSON file; docs/formats.md describes it and
deploy/contract/settings.yaml is an example. Secrets stand in files that it
names. A volume's seed whose file is missing is drawn. Without both seeds
nobody can open the volume again: keep them, apart from each other.

Keep the directory too: signdrop attest compares the machine with it.`,
		Example: `  signdrop contract settings.yaml --out cidata
  xorriso -as mkisofs -volid cidata -joliet -rock -output cidata.iso cidata`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := contract.Make(args[0], time.Now())
			if err != nil {
				return err
			}
			if err := m.Write(out); err != nil {
				return fmt.Errorf("writing the contract: %w", err)
			}
			t := newTable(cmd.OutOrStdout())
			for _, l := range m.Sums() {
				t.row(l.Name, l.Sum)
			}
			t.row("certificate", "until "+m.Expires.UTC().Format(time.DateOnly))
			for _, file := range m.NewSeeds {
				t.row("new seed", file)
			}
			t.row("written", out)
			return t.flush()
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "cidata", "`directory` to make")
	return cmd
}

func newAttest() *cobra.Command {
	var cidata, certificate, issuer string
	cmd := &cobra.Command{
		Use:   "attest RECORD",
		Short: "Check the attestation record of an IBM confidential machine",
		Long: `Check that the record of a machine was signed by the key of the attestation
certificate, which only IBM's image has, and that the machine was started by the
contract that "signdrop contract" has made, and no other.

RECORD is the directory with se-checksums.txt and se-signature.bin, which the
machine has in /var/hyperprotect. Lines that are not ours (root.tar.gz,
baseimage) are printed: compare them with what IBM publishes for the image. The
certificates are taken as given: check them first as IBM describes.

Exit code 3: the record is not genuine, or not of this contract.`,
		Example: `  signdrop attest --contract cidata --certificate attest.crt --issuer ibm.crt record`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if certificate == "" {
				return usagef("--certificate is missing: give IBM's attestation certificate of the image")
			}
			lines, notes, err := contract.Attest(args[0], cidata, certificate, issuer, time.Now())
			var m *contract.Mismatch
			if errors.As(err, &m) {
				return &failure{code: exitRefused, err: err, hint: "do not trust this machine with anything"}
			}
			if err != nil {
				return err
			}
			for _, n := range notes {
				fmt.Fprintln(cmd.OutOrStdout(), printable(n))
			}
			t := newTable(cmd.OutOrStdout())
			for _, l := range lines {
				verdict := "compare"
				if l.Ours {
					verdict = "ours"
				}
				t.row(l.Name, verdict, l.Sum)
			}
			return t.flush()
		},
	}
	f := cmd.Flags()
	f.StringVar(&cidata, "contract", "cidata", "`directory` that signdrop contract has made")
	f.StringVar(&certificate, "certificate", "", "IBM's attestation certificate, a `file`")
	f.StringVar(&issuer, "issuer", "", "`file` of the certificate that must have issued it")
	markDir(cmd, "contract")
	markFile(cmd, "certificate", "crt", "pem")
	markFile(cmd, "issuer", "crt", "pem")
	return cmd
}
