package setup_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"signdrop/appliance/auth"
	"signdrop/appliance/policy"
	"signdrop/appliance/setup"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// publicKey is the line of a public key that follows from a name.
func publicKey(t *testing.T, name, comment string) []byte {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed[:]).Public())
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment + "\n")
}

func signer(t *testing.T, name string) setup.Signer {
	t.Helper()
	s, err := setup.ReadSigner(publicKey(t, name, name+"@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func plan(t *testing.T) setup.Plan {
	return setup.Plan{
		Admins: []setup.Signer{signer(t, "ann"), signer(t, "bob")}, Threshold: 2,
		Company: "acme", Signers: []setup.Signer{signer(t, "carol")},
	}
}

func makeOn(v *modelfs.Volume, p setup.Plan) (*setup.Report, error) {
	root, err := v.Root()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return setup.Make(root, nil, p)
}

func root(t *testing.T, v *modelfs.Volume) durable.Dir {
	t.Helper()
	d, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// wholeTree is every name that plan makes, directories with a slash.
var wholeTree = strings.Fields(`
	archive/ db/ db/admins/ db/admins/allowed_signers db/admins/authorized_keys db/admins/founded db/admins/threshold
	db/appliance/ db/appliance/appliance.json db/appliance/identity.age db/appliance/new-journal
	db/companies/ db/companies/acme/ db/companies/acme/allowed_signers db/companies/acme/authorized_keys
	db/companies/acme/company.json db/companies/acme/policy.json
	index/ journal/ spool/ spool/acme/ spool/acme/inbox/ spool/acme/outbox/ spool/acme/outbox/appliance.json spool/acme/rejected/ spool/admin/ spool/admin/inbox/ spool/admin/outbox/ spool/admin/outbox/appliance.json spool/admin/rejected/ work/`)

func names(v *modelfs.Volume) []string {
	var list []string
	v.Walk(func(path string, info durable.Info) {
		if info.Mode.IsDir() {
			path += "/"
		}
		if path != "/" {
			list = append(list, path)
		}
	})
	slices.Sort(list)
	return list
}

// checkTree checks a volume on which plan was made, down to the last byte.
func checkTree(t *testing.T, v *modelfs.Volume) {
	t.Helper()
	if got := names(v); !slices.Equal(got, wholeTree) {
		t.Fatalf("the tree is\n  %v\nwant\n  %v", got, wholeTree)
	}
	id, err := setup.ReadAppliance(root(t, v))
	if err != nil {
		t.Fatal(err)
	}
	line := func(name, namespaces string) string {
		key := strings.TrimSuffix(string(publicKey(t, name, "")), " \n")
		return fmt.Sprintf("%s@example.com namespaces=%q %s\n", name, namespaces, key)
	}
	for path, want := range map[string]string{
		"db/appliance/appliance.json":       `{"id":"` + id + "\"}\n",
		"db/appliance/new-journal":          "",
		"db/admins/allowed_signers":         line("ann", "admin@signdrop,approve@signdrop") + line("bob", "admin@signdrop,approve@signdrop"),
		"db/admins/threshold":               "2\n",
		"db/companies/acme/allowed_signers": line("carol", "request@signdrop,approve@signdrop"),
		"db/companies/acme/authorized_keys": "",
		"db/companies/acme/company.json":    "{\n  \"name\": \"acme\",\n  \"status\": \"active\"\n}\n",
		"db/companies/acme/policy.json":     "{\n  \"replace\": false,\n  \"data\": \"safe\"\n}\n",
	} {
		got, err := v.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
		}
	}
	v.Walk(func(path string, info durable.Info) {
		want := fs.FileMode(0o600)
		switch {
		case path == "spool":
			want = 0o755
		case path == "spool/acme", path == "spool/admin":
			want = 0o755
		case info.Mode.IsDir():
			want = 0o700
		case strings.HasSuffix(path, "/outbox/appliance.json"):
			want = 0o644
		case path == "db/appliance/appliance.json", path == "db/appliance/identity.age":
			want = 0o400
		}
		if info.Mode.Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode.Perm(), want)
		}
	})
}

