package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"signdrop/appliance/journal"
	"signdrop/keyfs"
	"signdrop/spool/durable"
)

// Targets of the design with 10,000,000 past requests.
const (
	wantPastStart  = 2   // seconds
	wantPastMemory = 256 // MiB
)

// past compares an appliance that has answered very many requests with a new one.
func (b *bench) past(string) error {
	fresh, err := b.station(keyfs.P256, keyfs.RecheckOff)
	if err != nil {
		return err
	}
	defer fresh.close()
	v, err := b.newVolume()
	if err != nil {
		return err
	}
	old := &station{v: v}
	defer old.close()
	ids, err := v.makeWallets(keyfs.P256, 1)
	if err != nil {
		return err
	}
	b.say("past: writing the journal of %d requests", b.sizes.past)
	if err := b.writePast(v); err != nil {
		return err
	}
	for _, dir := range []string{"journal", "index"} {
		if err := v.chill(dir); err != nil {
			return err
		}
	}
	old.request = requestFor(keyfs.P256, ids[0])
	if err := v.fill(1, old.request); err != nil {
		return err
	}
	if old.p, err = b.start(plan{Data: v.dir, Recheck: keyfs.RecheckOff.String()}); err != nil {
		return err
	}
	rep, err := old.p.once(1)
	if err != nil {
		return err
	}
	start := old.p.opened.Open + rep.Ready
	startMemory := old.p.opened.Memory
	if err := old.warm(b); err != nil {
		return err
	}
	uOld, uFresh := &used{}, &used{}
	m, err := b.interleave(b.sizes.rounds,
		func() (float64, error) { return b.sampleFiles(old, uOld) },
		func() (float64, error) { return b.sampleFiles(fresh, uFresh) })
	if err != nil {
		return err
	}
	cpuFresh, _ := uFresh.each()
	row := &Row{Name: "past", Rate: m.rate, Unit: "files", Other: m.ratios[0], Start: start, Memory: old.p.memory,
		Note: fmt.Sprintf("%d requests answered before, then killed, files of journal and index not in memory; %.0f MiB after the start; rate (P-256, off) compared with an empty journal: %s files/s, %.0f µs",
			b.sizes.past, startMemory, round(m.bare[0]), cpuFresh)}
	row.CPU, row.System = uOld.each()
	row.atMost("start %v s", wantPastStart, start)
	row.atMost("%v MiB", wantPastMemory, row.Memory)
	row.atLeast("%v of empty", wantSame, row.Other.Median)
	b.add(row)
	return errors.Join(old.p.close(), fresh.p.close())
}

// writePast has another process write the past, and kills it when all is durable:
// the start that follows is one after a crash.
func (b *bench) writePast(v *volume) error {
	p, err := b.start(plan{Data: v.dir, Past: b.sizes.past})
	if err != nil {
		return err
	}
	p.kill()
	p.wait() // its error is that it was killed
	return nil
}

// pastGroup is how many events are written at once.
const pastGroup = 1024

// writePast writes a journal of as many signatures as the plan says, and then on
// until the newest file has nearly the size at which another is begun, since a start
// reads that file through. It reports when everything is durable and waits for the
// end of its input.
func writePast(p plan, in io.Reader, out io.Writer) error {
	disk, err := durable.OpenDisk(p.Data)
	if err != nil {
		return err
	}
	defer disk.Close()
	root, err := disk.Root()
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.Sub("journal")
	if err != nil {
		return err
	}
	defer dir.Close()
	index, err := durable.SubMake(root, "index", 0o700)
	if err != nil {
		return err
	}
	defer index.Close()
	j, _, err := journal.Open(disk, dir, index, journal.Options{AllowNew: true})
	if err != nil {
		return err
	}
	events := make([]*journal.Event, pastGroup)
	for n := 0; ; n += pastGroup {
		if n >= p.Past && (p.Past < bigPast || nearlyFull(filepath.Join(p.Data, "journal"))) {
			break
		}
		for i := range events {
			events[i] = pastEvent(uint64(n + i))
		}
		if err := j.Write(events); err != nil {
			return err
		}
		// Synced once at the end: nobody relies on it before.
		j.Synced()
	}
	if err := disk.Sync(); err != nil {
		return err
	}
	// An appliance would have taken hours for this, and its index kept up with it.
	if err := settled(index); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(report{}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// settled waits until the index, which is written in the background, is at rest.
func settled(index durable.Dir) error {
	var last []string
	for same := 0; same < 10; {
		time.Sleep(100 * time.Millisecond)
		var names []string
		err := durable.Walk(index, func(e durable.Entry) error {
			names = append(names, e.Name)
			return nil
		})
		if err != nil {
			return err
		}
		slices.Sort(names)
		written := !slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".new") })
		if same++; !written || !slices.Equal(names, last) {
			same = 0
		}
		last = names
	}
	return nil
}

// bigPast is from how many requests on the newest file is filled up.
const bigPast = 1_000_000

// nearlyFull says whether the newest file of a journal has 250 of the 256 MiB after
// which another is begun.
func nearlyFull(dir string) bool {
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(names) == 0 {
		return true
	}
	info, err := os.Stat(names[len(names)-1])
	return err != nil || info.Size() >= 250<<20
}

// pastEvent is the event of a signed transfer, as the appliance writes it, with
// content that no other event has.
func pastEvent(n uint64) *journal.Event {
	digest := func(what string) [32]byte {
		return sha256.Sum256(binary.BigEndian.AppendUint64([]byte(what), n))
	}
	request, text, result := digest("request"), digest("text"), digest("result")
	var signature [71]byte
	copy(signature[:], text[:])
	copy(signature[32:], result[:])
	return &journal.Event{
		Kind: "signed", Company: company, Name: fmt.Sprintf("past-%09d.json", n), Request: request,
		By: company, Key: "SHA256:" + base64.RawStdEncoding.EncodeToString(result[:]), Type: "sign",
		Wallet: "W_000000000000000000000000000000", Ledger: "metacoin", Operation: "transfer",
		Nonce: hex.EncodeToString(request[:20]), Text: text, Algorithm: "ecdsa-p256-sha384",
		Signature: base64.StdEncoding.EncodeToString(signature[:]), Result: result,
	}
}
