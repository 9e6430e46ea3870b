package appliance_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestRooms holds the parts to what they must not know. A package below a path may
// import, of this project, only what is listed; of other modules, what is not
// forbidden.
func TestRooms(t *testing.T) {
	type room struct {
		path   string
		may    []string
		reason string
	}
	rooms := []room{
		{"appliance/reason", nil, "a leaf that everything may import"},
		{"appliance/ledger", []string{"appliance/answer"}, "what a ledger has to tell, not what one does"},
		{"appliance/request", []string{"appliance/reason", "appliance/ledger", "appliance/ledgers"}, "what a file may say knows neither files nor keys"},
		{"appliance/auth", []string{"appliance/reason"}, "who asked has nothing to do with wallets"},
		{"appliance/policy", []string{"appliance/reason", "appliance/request", "appliance/answer", "appliance/ledger", "appliance/ledgers"}, "policy never sees a key"},
		{"appliance/answer", []string{"appliance/reason"}, "an answer is a pure function of what it says"},
		{"appliance/journal", []string{"appliance/journal/memory", "spool/durable"}, "the journal knows no keys and no requests"},
		{"appliance/journal/memory", []string{"spool/durable"}, "an index of positions"},
		{"appliance/backup", []string{"appliance/auth", "appliance/journal", "appliance/setup", "keyfs", "keyfs/datakey", "spool/durable"},
			"a backup knows what lies where, and nothing of requests"},
		{"appliance/backup/custody", nil, "shares know nothing but the key that they are of"},
		{"spool", []string{"appliance/reason", "spool/durable"}, "the spool never looks into a file"},
		{"spool/durable", nil, "names and bytes"},
		{"keyfs", []string{"keyfs/hd", "keyfs/seal", "spool/durable"}, "keys know neither the spool nor requests"},
		{"keyfs/hd", nil, "derivation knows no files"},
		{"keyfs/seal", []string{"spool/durable"}, "what seals keys does not know what they are"},
	}
	seen := map[string]bool{}
	fset := token.NewFileSet()
	// Whatever is on the list of ledgers is held to the same.
	list, err := parser.ParseFile(fset, filepath.Join("ledgers", "ledgers.go"), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	ofLedgers := map[string]bool{}
	for _, imp := range list.Imports {
		name, _ := strconv.Unquote(imp.Path.Value)
		if own, ok := strings.CutPrefix(name, "signdrop/"); ok && own != "appliance/ledger" {
			ofLedgers[own] = true
			rooms = append(rooms, room{own, []string{"appliance/reason", "appliance/answer", "appliance/ledger"}, "a ledger knows neither files nor keys"})
		}
	}
	outside := []string{"os", "net", "net/http", "time", "crypto/rand", "math/rand", "math/rand/v2", "unsafe", "C"}
	for _, top := range []string{"appliance", "spool", "keyfs"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			rel := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
			f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, r := range rooms {
				if rel != r.path {
					continue
				}
				seen[r.path] = true
				for _, imp := range f.Imports {
					name, _ := strconv.Unquote(imp.Path.Value)
					own, ok := strings.CutPrefix(name, "signdrop/")
					if ofLedgers[r.path] && contains(outside, name) {
						t.Errorf("%s imports %s: what a ledger says follows from the request alone", path, name)
					}
					if ok && !contains(r.may, own) {
						t.Errorf("%s imports %s: %s", path, name, r.reason)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range rooms {
		if !seen[r.path] {
			t.Errorf("no file of %s was looked at", r.path)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// TestOnlyListed: the list of ledgers is all that knows Ethereum, as it is to be with a
// ledger that is added.
func TestOnlyListed(t *testing.T) {
	fset := token.NewFileSet()
	var by []string
	for _, top := range []string{"appliance", "spool", "keyfs", "tools"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, imp := range f.Imports {
				if imp.Path.Value == `"signdrop/appliance/ethereum"` {
					by = append(by, filepath.ToSlash(path))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(by) != 1 || by[0] != "../appliance/ledgers/ledgers.go" {
		t.Errorf("Ethereum is imported by %q", by)
	}
}
