package appliance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rs/zerolog"

	"signdrop/appliance"
	"signdrop/appliance/answer"
	"signdrop/appliance/backup"
	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/appliance/setup"
	"signdrop/appliance/testbed"
	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// keeper is who can open the backups of the tests. Its key is fixed, so that what is
// committed can be opened.
var keeper = func() *age.X25519Identity {
	text, err := os.ReadFile("testdata/backup/keeper.txt")
	if err != nil {
		panic(err)
	}
	id, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		panic(err)
	}
	return id
}()

// keptBy fixes who can open the backups of a rig.
func (r *rig) keptBy(ids ...*age.X25519Identity) {
	r.t.Helper()
	plan := setup.Plan{}
	for _, id := range ids {
		plan.BackupRecipients = append(plan.BackupRecipients, id.Recipient().String())
	}
	_, err := setup.Make(r.root, nil, plan)
	r.ok(err)
}

// backup has a backup made and returns its answer and its file.
func (r *rig) backup(name, since string) (*answer.Answer, string) {
	r.t.Helper()
	text := fmt.Sprintf(`{"type":"backup","reference":%q}`, name)
	if since != "" {
		text = fmt.Sprintf(`{"type":"backup","since":%q,"reference":%q}`, since, name)
	}
	r.command(name+".json", text, ann, bob)
	a := r.done(name + ".json")
	file := r.path("spool", "admin", "outbox", a.File)
	data, err := os.ReadFile(file)
	r.ok(err)
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.SHA256 || int64(len(data)) != a.Size {
		r.t.Errorf("the answer says %s and %d bytes, the file has %x and %d", a.SHA256, a.Size, sum, len(data))
	}
	if a.Verdict != "made" || a.Since != since || !strings.HasPrefix(a.Backup, "B_") || a.File != a.Backup+".backup.age" {
		r.t.Errorf("answer: %+v", a)
	}
	return a, file
}

func source(file string) backup.Source {
	return backup.Source{Name: filepath.Base(file), Open: func() (io.ReadCloser, error) { return os.Open(file) }}
}

