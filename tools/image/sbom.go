package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// document is the part of CycloneDX 1.6 that we write.
type document struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Serial     string      `json:"serialNumber"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
	Depends    []depends   `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type    string `json:"type"` // container, application, library
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl,omitempty"`
	Hashes  []hash `json:"hashes,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"` // hexadecimal
}

type depends struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn,omitempty"`
}

// bill is the SBOM of an image: its programs, and the modules that the linker says
// are in them ("go version -m"). It has no time, and its serial number follows from
// the image's digest, so that it is the same bytes for the same image.
func bill(dir, arch, digest string) ([]byte, error) {
	top := component{Type: "container", Ref: "image", Name: "signdrop-linux-" + arch, Version: digest}
	doc := document{Format: "CycloneDX", Spec: "1.6", Serial: serial(digest), Version: 1, Metadata: metadata{top}}
	image := depends{Ref: top.Ref}
	modules := map[string]component{}
	for _, p := range programs {
		c, on, err := describe(binary(dir, p), modules)
		if err != nil {
			return nil, err
		}
		image.On = append(image.On, c.Ref)
		doc.Components = append(doc.Components, c)
		doc.Depends = append(doc.Depends, depends{c.Ref, on})
	}
	for _, m := range modules {
		doc.Components = append(doc.Components, m)
	}
	slices.SortFunc(doc.Components, func(a, b component) int { return strings.Compare(a.Ref, b.Ref) })
	doc.Depends = append(doc.Depends, image)
	data, err := json.MarshalIndent(doc, "", "  ")
	return append(data, '\n'), err
}

// describe reads what a program says of itself, and adds its modules to those known.
func describe(file string, modules map[string]component) (c component, on []string, err error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return c, nil, fmt.Errorf("reading the build information of %s: %w", file, err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return c, nil, err
	}
	sum := sha256.Sum256(data)
	c = component{Type: "application", Ref: "/usr/bin/" + filepath.Base(file), Name: info.Path,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}}
	deps := append([]*debug.Module{{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}}, info.Deps...)
	for _, m := range deps {
		if m.Replace != nil {
			m = m.Replace
		}
		l := component{Type: "library", Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version}
		l.Ref = l.PURL
		// h1 is SHA-256 over a listing of the module's files (golang.org/x/mod/sumdb/dirhash).
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.Sum, "h1:")); err == nil && len(raw) == sha256.Size {
			l.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
		}
		modules[l.Ref] = l
		on = append(on, l.Ref)
	}
	slices.Sort(on)
	return c, on, nil
}

// serial is a UUID of version 8 (RFC 9562, section 5.8) from a digest.
func serial(digest string) string {
	u := sha256.Sum256([]byte("signdrop SBOM " + digest))
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
