package journal

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"
)

// A line is one JSON object without spaces, its members in the order below, the
// empty ones left out:
//
//	seq time event company name line request by key type wallet ledger operation
//	nonce text algorithm signature uses result code final detail previous prev
//
// There is one way to write an event, and what is written otherwise is not a line
// of a journal. Digests are lower-case hexadecimal. The time is UTC with six
// decimals. final is true or left out. uses stands where signature stands, and is not 0.
//
// Text may hold any bytes, since a file name may. In it a byte that is not part of
// UTF-8, a control character (U+0000 to U+001F, U+007F to U+009F) and "%" itself
// are written as "%" and two upper-case hexadecimal digits for each byte. Then '"'
// and '\' get a '\' before them. Everything else stands as it is.

// appendEvent appends the line of an event, without the newline.
func appendEvent(b []byte, e *Event) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"time":"`...)
	b = appendTime(b, e.Time)
	b = append(b, `","event":"`...)
	b = append(b, e.Kind...)
	b = append(b, '"')
	b = appendText(b, `,"company":"`, e.Company)
	b = appendText(b, `,"name":"`, e.Name)
	if e.Line != 0 {
		b = append(b, `,"line":`...)
		b = strconv.AppendInt(b, int64(e.Line), 10)
	}
	b = appendDigest(b, `,"request":"`, &e.Request)
	b = appendText(b, `,"by":"`, e.By)
	b = appendText(b, `,"key":"`, e.Key)
	b = appendText(b, `,"type":"`, e.Type)
	b = appendText(b, `,"wallet":"`, e.Wallet)
	b = appendText(b, `,"ledger":"`, e.Ledger)
	b = appendText(b, `,"operation":"`, e.Operation)
	b = appendText(b, `,"nonce":"`, e.Nonce)
	b = appendDigest(b, `,"text":"`, &e.Text)
	b = appendText(b, `,"algorithm":"`, e.Algorithm)
	b = appendText(b, `,"signature":"`, e.Signature)
	if e.Uses != 0 {
		b = append(b, `,"uses":`...)
		b = strconv.AppendUint(b, e.Uses, 10)
	}
	b = appendDigest(b, `,"result":"`, &e.Result)
	b = appendText(b, `,"code":"`, e.Code)
	if e.Final {
		b = append(b, `,"final":true`...)
	}
	b = appendText(b, `,"detail":"`, e.Detail)
	if p := e.Previous; p != nil {
		b = append(b, `,"previous":{"file":"`...)
		b = append(b, p.File...)
		b = append(b, `","size":`...)
		b = strconv.AppendInt(b, p.Size, 10)
		b = append(b, `,"void":`...)
		b = strconv.AppendInt(b, p.Void, 10)
		b = append(b, '}')
	}
	b = append(b, prevMember...)
	b = hex.AppendEncode(b, e.Prev[:])
	return append(b, '"', '}')
}

// prevMember begins the last member of each line.
const prevMember = `,"prev":"`

// prevOf gives the digest that a line ends with, without reading the rest.
func prevOf(line []byte) (prev [32]byte, ok bool) {
	const tail = len(prevMember) + 64 + len(`"}`)
	if len(line) < tail {
		return prev, false
	}
	end := line[len(line)-tail:]
	if string(end[:len(prevMember)]) != prevMember || string(end[tail-2:]) != `"}` {
		return prev, false
	}
	_, err := hex.Decode(prev[:], end[len(prevMember):tail-2])
	return prev, err == nil
}

func appendDigest(b []byte, member string, d *[32]byte) []byte {
	if *d == ([32]byte{}) {
		return b
	}
	b = append(b, member...)
	b = hex.AppendEncode(b, d[:])
	return append(b, '"')
}

// appendTime is t.AppendFormat(b, timeForm) in a quarter of the time.
func appendTime(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	micro := t.Nanosecond() / 1000
	return append(b,
		digit(year/1000), digit(year/100), digit(year/10), digit(year), '-',
		digit(int(month)/10), digit(int(month)), '-', digit(day/10), digit(day), 'T',
		digit(hour/10), digit(hour), ':', digit(minute/10), digit(minute), ':', digit(second/10), digit(second), '.',
		digit(micro/100000), digit(micro/10000), digit(micro/1000), digit(micro/100), digit(micro/10), digit(micro), 'Z')
}

const timeForm = "2006-01-02T15:04:05.000000Z"

func digit(n int) byte { return byte('0' + n%10) }

// appendText appends a member of text. Most texts need no escape.
func appendText(b []byte, member, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, member...)
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7F || c == '%' || c == '"' || c == '\\' {
			return append(appendEscaped(append(b, s[:i]...), s[i:]), '"')
		}
	}
	b = append(b, s...)
	return append(b, '"')
}

func appendEscaped(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '%' || r < ' ' || r >= 0x7F && r <= 0x9F || r == utf8.RuneError && n == 1:
			for _, c := range []byte(s[:n]) {
				b = append(b, '%', digits[c>>4], digits[c&15])
			}
		default:
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return b
}
