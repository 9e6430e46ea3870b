package main

import (
	"crypto/sha512"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"signdrop/keyfs"
	"signdrop/spool/durable"
	"signdrop/tools/signdrop/walletkms"
)

// cmdKMS puts an entry into a RocksDB folder as walletKMS does:
//
//	kms DB KEY FIELD=TEXT… FIELD=@FILE… FIELD:=JSON…
func cmdKMS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: kms DB KEY FIELD=TEXT…")
	}
	value := map[string]any{}
	for _, a := range args[2:] {
		name, text, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("%q has no =", a)
		}
		file, isFile := strings.CutPrefix(text, "@")
		if raw, ok := strings.CutSuffix(name, ":"); ok {
			value[raw] = json.RawMessage(text)
		} else if isFile {
			value[name] = ts.ReadFile(file)
		} else {
			value[name] = text
		}
	}
	b, err := json.Marshal(value)
	ts.Check(err)
	ts.Check(ts.Exec("ldb", "--db="+ts.MkAbs(args[0]), "put", "--create_if_missing", args[1], string(b)))
}

// cmdSignTransfer signs a transfer of Metacoin with the wallet that has an address,
// and writes the text and the signature:
//
//	signtransfer DATA COMPANY ADDRESS TEXT SIGNATURE
//
// COMPANY is an id of walletKMS.
func cmdSignTransfer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: signtransfer DATA COMPANY ADDRESS TEXT SIGNATURE")
	}
	vol, err := durable.OpenDisk(ts.MkAbs(args[0]))
	ts.Check(err)
	defer vol.Close()
	root, err := vol.Root()
	ts.Check(err)
	defer root.Close()
	db, err := root.Sub("db")
	ts.Check(err)
	defer db.Close()
	keys, err := keyfs.Open(db, keyfs.Options{})
	ts.Check(err)
	w, err := keys.ByAddress(walletkms.CompanyName(args[1]), args[2])
	ts.Check(err)
	text := strings.Join([]string{args[2], ts.Getenv("TO"), "0", "100", ts.Getenv("NONCE")}, "|")
	digest := sha512.Sum384([]byte(text))
	sig, err := w.Sign(keyfs.ECDSA, digest[:])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(text), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[4]), sig, 0o600))
}

// What root imports belongs to the user that the appliance runs as. A user that is
// not root has nobody to give anything to, and imports for itself.
func TestImportForAnotherUser(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key.pem")
	pub := filepath.Join(dir, "pub.pem")
	must := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	must("openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", key)
	must("openssl", "pkey", "-in", key, "-pubout", "-out", pub)
	user := os.Getuid()
	if user == 0 {
		user = 12345
	}
	const company, address = "C_abcdefghijklmnopqrstuwxyzABCDE", "MT75857a45899985be4c4d941e90b6b3852a83f1"
	line := func(name string, fields map[string]any) string {
		b, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return name + " : " + string(b) + "\n"
	}
	file := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dump := filepath.Join(dir, "dump")
	text := line("DB:COMPANY:"+company, map[string]any{"name": "Acme", "ip": []string{}, "public_key": file(pub), "status": 10}) +
		line("ADDR:"+company+":A_0123456789abcdefghijABCDEFGHIJ", map[string]any{"private_key": file(key), "address": address})
	if err := os.WriteFile(dump, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// The import ends as another user, so it needs a process of its own.
	signdrop := func(args ...string) {
		t.Helper()
		cmd := exec.Command(self, args...)
		cmd.Args[0] = "signdrop"
		if emulator, err := os.Readlink("/proc/thread-self/exe"); err == nil && emulator != self {
			cmd = exec.Command(emulator, append([]string{"-0", "signdrop", self}, args...)...)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("signdrop %q: %v\n%s", args, err, out)
		}
	}
	signdrop("init", "--data", data, "--user", strconv.Itoa(user))
	signdrop("import-walletkms", dump, "--data", data)
	n := 0
	if err := filepath.WalkDir(filepath.Join(data, "db"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n++
		if got := int(info.Sys().(*syscall.Stat_t).Uid); got != user {
			t.Errorf("%s belongs to %d, want %d", path, got, user)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wallet := filepath.Join(data, "db/companies", walletkms.CompanyName(company), "addresses", address)
	if _, err := os.Stat(wallet); err != nil || n < 10 {
		t.Errorf("%d files, %v", n, err)
	}
}
