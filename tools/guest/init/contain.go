package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"signdrop/tools/guest/control"
)

// containName is what this program is called when it becomes a program of the image.
const containName = "contain"

// capabilities are what deploy/README.md grants.
var capabilities = []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID}

// devices are the character devices that a runtime puts into /dev (OCI runtime
// specification, config-linux.md), by minor number of major 1.
var devices = map[string]uint32{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}

// contain makes the image the root, read-only, as a container runtime does, and runs
// a program there. It has namespaces of its own for mounts and processes. It comes
// back with an error only.
func contain(args []string) error {
	runtime.LockOSThread() // capabilities belong to a thread
	below := func(name string) string { return filepath.Join(control.Image, name) }
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount(control.Image, control.Image, "", unix.MS_BIND); err != nil {
		return err
	}
	for _, m := range []struct {
		from, at, kind string
		flags          uintptr
	}{
		{"proc", below("proc"), "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", below("dev"), "tmpfs", unix.MS_NOSUID | unix.MS_NOEXEC},
		{control.Data, below("data"), "", unix.MS_BIND},
		{"/sys/firmware/uv", below("run/uv"), "", unix.MS_BIND}, // what a pod's hostPath does
	} {
		if _, err := os.Stat(m.from); m.flags == unix.MS_BIND && os.IsNotExist(err) {
			continue // a kernel that knows nothing of protected guests
		}
		if err := mount(m.from, m.at, m.kind, m.flags); err != nil {
			return err
		}
	}
	for name, minor := range devices {
		path := below("dev/" + name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return fmt.Errorf("making %s: %w", path, err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	if err := unix.Mount("", control.Image, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := unix.Chroot(control.Image); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Access("/usr", unix.W_OK); err != unix.EROFS {
		return fmt.Errorf("the image's root is not read-only: %v", err)
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !slices.Contains(capabilities, c) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Exec(args[0], args, os.Environ())
}
