package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"signdrop/appliance/answer"
)

// TestAdminsFromEnvironment: a container without a shell sets up its volume from the
// environment, once, and then administrators with ssh-keygen do the rest.
func TestAdminsFromEnvironment(t *testing.T) {
	t.Parallel()
	v := bareVolume(t)
	keys := t.TempDir()
	public := map[string]string{}
	for _, name := range []string{"ann", "bob", "eve", "beta"} {
		run1(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(keys, name))
		data, err := os.ReadFile(filepath.Join(keys, name+".pub"))
		v.ok(err)
		public[name] = string(data)
	}
	environment := func(threshold string, names ...string) []string {
		text := ""
		for _, n := range names {
			text += public[n]
		}
		return []string{"env", "SIGNDROP_ADMINS=" + text, "SIGNDROP_ADMIN_THRESHOLD=" + threshold}
	}
	r := v.begin(environment("2", "ann", "bob"), "serve")
	r.logged(`"message":"ready"`)

	admin := v.path("spool", "admin")
	command := func(name, text string, signers ...string) {
		t.Helper()
		file := filepath.Join(keys, name)
		v.ok(os.WriteFile(file, []byte(text), 0o600))
		for _, s := range signers {
			run1(t, "ssh-keygen", "-q", "-Y", "sign", "-n", "admin@signdrop", "-f", filepath.Join(keys, s), file)
			v.ok(os.Rename(file+".sig", filepath.Join(admin, "inbox", name+"."+s+".sig")))
		}
		v.ok(os.Rename(file, filepath.Join(admin, "inbox", name)))
	}
	result := func(name string) *answer.Answer {
		t.Helper()
		var data []byte
		v.until(name+" is answered", func() (ok bool) {
			var err error
			data, err = os.ReadFile(filepath.Join(admin, "outbox", name))
			return err == nil
		})
		a, err := answer.Parse(data)
		v.ok(err)
		return a
	}
	beta := fmt.Sprintf(`{"type":"company.create","company":"beta","signers":[%q]}`, public["beta"])
	command("beta.json", beta, "ann", "bob")
	if got := result("beta.result.json"); got.Verdict != "created" || got.Company != "beta" {
		t.Errorf("answer: %+v", got)
	}
	for _, d := range []string{"inbox", "outbox", "rejected"} {
		if info, err := os.Stat(v.path("spool", "beta", d)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("spool/beta/%s: %v, %v", d, info, err)
		}
	}
	// The partner works with what everybody has.
	w := filepath.Join(keys, "w.json")
	v.ok(os.WriteFile(w, []byte(`{"type":"wallet.create","curve":"P-384"}`), 0o600))
	run1(t, "ssh-keygen", "-q", "-Y", "sign", "-n", "request@signdrop", "-f", filepath.Join(keys, "beta"), w)
	run1(t, "mv", w, w+".sig", v.path("spool", "beta", "inbox"))
	v.until("the partner has its wallet", func() bool {
		_, err := os.Stat(v.path("spool", "beta", "outbox", "w.result.json"))
		return err == nil
	})
	r.stop()

	// The same environment is what a restart has; another is refused.
	r = v.begin(environment("2", "bob", "ann"), "serve")
	r.logged(`"message":"ready"`)
	r.stop()
	for _, c := range [][]string{environment("1", "ann", "bob"), environment("2", "ann", "bob", "eve"), environment("1", "eve")} {
		r = v.begin(c, "serve")
		if status := r.wait(); status != 1 || !strings.Contains(r.text(), "administrator") {
			t.Errorf("%q: exit status %d\n%s", c[2], status, r.text())
		}
	}
	// They sign with their keys, and come in by SFTP with the same.
	for _, file := range []string{"allowed_signers", "authorized_keys"} {
		list, err := os.ReadFile(v.path("db", "admins", file))
		v.ok(err)
		for _, name := range []string{"ann", "bob"} {
			if !strings.Contains(string(list), strings.Fields(public[name])[1]) {
				t.Errorf("%s lacks %s:\n%s", file, name, list)
			}
		}
		if strings.Count(string(list), "\n") != 2 {
			t.Errorf("%s:\n%s", file, list)
		}
	}
}

func run1(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
