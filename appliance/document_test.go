package appliance_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"signdrop/appliance/auth"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
	"signdrop/spool"
)

// coins makes a wallet on secp256k1 and returns its public key, as PEM.
func (r *rig) coins() string {
	r.t.Helper()
	return r.answer("coins.json", []byte(`{"type":"wallet.create","curve":"secp256k1"}`)).PublicKey
}

func testDocument(publicPEM, how, coin string) []byte {
	return testbed.PSBT(publicPEM, how == "whole", coin, 1000)
}

// TestDocument: the answer names its further files, which lie beside it, and the same
// bytes get the same again, under whatever name and after a start.
func TestDocument(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w := r.coins()
	doc := testDocument(w, "whole", "coin")
	r.drop(r.acme, "coin.psbt", doc)
	text := r.wait("spool", "acme", "outbox", "coin.result.json")
	first := r.parse(text)
	if first.Verdict != "signed" || len(first.Files) != 2 || first.Files[0].Ending != "-signed.psbt" || first.Files[1].Ending != "-final.txn" {
		t.Fatalf("answer is %s", text)
	}
	files := map[string][]byte{}
	for _, f := range first.Files {
		data, err := os.ReadFile(r.path("spool", "acme", "outbox", "coin"+f.Ending))
		r.ok(err)
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 || int64(len(data)) != f.Size {
			t.Errorf("coin%s is not what the answer names", f.Ending)
		}
		files[f.Ending] = data
	}
	r.drop(r.acme, "half.psbt", testDocument(w, "half", "more"))
	if a := r.parse(r.wait("spool", "acme", "outbox", "half.result.json")); len(a.Files) != 1 || a.Files[0].Ending != "-part.psbt" {
		t.Errorf("half an answer names %+v", a.Files)
	}
	stop()
	stop = r.serve()
	r.drop(r.acme, "again.psbt", doc)
	if again := r.wait("spool", "acme", "outbox", "again.result.json"); !bytes.Equal(again, text) {
		t.Errorf("the same bytes got another answer: %s", again)
	}
	for ending, data := range files {
		if again, err := os.ReadFile(r.path("spool", "acme", "outbox", "again"+ending)); err != nil || !bytes.Equal(again, data) {
			t.Errorf("the same bytes got another file %s (%v)", ending, err)
		}
	}
	stop()
	r.check(true)
}

// TestDocumentNameTaken: a name of the answer that is taken is told before anything is
// signed.
func TestDocumentNameTaken(t *testing.T) {
	for _, name := range []string{"pay.result.json", "pay-signed.psbt", "pay-part.psbt", "pay-final.txn"} {
		r := newRig(t)
		stop := r.serve()
		w := r.coins()
		stop()
		there := r.path("spool", "acme", "outbox", name)
		r.ok(os.WriteFile(there, []byte("mine"), 0o600))
		stop = r.serve()
		r.drop(r.acme, "pay.psbt", testDocument(w, "whole", "coin"))
		if a := r.reason("pay"); a.Code != string(reason.NameTaken) || !a.Retry {
			t.Errorf("%s is taken: %+v", name, a)
		}
		if data, err := os.ReadFile(there); err != nil || string(data) != "mine" {
			t.Errorf("%s is now %q (%v)", name, data, err)
		}
		r.ok(os.Remove(there))
		stop()
		if rep := r.check(true); rep.Signed != 0 {
			t.Errorf("%s is taken, and %d signatures are on record", name, rep.Signed)
		}
		stop = r.serve()
		r.ok(os.Remove(r.path("spool", "acme", "rejected", "pay.psbt")))
		r.ok(os.Remove(r.path("spool", "acme", "rejected", "pay.psbt.sig")))
		r.ok(os.Remove(r.path("spool", "acme", "rejected", "pay.reason.json")))
		r.ok(r.acme.Drop(r.root, "pay.psbt", testDocument(w, "whole", "coin")))
		r.wait("spool", "acme", "outbox", "pay.result.json")
		stop()
		r.check(true)
	}
}

