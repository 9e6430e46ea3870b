package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

const identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"

// keyFiles are the files with secrets on a test volume, and their public keys.
func keyFiles(t testing.TB) map[string]seal.Label {
	t.Helper()
	id, err := age.ParseX25519Identity(identity)
	must(t, err)
	m := map[string]seal.Label{}
	for file, public := range map[string]string{
		"appliance/identity.age":                id.Recipient().String(),
		"appliance/ssh_host_ed25519_key":        "",
		"companies/acme/wallets/W_1/key.pem":    "public W_1",
		"companies/acme/wallets/W_2/key.pem":    "public W_2",
		"companies/beta/wallets/W_1/key.pem":    "public beta W_1",
		"companies/beta/datakeys/K_1/key.pem":   "public K_1",
		"companies/beta/datakeys/K_222/key.pem": "public K_222",
	} {
		m[file] = seal.Label{Path: file, Public: public}
	}
	return m
}

// content is what a key file holds in the clear.
func content(file string) []byte {
	if file == "appliance/identity.age" {
		return []byte(identity + "\n")
	}
	return []byte("SECRET of " + file + "\n")
}

// plainVolume is a volume with keys in the clear.
func plainVolume(t testing.TB) *modelfs.Volume {
	t.Helper()
	v := modelfs.New()
	for file, label := range keyFiles(t) {
		dir := "db/" + path.Dir(file)
		v.MkdirAll(dir, 0o700)
		v.WriteFile("db/"+file, content(file))
		record := ""
		switch {
		case strings.Contains(file, "/wallets/"):
			record = "wallet.json"
		case strings.Contains(file, "/datakeys/"):
			record = "datakey.json"
		default:
			continue
		}
		v.WriteFile(dir+"/"+record, fmt.Appendf(nil, `{"id": "x", "public_key": %q}`, label.Public))
	}
	// A wallet that a crash kept from being finished, and a company without any.
	v.MkdirAll("db/companies/acme/wallets/.W_3.new", 0o700)
	v.WriteFile("db/companies/acme/wallets/.W_3.new/key.pem", []byte("SECRET that nobody has seen"))
	v.MkdirAll("db/companies/gamma", 0o700)
	// The model's files belong to root.
	v.Chown("db", uint32(os.Geteuid()), 0)
	must(t, v.Sync())
	return v
}

func unlock(t testing.TB, v durable.FS, req seal.Request) (*seal.Sealer, seal.Result, error) {
	t.Helper()
	root, err := v.Root()
	if err != nil {
		return nil, seal.Result{}, err
	}
	defer root.Close()
	return seal.Unlock(v, root, req)
}

// sealedVolume is a volume that was sealed under a KEK.
func sealedVolume(t testing.TB, kek seal.KEK) *modelfs.Volume {
	t.Helper()
	v := plainVolume(t)
	_, _, err := unlock(t, v, seal.Request{KEK: kek, Convert: true})
	must(t, err)
	return v
}

// secrets lists the files that hold a secret in the clear.
func secrets(t testing.TB, v *modelfs.Volume) (list []string) {
	t.Helper()
	v.Walk(func(file string, info durable.Info) {
		if !info.Mode.IsRegular() {
			return
		}
		text, err := v.ReadFile(file)
		must(t, err)
		if bytes.Contains(text, []byte("SECRET")) {
			list = append(list, file)
		}
	})
	return list
}