func TestMake(t *testing.T) {
	v := modelfs.New()
	r, err := makeOn(v, plan(t))
	if err != nil {
		t.Fatal(err)
	}
	if open := v.OpenHandles(); len(open) > 0 {
		t.Errorf("handles are left open: %v", open)
	}
	checkTree(t, v)
	if r.Wrong() {
		t.Errorf("the report finds fault with what was just made: %v", r.Items)
	}
	if lost := v.Unsynced(); len(lost) > 0 {
		t.Errorf("a power cut would lose what was reported as made: %v", lost)
	}
	// What is written is what the appliance reads.
	rules, err := v.ReadFile("db/companies/acme/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := policy.Parse(rules); err != nil || p.Replace || p.Data != "safe" {
		t.Errorf("the policy reads as %+v, %v", p, err)
	}
}

func TestMakeAgainChangesNothing(t *testing.T) {
	v := modelfs.New()
	if _, err := makeOn(v, plan(t)); err != nil {
		t.Fatal(err)
	}
	before := v.Tree()
	n := len(v.Calls())
	r, err := makeOn(v, plan(t))
	if err != nil {
		t.Fatal(err)
	}
	if after := v.Tree(); after != before {
		t.Errorf("the tree was\n%s\nand is\n%s", before, after)
	}
	for _, c := range v.Calls()[n:] {
		switch c.Op {
		case modelfs.OpCreate, modelfs.OpMkdir, modelfs.OpMove, modelfs.OpReplace, modelfs.OpRemove, modelfs.OpWrite:
			t.Errorf("the second time has called %v", c)
		}
	}
	for _, it := range r.Items {
		if it.State != setup.There {
			t.Errorf("the second time reports %v", it)
		}
	}
}

// A crash at any call, and whatever the power cut leaves of what was not synced,
// ends in the same tree when Make is called again. What a Make reported is there.
func TestCrash(t *testing.T) {
	random, step := 8, 1
	if testing.Short() {
		random, step = 2, 5
	}
	whole := modelfs.New()
	if _, err := makeOn(whole, plan(t)); err != nil {
		t.Fatal(err)
	}
	calls := len(whole.Calls())
	if calls < 100 {
		t.Fatalf("only %d calls: this test does not see what it should", calls)
	}
	for n := 1; n <= calls; n += step {
		for _, fault := range []modelfs.Fault{modelfs.CrashBefore, modelfs.CrashWithin, modelfs.CrashAfter} {
			v := modelfs.New()
			v.SetFault(func(c modelfs.Call) modelfs.Fault {
				if c.N == n {
					return fault
				}
				return modelfs.None
			})
			if _, err := makeOn(v, plan(t)); err == nil && n < calls {
				// The last calls are closes, whose errors are of no interest.
				checkTree(t, v.Crash(modelfs.KeepNothing))
			}
			for _, choice := range v.Choices(random, uint64(n)) {
				after := v.Crash(choice)
				if _, err := makeOn(after, plan(t)); err != nil {
					t.Fatalf("crash at %v, %v left: making again: %v\n%s", whole.Calls()[n-1], choice, err, after.Tree())
				}
				checkTree(t, after)
				if t.Failed() {
					t.Fatalf("crash at %v, %v left", whole.Calls()[n-1], choice)
				}
			}
		}
	}
}