// TestDocumentTwins: pay.json and pay.psbt want one name for their answers.
func TestDocumentTwins(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w := r.coins()
	stop()
	r.drop(r.acme, "pay.psbt", testDocument(w, "whole", "coin"))
	r.drop(r.acme, "pay.json", []byte(`{"type":"wallet.list"}`))
	stop = r.serve()
	r.wait("spool", "acme", "outbox", "pay.result.json")
	if a := r.reason("pay"); a.Code != string(reason.NameTaken) {
		t.Errorf("refused with %+v", a)
	}
	stop()
	rep := r.check(false)
	_, serr := os.Lstat(r.path("spool", "acme", "outbox", "pay-signed.psbt"))
	a := r.parse(r.wait("spool", "acme", "outbox", "pay.result.json"))
	if (serr == nil) != (len(a.Files) > 0) {
		t.Errorf("the answer names %d files, and the signed one: %v", len(a.Files), serr)
	}
	if rep.Waiting+rep.Claimed > 0 {
		t.Errorf("%+v is left", rep)
	}
}

// TestDocumentRefused: a document has to be signed as any request, by a partner, and
// be within the limit.
func TestDocumentRefused(t *testing.T) {
	r := newRig(t)
	r.admins(1)
	stop := r.serve()
	w := r.coins()
	stop()
	doc := testDocument(w, "whole", "coin")
	in := r.path("spool", "acme", "inbox")
	put := func(name string, data []byte) {
		r.ok(os.WriteFile(in+"/.new", data, 0o600))
		r.ok(os.Rename(in+"/.new", in+"/"+name))
	}
	put("unsigned.psbt", doc)
	put("forged.psbt.sig", r.acme.Sign([]byte("other")))
	put("forged.psbt", doc)
	big := bytes.Repeat([]byte("a"), 5<<20)
	r.ok(r.acme.Drop(r.root, "big.psbt", big))
	r.ok(r.acme.Drop(r.root, "nonsense.psbt", []byte("x")))
	admin := r.path("spool", "admin", "inbox")
	r.ok(os.WriteFile(admin+"/cmd.psbt.sig", ann.SignAs(doc, auth.NamespaceAdmin), 0o600))
	r.ok(os.WriteFile(admin+"/cmd.psbt", doc, 0o600))
	r.cfg.Still, r.cfg.SigWait = soon, soon
	stop = r.serve()
	for base, code := range map[string]reason.Code{
		"unsigned": reason.SignatureMissing, "forged": reason.SignatureInvalid, "big": reason.TooLarge, "nonsense": reason.PSBTMalformed,
	} {
		if a := r.reason(base); a.Code != string(code) || a.Name != base+".psbt" {
			t.Errorf("%s is refused with %+v", base, a)
		}
		r.wait("spool", "acme", "rejected", base+".psbt")
	}
	if a := r.parse(r.wait("spool", "admin", "rejected", "cmd.reason.json")); a.Code != string(reason.TypeUnknown) {
		t.Errorf("an administrator's is refused with %+v", a)
	}
	stop()
	if rep := r.check(false); rep.Signed != 0 {
		t.Errorf("%d signatures are on record", rep.Signed)
	}
	for _, e := range outboxOf(r) {
		if spool.FurtherOf(e) != "" {
			t.Errorf("%s is visible", e)
		}
	}
}

func outboxOf(r *rig) (names []string) {
	list, err := os.ReadDir(r.path("spool", "acme", "outbox"))
	r.ok(err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestDocumentKeptLost: an answer whose further files are not as they were is not made
// again by halves.
func TestDocumentKeptLost(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w := r.coins()
	doc := testDocument(w, "whole", "coin")
	r.drop(r.acme, "coin.psbt", doc)
	r.wait("spool", "acme", "outbox", "coin.result.json")
	stop()
	sum := sha256.Sum256(doc)
	digest := hex.EncodeToString(sum[:])
	kept := r.path("kept", "acme", digest[:2], digest+"-final.txn")
	r.ok(os.WriteFile(kept, []byte("altered"), 0o600))
	stop = r.serve()
	r.ok(r.acme.Drop(r.root, "again.psbt", doc))
	if a := r.reason("again"); a.Code != string(reason.AnswerLost) {
		t.Errorf("it is answered with %+v", a)
	}
	stop()
	for _, name := range outboxOf(r) {
		if strings.HasPrefix(name, "again") {
			t.Errorf("%s is visible", name)
		}
	}
}
