package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/rs/zerolog"

	"signdrop/appliance/harden"
)

// confine shuts the process in and says what came of it.
func (o *options) confine(log zerolog.Logger, door bool) error {
	locked, why := harden.LockMemory()
	landlock, err := harden.Confine(harden.Needs{Data: o.data, Door: door})
	if err != nil {
		return fmt.Errorf("shutting the process in: %w", err)
	}
	ev := log.Info().Bool("core_dumps", false).Bool("traceable", false).Bool("no_new_privileges", true).
		Bool("memory_locked", locked).Int("landlock", landlock)
	if !locked {
		ev = ev.Str("not_locked", why)
	}
	ev.Msg("what is enforced")
	if landlock == 0 {
		log.Warn().Msg("the kernel has no Landlock of version 2 or later: nothing but its user keeps this process out of files beside the data volume")
	}
	return nil
}

// notifier tells systemd how we are (sd_notify(3)). A nil one tells nobody.
type notifier struct{ conn net.Conn }

// dialNotify connects to the socket that systemd names, while we may still open it. It
// returns nil where nobody wants to know.
func dialNotify() (*notifier, error) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil, nil
	}
	if name[0] != '/' && name[0] != '@' {
		return nil, errors.New("NOTIFY_SOCKET is neither a path nor an abstract name: start this with Type=notify, or unset it")
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("connecting to NOTIFY_SOCKET: %w (the unit needs RestrictAddressFamilies=AF_UNIX)", err)
	}
	return &notifier{conn}, nil
}

// say sends a state. That it did not arrive is no reason to stop: systemd stops what
// does not get ready.
func (n *notifier) say(state string, log zerolog.Logger) {
	if n == nil {
		return
	}
	if _, err := n.conn.Write([]byte(state)); err != nil {
		log.Warn().Err(err).Msg("telling systemd")
	}
}

func (n *notifier) close() {
	if n != nil {
		n.conn.Close()
	}
}
