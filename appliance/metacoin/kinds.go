package metacoin

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"signdrop/appliance/reason"
)

// A kind is the form that a value must have. Each takes the strictest of what
// node, bridge and chaincode take, so that what is signed is not refused later
// by one of them. Lengths are in bytes of UTF-8, as the chaincode counts.
type kind struct {
	name string            // for people: "address", "amount"
	must string            // completes "it must be …"
	is   func(string) bool // never called with "", which stands for absent

	shape *shape // of a value that is itself JSON text, which is then only bounds
	// signature: another party's signature, which ours cannot cover and the
	// result need not name.
	signature bool
}

var (
	address = kind{name: "address", must: "a Metacoin address", is: ValidAddress}

	tokenID = kind{name: "token id",
		must: "a token's number without leading zeros", is: isInt64}

	amount       = whole("amount", 99, false)
	amountOrZero = whole("amount", 99, true)
	price        = whole("price", 99, false)
	// The chaincode compares these prices with a number of 80 nines.
	itemPrice       = whole("price", 80, false)
	itemPriceOrZero = whole("price", 80, true)

	// The ledger draws 40 letters and digits. A wallet from before it did so
	// uses the decimal time of its last job.
	oneTimeKey = kind{name: "one-time key",
		must: "the one-time key as GET /nonce gives it: 40 letters or digits, or for an old wallet a number",
		is:   func(s string) bool { return len(s) == 40 && isAlnum(s) || isInt64(s) }}

	// No clock is asked here: whether a time is past or near enough is the
	// ledger's to say.
	unixSeconds = kind{name: "time", must: "seconds since 1970, digits without leading zeros", is: isInt64}

	commission = percent("10", 2)
	fee        = percent("99.9999", 4)

	foreignSignature = kind{name: "signature", must: "a DER signature in standard base64",
		is: isSignature, signature: true}

	country = kind{name: "country", must: "a country's two capital letters (ISO 3166-1)", is: isCountry}

	mrc400ID    = id("MRC400_")
	mrc402ID    = id("MRC402_")
	mrc030ID    = id("MRC030_")
	mrc010DexID = id("DEX010_")
	mrc402DexID = id("DEX402_")
	mrc401ID    = kind{name: "id", must: "an MRC401 item's id: its project's id, _ and 40 letters or digits",
		is: func(s string) bool {
			return len(s) == 81 && mrc400ID.is(s[:40]) && s[40] == '_' && isAlnum(s[41:])
		}}

	flag = oneOf("0", "1")
)

// whole is a number of the smallest unit, as digits.
func whole(name string, digits int, zero bool) kind {
	must := "1 to " + strconv.Itoa(digits) + " digits without leading zeros"
	if !zero {
		must += ", above 0"
	}
	return kind{name: name, must: must, is: func(s string) bool {
		return len(s) <= digits && isDigits(s) && (s[0] != '0' || zero && len(s) == 1)
	}}
}

// upTo is a whole number from 1 to most.
func upTo(most string) kind {
	return kind{name: "number", must: "a whole number from 1 to " + most, is: func(s string) bool {
		return isDigits(s) && s[0] != '0' && !less(most, s)
	}}
}

// percent is 0 to most, with at most places decimals.
func percent(most string, places int) kind {
	scaled := func(s string) (digits string, ok bool) {
		before, after, point := strings.Cut(s, ".")
		if !isDigits(before) || len(before) > 1 && before[0] == '0' ||
			point && (!isDigits(after) || len(after) > places) {
			return "", false
		}
		return strings.TrimLeft(before+after+strings.Repeat("0", places-len(after)), "0"), true
	}
	limit, _ := scaled(most)
	return kind{name: "percent", must: "0 to " + most + " percent with at most " + strconv.Itoa(places) + " decimals",
		is: func(s string) bool {
			n, ok := scaled(s)
			return ok && !less(limit, n)
		}}
}

func oneOf(values ...string) kind {
	return kind{name: "choice", must: strings.Join(values, " or "), is: func(s string) bool {
		for _, v := range values {
			if s == v {
				return true
			}
		}
		return false
	}}
}

// id is an object's id on the ledger: a prefix, 33 letters or digits, 40 in
// all. The chaincode looks at prefix and length only, but draws no others; and
// an id goes into a path, where other characters would mean something else.
func id(prefix string) kind {
	return kind{name: "id", must: prefix + " and 33 letters or digits", is: func(s string) bool {
		return len(s) == 40 && s[:len(prefix)] == prefix && isAlnum(s[len(prefix):])
	}}
}

