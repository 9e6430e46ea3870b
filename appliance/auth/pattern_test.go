package auth

import (
	"strings"
	"testing"
	"time"
)

func TestMatchPattern(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "", false},
		{"*", "", true},
		{"**", "abc", true},
		{"?", "", false},
		{"?", "a", true},
		{"a*c", "abbc", true},
		{"a*c", "abcb", false},
		{"a*b*c", "aXbXbXc", true},
		{"*a", "ba", true},
		{"*ab", "aab", true},
		{"a?", "a", false},
		{"a*", "a", true},
		{"*?", "", false},
		{"*?", "a", true},
		{"[a]", "a", false}, // no classes
		{"A", "a", false},
	}
	for _, tt := range tests {
		if got := matchPattern(tt.pattern, tt.name); got != tt.want {
			t.Errorf("matchPattern(%q, %q) = %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func TestMatchList(t *testing.T) {
	tests := []struct {
		list, name string
		want       bool
	}{
		{"a,b", "b", true},
		{"a,b", "c", false},
		{"*,!b", "b", false},
		{"!b,*", "b", false},
		{"!b", "a", false}, // nothing says yes
		{"!b,a", "a", true},
		{"a b", "a", false},
		{"", "a", false},
	}
	for _, tt := range tests {
		if got := matchList(tt.list, tt.name); got != tt.want {
			t.Errorf("matchList(%q, %q) = %v, want %v", tt.list, tt.name, got, tt.want)
		}
	}
}

// A pattern made to go back often costs no more than its length times the
// name's. A matcher that tried every split would not end in our lifetime.
func TestMatchPatternIsNotExponential(t *testing.T) {
	start := time.Now()
	if matchPattern(strings.Repeat("a*", 2000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched")
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}
