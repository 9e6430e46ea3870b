package keyfs

import (
	"io"
	"os"
)

// guestFile is where the kernel of an s390x guest says whether it runs under
// IBM Secure Execution: "1" or "0" (Linux, arch/s390/kernel/uv.c).
const guestFile = "/sys/firmware/uv/prot_virt_guest"

// ProtectedGuest reports whether this machine is a protected guest, whose memory
// the host cannot read. It says nothing about the disk, and it believes the
// kernel that runs: the image that was started vouches for that one.
func ProtectedGuest() bool { return protectedGuest(guestFile) }

// protectedGuest reads a file of sysfs, which is no data volume; hence os.
func protectedGuest(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var first [1]byte
	_, err = io.ReadFull(f, first[:])
	return err == nil && first[0] == '1'
}
