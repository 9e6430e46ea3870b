package metacoin_test

import (
	"strings"
	"testing"

	"signdrop/appliance/metacoin"
)

func TestValidAddress(t *testing.T) {
	good := expand("{A}")
	for _, c := range []struct {
		address string
		want    bool
	}{
		{good, true},
		{expand("{B}"), true},
		{expand("{C}"), true},
		{"", false},
		{good[:39], false},
		{good + "0", false},
		{" " + good, false},
		{"mt" + good[2:], false},
		{strings.ToUpper(good), false},
		{good[:10] + "j" + good[11:], false}, // one character of the body
		{good[:39] + "f", false},             // one of the checksum
		{"MTiiiiiiiiiiii METACOINiiiiiiiii79c3496e", false}, // a blank
		{"MT" + strings.Repeat("é", 15) + "79c3496e", false},
		{strings.Repeat("\x00", 40), false},
	} {
		if got := metacoin.ValidAddress(c.address); got != c.want {
			t.Errorf("ValidAddress(%q): got %v, want %v", c.address, got, c.want)
		}
		if r := metacoin.CheckAddress(c.address); (r == nil) != c.want {
			t.Errorf("CheckAddress(%q): got %v", c.address, r)
		}
	}
}
