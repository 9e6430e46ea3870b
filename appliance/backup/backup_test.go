package backup

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"signdrop/appliance/journal"
	"signdrop/appliance/setup"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

func TestOrder(t *testing.T) {
	// As walk goes: a directory's content in its place, wallets before addresses.
	paths := []string{
		"kept/acme/00/x", "journal/00000002.jsonl", "journal/00000001.jsonl", "db/companies/a.b/x", "db/companies/a-b/x", "db/companies/a/wallets/w/key.pem",
		"db/companies/a/addresses/MT", "db/appliance/appliance.json", "db/a",
	}
	sorted := slices.Clone(paths)
	slices.SortFunc(sorted, func(a, b string) int {
		if before(a, b) {
			return -1
		}
		return 1
	})
	if !slices.Equal(sorted, paths) {
		t.Errorf("sorted: %q", sorted)
	}
	for _, p := range paths {
		if before(p, p) {
			t.Errorf("%s comes before itself", p)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, p := range []string{
		"", "db", "/db/x", "db/../x", "../db/x", "db/./x", "db//x", "db/x/", "spool/acme/inbox/x", "journal/x", "journal/00000001.head",
		"journal/a/00000001.jsonl", "db/.x", "db/x\x00", "db/x\ny", "kept", "db/" + strings.Repeat("x", maxPath), "db/\xff", "restoring/x", "index/x",
	} {
		if checkPath(p) == nil {
			t.Errorf("%q is taken for the name of a file in a backup", p)
		}
	}
}

// testbed: a volume, a key and backups of it.
type bed struct {
	t    testing.TB
	vol  *modelfs.Volume
	root durable.Dir
	id   *age.X25519Identity
	head journal.Head
	n    int
}

func newBed(t testing.TB) *bed {
	t.Helper()
	b := &bed{t: t, vol: modelfs.New()}
	var err error
	b.root, err = b.vol.Root()
	b.ok(err)
	b.id, err = age.GenerateX25519Identity()
	b.ok(err)
	_, err = setup.Make(b.root, nil, setup.Plan{BackupRecipients: []string{b.id.Recipient().String()}})
	b.ok(err)
	dir, err := b.root.Sub("journal")
	b.ok(err)
	index, err := b.root.Sub("index")
	b.ok(err)
	j, _, err := journal.Open(b.vol, dir, index, journal.Options{AllowNew: true, Serial: true})
	b.ok(err)
	b.head = j.Head()
	b.ok(j.Close(&journal.Event{Kind: "stop"}))
	b.put("db/companies/acme/x", []byte("x"))
	return b
}

func (b *bed) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// put writes a file of the volume, and makes the directories that it needs.
func (b *bed) put(at string, data []byte) {
	b.t.Helper()
	d, err := (&restorer{root: b.root}).dir(path.Dir(at))
	b.ok(err)
	d.Close()
	b.vol.WriteFile(at, data)
}

func (b *bed) write(base []byte, change func(*Options)) (file, manifest []byte, sum *Summary, err error) {
	b.t.Helper()
	b.n++
	o := Options{
		Head: b.head, Recipients: []age.Recipient{b.id.Recipient()},
		Header: Header{Backup: fmt.Sprintf("B_%030d", b.n), Request: strings.Repeat("0", 64), Appliance: "SD_0000000000000000", Time: "2026-11-22T12:00:00Z"},
	}
	if base != nil {
		o.Base = bytes.NewReader(base)
	}
	if change != nil {
		change(&o)
	}
	d, err := durable.SubMake(b.root, "backups", 0o700)
	b.ok(err)
	name := fmt.Sprint("m", b.n)
	o.Manifest, err = d.Create(name, 0o600)
	b.ok(err)
	var out bytes.Buffer
	if sum, err = Write(&out, b.root, o); err != nil {
		return nil, nil, nil, err
	}
	manifest, err = b.vol.ReadFile("backups/" + name)
	b.ok(err)
	return out.Bytes(), manifest, sum, nil
}

func (b *bed) restore(files ...[]byte) (*modelfs.Volume, *Report, error) {
	var sources []Source
	for i, f := range files {
		sources = append(sources, Source{fmt.Sprint(i), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f)), nil }})
	}
	v := modelfs.New()
	rep, err := Restore(v, sources, RestoreOptions{Identities: []age.Identity{b.id}})
	return v, rep, err
}

