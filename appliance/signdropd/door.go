package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"signdrop/appliance/door"
)

// doorOptions are the flags of the SFTP door.
type doorOptions struct {
	listen string
	user   string
	child  bool
	keeper *door.Keeper // of serve, made while users can be looked up
	set    door.Settings
}

func (d *doorOptions) flags(f *pflag.FlagSet) {
	d.set = door.DefaultSettings()
	f.StringVar(&d.user, "sftp-user", "10210", "run the SFTP door as this user (NAME, UID or UID:GID), if started as root")
	f.Int64Var(&d.set.MaxBytes, "sftp-quota", d.set.MaxBytes, "bytes that may wait in one company's inbox")
	f.IntVar(&d.set.MaxFiles, "sftp-files", d.set.MaxFiles, "files that may wait in one company's inbox")
	f.Uint64Var(&d.set.Reserve, "sftp-reserve", d.set.Reserve, "take no upload when fewer bytes than this are free")
	f.IntVar(&d.set.MaxConns, "sftp-connections", d.set.MaxConns, "SFTP connections in all")
	f.IntVar(&d.set.MaxCompanyConns, "sftp-company-connections", d.set.MaxCompanyConns, "SFTP connections of one company")
	f.Float64Var(&d.set.SourceRate, "sftp-rate", d.set.SourceRate, "SFTP connections a second of one address, and ten times that at once")
	f.DurationVar(&d.set.Idle, "sftp-idle", d.set.Idle, "close an SFTP connection that asks for nothing for this long")
	f.DurationVar(&d.set.Keep, "sftp-keep", d.set.Keep, "keep an upload that was cut off for this long, to be resumed")
}

// doorCommand is "signdropd door".
func (o *options) doorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "door",
		Short: "let partners reach their directories by SFTP",
		Long: `Door serves SFTP beside a signdropd that answers the requests, as "serve --sftp"
does by itself. Partners log in under their company's name with a key of its
db/companies/NAME/authorized_keys and see /inbox, /outbox and /rejected.

Started as root it runs the part that faces the network as --sftp-user, which can
open neither keys nor requests of others.`,
		Example: "  signdropd door --data /data --listen :10210",
		Args:    noArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if o.door.child {
				return nil
			}
			if err := fromEnvironment(cmd.Flags()); err != nil {
				return usage(cmd, err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return o.runDoor(cmd) },
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "/data", "the data volume")
	f.StringVar(&o.door.listen, "listen", ":10210", "address to listen on")
	o.seal.flags(f)
	f.BoolVar(&o.door.child, "child", false, "be the process that faces the network")
	o.logFlags(f)
	o.door.flags(f)
	if err := f.MarkHidden("child"); err != nil {
		panic(err)
	}
	return c
}

func (o *options) runDoor(cmd *cobra.Command) error {
	log, err := o.logger()
	if err != nil {
		return usage(cmd, err)
	}
	if o.door.child {
		// Signals go to the keeper, which tells us by closing its socket.
		err = door.Child(context.WithoutCancel(cmd.Context()), log)
	} else {
		var k *door.Keeper
		if k, err = o.keeper(log); err != nil {
			return usage(cmd, err)
		}
		if k.Sealer, err = o.sealerOfDoor(log); err == nil {
			err = o.confine(log, true)
		}
		if err == nil {
			err = k.Run(cmd.Context())
		}
	}
	if err != nil {
		log.Error().Err(err).Msg("stopped by an error")
		return statusError
	}
	return nil
}

// keeper makes the keeper that the flags ask for.
func (o *options) keeper(log zerolog.Logger) (*door.Keeper, error) {
	o.door.set.SourceBurst = 10 * o.door.set.SourceRate
	k := &door.Keeper{
		Data: o.data, Listen: o.door.listen, Settings: o.door.set, Log: log, Stderr: os.Stderr,
		// By this name it can be run also where its path is closed to the door's user.
		Program: []string{"/proc/self/exe", "door", "--child", "--log-format", o.logFormat, "--log-level", o.logLevel},
	}
	if err := o.door.set.Check(); err != nil || os.Getuid() != 0 {
		return k, err
	}
	u, err := parseUser(o.door.user)
	k.User = u
	return k, err
}

// parseUser reads NAME, UID or UID:GID. A number needs no entry in /etc/passwd; its
// group is the same number then.
func parseUser(s string) (*door.User, error) {
	uid, gid, both := strings.Cut(s, ":")
	if !both {
		gid = uid
	}
	if u, err := user.Lookup(uid); err == nil && !both {
		uid, gid = u.Uid, u.Gid
	} else if u, err := user.LookupId(uid); err == nil && !both {
		gid = u.Gid
	}
	n, err := strconv.ParseUint(uid, 10, 31)
	g, gerr := strconv.ParseUint(gid, 10, 31)
	if err = errors.Join(err, gerr); err != nil {
		return nil, fmt.Errorf("SFTP user %q: no such user; give NAME, UID or UID:GID", s)
	}
	if n == 0 || g == 0 {
		return nil, fmt.Errorf("SFTP user %q: the door must not run as root or with its group", s)
	}
	return &door.User{UID: int(n), GID: int(g)}, nil
}

// doorAgain is how soon a door that could not be set up is tried again.
const doorAgain = 10 * time.Second

// startDoor runs the door beside the signer, whose work goes on whatever becomes of
// it. stop ends it and waits for that.
func (o *options) startDoor(ctx context.Context, log zerolog.Logger) (stop func()) {
	if o.door.listen == "" {
		return func() {}
	}
	k := o.door.keeper
	k.Sealer = o.cfg.Sealer
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := k.Run(ctx); err != nil {
				log.Error().Err(err).Msg("SFTP door cannot be opened; trying again")
				select {
				case <-ctx.Done():
				case <-time.After(doorAgain):
				}
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
