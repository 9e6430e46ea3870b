package hd

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
	"errors"
	"slices"
	"strings"
)

// english is the English list of BIP-39: 2048 words in order, one a line.
//
//go:embed english.txt
var english string

var (
	wordList  = strings.Fields(english)
	wordIndex = func() map[string]int {
		m := make(map[string]int, len(wordList))
		for i, w := range wordList {
			m[w] = i
		}
		return m
	}()
)

// The numbers of words that there can be: 32 bits of entropy and one of checksum are
// three words.
const (
	minWords = 12
	maxWords = 24
)

var (
	errWords      = errors.New("it is not 12, 15, 18, 21 or 24 words of the English list of BIP-39, in lower case")
	errChecksum   = errors.New("the checksum in the last word is wrong: a word is wrong or out of order")
	errPassphrase = errors.New("the passphrase has other characters than those of ASCII that can be printed")
)

// SeedOfWords returns the seed of 64 bytes that words of BIP-39 and a passphrase, ""
// for none, stand for. White space between the words may be of any kind. A passphrase
// is printable ASCII, where the normal form that BIP-39 asks for changes nothing. The
// caller wipes the seed.
func SeedOfWords(text, passphrase []byte) ([]byte, error) {
	words := strings.Fields(string(text))
	indexes := make([]int, len(words))
	for i, w := range words {
		n, ok := wordIndex[w]
		if !ok {
			return nil, errWords
		}
		indexes[i] = n
	}
	if len(words) < minWords || len(words) > maxWords || len(words)%3 != 0 {
		return nil, errWords
	}
	if !goodWords(indexes) {
		return nil, errChecksum
	}
	for _, c := range passphrase {
		if c < 0x20 || c > 0x7e {
			return nil, errPassphrase
		}
	}
	return pbkdf2.Key(sha512.New, strings.Join(words, " "), []byte("mnemonic"+string(passphrase)), 2048, 64)
}

// goodWords reports whether the checksum in words, by their places in the list, is
// right. There are 12, 15, 18, 21 or 24.
func goodWords(indexes []int) bool {
	// 11 bits a word: the entropy, and a bit of its digest for each 32 bits of it.
	bits := make([]byte, 0, maxWords*11/8+1)
	acc, n := 0, 0
	for _, w := range indexes {
		acc, n = acc<<11|w, n+11
		for ; n >= 8; n -= 8 {
			bits = append(bits, byte(acc>>(n-8)))
		}
		acc &= 1<<n - 1
	}
	if n > 0 {
		bits = append(bits, byte(acc<<(8-n)))
	}
	defer clear(bits)
	entropy, check := len(indexes)/3*4, len(indexes)/3
	sum := sha256.Sum256(bits[:entropy])
	mask := byte(0xff) << (8 - check)
	return bits[entropy]&mask == sum[0]&mask
}

// HoldsSecret reports whether data, of any kind, holds a private key as Bitcoin's
// wallets write it: an extended private key, a key in WIF, or words of BIP-39 whose
// checksum is right.
func HoldsSecret(data []byte) bool {
	return holdsBase58(data) || holdsWords(data)
}

const base58Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

var isBase58 = func() (t [256]bool) {
	for _, c := range base58Alphabet {
		t[c] = true
	}
	return t
}()

// holdsBase58 looks at the runs of letters and digits of the length that such keys
// have. An extended private key counts with a wrong checksum too: a slip of the pen
// does not make it public.
func holdsBase58(data []byte) bool {
	for i := 0; i < len(data); i++ {
		if !isBase58[data[i]] {
			continue
		}
		from := i
		for i < len(data) && isBase58[data[i]] {
			i++
		}
		run := data[from:i]
		switch {
		case len(run) == 51 || len(run) == 52:
			// Of an uncompressed public key, compressed; of the test networks.
			if strings.IndexByte("5KL9c", run[0]) >= 0 {
				if b, ok := decode58(string(run)); ok {
					clear(b)
					return true
				}
			}
		case len(run) >= 107 && len(run) <= 112:
			if slices.Contains([]string{"xprv", "tprv", "yprv", "zprv", "uprv", "vprv"}, string(run[:4])) {
				return true
			}
		}
	}
	return false
}

// prefixes holds the first four letters of each word, which tell the words apart, as
// 20 bits.
var prefixes = func() *[1 << 20 / 8]byte {
	var t [1 << 20 / 8]byte
	for _, w := range wordList {
		p := prefixOf([]byte(w))
		t[p/8] |= 1 << (p % 8)
	}
	return &t
}()

func prefixOf(w []byte) (p int) {
	for i := range 4 {
		p <<= 5
		if i < len(w) {
			p |= int(w[i] & 31)
		}
	}
	return p
}

// maxBetween is how many bytes may lie between two words: a blank, a line break, or
// what stands between the strings of a list.
const maxBetween = 6

// holdsWords looks for words that follow each other, whatever stands between them.
func holdsWords(data []byte) bool {
	var found []int // the words that end here, by their places in the list
	last := 0       // where the one before ended
	for i := 0; i < len(data); i++ {
		if !isLetter(data[i]) {
			continue
		}
		from := i
		for i < len(data) && isLetter(data[i]) {
			i++
		}
		w := data[from:i]
		if from-last > maxBetween {
			found = found[:0]
		}
		last = i
		n, ok := wordOf(w)
		if !ok {
			found = found[:0]
			continue
		}
		found = append(found, n)
		for k := minWords; k <= min(maxWords, len(found)); k += 3 {
			if goodWords(found[len(found)-k:]) {
				return true
			}
		}
		if len(found) > 2*maxWords {
			found = append(found[:0], found[len(found)-maxWords:]...)
		}
	}
	return false
}

func isLetter(c byte) bool { c |= 0x20; return 'a' <= c && c <= 'z' }

// wordOf finds a word in the list, in either case.
func wordOf(w []byte) (int, bool) {
	if len(w) < 3 || len(w) > 8 {
		return 0, false
	}
	if p := prefixOf(w); prefixes[p/8]&(1<<(p%8)) == 0 {
		return 0, false
	}
	n, ok := wordIndex[strings.ToLower(string(w))]
	return n, ok
}
