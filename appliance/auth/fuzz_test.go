package auth_test

import (
	"testing"
	"time"

	"signdrop/appliance/auth"
	"signdrop/appliance/reason"
)

// A file of signers is refused or it parses, and then verifying against it
// never panics and never lets an unlisted key in.
func FuzzParseSigners(f *testing.F) {
	key := publicLine(f, "ed25519")
	for _, seed := range []string{
		"",
		"# comment\n\nalice " + key + "\n",
		`"Alice Example",bob namespaces="request@signdrop,!admin*",valid-after="20260101Z",valid-before="202701011200" ` + key + " comment\r\n",
		opensslLine(f, "P-384", "carol") + "\n" + opensslLine(f, "rsa-2048", "dave"),
		"alice cert-authority " + key,
		"alice " + newSecurityKey(f, "sk-ssh-ed25519@openssh.com").line(f),
	} {
		f.Add([]byte(seed))
	}
	stranger := parseSignature(f, sshSign(f, "ed25519/stranger", auth.NamespaceRequest, message))
	listed := parseSignature(f, sshSign(f, "ed25519", auth.NamespaceRequest, message))
	bare := parseSignature(f, opensslSign(f, "P-384", "sha384", message))
	f.Fuzz(func(t *testing.T, data []byte) {
		signers, err := auth.ParseSigners(data)
		if err != nil {
			if signers != nil {
				t.Error("got signers with an error")
			}
			return
		}
		if asker, err := signers.Verify(message, stranger, auth.NamespaceRequest, noon); err == nil {
			t.Errorf("a stranger is let in as %+v", *asker)
		}
		for _, sig := range []*auth.Signature{listed, bare} {
			asker, err := signers.Verify(message, sig, auth.NamespaceRequest, noon)
			checkVerdict(t, asker, err)
		}
	})
}

// A signature file is refused or it parses, and then verifying never panics.
// Nothing but the true signature over the true message makes an asker, and what
// does proves the message whole.
func FuzzParseSignature(f *testing.F) {
	for _, kind := range []string{"ed25519", "ecdsa-256", "rsa-2048"} {
		f.Add(sshSign(f, kind, auth.NamespaceRequest, message), message)
	}
	k := newSecurityKey(f, "sk-ecdsa-sha2-nistp256@openssh.com")
	f.Add(k.signFile("ssh:", 1, 1, nil), message)
	f.Add(k.signFile("ssh:", 0, 1, nil), message)
	for _, kind := range []string{"P-256", "P-521", "rsa-2048"} {
		raw := opensslSign(f, kind, "sha384", message)
		f.Add(raw, message)
		f.Add(run(f, raw, "openssl", "base64"), message)
	}
	f.Add([]byte("-----BEGIN SSH SIGNATURE-----\n\n-----END SSH SIGNATURE-----"), []byte(nil))
	signers := parseSigners(f, "a "+publicLine(f, "ed25519"), "b "+publicLine(f, "ecdsa-256"), "c "+publicLine(f, "rsa-2048"),
		opensslLine(f, "P-256", "d"), opensslLine(f, "P-521", "e"), opensslLine(f, "rsa-2048", "f"), "g "+k.line(f))
	f.Fuzz(func(t *testing.T, file, text []byte) {
		sig, err := auth.ParseSignature(file)
		if err != nil {
			if _, ok := reason.As(err); !ok || sig != nil {
				t.Errorf("got %v, %v, want a refusal alone", sig, err)
			}
			return
		}
		whole := sig.Whole(text)
		for _, namespace := range []string{auth.NamespaceRequest, auth.NamespaceAdmin} {
			asker, err := signers.Verify(text, sig, namespace, time.Unix(1_800_000_000, 0))
			checkVerdict(t, asker, err)
			if err == nil && asker.Method == auth.MethodSSHSIG && !whole {
				t.Error("an SSHSIG is accepted that does not prove the message whole")
			}
			if err == nil && namespace != auth.NamespaceRequest {
				t.Errorf("%+v may sign for %s, but no seed is made for it", *asker, namespace)
			}
		}
	})
}

// checkVerdict wants an asker or a refusal, never both.
func checkVerdict(t *testing.T, asker *auth.Asker, err error) {
	t.Helper()
	if _, refused := reason.As(err); refused == (asker != nil) {
		t.Errorf("got %+v, %v, want an asker or a refusal", asker, err)
	}
	if asker != nil && (asker.Principal == "" || asker.Fingerprint == "" || asker.Method == "" || asker.Algorithm == "") {
		t.Errorf("got an asker with a gap: %+v", *asker)
	}
}
