package bitcoin

import (
	"bytes"
	"slices"

	"signdrop/appliance/reason"
)

// A pair is one field of a PSBT: key is the type and the key data.
type pair struct{ key, value []byte }

// kind is the field's type. The reader took care that it is there.
func (p pair) kind() uint64 { return (&reader{b: p.key}).compact() }

// data is what follows the type in the key.
func (p pair) data() []byte {
	r := &reader{b: p.key}
	r.compact()
	return r.b
}

// A keymap is one of the maps of a PSBT, in the order of the file: what the
// asker wrote is answered as it was, unknown fields too.
type keymap struct {
	pairs []pair
	index map[string]int // of a large map, by key; behind pairs it counts on in late

	// late are fields that were put into a large map and have no place in pairs yet,
	// see settle: to find it for each would cost the square of their number.
	late []pair
}

// Maps of more than large fields are indexed. No map has more than maxFields,
// which is far above what wallets write.
const (
	large     = 8
	maxFields = 4096
)

// readMap reads up to the zero that ends a map of at most so many fields. where names it
// for people.
func readMap(r *reader, fields int, where string) (*keymap, error) {
	m := &keymap{}
	for {
		key := r.prefixed()
		if len(key) == 0 && !r.bad {
			return m, nil
		}
		k := &reader{b: key}
		k.compact()
		value := r.prefixed()
		switch {
		case r.bad || k.bad:
			return nil, malformed("make it anew", "%s is cut off, or a length in it is wrong", where)
		case m.find(key) >= 0:
			return nil, reason.New(reason.KeyTwice, "make it anew", "%s has the same key twice", where)
		case len(m.pairs) == fields:
			return nil, malformed("make it anew", "%s has more than %d fields", where, fields)
		}
		m.append(pair{key, value})
	}
}

func (m *keymap) append(p pair) {
	m.pairs = append(m.pairs, p)
	switch {
	case m.index != nil:
		m.index[string(p.key)] = len(m.pairs) - 1
	case len(m.pairs) > large:
		m.reindex()
	}
}

func (m *keymap) reindex() {
	m.index = make(map[string]int, len(m.pairs))
	for i, p := range m.pairs {
		m.index[string(p.key)] = i
	}
}

func (m *keymap) find(key []byte) int {
	if m.index != nil {
		if i, ok := m.index[string(key)]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(m.pairs, func(p pair) bool { return bytes.Equal(p.key, key) })
}

// get gives the value of a field without key data, nil if it is not there. An
// empty value is not nil.
func (m *keymap) get(kind byte) []byte { return m.at([]byte{kind}) }

// at gives the value of a key.
func (m *keymap) at(key []byte) []byte {
	i := m.find(key)
	if i < 0 {
		return nil
	}
	if v := m.pair(i).value; v != nil {
		return v
	}
	return []byte{}
}

// pair is the one at what find gave.
func (m *keymap) pair(i int) *pair {
	if i < len(m.pairs) {
		return &m.pairs[i]
	}
	return &m.late[i-len(m.pairs)]
}

// has reports whether a field without key data is there.
func (m *keymap) has(kind byte) bool { return m.find([]byte{kind}) >= 0 }

// compareKeys is Bitcoin Core's order of an input's fields: that of their bytes, but
// partial signatures in that of their public keys' hashes.
func compareKeys(a, b []byte) int {
	if a[0] == inSignature && b[0] == inSignature {
		a, b = hash160(a[1:]), hash160(b[1:])
	}
	return bytes.Compare(a, b)
}

// put sets a field. A new one comes before the first whose key is greater, where
// a PSBT in Bitcoin Core's order has its place for it.
func (m *keymap) put(key, value []byte) {
	if i := m.find(key); i >= 0 {
		m.pair(i).value = value
		return
	}
	if m.index != nil {
		m.index[string(key)] = len(m.pairs) + len(m.late)
		m.late = append(m.late, pair{key, value})
		return
	}
	i := slices.IndexFunc(m.pairs, func(p pair) bool { return compareKeys(p.key, key) > 0 })
	if i < 0 {
		i = len(m.pairs)
	}
	m.pairs = slices.Insert(m.pairs, i, pair{key, value})
	if len(m.pairs) > large {
		m.reindex()
	}
}

// settle gives the late ones the places that put would have found one by one: the first
// field with a greater key lies never before that of a smaller key.
func (m *keymap) settle() {
	if len(m.late) == 0 {
		return
	}
	slices.SortFunc(m.late, func(a, b pair) int { return compareKeys(a.key, b.key) })
	all := make([]pair, 0, len(m.pairs)+len(m.late))
	left := m.pairs
	for _, p := range m.late {
		for len(left) > 0 && compareKeys(left[0].key, p.key) < 0 {
			all, left = append(all, left[0]), left[1:]
		}
		all = append(all, p)
	}
	m.pairs, m.late = append(all, left...), nil
	m.reindex()
}

func (m *keymap) clone() *keymap {
	m.settle()
	c := &keymap{pairs: slices.Clone(m.pairs)}
	if len(c.pairs) > large {
		c.reindex()
	}
	return c
}

func (m *keymap) appendTo(dst []byte) []byte {
	m.settle()
	for _, p := range m.pairs {
		dst = appendPrefixed(appendPrefixed(dst, p.key), p.value)
	}
	return append(dst, 0)
}