// TestWhatIsInIt: what a backup holds and what it leaves out.
func TestWhatIsInIt(t *testing.T) {
	b := newBed(t)
	b.put("db/appliance/lock", nil)
	b.put("db/companies/acme/.half.new", []byte("half"))
	b.put("db/admins/approved/00", []byte("under way"))
	b.put("kept/acme/00/answer", bytes.Repeat([]byte("large "), 400_000)) // not held in memory
	file, manifest, sum, err := b.write(nil, nil)
	b.ok(err)
	v, _, err := b.restore(file)
	b.ok(err)
	for p, want := range map[string]bool{
		"db/companies/acme/x": true, "kept/acme/00/answer": true, "db/appliance/identity.age": true, "db/appliance/backup-recipients": true,
		"db/appliance/lock": false, "db/companies/acme/.half.new": false, "db/admins/approved/00": false, "db/appliance/new-journal": false,
	} {
		if v.Exists(p) != want {
			t.Errorf("%s is there: %t, want %t", p, !want, want)
		}
	}
	// Nothing has changed: an increment is empty, and restores to the same.
	inc, again, isum, err := b.write(manifest, nil)
	b.ok(err)
	if isum.Held != 0 || isum.Files != sum.Files || len(inc) > 8<<10 {
		t.Errorf("an increment of nothing holds %+v in %d bytes", isum, len(inc))
	}
	if _, _, err := b.restore(file, inc); err != nil {
		t.Error(err)
	}
	// A large file that has changed.
	b.ok(b.remove("kept", "acme", "00", "answer"))
	b.put("kept/acme/00/answer", bytes.Repeat([]byte("LARGE "), 400_000))
	inc2, _, isum, err := b.write(again, nil)
	b.ok(err)
	if isum.Held != 1 {
		t.Errorf("an increment holds %d files, want 1", isum.Held)
	}
	v, _, err = b.restore(file, inc, inc2)
	b.ok(err)
	if data, _ := v.ReadFile("kept/acme/00/answer"); !bytes.HasPrefix(data, []byte("LARGE")) {
		t.Error("the change is not there")
	}
	// The base's manifest is read strictly.
	if _, _, _, err := b.write(manifest[:len(manifest)-5], nil); err == nil {
		t.Error("an increment was made of half a manifest")
	}
}

func (b *bed) remove(path ...string) error {
	d, err := durable.SubPath(b.root, path[:len(path)-1]...)
	b.ok(err)
	defer d.Close()
	return d.Remove(path[len(path)-1])
}

// TestKeyFunction: key files, and no others, go through the one function.
func TestKeyFunction(t *testing.T) {
	b := newBed(t)
	b.put("db/companies/acme/strange/key.pem", []byte("sealed"))
	b.put("db/appliance/ssh_host_ed25519_key", []byte("host"))
	b.put("db/appliance/seal.json", []byte("{}"))
	var asked []string
	file, _, _, err := b.write(nil, func(o *Options) {
		o.Key = func(_ durable.Dir, path string, data []byte) ([]byte, error) {
			asked = append(asked, path)
			if strings.HasSuffix(path, ".pem") {
				data = []byte("un" + string(data))
			}
			return bytes.Clone(data), nil
		}
	})
	b.ok(err)
	v, _, err := b.restore(file)
	b.ok(err)
	if data, _ := v.ReadFile("db/companies/acme/strange/key.pem"); string(data) != "unsealed" || v.Exists("db/appliance/seal.json") ||
		!slices.Equal(asked, []string{"db/companies/acme/strange/key.pem", "db/appliance/ssh_host_ed25519_key", "db/appliance/identity.age"}) {
		t.Errorf("restored %q after %q", data, asked)
	}
	_, _, _, err = b.write(nil, func(o *Options) {
		o.Key = func(durable.Dir, string, []byte) ([]byte, error) { return nil, io.ErrUnexpectedEOF }
	})
	if err == nil || !strings.Contains(err.Error(), "strange/key.pem") {
		t.Errorf("a key that cannot be read: %v", err)
	}
}

// entry is one member of a tar archive that somebody has put together.
type entry struct {
	h    tar.Header
	data string
}

// forge encrypts an archive as whoever knows the recipient can.
func (b *bed) forge(entries ...entry) []byte {
	b.t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, e := range entries {
		if e.h.Typeflag == 0 {
			e.h.Typeflag = tar.TypeReg
		}
		if e.h.Typeflag == tar.TypeReg {
			e.h.Size = int64(len(e.data))
		}
		e.h.Mode = 0o600
		b.ok(w.WriteHeader(&e.h))
		if e.h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(w, e.data)
			b.ok(err)
		}
	}
	b.ok(w.Close())
	return b.seal(plain.Bytes())
}

// open reads the members of a backup.
func (b *bed) open(file []byte) (list []entry) {
	b.t.Helper()
	plain, err := age.Decrypt(bytes.NewReader(file), b.id)
	b.ok(err)
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		b.ok(err)
		data, err := io.ReadAll(r)
		b.ok(err)
		list = append(list, entry{*h, string(data)})
	}
}

func (b *bed) seal(plain []byte) []byte {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, b.id.Recipient())
	b.ok(err)
	_, err = w.Write(plain)
	b.ok(err)
	b.ok(w.Close())
	return out.Bytes()
}