// whole fails unless every key opens with the sealer, none lies in the clear, and
// nothing is left over.
func whole(t testing.TB, v *modelfs.Volume, s *seal.Sealer) {
	t.Helper()
	for file, label := range keyFiles(t) {
		text, err := v.ReadFile("db/" + file)
		must(t, err)
		got, err := s.Open(text, label)
		if err != nil || !bytes.Equal(got, content(file)) {
			t.Errorf("%s: got %q, %v", file, got, err)
		}
	}
	if list := secrets(t, v); len(list) > 0 {
		t.Errorf("keys lie in the clear: %q", list)
	}
	v.Walk(func(file string, info durable.Info) {
		if path.Base(file)[0] == '.' {
			t.Errorf("%s is left", file)
		}
	})
	if h := v.OpenHandles(); len(h) > 0 {
		t.Errorf("handles are left open: %q", h)
	}
	if info := look(t, v); info == nil || info.State != seal.StateSealed || len(info.KEKs) != 1 || info.KEKs[0] != s.KEK() || info.VolumeKey != s.VolumeKey() {
		t.Errorf("seal.json says %+v", info)
	}
}

func look(t testing.TB, v durable.FS) *seal.Info {
	t.Helper()
	root, err := v.Root()
	must(t, err)
	defer root.Close()
	info, err := seal.Look(root)
	must(t, err)
	return info
}

func TestUnlock(t *testing.T) {
	a, b, c := rawKEK(t, 'a'), rawKEK(t, 'b'), rawKEK(t, 'c')
	v := plainVolume(t)
	before := v.Tree()

	// A volume in the clear.
	s, res, err := unlock(t, v, seal.Request{})
	if s != nil || err != nil || res != (seal.Result{}) {
		t.Errorf("in the clear: got %v, %+v, %v", s, res, err)
	}
	if _, _, err := unlock(t, v, seal.Request{KEK: a}); !errors.Is(err, seal.ErrPlain) {
		t.Errorf("in the clear, with a key: got %v", err)
	}
	if v.Tree() != before {
		t.Error("something was changed")
	}

	s, res, err = unlock(t, v, seal.Request{KEK: a, Convert: true})
	must(t, err)
	whole(t, v, s)
	if n := len(keyFiles(t)); res.Sealed != n || res.Files != n || res.Rotated {
		t.Errorf("sealing: %+v", res)
	}
	text, err := v.ReadFile("db/appliance/recipient")
	must(t, err)
	if want := keyFiles(t)["appliance/identity.age"].Public + "\n"; string(text) != want {
		t.Errorf("recipient %q, want %q", text, want)
	}

	// A sealed one.
	before = v.Tree()
	s, res, err = unlock(t, v, seal.Request{KEK: a})
	must(t, err)
	whole(t, v, s)
	if res != (seal.Result{}) {
		t.Errorf("opening: %+v", res)
	}
	for _, tt := range []struct {
		name string
		req  seal.Request
		is   error
		want string
	}{
		{"without a key", seal.Request{}, seal.ErrSealed, a.ID()},
		{"without a key, converting", seal.Request{Convert: true}, seal.ErrSealed, a.ID()},
		{"another key", seal.Request{KEK: b}, seal.ErrKEK, "sealed under the key-encryption key " + a.ID() + " (raw), and " + b.ID() + " (raw) was given"},
		{"another key, converting", seal.Request{KEK: b, Convert: true}, seal.ErrKEK, a.ID()},
		{"two other keys", seal.Request{KEK: b, Previous: c}, seal.ErrKEK, c.ID() + " (raw) was given"},
	} {
		s, _, err := unlock(t, v, tt.req)
		if s != nil || !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v", tt.name, s, err)
		}
	}
	if v.Tree() != before {
		t.Error("something was changed")
	}

	// Another key-encryption key: the volume key stays, and the one before is out.
	s2, res, err := unlock(t, v, seal.Request{KEK: b, Previous: a})
	must(t, err)
	whole(t, v, s2)
	if !res.Rotated || res.Sealed != 0 || s2.VolumeKey() != s.VolumeKey() {
		t.Errorf("changing the KEK: %+v, volume key %s, before %s", res, s2.VolumeKey(), s.VolumeKey())
	}
	if _, _, err := unlock(t, v, seal.Request{KEK: a}); !errors.Is(err, seal.ErrKEK) || !strings.Contains(err.Error(), b.ID()) {
		t.Errorf("the key before: got %v", err)
	}
	// The same words again, as a container's environment has them.
	_, res, err = unlock(t, v, seal.Request{KEK: b, Previous: a})
	if err != nil || res.Rotated {
		t.Errorf("again: %+v, %v", res, err)
	}

	// Another volume key.
	s3, res, err := unlock(t, v, seal.Request{KEK: b, NewVolumeKey: true})
	must(t, err)
	whole(t, v, s3)
	if res.Sealed != len(keyFiles(t)) || s3.VolumeKey() == s.VolumeKey() {
		t.Errorf("another volume key: %+v", res)
	}
	text, err = v.ReadFile("db/companies/acme/wallets/W_1/key.pem")
	must(t, err)
	if _, err := s2.Open(text, label); err == nil {
		t.Error("the volume key before opens a file")
	}

	// A wallet that was put back from a backup of before.
	v.WriteFile("db/companies/acme/wallets/W_1/key.pem", content("companies/acme/wallets/W_1/key.pem"))
	s, _, err = unlock(t, v, seal.Request{KEK: b})
	must(t, err)
	text, err = v.ReadFile("db/companies/acme/wallets/W_1/key.pem")
	must(t, err)
	if got, err := s.Open(text, label); err == nil || got != nil {
		t.Error("a key in the clear was taken on a sealed volume")
	}
	s, res, err = unlock(t, v, seal.Request{KEK: b, Convert: true})
	must(t, err)
	whole(t, v, s)
	if res.Sealed != 1 || res.Files != len(keyFiles(t)) {
		t.Errorf("sealing what was put back: %+v", res)
	}
}

