package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The image is run here by what a container runtime is underneath: a mount
// namespace, a read-only root, a chroot and a small set of capabilities.

// enterVariable makes the test's program enter a root and become what is there.
const enterVariable = "SIGNDROP_TEST_ENTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(enterVariable); dir != "" {
		fmt.Fprintln(os.Stderr, enter(dir, os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// capabilities are what deploy/README.md grants.
var capabilities = []uintptr{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID}

// enter makes dir/root the root, read-only but for /data, which is dir/data, and
// runs a program there. It comes back with an error only.
func enter(dir string, args []string) error {
	runtime.LockOSThread() // capabilities belong to a thread
	root := filepath.Join(dir, "root")
	for _, m := range []struct {
		from, to string
		flags    uintptr
	}{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE},
		{root, root, unix.MS_BIND},
		{"", root, unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY},
		{filepath.Join(dir, "data"), filepath.Join(root, "data"), unix.MS_BIND},
		{"/proc", filepath.Join(root, "proc"), unix.MS_BIND | unix.MS_REC},
		{"/dev", filepath.Join(root, "dev"), unix.MS_BIND | unix.MS_REC},
	} {
		if err := unix.Mount(m.from, m.to, "", m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.to, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := unix.Chdir(config.WorkingDir); err != nil {
		return err
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !slices.Contains(capabilities, c) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Access("/usr", unix.W_OK); err != unix.EROFS {
		return fmt.Errorf("the root is not read-only: %v", err)
	}
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return !strings.HasPrefix(e, "SIGNDROP_") && !strings.HasPrefix(e, "PATH=") })
	return syscall.Exec(args[0], args, env)
}

// start starts the image's entry point with more environment.
func start(t *testing.T, dir string, env ...string) (stop func(), log string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	log = filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	must(t, err)
	cmd := exec.Command(self, config.Entrypoint...)
	cmd.Env = append(append(slices.Clone(config.Env), enterVariable+"="+dir), env...)
	cmd.Stderr = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	must(t, cmd.Start())
	f.Close()
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			data, _ := os.ReadFile(log)
			t.Errorf("signdropd: %v\n%s", err, data)
		}
	}
	t.Cleanup(stop)
	return stop, log
}

// until waits for a condition.
func until(t *testing.T, log, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			data, _ := os.ReadFile(log)
			t.Fatalf("waited in vain until %s\n%s", what, data)
		}
	}
}

// TestImage: built twice, from two places, with two umasks, it is the same; it has
// two static programs and nothing else; and it works, from nothing to a signature.
func TestImage(t *testing.T) {
	out := t.TempDir()
	archs := "amd64,s390x"
	if testing.Short() {
		archs = "amd64"
	}
	var first, second bytes.Buffer
	must(t, run(t.Context(), []string{"-o", out, "-arch", archs}, &first))
	if !testing.Short() {
		elsewhere, other := t.TempDir(), t.TempDir()
		copySource(t, elsewhere)
		here, err := os.Getwd()
		must(t, err)
		must(t, os.Chdir(elsewhere))
		old := syscall.Umask(0o077)
		must(t, os.Setenv("TZ", "Pacific/Chatham"))
		err = run(t.Context(), []string{"-o", other, "-arch", archs}, &second)
		must(t, os.Unsetenv("TZ"))
		syscall.Umask(old)
		must(t, os.Chdir(here))
		must(t, err)
		if got, want := strings.ReplaceAll(second.String(), other, out), first.String(); got != want {
			t.Errorf("the second build is\n%s, the first was\n%s", got, want)
		}
		for _, name := range []string{"amd64.oci.tar", "amd64.cdx.json", "s390x.oci.tar", "s390x.cdx.json"} {
			a, err := os.ReadFile(filepath.Join(out, "signdrop-linux-"+name))
			must(t, err)
			b, err := os.ReadFile(filepath.Join(other, "signdrop-linux-"+name))
			must(t, err)
			if !bytes.Equal(a, b) {
				t.Errorf("%s is another one the second time", name)
			}
		}
	}
	for _, arch := range strings.Split(archs, ",") {
		t.Run(arch, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Chmod(dir, 0o755))
			// As a new ext4 is mounted.
			must(t, os.MkdirAll(filepath.Join(dir, "data/lost+found"), 0o755))
			must(t, os.Chmod(filepath.Join(dir, "data/lost+found"), 0o700))
			img, names := unpack(t, filepath.Join(out, "signdrop-linux-"+arch+".oci.tar"), arch, filepath.Join(dir, "root"))
			digest, err := img.Digest()
			must(t, err)
			if !strings.Contains(first.String(), digest.String()+"  ") {
				t.Errorf("the digest is %s, printed was\n%s", digest, first.String())
			}
			want := []string{"usr/bin/signdropd", "usr/bin/signdrop"}
			want = append(want, directories...)
			for i := range names {
				names[i] = strings.TrimSuffix(names[i], "/")
			}
			slices.Sort(names)
			slices.Sort(want)
			if !slices.Equal(names, want) {
				t.Errorf("the image holds %v", names)
			}
			for _, p := range programs {
				f, err := elf.Open(filepath.Join(dir, "root/usr/bin", filepath.Base(p)))
				must(t, err)
				if libs, _ := f.ImportedLibraries(); len(libs) != 0 || f.Section(".interp") != nil {
					t.Errorf("%s is not static: %v", p, libs)
				}
				f.Close()
			}
			if arch == "amd64" {
				live(t, dir)
			} else {
				emulated(t, dir)
			}
		})
	}
}

