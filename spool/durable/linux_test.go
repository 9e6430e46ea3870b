package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"signdrop/spool/durable"
)

// onMount runs f on a tmpfs that no other process can see: the thread that mounts
// it has a mount namespace of its own, and ends with the test.
func onMount(t *testing.T, options string, f func(disk *durable.Disk) error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	top := t.TempDir()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends here
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return errors.Join(errNoMount, err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return errors.Join(errNoMount, err)
			}
			if err := unix.Mount("none", top, "tmpfs", unix.MS_NODEV, options); err != nil {
				return errors.Join(errNoMount, err)
			}
			disk, err := durable.OpenDisk(top)
			if err != nil {
				return err
			}
			defer disk.Close()
			return f(disk)
		}()
	}()
	switch err := <-result; {
	case errors.Is(err, errNoMount):
		t.Skipf("cannot mount here: %v", err)
	case err != nil:
		t.Error(err)
	}
}

var errNoMount = errors.New("mounting is not permitted")

// TestMountPoint mounts another file system on a name in the volume.
func TestMountPoint(t *testing.T) {
	onMount(t, "size=1m", func(disk *durable.Disk) error {
		root, err := disk.Root()
		if err != nil {
			return err
		}
		defer root.Close()
		outside := filepath.Join(t.TempDir(), "outside")
		if err := errors.Join(
			os.WriteFile(outside, []byte("secret"), 0o600),
			durable.WriteNew(root, "file", 0o600, nil),
			root.Mkdir("dir", 0o700),
			unix.Mount(outside, filepath.Join(disk.Path(), "file"), "", unix.MS_BIND, ""),
			unix.Mount(filepath.Dir(outside), filepath.Join(disk.Path(), "dir"), "", unix.MS_BIND, ""),
		); err != nil {
			return err
		}
		if _, err := root.Open("file"); !errors.Is(err, durable.ErrNotRegular) {
			return fmt.Errorf("opening a file that is mounted over: got error %v", err)
		}
		if _, err := root.Sub("dir"); !errors.Is(err, durable.ErrNotRegular) {
			return fmt.Errorf("opening a directory that is mounted over: got error %v", err)
		}
		if err := root.Move("file", root, "other"); err == nil {
			return errors.New("moving a mount point succeeds")
		}
		return nil
	})
}

// TestDeviceOnNodevVolume opens a device where the mount forbids that: the answer
// is that it is no regular file, not that the file may not be read.
func TestDeviceOnNodevVolume(t *testing.T) {
	onMount(t, "size=1m", func(disk *durable.Disk) error {
		root, err := disk.Root()
		if err != nil {
			return err
		}
		defer root.Close()
		if err := unix.Mknod(filepath.Join(disk.Path(), "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			return err
		}
		_, err = root.Open("null")
		if !errors.Is(err, durable.ErrNotRegular) || errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("got error %v, want ErrNotRegular alone", err)
		}
		return nil
	})
}

// TestOpenLeasedFile opens a file whose owner holds a write lease on it, as any
// local user can take on a file of his own. The kernel would let the owner keep us
// waiting for /proc/sys/fs/lease-break-time, which is 45 seconds.
func TestOpenLeasedFile(t *testing.T) {
	disk := openDisk(t)
	path := filepath.Join(disk.Path(), "leased")
	owner, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if _, err := unix.FcntlInt(owner.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	root, err := disk.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()

	// Had it waited for the owner, it would have opened the file in the end.
	if _, err = root.Open("leased"); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got error %v, want EAGAIN at once", err)
	}
	if _, err := unix.FcntlInt(owner.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	f, err := root.Open("leased")
	if err != nil {
		t.Fatalf("opening after the lease: %v", err)
	}
	f.Close()
}

// TestOpenWhileMoved opens a name that somebody moves to another directory and
// back all the time: it is there or it is not, and never of another type.
func TestOpenWhileMoved(t *testing.T) {
	disk := openDisk(t)
	a, b := filepath.Join(disk.Path(), "a"), filepath.Join(disk.Path(), "b")
	for _, err := range []error{os.Mkdir(a, 0o700), os.Mkdir(b, 0o700), os.WriteFile(filepath.Join(a, "x"), nil, 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := disk.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	dir, err := root.Sub("a")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()

	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := errors.Join(os.Rename(a+"/x", b+"/x"), os.Rename(b+"/x", a+"/x")); err != nil {
				stopped <- err
				return
			}
		}
	}()
	// Without asking again after EXDEV, one in 600 fails.
	for range 50_000 {
		f, err := dir.Open("x")
		if err == nil {
			f.Close()
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got error %v", err)
			break
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
