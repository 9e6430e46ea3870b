package contract

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openssl(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, errs.Bytes())
	}
	return out
}

// desk is a directory with all that settings can name. ibm.key is what only the
// machine has.
func desk(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{"ibm", "syslog"} {
		openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", n+".key", "-out", n+".crt", "-days", "3", "-subj", "/CN="+n)
	}
	openssl(t, dir, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "deployer.pem")
	var admins []byte
	for _, n := range []string{"ann", "bob"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", n, "-f", filepath.Join(dir, n)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		data, err := os.ReadFile(filepath.Join(dir, n+".pub"))
		must(t, err)
		admins = append(admins, data...)
	}
	put(t, dir, "admins.pub", "# who may command\n\n"+string(admins))
	put(t, dir, "api.key", "logs-api-key-secret\n")
	put(t, dir, "registry.key", "registry-secret: \"x\" #\n")
	put(t, dir, "settings.yaml", settingsText)
	return dir
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

const settingsText = `version: 1
format: contract-basic
image: registry.example.com:5000/signing/signdrop@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
hostname: signdrop
certificate: ibm.crt
signing_key: deployer.pem
administrators: admins.pub
threshold: 2
volume: {filesystem: ext4, workload_seed: workload.seed, env_seed: env.seed}
logging:
  syslog: {hostname: log.example.com, port: 6514, server: syslog.crt, cert: syslog.crt, key: syslog.key}
registry: {username: puller, password: registry.key}
`

// open decrypts a token as the machine does, with openssl.
func open(t testing.TB, dir, format, token string) []byte {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] != format {
		t.Fatalf("the token is %.60s…", token)
	}
	for i, name := range []string{"password.enc", "body.enc"} {
		raw, err := base64.StdEncoding.DecodeString(parts[i+1])
		must(t, err)
		put(t, dir, name, string(raw))
	}
	password := openssl(t, dir, "pkeyutl", "-decrypt", "-inkey", "ibm.key", "-in", "password.enc")
	if !regexp.MustCompile(`^[A-Za-z0-9+/]{43}=$`).Match(password) {
		t.Error("the password is not text of one line")
	}
	cmd := exec.Command("openssl", "enc", "-d", "-aes-256-cbc", "-pbkdf2", "-pass", "stdin", "-in", "body.enc")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(password)
	plain, err := cmd.Output()
	must(t, err)
	return plain
}