func bytesSource(name string, data []byte) backup.Source {
	return backup.Source{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// restored is a rig on a volume that was restored from backups of r.
func (r *rig) restored(files ...string) (*rig, *backup.Report) {
	r.t.Helper()
	n := &rig{t: r.t, dir: r.t.TempDir(), acme: r.acme, cfg: r.cfg}
	r.ok(os.Chmod(n.dir, 0o700))
	var err error
	n.vol, err = durable.OpenDisk(n.dir)
	r.ok(err)
	n.root, err = n.vol.Root()
	r.ok(err)
	r.t.Cleanup(func() { n.root.Close(); n.vol.Close() })
	n.cfg.Watch = n.dir
	var sources []backup.Source
	for _, f := range files {
		sources = append(sources, source(f))
	}
	report, err := backup.Restore(n.vol, sources, backup.RestoreOptions{Identities: []age.Identity{keeper}})
	r.ok(err)
	if len(report.Damaged) > 0 {
		r.t.Errorf("damaged: %v", report.Damaged)
	}
	return n, report
}

// accept has the administrators accept a restore.
func (r *rig) accept(rep *backup.Report) {
	r.t.Helper()
	r.command("accept.json", fmt.Sprintf(`{"type":"restore.accept","restore":%q}`, rep.Restore), ann, bob)
	if a := r.done("accept.json"); a.Verdict != "accepted" || a.Restore != rep.Restore {
		r.t.Errorf("accepting: %+v", a)
	}
}

// ask drops a request and returns the bytes of its answer.
func (r *rig) ask(name string, data []byte) []byte {
	r.t.Helper()
	r.drop(r.acme, name, data)
	return r.wait("spool", "acme", "outbox", answerName(name))
}

// TestBackupDrill: a volume is backed up while it works, restored into an empty one,
// and both answer the same requests with the same bytes: those that were answered
// before and those that were not.
func TestBackupDrill(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	plantDataKey(t, r)
	stop := r.serve()
	asked := map[string][]byte{}
	answers := map[string][]byte{}
	ask := func(name string, data []byte) {
		t.Helper()
		asked[name], answers[name] = data, r.ask(name, data)
	}
	wallets := map[string]string{}
	for _, curve := range []string{"P-256", "P-384", "P-521", "secp256k1"} {
		wallets[curve] = r.wallet(curve)
		ask("old-"+curve+".json", testbed.DataRequest(wallets[curve], "old "+curve))
	}
	ask("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, wallets["P-384"], testbed.Address("from")))
	ask("pay.json", testbed.Transfer(testbed.Address("from"), "pay"))
	ask("list.json", []byte(`{"type":"wallet.list"}`)) // cannot be made again: it is kept
	ask("run.jsonl", append(testbed.DataRequest(wallets["P-256"], "1"), testbed.DataRequest(wallets["P-384"], "2")...))
	full, first := r.backup("full", "")
	if full.Holds.Wallets != 4 || full.Holds.New != full.Holds.Files || full.Head.Seq == 0 {
		t.Errorf("the backup holds %+v, head %+v", full.Holds, full.Head)
	}
	wallets["new"] = r.answer("new.json", []byte(`{"type":"wallet.create","curve":"P-384","reference":"new"}`)).Wallet
	ask("new-1.json", testbed.DataRequest(wallets["new"], "new"))
	inc, second := r.backup("inc", full.Backup)
	if inc.Holds.New >= inc.Holds.Files || inc.Holds.Wallets != 5 || inc.Size >= full.Size {
		t.Errorf("the increment holds %+v in %d bytes", inc.Holds, inc.Size)
	}
	ask("later.json", testbed.DataRequest(wallets["P-521"], "later")) // after the backup
	stop()

	n, rep := r.restored(first, second)
	if rep.Wallets != 5 || rep.DataKeys != 1 || rep.Newest.Backup != inc.Backup || !slices.Equal(rep.Digests, []string{full.SHA256, inc.SHA256}) {
		t.Errorf("report: %+v", rep)
	}
	stopN := n.serve()
	// Companies wait until it is accepted, and not with another restore's id.
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		n.drop(n.acme, name, asked[name])
	}
	n.command("wrong.json", `{"type":"restore.accept","restore":"R_00000000000000000000000000000f"}`, ann, bob)
	n.refusedCommand("wrong.json", reason.FieldInvalid)
	for name := range asked {
		if exists(n.path("spool", "acme", "outbox", answerName(name))) {
			t.Errorf("%s was answered before the restore was accepted", name)
		}
	}
	n.accept(rep)
	for name, want := range answers {
		got := n.wait("spool", "acme", "outbox", answerName(name))
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the restored appliance answers\n%s\ninstead of\n%s", name, got, want)
		}
	}
	// What was never asked: the same bytes too, by both.
	stop = r.serve()
	for curve, w := range wallets {
		data := testbed.DataRequest(w, "fresh "+curve)
		if a, b := r.ask("fresh-"+curve+".json", data), n.ask("fresh-"+curve+".json", data); !bytes.Equal(a, b) {
			t.Errorf("%s: the two sign otherwise:\n%s\n%s", curve, a, b)
		}
	}
	// A wallet that is asked for in the same words on both has two ids, so that
	// nobody takes one key for the other.
	data := []byte(`{"type":"wallet.create","curve":"P-256","reference":"after"}`)
	if a, b := r.answer("after.json", data), n.answer("after.json", data); a.Wallet == b.Wallet {
		t.Errorf("both have a wallet %s, with the keys\n%s%s", a.Wallet, a.PublicKey, b.PublicKey)
	}
	// The old chain ends with the old volume.
	n.command("chain.json", fmt.Sprintf(`{"type":"backup","since":%q}`, inc.Backup), ann, bob)
	n.refusedCommand("chain.json", reason.BackupImpossible)
	n.backup("anew", "")
	stop()
	events := 0
	d, err := n.root.Sub("journal")
	n.ok(err)
	defer d.Close()
	stopN()
	n.ok(journal.Each(d, func(_ journal.Place, e *journal.Event) error {
		if e.Kind == "restored" {
			events++
			if !strings.Contains(e.Detail, inc.Backup) || !strings.Contains(e.Detail, rep.Restore) || !strings.Contains(e.Detail, inc.Time) {
				t.Errorf("the journal says of the restore: %s", e.Detail)
			}
		}
		return nil
	}))
	if events != 1 {
		t.Errorf("the journal has %d events of a restore, want 1", events)
	}
}

// TestBackupRefused: what cannot be backed up is told, and leaves nothing.
func TestBackupRefused(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	stop := r.serve()
	r.command("early.json", `{"type":"backup"}`, ann, bob)
	r.refusedCommand("early.json", reason.BackupImpossible)
	r.keptBy(keeper)
	r.command("unknown.json", `{"type":"backup","since":"B_0123456789abcdef0123456789abcd"}`, ann, bob)
	r.refusedCommand("unknown.json", reason.BackupImpossible)
	r.command("strange.json", `{"type":"backup","since":"../../db"}`, ann, bob)
	r.refusedCommand("strange.json", reason.BackupImpossible)
	r.command("accept.json", `{"type":"restore.accept","restore":"R_0123456789abcdef0123456789abcd"}`, ann, bob)
	r.refusedCommand("accept.json", reason.FieldInvalid)
	r.command("batch.jsonl", `{"type":"backup"}`+"\n", ann, bob)
	if a := r.done("batch.jsonl"); a.Code != string(reason.FieldInvalid) || a.Field != "type" {
		t.Errorf("a line of a batch: %+v", a)
	}
	r.drop(r.acme, "mine.json", []byte(`{"type":"backup"}`))
	if got := r.reason("mine"); got.Code != string(reason.TypeUnknown) {
		t.Errorf("a company's backup: %+v", got)
	}
	// What cannot be put into it is not left out in silence.
	r.ok(os.Symlink("/etc/passwd", r.path("db", "companies", "acme", "link")))
	r.command("link.json", `{"type":"backup","reference":"link"}`, ann, bob)
	r.refusedCommand("link.json", reason.OperatorNeeded)
	if !strings.Contains(r.log.String(), "db/companies/acme/link is neither a file nor a directory") {
		t.Error("the log does not name what is in the way")
	}
	r.ok(os.Remove(r.path("db", "companies", "acme", "link")))
	r.empty("backups")
	r.backup("now", "")
	stop()
	r.check(true)
}

// TestRecipientsOnce: whom backups go to is fixed once.
func TestRecipientsOnce(t *testing.T) {
	r := newRig(t)
	other, err := age.GenerateX25519Identity()
	r.ok(err)
	r.keptBy(other, keeper)
	r.keptBy(keeper, other) // the same, in another order
	plan := func(list ...string) error {
		_, err := setup.Make(r.root, nil, setup.Plan{BackupRecipients: list})
		return err
	}
	if err := plan(keeper.Recipient().String()); err == nil || !strings.Contains(err.Error(), "fixed already") {
		t.Errorf("other recipients: %v", err)
	}
	// Recipients that stand against quantum computers are as good, but not beside
	// others: the weakest would decide.
	pq, err := age.GenerateHybridIdentity()
	r.ok(err)
	if err := plan(pq.Recipient().String(), keeper.Recipient().String()); err == nil || !strings.Contains(err.Error(), "together") {
		t.Errorf("two kinds of recipients: %v", err)
	}
	for _, bad := range []string{"", "age1nobody", keeper.String(), "ssh-ed25519 AAAA"} {
		if err := plan(bad); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q as recipient: %v", bad, err)
		}
	}
}

