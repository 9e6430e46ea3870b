package appliance

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"filippo.io/age"
	"filippo.io/age/armor"

	"signdrop/appliance/answer"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/keyfs"
	"signdrop/keyfs/datakey"
)

// dataKeyID derives a data key's id from the request that creates it, as walletID.
func dataKeyID(appliance, company string, file [32]byte, line int) string {
	return "K_" + walletID(appliance, company+"\x00datakey", file, line)[len(idPrefix):]
}

// judgeDataKey checks a request about a data key before anything is done.
func (a *Appliance) judgeDataKey(c *company, t *task, o *outcome) error {
	req := o.req
	if req.Passphrase != nil && datakey.CheckPassphrase(req.Passphrase) != nil {
		return reason.New(reason.FieldInvalid, fmt.Sprintf("use %d to %d characters", datakey.MinPassphrase, datakey.MaxPassphrase),
			"this cannot be a passphrase").At("passphrase")
	}
	if req.Type == request.DataKeyCreate {
		return nil
	}
	var err error
	o.key, err = a.dataKeys.Lookup(c.name, req.Key)
	if errors.Is(err, keyfs.ErrUnknown) || errors.Is(err, keyfs.ErrInvalid) {
		return reason.New(reason.DataKeyUnknown, "check the id", "the company has no such data key").At("key")
	}
	if err != nil {
		return err
	}
	format := datakey.Algorithm(req.Format)
	if req.Format == "" {
		// What one block holds goes into one block, as walletKMS did.
		format = datakey.OAEPSHA256
		if len(req.Text)+len(req.Bytes) > datakey.MaxText {
			format = datakey.JWE
		}
		if req.Type == request.Decrypt {
			return reason.New(reason.FieldMissing, "say rsa-oaep-sha256, rsa-oaep-sha1 or jwe: the answer to encrypt has told it",
				"it is not said how the text was encrypted").At("format")
		}
	}
	o.format = format
	if !format.Known() || req.Type == request.Encrypt && format == datakey.OAEPSHA1 {
		return reason.New(reason.FieldInvalid, "use rsa-oaep-sha256 or jwe; rsa-oaep-sha1 is for old ciphertexts", "no such format").At("format")
	}
	if req.Type == request.Encrypt {
		if format == datakey.OAEPSHA256 && len(req.Text)+len(req.Bytes) > datakey.MaxText {
			return reason.New(reason.FieldInvalid, "use jwe", "the text is too long for this format").At("format")
		}
		return nil
	}
	if req.Clear {
		if !c.policy.Clear {
			return reason.New(reason.PolicyForbids, `give a recipient, or ask for "clear": true in the policy`,
				"the policy does not allow a text to come back in the clear").At("clear")
		}
		if t.batch() {
			return reason.New(reason.FieldInvalid, "drop it as a file of its own, or give a recipient",
				"a batch's answers are kept, and a text in the clear is not").At("clear")
		}
	} else if o.recipient, err = age.ParseX25519Recipient(req.Recipient); err != nil {
		return notARecipient()
	} else if _, err := o.recipient.Wrap(make([]byte, 16)); err != nil {
		return notARecipient() // of its form, and of no use: a point of low order
	}
	return nil
}

func notARecipient() *reason.Refusal {
	return reason.New(reason.FieldInvalid, "give what age-keygen prints as public key: age1…", "this is not an age recipient").At("recipient")
}

// dataKeyEffect makes a data key, encrypts or decrypts.
func (a *Appliance) dataKeyEffect(c *company, t *task, o *outcome) error {
	switch o.req.Type {
	case request.DataKeyCreate:
		return a.createDataKey(c, t, o)
	case request.Encrypt:
		return a.encrypt(o)
	}
	return a.decrypt(c, o)
}

func (a *Appliance) createDataKey(c *company, t *task, o *outcome) error {
	k, err := a.dataKeys.Create(c.name, datakey.Spec{
		ID: dataKeyID(a.seed, c.name, t.digest, o.head.Line), Name: o.req.Name, Passphrase: o.req.Passphrase,
	}, a.vol)
	if fault := a.keyFault(c, o, err); fault != nil || o.refusal != nil {
		return fault
	}
	o.key = k
	o.done("created", answer.Member{Name: "key", Value: k.ID()}, answer.Member{Name: "title", Value: k.Name()},
		answer.Member{Name: "public_key", Value: k.PublicPEM()})
	return nil
}

