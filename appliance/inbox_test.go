package appliance_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"signdrop/appliance/journal"
	"signdrop/appliance/reason"
	"signdrop/appliance/testbed"
)

// TestBadInbox drops everything that is not a request, one thing a case, beside a
// good request. Each must end in rejected/ with its reason, nothing may be signed
// for it, and the good one must be answered.
func TestBadInbox(t *testing.T) {
	long := strings.Repeat("n", 255)
	good := testbed.DataRequest("W_none", "x")
	cases := []struct {
		name  string
		plant func(r *rig, inbox string)
		base  string // of the reason in rejected/
		moved string // what must lie in rejected/ beside it
		code  reason.Code
	}{
		{"symlink to a file", func(r *rig, in string) {
			r.ok(os.WriteFile(r.path("secret"), good, 0o600))
			r.ok(os.Symlink(r.path("secret"), in+"/bad.json"))
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign(good), 0o600))
		}, "bad", "bad.json", reason.NotAFile},
		{"symlink in place of the signature", func(r *rig, in string) {
			r.ok(os.WriteFile(r.path("secret"), r.acme.Sign(good), 0o600))
			r.ok(os.Symlink(r.path("secret"), in+"/bad.json.sig"))
			r.ok(os.WriteFile(in+"/bad.json", good, 0o600))
		}, "bad", "bad.json", reason.NotAFile},
		{"dangling symlink", func(r *rig, in string) {
			r.ok(os.Symlink("/nowhere/at/all", in+"/bad.json"))
		}, "bad", "bad.json", reason.NotAFile},
		{"FIFO", func(r *rig, in string) {
			r.ok(syscall.Mkfifo(in+"/bad.json", 0o600))
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign(good), 0o600))
		}, "bad", "bad.json", reason.NotAFile},
		{"socket", func(r *rig, in string) {
			// The path of a socket may have 108 bytes only.
			wd, err := os.Getwd()
			r.ok(err)
			r.ok(os.Chdir(in))
			defer os.Chdir(wd)
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "bad.json", Net: "unix"})
			r.ok(err)
			l.SetUnlinkOnClose(false)
			r.ok(l.Close())
		}, "bad", "bad.json", reason.NotAFile},
		{"directory", func(r *rig, in string) {
			r.ok(os.MkdirAll(in+"/bad.json/deep/er", 0o700))
			r.ok(os.WriteFile(in+"/bad.json/deep/pay.json", good, 0o600))
		}, "bad", "bad.json", reason.NotAFile},
		{"directory with another name", func(r *rig, in string) {
			r.ok(os.Mkdir(in+"/stuff", 0o700))
		}, "stuff", "stuff", reason.NotAFile},
		{"hard link", func(r *rig, in string) {
			r.ok(os.WriteFile(r.path("other"), good, 0o600))
			r.ok(os.Link(r.path("other"), in+"/bad.json"))
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign(good), 0o600))
		}, "bad", "bad.json", reason.HardLinked},
		{"sparse terabyte", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json", nil, 0o600))
			r.ok(os.Truncate(in+"/bad.json", 1<<40))
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign(good), 0o600))
		}, "bad", "bad.json", reason.TooLarge},
		{"sparse terabyte as signature", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json", good, 0o600))
			r.ok(os.WriteFile(in+"/bad.json.sig", nil, 0o600))
			r.ok(os.Truncate(in+"/bad.json.sig", 1<<40))
		}, "bad", "bad.json", reason.TooLarge},
		{"empty file", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json", nil, 0o600))
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign(nil), 0o600))
		}, "bad", "bad.json", reason.Empty},
		{"255-byte name", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/"+long, good, 0o600))
		}, "", "", reason.NameNotAllowed},
		{"name over the limit", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/"+long[:197]+".json", good, 0o600))
		}, "", "", reason.NameNotAllowed},
		{"non-UTF-8 name", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/p\xff\xfey.json", good, 0o600))
		}, "p%FF%FEy.json", "p%FF%FEy.json", reason.NameNotAllowed},
		{"name with a newline", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/pay\n.json", good, 0o600))
		}, "pay%0A.json", "pay%0A.json", reason.NameNotAllowed},
		{"unknown type", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/report.pdf", good, 0o600))
		}, "report.pdf", "report.pdf", reason.NameNotAllowed},
		{"signature alone", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign(good), 0o600))
		}, "bad.json.sig", "bad.json.sig", reason.SignatureAlone},
		{"no signature", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json", good, 0o600))
		}, "bad", "bad.json", reason.SignatureMissing},
		{"signature of other bytes", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json.sig", r.acme.Sign([]byte("other")), 0o600))
			r.ok(os.WriteFile(in+"/bad.json", good, 0o600))
		}, "bad", "bad.json", reason.SignatureInvalid},
		{"signature that is none", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json.sig", []byte("-----BEGIN NOTHING-----\n"), 0o600))
			r.ok(os.WriteFile(in+"/bad.json", good, 0o600))
		}, "bad", "bad.json", reason.SignatureMalformed},
		{"another company's signer", func(r *rig, in string) {
			r.ok(os.WriteFile(in+"/bad.json.sig", testbed.NewPartner("mallory").Sign(good), 0o600))
			r.ok(os.WriteFile(in+"/bad.json", good, 0o600))
		}, "bad", "bad.json", reason.SignerUnknown},
	}
	if os.Getuid() == 0 {
		cases = append(cases, struct {
			name  string
			plant func(r *rig, inbox string)
			base  string
			moved string
			code  reason.Code
		}{"device", func(r *rig, in string) {
			r.ok(syscall.Mknod(in+"/bad.json", syscall.S_IFCHR|0o600, 1<<8|3))
		}, "bad", "bad.json", reason.NotAFile})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			stop := r.serve()
			wallet := r.wallet("P-256")
			stop()
			in := r.path("spool", "acme", "inbox")
			c.plant(r, in)
			r.drop(r.acme, "good.json", testbed.Transfer(wallet, "good"))
			r.cfg.Still, r.cfg.SigWait = soon, soon
			stop = r.serve()
			r.wait("spool", "acme", "outbox", "good.result.json")
			base := c.base
			if base == "" {
				// A name that is cut ends in a number that nobody can foresee.
				r.until("a reason is there", func() bool {
					list, _ := os.ReadDir(r.path("spool", "acme", "rejected"))
					for _, e := range list {
						if b, ok := strings.CutSuffix(e.Name(), ".reason.json"); ok {
							base = b
							return true
						}
					}
					return false
				})
			}
			got := r.reason(base)
			if got.Code != string(c.code) || got.Message == "" || got.Hint == "" {
				t.Errorf("reason is %+v, want code %s, a message and a hint", got, c.code)
			}
			moved := c.moved
			if moved == "" {
				moved = base
			}
			r.until("the file itself is in rejected/", func() bool { return exists(r.path("spool", "acme", "rejected", moved)) })
			r.until("the inbox is empty", func() bool {
				list, err := os.ReadDir(in)
				return err == nil && len(list) == 0
			})
			stop()
			r.empty("work", "acme")
			r.empty("work", ".made")
			list, _ := os.ReadDir(r.path("spool", "acme", "outbox"))
			if len(list) != 2 {
				t.Errorf("outbox has %d files, want the wallet's and the good one's", len(list))
			}
			r.check(true)
		})
	}
}

