package appliance

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"signdrop/appliance/reason"
	"signdrop/keyfs/hd"
	"signdrop/spool"
)

// Requests that hold a secret come encrypted with age to the appliance's recipient
// and are called NAME.json.age or NAME.jsonl.age. The signature is over the
// encrypted bytes, so that who asks is known before anything is opened.

// ageSuffix ends the name of an encrypted request.
const ageSuffix = ".age"

// maxPlain is what an encrypted request may hold, in bytes.
const maxPlain = 64 << 20

// unseal sets the task's text: the request itself, opened if it came encrypted.
func (a *Appliance) unseal(t *task) *reason.Refusal {
	if !strings.HasSuffix(t.it.Name, ageSuffix) {
		t.text = t.it.Data
		return nil
	}
	refuse := reason.New(reason.AgeUnreadable, "encrypt it with age -r and the recipient in appliance.json, sign the encrypted file and drop both",
		"the file cannot be opened with the appliance's key")
	var in io.Reader = bytes.NewReader(t.it.Data)
	if bytes.HasPrefix(t.it.Data, []byte(armor.Header)) {
		in = armor.NewReader(in)
	}
	// What is wrong with it in detail helps nobody but who probes.
	plain, err := age.Decrypt(in, a.identity)
	if err != nil {
		return refuse
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxPlain+1))
	if err != nil {
		clear(text)
		return refuse
	}
	if len(text) > maxPlain {
		clear(text)
		return reason.New(reason.TooLarge, "split it", "the file holds more than the limit")
	}
	t.text, t.sealed = text, true
	return nil
}

// secretMarks are what a file in the clear must not have: private keys, and the
// fields of requests that hold a secret. Those of Bitcoin's wallets package hd knows.
var (
	secretMarks  = [][]byte{[]byte("PRIVATE KEY-----"), []byte("AGE-SECRET-KEY-")}
	secretFields = [][]byte{[]byte(`"passphrase"`), []byte(`"private_key"`), []byte(`"mnemonic"`)}
)

// maxPeek is how much of a file that is refused unread is searched for secrets, in
// bytes.
const maxPeek = 1 << 20

// exposed reports whether a private key lies in the clear in what has come, whether
// or not it is a request.
func (a *Appliance) exposed(t *task, read bool) (bool, error) {
	data := t.it.Data
	if data == nil && !read {
		var err error
		data, err = a.spool.Peek(t.it, maxPeek)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return holdsSecret(data), nil
}

func holdsSecret(data []byte) bool {
	for _, mark := range secretMarks {
		if bytes.Contains(data, mark) {
			return true
		}
	}
	for _, field := range secretFields {
		for rest := data; ; {
			_, after, ok := bytes.Cut(rest, field)
			if !ok {
				break
			}
			if bytes.HasPrefix(bytes.TrimLeft(after, " \t\r\n"), []byte(":")) {
				return true
			}
			rest = after
		}
	}
	return hd.HoldsSecret(data)
}

// exposure is the refusal of a secret in the clear.
func exposure() *reason.Refusal {
	return reason.New(reason.SecretInTheClear,
		"consider the secret exposed and use another; encrypt the request with age to the appliance's recipient and drop it as NAME.json"+ageSuffix,
		"the file holds a secret in the clear; it was wiped")
}

const spoolSigSuffix = spool.SigSuffix
