package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/door/notice"
	"signdrop/spool/durable"
)

// report is the first frame that a door sends, as JSON, when it is about to serve.
// It is what the door says of itself.
type report struct {
	Landlock   int
	KeysClosed bool
}

// maxReport bounds a report, in bytes.
const maxReport = 256

func parseReport(data []byte) (r report, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return report{}, errors.New("the door's first word is no report")
	}
	return r, nil
}

// announce writes the notice. A door without one serves as well.
//
// Crash after this: the notice stays, and the lock, which does not, tells that
// nobody serves.
func (k *Keeper) announce(l net.Addr, pid int, r report) {
	uid := os.Getuid()
	if k.User != nil {
		uid = k.User.UID
	}
	key := k.host.PublicKey()
	line := ssh.MarshalAuthorizedKey(key)
	text, err := json.MarshalIndent(notice.Notice{
		Address: l.String(), Fingerprint: ssh.FingerprintSHA256(key), HostKey: string(line[:len(line)-1]),
		PID: pid, UID: uid, OwnUser: k.User != nil, Landlock: r.Landlock, KeysClosed: r.KeysClosed,
		Started: time.Now().UTC().Format(time.RFC3339),
	}, "", "  ")
	if err == nil {
		err = k.inAppliance(func(d durable.Dir) error {
			return durable.ReplaceFile(d, notice.File, 0o644, append(text, '\n'))
		})
	}
	k.complain("", notice.File, "SFTP door: db/appliance/"+notice.File+" cannot be written; signdrop status does not see the door", err)
}

// withdraw removes the notice.
func (k *Keeper) withdraw() {
	err := k.inAppliance(func(d durable.Dir) error {
		err := d.Remove(notice.File)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		k.Log.Error().Err(err).Msg("SFTP door: removing db/appliance/" + notice.File)
	}
}

func (k *Keeper) inAppliance(f func(durable.Dir) error) error {
	d, err := durable.SubPath(k.root, "db", "appliance")
	if err != nil {
		return fmt.Errorf("opening db/appliance: %w", err)
	}
	defer d.Close()
	return f(d)
}
