package auth

import (
	"time"

	"signdrop/appliance/reason"

	"golang.org/x/crypto/ssh"
)

// Verify says who signed message for namespace, one of the three of this
// package, if that key may do so at the time now. Otherwise it returns a
// *reason.Refusal:
//
//   - SignatureInvalid: the signature does not verify over message. Perhaps not
//     all of it has come: see StillArriving.
//   - SignatureNamespace: the signature was made for another purpose.
//   - SignerUnknown: the key is not listed, or not for this namespace.
//   - SignerNotValid: the key is listed but valid only later, or no more.
//
// All but the first rest on a signature that did verify, so they are definite.
//
// A bare signature names no key: it is tried against each listed key of its
// shape, allowed or not, since a key that fits but may not ask deserves its
// answer at once. If none fits it is SignatureInvalid.
func (s *Signers) Verify(message []byte, sig *Signature, namespace string, now time.Time) (*Asker, error) {
	asked := roleOf(namespace)
	if asked == 0 {
		return nil, reason.New(reason.SignatureNamespace, "", "no signature can serve the purpose %s", shown(namespace))
	}
	if sig.bare != nil {
		return s.verifyBare(message, sig.bare, namespace, now)
	}
	if err := sig.verifyCarried(message); err != nil {
		return nil, err
	}
	// From here on message is whole.
	if sig.ssh.Namespace != namespace {
		return nil, reason.New(reason.SignatureNamespace, "sign with -n "+namespace,
			"the signature was made for %s, not for %s", shown(sig.ssh.Namespace), namespace)
	}
	k := s.keys[sig.key]
	if k == nil {
		return nil, reason.New(reason.SignerUnknown, "sign with a listed key, or have this one added to allowed_signers",
			"the signature is good but its key %s is not listed", ssh.FingerprintSHA256(sig.ssh.PublicKey))
	}
	return k.admit(MethodSSHSIG, sig.ssh.Signature.Format, namespace, now)
}

func (s *Signers) verifyBare(message []byte, sig *bareSignature, namespace string, now time.Time) (*Asker, error) {
	k := s.findBare(message, sig)
	if k == nil {
		return nil, reason.New(reason.SignatureInvalid,
			"sign with openssl dgst -sha384 and an EC or RSA key that is listed; do not change the file after signing",
			"no listed key made this signature over the file")
	}
	if namespace != NamespaceRequest {
		return nil, reason.New(reason.SignatureNamespace, "sign with ssh-keygen -Y sign -n "+namespace,
			"a signature by openssl dgst names no purpose and counts only as %s", NamespaceRequest)
	}
	return k.admit(MethodOpenSSL, sig.algorithm(), namespace, now)
}

// admit decides whether the key may sign for namespace at the time now: any one
// of its lines is enough. If none is, the refusal is the one nearest to a yes:
// too early, then too late, then another role.
func (k *listedKey) admit(method, algorithm, namespace string, now time.Time) (*Asker, error) {
	seconds := now.Unix() // as OpenSSH compares, both limits inclusive
	var early, late *line
	for i := range k.lines {
		l := &k.lines[i]
		switch {
		case l.roles&roleOf(namespace) == 0:
		case l.validAfter != 0 && seconds < l.validAfter:
			early = l
		case l.validBefore != 0 && seconds > l.validBefore:
			late = l
		default:
			return &Asker{
				Principal:   l.principal,
				Fingerprint: k.fingerprint,
				Method:      method,
				Algorithm:   algorithm,
			}, nil
		}
	}
	switch {
	case early != nil:
		return nil, reason.New(reason.SignerNotValid, "send the request again then",
			"the key %s is valid only from %s", k.fingerprint, showTime(early.validAfter))
	case late != nil:
		return nil, reason.New(reason.SignerNotValid, "sign with a current key, or have this one's valid-before moved",
			"the key %s was valid until %s", k.fingerprint, showTime(late.validBefore))
	}
	return nil, reason.New(reason.SignerUnknown, "have "+namespace+" added to the key's namespaces in allowed_signers",
		"the key %s is listed, but not for %s", k.fingerprint, namespace)
}

func showTime(seconds int64) string {
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}