// gate is a volume on which one file can be opened only when it is let.
type gate struct {
	durable.FS
	name    string
	reached chan struct{}
	open    chan struct{}
	once    *sync.Once
}

type gateDir struct {
	durable.Dir
	g *gate
}

func (g *gate) Root() (durable.Dir, error) {
	d, err := g.FS.Root()
	return &gateDir{d, g}, err
}

func (d *gateDir) Sub(name string) (durable.Dir, error) {
	s, err := d.Dir.Sub(name)
	if err != nil {
		return nil, err
	}
	return &gateDir{s, d.g}, nil
}

func under(d durable.Dir) durable.Dir {
	if g, ok := d.(*gateDir); ok {
		return g.Dir
	}
	return d
}

func (d *gateDir) Move(name string, to durable.Dir, toName string) error {
	return d.Dir.Move(name, under(to), toName)
}

func (d *gateDir) MoveOver(name string, to durable.Dir, toName string) error {
	return d.Dir.MoveOver(name, under(to), toName)
}

func (d *gateDir) Open(name string) (durable.File, error) {
	if name == d.g.name {
		d.g.once.Do(func() { close(d.g.reached) })
		<-d.g.open
	}
	return d.Dir.Open(name)
}

// TestBackupBeside: while a backup is read requests are answered, with whatever
// number of workers, other commands wait, and what is made meanwhile is no reason to
// stop. Told to stop, the appliance does not wait for it; the next start makes it.
func TestBackupBeside(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "zz-gate"), []byte("held\n"), 0o600))
	g := &gate{FS: r.vol, name: "zz-gate", reached: make(chan struct{}), open: make(chan struct{}), once: &sync.Once{}}
	r.cfg.Workers = 1
	a, err := appliance.Open(g, r.cfg)
	r.ok(err)
	r.cfg.AllowNew = false
	begin, done := background(a)
	begin()
	w := r.wallet("P-256")
	r.command("full.json", `{"type":"backup"}`, ann, bob)
	<-g.reached
	for i := range 20 {
		r.ask(fmt.Sprintf("p%d.json", i), testbed.DataRequest(w, fmt.Sprint(i)))
	}
	r.until("what was answered is put away", func() bool { return len(files(t, r.path("work", "acme"))) == 0 })
	r.wallet("P-384")
	r.command("list.json", `{"type":"company.list"}`, ann, bob)
	r.ask("last.json", testbed.DataRequest(w, "last"))
	if exists(r.path("spool", "admin", "outbox", "list.result.json")) {
		t.Error("another command was carried out while the backup was read")
	}
	done.stop()
	close(g.open)
	r.ok(done.wait())
	r.ok(a.Close())
	for _, name := range files(t, r.path("spool", "admin", "outbox")) {
		if strings.Contains(name, "backup") || strings.Contains(name, "result") {
			t.Errorf("the outbox holds %s although the appliance was stopped", name)
		}
	}

	stop := r.serve()
	full := r.done("full.json")
	if full.Holds.Wallets != 2 || !exists(r.path("spool", "admin", "outbox", full.File)) {
		t.Errorf("answer: %+v", full)
	}
	r.done("list.json")
	stop()
	r.check(true)
}

