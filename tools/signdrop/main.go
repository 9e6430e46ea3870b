// Command signdrop makes the signing appliance pleasant to use for those around
// it: partners who ask for signatures, operators of a data volume, and auditors.
// Nothing needs it: cp, sftp, ssh-keygen and openssl can do the same.
//
//	signdrop request …          write a request file from flags
//	signdrop preview REQUEST…   say what requests ask for, before they are signed
//	signdrop submit FILE…       sign, drop into the inbox, wait for the answers
//	signdrop verify RESULT…     check answers, offline
//	signdrop courier            send answers to a Metacoin node, outside the appliance
//	signdrop init               make a data volume, or add a company to it
//	signdrop status             what is waiting, working, refused
//	signdrop journal verify     check that no signature is missing from the record
//	signdrop journal list       find any signature that was made
//	signdrop import-walletkms   take over the keys of a walletKMS
//	signdrop contract           make what an IBM confidential machine starts by
//	signdrop attest             check what such a machine says of itself
//
// # Exit codes
//
// See exit.go, or run "signdrop help exit-codes".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

func run() int {
	// The first signal ends the command in good order; a second one, which then
	// finds the default again, ends it at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root, started := newRoot()
	err := root.ExecuteContext(ctx)
	return report(err, *started)
}