// What stands in the way of sealing is found before anything is changed.
func TestConvertRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		harm func(v *modelfs.Volume)
		want string
	}{
		{"no public key", func(v *modelfs.Volume) { v.WriteFile("db/companies/acme/wallets/W_2/wallet.json", []byte(`{}`)) }, "acme/wallets/W_2/wallet.json holds no public key"},
		{"no wallet.json", func(v *modelfs.Volume) { v.Remove("db/companies/acme/wallets/W_2/wallet.json") }, "acme/wallets/W_2/key.pem"},
		{"no key", func(v *modelfs.Volume) { v.Remove("db/companies/beta/datakeys/K_1/key.pem") }, "beta/datakeys/K_1/key.pem is missing"},
		{"no identity", func(v *modelfs.Volume) { v.Remove("db/appliance/identity.age") }, "appliance/identity.age is missing"},
		{"no age identity", func(v *modelfs.Volume) { v.WriteFile("db/appliance/identity.age", []byte("SECRET")) }, "does not hold an age identity"},
		{"another user's", func(v *modelfs.Volume) { v.Chown("db", uint32(os.Geteuid())+1, 0) }, "db belongs to uid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := plainVolume(t)
			tt.harm(v)
			before := len(secrets(t, v))
			s, _, err := unlock(t, v, seal.Request{KEK: rawKEK(t, 'a'), Convert: true})
			if s != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v, want %q", s, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error holds a secret: %v", err)
			}
			if v.Exists("db/appliance/seal.json") || len(secrets(t, v)) < before-1 { // the unfinished wallet may go
				t.Error("something was sealed")
			}
		})
	}
}

