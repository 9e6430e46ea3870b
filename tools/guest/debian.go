package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The kernel and the programs of the guest are those of the Debian that this machine
// runs, for s390x. They come from the mirrors that its apt is configured with, and
// apt checks their signatures as always; but apt works in directories of its own
// here, so that it does not mix them up with what is installed.

const (
	kernelPackage = "linux-image-s390x" // it depends on the newest
	// What sets up the disk, and a shell for people who look into the guest.
	busyboxProgram    = "bin/busybox"
	cryptsetupProgram = "sbin/cryptsetup"
	mke2fsProgram     = "sbin/mke2fs"
	e2fsckProgram     = "sbin/e2fsck"
)

var programPackages = []string{"busybox-static", "cryptsetup-bin", "e2fsprogs"}

// Cache is where Debian's packages are kept, unpacked:
// $XDG_CACHE_HOME/signdrop-guest. Remove it to have newer ones.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("looking for a place to keep Debian's packages: %w (set XDG_CACHE_HOME)", err)
	}
	return filepath.Join(dir, "signdrop-guest"), nil
}

// fetch returns the root of the unpacked packages, from the cache if they are there.
//
// Crash: what was begun lies in .fetch-… and is worth nothing; run it again.
func fetch(ctx context.Context, cache string) (root string, err error) {
	release, err := codename("/etc/os-release")
	if err != nil {
		return "", err
	}
	root = filepath.Join(cache, release+"-s390x")
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, ".fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	debs, err := download(ctx, tmp)
	if err != nil {
		return "", fmt.Errorf("fetching Debian's packages for s390x: %w", err)
	}
	for _, deb := range debs {
		if _, err := output(ctx, tmp, "dpkg-deb", "--extract", deb, filepath.Join(tmp, "root")); err != nil {
			return "", err
		}
	}
	if err := os.Rename(filepath.Join(tmp, "root"), root); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return root, nil
}

// codename is "bookworm" for Debian 12.
func codename(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", fmt.Errorf("%s names no release: the guest takes its kernel from Debian's mirrors, and this is no Debian", file)
}

// download has apt fetch the packages, with those that they need, and returns their
// files.
func download(ctx context.Context, dir string) ([]string, error) {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	// Apt takes its locks beside this file.
	status := filepath.Join(dir, "state/status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	apt := func(program string, args ...string) (string, error) {
		opts := []string{
			"-oAPT::Architecture=s390x", "-oAPT::Architectures=s390x",
			"-oDir::State=" + filepath.Join(dir, "state"), "-oDir::State::status=" + status,
			"-oDir::Cache=" + filepath.Join(dir, "cache"),
			"-oAPT::Sandbox::User=root", // apt's own user may not write here
			"-oAcquire::Languages=none", "-oAcquire::Retries=3", "-q",
		}
		return output(ctx, filepath.Join(dir, "cache/archives"), program, append(opts, args...)...)
	}
	if _, err := apt("apt-get", "update"); err != nil {
		return nil, err
	}
	out, err := apt("apt-cache", "depends", kernelPackage)
	if err != nil {
		return nil, err
	}
	_, kernel, ok := strings.Cut(out, "Depends: ")
	if !ok {
		return nil, fmt.Errorf("%s depends on no kernel:\n%s", kernelPackage, out)
	}
	kernel, _, _ = strings.Cut(kernel, "\n")
	// Not what the kernel depends on: that is for a whole system.
	if _, err := apt("apt-get", "download", strings.TrimSpace(kernel)); err != nil {
		return nil, err
	}
	args := append([]string{"install", "--download-only", "--yes", "--no-install-recommends"}, programPackages...)
	if _, err := apt("apt-get", args...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "cache/archives/*.deb"))
}

// output runs a program of this machine in dir.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}
