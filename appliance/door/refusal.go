package door

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// refusal is an error that the partner is told: an SFTP status and a text without
// paths of ours.
type refusal struct {
	status error // one of pkg/sftp's statuses
	text   string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.status }

func refuse(status error, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// Statuses that say all by themselves.
var (
	errNoFile  = &refusal{sftp.ErrSSHFxNoSuchFile, "no such file"}
	errDenied  = &refusal{sftp.ErrSSHFxPermissionDenied, "not allowed here"}
	errNotDone = &refusal{sftp.ErrSSHFxOpUnsupported, "the door does not do this"}
	errExists  = &refusal{sftp.ErrSSHFxFailure, "a file of this name is there already"}
	errTaken   = &refusal{sftp.ErrSSHFxFailure, "a newer upload of the same name has begun"}
	errBusy    = &refusal{sftp.ErrSSHFxFailure, "the file is being uploaded"}
	errHandles = &refusal{sftp.ErrSSHFxFailure, "too many files are open: close some"}
	errNoSpace = &refusal{sftp.ErrSSHFxFailure, "the appliance's disk is nearly full: try again later"}
	errQuota   = &refusal{sftp.ErrSSHFxFailure, "quota exceeded: too much is waiting in the inbox; try again when it has been answered"}
)

// tell turns an error of the file system into what a partner may know of it, and
// logs what they may not.
func (t *tree) tell(err error) error {
	var r *refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		return r
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, durable.ErrNotRegular),
		errors.Is(err, fs.ErrInvalid), errors.Is(err, unix.ENAMETOOLONG): // no file can have such a name
		return errNoFile
	case errors.Is(err, fs.ErrExist):
		return errExists
	case errors.Is(err, durable.ErrNoSpace):
		return errNoSpace
	case errors.Is(err, fs.ErrPermission):
		t.sn.srv.quiet.Error().Str("company", t.sn.company).Err(err).Msg("SFTP door may not do this; look at the directories' groups")
		return errDenied
	}
	t.sn.srv.quiet.Error().Str("company", t.sn.company).Err(err).Msg("SFTP door: a file could not be worked on")
	return &refusal{sftp.ErrSSHFxFailure, "the appliance could not do this: try again"}
}
