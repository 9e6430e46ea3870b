package contract

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// The files of an attestation record, as a machine has them in /var/hyperprotect.
const (
	Checksums     = "se-checksums.txt"
	SignatureFile = "se-signature.bin"
)

// Line is a line of an attestation record that has a digest.
type Line struct {
	Name string
	Sum  string // SHA-256, hexadecimal
}

// sumLine is "SUM NAME", or "SUM  - NAME" as some versions write it.
var sumLine = regexp.MustCompile(`^([0-9a-f]{64})[ \t]+(?:-[ \t]+)?(\S+)[ \t]*$`)

// ParseRecord reads se-checksums.txt. Other lines are free text (the version, the
// machine's serial number, dates). A name that comes twice is refused: which of both
// would be meant is nobody's to guess.
func ParseRecord(data []byte) (lines []Line, notes []string, err error) {
	seen := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		m := sumLine.FindStringSubmatch(line)
		if m == nil {
			// Also what only resembles a line with a digest must not pass for text.
			if strings.Contains(line, "contract:") || strings.Contains(line, "cidata/") {
				return nil, nil, fmt.Errorf("the line %.100q has no digest in its form", line)
			}
			if strings.TrimSpace(line) != "" {
				notes = append(notes, line)
			}
			continue
		}
		if seen[m[2]] {
			return nil, nil, fmt.Errorf("%.100q is there twice", m[2])
		}
		seen[m[2]] = true
		lines = append(lines, Line{m[2], m[1]})
	}
	return lines, notes, nil
}

// Checked is a line of a record and what we have to say about it.
type Checked struct {
	Line
	Ours bool // it is ours, and the same; otherwise it is for others to compare
}

// Mismatch says that a record is genuine and not of our contract, or not genuine.
type Mismatch struct{ err error }

func (m *Mismatch) Error() string { return m.err.Error() }

func mismatch(format string, args ...any) error { return &Mismatch{fmt.Errorf(format, args...)} }

// Attest checks the record in a directory: that it was signed by the key of the
// certificate, and that its machine was started by the contract in cidata (the
// directory that Write has made). issuer, if not "", is the file of the certificate
// that must have signed the other one.
func Attest(record, cidata, certificate, issuer string, now time.Time) (lines []Checked, notes []string, err error) {
	data, err := readFile(filepath.Join(record, Checksums))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the record: %w", err)
	}
	sig, err := readFile(filepath.Join(record, SignatureFile))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the record's signature: %w", err)
	}
	if err := verify(data, sig, certificate, issuer, now); err != nil {
		return nil, nil, err
	}
	found, notes, err := ParseRecord(data)
	if err != nil {
		return nil, nil, mismatch("reading the record: %w", err)
	}
	ours, err := sums(cidata)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range found {
		want, known := ours[l.Name]
		if known && want != l.Sum || !known && strings.HasPrefix(l.Name, "contract:") {
			return nil, nil, mismatch("%s of the machine is not that of %s: it was started by another contract", l.Name, cidata)
		}
		delete(ours, l.Name)
		lines = append(lines, Checked{l, known})
	}
	// Machines that get their contract otherwise than by an ISO do not list its files.
	for _, name := range []string{"contract:workload", "contract:env"} {
		if ours[name] != "" {
			return nil, nil, mismatch("the record does not say %s: nothing tells which contract the machine was started by", name)
		}
	}
	return lines, notes, nil
}

// verify checks the signature of a record: RSA PKCS #1 v1.5 with SHA-256.
func verify(data, sig []byte, certificate, issuer string, now time.Time) error {
	raw, err := readFile(certificate)
	if err != nil {
		return fmt.Errorf("reading the attestation certificate: %w", err)
	}
	cert, err := parseCertificate(raw, now)
	if err != nil {
		return fmt.Errorf("attestation certificate %s: %w", certificate, err)
	}
	if issuer != "" {
		if raw, err = readFile(issuer); err != nil {
			return fmt.Errorf("reading the issuer's certificate: %w", err)
		}
		by, err := parseCertificate(raw, now)
		if err != nil {
			return fmt.Errorf("issuer's certificate %s: %w", issuer, err)
		}
		// IBM's intermediate certificates are made for signing code and do not say
		// that they may issue others, so CheckSignatureFrom would refuse them.
		err = by.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature)
		if err == nil && !bytes.Equal(cert.RawIssuer, by.RawSubject) {
			err = errors.New("it names another issuer")
		}
		if err != nil {
			return mismatch("%s was not issued by %s: %w", certificate, issuer, err)
		}
	}
	sum := sha256.Sum256(data)
	if err := rsa.VerifyPKCS1v15(cert.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], sig); err != nil {
		return mismatch("the signature of the record does not verify with %s: the record was changed, or another image made it", certificate)
	}
	return nil
}

// userData is the contract that was written.
type userData struct {
	Workload  string `yaml:"workload"`
	Env       string `yaml:"env"`
	Signature string `yaml:"envWorkloadSignature"`
}

// sums are what the record of a machine must say that was started by our contract.
func sums(cidata string) (map[string]string, error) {
	hash := func(data []byte) string {
		s := sha256.Sum256(data)
		return hex.EncodeToString(s[:])
	}
	m := map[string]string{}
	for _, name := range []string{UserData, MetaData, VendorData} {
		data, err := readFile(filepath.Join(cidata, name))
		if err != nil {
			return nil, fmt.Errorf("reading the contract: %w", err)
		}
		m["cidata/"+name] = hash(data)
		if name != UserData {
			continue
		}
		var u userData
		if err := load(data, &u); err != nil {
			return nil, fmt.Errorf("reading the contract: %w", err)
		}
		if u.Workload == "" || u.Env == "" {
			return nil, errors.New("reading the contract: it has no workload or no env")
		}
		m["contract:workload"], m["contract:env"] = hash([]byte(u.Workload)), hash([]byte(u.Env))
	}
	return m, nil
}

// Sums are the lines that the attestation record of this contract's machine has.
func (c *Contract) Sums() []Line {
	hash := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	return []Line{{"contract:workload", hash(c.Workload)}, {"contract:env", hash(c.Env)}}
}
