package appliance_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/rs/zerolog"

	"signdrop/appliance"
	"signdrop/appliance/auth"
	"signdrop/appliance/backup"
	"signdrop/appliance/request"
	"signdrop/appliance/testbed"
	"signdrop/spool/durable"
)

// BenchmarkBackup measures what docs/performance.md says of backups: with so many
// wallets a backup of everything, an increment, what a request waits meanwhile, and a
// restore. Each is done once, whatever b.N is.
func BenchmarkBackup(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRig(b)
			r.cfg.Log = zerolog.Nop()
			r.admins(2)
			r.keptBy(keeper)
			a, err := appliance.Open(r.vol, r.cfg)
			r.ok(err)
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- a.Serve(ctx) }()
			ask := func(name string, data []byte) time.Duration {
				began := time.Now()
				r.ok(r.acme.Drop(r.root, name, data))
				r.wait("spool", "acme", "outbox", answerName(name))
				return time.Since(began)
			}
			var lines bytes.Buffer
			for i := range min(n, request.MaxLines) {
				fmt.Fprintf(&lines, `{"type":"wallet.create","curve":"P-384","reference":"%d"}`+"\n", i)
			}
			ask("wallets.jsonl", lines.Bytes())
			one := r.parse(func() []byte {
				ask("one.json", []byte(`{"type":"wallet.create","curve":"P-384"}`))
				return r.wait("spool", "acme", "outbox", "one.result.json")
			}()).Wallet
			probe := func(what string, until func() bool) {
				var took []time.Duration
				for i := 0; !until() || i < 50; i++ {
					took = append(took, ask(fmt.Sprintf("%s-%d.json", what, i), testbed.DataRequest(one, fmt.Sprint(what, i))))
				}
				slices.Sort(took)
				ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
				b.ReportMetric(ms(took[len(took)/2]), what+"-p50-ms")
				b.ReportMetric(ms(took[len(took)*99/100]), what+"-p99-ms")
			}
			probe("idle", func() bool { return true })
			make := func(name, text string) (file, id string) {
				for i, p := range []*testbed.Partner{ann, bob} {
					r.put("admin", fmt.Sprintf("%s.json.s%d.sig", name, i), p.SignAs([]byte(text), auth.NamespaceAdmin))
				}
				r.put("admin", name+".json", []byte(text))
				began := time.Now()
				probe("during-"+name, func() bool { return exists(r.path("spool", "admin", "outbox", name+".result.json")) })
				ans := r.parse(r.wait("spool", "admin", "outbox", name+".result.json"))
				file = r.path("spool", "admin", "outbox", ans.File)
				info, err := os.Stat(file)
				r.ok(err)
				b.ReportMetric(info.ModTime().Sub(began).Seconds(), name+"-s")
				b.ReportMetric(float64(info.Size())/(1<<20), name+"-MiB")
				return file, ans.Backup
			}
			full, id := make("full", `{"type":"backup"}`)
			inc, _ := make("inc", fmt.Sprintf(`{"type":"backup","since":%q}`, id))
			stop()
			r.ok(<-done)
			r.ok(a.Close())
			vol, err := durable.OpenDisk(b.TempDir())
			r.ok(err)
			defer vol.Close()
			began := time.Now()
			rep, err := backup.Restore(vol, []backup.Source{source(full), source(inc)}, backup.RestoreOptions{Identities: []age.Identity{keeper}})
			r.ok(err)
			if int(rep.Wallets) != n+1 {
				b.Errorf("%d wallets came back", rep.Wallets)
			}
			b.ReportMetric(time.Since(began).Seconds(), "restore-s")
		})
	}
}
