package setup

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/auth"
	"signdrop/spool/durable"
)

// Signer is a key that is to be listed.
type Signer struct {
	Key  ssh.PublicKey
	Name string // its principal in allowed_signers: who the journal says has asked
}

// principal is what we write as a principal: nothing that would have to be quoted.
var principal = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,254}$`)

// ReadSigner reads a public key, an OpenSSH line or PEM. The key's comment names
// it, or the first of names that can where the comment cannot.
func ReadSigner(data []byte, names ...string) (Signer, error) {
	key, err := auth.ParseAnyPublicKey(data)
	if err != nil {
		return Signer{}, err
	}
	if _, comment, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		names = append([]string{comment}, names...)
	}
	i := slices.IndexFunc(names, principal.MatchString)
	if i < 0 {
		return Signer{}, errors.New("the key has no comment that can name its owner: add one, such as alice@example.com")
	}
	return Signer{key, names[i]}, nil
}

// line is the signer's line in allowed_signers.
func (s Signer) line(namespaces string) (string, error) {
	key, err := auth.Line(s.Key, "")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s namespaces=%q %s\n", s.Name, namespaces, key), nil
}

// signersFile is what lists signers, in a company's directory and in db/admins.
const signersFile = "allowed_signers"

// list is an allowed_signers file, as it is or as it is going to be.
type list struct {
	path       string // of its directory
	namespaces string // that new keys are listed for
	new        bool   // its directory does not exist
	text       []byte
	signers    *auth.Signers
	added      int
}

// readList reads the list of a directory that may not exist yet.
func readList(root durable.Dir, namespaces string, dir ...string) (*list, error) {
	l := &list{path: path.Join(dir...), namespaces: namespaces}
	d, err := durable.SubPath(root, dir...)
	if errors.Is(err, fs.ErrNotExist) {
		l.new = true
		return l, l.parse()
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l.text, err = durable.ReadFile(d, signersFile, auth.MaxSigners)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s/%s is missing: restore it from the backup", l.path, signersFile)
	}
	if err != nil {
		return nil, err
	}
	return l, l.parse()
}

func (l *list) parse() (err error) {
	if l.signers, err = auth.ParseSigners(l.text); err != nil {
		return fmt.Errorf("%s/%s: %w", l.path, signersFile, err)
	}
	return nil
}

// len is the number of different keys.
func (l *list) len() int { return l.signers.Len() }

// add adds a line for each key that the list does not hold.
func (l *list) add(signers []Signer) error {
	for _, s := range signers {
		if l.holds(s.Key) {
			continue
		}
		line, err := s.line(l.namespaces)
		if err != nil {
			return err
		}
		if n := len(l.text); n > 0 && l.text[n-1] != '\n' {
			l.text = append(l.text, '\n')
		}
		l.text = append(l.text, line...)
		l.added++
	}
	return l.parse()
}

// holds reports whether a line lists the key, with whatever limits.
func (l *list) holds(key ssh.PublicKey) bool {
	blob := []byte(base64.StdEncoding.EncodeToString(key.Marshal()))
	for line := range bytes.Lines(l.text) {
		if bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("#")) {
			continue
		}
		for _, word := range bytes.Fields(line) {
			if bytes.Equal(word, blob) {
				return true
			}
		}
	}
	return false
}
