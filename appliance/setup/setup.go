// Package setup makes the tree of a data volume: what the appliance expects to
// find when it starts, and what is needed to serve one more company.
//
//	DIR/                              0700
//	├── db/                           0700
//	│   ├── appliance/                0700
//	│   │   ├── appliance.json        0400  {"id":"SD_…"}
//	│   │   ├── identity.age          0400  the key for requests with secrets
//	│   │   ├── backup-recipients     0400  whom backups are encrypted to, if that was fixed
//	│   │   ├── recipient, seal.json  0400  where keys are sealed, see keyfs/seal
//	│   │   └── new-journal           0600  until the first start, see TakeNewJournal
//	│   ├── admins/                   0700
//	│   │   ├── allowed_signers       0600  who may sign commands and approvals
//	│   │   ├── authorized_keys       0600  the same keys, for the SFTP door
//	│   │   ├── founded               0600  who they were at first
//	│   │   └── threshold             0600  how many of them it takes, "1\n"
//	│   └── companies/                0700
//	│       └── <company>/            0700
//	│           ├── company.json      0600  {"name":"<company>","status":"active"}
//	│           ├── allowed_signers   0600  who may sign its requests
//	│           ├── authorized_keys   0600  who may log in by SFTP
//	│           └── policy.json       0600  {"replace":false,"data":"safe"}
//	├── spool/                        0755
//	│   └── <company>/, admin/        0755  fit to be an OpenSSH ChrootDirectory
//	│       ├── inbox/                0700, or 2770 for the partner's group
//	│       ├── outbox/               the same
//	│       └── rejected/             the same
//	└── work/ archive/ journal/ index/ 0700
//
// # Promises
//
// Doing it again is safe: what exists is never changed, except that the line of a
// key that is not listed yet is added to an allowed_signers file. Everything is
// refused that can be refused before anything is made. What Make reports as made
// is durable.
//
// A name appears only when what it stands for is whole: a directory is made and
// filled as ".NAME.new" and then gets its name. A crash leaves such names at most,
// and the next Make clears and uses them. A company's directory in db/ comes last
// of what belongs to it, since from then on the appliance serves it.
//
// # What it must not be used for
//
// Repairing a volume. What is missing where it cannot be missing, what has the
// wrong mode or owner, is reported with its remedy and left as it is.
package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/ssh"

	"signdrop/appliance/auth"
	"signdrop/appliance/policy"
	"signdrop/keyfs"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// thresholdFile holds how many administrators a command takes.
const thresholdFile = "threshold"

// foundedFile holds how the administrators were set first.
const foundedFile = "founded"

// Administrators is the company name that only administrators use.
const Administrators = "admin"

// Plan is what is wanted beside the bare tree. The zero value of a field asks for
// nothing.
type Plan struct {
	Admins    []Signer // keys of administrators
	Threshold int      // how many administrators a command takes; 0 for 1, or for what is there
	// BackupRecipients are whom backups are encrypted to (age). They are fixed once.
	BackupRecipients []string

	Company  string   // the company to serve
	Signers  []Signer // keys that may sign the company's requests
	Disabled bool     // a new company is disabled from the beginning

	// For a company that is new.
	Title          string // its name for people
	Created        string // the request_sha256 of the command that asks for it
	AuthorizedKeys []byte // who may log in by SFTP
	Policy         []byte // its policy.json; the careful one if nil

	// Restoring: the restore itself asks, at its end.
	Restoring bool

	// Group is the id of the partner's group, which may write into the three
	// directories of the company's spool; nil if there is none.
	Group *int
	// KEK seals the keys of a volume that is new, from the beginning; nil keeps them in
	// the clear.
	KEK seal.KEK

	// User is the id of the user that the appliance runs as; nil for the owner
	// of db/, or of the top while there is no db/ yet.
	User *int
}

// State says what Make found or did.
type State string

// The states.
const (
	Made  State = "made"
	Added State = "added" // a file was there and got a line more
	There State = "there"
	Wrong State = "wrong" // it is there, and not as it must be; Note has the remedy
)

// Item is one line of a Report.
type Item struct {
	Path  string // below the top, "." for the top itself
	State State
	Note  string
}

// Report says what Make found and did, in the order in which it went about it.
type Report struct {
	ID        string // of the appliance
	Recipient string // what requests with secrets are encrypted to (age)
	Items     []Item
}

// Wrong reports whether something is there that is not as it must be.
func (r *Report) Wrong() bool {
	for _, it := range r.Items {
		if it.State == Wrong {
			return true
		}
	}
	return false
}

// Access sets owner, group and mode of the file or directory path, below the top
// of the volume, and makes that durable. A uid or gid of -1 stays as it is.
type Access func(path string, uid, gid int, mode fs.FileMode) error

