// Package contract makes the contract that IBM's Confidential Computing Container
// Runtime (formerly Hyper Protect Container Runtime) starts a machine by, and
// checks the attestation record that such a machine gives.
//
// The formats are IBM's: "About the contract" and "Validating the attestation
// record" in the documentation of Hyper Protect Virtual Servers.
package contract

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Settings is the settings file. Names of files are relative to its directory;
// secrets are never in it, only in files that it names.
type Settings struct {
	Version        int    `yaml:"version"`        // 1
	Format         string `yaml:"format"`         // a prefix of tokens, see Formats
	Image          string `yaml:"image"`          // NAME@sha256:DIGEST
	Hostname       string `yaml:"hostname"`       // of the machine
	Certificate    string `yaml:"certificate"`    // file: IBM's certificate for encryption, PEM
	SigningKey     string `yaml:"signing_key"`    // file: the deployer's RSA key, PEM
	Administrators string `yaml:"administrators"` // file: OpenSSH public keys, one a line
	Threshold      int    `yaml:"threshold"`      // how many of them a command takes
	// BackupRecipients is a file: age recipients, one a line; "" for no backups.
	BackupRecipients string   `yaml:"backup_recipients,omitempty"`
	Volume           Volume   `yaml:"volume"`             //
	Logging          Logging  `yaml:"logging"`            //
	Registry         Registry `yaml:"registry,omitempty"` // for an image that not everybody may pull
}

// Volume is the data volume, which the machine encrypts by both seeds.
type Volume struct {
	Filesystem   string `yaml:"filesystem"`    // ext4, xfs or btrfs
	WorkloadSeed string `yaml:"workload_seed"` // file
	EnvSeed      string `yaml:"env_seed"`      // file
}

// Logging is where the machine sends its log: exactly one of both.
type Logging struct {
	Syslog    *Syslog    `yaml:"syslog,omitempty"`
	LogRouter *LogRouter `yaml:"log_router,omitempty"`
}

// Syslog is a syslog server with TLS on both sides.
type Syslog struct {
	Hostname string `yaml:"hostname"`
	Port     int    `yaml:"port"`
	Server   string `yaml:"server"` // file: who has signed the server's certificate, PEM
	Cert     string `yaml:"cert"`   // file: the machine's certificate, PEM
	Key      string `yaml:"key"`    // file: its key, PEM
}

// LogRouter is an instance of IBM Cloud Logs.
type LogRouter struct {
	Hostname string `yaml:"hostname"`
	Port     int    `yaml:"port"`
	APIKey   string `yaml:"api_key"` // file
}

// Registry is who pulls the image.
type Registry struct {
	Username string `yaml:"username,omitempty"`
	Password string `yaml:"password,omitempty"` // file
}

// Formats are the prefixes of encrypted tokens: of CCRT and CCRV, and of HPVS 2.x.
var Formats = []string{"contract-basic", "hyper-protect-basic"}

var (
	imageName = regexp.MustCompile(`^(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[0-9]{1,5})?|[a-z0-9-]+:[0-9]{1,5})/[a-z0-9][a-z0-9._/-]*@sha256:[0-9a-f]{64}$`)
	hostName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	seedText  = regexp.MustCompile(`^[A-Za-z0-9!@#$%^&*(),.?":{}|<>_-]{15,}$`)
)

// ParseSettings reads a settings file, YAML or JSON.
func ParseSettings(data []byte) (*Settings, error) {
	var s Settings
	if err := load(data, &s); err != nil {
		return nil, err
	}
	return &s, s.check()
}

// load reads one YAML document and refuses names that it does not know and names
// given twice.
func load(data []byte, v any) error {
	return yaml.Load(data, v, yaml.WithKnownFields(), yaml.WithUniqueKeys())
}

func (s *Settings) check() error {
	var errs []error
	bad := func(field, should string) { errs = append(errs, fmt.Errorf("%s: %s", field, should)) }
	if s.Version != 1 {
		bad("version", "must be 1")
	}
	if s.Format != Formats[0] && s.Format != Formats[1] {
		bad("format", "must be "+strings.Join(Formats, " or "))
	}
	if !imageName.MatchString(s.Image) {
		bad("image", "must name registry, repository and digest: registry.example.com/signdrop@sha256:…, as make image prints it")
	}
	if !hostName.MatchString(s.Hostname) {
		bad("hostname", "must be a host name")
	}
	for field, file := range map[string]string{"certificate": s.Certificate, "signing_key": s.SigningKey,
		"administrators": s.Administrators, "volume.workload_seed": s.Volume.WorkloadSeed, "volume.env_seed": s.Volume.EnvSeed} {
		if file == "" {
			bad(field, "must name a file")
		}
	}
	if s.Volume.WorkloadSeed == s.Volume.EnvSeed && s.Volume.EnvSeed != "" {
		bad("volume.env_seed", "must be another file than volume.workload_seed: each half has its keeper")
	}
	if s.Threshold < 1 {
		bad("threshold", "must be 1 or more")
	}
	if f := s.Volume.Filesystem; f != "ext4" && f != "xfs" && f != "btrfs" {
		bad("volume.filesystem", "must be ext4, xfs or btrfs")
	}
	if (s.Registry.Username == "") != (s.Registry.Password == "") {
		bad("registry", "must have username and password, or be left out")
	}
	s.Logging.check(bad)
	return errors.Join(errs...)
}

func (l *Logging) check(bad func(field, should string)) {
	place := func(field, host string, port int) {
		if !hostName.MatchString(host) {
			bad(field+".hostname", "must be a host name")
		}
		if port < 1 || port > 65535 {
			bad(field+".port", "must be 1 to 65535")
		}
	}
	switch {
	case (l.Syslog == nil) == (l.LogRouter == nil):
		bad("logging", "must have exactly one of syslog and log_router: without one the machine shuts down")
	case l.Syslog != nil:
		place("logging.syslog", l.Syslog.Hostname, l.Syslog.Port)
		if l.Syslog.Server == "" || l.Syslog.Cert == "" || l.Syslog.Key == "" {
			bad("logging.syslog", "must name the files server, cert and key")
		}
	default:
		place("logging.log_router", l.LogRouter.Hostname, l.LogRouter.Port)
		if l.LogRouter.APIKey == "" {
			bad("logging.log_router.api_key", "must name a file")
		}
	}
}
