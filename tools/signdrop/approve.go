package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"signdrop/appliance/answer"
	"signdrop/appliance/auth"
	"signdrop/spool"
	"signdrop/spool/durable"
)

func newApprove() *cobra.Command {
	a := &approve{}
	cmd := &cobra.Command{
		Use:   "approve --spool DIR --key KEY [flags] FILE",
		Short: "Sign an administrators' command, and drop it if it is new",
		Long: `Sign a command file as an administrator and put the signature into the
administrators' inbox, and the file too if it does not lie there yet. DIR is the
administrators' own directory, spool/admin, with inbox, outbox and rejected.

A command takes as many administrators as the appliance's threshold says, and
each runs this with the same file. What it asks for is printed before anything is
signed. With --consent it is a company's signer who agrees to a change of the
company.

KEY is as for submit. The signature lies in the inbox as FILE.LABEL.sig; the label
follows from the key.

With --wait it waits for the answer and prints it, and tells meanwhile who is
missing or, of a backup, how far it is. When the time is over (--timeout) it ends
with code 4 and changes nothing: the command goes on waiting.`,
		Example: `  signdrop approve --spool /data/spool/admin --key ~/.ssh/ann beta.json
  signdrop approve --spool . --key acme.pub --consent update.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&a.dir, "spool", "", "the administrators' `directory`, with inbox, outbox and rejected")
	f.StringVar(&a.key, "key", "", "private key `file`, or .pub file for a key in the ssh-agent")
	f.BoolVar(&a.consent, "consent", false, "agree as a signer of the company that the command changes")
	f.BoolVar(&a.wait, "wait", false, "wait for the answer")
	f.DurationVar(&a.timeout, "timeout", 0, "with --wait: how long (`duration`) to wait; 0 for ever")
	markDir(cmd, "spool")
	markFile(cmd, "key")
	return cmd
}

type approve struct {
	dir, key string
	consent  bool
	wait     bool
	timeout  time.Duration
}

func (a *approve) run(cmd *cobra.Command, file string) error {
	if a.dir == "" || a.key == "" {
		return usagef("--spool and --key are needed")
	}
	name := filepath.Base(file)
	if err := checkName(name); err != nil {
		return err
	}
	p := &parcel{file: file, name: name}
	data, err := p.load()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	inbox := filepath.Join(a.dir, "inbox")
	request := filepath.Join(inbox, name)
	there, err := os.ReadFile(request)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && !bytes.Equal(there, data) {
		return fmt.Errorf("another command waits in the inbox under the name %s: look at it, or rename yours", name)
	}
	waits := err == nil
	if _, err := os.Lstat(filepath.Join(a.dir, "outbox", spool.AnswerName(name))); err == nil {
		return fmt.Errorf("the answer to a command of this name lies in the outbox: take it away, or rename yours")
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s\n", bytes.TrimSpace(data))

	signer, err := loadSigner(cmd.Context(), a.key)
	if err != nil {
		return err
	}
	defer signer.close()
	namespace := auth.NamespaceAdmin
	if a.consent {
		namespace = auth.NamespaceApprove
	}
	sig, err := auth.SignFile(data, signer.key, namespace)
	if err != nil {
		return err
	}
	old, err := a.reasons(name)
	if err != nil {
		return err
	}
	// The signature first, as submit does.
	path := request + "." + label(signer.key.PublicKey()) + spool.SigSuffix
	err = durable.WriteFileNew(path, sig, inboxMode)
	if errors.Is(err, fs.ErrExist) {
		err = nil // ours: its name follows from the key
	}
	if err == nil && !waits {
		err = durable.WriteFileNew(request, data, inboxMode)
	}
	if err != nil {
		return err
	}
	verb := "dropped"
	if waits {
		verb = "approved"
	}
	fmt.Fprintf(out, "%s\t%s\t%s\n", verb, name, filepath.Base(path))
	if !a.wait {
		a.tell(cmd, name)
		return nil
	}
	return a.await(cmd, name, data, old)
}

// tell says who was missing when the appliance looked last.
func (a *approve) tell(cmd *cobra.Command, name string) {
	data, err := os.ReadFile(filepath.Join(a.dir, "outbox", spool.StatusName(name)))
	if err != nil {
		return
	}
	if st, err := answer.ParseStatus(data); err == nil {
		for _, m := range st.Missing {
			fmt.Fprintf(cmd.ErrOrStderr(), "before this, it lacked %s\n", m)
		}
	}
}

var notLabel = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// label names the signatures of a key: the same key makes the same file name.
func label(key ssh.PublicKey) string {
	print := ssh.FingerprintSHA256(key)
	return notLabel.ReplaceAllString(print[len("SHA256:"):], "-")[:16]
}