// A call that fails stops Make, and nothing that has its name is half done: Make
// again comes to the whole tree.
func TestFault(t *testing.T) {
	whole := modelfs.New()
	if _, err := makeOn(whole, plan(t)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	for n := 1; n <= len(whole.Calls()); n++ {
		for i, fault := range []modelfs.Fault{modelfs.FailNotDone(broken), modelfs.FailDone(broken)} {
			v := modelfs.New()
			v.SetFault(func(c modelfs.Call) modelfs.Fault {
				if c.N == n {
					return fault
				}
				return modelfs.None
			})
			_, err := makeOn(v, plan(t))
			op := whole.Calls()[n-1]
			// A name that was looked for and is not there fails by itself.
			looked := i == 1 && (op.Op == modelfs.OpSub || op.Op == modelfs.OpStat || op.Op == modelfs.OpOpen && strings.HasSuffix(op.Path, "/seal.json"))
			if err == nil && op.Op != modelfs.OpClose && !looked {
				t.Errorf("%v failed and Make did not notice", op)
			}
			v.SetFault(nil)
			if _, err := makeOn(v, plan(t)); err != nil {
				t.Fatalf("%v failed; making again: %v\n%s", op, err, v.Tree())
			}
			checkTree(t, v)
			if t.Failed() {
				t.Fatalf("%v failed", op)
			}
		}
	}
}

// Every refusal comes before anything is made.
func TestRefused(t *testing.T) {
	made := func(t *testing.T) *modelfs.Volume {
		v := modelfs.New()
		if _, err := makeOn(v, plan(t)); err != nil {
			t.Fatal(err)
		}
		return v
	}
	fresh := func(*testing.T) *modelfs.Volume { return modelfs.New() }
	ann, carol := []setup.Signer{signer(t, "ann")}, []setup.Signer{signer(t, "carol")}
	group := 1000
	for _, c := range []struct {
		name string
		on   func(*testing.T) *modelfs.Volume
		plan setup.Plan
		want string
	}{
		{"reserved name", fresh, setup.Plan{Company: "admin", Signers: carol}, "kept for the administrators"},
		{"bad name", fresh, setup.Plan{Company: "../acme", Signers: carol}, "cannot be a company's name"},
		{"capital letters", fresh, setup.Plan{Company: "Acme", Signers: carol}, "cannot be a company's name"},
		{"hyphen first", fresh, setup.Plan{Company: "-acme", Signers: carol}, "cannot be a company's name"},
		{"too long", fresh, setup.Plan{Company: strings.Repeat("a", 33), Signers: carol}, "cannot be a company's name"},
		{"signer of nobody", fresh, setup.Plan{Signers: carol}, "name the company"},
		{"group of nobody", fresh, setup.Plan{Group: &group}, "name the company"},
		{"new company, no signer", fresh, setup.Plan{Company: "acme"}, "nobody could sign for it"},
		{"threshold above", fresh, setup.Plan{Admins: ann, Threshold: 2}, "a threshold of 2 needs as many administrators and there are 1"},
		{"one key counts once", fresh, setup.Plan{Admins: append(ann, ann...), Threshold: 2}, "there are 1"},
		{"negative threshold", fresh, setup.Plan{Admins: ann, Threshold: -1}, "makes no sense"},
		{"other threshold", made, setup.Plan{Threshold: 1}, "the threshold is 2 and is not changed by this"},
		{"journal without identity", func(*testing.T) *modelfs.Volume {
			v := modelfs.New()
			v.MkdirAll("journal", 0o700)
			v.WriteFile("journal/00000001.jsonl", []byte("{}\n"))
			return v
		}, setup.Plan{}, "restore db/ from the backup"},
		{"damaged list", func(t *testing.T) *modelfs.Volume {
			v := made(t)
			v.WriteFile("db/admins/allowed_signers", []byte("nonsense\n"))
			return v
		}, setup.Plan{}, "db/admins/allowed_signers: line 1"},
		{"missing list", func(t *testing.T) *modelfs.Volume {
			v := made(t)
			v.Remove("db/companies/acme/allowed_signers")
			return v
		}, setup.Plan{Company: "acme", Signers: carol}, "restore it from the backup"},
		{"missing threshold", func(t *testing.T) *modelfs.Volume {
			v := made(t)
			v.Remove("db/admins/threshold")
			return v
		}, setup.Plan{}, "db/admins/threshold is missing"},
		{"a link in the way", func(*testing.T) *modelfs.Volume {
			v := modelfs.New()
			v.Symlink("/elsewhere", "db")
			return v
		}, setup.Plan{}, "not of the expected file type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.on(t)
			before := v.Tree()
			_, err := makeOn(v, c.plan)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
			if after := v.Tree(); after != before {
				t.Errorf("something was made:\n%s", after)
			}
		})
	}
}

func TestAdd(t *testing.T) {
	v := modelfs.New()
	if _, err := makeOn(v, plan(t)); err != nil {
		t.Fatal(err)
	}
	// As an editor leaves it, with a comment and without the last newline.
	const path = "db/companies/acme/allowed_signers"
	old, err := v.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := "# checked by ann\n" + strings.TrimSuffix(string(old), "\n")
	v.WriteFile(path, []byte(edited))

	add := setup.Plan{
		Company: "acme", Signers: []setup.Signer{signer(t, "carol"), signer(t, "emil")},
	}
	r, err := makeOn(v, add)
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(string(got), edited+"\n")
	if !ok || !strings.HasPrefix(rest, `emil@example.com namespaces="request@signdrop,approve@signdrop" ssh-ed25519 AAAA`) || strings.Count(rest, "\n") != 1 {
		t.Errorf("the list is now\n%s", got)
	}
	signers, err := auth.ParseSigners(got)
	if err != nil || signers.Len() != 2 {
		t.Errorf("the list has %v keys, %v", signers, err)
	}
	var added []string
	for _, it := range r.Items {
		if it.State == setup.Added {
			added = append(added, it.Path+": "+it.Note)
		}
	}
	want := []string{"db/companies/acme/allowed_signers: 1 key, now 2 signers"}
	if !slices.Equal(added, want) {
		t.Errorf("reported as added: %q, want %q", added, want)
	}
	if lost := v.Unsynced(); len(lost) > 0 {
		t.Errorf("a power cut would lose: %v", lost)
	}
}