// Make makes what is missing of the tree below root. access may be nil where a
// volume knows neither owners nor an umask, as in tests; owners are not looked at
// then. Nothing is made if the plan is refused.
func Make(root durable.Dir, access Access, plan Plan) (*Report, error) {
	m := &maker{root: root, access: access, plan: plan, user: -1, report: &Report{}}
	if err := m.look(); err != nil {
		return nil, err
	}
	if err := m.make(); err != nil {
		return nil, err
	}
	return m.report, nil
}

// maker is one call of Make.
type maker struct {
	root   durable.Dir
	access Access
	plan   Plan
	user   int // who owns what is made, -1 for whoever runs this
	report *Report

	// What look has found out.
	admins     *list
	threshold  int
	unset      bool   // nobody is an administrator yet
	recipients []byte // of backups, to be fixed now; nil if not
	company    *list
}

// look reads what is there and refuses what cannot be done.
func (m *maker) look() error {
	if err := CheckWhole(m.root); err != nil && !m.plan.Restoring {
		return err
	}
	if err := m.checkCompany(); err != nil {
		return err
	}
	if err := m.checkRecipients(); err != nil {
		return err
	}
	if err := m.findUser(); err != nil {
		return err
	}
	first, err := missing(m.root, "db", "appliance")
	if err != nil {
		return err
	}
	if first {
		// The marker that allows a new journal must never come beside an old
		// one, nor a second time: an erased journal would go unnoticed.
		if err := m.checkNoJournal(); err != nil {
			return err
		}
	}
	if m.admins, err = readList(m.root, namespacesAdmin, "db", "admins"); err != nil {
		return err
	}
	if err := m.checkAdmins(); err != nil {
		return err
	}
	if err := m.admins.add(m.plan.Admins); err != nil {
		return err
	}
	if err := m.checkThreshold(); err != nil {
		return err
	}
	if m.plan.Company == "" {
		return nil
	}
	if m.company, err = readList(m.root, namespacesCompany, "db", "companies", m.plan.Company); err != nil {
		return err
	}
	if err := m.company.add(m.plan.Signers); err != nil {
		return err
	}
	if m.company.new && len(m.plan.Signers) == 0 {
		return fmt.Errorf("company %s is new and nobody could sign for it: give a signer's public key", m.plan.Company)
	}
	return nil
}

func (m *maker) checkCompany() error {
	switch {
	case m.plan.Company == "":
		if len(m.plan.Signers) > 0 || m.plan.Group != nil {
			return errors.New("signers and a group belong to a company: name the company")
		}
	case m.plan.Company == Administrators:
		return fmt.Errorf("the name %s is kept for the administrators: use another", Administrators)
	case !keyfs.ValidCompany(m.plan.Company):
		return fmt.Errorf("%q cannot be a company's name: use 1 to 32 of a-z, 0-9 and -, not beginning with -", m.plan.Company)
	}
	return nil
}

// findUser finds out who owns what is made.
func (m *maker) findUser() error {
	if m.access == nil {
		return nil
	}
	if m.plan.User != nil {
		m.user = *m.plan.User
		return nil
	}
	info, err := m.root.Stat("db")
	if errors.Is(err, fs.ErrNotExist) {
		info, err = m.root.StatDir()
	}
	m.user = int(info.UID)
	return err
}

// checkNoJournal refuses a volume that has a journal and no identity.
func (m *maker) checkNoJournal() error {
	d, err := m.root.Sub("journal")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return durable.Walk(d, func(e durable.Entry) error {
		return fmt.Errorf("journal/ holds %s but db/appliance is missing: restore db/ from the backup, or use an empty directory", e.Name)
	})
}

// checkAdmins sees to it that the administrators are set once: by whoever sets up
// the volume first. After that only they themselves change who they are.
func (m *maker) checkAdmins() error {
	if err := distinct(m.plan.Admins); err != nil {
		return err
	}
	m.unset = m.admins.len() == 0
	if m.unset || len(m.plan.Admins) == 0 {
		return nil
	}
	first, err := m.readFounded()
	if err != nil {
		return err
	}
	if first == founded(m.plan) {
		// The same words as then, such as a container's environment, which stays
		// what it was whatever the administrators have changed since.
		m.plan.Admins, m.plan.Threshold = nil, 0
		return nil
	}
	for _, s := range m.plan.Admins {
		if !m.admins.holds(s.Key) {
			return fmt.Errorf("the administrators are set already and %s is not among them: an administrators' command (admins.set) changes that", s.Name)
		}
	}
	return nil
}

// founded says with which keys and threshold the administrators were set.
func founded(plan Plan) string {
	var lines []string
	for _, s := range plan.Admins {
		lines = append(lines, ssh.FingerprintSHA256(s.Key)+"\n")
	}
	slices.Sort(lines)
	return fmt.Sprintf("threshold %d\n%s", max(plan.Threshold, 1), strings.Join(slices.Compact(lines), ""))
}