// TestMake: for both formats, openssl opens what was made, and what is in it is what
// was asked for.
func TestMake(t *testing.T) {
	for _, format := range Formats {
		t.Run(format, func(t *testing.T) {
			dir := desk(t)
			text := strings.Replace(settingsText, Formats[0], format, 1)
			if format == Formats[1] {
				a, b := strings.Index(text, "  syslog:"), strings.Index(text, "registry: {")
				text = text[:a] + "  log_router: {hostname: logs.example.com, port: 443, api_key: api.key}\n" + text[b:]
			}
			put(t, dir, "settings.yaml", text)
			m, err := Make(filepath.Join(dir, "settings.yaml"), time.Now())
			must(t, err)
			if len(m.NewSeeds) != 2 {
				t.Errorf("new seeds: %v", m.NewSeeds)
			}
			out := filepath.Join(dir, "cidata")
			must(t, m.Write(out))
			data, err := os.ReadFile(filepath.Join(out, UserData))
			must(t, err)
			var u userData
			must(t, load(data, &u))
			if u.Workload != m.Workload || u.Env != m.Env || u.Signature != m.Signature {
				t.Error("user-data does not hold what was made")
			}

			var w Workload
			must(t, load(open(t, dir, format, u.Workload), &w))
			var e Env
			must(t, load(open(t, dir, format, u.Env), &e))
			must(t, check(&w, &e))
			seeds := map[string]string{"workload.seed": w.Volumes["data"].Seed, "env.seed": e.Volumes["data"].Seed}
			for file, want := range seeds {
				got, err := os.ReadFile(filepath.Join(dir, file))
				must(t, err)
				info, err := os.Stat(filepath.Join(dir, file))
				must(t, err)
				if string(got) != want+"\n" || info.Mode().Perm() != 0o600 {
					t.Errorf("%s is not what the contract says, or open: %v", file, info.Mode())
				}
			}
			if a := w.Auths["registry.example.com:5000"]; a != (Auth{"puller", `registry-secret: "x" #`}) {
				t.Error("the registry's credentials are others")
			}
			c := w.Play.Resources[0].Spec.Containers[0]
			if !strings.HasPrefix(c.Image, "registry.example.com:5000/signing/signdrop@sha256:9f86") || c.Ports[0] != (Port{10210, 10210, "TCP"}) ||
				c.VolumeMounts[0] != (Mount{"data", "/data", false}) || w.Volumes["data"].Mount != w.Play.Resources[0].Spec.Volumes[0].HostPath.Path {
				t.Errorf("the pod is %+v", w.Play)
			}
			if e.Env["SIGNDROP_ADMIN_THRESHOLD"] != "2" || strings.Count(e.Env["SIGNDROP_ADMINS"], "ssh-ed25519 ") != 2 || len(e.Env) != 2 {
				t.Errorf("the environment is %v", e.Env)
			}
			if format == Formats[0] && e.Logging.Syslog.Port != 6514 || format == Formats[1] && e.Logging.LogRouter.IAMAPIKey != "logs-api-key-secret" {
				t.Error("logging is another")
			}

			// The signature, by the public key that the machine finds in env.
			put(t, dir, "signing.pub", e.SigningKey)
			put(t, dir, "signed", u.Workload+u.Env)
			raw, err := base64.StdEncoding.DecodeString(u.Signature)
			must(t, err)
			put(t, dir, "signature", string(raw))
			openssl(t, dir, "dgst", "-sha256", "-verify", "signing.pub", "-signature", "signature", "signed")

			// Once more: the seeds stay, the rest is drawn anew, the first stays there.
			again, err := Make(filepath.Join(dir, "settings.yaml"), time.Now())
			must(t, err)
			if len(again.NewSeeds) != 0 || again.Workload == m.Workload || again.Env == m.Env {
				t.Error("the second contract is not one of its own by the same seeds")
			}
			if err := again.Write(out); err == nil {
				t.Error("a contract was replaced")
			}
			if now, err := os.ReadFile(filepath.Join(out, UserData)); err != nil || !bytes.Equal(now, data) {
				t.Error("the first contract has changed")
			}
			// Its own file has no secret.
			for _, s := range []string{"registry-secret", "logs-api-key", w.Volumes["data"].Seed, e.Volumes["data"].Seed} {
				if bytes.Contains(data, []byte(s)) {
					t.Error("user-data shows a secret")
				}
			}
		})
	}
}

// TestPassword: it is one line of text, always, which openssl takes whole.
func TestPassword(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		p := newPassword()
		if len(p) != 44 || bytes.ContainsAny(p, "\n\r\x00 ") || seen[string(p)] {
			t.Fatal("a password is no line of text of its length, or came twice")
		}
		seen[string(p)] = true
	}
	dir := t.TempDir()
	for n := range 34 { // around two blocks
		plain, password := bytes.Repeat([]byte{'x'}, n), newPassword()
		sealed, err := opensslEnc(password, plain)
		must(t, err)
		put(t, dir, "body", string(sealed))
		put(t, dir, "password", string(password))
		if got := openssl(t, dir, "enc", "-d", "-aes-256-cbc", "-pbkdf2", "-pass", "file:password", "-in", "body"); !bytes.Equal(got, plain) {
			t.Errorf("%d bytes came back as %d", n, len(got))
		}
	}
}

