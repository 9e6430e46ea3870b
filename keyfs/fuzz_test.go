package keyfs_test

import (
	"bytes"
	"testing"

	"signdrop/keyfs"
)

// Whatever is accepted is written again with the same bytes.

func FuzzParseKey(f *testing.F) {
	for _, c := range allCurves {
		_, key := sampleFiles(f, c)
		f.Add(key)
		f.Add(key[:len(key)-10])
		f.Add(append(key, '\n'))
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		again, err := keyfs.Reencode(text)
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("parsed\n%s\nwhich is written\n%s", text, again)
		}
	})
}

// FuzzParseKeyDER is FuzzParseKey below the PEM, where most mutations fail.
func FuzzParseKeyDER(f *testing.F) {
	for _, c := range allCurves {
		_, key := sampleFiles(f, c)
		f.Add(fromPEM(f, key))
	}
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		text := toPEM("PRIVATE KEY", der)
		again, err := keyfs.Reencode(text)
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("parsed %x, which is written %x", der, fromPEM(t, again))
		}
	})
}

func FuzzParseWallet(f *testing.F) {
	for _, c := range allCurves {
		wallet, _ := sampleFiles(f, c)
		f.Add(wallet)
		f.Add(bytes.Replace(wallet, []byte(`"active"`), []byte(`"disabled",`+"\n"+`  "address": "MT1"`), 1))
		f.Add(bytes.Replace(wallet, []byte(`"status"`), []byte(`"Status"`), 1))
	}
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		again, err := keyfs.ReencodeWallet(text)
		if err == nil && !bytes.Equal(again, text) {
			t.Errorf("parsed\n%s\nwhich is written\n%s", text, again)
		}
	})
}

// sampleFiles returns the files of a wallet W_1 whose key is always the same.
func sampleFiles(t testing.TB, c keyfs.Curve) (wallet, key []byte) {
	t.Helper()
	size := map[keyfs.Curve]int{keyfs.P256: 32, keyfs.P384: 48, keyfs.P521: 66, keyfs.Secp256k1: 32}[c]
	scalar := make([]byte, size)
	for i := 1; i < size; i++ {
		scalar[i] = byte(i)
	}
	wallet, key, err := keyfs.KeyFiles("W_1", c, scalar)
	must(t, err)
	return wallet, key
}
