package setup_test

import (
	"bytes"
	"strings"
	"testing"

	"signdrop/appliance/setup"
	"signdrop/keyfs/seal"
	"signdrop/spool/durable"
	"signdrop/spool/durable/modelfs"
)

// A volume that is sealed from the beginning never has a key in the clear, and what is
// made later needs no key.
func TestSealedFromTheBeginning(t *testing.T) {
	kek, err := seal.ParseKEK(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	v := modelfs.New()
	p := plan(t)
	p.KEK = kek
	r, err := makeOn(v, p)
	if err != nil || r.Wrong() {
		t.Fatal(r, err)
	}
	v.Walk(func(file string, info durable.Info) {
		if text, err := v.ReadFile(file); err == nil && bytes.Contains(text, []byte("AGE-SECRET-KEY")) {
			t.Errorf("%s holds the key in the clear", file)
		}
	})
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s, err := seal.Open(root, kek)
	if err != nil {
		t.Fatal(err)
	}
	id, err := setup.ReadIdentity(root, s)
	if err != nil {
		t.Fatal(err)
	}
	if id.Recipient().String() != r.Recipient {
		t.Errorf("recipient %s, reported %s", id.Recipient(), r.Recipient)
	}
	if _, err := setup.ReadIdentity(root, nil); err == nil || !strings.Contains(err.Error(), "--seal") {
		t.Errorf("read without a key: %v", err)
	}
	// Another company, by somebody who has no key.
	again, err := makeOn(v, plan(t))
	if err != nil || again.Recipient != r.Recipient {
		t.Errorf("again: %v, %v", again, err)
	}
	// The sealed identity under another recipient.
	v.WriteFile("db/appliance/recipient", []byte("age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg\n"))
	if _, err := setup.ReadIdentity(root, s); err == nil || !strings.Contains(err.Error(), "does not open") {
		t.Errorf("beside another recipient: %v", err)
	}
	v.Remove("db/appliance/identity.age")
	if _, err := makeOn(v, plan(t)); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("an identity that is lost: %v", err)
	}
	if v.Exists("db/appliance/identity.age") {
		t.Error("another identity was made, in the clear")
	}
}
