// Package systemd_test checks the unit for systemd with systemd's own tools.
package systemd_test

import (
	"os/exec"
	"strings"
	"testing"
)

// most is the exposure that the unit may have, in tenths: docs/operations.md says what
// makes it up.
const most = "10"

func TestUnit(t *testing.T) {
	out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold="+most, "--no-pager", "signdropd.service").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "Overall exposure level") || strings.Contains(string(out), "ignoring") {
		t.Errorf("%s", out)
	}
	// What is misspelt or in the wrong section. The program is not installed here.
	out, _ = exec.Command("systemd-analyze", "verify", "signdropd.service").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "signdropd.service") && !strings.Contains(line, "is not executable") {
			t.Error(line)
		}
	}
}
