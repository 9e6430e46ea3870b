// Package auth answers one question: who signed these bytes, and may that key
// ask for this? It takes bytes and gives an Asker or a refusal. It opens no
// file, knows no wallet, and holds nothing secret except while SignFile runs.
//
// # What a signature may look like
//
// An SSHSIG (OpenSSH's PROTOCOL.sshsig), as `ssh-keygen -Y sign` writes it:
//
//	-----BEGIN SSH SIGNATURE-----
//	base64 of: "SSHSIG" version=1 publickey namespace reserved="" hash signature
//	-----END SSH SIGNATURE-----
//
// It names its key and its purpose (the namespace). When it verifies with the
// key it carries, no byte of the message is missing, whosever key that is; only
// then is the question of permission asked, and its answer is definite.
//
// Or the bare output of `openssl dgst -sha384 -sign KEY.pem`, binary or base64:
//
//	EC:  DER  SEQUENCE { INTEGER r, INTEGER s }    P-256, P-384, P-521
//	RSA: PKCS #1 v1.5, as many bytes as the modulus
//
// It names neither key nor purpose. It is tried against the listed keys of its
// shape and counts as a request, never as an approval or a command, so that
// nothing signed in one role can be replayed in another.
//
// # Who may sign
//
// Signers is an allowed_signers file (ssh-keygen(1), ALLOWED SIGNERS):
//
//	PRINCIPAL[,PRINCIPAL…] [OPTION[,OPTION…]] KEYTYPE BASE64 [COMMENT]
//
// with the options namespaces="…", valid-after="…" and valid-before="…". We are
// stricter than OpenSSH where it would guess or look away; each such place says
// so. A line that OpenSSH would skip with a warning makes the whole file fail.
//
// # What it must not be used for
//
// Counting people. One key may stand under two names: two approvals are two
// only when their Asker.Fingerprint differ as well.
package auth

import (
	"strconv"

	"signdrop/appliance/reason"
)

// The namespaces that keep roles apart. A signature made for one is never
// accepted for another.
const (
	NamespaceRequest = "request@signdrop" // a partner's request file
	NamespaceApprove = "approve@signdrop" // a second person's consent
	NamespaceAdmin   = "admin@signdrop"   // an administrator's command
)

// Limits. The signature limit is generous: the largest accepted SSHSIG, RSA
// with 8192 bits, has under 3,500 bytes.
const (
	MaxSignature = 16 << 10 // bytes of a signature file
	MaxSigners   = 1 << 20  // bytes of an allowed_signers file
	maxLine      = 16 << 10 // bytes of one of its lines
	maxPrincipal = 255      // bytes of one principal
	minRSABits   = 2048     // OpenSSH's own default minimum is 1024
	maxRSABits   = 8192     // bounds what a stranger's key can cost us
)

// Values of Asker.Method.
const (
	MethodSSHSIG  = "sshsig"
	MethodOpenSSL = "openssl-sha384"
)

// Asker is who signed: the line of allowed_signers that let the key in.
type Asker struct {
	// Principal is the line's name for the key, the first if it has several.
	Principal string
	// Fingerprint is the key's, as `ssh-keygen -l` prints it: "SHA256:…".
	Fingerprint string
	// Method is MethodSSHSIG or MethodOpenSSL.
	Method string
	// Algorithm is the SSH signature format ("ssh-ed25519", "rsa-sha2-512",
	// "sk-ssh-ed25519@openssh.com", …), or for MethodOpenSSL
	// "ecdsa-p256-sha384", "ecdsa-p384-sha384", "ecdsa-p521-sha384" or
	// "rsa-pkcs1-sha384".
	Algorithm string
}

// role is a set of namespaces, one bit each. A line's patterns are matched
// when the file is parsed, so that verifying only looks at a bit.
type role uint8

const (
	roleRequest role = 1 << iota
	roleApprove
	roleAdmin
	roleAny = roleRequest | roleApprove | roleAdmin
)

// roleOf returns the bit of one of our namespaces, 0 for any other string.
func roleOf(namespace string) role {
	switch namespace {
	case NamespaceRequest:
		return roleRequest
	case NamespaceApprove:
		return roleApprove
	case NamespaceAdmin:
		return roleAdmin
	}
	return 0
}

// StillArriving says whether err, from ParseSignature or Verify, may go away by
// itself once the rest of the message or of its signature has come. It is true
// of every refusal that does not rest on proof that both are whole: the caller
// looks again until both files have been still for a while, and refuses only
// then. All other refusals are definite and can be given at once, TooLarge too:
// a file that is still arriving only grows.
func StillArriving(err error) bool {
	r, ok := reason.As(err)
	if !ok {
		return false
	}
	switch r.Code {
	case reason.SignatureMalformed, reason.SignatureInvalid, reason.SignatureAlgorithm:
		return true
	}
	return false
}

// shown quotes a name that somebody else chose, such as a key type or a
// namespace, for an error: at most 64 bytes of it, and nothing unprintable.
func shown(name string) string {
	const most = 64
	if len(name) > most {
		return strconv.QuoteToASCII(name[:most]) + "…"
	}
	return strconv.QuoteToASCII(name)
}