func (m *maker) readFounded() (string, error) {
	d, err := durable.SubPath(m.root, "db", "admins")
	if err != nil {
		return "", err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, foundedFile, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // they were set by hand
	}
	return string(data), err
}

func (m *maker) checkThreshold() error {
	asked := m.plan.Threshold
	if asked < 0 {
		return fmt.Errorf("a threshold of %d makes no sense: use 1 or more", asked)
	}
	m.threshold = max(asked, 1)
	if !m.unset {
		there, err := ReadThreshold(m.root)
		if err != nil {
			return err
		}
		if asked != 0 && asked != there {
			return fmt.Errorf("the threshold is %d and is not changed by this: an administrator's command does that", there)
		}
		m.threshold = there
	}
	if n := m.admins.len(); asked > n {
		return fmt.Errorf("a threshold of %d needs as many administrators and there are %d: add keys, or lower it", asked, n)
	}
	return nil
}

// ReadThreshold returns how many administrators a command takes.
func ReadThreshold(root durable.Dir) (int, error) {
	d, err := durable.SubPath(root, "db", "admins")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, thresholdFile, 16)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errors.New("db/admins/threshold is missing: restore it from the backup")
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 1 {
		return 0, errors.New("db/admins/threshold does not hold a number of 1 or more: restore it from the backup")
	}
	return n, nil
}

// make makes what is missing, from the top to the leaves.
func (m *maker) make() error {
	if err := m.checkDir(m.root, ".", top); err != nil {
		return err
	}
	for _, name := range []string{"work", "archive", "journal", "index"} {
		d, err := m.dir(m.root, name, private, nil)
		if err != nil {
			return err
		}
		d.Close()
	}
	db, err := m.dir(m.root, "db", private, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := m.makeAppliance(db); err != nil {
		return err
	}
	if err := m.makeAdmins(db); err != nil {
		return err
	}
	companies, err := m.dir(db, "db/companies", private, nil)
	if err != nil {
		return err
	}
	defer companies.Close()
	spool, err := m.dir(m.root, "spool", crossed, nil)
	if err != nil {
		return err
	}
	defer spool.Close()
	if err := m.makeSpool(spool, Administrators, door); err != nil || m.plan.Company == "" {
		return err
	}
	want := door
	if m.plan.Group != nil {
		want = shared(*m.plan.Group)
	}
	if err := m.makeSpool(spool, m.plan.Company, want); err != nil {
		return err
	}
	return m.makeCompany(companies)
}

func (m *maker) makeAppliance(db durable.Dir) error {
	d, err := m.dir(db, "db/appliance", private, func(d durable.Dir, path string) error {
		data, err := newAppliance()
		if err != nil {
			return err
		}
		if err := m.file(d, path, applianceFile, 0o400, data); err != nil {
			return err
		}
		if m.plan.KEK == nil {
			err = m.makeIdentity(d, path, ageFile)
		} else {
			err = m.makeSealed(d, path)
		}
		if err != nil {
			return err
		}
		return m.file(d, path, newJournal, 0o600, nil)
	})
	if err != nil {
		return err
	}
	defer d.Close()
	if m.report.ID, err = ReadAppliance(m.root); err != nil {
		return err
	}
	m.note("id " + m.report.ID)
	if err := m.checkFiles(d, "db/appliance", applianceFile); err != nil {
		return err
	}
	_, err = d.Stat(ageFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = m.addIdentity(d)
	}
	if err != nil {
		return err
	}
	if err := m.addRecipients(d); err != nil {
		return err
	}
	m.report.Recipient, err = recipient(m.root, d)
	return err
}

// makeSealed makes a new volume's identity sealed, and what the sealing of all its keys
// rests on.
func (m *maker) makeSealed(d durable.Dir, dir string) error {
	s, ring, err := seal.New(m.plan.KEK)
	if err != nil {
		return err
	}
	data, recipient, err := newIdentity()
	if err != nil {
		return err
	}
	defer clear(data)
	sealed, err := s.Seal(data, seal.Label{Path: "appliance/" + ageFile, Public: recipient})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{ageFile, sealed}, {seal.RecipientFile, []byte(recipient + "\n")}, {seal.RingFile, ring}} {
		if err := m.file(d, dir, f.name, 0o400, f.data); err != nil {
			return err
		}
	}
	return nil
}

// makeIdentity makes the key for requests with secrets, as the file name.
func (m *maker) makeIdentity(d durable.Dir, dir, name string) error {
	data, _, err := newIdentity()
	if err != nil {
		return err
	}
	defer clear(data)
	return m.file(d, dir, name, 0o400, data)
}

