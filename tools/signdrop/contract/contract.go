package contract

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"signdrop/appliance/setup"
)

// maxFile bounds each file that settings name, in bytes.
const maxFile = 1 << 20

// The files of the cloud-init ISO with the volume id "cidata".
const (
	UserData   = "user-data"
	MetaData   = "meta-data"
	VendorData = "vendor-data"
)

// inputs are what the files of the settings say.
type inputs struct {
	certificate                         *rsa.PublicKey
	signingKey                          *rsa.PrivateKey
	publicKey, admins, recipients       string
	workloadSeed, envSeed               string
	syslogServer, syslogCert, syslogKey string
	apiKey, password                    string
}

// Contract is a contract in the form that the machine gets.
type Contract struct {
	Workload  string // token
	Env       string // token
	Signature string // of both, base64
	Hostname  string
}

// Made tells of a contract that was made.
type Made struct {
	*Contract
	NewSeeds []string  // files of seeds that were drawn
	Expires  time.Time // IBM's certificate does
}

// Make makes the contract that a settings file describes. Seeds that are missing are
// drawn and written first: without them nobody can open the volume again.
//
// Crash: a seed's file is whole or not there, and the next run takes it as it is.
func Make(file string, now time.Time) (*Made, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the settings: %w", err)
	}
	s, err := ParseSettings(data)
	if err != nil {
		return nil, fmt.Errorf("reading the settings %s: %w", file, err)
	}
	r := reader{dir: filepath.Dir(file)}
	var in inputs
	m := &Made{}
	if data := r.read("certificate", s.Certificate); r.err == nil {
		cert, err := parseCertificate(data, now)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", s.Certificate, err)
		}
		in.certificate, m.Expires = cert.PublicKey.(*rsa.PublicKey), cert.NotAfter
	}
	if data := r.read("signing_key", s.SigningKey); r.err == nil {
		if in.signingKey, err = parseSigningKey(data); err != nil {
			return nil, fmt.Errorf("signing_key %s: %w", s.SigningKey, err)
		}
		clear(data)
		if in.publicKey, err = publicPEM(in.signingKey); err != nil {
			return nil, err
		}
	}
	if data := r.read("administrators", s.Administrators); r.err == nil {
		if in.admins, err = administrators(data, s.Threshold); err != nil {
			return nil, fmt.Errorf("administrators %s: %w", s.Administrators, err)
		}
	}
	if s.BackupRecipients != "" {
		if data := r.read("backup_recipients", s.BackupRecipients); r.err == nil {
			if in.recipients, err = setup.CheckRecipients(data); err != nil {
				return nil, fmt.Errorf("backup_recipients %s: %w", s.BackupRecipients, err)
			}
		}
	}
	if l := s.Logging.Syslog; l != nil {
		in.syslogServer = r.pem("logging.syslog.server", l.Server, "CERTIFICATE")
		in.syslogCert = r.pem("logging.syslog.cert", l.Cert, "CERTIFICATE")
		in.syslogKey = r.pem("logging.syslog.key", l.Key, "PRIVATE KEY")
	}
	if l := s.Logging.LogRouter; l != nil {
		in.apiKey = r.line("logging.log_router.api_key", l.APIKey)
	}
	if s.Registry.Password != "" {
		in.password = r.line("registry.password", s.Registry.Password)
	}
	// Last, so that nothing is drawn for settings that are wrong.
	in.workloadSeed = r.seed(m, "volume.workload_seed", s.Volume.WorkloadSeed)
	in.envSeed = r.seed(m, "volume.env_seed", s.Volume.EnvSeed)
	if r.err != nil {
		return nil, r.err
	}
	m.Contract, err = assemble(s, &in)
	return m, err
}

