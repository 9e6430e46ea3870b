package metacoin

import (
	"hash/crc32"

	"signdrop/appliance/reason"
)

// An address is "MT", 30 letters or digits that the ledger drew at random, and
// the CRC-32 (IEEE) of those 30 as 8 lower-case hex digits. It is not derived
// from a key. The checksum catches typing errors; it protects against nothing.
const (
	addressLen  = 40
	addressBody = 2  // where the 30 begin
	addressSum  = 32 // where the checksum begins
)

// ValidAddress says whether s is a well-formed Metacoin address. Whether the
// ledger knows it is another question.
func ValidAddress(s string) bool {
	return addressForm(s) && addressSumFits(s)
}

// CheckAddress is ValidAddress with a refusal that says what is wrong; nil
// means that nothing is. The refusal names no field.
func CheckAddress(s string) *reason.Refusal {
	switch {
	case !addressForm(s):
		return reason.New(reason.FieldInvalid,
			"an address is MT, 30 letters or digits and 8 lower-case hex digits",
			"not a Metacoin address")
	case !addressSumFits(s):
		return reason.New(reason.FieldInvalid,
			"copy the address again: at least one of its characters is mistyped",
			"the address's checksum does not fit")
	}
	return nil
}

// addressForm checks everything but the checksum. The ledger itself never
// looks at the 30 characters, but it draws no others.
func addressForm(s string) bool {
	return len(s) == addressLen && s[:addressBody] == "MT" && isAlnum(s[addressBody:addressSum])
}

// addressSumFits goes byte by byte, since crc32.ChecksumIEEE would want the
// string copied to the heap.
func addressSumFits(s string) bool {
	sum := ^uint32(0)
	for i := addressBody; i < addressSum; i++ {
		sum = crc32.IEEETable[byte(sum)^s[i]] ^ sum>>8
	}
	sum = ^sum
	for i := addressLen - 1; i >= addressSum; i-- {
		if s[i] != "0123456789abcdef"[sum&15] {
			return false
		}
		sum >>= 4
	}
	return true
}
