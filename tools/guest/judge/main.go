// Command judge runs in the guest while the appliance does not, and holds the data
// volume to everything that the appliance has promised: appliance/checker says what
// that is.
//
//	judge [-at-rest] DIR <DROPS
//
// DROPS is a JSON array of checker.Drop, the requests whose upload was acknowledged.
// It prints the report as JSON. Exit status 1: a promise is broken.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"signdrop/appliance/answer"
	"signdrop/appliance/checker"
	"signdrop/appliance/testbed"
	"signdrop/spool/durable"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}

func run() error {
	atRest := flag.Bool("at-rest", false, "the appliance had time to finish")
	flag.Parse()
	var drops []checker.Drop
	if err := json.NewDecoder(os.Stdin).Decode(&drops); err != nil {
		return err
	}
	vol, err := durable.OpenDisk(flag.Arg(0))
	if err != nil {
		return err
	}
	defer vol.Close()
	report, err := checker.Check(vol, drops, *atRest, verify)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// verify checks signatures on NIST's curves. For secp256k1 there is openssl, on the
// host.
func verify(a *answer.Answer) error {
	if strings.Contains(a.Algorithm, "secp256k1") {
		return nil
	}
	return testbed.VerifyAnswer(a)
}
