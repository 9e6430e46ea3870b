package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"signdrop/appliance/door/notice"
	"signdrop/appliance/setup"
	"signdrop/keyfs/seal"
	"signdrop/spool"
	"signdrop/spool/durable"
)

func newStatus() *cobra.Command {
	var data string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what is waiting, working, answered, refused",
		Long: `Show the state of a data volume. Every state of a request is a directory, so
this only counts names; it changes nothing, needs no running appliance and
does not disturb one.

  WAITING     files in inbox/ that the appliance looks at
  UNFINISHED  files in inbox/ that it leaves alone for their names, as uploads
  WORKING     requests that it has claimed and not yet answered
  ANSWERED    answers in outbox/, until the partner takes them
  REFUSED     reasons in rejected/, until the partner takes them

The row admin is for the administrators' commands; a line below tells how many
of those that wait need more signatures. A door is served if its keeper says so
in db/appliance/door.json and holds its lock.`,
		Example: `  signdrop status --data /data
  watch -n 5 signdrop status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readStatus(data)
			if errors.Is(err, fs.ErrPermission) {
				return hinted(err, "run it as the appliance's user, or as root")
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return s.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&data, "data", "/data", "the data volume's `directory`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	markDir(cmd, "data")
	return cmd
}

// status is what --json prints. Its names do not change.
type status struct {
	Data      string          `json:"data"`
	Appliance string          `json:"appliance"`
	Running   bool            `json:"running"`
	Journal   *time.Time      `json:"journal,omitempty"` // last write; none before the first start
	Free      uint64          `json:"free_bytes"`
	Total     uint64          `json:"total_bytes"`
	Inodes    uint64          `json:"free_inodes"`
	Companies []companyStatus `json:"companies"`

	// Sealed tells of a volume whose keys are sealed, none where they lie in the clear.
	Sealed *sealStatus `json:"sealed,omitempty"`

	Admin *adminStatus   `json:"admin,omitempty"` // none where the volume has no directory for it
	Door  *notice.Notice `json:"door,omitempty"`  // none where none is served

	// Restore is the id of a restore that the administrators have not accepted:
	// companies wait for that.
	Restore string `json:"restore,omitempty"`
}

type sealStatus struct {
	State     string   `json:"state"`
	VolumeKey string   `json:"volume_key"`
	KEKs      []string `json:"keks"` // that open it: one, or two while it is being changed
}

type adminStatus struct {
	Waiting    int `json:"waiting"`
	Unfinished int `json:"unfinished"`
	Working    int `json:"working"`
	Answered   int `json:"answered"`
	Refused    int `json:"refused"`
	Approvals  int `json:"approvals"` // of those that wait: more signatures are needed
}

type companyStatus struct {
	Name       string `json:"name"`
	Status     string `json:"status"`
	Waiting    int    `json:"waiting"`
	Unfinished int    `json:"unfinished"`
	Working    int    `json:"working"`
	Answered   int    `json:"answered"`
	Refused    int    `json:"refused"`
}

func readStatus(data string) (*status, error) {
	vol, err := durable.OpenDisk(data)
	if err != nil {
		return nil, err
	}
	defer vol.Close()
	root, err := vol.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := &status{Data: data}
	if s.Appliance, err = setup.ReadAppliance(root); err != nil {
		return nil, err
	}
	if err := setup.CheckWhole(root); err != nil {
		return nil, err
	}
	r, accepted, err := setup.ReadRestored(root)
	if err != nil {
		return nil, err
	}
	if r != nil && !accepted {
		s.Restore = r.Restore
	}
	sealed, err := seal.Look(root)
	if err != nil {
		return nil, err
	}
	if sealed != nil {
		s.Sealed = &sealStatus{string(sealed.State), sealed.VolumeKey, sealed.KEKs}
	}
	space, err := vol.Space()
	if err != nil {
		return nil, err
	}
	s.Free, s.Total, s.Inodes = space.Free, space.Total, space.Files
	if s.Running, err = locked(filepath.Join(data, "db", "appliance", setup.LockFile)); err != nil {
		return nil, err
	}
	if s.Journal, err = lastWrite(filepath.Join(data, "journal")); err != nil {
		return nil, err
	}
	var names []string
	err = eachName(filepath.Join(data, "db", "companies"), func(name string) error {
		if !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		c, err := readCompany(data, name)
		if err != nil {
			return nil, err
		}
		s.Companies = append(s.Companies, *c)
	}
	if s.Admin, err = readAdmin(data); err != nil {
		return nil, err
	}
	if s.Door, err = readDoor(filepath.Join(data, "db", "appliance")); err != nil {
		return nil, err
	}
	return s, nil
}

// readAdmin counts what the administrators have asked for, nil where the volume has
// no directory for it.
func readAdmin(data string) (*adminStatus, error) {
	if _, err := os.Stat(filepath.Join(data, "spool", setup.Administrators, "inbox")); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	c := &companyStatus{Name: setup.Administrators}
	if err := c.count(data); err != nil {
		return nil, err
	}
	a := &adminStatus{
		Waiting: c.Waiting, Unfinished: c.Unfinished, Working: c.Working, Answered: c.Answered, Refused: c.Refused,
	}
	box := func(name string) string { return filepath.Join(data, "spool", setup.Administrators, name) }
	waits := map[string]bool{} // by what its status would be called
	err := eachName(box("inbox"), func(n string) error {
		if t, ok := typeOf(n); ok && !spool.Unfinished(n) {
			waits[strings.TrimSuffix(n, t.Suffix)+spool.StatusSuffix] = true
		}
		return nil
	})
	if err == nil {
		err = eachName(box("outbox"), func(n string) error {
			if waits[n] {
				a.Approvals++
			}
			return nil
		})
	}
	return a, err
}

// readDoor tells of the door that is served, nil where none is.
func readDoor(dir string) (*notice.Notice, error) {
	// The lock first: a keeper removes the notice before it lets go.
	served, err := locked(filepath.Join(dir, notice.LockFile))
	if err != nil || !served {
		return nil, err
	}
	file, err := readSmall(filepath.Join(dir, notice.File), 16<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is starting, or its door has died
	}
	if err != nil {
		return nil, err
	}
	n := new(notice.Notice)
	if err := json.Unmarshal(file, n); err != nil {
		return nil, fmt.Errorf("%s: %w", notice.File, err)
	}
	return n, nil
}

// locked reports whether a process holds the appliance's lock. To find out it
// takes a shared lock for an instant, which nothing else in the system can see.
func locked(file string) (bool, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // no daemon has ever been here
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return true, nil
	}
	return false, err
}

// lastWrite is when the journal's newest file was written last, nil where there is
// none.
func lastWrite(dir string) (*time.Time, error) {
	newest := ""
	err := eachName(dir, func(name string) error {
		if strings.HasSuffix(name, ".jsonl") && name > newest { // the names are numbers of one length
			newest = name
		}
		return nil
	})
	if err != nil || newest == "" {
		return nil, err
	}
	info, err := os.Stat(filepath.Join(dir, newest))
	if err != nil {
		return nil, err
	}
	t := info.ModTime().UTC()
	return &t, nil
}

func readCompany(data, name string) (*companyStatus, error) {
	c := &companyStatus{Name: name}
	file, err := readSmall(filepath.Join(data, "db", "companies", name, "company.json"), 64<<10)
	if err != nil {
		return nil, err
	}
	var described struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(file, &described); err != nil {
		return nil, fmt.Errorf("company.json of %s: %w", name, err)
	}
	c.Status = described.Status
	return c, c.count(data)
}

// count counts the names in a company's directories.
func (c *companyStatus) count(data string) error {
	name := c.Name
	for _, d := range []struct {
		path  string
		count func(name string)
	}{
		{filepath.Join("spool", name, "inbox"), func(n string) {
			switch {
			case spool.Unfinished(n):
				c.Unfinished++
			case !strings.HasSuffix(n, spool.SigSuffix): // counted with what it signs
				c.Waiting++
			}
		}},
		{filepath.Join("work", name), func(n string) {
			if !strings.HasSuffix(n, spool.SigSuffix) {
				c.Working++
			}
		}},
		{filepath.Join("spool", name, "outbox"), func(n string) {
			if strings.Contains(n, ".result.") { // and not a notice, or a command's status
				c.Answered++
			}
		}},
		{filepath.Join("spool", name, "rejected"), func(n string) {
			if strings.HasSuffix(n, spool.ReasonSuffix) {
				c.Refused++
			}
		}},
	} {
		err := eachName(filepath.Join(data, d.path), func(n string) error { d.count(n); return nil })
		// work/ has a company's directory when the appliance has seen it.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *status) print(out io.Writer) error {
	t := newTable(out)
	t.row("data", s.Data)
	t.row("appliance", s.Appliance)
	running := "not running"
	if s.Running {
		running = "running"
	}
	t.row("signdropd", running)
	if s.Sealed != nil {
		note := ""
		if s.Sealed.State != string(seal.StateSealed) {
			note = ", not finished: start signdropd, or run signdropd seal"
		}
		t.row("keys", "sealed under "+strings.Join(s.Sealed.KEKs, " and ")+note)
	}
	journal := "none yet: the first start begins it"
	if s.Journal != nil {
		journal = "last written " + s.Journal.Format(timeForm)
	}
	t.row("journal", journal)
	t.row("sftp door", s.doorText())
	if s.Door != nil {
		t.row("host key", s.Door.Fingerprint)
	}
	t.row("free", fmt.Sprintf("%s of %s, %d inodes", size(s.Free), size(s.Total), s.Inodes))
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out, "COMPANY", "STATUS", "WAITING", "UNFINISHED", "WORKING", "ANSWERED", "REFUSED")
	for _, c := range s.Companies {
		t.row(c.Name, c.Status, fmt.Sprint(c.Waiting), fmt.Sprint(c.Unfinished),
			fmt.Sprint(c.Working), fmt.Sprint(c.Answered), fmt.Sprint(c.Refused))
	}
	if a := s.Admin; a != nil {
		t.row(setup.Administrators, "-", fmt.Sprint(a.Waiting), fmt.Sprint(a.Unfinished),
			fmt.Sprint(a.Working), fmt.Sprint(a.Answered), fmt.Sprint(a.Refused))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(s.Companies) == 0 {
		if _, err := fmt.Fprintln(out, "\nno company yet: signdrop init --company NAME --signer KEY.pub"); err != nil {
			return err
		}
	}
	if s.Restore != "" {
		fmt.Fprintf(out, "\nrestored: companies wait until the administrators accept %s (restore.accept)\n", s.Restore)
	}
	if s.Admin != nil && s.Admin.Approvals > 0 {
		_, err := fmt.Fprintf(out, "\napprovals: %s of admin waiting for more signatures; see its outbox\n",
			plural(s.Admin.Approvals, "command"))
		return err
	}
	return nil
}

// doorText tells of the door in a line.
func (s *status) doorText() string {
	d := s.Door
	if d == nil {
		return "not served"
	}
	text := fmt.Sprintf("served at %s, pid %d, uid %d", d.Address, d.PID, d.UID)
	if !d.OwnUser {
		text += " (the signer's)"
	}
	if d.Landlock > 0 {
		text += fmt.Sprintf(", Landlock %d", d.Landlock)
	} else {
		text += ", no Landlock"
	}
	if !d.KeysClosed {
		text += ", the keys are open to it"
	}
	return text
}

// size writes a number of bytes for people.
func size(n uint64) string {
	const step = 1024
	value, unit := float64(n), "B"
	for _, larger := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < step {
			break
		}
		value, unit = value/step, larger
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
