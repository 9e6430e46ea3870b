package metacoin_test

import (
	"testing"

	"signdrop/appliance/metacoin"
)

func BenchmarkParseTransfer(b *testing.B) {
	benchmarkParse(b, transferWith(`{}`))
}

func BenchmarkParseMultitransfer100(b *testing.B) {
	benchmarkParse(b, with(listWith(`{}`), `{"transferlist":`+someEntries(100)+`}`))
}

func benchmarkParse(b *testing.B, request string) {
	raw := []byte(expand(request))
	b.ReportAllocs()
	for b.Loop() {
		tx, err := metacoin.Parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		_ = tx.Text()
	}
}

func BenchmarkSubmitTransfer(b *testing.B) {
	tx, err := metacoin.Parse([]byte(expand(transferWith(`{}`))))
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = tx.Submit("MAYCAQECAQE=").AppendJSON(buf[:0])
	}
}