// assemble encrypts and signs both sections.
func assemble(s *Settings, in *inputs) (*Contract, error) {
	w, e := workload(s, in), env(s, in)
	if err := check(w, e); err != nil {
		return nil, fmt.Errorf("checking the contract: %w", err)
	}
	c := &Contract{Hostname: s.Hostname}
	plain, err := text(w)
	if err == nil {
		c.Workload, err = encrypt(s.Format, in.certificate, plain)
	}
	if err != nil {
		return nil, fmt.Errorf("workload: %w", err)
	}
	if plain, err = text(e); err == nil {
		c.Env, err = encrypt(s.Format, in.certificate, plain)
	}
	if err != nil {
		return nil, fmt.Errorf("env: %w", err)
	}
	c.Signature, err = sign(in.signingKey, c.Workload, c.Env)
	return c, err
}

// Files are the files of the ISO.
func (c *Contract) Files() map[string][]byte {
	return map[string][]byte{
		// Tokens are plain scalars of YAML: nothing in them has a meaning there.
		UserData:   fmt.Appendf(nil, "workload: %s\nenv: %s\nenvWorkloadSignature: %s\n", c.Workload, c.Env, c.Signature),
		MetaData:   fmt.Appendf(nil, "local-hostname: %s\n", c.Hostname),
		VendorData: []byte("#cloud-config\nusers:\n- default\n"),
	}
}

// Write writes the files of the ISO into a directory that is not there yet: the
// contract that a machine was started by is needed to check its attestation.
//
// Crash: the directory appears whole or not at all.
func (c *Contract) Write(dir string) (err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: keep it to check the attestation of its machine, and name another directory", dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".contract-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	for name, data := range c.Files() {
		if err := writeSynced(filepath.Join(tmp, name), data); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// reader reads the files that settings name, and keeps the first error.
type reader struct {
	dir string // of the settings
	err error
}

func (r *reader) path(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(r.dir, file)
}

func (r *reader) fail(field string, err error) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", field, err)
	}
}

func (r *reader) read(field, file string) []byte {
	data, err := readFile(r.path(file))
	if err != nil {
		r.fail(field, err)
	}
	return data
}

// line reads a secret of one line.
func (r *reader) line(field, file string) string {
	s := strings.TrimRight(string(r.read(field, file)), "\r\n")
	if r.err == nil && (s == "" || strings.ContainsAny(s, "\r\n\x00")) {
		r.fail(field, fmt.Errorf("%s must hold one line", file))
	}
	return s
}

// pem reads a file that must hold PEM of a kind.
func (r *reader) pem(field, file, kind string) string {
	data := r.read(field, file)
	if r.err != nil {
		return ""
	}
	if b, _ := pem.Decode(data); b == nil || !strings.HasSuffix(b.Type, kind) {
		r.fail(field, fmt.Errorf("%s holds no %s in PEM", file, strings.ToLower(kind)))
	}
	return string(data)
}

// seed reads a seed, and draws it first if the file is not there.
func (r *reader) seed(m *Made, field, file string) string {
	if r.err != nil {
		return ""
	}
	_, err := os.Lstat(r.path(file))
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeSeed(r.path(file)); err != nil {
			r.fail(field, err)
			return ""
		}
		m.NewSeeds = append(m.NewSeeds, r.path(file))
	}
	s := r.line(field, file)
	if r.err == nil && !seedText.MatchString(s) {
		r.fail(field, fmt.Errorf(`%s must hold 15 characters or more, of letters, digits and !@#$%%^&*(),.?":{}|<>_-`, file))
	}
	return s
}

// writeSeed draws 256 bits and keeps them; a file that is there is never replaced.
func writeSeed(path string) error {
	var raw [32]byte
	rand.Read(raw[:])
	dir := filepath.Dir(path)
	tmp, err := os.MkdirTemp(dir, ".seed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := writeSynced(filepath.Join(tmp, "seed"), []byte(hex.EncodeToString(raw[:])+"\n")); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(tmp, "seed"), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes: this is not the file that is wanted here", path, maxFile)
	}
	return data, err
}
