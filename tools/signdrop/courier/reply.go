package courier

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"signdrop/appliance/metacoin"
)

// This file reads what a node answers. All of it is from outside: a node, or
// whatever stands in its place, can say anything, and what it says is never taken
// for more than its form allows.

// class is what a node's answer says of the call.
type class int

const (
	classDone    class = iota // 2xx: the node says that it was carried out
	classRefused              // 4xx: the ledger or the node has refused it
	classBusy                 // 429: not looked at; to be tried again
	classUnknown              // the node is in trouble; it may have been carried out
	classAway                 // a redirect, or a proxy's refusal: this is not the node
)

// troubleForm are texts with which a node tells of trouble behind it under a status
// of 412, which otherwise says that the ledger refused. "MTC Server connection
// error" and "Request job wait timeout" are two.
var troubleForm = regexp.MustCompile(`(?i)time[d ]*\s?out|connection|connect`)

// ledgerForm is how an error of the ledger begins: "1102,nonce error".
var ledgerForm = regexp.MustCompile(`^[0-9]{4},`)

func classify(status int, body string) class {
	switch {
	case status >= 200 && status < 300:
		return classDone
	case status == http.StatusTooManyRequests:
		return classBusy
	case status == http.StatusProxyAuthRequired, status >= 300 && status < 400:
		return classAway
	case status == http.StatusRequestTimeout, status < 200, status >= 500:
		return classUnknown
	case !ledgerForm.MatchString(body) && status == http.StatusPreconditionFailed && troubleForm.MatchString(body):
		return classUnknown
	}
	return classRefused
}

// parseAddress reads the answer to POST /address: the address as bare text.
func parseAddress(body string) (string, bool) {
	s := strings.TrimSpace(body)
	return s, metacoin.ValidAddress(s)
}

// maxAddresses bounds how many addresses of one key are read.
const maxAddresses = 10_000

// parseAddresses reads the answer to POST /address/bykey: a JSON array of the key's
// addresses.
func parseAddresses(body string) ([]string, bool) {
	var list []string
	if json.Unmarshal([]byte(body), &list) != nil || len(list) == 0 || len(list) > maxAddresses {
		return nil, false
	}
	for _, a := range list {
		if !metacoin.ValidAddress(a) {
			return nil, false
		}
	}
	return list, true
}

var (
	txidForm  = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`) // a transaction id of Hyperledger Fabric
	nonceForm = regexp.MustCompile(`^([0-9A-Za-z]{40}|[1-9][0-9]{0,18})$`)
)

// parseTxID reads the answer to a transaction: its id as bare text, or a JSON object
// with txid in it.
func parseTxID(body string) (string, bool) {
	s := strings.TrimSpace(body)
	if strings.HasPrefix(s, "{") {
		var o struct {
			TxID string `json:"txid"`
		}
		if json.Unmarshal([]byte(s), &o) != nil {
			return "", false
		}
		s = o.TxID
	}
	return s, txidForm.MatchString(s)
}

// parseNonce reads the answer to GET /nonce: 40 letters and digits, or for an old
// wallet a number.
func parseNonce(body string) (string, bool) {
	s := strings.TrimSpace(body)
	return s, nonceForm.MatchString(s)
}

// maxRetryAfter bounds what a node may make us wait.
const maxRetryAfter = 10 * time.Minute

// retryAfter reads the header of that name (RFC 9110, section 10.2.3), seconds or a
// date, 0 for none that can be read.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	var d time.Duration
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(value); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
