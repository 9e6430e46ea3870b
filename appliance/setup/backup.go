package setup

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/go-json-experiment/json"

	"signdrop/spool/durable"
)

// Files of db/appliance that have to do with backups.
const (
	recipientsFile = "backup-recipients"
	restoredFile   = "restored.json"
	acceptedFile   = "restore-accepted"
)

// RestoringDir lies at the top of a volume as long as a restore is under way. With it
// the volume is of no use to anybody.
const RestoringDir = "restoring"

// ErrRestoring is the refusal to use a volume with RestoringDir.
var ErrRestoring = errors.New("a restore into this volume was not finished: run signdropd restore again, or remove all of it")

// CheckWhole refuses a volume whose restore was not finished.
func CheckWhole(root durable.Dir) error {
	_, err := root.Stat(RestoringDir)
	if err == nil {
		return ErrRestoring
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// maxRecipients is more than the file of the recipients has, in bytes.
const maxRecipients = 64 << 10

// parseRecipients reads age recipients and checks that a file can be encrypted to all
// of them together.
func parseRecipients(list []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for i, text := range list {
		rs, err := age.ParseRecipients(strings.NewReader(text + "\n"))
		if err != nil || len(rs) != 1 {
			// Not quoted: it may be somebody's secret key.
			return nil, fmt.Errorf("recipient %d of backups is not an age recipient: give what age-keygen or signdrop custodians prints, age1…", i+1)
		}
		out = append(out, rs[0])
	}
	w, err := age.Encrypt(io.Discard, out...)
	if err != nil {
		return nil, fmt.Errorf("nothing can be encrypted to these recipients together: %w", err)
	}
	return out, w.Close()
}

// SplitRecipients takes apart a list of recipients, one a line or with blanks between.
func SplitRecipients(text string) []string { return strings.Fields(text) }

// CheckRecipients reads a file of recipients, one a line, empty lines and lines that
// begin with # left out, and returns them so. It must name at least one.
func CheckRecipients(data []byte) (string, error) {
	var list []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	if len(list) == 0 {
		return "", errors.New("it names no recipient: give age recipients, one a line, or leave it out")
	}
	if _, err := parseRecipients(list); err != nil {
		return "", err
	}
	return strings.Join(list, "\n") + "\n", nil
}

// ReadBackupRecipients returns whom backups are encrypted to, none if that was not
// fixed.
func ReadBackupRecipients(root durable.Dir) ([]age.Recipient, error) {
	list, err := readRecipients(root)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	rs, err := parseRecipients(list)
	if err != nil {
		return nil, fmt.Errorf("db/appliance/%s: %w (restore it from the backup)", recipientsFile, err)
	}
	return rs, nil
}

func readRecipients(root durable.Dir) ([]string, error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, recipientsFile, maxRecipients)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(data)), err
}

// checkRecipients sees to it that the recipients are fixed once: whoever could change
// them later could have all keys sent to himself.
func (m *maker) checkRecipients() error {
	if len(m.plan.BackupRecipients) == 0 {
		return nil
	}
	if _, err := parseRecipients(m.plan.BackupRecipients); err != nil {
		return err
	}
	want := slices.Compact(slices.Sorted(slices.Values(m.plan.BackupRecipients)))
	there, err := readRecipients(m.root)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		m.recipients = []byte(strings.Join(want, "\n") + "\n")
		return nil
	}
	if !slices.Equal(there, want) {
		return errors.New("the recipients of backups are fixed already, and they are others: leave them out, or give the same; " +
			"for others a new appliance has to be set up")
	}
	return nil
}

// addRecipients fixes them. Crash: they are fixed or not.
func (m *maker) addRecipients(d durable.Dir) error {
	if m.recipients == nil {
		return nil
	}
	const tmp = "." + recipientsFile + ".new"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.file(d, "db/appliance", tmp, 0o400, m.recipients); err != nil {
		return err
	}
	if err := d.Move(tmp, d, recipientsFile); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	m.say(path.Join("db/appliance", recipientsFile), Made, count(strings.Count(string(m.recipients), "\n"), "recipient"))
	return nil
}

// Restored is restored.json: from which backup the volume came.
type Restored struct {
	Restore  string `json:"restore"`  // R_ and 30 hexadecimal digits
	Backup   string `json:"backup"`   // id of the newest one
	Time     string `json:"time"`     // when that was begun, RFC 3339
	Seq      uint64 `json:"seq"`      // of the last journal line in it
	SHA256   string `json:"sha256"`   // of that line
	Restored string `json:"restored"` // RFC 3339

	Digest [32]byte `json:"-"` // SHA-256 of the file
	Text   string   `json:"-"` // the file, without its line break
}

var restoreForm = regexp.MustCompile(`^R_[0-9a-f]{30}$`)

// ReadRestored returns what is said of the last restore, nil if there was none, and
// whether the administrators have accepted it.
func ReadRestored(root durable.Dir) (r *Restored, accepted bool, err error) {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return nil, false, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	data, err := durable.ReadFile(d, restoredFile, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		r = &Restored{}
		err = json.Unmarshal(data, r, json.RejectUnknownMembers(true))
	}
	if err == nil && !restoreForm.MatchString(r.Restore) {
		err = errors.New("it has no restore's id")
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading db/appliance/%s: %w (restore it from the backup)", restoredFile, err)
	}
	r.Digest, r.Text = sha256.Sum256(data), strings.TrimSpace(string(data))
	ok, err := durable.ReadFile(d, acceptedFile, 4096)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	return r, strings.TrimSpace(string(ok)) == r.Restore, nil
}

// WriteRestored notes a restore. Nothing is synced.
func WriteRestored(root durable.Dir, r *Restored) error {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return err
	}
	defer d.Close()
	for _, name := range []string{restoredFile, acceptedFile} { // of an earlier restore
		if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return durable.WriteNew(d, restoredFile, 0o400, append(data, '\n'))
}

// AcceptRestore notes that the administrators have accepted the restore with this id.
// Doing it again is safe.
//
// Crash: it is accepted or not.
func AcceptRestore(root durable.Dir, access Access, id string) error {
	d, err := durable.SubPath(root, "db", "appliance")
	if err != nil {
		return err
	}
	defer d.Close()
	r := replacer{d, access, "db/appliance"}
	return r.put(acceptedFile, []byte(id+"\n"))
}
