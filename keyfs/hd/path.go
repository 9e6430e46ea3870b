package hd

import (
	"errors"
	"strconv"
	"strings"
)

// Hardened is added to the index of a hardened step.
const Hardened = 1 << 31

// Path is the steps from one key of a tree to another.
type Path []uint32

// maxPath is more steps than anybody takes.
const maxPath = 16

var errPath = errors.New("a path is written as m/84h/0h/0h/0/5, with at most 16 steps")

// ParsePath reads a path as m/84h/0h/0h/0/5; a hardened step may end in ' or h. m
// alone is the key itself.
func ParsePath(s string) (Path, error) {
	steps := strings.Split(s, "/")
	if steps[0] != "m" || len(steps) > 1+maxPath {
		return nil, errPath
	}
	p := Path{}
	for _, step := range steps[1:] {
		digits := strings.TrimRight(step, "'h")
		var add uint32
		switch len(step) - len(digits) {
		case 0:
		case 1:
			add = Hardened
		default:
			return nil, errPath
		}
		i, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || strconv.FormatUint(i, 10) != digits {
			return nil, errPath
		}
		p = append(p, uint32(i)+add)
	}
	return p, nil
}

// String writes hardened steps with h, as descriptors do.
func (p Path) String() string { return string(p.append([]byte("m"))) }

func (p Path) append(b []byte) []byte {
	for _, i := range p {
		b = append(b, '/')
		b = strconv.AppendUint(b, uint64(i&^Hardened), 10)
		if i >= Hardened {
			b = append(b, 'h')
		}
	}
	return b
}

// Script is a form of output with one key, by its usual name.
type Script string

// The forms.
const (
	P2PKH      Script = "p2pkh"
	P2SHP2WPKH Script = "p2sh-p2wpkh"
	P2WPKH     Script = "p2wpkh"
	P2TR       Script = "p2tr"
)

// Scripts are all forms, in the order of their purposes.
var Scripts = []Script{P2PKH, P2SHP2WPKH, P2WPKH, P2TR}

// purposes are the first step of each form's path: BIP-44, 49, 84 and 86.
var purposes = map[Script]uint32{P2PKH: 44, P2SHP2WPKH: 49, P2WPKH: 84, P2TR: 86}

// Known reports whether s is one of the forms.
func (s Script) Known() bool { return purposes[s] != 0 }

// Account is the path of an account: purpose, coin type, number.
func Account(s Script, n Network, account uint32) Path {
	return Path{Hardened + purposes[s], Hardened + networks[n].coin, Hardened + account}
}

// Below returns the path with further steps.
func (p Path) Below(steps ...uint32) Path { return append(p[:len(p):len(p)], steps...) }
