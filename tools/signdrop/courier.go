package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"signdrop/tools/signdrop/courier"
)

func newCourier() *cobra.Command {
	c := &carry{}
	cmd := &cobra.Command{
		Use:   "courier --outbox DIR --state DIR --node URL [flags]",
		Short: "Send answers to a Metacoin node, outside the appliance",
		Long: `Send what answers of the appliance say to a Metacoin node, each call once, and
bring the address of a new wallet back: with --inbox and --key as a signed
request that binds it. Run it on a machine that has a network; the appliance
has none.

Answers are checked first as signdrop verify does. What became of each is in
the state directory: keep it as long as the outbox, and use one for each
outbox. Stopped at any moment, it goes on where it was. A call of which nobody
knows whether it was carried out is sent again only if a second copy can do
nothing; otherwise it is uncertain, and you have to look at the ledger.

There is a line for each answer: what became of it, its name and the proof,
with tabs between. What is tried again and why stands on standard error.`,
		Example: `  signdrop courier --outbox ~/acme/outbox --inbox ~/acme/inbox \
      --key ~/.ssh/id_ed25519 --state ~/courier \
      --node https://testnetrest.metacoin.network:20923 --once
  signdrop courier nonce --node https://localhost:20923 MT…`,
		Args:        cobra.NoArgs,
		Annotations: map[string]string{"runs": "yes"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&c.cfg.Outbox, "outbox", "", "the company's outbox, or a copy: a `directory`")
	f.StringVar(&c.cfg.State, "state", "", "`directory` for what was sent; made if it is missing")
	f.StringVar(&c.inbox, "inbox", "", "the company's inbox, for wallet.bind: a `directory`")
	f.StringVar(&c.key, "key", "", "private key `file` that signs wallet.bind, as for submit")
	f.StringVar(&c.cfg.Done, "done", "", "`directory` for answers that are dealt with (default: they stay)")
	f.BoolVar(&c.cfg.Once, "once", false, "end when nothing is left to send")
	f.DurationVar(&c.cfg.RetryFor, "retry-for", 0, "how long to try one call (default 1h with --once, else for ever)")
	f.DurationVar(&c.cfg.Backoff, "backoff", time.Second, "the first wait before trying again; doubles, 64 times at most")
	f.DurationVar(&c.cfg.Settle, "settle", 2*time.Minute, "how long a registration without answer may take effect")
	f.DurationVar(&c.cfg.Poll, "poll", 5*time.Second, "how often to look at the outbox")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "print errors and refusals only")
	nodeFlags(cmd, &c.node)
	for _, dir := range []string{"outbox", "state", "inbox", "done"} {
		markDir(cmd, dir)
	}
	markFile(cmd, "key")
	cmd.AddCommand(newNonce())
	return cmd
}

// nodeFlags are for every command that asks a node.
func nodeFlags(cmd *cobra.Command, o *courier.NodeOptions) {
	f := cmd.Flags()
	f.StringVar(&o.URL, "node", "", "the Metacoin node: an `URL`")
	f.StringVar(&o.Proxy, "proxy", "", "http, https or socks5 proxy: an `URL`")
	f.StringVar(&o.CAFile, "ca", "", "`file` of the certificates (PEM) that may vouch for the node")
	f.DurationVar(&o.Timeout, "timeout", 2*time.Minute, "how long to wait for one answer; a node may take 100s")
	f.BoolVar(&o.InsecureHTTP, "insecure-http", false, "allow a node without TLS on another machine")
	markFile(cmd, "ca", "pem", "crt")
}

// openNode makes the node of the flags.
func openNode(o courier.NodeOptions) (*courier.Node, error) {
	switch {
	case o.URL == "":
		return nil, usagef("say with --node which node to ask")
	case o.Timeout <= 0:
		return nil, usagef("--timeout must be more than 0")
	}
	n, err := courier.NewNode(o)
	if err != nil {
		return nil, &failure{code: exitUsage, err: err}
	}
	return n, nil
}

// carry is one run of the command.
type carry struct {
	cfg        courier.Config
	node       courier.NodeOptions
	inbox, key string
	quiet      bool

	out, errs io.Writer
	bar       *progress
	count     map[courier.Verdict]int
}