// TestBackupTold: how far a backup is stands in the log and beside the answer to come.
func TestBackupTold(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "zz-gate"), []byte("held\n"), 0o600))
	g := &gate{FS: r.vol, name: "zz-gate", reached: make(chan struct{}), open: make(chan struct{}), once: &sync.Once{}}
	var later atomic.Int64 // how far the clock is ahead
	r.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	// Nothing is refused for being still, whatever the clock shows.
	r.cfg.Still, r.cfg.SigWait, r.cfg.ApprovalWait = time.Hour, time.Hour, time.Hour
	a, err := appliance.Open(g, r.cfg)
	r.ok(err)
	begin, done := background(a)
	begin()
	r.command("full.json", `{"type":"backup"}`, ann, bob)
	<-g.reached
	later.Store(int64(10 * time.Second))
	close(g.open)
	r.done("full.json")
	done.stop()
	r.ok(done.wait())
	r.ok(a.Close())
	if !strings.Contains(r.log.String(), `"message":"backup under way"`) {
		t.Error("the log does not tell how far the backup was")
	}
	if exists(r.path("spool", "admin", "outbox", "full.status.json")) {
		t.Error("the status is there although the command is answered")
	}
}

type ending struct {
	stop func()
	wait func() error
}

// background runs an appliance.
func background(a *appliance.Appliance) (begin func(), end *ending) {
	ctx, cancel := context.WithCancel(context.Background())
	res := make(chan error, 1)
	return func() { go func() { res <- a.Serve(ctx) }() }, &ending{cancel, func() error { return <-res }}
}

