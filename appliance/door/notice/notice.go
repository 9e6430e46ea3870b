// Package notice describes the file that tells of a door while it is served.
package notice

// File lies in db/appliance while a door is served: what it says is for people and
// for signdrop status, and nothing is decided by it. LockFile, beside it, is what
// the keeper holds an exclusive flock(2) on; without that a notice is a dead
// keeper's.
const (
	File     = "door.json"
	LockFile = "door.lock"
)

// Notice is what File says.
type Notice struct {
	Address     string `json:"address"`     // it listens there, HOST:PORT
	Fingerprint string `json:"fingerprint"` // of the host key, as SHA256:…
	HostKey     string `json:"host_key"`    // as a line of authorized_keys
	PID         int    `json:"pid"`
	UID         int    `json:"uid"`
	OwnUser     bool   `json:"own_user"`    // another user than the keeper's
	Landlock    int    `json:"landlock"`    // the version in force, 0 for none
	KeysClosed  bool   `json:"keys_closed"` // the door has tried and could not open them
	Started     string `json:"started"`     // UTC, RFC 3339
}