func (c *carry) run(cmd *cobra.Command) error {
	switch {
	case c.cfg.Outbox == "":
		return usagef("say with --outbox where the answers are")
	case c.cfg.State == "":
		return usagef("say with --state where to note what was sent")
	case (c.inbox == "") != (c.key == ""):
		return usagef("--inbox and --key belong together: a wallet.bind is signed and dropped")
	case c.cfg.RetryFor < 0 || c.cfg.Backoff <= 0 || c.cfg.Settle < 0 || c.cfg.Poll <= 0:
		return usagef("a time cannot be negative, nor --backoff or --poll be 0")
	}
	if c.cfg.Once && c.cfg.RetryFor == 0 {
		c.cfg.RetryFor = time.Hour
	}
	var err error
	if c.cfg.Node, err = openNode(c.node); err != nil {
		return err
	}
	for flag, dir := range map[string]string{"outbox": c.cfg.Outbox, "inbox": c.inbox, "done": c.cfg.Done} {
		if info, err := os.Stat(dir); dir != "" && (err != nil || !info.IsDir()) {
			return hinted(fmt.Errorf("%s is not a directory", dir), "--"+flag+" takes one that is there")
		}
	}
	if c.inbox != "" {
		signer, err := loadSigner(cmd.Context(), c.key)
		if err != nil {
			return err
		}
		defer signer.close()
		c.cfg.Bind = func(name string, request []byte) error {
			_, err := put(c.inbox, name, request, signer)
			return err
		}
	}
	c.out, c.errs, c.count = cmd.OutOrStdout(), cmd.ErrOrStderr(), map[courier.Verdict]int{}
	c.cfg.Tell = c.tell
	if !c.quiet && isTerminal(c.errs) {
		c.cfg.Progress = c.progress
	}
	// The bar is not touched: this comes in between, from elsewhere.
	defer context.AfterFunc(cmd.Context(), func() {
		complain(c.errs, "ending after the call under way", "a second signal ends it at once; that call is then in doubt")
	})()
	before, err := courier.Run(cmd.Context(), c.cfg)
	c.bar.clear()
	if err != nil {
		return err
	}
	return c.sum(before)
}

// tell prints what became of an answer.
func (c *carry) tell(e courier.Event) {
	c.count[e.Verdict]++
	c.bar.clear()
	if e.Verdict == courier.Trying {
		if !c.quiet {
			complain(c.errs, e.Name+": "+e.Detail, "")
		}
		return
	}
	switch e.Verdict {
	case courier.Sent, courier.Registered, courier.Bound, courier.Passed:
		if c.quiet {
			return
		}
	}
	fmt.Fprintf(c.out, "%s\t%s\t%s\n", e.Verdict, printable(e.Name), printable(e.Detail))
}

func (c *carry) progress(done, total int) {
	if c.bar == nil || c.bar.Total != int64(total) {
		c.bar.clear()
		c.bar = newProgress(c.errs, "calls", int64(total))
	}
	c.bar.set(int64(done), "")
}

// sum says how it went on the whole.
func (c *carry) sum(before int) error {
	n := c.count
	if !c.quiet {
		fmt.Fprintf(c.errs, "%d sent, %d registered, %d bindings asked for, %d dealt with before\n",
			n[courier.Sent], n[courier.Registered], n[courier.Bound], before)
	}
	switch bad := n[courier.Failed] + n[courier.Doubtful]; {
	case bad > 0:
		return &failure{code: exitFailed, err: fmt.Errorf("%s failed or uncertain", plural(bad, "answer")),
			hint: "the lines that begin with failed and uncertain say what to do"}
	case n[courier.NodeSaysNo]+n[courier.Forged] > 0:
		return codedf(exitRefused, "%d refused by the node, %d not to be trusted", n[courier.NodeSaysNo], n[courier.Forged])
	case n[courier.Left] > 0:
		return &failure{code: exitWaiting, err: fmt.Errorf("%s not sent", plural(n[courier.Left], "call")),
			hint: "run the same command again to go on trying; nothing is sent twice that must not be"}
	}
	return nil
}

func newNonce() *cobra.Command {
	var o courier.NodeOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "nonce --node URL [flags] ADDRESS",
		Short: "Ask a node for the nonce of an address",
		Long: `Ask a Metacoin node for the one-time key that the next transaction of an
address must be signed with. It holds until a transaction of that address is
carried out, so only one can be signed ahead.`,
		Example: `  signdrop courier nonce --node https://localhost:20923 MT…
  signdrop request sign --set nonce="$(signdrop courier nonce …)" …`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := openNode(o)
			if err != nil {
				return err
			}
			nonce, err := n.Nonce(cmd.Context(), args[0])
			switch {
			case errors.Is(err, courier.ErrAddress):
				return &failure{code: exitUsage, err: err}
			case err != nil:
				return err
			case asJSON:
				return printJSON(cmd.OutOrStdout(), struct {
					Address string `json:"address"`
					Nonce   string `json:"nonce"`
				}{args[0], nonce})
			}
			fmt.Fprintln(cmd.OutOrStdout(), nonce)
			return nil
		},
	}
	nodeFlags(cmd, &o)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object, for programs")
	return cmd
}
