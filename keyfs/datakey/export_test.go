package datakey

import "crypto/rsa"

// Quick makes a Store take a given key in place of new ones, under few rounds. The
// key that it is given is copied, since Create wipes it.
func Quick(s *Store, keyPEM, passphrase []byte) {
	s.rounds = 1000
	s.generate = func() (*rsa.PrivateKey, error) { return unlockKey(keyPEM, passphrase) }
}

// Canonical is what Import keeps of a private key.
func Canonical(keyPEM []byte) ([]byte, error) { return canonical(keyPEM) }

// ReencodeRecord parses a datakey.json and returns what would be written for it.
func ReencodeRecord(text []byte) ([]byte, error) {
	r, _, err := parseRecord(text)
	if err != nil {
		return nil, err
	}
	return r.encode(), nil
}

// ParseJWE says whether a text is a JWE of the kind that is taken.
func ParseJWE(text []byte) error { _, err := parseJWE(text); return err }
