package spool

import (
	"fmt"
	"strings"
)

// Type says what a file's ending makes of it.
type Type struct {
	Suffix string // with the dot, lower case
	Max    int64  // bytes
}

// SigSuffix ends the name of the file that holds a request's signature.
const SigSuffix = ".sig"

// maxSig bounds a signature file, in bytes. The largest SSHSIG (RSA-16384) is
// far below it.
const maxSig = 16 << 10

// maxName bounds a request's name, in bytes, so that every name derived from it
// (its signature, its answer, its place in the archive) stays below NAME_MAX.
const maxName = 200

// unfinished are the endings that uploaders give to files they are still
// writing. Such a file is left alone until it is renamed.
var unfinished = []string{
	".part", ".partial", ".filepart", ".tmp", ".temp", ".writing", ".uploading", ".upload",
	".incomplete", ".inprogress", ".download", ".crdownload", ".swp", ".swx", ".lock", ".lck",
	".camellock", ".bak", "~",
}

// Unfinished reports whether the name is one that uploaders and editors use for
// a file that is not finished. Such files are ignored, never answered.
func Unfinished(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "~$") {
		return true
	}
	low := strings.ToLower(name)
	for _, s := range unfinished {
		if strings.HasSuffix(low, s) {
			return true
		}
	}
	return false
}

// plain reports whether name has the form [A-Za-z0-9][A-Za-z0-9._-]* of at most
// max bytes.
func plain(name string, max int) bool {
	if name == "" || len(name) > max {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// typeOf finds the type of a request's name, false where it is not one.
func typeOf(types []Type, name string) (Type, bool) {
	if !plain(name, maxName) {
		return Type{}, false
	}
	for _, t := range types {
		if strings.HasSuffix(name, t.Suffix) && len(name) > len(t.Suffix) {
			return t, true
		}
	}
	return Type{}, false
}

// stem is the name without the ending that types knows, or the name itself.
func stem(types []Type, name string) (base, suffix string) {
	for _, t := range types {
		if strings.HasSuffix(name, t.Suffix) && len(name) > len(t.Suffix) {
			return name[:len(name)-len(t.Suffix)], t.Suffix
		}
	}
	return name, ""
}

// AnswerName is the outbox name of the answer to a request: pay.json is answered
// by pay.result.json, run.jsonl by run.result.jsonl.
func AnswerName(name string) string {
	base, suffix := stem(DefaultTypes, name)
	return base + ".result" + suffix
}

// SafeName writes any file name, valid UTF-8 or not, with the characters of a
// request's name only: other bytes become %XX. Different names stay different
// but for those that are cut to fit max bytes, which end in ~ and the digest
// tag that the caller gives.
func SafeName(name string, max int, tag string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			i > 0 && (c == '.' || c == '_' || c == '-'):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	s := b.String()
	if len(s) > max {
		s = s[:max-len(tag)-1] + "~" + tag
	}
	return s
}
