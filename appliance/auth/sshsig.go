package auth

import (
	"bytes"
	"errors"
	"fmt"

	"signdrop/appliance/reason"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// blob is an SSHSIG without its armour (PROTOCOL.sshsig, section 2). We read it
// ourselves, not with sshsig.ParseSignature, for two reasons: each fault gets
// its own answer, and some are not seen there (a filled reserved field, bytes
// after the inner signature, a key type that we do not accept).
type blob struct {
	Magic     [6]byte
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  []byte
	Hash      string
	Signature []byte
}

// flagUserPresent is set in a security key's signature when somebody touched
// it (PROTOCOL.u2f).
const flagUserPresent = 0x01

// parseBlob reads an SSHSIG.
func parseBlob(data []byte) (*Signature, error) {
	var b blob
	if err := ssh.Unmarshal(data, &b); err != nil || string(b.Magic[:]) != "SSHSIG" {
		return nil, malformed("the armour does not hold an SSHSIG")
	}
	if b.Version != 1 {
		return nil, malformed("SSHSIG version %d, want 1", b.Version)
	}
	// "Implementations should ignore the reserved field": OpenSSH ignores its
	// bytes and verifies as if there were none, so they are covered by nothing.
	// No program writes any; we do not accept what nobody signed.
	if len(b.Reserved) != 0 {
		return nil, malformed("the SSHSIG's reserved field is not empty")
	}
	var inner ssh.Signature
	if err := ssh.Unmarshal(b.Signature, &inner); err != nil {
		return nil, malformed("the signature in the SSHSIG is not whole")
	}
	if b.Hash != string(sshsig.HashSHA256) && b.Hash != string(sshsig.HashSHA512) {
		return nil, badAlgorithm(fmt.Errorf("hash %s is not accepted", shown(b.Hash)))
	}
	key, err := parseCarriedKey(b.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(key.Type(), inner.Format); err != nil {
		return nil, badAlgorithm(err)
	}
	// A security key's flags (1 byte) and counter (4) follow the signature;
	// after any other nothing does.
	tail := 0
	if isSecurityKey(key.Type()) {
		tail = 5
	}
	if len(inner.Rest) != tail {
		return nil, malformed("%d bytes follow the signature in the SSHSIG, want %d", len(inner.Rest), tail)
	}
	return &Signature{
		key: string(b.PublicKey),
		ssh: &sshsig.Signature{
			Version:       b.Version,
			PublicKey:     key,
			Namespace:     b.Namespace,
			HashAlgorithm: sshsig.HashAlgorithm(b.Hash),
			Signature:     &inner,
		},
	}, nil
}

// parseCarriedKey reads the key in an SSHSIG. Its type is looked at first, so
// that a type which x/crypto does not know is called what it is.
func parseCarriedKey(data []byte) (ssh.PublicKey, error) {
	var w struct {
		Type string
		Rest []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(data, &w); err != nil {
		return nil, malformed("the key in the SSHSIG is not whole")
	}
	if err := checkKeyType(w.Type); err != nil {
		return nil, badAlgorithm(err)
	}
	key, err := parseKeyBlob(data)
	switch {
	case errors.Is(err, errKeyNotAccepted):
		return nil, badAlgorithm(err)
	case err != nil:
		return nil, malformed("the key in the SSHSIG is damaged")
	}
	return key, nil
}

// checkFormat refuses a signature algorithm that does not belong to the key's
// type. With RSA that is also ssh-rsa, which means SHA-1.
func checkFormat(keyType, format string) error {
	if keyType == ssh.KeyAlgoRSA {
		if format != ssh.KeyAlgoRSASHA512 && format != ssh.KeyAlgoRSASHA256 {
			return fmt.Errorf("RSA signature algorithm %s is not accepted, only rsa-sha2-512 and rsa-sha2-256", shown(format))
		}
		return nil
	}
	if format != keyType {
		return fmt.Errorf("signature algorithm %s does not belong to a %s key", shown(format), keyType)
	}
	return nil
}

// Whole reports whether sig by itself proves that no byte of message is
// missing: an SSHSIG that verifies with the key it carries, in any namespace. A
// bare signature carries no key and proves nothing by itself.
func (sig *Signature) Whole(message []byte) bool {
	return sig.ssh != nil && sig.verifyCarried(message) == nil
}

// verifyCarried verifies an SSHSIG with the key it carries.
func (sig *Signature) verifyCarried(message []byte) error {
	// OpenSSH's server wants the touch unless it is told not to; ssh-keygen -Y
	// verify never looks. A key that signs without a person is not what a FIDO
	// key is listed for, and no option here says otherwise. The counter is
	// ignored: many devices leave it 0. x/crypto v0.58 refuses too; the rule is ours,
	// so we look ourselves.
	if rest := sig.ssh.Signature.Rest; len(rest) > 0 && rest[0]&flagUserPresent == 0 {
		return reason.New(reason.SignatureInvalid, "make the key without no-touch-required, and touch it when you sign",
			"the security key signed without a touch")
	}
	s := sig.ssh
	if err := sshsig.Verify(bytes.NewReader(message), s, s.PublicKey, s.HashAlgorithm, s.Namespace); err != nil {
		return reason.New(reason.SignatureInvalid, "sign the file again and send both; do not change it after signing",
			"the signature does not verify over the file")
	}
	return nil
}

// SignFile signs message for a namespace and returns the armoured SSHSIG,
// the bytes that `ssh-keygen -Y sign -n namespace` would write to FILE.sig
// (hash sha512; RSA keys sign with rsa-sha2-512). The signer's key is of a type
// and size that ParseSigners accepts.
func SignFile(message []byte, signer ssh.Signer, namespace string) ([]byte, error) {
	if err := checkKey(signer.PublicKey()); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	s, err := sshsig.Sign(bytes.NewReader(message), signer, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	// The signer may be an agent or a device that answered something else than
	// was asked: read our own answer as the appliance will.
	sig, err := parseBlob(s.Marshal())
	if err == nil {
		err = sig.verifyCarried(message)
	}
	if err != nil {
		return nil, fmt.Errorf("checking the new signature: %w", err)
	}
	return armour(s.Marshal()), nil
}

func badAlgorithm(err error) error {
	return reason.New(reason.SignatureAlgorithm,
		"use an Ed25519, ECDSA, FIDO or RSA (2048 bits or more) key with a current ssh-keygen", "%v", err)
}
