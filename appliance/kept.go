package appliance

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"signdrop/spool"
	"signdrop/spool/durable"
)

// Answers that cannot be made again from the request and the journal, because they
// say how something was at that time or because they are encrypted, are kept:
//
//	kept/<company>/<first two digits>/<request_sha256>
//	kept/<company>/<first two digits>/<request_sha256><ending>    a further file
//
// with the very bytes of the answer, whose digest is in the journal. The answer holds
// the digests of its further files.

// keep writes the task's answer there. It is durable with the group's sync.
//
// Crash: without the journal's entry the files are of no worth, and written anew when
// the request is answered anew.
func (a *Appliance) keepAnswer(t *task) error {
	name := hex.EncodeToString(t.digest[:])
	d, err := a.keptDir(t.it.Company, name)
	if err != nil {
		return fmt.Errorf("keeping the answer: %w", err)
	}
	defer d.Close()
	err = keepFile(d, name, bytes.Join(t.product, nil))
	for i := 0; err == nil && i < len(t.files); i++ {
		err = keepFile(d, name+t.files[i].Ending, t.files[i].Data)
	}
	if err != nil {
		return fmt.Errorf("keeping the answer: %w", err)
	}
	if t.handsOut {
		// Before it is on record: of a group whose sync was cut off the journal's
		// entries may be there and this not, and then nobody could be told of the
		// file that waits to be handed out.
		return a.vol.Sync()
	}
	return nil
}

func keepFile(d durable.Dir, name string, data []byte) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.WriteNew(d, name, 0o600, data)
}

func (a *Appliance) keptDir(company, name string) (durable.Dir, error) {
	d, err := a.root.Sub("kept")
	for _, next := range []string{company, name[:2]} {
		if err != nil {
			return nil, err
		}
		up := d
		// Another worker may make it at the same time.
		if err = up.Mkdir(next, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			d, err = up.Sub(next)
		}
		up.Close()
	}
	return d, err
}

// keptAnswer returns the answer that was kept, with its further files; nil if there
// is none with this digest, or a file of it is missing or another.
func (a *Appliance) keptAnswer(company string, request, result [32]byte) ([]byte, []spool.File, error) {
	name := hex.EncodeToString(request[:])
	d, err := durable.SubPath(a.root, "kept", company, name[:2])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	data, err := durable.ReadFile(d, name, maxKept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil || sha256.Sum256(data) != result {
		return nil, nil, err
	}
	entries, err := filesOf(data)
	if err != nil {
		return nil, nil, fmt.Errorf("kept/%s/%s/%s: %w", company, name[:2], name, err)
	}
	var files []spool.File
	for _, e := range entries {
		f := spool.File{Ending: e.Ending}
		f.Data, err = durable.ReadFile(d, name+e.Ending, maxKept)
		if errors.Is(err, fs.ErrNotExist) || err == nil && fileEntry(f) != e {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	return data, files, nil
}

// maxKept is more than any answer has, in bytes.
const maxKept = 1 << 30