// A seal.json that somebody without the key has changed, or that is damaged, opens
// nothing.
func TestRingDamaged(t *testing.T) {
	kek := rawKEK(t, 'a')
	v := sealedVolume(t, kek)
	text, err := v.ReadFile("db/appliance/seal.json")
	must(t, err)
	_, foreign, err := seal.New(kek)
	must(t, err)
	between := func(b []byte, from, to string) string {
		_, rest, _ := strings.Cut(string(b), from)
		in, _, _ := strings.Cut(rest, to)
		return in
	}
	for name, bad := range map[string]string{
		"empty":                     "",
		"cut off":                   string(text[:len(text)/2]),
		"a field more":              strings.Replace(string(text), `"version": 1,`, `"version": 1, "x": 2,`, 1),
		"another version":           strings.Replace(string(text), `"version": 1`, `"version": 2`, 1),
		"another state":             strings.Replace(string(text), `"sealed"`, `"sealing"`, 1),
		"another form":              strings.Replace(string(text), "  ", " ", 1),
		"another mac":               strings.Replace(string(text), between(text, `"mac": "`, `"`), between(foreign, `"mac": "`, `"`), 1),
		"another wrapped key":       strings.Replace(string(text), between(text, `"data": "`, `"`), between(foreign, `"data": "`, `"`), 1),
		"another volume key's name": strings.ReplaceAll(string(text), between(text, `"current": "`, `"`), between(foreign, `"current": "`, `"`)),
	} {
		t.Run(name, func(t *testing.T) {
			v := v.Clone()
			v.WriteFile("db/appliance/seal.json", []byte(bad))
			before := v.Tree()
			for _, req := range []seal.Request{{KEK: kek}, {KEK: kek, Convert: true}, {KEK: rawKEK(t, 'b'), Previous: kek}, {}} {
				s, _, err := unlock(t, v, req)
				if s != nil || err == nil {
					t.Errorf("unlocked: %v", s)
				} else if req.KEK != nil && !strings.Contains(err.Error(), "restore") {
					t.Errorf("no remedy: %v", err)
				}
			}
			if v.Tree() != before {
				t.Error("something was changed")
			}
		})
	}
}

// scenes are what Unlock changes.
func scenes(t testing.TB) map[string]struct {
	before  func(t testing.TB) *modelfs.Volume
	request seal.Request
} {
	a, b := rawKEK(t, 'a'), rawKEK(t, 'b')
	sealed := func(t testing.TB) *modelfs.Volume { return sealedVolume(t, a) }
	return map[string]struct {
		before  func(t testing.TB) *modelfs.Volume
		request seal.Request
	}{
		"seal":       {plainVolume, seal.Request{KEK: a, Convert: true}},
		"change KEK": {sealed, seal.Request{KEK: b, Previous: a}},
		"reseal":     {sealed, seal.Request{KEK: a, NewVolumeKey: true}},
		"both":       {sealed, seal.Request{KEK: b, Previous: a, NewVolumeKey: true, Convert: true}},
	}
}

var errInjected = errors.New("injected failure")

// Whatever stops a sealing at whatever call: no key is lost, one of the two KEKs opens
// the volume, and doing it again finishes.
func TestUnlockCrashes(t *testing.T) {
	seal.SetGroup(3)
	defer seal.SetGroup(256)
	for name, scene := range scenes(t) {
		t.Run(name, func(t *testing.T) {
			start := scene.before(t)
			stride, states := 1, 0
			if testing.Short() {
				stride = 41
			}
			for at, ended := 1, false; !ended; at += stride {
				for _, fault := range []modelfs.Fault{modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter,
					modelfs.FailDone(errInjected), modelfs.FailNotDone(errInjected)} {
					v := start.Clone()
					n := 0
					v.SetFault(func(modelfs.Call) modelfs.Fault {
						if n++; n == at {
							return fault
						}
						return modelfs.None
					})
					s, _, err := unlock(t, v, scene.request)
					if ended = n < at; ended {
						must(t, err)
					}
					if (s == nil) != (err != nil) {
						t.Errorf("got %v, %v", s, err)
					}
					v.SetFault(nil)
					for _, choice := range v.Choices(1, uint64(at)) {
						recovers(t, v.Clone().Crash(choice), scene.request, err == nil)
						states++
						if t.Failed() {
							t.Fatalf("call %d, fault %v, power cut %v", at, fault, choice)
						}
					}
					v.Kill()
					recovers(t, v, scene.request, err == nil)
					states++
					if t.Failed() {
						t.Fatalf("call %d, fault %v, kill", at, fault)
					}
				}
			}
			t.Logf("%d states", states)
		})
	}
}

