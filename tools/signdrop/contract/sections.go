package contract

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/crypto/ssh"

	"signdrop/appliance/setup"
)

// What the two sections hold. The structs have what we write and nothing else, so
// that reading a section back refuses whatever else is in it.

// Workload is the section of who has made the program.
type Workload struct {
	Type    string                    `yaml:"type"` // workload
	Auths   map[string]Auth           `yaml:"auths,omitempty"`
	Play    Play                      `yaml:"play"`
	Volumes map[string]WorkloadVolume `yaml:"volumes"`
}

// Env is the section of who runs it.
type Env struct {
	Type       string               `yaml:"type"` // env
	Logging    EnvLogging           `yaml:"logging"`
	Volumes    map[string]EnvVolume `yaml:"volumes"`
	Env        map[string]string    `yaml:"env"`
	SigningKey string               `yaml:"signingKey"` // PEM, public
}

type (
	Auth struct {
		Username string `yaml:"username"`
		Password string `yaml:"password"`
	}
	Play struct {
		Resources []Pod `yaml:"resources"`
	}
	WorkloadVolume struct {
		Mount      string `yaml:"mount"`
		Filesystem string `yaml:"filesystem"`
		Seed       string `yaml:"seed"`
	}
	EnvVolume struct {
		Seed string `yaml:"seed"`
	}
	EnvLogging struct {
		Syslog    *EnvSyslog    `yaml:"syslog,omitempty"`
		LogRouter *EnvLogRouter `yaml:"logRouter,omitempty"`
	}
	EnvSyslog struct {
		Hostname string `yaml:"hostname"`
		Port     int    `yaml:"port"`
		Server   string `yaml:"server"`
		Cert     string `yaml:"cert"`
		Key      string `yaml:"key"`
	}
	EnvLogRouter struct {
		Hostname  string `yaml:"hostname"`
		Port      int    `yaml:"port"`
		IAMAPIKey string `yaml:"iamApiKey"`
	}
)

