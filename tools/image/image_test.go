package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// untar unpacks an archive of directories and regular files.
func untar(t testing.TB, r io.Reader, dir string) (names []string) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return names
		}
		must(t, err)
		names = append(names, h.Name)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(epoch) {
			t.Errorf("%s: %+v has something of this machine", h.Name, h)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if h.Typeflag == tar.TypeDir {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		data, err := io.ReadAll(tr)
		must(t, err)
		must(t, os.WriteFile(path, data, h.FileInfo().Mode().Perm()))
	}
}

// unpack reads an archive as skopeo would and unpacks the image's file system.
func unpack(t testing.TB, file, arch, into string) (v1.Image, []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	dir := t.TempDir()
	untar(t, bytes.NewReader(data), dir)
	index, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	must(t, validate.Index(index))
	m, err := index.IndexManifest()
	must(t, err)
	if len(m.Manifests) != 1 || m.Manifests[0].Platform.String() != "linux/"+arch || m.MediaType != types.OCIImageIndex {
		t.Fatalf("%s: the index is %+v", file, m)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	must(t, err)
	files := mutate.Extract(img)
	defer files.Close()
	return img, untar(t, files, into)
}

// fakes puts small files where build puts the programs: this test's own program is
// a Go program too, and has what the SBOM is made of.
func fakes(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	self, err := os.ReadFile(exe)
	must(t, err)
	dir := t.TempDir()
	for _, p := range programs {
		must(t, os.WriteFile(binary(dir, p), self, 0o700))
	}
	return dir
}

// TestPack: the same programs make the same image whatever the day, the zone, the
// umask and the modes of the files, and it says how it is run.
func TestPack(t *testing.T) {
	dir := fakes(t)
	make := func() (v1.Image, []byte, []byte) {
		img, err := pack(dir, "s390x")
		must(t, err)
		data, err := archive(img)
		must(t, err)
		digest, err := img.Digest()
		must(t, err)
		list, err := bill(dir, "s390x", digest.String())
		must(t, err)
		return img, data, list
	}
	img, data, list := make()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	t.Setenv("TZ", "Pacific/Chatham")
	for _, p := range programs {
		must(t, os.Chtimes(binary(dir, p), time.Time{}, time.Unix(1, 1)))
		must(t, os.Chmod(binary(dir, p), 0o444))
	}
	_, again, listAgain := make()
	if !bytes.Equal(data, again) || !bytes.Equal(list, listAgain) {
		t.Error("a second image of the same programs is another one")
	}
	c, err := img.ConfigFile()
	must(t, err)
	_, port := c.Config.ExposedPorts["10210/tcp"]
	_, volume := c.Config.Volumes["/data"]
	if !port || !volume || c.Architecture != "s390x" || c.Config.User != "0:0" || !slices.Equal(c.Config.Entrypoint, []string{"/usr/bin/signdropd", "serve"}) {
		t.Errorf("the configuration is %+v", c)
	}
	for _, e := range c.Config.Env {
		if strings.Contains(e, "PLAIN_KEYS") || strings.Contains(e, "ADMIN") {
			t.Errorf("the image decides %s", e)
		}
	}
	var doc document
	must(t, json.Unmarshal(list, &doc))
	refs := map[string]bool{doc.Metadata.Component.Ref: true}
	for _, c := range doc.Components {
		if refs[c.Ref] {
			t.Errorf("%s is listed twice", c.Ref)
		}
		refs[c.Ref] = true
	}
	if !refs["/usr/bin/signdropd"] || !refs["pkg:golang/std@"+strings.TrimPrefix(runtime.Version(), "go")] {
		t.Errorf("the SBOM lists %v", refs)
	}
	for _, d := range doc.Depends {
		for _, on := range d.On {
			if !refs[on] {
				t.Errorf("%s depends on %s, which is not listed", d.Ref, on)
			}
		}
	}
}

// TestDockerfile: who builds with an engine gets the same layout.
func TestDockerfile(t *testing.T) {
	data, err := os.ReadFile("../../deploy/Dockerfile")
	must(t, err)
	text := string(data)
	last := text[strings.LastIndex(text, "FROM "):]
	entry, err := json.Marshal(config.Entrypoint)
	must(t, err)
	want := []string{"FROM scratch\n", "USER " + config.User, "EXPOSE 10210/tcp", `VOLUME ["/data"]`, "STOPSIGNAL " + config.StopSignal,
		"ENTRYPOINT " + strings.ReplaceAll(string(entry), ",", ", "), "WORKDIR " + config.WorkingDir}
	want = append(want, config.Env...)
	for _, w := range want {
		if !strings.Contains(last, w) {
			t.Errorf("the last stage of deploy/Dockerfile does not say %q", w)
		}
	}
	for _, d := range directories {
		if !strings.Contains(text, "/image/"+d) {
			t.Errorf("deploy/Dockerfile does not make /%s", d)
		}
	}
	if strings.Contains(text, "PLAIN_KEYS=") {
		t.Error("deploy/Dockerfile allows plain keys")
	}
}

// TestErrors: what goes wrong leaves nothing behind.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"-o", dir, "x"}, {"-nonsense"}, {"-o", dir, "-arch", "nonsense"}} {
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
	if err := bill2(t.TempDir()); err == nil {
		t.Error("an SBOM of nothing is no error")
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("there is %v, %v", list, err)
	}
}

func bill2(dir string) error {
	if _, err := pack(dir, "s390x"); err == nil {
		return nil
	}
	_, err := bill(dir, "s390x", "sha256:0")
	return err
}

// copySource copies the module without what is not source.
func copySource(t *testing.T, to string) {
	t.Helper()
	top, err := filepath.Abs("../..")
	must(t, err)
	must(t, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (d.Name() == "testdata" || slices.Contains([]string{".git", "bin", "build", "demo", "bench", "docs"}, rel)):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular() || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	}))
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