// recovers checks a volume on which an Unlock was stopped. told says that it had said
// that all is done.
func recovers(t *testing.T, v *modelfs.Volume, req seal.Request, told bool) {
	t.Helper()
	if told {
		s, _, err := unlock(t, v.Clone(), seal.Request{KEK: req.KEK})
		must(t, err)
		whole(t, v, s)
	}
	// The daemon starts again, with the new key or the old one.
	c := v.Clone()
	s, _, err := unlock(t, c, seal.Request{KEK: req.KEK})
	if errors.Is(err, seal.ErrKEK) {
		s, _, err = unlock(t, c, seal.Request{KEK: req.Previous})
	}
	switch {
	case errors.Is(err, seal.ErrPlain) && req.Convert && req.Previous == nil:
		for file := range keyFiles(t) {
			if text, err := c.ReadFile("db/" + file); err != nil || !bytes.Equal(text, content(file)) {
				t.Errorf("%s: %q, %v", file, text, err)
			}
		}
	case err != nil:
		t.Errorf("neither key opens the volume: %v", err)
	default:
		whole(t, c.Crash(modelfs.KeepNothing), s)
	}
	// The same is done again.
	s, _, err = unlock(t, v, req)
	if err != nil {
		t.Errorf("doing it again: %v", err)
		return
	}
	whole(t, v.Crash(modelfs.KeepNothing), s)
}

// What lay in the clear is overwritten, and so is what the volume key was wrapped in.
func TestWiped(t *testing.T) {
	v := plainVolume(t)
	root, err := v.Root()
	must(t, err)
	defer root.Close()
	held := func(dir ...string) func() []byte {
		t.Helper()
		d, err := durable.SubPath(root, dir[:len(dir)-1]...)
		must(t, err)
		defer d.Close()
		f, err := d.Open(dir[len(dir)-1])
		must(t, err)
		return func() []byte {
			defer f.Close()
			info, err := f.Stat()
			must(t, err)
			b := make([]byte, info.Size)
			_, err = f.ReadAt(b, 0)
			must(t, err)
			return b
		}
	}
	key := held("db", "companies", "acme", "wallets", "W_1", "key.pem")
	id := held("db", "appliance", "identity.age")
	unfinished := held("db", "companies", "acme", "wallets", ".W_3.new", "key.pem")
	a, b := rawKEK(t, 'a'), rawKEK(t, 'b')
	_, _, err = unlock(t, v, seal.Request{KEK: a, Convert: true})
	must(t, err)
	ring := held("db", "appliance", "seal.json")
	_, _, err = unlock(t, v, seal.Request{KEK: b, Previous: a})
	must(t, err)
	for name, read := range map[string]func() []byte{"key.pem": key, "identity.age": id, "unfinished": unfinished, "seal.json": ring} {
		if got := bytes.Trim(read(), "\x00"); len(got) > 0 {
			t.Errorf("%s: the disk holds %q still", name, got)
		}
	}
}

