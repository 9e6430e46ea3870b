package door

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/crypto/ssh"

	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
)

// hostKeyFile lies in db/appliance, in OpenSSH's own format.
const hostKeyFile = "ssh_host_ed25519_key"

// hostKey reads the host key, and makes it first where there is none. s opens and seals
// it where keys are sealed, nil else.
//
// Crash: the key is there whole, or ".NAME.new" is, which is removed next time.
func hostKey(root durable.Dir, s *seal.Sealer) (signer ssh.Signer, made bool, err error) {
	db, err := root.Sub("db")
	if err != nil {
		return nil, false, fmt.Errorf("opening db: %w (run signdrop init first)", err)
	}
	defer db.Close()
	if err := seal.CheckPlain(db, s); err != nil {
		return nil, false, err
	}
	d, err := db.Sub("appliance")
	if err != nil {
		return nil, false, fmt.Errorf("opening db/appliance: %w (run signdrop init first)", err)
	}
	defer d.Close()
	signer, err = readHostKey(d, s)
	if errors.Is(err, fs.ErrNotExist) {
		made = true
		if err = makeHostKey(d, s); err == nil {
			signer, err = readHostKey(d, s)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("db/appliance/%s: %w", hostKeyFile, err)
	}
	return signer, made, nil
}

// hostKeyLabel says what a sealed host key belongs to. Its public half stands nowhere.
var hostKeyLabel = seal.Label{Path: "appliance/" + hostKeyFile}

func readHostKey(d durable.Dir, s *seal.Sealer) (ssh.Signer, error) {
	info, err := d.Stat(hostKeyFile)
	if err != nil {
		return nil, err
	}
	if info.Mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("it is open to others: find out who could read it, then chmod 0400")
	}
	text, err := durable.ReadFile(d, hostKeyFile, 16<<10)
	if err != nil {
		return nil, err
	}
	data, err := s.Open(text, hostKeyLabel)
	if err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	defer clear(data)
	raw, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return nil, errors.New("it cannot be read: restore it from the backup, or remove it and tell partners the new fingerprint")
	}
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an Ed25519 key: restore it from the backup, or remove it and tell partners the new fingerprint")
	}
	return ssh.NewSignerFromKey(*key)
}

func makeHostKey(d durable.Dir, s *seal.Sealer) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "signdrop")
	if err != nil {
		return err
	}
	plain := pem.EncodeToMemory(block)
	defer clear(plain)
	text, err := s.Seal(plain, hostKeyLabel)
	if err != nil {
		return err
	}
	const tmp = "." + hostKeyFile + ".new"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.WriteSynced(d, tmp, 0o400, text); err != nil {
		return err
	}
	if err := d.Move(tmp, d, hostKeyFile); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.Sync()
}
