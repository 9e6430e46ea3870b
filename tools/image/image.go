package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// programs are what the image holds, by package; each lies in /usr/bin.
var programs = []string{"signdrop/appliance/signdropd", "signdrop/tools/signdrop"}

// directories are there so that a runtime can mount over them while the root is
// read-only. The empty ones are mount points: /data for the volume, /run/uv for
// the host's /sys/firmware/uv, which runtimes hide.
var directories = []string{"data", "dev", "proc", "run", "run/uv", "sys", "usr", "usr/bin"}

// epoch is the time of everything in the image.
var epoch = time.Unix(0, 0).UTC()

// config is how the image is run. The signer is root of its container, since the
// volume comes to it as root's and the SFTP door has to get another user (10210);
// deploy/README.md tells which capabilities that takes.
//
// SIGNDROP_ADMINS and SIGNDROP_ADMIN_THRESHOLD come from whoever runs it.
// SIGNDROP_ALLOW_PLAIN_KEYS is nothing that an image decides.
var config = v1.Config{
	User:         "0:0",
	Entrypoint:   []string{"/usr/bin/signdropd", "serve"},
	Env:          []string{"PATH=/usr/bin", "SIGNDROP_DATA=/data", "SIGNDROP_LOG_FORMAT=json", "SIGNDROP_SFTP=:10210"},
	ExposedPorts: map[string]struct{}{"10210/tcp": {}},
	Volumes:      map[string]struct{}{"/data": {}},
	WorkingDir:   "/",
	StopSignal:   "SIGTERM",
	Labels: map[string]string{
		"org.opencontainers.image.title":       "signdrop",
		"org.opencontainers.image.description": "signing appliance whose only interface is files",
	},
}

// build compiles the programs into dir. Nothing of this machine gets into them: no
// paths, no time, no state of the working copy.
func build(ctx context.Context, arch, dir string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", dir + "/"}
	cmd := exec.CommandContext(ctx, "go", append(args, programs...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOFLAGS=-mod=readonly",
		"GOEXPERIMENT=", "GODEBUG=", "GOFIPS140=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// binary is where build leaves a program.
func binary(dir, program string) string { return filepath.Join(dir, filepath.Base(program)) }

// pack makes the image of the programs in dir.
func pack(dir, arch string) (v1.Image, error) {
	files, err := root(dir)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.Append(img, mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History:   v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "signdrop/tools/image"},
	}); err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created, c.Config = "linux", arch, v1.Time{Time: epoch}, config
	return mutate.ConfigFile(img, c)
}

// root is the file system of the image as a tar archive.
func root(dir string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, d := range directories {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755, ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
	}
	for _, p := range programs {
		data, err := os.ReadFile(binary(dir, p))
		if err != nil {
			return nil, err
		}
		if err := add(w, "usr/bin/"+filepath.Base(p), 0o755, data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func add(w *tar.Writer, name string, mode int64, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: epoch, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// archive is an image as an OCI image layout (image-spec, image-layout.md) in a tar
// archive, which skopeo and podman call oci-archive.
func archive(img v1.Image) ([]byte, error) {
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	size, err := img.Size()
	if err != nil {
		return nil, err
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIManifestSchema1, Size: size, Digest: digest,
		Platform: &v1.Platform{OS: c.OS, Architecture: c.Architecture},
	}}})
	if err != nil {
		return nil, err
	}
	layout, err := json.Marshal(map[string]string{"imageLayoutVersion": "1.0.0"})
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := add(w, "oci-layout", 0o644, layout); err != nil {
		return nil, err
	}
	if err := add(w, "index.json", 0o644, index); err != nil {
		return nil, err
	}
	if err := addBlobs(w, img); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// addBlobs adds manifest, configuration and layers.
func addBlobs(w *tar.Writer, img v1.Image) error {
	blob := func(h v1.Hash, data []byte) error {
		return add(w, "blobs/"+strings.Replace(h.String(), ":", "/", 1), 0o644, data)
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	data, err := img.RawManifest()
	if err != nil {
		return err
	}
	if err := blob(digest, data); err != nil {
		return err
	}
	if digest, err = img.ConfigName(); err != nil {
		return err
	}
	if data, err = img.RawConfigFile(); err != nil {
		return err
	}
	if err := blob(digest, data); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		if digest, err = l.Digest(); err != nil {
			return err
		}
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return err
		}
		if err := blob(digest, data); err != nil {
			return err
		}
	}
	return nil
}