// emulated runs the programs for the machine that they are for.
func emulated(t *testing.T, dir string) {
	bin, data := filepath.Join(dir, "root/usr/bin"), filepath.Join(dir, "data")
	const qemu = "qemu-s390x-static"
	if got := output(t, qemu, filepath.Join(bin, "signdrop"), "--version"); !strings.Contains(got, runtime.Version()) {
		t.Errorf("signdrop --version says %q", got)
	}
	output(t, qemu, filepath.Join(bin, "signdrop"), "init", "--data", data)
	if got := output(t, qemu, filepath.Join(bin, "signdropd"), "once", "--data", data, "--allow-plain-keys"); !strings.Contains(got, "stopped") {
		t.Errorf("signdropd once says\n%s", got)
	}
}

// live sets up an appliance with nothing but environment, administrators' keys and
// partners' keys.
func live(t *testing.T, dir string) {
	keys := t.TempDir()
	public := func(name string) string {
		output(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(keys, name))
		data, err := os.ReadFile(filepath.Join(keys, name+".pub"))
		must(t, err)
		return string(data)
	}
	ann, bob, acme := public("ann"), public("bob"), public("acme")
	env := []string{"SIGNDROP_ADMINS=" + ann + bob, "SIGNDROP_ADMIN_THRESHOLD=2", "SIGNDROP_SFTP="}
	sftp := os.Getuid() == 0 // a namespace of one user has none for the door
	if sftp {
		env[2] += "127.0.0.1:0"
	}
	data := filepath.Join(dir, "data")

	// Keys in the clear are not what the image allows by itself.
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, config.Entrypoint...)
	cmd.Env = append(append(slices.Clone(config.Env), enterVariable+"="+dir), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if sftp {
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "not under IBM Secure Execution") {
			t.Errorf("outside Secure Execution: %v\n%s", err, out)
		}
		if list, err := os.ReadDir(data); err != nil || len(list) != 1 {
			t.Errorf("it left %v, %v", list, err)
		}
	}

	stop, log := start(t, dir, append(env, "SIGNDROP_ALLOW_PLAIN_KEYS=true")...)
	text := func() string {
		b, err := os.ReadFile(log)
		must(t, err)
		return string(b)
	}
	until(t, log, "it is ready", func() bool { return strings.Contains(text(), `"message":"ready"`) })

	admin := filepath.Join(data, "spool/admin")
	command, err := json.Marshal(map[string]any{"type": "company.create", "company": "acme", "signers": []string{acme}, "authorized_keys": []string{strings.TrimSpace(acme)}})
	must(t, err)
	file := filepath.Join(keys, "company.json")
	must(t, os.WriteFile(file, command, 0o600))
	for _, s := range []string{"ann", "bob"} {
		output(t, "ssh-keygen", "-q", "-Y", "sign", "-n", "admin@signdrop", "-f", filepath.Join(keys, s), file)
		must(t, os.Rename(file+".sig", filepath.Join(admin, "inbox/company.json."+s+".sig")))
	}
	must(t, os.Rename(file, filepath.Join(admin, "inbox/company.json")))
	created := func(path string) bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(b), `"created"`)
	}
	until(t, log, "the company is made", func() bool { return created(filepath.Join(admin, "outbox/company.result.json")) })

	request := filepath.Join(keys, "w.json")
	must(t, os.WriteFile(request, []byte(`{"type":"wallet.create","curve":"P-384"}`), 0o600))
	output(t, "ssh-keygen", "-q", "-Y", "sign", "-n", "request@signdrop", "-f", filepath.Join(keys, "acme"), request)
	if !sftp {
		for _, n := range []string{"w.json.sig", "w.json"} {
			must(t, os.Rename(filepath.Join(keys, n), filepath.Join(data, "spool/acme/inbox", n)))
		}
		until(t, log, "the request is answered", func() bool { return created(filepath.Join(data, "spool/acme/outbox/w.result.json")) })
		stop()
		return
	}
	ready := regexp.MustCompile(`"address":"127\.0\.0\.1:(\d+)"[^\n]*"message":"SFTP door: ready"`)
	until(t, log, "the door is ready", func() bool { return ready.MatchString(text()) })
	port := ready.FindStringSubmatch(text())[1]
	batch := func(lines ...string) (string, error) {
		cmd := exec.Command("sftp", "-q", "-b", "-", "-F", "none", "-P", port, "-i", filepath.Join(keys, "acme"), "-o", "IdentitiesOnly=yes",
			"-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile="+filepath.Join(keys, "hosts"), "acme@127.0.0.1")
		cmd.Dir, cmd.Stdin = keys, strings.NewReader(strings.Join(lines, "\n")+"\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// Who may log in holds a second later.
	until(t, log, "the partner can upload", func() bool { _, err := batch("put w.json.sig inbox/", "put w.json inbox/"); return err == nil })
	until(t, log, "the partner has its answer", func() bool { _, err := batch("get outbox/w.result.json"); return err == nil })
	if !created(filepath.Join(keys, "w.result.json")) {
		t.Error("the answer is another one")
	}
	if !strings.Contains(text(), `"own_user":true`) {
		t.Errorf("the door has no user of its own\n%s", text())
	}
	stop()
}
