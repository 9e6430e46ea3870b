package contract

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// newPassword draws 256 bits and writes them as base64. Nothing but text will do:
// the machine hands the password to openssl, which reads a line and takes bytes
// that have a line end or a zero among them for a shorter password, or none.
func newPassword() []byte {
	var raw [32]byte
	rand.Read(raw[:]) // never fails
	return base64.StdEncoding.AppendEncode(nil, raw[:])
}

// encrypt makes a token: PREFIX.RSA.AES, where RSA is a new password, encrypted for
// the machine, and AES the text, encrypted with that as by
// "openssl enc -aes-256-cbc -pbkdf2", both in base64.
func encrypt(format string, key *rsa.PublicKey, plain []byte) (string, error) {
	password := newPassword()
	defer clear(password)
	//lint:ignore SA1019 IBM's format has this padding and no other
	wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, key, password)
	if err != nil {
		return "", fmt.Errorf("encrypting the password for the machine: %w", err)
	}
	sealed, err := opensslEnc(password, plain)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return format + "." + b64(wrapped) + "." + b64(sealed), nil
}

// opensslEnc is "openssl enc -aes-256-cbc -pbkdf2": "Salted__", 8 bytes of salt, and
// the text with PKCS #7 padding; key and IV are PBKDF2-HMAC-SHA256 of 10,000 rounds.
func opensslEnc(password, plain []byte) ([]byte, error) {
	out := append([]byte("Salted__"), make([]byte, 8)...)
	salt := out[8:]
	rand.Read(salt)
	both, err := pbkdf2.Key(sha256.New, string(password), salt, 10_000, 32+aes.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	defer clear(both)
	block, err := aes.NewCipher(both[:32])
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	body := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, both[32:]).CryptBlocks(body, body)
	return append(out, body...), nil
}

// sign makes envWorkloadSignature: RSA PKCS #1 v1.5 with SHA-256, over the token of
// the workload and that of the environment.
func sign(key *rsa.PrivateKey, workload, env string) (string, error) {
	sum := sha256.Sum256([]byte(workload + env))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing the contract: %w", err)
	}
	return base64.StdEncoding.EncodeToString(sig), nil
}

// parseCertificate reads a certificate in PEM that has an RSA key and is valid now.
func parseCertificate(data []byte, now time.Time) (*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("there is no certificate in it: give the .crt file that IBM publishes, as PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("there is more than one certificate in it: give the file with one")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() < 2048 {
		return nil, errors.New("its key is not RSA of 2,048 bits or more: this is not IBM's certificate")
	}
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return nil, fmt.Errorf("it is valid from %s to %s only: fetch the one of the image that you run",
			cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly))
	}
	return cert, nil
}

// parseSigningKey reads an RSA private key in PEM, PKCS #8 or PKCS #1.
func parseSigningKey(data []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("there is no key in it: make one with openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096")
	}
	defer clear(block.Bytes)
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it holds %q, not an RSA private key in the clear", block.Type)
	}
	if err != nil {
		return nil, errors.New("it cannot be read as a private key") // the error could quote it
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok || key.N.BitLen() < 2048 {
		return nil, errors.New("it is not an RSA key of 2,048 bits or more, which IBM's format asks for")
	}
	return key, nil
}

// publicPEM is the public half of a key.
func publicPEM(key *rsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}
