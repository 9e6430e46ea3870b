package appliance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"strings"
	"time"

	"signdrop/appliance/answer"
	"signdrop/appliance/backup"
	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/appliance/setup"
	"signdrop/spool/durable"
)

// A backup is made in a directory of its own, and moved into the administrators'
// outbox when the command is on record and its answer published:
//
//	backups/.B_….new        being written
//	backups/B_….manifest    what it holds; a later one may continue it
//	backups/B_….backup.age  made, and not handed over yet
//
// Crash: before the command is on record what was made is removed by the next start
// or made anew, and nobody has seen it. After that it lies in backups/ until it is
// moved, in one step; the command is in work/ until then, and is answered again.

const (
	manifestSuffix = ".manifest"
	// maxManifests is how many backups can be continued.
	maxManifests = 16
)

// errPutOff: the appliance was told to stop. The command is done by the next start.
var errPutOff = errors.New("stopping: the command is put off")

// backupID derives a backup's id from the command, as walletID.
func backupID(appliance string, command [32]byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "signdrop backup\x00%s\x00%x", appliance, command)
	return "B_" + hex.EncodeToString(h.Sum(nil))[:30]
}

// judgeBackup checks a backup command before anything is done.
func (a *Appliance) judgeBackup(t *task, o *outcome) error {
	if t.batch() {
		return reason.New(reason.FieldInvalid, "drop it as a file of its own", "a backup is no line of a batch").At("type")
	}
	recipients, err := setup.ReadBackupRecipients(a.root)
	if err != nil {
		return a.troubled(o, err)
	}
	if len(recipients) == 0 {
		return reason.New(reason.BackupImpossible, "have the operator run signdrop init --backup-recipient, or set SIGNDROP_BACKUP_RECIPIENTS; once they are fixed they stay",
			"nobody is fixed as a recipient of backups")
	}
	o.recipients = recipients
	if o.req.Since == "" {
		return nil
	}
	known, err := a.handedOut(o.req.Since)
	if err != nil {
		return a.troubled(o, err)
	}
	if !known {
		return reason.New(reason.BackupImpossible, "leave since out: that makes a backup of everything, which later ones can continue",
			"the backup is not one that can be continued").At("since")
	}
	return nil
}

