package setup

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"filippo.io/age"
	"github.com/go-json-experiment/json"

	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// Files of db/appliance.
const (
	applianceFile = "appliance.json"
	newJournal    = "new-journal"
	ageFile       = "identity.age"

	// LockFile is what a running appliance holds an exclusive flock(2) on.
	LockFile = "lock"
)

// identity is appliance.json.
type identity struct {
	ID string `json:"id"`
}

var idForm = regexp.MustCompile(`^SD_[0-9a-f]{16}$`)

// newAppliance draws an id. It tells appliances apart and is no secret.
func newAppliance() ([]byte, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	data, err := json.Marshal(identity{"SD_" + hex.EncodeToString(b[:])})
	return append(data, '\n'), err
}

// ReadAppliance returns the appliance's id.
func ReadAppliance(root durable.Dir) (id string, err error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return "", fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	data, err := durable.ReadFile(d, applianceFile, 4096)
	if err != nil {
		return "", fmt.Errorf("reading db/appliance/%s: %w (restore it from the backup)", applianceFile, err)
	}
	var a identity
	if err := json.Unmarshal(data, &a, json.RejectUnknownMembers(true)); err != nil {
		return "", fmt.Errorf("reading db/appliance/%s: %w (restore it from the backup)", applianceFile, err)
	}
	if !idForm.MatchString(a.ID) {
		return "", fmt.Errorf("reading db/appliance/%s: %q is not an appliance's id (restore it from the backup)", applianceFile, a.ID)
	}
	return a.ID, nil
}

// newIdentity draws the key that requests with secrets are encrypted to (age, X25519).
func newIdentity() (data []byte, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, "", err
	}
	return []byte(id.String() + "\n"), id.Recipient().String(), nil
}

// ReadIdentity returns the key that opens what is encrypted to the appliance. s opens
// it where keys are sealed, nil else.
func ReadIdentity(root durable.Dir, s *seal.Sealer) (*age.X25519Identity, error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return nil, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	data, err := durable.ReadFile(d, ageFile, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading db/appliance/%s: %w (run signdrop init, which makes it where there never was one)", ageFile, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading db/appliance/%s: %w", ageFile, err)
	}
	label := seal.Label{Path: "appliance/" + ageFile}
	if s != nil {
		if label.Public, err = readRecipient(d); err != nil {
			return nil, err
		}
	}
	plain, err := s.Open(data, label)
	if err != nil {
		return nil, fmt.Errorf("db/appliance/%s %w", ageFile, err)
	}
	defer clear(plain)
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(plain)))
	if err != nil {
		// The error could quote the key.
		return nil, fmt.Errorf("db/appliance/%s does not hold an age identity: restore it from the backup", ageFile)
	}
	return id, nil
}

// readRecipient returns the public half of a sealed identity. d is db/appliance.
func readRecipient(d durable.Dir) (string, error) {
	data, err := durable.ReadFile(d, seal.RecipientFile, 4096)
	if err != nil {
		return "", fmt.Errorf("reading db/appliance/%s: %w (restore it from the backup)", seal.RecipientFile, err)
	}
	recipient := strings.TrimSuffix(string(data), "\n")
	if _, err := age.ParseX25519Recipient(recipient); err != nil {
		return "", fmt.Errorf("db/appliance/%s does not hold an age recipient: restore it from the backup", seal.RecipientFile)
	}
	return recipient, nil
}

// recipient returns what is encrypted to, without a key where keys are sealed.
func recipient(root, d durable.Dir) (string, error) {
	info, err := seal.Look(root)
	if err != nil {
		return "", err
	}
	if info != nil {
		return readRecipient(d)
	}
	id, err := ReadIdentity(root, nil)
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), nil
}

// TakeNewJournal reports whether this volume may still begin its journal: true
// from the first Make until done is called, which the appliance does when its
// journal has been opened once. After that an empty journal is one that was
// erased. done makes the answer false for good; it may be called in either case.
func TakeNewJournal(root durable.Dir) (allowed bool, done func() error, err error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return false, nil, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	_, err = d.Stat(newJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return false, func() error { return nil }, nil
	}
	if err != nil {
		return false, nil, err
	}
	return true, func() error { return dropNewJournal(root) }, nil
}

func dropNewJournal(root durable.Dir) error {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Remove(newJournal); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.Sync()
}
