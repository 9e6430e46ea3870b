package courier

import (
	"strings"
	"testing"
	"time"

	"signdrop/appliance/metacoin"
)

const sampleAddress = "MTiiiiiiiiiiiiMETACOINiiiiiiiiii79c3496e"

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   class
	}{
		{200, "", classDone}, {201, "", classDone},
		{412, "1102,nonce error", classRefused}, {412, "Parameter to is missing", classRefused},
		{412, "1200,connection of the ledger's own words", classRefused},
		{404, "Address not found", classRefused}, {400, "", classRefused}, {403, "", classRefused},
		{412, "MTC Server connection error", classUnknown}, {412, "Request job wait timeout", classUnknown},
		{412, "connect ECONNREFUSED", classUnknown}, {412, "request timed out", classUnknown},
		{408, "", classUnknown}, {500, "", classUnknown}, {502, "", classUnknown}, {503, "", classUnknown}, {599, "", classUnknown},
		{429, "", classBusy},
		{301, "", classAway}, {302, "", classAway}, {307, "", classAway}, {407, "", classAway},
		{101, "", classUnknown},
	} {
		if got := classify(c.status, c.body); got != c.want {
			t.Errorf("%d %q is %d, want %d", c.status, c.body, got, c.want)
		}
	}
}

func TestParseReplies(t *testing.T) {
	id := strings.Repeat("0aF1", 16)
	for body, want := range map[string]string{
		id: id, " " + id + "\n": id, `{"txid":"` + id + `","mrc400id":"x"}`: id,
		"": "", "OK": "", "<html>": "", id[1:]: "", id + "0": "", `{"txid":7}`: "", `{"txid":"` + id + `"} x`: "", `{"id":"` + id + `"}`: "",
	} {
		if got, ok := parseTxID(body); ok != (want != "") || ok && got != want {
			t.Errorf("%q gives the id %q, %v", body, got, ok)
		}
	}
	for body, want := range map[string]bool{
		sampleAddress: true, sampleAddress + "\n": true, "": false, "<html>": false,
		sampleAddress[:39] + "f": false, `"` + sampleAddress + `"`: false,
	} {
		if got, ok := parseAddress(body); ok != want || ok && got != sampleAddress {
			t.Errorf("%q gives the address %q, %v", body, got, ok)
		}
	}
	for body, want := range map[string]int{
		`["` + sampleAddress + `"]`: 1, `["` + sampleAddress + `","` + sampleAddress + `"]`: 2,
		`[]`: 0, `{}`: 0, ``: 0, `["x"]`: 0, `["` + sampleAddress + `",1]`: 0,
	} {
		if got, ok := parseAddresses(body); len(got) != want || ok != (want > 0) {
			t.Errorf("%q gives the addresses %q, %v", body, got, ok)
		}
	}
	for body, want := range map[string]bool{
		strings.Repeat("aZ09", 10): true, "1700000000": true, " 1700000000\n": true,
		"": false, strings.Repeat("a", 39): false, "0": false, "-1": false, "<html>": false, strings.Repeat("9", 20): false,
	} {
		if _, ok := parseNonce(body); ok != want {
			t.Errorf("%q is a nonce: %v", body, ok)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "soon": 0, "99999999999999999999": 0,
		"2147483647":                    maxRetryAfter,
		"Sun, 22 Nov 2026 15:00:30 GMT": 30 * time.Second,
		"Sun, 22 Nov 2026 14:00:30 GMT": 0,
		"Sun, 22 Nov 2099 15:00:30 GMT": maxRetryAfter,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q is %v, want %v", value, got, want)
		}
	}
}

// FuzzReply: whatever a node says, what is taken from it has its form, and nothing
// is both refused and done.
func FuzzReply(f *testing.F) {
	for _, body := range []string{
		sampleAddress, `["` + sampleAddress + `"]`, strings.Repeat("0a", 32), `{"txid":"` + strings.Repeat("0a", 32) + `"}`,
		"1102,nonce error", "MTC Server connection error", "<html>", strings.Repeat("aZ09", 10), "{", "\xff", "[[[[[[",
	} {
		f.Add(200, body, "7")
		f.Add(412, body, "Sun, 22 Nov 2026 15:00:30 GMT")
	}
	f.Fuzz(func(t *testing.T, status int, body, after string) {
		if c := classify(status, body); (c == classDone) != (status >= 200 && status < 300) {
			t.Errorf("%d is %d", status, c)
		} else if c == classRefused && (status < 400 || status >= 500) {
			t.Errorf("%d counts as refused", status)
		}
		if a, ok := parseAddress(body); ok && !metacoin.ValidAddress(a) {
			t.Errorf("%q is taken for an address", a)
		}
		if list, ok := parseAddresses(body); ok {
			for _, a := range list {
				if !metacoin.ValidAddress(a) {
					t.Errorf("%q is taken for an address", a)
				}
			}
		}
		if id, ok := parseTxID(body); ok && len(id) != 64 {
			t.Errorf("%q is taken for a transaction's id", id)
		}
		if n, ok := parseNonce(body); ok && len(n) > 40 {
			t.Errorf("%q is taken for a nonce", n)
		}
		if d := retryAfter(after, time.Now()); d < 0 || d > maxRetryAfter {
			t.Errorf("waits %v for %q", d, after)
		}
		r := &Record{Format: recordFormat, Request: strings.Repeat("0", 64), State: Refused, Body: record(body)}
		data, err := r.append()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseRecord(data)
		if err != nil || *back != *r {
			t.Errorf("%s is read as %+v, %v", data, back, err)
		}
	})
}

// FuzzRecord: a state file that is read is one that would be written.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"format":1,"name":"a.result.json","request_sha256":"` + strings.Repeat("0", 64) + `","wallet":"W_1","call_sha256":"","state":"sending","attempts":1,"since":"2026-11-22T15:00:00Z","time":"2026-11-22T15:00:00Z"}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		out, err := r.append()
		if err != nil {
			return // a year that RFC 3339 has not
		}
		back, err := parseRecord(out)
		if err != nil || back.State != r.State || back.Request != r.Request || back.Line != r.Line || back.InDoubt != r.InDoubt {
			t.Errorf("%s is written as %s: %v", data, out, err)
		}
	})
}