// TestUnlockDisk seals a volume on the real disk, whose files are not writable for
// their owner.
func TestUnlockDisk(t *testing.T) {
	dir := t.TempDir()
	for file, label := range keyFiles(t) {
		at := filepath.Join(dir, "db", file)
		must(t, os.MkdirAll(filepath.Dir(at), 0o700))
		must(t, os.WriteFile(at, content(file), 0o400))
		for _, record := range []string{"wallet.json", "datakey.json"} {
			must(t, os.WriteFile(filepath.Join(filepath.Dir(at), record), fmt.Appendf(nil, `{"public_key": %q}`, label.Public), 0o400))
		}
	}
	held, err := os.Open(filepath.Join(dir, "db/companies/acme/wallets/W_1/key.pem"))
	must(t, err)
	defer held.Close()
	disk, err := durable.OpenDisk(dir)
	must(t, err)
	defer disk.Close()
	s, res, err := unlock(t, disk, seal.Request{KEK: rawKEK(t, 'a'), Convert: true})
	must(t, err)
	if res.Sealed != len(keyFiles(t)) {
		t.Errorf("%+v", res)
	}
	b := make([]byte, 100)
	n, _ := held.ReadAt(b, 0)
	if n == 0 || len(bytes.Trim(b[:n], "\x00")) > 0 {
		t.Errorf("the old bytes are there still: %q", b[:n])
	}
	must(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err == nil && bytes.Contains(text, []byte("SECRET")) {
			t.Errorf("%s is in the clear", name)
		}
		info, ierr := e.Info()
		if ierr == nil && info.Mode() != 0o400 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		return errors.Join(err, ierr)
	}))
	for file, label := range keyFiles(t) {
		text, err := os.ReadFile(filepath.Join(dir, "db", file))
		must(t, err)
		if got, err := s.Open(text, label); err != nil || !bytes.Equal(got, content(file)) {
			t.Errorf("%s: got %q, %v", file, got, err)
		}
	}
}

// A sealed file of one wallet does not open in the place of another.
func TestSwapped(t *testing.T) {
	v := sealedVolume(t, rawKEK(t, 'a'))
	s, _, err := unlock(t, v, seal.Request{KEK: rawKEK(t, 'a')})
	must(t, err)
	files := keyFiles(t)
	for from := range files {
		for to, label := range files {
			if from == to {
				continue
			}
			text, err := v.ReadFile("db/" + from)
			must(t, err)
			if got, err := s.Open(text, label); err == nil || got != nil {
				t.Errorf("%s opens as %s", from, to)
			}
		}
	}
	// Nor does a sealing that goes over all of them take it.
	text, err := v.ReadFile("db/companies/acme/wallets/W_1/key.pem")
	must(t, err)
	v.WriteFile("db/companies/acme/wallets/W_2/key.pem", text)
	if s, _, err := unlock(t, v, seal.Request{KEK: rawKEK(t, 'a'), NewVolumeKey: true}); err == nil || s != nil ||
		!strings.Contains(err.Error(), "W_2/key.pem: it does not open") {
		t.Errorf("got %v, %v", s, err)
	}
}

// Open leaves what was begun to somebody who may change the volume.
func TestOpen(t *testing.T) {
	kek := rawKEK(t, 'a')
	open := func(v *modelfs.Volume, k seal.KEK) (*seal.Sealer, error) {
		root, err := v.Root()
		must(t, err)
		defer root.Close()
		return seal.Open(root, k)
	}
	v := plainVolume(t)
	if s, err := open(v, kek); s != nil || !errors.Is(err, seal.ErrPlain) {
		t.Errorf("in the clear: %v, %v", s, err)
	}
	n := 0
	half := v.Clone()
	half.SetFault(func(c modelfs.Call) modelfs.Fault {
		if c.Op == modelfs.OpSyncAll {
			if n++; n == 2 {
				return modelfs.CrashAfter
			}
		}
		return modelfs.None
	})
	if _, _, err := unlock(t, half, seal.Request{KEK: kek, Convert: true}); err == nil {
		t.Fatal("the crash was not noticed")
	}
	half.SetFault(nil)
	half = half.Crash(modelfs.KeepAll)
	if s, err := open(half, kek); s != nil || err == nil || !strings.Contains(err.Error(), "signdropd seal") {
		t.Errorf("half sealed: %v, %v", s, err)
	}
	v = sealedVolume(t, kek)
	if s, err := open(v, rawKEK(t, 'b')); s != nil || !errors.Is(err, seal.ErrKEK) {
		t.Errorf("another key: %v, %v", s, err)
	}
	s, err := open(v, kek)
	must(t, err)
	whole(t, v, s)
}