// Pod is the part of a Kubernetes pod (v1) that we use.
type (
	Pod struct {
		APIVersion string  `yaml:"apiVersion"`
		Kind       string  `yaml:"kind"`
		Metadata   Meta    `yaml:"metadata"`
		Spec       PodSpec `yaml:"spec"`
	}
	Meta struct {
		Name string `yaml:"name"`
	}
	PodSpec struct {
		Containers    []Container `yaml:"containers"`
		RestartPolicy string      `yaml:"restartPolicy"`
		Volumes       []PodVolume `yaml:"volumes"`
	}
	Container struct {
		Name            string          `yaml:"name"`
		Image           string          `yaml:"image"`
		Env             []Variable      `yaml:"env"`
		Ports           []Port          `yaml:"ports"`
		SecurityContext SecurityContext `yaml:"securityContext"`
		VolumeMounts    []Mount         `yaml:"volumeMounts"`
	}
	Variable struct {
		Name      string      `yaml:"name"`
		ValueFrom ValueSource `yaml:"valueFrom"`
	}
	ValueSource struct {
		ConfigMapKeyRef KeyRef `yaml:"configMapKeyRef"`
	}
	KeyRef struct {
		Name string `yaml:"name"`
		Key  string `yaml:"key"`
	}
	Port struct {
		ContainerPort int    `yaml:"containerPort"`
		HostPort      int    `yaml:"hostPort"`
		Protocol      string `yaml:"protocol"`
	}
	SecurityContext struct {
		RunAsUser                int          `yaml:"runAsUser"`
		AllowPrivilegeEscalation bool         `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool         `yaml:"readOnlyRootFilesystem"`
		Capabilities             Capabilities `yaml:"capabilities"`
	}
	Capabilities struct {
		Drop []string `yaml:"drop"`
		Add  []string `yaml:"add"`
	}
	Mount struct {
		Name      string `yaml:"name"`
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	}
	PodVolume struct {
		Name     string   `yaml:"name"`
		HostPath HostPath `yaml:"hostPath"`
	}
	HostPath struct {
		Path string `yaml:"path"`
		Type string `yaml:"type"`
	}
)

const (
	port      = 10210
	dataMount = "/mnt/data" // of the volume, in the machine
	dataName  = "data"
	// configMap is where the runtime puts the variables of the sections for pods.
	configMap = "contract.config.map"

	adminsVariable    = "SIGNDROP_ADMINS"
	thresholdVariable = "SIGNDROP_ADMIN_THRESHOLD"
	backupVariable    = "SIGNDROP_BACKUP_RECIPIENTS" // in both sections only where it is set
)

// variables are the ones that whoever runs the program decides. They are taken from
// the environment one by one: SIGNDROP_ALLOW_PLAIN_KEYS is not for him to set.
var variables = []string{adminsVariable, thresholdVariable}

// Capabilities that the signer needs to give directories to the SFTP door and to
// start that as another user; tools/image runs the image with these.
var granted = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"}

// workload makes the section of who has made the program.
func workload(s *Settings, in *inputs) *Workload {
	c := Container{
		Name: "signdrop", Image: s.Image,
		Ports: []Port{{port, port, "TCP"}},
		SecurityContext: SecurityContext{
			ReadOnlyRootFilesystem: true,
			Capabilities:           Capabilities{Drop: []string{"ALL"}, Add: granted},
		},
		// /sys/firmware is hidden in containers; signdropd looks at /run/uv instead.
		VolumeMounts: []Mount{{dataName, "/data", false}, {"uv", "/run/uv", true}},
	}
	for _, v := range variables {
		c.Env = append(c.Env, Variable{v, ValueSource{KeyRef{configMap, v}}})
	}
	if in.recipients != "" {
		c.Env = append(c.Env, Variable{backupVariable, ValueSource{KeyRef{configMap, backupVariable}}})
	}
	w := &Workload{
		Type: "workload",
		Play: Play{[]Pod{{"v1", "Pod", Meta{"signdrop"}, PodSpec{
			Containers: []Container{c}, RestartPolicy: "Always",
			Volumes: []PodVolume{{dataName, HostPath{dataMount, "Directory"}}, {"uv", HostPath{"/sys/firmware/uv", "Directory"}}},
		}}}},
		Volumes: map[string]WorkloadVolume{dataName: {dataMount, s.Volume.Filesystem, in.workloadSeed}},
	}
	if s.Registry.Username != "" {
		host, _, _ := strings.Cut(s.Image, "/")
		w.Auths = map[string]Auth{host: {s.Registry.Username, in.password}}
	}
	return w
}

// env makes the section of who runs it.
func env(s *Settings, in *inputs) *Env {
	e := &Env{
		Type:       "env",
		Volumes:    map[string]EnvVolume{dataName: {in.envSeed}},
		Env:        map[string]string{adminsVariable: in.admins, thresholdVariable: strconv.Itoa(s.Threshold)},
		SigningKey: in.publicKey,
	}
	if in.recipients != "" {
		e.Env[backupVariable] = in.recipients
	}
	if l := s.Logging.Syslog; l != nil {
		e.Logging.Syslog = &EnvSyslog{l.Hostname, l.Port, in.syslogServer, in.syslogCert, in.syslogKey}
	}
	if l := s.Logging.LogRouter; l != nil {
		e.Logging.LogRouter = &EnvLogRouter{l.Hostname, l.Port, in.apiKey}
	}
	return e
}

// check holds what the runtime wants of both sections against them.
func check(w *Workload, e *Env) error {
	switch {
	case w.Type != "workload" || e.Type != "env":
		return errors.New("the sections have the wrong types")
	case (e.Logging.Syslog == nil) == (e.Logging.LogRouter == nil):
		return errors.New("env: logging must be exactly one of syslog and logRouter")
	case len(w.Volumes) != 1 || len(e.Volumes) != 1:
		return errors.New("there must be one volume, in both sections")
	case !seedText.MatchString(w.Volumes[dataName].Seed) || !seedText.MatchString(e.Volumes[dataName].Seed):
		return errors.New(`a seed must have 15 characters or more, of letters, digits and !@#$%^&*(),.?":{}|<>_-`)
	case w.Volumes[dataName].Seed == e.Volumes[dataName].Seed:
		return errors.New("the two seeds are the same: each must be unknown to the other's keeper")
	case len(w.Play.Resources) != 1 || len(w.Play.Resources[0].Spec.Containers) != 1:
		return errors.New("workload: there must be one pod with one container")
	case !imageName.MatchString(w.Play.Resources[0].Spec.Containers[0].Image):
		return errors.New("workload: the image must be named by its digest")
	}
	for k := range e.Env {
		if !slices.Contains(variables, k) && k != backupVariable {
			return fmt.Errorf("env: %s is not for the deployer to set", k)
		}
	}
	return nil
}

// text is a section as YAML. What is read back from it must be the same.
func text[T any](section *T) ([]byte, error) {
	data, err := yaml.Dump(section)
	if err != nil {
		return nil, errors.New("a section cannot be written as YAML") // the error could quote a secret
	}
	again := new(T)
	if err := load(data, again); err != nil {
		return nil, errors.New("internal error: a section cannot be read back")
	}
	if !reflect.DeepEqual(section, again) {
		return nil, errors.New("internal error: a section that is read back is another one")
	}
	return data, nil
}

// administrators checks public keys, one a line, and returns them so. Empty lines
// and comments are left out.
func administrators(data []byte, threshold int) (string, error) {
	var lines []string
	seen := map[string]int{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := setup.ReadSigner([]byte(line), setup.Administrators)
		if err != nil {
			return "", fmt.Errorf("line %d: %w", n, err)
		}
		id := ssh.FingerprintSHA256(s.Key)
		if seen[id] != 0 {
			return "", fmt.Errorf("line %d has the key of line %d: one key is one administrator", n, seen[id])
		}
		seen[id] = n
		lines = append(lines, line)
	}
	if len(lines) < threshold {
		return "", fmt.Errorf("%d administrators cannot give %d signatures: list more keys or lower the threshold", len(lines), threshold)
	}
	return strings.Join(lines, "\n") + "\n", nil
}
