package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/term"

	"signdrop/appliance/auth"
)

// signer signs requests, with a key in memory or one that an ssh-agent holds.
type signer struct {
	key   ssh.Signer
	agent net.Conn // nil without one
}

func (s *signer) sign(data []byte) ([]byte, error) {
	return auth.SignFile(data, s.key, auth.NamespaceRequest)
}

func (s *signer) close() {
	if s.agent != nil {
		s.agent.Close()
	}
}

// loadSigner opens the key that a file holds or, if it is a public key, names.
func loadSigner(ctx context.Context, file string) (*signer, error) {
	data, err := readSmall(file, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if pub, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		return fromAgent(file, pub)
	}
	key, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
	case errors.As(err, &locked):
		if key, err = unlock(ctx, file, data); err != nil {
			return nil, err
		}
	case bytes.Contains(data, []byte("PUBLIC KEY")):
		return nil, hinted(fmt.Errorf("%s is a public key", file),
			"give the private key, or the .pub file of one that the ssh-agent holds")
	case bytes.Contains(data, []byte("BEGIN ENCRYPTED PRIVATE KEY")):
		return nil, hinted(fmt.Errorf("%s is an encrypted PKCS #8 key, which cannot be opened here", file),
			"convert it with ssh-keygen -p -f "+file+", or sign with openssl dgst -sha384 -sign and drop both files")
	case strings.Contains(err.Error(), "sk-"):
		return nil, hinted(fmt.Errorf("%s is the handle of a security key", file),
			"add it to the ssh-agent (ssh-add "+file+") and give its .pub file")
	default:
		return nil, fmt.Errorf("reading the key %s: %w", file, err)
	}
	return &signer{key: key}, nil
}

// fromAgent finds the private half of a key in the ssh-agent.
func fromAgent(file string, pub ssh.PublicKey) (*signer, error) {
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, hinted(fmt.Errorf("%s is a public key and no ssh-agent runs", file),
			"start one (eval $(ssh-agent); ssh-add KEY), or give the private key")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("asking the ssh-agent: %w", err)
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("asking the ssh-agent: %w", err)
	}
	for _, s := range signers {
		if bytes.Equal(s.PublicKey().Marshal(), pub.Marshal()) {
			return &signer{key: s, agent: conn}, nil
		}
	}
	conn.Close()
	return nil, hinted(fmt.Errorf("the ssh-agent does not hold the key of %s", file),
		"ssh-add "+strings.TrimSuffix(file, ".pub"))
}

// unlock asks for the passphrase, on the terminal itself: standard input may be
// something else.
func unlock(ctx context.Context, file string, data []byte) (ssh.Signer, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, hinted(fmt.Errorf("%s has a passphrase and there is no terminal to ask for it", file),
			"add the key to an ssh-agent and give its .pub file")
	}
	defer tty.Close()
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("asking for the passphrase: %w", err)
	}
	// Nothing has been done yet, and nothing else ends the wait for a line: a
	// signal that is only noted would leave the terminal without its echo.
	defer context.AfterFunc(ctx, func() {
		term.Restore(fd, state)
		fmt.Fprintln(tty)
		os.Exit(exitFailed)
	})()
	const tries = 3
	for range tries {
		fmt.Fprintf(tty, "passphrase of %s: ", file)
		passphrase, err := term.ReadPassword(fd)
		fmt.Fprintln(tty)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		key, err := ssh.ParsePrivateKeyWithPassphrase(data, passphrase)
		clear(passphrase)
		if err == nil {
			return key, nil
		}
		fmt.Fprintln(tty, "that does not open it")
	}
	return nil, fmt.Errorf("%s was not opened", file)
}
