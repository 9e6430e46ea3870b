package backup

import (
	"archive/tar"
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"signdrop/appliance/auth"
	"signdrop/appliance/journal"
	"signdrop/appliance/setup"
	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// Source is a backup file.
type Source struct {
	Name string // for messages
	Open func() (io.ReadCloser, error)
}

// RestoreOptions are what Restore needs beside the backups.
type RestoreOptions struct {
	Identities []age.Identity // one of them opens the backups
	Access     setup.Access   // as for setup.Make
	Now        func() time.Time

	// Progress, if not nil, is told what is being done, and how many bytes of it are.
	Progress func(what string, done int64)
}

// Report says what a restore brought back.
type Report struct {
	Restore  string   // its id, R_…, which the administrators accept
	Newest   Header   // of the newest backup
	Digests  []string // SHA-256 of each backup file, to be held against a note
	Files    int64
	Bytes    int64
	Wallets  int64
	DataKeys int64

	// Damaged are keys that are as they were when the backup was made, and of no
	// use.
	Damaged []error
}

// Restore puts a backup of everything and the increments that follow it, in order,
// into an empty volume. It returns when all of it is durable and was verified, read
// from the disk again: each file's digest, each private key against its public key,
// and the journal's chain to its head. After an error the volume is empty as before;
// where that could not be brought about, or after a crash, it has restoring/ and is
// refused by all but another Restore, which begins anew.
func Restore(vol durable.FS, sources []Source, o RestoreOptions) (*Report, error) {
	if len(sources) == 0 {
		return nil, errors.New("no backup was given")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(string, int64) {}
	}
	root, err := vol.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r := &restorer{vol: vol, root: root, o: o, report: &Report{}}
	if err := r.checkEmpty(); err != nil {
		return nil, err
	}
	if err := r.checkChain(sources); err != nil {
		return nil, err
	}
	if err := r.run(sources); err != nil {
		return nil, errors.Join(err, r.abandon())
	}
	return r.report, nil
}

type restorer struct {
	vol     durable.FS
	root    durable.Dir
	marker  durable.Dir // restoring/
	o       RestoreOptions
	headers []*Header
	report  *Report
}

// checkEmpty refuses a volume in which something lies, unless it is what a restore
// left that was not finished.
func (r *restorer) checkEmpty() error {
	var first string
	unfinished := false
	err := durable.Walk(r.root, func(e durable.Entry) error {
		switch {
		case e.Name == setup.RestoringDir:
			unfinished = true
		case e.Name != "lost+found" && first == "":
			first = e.Name
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking whether the volume is empty: %w", err)
	}
	if unfinished {
		// What is there will be removed: it must not be what somebody has worked with.
		d, err := durable.SubPath(r.root, "db", "appliance")
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer d.Close()
		if _, err = d.Stat(setup.LockFile); err == nil {
			return fmt.Errorf("%s lies on a volume that was served: remove it, if that is a mistake; nothing was touched", setup.RestoringDir)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if first != "" {
		return fmt.Errorf("the volume is not empty, there is %s: restore into an empty directory, and never over an appliance", first)
	}
	return nil
}

// checkChain reads the beginning of each backup and refuses what does not fit
// together, before anything is touched.
func (r *restorer) checkChain(sources []Source) error {
	for i, s := range sources {
		var h *Header
		err := r.read(s, nil, func(_ *tar.Reader, first *Header) error { h = first; return nil })
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		switch {
		case i == 0 && h.Since != nil:
			err = fmt.Errorf("it is an increment of %s: give the backup of everything first, and then all increments up to this one", h.Since.Backup)
		case i > 0 && h.Since == nil:
			err = errors.New("it is a backup of everything: give it alone, or first")
		case i > 0 && h.Appliance != r.headers[0].Appliance:
			err = fmt.Errorf("it is of the appliance %s and those before are of %s: give those of one appliance", h.Appliance, r.headers[0].Appliance)
		case i > 0 && h.Since.Backup != r.headers[i-1].Backup:
			err = fmt.Errorf("it follows %s, and what was given before it is %s: give all increments, in order", h.Since.Backup, r.headers[i-1].Backup)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		r.headers = append(r.headers, h)
	}
	return nil
}

// errBroken hides what exactly is wrong with an encrypted stream, which helps nobody.
var errBroken = errors.New("the file is damaged or cut off: fetch it again, and compare its SHA-256 with the answer to the command")

// read opens a backup, reads its head and calls do with what follows. raw, if not
// nil, gets all bytes of the file.
func (r *restorer) read(s Source, raw io.Writer, do func(*tar.Reader, *Header) error) error {
	f, err := s.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	if raw != nil {
		in = io.TeeReader(f, raw)
	}
	in = bufio.NewReaderSize(in, 256<<10)
	if b, _ := in.(*bufio.Reader).Peek(len(armor.Header)); string(b) == armor.Header {
		in = armor.NewReader(in)
	}
	plain, err := age.Decrypt(in, r.o.Identities...)
	if no := (*age.NoIdentityMatchError)(nil); errors.As(err, &no) {
		return errors.New("no identity that was given opens it: give that of a recipient of the appliance's backups, or enough shares")
	}
	if err != nil {
		return fmt.Errorf("%w (it does not begin as an age file)", errBroken)
	}
	tr := tar.NewReader(bufio.NewReaderSize(plain, 64<<10))
	h, err := readHeader(tr)
	if err != nil {
		return err
	}
	if err := do(tr, h); err != nil || raw == nil {
		return err
	}
	// To its very end: age authenticates each piece, and tar stops before.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return errBroken
	}
	if rest, err := io.Copy(io.Discard, in); err != nil || rest > 0 {
		return errBroken
	}
	return nil
}

func readHeader(tr *tar.Reader) (*Header, error) {
	e, err := tr.Next()
	if err != nil {
		return nil, errBroken
	}
	if e.Typeflag != tar.TypeReg || e.Name != headerFile || e.Size > maxHeader {
		return nil, errors.New("this is not a backup of an appliance")
	}
	data, err := io.ReadAll(tr)
	if err != nil {
		return nil, errBroken
	}
	return parseHeader(data)
}

func (r *restorer) run(sources []Source) error {
	if err := r.begin(); err != nil {
		return fmt.Errorf("beginning a restore: %w", err)
	}
	defer r.marker.Close()
	for i, s := range sources {
		sum := sha256.New()
		err := r.read(s, sum, func(tr *tar.Reader, h *Header) error {
			if string(h.encode()) != string(r.headers[i].encode()) {
				return errors.New("the file was replaced while it was read: run it again")
			}
			return r.unpack(tr, i)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		r.report.Digests = append(r.report.Digests, hex.EncodeToString(sum.Sum(nil)))
	}
	newest := r.headers[len(r.headers)-1]
	r.report.Newest = *newest
	if err := r.writeHead(newest); err != nil {
		return err
	}
	// What is verified below is what the disk will have.
	if err := r.vol.Sync(); err != nil {
		return fmt.Errorf("syncing what was restored: %w", err)
	}
	if err := r.verify(newest); err != nil {
		return err
	}
	return r.finish(newest)
}

// begin makes the marker, and removes what an earlier restore has left.
//
// Crash: the marker is there, or nothing is.
func (r *restorer) begin() error {
	if err := r.root.Mkdir(setup.RestoringDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := r.root.Sync(); err != nil {
		return err
	}
	var err error
	if r.marker, err = r.root.Sub(setup.RestoringDir); err != nil {
		return err
	}
	return r.sweep()
}

// made are what a restore makes at the top of a volume.
var made = []string{"db", "journal", "kept", "spool", "work", "archive", "index", "backups"}

func (r *restorer) sweep() error {
	for _, name := range made {
		for _, name := range []string{name, "." + name + ".new"} {
			if err := remove(r.root, name); err != nil {
				return fmt.Errorf("removing what an earlier restore has left in %s: %w", name, err)
			}
		}
	}
	return removeAll(r.marker)
}

// abandon takes everything away after an error, the marker last.
func (r *restorer) abandon() error {
	marker, err := r.root.Sub(setup.RestoringDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		r.marker = marker
		err = r.sweep()
		marker.Close()
	}
	if err == nil {
		err = r.root.Sync()
	}
	if err == nil {
		err = r.root.RemoveDir(setup.RestoringDir)
	}
	if err == nil {
		err = r.root.Sync()
	}
	if err != nil {
		return fmt.Errorf("taking away what was restored by half: %w (nothing will serve it; remove it, or run restore again)", err)
	}
	return nil
}

// manifestName is the name in restoring/ of the manifest of a backup.
func manifestName(i int) string { return fmt.Sprintf("manifest-%d", i) }

// unpack writes the files of the i-th backup, and its manifest into restoring/.
// Nothing is synced.
func (r *restorer) unpack(tr *tar.Reader, i int) error {
	seen := ""
	var done int64
	for {
		e, err := tr.Next()
		if err != nil { // also at its end: the manifest must come first
			return errBroken
		}
		if e.Typeflag != tar.TypeReg {
			return fmt.Errorf("%q in it is not a file", e.Name)
		}
		if e.Name == manifestFile {
			if err := r.writeFile(r.marker, manifestName(i), tr, e.Size, 0o600); err != nil {
				return fmt.Errorf("writing the manifest: %w", err)
			}
			if _, err := tr.Next(); err != io.EOF {
				return errors.New("something follows its manifest")
			}
			return r.checkManifest(i)
		}
		if err := checkPath(e.Name); err != nil {
			return err
		}
		if seen != "" && !before(seen, e.Name) {
			return fmt.Errorf("%s does not stand in its order", e.Name)
		}
		seen = e.Name
		if err := r.entry(tr, e); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		done += e.Size
		r.o.Progress("unpacked", done)
	}
}

// checkManifest holds the manifest of the i-th backup against its head and against the
// backup before.
func (r *restorer) checkManifest(i int) error {
	digest := func(i int) (string, *Header, error) {
		f, err := r.marker.Open(manifestName(i))
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		m, err := newManifestReader(f)
		for err == nil {
			_, err = m.next()
		}
		if err != io.EOF {
			return "", nil, err
		}
		return m.digest(), m.header, nil
	}
	_, h, err := digest(i)
	if err != nil {
		return err
	}
	if string(h.encode()) != string(r.headers[i].encode()) {
		return ErrManifest
	}
	if i == 0 {
		return nil
	}
	last, _, err := digest(i - 1)
	if err == nil && last != h.Since.Manifest {
		err = fmt.Errorf("it follows another backup of the name %s than the one that was given", h.Since.Backup)
	}
	return err
}

// entry writes one file.
func (r *restorer) entry(tr *tar.Reader, e *tar.Header) error {
	d, err := r.dir(path.Dir(e.Name))
	if err != nil {
		return err
	}
	defer d.Close()
	name := path.Base(e.Name)
	if text, ok := e.PAXRecords[offsetRecord]; ok {
		offset, err := strconv.ParseInt(text, 10, 64)
		if err != nil || offset < 1 || !strings.HasPrefix(e.Name, "journal/") {
			return errors.New("this is not the rest of a file of the journal")
		}
		return r.add(d, name, tr, e.Size, offset)
	}
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Nobody but the owner, whatever they were: what was open to others is not any
	// more.
	return r.writeFile(d, name, tr, e.Size, fs.FileMode(e.Mode)&0o600|0o400)
}

// dir opens the directory at a path below the top, and makes it first where it is
// not there.
func (r *restorer) dir(p string) (durable.Dir, error) {
	d := r.root
	for _, name := range strings.Split(p, "/") {
		sub, err := d.Sub(name)
		if errors.Is(err, fs.ErrNotExist) {
			if err = d.Mkdir(name, 0o700); err == nil {
				sub, err = d.Sub(name)
			}
		}
		if d != r.root {
			d.Close()
		}
		if err != nil {
			return nil, err
		}
		d = sub
	}
	return d, nil
}

func (r *restorer) writeFile(d durable.Dir, name string, from io.Reader, size int64, mode fs.FileMode) error {
	f, err := d.Create(name, mode)
	if err != nil {
		return err
	}
	return errors.Join(pour(f, from, size), f.Close())
}

// add writes the rest of a file whose beginning is there.
func (r *restorer) add(d durable.Dir, name string, from io.Reader, size, offset int64) error {
	f, err := d.OpenWrite(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size != offset {
		return fmt.Errorf("%d bytes of it are there, and the rest begins at %d", info.Size, offset)
	}
	return pour(&writerAt{f, offset}, from, size)
}

// writerAt writes on from an offset.
type writerAt struct {
	f   durable.File
	off int64
}

func (w *writerAt) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}

// pour copies size bytes. An error of reading is the backup's.
func pour(to io.Writer, from io.Reader, size int64) error {
	buf := make([]byte, min(size, 256<<10))
	defer clear(buf)
	for size > 0 {
		n, err := io.ReadFull(from, buf[:min(size, int64(len(buf)))])
		if err != nil {
			return errBroken
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// writeHead makes the head of the journal.
func (r *restorer) writeHead(h *Header) error {
	d, err := r.root.Sub("journal")
	if err != nil {
		return fmt.Errorf("the backup holds no journal: %w", err)
	}
	defer d.Close()
	return journal.WriteHead(d, h.Journal.journal())
}

// finish makes the rest of the tree, notes the restore, and takes the marker away.
//
// Crash: until the marker is gone, durably, the volume is refused.
func (r *restorer) finish(h *Header) error {
	var id [15]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	r.report.Restore = "R_" + hex.EncodeToString(id[:])
	if err := setup.WriteRestored(r.root, &setup.Restored{
		Restore: r.report.Restore, Backup: h.Backup, Time: h.Time, Seq: h.Journal.Seq, SHA256: h.Journal.SHA256,
		Restored: r.o.Now().UTC().Format(time.RFC3339),
	}); err != nil {
		return fmt.Errorf("noting the restore: %w", err)
	}
	companies, err := r.companies()
	if err != nil {
		return err
	}
	for _, c := range append([]string{""}, companies...) {
		if c != "" {
			disorder, err := r.disorder(c)
			if err != nil {
				return err
			}
			if disorder != nil {
				// As it was: nobody could be served then either.
				r.report.Damaged = append(r.report.Damaged, fmt.Errorf("company %s: allowed_signers: %w; mend it and run signdrop init --company %s", c, disorder, c))
				continue
			}
		}
		if _, err := setup.Make(r.root, r.o.Access, setup.Plan{Company: c, Restoring: true}); err != nil {
			return fmt.Errorf("making the rest of the volume: %w", err)
		}
	}
	if err := removeAll(r.marker); err != nil {
		return err
	}
	if err := r.vol.Sync(); err != nil {
		return fmt.Errorf("syncing what was restored: %w", err)
	}
	if err := r.root.RemoveDir(setup.RestoringDir); err != nil {
		return err
	}
	return r.root.Sync()
}

// disorder says why a company has no list of who may sign, without which it gets no
// directories; err is the disk's.
func (r *restorer) disorder(company string) (disorder, err error) {
	d, err := durable.SubPath(r.root, "db", "companies", company)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, "allowed_signers", 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it is missing"), nil
	}
	if err != nil {
		return nil, err
	}
	_, disorder = auth.ParseSigners(data)
	return disorder, nil
}

func (r *restorer) companies() (list []string, err error) {
	d, err := durable.SubPath(r.root, "db", "companies")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := names(d, "db/companies")
	for _, e := range entries {
		if e.Type.IsDir() && keyfs.ValidCompany(e.Name) {
			list = append(list, e.Name)
		}
	}
	return list, err
}
