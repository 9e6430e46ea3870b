// Package backup writes backups of a data volume and restores them. It knows what
// lies where on a volume, and nothing of requests: the appliance says when to make
// one, and asks administrators.
//
// # A picture of one moment
//
// Write is told the journal's head, which was taken down before, and reads everything
// while the appliance goes on. That is sound because of the order in which the
// appliance works: what an entry of the journal stands for (a wallet, a binding, a
// kept answer) is durable in db/ or kept/ before the entry is. What is read later
// than the head can only hold more, and nothing is taken back but by commands of
// administrators, which the caller keeps from running meanwhile.
//
// Within a company's directory wallets/ is read before addresses/, which descending
// order brings about: a binding writes the address's file before wallet.json, so
// whatever wallet.json was read with, its address is found after it.
//
// # Restoring
//
// Restore makes the directory restoring/ first and removes it last, and nothing
// serves a volume that has it. A crash in between leaves a volume that can be
// restored into again, or thrown away.
//
// docs/formats.md specifies the file.
package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"

	"filippo.io/age"

	"signdrop/appliance/journal"
	"signdrop/spool/durable"
)

// Options are what a backup is made of.
type Options struct {
	Header     Header // Format, Version and Since are filled in
	Head       journal.Head
	Recipients []age.Recipient

	// Base is the manifest of the backup that is to be continued, nil for a backup
	// of everything.
	Base io.ReadSeeker

	// Manifest gets the manifest, from its beginning, and is read again at the end.
	Manifest durable.File

	// Key, if not nil, gives the content of a file with a private key as it shall
	// stand in the backup, of what lies on the volume. All such files go through it,
	// with their directory, where what is public lies beside. It is meant for
	// volumes whose keys are sealed; the backup has neither db/appliance/seal.json
	// nor db/appliance/recipient then.
	Key func(d durable.Dir, path string, data []byte) ([]byte, error)

	// Progress, if not nil, is told how many bytes of the volume are done. Its error
	// ends the backup.
	Progress func(done int64) error
}

// Summary says what a backup holds.
type Summary struct {
	Header  Header
	Files   int64 // that the volume has
	Held    int64 // of these, those that are in this backup
	Wallets int64
}

// Measure is how many bytes Write will read of a volume, more or less.
func Measure(root durable.Dir, head journal.Head) (size int64, err error) {
	err = walkParts(root, func(d durable.Dir, name, at string) error {
		info, err := d.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		size += info.Size + 2048 // what tar adds, and its line of the manifest
		return err
	})
	return size, err
}

// writer is one call of Write.
type writer struct {
	o        *Options
	tar      *tar.Writer
	manifest *manifestWriter
	base     *manifestReader
	ahead    *File // of base, the next; nil at its end
	sum      Summary
	done     int64
}

// Write writes a backup of the volume below root to out. The caller keeps everything
// away from db/ that takes back what is there. Memory: the names of one directory, and
// a megabyte.
func Write(out io.Writer, root durable.Dir, o Options) (*Summary, error) {
	w := &writer{o: &o}
	h := &o.Header
	h.Format, h.Version, h.Journal, h.Since = formatName, version, NewHead(o.Head), nil
	if o.Base != nil {
		if err := w.openBase(); err != nil {
			return nil, err
		}
	}
	sealed, err := age.Encrypt(out, o.Recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypting the backup: %w", err)
	}
	buffered := bufio.NewWriterSize(sealed, 64<<10)
	w.tar = tar.NewWriter(buffered)
	if err := w.run(root); err != nil {
		return nil, err
	}
	if err := errors.Join(w.tar.Close(), buffered.Flush()); err != nil {
		return nil, err
	}
	if err := sealed.Close(); err != nil {
		return nil, err
	}
	w.sum.Header = *h
	return &w.sum, nil
}

// openBase reads the base's manifest once through, to know its digest, and again to
// compare.
func (w *writer) openBase() error {
	data := w.o.Base
	digest, err := checkManifest(data)
	if err != nil {
		return fmt.Errorf("reading the manifest of the backup before: %w", err)
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if w.base, err = newManifestReader(data); err != nil {
		return fmt.Errorf("reading the manifest of the backup before: %w", err)
	}
	w.o.Header.Since = &Since{w.base.header.Backup, digest}
	return w.advance()
}

// checkManifest reads a manifest through and returns its digest.
func checkManifest(r io.Reader) (digest string, err error) {
	m, err := newManifestReader(r)
	for err == nil {
		_, err = m.next()
	}
	if err != io.EOF {
		return "", err
	}
	return m.digest(), nil
}

func (w *writer) advance() (err error) {
	if w.ahead, err = w.base.next(); err == io.EOF {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the manifest of the backup before: %w", err)
	}
	return nil
}

// earlier returns what the base says of a file, nil if nothing. Paths are asked for in
// the order of a manifest.
func (w *writer) earlier(p string) (*File, error) {
	if w.base == nil {
		return nil, nil
	}
	for w.ahead != nil && before(w.ahead.Path, p) {
		if err := w.advance(); err != nil {
			return nil, err
		}
	}
	if w.ahead == nil || w.ahead.Path != p {
		return nil, nil
	}
	return w.ahead, nil
}

func (w *writer) run(root durable.Dir) error {
	head := w.o.Header.encode()
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: headerFile, Mode: 0o400, Size: int64(len(head))}); err != nil {
		return err
	}
	if _, err := w.tar.Write(head); err != nil {
		return err
	}
	var err error
	if w.manifest, err = newManifestWriter(w.o.Manifest, &w.o.Header); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	if err := walkParts(root, w.file); err != nil {
		return err
	}
	if err := w.manifest.close(); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestFile, Mode: 0o400, Size: w.manifest.size}); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, io.NewSectionReader(w.o.Manifest, 0, w.manifest.size))
	return err
}

