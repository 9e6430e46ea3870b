package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
	"signdrop/tools/signdrop/walletkms"
)

// maxDump bounds a dump, in bytes: a wallet takes about 500, twice that in
// hexadecimal.
const maxDump = 1 << 30

func newImportWalletKMS() *cobra.Command {
	var (
		data   string
		sealed string
		dryRun bool
	)
	cmd := &cobra.Command{
		Use:   "import-walletkms DUMP",
		Short: "Take over the keys of a walletKMS",
		Long: `Take over what INBLOCK's walletKMS kept in its RocksDB folder: its
administrator, companies, wallets with their addresses, and data keys. DUMP is
what Debian's "ldb --db=db scan" (package rocksdb-tools) prints of the folder,
with or without --hex; - reads it from standard input. The volume must have
been made by "signdrop init", and the appliance must not run.

What comes over gets a new name, which follows from the old one: the table says
which. Lists of IP addresses have no counterpart and are left behind. Doing it
again changes nothing that is there, and brings what did not come the last
time. One faulty entry keeps no other back; the exit code is 1 then.

Run it as root or as the user that signdropd runs as. As root it makes the
companies and goes on as that user.

A DUMP HOLDS EVERY PRIVATE KEY IN THE CLEAR. Stop walletKMS first, so that it
signs nothing more and the folder is still. Best let no disk see the dump:

  ssh OLD ldb --db=/data/db scan | signdrop import-walletkms - --data /data

A dump that must be a file belongs on a memory file system (/dev/shm), mode
0600, and is removed from there when the import is done. When transfers by the
new wallets have gone through, destroy walletKMS's folder, its copies and its
backups: erase the disks, or the keys that encrypt them. Removing the files is
not enough. Whoever has a copy can go on signing.`,
		Example: `  ldb --db=db scan | signdrop import-walletkms - --data /data --dry-run
  ldb --db=db scan | signdrop import-walletkms - --data /data`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readDump(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			dump, err := walletkms.Parse(text)
			clear(text)
			if err != nil {
				return fmt.Errorf("reading the dump %s: %w", args[0], err)
			}
			m := &mover{data: data, seal: sealed, dry: dryRun, dump: dump, progress: newProgress(cmd.ErrOrStderr(), "wallets", int64(len(dump.Wallets)))}
			err = m.run(cmd.Context())
			m.progress.clear()
			if err != nil && len(m.rows) == 0 {
				return err
			}
			// Also of an import that stopped in between.
			if perr := m.print(cmd.OutOrStdout()); err == nil {
				err = perr
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "/data", "the data volume's `directory`")
	f.BoolVar(&dryRun, "dry-run", false, "only tell what would come over, and what cannot")
	f.StringVar(&sealed, "seal", "", "the key-encryption key of a volume whose keys are sealed, as for signdropd (`SPEC`)")
	markDir(cmd, "data")
	return cmd
}

// readDump reads a dump, from standard input if its name is "-".
func readDump(name string, stdin io.Reader) ([]byte, error) {
	if name != "-" {
		return readSmall(name, maxDump)
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxDump+1))
	if err == nil && len(text) > maxDump {
		err = fmt.Errorf("it has more than %d bytes: this is not a dump", maxDump)
	}
	if err != nil {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	return text, nil
}

// state says what became of an entry.
type state string

const (
	stateMade  state = "made"
	stateComes state = "comes" // would be made, if this were no dry run
	stateThere state = "there"
	stateLeft  state = "left"   // has no counterpart here
	stateFails state = "failed" // see the note
)

// Kinds of entries, in the order of the table.
const (
	kindAdmin   = "administrator"
	kindCompany = "company"
	kindWallet  = "wallet"
	kindDataKey = "data key"
	kindOther   = "other"
)

// moved is a line of the table.
type moved struct {
	line           int // of the dump
	kind, old, new string
	state          state
	note           string
}

// mover takes over one dump.
//
// Crash: everything that is made is made by setup, keyfs and datakey, each of which
// leaves it whole or not there. Names follow from the old ids, so that the next run
// finds what this one made and goes on.
type mover struct {
	seal     string // where the key-encryption key is; "" for none
	data     string
	dry      bool
	dump     *walletkms.Dump
	progress *progress

	vol   *durable.Disk
	root  durable.Dir
	db    durable.Dir
	keys  *keyfs.Store
	dkeys *datakey.Store
	owner int // uid of db/

	rows      []moved
	companies map[string]bool    // old ids of those that are there, or would be
	addresses map[[2]string]bool // by company and address, those that a dry run has seen
}

// run does it. An error means that it stopped in between, or that an entry did not
// come over.
func (m *mover) run(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	defer m.close()
	if !m.dry {
		unlock, err := m.lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	m.companies, m.addresses = map[string]bool{}, map[[2]string]bool{}
	for _, step := range []func(context.Context) error{m.moveAdmin, m.moveCompanies, m.openKeys, m.moveWallets, m.moveDataKeys} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for _, e := range m.dump.Others {
		m.fail(e, kindOther, fmt.Sprintf("line %d %s", e.Line, e.ID), "", e.Err)
	}
	failed := 0
	for _, r := range m.rows {
		if r.state == stateFails {
			failed++
		}
	}
	if failed > 0 {
		return hinted(fmt.Errorf("%d of %d entries do not come over", failed, len(m.rows)),
			"see the lines that say failed; when they are mended, run it again")
	}
	return nil
}

// open opens the volume, which init has made.
func (m *mover) open() (err error) {
	if m.vol, err = durable.OpenDisk(m.data); err != nil {
		return err
	}
	if m.root, err = m.vol.Root(); err != nil {
		return err
	}
	if _, err := setup.ReadAppliance(m.root); err != nil {
		return err
	}
	if m.db, err = m.root.Sub("db"); err != nil {
		return err
	}
	info, err := m.db.StatDir()
	if err != nil {
		return err
	}
	m.owner = int(info.UID)
	if euid := os.Geteuid(); euid != 0 && euid != m.owner {
		return fmt.Errorf("db/ belongs to uid %d: run this as root or as that user", m.owner)
	}
	return nil
}

// close closes what open and openKeys have opened.
func (m *mover) close() {
	for _, d := range []durable.Dir{m.db, m.root} {
		if d != nil {
			d.Close()
		}
	}
	m.vol.Close()
}

// lock keeps the appliance from starting meanwhile, and finds out whether it runs.
func (m *mover) lock() (unlock func(), err error) {
	name := filepath.Join(m.data, "db", "appliance", setup.LockFile)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data volume: %w", err)
	}
	info, err := f.Stat()
	if err == nil && ownerOf(info) != m.owner {
		err = f.Chown(m.owner, -1) // we have made it, as root: the appliance has to open it
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = hinted(errors.New("the appliance runs on this volume"), "stop it first, and start it again when the import is done")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// openKeys opens the key stores. They make files that belong to whoever runs this,
// and take no others, so root becomes the appliance's user here, for good.
func (m *mover) openKeys(context.Context) (err error) {
	sealer, err := m.openSeal()
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 && m.owner != 0 {
		info, err := os.Stat(filepath.Join(m.data, "db"))
		if err != nil {
			return err
		}
		gid := int(info.Sys().(*syscall.Stat_t).Gid)
		// The groups first: a user may not change them.
		if err = syscall.Setgroups(nil); err == nil {
			if err = syscall.Setresgid(gid, gid, gid); err == nil {
				err = syscall.Setresuid(m.owner, m.owner, m.owner)
			}
		}
		if err != nil {
			return fmt.Errorf("going on as uid %d, who owns db/: %w", m.owner, err)
		}
	}
	if m.keys, err = keyfs.Open(m.db, keyfs.Options{Sealer: sealer}); err != nil {
		return err
	}
	m.dkeys = datakey.Open(m.db, sealer)
	return nil
}

// openSeal returns what seals keys, nil where they lie in the clear. The key-encryption
// key is read while we are root, who may be the only one who can.
func (m *mover) openSeal() (*seal.Sealer, error) {
	if m.seal == "" {
		return nil, nil // keyfs.Open says if it should have been given
	}
	kek, err := seal.ReadKEK(m.seal, m.data)
	if err != nil {
		return nil, err
	}
	defer kek.Close()
	return seal.Open(m.root, kek)
}

func (m *mover) row(e walletkms.Entry, kind, old, new string, s state, note string) {
	m.rows = append(m.rows, moved{e.Line, kind, old, new, s, note})
}

func (m *mover) fail(e walletkms.Entry, kind, old, new string, err error) {
	m.row(e, kind, old, new, stateFails, err.Error())
}

// fresh is the state of what was not there before.
func (m *mover) fresh() state {
	if m.dry {
		return stateComes
	}
	return stateMade
}

// unknown tells of fields that walletKMS does not have.
func (m *mover) unknown(e walletkms.Entry, kind, old string) {
	for _, name := range e.Unknown {
		m.row(e, kind, old, "", stateLeft, "field "+name+", which is none of walletKMS's")
	}
}

func (m *mover) ips(e walletkms.Entry, kind, old string, n int) {
	if n > 0 {
		m.row(e, kind, old, "", stateLeft, fmt.Sprintf("list of %d IP addresses: limit who may reach the inbox", n))
	}
}

func (m *mover) print(w io.Writer) error {
	order := []string{kindAdmin, kindCompany, kindWallet, kindDataKey, kindOther}
	slices.SortStableFunc(m.rows, func(a, b moved) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.kind), slices.Index(order, b.kind)), cmp.Compare(a.line, b.line))
	})
	t := newTable(w, "WHAT", "OLD", "NEW", "STATE", "")
	for _, r := range m.rows {
		t.row(r.kind, r.old, r.new, string(r.state), r.note)
	}
	return t.flush()
}

