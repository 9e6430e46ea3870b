package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"signdrop/tools/guest/control"
)

// modules are what the guest's kernel needs and does not have built in.
var modules = []string{
	"virtio_net", "virtio_blk", "virtio_console", "virtio-rng",
	"ext4", "crc32c_generic", "dm-crypt", "xts", "ecb", "algif_skcipher", "algif_hash",
}

// parts is what a guest is started from.
type parts struct {
	kernel, ramdisk string
	config          *v1.Config // of the image
}

// assemble builds the image as "make image" does, and a ramdisk in dir with it, the
// guest's process 1 and Debian's programs.
func assemble(ctx context.Context, cache, dir string) (*parts, error) {
	debian, err := fetch(ctx, cache)
	if err != nil {
		return nil, err
	}
	p := &parts{ramdisk: filepath.Join(dir, "ramdisk")}
	kernels, err := filepath.Glob(filepath.Join(debian, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return nil, fmt.Errorf("there are %d kernels below %s: remove it, to have it fetched again", len(kernels), debian)
	}
	p.kernel = kernels[0]

	if _, err := output(ctx, ".", "go", "run", "signdrop/tools/image", "-arch", "s390x", "-o", dir); err != nil {
		return nil, err
	}
	img, err := unpack(filepath.Join(dir, "signdrop-linux-s390x.oci.tar"), filepath.Join(dir, "oci"), filepath.Join(dir, "image"))
	if err != nil {
		return nil, fmt.Errorf("unpacking the image: %w", err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	p.config = &c.Config
	for _, name := range []string{"init", "judge"} {
		_, err := output(ctx, ".", "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=s390x",
			"go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, name), "signdrop/tools/guest/"+name)
		if err != nil {
			return nil, err
		}
	}

	f, err := os.Create(p.ramdisk)
	if err != nil {
		return nil, err
	}
	r := newRamdisk(f)
	r.file("init", filepath.Join(dir, "init"), 0o755)
	r.file("bin/judge", filepath.Join(dir, "judge"), 0o755)
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", control.Data[1:]} {
		r.dir(d)
	}
	r.tree(control.Image[1:], filepath.Join(dir, "image"))
	files, err := moduleFiles(filepath.Join(debian, "lib/modules"), modules...)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var list bytes.Buffer
	for _, file := range files {
		name := filepath.Base(file)
		fmt.Fprintln(&list, name)
		r.file(control.Modules[1:]+"/"+name, file, 0o644)
	}
	r.reader(control.ModuleList[1:], &list, int64(list.Len()), 0o644)
	programs, err := programFiles(debian, busyboxProgram, cryptsetupProgram, mke2fsProgram, e2fsckProgram)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for name, file := range programs {
		r.file(name, file, 0o755)
	}
	return p, errors.Join(r.close(), f.Close())
}

// unpack unpacks an OCI archive by way of a directory, and the image's root.
func unpack(archive, dir, root string) (v1.Image, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := untar(f, dir); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) != 1 {
		return nil, fmt.Errorf("the archive holds %d images", len(m.Manifests))
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		return nil, err
	}
	files := mutate.Extract(img)
	defer files.Close()
	return img, untar(files, root)
}

// untar unpacks directories and regular files, which is all that our image has.
func untar(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(name, 0o755); err != nil {
				return err
			}
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(name, data, h.FileInfo().Mode().Perm()); err != nil {
			return err
		}
	}
}