func alnum(shortest, longest int) kind {
	must := strconv.Itoa(shortest) + " to " + strconv.Itoa(longest) + " letters or digits"
	if shortest == longest {
		must = strconv.Itoa(longest) + " letters or digits"
	}
	return kind{name: "word", must: must, is: func(s string) bool {
		return len(s) >= shortest && len(s) <= longest && isAlnum(s)
	}}
}

func text(longest int) kind {
	return kind{name: "text", must: "at most " + strconv.Itoa(longest) + " bytes of text", is: func(s string) bool {
		return len(s) <= longest && isText(s)
	}}
}

func webURL(longest int) kind {
	return kind{name: "url", must: "an http or https URL of at most " + strconv.Itoa(longest) + " bytes", is: func(s string) bool {
		return len(s) <= longest && isText(s) && isURL(s)
	}}
}

// jsonText is a value that the ledger itself parses as JSON. The shape checks
// what is in it; line breaks between its tokens are refused like any other
// control character.
func jsonText(longest int, s *shape) kind {
	return kind{name: s.name(), must: "at most " + strconv.Itoa(longest) + " bytes of JSON: " + s.describe(), shape: s,
		is: func(v string) bool { return len(v) <= longest && !strings.ContainsAny(v, "\t\r\n") }}
}

// explain says why a value that is not of kind k is refused, with a hint. It
// never quotes the value.
func (k *kind) explain(v string) *reason.Refusal {
	switch {
	case v == "":
		return reason.New(reason.FieldInvalid, "it must be "+k.must, "empty")
	case strings.Contains(v, "|"):
		return reason.New(reason.FieldInvalid, "leave the | out or replace it",
			"holds |, which separates the values in the signed text")
	case !isText(v):
		return reason.New(reason.FieldInvalid, "leave out line breaks, tabs and other control characters",
			"holds a control character")
	}
	if k.name == address.name {
		if r := CheckAddress(v); r != nil {
			return r
		}
	}
	return reason.New(reason.FieldInvalid, "it must be "+k.must, "not of its form")
}

// isText refuses what has no place in any value: the separator of the signed
// text, control characters (C0, DEL, C1), and U+FEFF, which the node's
// JavaScript trims off a value's ends and the chaincode's Go does not, so that
// the two would see different texts. s is valid UTF-8 already.
func isText(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ', c == '|', c == 0x7f:
			return false
		case c == 0xc2 && s[i+1] < 0xa0: // U+0080 to U+009F
			return false
		case c == 0xef && s[i+1] == 0xbb && s[i+2] == 0xbf:
			return false
		}
	}
	return true
}

func isAlnum(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != ""
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

const maxInt64 = "9223372036854775807"

// isInt64 takes canonical digits that fit the chaincode's int64.
func isInt64(s string) bool {
	return isDigits(s) && (s[0] != '0' || len(s) == 1) && !less(maxInt64, s)
}

// less compares two numbers given as digits without leading zeros.
func less(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

// urlForm is a subset of what the node takes for a URL, whose host ends in
// letters, is an IPv4 address or is localhost, and whose labels hold no two
// hyphens in a row. No user name: it would only serve to mislead a reader.
var urlForm = regexp.MustCompile(`^https?://(?i:` +
	`(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}\.(?:\d\d?|1\d\d|2[0-4]\d|25[0-4])` +
	`|(?:` + urlLabel + `(?:-` + urlLabel + `)*\.)+[a-z\x{a1}-\x{ffff}]{2,}` +
	`|localhost)(?::\d{2,5})?(?:[/?#]\S*)?$`)

const urlLabel = `[a-z0-9\x{a1}-\x{ffff}]+`

func isURL(s string) bool {
	if !urlForm.MatchString(s) {
		return false
	}
	// What the chaincode asks.
	_, err := url.ParseRequestURI(s)
	return err == nil
}

func isSignature(s string) bool {
	der, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(der) >= 8 && len(der) <= 160 && der[0] == 0x30
}

// The codes of ISO 3166-1 that the chaincode lists.
const countries = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ " +
	"CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR " +
	"GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP " +
	"KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ " +
	"NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW " +
	"SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ " +
	"UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"

func isCountry(s string) bool {
	return len(s) == 2 && isAlnum(s) && strings.Contains(countries, s)
}
