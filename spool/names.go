package spool

import (
	"fmt"
	"strings"
)

// Type says what a file's ending makes of it.
type Type struct {
	Suffix string // with the dot, lower case
	Max    int64  // bytes

	// Further are the endings of the files that an answer may have beside
	// NAME.result.json: NAME-signed.psbt has "-signed.psbt". No two requests share
	// one of these names that do not share the name of their answer.
	Further []string
}

// DefaultTypes are the requests that the appliance takes. A longer suffix comes
// before one that ends it. One that ends in .age is encrypted (age(1)), hence a
// little longer than what is in it.
var DefaultTypes = []Type{
	{Suffix: ".jsonl" + ageSuffix, Max: 68 << 20},
	{Suffix: ".json" + ageSuffix, Max: 2 << 20},
	{Suffix: ".jsonl", Max: 64 << 20},
	{Suffix: ".json", Max: 1 << 20},
	// A transaction of 2 MiB in hexadecimal, with line breaks.
	{Suffix: psbtSuffix, Max: 4<<20 + 128<<10, Further: []string{"-signed.psbt", "-part.psbt", "-final.txn"}},
}

const (
	ageSuffix  = ".age"
	psbtSuffix = ".psbt"
)

// SigSuffix ends the name of the file that holds a request's signature.
const SigSuffix = ".sig"

// maxSig bounds a signature file, in bytes. The largest SSHSIG (RSA-16384) is
// far below it.
const maxSig = 16 << 10

// maxName bounds a request's name, in bytes, so that every name derived from it
// (its signature, its answer, its place in the archive) stays below NAME_MAX.
const maxName = 200

// maxLabel bounds the label of a further signature, and maxSigName, for the same
// reason as above, the whole name of the file, both in bytes. A request whose name
// has up to 161 bytes can have every label.
const (
	maxLabel   = 64
	maxSigName = 230
)

// maxMore bounds how many further signatures a request may have.
const maxMore = 32

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

// sigOf finds the request that a signature's name belongs to: NAME.sig, or
// NAME.<label>.sig with a label of letters, digits, _ and -. Where both readings
// are possible the first one counts: pay.json.age.sig is the signature of
// pay.json.age, so age, json, jsonl and psbt are no labels.
func sigOf(name string) (request, label string, ok bool) {
	base, ok := strings.CutSuffix(name, SigSuffix)
	if !ok {
		return "", "", false
	}
	if _, typed := typeOf(DefaultTypes, base); typed {
		return base, "", true
	}
	i := strings.LastIndexByte(base, '.')
	if i < 0 || len(name) > maxSigName || !isLabel(base[i+1:]) {
		return "", "", false
	}
	if _, typed := typeOf(DefaultTypes, base[:i]); !typed {
		return "", "", false
	}
	return base[:i], base[i+1:], true
}

func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// sigName is the name of a request's signature. No label is the first one's.
func sigName(request, label string) string {
	return request + sigEnding(label)
}

func sigEnding(label string) string {
	if label == "" {
		return SigSuffix
	}
	return "." + label + SigSuffix
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
// by pay.result.json, run.jsonl by run.result.jsonl. An encrypted request is
// answered under the same name as one that is not: pay.json.age by
// pay.result.json, and so is pay.psbt.
func AnswerName(name string) string {
	base, suffix := stem(DefaultTypes, name)
	suffix = strings.TrimSuffix(suffix, ageSuffix)
	if suffix == psbtSuffix {
		suffix = ".json"
	}
	return base + ".result" + suffix
}

// FurtherName is the outbox name of a further file of the answer to a request, by
// the ending that its type names.
func FurtherName(name, ending string) string {
	base, _ := stem(DefaultTypes, name)
	return base + ending
}

// Beside is the outbox name of a further file by the name of the answer that it lies
// beside: pay.result.json and -signed.psbt give pay-signed.psbt. It is "" where
// there can be none: no answer has this name, or no file the ending. The ending may
// come from a stranger.
func Beside(answer, ending string) string {
	base, ok := strings.CutSuffix(answer, ".result.json")
	if !ok || !plain(base, maxName) || !strings.HasPrefix(ending, "-") || !plain("x"+ending, maxEnding) {
		return ""
	}
	return base + ending
}

// maxEnding is more than the ending of a further file has, in bytes.
const maxEnding = 32

// FurtherOf is the reverse of Beside: the name of the answer that a name in the
// outbox lies beside, "" if it is not the name of a further file.
func FurtherOf(name string) (answer string) {
	for _, t := range DefaultTypes {
		for _, ending := range t.Further {
			if base, ok := strings.CutSuffix(name, ending); ok && base != "" {
				return base + ".result.json"
			}
		}
	}
	return ""
}

// StatusSuffix ends the name of a file in outbox/ that is no answer, see Spool.Status.
const StatusSuffix = ".status.json"

// StatusName is the outbox name of what is told of a request while it waits. No
// request's answer can have it, since answers end in .result.json or
// .result.jsonl.
func StatusName(name string) string {
	base, _ := stem(DefaultTypes, name)
	return base + StatusSuffix
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
