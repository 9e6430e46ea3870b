package metacoin

import (
	"strings"
	"testing"
)

// TestKinds has the edges of each kind on the side that is taken; TestRefused
// has the other.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		kind   kind
		values []string
	}{
		{amount, []string{"1", strings.Repeat("9", 99)}},
		{amountOrZero, []string{"0", "10"}},
		{itemPrice, []string{strings.Repeat("9", 80)}},
		{tokenID, []string{"0", "9223372036854775807"}},
		{unixSeconds, []string{"0", "1700000000"}},
		{oneTimeKey, []string{strings.Repeat("aZ09", 10), "1690000000"}},
		{upTo("99999999"), []string{"1", "99999999"}},
		{commission, []string{"0", "0.0", "0.05", "9.99", "10", "10.0", "10.00"}},
		{fee, []string{"0", "0.0001", "99", "99.9999"}},
		{text(4), []string{"abcd", "éé", "😀", "a b"}},
		{country, []string{"AD", "KR", "ZW"}},
		{foreignSignature, []string{"MAYCAQECAQE="}},
		{referenceKey, []string{"_", "a_1", strings.Repeat("a", 63) + "_"}},
		{webURL(64), []string{
			"http://a.bc", "https://example.com", "https://sub-domain.example.com:8443/a/b?c=d#e",
			"https://EXAMPLE.com/%20", "https://example.com?q", "http://192.168.0.1/x", "http://localhost:80", "https://bücher.example",
		}},
	} {
		for _, v := range c.values {
			if !c.kind.is(v) {
				t.Errorf("%s refuses %q, which is %s", c.kind.name, v, c.kind.must)
			}
		}
	}
}

func TestIsText(t *testing.T) {
	for _, c := range []struct {
		text string
		want bool
	}{
		{"", true}, {"plain", true}, {"\u00a0\u00ff\u2028\uffee\ufefe", true}, {"\ue000\U0010ffff", true},
		{"|", false}, {"a\x1f", false}, {"\x7f", false}, {"\u0080", false}, {"\u009f", false}, {"a\ufeff", false},
	} {
		if got := isText(c.text); got != c.want {
			t.Errorf("isText(%q): got %v, want %v", c.text, got, c.want)
		}
	}
}

func TestCompact(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`[]`, `[]`},
		{" [ 1 ,\t{\r\n\"a b\" : \" \\\" \\\\\" } ] ", `[1,{"a b":" \" \\"}]`},
		{`{"a":"\\", "b":"\u0020"}`, `{"a":"\\","b":"\u0020"}`},
	} {
		if got := compact(c.json); got != c.want {
			t.Errorf("compact(%q): got %q, want %q", c.json, got, c.want)
		}
	}
}
