package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"signdrop/appliance/auth"
	"signdrop/spool"
	"signdrop/spool/durable"
)

// parcel is one request on its way.
type parcel struct {
	file   string // where it is read
	name   string // in the inbox
	digest string // SHA-256 of the request, hexadecimal

	verdict  verdict
	refusals int // lines of its answer that are refusals
}

// requestName is the form of a request's name; see package spool.
var requestName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// checkName refuses a name that the appliance would refuse, or ignore.
func checkName(name string) error {
	if spool.Unfinished(name) {
		return fmt.Errorf("the appliance takes %s for a file that is not finished: use another name (--name)", name)
	}
	_, typed := typeOf(name)
	if !requestName.MatchString(name) || !typed {
		return fmt.Errorf("%s cannot be a request's name: use letters, digits, dot, dash and underscore, at most 200, ending in .json, .jsonl or .psbt", name)
	}
	return nil
}

func typeOf(name string) (spool.Type, bool) {
	for _, t := range spool.DefaultTypes {
		if strings.HasSuffix(name, t.Suffix) && len(name) > len(t.Suffix) {
			return t, true
		}
	}
	return spool.Type{}, false
}

// dropAll drops the parcels. What goes wrong with one does not stop the others. A
// signal does, between two files.
func (s *submit) dropAll(ctx context.Context, signer *signer, old *rejectedNames) {
	var (
		workers sync.WaitGroup
		next    = make(chan *parcel)
		mu      sync.Mutex // guards s while several settle
		done    int64
	)
	for range min(s.site.parallel(), len(s.parcels)) {
		workers.Go(func() {
			for p := range next {
				v, name, err := s.drop(p, signer, old)
				mu.Lock()
				switch {
				case err != nil:
					hint := ""
					if f := new(failure); errors.As(err, &f) {
						hint = f.hint
					}
					s.complain(p.name, err.Error(), hint)
					s.settle(p, failed, "")
				case v == refused:
					s.read(p, v, boxRejected, name)
				case v == answered:
					s.read(p, v, boxOutbox, name)
				case !s.wait:
					s.settle(p, v, "")
				}
				done++
				s.bar.set(done, "")
				mu.Unlock()
			}
		})
	}
	for _, p := range s.parcels {
		if ctx.Err() != nil {
			break
		}
		next <- p
	}
	close(next)
	workers.Wait()
	for _, p := range s.parcels {
		if p.verdict == pending && p.digest == "" {
			s.complain(p.name, "not dropped: interrupted", "")
			s.settle(p, failed, "")
		}
	}
}

// drop signs a parcel and puts it into the inbox, unless it lies there or has its
// verdict already; then it returns the name of the file that has it.
func (s *submit) drop(p *parcel, signer *signer, old *rejectedNames) (v verdict, name string, err error) {
	data, err := p.load()
	if err != nil {
		return failed, "", err
	}
	name = spool.AnswerName(p.name)
	there, err := digestIn(s.site, boxOutbox, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return failed, "", err
	case there == p.digest:
		return answered, name, nil
	default:
		return failed, "", fmt.Errorf("the answer to another request lies in the outbox: take %s away, or use another name (--name)", s.site.path(boxOutbox, name))
	}
	if name := old.verdict(p); name != "" {
		// The appliance remembers: it would say the same once more.
		return refused, name, nil
	}
	put, err := s.site.put(p.name, data, signer)
	if err != nil {
		return failed, "", err
	}
	if !put {
		return waiting, "", nil
	}
	return dropped, "", nil
}

// load reads the request once: what is signed is what is dropped.
func (p *parcel) load() ([]byte, error) {
	t, _ := typeOf(p.name)
	info, err := os.Stat(p.file)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("this is not a regular file")
	case info.Size() == 0:
		return nil, errors.New("the file is empty")
	case info.Size() > t.Max:
		return nil, fmt.Errorf("the file is larger than the limit of %d bytes: split it", t.Max)
	}
	data, err := os.ReadFile(p.file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	p.digest = hex.EncodeToString(sum[:])
	return data, nil
}

// put puts request and signature into the inbox, each whole and on disk for good
// before it has its name, and never in the place of something.
//
// The signature goes first, so that the request completes the pair: the request
// never lies there alone, not even for a moment and not if we are stopped in
// between. A company that is let in without signatures would have it answered then,
// and the signature refused for being alone. A signature that lies alone says
// nothing to the appliance for 15 minutes, and doing it again completes it.
func put(inbox, name string, data []byte, signer *signer) (put bool, err error) {
	request := filepath.Join(inbox, name)
	there, err := os.ReadFile(request)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	waits := err == nil
	if waits && !bytes.Equal(there, data) {
		return false, fmt.Errorf("another request waits in the inbox under this name: wait for its answer, or use another name (--name)")
	}
	sigPut, err := putSignature(request+spool.SigSuffix, data, signer)
	if err != nil || waits {
		return sigPut, err
	}
	err = durable.WriteFileNew(request, data, inboxMode)
	if err != nil && sigPut {
		// Only ours: it is of no use to anybody without the request.
		os.Remove(request + spool.SigSuffix)
	}
	return err == nil, err
}

// inboxMode lets the appliance's user read. Who else gets this far is decided by
// the mode of the inbox.
const inboxMode = 0o644

// putSignature writes the signature, unless a good one lies there.
func putSignature(path string, data []byte, signer *signer) (put bool, err error) {
	there, err := os.ReadFile(path)
	if err == nil {
		if sig, err := auth.ParseSignature(there); err == nil && sig.Whole(data) {
			return false, nil
		}
		return false, fmt.Errorf("%s lies in the inbox and is not a signature of this file: remove it", filepath.Base(path))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	sig, err := signer.sign(data)
	if err != nil {
		return false, err
	}
	return true, durable.WriteFileNew(path, sig, inboxMode)
}