// TestRefused: wrong settings are refused with the field's name, before anything is
// drawn, and no message has a secret.
func TestRefused(t *testing.T) {
	dir := desk(t)
	put(t, dir, "one.pub", "ssh-ed25519 nonsense\n")
	openssl(t, dir, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ec.pem")
	openssl(t, dir, "req", "-x509", "-key", "ec.pem", "-out", "ec.crt", "-days", "3", "-subj", "/CN=ec")
	put(t, dir, "short.seed", "SecretSeed\n")
	put(t, dir, "same.seed", "0123456789abcdef\n")
	put(t, dir, "same2.seed", "0123456789abcdef\n")
	put(t, dir, "odd.seed", "SecretSeed with spaces\n")
	admins, err := os.ReadFile(filepath.Join(dir, "ann.pub"))
	must(t, err)
	put(t, dir, "twice.pub", string(admins)+string(admins))
	put(t, dir, "empty", "")
	put(t, dir, "two.key", "secret-one\nsecret-two\n")
	for _, c := range []struct{ from, to, want string }{
		{"version: 1", "version: 2", "version"},
		{"version: 1", "version: 1\nextra: 1", "extra"},
		{"version: 1", "version: 1\nversion: 1", "version"},
		{"format: contract-basic", "format: basic", "format"},
		{"@sha256:9f86", ":latest-", "image"},
		{"registry.example.com:5000/", "", "image"},
		{"hostname: signdrop", "hostname: \"a b\"", "hostname"},
		{"certificate: ibm.crt", "certificate: none.crt", "certificate"},
		{"certificate: ibm.crt", "certificate: ec.crt", "RSA"},
		{"certificate: ibm.crt", "certificate: deployer.pem", "no certificate"},
		{"certificate: ibm.crt", "", "certificate"},
		{"signing_key: deployer.pem", "signing_key: ec.pem", "signing_key"},
		{"signing_key: deployer.pem", "signing_key: ibm.crt", "signing_key"},
		{"signing_key: deployer.pem", "signing_key: empty", "signing_key"},
		{"administrators: admins.pub", "administrators: one.pub", "line 1"},
		{"administrators: admins.pub", "administrators: twice.pub", "one key is one administrator"},
		{"threshold: 2", "threshold: 3", "3 signatures"},
		{"threshold: 2", "threshold: 0", "threshold"},
		{"filesystem: ext4", "filesystem: vfat", "filesystem"},
		{"workload_seed: workload.seed", "workload_seed: short.seed", "15 characters"},
		{"workload_seed: workload.seed", "workload_seed: odd.seed", "15 characters"},
		{"workload_seed: workload.seed, env_seed: env.seed", "workload_seed: s, env_seed: s", "another file"},
		{"workload_seed: workload.seed, env_seed: env.seed", "workload_seed: same.seed, env_seed: same2.seed", "the same"},
		{"  syslog:", "  log_router: {hostname: a, port: 1, api_key: api.key}\n  syslog:", "exactly one"},
		{"port: 6514", "port: 65536", "port"},
		{"key: syslog.key", "key: syslog.crt", "syslog.key"},
		{"username: puller, ", "", "registry"},
		{"password: registry.key", "password: two.key", "one line"},
	} {
		text := strings.Replace(settingsText, c.from, c.to, 1)
		if text == settingsText {
			t.Fatalf("%q is not in the settings", c.from)
		}
		put(t, dir, "settings.yaml", text)
		_, err := Make(filepath.Join(dir, "settings.yaml"), time.Now())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %q: %v", c.to, err)
		} else if regexp.MustCompile(`(?i)secret-|secretseed|BEGIN|0123456789`).MatchString(err.Error()) {
			t.Errorf("with %q a secret is told", c.to)
		}
		if !strings.Contains(c.to, "_seed") {
			if _, err := os.Stat(filepath.Join(dir, "workload.seed")); err == nil {
				t.Fatalf("with %q a seed was drawn", c.to)
			}
		}
	}
	put(t, dir, "settings.yaml", settingsText)
	for _, when := range []time.Time{time.Now().Add(-48 * time.Hour), time.Now().Add(96 * time.Hour)} {
		if _, err := Make(filepath.Join(dir, "settings.yaml"), when); err == nil || !strings.Contains(err.Error(), "valid from") {
			t.Errorf("at %s: %v", when, err)
		}
	}
}

