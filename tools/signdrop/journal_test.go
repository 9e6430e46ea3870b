package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"signdrop/appliance/journal"
	"signdrop/spool/durable"
)

// cmdJournal writes a journal into DIR/journal: a start, a refusal, a wallet, a
// signature, a batch of two lines, a stop.
func cmdJournal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: journal DIR")
	}
	data := ts.MkAbs(args[0])
	for _, d := range []string{"journal", "index"} {
		ts.Check(os.MkdirAll(filepath.Join(data, d), 0o700))
	}
	vol, err := durable.OpenDisk(data)
	ts.Check(err)
	defer vol.Close()
	root, err := vol.Root()
	ts.Check(err)
	defer root.Close()
	dir, err := root.Sub("journal")
	ts.Check(err)
	defer dir.Close()
	index, err := root.Sub("index")
	ts.Check(err)
	defer index.Close()

	now := time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)
	j, _, err := journal.Open(vol, dir, index, journal.Options{AllowNew: true, Now: func() time.Time {
		now = now.Add(time.Hour)
		return now
	}})
	ts.Check(err)
	sum := func(s string) [32]byte { return sha256.Sum256([]byte(s)) }
	for _, group := range [][]*journal.Event{
		{{Kind: "refused", Company: "acme", Name: "bad\x1b[31m.json", Code: "name-not-allowed"}},
		{{Kind: "created", Company: "acme", Name: "w.json", Request: sum("w"), By: "alice@acme", Key: "SHA256:a", Type: "wallet.create", Wallet: "W_1"}},
		{{Kind: "signed", Company: "acme", Name: "pay.json", Request: sum("pay"), By: "alice@acme", Key: "SHA256:a", Type: "sign", Wallet: "W_1",
			Ledger: "metacoin", Operation: "transfer", Nonce: "n1", Text: sum("text1"), Algorithm: "ecdsa-p384-sha384", Signature: "MGQCsingle"}},
		{
			{Kind: "line", Line: 1, Company: "other", Request: sum("run"), Type: "sign", Wallet: "W_2", Text: sum("text2"), Signature: "MGQCfirst"},
			{Kind: "line", Line: 2, Company: "other", Request: sum("run"), Code: "nonce-used"},
			{Kind: "answered", Company: "other", Name: "run.jsonl", Request: sum("run"), By: "bob", Key: "SHA256:b", Type: "batch"},
		},
	} {
		ts.Check(j.Write(group))
		ts.Check(vol.Sync())
		j.Synced()
	}
	ts.Check(j.Close(&journal.Event{Kind: "stop"}))
}
