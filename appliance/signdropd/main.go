// Signdropd is the signing daemon: it answers the requests that lie in the
// inboxes of a data volume, until it is stopped (serve) or until none is left
// (once).
//
// The exit status is 0 when all is well; 1 for an error, of which the last log
// line tells; 2 for wrong usage; and from once, 3 if something was refused and 4
// if something was left waiting in an inbox.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"signdrop/appliance"
	"signdrop/appliance/harden"
)

func main() {
	if err := harden.Renounce(); err != nil {
		fmt.Fprintln(os.Stderr, "signdropd: giving up rights:", err)
		os.Exit(int(statusError))
	}
	// Modes are given as they are meant; what is for a partner's group must not
	// be taken from it by the umask of whoever starts us.
	syscall.Umask(0o007)
	appliance.SetMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := command().ExecuteContext(ctx)
	var st status
	switch {
	case err == nil:
	case errors.As(err, &st):
		os.Exit(int(st))
	default:
		fmt.Fprintln(os.Stderr, "signdropd:", err)
		os.Exit(1)
	}
}
