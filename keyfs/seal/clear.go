package seal

import (
	"fmt"
	"path"
	"strings"

	"signdrop/spool/durable"
)

// Clear opens a key file as it lies on a volume whose keys are sealed, for a backup,
// which is encrypted to somebody else. at is its path on the volume, "db/companies/…",
// and d its directory, where its public half lies beside it. The caller wipes what it
// gets.
func (s *Sealer) Clear(d durable.Dir, at string, data []byte) ([]byte, error) {
	below, ok := strings.CutPrefix(at, "db/")
	if !ok {
		return nil, fmt.Errorf("%s is no key file", at)
	}
	f := keyFile{dir: strings.Split(path.Dir(below), "/"), name: path.Base(below)}
	switch {
	case f.name == identityFile:
		f.record = RecipientFile
	case strings.Contains(below, "/wallets/"):
		f.record = walletRecord
	case strings.Contains(below, "/datakeys/"):
		f.record = dataKeyRecord
	}
	l, err := f.label(d)
	if err != nil {
		return nil, err
	}
	return s.Open(data, l)
}
