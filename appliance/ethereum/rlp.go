package ethereum

// RLP, the encoding of Ethereum's transactions (Yellow Paper, appendix B): an item is
// a string of bytes or a list of items. A number is a string, big-endian, without
// leading zeros; 0 is the empty string.

// appendString appends a string.
func appendString(dst, s []byte) []byte {
	if len(s) == 1 && s[0] < 0x80 {
		return append(dst, s[0])
	}
	return append(appendHead(dst, 0x80, len(s)), s...)
}

// appendList appends a list whose items are encoded in body.
func appendList(dst, body []byte) []byte {
	return append(appendHead(dst, 0xc0, len(body)), body...)
}

// appendHead appends what says the kind, 0x80 or 0xc0, and length of what follows.
func appendHead(dst []byte, kind byte, n int) []byte {
	if n <= 55 {
		return append(dst, kind+byte(n))
	}
	length := number(uint64(n))
	return append(append(dst, kind+55+byte(len(length))), length...)
}

// number returns n as RLP writes it.
func number(n uint64) []byte {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return shorten(b[:])
}

// shorten cuts leading zeros off.
func shorten(b []byte) []byte {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}