func TestWrong(t *testing.T) {
	for path, mode := range map[string]fs.FileMode{
		"db":                             fs.ModeDir | 0o750,
		"work":                           fs.ModeDir | 0o777,
		"spool":                          fs.ModeDir | 0o733,
		"spool/acme":                     fs.ModeDir | 0o775,
		"spool/acme/inbox":               fs.ModeDir | 0o777,
		"db/admins/allowed_signers":      0o620,
		"db/companies/acme/company.json": 0o602,
	} {
		v := modelfs.New()
		if _, err := makeOn(v, plan(t)); err != nil {
			t.Fatal(err)
		}
		v.Chmod(path, mode)
		before := v.Tree()
		r, err := makeOn(v, plan(t))
		if err != nil {
			t.Fatal(err)
		}
		var wrong []string
		for _, it := range r.Items {
			if it.State == setup.Wrong {
				wrong = append(wrong, it.Path)
				if !strings.Contains(it.Note, "chmod 0") {
					t.Errorf("%s: the note has no remedy: %s", it.Path, it.Note)
				}
			}
		}
		if !slices.Equal(wrong, []string{path}) {
			t.Errorf("reported as wrong: %q, want %q", wrong, path)
		}
		if after := v.Tree(); after != before {
			t.Errorf("%s: it was changed", path)
		}
	}
}

func TestTakeNewJournal(t *testing.T) {
	v := modelfs.New()
	if _, err := makeOn(v, plan(t)); err != nil {
		t.Fatal(err)
	}
	d := root(t, v)
	for range 2 { // a start that fails does not use it up
		allowed, _, err := setup.TakeNewJournal(d)
		if err != nil || !allowed {
			t.Fatalf("a new volume: %v, %v", allowed, err)
		}
	}
	_, done, err := setup.TakeNewJournal(d)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := done(); err != nil {
			t.Fatal(err)
		}
	}
	after := v.Crash(modelfs.KeepNothing)
	d = root(t, after)
	allowed, done, err := setup.TakeNewJournal(d)
	if err != nil || allowed {
		t.Errorf("after the first start, and a power cut: %v, %v", allowed, err)
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	// An erased journal stays one that was erased.
	if _, err := makeOn(after, plan(t)); err != nil {
		t.Fatal(err)
	}
	if allowed, _, err := setup.TakeNewJournal(d); err != nil || allowed {
		t.Errorf("after another Make: %v, %v", allowed, err)
	}
}

func TestReadAppliance(t *testing.T) {
	v := modelfs.New()
	if _, err := setup.ReadAppliance(root(t, v)); err == nil || !strings.Contains(err.Error(), "run signdrop init first") {
		t.Errorf("an empty volume: %v", err)
	}
	v.MkdirAll("db/appliance", 0o700)
	for _, text := range []string{"", "{}", `{"id":""}`, `{"id":"SD_12"}`, `{"id":"SD_0123456789abcdef","more":1}`, `{"id":"SD_0123456789ABCDEF"}`} {
		v.WriteFile("db/appliance/appliance.json", []byte(text))
		if id, err := setup.ReadAppliance(root(t, v)); err == nil {
			t.Errorf("%s reads as %s", text, id)
		}
	}
	v.WriteFile("db/appliance/appliance.json", []byte(`{"id":"SD_0123456789abcdef"}`))
	if id, err := setup.ReadAppliance(root(t, v)); id != "SD_0123456789abcdef" || err != nil {
		t.Errorf("got %s, %v", id, err)
	}
}

func TestReadSigner(t *testing.T) {
	for _, c := range []struct{ comment, want string }{
		{"alice@example.com", "alice@example.com"},
		{"", "fallback"},
		{"two words", "fallback"},
		{`quo"te`, "fallback"},
		{"star*", "fallback"},
		{"#comment", "fallback"},
	} {
		s, err := setup.ReadSigner(publicKey(t, "x", c.comment), "-not a name", "fallback", "other")
		if err != nil || s.Name != c.want {
			t.Errorf("comment %q names the key %q, %v; want %q", c.comment, s.Name, err, c.want)
		}
	}
	if _, err := setup.ReadSigner(publicKey(t, "x", "")); err == nil {
		t.Error("a key without any name was taken")
	}
	for _, bad := range []string{"", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"} {
		if s, err := setup.ReadSigner([]byte(bad), "x"); err == nil {
			t.Errorf("%q reads as %v", bad, s)
		}
	}
}

