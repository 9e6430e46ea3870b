//go:build guest

package guest_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"signdrop/appliance/auth"
	"signdrop/appliance/testbed"
	"signdrop/tools/guest"
	"signdrop/tools/guest/control"
)

// TestRestoreDrill restores a backup that was made on amd64 into the guest, with the
// image's own program, has it accepted, and signs: the same bytes come out. Then the
// power is cut, and they are still there.
func TestRestoreDrill(t *testing.T) {
	m := assemble(t)
	d := &drill{t: t, m: m}
	ctx := t.Context()
	d.must(m.Boot(ctx))
	d.must(m.Format(ctx))
	d.must(m.Mount(ctx))
	entry := m.Entrypoint()[0]

	// Where a runtime would mount a directory with the backups.
	made := "../../appliance/testdata/backup"
	d.unpack(control.Image, 0o600, map[string][]byte{
		"run/keeper.txt": d.read(made, "keeper.txt"), "run/full.backup.age": d.read(made, "full.backup.age"), "run/more.backup.age": d.read(made, "increment.backup.age"),
	})
	out, err := m.Image(ctx, nil, entry, "restore", "--data", "/data", "--identity", "/run/keeper.txt", "/run/full.backup.age", "/run/more.backup.age")
	d.must(err)
	id := regexp.MustCompile(`R_[0-9a-f]{30}`).FindString(string(out))
	if id == "" {
		t.Fatalf("restore tells no id:\n%s", out)
	}

	accept := fmt.Appendf(nil, `{"type":"restore.accept","restore":%q}`, id)
	files := map[string][]byte{"admin/inbox/accept.json": accept}
	for _, who := range []string{"ann", "bob"} {
		files["admin/inbox/accept.json."+who+".sig"] = testbed.Named("admin", who).SignAs(accept, auth.NamespaceAdmin)
	}
	for _, name := range []string{"old.json", "after.jsonl"} {
		data := d.read(made, name)
		files["acme/inbox/"+name], files["acme/inbox/"+name+".sig"] = data, testbed.NewPartner("acme").Sign(data)
	}
	d.unpack(control.Data+"/spool", 0o600, files)
	once := func() error {
		_, err := m.Image(ctx, []string{"SIGNDROP_ALLOW_PLAIN_KEYS=true"}, entry, "once", "--data", "/data")
		return err
	}
	// The first answers the administrators, and the companies are served then.
	if err := once(); err != nil {
		t.Logf("the first time: %v", err)
	}
	d.must(once())
	look := func() {
		t.Helper()
		for name, result := range map[string]string{"old.json": "old.result.json", "after.jsonl": "after.result.jsonl"} {
			got, err := m.Run(ctx, nil, "/bin/busybox", "cat", control.Data+"/spool/acme/outbox/"+result)
			d.must(err)
			if want := d.read(made, result); !bytes.Equal(got, want) {
				t.Errorf("%s is answered here with\n%s\nand where the backup was made with\n%s", name, got, want)
			}
		}
	}
	look()
	m.Kill()
	d.must(m.Boot(ctx))
	d.must(m.Mount(ctx))
	look()
}

// drill is what the test needs.
type drill struct {
	t *testing.T
	m *guest.Machine
}

func (d *drill) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *drill) read(dir, name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	d.must(err)
	return data
}

// unpack puts files below a directory of the guest.
func (d *drill) unpack(dir string, mode int64, files map[string][]byte) {
	d.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range files {
		d.must(w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Format: tar.FormatUSTAR}))
		_, err := w.Write(data)
		d.must(err)
	}
	d.must(w.Close())
	_, err := d.m.Run(d.t.Context(), buf.Bytes(), "/bin/busybox", "tar", "-x", "-C", dir)
	d.must(err)
}
