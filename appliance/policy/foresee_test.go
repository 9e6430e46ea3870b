package policy_test

import (
	"strings"
	"testing"

	"signdrop/appliance/policy"
	"signdrop/appliance/reason"
	"signdrop/appliance/request"
)

// TestForesee: what is refused with every wallet, and for which curves a text is good.
func TestForesee(t *testing.T) {
	sign := func(fields string) string { return `{"type":"sign","wallet":"W_1",` + fields + `}` }
	data := func(text, more string) string {
		return sign(`"data":{"text":"` + text + `","hash":"sha256"` + more + `}`)
	}
	const all = "P-256 P-384 P-521 secp256k1"
	for _, c := range []struct {
		policy, request string
		curves          string
		code            reason.Code
	}{
		{`{}`, data("hello", ""), all, ""},
		{`{}`, data("a|b", ""), "secp256k1", ""},
		{`{"data":"any"}`, data("a|b", ""), all, ""},
		{`{"data":"none"}`, data("hello", ""), "", reason.PolicyForbids},
		{`{}`, data(strings.Repeat("x", 32), ""), "P-256 P-384 P-521", ""},
		{`{}`, data("hello", `,"scheme":"schnorr"`), "secp256k1", ""},
		{`{}`, data(strings.Repeat("x", 32), `,"scheme":"schnorr"`), "", reason.CurveUnsuitable},
		{`{}`, sign(`"replace":true,"data":{"text":"x","hash":"sha256"}`), "", reason.PolicyForbids},
		{`{"replace":true}`, sign(`"replace":true,"data":{"text":"x","hash":"sha256"}`), all, ""},
		{`{}`, sign(`"ethereum":{"operation":"message","text":"x"}`), "", ""},
	} {
		p, err := policy.Parse([]byte(c.policy))
		if err != nil {
			t.Fatal(err)
		}
		r, err := request.Parse([]byte(c.request))
		if err != nil {
			t.Fatal(err)
		}
		curves, err := p.Foresee(r)
		code := reason.Code("")
		if ref, ok := reason.As(err); ok {
			code = ref.Code
		}
		if strings.Join(curves, " ") != c.curves || code != c.code {
			t.Errorf("%s %s: %v, %v", c.policy, c.request, curves, err)
		}
	}
}
