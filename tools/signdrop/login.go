package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// login is how to get in at the other end, and how to know that it is the right one.
type login struct {
	key       ssh.Signer
	agent     bool   // try the keys of the ssh-agent after it
	hosts     string // known_hosts file
	acceptNew bool
	say       func(text string)
}

// maxKeys is how many keys are offered: servers end a login after six.
const maxKeys = 5

// loginTime bounds a login, with whatever a security key has to be touched for.
const loginTime = 20 * time.Second

// finalError is one that trying again cannot mend.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func final(err error) error { return finalError{err} }

// isFinal says whether to give up: the other end is not the one that is meant, or
// lets us in no more, or what we want is not there.
func isFinal(err error) bool {
	var f *failure
	return errors.As(err, new(finalError)) || errors.As(err, &f)
}

// connect logs in.
func (g *login) connect(ctx context.Context, a address) (*ssh.Client, error) {
	check, algorithms, err := g.hostKeys(a.host)
	if err != nil {
		return nil, final(err)
	}
	var host error // what the check of the host key said
	config := &ssh.ClientConfig{
		User: a.user, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-signdrop",
		Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(g.keys)},
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			host = check(name, remote, key)
			return host
		},
	}
	conn, err := (&net.Dialer{Timeout: loginTime}).DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", a.host, err)
	}
	if err := conn.SetDeadline(time.Now().Add(loginTime)); err != nil {
		conn.Close()
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, a.host, config)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return ssh.NewClient(c, channels, requests), nil
	case host != nil:
		err = final(host)
	case strings.Contains(err.Error(), "unable to authenticate"):
		err = final(hinted(fmt.Errorf("%s does not let %s in with the key %s", a.host, a.user, ssh.FingerprintSHA256(g.key.PublicKey())),
			"have its .pub file put into "+a.user+"'s authorized_keys, or name another key with --identity"))
	default:
		err = fmt.Errorf("logging in at %s: %w", a.host, err)
	}
	conn.Close()
	return nil, err
}

// keys are what is offered, in this order.
func (g *login) keys() ([]ssh.Signer, error) {
	keys := []ssh.Signer{g.key}
	socket := os.Getenv("SSH_AUTH_SOCK")
	if !g.agent || socket == "" {
		return keys, nil
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return keys, nil // an agent that is gone is none
	}
	// The connection stays open: the keys sign through it.
	more, err := agent.NewClient(conn).Signers()
	if err != nil {
		conn.Close()
		return keys, nil
	}
	for _, k := range more {
		if string(k.PublicKey().Marshal()) != string(g.key.PublicKey().Marshal()) {
			keys = append(keys, k)
		}
	}
	return keys[:min(len(keys), maxKeys)], nil
}

// hostKeys returns the check of a host's key, and the algorithms of the keys that are
// known of it: a server with several kinds must show the one that we can compare.
func (g *login) hostKeys(host string) (ssh.HostKeyCallback, []string, error) {
	var files []string
	text, err := os.ReadFile(g.hosts)
	if err == nil {
		files = append(files, g.hosts)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading the known hosts: %w", err)
	}
	known, err := knownhosts.New(files...)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the known hosts: %w", err)
	}
	var algorithms []string
	var ke *knownhosts.KeyError
	nobody := &net.TCPAddr{IP: net.IPv4zero}
	// With authorities in the file a host may show a certificate, by whatever key.
	if err := known(host, nobody, noKey{}); errors.As(err, &ke) && !bytes.Contains(text, []byte("@cert-authority")) {
		for _, k := range ke.Want {
			algorithms = append(algorithms, algorithmsOf(k.Key.Type())...)
		}
	}
	return func(name string, remote net.Addr, key ssh.PublicKey) error {
		err := known(name, remote, key)
		var ke *knownhosts.KeyError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &ke):
			return hinted(fmt.Errorf("the host key of %s is not accepted: %w", name, err),
				"ask the appliance's operators what has happened")
		case len(ke.Want) > 0:
			return hinted(fmt.Errorf("the host key of %s has changed: it is %s, and %s has another; somebody may be in between, and nothing was sent",
				name, ssh.FingerprintSHA256(key), ke.Want[0].Filename),
				"ask the appliance's operators; only if they have changed it, remove the old one: ssh-keygen -f "+g.hosts+" -R '"+knownhosts.Normalize(name)+"'")
		case !g.acceptNew:
			return hinted(fmt.Errorf("the host key of %s is not known: it is %s", name, ssh.FingerprintSHA256(key)),
				"compare it with what the appliance's operators have told you; if it is the same, add --accept-new-host")
		}
		if err := g.remember(name, key); err != nil {
			return fmt.Errorf("storing the host key: %w", err)
		}
		g.say("the host key of " + name + " was stored: " + ssh.FingerprintSHA256(key))
		return nil
	}, slices.Compact(algorithms), nil
}

// remember adds a host key to the known ones.
func (g *login) remember(host string, key ssh.PublicKey) error {
	if err := os.MkdirAll(filepath.Dir(g.hosts), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(g.hosts, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	line := knownhosts.Line([]string{knownhosts.Normalize(host)}, key) + "\n"
	if info, serr := f.Stat(); serr == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// noKey is no host's: asking for it tells which keys are known.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("this is no key") }

func algorithmsOf(keyType string) []string {
	if keyType == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}