// TestSignatureFirst: a signature that comes long before its file waits for it.
func TestSignatureFirst(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	data := testbed.Transfer(r.wallet("P-256"), "late")
	in := r.path("spool", "acme", "inbox")
	r.ok(os.WriteFile(in+"/late.json.sig", r.acme.Sign(data), 0o600))
	// Another request is answered meanwhile, so the appliance has seen the first.
	r.answer("meanwhile.json", testbed.Transfer(r.wallet("P-384"), "meanwhile"))
	if !exists(in + "/late.json.sig") {
		t.Fatal("the signature has not waited")
	}
	r.ok(os.WriteFile(in+"/late.json", data, 0o600))
	r.wait("spool", "acme", "outbox", "late.result.json")
	stop()
	r.check(true)
}

// TestSlowUpload: a request that is written in place, in many pieces, is answered
// when it is whole, never before, and not refused meanwhile.
func TestSlowUpload(t *testing.T) {
	r := newRig(t)
	stop := r.serve()
	w := r.wallet("P-256")
	data := testbed.Transfer(w, "slow")
	in := r.path("spool", "acme", "inbox")
	f, err := os.Create(in + "/slow.json")
	r.ok(err)
	r.ok(os.WriteFile(in+"/slow.json.sig", r.acme.Sign(data), 0o600))
	for i, b := range data[:len(data)-1] {
		_, err := f.Write([]byte{b})
		r.ok(err)
		if i%50 == 0 {
			// Whatever is there now has been looked at when this is answered.
			r.answer(fmt.Sprintf("tick%d.json", i), testbed.DataRequest(w, fmt.Sprint(i)))
			if exists(r.path("spool", "acme", "outbox", "slow.result.json")) || exists(r.path("spool", "acme", "rejected", "slow.reason.json")) {
				t.Fatalf("answered after %d of %d bytes", i+1, len(data))
			}
		}
	}
	_, err = f.Write(data[len(data)-1:])
	r.ok(err)
	r.ok(f.Close())
	r.wait("spool", "acme", "outbox", "slow.result.json")
	stop()
	r.check(true)
}