// handedOut reports whether a backup can be continued: its manifest is here, and its
// command on record as done.
func (a *Appliance) handedOut(id string) (bool, error) {
	if !backup.ValidID(id) {
		return false, nil
	}
	f, err := a.backups.Open(id + manifestSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h, err := backup.ReadManifestHeader(f)
	if errors.Is(err, backup.ErrManifest) {
		return false, nil // half written: nobody has it
	}
	if err != nil {
		return false, err
	}
	digest, err := hex.DecodeString(h.Request)
	if err != nil || len(digest) != 32 {
		return false, nil
	}
	ev, err := a.journal.Request(setup.Administrators, [32]byte(digest))
	return ev != nil && ev.Kind == "done" && ev.Type == request.Backup, err
}

// troubled refuses a command for trouble with our own disk, of which the log tells.
func (a *Appliance) troubled(o *outcome, err error) error {
	a.log.Error().Err(err).Str("type", o.req.Type).Msg("a command cannot be carried out")
	o.passing = true
	return reason.New(reason.OperatorNeeded, "tell the appliance's operator, whose log names the cause; then drop it again",
		"there is trouble with the appliance's data volume")
}

func noRoom(need int64) *reason.Refusal {
	hint := "make room; then drop it again"
	if need > 0 {
		hint = fmt.Sprintf("make room for %d MB beside what is kept free, or continue an earlier backup with since; then drop it again", need>>20+1)
	}
	return reason.New(reason.NoRoom, hint, "the data volume has too little room for the backup")
}

// backup makes a backup. Signing goes on meanwhile, other commands wait.
func (a *Appliance) backup(t *task, o *outcome) error {
	id := backupID(a.seed, t.digest)
	b := &backupJob{a: a, t: t, o: o, id: id, began: a.cfg.Now()}
	err := b.remove() // of an earlier attempt
	if err == nil {
		err = b.run()
	}
	if err == nil {
		return nil
	}
	if rerr := b.remove(); rerr != nil {
		a.log.Warn().Err(rerr).Msg("what is left of a backup cannot be removed; the next start does it")
	}
	if errors.Is(err, errPutOff) {
		return errPutOff
	}
	if errors.Is(err, durable.ErrNoSpace) {
		err = noRoom(0)
	}
	if ref, ok := reason.As(err); ok {
		o.refusal, o.passing = ref, true
		return nil
	}
	o.refuseWith(a.troubled(o, err))
	return nil
}

// backupJob is one backup that is being made.
type backupJob struct {
	a     *Appliance
	t     *task
	o     *outcome
	id    string
	began time.Time
	told  time.Time // when its progress was told last

	out      durable.File
	sum      hash.Hash
	size     int64
	unsynced int64 // bytes written since the last sync
	total    int64
}

func (b *backupJob) remove() error {
	var errs []error
	for _, name := range []string{b.id + backup.Suffix, b.id + manifestSuffix} {
		for _, name := range []string{"." + name + ".new", name} {
			if err := b.a.backups.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (b *backupJob) run() error {
	a, d := b.a, b.a.backups
	opts := backup.Options{
		// First of all: what the journal has is in db/ and kept/ by now.
		Head:       a.journal.Head(),
		Recipients: b.o.recipients,
		Progress:   b.progress,
		Header: backup.Header{
			Backup: b.id, Request: hex.EncodeToString(b.t.digest[:]), Appliance: a.cfg.ID, Time: b.began.UTC().Format(time.RFC3339),
		},
	}
	if a.cfg.Sealer != nil {
		// A backup is for another machine, which has another key-encryption key.
		opts.Key = a.cfg.Sealer.Clear
	}
	if err := b.measure(opts.Head); err != nil {
		return err
	}
	if since := b.o.req.Since; since != "" {
		base, err := d.Open(since + manifestSuffix)
		if err != nil {
			return err
		}
		defer base.Close()
		opts.Base = backup.Whole(base)
	}
	manifest, file := b.id+manifestSuffix, b.id+backup.Suffix
	var err error
	if opts.Manifest, err = d.Create("."+manifest+".new", 0o600); err != nil {
		return err
	}
	defer opts.Manifest.Close()
	if b.out, err = d.Create("."+file+".new", 0o640); err != nil {
		return err
	}
	defer b.out.Close()
	b.sum = sha256.New()
	sum, err := backup.Write(b, a.root, opts)
	if err != nil {
		return err
	}
	if err := errors.Join(b.out.Sync(), opts.Manifest.Sync()); err != nil {
		return err
	}
	// The manifest first: a backup without one is not whole.
	if err := d.Move("."+manifest+".new", d, manifest); err != nil {
		return err
	}
	if err := d.Move("."+file+".new", d, file); err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if err := a.pruneManifests(); err != nil {
		return err
	}
	b.answer(sum, file)
	return nil
}

// measure refuses a backup of everything for which there is no room.
func (b *backupJob) measure(head journal.Head) error {
	var err error
	if b.total, err = backup.Measure(b.a.root, head); err != nil || b.o.req.Since != "" {
		return err
	}
	sp, err := b.a.vol.Space()
	if err != nil {
		return err
	}
	if need := b.total + b.total/100; sp.Free < b.a.cfg.Reserve+uint64(need) {
		return noRoom(need)
	}
	return nil
}

// pieces is after how many bytes what was written is synced, so that the sync of a
// group of requests never waits for much more, and the room looked at.
const pieces = 8 << 20

// Write writes a part of the backup.
func (b *backupJob) Write(p []byte) (int, error) {
	n, err := b.out.Write(p)
	b.sum.Write(p[:n])
	b.size += int64(n)
	b.unsynced += int64(n)
	if err != nil || b.unsynced < pieces {
		return n, err
	}
	b.unsynced = 0
	if err := b.out.Sync(); err != nil {
		return n, err
	}
	sp, err := b.a.vol.Space()
	if err == nil && !enough(sp, b.a.cfg.Reserve) {
		err = noRoom(0)
	}
	return n, err
}

// every is how often the progress of a backup is told.
const every = 5 * time.Second

func (b *backupJob) progress(done int64) error {
	a := b.a
	if a.stop != nil && a.stop.Err() != nil {
		return errPutOff
	}
	now := a.cfg.Now()
	if b.told.IsZero() {
		b.told = now
	}
	if now.Sub(b.told) < every {
		return nil
	}
	b.told = now
	done = min(done, b.total)
	a.log.Info().Str("backup", b.id).Int64("done", done).Int64("total", b.total).Msg("backup under way")
	status := answer.AppendWorking(nil, answer.Head{Request: b.t.digest}, done, b.total)
	if err := a.spool.Status(b.t.it, status); err != nil {
		a.log.Warn().Err(err).Str("name", b.t.it.SafeName()).Msg("how far the backup is cannot be told")
	}
	return nil
}

func (b *backupJob) answer(s *backup.Summary, file string) {
	h := s.Header
	b.o.done("made",
		answer.Member{Name: "backup", Value: h.Backup}, answer.Member{Name: "file", Value: file},
		answer.Member{Name: "sha256", Value: hex.EncodeToString(b.sum.Sum(nil))}, answer.Member{Name: "size", Value: b.size},
		answer.Member{Name: "since", Value: b.o.req.Since}, answer.Member{Name: "time", Value: h.Time},
		answer.Member{Name: "holds", Value: answer.Holds{Files: s.Files, New: s.Held, Wallets: s.Wallets}},
		answer.Member{Name: "head", Value: answer.End(h.Journal)})
	b.o.event.Detail = b.id
	b.a.log.Info().Str("backup", b.id).Int64("bytes", b.size).Int64("files", s.Files).Int64("new", s.Held).Int64("wallets", s.Wallets).
		Uint64("seq", h.Journal.Seq).Dur("took", b.a.cfg.Now().Sub(b.began)).Msg("backup made")
}

// handOver has the backup go out with the answer.
func (a *Appliance) handOver(t *task) {
	t.handsOut = true
	a.spool.Hand(t.it, a.backups, backupID(a.seed, t.digest)+backup.Suffix)
}

// pruneManifests removes the oldest manifests, but for those of backups that are not
// handed over.
func (a *Appliance) pruneManifests() error {
	type known struct {
		name string
		seq  uint64
	}
	var list []known
	waits := map[string]bool{}
	err := durable.Walk(a.backups, func(e durable.Entry) error {
		if id, ok := strings.CutSuffix(e.Name, backup.Suffix); ok {
			waits[id+manifestSuffix] = true
		}
		if e.Name[0] == '.' || !strings.HasSuffix(e.Name, manifestSuffix) {
			return nil
		}
		f, err := a.backups.Open(e.Name)
		if err != nil {
			return err
		}
		defer f.Close()
		k := known{name: e.Name}
		h, err := backup.ReadManifestHeader(f)
		if err == nil {
			k.seq = h.Journal.Seq
		} else if !errors.Is(err, backup.ErrManifest) {
			return err
		}
		list = append(list, k)
		return nil
	})
	if err != nil || len(list) <= maxManifests {
		return err
	}
	slices.SortFunc(list, func(x, y known) int { return int(int64(x.seq) - int64(y.seq)) })
	for _, k := range list[:len(list)-maxManifests] {
		if waits[k.name] {
			continue
		}
		if err := a.backups.Remove(k.name); err != nil {
			return err
		}
	}
	return nil
}

// tidyBackups removes what a crash has left: what is half made, and what is of a
// command that is not on record, which makes it anew.
func (a *Appliance) tidyBackups() error {
	return durable.Walk(a.backups, func(e durable.Entry) error {
		id, ok := strings.CutSuffix(e.Name, manifestSuffix)
		if !ok {
			id, ok = strings.CutSuffix(e.Name, backup.Suffix)
		}
		if ok && e.Name[0] != '.' {
			known, err := a.handedOut(id)
			if err != nil || known {
				return err
			}
		}
		err := a.backups.Remove(e.Name)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	})
}

// openRestored looks whether the volume came from a backup. If it did, that is put on
// record once, and until the administrators have accepted it no company is served:
// what was signed after the backup is forgotten, and only people can see to it that
// this does no harm.
func (a *Appliance) openRestored() error {
	r, accepted, err := setup.ReadRestored(a.root)
	if err != nil {
		return err
	}
	a.restored, a.seed = r, a.cfg.ID
	if r == nil {
		return nil
	}
	a.seed += "\x00" + r.Restore
	a.held.Store(!accepted)
	if err := a.recordRestored(r); err != nil {
		return fmt.Errorf("recording the restore: %w", err)
	}
	if !accepted {
		a.log.Warn().Str("restore", r.Restore).Str("backup", r.Backup).Str("backup_time", r.Time).Uint64("seq", r.Seq).
			Msg("this volume was restored from a backup: companies are not served until the administrators accept it (restore.accept)")
	}
	return nil
}

// recordRestored writes the journal's event. Its request is the digest of what it
// tells, by which the next start finds that it is on record.
func (a *Appliance) recordRestored(r *setup.Restored) error {
	known, err := a.journal.Request(setup.Administrators, r.Digest)
	if err != nil || known != nil {
		return err
	}
	ev := &journal.Event{Kind: "restored", Company: setup.Administrators, Request: r.Digest, Detail: r.Text}
	if err := a.journal.Write([]*journal.Event{ev}); err != nil {
		return err
	}
	if err := a.vol.Sync(); err != nil {
		return err
	}
	a.journal.Synced()
	return nil
}

func (a *Appliance) acceptRestore(o *outcome) error {
	if err := setup.AcceptRestore(a.root, a.cfg.Access, o.req.Restore); err != nil {
		return a.lacksRight(o, err)
	}
	a.held.Store(false)
	a.freed.Store(true)
	a.log.Info().Str("restore", o.req.Restore).Msg("the restore is accepted: companies are served again")
	a.Wake()
	o.done("accepted", answer.Member{Name: "restore", Value: o.req.Restore})
	o.event.Detail = o.req.Restore
	return nil
}
