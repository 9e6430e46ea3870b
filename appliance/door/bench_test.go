package door

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/pkg/sftp"
)

// BenchmarkSmallFiles uploads files of 2 KiB, each durable when it is told to be
// there: by one connection, and by eight at once.
func BenchmarkSmallFiles(b *testing.B) {
	for _, conns := range []int{1, 8} {
		b.Run(fmt.Sprintf("connections=%d", conns), func(b *testing.B) {
			set := testSettings()
			set.MaxFiles = 1 << 30
			bed := newBed(b, set)
			clients := make(chan *sftp.Client, conns)
			for range conns {
				clients <- bed.sftp("acme")
			}
			data := bytesOf(2048)
			var n atomic.Int64
			b.SetParallelism(conns)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c := <-clients
					err := put(c, fmt.Sprintf("/inbox/f%d.json", n.Add(1)), data)
					clients <- c
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}