// TestUnfinishedNames: what uploaders call unfinished is left alone.
func TestUnfinishedNames(t *testing.T) {
	r := newRig(t)
	r.cfg.Still = soon
	stop := r.serve()
	in := r.path("spool", "acme", "inbox")
	names := []string{".pay.json", "pay.json.part", "pay.json.filepart", "pay.json~", "pay.json.TMP", ".in.pay.json.", "pay.json.1234abcd.partial", "pay.json.crdownload"}
	for _, n := range names {
		r.ok(os.WriteFile(in+"/"+n, []byte("{"), 0o600))
	}
	r.answer("good.json", testbed.DataRequest(r.wallet("P-256"), "good"))
	r.reasonOfJunk() // by then the unfinished ones had been due as well
	if _, ignored, err := r.a.Left(func(string, string) {}); err != nil || ignored != len(names) {
		t.Errorf("ignored %d files (%v), want %d", ignored, err, len(names))
	}
	stop()
	for _, n := range names {
		if !exists(in + "/" + n) {
			t.Errorf("%s is gone", n)
		}
	}
}

// reasonOfJunk drops a file that is refused for being still, and waits for that.
func (r *rig) reasonOfJunk() {
	r.t.Helper()
	r.ok(os.WriteFile(r.path("spool", "acme", "inbox", "junk"), []byte("junk"), 0o600))
	r.wait("spool", "acme", "rejected", "junk.reason.json")
}

// TestJunkFlood: 200,000 junk names in one partner's inbox do not keep another
// partner waiting, and all of them end in rejected/.
func TestJunkFlood(t *testing.T) {
	n := 200_000
	if testing.Short() {
		n = 20_000
	}
	r := newRig(t, "beta")
	beta := testbed.NewPartner("beta")
	in := r.path("spool", "acme", "inbox")
	for i := range n {
		r.ok(os.WriteFile(fmt.Sprintf("%s/junk %d", in, i), nil, 0o600))
	}
	r.cfg.Log = r.cfg.Log.Level(2) // 200,000 lines say nothing more
	r.cfg.Still = soon
	r.drop(beta, "w.json", []byte(`{"type":"wallet.create","curve":"P-256"}`))
	stop := r.serve()
	w := r.parse(r.wait("spool", "beta", "outbox", "w.result.json")).Wallet
	for i := range 3 {
		name := fmt.Sprintf("p%d.json", i)
		r.drop(beta, name, testbed.Transfer(w, name))
		r.wait("spool", "beta", "outbox", answerName(name))
	}
	r.until("the flood is over", func() bool {
		f, err := os.Open(in)
		r.ok(err)
		defer f.Close()
		names, _ := f.Readdirnames(1)
		return len(names) == 0
	})
	stop()
	list, err := os.ReadDir(r.path("spool", "acme", "rejected"))
	r.ok(err)
	if len(list) != 2*n {
		t.Errorf("rejected/ has %d files, want %d and their reasons", len(list), n)
	}
	// Who was first, whenever this test had its turn to look, the journal tells.
	journals, err := r.root.Sub("journal")
	r.ok(err)
	defer journals.Close()
	before, served := 0, false
	r.ok(journal.Each(journals, func(_ journal.Place, e *journal.Event) error {
		served = served || e.Company == "beta"
		if !served && e.Company == "acme" {
			before++
		}
		return nil
	}))
	if !served || before > n/2 {
		t.Errorf("%d of %d names of the flood came before the other partner", before, n)
	}
	r.check(true)
}

// TestReplacedInbox: the inbox directory itself is renamed and made anew, and the
// appliance goes on with the new one.
func TestReplacedInbox(t *testing.T) {
	for _, watch := range []bool{true, false} {
		t.Run(fmt.Sprintf("watch=%t", watch), func(t *testing.T) {
			r := newRig(t)
			if !watch {
				r.cfg.Watch = ""
			}
			stop := r.serve()
			w := r.wallet("P-256")
			r.ok(os.Rename(r.path("spool", "acme", "inbox"), r.path("spool", "acme", "old")))
			r.ok(os.Mkdir(r.path("spool", "acme", "inbox"), 0o700))
			r.answer("after.json", testbed.DataRequest(w, "after"))
			r.answer("again.json", testbed.DataRequest(w, "again"))
			stop()
			r.check(true)
		})
	}
}

// TestInboxIsALink: an inbox that is replaced by a link to another company's is
// not followed.
func TestInboxIsALink(t *testing.T) {
	r := newRig(t, "beta")
	stop := r.serve()
	w := r.wallet("P-256")
	stop()
	r.ok(os.Rename(r.path("spool", "acme", "inbox"), r.path("spool", "acme", "old")))
	r.ok(os.Symlink(r.path("spool", "beta", "inbox"), r.path("spool", "acme", "inbox")))
	// Signed by acme, lying in beta's inbox: whoever follows the link signs it.
	data := testbed.DataRequest(w, "stolen")
	in := r.path("spool", "beta", "inbox")
	r.ok(os.WriteFile(in+"/stolen.json.sig", r.acme.Sign(data), 0o600))
	r.ok(os.WriteFile(in+"/stolen.json", data, 0o600))
	stop = r.serve()
	got := r.wait("spool", "beta", "rejected", "stolen.reason.json")
	if !bytes.Contains(got, []byte(reason.SignerUnknown)) {
		t.Errorf("reason is %s", got)
	}
	stop()
	if exists(r.path("spool", "acme", "outbox", "stolen.result.json")) {
		t.Error("the link was followed")
	}
}