// files are the paths of all files below a directory.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(p, dir+"/"))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return list
}

// TestRestoreRefused: what is damaged, incomplete or not meant for this is refused, and
// the directory is as empty as it was.
func TestRestoreRefused(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	r.serve()
	w := r.wallet("P-256")
	a1, f1 := r.backup("one", "")
	r.ask("x.json", testbed.DataRequest(w, "x"))
	a2, f2 := r.backup("two", a1.Backup)
	r.ask("y.json", testbed.DataRequest(w, "y"))
	_, f3 := r.backup("three", a2.Backup)
	_, other := r.backup("other", a1.Backup) // a second one after the first
	_, again := r.backup("again", "")

	foreign := newRig(t)
	foreign.cfg.ID = "SD_7766554433221100"
	foreign.admins(2)
	foreign.keptBy(keeper)
	foreign.serve()
	fa, _ := foreign.backup("one", "")
	_, f4 := foreign.backup("two", fa.Backup)
	nobody, err := age.GenerateX25519Identity()
	r.ok(err)
	whole, err := os.ReadFile(f1)
	r.ok(err)

	dir := t.TempDir()
	try := func(name, want string, id age.Identity, sources ...backup.Source) {
		t.Helper()
		vol, err := durable.OpenDisk(dir)
		r.ok(err)
		defer vol.Close()
		_, err = backup.Restore(vol, sources, backup.RestoreOptions{Identities: []age.Identity{id}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error holds a key", name)
		}
		list, err := os.ReadDir(dir)
		r.ok(err)
		if len(list) > 0 {
			t.Fatalf("%s: the directory holds %v", name, list)
		}
	}
	try("nothing", "no backup", keeper)
	try("another's key", "no identity that was given opens it", nobody, source(f1))
	try("an increment alone", "give the backup of everything first", keeper, source(f2))
	try("a gap", "give all increments, in order", keeper, source(f1), source(f3))
	try("another branch", "give all increments, in order", keeper, source(f1), source(other), source(f3))
	try("the wrong order", "give all increments, in order", keeper, source(f1), source(f3), source(f2))
	try("two whole ones", "give it alone, or first", keeper, source(f1), source(again))
	try("another's increment", "give those of one appliance", keeper, source(f1), source(f4))
	try("no backup", "does not begin as an age file", keeper, bytesSource("x", []byte("hello")))
	try("nothing in it", "does not begin as an age file", keeper, bytesSource("x", nil))
	cuts := []int{1, 100, 250, len(whole) / 3, len(whole) / 2, len(whole) - 17, len(whole) - 1}
	for _, n := range cuts {
		try(fmt.Sprintf("the first %d bytes of %d", n, len(whole)), "", keeper, bytesSource("x", whole[:n]))
		bad := bytes.Clone(whole)
		bad[n] ^= 1
		try(fmt.Sprintf("byte %d of %d changed", n, len(whole)), "", keeper, bytesSource("x", bad))
	}
	try("more than it", "damaged or cut off", keeper, bytesSource("x", append(bytes.Clone(whole), 0)))

	// Not over anything, be it an appliance or somebody's file.
	for _, c := range []string{"journal", "readme"} {
		r.ok(os.WriteFile(filepath.Join(dir, c), []byte("mine"), 0o600))
		vol, err := durable.OpenDisk(dir)
		r.ok(err)
		if _, err = backup.Restore(vol, []backup.Source{source(f1)}, backup.RestoreOptions{Identities: []age.Identity{keeper}}); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("over %s: %v", c, err)
		}
		vol.Close()
		if got := files(t, dir); !slices.Equal(got, []string{c}) {
			t.Errorf("over %s: the directory holds %v", c, got)
		}
		r.ok(os.Remove(filepath.Join(dir, c)))
	}
	n, rep := r.restored(f1, f2, f3)
	n.serve()
	n.accept(rep)
	n.ask("y.json", testbed.DataRequest(w, "y"))
}