// TestExample: the settings that we ship are settings, and JSON is as good.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../../../deploy/contract/settings.yaml")
	must(t, err)
	if _, err := ParseSettings(data); err != nil {
		t.Error(err)
	}
	if _, err := ParseSettings([]byte(`{"version": 1, "format": "contract-basic", "image": "r.example/s@sha256:` + strings.Repeat("0", 64) + `",
		"hostname": "s", "certificate": "c", "signing_key": "k", "administrators": "a", "threshold": 1,
		"volume": {"filesystem": "xfs", "workload_seed": "w", "env_seed": "e"},
		"logging": {"log_router": {"hostname": "l", "port": 443, "api_key": "a"}}}`)); err != nil {
		t.Error(err)
	}
}

// attested makes a contract, and a record as its machine would write it.
func attested(t testing.TB) (dir string, record []string) {
	t.Helper()
	dir = desk(t)
	m, err := Make(filepath.Join(dir, "settings.yaml"), time.Now())
	must(t, err)
	must(t, m.Write(filepath.Join(dir, "cidata")))
	must(t, os.Mkdir(filepath.Join(dir, "record"), 0o700))
	openssl(t, dir, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "attest.key", "-out", "attest.csr", "-subj", "/CN=attest")
	openssl(t, dir, "x509", "-req", "-in", "attest.csr", "-CA", "ibm.crt", "-CAkey", "ibm.key", "-set_serial", "7", "-days", "2", "-out", "attest.crt")
	other := strings.Repeat("ab", 32)
	record = []string{"25.11.0", "Machine Type/Plant/Serial: 3931/02/ABCDE", "Image age: 2 days since creation.",
		other + " root.tar.gz", other + " baseimage", other + " /dev/disk/by-label/cidata"}
	for _, f := range []string{MetaData, UserData, VendorData} {
		sum := strings.Fields(string(openssl(t, dir, "dgst", "-sha256", "-r", filepath.Join("cidata", f))))[0]
		record = append(record, sum+" cidata/"+f)
	}
	for i, token := range []string{m.Env, m.Workload} {
		put(t, dir, "token", token)
		sum := strings.Fields(string(openssl(t, dir, "dgst", "-sha256", "-r", "token")))[0]
		record = append(record, sum+[]string{" contract:env ", " - contract:workload"}[i])
	}
	return dir, record
}

// signRecord writes a record and its signature.
func signRecord(t testing.TB, dir, key string, lines []string) {
	t.Helper()
	put(t, dir, "record/"+Checksums, strings.Join(lines, "\n")+"\n")
	openssl(t, dir, "dgst", "-sha256", "-sign", key, "-out", "record/"+SignatureFile, "record/"+Checksums)
}

// TestAttest: a genuine record of our contract passes, and every change refuses it.
func TestAttest(t *testing.T) {
	dir, record := attested(t)
	attest := func(certificate, issuer string, now time.Time) ([]Checked, error) {
		if issuer != "" {
			issuer = filepath.Join(dir, issuer)
		}
		lines, _, err := Attest(filepath.Join(dir, "record"), filepath.Join(dir, "cidata"), filepath.Join(dir, certificate), issuer, now)
		return lines, err
	}
	now := time.Now()
	signRecord(t, dir, "attest.key", record)
	for _, issuer := range []string{"", "ibm.crt"} {
		lines, err := attest("attest.crt", issuer, now)
		must(t, err)
		ours := 0
		for _, l := range lines {
			if l.Ours {
				ours++
			}
		}
		if len(lines) != 8 || ours != 5 {
			t.Errorf("the lines are %+v", lines)
		}
	}
	// A machine without the ISO.
	signRecord(t, dir, "attest.key", append(slices.Clone(record[:5]), record[9:]...))
	_, err := attest("attest.crt", "", now)
	must(t, err)

	flip := func(i int) []string {
		lines := slices.Clone(record)
		lines[i] = strings.Replace(lines[i], lines[i][:2], fmt.Sprintf("%02x", lines[i][0]^1), 1)
		return lines
	}
	without := func(i int) []string { return slices.Delete(slices.Clone(record), i, i+1) }
	refused := map[string][]string{
		"workload is another":    flip(10),
		"env is another":         flip(9),
		"user-data is another":   flip(7),
		"workload is missing":    without(10),
		"env is missing":         without(9),
		"a line twice":           append(slices.Clone(record), record[9]),
		"a key that is not ours": append(slices.Clone(record), strings.Repeat("ab", 32)+" contract:attestationPublicKey"),
		"a line of another form": append(slices.Clone(record), strings.ToUpper(record[9])+" contract:env"),
		"nothing":                nil,
	}
	for what, lines := range refused {
		signRecord(t, dir, "attest.key", lines)
		var m *Mismatch
		if lines, err := attest("attest.crt", "", now); !asMismatch(err, &m) || lines != nil {
			t.Errorf("%s: %v, %v", what, lines, err)
		}
	}
	var m *Mismatch
	signRecord(t, dir, "deployer.pem", record)
	if _, err := attest("attest.crt", "", now); !asMismatch(err, &m) {
		t.Errorf("another key's signature: %v", err)
	}
	signRecord(t, dir, "attest.key", record)
	put(t, dir, "record/"+Checksums, strings.Join(record, "\n")+"\n\n")
	if _, err := attest("attest.crt", "", now); !asMismatch(err, &m) {
		t.Errorf("a changed record: %v", err)
	}
	signRecord(t, dir, "attest.key", record)
	if _, err := attest("attest.crt", "syslog.crt", now); !asMismatch(err, &m) {
		t.Errorf("another issuer: %v", err)
	}
	if _, err := attest("attest.crt", "", now.Add(72*time.Hour)); err == nil {
		t.Error("a certificate that is not valid any more was taken")
	}
	must(t, os.Remove(filepath.Join(dir, "record", SignatureFile)))
	if _, err := attest("attest.crt", "", now); err == nil {
		t.Error("no signature was taken for one")
	}
}