func (a *Appliance) encrypt(o *outcome) error {
	plain := o.req.Bytes
	if plain == nil {
		plain = []byte(o.req.Text)
	}
	var text string
	var err error
	if o.format == datakey.JWE {
		text, err = o.key.EncryptJWE(plain)
	} else {
		var b []byte
		b, err = o.key.EncryptText(plain)
		text = base64.StdEncoding.EncodeToString(b)
	}
	if errors.Is(err, keyfs.ErrDisabled) {
		o.refusal = dataKeyDisabled()
		return nil
	}
	if err != nil {
		return err
	}
	o.done("encrypted", answer.Member{Name: "key", Value: o.key.ID()}, answer.Member{Name: "format", Value: string(o.format)},
		answer.Member{Name: "ciphertext", Value: text})
	return nil
}

func dataKeyDisabled() *reason.Refusal {
	return reason.New(reason.DataKeyUnknown, "ask your administrators", "the data key is disabled").At("key")
}

// decrypt answers a decrypt request. Who guesses passphrases is slowed down.
func (a *Appliance) decrypt(c *company, o *outcome) error {
	id := c.name + "/" + o.key.ID()
	defer a.locks.lock("datakey " + id)() // one guess at a time
	if wait := a.guard.Wait(id, a.cfg.Now()); wait > 0 {
		o.refusal = reason.New(reason.PassphraseWait, fmt.Sprintf("drop it again in %s", wait.Round(time.Second)),
			"too many wrong passphrases came for this data key").At("passphrase")
		o.passing = true
		return nil
	}
	plain, refusal, err := a.opened(c, o)
	if refusal != nil && refusal.Code == reason.PassphraseWrong {
		a.guard.Wrong(id, a.cfg.Now())
		a.log.Warn().Str("company", c.name).Str("key", o.key.ID()).Msg("a wrong passphrase for a data key")
	} else if err == nil && refusal == nil {
		a.guard.Right(id)
	}
	if err != nil || refusal != nil {
		o.refusal = refusal
		return err
	}
	defer clear(plain)
	if o.req.Clear {
		o.done("decrypted", a.inClear(o, plain)...)
		o.kept = false // it is decrypted once more instead
		return nil
	}
	var b bytes.Buffer
	arm := armor.NewWriter(&b)
	w, err := age.Encrypt(arm, o.recipient)
	if err == nil {
		if _, err = w.Write(plain); err == nil {
			err = w.Close()
		}
	}
	if err := errors.Join(err, arm.Close()); err != nil {
		return fmt.Errorf("encrypting to the asker's recipient: %w", err)
	}
	o.done("decrypted", answer.Member{Name: "key", Value: o.key.ID()}, answer.Member{Name: "encrypted", Value: b.String()})
	return nil
}

// inClear is what the answer says of a text that goes out as it is.
func (a *Appliance) inClear(o *outcome, plain []byte) []answer.Member {
	m := []answer.Member{{Name: "key", Value: o.key.ID()}}
	if utf8.Valid(plain) {
		return append(m, answer.Member{Name: "text", Value: string(plain)})
	}
	return append(m, answer.Member{Name: "bytes", Value: base64.StdEncoding.EncodeToString(plain)})
}

// opened decrypts what a decrypt request holds. The refusal tells nothing of why a
// ciphertext does not decrypt.
func (a *Appliance) opened(c *company, o *outcome) ([]byte, *reason.Refusal, error) {
	ciphertext := []byte(o.req.Ciphertext)
	if o.format != datakey.JWE {
		var err error
		if ciphertext, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(ciphertext))); err != nil {
			return nil, ciphertextInvalid(), nil
		}
	}
	plain, err := o.key.Decrypt(o.format, ciphertext, o.req.Passphrase)
	switch {
	case errors.Is(err, datakey.ErrPassphrase):
		return nil, reason.New(reason.PassphraseWrong, "check it; after five wrong ones each further one has to wait", "the passphrase does not open the data key").At("passphrase"), nil
	case errors.Is(err, datakey.ErrCiphertext):
		return nil, ciphertextInvalid(), nil
	case errors.Is(err, keyfs.ErrDisabled):
		return nil, dataKeyDisabled(), nil
	}
	if err != nil {
		if fault := a.keyFault(c, o, err); fault != nil {
			return nil, nil, fault
		}
		return nil, o.refusal, nil
	}
	return plain, nil, nil
}

func ciphertextInvalid() *reason.Refusal {
	return reason.New(reason.CiphertextInvalid, "check key, format and text", "this cannot be decrypted with this data key").At("ciphertext")
}