// file adds one file of the volume.
func (w *writer) file(d durable.Dir, name, at string) error {
	n, isJournal := journal.FileNumber(name)
	if isJournal = isJournal && path.Dir(at) == "journal"; !isJournal && path.Dir(at) == "journal" {
		return nil // a head: Restore writes its own
	}
	if err := checkPath(at); err != nil {
		return err
	}
	old, err := w.earlier(at)
	if err != nil {
		return err
	}
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kept answer that is written anew, or what an operator has moved
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", at, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at %s: %w", at, err)
	}
	entry := &File{Path: at, Size: info.Size, Mode: fmt.Sprintf("%04o", info.Mode.Perm())}
	var offset int64 // from where it is written
	if isJournal {
		var known bool
		if entry, offset, known, err = w.journalFile(entry, old, n); err != nil || entry == nil {
			return err
		}
		if known {
			return w.note(entry, false)
		}
	}
	if w.o.Key != nil && isKey(at) {
		return w.key(d, f, entry, old)
	}
	if w.o.Key != nil && (at == sealFile || at == recipientFile) {
		return nil
	}
	return w.content(io.NewSectionReader(f, 0, entry.Size), entry, old, offset)
}

// journalFile says what of a file of the journal is in the backup: nil if nothing is,
// as it was begun after the head was taken down. known: it was closed at the time of
// the base, and is as it was.
func (w *writer) journalFile(entry, old *File, n uint32) (_ *File, offset int64, known bool, err error) {
	switch head := w.o.Head; {
	case n > head.File:
		return nil, 0, false, nil
	case n == head.File:
		if entry.Size < head.Size {
			return nil, 0, false, fmt.Errorf("%s has %d bytes, and %d were durable", entry.Path, entry.Size, head.Size)
		}
		entry.Size = head.Size
	}
	if old == nil {
		return entry, 0, false, nil
	}
	base, _ := journal.FileNumber(w.base.header.Journal.File)
	if n < base {
		return old, 0, true, nil
	}
	if entry.Size < old.Size {
		return nil, 0, false, fmt.Errorf("%s was shortened since the backup before", entry.Path)
	}
	return entry, old.Size, false, nil
}

// key adds a key file, through the one function that may change its content.
func (w *writer) key(d durable.Dir, f durable.File, entry, old *File) error {
	data, err := durable.ReadAll(f, entry.Size)
	if err == nil {
		defer clear(data)
		data, err = w.o.Key(d, entry.Path, data)
		defer clear(data)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", entry.Path, err)
	}
	entry.Size = int64(len(data))
	return w.content(io.NewSectionReader(bytes.NewReader(data), 0, entry.Size), entry, old, 0)
}

// small is up to which size a file is held in memory, in bytes.
const small = 1 << 20

// content adds a file with this content, unless the base has it.
func (w *writer) content(r *io.SectionReader, entry, old *File, offset int64) error {
	if entry.Size <= small {
		data := make([]byte, entry.Size)
		defer clear(data)
		if err := w.read(r, data); err != nil {
			return fmt.Errorf("reading %s: %w", entry.Path, err)
		}
		sum := sha256.Sum256(data)
		entry.SHA256 = hex.EncodeToString(sum[:])
		if old != nil && *old == *entry {
			return w.note(entry, false)
		}
		if err := w.begin(entry, offset); err != nil {
			return err
		}
		if _, err := w.tar.Write(data[offset:]); err != nil {
			return err
		}
		return w.note(entry, true)
	}
	sum := sha256.New()
	if old == nil && offset == 0 {
		if err := w.begin(entry, 0); err != nil {
			return err
		}
		if err := w.copy(io.MultiWriter(w.tar, sum), r, entry); err != nil {
			return err
		}
		entry.SHA256 = hex.EncodeToString(sum.Sum(nil))
		return w.note(entry, true)
	}
	// Read twice: whether it is the same, and then what is new of it.
	if err := w.copy(sum, r, entry); err != nil {
		return err
	}
	entry.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if old != nil && *old == *entry {
		return w.note(entry, false)
	}
	if err := w.begin(entry, offset); err != nil {
		return err
	}
	if _, err := io.Copy(w.tar, io.NewSectionReader(r, offset, entry.Size-offset)); err != nil {
		return fmt.Errorf("reading %s: %w", entry.Path, err)
	}
	return w.note(entry, true)
}

func (w *writer) read(r io.ReaderAt, data []byte) error {
	if n, err := r.ReadAt(data, 0); n < len(data) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return w.count(int64(len(data)))
}

func (w *writer) copy(to io.Writer, r io.Reader, entry *File) error {
	buf := make([]byte, 256<<10)
	for left := entry.Size; left > 0; {
		n, err := io.ReadFull(r, buf[:min(left, int64(len(buf)))])
		if err != nil {
			return fmt.Errorf("reading %s: %w", entry.Path, err)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
		if err := w.count(int64(n)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) count(n int64) error {
	w.done += n
	if w.o.Progress == nil {
		return nil
	}
	return w.o.Progress(w.done)
}

func (w *writer) begin(entry *File, offset int64) error {
	mode, _ := entry.mode()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: entry.Path, Mode: int64(mode), Size: entry.Size - offset}
	if offset > 0 {
		h.PAXRecords = map[string]string{offsetRecord: strconv.FormatInt(offset, 10)}
	}
	return w.tar.WriteHeader(h)
}

// note adds a file to the manifest.
func (w *writer) note(entry *File, held bool) error {
	w.sum.Files++
	if held {
		w.sum.Held++
	}
	if path.Base(entry.Path) == "wallet.json" {
		w.sum.Wallets++
	}
	if err := w.manifest.add(entry); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	return nil
}
