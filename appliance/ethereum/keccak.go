package ethereum

import (
	"encoding/hex"

	"golang.org/x/crypto/sha3"
)

// keccak is Ethereum's hash: Keccak-256 as it was before NIST changed the padding.
func keccak(parts ...[]byte) (sum [32]byte) {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// address is an account.
type address [20]byte

// addressOf returns the address of a public key, 4 || x || y.
func addressOf(point []byte) (a address) {
	sum := keccak(point[1:])
	copy(a[:], sum[12:])
	return a
}

// String writes the address with the checksum of EIP-55: a letter is a capital where
// the same digit of the hash of the address's text is 8 or more.
func (a address) String() string {
	var text [42]byte
	copy(text[:], "0x")
	low := text[2:]
	hex.Encode(low, a[:])
	sum := keccak(low)
	for i, c := range low {
		if c >= 'a' && sum[i/2]>>(4*(1-i%2))&15 >= 8 {
			low[i] = c - 'a' + 'A'
		}
	}
	return string(text[:])
}

// created returns the address of the contract that an account creates with a nonce.
func created(by address, nonce uint64) (a address) {
	body := appendString(appendString(nil, by[:]), number(nonce))
	sum := keccak(appendList(nil, body))
	copy(a[:], sum[12:])
	return a
}

func hex0x(b []byte) string {
	out := make([]byte, 2+2*len(b))
	copy(out, "0x")
	hex.Encode(out[2:], b)
	return string(out)
}
