// Package hpvs12_test reads the documents of this directory as the hpvs command of
// HPVS 1.2 would.
package hpvs12_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"signdrop/appliance/setup"
)

// registration is what "hpvs regfile create" reads.
type registration struct {
	Repository struct {
		Docker struct {
			Repo       string `yaml:"repo"`
			PullServer string `yaml:"pull_server"`
			Trust      string `yaml:"content_trust_json_file_path"`
		} `yaml:"docker"`
		Env struct {
			Whitelist []string `yaml:"whitelist"`
		} `yaml:"env"`
		SigningKey struct {
			Private string `yaml:"private_key_path"`
			Public  string `yaml:"public_key_path"`
		} `yaml:"signing_key"`
	} `yaml:"repository_registration"`
}

// document is what "hpvs deploy" reads.
type document struct {
	Version string   `yaml:"version"`
	Type    string   `yaml:"type"`
	Servers []server `yaml:"virtualservers"`
}

type server struct {
	Name        string `yaml:"name"`
	Host        string `yaml:"host"`
	Hostname    string `yaml:"hostname"`
	RepoID      string `yaml:"repoid"`
	ImageTag    string `yaml:"imagetag"`
	RepoRegFile string `yaml:"reporegfile"`
	ImageFile   string `yaml:"imagefile"`
	Resource    struct {
		Ref string `yaml:"ref"`
	} `yaml:"resourcedefinition"`
	Environment []struct {
		Key   string `yaml:"key"`
		Value string `yaml:"value"`
	} `yaml:"environment"`
	Networks []struct {
		Ref       string `yaml:"ref"`
		IPAddress string `yaml:"ipaddress"`
	} `yaml:"networks"`
	Ports []struct {
		HostPort      int    `yaml:"hostport"`
		Protocol      string `yaml:"protocol"`
		ContainerPort int    `yaml:"containerport"`
	} `yaml:"ports"`
	Volumes []struct {
		Name   string `yaml:"name"`
		Ref    string `yaml:"ref"`
		Mounts []struct {
			ID         string `yaml:"mount_id"`
			Point      string `yaml:"mountpoint"`
			Filesystem string `yaml:"filesystem"`
			Size       string `yaml:"size"`
		} `yaml:"mounts"`
	} `yaml:"volumes"`
}

// parse reads a document; a name that hpvs does not know is an error.
func parse(data []byte, v any) error {
	return yaml.Load(data, v, yaml.WithKnownFields(), yaml.WithUniqueKeys())
}

func read(t *testing.T, file string, v any) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = parse(data, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return data
}

func TestDocuments(t *testing.T) {
	var r registration
	read(t, "registration.yml", &r)
	var d document
	text := read(t, "virtualserver.yml", &d)
	if d.Version != "v1" || d.Type != "virtualserver" || len(d.Servers) != 1 {
		t.Fatalf("the document is %+v", d)
	}
	s := d.Servers[0]
	rep := r.Repository
	for what, v := range map[string]string{"repo": rep.Docker.Repo, "pull_server": rep.Docker.PullServer, "content trust": rep.Docker.Trust,
		"private key": rep.SigningKey.Private, "public key": rep.SigningKey.Public, "name": s.Name, "host": s.Host, "repoid": s.RepoID} {
		if v == "" {
			t.Errorf("%s is missing", what)
		}
	}
	if !strings.HasPrefix(rep.Docker.Repo, rep.Docker.PullServer+"/") || strings.Contains(rep.Docker.Repo[len(rep.Docker.PullServer):], ":") {
		t.Errorf("repo %s is not one of %s without a tag", rep.Docker.Repo, rep.Docker.PullServer)
	}
	if (s.RepoRegFile == "") == (s.ImageFile == "") {
		t.Error("there must be one of reporegfile and imagefile")
	}
	if !slices.Contains([]string{"default", "small", "large", "xl", "xxl"}, s.Resource.Ref) {
		t.Errorf("no resource template is %q", s.Resource.Ref)
	}
	// One tag: that of the version that the change log says.
	log, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^## ([0-9]+\.[0-9]+\.[0-9]+)`).FindSubmatch(log)
	if version == nil || s.ImageTag != string(version[1]) || strings.Count(string(text), s.ImageTag) != 1 {
		t.Errorf("the tag is %s and the version %s", s.ImageTag, version)
	}
	env := map[string]string{}
	for _, e := range s.Environment {
		if !slices.Contains(rep.Env.Whitelist, e.Key) {
			t.Errorf("%s is not in the whitelist: hpvs refuses it", e.Key)
		}
		env[e.Key] = e.Value
	}
	for _, k := range rep.Env.Whitelist {
		if env[k] == "" {
			t.Errorf("%s is in the whitelist and not used", k)
		}
	}
	keys := strings.Split(strings.TrimSpace(env["SIGNDROP_ADMINS"]), "\n")
	for _, k := range keys {
		if _, err := setup.ReadSigner([]byte(k)); err != nil {
			t.Errorf("an administrator's key: %v", err)
		}
	}
	if env["SIGNDROP_ADMIN_THRESHOLD"] != fmt.Sprint(len(keys)) {
		t.Errorf("the threshold is %s of %d keys", env["SIGNDROP_ADMIN_THRESHOLD"], len(keys))
	}
	if len(s.Ports) != 1 || s.Ports[0].HostPort != 10210 || s.Ports[0].ContainerPort != 10210 || s.Ports[0].Protocol != "tcp" {
		t.Errorf("the ports are %+v", s.Ports)
	}
	if len(s.Networks) != 1 || s.Networks[0].Ref == "" {
		t.Errorf("the networks are %+v", s.Networks)
	}
	if len(s.Volumes) != 1 || len(s.Volumes[0].Mounts) != 1 || !regexp.MustCompile(`^np-(small|medium|large|x?xlarge)$`).MatchString(s.Volumes[0].Ref) {
		t.Fatalf("the volumes are %+v", s.Volumes)
	}
	if m := s.Volumes[0].Mounts[0]; m.ID == "" || m.Point != "/data" || m.Filesystem != "ext4" || m.Size != "4GB" {
		t.Errorf("the mount is %+v", m)
	}
}

// TestStrict: the test above would notice a name that does not exist.
func TestStrict(t *testing.T) {
	for _, c := range []string{"version: v1\nkind: x\n", "virtualservers: [{name: a, image: b}]\n", "version: v1\nversion: v1\n"} {
		if err := parse([]byte(c), new(document)); err == nil {
			t.Errorf("%q was taken", c)
		}
	}
	if err := parse([]byte("repository_registration: {docker: {tag: x}}\n"), new(registration)); err == nil {
		t.Error("a tag in the registration was taken")
	}
}