func asMismatch(err error, m **Mismatch) bool {
	e, ok := err.(*Mismatch)
	*m = e
	return ok
}

// TestBadSigningKey: what the parser of keys says never quotes the key.
func TestBadSigningKey(t *testing.T) {
	for _, kind := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"} {
		data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("0secretsecret")})
		if _, err := parseSigningKey(data); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := x509.ParsePKCS8PrivateKey(nil); err == nil {
		t.Error("nothing is a key")
	}
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(settingsText))
	f.Add([]byte(`{"version": 1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSettings(data)
		if err == nil && (s.Version != 1 || !imageName.MatchString(s.Image) || s.Threshold < 1) {
			t.Errorf("%q was taken", data)
		}
	})
}

func FuzzRecord(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	f.Add([]byte("25.11.0\n" + sum + " contract:env \n" + sum + "  - contract:workload\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, notes, err := ParseRecord(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, l := range lines {
			if len(l.Sum) != 64 || l.Name == "" || seen[l.Name] {
				t.Errorf("%q gives %+v", data, l)
			}
			seen[l.Name] = true
		}
		for _, n := range notes {
			if strings.Contains(n, "contract:") {
				t.Errorf("%q passes for text", n)
			}
		}
	})
}

// TestBackupRecipients: where they are given both sections have them.
func TestBackupRecipients(t *testing.T) {
	dir := desk(t)
	id, err := age.GenerateX25519Identity()
	must(t, err)
	put(t, dir, "settings.yaml", settingsText+"backup_recipients: recipients.txt\n")
	put(t, dir, "recipients.txt", "# the custodians'\n\n"+id.Recipient().String()+"\n")
	m, err := Make(filepath.Join(dir, "settings.yaml"), time.Now())
	must(t, err)
	var w Workload
	must(t, load(open(t, dir, Formats[0], m.Workload), &w))
	var e Env
	must(t, load(open(t, dir, Formats[0], m.Env), &e))
	must(t, check(&w, &e))
	vars := w.Play.Resources[0].Spec.Containers[0].Env
	if len(vars) != 3 || vars[2].Name != "SIGNDROP_BACKUP_RECIPIENTS" || e.Env["SIGNDROP_BACKUP_RECIPIENTS"] != id.Recipient().String()+"\n" {
		t.Errorf("the pod takes %v, and env has %v", vars, e.Env)
	}
	for _, bad := range []string{"", "# none\n", id.String() + "\n"} {
		put(t, dir, "recipients.txt", bad)
		if _, err := Make(filepath.Join(dir, "settings.yaml"), time.Now()); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("recipients %q: %v", bad, err)
		}
	}
}
