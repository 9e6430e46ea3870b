package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/journal"
	"signdrop/spool/durable"
)

// Header is backup.json: what a backup is of.
type Header struct {
	Format    string `json:"format"`  // "signdrop-backup"
	Version   int    `json:"version"` // 1
	Backup    string `json:"backup"`  // B_ and 30 hexadecimal digits
	Request   string `json:"request"` // SHA-256 of the command
	Appliance string `json:"appliance"`
	Time      string `json:"time"` // RFC 3339
	Journal   Head   `json:"journal"`
	Since     *Since `json:"since,omitempty"` // nil for a backup of everything
}

// Suffix ends the name of a backup.
const Suffix = ".backup.age"

// ReadManifestHeader reads what a manifest begins with.
func ReadManifestHeader(r io.Reader) (*Header, error) {
	m, err := newManifestReader(r)
	if err != nil {
		return nil, err
	}
	return m.header, nil
}

// Whole reads a file from its beginning, as often as wanted.
func Whole(f durable.File) io.ReadSeeker { return io.NewSectionReader(f, 0, math.MaxInt64) }

// Head is the journal's end.
type Head struct {
	File   string `json:"file"`
	Size   int64  `json:"size"`
	Seq    uint64 `json:"seq"`
	SHA256 string `json:"sha256"` // of the last line
	Time   string `json:"time"`   // of the last line, RFC 3339
}

// Since is the backup that an increment follows.
type Since struct {
	Backup   string `json:"backup"`
	Manifest string `json:"manifest_sha256"`
}

const (
	formatName   = "signdrop-backup"
	version      = 1
	headerFile   = "backup.json"
	manifestFile = "manifest.jsonl"
	offsetRecord = "SIGNDROP.offset" // PAX record: where in its file an entry belongs
	maxHeader    = 64 << 10          // bytes
	maxEntry     = 16 << 10          // of a line of the manifest, in bytes
	maxPath      = 1024              // bytes
)

// NewHead describes the journal's end.
func NewHead(h journal.Head) Head {
	return Head{journal.FileName(h.File), h.Size, h.Seq, hex.EncodeToString(h.Hash[:]), h.Time.UTC().Format(time.RFC3339Nano)}
}

// journal is the opposite of NewHead, of a head that was checked.
func (h Head) journal() journal.Head {
	n, _ := journal.FileNumber(h.File)
	hash, _ := hex.DecodeString(h.SHA256)
	t, _ := time.Parse(time.RFC3339, h.Time)
	return journal.Head{File: n, Size: h.Size, Seq: h.Seq, Hash: [32]byte(hash), Time: t}
}

var (
	idForm     = regexp.MustCompile(`^B_[0-9a-f]{30}$`)
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ValidID says whether this can be a backup's id.
func ValidID(id string) bool { return idForm.MatchString(id) }

func (h *Header) encode() []byte { return line(h) }

func line(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: a line of the manifest cannot be written: " + err.Error())
	}
	return append(b, '\n')
}

// parseHeader reads backup.json. There is one way to write it.
func parseHeader(data []byte) (*Header, error) {
	h := &Header{}
	if err := json.Unmarshal(data, h, json.RejectUnknownMembers(true)); err != nil {
		return nil, errors.New("its head is not that of a backup")
	}
	if h.Format != formatName {
		return nil, errors.New("its head is not that of a backup")
	}
	if h.Version != version {
		return nil, fmt.Errorf("it has version %d of the format, which this program does not know: use a newer one", h.Version)
	}
	_, isFile := journal.FileNumber(h.Journal.File)
	_, terr := time.Parse(time.RFC3339, h.Time)
	_, jerr := time.Parse(time.RFC3339, h.Journal.Time)
	ok := ValidID(h.Backup) && digestForm.MatchString(h.Request) && digestForm.MatchString(h.Journal.SHA256) &&
		isFile && h.Journal.Size > 0 && terr == nil && jerr == nil
	if h.Since != nil {
		ok = ok && ValidID(h.Since.Backup) && digestForm.MatchString(h.Since.Manifest)
	}
	if !ok || !bytes.Equal(h.encode(), data) {
		return nil, errors.New("its head is not as it is written")
	}
	return h, nil
}

// File is one line of a manifest.
type File struct {
	Path   string `json:"path"` // on the data volume
	Size   int64  `json:"size"` // bytes
	Mode   string `json:"mode"` // "0400"
	SHA256 string `json:"sha256"`
}

// total is the last line.
type total struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// The parts of a volume that are in a backup, in the order in which they are read.
var parts = []string{"kept", "journal", "db"}

