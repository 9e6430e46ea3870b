package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestCourierKilled kills the courier at its renames and syncs, which are where each
// step ends: the state files before and after sending, the dropping of the request to
// bind. Then it goes on. The calls are of strace, which sees an emulator's own under
// one, so the test is for one architecture.
func TestCourierKilled(t *testing.T) {
	for _, call := range []string{"rename,renameat,renameat2", "fsync"} {
		t.Run(call, func(t *testing.T) {
			j := newJourney(t)
			to := j.other()
			kills, rounds := 0, 8
			if testing.Short() {
				rounds = 3
			}
			// Which call it is differs from run to run: strace counts those of each
			// thread for itself, so that the nth may not come. The first does.
			for round := 0; round < rounds || kills < rounds && round < 4*rounds; round++ {
				n := round/2 + 1
				if round >= rounds {
					n = 1
				}
				wallet := fmt.Sprintf("w%d", round)
				j.ask(wallet+".json", fmt.Sprintf(`{"type":"wallet.create","curve":"P-256","reference":%q}`, wallet))
				carried, addresses := j.node.Done(), j.node.Addresses()
				first := j.underStrace(call, n)
				j.courier(0)
				j.appliance()
				id := j.answer(wallet + ".result.json").Wallet
				from := j.answer("bind-" + id + ".result.json").Address
				j.pay(fmt.Sprintf("p%d.json", round), id, from, to)
				second := j.underStrace(call, n)
				out, err := j.command(j.courierArgs()...).CombinedOutput()
				if err != nil && !strings.Contains(string(out), "uncertain\t") {
					t.Fatalf("%v: %s", err, out)
				}
				j.carried(carried + 1)
				if n := j.node.Addresses(); n != addresses+1 {
					t.Fatalf("there are %d addresses more, want 1", n-addresses)
				}
				for _, killed := range []bool{first, second} {
					if killed {
						kills++
					}
				}
			}
			if kills < rounds {
				t.Errorf("it was killed %d times only", kills)
			}
		})
	}
}

// underStrace runs the courier and kills it at the nth of these system calls. It
// reports whether there were so many.
func (j *journey) underStrace(call string, n int) (killed bool) {
	j.Helper()
	args := append([]string{"-f", "-qq", "-o", j.path("strace"), "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), "--", j.bin[0]}, j.courierArgs()...)
	cmd := exec.CommandContext(j.Context(), "strace", args...)
	cmd.Dir = j.dir
	cmd.Env = j.env()
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if cmd.ProcessState.Exited() && !strings.Contains(string(out), "uncertain\t") {
		j.Fatalf("under strace: %v: %s", err, out)
	}
	return !cmd.ProcessState.Exited()
}
