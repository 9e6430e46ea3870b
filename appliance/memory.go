package appliance

import (
	"os"
	"runtime/debug"
)

// SetMemory sets the collector of the whole process for the appliance's work, which
// makes much garbage over little that stays: it may collect later than usual, as
// long as the heap stays small. Who sets GOGC or GOMEMLIMIT has decided otherwise.
func SetMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(112 << 20)
	}
}