// checkPath refuses what cannot be the path of a file in a backup. A name that begins
// with a dot is temporary on a volume, and here a way out of it.
func checkPath(p string) error {
	elems := strings.Split(p, "/")
	ok := len(elems) > 1 && len(p) <= maxPath && utf8.ValidString(p)
	for _, e := range elems {
		ok = ok && e != "" && e[0] != '.' && !strings.ContainsFunc(e, func(r rune) bool { return r < 0x20 || r == 0x7f })
	}
	switch {
	case !ok:
	case elems[0] == "journal":
		_, isFile := journal.FileNumber(elems[1])
		ok = len(elems) == 2 && isFile
	default:
		ok = elems[0] == "db" || elems[0] == "kept"
	}
	if !ok {
		return fmt.Errorf("%q cannot be the name of a file in a backup", p)
	}
	return nil
}

// before says whether a comes before b: in descending order of the elements.
func before(a, b string) bool {
	for {
		ea, ra, moreA := strings.Cut(a, "/")
		eb, rb, moreB := strings.Cut(b, "/")
		switch {
		case ea != eb:
			return ea > eb
		case !moreA || !moreB:
			return moreA && !moreB
		}
		a, b = ra, rb
	}
}

// manifestWriter writes a manifest.
type manifestWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	size  int64
	total total
	last  string
}

func newManifestWriter(w io.Writer, h *Header) (*manifestWriter, error) {
	m := &manifestWriter{sum: sha256.New()}
	m.w = bufio.NewWriterSize(w, 64<<10)
	return m, m.put(h.encode())
}

func (m *manifestWriter) put(b []byte) error {
	m.sum.Write(b)
	m.size += int64(len(b))
	_, err := m.w.Write(b)
	return err
}

func (m *manifestWriter) add(f *File) error {
	if m.last != "" && !before(m.last, f.Path) {
		return fmt.Errorf("internal error: %s comes after %s", f.Path, m.last)
	}
	m.last = f.Path
	m.total.Files++
	m.total.Bytes += f.Size
	return m.put(line(f))
}

func (m *manifestWriter) close() error {
	if err := m.put(line(m.total)); err != nil {
		return err
	}
	return m.w.Flush()
}

// manifestReader reads one, strictly: each line as it is written, in order, and
// nothing after the last.
type manifestReader struct {
	header *Header
	r      *bufio.Reader
	sum    hash.Hash
	seen   total
	last   string
	ended  bool
}

// ErrManifest: a manifest is damaged, which is not said where the disk cannot be read.
var ErrManifest = errors.New("the manifest is not as it is written")

func newManifestReader(r io.Reader) (*manifestReader, error) {
	m := &manifestReader{r: bufio.NewReaderSize(r, maxEntry), sum: sha256.New()}
	data, err := m.line()
	if err != nil {
		return nil, err
	}
	if m.header, err = parseHeader(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return m, nil
}

// line reads a line with its end. It is good until the next.
func (m *manifestReader) line() ([]byte, error) {
	data, err := m.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull || err == io.EOF {
		return nil, ErrManifest
	}
	m.sum.Write(data)
	return data, err
}

// next returns the next file, io.EOF at the end.
func (m *manifestReader) next() (*File, error) {
	if m.ended {
		return nil, io.EOF
	}
	data, err := m.line()
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(data, []byte(`{"path"`)) {
		var t total
		if json.Unmarshal(data, &t, json.RejectUnknownMembers(true)) != nil || !bytes.Equal(line(t), data) || t != m.seen {
			return nil, ErrManifest
		}
		if _, err := m.r.ReadByte(); err != io.EOF {
			return nil, ErrManifest
		}
		m.ended = true
		return nil, io.EOF
	}
	f := &File{}
	if json.Unmarshal(data, f, json.RejectUnknownMembers(true)) != nil || !bytes.Equal(line(f), data) {
		return nil, ErrManifest
	}
	if err := checkPath(f.Path); err != nil {
		return nil, err
	}
	if _, ok := f.mode(); !ok || f.Size < 0 || !digestForm.MatchString(f.SHA256) || m.last != "" && !before(m.last, f.Path) {
		return nil, ErrManifest
	}
	m.last = f.Path
	m.seen.Files++
	m.seen.Bytes += f.Size
	return f, nil
}

// digest is the SHA-256 of the manifest, after its end.
func (m *manifestReader) digest() string { return hex.EncodeToString(m.sum.Sum(nil)) }

// mode is the permission bits.
func (f *File) mode() (mode fs.FileMode, ok bool) {
	n, err := strconv.ParseUint(f.Mode, 8, 32)
	return fs.FileMode(n), err == nil && n <= 0o777 && len(f.Mode) == 4
}

// isKey says whether a file holds a private key.
func isKey(p string) bool {
	switch p {
	case "db/appliance/identity.age", "db/appliance/ssh_host_ed25519_key":
		return true
	}
	return strings.HasPrefix(p, "db/companies/") && path.Base(p) == "key.pem"
}

// sealFile says that the keys of a volume are sealed.
const sealFile = "db/appliance/seal.json"

// recipientFile lies beside it.
const recipientFile = "db/appliance/recipient"