// On a real disk, with owners, groups and an umask.
func TestMakeDisk(t *testing.T) {
	old := syscall.Umask(0o077) // must not make spool/ any narrower
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "data")
	group := os.Getgid()
	p := plan(t)
	p.Group = &group
	r, err := setup.MakeDisk(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Items[0] != (setup.Item{Path: ".", State: setup.Made}) {
		t.Errorf("the first item is %v", r.Items[0])
	}
	for path, want := range map[string]fs.FileMode{
		".":                           fs.ModeDir | 0o700,
		"db":                          fs.ModeDir | 0o700,
		"db/companies/acme":           fs.ModeDir | 0o700,
		"journal":                     fs.ModeDir | 0o700,
		"spool":                       fs.ModeDir | 0o755,
		"spool/acme":                  fs.ModeDir | 0o755,
		"spool/acme/inbox":            fs.ModeDir | fs.ModeSetgid | 0o770,
		"spool/acme/outbox":           fs.ModeDir | fs.ModeSetgid | 0o770,
		"spool/acme/rejected":         fs.ModeDir | fs.ModeSetgid | 0o770,
		"db/appliance/appliance.json": 0o400,
		"db/admins/allowed_signers":   0o600,
	} {
		info, err := os.Lstat(filepath.Join(dir, path))
		if err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	r, err = setup.MakeDisk(dir, p)
	if err != nil || r.Wrong() {
		t.Fatalf("again: %v, %v", r, err)
	}
	for _, it := range r.Items {
		if it.State != setup.There {
			t.Errorf("again: %v", it)
		}
	}
	// The list keeps its mode when a line is added.
	list := filepath.Join(dir, "db/companies/acme/allowed_signers")
	if err := os.Chmod(list, 0o640); err != nil {
		t.Fatal(err)
	}
	p.Signers = append(p.Signers, signer(t, "emil"))
	if _, err := setup.MakeDisk(dir, p); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(list); err != nil || info.Mode() != 0o640 {
		t.Errorf("the list has mode %v, %v", info.Mode(), err)
	}
	wanted := group + 1
	p.Group = &wanted
	r, err = setup.MakeDisk(dir, p)
	if err != nil || !r.Wrong() {
		t.Errorf("another group than what is there: %v, %v", r, err)
	}
}

// Root can make a volume for another user: its own directories are that user's, and
// what sshd wants to be root's stays root's.
func TestMakeDiskForAnotherUser(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	user := os.Getuid()
	perm := fs.FileMode(0o700)
	if user == 0 {
		user, perm = 12345, 0o755
	}
	p := plan(t)
	p.User = &user
	if _, err := setup.MakeDisk(dir, p); err != nil {
		t.Fatal(err)
	}
	p.User = nil // from now on known by the owner of db/
	p.Company = "other"
	if r, err := setup.MakeDisk(dir, p); err != nil || r.Wrong() {
		t.Fatalf("again: %v, %v", r, err)
	}
	for path, want := range map[string]int{
		".": os.Getuid(), "spool": os.Getuid(), "spool/acme": os.Getuid(), "spool/other": os.Getuid(),
		"spool/acme/inbox": user, "spool/other/rejected": user, "journal": user, "work": user, "db": user,
		"db/appliance/appliance.json": user, "db/companies/other": user, "db/companies/other/allowed_signers": user,
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Uid); got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != perm {
		t.Errorf("the top has mode %v, %v; want %v", info.Mode(), err, perm)
	}
}

func TestMakeDiskRefusedLeavesNothing(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "data")
	if _, err := setup.MakeDisk(dir, setup.Plan{Company: "admin"}); err == nil {
		t.Error("the company admin was made")
	}
	if _, err := setup.MakeDisk(filepath.Join(dir, "deeper"), setup.Plan{}); err == nil || !strings.Contains(err.Error(), dir+" does not exist: make it first") {
		t.Errorf("below a directory that does not exist: %v", err)
	}
	if list, err := os.ReadDir(above); err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

// TestAdminsOnce: who the administrators are is set up once.
func TestAdminsOnce(t *testing.T) {
	v := modelfs.New()
	if _, err := makeOn(v, setup.Plan{}); err != nil {
		t.Fatal(err)
	}
	// Nobody is one yet.
	p := setup.Plan{Admins: []setup.Signer{signer(t, "ann"), signer(t, "bob")}, Threshold: 2}
	for range 2 {
		if _, err := makeOn(v, p); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := setup.ReadThreshold(root(t, v)); err != nil || n != 2 {
		t.Errorf("threshold %d, %v", n, err)
	}
	before, _ := v.ReadFile("db/admins/allowed_signers")
	for what, p := range map[string]setup.Plan{
		"fewer of them":         {Admins: []setup.Signer{signer(t, "ann")}, Threshold: 1},
		"another administrator": {Admins: []setup.Signer{signer(t, "ann"), signer(t, "dora")}},
		"another threshold":     {Threshold: 1},
		"both":                  {Admins: []setup.Signer{signer(t, "dora")}, Threshold: 1},
	} {
		if _, err := makeOn(v, p); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if after, _ := v.ReadFile("db/admins/allowed_signers"); string(after) != string(before) {
		t.Errorf("the list is now\n%s", after)
	}
	// They have changed who they are; the words of the beginning are still good,
	// and change nothing.
	if err := setup.SetAdmins(root(t, v), nil, []setup.Signer{signer(t, "dora")}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := makeOn(v, p); err != nil {
		t.Error(err)
	}
	if after, _ := v.ReadFile("db/admins/allowed_signers"); !strings.HasPrefix(string(after), "dora") || strings.Count(string(after), "\n") != 1 {
		t.Errorf("the list is now\n%s", after)
	}
}

// TestUpdate: a company is changed whatever the crash, once it is done again.
func TestUpdate(t *testing.T) {
	start := modelfs.New()
	if _, err := makeOn(start, plan(t)); err != nil {
		t.Fatal(err)
	}
	title, status, keys := "Acme Ltd", setup.Disabled, []byte("ssh-ed25519 AAAA\n")
	change := func(v *modelfs.Volume) error {
		r, err := v.Root()
		if err != nil {
			return err
		}
		defer r.Close()
		err = setup.Update(r, nil, "acme", setup.Change{
			Title: &title, Status: &status, Signers: []setup.Signer{signer(t, "emil")}, AuthorizedKeys: &keys, Policy: []byte(`{"data":"none"}`),
		})
		if err != nil {
			return err
		}
		return setup.SetAdmins(r, nil, []setup.Signer{signer(t, "dora")}, 1)
	}
	check := func(v *modelfs.Volume, when string) {
		t.Helper()
		for path, want := range map[string]string{
			"db/companies/acme/company.json":    "{\n  \"name\": \"acme\",\n  \"title\": \"Acme Ltd\",\n  \"status\": \"disabled\"\n}\n",
			"db/companies/acme/authorized_keys": string(keys),
			"db/companies/acme/policy.json":     "{\n  \"data\": \"none\"\n}\n",
			"db/admins/threshold":               "1\n",
		} {
			if got, err := v.ReadFile(path); err != nil || string(got) != want {
				t.Fatalf("%s: %s holds %q, %v", when, path, got, err)
			}
		}
		for path, name := range map[string]string{"db/companies/acme/allowed_signers": "emil@", "db/admins/allowed_signers": "dora@"} {
			if got, err := v.ReadFile(path); err != nil || !strings.HasPrefix(string(got), name) || strings.Count(string(got), "\n") != 1 {
				t.Fatalf("%s: %s holds %q, %v", when, path, got, err)
			}
		}
	}
	plain := start.Clone()
	if err := change(plain); err != nil {
		t.Fatal(err)
	}
	check(plain, "without a fault")
	if lost := plain.Unsynced(); len(lost) > 0 {
		t.Errorf("a power cut would lose: %v", lost)
	}
	for k := 1; k <= len(plain.Calls()); k++ {
		for _, fault := range []modelfs.Fault{modelfs.FailNotDone(errors.New("injected")), modelfs.CrashAfter, modelfs.CrashWithin} {
			v := start.Clone()
			v.SetFault(func(c modelfs.Call) modelfs.Fault {
				if c.N == k {
					return fault
				}
				return modelfs.None
			})
			change(v)
			v.SetFault(nil)
			v = v.Clone().Crash(modelfs.KeepRandom(uint64(k)))
			if err := change(v); err != nil {
				t.Fatalf("call %d: %v", k, err)
			}
			check(v, fmt.Sprintf("call %d", k))
		}
	}
}
