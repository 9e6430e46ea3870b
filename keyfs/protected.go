package keyfs

import (
	"io"
	"os"
	"syscall"
)

// guestFile is where the kernel of an s390x guest says whether it runs under
// IBM Secure Execution: "1" or "0" (Linux, arch/s390/kernel/uv.c).
const guestFile = "/sys/firmware/uv/prot_virt_guest"

// mountedFile is the same file in a container. Runtimes hide /sys/firmware there,
// so whoever runs the container mounts the guest's /sys/firmware/uv at /run/uv.
const mountedFile = "/run/uv/prot_virt_guest"

// sysfs is the type of the kernel's file system (SYSFS_MAGIC, statfs(2)).
const sysfs = 0x62656572

// ProtectedGuest reports whether this machine is a protected guest, whose memory
// the host cannot read. It says nothing about the disk, and it believes the
// kernel that runs: the image that was started vouches for that one.
func ProtectedGuest() bool {
	return protectedGuest(guestFile, false) || protectedGuest(mountedFile, true)
}

// protectedGuest reads a file of sysfs, which is no data volume; hence os. At a
// place where anything could lie it must be the kernel's own (genuine).
func protectedGuest(path string, genuine bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if genuine {
		var st syscall.Statfs_t
		if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil || int64(st.Type) != sysfs {
			return false
		}
	}
	var first [1]byte
	_, err = io.ReadFull(f, first[:])
	return err == nil && first[0] == '1'
}
