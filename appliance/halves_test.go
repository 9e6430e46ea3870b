package appliance

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"signdrop/appliance/bitcoin"
	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
	"signdrop/appliance/testbed"
	"signdrop/keyfs"
	"signdrop/keyfs/hd"
	"signdrop/spool/durable"
)

// forgetful knows nothing of the past.
type forgetful struct{}

func (forgetful) TextFor(_, _, _, _ string) (text, pays [32]byte, known bool, err error) {
	return text, pays, false, nil
}

// TestNoHalves: when the second of two wallets fails to sign, the first one's signature
// does not leave, the refusal passes, and nothing is held.
func TestNoHalves(t *testing.T) {
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	ok(os.Chmod(dir, 0o700))
	vol, err := durable.OpenDisk(dir)
	ok(err)
	defer vol.Close()
	root, err := vol.Root()
	ok(err)
	defer root.Close()
	ok(testbed.Setup(root, testbed.NewPartner("acme")))
	db, err := root.Sub("db")
	ok(err)
	defer db.Close()
	keys, err := keyfs.Open(db, keyfs.Options{})
	ok(err)
	ws, err := keys.Create("acme", []keyfs.Spec{
		{ID: "W_1", Curve: keyfs.Secp256k1}, {ID: "W_2", Curve: keyfs.Secp256k1}, {ID: "W_3", Curve: keyfs.Secp256k1},
	}, vol)
	ok(err)
	pol, err := policy.Parse([]byte(`{}`))
	ok(err)
	a := &Appliance{keys: keys, log: zerolog.Nop()}
	c := &company{name: "acme", policy: pol}
	once := policy.NewOnce(forgetful{})
	ask := func(n byte) *outcome {
		t.Helper()
		data := testbed.NewPayment().Spend("one", 100_000, hd.P2WPKH, testbed.KeyOf(ws[0].PublicPEM())).
			Spend("two", 100_000, hd.P2WPKH, testbed.KeyOf(ws[1].PublicPEM())).Pay(199_000, n).PSBT()
		o := &outcome{}
		if o.req, err = request.ParseDocument(&bitcoin.Ledger, data); err == nil {
			err = a.judgePayment(c, o, o.req.Tx.(*bitcoin.PSBT))
		}
		ok(err)
		return o
	}
	bad := ask(1)
	bad.approval, err = pol.Sign(bad.plan, once, time.Now(), "bad")
	ok(err)
	held := ask(2)
	if _, err := pol.Sign(held.plan, once, time.Now(), "held"); err == nil {
		t.Fatal("another transaction was approved beside it")
	}
	bad.others[0] = ws[2] // its key is another
	a.sign(c, []*outcome{bad})
	if bad.refusal == nil || bad.refusal.Code != reason.KeyUnusable || !bad.passing {
		t.Fatalf("refused with %v, passing %t", bad.refusal, bad.passing)
	}
	if bad.answer != nil || bad.files != nil || bad.event.Signature != "" || bad.more != nil || bad.kept || bad.approval != nil {
		t.Errorf("left: %q, %v, %+v", bad.answer, bad.files, bad.event)
	}
	if held.approval, err = pol.Sign(held.plan, once, time.Now(), "held"); err != nil {
		t.Fatalf("the outputs are still held: %v", err)
	}
	a.sign(c, []*outcome{held})
	if held.refusal != nil || len(held.files) != 2 || !strings.Contains(string(held.answer), `"signed":[{"input":0,"wallet":"W_1"`) {
		t.Errorf("refused with %v, %s", held.refusal, held.answer)
	}
}