// hasCompany reports whether the volume has a company.
func (m *mover) hasCompany(name string) (bool, error) {
	d, err := durable.SubPath(m.db, "companies", name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, d.Close()
}

// setup makes an administrator or a company on the volume.
func (m *mover) setup(plan setup.Plan) error {
	report, err := setup.MakeDisk(m.data, plan)
	if err != nil {
		return err
	}
	for _, it := range report.Items {
		if it.State == setup.Wrong {
			return fmt.Errorf("%s is not as it must be: %s", it.Path, it.Note)
		}
	}
	return nil
}

const administrator = "walletkms-admin" // who its key is, in allowed_signers

// moveAdmin lists walletKMS's administrator. It does so only as long as no company
// of the dump is there: later on the key may be missing because somebody took it
// out.
func (m *mover) moveAdmin(context.Context) error {
	const kind, old = kindAdmin, "INIT:ADMIN"
	for _, a := range m.dump.Admins {
		m.unknown(a.Entry, kind, old)
		if a.Err != nil {
			m.fail(a.Entry, kind, old, "", a.Err)
			continue
		}
		m.ips(a.Entry, kind, old, a.IPs)
		signer, err := setup.ReadSigner([]byte(a.PublicPEM), administrator)
		if err != nil {
			m.fail(a.Entry, kind, old, "", fmt.Errorf("its public key cannot be listed: %w", err))
			continue
		}
		listed, err := m.listed(signer)
		if err != nil {
			return err
		}
		if listed {
			m.row(a.Entry, kind, old, administrator, stateThere, "")
			continue
		}
		later, err := m.isLater()
		if err != nil {
			return err
		}
		if later {
			m.row(a.Entry, kind, old, "", stateLeft, "a company of this dump was there before: add the key with signdrop init --admin if it is to be listed")
			continue
		}
		if !m.dry {
			if err := m.setup(setup.Plan{Admins: []setup.Signer{signer}}); err != nil {
				m.fail(a.Entry, kind, old, administrator, err)
				continue
			}
		}
		m.row(a.Entry, kind, old, administrator, m.fresh(), "")
	}
	return nil
}

// isLater reports whether this dump was imported before.
func (m *mover) isLater() (bool, error) {
	for _, c := range m.dump.Companies {
		there, err := m.hasCompany(walletkms.CompanyName(c.ID))
		if there || err != nil {
			return there, err
		}
	}
	return false, nil
}

// moveCompanies makes the companies that are not there. One that is there stays as
// it is: its signer may have been replaced since.
func (m *mover) moveCompanies(context.Context) error {
	const kind = kindCompany
	for _, c := range m.dump.Companies {
		m.unknown(c.Entry, kind, c.ID)
		name := walletkms.CompanyName(c.ID)
		there, err := m.hasCompany(name)
		if err != nil {
			return err
		}
		if there {
			// Whatever is wrong with the entry: its wallets can come.
			m.companies[c.ID] = true
			m.row(c.Entry, kind, c.ID, name, stateThere, c.Name)
			continue
		}
		if c.Err != nil {
			m.fail(c.Entry, kind, c.ID, name, c.Err)
			continue
		}
		m.ips(c.Entry, kind, c.ID, c.IPs)
		signer, err := setup.ReadSigner([]byte(c.PublicPEM), c.ID)
		if err != nil {
			m.fail(c.Entry, kind, c.ID, name, fmt.Errorf("its public key cannot be listed: %w; "+
				"add the company with another signer, signdrop init --company %s --signer KEY.pub, and run this again", err, name))
			continue
		}
		note := c.Name
		plan := setup.Plan{Company: name, Signers: []setup.Signer{signer}, Disabled: c.Status != walletkms.StatusNormal}
		if plan.Disabled {
			note += fmt.Sprintf(" (status %d: disabled)", c.Status)
		}
		if !m.dry {
			if err := m.setup(plan); err != nil {
				m.fail(c.Entry, kind, c.ID, name, err)
				continue
			}
		}
		m.companies[c.ID] = true
		m.row(c.Entry, kind, c.ID, name, m.fresh(), note)
	}
	return nil
}