// addIdentity makes it on a volume of an earlier version, which has none.
func (m *maker) addIdentity(d durable.Dir) error {
	if info, err := seal.Look(m.root); err != nil || info != nil {
		return errors.Join(err, fmt.Errorf("db/appliance/%s is missing and the keys of this volume are sealed: restore it from the backup", ageFile))
	}
	const tmp = "." + ageFile + ".new"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.makeIdentity(d, "db/appliance", tmp); err != nil {
		return err
	}
	if err := d.Move(tmp, d, ageFile); err != nil {
		return err
	}
	return d.Sync()
}

func (m *maker) makeAdmins(db durable.Dir) error {
	d, err := m.dir(db, "db/admins", private, func(d durable.Dir, path string) error {
		if err := m.file(d, path, signersFile, 0o600, m.admins.text); err != nil {
			return err
		}
		if len(m.plan.Admins) > 0 {
			keys, err := loginKeys(m.plan.Admins)
			if err != nil {
				return err
			}
			if err := m.file(d, path, keysFile, 0o600, keys); err != nil {
				return err
			}
			if err := m.file(d, path, foundedFile, 0o600, []byte(founded(m.plan))); err != nil {
				return err
			}
		}
		return m.file(d, path, thresholdFile, 0o600, fmt.Appendf(nil, "%d\n", m.threshold))
	})
	if err != nil {
		return err
	}
	defer d.Close()
	// The keys last: as long as there are none, doing it again sets both.
	if m.unset && !m.admins.new && len(m.plan.Admins) > 0 {
		r := replacer{d, m.access, "db/admins"}
		keys, err := loginKeys(m.plan.Admins)
		if err != nil {
			return err
		}
		if err := r.put(keysFile, keys); err != nil {
			return err
		}
		if err := r.put(foundedFile, []byte(founded(m.plan))); err != nil {
			return err
		}
		if err := r.put(thresholdFile, fmt.Appendf(nil, "%d\n", m.threshold)); err != nil {
			return err
		}
	}
	if err := m.addLines(d, "db/admins", m.admins); err != nil {
		return err
	}
	m.note(fmt.Sprintf("%s, threshold %d", count(m.admins.len(), "key"), m.threshold))
	return m.checkFiles(d, "db/admins", signersFile, thresholdFile)
}

// makeSpool makes the three directories of one inbox.
func (m *maker) makeSpool(spool durable.Dir, company string, want access) error {
	path := "spool/" + company
	c, err := m.dir(spool, path, chroot, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, name := range []string{"inbox", "outbox", "rejected"} {
		var fill func(durable.Dir, string) error
		if name == "outbox" {
			fill = m.fillOutbox
		}
		d, err := m.dir(c, path+"/"+name, want, fill)
		if err != nil {
			return err
		}
		d.Close()
	}
	return nil
}

// NoticeFile tells a partner, in its outbox, whom to encrypt secrets to.
const NoticeFile = "appliance.json"

// fillOutbox puts it there once. Who takes it away has read it.
func (m *maker) fillOutbox(d durable.Dir, dir string) error {
	data, err := json.Marshal(struct {
		Type      string `json:"type"`
		Appliance string `json:"appliance"`
		Recipient string `json:"recipient"`
	}{"appliance", m.report.ID, m.report.Recipient})
	if err != nil {
		return err
	}
	return m.file(d, dir, NoticeFile, 0o644, append(data, '\n'))
}

func (m *maker) makeCompany(companies durable.Dir) error {
	path := "db/companies/" + m.plan.Company
	d, err := m.dir(companies, path, private, func(d durable.Dir, path string) error {
		rules := m.plan.Policy
		if rules == nil {
			var err error
			if rules, err = json.Marshal(policy.Policy{Data: "safe"}); err != nil {
				return err
			}
		}
		company := &Company{Name: m.plan.Company, Title: m.plan.Title, Status: Active, Created: m.plan.Created}
		if m.plan.Disabled {
			company.Status = Disabled
		}
		for _, f := range []struct {
			name string
			data []byte
		}{
			{companyFile, company.encode()},
			{signersFile, m.company.text},
			{keysFile, m.plan.AuthorizedKeys},
			{policyFile, readable(bytes.Clone(rules))},
		} {
			if err := m.file(d, path, f.name, 0o600, f.data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := m.addLines(d, path, m.company); err != nil {
		return err
	}
	m.note(count(m.company.len(), "signer"))
	return m.checkFiles(d, path, companyFile, signersFile)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// The namespaces that the two kinds of signers are listed for.
const (
	namespacesAdmin   = auth.NamespaceAdmin + "," + auth.NamespaceApprove
	namespacesCompany = auth.NamespaceRequest + "," + auth.NamespaceApprove
)
