package auth

import "strings"

// matchList reports whether name matches a pattern list as OpenSSH reads one
// (PATTERNS in ssh_config(5)): patterns joined with commas, one that begins
// with "!" excludes whatever the others say. Case matters.
func matchList(list, name string) bool {
	matched := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if !matchPattern(pattern, name) {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

// matchPattern reports whether the whole of name matches pattern, in which "*"
// stands for any run of bytes and "?" for any one byte. Nothing escapes them.
//
// On a mismatch only the last "*" takes one byte more, which is enough, since
// what stands before it has matched already; so the time is at most
// len(pattern) × len(name).
func matchPattern(pattern, name string) bool {
	p, n := 0, 0
	star, taken := -1, 0 // the last "*" and where in name its run ends
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, taken = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			taken++
			p, n = star+1, taken
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
