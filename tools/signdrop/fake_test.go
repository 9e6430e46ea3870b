package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"signdrop/appliance/answer"
	"signdrop/appliance/reason"
	"signdrop/spool"
)

// cmdFake does to one request what the appliance would, as far as a partner sees
// it: it waits for request and signature, takes them, publishes the verdict and
// puts a refused request into rejected/. Nothing is checked and nothing is signed.
//
//	fake NAME VERDICT…
//
// A verdict is ok or a reason code; a batch has one for each line. A NAME.psbt that
// is ok is answered with two further files; as second verdict, altered and lost say
// what becomes of the one.
func cmdFake(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fake NAME VERDICT…")
	}
	name, verdicts := args[0], args[1:]
	in := func(dir, name string) string { return ts.MkAbs(filepath.Join("spool", dir, name)) }
	until(ts, func() bool {
		_, err1 := os.Lstat(in("inbox", name))
		_, err2 := os.Lstat(in("inbox", name+spool.SigSuffix))
		return err1 == nil && err2 == nil
	}, name+" and its signature do not come")
	data, err := os.ReadFile(in("inbox", name))
	ts.Check(err)
	sig, err := os.ReadFile(in("inbox", name+spool.SigSuffix))
	ts.Check(err)
	ts.Check(os.Remove(in("inbox", name)))
	ts.Check(os.Remove(in("inbox", name+spool.SigSuffix)))

	head := answer.Head{Request: sha256.Sum256(data)}
	if strings.HasSuffix(name, ".json") && verdicts[0] != "ok" {
		refuse(ts, in, name, data, sig, head, verdicts[0])
		return
	}
	if base, ok := strings.CutSuffix(name, ".psbt"); ok {
		if verdicts[0] != "ok" {
			refuse(ts, in, name, data, sig, head, verdicts[0])
			return
		}
		files := []answer.FileEntry{}
		for _, ending := range []string{"-signed.psbt", "-final.txn"} {
			sum := sha256.Sum256([]byte(ending))
			files = append(files, answer.FileEntry{Ending: ending, Size: int64(len(ending)), SHA256: fmt.Sprintf("%x", sum)})
			switch content := ending; {
			case ending == "-final.txn" && len(verdicts) > 1 && verdicts[1] == "lost":
			case ending == "-final.txn" && len(verdicts) > 1:
				content = verdicts[1]
				fallthrough
			default:
				publish(ts, in("outbox", base+ending), []byte(content))
			}
		}
		publish(ts, in("outbox", spool.AnswerName(name)), answer.AppendResult(nil, head, "sign", "signed", answer.Member{Name: "files", Value: files}))
		return
	}
	var product []byte
	for i, v := range verdicts {
		h := head
		if strings.HasSuffix(name, ".jsonl") {
			h.Line = i + 1
		}
		if v != "ok" {
			product = answer.AppendRefusal(product, h, "", reason.New(reason.Code(v), "mend it", "something is wrong"))
			continue
		}
		s := answer.Signed{Head: h, Wallet: "W_1", Algorithm: "ecdsa-p384-sha384", Payload: "text", Signature: "AAAA"}
		product = s.Append(product)
	}
	publish(ts, in("outbox", spool.AnswerName(name)), product)
}

// refuse publishes a reason under the first free name, unless the very same one
// lies there, and then puts the request away.
func refuse(ts *testscript.TestScript, in func(dir, name string) string, name string, data, sig []byte, head answer.Head, code string) {
	product := answer.AppendRefusal(nil, head, name, reason.New(reason.Code(code), "mend it", "something is wrong"))
	suffix := filepath.Ext(name)
	base := strings.TrimSuffix(name, suffix)
	stem := base
	for i := 2; ; i++ {
		there, err := os.ReadFile(in("rejected", base+spool.ReasonSuffix))
		if errors.Is(err, fs.ErrNotExist) {
			publish(ts, in("rejected", base+spool.ReasonSuffix), product)
			break
		}
		ts.Check(err)
		if bytes.Equal(there, product) {
			break
		}
		base = fmt.Sprintf("%s.%d", stem, i)
	}
	to := base + suffix
	for i := 2; ; i++ {
		if _, err := os.Lstat(in("rejected", to)); err != nil {
			break
		}
		to = fmt.Sprintf("%s%s~%d", base, suffix, i)
	}
	publish(ts, in("rejected", to), data)
	publish(ts, in("rejected", to+spool.SigSuffix), sig)
}

// publish makes a file appear whole.
func publish(ts *testscript.TestScript, path string, data []byte) {
	tmp := ts.MkAbs(".fake")
	ts.Check(os.WriteFile(tmp, data, 0o600))
	ts.Check(os.Rename(tmp, path))
}

// cmdCompose puts an answer together from what openssl has made:
//
//	compose OUT ALGORITHM OPERATION TEXT-FILE PUBLIC-KEY SIGNATURE [REQUEST]
//
// OPERATION - means none. The answer has submit for a transfer.
func cmdCompose(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 6 {
		ts.Fatalf("usage: compose OUT ALGORITHM OPERATION TEXT-FILE PUBLIC-KEY SIGNATURE [REQUEST]")
	}
	text := ts.ReadFile(args[3])
	a := answer.Signed{
		Wallet: "W_1", Algorithm: args[1], Payload: text, PublicKey: ts.ReadFile(args[4]),
		Signature: base64.StdEncoding.EncodeToString([]byte(ts.ReadFile(args[5]))),
	}
	if args[2] != "-" {
		a.Operation = args[2]
	}
	if v := strings.Split(text, "|"); a.Operation == "transfer" && len(v) == 5 {
		a.Submit = fmt.Appendf(nil, `{"method":"POST","path":"/transfer","form":{"from":%q,"to":%q,"token":%q,"amount":%q,"checkkey":%q,"signature":%q}}`,
			v[0], v[1], v[2], v[3], v[4], a.Signature)
	}
	if len(args) > 6 {
		a.Head.Request = sha256.Sum256([]byte(ts.ReadFile(args[6])))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), a.Append(nil), 0o600))
}