// TestRestoreRemoved: what was taken away since the backup of everything does not come
// back with its increments.
func TestRestoreRemoved(t *testing.T) {
	r := newRig(t, "beta")
	r.admins(2)
	r.keptBy(keeper)
	stop := r.serve()
	w := r.wallet("P-384")
	r.ask("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, w, testbed.Address("wrong")))
	a1, f1 := r.backup("one", "")
	r.command("rebind.json", fmt.Sprintf(`{"type":"wallet.bind","company":"acme","wallet":%q,"address":%q}`, w, testbed.Address("from")), ann, bob)
	r.done("rebind.json")
	stop()
	r.ok(os.Rename(r.path("db", "companies", "beta"), r.path("beta")))
	stop = r.serve()
	_, f2 := r.backup("two", a1.Backup)
	stop()
	n, rep := r.restored(f1, f2)
	if exists(n.path("db", "companies", "beta")) || exists(n.path("spool", "beta")) {
		t.Error("a company came back that was taken away")
	}
	if list := files(t, n.path("db", "companies", "acme", "addresses")); !slices.Equal(list, []string{testbed.Address("from")}) {
		t.Errorf("addresses: %v", list)
	}
	n.serve()
	n.accept(rep)
	n.ask("pay.json", testbed.Transfer(testbed.Address("from"), "pay"))
}

// TestRestoreDamagedKey: a key that was damaged before the backup is told, and keeps
// nobody from the others.
func TestRestoreDamagedKey(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	stop := r.serve()
	bad, good := r.wallet("P-256"), r.wallet("P-384")
	stop()
	key := r.path("db", "companies", "acme", "wallets", bad, "key.pem")
	text, err := os.ReadFile(r.path("db", "companies", "acme", "wallets", good, "key.pem"))
	r.ok(err)
	r.ok(os.Remove(key))
	r.ok(os.WriteFile(key, text, 0o400))
	stop = r.serve()
	_, file := r.backup("one", "")
	stop()
	vol, err := durable.OpenDisk(t.TempDir())
	r.ok(err)
	defer vol.Close()
	rep, err := backup.Restore(vol, []backup.Source{source(file)}, backup.RestoreOptions{Identities: []age.Identity{keeper}})
	r.ok(err)
	if len(rep.Damaged) != 1 || rep.Wallets != 2 || !strings.Contains(rep.Damaged[0].Error(), bad) {
		t.Errorf("damaged: %v of %d", rep.Damaged, rep.Wallets)
	}
}

// TestUnfinishedRestore: a volume with the marker of a restore is of no use to anybody.
func TestUnfinishedRestore(t *testing.T) {
	r := newRig(t)
	r.ok(os.Mkdir(r.path("restoring"), 0o700))
	if _, err := appliance.Open(r.vol, r.cfg); !errors.Is(err, setup.ErrRestoring) {
		t.Errorf("opening it: %v", err)
	}
	if _, err := setup.Make(r.root, nil, setup.Plan{}); !errors.Is(err, setup.ErrRestoring) {
		t.Errorf("setting it up: %v", err)
	}
	// A volume that was served is not wiped for it.
	r.ok(os.WriteFile(r.path("db", "appliance", "lock"), nil, 0o600))
	before := files(t, r.dir)
	_, err := backup.Restore(r.vol, []backup.Source{source("testdata/backup/full.backup.age")}, backup.RestoreOptions{Identities: []age.Identity{keeper}})
	if err == nil || !strings.Contains(err.Error(), "was served") || !slices.Equal(files(t, r.dir), before) {
		t.Errorf("restoring into it: %v", err)
	}
}

// TestPrunedManifests: the manifests do not grow without end, and the newest can be
// continued.
func TestPrunedManifests(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	stop := r.serve()
	first, _ := r.backup("b0", "")
	last := first
	for i := range 17 {
		last, _ = r.backup(fmt.Sprintf("b%d", i+1), last.Backup)
	}
	if list := files(t, r.path("backups")); len(list) != 16 {
		t.Errorf("backups holds %d files: %v", len(list), list)
	}
	r.command("old.json", fmt.Sprintf(`{"type":"backup","since":%q}`, first.Backup), ann, bob)
	r.refusedCommand("old.json", reason.BackupImpossible)
	stop()
	r.check(true)
}

// TestRestoreElsewhere restores a backup that was made on amd64, wherever this test
// runs, and signs: the same bytes come out. With -update it makes the backup.
func TestRestoreElsewhere(t *testing.T) {
	dir, err := filepath.Abs("testdata/backup")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	if *update {
		r.admins(2)
		r.keptBy(keeper)
		plantDataKey(t, r)
		stop := r.serve()
		var requests []byte
		for _, curve := range []string{"P-256", "P-384", "P-521", "secp256k1"} {
			w := r.wallet(curve)
			requests = append(requests, testbed.DataRequest(w, "after "+curve)...)
			if curve == "P-384" {
				r.ask("bind.json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, w, testbed.Address("from")))
				requests = append(requests, testbed.Transfer(testbed.Address("from"), "after")...)
			}
		}
		old := []byte(`{"type":"wallet.list"}`)
		write := func(name string, data []byte) { r.ok(os.WriteFile(filepath.Join(dir, name), data, 0o644)) }
		write("old.json", old)
		write("old.result.json", r.ask("old.json", old))
		full, f1 := r.backup("full", "")
		r.ask("between.json", requests[:bytes.IndexByte(requests, '\n')+1])
		_, f2 := r.backup("increment", full.Backup)
		write("after.jsonl", requests)
		write("after.result.jsonl", r.ask("after.jsonl", requests))
		stop()
		for name, from := range map[string]string{"full.backup.age": f1, "increment.backup.age": f2} {
			data, err := os.ReadFile(from)
			r.ok(err)
			write(name, data)
		}
	}
	n, rep := r.restored(filepath.Join(dir, "full.backup.age"), filepath.Join(dir, "increment.backup.age"))
	if rep.Wallets != 4 || rep.DataKeys != 1 {
		t.Errorf("report: %+v", rep)
	}
	n.serve()
	n.accept(rep)
	for _, name := range []string{"old.json", "after.jsonl"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		r.ok(err)
		want, err := os.ReadFile(filepath.Join(dir, answerName(name)))
		r.ok(err)
		if got := n.ask(name, data); !bytes.Equal(got, want) {
			t.Errorf("%s is answered here with\n%s\nand where the backup was made with\n%s", name, got, want)
		}
	}
}

// TestBackupUnderLoad: backups that are made while wallets are made, bound, used and
// listed have, each of them, everything that its journal speaks of.
func TestBackupUnderLoad(t *testing.T) {
	r := newRig(t)
	r.cfg.Log = zerolog.Nop()
	r.admins(2)
	r.keptBy(keeper)
	stop := r.serve()
	var wg sync.WaitGroup
	var halt atomic.Bool
	var made atomic.Int64
	for worker := range 3 {
		wg.Go(func() {
			ask := func(name string, data []byte) []byte {
				if err := r.acme.Drop(r.root, name, data); err != nil {
					t.Error(err)
					halt.Store(true)
				}
				for end := time.Now().Add(patience); !halt.Load() && time.Now().Before(end); tick() {
					if data, err := os.ReadFile(r.path("spool", "acme", "outbox", answerName(name))); err == nil {
						return data
					}
				}
				return nil
			}
			for i := 0; !halt.Load(); i++ {
				name := fmt.Sprintf("%d-%d", worker, i)
				a, err := answer.Parse(ask("w"+name+".json", fmt.Appendf(nil, `{"type":"wallet.create","curve":"P-256","reference":%q}`, name)))
				if err != nil {
					return // halted
				}
				ask("b"+name+".json", fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, a.Wallet, testbed.Address(name)))
				ask("s"+name+".json", testbed.DataRequest(a.Wallet, name))
				ask("l"+name+".json", fmt.Appendf(nil, `{"type":"wallet.list","limit":1,"reference":%q}`, name))
				made.Add(1)
			}
		})
	}
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	var files []string
	since := ""
	for i := range rounds {
		if i%4 == 0 {
			files, since = nil, ""
		}
		was := made.Load()
		r.until("something was made since", func() bool { return made.Load() > was || t.Failed() })
		a, file := r.backup(fmt.Sprint("b", i), since)
		files, since = append(files, file), a.Backup
		n, rep := r.restored(files...)
		n.holdsWhatItSays(rep)
	}
	halt.Store(true)
	wg.Wait()
	stop()
	t.Logf("%d wallets were made, bound and used", made.Load())
}

// holdsWhatItSays checks that a volume that was restored, and not yet served, has all
// that its journal speaks of.
func (r *rig) holdsWhatItSays(rep *backup.Report) {
	r.t.Helper()
	db, err := r.root.Sub("db")
	r.ok(err)
	defer db.Close()
	keys, err := keyfs.Open(db, keyfs.Options{})
	r.ok(err)
	d, err := r.root.Sub("journal")
	r.ok(err)
	defer d.Close()
	var last uint64
	r.ok(journal.Each(d, func(_ journal.Place, e *journal.Event) error {
		last = e.Seq
		switch e.Kind {
		case "created":
			if _, err := keys.Lookup("acme", e.Wallet); err != nil {
				r.t.Errorf("entry %d made wallet %s: %v", e.Seq, e.Wallet, err)
			}
		case "bound":
			if w, err := keys.ByAddress("acme", e.Detail); err != nil || w.ID() != e.Wallet {
				r.t.Errorf("entry %d bound %s to %s: %v", e.Seq, e.Wallet, e.Detail, err)
			}
		case "done":
			name := hex.EncodeToString(e.Request[:])
			data, err := os.ReadFile(r.path("kept", e.Company, name[:2], name))
			if err != nil || sha256.Sum256(data) != e.Result {
				r.t.Errorf("entry %d has an answer that is not kept: %v", e.Seq, err)
			}
		}
		return nil
	}))
	if last != rep.Newest.Journal.Seq {
		r.t.Errorf("the journal ends with %d, the backup says %d", last, rep.Newest.Journal.Seq)
	}
}

// TestBackupWhileBinding: a wallet is bound after it was read and before the addresses
// are. What is restored is as if the machine had stopped within the binding, which
// doing it again finishes.
func TestBackupWhileBinding(t *testing.T) {
	r := newRig(t)
	r.admins(2)
	r.keptBy(keeper)
	r.ok(os.WriteFile(r.path("db", "companies", "acme", "m-gate"), []byte("between\n"), 0o600))
	g := &gate{FS: r.vol, name: "m-gate", reached: make(chan struct{}), open: make(chan struct{}), once: &sync.Once{}}
	a, err := appliance.Open(g, r.cfg)
	r.ok(err)
	begin, done := background(a)
	begin()
	w := r.wallet("P-384")
	r.command("full.json", `{"type":"backup"}`, ann, bob)
	<-g.reached
	bind := fmt.Appendf(nil, `{"type":"wallet.bind","wallet":%q,"address":%q}`, w, testbed.Address("from"))
	bound := r.ask("bind.json", bind)
	late := r.wallet("P-256") // after the wallets were read
	close(g.open)
	full := r.done("full.json")
	done.stop()
	r.ok(done.wait())
	r.ok(a.Close())
	r.cfg.AllowNew = false
	n, rep := r.restored(r.path("spool", "admin", "outbox", full.File))
	if rep.Wallets != 1 || exists(n.path("db", "companies", "acme", "wallets", late)) {
		t.Errorf("%d wallets came back", rep.Wallets)
	}
	n.serve()
	n.accept(rep)
	if again := n.ask("bind.json", bind); !bytes.Equal(again, bound) {
		t.Errorf("binding again is answered %s, and was %s", again, bound)
	}
	n.ask("pay.json", testbed.Transfer(testbed.Address("from"), "pay"))
}