// TestForged: an archive that the appliance did not write gets nowhere, and leaves
// nothing.
func TestForged(t *testing.T) {
	b := newBed(t)
	real, manifest, _, err := b.write(nil, nil)
	b.ok(err)
	whole := b.open(real)
	whole = whole[1 : len(whole)-1]
	at := slices.IndexFunc(whole, func(e entry) bool { return strings.HasPrefix(e.h.Name, "db/") })
	first, _, _ := strings.Cut(string(manifest), "\n")
	head := entry{tar.Header{Name: headerFile}, first + "\n"}
	end := entry{tar.Header{Name: manifestFile}, string(manifest)}
	file := func(name string) entry { return entry{tar.Header{Name: name}, "x"} }
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"empty":            {nil, "damaged"},
		"no head":          {[]entry{end}, "not a backup"},
		"only a head":      {[]entry{head}, "damaged"},
		"head of another":  {[]entry{{tar.Header{Name: headerFile}, `{"format":"x"}`}}, "not that of a backup"},
		"a newer version":  {[]entry{{tar.Header{Name: headerFile}, strings.Replace(first, `"version":1`, `"version":2`, 1) + "\n"}}, "use a newer one"},
		"up":               {[]entry{head, file("db/../../x"), end}, "cannot be the name"},
		"absolute":         {[]entry{head, file("/etc/passwd"), end}, "cannot be the name"},
		"elsewhere":        {[]entry{head, file("spool/acme/outbox/x"), end}, "cannot be the name"},
		"the marker":       {[]entry{head, file("restoring/x"), end}, "cannot be the name"},
		"a link":           {[]entry{head, {tar.Header{Name: "db/x", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, ""}, end}, "is not a file"},
		"a directory":      {[]entry{head, {tar.Header{Name: "db/x", Typeflag: tar.TypeDir}, ""}, end}, "is not a file"},
		"out of order":     {[]entry{head, file("db/a"), file("db/b"), end}, "order"},
		"twice":            {[]entry{head, file("db/a"), file("db/a"), end}, "order"},
		"something behind": {[]entry{head, end, file("db/a")}, "follows its manifest"},
		"not in manifest":  {slices.Concat([]entry{head}, whole[:at], []entry{file("db/zz")}, whole[at:], []entry{end}), "in the backup and not in its manifest"},
		"missing":          {slices.Concat([]entry{head}, whole[:at], whole[at+1:], []entry{end}), "in the manifest and not in the backup"},
		"no manifest":      {[]entry{head, file("journal/00000001.jsonl"), file("db/a")}, "damaged"},
		"rest of nothing":  {[]entry{head, {tar.Header{Name: "journal/00000001.jsonl", PAXRecords: map[string]string{offsetRecord: "5"}}, "x"}, end}, "no such file"},
		"rest of a file":   {[]entry{head, {tar.Header{Name: "db/x", PAXRecords: map[string]string{offsetRecord: "5"}}, "x"}, end}, "not the rest"},
		"file as a folder": {[]entry{head, file("db/x/y"), file("db/x"), end}, ""},
	} {
		v, _, err := b.restore(b.forge(c.entries...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if left := v.List(""); len(left) > 0 {
			t.Errorf("%s: the volume holds %q", name, left)
		}
	}
}

// FuzzRestore: whatever is encrypted to us, nothing is written but where it belongs, and
// what is refused leaves nothing.
func FuzzRestore(f *testing.F) {
	b := newBed(f)
	file, _, _, err := b.write(nil, nil)
	b.ok(err)
	r, err := age.Decrypt(bytes.NewReader(file), b.id)
	b.ok(err)
	plain, err := io.ReadAll(r)
	b.ok(err)
	f.Add(plain)
	f.Add(plain[:len(plain)/2])
	f.Fuzz(func(t *testing.T, plain []byte) {
		b := &bed{t: t, id: b.id}
		v, rep, err := b.restore(b.seal(plain))
		left := v.List("")
		if err != nil && (len(left) > 0 || rep != nil) {
			t.Errorf("refused (%v), and the volume holds %q", err, left)
		}
		for _, name := range left {
			if !slices.Contains(made, name) {
				t.Errorf("the volume holds %q", name)
			}
		}
	})
}

// FuzzManifest: there is one way to write a manifest.
func FuzzManifest(f *testing.F) {
	b := newBed(f)
	_, manifest, _, err := b.write(nil, nil)
	b.ok(err)
	f.Add(manifest)
	f.Add([]byte(`{"files":0,"bytes":0}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := newManifestReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		w, err := newManifestWriter(&again, m.header)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := m.next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			if err := w.add(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), data) {
			t.Errorf("read and written again:\n%s\nwas\n%s", again.Bytes(), data)
		}
	})
}
